"""What governs, told to the watch and to the pages: what a success costs, how budgets and promises stand."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from negawatt.budgets.rules import SCALES, Rule, Rules
from negawatt.budgets.states import BudgetState
from negawatt.config_budgets import Budget
from negawatt.errors import StoreError
from negawatt.gateway import Gateway
from negawatt.ledger.sqlite import SqliteLedger, open_reading
from negawatt.success.sql import rounds_of
from negawatt.watch.values import Successes
from negawatt.watching import successes_in
from negawatt.web_sources import Json, Sources

if TYPE_CHECKING:
    from negawatt.success.figures import Figures

_WH = 3_600.0  # joules
_MOST_BUDGETS = 200  # that are shown: those with the least left
_KEPT = 20  # figures of tasks; each is good for so many times as long as it took to work out


def successes(path: Path) -> Successes:
    """Return who works out what a success costs by class, from the ledger at *path*."""
    from negawatt.success.figures import figures

    return successes_in(path, figures)


def watched(gateway: Gateway) -> dict[str, Any]:
    """Return what a watch over *gateway* asks others: the arguments of `open_watch`."""
    path, purse = _path(gateway), gateway.purse
    return {
        "successes": None if path is None else successes(path),
        "budgets": None if purse is None else purse.states,
    }


def shown(gateway: Gateway) -> Sources:
    """Return what the pages of *gateway* show beside the roll-ups."""
    path = _path(gateway)
    said: dict[str, Callable[..., Any]] = {"budgets": _budgets(gateway), "alerts": _alerts(gateway)}
    if path is not None:
        said["success"] = Judged(path)
    return Sources(**said)


def _path(gateway: Gateway) -> Path | None:
    """Return where the tasks of *gateway* are rolled up; None where they are not."""
    ledger = gateway.ledger
    return ledger.path if isinstance(ledger, SqliteLedger) and ledger.rollups else None


class Judged:
    """What the tasks of the ledger at *path* came to, worked out in the caller's thread.

    Many may look at once, at a month of tasks: an answer is given again as long as no task has changed, and beyond that
    for `_KEPT` times as long as it took. So looking takes a twentieth of a core at most.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[float, float, bool], tuple[Json | None, float, int]] = {}

    def __call__(self, since: float, until: float, *, classes: bool) -> Json | None:
        """Return what the tasks that began in [since, until) came to; of *classes*, by the name of each."""
        key = (since, until, classes)
        with self._lock:
            began = self._clock()
            with closing(open_reading(self._path)) as connection:
                rounds = rounds_of(connection)
                value, good_until, at = self._kept.pop(key, (None, -math.inf, -1))
                if rounds != at and began >= good_until:
                    value = self._figures(connection, since, until, classes=classes)
                    now = self._clock()
                    good_until, at = now + _KEPT * (now - began), rounds
            self._kept[key] = value, good_until, at
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return value

    def _figures(self, connection: sqlite3.Connection, since: float, until: float, *, classes: bool) -> Json | None:
        from negawatt.success.figures import figures_in

        found = {one.name: _judged(one) for one in figures_in(connection, since, until, "class" if classes else "all")
                 if one.judged}  # fmt: skip
        return found if classes else found.get("")


def _judged(one: Figures) -> Json:
    joules = one.energy_per_success_interval_j
    return {
        "rate": one.success_rate, "cost_per_success_usd": one.cost_per_success_usd,
        "energy_per_success_wh": {
            name: None if value is None else value / _WH
            for name, value in (("mean", joules.mean), ("low", joules.low), ("high", joules.high))
        },
        "latency_to_success_s": one.latency_to_success_s, "tasks": one.tasks, "judged": one.judged,
        "succeeded": one.successes, "unpriced": one.unpriced_tasks,
    }  # fmt: skip


def _budgets(gateway: Gateway) -> Callable[[], Awaitable[Sequence[Json] | None]]:
    rules = {rule.name: rule for rule in Rules(gateway.config.budgets).rules}

    async def budgets() -> Sequence[Json] | None:
        if gateway.purse is None:
            return None
        now = gateway.clock.time()
        try:
            found = await gateway.purse.states(_MOST_BUDGETS)
        except StoreError:
            return [_unknown(rule, now) for rule in rules.values()]
        return [_known(rules[state.budget], state, now) for state in _shown(found, rules)]

    return budgets


def _shown(found: Sequence[BudgetState], rules: Mapping[str, Rule]) -> Sequence[BudgetState]:
    """Return, of *found*, those that are for all, and of the others those with the least left; in their order."""
    least = sorted(found, key=lambda state: (rules[state.budget].budget.each is not None, state.left_share))
    order = list(rules)
    return sorted(least[:_MOST_BUDGETS], key=lambda state: order.index(state.budget))


def _known(rule: Rule, state: BudgetState, now: float) -> Json:
    ahead = state.forecast(now)
    return {
        **_unknown(rule, now), "covers": {**_covers(rule.budget), **(state.whose or {})},
        "spent": float(state.spent), "reserved": float(state.reserved),
        "forecast": None if ahead is None else float(ahead), "assumed": state.assumed, "unknown": state.unknown,
    }  # fmt: skip


def _unknown(rule: Rule, now: float) -> Json:
    """Return what is configured of a budget whose books cannot be asked."""
    budget = rule.budget
    return {
        "name": rule.name, "covers": _covers(budget), "owner": budget.owner, "unit": rule.unit,
        "limit": float(Decimal(rule.limit) / SCALES[rule.unit]), "spent": None, "reserved": None, "forecast": None,
        "assumed": None, "unknown": None, "period": budget.per, "resets_s": rule.period(now).end,
        "policy": budget.at_limit,
    }  # fmt: skip


def _covers(budget: Budget) -> dict[str, str]:
    """Return which calls *budget* pays for: nothing said is all of them."""
    named = {"class" if name == "request_class" else name: value for name, value in asdict(budget.of).items()}
    found = {name: value if isinstance(value, str) else ", ".join(value) for name, value in named.items() if value}
    if budget.assigned:
        found.setdefault("key", "those that name it")
    if budget.each is not None:
        found.setdefault(budget.each, "each")
    return found


def _alerts(gateway: Gateway) -> Callable[[], Awaitable[Json | None]]:
    async def alerts() -> Json | None:
        return None if gateway.watch is None else gateway.watch.dashboard()

    return alerts
