"""Doing something until a deadline: `asyncio.timeout` at a quarter of its cost, for the path that every call takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from negawatt.errors import DeadlineExceeded, NegawattError

_T = TypeVar("_T")


class _Alarm:
    """Cancels a task, once, and remembers that it was the one who did."""

    __slots__ = ("rang", "task")

    def __init__(self) -> None:
        self.task = asyncio.current_task()
        self.rang = False

    def ring(self) -> None:
        self.rang = True
        if self.task is not None:
            self.task.cancel()


async def until(deadline: float, work: Awaitable[_T], message: str, kind: type[NegawattError] = DeadlineExceeded) -> _T:
    """Return what *work* gives. Raises *kind* with *message* when it is not done by *deadline* (event-loop time)."""
    alarm = _Alarm()
    handle = asyncio.get_running_loop().call_at(deadline, alarm.ring)
    try:
        return await work
    except asyncio.CancelledError as error:
        # The same rule as asyncio.timeout: if someone else cancelled the task as well, that counts.
        if alarm.rang and alarm.task is not None and alarm.task.uncancel() <= 0:
            raise kind(message) from error
        raise
    finally:
        handle.cancel()
