"""Alerts as JSON of our own, to any address.

    {"version": "negawatt.webhook/1", "sent_at": "2026-11-27T13:00:00+00:00", "url": null,
     "alerts": [{"id", "fingerprint", "status", "severity", "name", "about", "class", "owner", "message", "value",
                 "target", "unit", "started_at", "fired_at", "resolved_at"}]}

With a secret two headers come with it: ``x-negawatt-timestamp``, the seconds since 1970, and
``x-negawatt-signature: v1=HEX``, the HMAC-SHA256 of the timestamp, a full stop and the body. Who checks both, and that
the time is not long past, knows that the message is ours and not an old one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from negawatt.watch.alert import Alert, iso
from negawatt.watch.sinks import Headers, Line

VERSION = "negawatt.webhook/1"


class WebhookSender:
    """Posts alerts, signed where there is a *secret*."""

    repeat_s = None

    def __init__(self, line: Line, secret: str | None, link: str | None) -> None:
        self._line = line
        self._secret = secret
        self._link = link

    async def send(self, alerts: Sequence[Alert], now: float) -> str:
        body = {
            "version": VERSION, "sent_at": iso(now), "url": self._link, "alerts": [alert.shown for alert in alerts]
        }  # fmt: skip
        return await self._line.send(body, sign=lambda sent: self._signed(sent, now))

    def _signed(self, body: bytes, now: float) -> Headers:
        if self._secret is None:
            return {}
        stamp = str(int(now))
        return {"x-negawatt-timestamp": stamp, "x-negawatt-signature": signature(self._secret, stamp, body)}


def signature(secret: str, stamp: str, body: bytes) -> str:
    """Return the signature of *body*, sent at *stamp* (seconds since 1970, as text)."""
    return f"v1={hmac.new(secret.encode(), stamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"
