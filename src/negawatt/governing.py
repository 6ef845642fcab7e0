"""What governs, told to the watch and to the pages: what a success costs, how budgets and promises stand."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from negawatt.budgets.rules import SCALES, Rule, Rules
from negawatt.budgets.states import BudgetState
from negawatt.config_budgets import Budget
from negawatt.errors import StoreError
from negawatt.gateway import Gateway
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.watch.values import Successes
from negawatt.watching import successes_in
from negawatt.web_sources import Json, Sources

if TYPE_CHECKING:
    from negawatt.success.figures import Figures

_WH = 3_600.0  # joules
_MOST_BUDGETS = 200  # that are shown: those with the least left


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
        said["success"] = functools.partial(_success, path)
    return Sources(**said)


def _path(gateway: Gateway) -> Path | None:
    """Return where the tasks of *gateway* are rolled up; None where they are not."""
    ledger = gateway.ledger
    return ledger.path if isinstance(ledger, SqliteLedger) and ledger.rollups else None


def _success(path: Path, since: float, until: float) -> Json | None:
    from negawatt.success.figures import figures

    everything = figures(path, since, until, "all")
    if not everything or not everything[0].judged:
        return None
    classes = figures(path, since, until, "class")
    return {"all": _judged(everything[0]), "classes": {one.name: _judged(one) for one in classes if one.judged}}


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
            found = sorted(await gateway.purse.states(), key=lambda state: state.left_share)
        except StoreError:
            return [_unknown(rule, now) for rule in rules.values()]
        order = list(rules)
        shown = sorted(found[:_MOST_BUDGETS], key=lambda state: order.index(state.budget))
        return [_known(rules[state.budget], state, now) for state in shown]

    return budgets


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
