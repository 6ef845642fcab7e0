"""Figures over time: one number for each bucket of a period."""

from __future__ import annotations

from typing import Any

from negawatt.ledger.rollup_reader import Snapshot
from negawatt.web.period import Period
from negawatt.web.sums import Sums, calls_by, latency, nothing, watt_hours

MOST_NAMES = 12  # the rest are one
REST = "other"
_COST = ("calls", "cost_pusd", "unpriced")
_TOTAL = (
    "calls", "cost_pusd", "baseline_cost_pusd", "unpriced", "unpriced_baseline", "input_tokens", "output_tokens",
    "cache_read_tokens", "reasoning_tokens", "energy_j", "unknown_usage", "unknown_energy", "at_fault", "hits",
)  # fmt: skip


def series(snapshot: Snapshot, period: Period) -> dict[str, Any]:
    """Return the series of *period*."""
    buckets = period.buckets
    totals = calls_by(snapshot, buckets, "total", names=_TOTAL)
    rows = [totals.get((i,), nothing(_TOTAL)) for i in range(len(buckets))]
    times = snapshot.times("duration", buckets)
    waits = [latency(times.get((i, "*"))) for i in range(len(buckets))]
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")
    return {
        "starts_s": [since for since, _ in buckets],
        "total": {
            "calls": [row["calls"] for row in rows],
            "errors": [row["at_fault"] for row in rows],
            "hits": [row["hits"] for row in rows],
            "cost_usd": [row.usd() for row in rows],
            "baseline_usd": [row.usd("baseline_cost_pusd") for row in rows],
            "unpriced": [row["unpriced"] for row in rows],
            **{name: [row.known(name) for row in rows] for name in tokens},
            "energy_wh": [watt_hours(row.known("energy_j")) for row in rows],
            "p50_ms": [wait["p50_ms"] for wait in waits],
            "p95_ms": [wait["p95_ms"] for wait in waits],
        },
        "by_class": _by(snapshot, period, "classes", "request_class"),
        "by_model": _by(snapshot, period, "answerers", "model"),
    }


def _by(snapshot: Snapshot, period: Period, grain: str, key: str) -> dict[str, Any]:
    """Return cost and calls over time of each name, the dearest first, and of all others together."""
    buckets = period.buckets
    found: dict[str, dict[int, Sums]] = {}
    for (nth, name), sums in calls_by(snapshot, buckets, grain, (key,), _COST).items():
        found.setdefault(name, {})[nth] = sums
    weight = {
        name: (sum(one["cost_pusd"] for one in rows.values()), sum(one["calls"] for one in rows.values()))
        for name, rows in found.items()
    }
    names = sorted(found, key=lambda name: (weight[name], name), reverse=True)
    if len(names) > MOST_NAMES:
        kept = [name for name in names if name != REST][: MOST_NAMES - 1]
        rest: dict[int, Sums] = {}
        for name in names:
            if name not in kept:
                for nth, sums in found[name].items():
                    rest[nth] = rest[nth].plus(sums) if nth in rest else sums
        found, names = {**{name: found[name] for name in kept}, REST: rest}, [*kept, REST]
    rows = [[found[name].get(i, nothing(_COST)) for i in range(len(buckets))] for name in names]
    return {
        "names": [name or None for name in names],
        "cost_usd": [[sums.usd() for sums in row] for row in rows],
        "calls": [[sums["calls"] for sums in row] for row in rows],
    }
