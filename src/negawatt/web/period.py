"""A period in somebody's time zone, cut into buckets: days begin when they begin there, whatever the clocks do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from negawatt.errors import InvalidRequest
from negawatt.ledger.rollup_tables import SLOT_S

MOST_BUCKETS = 800
BUCKETS = ("quarter", "hour", "day", "week", "month")
_DAY_S, _HOUR_S = 86_400, 3_600
_EARLIEST, _LATEST = 0, 4_102_444_800  # 1970, 2100
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", re.ASCII)
_SECONDS = re.compile(r"\d{1,10}(\.\d{1,9})?", re.ASCII)


class Period(msgspec.Struct, frozen=True):
    """``[since_s, until_s)`` in seconds since 1970, multiples of a quarter of an hour."""

    since_s: int
    until_s: int
    zone: str
    bucket: str
    now_s: float

    @property
    def whole(self) -> list[tuple[int, int]]:
        return [(self.since_s, self.until_s)]

    @property
    def buckets(self) -> list[tuple[int, int]]:
        """The period in pieces, each beginning when one of its kind does in the zone. Raises `InvalidRequest`."""
        starts = _starts(self)
        return list(zip(starts, [*starts[1:], self.until_s], strict=True))

    def shown(self) -> dict[str, Any]:
        """Return the period as answers have it."""
        zone = zone_of(self.zone)
        return {
            "since": datetime.fromtimestamp(self.since_s, zone).isoformat(),
            "until": datetime.fromtimestamp(self.until_s, zone).isoformat(),
            **{name: getattr(self, name) for name in ("since_s", "until_s", "zone", "bucket", "now_s")},
        }


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone *name*. Raises `InvalidRequest`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as America
        raise InvalidRequest(f"zone: there is no time zone {name[:80]!r} here", param="zone") from None


def period_of(query: Mapping[str, str], now: float) -> Period:
    """Return the period that *query* asks for. Raises `InvalidRequest` that names the parameter."""
    name = query.get("zone") or "UTC"
    zone = zone_of(name)
    today = datetime.fromtimestamp(now, zone).date()
    since = moment(query, "since", zone, default=today - timedelta(days=29))
    until = moment(query, "until", zone, default=today + timedelta(days=1))
    since_s, until_s = int(since // SLOT_S * SLOT_S), int(-(-until // SLOT_S) * SLOT_S)
    if since_s >= until_s:
        raise InvalidRequest("until: it is not after since", param="until")
    bucket = query.get("bucket") or _fitting(until_s - since_s)
    if bucket not in BUCKETS:
        raise InvalidRequest(f"bucket: expected {', '.join(BUCKETS)}, got {bucket[:40]!r}", param="bucket")
    period = Period(since_s, until_s, name, bucket, now)
    period.buckets  # noqa: B018  # refused here where there would be too many
    return period


def moment(query: Mapping[str, str], name: str, zone: ZoneInfo, *, default: date) -> float:
    """Return the parameter *name*, a date, a moment in *zone* or seconds since 1970, in seconds since 1970."""
    text = query.get(name)
    if not text:
        return begins(default, zone)
    try:
        if _SECONDS.fullmatch(text):
            found = float(text)
        elif _DATE.fullmatch(text):
            found = begins(date.fromisoformat(text), zone)
        elif _MOMENT.fullmatch(text):
            found = datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()
        else:
            raise ValueError
        if not _EARLIEST <= found <= _LATEST:
            raise ValueError
    except (ValueError, OverflowError):
        message = (
            f"{name}: expected a date, a moment such as 2026-11-01T09:30, or seconds since 1970, got {text[:40]!r}"
        )
        raise InvalidRequest(message, param=name) from None
    return found


def begins(day: date, zone: ZoneInfo) -> float:
    """Return when *day* begins in *zone*, in seconds since 1970.

    Where clocks go forward at midnight that is their first moment after it; where midnight comes twice, the first.
    """
    return datetime.combine(day, time(), zone).timestamp()


def month_of(now: float, zone: ZoneInfo) -> tuple[int, int]:
    """Return when the month of *now* begins and ends in *zone*, to the quarter of an hour."""
    first = datetime.fromtimestamp(now, zone).date().replace(day=1)
    after = (first + timedelta(days=32)).replace(day=1)
    return _slot(begins(first, zone)), _slot(begins(after, zone))


def day_of(now: float, zone: ZoneInfo) -> tuple[int, int]:
    """Return when the day of *now* begins and ends in *zone*, to the quarter of an hour."""
    today = datetime.fromtimestamp(now, zone).date()
    return _slot(begins(today, zone)), _slot(begins(today + timedelta(days=1), zone))


def days_before(now: float, zone: ZoneInfo, days: int) -> list[tuple[int, int]]:
    """Return the *days* whole days before that of *now* in *zone*, oldest first."""
    today = datetime.fromtimestamp(now, zone).date()
    starts = [_slot(begins(today - timedelta(days=i), zone)) for i in range(days, -1, -1)]
    return list(itertools.pairwise(starts))


def _slot(at: float) -> int:
    return int(at // SLOT_S * SLOT_S)


def _fitting(seconds: int) -> str:
    if seconds <= 12 * _HOUR_S:
        return "quarter"
    if seconds <= 4 * _DAY_S:
        return "hour"
    return "day" if seconds <= 186 * _DAY_S else "week" if seconds <= 1100 * _DAY_S else "month"


def _starts(period: Period) -> list[int]:
    zone, starts = zone_of(period.zone), [period.since_s]
    step = {"quarter": SLOT_S, "hour": _HOUR_S, "day": _DAY_S, "week": 7 * _DAY_S, "month": 28 * _DAY_S}[period.bucket]
    if (period.until_s - period.since_s) / step > MOST_BUCKETS:
        message = f"bucket: {period.bucket} makes more than {MOST_BUCKETS} of this period"
        raise InvalidRequest(message, param="bucket")
    if period.bucket in ("quarter", "hour"):
        for slot in range(period.since_s + SLOT_S, period.until_s, SLOT_S):
            if period.bucket == "quarter" or datetime.fromtimestamp(slot, zone).minute == 0:
                starts.append(slot)
        return starts
    day = datetime.fromtimestamp(period.since_s, zone).date()
    while True:
        day = _following(day, period.bucket)
        start = _slot(begins(day, zone))
        if start >= period.until_s:
            return starts
        if start > starts[-1]:
            starts.append(start)


def _following(day: date, bucket: str) -> date:
    """Return the first day of the next *bucket*."""
    if bucket == "day":
        return day + timedelta(days=1)
    if bucket == "week":
        return day + timedelta(days=7 - day.weekday())
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
