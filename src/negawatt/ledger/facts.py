"""The few columns of the ledger that are watched, read quickly and without the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from negawatt.errors import InputError
from negawatt.ledger import sql_watch
from negawatt.ledger.sqlite import open_reading

_AT_ONCE = 2_000


class Fact(msgspec.Struct, array_like=True, gc=False):
    """What is watched of an outcome; the fields are its own. *decisions* holds nothing but the mark, where it did."""

    received_at: float
    request_class: str
    protocol: str
    stream: bool | None
    ending: str
    status: int | None
    error_type: str | None
    request_model: str | None
    response_model: str | None
    cache: str
    attempts: int
    output_tokens: int | None
    baseline_input_tokens: int | None
    cost_pusd: int | None
    duration_s: float
    time_to_first_chunk_s: float | None
    template: str | None
    decisions: str


def read_facts(path: Path, since: float, until: float, *, most: int, mark: str) -> Iterator[list[Fact]]:
    """Give the outcomes received in [since, until), oldest first, some at a time: the newest *most* of them.

    *mark*: what to look for in their decisions. Raises `InputError`.
    """
    connection = open_reading(path)
    try:
        before = connection.execute(sql_watch.BEGIN, (until, most)).fetchone()
        if before is not None:
            since = max(since, before[0])
        found = connection.execute(sql_watch.SELECT, (mark, mark, since, until))
        while rows := found.fetchmany(_AT_ONCE):
            yield [_fact(row) for row in rows]
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    finally:
        connection.close()


def _fact(row: tuple[Any, ...]) -> Fact:
    return Fact(*row)
