"""From ledger rows to figures: what one arm used, and what each lever's decisions spared in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from negawatt.ledger.outcome import Outcome
from negawatt.statistics import UNDEFINED, Array, Bootstrap, Interval, column, quantile

PUSD = 1e12  # pico-dollars in a dollar
J_PER_WH = 3600.0
DELIVERED = frozenset({"answered", "cached", "coalesced"})  # endings after which the caller has the whole answer
P95_NEEDS = 60  # answered calls; with fewer, a tail is not shown
P99_NEEDS = 300

Figures = dict[str, Any]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of some rows, in their order; NaN is unknown. *duration_s* is unknown for calls without an answer."""

    cost_pusd: Array
    input_tokens: Array
    output_tokens: Array
    energy_low_j: Array
    energy_j: Array
    energy_high_j: Array
    duration_s: Array

    @classmethod
    def actual(cls, outcomes: Sequence[Outcome]) -> Table:
        return cls(
            cost_pusd=column(o.cost_pusd for o in outcomes),
            input_tokens=column(o.input_tokens for o in outcomes),
            output_tokens=column(o.output_tokens for o in outcomes),
            energy_low_j=column(o.energy_low_j for o in outcomes),
            energy_j=column(o.energy_j for o in outcomes),
            energy_high_j=column(o.energy_high_j for o in outcomes),
            duration_s=column(o.duration_s if o.ending in DELIVERED else None for o in outcomes),
        )

    @classmethod
    def baseline(cls, outcomes: Sequence[Outcome]) -> Table:
        """Return what the same calls would have come to, had no lever saved anything."""
        return cls(
            cost_pusd=column(o.baseline_cost_pusd for o in outcomes),
            input_tokens=column(o.baseline_input_tokens for o in outcomes),
            output_tokens=column(o.baseline_output_tokens for o in outcomes),
            energy_low_j=column(o.baseline_energy_low_j for o in outcomes),
            energy_j=column(o.baseline_energy_j for o in outcomes),
            energy_high_j=column(o.baseline_energy_high_j for o in outcomes),
            duration_s=column(o.baseline_duration_s if o.ending in DELIVERED else None for o in outcomes),
        )


def arm_figures(table: Table, success: Array, boot: Bootstrap) -> Figures:
    """Return what one arm used. Sums are over the known rows; beside each stands how many were unknown.

    The energy triple sums the low, the central and the high estimates: the estimator may err alike on every call.
    """
    cost_usd, energy_wh = table.cost_pusd / PUSD, table.energy_j / J_PER_WH
    judged_cost = np.where(np.isnan(success), math.nan, cost_usd)
    triple = [_sum(values, J_PER_WH) for values in (table.energy_low_j, table.energy_j, table.energy_high_j)]
    rate, per_success = boot.proportion(success), boot.ratio(judged_cost, success)
    p50 = boot.median(table.duration_s * 1e3)
    return {
        "cost_usd": _sum(table.cost_pusd, PUSD),
        "energy_wh": triple,
        "input_tokens": _count(table.input_tokens),
        "output_tokens": _count(table.output_tokens),
        "p50_ms": p50.mean,
        "p95_ms": _ms(quantile(table.duration_s, 0.95, P95_NEEDS)),
        "p99_ms": _ms(quantile(table.duration_s, 0.99, P99_NEEDS)),
        "success_rate": rate.mean,
        "cost_per_success_usd": per_success.mean,
        "requests": int(success.size),
        "judged_requests": int((~np.isnan(success)).sum()),
        "delivered_requests": int((~np.isnan(table.duration_s)).sum()),
        "unpriced_requests": int(np.isnan(table.cost_pusd).sum()),
        "unknown_energy_requests": int(np.isnan(table.energy_j).sum()),
        "unknown_usage_requests": int(np.isnan(table.input_tokens).sum()),
        "intervals": {
            "cost_usd": boot.total(cost_usd),
            "energy_wh": boot.total(energy_wh),
            "input_tokens": boot.total(table.input_tokens),
            "output_tokens": boot.total(table.output_tokens),
            "p50_ms": p50,
            "success_rate": rate,
            "cost_per_success_usd": per_success,
        },
    }


def row_figures(outcomes: Sequence[Outcome]) -> Figures:
    """Return what only the rows themselves can say: endings, carbon, and where prices and energy come from."""
    grams = column(o.co2e_g for o in outcomes)
    return {
        "co2e_g": _sum(grams),
        "endings": _tally(o.ending for o in outcomes),
        "price_sources": _tally(o.price_source for o in outcomes if o.price_source is not None),
        "energy_bases": _tally(o.energy_basis for o in outcomes if o.energy_basis is not None),
    }


def savings(without: Table, with_: Table, boot: Bootstrap, base: Table | None = None) -> dict[str, Interval]:
    """Return the five savings of *with_* against *without*, call by call the same, in percent of *base*'s figures."""
    base = without if base is None else base

    def of(name: str) -> Interval:
        return boot.saving_pct(getattr(without, name), getattr(with_, name), getattr(base, name))

    return {
        "cost_pct": of("cost_pusd"),
        "input_tokens_pct": of("input_tokens"),
        "output_tokens_pct": of("output_tokens"),
        "energy_pct": of("energy_j"),
        "latency_p50_pct": boot.median_saving_pct(without.duration_s, with_.duration_s, base.duration_s),
    }


