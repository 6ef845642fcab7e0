"""The life of alerts: pending, firing, resolved; one for each breach, however often it is seen.

What holds for `pending_s` fires; what has been over for `clear_s` is resolved; between the two an alert stays as it
is, so that what flickers makes one alert and not many. An event fires at once, and is resolved when it has not come
again for `events_h`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from negawatt.config_watch import Alerts, Severity
from negawatt.watch.alert import Alert, Condition, at_least

_MOST_OPEN = 1_000
_MOST_OVER = 500  # resolved ones that are kept to be looked at
_GONE = "it is no longer watched"


class Life:
    """Knows every alert that is open, and those of late.

    *owners*: who answers for each class; *fired*: told of each alert that begins to fire.
    """

    def __init__(
        self,
        settings: Alerts,
        owners: Mapping[str, str | None],
        kept: Iterable[Alert] = (),
        fired: Callable[[Alert], None] = lambda alert: None,
    ) -> None:
        self._settings = settings
        self._owners = owners
        self._fired = fired
        self._open: dict[str, Alert] = {}
        self._over: dict[str, Alert] = {}  # by id, the oldest first
        self._changed: dict[str, Alert] = {}
        self._dropped: list[str] = []
        self.refused = 0  # that found no room
        for alert in sorted(kept, key=lambda one: one.resolved_at or one.started_at):
            if alert.state == "resolved":
                self._over[alert.id] = alert
            else:
                self._open[alert.fingerprint] = alert

    @property
    def open(self) -> list[Alert]:
        """Those that are pending or firing, the oldest first."""
        return sorted(self._open.values(), key=lambda one: (one.started_at, one.id))

    @property
    def over(self) -> list[Alert]:
        """Those that are resolved, the oldest first."""
        return list(self._over.values())

    def see(self, conditions: Iterable[Condition], now: float) -> None:
        """Take in what was seen at the time *now*: all that is looked at, whether it is so or not."""
        seen = set()
        for condition in conditions:
            seen.add(condition.fingerprint)
            if condition.active:
                self._active(condition, now)
            elif condition.active is not None:
                self._quiet(condition.fingerprint, now)
        for fingerprint, alert in list(self._open.items()):
            if alert.event:
                if now - alert.seen_at >= self._settings.events_h * 3600:
                    self._resolve(alert, now)
            elif fingerprint not in seen:
                alert.message = f"{_GONE}: {alert.message}" if not alert.message.startswith(_GONE) else alert.message
                self._quiet(fingerprint, now)

    def happened(self, event: Condition, at: float) -> None:
        """Take in one *event* of the time *at*."""
        self._active(event, at)

    def _active(self, condition: Condition, now: float) -> None:
        alert = self._open.get(condition.fingerprint)
        if alert is None:
            if len(self._open) >= _MOST_OPEN:
                self.refused += 1
                return
            alert = self._open[condition.fingerprint] = self._new(condition, now)
        before, alert.severity = alert.severity, _worse(alert, condition.severity)
        alert.seen_at = now
        alert.message, alert.value, alert.target = condition.message, condition.value, condition.target
        if alert.event or alert.severity != before or alert.state == "pending":
            self._note(alert)
        if alert.state == "pending" and (alert.event or now - alert.started_at >= self._settings.pending_s):
            alert.state, alert.fired_at = "firing", now
            self._fired(alert)
        elif alert.state == "firing" and alert.severity != before:
            self._fired(alert)  # it has become worse: others may want to hear of it

    def _new(self, condition: Condition, now: float) -> Alert:
        owner = condition.owner or self._owners.get(condition.request_class or "")
        return Alert(
            id=f"{condition.fingerprint}-{int(now * 1000):x}", fingerprint=condition.fingerprint,
            name=condition.name, about=condition.about, request_class=condition.request_class, owner=owner,
            severity=condition.severity, state="pending", message=condition.message, value=condition.value,
            target=condition.target, unit=condition.unit, event=condition.event, started_at=now, seen_at=now,
        )  # fmt: skip

    def _quiet(self, fingerprint: str, now: float) -> None:
        """It is not so at the time *now*."""
        alert = self._open.get(fingerprint)
        if alert is None or alert.event:
            return
        if alert.state == "pending":  # it never fired, and nobody was told
            del self._open[fingerprint]
            self._changed.pop(alert.id, None)
            self._dropped.append(alert.id)
        elif now - alert.seen_at >= self._settings.clear_s:
            self._resolve(alert, now)

    def _resolve(self, alert: Alert, now: float) -> None:
        alert.state, alert.resolved_at = "resolved", now
        self._over[alert.id] = self._open.pop(alert.fingerprint)
        self._note(alert)
        while len(self._over) > _MOST_OVER:
            gone = next(iter(self._over))
            del self._over[gone]
            self._changed.pop(gone, None)
            self._dropped.append(gone)

    def _note(self, alert: Alert) -> None:
        self._changed[alert.id] = alert

    def told(self, alert: Alert) -> None:
        """Note that what *alert* says of its deliveries has changed."""
        if alert.id in self._over or self._open.get(alert.fingerprint) is alert:
            self._note(alert)

    def take_changed(self) -> tuple[list[Alert], list[str]]:
        """Return copies of the alerts that have changed since the last time, and the ids of those that are gone."""
        changed = [msgspec.structs.replace(one, delivered=dict(one.delivered)) for one in self._changed.values()]
        dropped, self._dropped, self._changed = self._dropped, [], {}
        return changed, dropped

    def give_back(self, changed: Iterable[Alert], dropped: Iterable[str]) -> None:
        """Take back what could not be kept, to be tried again."""
        for alert in changed:
            newest = self._over.get(alert.id) or self._open.get(alert.fingerprint)
            if newest is not None and newest.id == alert.id:
                self._note(newest)
        self._dropped += dropped


def _worse(alert: Alert, now: Severity) -> Severity:
    """Return the severity of *alert* that is *now* so: a firing one gets worse, never better, until it is over."""
    return alert.severity if alert.state == "firing" and at_least(alert.severity, now) else now
