"""Coalescing: equal calls in flight share one call upstream, and nobody's leaving harms the others."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from worlds import USAGE, Answer, Chunks, Fake, World, answer, chat, chunks_of, decisions, settled, virtual, world

from negawatt.errors import NegawattError, UpstreamBroken, UpstreamConnectError, UpstreamStatus

ONLY = {"exact_cache": {"mode": "off"}, "retry": {"attempts": 1}}
SAID = "an answer that is long enough to be streamed in quite a few chunks"


def start(w: World, request: dict[str, Any] | None = None, **hints: str | None) -> asyncio.Task[Answer]:
    return asyncio.ensure_future(w.ask(request, **hints))


async def ended(*tasks: asyncio.Task[Answer]) -> list[Any]:
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await settled()
    return found


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
    "grounded": {"needs_corpus_version": True},
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


# -- leaving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.05, 2.0])
@virtual
async def test_the_leaders_hang_up_leaves_the_followers_alone(stream: bool, at: float):
    """At once, before the answer, at its first chunk, in its middle."""
    async with world(Fake(SAID, delay_s=1.0 if stream else 3.0), levers=ONLY) as w:
        leader = start(w, chat(stream=stream))
        await settled()
        followers = [start(w, chat(stream=s)) for s in (stream, stream, not stream)]
        await asyncio.sleep(at)
        leader.cancel()
        gone, *found = await ended(leader, *followers)
        assert isinstance(gone, asyncio.CancelledError)
        assert [a.text for a in found] == [SAID] * 3
        assert (w.calls, w.provider.cancelled) == (1, 0)
        assert no_flight_left(w)
        row = next(row for row in w.rows() if row.ending in ("abandoned", "cancelled"))
        assert row.attempts == 1 and row.cost_pusd, "the call upstream is on the first one's row, gone or not"


@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_followers_may_leave_too(stream: bool):
    """One after the other; the last one still gets everything."""
    async with world(Fake(SAID, delay_s=2), levers=ONLY) as w:
        tasks = [start(w, chat(stream=stream)) for _ in range(6)]
        for i, task in enumerate(tasks[:5]):
            await asyncio.sleep(0.3 + 0.2 * i)
            task.cancel()
        found = await ended(*tasks)
        assert found[-1].text == SAID
        assert w.calls == 1
        assert len(w.rows()) == 6


@pytest.mark.parametrize("count", [1, 3])
@virtual
async def test_the_last_who_leaves_cancels_the_call_upstream(count: int):
    """Before the answer has begun: nobody wants it any more, so nobody pays for the rest."""
    async with world(levers=ONLY) as w:
        tasks = [start(w) for _ in range(count)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await ended(*tasks)
        assert w.provider.cancelled == 1
        assert no_flight_left(w)
        assert [row.ending for row in w.rows()] == ["abandoned"] * count
        assert (await w.ask()).by == "provider"


@pytest.mark.parametrize("count", [1, 3])
@virtual
async def test_the_last_who_leaves_ends_the_stream(count: int):
    """In the middle of the answer: the provider's stream is closed at once."""
    async with world(Fake(SAID), levers=ONLY) as w:
        tasks = [start(w, chat(stream=True)) for _ in range(count)]
        await asyncio.sleep(1.35)
        for i, task in enumerate(tasks):
            assert w.provider.sources[0].closed == 0, f"{i} of {count} have left"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await settled()
        assert w.provider.sources[0].closed == 1
        assert no_flight_left(w)
        assert sorted(row.ending for row in w.rows()) == ["cancelled"] * count
        (payer,) = [row for row in w.rows() if row.attempts]
        assert payer.usage_basis == "estimated", "what had come by then is counted here"


@virtual
async def test_leaving_at_the_very_moment_of_arrival_leaves_nothing_open():
    """The answer and the hang-up cross."""
    for stream in (False, True):
        for steps in range(8):
            async with world(levers=ONLY) as w:
                tasks = [start(w, chat(stream=stream)) for _ in range(2)]
                await asyncio.sleep(1.0)
                for _ in range(steps):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await ended(*tasks)
                assert no_flight_left(w)
                assert len(w.rows()) == 2
                assert all(source.closed for source in w.provider.sources)


@virtual
async def test_one_who_joins_after_the_leader_left_still_shares():
    """As long as somebody is aboard."""
    async with world(Fake(SAID), levers=ONLY) as w:
        leader, follower = start(w, chat(stream=True)), start(w, chat(stream=True))
        await asyncio.sleep(1.25)
        leader.cancel()
        await settled()
        late = start(w, chat(stream=True))
        found = await ended(follower, late)
        assert [a.text for a in found] == [SAID] * 2
        assert w.calls == 1


