"""Alerts on their way to the sinks.

Nothing is queued. What each sink was last told of an alert is written beside the alert; where that differs from what is
so, there is something to tell. So a sink that was down hears the newest state once, nothing piles up, and a restart
goes on where it was. What cannot be delivered is tried again, after pauses that double up to a quarter of an hour. At
most one message to a sink is under way.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from negawatt.clock import Clock
from negawatt.config_watch import Alerts
from negawatt.watch.alert import Alert, Delivered, at_least
from negawatt.watch.sinks import MOST_AT_ONCE, Sink, SinkError

log = logging.getLogger(__name__)
_LONGEST_S = 900.0
_LAST_WORD_S = 2.0  # for what is under way when the gateway closes


class _Way:
    """The way to one sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.task: asyncio.Task[None] | None = None
        self.failures = 0  # in a row
        self.not_before = 0.0
        self.problem: str | None = None
        self.sent = 0
        self.failed = 0


class Delivery:
    """Tells the sinks. *told* is called for each alert whose deliveries have changed, *keep* when some have."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        settings: Alerts,
        clock: Clock,
        *,
        told: Callable[[Alert], None],
        keep: Callable[[], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._ways = [_Way(sink) for sink in sinks]
        self._settings = settings
        self._clock = clock
        self._told = told
        self._keep = keep
        self._rng = rng

    def owe(self, alert: Alert) -> None:
        """Note which sinks are to hear of *alert*, which begins to fire: they will, though it be over by then."""
        for way in self._ways:
            if way.sink.wants(alert):
                alert.delivered.setdefault(way.sink.name, Delivered("pending", alert.severity, 0.0))

    def start(self, alerts: Iterable[Alert]) -> None:
        """Begin to tell each sink what it has not heard of *alerts*, where nothing is under way to it."""
        now = self._clock.time()
        known = list(alerts)
        for way in self._ways:
            if (way.task is None or way.task.done()) and now >= way.not_before:
                due = [alert for alert in known if self._due(way.sink, alert, now)]
                if due:
                    way.task = asyncio.ensure_future(self._tell(way, due[:MOST_AT_ONCE]))

    def undelivered(self, alerts: Iterable[Alert]) -> dict[str, int]:
        """Return of each sink how many of *alerts* it has yet to hear of."""
        now, known = self._clock.time(), list(alerts)
        return {way.sink.name: sum(self._due(way.sink, one, now) for one in known) for way in self._ways}

    def counts(self) -> dict[str, tuple[int, int, str | None]]:
        """Return of each sink: messages sent, messages that failed, and the problem there is now."""
        return {way.sink.name: (way.sent, way.failed, way.problem) for way in self._ways}

    def _due(self, sink: Sink, alert: Alert, now: float) -> bool:
        last = alert.delivered.get(sink.name)
        if alert.state == "pending" or not (sink.wants(alert) or last is not None):
            return False
        if alert.state == "resolved":
            return last is not None and last.state != "resolved"
        if last is None or last.state != "firing":
            return True
        if last.severity != alert.severity and at_least(alert.severity, last.severity):
            return True
        again_s = sink.sender.repeat_s
        if again_s is None:
            again_s = self._settings.repeat_h * 3600
        if alert.event and sink.sender.repeat_s is None:
            again_s = max(again_s, self._settings.events_h * 3600)
            return alert.seen_at - last.at >= again_s  # only where it comes again
        return now - last.at >= again_s

    async def _tell(self, way: _Way, alerts: list[Alert]) -> None:
        now = self._clock.time()
        as_sent = [msgspec.structs.replace(alert) for alert in alerts]
        try:
            await way.sink.sender.send(as_sent, now)
        except SinkError as error:
            self._failed(way, error.message)
            return
        except Exception as error:  # whatever it is, the next look tries again, and says so
            log.exception("sink %s", way.sink.name)
            self._failed(way, type(error).__name__)
            return
        if way.problem is not None:
            log.info("sink %s takes alerts again", way.sink.name)
        way.sent, way.failures, way.problem, way.not_before = way.sent + 1, 0, None, 0.0
        for alert, sent in zip(alerts, as_sent, strict=True):
            alert.delivered[way.sink.name] = Delivered(sent.state, sent.severity, now)
            self._told(alert)
        await self._keep()

    def _failed(self, way: _Way, problem: str) -> None:
        pause_s = min(_LONGEST_S, self._settings.every_s * 2.0**way.failures) * self._rng.uniform(0.75, 1.0)
        way.failures, way.failed, way.problem = min(way.failures + 1, 30), way.failed + 1, problem
        way.not_before = self._clock.time() + pause_s
        log.warning("sink %s did not take alerts: %s; again in %.0f s", way.sink.name, problem, pause_s)

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        tasks = [way.task for way in self._ways if way.task is not None and not way.task.done()]
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Give what is under way a moment; what does not arrive is told after the next start."""
        tasks = [way.task for way in self._ways if way.task is not None and not way.task.done()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST_WORD_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
