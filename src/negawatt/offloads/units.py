"""Units: "Convert 5 km to miles", "How many feet are in 2 miles?", "100 °F in °C".

Only units whose names mean one thing: no gallons, tons, cups or fluid ounces, which differ from country to country.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from negawatt.offloads.asking import plain
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_NUMBER = r"(?P<n>-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)"
_UNIT = r"[a-zA-Z°²/][a-zA-Z°²/ 2]{0,30}?"
_FORMS = [
    re.compile(
        rf"(?:convert|change|turn)\s+{_NUMBER}\s*(?P<a>{_UNIT})\s+(?:in)?to\s+(?P<b>{_UNIT})",
        re.IGNORECASE | re.ASCII,
    ),
    re.compile(
        rf"(?:what(?:'s| is)|how much is|how many is)?\s*{_NUMBER}\s*(?P<a>{_UNIT})\s+(?:in|to|into)\s+(?P<b>{_UNIT})",
        re.IGNORECASE | re.ASCII,
    ),
    re.compile(
        rf"how many\s+(?P<b>{_UNIT})\s+(?:are\s+|is\s+)?(?:there\s+)?in\s+(?:{_NUMBER}|an?\s|one\s)\s*(?P<a>{_UNIT})",
        re.IGNORECASE | re.ASCII,
    ),
]  # fmt: skip
_FIGURES = 6


class Units:
    """Converts one amount from one unit into another, to six figures where it does not come out even."""

    name = "units"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        text = plain(ask.text)
        match = next((found for form in _FORMS if (found := form.fullmatch(text))), None)
        if match is None:
            return Declined("it asks for no conversion")
        from_, to = _unit(match["a"]), _unit(match["b"])
        if from_ is None or to is None:
            return Declined("a unit in it is not known, or means several things")
        number = Decimal((match["n"] or "1").replace(",", ""))
        registry = _registry()
        quantity = registry.Quantity(number, from_)
        if not quantity.is_compatible_with(to):
            return Declined("one of its units cannot be had in the other")
        value = quantity.to(to).magnitude
        exact = Decimal(value).normalize()
        rounded = (
            exact if len(exact.as_tuple().digits) <= _FIGURES + 3 else Decimal(f"{exact:.{_FIGURES}g}").normalize()
        )
        about = "" if rounded == exact else "≈ "
        return Answered(f"{about}{rounded:f} {match['b'].strip()}", float(rounded))


@cache
def _names() -> dict[str, str]:
    """Return the units by their names: signs as they stand, words in small letters."""
    found: dict[str, str] = {}
    text = (files("negawatt.offloads") / "units.toml").read_text(encoding="utf-8")
    for unit, names in tomllib.loads(text).items():
        found |= dict.fromkeys(names["signs"], unit)
        found |= {form: unit for word in names["words"] for form in (word, f"{word}s")}
    return found


def _unit(name: str) -> str | None:
    name = " ".join(name.split())
    return _names().get(name) or _names().get(name.lower() if len(name) > 3 else "")


@cache
def _registry() -> Any:
    import pint

    make: Callable[..., Any] = pint.UnitRegistry
    return make(non_int_type=Decimal, autoconvert_offset_to_baseunit=False)
