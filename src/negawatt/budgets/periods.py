"""Days, weeks and months, in a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple


class Period(NamedTuple):
    """From *start* to before *end*, in seconds since 1970."""

    start: int
    end: int


def zone_of(name: str) -> tzinfo:
    """Return the zone *name*, which is known to exist."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def period_of(per: str, zone: tzinfo, now: float) -> Period:
    """Return the day, week (from Monday) or month that *now* is in; a day of *zone* may have 23 or 25 hours."""
    day = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if per == "week":
        day -= timedelta(days=day.weekday())
        end = day + timedelta(days=7)
    elif per == "month":
        day = day.replace(day=1)
        end = (day + timedelta(days=32)).replace(day=1)
    else:
        end = day + timedelta(days=1)
    return Period(_at(day, zone), _at(end, zone))


def _at(day: datetime, zone: tzinfo) -> int:
    """Return the moment at which *day* begins in *zone*. Where its midnight is skipped, the first moment after it."""
    return int(day.replace(tzinfo=zone).timestamp())
