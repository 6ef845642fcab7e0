"""Lever modes, and the holdout, as properties of the pipeline."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import Chunks, Fake, answer, bare_call, chat, chunks_of, decisions, settled, virtual, world

from negawatt.call import Call
from negawatt.caller import Caller
from negawatt.errors import DeadlineExceeded, InvalidRequest, StoreError, UpstreamStatus
from negawatt.pipeline import Background, Handler, Pipeline, Step, bucket
from negawatt.reply import Reply
from negawatt.wire.chat import CHAT

MODES = ("off", "on", "shadow", "canary")


class Passing:
    """A lever that notes that it saw the call, and forwards it."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        call.note(self.name, "seen")
        return await forward(call)


async def provider(call: Call) -> Reply:
    return Reply(CHAT, body=orjson.dumps(answer()))


def pipeline(*steps: Step, class_modes: Any = None, terminal: Handler = provider) -> tuple[Pipeline, Background]:
    background = Background()
    return Pipeline(steps, terminal, class_modes=class_modes or {}, background=background), background


def seen(call: Call) -> dict[str, str]:
    return {decision.lever: decision.mode for decision in call.trail.decisions}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(MODES), st.booleans(), st.sampled_from([0.0, 1.0])), max_size=4),
    st.booleans(),
    st.dictionaries(st.sampled_from(["l0", "l1", "l2"]), st.sampled_from(MODES), max_size=3),
)
def test_each_lever_runs_as_its_mode_says(
    levers: list[tuple[Any, bool, float]], holdout: bool, own: dict[str, Any]
) -> None:
    """Off is left out, on and shadow note as such, canary goes by its share; a class's mode wins; holdout over all."""

    async def main() -> None:
        steps = [Step(f"l{i}", Passing(f"l{i}"), saves, mode, share) for i, (mode, saves, share) in enumerate(levers)]
        path, background = pipeline(*steps, class_modes={"faq": own})
        call = bare_call(request_class="faq", caller=Caller())
        call.trail.holdout = holdout
        reply = await path(call)
        await reply.close()
        await background.drain()
        expected = {}
        for i, (mode, saves, share) in enumerate(levers):
            mode = own.get(f"l{i}", mode)
            if mode == "canary":
                mode = "on" if share == 1 else "off"
            if mode != "off" and not (holdout and saves):
                expected[f"l{i}"] = mode
        assert seen(call) == expected

    asyncio.run(main())


async def test_levers_run_in_their_order():
    """From the first to the last, then the provider."""
    path, _ = pipeline(*[Step(f"l{i}", Passing(f"l{i}")) for i in range(4)])
    call = bare_call()
    await path(call)
    assert [decision.lever for decision in call.trail.decisions] == ["l0", "l1", "l2", "l3"]


# -- canary --------------------------------------------------------------------------------------------------------


def test_a_canary_takes_about_its_share_of_the_callers():
    """Over 2,000 callers, within a few standard deviations; and growing the share keeps those that were in."""
    calls = [bare_call(caller=Caller(tenant=f"t{i % 20}", user=f"u{i}")) for i in range(2_000)]
    places = [bucket(call, "exact_cache") for call in calls]
    assert all(0 <= place < 1 for place in places)
    for share in (0.01, 0.1, 0.5, 0.9):
        within = sum(place < share for place in places)
        assert abs(within - 2_000 * share) < 4 * (2_000 * share * (1 - share)) ** 0.5


STABLE = 0.664646


def test_a_callers_place_is_stable():
    """The same at every call and after every restart, whatever they ask; a literal value says so."""
    caller = Caller(tenant="acme", user="alice", key_id="k")
    places = {bucket(bare_call(chat(f"{i}"), caller=caller), "exact_cache") for i in range(20)}
    assert places == {bucket(bare_call(caller=Caller(tenant="acme", user="alice")), "exact_cache")}
    assert round(places.pop(), 6) == STABLE
    assert bucket(bare_call(caller=caller), "coalesce") != bucket(bare_call(caller=caller), "exact_cache")