# -- joining late --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0.3, 1.0, 1.15, 2.0, 3.3])
@virtual
async def test_a_late_joiner_gets_the_stream_from_its_start(at: float):
    """Every chunk, in order, the same as the first caller's; what is there already comes at once."""
    async with world(Fake(SAID), levers=ONLY) as w:
        first = start(w, chat(stream=True))
        await asyncio.sleep(at)
        late, whole = start(w, chat(stream=True)), start(w)
        one, other, folded = await ended(first, late, whole)
        assert w.calls == 1
        assert other.chunks == one.chunks
        assert other.streamed_text == folded.text == SAID
        assert folded.data == one.data


@virtual
async def test_a_stream_too_long_to_be_kept_is_not_joined_late():
    """Beyond `max_buffer_bytes` a newcomer asks for themselves; those aboard read on to the end."""
    levers = {**ONLY, "coalesce": {"max_buffer_bytes": 2_000}}
    async with world(Fake("x" * 200), levers=levers) as w:
        aboard = [start(w, chat(stream=True)) for _ in range(3)]
        await asyncio.sleep(6)
        late = start(w, chat(stream=True))
        found = await ended(*aboard, late)
        assert {a.streamed_text for a in found} == {"x" * 200}
        assert w.calls == 2


@virtual
async def test_a_reader_who_stands_still_does_not_hold_the_others_up():
    """They read on; the slow one loses its place when it is too far behind, with an error that says so."""
    levers = {**ONLY, "coalesce": {"max_buffer_bytes": 500}}
    async with world(Fake("x" * 400, every_s=0.01), levers=levers) as w:
        quick = start(w, chat(stream=True))
        call = w.call(chat(stream=True))
        slow = await w.gateway.handle(call)
        await slow.__anext__()
        (found,) = await ended(quick)
        assert found.streamed_text == "x" * 400
        with pytest.raises(UpstreamBroken, match="so far behind"):
            async for _ in slow:
                pass
        await slow.close()
        await settled()
        assert sorted(row.ending for row in w.rows()) == ["coalesced", "upstream_broken"]


# -- failing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [UpstreamStatus(400, b"{}", {}), UpstreamConnectError("refused"), ValueError("bug")])
@virtual
async def test_an_error_reaches_all(error: Exception, stream: bool):
    """The same for everyone, once upstream; the next caller asks anew."""
    async with world(levers=ONLY) as w:
        w.provider.script = [error]
        found = await ended(*(start(w, chat(stream=stream)) for _ in range(5)))
        assert all(one is error for one in found)
        assert w.calls == 1
        assert no_flight_left(w)
        ending = "upstream_error" if isinstance(error, NegawattError) else "failed"
        assert [row.ending for row in w.rows()] == [ending] * 5
        assert (await w.ask()).by == "provider"


@pytest.mark.parametrize("then", [UpstreamBroken("gone"), None])
@virtual
async def test_a_stream_that_breaks_breaks_for_all(then: Exception | None):
    """Those who came late, too, after everything that had come by then."""
    told = chunks_of(answer(SAID))[:10]
    async with world(levers=ONLY) as w:
        w.provider.script = [Chunks(told, every_s=0.1, then=then)]
        tasks = [start(w, chat(stream=True)), start(w), start(w, chat(stream=True))]
        await asyncio.sleep(1.5)
        tasks.append(start(w, chat(stream=True)))
        found = await ended(*tasks)
        assert all(isinstance(one, UpstreamBroken) for one in found), found
        assert w.calls == 1
        assert no_flight_left(w)
        assert {row.ending for row in w.rows()} == {"upstream_broken"}


@virtual
async def test_the_leaders_deadline_is_its_own():
    """It ends the leader's call, not that of the others."""
    async with world(Fake(SAID, delay_s=5), levers=ONLY) as w:
        leader = start(w, deadline_ms="1000")
        await settled()
        follower = start(w)
        gone, found = await ended(leader, follower)
        assert type(gone).__name__ == "DeadlineExceeded"
        assert found.text == SAID
        assert sorted(row.ending for row in w.rows()) == ["coalesced", "deadline"]


@virtual
async def test_a_shared_answer_is_stored_once():
    """Of all those who shared it, one stores it; the next call is a hit."""
    async with world() as w:
        puts = 0
        put = w.gateway.store.put

        async def counting(*args: Any, **kwargs: Any) -> None:
            nonlocal puts
            puts += 1
            await put(*args, **kwargs)

        w.gateway.store.put = counting  # type: ignore[method-assign]
        await ended(*(start(w) for _ in range(50)))
        assert puts == 1
        assert (await w.ask()).by == "exact_cache"


@virtual
async def test_an_answer_whose_leader_left_is_still_stored():
    """By a follower, with what it used and where it came from."""
    for stream in (False, True):
        async with world(Fake(SAID)) as w:
            leader, follower = start(w, chat(stream=stream)), start(w, chat(stream=stream))
            await asyncio.sleep(0.5)
            leader.cancel()
            await ended(leader, follower)
            await w.ask()
            assert w.calls == 1
            hit = next(row for row in w.rows() if row.ending == "cached")
            assert hit.baseline_output_tokens == USAGE["completion_tokens"]
            assert hit.baseline_cost_pusd
