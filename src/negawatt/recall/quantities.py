"""The numbers in a text, however they are written, with their units in one measure."""

from __future__ import annotations

import re
from typing import NamedTuple

from negawatt.recall.words import words

Amount = tuple[str, float]  # dimension, and how many of its first unit

# -1,234.5  1.234,5  3.5  5k  $20  20%  1st  16gb
_NUMBER = re.compile(
    r"(?P<minus>(?<![\w.)])[-−](?=[$€£¥]?\d))?(?P<sign>[$€£¥]\s?)?(?P<digits>\d[\d,.]{0,40}(?<![,.]))(?P<tail>[^\W\d_]{1,14})?"
)
_NEXT = re.compile(r"\s?([%$€£¥]|°[cf]|[^\W\d_]{1,14})")
_TOKEN = re.compile(r"[^\W\d_]+|[%$€£¥;]|°[cf]")
_THOUSANDS = re.compile(r"\d{1,3}(?:([,.])\d{3})(?:\1\d{3})*$")
_SPACED = re.compile(r"(?<![\w.,])\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3}){1,6}(?![\w.,]\d)")
_DATE = re.compile(r"(?<![\w-])(\d{4})-(0[1-9]|1[0-2])-([0-3]\d)(?!\d)")
_PARTS = re.compile(r"(?<![\w.,/])\d{1,10}([./-])\d{1,10}(?:\1\d{1,10}){1,6}(?!\w)")  # a date, an address, a version
_SUM = re.compile(r"\d[\d.,]{0,20}(?:\s?[+*/×÷^=]\s?\d[\d.,]{0,20}){1,20}")
_VERSION = re.compile(r"\d+\.\d*[1-9]\d*0")  # but not 2.0 or 5.00
_CLOCK = re.compile(
    r"(?<![\w:.])(?P<hour>\d{1,2})(?:[:.](?P<minute>[0-5]\d))?\s?(?P<half>[ap])\.?m\b"
    r"|(?<![\w:.])(?P<hour24>[01]?\d|2[0-3]):(?P<minute24>[0-5]\d)(?![\w:])"
)
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
SCALES = {"k": 1e3, "m": 1e6, "bn": 1e9, "million": 1e6, "billion": 1e9, "thousand": 1e3, "hundred": 1e2}
SUFFIXES = frozenset({"st", "nd", "rd", "th"})


class Quantities(NamedTuple):
    """What a text says of amounts. *numbers* are bare, in one form; sums and dates in figures stand as they are.

    *perhaps* holds what words such as "one", "first" or "an hour" may stand for: not enough to demand it of the other
    text, but enough to find there what that says in digits.
    """

    numbers: frozenset[str]
    units: frozenset[Amount]
    perhaps: frozenset[str | Amount]
    ordinals: frozenset[str]


def spelled(text: str) -> str:
    """Return *text* (case-folded) with dates such as 2024-05-31 as "31 may 2024"."""
    return _DATE.sub(lambda m: f" {int(m[3])} {_MONTHS[int(m[2]) - 1]} {m[1]} ", text)


def quantities(text: str) -> Quantities:
    """Return the amounts in *text*, which is case-folded and `spelled`."""
    taken = _Taken()
    text = text.replace("per cent", "percent")
    rest = [text]
    if any(map(str.isdigit, text)):
        text = _SPACED.sub(lambda m: re.sub(r"\s", "", m[0]), text)
        text = _PARTS.sub(taken.parts, _CLOCK.sub(taken.clock, text))
        taken.numbers.update(re.sub(r"\s", "", match[0]).rstrip(".,") for match in _SUM.finditer(text))
        rest, at = [], 0
        for match in _NUMBER.finditer(text):
            if match.start() >= at:
                rest.append(text[at : match.start()])
                at = taken.digits(match, text)
        rest.append(text[at:])
    taken.written(_TOKEN.findall(" ; ".join(rest)))
    return Quantities(
        frozenset(taken.numbers), frozenset(taken.units), frozenset(taken.perhaps), frozenset(taken.ordinals)
    )


