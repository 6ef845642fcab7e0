"""The watch: looks every few seconds at what has come, raises what is so, and has it told.

On the path of a call is only `Watch.observe`. Everything else happens in one task of its own, on the gateway's clock;
what others work out (costs per success, budgets) is asked for once a minute, anomalies are looked for every five.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import msgspec

from negawatt.beside import beside
from negawatt.clock import Clock
from negawatt.config_watch import Alerts, Severity
from negawatt.errors import NegawattError
from negawatt.watch.alert import Alert, Condition
from negawatt.watch.burn import Standing
from negawatt.watch.delivery import Delivery
from negawatt.watch.life import Life
from negawatt.watch.memory import Grown, Memory
from negawatt.watch.tally import Tallies
from negawatt.watch.targets import Targets
from negawatt.watch.tiles import alert_tiles, slo_tiles
from negawatt.watch.values import (
    Budget,
    Budgets,
    Guesses,
    Successes,
    budget_conditions,
    cache_conditions,
    cost_conditions,
)

log = logging.getLogger(__name__)

_VALUES_S = 60.0
_ANOMALIES_S = 300.0
_MOST_EVENTS = 1_000  # between two looks
_MOST_UNPRICED = 20  # alerts, each about one model; the others are one
_OTHER_MODELS = "other models"
# Of events that others raise, those that are not a mere warning.
_SEVERE: Mapping[str, Severity] = {
    "semantic_cache_drift": "critical", "route_drift": "critical", "budgets_unavailable": "critical"
}  # fmt: skip

Keep = Callable[[list[Alert], list[str]], Awaitable[None]]


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Who works out what is not about single calls; None: nobody does."""

    guesses: Guesses | None = None
    successes: Successes | None = None
    budgets: Budgets | None = None


