"""What tasks cost, and how many succeeded: the figures of a period, read from the roll-up.

The cost of a success is what all attempts of the judged tasks cost, theirs that failed and what the gateway asked
beside them included, for each of them that succeeded. Tasks are dealt into 64 buckets: a bootstrap that draws buckets
draws tasks, whole, in groups.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from negawatt.ledger.sql_success import BLOCK_S, BUCKETS, MEASURES
from negawatt.ledger.sqlite import open_reading
from negawatt.success.sql import NAME

if TYPE_CHECKING:
    from negawatt.statistics import Bootstrap, Interval

Grouping = Literal["all", "class", "tenant", "model", "template", "prompt"]
BY: tuple[Grouping, ...] = ("all", "class", "tenant", "model", "template", "prompt")
_KEPT_AS = {"template": "prompt"}  # what is not kept of its own, and of what it is made
MOST_GROUPS = 200  # of one answer: the largest
_PUSD = 1e12
_UJ = 1e6
_SEED = 1

_COLUMNS = ", ".join(MEASURES)
_SUMMED = ", ".join(f"sum({name})" for name in MEASURES)
_OF_TASKS = ", ".join(f"sum({of})" for of in MEASURES.values())
_EDGE = "(SELECT :by AS grouping)"
_OF_PERIOD = (
    "(k.first_at >= :since AND k.first_at < :inner_since) OR (k.first_at >= :inner_until AND k.first_at < :until)"
)
_SUMS = f"""
SELECT name, bucket, {_SUMMED} FROM task_sum
WHERE grouping = :by AND block >= :first_block AND block < :last_block GROUP BY name, bucket
UNION ALL
SELECT {NAME} AS name, k.bucket, {_OF_TASKS} FROM task k CROSS JOIN {_EDGE} g WHERE {_OF_PERIOD} GROUP BY 1, 2
"""
_LATENCIES = f"""
SELECT name, about_ms, sum(tasks) FROM task_latency
WHERE grouping = :by AND block >= :first_block AND block < :last_block GROUP BY name, about_ms
UNION ALL
SELECT {NAME} AS name, CAST(printf('%.1e', k.latency_ms) AS REAL), count(*) FROM task k CROSS JOIN {_EDGE} g
WHERE ({_OF_PERIOD}) AND k.latency_ms IS NOT NULL GROUP BY 1, 2
"""
_ENDS = "SELECT min(first_at), max(first_at) FROM task"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tasks of one group that began in a period. None is unknown, or undefined: never 0, never infinite.

    An interval holds the sampling of tasks. It knows nothing of the tasks that nobody judged: *success_possible* says
    what the rate is if all of those failed, and if all succeeded.
    """

    name: str  # of the group; "" for all, and for what has none
    tasks: int
    calls: int
    judged: int
    successes: int
    by_feedback: int  # of the judged
    by_verifier: int
    by_heuristic: int
    unknown_share: float  # of the tasks: those without a verdict
    success_rate: Interval  # of the judged
    success_possible: tuple[float, float]
    cost_usd: float  # of all tasks, as far as it is known
    unpriced_tasks: int  # that hold a call without a price: left out of the next two
    judged_cost_usd: float
    cost_per_success_usd: Interval
    cost_per_judged_task_usd: float | None
    cost_per_unknown_task_usd: float | None  # where it differs much, the judged do not stand for all
    energy_per_success_j: tuple[float, float, float] | None  # low, central, high
    energy_per_success_interval_j: Interval  # of the central one
    latency_to_success_s: Interval  # mean, from the task's first call to the end of the one that succeeded
    latency_to_success_p50_s: float | None  # within 5 %
    latency_to_success_p95_s: float | None
    useful_share: float | None  # of the output tokens of those tasks of which somebody said it


class Sums(msgspec.Struct, frozen=True):
    """The measures (`negawatt.ledger.sql_success.MEASURES`) of one group: in all, and by bucket."""

    total: Mapping[str, int]
    buckets: Mapping[int, Sequence[int]]


def figures(path: Path, since: float = 0.0, until: float = float("inf"), by: Grouping = "all") -> list[Figures]:
    """Return the figures of the tasks of the ledger at *path* that began in [since, until), the largest group first.

    They are as new as the roll-up: a gateway that runs keeps it up, else `negawatt.success.catch_up` does.
    Raises `InputError`.
    """
    with closing(open_reading(path)) as connection:
        return figures_in(connection, since, until, by)


def figures_in(connection: sqlite3.Connection, since: float, until: float, by: Grouping) -> list[Figures]:
    """Return what `figures` does, of an open ledger."""
    import numpy as np

    from negawatt.statistics import Bootstrap

    groups = sums_in(connection, since, until, by)
    latencies = _latencies(connection, since, until, by)
    boot = Bootstrap([f"{bucket:02}" for bucket in range(BUCKETS)], np.random.default_rng(_SEED))
    largest = sorted(groups.items(), key=lambda item: (-item[1].total["tasks"], item[0]))[:MOST_GROUPS]
    return [_figures(name, sums, latencies.get(name, {}), boot) for name, sums in largest]


def sums_in(connection: sqlite3.Connection, since: float, until: float, by: Grouping) -> dict[str, Sums]:
    """Return the sums of each group, without any interval: cheap enough to be asked often."""
    if by not in BY:
        raise ValueError(f"by: expected one of {', '.join(BY)}, got {by!r}")
    found: dict[str, dict[int, list[int]]] = {}
    for kept, bucket, *values in connection.execute(_SUMS, _period(connection, since, until, by)):
        name = _name(kept, by)
        there = found.setdefault(name, {}).get(bucket)
        found[name][bucket] = values if there is None else [a + b for a, b in zip(there, values, strict=True)]
    groups = {name: Sums(_total(buckets.values()), buckets) for name, buckets in found.items()}
    return {name: sums for name, sums in groups.items() if sums.total["tasks"]}


