"""Coalescing: equal calls in flight share one call upstream, within a tenant and its permissions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from worlds import ONLY, SAID, USAGE, Fake, World, chat, decisions, ended, start, virtual, world


def no_flight_left(w: World) -> bool:
    lever = next(step.lever for step in w.gateway.pipeline._steps if step.name == "coalesce")
    return not lever._flights  # type: ignore[attr-defined]


# -- one call upstream ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("how", ["whole", "streamed", "mixed"])
@virtual
async def test_a_thousand_equal_calls_make_one_upstream_call(how: str, cache: str):
    """Whole, streamed, or both at once; everyone gets all of the answer."""
    async with world(Fake(SAID), levers={**ONLY, "exact_cache": {"mode": cache}}) as w:
        streams = {"whole": [False], "streamed": [True], "mixed": [True, False, False]}[how]
        found = await ended(*(start(w, chat(stream=streams[i % len(streams)])) for i in range(1_000)))
        assert w.calls == 1
        assert {a.text for a in found} == {SAID}
        assert {a.streamed_text for a in found if a.chunks} <= {SAID}
        assert [a.by for a in found] == ["provider"] + ["coalesce"] * 999
        assert len({row.id for row in w.rows()}) == 1_000
        assert no_flight_left(w)


@virtual
async def test_only_one_caller_pays():
    """The first one's row bears the cost; the others' say what was spared them, and that they waited."""
    for stream in (False, True):
        async with world(Fake(SAID, delay_s=2), levers=ONLY) as w:
            await ended(*(start(w, chat(stream=stream)) for _ in range(5)))
            payer, *others = sorted(w.rows(), key=lambda row: row.ending)
            assert payer.ending == "answered"
            assert payer.cost_pusd is not None and payer.cost_pusd > 0
            assert payer.attempts == 1
            for row in others:
                assert (row.ending, row.cache, row.attempts, row.cost_pusd) == ("coalesced", "coalesced", 0, 0)
                assert (row.input_tokens, row.energy_j) == (0, 0)
                assert row.baseline_cost_pusd == payer.cost_pusd
                assert row.baseline_energy_j == payer.energy_j
                assert row.baseline_output_tokens == USAGE["completion_tokens"]
                assert row.queue_s == pytest.approx(row.duration_s)
                assert row.queue_s == pytest.approx(payer.upstream_s), "to the last chunk, they waited for the provider"
            assert sum(row.cost_pusd or 0 for row in w.rows()) == payer.cost_pusd


@virtual
async def test_calls_that_are_not_equal_do_not_share():
    """Another question, another model, another seed."""
    async with world(levers=ONLY) as w:
        requests = [chat("a"), chat("b"), chat("a", model="gpt-4o"), chat("a", seed=1), chat("a", max_tokens=5)]
        await ended(*(start(w, request) for request in requests * 2))
        assert w.calls == 5


@virtual
async def test_a_call_after_the_flight_asks_again():
    """It shares what is under way, it is no cache."""
    async with world(levers=ONLY) as w:
        for stream in (False, True):
            await ended(start(w, chat(stream=stream)), start(w, chat(stream=stream)))
            await ended(start(w, chat(stream=stream)))
        assert w.calls == 4


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({"temperature": 0}, True),
        ({"temperature": None}, True),
        ({"temperature": 0.7}, False),
        ({"temperature": 1}, False),
        ({"n": 2}, False),
        ({"n": 1}, True),
    ],
)
@virtual
async def test_sampled_calls_do_not_share(fields: dict[str, Any], shared: bool):
    """Who asks for draws gets draws of their own; who says nothing about it may share."""
    async with world(levers=ONLY) as w:
        await ended(*(start(w, chat(**fields)) for _ in range(3)))
        assert w.calls == (1 if shared else 3)
        reasons = {d.get("reason") for row in w.rows() for d in decisions(row, "coalesce") if d["action"] == "bypass"}
        assert reasons == (set() if shared else {"the caller asked for draws of its own"})


CLASSES = {
    "always": {"cache": "always"}, "never": {"cache": "never"}, "personal": {"personal": True},
    "grounded": {"needs": ["corpus_version"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("hints", "temperature", "shared"),
    [
        ({"request_class": "always"}, 1, True),
        ({"request_class": "never"}, 0, False),
        ({"request_class": "personal"}, 0, False),
        ({"request_class": "personal", "user": "alice"}, 0, True),
        ({"request_class": "grounded"}, 0, False),
        ({"request_class": "grounded", "corpus_version": "3"}, 0, True),
        ({"cache_control": "no-cache"}, 0, False),
        ({"cache_control": "No-Store"}, 0, False),
        ({"cache_control": "max-age=60"}, 0, True),
    ],
)
@virtual
async def test_policies_say_who_may_share(hints: dict[str, str], temperature: float, shared: bool):
    """The class's, and the caller's own wish for an answer of their own."""
    async with world(levers=ONLY, classes=CLASSES) as w:
        await ended(*(start(w, chat(temperature=temperature), **hints) for _ in range(3)))
        assert w.calls == (1 if shared else 3)


@pytest.mark.parametrize(
    ("when", "temperature", "shared"),
    [("never", 0, False), ("always", 1, True), ("deterministic", None, False), ("deterministic", 0, True)],
)
@virtual
async def test_the_lever_has_its_policy(when: str, temperature: float | None, shared: bool):
    """For all classes."""
    async with world(levers={**ONLY, "coalesce": {"when": when}}) as w:
        await ended(*(start(w, chat(temperature=temperature)) for _ in range(3)))
        assert w.calls == (1 if shared else 3)


# -- never across --------------------------------------------------------------------------------------------------

KEYS = {
    "keys": [
        {"id": f"{tenant}-{right}", "key_env": f"KEY_{tenant}_{right}", "tenant": tenant, "permissions": rights}
        for tenant in ("a", "b")
        for right, rights in (("none", []), ("x", ["x"]))
    ]
}
ENVIRON = {key["key_env"]: f"secret {key['id']}" for key in KEYS["keys"]}


@virtual
async def test_tenants_and_permissions_never_share():
    """All combinations at once, each twice: one call upstream for each, and each gets the answer of its own."""

    class Telling(Fake):
        async def ask(self, call: Any, target: Any) -> Any:
            self.said = repr(call.scope)
            return await super().ask(call, target)

    callers = [
        {"key": key, "permissions": permissions, "corpus_version": corpus, "prompt_version": prompt}
        for key, permissions, corpus, prompt in itertools.product(
            ENVIRON.values(), (None, "p", "q"), (None, "1"), (None, "1")
        )
    ]
    for stream in (False, True):
        async with world(Telling(), environ=ENVIRON, levers=ONLY, **KEYS) as w:
            tasks = [start(w, chat(stream=stream), **caller) for caller in callers * 2]
            found = await ended(*tasks)
            assert w.calls == len(callers) == 48
            texts = [a.text for a in found]
            assert len(set(texts)) == 48
            assert texts[:48] == texts[48:]


@virtual
async def test_who_boards_in_the_moment_of_arrival_gets_all_of_it():
    """Between the answer's being there and the flight's being told so, nobody is left without."""
    from worlds import Chunks, answer, bare_call, chunks_of, settled

    from negawatt.levers.coalesce import Flight
    from negawatt.reply import Reply
    from negawatt.wire.chat import CHAT

    async def forward(_: Any) -> Reply:
        return Reply(CHAT, source=Chunks(chunks_of(answer(SAID))))

    flight = Flight(bare_call(chat(stream=True)), 1_000_000)
    flight.on_over = lambda: None
    flight.take_off(forward)
    assert flight._task is not None
    flight._task.remove_done_callback(flight._arrived)  # as if it had not been called yet
    await settled()
    assert flight._task.done()
    reply = await flight.board()
    await reply.whole()
    assert CHAT.text_of(reply.data) == SAID
    await reply.close()
