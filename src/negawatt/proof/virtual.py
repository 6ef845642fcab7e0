"""Virtual time: an event loop on which waiting costs nothing.

Whenever nothing is ready to run, the clock jumps to the next moment at which something will be. Everything that
waits through asyncio (sleeps, timeouts, deadlines) does so in virtual time, unchanged; so a day of traffic is
replayed in seconds, and in the same order every time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_STUCK_S = 60.0  # of real time, waiting for a thread or a socket


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is virtual seconds from 0."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting, moves its loop's clock on."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:  # only a thread can go on
            ready = super().select(_STUCK_S)
            if not ready:
                raise RuntimeError("the replay waits for something that will not happen")
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.jump(timeout)
        return ready


class VirtualClock:
    """A `negawatt.clock.Clock` that goes with a virtual loop; *epoch* is the UTC time of its 0."""

    def __init__(self, loop: VirtualLoop, epoch: float) -> None:
        self._loop = loop
        self._epoch = epoch

    def time(self) -> float:
        return self._epoch + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()


def run(main: Coroutine[Any, Any, _T], loop: VirtualLoop) -> _T:
    """Run *main* on *loop* to its end, and close the loop."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
