"""Intervals from sums by groups: what the roll-ups keep of the spread between calls.

Clusters of repeats (calls with the same prompt) are dealt into 32 groups by the last digits of their fingerprint, as
a report deals many clusters into groups. A figure is worked out again without each group in turn (the jackknife);
how much it moves says how far it may be off. 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from negawatt.bounds import clopper_pearson

Group = Sequence[float]
Statistic = Callable[[Sequence[float]], float | None]

METHOD = (
    "95 %: jackknife over 32 groups of clusters of repeats; rates: Clopper-Pearson at the effective sample size "
    "(Wilson above 5,000). They hold the sampling of calls, not the uncertainty of estimates"
)
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # 97.5 % of Student's t, 1 to 10 degrees
_NORMAL = 1.959964
_EXACT_MOST = 5_000


class Interval(msgspec.Struct, frozen=True):
    """A figure, and where it lies with 95 % confidence; None as in `negawatt.statistics.Interval`."""

    mean: float | None
    low: float | None
    high: float | None


UNKNOWN = Interval(None, None, None)


def of_sums(groups: Sequence[Group], statistic: Statistic) -> Interval:
    """Return the interval of a figure that is a function of sums. *groups*: the sums of each group that has calls."""
    totals = [sum(column) for column in zip(*groups, strict=True)]
    point = statistic(totals) if totals else None
    if point is None or len(groups) < 2:
        return Interval(point, None, None)
    without = [statistic([t - x for t, x in zip(totals, group, strict=True)]) for group in groups]
    known = [value for value in without if value is not None]
    if len(known) < len(without):
        return Interval(point, None, None)  # one group alone carries the figure
    half = student(len(known) - 1) * math.sqrt(_spread(known) * (len(known) - 1) / len(known))
    return Interval(point, point - half, point + half)


def total(values: Sequence[float]) -> Interval:
    """Return the interval of a sum; *values*: that of each group that has calls."""
    if not values:
        return UNKNOWN
    point, n = sum(values), len(values)
    if n < 2:
        return Interval(point, None, None)
    half = student(n - 1) * math.sqrt(_spread(values) * n / (n - 1))
    return Interval(point, point - half, point + half)


def rate(ones: Sequence[float], sizes: Sequence[float]) -> Interval:
    """Return the interval of a share of calls, by groups. Where all or none count, each call stands for itself."""
    hit, n = sum(ones), sum(sizes)
    if n <= 0:
        return UNKNOWN
    share, effective = hit / n, n
    if 0 < share < 1 and len(sizes) > 1:
        spread = sum((x - share * size) ** 2 for x, size in zip(ones, sizes, strict=True))
        spread *= len(sizes) / (len(sizes) - 1) / n**2
        effective = min(n, share * (1 - share) / spread) if spread > 0 else n
    if effective > _EXACT_MOST:
        low, high = _wilson(share, effective)
    else:
        low, high = clopper_pearson(share * effective, effective)
    return Interval(share, min(low, share), max(high, share))


def at_most(interval: Interval, most: float) -> Interval:
    """Return *interval*, cut where the figure cannot be higher."""
    if interval.high is None or interval.high <= most:
        return interval
    return Interval(interval.mean, interval.low, max(most, interval.mean or most))


def scaled(interval: Interval, factor: float) -> Interval:
    """Return *interval* in another unit."""
    low, high = (None if end is None else end * factor for end in (interval.low, interval.high))
    return Interval(None if interval.mean is None else interval.mean * factor, low, high)


def student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5; a table below 11 degrees)."""
    if degrees <= len(_T):
        return _T[max(degrees, 1) - 1]
    z, v = _NORMAL, degrees
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def _spread(values: Sequence[float]) -> float:
    """Return the sum of squared distances from the mean."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def _wilson(share: float, n: float) -> tuple[float, float]:
    z2 = _NORMAL**2
    middle = share + z2 / (2 * n)
    half = _NORMAL * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))
