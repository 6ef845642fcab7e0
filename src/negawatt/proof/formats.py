"""Figures as people read them. Three digits that count, one space before the unit, a real minus; unknown says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

UNKNOWN = "unknown"
MINUS = "−"  # U+2212: as wide as a plus, and not a hyphen
_BIG = ((1e12, " T"), (1e9, " B"), (1e6, " M"))

Format = Callable[[float | None], str]


def one_line(text: str) -> str:
    """Return *text* as one line that steers no terminal: callers name tasks, users, models and tags as they like."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def plain(value: float, digits: int = 3) -> str:
    """Return *value* with *digits* significant digits and thousands separators, never as 1e-05."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else UNKNOWN
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{abs(value):,.{min(places, 12)}f}"
    return (MINUS if value < 0 else "") + text


def count(value: float | None) -> str:
    """Return a whole number; from a million on, three digits of it."""
    if value is None:
        return UNKNOWN
    for size, letter in _BIG:
        if abs(value) >= size:
            return plain(value / size) + letter
    return f"{round(value):,}".replace("-", MINUS)


def usd(value: float | None) -> str:
    """Return dollars: cents from a dollar on, three digits below, letters from a million on."""
    if value is None:
        return UNKNOWN
    sign, size = (MINUS if value < 0 else ""), abs(value)
    for unit, letter in _BIG:
        if size >= unit:
            return f"{sign}${plain(size / unit)}{letter}"
    if size >= 10_000:
        return f"{sign}${size:,.0f}"
    if size == 0:
        return "$0"
    return f"{sign}${size:,.2f}" if size >= 1 else f"{sign}${plain(size)}"


_ENERGY = ((1e9, "GWh"), (1e6, "MWh"), (1e3, "kWh"), (1.0, "Wh"), (1e-3, "mWh"))


def wh(value: float | None) -> str:
    """Return an energy, given in watt-hours, in the unit that suits its size."""
    if value is None:
        return UNKNOWN
    unit, name = _energy_unit(value)
    return f"{plain(value / unit)} {name}"


def wh_range(low: float | None, high: float | None) -> str:
    """Return a range of energies in one unit: ``7.93–49.5 Wh``."""
    if low is None or high is None:
        return UNKNOWN
    unit, name = _energy_unit(high)
    return f"{plain(low / unit)}–{plain(high / unit)} {name}"


def _energy_unit(value: float) -> tuple[float, str]:
    if value == 0:
        return 1.0, "Wh"
    return next(((unit, name) for unit, name in _ENERGY if abs(value) >= unit), _ENERGY[-1])


def ms(value: float | None) -> str:
    """Return a time, given in milliseconds, in the unit that suits its size."""
    if value is None:
        return UNKNOWN
    for unit, name in ((86_400_000.0, "d"), (3_600_000.0, "h"), (60_000.0, "min"), (1000.0, "s")):
        if abs(value) >= unit:
            return f"{plain(value / unit)} {name}"
    return f"{plain(value)} ms" if abs(value) >= 1 else f"{plain(value, 2)} ms"


def seconds(value: float | None) -> str:
    return UNKNOWN if value is None else ms(value * 1e3)


def grams(value: float | None) -> str:
    """Return a mass, given in grams."""
    if value is None:
        return UNKNOWN
    for unit, name in ((1e6, "t"), (1e3, "kg"), (1.0, "g")):
        if abs(value) >= unit:
            return f"{plain(value / unit)} {name}"
    return f"{plain(value * 1e3)} mg" if value else "0 g"


def percent(share: float | None) -> str:
    """Return a share of 1 as a percentage."""
    return UNKNOWN if share is None else f"{_signed(100 * share, plus='')} %"


def points(value: float | None) -> str:
    """Return percentage points, signed."""
    return UNKNOWN if value is None else _signed(value)


def interval(figure: Mapping[str, Any], form: Format) -> str:
    """Return ``figure [low, high]``; an open end is a question mark."""
    if figure["mean"] is None:
        return "undefined"
    if figure["low"] is None and figure["high"] is None:
        return form(figure["mean"])
    low, high = ("?" if figure[end] is None else form(figure[end]) for end in ("low", "high"))
    return f"{form(figure['mean'])} [{low}, {high}]"


def change(saving: Mapping[str, Any]) -> str:
    """Return a saving in percent as the change it is: ``−41 % [−45, −37]``, the larger saving first."""
    if saving["mean"] is None:
        return "undefined"
    head = f"{_signed(-saving['mean'])} %"
    bounds = bounds_of_change(saving)
    return f"{head} {bounds}" if bounds else head


def bounds_of_change(saving: Mapping[str, Any]) -> str:
    """Return ``[−45, −37]`` for a saving in percent; empty where nothing bounds it."""
    if saving["mean"] is None or (saving["low"] is None and saving["high"] is None):
        return ""
    low, high = ("?" if saving[end] is None else _signed(-saving[end]) for end in ("high", "low"))
    return f"[{low}, {high}]"


def _signed(value: float, plus: str = "+") -> str:
    """Return *value* with its sign, whole from ten on, else to a tenth."""
    text = f"{abs(value):,.0f}" if abs(value) >= 9.95 else f"{abs(value):.1f}"
    if text in ("0.0", "0"):
        return "0"
    return (MINUS if value < 0 else plus) + text
