"""Intervals for what a report claims, without scipy.

The unit of resampling is the *cluster*: calls that repeat each other (the same prompt) stand or fall together, so
whole clusters are drawn with replacement. One set of draws serves every statistic of a report: differences between
arms are then paired, and every interval can be compared with every other.

In the arrays of this module NaN is unknown, and a row that is unknown in any column of a statistic is left out of it.
Intervals are 95 %. They hold the uncertainty of the sample of calls; the uncertainty of an estimator, such as that
of energy, is no part of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from negawatt.bounds import beta_cdf as beta_cdf
from negawatt.bounds import clopper_pearson as clopper_pearson
from negawatt.bounds import least_share as least_share
from negawatt.bounds import most_share as most_share

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # sums of the columns, shape (..., columns), to the figure, shape (...)

RESAMPLES = 2000
MAX_UNITS = 4000
_LEVELS = (0.025, 0.975)
_BLOCK = 64
_CHUNK = 4_000_000  # numbers worked on at a time, so that memory stays bounded


class Interval(msgspec.Struct, frozen=True):
    """A figure, and where it lies with 95 % confidence.

    *mean* is the figure itself, over all calls. *mean* None: undefined, or unknown. *low* or *high* None: the sample
    does not bound it on that side (a single cluster bounds nothing).
    """

    mean: float | None
    low: float | None
    high: float | None


UNDEFINED = Interval(None, None, None)


def column(values: Iterable[float | None]) -> Array:
    """Return *values* as an array, None as NaN."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


