"""Sums as pages show them: in dollars, watt-hours and milliseconds; None where nothing is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from negawatt.ledger.histograms import GROWTH, Counts, middle_of
from negawatt.ledger.rollup_reader import Buckets, Snapshot
from negawatt.ledger.rollup_tables import CALLS

PUSD = 10**12
J_PER_WH = 3600.0
RELATIVE_ERROR = math.sqrt(GROWTH) - 1  # of a percentile: it lies in the middle of a bucket
P95_NEEDS, P99_NEEDS = 60, 300  # calls; with fewer a tail is not shown, as in a report

_UNKNOWN = {  # which count says how many calls a sum leaves out
    "cost_pusd": "unpriced",
    "baseline_cost_pusd": "unpriced_baseline",
    "co2e_g": "unknown_co2e",
    **dict.fromkeys(
        ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"),
        "unknown_usage",
    ),
    **dict.fromkeys(("energy_low_j", "energy_j", "energy_high_j"), "unknown_energy"),
    **dict.fromkeys(
        ("baseline_energy_low_j", "baseline_energy_j", "baseline_energy_high_j"), "unknown_baseline_energy"
    ),
}


class Sums(dict[str, Any]):
    """The sums of some calls, by name."""

    def known(self, name: str) -> Any:
        """Return the sum *name* of the calls where it is known; None where there are calls and it is of none."""
        calls = self["calls"]
        return None if calls and self[_UNKNOWN[name]] == calls else self[name]

    def usd(self, name: str = "cost_pusd") -> float | None:
        return dollars(self.known(name))

    def energy(self) -> list[float | None]:
        return [watt_hours(self.known(name)) for name in ("energy_low_j", "energy_j", "energy_high_j")]

    def plus(self, other: Mapping[str, Any]) -> Sums:
        return Sums({name: value + other[name] for name, value in self.items()})


def dollars(pusd: int | None) -> float | None:
    return None if pusd is None else pusd / PUSD


def watt_hours(joules: float | None) -> float | None:
    return None if joules is None else joules / J_PER_WH


def nothing(names: Iterable[str]) -> Sums:
    return Sums(dict.fromkeys(names, 0))


def calls_by(
    snapshot: Snapshot, buckets: Buckets, grain: str, by: Sequence[str] = (), names: Sequence[str] = CALLS.sums
) -> dict[tuple[Any, ...], Sums]:
    """Return the sums of calls over *buckets*, by (number of the bucket, *by*...)."""
    found = snapshot.sums(CALLS, names, buckets, grain=grain, by=by)
    return {key: Sums(zip(names, values, strict=True)) for key, values in found.items()}


def latency(counts: Counts | None) -> dict[str, Any]:
    """Return number and percentiles of *counts*, in milliseconds."""
    counts = counts or {}
    n = sum(counts.values())
    return {"n": n, "p50_ms": _at(counts, n, 0.5, 1), "p95_ms": _at(counts, n, 0.95, P95_NEEDS),
            "p99_ms": _at(counts, n, 0.99, P99_NEEDS)}  # fmt: skip


def _at(counts: Counts, n: int, share: float, at_least: int) -> float | None:
    """Return the smallest time that at least *share* of the calls do not exceed, to within half a bucket."""
    if n < at_least:
        return None
    rank, seen = math.ceil(share * n), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return 1e3 * middle_of(bucket)
    return None
