"""Providers' bills: exports in CSV, read row by row, whatever their columns are called.

What a provider's export looks like is a table (``bills.toml``); any other file is read with a map of its columns.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from negawatt.errors import InputError

TEXTS = ("day", "response_id", "model", "tier", "item")
TOKENS = ("input", "fresh", "cache_read", "cache_write", "cache_write_1h", "output")
COUNTS = (*TOKENS, "calls", "searches")
FIELDS = (*TEXTS, *COUNTS, "cost")
_STANDARD = frozenset({"", "standard", "default", "auto", "api", "message", "messages", "usage", "on_demand"})
_SPLIT = ", "  # between a model and what is charged of it, in line items


class Format(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one kind of export is read. *columns*: field to column."""

    name: str
    title: str
    source: str
    checked: date
    known_by: tuple[str, ...]
    columns: dict[str, str]
    input_has: tuple[str, ...] = ()  # what the column of `input` includes


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of a bill. None is not said. Input is `fresh` + cache reads + cache writes."""

    number: int
    day: str  # UTC, YYYY-MM-DD
    model: str
    response_id: str | None = None
    tier: str | None = None
    item: str | None = None
    calls: int | None = None
    fresh: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None  # for five minutes
    cache_write_1h: int | None = None
    output: int | None = None
    searches: int | None = None
    cost: Decimal | None = None

    @property
    def has_tokens(self) -> bool:
        return self.fresh is not None or self.output is not None


@cache
def formats() -> tuple[Format, ...]:
    """Return the exports that are known."""
    text = resources.files("negawatt.ledger").joinpath("bills.toml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(tomllib.loads(text)["format"], list[Format]))


class Bill:
    """One file. Iterate over it for its lines; it is read anew each time, in bounded memory.

    Raises `InputError` that names the file, the line and the column.
    """

    def __init__(self, path: Path, columns: Mapping[str, str] | None = None) -> None:
        """*columns*: column to field, for a file of a kind that is not known."""
        self.path = path
        header, self._delimiter = self._head()
        self._places = {name: place for place, name in enumerate(header)}
        self.format = _own(path, header, columns) if columns else _known(path, header)

    def _head(self) -> tuple[list[str], str]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                first = next((line for line in file if line.strip()), "")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: not text in UTF-8") from error
        if not first:
            raise InputError(f"{self.path}: it is empty")
        delimiter = max(",;\t", key=first.count)
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter))], delimiter

    def __iter__(self) -> Iterator[Line]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter)
            header = False
            try:
                for cells in reader:
                    if not any(cell.strip() for cell in cells):
                        continue
                    if not header:
                        header = True
                        continue
                    yield self._line(reader.line_num, cells)
            except (csv.Error, UnicodeDecodeError) as error:
                raise InputError(f"{self.path}:{reader.line_num}: cannot be read: {error}") from error

    def _line(self, number: int, cells: list[str]) -> Line:
        if len(cells) != len(self._places):
            what = f"{len(cells)} columns, and the header has {len(self._places)}"
            raise InputError(f"{self.path}:{number}: {what}")
        found = {
            field: cells[self._places[column]].strip()
            for field, column in self.format.columns.items()
            if column in self._places
        }
        counts = {name: self._count(number, name, found.get(name, "")) for name in COUNTS}
        model, item = found.get("model", ""), found.get("item")
        if item is not None and self.format.columns.get("item") == self.format.columns.get("model"):
            model, _, item = model.partition(_SPLIT)
        tier = found.get("tier", "").lower()
        return Line(
            number=number,
            day=self._day(number, found.get("day", "")),
            model=model,
            response_id=found.get("response_id") or None,
            tier=None if tier in _STANDARD else tier,
            item=item or None,
            calls=counts["calls"],
            fresh=self._fresh(counts),
            cache_read=counts["cache_read"],
            cache_write=counts["cache_write"],
            cache_write_1h=counts["cache_write_1h"],
            output=counts["output"],
            searches=counts["searches"],
            cost=self._cost(number, found.get("cost", "")),
        )

    def _fresh(self, counts: Mapping[str, int | None]) -> int | None:
        if counts["fresh"] is not None or counts["input"] is None:
            return counts["fresh"]
        return max(0, counts["input"] - sum(counts[name] or 0 for name in self.format.input_has))

    def _count(self, number: int, field: str, text: str) -> int | None:
        if not text:
            return None
        try:
            value = Decimal(text.replace(",", "").replace("_", ""))
            if value == value.to_integral_value() and value >= 0:
                return int(value)
        except InvalidOperation:
            pass  # said below, with the place
        raise self._wrong(number, field, f"expected a count, got {text!r}")

    def _cost(self, number: int, text: str) -> Decimal | None:
        if not text:
            return None
        plain = text.upper().replace("USD", "").replace("$", "").replace(",", "").replace(" ", "")
        sign = -1 if plain.startswith("(") and plain.endswith(")") else 1  # as accountants write credits
        try:
            value = Decimal(plain.strip("()"))
            if value.is_finite():
                return sign * value
        except InvalidOperation:
            pass  # said below, with the place
        raise self._wrong(number, "cost", f"expected an amount of USD, got {text!r}")

    def _day(self, number: int, text: str) -> str:
        try:
            if text.replace(".", "", 1).isdigit():
                return datetime.fromtimestamp(float(text), UTC).date().isoformat()
            moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
            return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date().isoformat()
        except (ValueError, OverflowError, OSError):
            raise self._wrong(number, "day", f"expected a date or a time, got {text!r}") from None

    def _wrong(self, number: int, field: str, what: str) -> InputError:
        column = self.format.columns.get(field, field)
        return InputError(f"{self.path}:{number}: {column}: {what}", param=column)


def _known(path: Path, header: list[str]) -> Format:
    for format in formats():
        if all(name in header for name in format.known_by):
            return format
    known = "; ".join(f"{format.title} ({', '.join(format.known_by)})" for format in formats())
    columns = ", ".join(header[:40])
    raise InputError(
        f"{path}: not an export that is known. Its columns: {columns}. Name those that matter with --map COLUMN=FIELD; "
        f"fields: {', '.join(FIELDS)}. Known by their columns: {known}"
    )


def _own(path: Path, header: list[str], columns: Mapping[str, str]) -> Format:
    for column, field in columns.items():
        if column not in header:
            raise InputError(f"--map: {path} has no column {column!r}; it has {', '.join(header[:40])}", param="map")
        if field not in FIELDS:
            raise InputError(f"--map: there is no field {field!r}; known: {', '.join(FIELDS)}", param="map")
    fields = set(columns.values())
    if not {"day", "model"} <= fields or not fields & {"cost", *TOKENS}:
        raise InputError("--map: a bill needs day, model, and cost or tokens", param="map")
    return Format(
        name="mapped", title="mapped by hand", source="--map", checked=date(1970, 1, 1), known_by=(),
        columns={field: column for column, field in columns.items()},
        input_has=("cache_read", "cache_write", "cache_write_1h"),
    )  # fmt: skip
