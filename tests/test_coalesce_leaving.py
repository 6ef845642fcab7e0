"""Coalescing: who leaves, who joins late, and what fails leaves the others what is theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from worlds import (
    ONLY,
    SAID,
    USAGE,
    Chunks,
    Fake,
    World,
    answer,
    chat,
    chunks_of,
    ended,
    settled,
    start,
    virtual,
    world,
)

from negawatt.errors import NegawattError, UpstreamBroken, UpstreamConnectError, UpstreamStatus


def no_flight_left(w: World) -> bool:
    lever = next(step.lever for step in w.gateway.pipeline._steps if step.name == "coalesce")
    return not lever._flights  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("order", ["first to last", "last to first"])
@virtual
async def test_it_does_not_matter_who_was_reading_when_somebody_left(order: str):
    """Of those who wait for the next chunk, one reads for all: he may leave, and so may those who wait for him."""
    async with world(Fake(SAID), levers=ONLY) as w:
        tasks = [start(w, chat(stream=True)) for _ in range(5)]
        await asyncio.sleep(1.25)
        for task in tasks[:4] if order == "first to last" else tasks[:0:-1]:
            await asyncio.sleep(0.23)
            task.cancel()
        found = await ended(*tasks)
        stayed = found[4] if order == "first to last" else found[0]
        assert stayed.streamed_text == SAID
        assert w.calls == 1


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
