"""What a change of prompts comes to: tokens, money and energy a month, surface by surface, base against head.

Money and energy are of the surface's own tokens alone. Where nobody says how often a surface is sent, or no price is
known, they are None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from negawatt.checks.findings import Finding, exit_code
from negawatt.checks.measure import Lock, Locked
from negawatt.checks.plan import Plan
from negawatt.checks.static import Checked
from negawatt.economics.accounts import Amount
from negawatt.economics.usage import Usage

DAYS = 30
Pricing = Callable[[str, Usage], Amount]  # of a model, and what is used of it


class Monthly(msgspec.Struct, frozen=True, kw_only=True):
    """What the tokens of a surface come to in 30 days.

    *usd* at the share of cached input that the plan declares (None: no input is cached); *usd_prefix_cached* with all
    of its prefix read from the provider's cache, where it is long enough. *wh*: (low, central, high).
    """

    usd: Decimal | None
    usd_prefix_cached: Decimal | None
    wh: tuple[float, float, float] | None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One surface, before and now; *base* None: it is new, *head* None: it is gone. Tokens are of the first model."""

    surface: str
    kind: str
    base: int | None
    head: int | None
    prefix: int | None
    calls_per_day: float | None
    now: Monthly | None
    change: Monthly | None

    @property
    def tokens(self) -> int:
        """By how many tokens it has grown."""
        return (self.head or 0) - (self.base or 0)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All surfaces, and what they come to together; *model* is whose tokens and prices these are."""

    model: str
    basis: str  # how its tokens were counted
    lines: tuple[Line, ...]
    base: int
    head: int
    change: Monthly | None  # None: not known for some surface that has changed


def figures(checked: Checked, base: Lock | None, calls: Mapping[str, float | None], pricing: Pricing) -> Figures:
    """Return what has changed since *base*. *calls*: how often a day each surface is sent."""
    plan, head = checked.plan, checked.measured.lock
    model = plan.file.models[0]
    old = {} if base is None else base.surfaces
    shares = {surface.name: surface.group.cached or 0.0 for surface in checked.measured.surfaces}
    lines = []
    for name in sorted({*old, *head.surfaces}):
        before, now = old.get(name), head.surfaces.get(name)
        known = now or before
        assert known is not None
        rate = calls.get(name)
        months = [_monthly(plan, one, rate, shares.get(name, 0.0), pricing) for one in (before, now)]
        lines.append(Line(
            surface=name, kind=known.kind, base=_tokens(before, model), head=_tokens(now, model),
            prefix=None if now is None else now.prefix[model], calls_per_day=rate,
            now=months[1], change=None if rate is None else _less(months[1], months[0]),
        ))  # fmt: skip
    return Figures(
        model=model,
        basis=head.models[model],
        lines=tuple(lines),
        base=sum(line.base or 0 for line in lines),
        head=sum(line.head or 0 for line in lines),
        change=_together([line.change for line in lines if line.tokens]),
    )


def _tokens(locked: Locked | None, model: str) -> int | None:
    return None if locked is None else locked.tokens.get(model)


def _monthly(plan: Plan, one: Locked | None, rate: float | None, cached: float, pricing: Pricing) -> Monthly | None:
    """Return what *one*, sent *rate* times a day, comes to; nothing costs nothing."""
    model = plan.file.models[0]
    if one is None or not one.tokens.get(model):
        return Monthly(usd=Decimal(0), usd_prefix_cached=Decimal(0), wh=(0.0, 0.0, 0.0))
    if rate is None:
        return None
    tokens, prefix = one.tokens[model], one.prefix.get(model, 0)
    read = prefix if prefix >= plan.file.prefix_minimum else 0
    times = Decimal(str(rate * DAYS))
    amount, best = (
        pricing(model, Usage(input_tokens=tokens, output_tokens=0, cache_read_tokens=part, basis="estimated"))
        for part in (round(tokens * cached), read)
    )
    joules = amount.joules
    return Monthly(
        usd=None if amount.cost_usd is None else amount.cost_usd * times,
        usd_prefix_cached=None if best.cost_usd is None else best.cost_usd * times,
        wh=None if joules is None else joules.times(float(times)).wh,
    )


def _less(one: Monthly | None, other: Monthly | None) -> Monthly | None:
    if one is None or other is None:
        return None
    return Monthly(
        usd=None if one.usd is None or other.usd is None else one.usd - other.usd,
        usd_prefix_cached=_minus(one.usd_prefix_cached, other.usd_prefix_cached),
        wh=None if one.wh is None or other.wh is None else _each(one.wh, other.wh, -1),
    )


def _minus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one - other


def _each(one: tuple[float, float, float], other: tuple[float, float, float], sign: int) -> tuple[float, float, float]:
    return one[0] + sign * other[0], one[1] + sign * other[1], one[2] + sign * other[2]


def _together(many: list[Monthly | None]) -> Monthly | None:
    """Return the sum; of each figure None where it is not known of all."""
    known = [one for one in many if one is not None]
    if len(known) < len(many):
        return None
    usd = [one.usd for one in known]
    best = [one.usd_prefix_cached for one in known]
    wh: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
    for one in known:
        wh = None if wh is None or one.wh is None else _each(wh, one.wh, 1)
    return Monthly(
        usd=None if None in usd else sum((u for u in usd if u is not None), Decimal(0)),
        usd_prefix_cached=None if None in best else sum((u for u in best if u is not None), Decimal(0)),
        wh=wh,
    )


def as_json(made: Figures, findings: list[Finding], *, strict: bool, **more: Any) -> dict[str, Any]:
    """Return the whole report, ready to become JSON; money as text, so that no digit is lost."""
    lines = [{**msgspec.to_builtins(line), "tokens": line.tokens} for line in made.lines]
    return {
        "version": 1,
        "exit_code": exit_code(findings, strict=strict),
        "model": made.model,
        "basis": made.basis,
        "base_tokens": made.base,
        "head_tokens": made.head,
        "change_per_month": msgspec.to_builtins(made.change),
        "surfaces": lines,
        "findings": [one.as_json() for one in findings],
        **more,
    }