async def test_a_canary_is_on_or_off_for_a_caller_for_good():
    """Not drawn anew for each call."""
    path, _ = pipeline(Step("l", Passing("l"), mode="canary", share=0.3))
    taken = 0
    for i in range(300):
        caller = Caller(user=f"u{i}")
        modes = []
        for _ in range(3):
            call = bare_call(caller=caller)
            await path(call)
            modes.append(seen(call))
        assert modes[0] == modes[1] == modes[2]
        taken += bool(modes[0])
    assert 60 <= taken <= 120


@virtual
async def test_a_canary_works_through_the_gateway():
    """About the share of the users gets cached answers; each of them always or never."""
    levers = {"exact_cache": {"mode": "canary", "share": 0.5}, "retry": {"attempts": 1}}
    async with world(Fake(delay_s=0), levers=levers) as w:
        hits = 0
        for i in range(60):
            by = [(await w.ask(chat(f"q{i}"), user=f"u{i}")).by for _ in range(3)]
            assert by in (["provider"] * 3, ["provider", "exact_cache", "exact_cache"])
            hits += by[1] == "exact_cache"
        assert 15 <= hits <= 45


# -- holdout -------------------------------------------------------------------------------------------------------


@virtual
async def test_the_holdout_passes_by_the_saving_levers_only():
    """No cache, no sharing; but retries are not a saving, and stay."""
    levers = {"retry": {"attempts": 3, "backoff_s": 0.01}}
    async with world(holdout={"share": 1.0}, levers=levers) as w:
        w.provider.script = [UpstreamStatus(503, b"", {})]
        await asyncio.gather(w.ask(), w.ask(), w.ask())
        await w.ask()
        assert w.calls == 5
        assert all(row.holdout and row.cache == "bypass" for row in w.rows())
        assert {d["lever"] for row in w.rows() for d in decisions(row)} == {"retry"}


@virtual
async def test_the_holdout_is_a_share_of_the_calls():
    """Drawn for each call, so that it is a fair control group; seeded, so that a replay draws it again."""
    async with world(Fake(delay_s=0), holdout={"share": 0.2}, seed=3) as w:
        for i in range(500):
            await w.ask(chat(f"{i}"))
        share = sum(row.holdout for row in w.rows()) / 500
        assert 0.14 < share < 0.26


@virtual
async def test_the_holdout_neither_reads_nor_feeds_the_cache():
    """An answer to a call of the control group is not kept."""
    async with world(holdout={"share": 1.0}) as w:
        await w.ask()
        assert (await w.gateway.store.stats()).entries == 0


# -- shadow --------------------------------------------------------------------------------------------------------

SHADOW = {
    "exact_cache": {"mode": "shadow"}, "coalesce": {"mode": "shadow"}, "retry": {"attempts": 1},
}  # fmt: skip
OFF = {"exact_cache": {"mode": "off"}, "coalesce": {"mode": "off"}, "retry": {"attempts": 1}}


@virtual
async def test_shadow_changes_nothing_of_the_replies():
    """Whole, streamed, repeated, at once, failing, cut off: callers get what they would get without the levers."""
    broken = chunks_of(answer("cut off"))[:3]
    requests = [chat("a"), chat("a", stream=True), chat("b"), chat("a"), chat("c", stream=True), chat("c")]

    async def through(levers: dict[str, Any]) -> tuple[list[Any], int, list[Any]]:
        provider = Fake(delay_s=0.5)
        provider.script = [answer("one"), answer("two"), UpstreamStatus(500, b"{}", {}), answer("four"),
                           Chunks(broken, every_s=0.1), answer("six")]  # fmt: skip
        async with world(provider, levers=levers) as w:
            found = await asyncio.gather(*(w.ask(r) for r in requests), return_exceptions=True)
            found += await asyncio.gather(*(w.ask(r) for r in requests), return_exceptions=True)
            await settled()
            said = [(a.data, a.chunks, a.by) if not isinstance(a, BaseException) else repr(a) for a in found]
            rows = [
                (r.ending, r.cost_pusd, r.baseline_cost_pusd, r.input_tokens, r.baseline_input_tokens, r.attempts,
                 round(r.duration_s, 9), r.queue_s, round(r.upstream_s, 9), r.cache, r.energy_j, r.baseline_energy_j)
                for r in w.rows()
            ]  # fmt: skip
            return said, w.calls, sorted(rows, key=repr)

    shadow, off = await through(SHADOW), await through(OFF)
    assert shadow[0] == off[0]
    assert shadow[1] == off[1] == 12
    assert shadow[2] == off[2], "nor of what the rows say beside the decisions"


