"""Promises that are not about single events: what others work out from time to time, against a target."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from negawatt.watch.alert import Condition, iso
from negawatt.watch.targets import Targets


class PerSuccess(NamedTuple):
    """What a successful task of a class costs, in USD, with its interval; None: undefined, for none succeeded."""

    cost_usd: float | None
    low: float | None
    high: float | None
    successes: int


class Estimated(Protocol):
    """The share of wrong answers, with its interval."""

    @property
    def low(self) -> float: ...
    @property
    def central(self) -> float: ...
    @property
    def high(self) -> float: ...


class Budget(Protocol):
    """A budget in its current period (`negawatt.budgets.states.BudgetState`); amounts in *unit*, times since 1970."""

    @property
    def budget(self) -> str: ...
    @property
    def whose(self) -> Mapping[str, str | None] | None: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def unit(self) -> str: ...
    @property
    def limit(self) -> Decimal: ...
    @property
    def spent(self) -> Decimal: ...
    @property
    def refuses(self) -> bool: ...
    @property
    def period_end(self) -> float: ...
    def forecast(self, now: float) -> Decimal | None: ...


# (since, until) -> by class
Successes = Callable[[float, float], Awaitable[Mapping[str, PerSuccess]]]
# by (class, tier): budget, estimate, drifts
Guesses = Callable[[], Mapping[tuple[str, str], tuple[float, Estimated | None, int]]]
Budgets = Callable[[], Awaitable[Sequence[Budget]]]


def cost_conditions(targets: Mapping[str, Targets], found: Mapping[str, PerSuccess]) -> Iterator[Condition]:
    """Yield, of each class with such a target, whether a success costs more for certain."""
    for name, one in targets.items():
        target = one.cost_per_success_usd
        if target is None:
            continue
        figure = found.get(name)
        if figure is None or figure.cost_usd is None:
            yield Condition("cost_per_success", name, None, request_class=name, target=target, unit="USD")
            continue
        sure = figure.low is not None and figure.low > target
        interval = "" if figure.low is None or figure.high is None else f" [{figure.low:.4g}, {figure.high:.4g}]"
        message = (
            f"a successful task of class {name} costs ${figure.cost_usd:.4g}{interval} ({figure.successes} successes); "
            f"the target is ${target:.4g}"
        )
        yield Condition("cost_per_success", name, sure, message, "warning", name, figure.cost_usd, target, "USD")


def cache_conditions(
    targets: Mapping[str, Targets], found: Mapping[tuple[str, str], tuple[float, Estimated | None, int]]
) -> Iterator[Condition]:
    """Yield, of each class that the semantic cache has learned of, whether it answers wrongly more than it may.

    Of one that has such a target, and of which it has learned nothing, nobody can say.
    """
    learned = {name for name, _ in found}
    for name, promised in targets.items():
        if promised.cache_error is not None and name not in learned:
            yield Condition("cache_error", name, None, request_class=name, target=promised.cache_error, unit="share")
    for (name, tier), (budget, estimate, _) in found.items():
        one = targets.get(name)
        target = budget if one is None or one.cache_error is None else one.cache_error
        about = name if tier == "learned" else f"{name}, {tier}"
        if estimate is None:
            yield Condition("cache_error", about, None, request_class=name, target=target, unit="share")
            continue
        message = (
            f"the semantic cache answers {estimate.central:.3%} [{estimate.low:.3%}, {estimate.high:.3%}] of the "
            f"requests of class {name} wrongly; it may be {target:.3%}"
        )
        yield Condition(
            "cache_error", about, estimate.central > target, message,
            "critical" if estimate.low > target else "warning", name, estimate.central, target, "share",
        )  # fmt: skip


def budget_conditions(budgets: Iterable[Budget], forecast: float | None, now: float) -> Iterator[Condition]:
    """Yield, of each budget, whether it is used up, or will be at the present pace: *forecast* times its limit."""
    for budget in budgets:
        spent, limit, forecasted = float(budget.spent), float(budget.limit), budget.forecast(now)
        ahead = None if forecasted is None else float(forecasted)
        gone = spent >= limit or budget.refuses
        active = gone or (forecast is not None and ahead is not None and ahead > forecast * limit)
        about = budget.budget
        if budget.whose:
            about += " of " + ", ".join(f"{name} {value}" for name, value in budget.whose.items())
        message = f"budget {about}: {spent:.4g} of {limit:.4g} {budget.unit} are spent"
        if gone and spent < limit:
            message += ", and calls for which that leaves too little are refused"
        if ahead is not None and not gone:
            message += f"; at this pace it will be {ahead:.4g} by {iso(budget.period_end)}"
        yield Condition(
            "budget_burn", about, active, message, "critical" if gone else "warning",
            value=spent if ahead is None else ahead, target=limit, unit=budget.unit, owner=budget.owner,
        )  # fmt: skip
