"""Single tasks, one by one: what they came to and why."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec

from negawatt.ledger import sql, sql_success
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import open_reading, outcome_of
from negawatt.ledger.words import feedback_of

Outcomes = Literal["success", "failure", "unknown"]
_IS = {"success": "k.success = 1", "failure": "k.success = 0", "unknown": "k.success IS NULL", None: "true"}
_FIELDS = "tenant, id, first_at, request_class, model, prompt, calls, asides, cost_pusd, unpriced, energy_uj, success, "
_FIELDS += "basis, latency_ms, useful_tokens, output_tokens"
_ROWS = f"""
SELECT {sql.NAMES} FROM outcome WHERE coalesce(tenant, 'default') = :tenant AND (
    task_id = :id OR (task_id IS NULL AND aside_for = :id) OR (task_id IS NULL AND aside_for IS NULL AND id = :id))
ORDER BY received_at, id
"""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task, as it is rolled up. *success* None: nobody has said."""

    tenant: str
    id: str  # its name, else the id of its only call
    first_at: float
    request_class: str
    model: str
    prompt: str
    calls: int
    asides: int  # calls that the gateway made beside them
    cost_usd: float | None  # None: no price is known of any of it
    unpriced_calls: int
    energy_j: float
    success: bool | None
    basis: str | None
    latency_to_success_s: float | None
    useful_tokens: int | None
    output_tokens: int | None


def tasks(
    path: Path, since: float = 0.0, until: float = float("inf"), *, outcome: Outcomes | None = None, most: int = 100
) -> list[Task]:
    """Return the newest tasks of the ledger at *path* that began in [since, until). Raises `InputError`."""
    statement = f"""
    SELECT {_FIELDS} FROM task k WHERE k.first_at >= ? AND k.first_at < ? AND {_IS[outcome]}
    ORDER BY k.first_at DESC, k.id LIMIT ?
    """
    with closing(open_reading(path)) as connection:
        return [_task(row) for row in connection.execute(statement, (since, until, most))]


def history(path: Path, task: str, tenant: str) -> tuple[Task | None, Sequence[Outcome], Sequence[Feedback]]:
    """Return one task with its rows, and all that was said of it or of one of them, oldest first.

    Raises `InputError`.
    """
    with closing(open_reading(path)) as connection:
        row = connection.execute(f"SELECT {_FIELDS} FROM task WHERE tenant = ? AND id = ?", (tenant, task)).fetchone()
        rows = [outcome_of(one) for one in connection.execute(_ROWS, {"tenant": tenant, "id": task})]
        words = _words(connection, tenant, [task, *(one.id for one in rows if one.id != task)])
        return None if row is None else _task(row), rows, words


def said_of_calls(path: Path) -> dict[str, bool]:
    """Return of each call of the ledger at *path* of which somebody said it whether it was a success.

    Raises `InputError`.
    """
    with closing(open_reading(path)) as connection:
        return {call_id: bool(success) for call_id, success in connection.execute(sql_success.SAID_OF_CALLS)}


def _words(connection: sqlite3.Connection, tenant: str, about: Sequence[str]) -> list[Feedback]:
    found: list[Feedback] = []
    for name in about:
        found += [feedback_of(row) for row in connection.execute(sql_success.HISTORY, (tenant, name))]
    return sorted(found, key=lambda word: word.at)


def _task(row: tuple[object, ...]) -> Task:
    values = dict(zip(_FIELDS.split(", "), row, strict=True))
    cost, unpriced = int(str(values.pop("cost_pusd"))), int(str(values.pop("unpriced")))
    energy, latency, success = values.pop("energy_uj"), values.pop("latency_ms"), values.pop("success")
    calls = int(str(values["calls"])) + int(str(values["asides"]))
    return msgspec.convert(
        {
            **values,
            "cost_usd": None if unpriced == calls and not cost else cost / 1e12,
            "unpriced_calls": unpriced,
            "energy_j": float(str(energy)) / 1e6,
            "success": None if success is None else bool(success),
            "latency_to_success_s": None if latency is None else float(str(latency)) / 1e3,
        },
        Task,
    )
