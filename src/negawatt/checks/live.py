"""Base against head on an evaluation: the same cases, pair by pair.

Output tokens are compared by the mean of their log-ratios, so that a long case counts no more than a short one.
Inflation fails where its interval lies above 0 and its figure above what is allowed, unless a success costs less than
before; an interval wider than what is allowed tells nothing, and neither do too few pairs. A loss of accuracy fails
where its interval lies below 0. Intervals are 95 %, by bootstrap over cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from negawatt.checks.findings import Finding
from negawatt.checks.plan import Live
from negawatt.statistics import Array, Bootstrap, Interval

_SEED = 1


class Side(NamedTuple):
    """What one side did, row by row; NaN is unknown."""

    success: Array
    output_tokens: Array  # with reasoning
    cost_usd: Array


class Compared(NamedTuple):
    """What came of it: findings, and the figures that they rest on."""

    findings: list[Finding]
    figures: dict[str, Any]


def compared(rules: Live, name: str, clusters: Sequence[str], sides: tuple[Side, Side], path: str) -> Compared:
    """Compare *sides*, base and head, of the candidate *name*: rows are pairs, *clusters* name their cases.

    *path*: of the suite, for whoever reads the findings.
    """
    base, head = sides
    pairs = len(set(clusters))
    if not pairs:
        return Compared([_few(name, path, 0, rules)], {"candidate": name, "pairs": 0})
    boot = Bootstrap(clusters, np.random.default_rng(_SEED))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log(head.output_tokens / base.output_tokens)
    ratios[~np.isfinite(ratios)] = np.nan
    inflation = _percent(boot.mean(ratios))
    accuracy = boot.mean(head.success - base.success)
    costs = [boot.mean(side.cost_usd).mean for side in sides]
    per_success = [boot.ratio(side.cost_usd, side.success).mean for side in sides]
    figures = {
        "candidate": name,
        "pairs": pairs,
        "accuracy_change": _said(accuracy),
        "output_inflation_percent": _said(inflation),
        "cost_usd": dict(zip(("base", "head"), costs, strict=True)),
        "cost_per_success_usd": dict(zip(("base", "head"), per_success, strict=True)),
    }
    if pairs < rules.pairs:
        return Compared([_few(name, path, pairs, rules)], figures)
    cheaper = None not in per_success and float(per_success[1] or 0) < float(per_success[0] or 0)
    found = [*_worse(rules, name, path, accuracy), *_longer(rules, name, path, inflation, cheaper=cheaper)]
    return Compared(found, figures)


def _few(name: str, path: str, pairs: int, rules: Live) -> Finding:
    what = f"{name}: {pairs} pairs are too few to tell base and head apart; {rules.pairs} are asked for"
    return Finding("live", "inconclusive", name, path, 1, what, "add cases to the suite")


def _worse(rules: Live, name: str, path: str, change: Interval) -> list[Finding]:
    if change.mean is None or change.low is None or change.high is None:
        what = f"{name}: no pair was judged on both sides"
        return [Finding("live", "inconclusive", name, path, 1, what, "look at the report of the evaluation")]
    said = f"{name}: accuracy has changed by {_points(change)}"
    if change.high < 0:
        return [Finding("live", "error", name, path, 1, said, "look at the cases that were right before")]
    if change.mean < -rules.accuracy_loss:
        what = f"{said}, more than the {100 * rules.accuracy_loss:g} points allowed, and may be chance"
        return [Finding("live", "inconclusive", name, path, 1, what, "add cases, or repeats")]
    return []


def _longer(rules: Live, name: str, path: str, change: Interval, *, cheaper: bool) -> list[Finding]:
    if change.mean is None or change.low is None or change.high is None:
        what = f"{name}: the output tokens of no pair are known"
        return [Finding("live", "inconclusive", name, path, 1, what, "look at the report of the evaluation")]
    said = f"{name}: answers have {change.mean:+.1f} % tokens [{change.low:+.1f}, {change.high:+.1f}]"
    most = rules.inflation_percent
    if change.low > 0 and change.mean > most:
        if cheaper:
            what = f"{said}, and a success costs less than before"
            return [Finding("live", "warning", name, path, 1, what, "look whether the answers need them")]
        return [Finding("live", "error", name, path, 1, f"{said}; allowed are {most:+g} %", "ask for shorter answers")]
    if (change.high - change.low) / 2 > most:
        what = f"{said}: an interval too wide to tell a change of {most:g} %"
        return [Finding("live", "inconclusive", name, path, 1, what, "add cases, or repeats")]
    return []


def _percent(logs: Interval) -> Interval:
    """Return mean log-ratios as percent."""
    ends = (logs.mean, logs.low, logs.high)
    return Interval(*(None if value is None else 100 * math.expm1(value) for value in ends))


def _points(change: Interval) -> str:
    low, high = (0.0 if end is None else end for end in (change.low, change.high))
    return f"{100 * (change.mean or 0):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _said(interval: Interval) -> dict[str, float | None]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def summary(figures: Sequence[dict[str, Any]]) -> str:
    """Return a paragraph, in Markdown that reads as text too."""
    lines = []
    for one in figures:
        parts = [f"{one['candidate']}: {one['pairs']} pairs"]
        for field, unit, factor in (
            ("accuracy_change", "points of accuracy", 100), ("output_inflation_percent", "% output tokens", 1),
        ):  # fmt: skip
            value = one.get(field, {})
            if value.get("mean") is not None:
                ends = ", ".join(
                    "?" if value[end] is None else f"{factor * value[end]:+.1f}" for end in ("low", "high")
                )
                parts.append(f"{factor * value['mean']:+.1f} {unit} [{ends}]")
        costs = one.get("cost_usd", {})
        if None not in costs.values() and costs:
            parts.append(f"${costs['base']:.6f} -> ${costs['head']:.6f} a call")
        lines.append("; ".join(parts) + ".")
    return "Base against head. " + " ".join(lines)
