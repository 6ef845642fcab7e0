"""Who watches a request's caller while it is answered: they may hang up, or never send it whole."""

from __future__ import annotations

import asyncio

from negawatt.deadline import Alarms
from negawatt.errors import RequestTimeout
from negawatt.http_head import Receive

# How long an answer may take before we look whether its caller is still there. Looking costs a task; most hits and
# quick answers are done by then.
_WATCH_AFTER_S = 0.02


class Guard:
    """Cancels the task that answers when its caller hangs up, or does not send their request in time.

    One alarm for both, and usually nothing more: quick answers are over before it rings. As a context manager it
    also says what came of that: `RequestTimeout`, or nothing more where nobody is there to hear it.
    """

    __slots__ = ("_alarm", "_alarms", "_body_timeout_s", "_looking", "_receive", "_task", "gone", "rang", "reading")

    def __init__(self, receive: Receive, alarms: Alarms, body_timeout_s: float) -> None:
        self._receive = receive
        self._alarms = alarms
        self._body_timeout_s = body_timeout_s
        self._task = alarms.current_task()
        self._looking: asyncio.Task[None] | None = None
        self._alarm = alarms.set(alarms.now() + _WATCH_AFTER_S, self._wake)
        self.reading = True
        self.gone = False  # the caller hung up
        self.rang = False  # the task was cancelled from here

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        self.stop()
        if not self.rang or kind is not asyncio.CancelledError:
            return False
        self.forgive()
        if not self.gone:
            raise RequestTimeout(f"the request's body did not arrive within {self._body_timeout_s:g} s") from None
        return True

    def _wake(self) -> None:
        if not self.reading:
            self._looking = asyncio.ensure_future(self._look())
        else:
            self._alarm = self._alarms.set(self._alarms.now() + self._body_timeout_s, self._late)

    def _late(self) -> None:
        if self.reading:
            self._ring()
        else:
            self._wake()

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._ring()

    def _ring(self) -> None:
        self.rang = True
        if self._task is not None:
            self._task.cancel()

    def forgive(self) -> None:
        """The cancelling has been dealt with."""
        if self._task is not None:
            self._task.uncancel()

    def stop(self) -> None:
        self._alarms.drop(self._alarm)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None  # its end holds the frame that holds this
