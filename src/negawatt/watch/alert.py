"""Alerts, and the conditions that they come from."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from negawatt.config_watch import SEVERITIES, Severity

State = Literal["pending", "firing", "resolved"]


class Condition(NamedTuple):
    """What somebody looked at. *active*: it is so, it is not, or None: nobody can say, and things stay as they are.

    *about* names the class, the model, the budget; *request_class* the class, where it is about one. *value* and
    *target* are in *unit*. *owner*: who answers for it; None: whoever does for the class. An *event* has happened and
    cannot be looked at again: it has no end of its own.
    """

    name: str
    about: str
    active: bool | None
    message: str = ""
    severity: Severity = "warning"
    request_class: str | None = None
    value: float | None = None
    target: float | None = None
    unit: str = ""
    event: bool = False
    owner: str | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same thing about the same, now and after every restart."""
        return hashlib.sha256(f"{self.name}\n{self.about}".encode()).hexdigest()[:16]


class Delivered(msgspec.Struct, frozen=True, array_like=True):
    """What a sink was last told of an alert."""

    state: State
    severity: Severity
    at: float


class Alert(msgspec.Struct, kw_only=True):
    """One breach, from the first moment to its end. Times are seconds since 1970."""

    id: str  # of this breach; the fingerprint comes back with the next one
    fingerprint: str
    name: str
    about: str
    request_class: str | None
    owner: str | None
    severity: Severity
    state: State
    message: str
    value: float | None = None
    target: float | None = None
    unit: str = ""
    event: bool = False
    started_at: float
    seen_at: float  # when it was last so
    fired_at: float | None = None
    resolved_at: float | None = None
    delivered: dict[str, Delivered] = {}

    @property
    def shown(self) -> dict[str, Any]:
        """The alert as people and machines get to see it: plain values, times as ISO 8601."""
        return {
            "id": self.id, "fingerprint": self.fingerprint, "status": self.state, "severity": self.severity,
            "name": self.name, "about": self.about, "class": self.request_class, "owner": self.owner,
            "message": self.message, "value": self.value, "target": self.target, "unit": self.unit,
            "started_at": iso(self.started_at), "fired_at": iso(self.fired_at), "resolved_at": iso(self.resolved_at),
        }  # fmt: skip

    @property
    def title(self) -> str:
        """One line: what, how bad, about what, and whose it is."""
        owner = f", owner {self.owner}" if self.owner else ""
        return f"{self.state} {self.severity}: {self.name} ({self.about}{owner})"


def iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def at_least(severity: Severity, least: Severity) -> bool:
    """True where *severity* is *least*, or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)


def trials(at: float) -> list[Alert]:
    """Return an alert that is about nothing, as it fires and as it is resolved."""
    firing = Alert(
        id=f"test-{int(at)}", fingerprint="test", name="test", about="the sinks", request_class=None, owner=None,
        severity="info", state="firing", message="this is a test of the way that alerts take", started_at=at,
        seen_at=at, fired_at=at,
    )  # fmt: skip
    return [firing, msgspec.structs.replace(firing, state="resolved", resolved_at=at)]
