"""What the month will have cost: what was spent, and the pace of the last weeks for the rest of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from negawatt.web.intervals import Interval
from negawatt.web.period import day_of, days_before, month_of, zone_of

DAYS = 28
NEEDS = 7  # whole days
_BY_WEEKDAY = 14  # days, from which each day of the week is taken for itself
_RESAMPLES = 400
METHOD = (
    "spent so far, and for each day that is left the mean of the same weekday in the last 28 days (of any day where "
    "fewer than 14 are known); 95 %: how far days lay from these means, drawn 400 times for the days and for the means"
)


class Forecast(NamedTuple):
    """*shown* as answers have it, or None and *note*, which says what is missing."""

    shown: dict[str, Any] | None
    note: str | None


def forecast(
    now: float, zone_name: str, *, spent: float, days: Sequence[float], first_s: float | None
) -> Forecast:  # fmt: skip
    """Return the forecast for the month of *now*.

    *spent*: dollars in this month. *days*: dollars of each of the last 28 whole days, oldest first. *first_s*: when
    the first call came; before it there is nothing to go by, and a day of no cost is a day of no gateway.
    """
    zone = zone_of(zone_name)
    starts = days_before(now, zone, DAYS)
    known = [
        (datetime.fromtimestamp(start, zone).weekday(), cost)
        for (start, _), cost in zip(starts, days, strict=True)
        if first_s is not None and start >= first_s
    ]
    if len(known) < NEEDS:
        return Forecast(None, f"whole days known: {len(known)}; a forecast needs {NEEDS}")
    ends = month_of(now, zone)[1]
    today, tomorrow = day_of(now, zone)
    left = [(datetime.fromtimestamp(now, zone).weekday(), (tomorrow - now) / (tomorrow - today))]
    for day in range(1, 31):
        start = tomorrow + (day - 1) * 86_400 + 7_200  # two hours in, whatever the clocks do
        if start < ends:
            left.append((datetime.fromtimestamp(start, zone).weekday(), 1.0))
    model = _Model(known)
    mean = spent + sum(share * model.mean(weekday) for weekday, share in left)
    rng = random.Random(1)
    drawn = sorted(spent + model.drawn(left, rng) for _ in range(_RESAMPLES))
    low, high = max(spent, drawn[int(0.025 * _RESAMPLES)]), drawn[int(0.975 * _RESAMPLES)]
    month = Interval(mean, min(low, mean), max(high, mean))
    return Forecast({"month_usd": month, "month_ends_s": ends, "method": METHOD, "days": len(known)}, None)


class _Model:
    """What a day costs: the mean of the days like it, and how far days lie from theirs."""

    def __init__(self, known: Sequence[tuple[int, float]]) -> None:
        by_weekday = len(known) >= _BY_WEEKDAY
        self._days: dict[int, list[float]] = {}
        for weekday in range(7):
            self._days[weekday] = [cost for day, cost in known if day == weekday or not by_weekday]
        means = len({day for day, _ in known}) if by_weekday else 1
        # Days lie nearer to their own mean than to the true one: by as much as means were taken of them.
        widen = math.sqrt(len(known) / max(1, len(known) - means))
        self._apart = [widen * (cost - self.mean(day)) for day, cost in known]

    def mean(self, weekday: int) -> float:
        return sum(self._days[weekday]) / len(self._days[weekday])

    def drawn(self, left: Sequence[tuple[int, float]], rng: random.Random) -> float:
        """Return what the days that are *left* (weekday, share of the day) may cost: means may be off, days differ."""
        off: dict[int, float] = {}
        total = 0.0
        for weekday, share in left:
            if weekday not in off:
                n = len(self._days[weekday])
                off[weekday] = sum(rng.choice(self._apart) for _ in range(n)) / n
            total += share * (self.mean(weekday) + off[weekday] + rng.choice(self._apart))
        return total
