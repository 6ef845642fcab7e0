"""The numbers in a text, however they are written, with their units in one measure."""

from __future__ import annotations

import re

from negawatt.recall.words import words

# 1,234.5  1.234,5  1 234  3.5  5k  $20  20%  1st
_NUMBER = re.compile(
    r"(?P<sign>[$€£¥])?\s?(?P<digits>\d[\d,.]{0,40}(?<![,.])|\d)(?P<ordinal>st|nd|rd|th)?\b(?:\s?(?P<unit>%|°[cf]|[$€£¥]|[^\W\d_]{1,14}))?"
)
_TOKEN = re.compile(r"[^\W\d_]+|[%$€£¥]|°[cf]")
_THOUSANDS = re.compile(r"\d{1,3}(?:([,.])\d{3})(?:\1\d{3})*$")
_SCALES = {"k": 1e3, "m": 1e6, "bn": 1e9, "million": 1e6, "billion": 1e9, "thousand": 1e3, "hundred": 1e2}
_ORDINALS = {
    "third": 3.0, "fourth": 4.0, "fifth": 5.0, "sixth": 6.0, "seventh": 7.0, "eighth": 8.0, "ninth": 9.0, "tenth": 10.0
}  # fmt: skip


def quantities(text: str) -> tuple[tuple[float, ...], tuple[tuple[str, float], ...]]:
    """Return the bare numbers of *text* (case-folded), and those with a unit as (dimension, amount); both sorted."""
    numbers: list[float] = []
    units: list[tuple[str, float]] = []
    for match in _NUMBER.finditer(text):
        value = _value(match["digits"])
        unit = match["sign"] or match["unit"]
        if match["unit"] in _SCALES and (match["unit"] != "m" or match["sign"]):
            value *= _SCALES[match["unit"]]
            unit = match["sign"] or _after(text, match.end())
        _take(value, unit, numbers, units)
    _written(_NUMBER.sub(" ", text), numbers, units)
    return tuple(sorted(numbers)), tuple(sorted(units))


def _value(digits: str) -> float:
    """Return the value of digits with points and commas, by the way they are set."""
    grouped = _THOUSANDS.match(digits)
    if grouped and (grouped[1] == "," or digits.count(".") > 1):
        return float(re.sub(r"[,.]", "", digits))
    comma, point = digits.rfind(","), digits.rfind(".")
    if comma > point:  # 1.234,5
        digits = digits.replace(".", "").replace(",", ".", 1)
    digits = digits.replace(",", "")
    if digits.count(".") > 1:  # a version or a date: its parts in a row
        return float(digits.replace(".", ""))
    return float(digits)


def _after(text: str, end: int) -> str | None:
    following = _TOKEN.match(text, end + 1 if text[end : end + 1] == " " else end)
    return None if following is None else following[0]


def _take(value: float, unit: str | None, numbers: list[float], units: list[tuple[str, float]]) -> None:
    known = None if unit is None else words().units.get(unit)
    if known is None:
        numbers.append(value)
    else:
        units.append((known[0], float(f"{value * known[1]:.9g}")))


def _written(text: str, numbers: list[float], units: list[tuple[str, float]]) -> None:
    """Add the numbers that are written in words. "One" and "second" are not taken for numbers: they rarely are."""
    lists = words()
    tokens = _TOKEN.findall(text)
    value: float | None = None
    for i, token in enumerate([*tokens, ""]):
        if token in lists.numbers:
            value = (value or 0.0) + lists.numbers[token]
        elif token in lists.multipliers and (value is not None or (i > 0 and tokens[i - 1] in ("a", "one"))):
            value = (1.0 if value is None else value) * lists.multipliers[token]
        elif token in _ORDINALS and value is None:
            numbers.append(_ORDINALS[token])
        elif value is not None and token != "and":
            _take(value, token if token in lists.units else None, numbers, units)
            value = None
        if i == len(tokens) and value is not None:
            numbers.append(value)