@virtual
async def test_a_shadow_cache_says_what_it_would_have_saved():
    """Its hits are decisions in mode shadow, priced, and part of no sum."""
    async with world(levers=SHADOW) as w:
        for _ in range(2):
            await w.ask()
        await w.ask(chat(stream=True))
        first, second, third = w.rows()
        assert [d["action"] for d in decisions(first, "exact_cache")] == ["miss"]
        for row in (second, third):
            (hit,) = decisions(row, "exact_cache")
            assert (hit["action"], hit["mode"]) == ("hit", "shadow")
            assert hit["saved"]["cost_pusd"] == first.cost_pusd
            assert (row.cost_pusd, row.baseline_cost_pusd) == (first.cost_pusd, first.cost_pusd)
            assert (row.ending, row.cache) == ("answered", "bypass")


@virtual
async def test_a_shadow_coalesce_says_what_it_would_have_shared():
    """Each caller asks the provider for themselves; all but the first note what they would have spared."""
    levers = {**SHADOW, "exact_cache": {"mode": "off"}}
    async with world(levers=levers) as w:
        for stream in (False, True):
            await asyncio.gather(*(w.ask(chat(stream=stream)) for _ in range(4)))
        assert w.calls == 8
        shared = [d for row in w.rows() for d in decisions(row, "coalesce") if d["action"] == "shared"]
        assert len(shared) == 6
        assert all(d["mode"] == "shadow" and d["saved"]["output_tokens"] == 20 for d in shared)
        assert all(row.queue_s == 0 for row in w.rows()), "nobody waited on purpose"


@virtual
async def test_a_shadow_run_and_a_real_one_never_meet():
    """A caller for whom coalescing is on does not board the flight of one for whom it is only rehearsed."""
    classes = {"trial": {"levers": {"coalesce": "shadow"}}}
    for names in (("trial", None), (None, "trial")):
        async with world(levers={**OFF, "coalesce": {}}, classes=classes) as w:
            first = asyncio.ensure_future(w.ask(request_class=names[0]))
            await asyncio.sleep(0.5)
            second = asyncio.ensure_future(w.ask(request_class=names[1]))
            assert [one.by for one in await asyncio.gather(first, second)] == ["provider", "provider"]
            assert w.calls == 2
            shared = await asyncio.gather(*(w.ask(request_class=None) for _ in range(2)))
            assert [one.by for one in shared] == ["provider", "coalesce"]


@virtual
async def test_a_shadow_lever_that_fails_harms_nobody():
    """The call is answered and has its row; our own bug is logged, not swallowed."""

    class Failing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def __call__(self, call: Call, forward: Handler) -> Reply:
            raise self.error

    for error in (StoreError("x"), InvalidRequest("x"), ValueError("x")):
        path, background = pipeline(Step("l", Failing(error), mode="shadow"))
        call = bare_call()
        over: list[Any] = []
        call.trail.on_complete = over.append
        reply = await path(call)
        await reply.close()
        call.trail.end("answered")
        await settled()
        await background.drain()
        assert over == [call.trail]