class Spared(msgspec.Struct, frozen=True):
    """``saved`` of a decision as the ledger keeps it; None is unknown."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_pusd: int | None = None
    energy_j: tuple[float, float, float] | None = None
    upstream_s: float | None = None
    basis: str = "estimated"


class Detail(msgspec.Struct, frozen=True):
    """What a decision says beside its action, as far as reports use it."""

    age_s: float | None = None  # of the answer that was given
    risk: float | None = None  # of its being wrong, as the acceptance rule saw it
    tier: str | int | None = None  # of a cache what its answer comes from; of a candidate a number


class Decided(msgspec.Struct, frozen=True):
    """One decision as the ledger keeps it."""

    lever: str
    action: str
    mode: str = "on"
    saved: Spared | None = None
    detail: Detail | None = None


_decode = msgspec.json.Decoder(list[Decided]).decode
_ANSWERED = frozenset({"hit", "stale", "partial"})


def decisions_of(outcomes: Sequence[Outcome]) -> list[list[Decided]]:
    """Return the decisions of each row. Raises `msgspec.DecodeError` for a row that is not a ledger's."""
    return [[] if o.decisions in ("", "[]") else _decode(o.decisions) for o in outcomes]


def lever_order(decided: Sequence[Sequence[Decided]]) -> list[str]:
    """Return the levers in pipeline order, read off the rows: a call meets them on its way down in that order."""
    order: list[str] = []
    for decisions in decided:
        place = 0
        for lever in dict.fromkeys(decision.lever for decision in decisions):
            if lever not in order:
                order.insert(place, lever)
            place = order.index(lever) + 1
    return order


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows in which levers decided. *base_cost_pusd*: what each call costs without levers; None if not run."""

    outcomes: Sequence[Outcome]
    decided: Sequence[Sequence[Decided]]
    base_cost_pusd: Array | None


def lever_figures(lever: str, rows: Rows, boot: Bootstrap, *, shadow: bool) -> Figures:
    """Return what *lever*'s decisions spared (in shadow: would have spared).

    Every amount is a sum over all calls with its interval. Hits whose worth is unknown add nothing and are counted.
    """
    pairs = list(zip(rows.decided, rows.outcomes, strict=True))
    hits = [spared_by(lever, decisions, o, shadow=shadow) for decisions, o in pairs]
    hit = np.array([0.0 if spared is None else 1.0 for spared in hits])

    def values(of: Callable[[Spared], float | None]) -> Array:
        return np.where(hit > 0, column(None if s is None else of(s) for s in hits), 0.0)

    def joules(which: int) -> Interval:
        return boot.total(values(lambda s: None if s.energy_j is None else s.energy_j[which]) / J_PER_WH)

    waits = [None if s is None else _wait_spared(s, o, shadow=shadow) for s, o in zip(hits, rows.outcomes, strict=True)]
    cost, energy = values(lambda s: s.cost_pusd), joules(1)
    of_total = UNDEFINED
    if rows.base_cost_pusd is not None:
        of_total = boot.of_sums(lambda sums: 100 * sums[..., 0] / sums[..., 1], cost, rows.base_cost_pusd)
    return {
        "hits": int(hit.sum()),
        "hit_rate": boot.proportion(hit),
        "input_tokens": boot.total(values(lambda s: s.input_tokens)),
        "output_tokens": boot.total(values(lambda s: s.output_tokens)),
        "cost_usd": boot.total(cost / PUSD),
        "cost_pct": of_total,
        "energy_wh": {**msgspec.to_builtins(energy), "estimates": [joules(0).mean, energy.mean, joules(2).mean]},
        "latency_s": boot.total(np.where(hit > 0, column(waits), 0.0)),
        "unpriced_hits": sum(1 for s in hits if s is not None and s.cost_pusd is None),
        "bases": _tally(s.basis for s in hits if s is not None),
    }


def spared_by(lever: str, decisions: Sequence[Decided], outcome: Outcome, *, shadow: bool) -> Spared | None:
    """Return what *lever* spared the call, all unknown where it answered without knowing; None if it did nothing."""
    own = [d for d in decisions if d.lever == lever and (d.mode == "shadow") == shadow]
    spared = [d.saved for d in own if d.saved is not None]
    if spared:
        return spared[-1] if len(spared) == 1 else _together(spared)
    shared = outcome.ending == "coalesced" and any(d.action == "joined" for d in own)
    return Spared() if shared or any(d.action in _ANSWERED for d in own) else None


def _together(parts: Sequence[Spared]) -> Spared:
    """Return the sum of *parts*; unknown where one is."""
    sums: dict[str, Any] = {}
    for name in ("input_tokens", "output_tokens", "cost_pusd", "upstream_s"):
        values = [getattr(part, name) for part in parts]
        sums[name] = None if None in values else sum(values)
    triples = [part.energy_j for part in parts if part.energy_j is not None]
    energy = [sum(values) for values in zip(*triples, strict=True)] if len(triples) == len(parts) else None
    return Spared(**sums, energy_j=None if energy is None else (energy[0], energy[1], energy[2]), basis=parts[-1].basis)


def _wait_spared(spared: Spared, outcome: Outcome, *, shadow: bool) -> float | None:
    """Return the seconds by which the caller had the answer sooner: who waits for a shared answer waits, too."""
    if spared.upstream_s is None or shadow:
        return spared.upstream_s
    return spared.upstream_s - outcome.duration_s


def builtin(figures: Mapping[str, Any]) -> Figures:
    """Return *figures* as plain JSON values; raises ValueError should one be infinite or NaN."""
    plain: Figures = msgspec.to_builtins(figures)
    json.dumps(plain, allow_nan=False)
    return plain


def _sum(values: Array, unit: float = 1.0) -> float | None:
    """Return the sum of the known values, in *unit*; None where there are rows and none is known."""
    known = values[~np.isnan(values)]
    if values.size and not known.size:
        return None
    return math.fsum(known) / unit


def _count(values: Array) -> int | None:
    total = _sum(values)
    return None if total is None else round(total)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _tally(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))
