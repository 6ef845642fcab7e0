"""Alerts to Prometheus' Alertmanager, by its API v2 (``POST /api/v2/alerts``).

Alertmanager forgets what it is not told of again, so a firing alert is sent every minute, each time with an end five
minutes ahead; one that is resolved is sent with its real end. It groups, silences and repeats by its own rules, by
the labels ``alertname``, ``severity``, ``about``, ``class``, ``owner``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from negawatt.watch.alert import Alert, iso
from negawatt.watch.sinks import Line

_PATH = "/api/v2/alerts"
_AHEAD_S = 300.0


class AlertmanagerSender:
    """Posts alerts to the Alertmanager whose address *line* has."""

    repeat_s = 60.0

    def __init__(self, line: Line, link: str | None) -> None:
        self._line = line
        self._link = link

    async def send(self, alerts: Sequence[Alert], now: float) -> str:
        return await self._line.send([posted(alert, now, self._link) for alert in alerts], _PATH)


def posted(alert: Alert, now: float, link: str | None) -> dict[str, Any]:
    """Return *alert* as a postableAlert. A label without a value is left out: Alertmanager takes it for none."""
    labels = {
        "alertname": f"negawatt_{alert.name}", "severity": alert.severity, "about": alert.about,
        "class": alert.request_class or "", "owner": alert.owner or "",
    }  # fmt: skip
    end = alert.resolved_at if alert.state == "resolved" else now + _AHEAD_S
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": alert.title, "description": alert.message},
        "startsAt": iso(alert.started_at),
        "endsAt": iso(end),
        **({} if link is None else {"generatorURL": link}),
    }