class Watch:
    """Watches one gateway. *keep* writes changed alerts down, and deletes others by their id; raises `StoreError`."""

    def __init__(  # noqa: PLR0913
        self,
        targets: Mapping[str, Targets],
        settings: Alerts,
        clock: Clock,
        *,
        life: Life,
        delivery: Delivery,
        sources: Sources,
        keep: Keep,
    ) -> None:
        self._targets = targets
        self._settings = settings
        self._clock = clock
        self._sources = sources
        self._keep = keep
        self._keeping = asyncio.Lock()  # what is newer is written later
        self._memory = Memory(targets)
        self._standings: dict[str, list[Standing]] = {}
        self._events: deque[tuple[str, str, str]] = deque(maxlen=_MOST_EVENTS)
        self._values: list[Condition] = []
        self._anomalies: list[Condition] = []
        self._next_values = self._next_anomalies = 0.0
        self.life = life
        self.delivery = delivery
        self.observe = Tallies(targets)

    # -- what comes in ---------------------------------------------------------------------------------------------

    def event(self, name: str, about: str, message: str) -> None:
        """Hear of something that has happened (`negawatt.telemetry.Telemetry.alert`). Never waits, never raises."""
        self._events.append((name, about, message))

    def remember(self, memory: Memory) -> None:
        """Go on from *memory*, which the ledger gave."""
        self._memory = memory

    # -- the look --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # one look that fails must not be the last
                log.exception("a look at what is watched failed")
            await asyncio.sleep(self._settings.every_s)

    async def look(self) -> None:
        """Take in what has come, see what is so, keep it, and begin to tell."""
        now = self._clock.time()
        grown = self._memory.take(self.observe, now)
        if now >= self._next_values:
            self._next_values = now + _VALUES_S
            self._values = await self._worked_out(now)
        if self._settings.anomalies and now >= self._next_anomalies:
            self._next_anomalies = now + _ANOMALIES_S
            self._anomalies = await self._unlike_before(now)
        conditions = [*self._heard(grown), *self._values, *self._anomalies]
        firing = self._firing()
        for name, targets in self._targets.items():
            self._standings[name] = self._memory.standings(name, now)
            conditions += [_burning(targets, one, firing) for one in self._standings[name]]
            await asyncio.sleep(0)  # calls go before
        self.life.see(conditions, now)
        await self.keep()
        self.delivery.start([*self.life.open, *self.life.over])

    async def keep(self) -> None:
        """Write down the alerts that have changed; what cannot be written is tried again with the next."""
        async with self._keeping:
            changed, dropped = self.life.take_changed()
            if changed or dropped:
                try:
                    await self._keep(changed, dropped)
                except NegawattError as error:
                    log.error("%s", error.message)
                    self.life.give_back(changed, dropped)

    def _heard(self, grown: Sequence[Grown]) -> list[Condition]:
        events = [self._events.popleft() for _ in range(len(self._events))]
        found = [self._event(*event) for event in events]
        found += [self._growth(one) for one in grown]
        unpriced = self.observe.take_unpriced()
        if self._settings.anomalies:
            named = {one.about for one in self.life.open if one.name == "unpriced_model"}
            for raw, request_class in unpriced.items():
                model = "".join(c if c.isprintable() else "?" for c in raw[:200])  # somebody's word, into logs and mail
                about = model if model in named or len(named) < _MOST_UNPRICED else _OTHER_MODELS
                named.add(about)
                message = f"no price is known for {model}: what it costs is in no sum (class {request_class})"
                found.append(Condition(
                    "unpriced_model", about, True, message, request_class=request_class, event=True
                ))  # fmt: skip
        return found

    def grown(self, one: Grown) -> None:
        """Hear that answers have become longer, as of the time when they did."""
        self.life.happened(self._growth(one), one.at)

    def _growth(self, one: Grown) -> Condition:
        message = f"answers had {one.before:.0f} tokens on average, and the last ones {one.lately:.0f}"
        return self._event("output_inflation", one.request_class, message)

    def _event(self, name: str, about: str, message: str) -> Condition:
        request_class = about if about in self._targets else None
        return Condition(
            name, about, True, message, _SEVERE.get(name, "warning"), request_class=request_class, event=True
        )

    async def _worked_out(self, now: float) -> list[Condition]:
        """Ask those who work it out. Where one fails, its alerts stay as they are."""
        found: list[Condition] = []
        sources = self._sources
        found += cache_conditions(self._targets, {} if sources.guesses is None else sources.guesses())
        costs = [one for one in self._targets.values() if one.cost_per_success_usd is not None]
        if costs:
            since = now - max(one.window_s for one in costs)
            try:
                figures = {} if sources.successes is None else await sources.successes(since, now)
                found += cost_conditions(self._targets, figures)
            except NegawattError as error:
                found += self._as_they_were("cost_per_success", error)
        if sources.budgets is not None:
            try:
                standing, known = await sources.budgets(), {one.fingerprint for one in self.life.open}
                found += await beside(
                    standing, partial(_worth_a_word, standing, self._settings.budget_forecast, now, known)
                )
            except NegawattError as error:
                found += self._as_they_were("budget_burn", error)
        return found

    def _as_they_were(self, name: str, error: NegawattError) -> list[Condition]:
        log.warning("%s could not be looked at: %s", name, error.message)
        return [Condition(name, one.about, None) for one in self.life.open if one.name == name]

    async def _unlike_before(self, now: float) -> list[Condition]:
        found: list[Condition] = []
        for name in self._targets:
            found += self._memory.anomalies(name, now)
            await asyncio.sleep(0)
        return [*found, *self._memory.template_anomalies(now)]

    # -- what others ask -------------------------------------------------------------------------------------------

    def alerts(self) -> dict[str, list[dict[str, Any]]]:
        """Return the alerts of now, the oldest first, and those that are over, the newest first."""
        return {
            "open": [one.shown for one in self.life.open],
            "resolved": [one.shown for one in reversed(self.life.over)],
        }

    def sinks(self) -> list[dict[str, Any]]:
        """Return of each sink what it was sent, and what it has yet to hear."""
        waiting = self.delivery.undelivered([*self.life.open, *self.life.over])
        return [
            {"sink": name, "sent": sent, "failed": failed, "undelivered": waiting[name], "problem": problem}
            for name, (sent, failed, problem) in self.delivery.counts().items()
        ]

    def slos(self) -> list[dict[str, Any]]:
        """Return how every promise stood at the last look, by class; those without any are left out."""
        firing = self._firing()
        rows = []
        for name, targets in self._targets.items():
            standings = self._standings.get(name, [])
            values = [one for one in self._values if one.request_class == name and one.name in _VALUED]
            growth = None if targets.output_inflation is None else self._inflation(targets)
            promised = slo_rows(targets, standings, values, growth, firing)
            if promised:
                rows.append({
                    "class": name, "owner": targets.owner, "window_days": targets.window_s / 86_400.0,
                    "promises": promised,
                })  # fmt: skip
        return rows

    def dashboard(self) -> dict[str, list[dict[str, Any]]]:
        """Return ``slos`` and ``alerts`` as flat rows, as the dashboard draws them (`negawatt.watch.tiles`)."""
        firing = {f"{one.name} {one.about}": one for one in self.life.open if one.state == "firing"}
        return {
            "slos": list(slo_tiles(self._targets, self.slos(), self._standings, firing)),
            "alerts": alert_tiles(self.life.open, self.life.over),
        }

    def _firing(self) -> set[str]:
        """Return the fingerprints of what fires."""
        return {one.fingerprint for one in self.life.open if one.state == "firing"}

    def _inflation(self, targets: Targets) -> Condition:
        name = targets.request_class
        there = next((one for one in self.life.open if one.name == "output_inflation" and one.about == name), None)
        message = "" if there is None else there.message
        return Condition(
            "output_inflation", name, there is not None, message, request_class=name,
            target=targets.output_inflation, unit="times",
        )  # fmt: skip

    def samples(self) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
        """Return the numbers of the watch for a monitor: (name, labels, value). Every label is from the configuration,
        or the name of a kind of alert."""
        from negawatt.watch.samples import samples

        return samples(self._standings, self.life, self.delivery)