class _Taken:
    """What has been found so far."""

    def __init__(self) -> None:
        self.numbers: set[str] = set()
        self.units: set[Amount] = set()
        self.perhaps: set[str | Amount] = set()
        self.ordinals: set[str] = set()

    def take(self, value: float, unit: str | None, *, digits: str = "") -> bool:
        """Add one amount; return whether *unit* is one. A bare 1.10 is not taken for 1.1: it may be a version."""
        known = None if unit is None else words().units.get(unit)
        if known is not None:
            self.units.add((known[0], float(f"{value * known[1]:.9g}")))
        elif _VERSION.fullmatch(digits):
            self.numbers.add(digits)
        else:
            self.numbers.add(f"{value:.12g}")
        return known is not None

    def clock(self, match: re.Match[str]) -> str:
        """Take a time of day, in minutes; return what stands for it in the text."""
        hour = int(match["hour"] or match["hour24"])
        if match["half"] is not None:
            if not 1 <= hour <= 12:
                return match[0]
            hour = hour % 12 + (12 if match["half"] == "p" else 0)
        self.units.add(("clock", 60.0 * hour + int(match["minute"] or match["minute24"] or 0)))
        return " ; "

    def parts(self, match: re.Match[str]) -> str:
        """Take a number of three parts and more as it stands, but for zeros before a part."""
        grouped = _THOUSANDS.match(match[0])
        if match[1] == "." and grouped and grouped.end() == len(match[0]):
            return match[0]
        self.numbers.add(match[1].join(part.lstrip("0") or "0" for part in match[0].split(match[1])))
        return " ; "

    def digits(self, match: re.Match[str], text: str) -> int:
        """Take the number in *match* with its unit; return where the text goes on."""
        sign = (match["sign"] or "").strip() or None
        at, unit, then = match.end(), match["tail"], match.end()
        if unit is None:
            unit, then = _next(text, at)
        scale = SCALES.get(unit or "") if unit != "m" or sign is not None else None
        if scale is not None:
            at = then
            unit, then = _next(text, at)
        known = False
        for value, digits in _values(match["digits"]):
            if match["tail"] == "s" and value % 10 == 0 and value >= 20 and sign is None:
                self.perhaps |= {f"{value:.12g}", ("time", value)}  # the 1980s, somebody's 30s, or 30 seconds
                continue
            if match["tail"] in SUFFIXES:
                self.ordinals.add(f"{value:.12g}")
                unit, then = None, at
            value = (-value if match["minus"] else value) * (scale or 1.0)
            known = self.take(value, sign or unit, digits="" if scale else digits)
        return then if known and sign is None else at

    def written(self, tokens: list[str]) -> None:
        """Add the numbers that are written in words."""
        lists = words()
        whole: float | None = None  # what comes before the last thousand or million
        part: float | None = None  # and after it
        for i, token in enumerate([*tokens, ";"]):
            before = tokens[i - 1] if i else ""
            if before in ("a", "an") and tokens[max(0, i - 2)] == "half" and token in lists.units:
                self.take(0.5, token)
                continue
            number = lists.numbers.get(token)
            if number is None and token == "one" and part is not None and part >= 20:
                number = 1.0
            if number is not None and (part is None or _goes_on(part, number)):
                part = (part or 0.0) + number
                continue
            if token in lists.multipliers and (part is not None or before in ("a", "one")):
                size = lists.multipliers[token]
                if size == 100:
                    part = (1.0 if part is None else part) * size
                else:
                    whole, part = (whole or 0.0) + (1.0 if part is None else part) * size, None
                continue
            if token == "and" and (part is not None or whole is not None):
                continue
            if part is not None or whole is not None:
                self.take((whole or 0.0) + (part or 0.0), token)
                whole, part = None, number
            elif number is None:
                self._alone(before, token)

    def _alone(self, before: str, token: str) -> None:
        """Take a word that may stand for an amount."""
        lists = words()
        if token in lists.ordinals:
            value = f"{lists.ordinals[token]:g}"
            if token not in lists.doubtful or before in lists.doubtful[token]:
                self.ordinals.add(value)
                (self.perhaps if value in ("1", "2") else self.numbers).add(value)
        elif token in lists.perhaps:
            self.perhaps.add(f"{lists.perhaps[token]:g}")
        if before in ("a", "an", "one") and token in lists.units:
            self.perhaps.add(lists.units[token])


def _next(text: str, at: int) -> tuple[str | None, int]:
    """Return the word or sign that comes at *at*, and where it ends."""
    found = _NEXT.match(text, at)
    return (None, at) if found is None else (found[1], found.end())


def _goes_on(part: float, number: float) -> bool:
    """True for "twenty five" and "hundred five", not for "two three"."""
    return part % 100 == 0 or (number < 10 and part % 100 >= 20 and part % 10 == 0)


def _values(digits: str) -> list[tuple[float, str]]:
    """Return the values of *digits* with points and commas, by the way they are set; several for "1,2,3"."""
    grouped = _THOUSANDS.match(digits)
    if grouped and (grouped[1] == "," or digits.count(".") > 1):
        return [(float(re.sub(r"[,.]", "", digits)), "")]
    comma, point = digits.rfind(","), digits.rfind(".")
    if comma > point and digits.count(",") == 1:  # 1.234,5
        return [(float(digits.replace(".", "").replace(",", ".")), "")]
    if comma > point or digits.count(".") > 1:  # a list, or what has no form that we know
        return [(float(part), "") for part in re.split(r"[,.]", digits) if part]
    return [(float(digits.replace(",", "")), digits)]