@virtual
async def test_a_reply_that_is_over_at_once_still_has_its_row():
    """A caller who reads and closes before the shadow run has begun does not leave it waiting for ever."""
    path, _ = pipeline(Step("l", Passing("l"), mode="shadow"))
    call = bare_call()
    over: list[Any] = []
    call.trail.on_complete = over.append
    reply = await path(call)
    reply.settle()
    call.trail.end("answered")
    await settled()
    assert over == [call.trail]
    assert seen(call) == {"l": "shadow"}


@virtual
async def test_a_caller_who_leaves_ends_the_shadow_run_too():
    """Before the answer has begun, and in the middle of it."""
    for read in (False, True):
        async with world(levers=SHADOW) as w:
            call = w.call(chat(stream=True))
            task = asyncio.ensure_future(w.send(call))
            await asyncio.sleep(1.15 if read else 0.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await settled()
            (row,) = w.rows()
            assert row.ending == ("cancelled" if read else "abandoned")
            assert (await w.gateway.store.stats()).entries == 0


@virtual
async def test_a_failed_call_fails_the_same_in_shadow():
    """The error is the provider's, once."""
    async with world(levers=SHADOW) as w:
        w.provider.script = [UpstreamStatus(400, b"{}", {})]
        assert isinstance(await w.failing(), UpstreamStatus)
        await settled()
        assert [row.ending for row in w.rows()] == ["upstream_error"]


@virtual
async def test_a_class_has_modes_of_its_own():
    """A lever that is off for a class is off for it alone."""
    classes = {"fresh": {"levers": {"exact_cache": "off"}}, "trial": {"levers": {"exact_cache": "shadow"}}}
    async with world(Fake(delay_s=0), classes=classes) as w:
        for name in ("fresh", "trial", None):
            by = [(await w.ask(chat(f"{name}"), request_class=name)).by for _ in range(2)]
            assert by == ["provider", "exact_cache" if name is None else "provider"]


@pytest.mark.parametrize(
    ("configured", "asked", "expected"),
    [
        ("on", None, "on"), ("on", "on", "on"), ("on", "shadow", "shadow"), ("on", "off", "off"),
        ("shadow", "on", "shadow"), ("shadow", "off", "off"), ("off", "on", "off"), ("off", "shadow", "off"),
    ],
)  # fmt: skip
@virtual
async def test_a_caller_may_ask_for_less_but_never_for_more(configured: str, asked: str | None, expected: str):
    """`x-negawatt-mode` turns the saving levers down for one call; it cannot turn them up."""
    levers = {**OFF, "exact_cache": {"mode": configured}}
    async with world(Fake(delay_s=0), levers=levers) as w:
        for _ in range(2):
            await w.ask(mode=asked)
        second = w.rows()[1]
        actions = [(d["action"], d.get("mode", "on")) for d in decisions(second, "exact_cache")]
        assert actions == {"on": [("hit", "on")], "shadow": [("hit", "shadow")], "off": []}[expected]
        assert w.calls == (1 if expected == "on" else 2)


@virtual
async def test_an_unknown_mode_is_refused_by_name():
    """Rather than taken for another; so callers cannot fill the table of handlers either."""
    async with world() as w:
        error = await w.failing(mode="turbo")
        assert isinstance(error, InvalidRequest)
        assert error.param == "x-negawatt-mode"


# -- background ----------------------------------------------------------------------------------------------------


@virtual
async def test_background_work_is_finished_or_cancelled_before_the_end():
    """It is waited for, but not for ever."""
    background, done = Background(), []

    async def work(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            done.append(seconds)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise

    background.spawn(work(1))
    background.spawn(work(100))
    await background.drain(timeout_s=5)
    assert done == [1, "cancelled"]


@pytest.mark.parametrize("error", [DeadlineExceeded("x"), InvalidRequest("x"), asyncio.CancelledError()])
async def test_the_pipeline_passes_errors_on(error: BaseException):
    """As they are."""

    async def failing(call: Call) -> Reply:
        raise error

    for mode in ("on", "shadow"):
        path, background = pipeline(Step("l", Passing("l"), mode=mode), terminal=failing)
        with pytest.raises(type(error)):
            await path(bare_call())
        await background.drain()