_VALUED = ("cost_per_success", "cache_error")


def _burning(targets: Targets, standing: Standing, firing: set[str]) -> Condition:
    """Return whether the budget of errors of one promise burns too fast."""
    objective, name = standing.objective, targets.request_class
    no = Condition(objective.name, name, False, request_class=name)
    burn = standing.firing(targets.least_bad, already=no.fingerprint in firing)
    left = standing.budget_left
    if burn is None:
        return no
    hours = targets.window_s * burn.pair.part / 3600
    what = {
        "latency_p95": f"answers that took more than {objective.bound:g} ms",
        "ttft_p95": f"streams that took more than {objective.bound:g} ms to begin",
        "error_rate": "calls that failed",
    }[objective.name]
    message = (
        f"class {name}: {what} use up the budget of errors {burn.long or 0:.1f} times as fast as allowed "
        f"({burn.bad} in the last {hours:.2g} h; {objective.allowed:.3g} of all are allowed)"
    )
    if left is not None:
        message += f"; {max(left, 0.0):.0%} of the budget of {targets.window_s / 86_400:g} days is left"
    return Condition(objective.name, name, True, message, burn.pair.severity, name, burn.long, burn.limit, "times")


def slo_rows(
    targets: Targets,
    standings: Sequence[Standing],
    values: Sequence[Condition],
    growth: Condition | None,
    firing: set[str],
) -> list[dict[str, Any]]:
    """Return the promises of one class as rows for people and machines."""
    rows = []
    for one in standings:
        condition = _burning(targets, one, firing)
        verdict = "unknown" if one.kept is None else "breached" if not one.kept else "kept"
        if verdict == "kept" and condition.active:
            verdict = "burning"
        rows.append({
            "slo": one.objective.name, "target": one.objective.bound, "unit": one.objective.unit,
            "allowed": one.objective.allowed, "good": one.good, "total": one.total,
            "budget_left": one.budget_left,
            "burn": {b.pair.name: {"limit": b.limit, "long": b.long, "short": b.short} for b in one.burns},
            "verdict": verdict, "firing": condition.fingerprint in firing,
        })  # fmt: skip
    for value in [*values, *([] if growth is None else [growth])]:
        verdict = "unknown" if value.active is None else "breached" if value.active else "kept"
        rows.append({
            "slo": value.name, "target": value.target, "unit": value.unit, "value": value.value,
            "message": value.message, "verdict": verdict, "firing": value.fingerprint in firing,
        })  # fmt: skip
    return rows


def _worth_a_word(budgets: Sequence[Budget], forecast: float | None, now: float, known: Set[str]) -> list[Condition]:
    """Return what is so of *budgets*, and of what is *known* to have been so whether it still is."""
    return [one for one in budget_conditions(budgets, forecast, now) if one.active or one.fingerprint in known]
