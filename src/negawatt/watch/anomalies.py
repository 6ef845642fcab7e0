"""What is unlike the days before: hits that drop, prompts that grow, spend that runs away.

Each looks at the last 24 hours, or the last hour, of one class, and at the 14 times 24 hours before; whole days, so
that night and day are in each. To alert, three things must be so at once: there is enough to look at; the near end of
an interval of three standard errors is beyond the most extreme of the days before, which says that days differ as they
always did; and it is beyond their median by a margin that matters. Spend of an hour is compared with the greatest of
the hours before yesterday: three times that.

``benchmarks/alerts.py`` measures how often this is a false alarm where nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from negawatt.watch.alert import Condition
from negawatt.watch.rings import Ring
from negawatt.watch.targets import ASKED, CACHEABLE, HITS, SPENT, WIDTH

_HOUR_S = 3600.0
_DAY_H = 24
_DAYS = 14  # before the last one
_LENGTH_H = 4  # of a slot of lengths
_LEAST_DAYS = 5  # of those before, with enough in each
_LEAST_HITS_N = 200  # cacheable calls in a day
_LEAST_PROMPTS = 100  # in a day
_LEAST_PAID = 50  # calls in the hour that runs away
_LEAST_HOURS = 72  # with spend, before
_SIGMAS = 3.0
_DROP = 0.8  # times the usual hit rate
_GROWTH = 1.2  # times the usual median of tokens
_RUNAWAY = 3.0  # times the greatest hour
_STEPS = 4  # buckets to an octave
_BUCKETS = 24 * _STEPS  # up to 16 million tokens
_PUSD = 1e12


class Past:
    """Two weeks of one class, by the hour."""

    def __init__(self) -> None:
        self._hours = Ring(_HOUR_S, (_DAYS + 1) * _DAY_H + 1, WIDTH)
        self.lengths = Lengths()

    def add(self, at: float, counts: Sequence[int], inputs: Sequence[int]) -> None:
        self._hours.add(at, counts)
        self.lengths.add(at, inputs)

    def conditions(self, name: str, now: float) -> Iterator[Condition]:
        """Yield what was looked at in class *name* at the time *now*."""
        days = self._days(now)
        yield _hit_rate(name, days[0], days[1:])
        yield _spend(name, self._hours, int(now // _HOUR_S))
        yield self.lengths.condition("prompt_growth", name, f"class {name}", now)

    def _days(self, now: float) -> list[list[int]]:
        """Return the counts of the last 24 hours, of the 24 before them, and so on."""
        last = int(now // _HOUR_S)
        return [self._hours.between(last - _DAY_H * (back + 1) + 1, last - _DAY_H * back) for back in range(_DAYS + 1)]


class Middle(NamedTuple):
    """The median of *n* lengths, and the low end of its interval."""

    n: int
    value: float
    low: float


class Lengths:
    """Two weeks of lengths, in buckets that each are a fifth longer than the one before."""

    def __init__(self) -> None:
        self._ring = Ring(_LENGTH_H * _HOUR_S, (_DAYS + 1) * _DAY_H // _LENGTH_H + 1, _BUCKETS)

    def add(self, at: float, lengths: Sequence[int]) -> None:
        if not lengths:
            return
        counts = [0] * _BUCKETS
        for length in lengths:
            counts[bucket_of(length)] += 1
        self._ring.add(at, counts)

    def condition(self, name: str, about: str, what: str, now: float) -> Condition:
        """Return whether prompts of *about* have grown; *what* names it in the message."""
        per_day = _DAY_H // _LENGTH_H
        last = int(now // (_LENGTH_H * _HOUR_S))
        days = [self._ring.between(last - per_day * (back + 1) + 1, last - per_day * back) for back in range(_DAYS + 1)]
        today = middle(days[0])
        before = [found.value for day in days[1:] if (found := middle(day)) is not None and found.n >= _LEAST_PROMPTS]
        request_class = about if what.startswith("class ") else None
        if today is None or today.n < _LEAST_PROMPTS or len(before) < _LEAST_DAYS:
            return Condition(name, about, False, request_class=request_class)
        usual = median(before)
        grown = today.low > max(before) and today.low > _GROWTH * usual
        message = (
            f"half of the prompts of {what} had more than {today.value:.0f} tokens in the last 24 hours, "
            f"and {usual:.0f} in the days before"
        )
        return Condition(name, about, grown, message, "warning", request_class, today.value, usual, "tokens")


def bucket_of(length: int) -> int:
    """Return the place of *length*, at least 1, among the buckets."""
    return min(_BUCKETS - 1, int(math.log2(length) * _STEPS)) if length > 1 else 0


def middle(counts: Sequence[int]) -> Middle | None:
    """Return the median of the lengths that *counts* holds by bucket; None where there are none.

    The interval is of order statistics, for whatever distribution: of n, the one at n/2 - 1.5 sqrt(n).
    """
    n = sum(counts)
    if n == 0:
        return None
    return Middle(n, _ranked(counts, n / 2), _ranked(counts, max(0.0, n / 2 - _SIGMAS * math.sqrt(n) / 2)))


def _ranked(counts: Sequence[int], rank: float) -> float:
    """Return the length at *rank*, the lengths of a bucket taken as spread evenly over its octave's quarter."""
    below = 0
    for place, count in enumerate(counts):
        if count and below + count >= rank:
            return float(2.0 ** ((place + (rank - below) / count) / _STEPS))
        below += count
    return float(2.0 ** (len(counts) / _STEPS))


def _hit_rate(name: str, today: Sequence[int], before: Sequence[Sequence[int]]) -> Condition:
    rates = [day[HITS] / day[CACHEABLE] for day in before if day[CACHEABLE] >= _LEAST_HITS_N]
    n = today[CACHEABLE]
    if n < _LEAST_HITS_N or len(rates) < _LEAST_DAYS:
        return Condition("hit_rate_drop", name, False, request_class=name)
    rate, usual = today[HITS] / n, median(rates)
    high = upper(today[HITS], n)
    message = f"the caches answered {rate:.1%} of {n} calls in the last 24 hours, and {usual:.1%} in the days before"
    dropped = high < min(rates) and high < _DROP * usual
    return Condition("hit_rate_drop", name, dropped, message, "warning", name, rate, usual, "share")


def upper(hits: int, n: int) -> float:
    """Return the upper end of Wilson's interval of a share, at three standard errors."""
    z, share = _SIGMAS, hits / n
    centre = share + z * z / (2 * n)
    return (centre + z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)


def _spend(name: str, hours: Ring, last: int) -> Condition:
    there = dict(hours.filled())
    recent = max((there[n] for n in (last, last - 1) if n in there), key=lambda one: one[SPENT], default=None)
    reach = last - (_DAYS + 1) * _DAY_H
    before = [one[SPENT] for n, one in there.items() if reach < n <= last - _DAY_H and one[SPENT]]
    if recent is None or recent[ASKED] < _LEAST_PAID or len(before) < _LEAST_HOURS:
        return Condition("spend_pace", name, False, request_class=name)
    most, spent = max(before), recent[SPENT]
    message = (
        f"class {name} spent ${spent / _PUSD:.4g} within an hour, and never more than ${most / _PUSD:.4g} "
        "in an hour of the two weeks before"
    )
    runs_away = spent > _RUNAWAY * most
    return Condition("spend_pace", name, runs_away, message, "critical", name, spent / _PUSD, most / _PUSD, "USD")
