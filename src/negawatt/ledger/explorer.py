"""Looking through the ledger, newest first: a page at a time, by the index of time, each bounded in time.

A page is looked for in stretches of rows, so that it can end between two of them and say how far it came: a filter
that hardly any row passes costs many short pages, and never one long one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.ledger.outcome import FIELDS, Content, Outcome
from negawatt.ledger.rollup_tables import AT_FAULT

STRETCH = 2_000  # rows
PAGE_S = 0.3

# Filters that are equal to one of several values: their column.
EQUAL = {
    "class": "request_class", "model": "response_model", "asked": "request_model", "tenant": "tenant",
    "user": "user_id", "provider": "provider", "ending": "ending", "cache": "cache", "template": "template",
    "task": "task_id", "session": "session_id", "key": "key_id", "protocol": "protocol", "operation": "operation",
    "status": "status", "error_type": "error_type", "version": "template_version", "prompt_version": "prompt_version",
    "corpus_version": "corpus_version", "fingerprint": "fingerprint", "price_source": "price_source",
    "usage_basis": "usage_basis",
}  # fmt: skip
_SHOWN = (
    "id", "received_at", "request_class", "tenant", "user_id", "task_id", "session_id", "operation", "protocol",
    "stream", "request_model", "response_model", "provider", "ending", "status", "error_type", "cache", "holdout",
    "template", "attempts", "input_tokens", "output_tokens", "cost_pusd", "baseline_cost_pusd", "energy_j",
    "duration_s", "time_to_first_chunk_s", "decisions",
)  # fmt: skip

Place = tuple[float, int]  # (received_at, rowid): where a page begins; rows before it are older


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; None is anything. *equal*: name of `EQUAL` to the values that it may have.

    *since* and *until*: seconds since 1970. *begins*: of the id. *lever*, *action*: of one decision.
    """

    equal: Mapping[str, Sequence[str]] = {}
    since: float = 0.0
    until: float = float("inf")
    begins: str | None = None
    lever: str | None = None
    action: str | None = None
    at_fault: bool | None = None
    holdout: bool | None = None
    stream: bool | None = None
    unpriced: bool | None = None
    min_cost_pusd: int | None = None
    min_s: float | None = None


class Page(NamedTuple):
    """Some rows, newest first. *following*: where the next page begins, None at the end; *until_s*: how far it came."""

    rows: list[dict[str, Any]]
    following: Place | None
    until_s: float
    complete: bool