class Bootstrap:
    """Draws clusters with replacement, *resamples* times, once.

    *clusters* names the cluster of each row. More than 4,000 clusters are first dealt at random into 4,000 groups of
    nearly equal size, which are then what is drawn: memory and time stay bounded, and groups of independent clusters
    are independent too.
    """

    def __init__(self, clusters: Sequence[str], rng: np.random.Generator, resamples: int = RESAMPLES) -> None:
        # np.unique sorts the names, so the order of the rows does not change the draws.
        _, unit = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
        self.clusters = int(unit.max()) + 1 if unit.size else 0
        if self.clusters > MAX_UNITS:
            unit = (rng.permutation(self.clusters) % MAX_UNITS)[unit]
        self.units = min(self.clusters, MAX_UNITS)
        self.resamples = resamples
        self._unit = unit.reshape(-1)
        self._counts = _draws(self.units, resamples, rng)
        self._times_drawn = np.ascontiguousarray(self._counts.T.astype(np.uint16))

    def of_sums(self, statistic: Statistic, *columns: Array) -> Interval:
        """Return the interval of any figure that is a function of sums: a total, a ratio, a saving, a difference."""
        table = np.column_stack(columns)
        known = ~np.isnan(table.sum(axis=1))
        if not known.any():
            return UNDEFINED
        table = table[known]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            point = float(statistic(table.sum(axis=0)))
            figures = statistic(self._sums(table, known))
        return self._interval(point, figures)

    def total(self, values: Array) -> Interval:
        return self.of_sums(lambda sums: sums[..., 0], values)

    def mean(self, values: Array) -> Interval:
        return self.ratio(values, np.ones_like(values))

    def ratio(self, numerator: Array, denominator: Array) -> Interval:
        """Return sum over sum; undefined, never 0 or infinity, where the denominators sum to 0."""
        return self.of_sums(lambda sums: sums[..., 0] / sums[..., 1], numerator, denominator)

    def saving_pct(self, without: Array, with_: Array, base: Array | None = None) -> Interval:
        """Return by how many percent of *base*'s sum (default: *without*'s) *with_*'s lies below *without*'s.

        Row by row the same calls, over those that are known in all of them; undefined where *base* sums to 0.
        """
        columns = (without if base is None else base, without, with_)
        return self.of_sums(lambda sums: 100 * (sums[..., 1] - sums[..., 2]) / sums[..., 0], *columns)

    def median(self, values: Array) -> Interval:
        """Return the median: the smallest value that at least half of the known ones do not exceed."""
        known = ~np.isnan(values)
        point = quantile(values, 0.5)
        if point is None:
            return UNDEFINED
        return self._interval(point, self._quantiles(values[known], known, 0.5))

    def median_saving_pct(self, without: Array, with_: Array, base: Array | None = None) -> Interval:
        """Return by how many percent of *base*'s median (default: *without*'s) *with_*'s lies below *without*'s.

        Over the calls that are known in all of them; undefined where *base*'s median is 0.
        """
        columns = [without if base is None else base, without, with_]
        known = ~np.isnan(np.column_stack(columns).sum(axis=1))
        if not known.any():
            return UNDEFINED
        points = [quantile(values[known], 0.5) or 0.0 for values in columns]
        if points[0] <= 0:
            return UNDEFINED
        drawn = [self._quantiles(values[known], known, 0.5) for values in columns]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            figures = 100 * (drawn[1] - drawn[2]) / drawn[0]
        return self._interval(100 * (points[1] - points[2]) / points[0], figures)

    def proportion(self, hits: Array) -> Interval:
        """Return the share of ones among zeros and ones: Clopper-Pearson at the effective sample size.

        Repeats within a cluster are not evidence of their own. The sample size is that at which independent calls
        would vary as much as the clusters do (Korn and Graubard 1998); where all calls agree, the number of clusters.
        """
        if np.isnan(hits).all():
            return UNDEFINED
        successes, n = self.evidence(hits)
        return Interval(successes / n, *clopper_pearson(successes, n))

    def evidence(self, hits: Array) -> tuple[float, float]:
        """Return as how many independent calls, and successes among them, *hits* count; n is 0 where none is known."""
        known = ~np.isnan(hits)
        if not known.any():
            return 0.0, 0.0
        units, unit = np.unique(self._unit[known], return_inverse=True)
        ones = np.bincount(unit, weights=hits[known])
        sizes = np.bincount(unit).astype(np.float64)
        if sizes.max() == 1:
            return float(ones.sum()), float(units.size)  # nothing repeats: each call counts as one
        share = float(ones.sum() / sizes.sum())
        effective = float(units.size)
        if 0 < share < 1 and units.size > 1:
            spread = float(((ones - share * sizes) ** 2).sum()) * units.size / (units.size - 1) / sizes.sum() ** 2
            effective = min(share * (1 - share) / spread, float(sizes.sum())) if spread > 0 else effective
        return share * float(effective), float(effective)

    def _sums(self, table: Array, known: NDArray[np.bool_]) -> Array:
        by_unit = np.column_stack(
            [np.bincount(self._unit[known], weights=values, minlength=self.units) for values in table.T]
        )
        sums: Array = self._counts @ by_unit
        return sums

    def _quantiles(self, values: Array, known: NDArray[np.bool_], share: float) -> Array:
        """Return the quantile of each resample; NaN for one that drew none of the known rows."""
        order = np.argsort(values, kind="stable")
        ranked, unit = values[order], self._unit[known][order]
        found = np.empty(self.resamples)
        step = max(1, _CHUNK // max(1, ranked.size))
        for start in range(0, self.resamples, step):
            times = self._times_drawn[unit, start : start + step]
            rank, drawn = _reached(times, share)
            found[start : start + step] = np.where(drawn > 0, ranked[np.minimum(rank, ranked.size - 1)], math.nan)
        return found

    def _interval(self, point: float, figures: Array) -> Interval:
        """Return the percentile interval, widened to hold *point* where a skewed sample leaves it outside."""
        if not math.isfinite(point):
            return UNDEFINED
        figures = figures[~np.isnan(figures)]
        if self.units < 2 or figures.size == 0:
            return Interval(point, None, None)
        low, high = (float(value) for value in np.quantile(figures, _LEVELS, method="inverted_cdf"))
        return Interval(
            point, min(low, point) if math.isfinite(low) else None, max(high, point) if math.isfinite(high) else None
        )


def _draws(units: int, resamples: int, rng: np.random.Generator) -> Array:
    """Return how often each resample draws each unit, shape (resamples, units)."""
    counts = np.zeros((resamples, units))
    step = max(1, _CHUNK // max(1, units))
    for start in range(0, resamples if units else 0, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, units, size=(rows, units)) + np.arange(rows)[:, None] * units
        counts[start : start + rows] = np.bincount(drawn.reshape(-1), minlength=rows * units).reshape(rows, units)
    return counts


def _reached(times: NDArray[np.uint16], share: float) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return, per column, the first row by which *share* of the column's sum is reached, and that sum.

    Whole blocks of rows are summed first, and only the block in question is walked through: many times faster than
    a running sum over all of *times*.
    """
    rows, columns = times.shape
    blocks = -(-rows // _BLOCK)
    padding = np.zeros((blocks * _BLOCK - rows, columns), dtype=times.dtype)
    blocked = np.concatenate([times, padding]).reshape(blocks, _BLOCK, columns)
    running = np.cumsum(blocked.sum(axis=1, dtype=np.int64), axis=0)
    target = np.ceil(share * running[-1]).astype(np.int64)
    block = (running < target).sum(axis=0)
    every = np.arange(columns)
    before = np.where(block > 0, running[block - 1, every], 0)
    within = np.cumsum(blocked[block, :, every], axis=1, dtype=np.int64) + before[:, None]
    return block * _BLOCK + (within < target[:, None]).sum(axis=1), running[-1]


def quantile(values: Array, share: float, at_least: int = 1) -> float | None:
    """Return the smallest value that at least *share* of the known ones do not exceed.

    None where fewer than *at_least* are known: a tail is not to be read off a handful of calls.
    """
    known = values[~np.isnan(values)]
    if known.size < max(1, at_least):
        return None
    return float(np.quantile(known, share, method="inverted_cdf"))


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p of McNemar's test: of pairs that differ, as many either way?"""
    n, fewer = better + worse, min(better, worse)
    return 1.0 if n == 0 else min(1.0, 2 * beta_cdf(0.5, n - fewer, fewer + 1))


def holm(values: Sequence[float]) -> list[float]:
    """Return the p *values*, adjusted for being several (Holm 1979): the family errs as seldom as one test would."""
    adjusted, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        least = adjusted[i] = max(least, min(1.0, values[i] * (len(values) - rank)))
    return adjusted
