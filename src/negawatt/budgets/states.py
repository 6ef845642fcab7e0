"""How budgets stand, for those who look at them."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from negawatt.budgets import Line, LineId
from negawatt.budgets.rules import SCALES, Rule, whose

_TOO_SOON = 0.05  # share of the period: what was spent in it says nothing yet of the rest


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """One budget, for one value, in the period that is under way. Amounts are in *unit*: tokens, usd or joules.

    *whose*: a key, a user with their tenant, ...; None: all who are meant. *reserved* belongs to calls under way.
    *assumed* and *unknown* count attempts: whose amount is what was reserved for them, because nobody knows what they
    cost; and for which nothing could be counted at all. *refuses*: it is nearly spent, and a call did not fit any more.
    """

    budget: str
    unit: str
    per: str
    whose: dict[str, str | None] | None
    owner: str | None
    at_limit: str
    limit: Decimal
    spent: Decimal
    reserved: Decimal
    period_start: int  # seconds since 1970
    period_end: int
    assumed: int = 0
    unknown: int = 0
    refuses: bool = False

    @property
    def left(self) -> Decimal:
        """What is neither spent nor reserved; negative where calls cost more than was foreseen."""
        return self.limit - self.spent - self.reserved

    @property
    def left_share(self) -> float:
        """*left* as a share of the limit."""
        return float(self.left / self.limit)

    def forecast(self, now: float) -> Decimal | None:
        """Return what will be spent by the end of the period, if it goes on as it did; None: too soon to say."""
        share = (now - self.period_start) / (self.period_end - self.period_start)
        return None if share < _TOO_SOON else self.spent / Decimal(min(share, 1.0))

    def data(self, now: float) -> dict[str, Any]:
        """Return it as JSON has it: amounts as decimal text, moments in ISO 8601."""
        forecast = self.forecast(now)
        return {
            "budget": self.budget,
            "whose": self.whose,
            "owner": self.owner,
            "unit": self.unit,
            "per": self.per,
            "at_limit": self.at_limit,
            "limit": text_of(self.limit),
            "spent": text_of(self.spent),
            "reserved": text_of(self.reserved),
            "left": text_of(self.left),
            "left_share": round(self.left_share, 6),
            "forecast": None if forecast is None else text_of(round(forecast, 6)),
            "assumed": self.assumed,
            "unknown": self.unknown,
            "period_start": moment(self.period_start),
            "resets_at": moment(self.period_end),
        }


def states(
    rules: Sequence[Rule], lines: Iterable[Line], now: float, *, refusing: Collection[LineId] = (),
    most: int | None = None,
) -> list[BudgetState]:  # fmt: skip
    """Return the state of each of *rules*, in their order; of what is no budget any more, nothing.

    *refusing*: the lines that are nearly spent, and had too little left for a call. *most*: of one for each, only so
    many, those with the least left. There may be ten thousand users.
    """
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.id[0], []).append(line)
    told = []
    for rule in rules:
        period = rule.period(now)
        own = [line for line in found.get(rule.key, ()) if line.id[2] == period.start]
        if not own and rule.budget.each is None:
            own = [Line((rule.key, "", period.start), period.end, 0, 0)]
        if most is not None and len(own) > most:
            own = heapq.nsmallest(most, own, key=lambda line: -line.spent - line.reserved)
        told += [_state(rule, line, refuses=line.id in refusing) for line in sorted(own)]
    return told


def _state(rule: Rule, line: Line, *, refuses: bool) -> BudgetState:
    budget, scale = rule.budget, Decimal(SCALES[rule.unit])
    said = whose(line.id[1])
    names = ("tenant", "user") if budget.each == "user" else (budget.each or "",)
    return BudgetState(
        budget=rule.name,
        unit=rule.unit,
        per=budget.per,
        whose=dict(zip(names, said, strict=True)) if said else None,
        owner=budget.owner,
        at_limit=budget.at_limit,
        limit=rule.limit / scale,
        spent=line.spent / scale,
        reserved=line.reserved / scale,
        period_start=line.id[2],
        period_end=line.until,
        assumed=line.assumed,
        unknown=line.unknown,
        refuses=refuses,
    )


def moment(at: float) -> str:
    """Return *at* (seconds since 1970) as text: ``2026-12-01T00:00:00Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text_of(amount: Decimal) -> str:
    """Return *amount* without an exponent or needless zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