def find(
    connection: sqlite3.Connection, search: Search, limit: int, start: Place | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Page:  # fmt: skip
    """Return the next page of what *search* finds, at most *limit* rows."""
    ends = monotonic() + PAGE_S
    condition, values = _condition(search)
    at: Place = (min(search.until, 1e15), -1) if start is None else start
    rows: list[dict[str, Any]] = []
    while True:
        last = _stretch(connection, at, search.since)
        text = (
            f"SELECT rowid, {', '.join(_SHOWN)} FROM outcome WHERE (received_at, rowid) < (?, ?) "
            f"AND (received_at, rowid) >= (?, ?) AND {condition} ORDER BY received_at DESC, rowid DESC LIMIT ?"
        )
        lowest = (search.since, -1) if last is None else last
        for row in connection.execute(text, (*at, *lowest, *values, limit - len(rows))):
            rows.append(_shown(dict(zip(_SHOWN, row[1:], strict=True))))
            place = (row[2], row[0])
        if len(rows) >= limit:
            return Page(rows, place, place[0], True)
        if last is None:
            return Page(rows, None, search.since, True)
        at = last
        if monotonic() >= ends:
            return Page(rows, at, at[0], False)


def _stretch(connection: sqlite3.Connection, at: Place, since: float) -> Place | None:
    """Return the place a stretch of rows before *at*; None where there are fewer."""
    text = (
        "SELECT received_at, rowid FROM outcome WHERE (received_at, rowid) < (?, ?) AND received_at >= ? "
        "ORDER BY received_at DESC, rowid DESC LIMIT 1 OFFSET ?"
    )
    found: Place | None = connection.execute(text, (*at, since, STRETCH - 1)).fetchone()
    return found


def _condition(search: Search) -> tuple[str, list[Any]]:
    parts: list[tuple[str, list[Any]]] = [
        (f"{EQUAL[name]} IN ({', '.join('?' * len(values))})", list(values)) for name, values in search.equal.items()
    ]
    if search.begins is not None:
        parts.append(("id >= ? AND id < ?", [search.begins, search.begins + "\U0010ffff"]))
    if search.lever is not None or search.action is not None:
        parts.append(("instr(decisions, ?) > 0", [_decided(search.lever, search.action)]))
    flags = (
        (search.at_fault, f"ending IN {AT_FAULT}"), (search.holdout, "holdout = 1"),
        (search.stream, "stream = 1"),
        (search.unpriced, "cost_pusd IS NULL"),
    )  # fmt: skip
    parts += [(text if wanted else f"NOT ({text})", []) for wanted, text in flags if wanted is not None]
    if search.min_cost_pusd is not None:
        parts.append(("cost_pusd >= ?", [search.min_cost_pusd]))
    if search.min_s is not None:
        parts.append(("duration_s >= ?", [search.min_s]))
    text = " AND ".join(text for text, _ in parts) or "true"
    return text, [value for _, values in parts for value in values]


def _decided(lever: str | None, action: str | None) -> str:
    """Return how the JSON of a decision begins: its fields are written in this order."""
    parts = [
        f'"{name}":{orjson.dumps(value).decode()}' for name, value in (("lever", lever), ("action", action)) if value
    ]
    return ",".join(parts)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    cost, baseline, joules = row["cost_pusd"], row["baseline_cost_pusd"], row["energy_j"]
    first = row["time_to_first_chunk_s"]
    return {
        "id": row["id"], "received_s": row["received_at"], "class": row["request_class"], "tenant": row["tenant"],
        "user": row["user_id"], "task": row["task_id"], "session": row["session_id"], "operation": row["operation"],
        "protocol": row["protocol"], "stream": None if row["stream"] is None else bool(row["stream"]),
        "asked": row["request_model"], "model": row["response_model"], "provider": row["provider"],
        "ending": row["ending"], "status": row["status"], "error_type": row["error_type"], "cache": row["cache"],
        "holdout": bool(row["holdout"]), "template": row["template"], "attempts": row["attempts"],
        "input_tokens": row["input_tokens"], "output_tokens": row["output_tokens"],
        "cost_usd": None if cost is None else cost / 1e12,
        "baseline_usd": None if baseline is None else baseline / 1e12,
        "saved_usd": None if cost is None or baseline is None else (baseline - cost) / 1e12,
        "energy_wh": None if joules is None else joules / 3600, "duration_ms": row["duration_s"] * 1e3,
        "ttft_ms": None if first is None else first * 1e3, "levers": _levers(row["decisions"]),
    }  # fmt: skip


def _levers(decisions: str) -> list[str]:
    """Return which levers decided something, in order."""
    return list(dict.fromkeys(decision["lever"] for decision in orjson.loads(decisions)))


def one(connection: sqlite3.Connection, call_id: str) -> tuple[Outcome, Content | None] | None:
    """Return the row of *call_id*, and what it asked and was answered where that is kept; None for an unknown id."""
    row = connection.execute(f"SELECT {', '.join(FIELDS)} FROM outcome WHERE id = ?", (call_id,)).fetchone()
    if row is None:
        return None
    values = dict(zip(FIELDS, row, strict=True))
    for name in ("stream", "holdout"):
        values[name] = None if values[name] is None else bool(values[name])
    kept = connection.execute(
        "SELECT call_id, request, response FROM content WHERE call_id = ?", (call_id,)
    ).fetchone()  # fmt: skip
    return Outcome(**values), None if kept is None else Content(*kept)
