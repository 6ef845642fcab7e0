"""All SQL of the ledger.

The columns are the fields of `Outcome`, so there is one place that names them. Money is an integer in pico-dollars.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from negawatt.ledger import sql_rollups, sql_success
from negawatt.ledger.outcome import FIELDS, Outcome
from negawatt.ledger.sql_watch import ALERTS

VERSION = 4  # of the schema; kept in the file's user_version

_TYPES = {str: "TEXT", float: "REAL", int: "INTEGER", bool: "INTEGER"}


def _column(name: str, kind: Any) -> str:
    optional = get_origin(kind) in (Union, types.UnionType)
    base = next(arg for arg in get_args(kind) if arg is not type(None)) if optional else kind
    required = "" if optional else " NOT NULL"
    return f"{name} {_TYPES[base]}{required}{' PRIMARY KEY' if name == 'id' else ''}{_ELSE.get(name, '')}"


# What rows of before the column stand for, where it must say something.
_ELSE = {"protocol": " DEFAULT 'chat'"}
COLUMNS = {name: _column(name, kind) for name, kind in get_type_hints(Outcome).items()}

TABLE = "CREATE TABLE IF NOT EXISTS outcome (\n    " + ",\n    ".join(COLUMNS.values()) + "\n);"
HAS = "SELECT name FROM pragma_table_info('outcome')"
REST = """
CREATE INDEX IF NOT EXISTS outcome_received ON outcome (received_at);
CREATE INDEX IF NOT EXISTS outcome_responses ON outcome (response_id) WHERE protocol IN ('responses', 'messages');
CREATE TABLE IF NOT EXISTS content (
    call_id TEXT PRIMARY KEY, request BLOB NOT NULL, response BLOB
) WITHOUT ROWID;
"""
REST += ";".join((ALERTS, sql_success.TABLES, sql_rollups.SCHEMA))

NAMES = ", ".join(FIELDS)
SELECT = f"SELECT {NAMES} FROM outcome WHERE received_at >= ? AND received_at < ? ORDER BY received_at, id"
ANSWERED = f"""
SELECT {NAMES} FROM outcome WHERE response_id = ? AND protocol IN ('responses', 'messages')
ORDER BY received_at DESC LIMIT 1
"""
CONTENT = "SELECT call_id, request, response FROM content WHERE call_id = ?"
LOOK = "SELECT EXISTS (SELECT 1 FROM outcome)"
EXPORT = f"""
SELECT {", ".join(FIELDS)}, content.request, content.response FROM outcome LEFT JOIN content ON call_id = id
WHERE received_at >= ? AND received_at < ? ORDER BY received_at, id
"""
COUNT_BETWEEN = "SELECT count(*) FROM outcome WHERE received_at >= ? AND received_at < ?"
COUNT = "SELECT count(*) FROM outcome"

_PRICED = (
    "cost_pusd", "baseline_cost_pusd", "price_source", "energy_low_j", "energy_j", "energy_high_j",
    "baseline_energy_low_j", "baseline_energy_j", "baseline_energy_high_j", "energy_basis", "co2e_g", "decisions",
    "attempt_log", "versions",
)  # fmt: skip
REPRICED = _PRICED
REPRICE = f"UPDATE outcome SET {', '.join(f'{name} = ?' for name in _PRICED)} WHERE id = ?"


def columns(names: Sequence[str]) -> str:
    """Return the statement that reads only the columns *names*, which are fields of `Outcome`."""
    unknown = set(names) - set(FIELDS)
    if unknown:
        raise ValueError(f"the ledger has no columns {sorted(unknown)}")
    return SELECT.replace(", ".join(FIELDS), ", ".join(names), 1)


def insert(rows: int) -> str:
    """Return the statement that inserts *rows* outcomes at once.

    One statement for many rows, and not one call for each: SQLite gives up the interpreter's lock at every
    statement, and on a busy process each return to it can take milliseconds.
    """
    marks = f"({', '.join('?' * len(FIELDS))})"
    return f"INSERT OR REPLACE INTO outcome ({', '.join(FIELDS)}) VALUES {', '.join([marks] * rows)}"


def insert_contents(rows: int) -> str:
    return f"INSERT OR REPLACE INTO content VALUES {', '.join(['(?, ?, ?)'] * rows)}"
