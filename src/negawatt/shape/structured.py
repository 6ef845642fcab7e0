"""JSON and tables shortened by whole records: those that a query asks for stay, and a note says how many do not.

What stays is byte for byte what it was: no key, string, number or row is ever cut, and a JSON text stays one. What
holds the records (the other fields, the header of a table) stays as well.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from negawatt.shape.edits import Cut, Shaped, apply, unchanged
from negawatt.shape.json_spans import Node, parse
from negawatt.shape.records import Choice, choose

Place = Literal["first", "last"]

_LEAST_ITEMS, _LEAST_MEMBERS = 4, 8  # an object with fewer members is a record, and no collection of them
_HOLDS = 0.6  # of its parent's text: such a member is looked into
_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)*\|?[ \t]*\Z")
_DELIMITERS = ("\t", ";", ",")


class Structured(msgspec.Struct, frozen=True):
    """A shortened collection. *kind*: json, markdown or csv. *of*: how many records there were.

    *position*: where the record that suits the query best now stands among the *kept*, from 0; None where no choice
    was made.
    """

    shaped: Shaped
    kind: str
    kept: int
    of: int
    position: int | None = None


class _Collection(msgspec.Struct, frozen=True):
    """The records of a text, side by side in ``text[start:end]``, with what stands between two of them."""

    kind: str
    records: tuple[tuple[int, int], ...]
    between: str
    note: str


def shape_structured(
    text: str, query: str, *, ratio: float | None = None, place: Place | None = None
) -> Structured | None:
    """Return *text* with the records that *query* asks for; None when it is neither JSON nor a table.

    *ratio*: how many times fewer characters are wanted; None: as many records as seem to be asked for. *place*:
    where the best record is put; None: where it was. Raises ValueError for a ratio below 1.
    """
    if ratio is not None and ratio < 1:
        raise ValueError(f"expected a ratio of at least 1, not {ratio}")
    found = _json(text) or _markdown(text) or _csv(text)
    if found is None:
        return None
    records = [text[start:end] for start, end in found.records]
    if len(records) < _LEAST_ITEMS:
        return Structured(unchanged(text, "it has too few records"), found.kind, len(records), len(records))
    around = len(text) - sum(map(len, records))
    room = None if ratio is None else max(0, int(len(text) / ratio) - around)
    choice = choose(records, query, room)
    if choice.abstained is not None:
        return Structured(unchanged(text, choice.abstained), found.kind, len(records), len(records))
    return _chosen(text, found, choice, place)


def _chosen(text: str, found: _Collection, choice: Choice, place: Place | None) -> Structured:
    order = list(choice.kept)
    if place is not None and choice.best is not None:
        order.remove(choice.best)
        order.insert(0 if place == "first" else len(order), choice.best)
    position = order.index(choice.best) if choice.best is not None else None
    parts = [text[slice(*found.records[i])] for i in order]
    left_out = len(found.records) - len(order)
    start, end = found.records[0][0], found.records[-1][1]
    if left_out:
        parts.append(found.note.format(left_out))
    shaped = apply(text, [Cut(start, end, found.between.join(parts), found.kind)])
    if shaped.saved <= 0 and place is None:
        return Structured(
            unchanged(text, "nothing would be saved"), found.kind, len(found.records), len(found.records), choice.best
        )
    return Structured(shaped, found.kind, len(order), len(found.records), position)


def _json(text: str) -> _Collection | None:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    node = parse(text)
    if node is None:
        return None
    while (inner := _holder(node)) is not None:
        node = inner
    least = _LEAST_ITEMS if node.kind == "array" else _LEAST_MEMBERS
    if len(node.children) < least:
        return _Collection("json", (), "", "")
    spans = tuple((child.start, child.end) for child in node.children)
    between = text[spans[0][1] : spans[1][0]]
    return _Collection(
        "json", spans, between, '"... {} more left out"' if node.kind == "array" else '"...": "{} more left out"'
    )


def _holder(node: Node) -> Node | None:
    """Return the member of *node* that holds most of its text, where it has members itself."""
    for child in node.children:
        if child.children and child.end - child.start >= _HOLDS * (node.end - node.start):
            return child
    return None


def _markdown(text: str) -> _Collection | None:
    """Return the rows of a text that is one Markdown table."""
    lines = _lines(text)
    if len(lines) < 3 or not _RULE.match(text[slice(*lines[1])]) or "|" not in text[slice(*lines[1])]:
        return None
    if any("|" not in text[start:end] for start, end in lines):
        return None
    return _Collection("markdown", tuple(lines[2:]), "\n", "| ... {} more left out |")


def _csv(text: str) -> _Collection | None:
    """Return the rows of a text that is one table with a header, of at least two columns in each row."""
    for delimiter in _DELIMITERS:
        rows = _rows(text, delimiter)
        if rows is None or len(rows) <= _LEAST_ITEMS:
            continue
        columns = {many for _, _, many in rows}
        header = text[rows[0][0] : rows[0][1]]
        if len(columns) == 1 and columns.pop() > 1 and not re.search(r"[.!?]\s", header):
            return _Collection("csv", tuple((start, end) for start, end, _ in rows[1:]), "\n", "... {} more left out")
    return None


def _lines(text: str) -> list[tuple[int, int]]:
    """Return where the lines of *text* stand, without those at its end that are empty."""
    found, place = [], 0
    for line in text.rstrip().split("\n"):
        found.append((place, place + len(line)))
        place += len(line) + 1
    return found


def _rows(text: str, delimiter: str) -> list[tuple[int, int, int]] | None:
    """Return (start, end, columns) of the rows of a CSV text; None where a quotation is not closed.

    A line break inside quotes is part of its row.
    """
    found: list[tuple[int, int, int]] = []
    begun: int | None = None
    quotes = columns = 0
    for start, end in _lines(text):
        line = text[start:end]
        if begun is None:
            begun, quotes, columns = start, 0, 1
        for part in re.split(r'(")', line):
            if part == '"':
                quotes += 1
            elif quotes % 2 == 0:
                columns += part.count(delimiter)
        if quotes % 2 == 0:
            found.append((begun, end, columns))
            begun = None
    return found if begun is None else None