def _name(kept: str, by: str) -> str:
    """Return the name of the group that what is *kept* under a name belongs to."""
    return "" if by == "all" else kept.partition("@")[0] if by == "template" else kept


def _total(rows: Iterable[Sequence[int]]) -> dict[str, int]:
    return dict(zip(MEASURES, map(sum, zip(*rows, strict=True)), strict=True))


def _period(connection: sqlite3.Connection, since: float, until: float, by: str) -> dict[str, float | str]:
    """Return the period in whole blocks, and what of it lies before and after them."""
    first, last = connection.execute(_ENDS).fetchone()
    since, until = max(since, 0.0 if first is None else first), min(until, 0.0 if last is None else last + 1.0)
    first_block, last_block = -int(-since // BLOCK_S), int(until // BLOCK_S)
    if first_block >= last_block:
        first_block = last_block = 0  # there is no whole block in it: all of it is an edge
        inner_since = inner_until = until
    else:
        inner_since, inner_until = float(first_block * BLOCK_S), float(last_block * BLOCK_S)
    return {
        "by": _KEPT_AS.get(by, by), "since": since, "until": until, "first_block": first_block,
        "last_block": last_block, "inner_since": inner_since, "inner_until": inner_until,
    }  # fmt: skip


def _latencies(connection: sqlite3.Connection, since: float, until: float, by: str) -> dict[str, dict[float, int]]:
    found: dict[str, dict[float, int]] = {}
    for name, about_ms, tasks in connection.execute(_LATENCIES, _period(connection, since, until, by)):
        counts = found.setdefault(_name(name, by), {})
        counts[about_ms] = counts.get(about_ms, 0) + tasks
    return found


def _figures(name: str, sums: Sums, latencies: Mapping[float, int], boot: Bootstrap) -> Figures:
    from negawatt.statistics import UNDEFINED, Interval, clopper_pearson

    total = sums.total
    tasks, judged, successes = total["tasks"], total["judged"], total["successes"]
    unknown = tasks - judged
    ratio = _Ratios(sums, boot).of
    rate = UNDEFINED if not judged else Interval(successes / judged, *clopper_pearson(successes, judged))
    cost, judged_cost = total["cost_pusd"], total["priced_cost_pusd"]
    unjudged_priced = tasks - total["unpriced_tasks"] - total["priced_judged"]
    metered = total["metered_successes"]
    joules = None if not metered else (
        total["energy_low_uj"] / metered / _UJ, total["energy_uj"] / metered / _UJ,
        total["energy_high_uj"] / metered / _UJ,
    )  # fmt: skip
    return Figures(
        name=name, tasks=tasks, calls=total["calls"], judged=judged, successes=successes,
        by_feedback=total["by_feedback"], by_verifier=total["by_verifier"], by_heuristic=total["by_heuristic"],
        unknown_share=unknown / tasks, success_rate=rate,
        success_possible=(successes / tasks, (successes + unknown) / tasks),
        cost_usd=cost / _PUSD, unpriced_tasks=total["unpriced_tasks"], judged_cost_usd=judged_cost / _PUSD,
        cost_per_success_usd=ratio("priced_cost_pusd", "priced_successes", _PUSD),
        cost_per_judged_task_usd=_share(judged_cost / _PUSD, total["priced_judged"]),
        cost_per_unknown_task_usd=_share(total["priced_unknown_cost_pusd"] / _PUSD, unjudged_priced),
        energy_per_success_j=joules, energy_per_success_interval_j=ratio("energy_uj", "metered_successes", _UJ),
        latency_to_success_s=ratio("latency_ms", "timed_successes", 1e3),
        latency_to_success_p50_s=_quantile(latencies, 0.5), latency_to_success_p95_s=_quantile(latencies, 0.95, 60),
        useful_share=_share(total["useful_tokens"], total["useful_of_tokens"]),
    )  # fmt: skip


class _Ratios:
    """Ratios of sums over tasks, with their intervals."""

    def __init__(self, sums: Sums, boot: Bootstrap) -> None:
        self._sums = sums
        self._boot = boot

    def of(self, numerator: str, denominator: str, unit: float) -> Interval:
        """Return *numerator* over *denominator*, in *unit*; undefined without any of the latter."""
        import numpy as np

        from negawatt.statistics import UNDEFINED, Interval

        places = [list(MEASURES).index(name) for name in (numerator, denominator)]
        nothing = (0,) * len(MEASURES)
        rows = [self._sums.buckets.get(bucket, nothing) for bucket in range(BUCKETS)]
        above, below = (np.array([row[place] for row in rows], dtype=np.float64) for place in places)
        if not below.sum():
            return UNDEFINED
        found = self._boot.ratio(above / unit, below)
        if np.count_nonzero(above + below) < 2:  # one bucket bounds nothing
            return Interval(found.mean, None, None)
        return found


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _quantile(counts: Mapping[float, int], share: float, at_least: int = 1) -> float | None:
    """Return the smallest latency, in seconds, that *share* of those counted do not exceed; None with too few."""
    tasks = sum(counts.values())
    if tasks < at_least:
        return None
    reached = 0
    for about_ms in sorted(counts):
        reached += counts[about_ms]
        if reached >= share * tasks and counts[about_ms]:
            return about_ms / 1e3
    return None
