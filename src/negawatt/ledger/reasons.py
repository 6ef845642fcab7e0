"""Why a provider's bill and the ledger differ, of one model on one day: the reasons, the surest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import msgspec

ZERO = Decimal(0)
_SAME = Decimal("0.001")  # share within which token counts are the same
_CENT = Decimal("0.005")  # what a line of a bill may be rounded by


class Sums(msgspec.Struct):
    """What one side says of one model on one day. *cost* None: it says no cost at all."""

    calls: int = 0
    fresh: int = 0
    cache_read: int = 0
    cache_write: int = 0  # of any lifetime
    output: int = 0
    searches: int = 0
    cost: Decimal | None = None

    @property
    def input(self) -> int:
        return self.fresh + self.cache_read + self.cache_write

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def pay(self, usd: Decimal | None) -> None:
        if usd is not None:
            self.cost = usd if self.cost is None else self.cost + usd


class Aside(msgspec.Struct):
    """What may explain a difference, of the same model and day: in USD, in tokens, and of how many calls."""

    usd: dict[str, Decimal] = msgspec.field(default_factory=dict)
    tokens: Counter[str] = msgspec.field(default_factory=Counter)
    calls: Counter[str] = msgspec.field(default_factory=Counter)
    tiers: Counter[str] = msgspec.field(default_factory=Counter)
    items: dict[str, Decimal] = msgspec.field(default_factory=dict)  # of the bill: lines that are no tokens
    lines: int = 0

    def add(self, what: str, usd: Decimal | None, tokens: int = 0) -> None:
        self.usd[what] = self.usd.get(what, ZERO) + (usd or ZERO)
        self.tokens[what] += tokens
        self.calls[what] += 1

    def size(self, what: str, by: str) -> Decimal:
        return Decimal(self.tokens[what]) if by == "tokens" else self.usd.get(what, ZERO)


class Reason(NamedTuple):
    """Why there is a difference. *amount*: USD that it covers, signed as bill less ledger; None: cannot be said."""

    code: str
    text: str
    amount: Decimal | None


class Unit(NamedTuple):
    """What is compared: *by* ``cost`` or ``tokens``. *both*: the bill has both, so prices can be told from counts."""

    by: str
    both: bool


def reasons_for(
    bill: Sums | None, ledger: Sums | None, aside: Aside, difference: Decimal, unit: Unit
) -> Iterator[Reason]:
    """Yield what may explain *difference* (bill less ledger), the surest first; each with the most that it covers."""
    if unit.by == "cost":
        for item, amount in aside.items.items():
            yield Reason("provider_only_items", f"{item}: not of any call's tokens", amount)
        if aside.calls["credits"]:
            yield Reason("credits", "credits of the provider", aside.usd["credits"])
    if ledger is None:
        yield Reason("not_in_ledger", "the ledger has no call to this model on this day", difference)
        return
    if bill is None:
        yield Reason("not_in_bill", "the bill has no line of this model on this day", difference)
        return
    if aside.calls["unknown"]:
        text = f"{aside.calls['unknown']} calls on the bill whose ids the ledger has not: not by way of this gateway"
        yield Reason("not_in_ledger", text, aside.size("unknown", unit.by))
    if aside.calls["missing"]:
        text = f"{aside.calls['missing']} calls of the ledger whose ids the bill has not"
        yield Reason("not_in_bill", text, -aside.size("missing", unit.by))
    yield from _of_counts(bill, ledger, aside, difference, unit)
    if unit.both and difference:
        yield from _of_prices(bill, ledger, aside, difference)
    if unit.by == "cost":
        rounded = min(_CENT * aside.lines, abs(difference))
        yield Reason("rounding", "less than half a cent a line", _towards(difference, rounded))


def _of_counts(bill: Sums, ledger: Sums, aside: Aside, difference: Decimal, unit: Unit) -> Iterator[Reason]:
    """Yield what may explain a difference in how many calls there are, or in what they used."""
    more = bill.calls - ledger.calls
    edge = aside.calls["edge"]
    if bill.calls and more and not aside.calls["unknown"] and not aside.calls["missing"]:
        size = Decimal(more) * (_one(bill, unit.by) if more > 0 else _one(ledger, unit.by))
        if edge >= abs(more):
            text = f"{abs(more)} calls {'more' if more > 0 else 'fewer'}, and {edge} within 5 minutes of midnight (UTC)"
            yield Reason("day_boundary", text, size)
        elif more > 0:
            yield Reason("not_in_ledger", f"{more} calls more on the bill, at its mean", size)
        else:
            yield Reason("not_in_bill", f"{-more} calls more in the ledger, at its mean", size)
    elif edge and not bill.calls:
        text = f"{edge} calls within 5 minutes of midnight (UTC) may be on the other day"
        yield Reason("day_boundary", text, _towards(difference, aside.size("edge", unit.by)))
    if aside.calls["unpriced"] and unit.by == "cost":
        share = Decimal(aside.tokens["unpriced"]) / ledger.tokens if ledger.tokens else ZERO
        text = f"{aside.calls['unpriced']} calls have no price in the ledger"
        yield Reason("unpriced", text, (bill.cost or ZERO) * share)
    if aside.calls["estimated"]:
        text = f"the usage of {aside.calls['estimated']} calls was counted here: they broke off, or it was not told"
        yield Reason("estimated_usage", text, _towards(difference, aside.size("estimated", unit.by)))


def _of_prices(bill: Sums, ledger: Sums, aside: Aside, difference: Decimal) -> Iterator[Reason]:
    """Yield what may explain another cost of the same tokens."""
    if not _same(bill.input, ledger.input) or not _same(bill.output, ledger.output):
        return
    if not _same(bill.cache_read, ledger.cache_read) or not _same(bill.cache_write, ledger.cache_write):
        yield Reason("cache_counted_differently", "the same input, otherwise split into fresh and cached", difference)
    elif aside.tiers:
        tiers = ", ".join(f"{name}: {count}" for name, count in aside.tiers.items())
        yield Reason("tier", f"the same tokens, in tiers with other prices ({tiers})", difference)
    elif abs(difference) > _CENT * aside.lines:
        yield Reason("price_differs", f"the same tokens at another price{_ratio(bill, ledger)}", difference)


def _towards(difference: Decimal, size: Decimal) -> Decimal:
    return size if difference > 0 else -size


def size_of(sums: Sums | None, by: str) -> Decimal:
    if sums is None:
        return ZERO
    return Decimal(sums.tokens) if by == "tokens" else sums.cost or ZERO


def _one(sums: Sums, by: str) -> Decimal:
    """Return what one call of *sums* comes to."""
    return size_of(sums, by) / sums.calls if sums.calls else ZERO


def _same(one: int, other: int) -> bool:
    return abs(one - other) <= _SAME * max(one, other)


def _ratio(bill: Sums, ledger: Sums) -> str:
    if not bill.cost or not ledger.cost:
        return ""
    return f": the bill is {bill.cost / ledger.cost:.4g} times the ledger (see docs/prices.md)"
