"""Deadlines: kept, never early, and thousands of them behind one timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import virtual

from negawatt.deadline import Alarms, Deadline
from negawatt.errors import DeadlineExceeded, UpstreamTimeout
from negawatt.proof.virtual import VirtualLoop, run


def now() -> float:
    return asyncio.get_running_loop().time()


async def after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@virtual
async def test_what_is_done_in_time_is_given():
    """And the deadline leaves nothing behind."""
    alarms = Alarms()
    assert await Deadline(alarms, 5).hold(after(4.9), "late") == "done"
    await asyncio.sleep(10)
    assert alarms._order == []
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


@virtual
async def test_what_takes_too_long_is_cancelled():
    """At its time, with the message and kind of error that were asked for."""
    alarms = Alarms()
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(now())
            raise

    with pytest.raises(DeadlineExceeded, match="too late"):
        await Deadline(alarms, 5).hold(work(), "too late")
    assert 5 <= cancelled[0] <= 5.02
    with pytest.raises(UpstreamTimeout, match="silent"):
        await Deadline(alarms, 5).hold(work(), "silent", UpstreamTimeout)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    await asyncio.sleep(1)


@virtual
async def test_a_deadline_that_has_passed_ends_work_at_its_first_wait():
    """What need not wait is still done."""
    alarms = Alarms()
    deadline = Deadline(alarms, -1)
    assert deadline.left_s == -1

    async def at_once() -> int:
        return 7

    assert await deadline.hold(at_once(), "late") == 7
    with pytest.raises(DeadlineExceeded):
        await deadline.hold(after(1), "late")
    assert now() < 0.05


@virtual
async def test_one_deadline_holds_many_pieces_of_work():
    """One after the other, until it has passed: a stream is held burst by burst."""
    alarms = Alarms()
    deadline = Deadline(alarms, 3.5)
    for _ in range(3):
        assert await deadline.hold(after(1), "late") == "done"
    with pytest.raises(DeadlineExceeded):
        await deadline.hold(after(1), "late")
    assert deadline.left_s <= 0


@virtual
async def test_an_error_of_the_work_is_its_own():
    """It is passed on as it is."""

    async def failing() -> None:
        await asyncio.sleep(1)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await Deadline(Alarms(), 5).hold(failing(), "late")


@virtual
async def test_someone_else_s_cancelling_counts_as_such():
    """Before the deadline, and at the very same moment."""
    alarms = Alarms()
    for at in (1.0, 5.0, 5.01):
        task = asyncio.ensure_future(Deadline(alarms, 5).hold(after(100), "late"))
        await asyncio.sleep(at)
        cancelled = task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        if cancelled and at < 5.01:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert isinstance(result, (DeadlineExceeded, asyncio.CancelledError))


@virtual
async def test_work_that_ends_at_the_moment_of_its_deadline_has_one_ending():
    """Either its result or the error, and no cancelling that is left over."""
    alarms = Alarms()
    for seconds in (4.99, 5.0, 5.005, 5.01, 5.02):
        try:
            assert await Deadline(alarms, 5).hold(after(seconds), "late") == "done"
        except DeadlineExceeded:
            assert seconds >= 5.0
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        await asyncio.sleep(0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.001, 60), st.none() | st.floats(0, 40)), min_size=1, max_size=25)
)
def test_alarms_ring_once_in_time_and_never_early(plan: list[tuple[float, float, float | None]]):
    """Set at any time for any time, dropped or not: within 10 ms of their time, within a second of a far one."""

    async def main() -> None:
        alarms = Alarms()
        rung: dict[int, list[float]] = {i: [] for i in range(len(plan))}

        async def one(i: int, start: float, wait_s: float, drop_s: float | None) -> None:
            await asyncio.sleep(start)
            alarm = alarms.set(now() + wait_s, lambda: rung[i].append(now()))
            if drop_s is not None:
                await asyncio.sleep(drop_s)
                alarms.drop(alarm)
                alarms.drop(alarm)

        await asyncio.gather(*(one(i, *values) for i, values in enumerate(plan)))
        await asyncio.sleep(100)
        for i, (start, wait_s, drop_s) in enumerate(plan):
            at, slack = start + wait_s, 0.0101 if wait_s < 10 else 1.0001
            if drop_s is not None and drop_s < wait_s - 1e-6:
                assert rung[i] == []
            elif drop_s is None or drop_s > wait_s + slack:
                assert len(rung[i]) == 1
                assert at - 1e-6 <= rung[i][0] <= at + slack
        assert alarms._order == [] and alarms._slots == {}

    run(main(), VirtualLoop())


@virtual
async def test_thousands_of_deadlines_have_one_timer():
    """Setting and dropping them does not touch the event loop's own heap."""
    loop: Any = asyncio.get_running_loop()
    alarms = Alarms()
    before = len(loop._scheduled)
    kept = [alarms.set(now() + 5 + i / 10_000, lambda: None) for i in range(5_000)]
    assert len(loop._scheduled) <= before + 1
    for alarm in kept:
        alarms.drop(alarm)
    await asyncio.sleep(10)
    assert alarms._order == []


@virtual
async def test_an_earlier_alarm_overtakes_a_later_one():
    """The timer is moved forward."""
    alarms, rung = Alarms(), []
    for seconds in (5.0, 1.0, 3.0, 20.0):
        alarms.set(now() + seconds, lambda seconds=seconds: rung.append((seconds, now())))  # type: ignore[misc]
    await asyncio.sleep(30)
    assert [seconds for seconds, _ in rung] == [1.0, 3.0, 5.0, 20.0]


@virtual
async def test_an_alarm_may_set_another():
    """From within its ringing."""
    alarms, rung = Alarms(), []

    def again() -> None:
        rung.append(now())
        if len(rung) < 4:
            alarms.set(now() + 1, again)

    alarms.set(now() + 1, again)
    await asyncio.sleep(10)
    assert len(rung) == 4


@virtual
async def test_closed_alarms_ring_no_more():
    """At the gateway's end."""
    alarms, rung = Alarms(), []
    alarms.set(now() + 1, lambda: rung.append(1))
    alarms.close()
    await asyncio.sleep(5)
    assert rung == []
