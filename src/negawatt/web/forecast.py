"""What the month will have cost: what was spent, and the pace of the last weeks for the rest of it."""

from __future__ import annotations

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
    "fewer than 14 are known); 95 %: days drawn with replacement, 400 times"
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
    pools = [_pool(known, weekday) for weekday, _ in left]
    mean = spent + sum(share * sum(pool) / len(pool) for pool, (_, share) in zip(pools, left, strict=True))
    rng = random.Random(1)
    drawn = sorted(
        spent + sum(share * rng.choice(pool) for pool, (_, share) in zip(pools, left, strict=True))
        for _ in range(_RESAMPLES)
    )
    low, high = drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1]
    month = Interval(mean, min(low, mean), max(high, mean))
    return Forecast({"month_usd": month, "month_ends_s": ends, "method": METHOD, "days": len(known)}, None)


def _pool(known: Sequence[tuple[int, float]], weekday: int) -> list[float]:
    """Return the costs of the days that a day of *weekday* may be like."""
    same = [cost for day, cost in known if day == weekday]
    return same if len(known) >= _BY_WEEKDAY and len(same) > 1 else [cost for _, cost in known]
