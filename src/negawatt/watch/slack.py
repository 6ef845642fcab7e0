"""Alerts in the form of Slack's incoming webhooks, which Mattermost, Rocket.Chat and others take as well.

``text`` is what notifications show; ``blocks`` has one section for each alert (at most 50, of 3,000 characters each:
https://docs.slack.dev/reference/block-kit/blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from negawatt.watch.alert import Alert, iso
from negawatt.watch.sinks import Line

_MARKS = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}
_OVER = ":white_check_mark:"
_MOST_CHARS = 2_900  # of a section, whose limit is 3,000


class SlackSender:
    """Posts alerts as one message."""

    repeat_s = None

    def __init__(self, line: Line, link: str | None) -> None:
        self._line = line
        self._link = link

    async def send(self, alerts: Sequence[Alert], now: float) -> str:
        return await self._line.send(message(alerts, self._link))


def message(alerts: Sequence[Alert], link: str | None) -> dict[str, Any]:
    """Return *alerts* as one message."""
    titles = [escaped(alert.title) for alert in alerts]
    text = titles[0] if len(titles) == 1 else f"{len(titles)} alerts: {'; '.join(titles)}"
    blocks = [
        # verbatim: what a caller named so as to look like an address becomes no link.
        {"type": "section", "text": {"type": "mrkdwn", "verbatim": True, "text": _section(alert, link)[:_MOST_CHARS]}}
        for alert in alerts
    ]
    return {"text": text[:_MOST_CHARS], "blocks": blocks}


def _section(alert: Alert, link: str | None) -> str:
    over = alert.state == "resolved"
    lines = [f"{_OVER if over else _MARKS[alert.severity]} *{escaped(alert.title)}*", escaped(alert.message)]
    since = f"since {iso(alert.started_at)}" + (f", until {iso(alert.resolved_at)}" if over else "")
    lines.append(f"{since} · <{link}|dashboard>" if link is not None else since)
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Return *text* with the three characters that Slack gives a meaning to escaped: it may hold a caller's words."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
