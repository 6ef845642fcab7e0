"""Alerts as lines of the log ``negawatt.alerts``."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from negawatt.watch.alert import Alert

log = logging.getLogger("negawatt.alerts")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


class LogSender:
    """Writes alerts. *events* False: not those that whoever raised them has written already."""

    repeat_s = None

    def __init__(self, *, events: bool = True) -> None:
        self._events = events

    async def send(self, alerts: Sequence[Alert], now: float) -> str:
        for alert in alerts:
            if self._events or not alert.event:
                level = logging.INFO if alert.state == "resolved" else _LEVELS[alert.severity]
                log.log(level, "%s: %s", alert.title, alert.message)
        return "written"
