"""Dates: the day of the week, days between, days before and after, leap years, and one form for all.

Only dates that can be read in one way: 2024-05-31, or with the month's name. 03/04/2024 is none.
"""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from datetime import date, timedelta

from negawatt.offloads.asking import plain
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_NAMED = re.compile(
    r"(?:(?P<weekday>(?:mon|tues|wednes|thurs|fri|satur|sun)day),?\s+)?(?:the\s+)?(?:(?P<d1>\d{1,2})(?:st|nd|rd|th|\.)?(?:\s+(?:of|de))?\s+(?P<m1>[^\W\d_]{3,12})\.?"
    r"|(?P<m2>[^\W\d_]{3,12})\.?\s+(?P<d2>\d{1,2})(?:st|nd|rd|th)?),?\s+(?:de\s+)?(?P<year>\d{4})",
    re.IGNORECASE,
)  # fmt: skip
_ANY = r"['\"]?(?P<{0}>(?:\d{{4}}-\d{{2}}-\d{{2}})|[\w.,' ]{{6,40}}?)['\"]?"
_WEEKDAY = re.compile(
    rf"(?:what|which)\s+(?:day(?:\s+of\s+the\s+week)?|weekday)\s+(?:is|was|will|does|did)\s+(?:it\s+(?:on\s+)?)?{_ANY.format('a')}"
    r"(?:\s+(?:on|fall|fall on|be|fell on))?",
    re.IGNORECASE,
)  # fmt: skip
_BETWEEN = re.compile(
    r"how many\s+days\s+(?:are\s+(?:there\s+)?|were\s+there\s+|lie\s+)?"
    rf"between\s+{_ANY.format('a')}\s+and\s+{_ANY.format('b')}",
    re.IGNORECASE,
)  # fmt: skip
_MOVED = re.compile(
    r"(?:(?:what|which)\s+(?:date|day)?\s*(?:is|was|will be)\s+(?:the date\s+)?)?"
    rf"(?P<n>\d{{1,5}})\s+(?P<unit>day|week|month|year)s?\s+(?P<way>after|before|from)\s+{_ANY.format('a')}",
    re.IGNORECASE,
)
_FORM = re.compile(
    rf"(?:convert|normali[sz]e|format|rewrite|write|turn|put)\s+(?:the\s+)?(?:date\s+)?{_ANY.format('a')}\s+(?:in)?(?:to|as|in)\s+"
    r"(?:the\s+)?(?:iso(?:[\s-]?8601)?|yyyy-mm-dd)(?:\s+(?:date\s+)?format)?",
    re.IGNORECASE,
)  # fmt: skip
_LEAP = re.compile(r"(?:is|was|will)\s+(?:the\s+year\s+)?(\d{4})\s+(?:be\s+)?a\s+leap\s+year", re.IGNORECASE)
_TODAY = re.compile(
    r"what(?:'s| is)\s+(?:the\s+(?:current\s+)?date(?:\s+(?:of\s+)?today)?|today's\s+date|the date today)",
    re.IGNORECASE,
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_GREGORIAN = 1583


def read_date(text: str) -> date | None:
    """Return the date that *text* is, None where it is none or could be another one as well."""
    text = " ".join(text.split()).strip(" .,")
    iso = _ISO.fullmatch(text)
    if iso is not None:
        return _made(int(iso[1]), int(iso[2]), int(iso[3]))
    named = _NAMED.fullmatch(text)
    if named is None:
        return None
    import dateparser

    day, year = int(named["d1"] or named["d2"]), int(named["year"])
    bare = f"{day} {named['m1'] or named['m2']} {year}"
    found = dateparser.parse(bare, settings={"STRICT_PARSING": True})
    if found is None or (found.day, found.year) != (day, year):
        return None
    made = _made(year, found.month, day)
    weekday = named["weekday"]
    return made if weekday is None or (made and weekday.title() == _DAYS[made.weekday()]) else None


def _made(year: int, month: int, day: int) -> date | None:
    if year < _GREGORIAN or not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    return date(year, month, day)


class Dates:
    """Answers questions about dates that are written out in them."""

    name = "dates"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        text = plain(ask.text)
        if _TODAY.fullmatch(text):
            if ask.now is None:
                return Declined("the time at the caller is not known")
            return Answered(ask.now.date().isoformat(), ask.now.date())
        if leap := _LEAP.fullmatch(text):
            year = int(leap[1])
            return Answered("Yes" if isleap(year) else "No") if year >= _GREGORIAN else Declined("another calendar")
        for form, answer in ((_WEEKDAY, _weekday), (_BETWEEN, _between), (_MOVED, _moved), (_FORM, _iso)):
            match = form.fullmatch(text)
            if match is not None:
                found = {name: read_date(match[name]) for name in ("a", "b") if name in form.groupindex}
                dates = [one for one in found.values() if one is not None]
                if len(dates) == len(found):
                    return answer(match, dates)
                return Declined("a date in it is none, or can be read in two ways")
        return Declined("it asks nothing about dates")


def _weekday(_: re.Match[str], dates: list[date]) -> Answered | Declined:
    return Answered(_DAYS[dates[0].weekday()])


def _between(_: re.Match[str], dates: list[date]) -> Answered | Declined:
    days = abs((dates[1] - dates[0]).days)
    return Answered(str(days), days)


def _iso(_: re.Match[str], dates: list[date]) -> Answered | Declined:
    return Answered(dates[0].isoformat(), dates[0])


def _moved(match: re.Match[str], dates: list[date]) -> Answered | Declined:
    number, unit = int(match["n"]), match["unit"].lower()
    number = -number if match["way"].lower() == "before" else number
    try:
        if unit in ("day", "week"):
            found = dates[0] + timedelta(days=number * (7 if unit == "week" else 1))
        elif dates[0].day > 28:
            return Declined("what a month after the end of a month is, is a matter of opinion")
        else:
            months = dates[0].year * 12 + dates[0].month - 1 + number * (12 if unit == "year" else 1)
            found = dates[0].replace(year=months // 12, month=months % 12 + 1)
    except (OverflowError, ValueError):
        return Declined("there is no such date")
    return Answered(found.isoformat(), found) if found.year >= _GREGORIAN else Declined("another calendar")
