"""Formats: JSON minified or indented, TOML and CSV to JSON, JSON to CSV, where both sides say the same."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from typing import Any

from negawatt.offloads.asking import told
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_WISH = re.compile(
    r"(?:(?P<verb>minify|pretty-?\s?print|prettify|indent)\s+(?:the\s+|this\s+)?(?:following\s+)?json"
    r"|(?:convert|turn|transform|change)\s+(?:the\s+|this\s+)?(?:following\s+)?(?P<a>json|csv|toml)(?:\s+(?:file|data|text))?"
    r"\s+(?:in)?to\s+(?P<b>json|csv)(?:\s+format)?)",
    re.IGNORECASE,
)  # fmt: skip
_TYPED = re.compile(r"\s*(?:[-+]?[\d.,]+|true|false|null|none|yes|no)?\s*", re.IGNORECASE)


class Formats:
    """Answers a request to write data in another form. A CSV of anything but words is declined: is 007 a number?"""

    name = "formats"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        wanted = told(ask.text)
        match = None if wanted is None else _WISH.fullmatch(wanted.wish)
        if wanted is None or match is None:
            return Declined("it asks for no other format")
        try:
            if match["verb"]:
                minify = match["verb"].lower() == "minify"
                return _json(_read_json(wanted.body), indent=None if minify else 2)
            change = (match["a"].lower(), match["b"].lower())
            if change == ("json", "csv"):
                return _to_csv(_read_json(wanted.body))
            if change == ("toml", "json"):
                return _json(tomllib.loads(wanted.body), indent=2)
            if change == ("csv", "json"):
                return _from_csv(wanted.body)
        except (ValueError, TypeError, RecursionError, csv.Error) as error:
            return Declined(f"its data cannot be read: {error}"[:200])
        return Declined("it is in that format already")


def _read_json(text: str) -> Any:
    """Return the value. Raises `ValueError`, also where a key is there twice, or a number would change."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) != len(found):
            raise ValueError("a key is there twice")
        return dict(found)

    def exact(digits: str) -> float:
        if repr(float(digits)) != digits:
            raise ValueError(f"{digits[:40]} would be written in another way")
        return float(digits)

    def none(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, object_pairs_hook=pairs, parse_float=exact, parse_constant=none)


def _json(value: Any, indent: int | None) -> Answered:
    separators = (",", ":") if indent is None else (",", ": ")
    return Answered(json.dumps(value, indent=indent, ensure_ascii=False, separators=separators, allow_nan=False), value)


def _to_csv(value: Any) -> Answered | Declined:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) and row for row in value):
        return Declined("it is no list of objects")
    head = list(value[0])
    if any(list(row) != head for row in value):
        return Declined("its objects have different keys")
    if any(not isinstance(cell, str | int | float) or isinstance(cell, bool) for row in value for cell in row.values()):
        return Declined("a cell cannot hold all of its values")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(row.values() for row in value)
    return Answered(out.getvalue().rstrip("\n"), value)


def _from_csv(text: str) -> Answered | Declined:
    rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    if len(rows) < 2 or len({len(row) for row in rows}) != 1 or len(set(rows[0])) != len(rows[0]) or len(rows[0]) < 2:
        return Declined("it is no table with a head")
    if any(_TYPED.fullmatch(cell) for row in rows for cell in row):
        return Declined("whether its cells are numbers or texts it does not say")
    return _json([dict(zip(rows[0], row, strict=True)) for row in rows[1:]], indent=2)
