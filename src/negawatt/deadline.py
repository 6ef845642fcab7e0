"""Deadlines: thousands of them behind one timer of the event loop.

A timer of its own for each call costs as much as looking into the cache does. Here they wait in slots of 10 ms (of a
second, when they are far off), and the loop has one timer for the next slot that is taken: setting a deadline and
dropping it again are dict and set operations. A deadline is kept to the next full slot, never early.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from negawatt.errors import DeadlineExceeded, NegawattError

_T = TypeVar("_T")
_PER_SECOND = 100
_FAR_S = 10.0


class Alarm:
    """Something to be done at a time, unless it is dropped before."""

    __slots__ = ("ring", "slot")

    def __init__(self, ring: Callable[[], None], slot: int) -> None:
        self.ring: Callable[[], None] | None = ring
        self.slot = slot


class Alarms:
    """All alarms of one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, set[Alarm]] = {}
        self._order: list[int] = []  # a heap of the slots; emptied ones leave when their time comes
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def now(self) -> float:
        """Return the event-loop time."""
        return self._loop.time()

    def current_task(self) -> asyncio.Task[Any] | None:
        """Return the task that runs. Naming the loop spares asking for it, which costs a system call."""
        return asyncio.current_task(self._loop)

    def set(self, at: float, ring: Callable[[], None]) -> Alarm:
        """Have *ring* called at the event-loop time *at*."""
        slot = int(at * _PER_SECOND) + 1 if at - self._loop.time() < _FAR_S else (int(at) + 1) * _PER_SECOND
        alarm = Alarm(ring, slot)
        waiting = self._slots.get(slot)
        if waiting is None:
            self._slots[slot] = {alarm}
            heapq.heappush(self._order, slot)
            if self._timer is None or slot < self._timer_slot:
                self._wait_for(slot)
        else:
            waiting.add(alarm)
        return alarm

    def drop(self, alarm: Alarm) -> None:
        """Forget *alarm*; one that has rung is forgotten already."""
        waiting = self._slots.get(alarm.slot)
        if waiting is not None:
            waiting.discard(alarm)
        alarm.ring = None  # whom it would ring holds it: left so, the two would wait for the garbage collector

    def close(self) -> None:
        """Ring none of them any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()
        self._order.clear()

    def _wait_for(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = slot
        self._timer = self._loop.call_at(slot / _PER_SECOND, self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._loop.time() * _PER_SECOND + 0.5
        while self._order and (self._order[0] <= now or not self._slots[self._order[0]]):
            for alarm in self._slots.pop(heapq.heappop(self._order)):
                if alarm.ring is not None:
                    alarm.ring()
        if self._order:
            self._wait_for(self._order[0])


class Deadline:
    """A moment by which things have to be done: *at*, in event-loop time."""

    __slots__ = ("alarms", "at")

    def __init__(self, alarms: Alarms, seconds: float) -> None:
        self.alarms = alarms
        self.at = alarms.now() + seconds

    @property
    def left_s(self) -> float:
        """The seconds until then; negative afterwards."""
        return self.at - self.alarms.now()

    async def hold(self, work: Awaitable[_T], message: str, kind: type[NegawattError] = DeadlineExceeded) -> _T:
        """Return what *work* gives. Raises *kind* with *message* when that takes longer."""
        interruption = _Interruption(self.alarms.current_task())
        alarm = self.alarms.set(self.at, interruption.ring)
        try:
            return await work
        except asyncio.CancelledError as error:
            # The same rule as asyncio.timeout: if someone else cancelled the task as well, that counts.
            if interruption.rang and interruption.task is not None and interruption.task.uncancel() <= 0:
                raise kind(message) from error
            raise
        finally:
            self.alarms.drop(alarm)


class _Interruption:
    """Cancels a task, once, and remembers that it was the one who did."""

    __slots__ = ("rang", "task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.rang = False

    def ring(self) -> None:
        self.rang = True
        if self.task is not None:
            self.task.cancel()
