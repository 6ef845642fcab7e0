"""Keeping the roll-ups up: new rows are added to sums, exactly once, by whoever writes the ledger.

New rows go into quarters of an hour; an hour is made of its quarters when it is over, a day of its hours. Until then,
and when rows of theirs were changed, they are in ``rollup_dirty`` and nobody reads them.

The sums, and the number of the last row that is in them, change in one transaction: a process that is killed leaves
neither a row that counts twice nor one that does not count. A ledger that is older than its roll-ups is worked
through from its first row on, a little at a time, between the rows that come.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from negawatt.ledger import sql_rollups as sql
from negawatt.ledger.decisions import Row, add_rows, nothing, rows_of
from negawatt.ledger.histograms import text_of, together
from negawatt.ledger.rollup_tables import ACTIONS, CALLS, LEVER_GROUPS, LEVERS, MOST, SLOT_S, SPANS, TABLES

log = logging.getLogger(__name__)

EVERY_S = 1.0  # at most so often, unless there is more than one step to do
STEP = 1_000  # rows
GRACE_S = 900.0  # after the end of an hour, for calls that began in it
_AGAIN_S = 10.0  # after a failure
_REST = 19  # times as long as a step took, while rows come: calls go before, and the rest waits until it is quiet
_PER_TEXT = 200  # rows whose decisions are looked at in one go, with the interpreter's lock held

_State = dict[str, int]


def prepare(connection: sqlite3.Connection) -> None:
    """Make what a roll-up needs beside the tables of the schema, in memory, for this connection alone."""
    connection.execute("PRAGMA temp_store = MEMORY")
    for statement in sql.FRESH:
        connection.execute(statement)


def state_of(connection: sqlite3.Connection) -> _State:
    """Return ``rowid``, ``rows`` and ``skipped`` of the roll-ups; 0 where nothing is in them yet."""
    found = dict(connection.execute("SELECT name, value FROM rollup_state"))
    return {name: found.get(name, 0) for name in ("rowid", "rows", "skipped")}


def gather(connection: sqlite3.Connection, rows: str, values: dict[str, int]) -> None:
    """Sum *rows* (`sql.NEW` or `sql.OLD`, with its *values*) into the temporary tables, which are emptied before.

    They are not split into grains yet (`stage`).
    """
    for statement in sql.EMPTY:
        connection.execute(statement)
    for statement in sql.gather(rows):
        connection.execute(statement, values)
    sums = nothing()
    add_rows(_told(connection, rows, values), sums)
    for table, by in ((LEVERS, sums.levers), (LEVER_GROUPS, sums.groups), (ACTIONS, sums.actions)):
        _put(connection, sql.put(table), [[*key, *told] for key, told in by.items()])
    times = sums.whole_times()
    _put(connection, sql.PUT_TIMES, [[*key, text_of(counts)] for key, counts in times.items()])


def _told(connection: sqlite3.Connection, rows: str, values: dict[str, int]) -> Iterator[Row]:
    text = sql.told(rows)
    steps = range(values["first"], values["last"], _PER_TEXT) if rows == sql.NEW else (0,)
    for first in steps:
        last = min(first + _PER_TEXT, values["last"]) if rows == sql.NEW else values["last"]
        yield from rows_of(connection.execute(text, {**values, "first": first, "last": last}).fetchone()[0])


def _put(connection: sqlite3.Connection, statement: str, rows: list[list[Any]]) -> None:
    if rows:
        connection.execute(statement, (orjson.dumps(rows).decode(),))


def stage(connection: sqlite3.Connection) -> None:
    """Split what was gathered into grains; names beyond the most of their kind are counted under ``other``."""
    for kind, count in connection.execute(sql.COUNTS).fetchall():
        if count >= MOST[kind]:
            for statement in sql.fold(kind):
                connection.execute(statement)
    for table in TABLES:
        for statement in sql.stage(table):
            connection.execute(statement)


class RollupWriter:
    """Adds new rows to the roll-ups, over the connection of the ledger's writer and in its thread.

    *clock* says what is over, in seconds since 1970; *monotonic* when to look again.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._path = path
        self._clock = clock
        self._monotonic = monotonic
        self._next = monotonic()
        self._ripe = 0.0  # when the next hour or day can be made
        self._version: int | None = None  # of the file, when it was last looked at
        self._more = True  # there may be something to do
        self._came = False  # rows, since the last step
        self._ready = False

    def wrote(self) -> None:
        """Rows were written over this connection."""
        self._more = self._came = True

    def work(self) -> bool:
        """Do one step if it is time; True when there is more to do at once. Never raises for the file's sake."""
        now = self._monotonic()
        if now < self._next:
            return False
        self._next = now + EVERY_S
        came, self._came = self._came, False
        began = time.thread_time()
        try:
            if not self._due():
                return False
            self._more = self.step()
        except sqlite3.Error as error:
            log.error("the roll-ups of %s could not be kept up (%s); trying again", self._path, error)
            self._more, self._next = True, now + _AGAIN_S
            return False
        if self._more:
            self._next = now + (_REST * (time.thread_time() - began) if came else 0.0)
        return self._more and not came

    def _due(self) -> bool:
        """Return whether there are rows of this connection, or changes by another one, or an hour that is over."""
        if not self._ready:
            prepare(self._connection)
            self._ready = True
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        changed, self._version = version != self._version, version
        return self._more or changed or self._clock() >= self._ripe

    def step(self, limit: int = STEP) -> bool:
        """Add at most *limit* rows, or make one slot whose rows were changed, or that is over; True: there is more."""
        try:
            return self._in_transaction(limit)
        except sqlite3.Error as error:
            if "integer overflow" not in str(error):
                raise
        if limit > 1:  # some amount is beyond all bounds: find the row
            return self.step(limit // 2)
        return self._in_transaction(limit, skip=True)

    def _in_transaction(self, limit: int, *, skip: bool = False) -> bool:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            state = state_of(connection)
            newest = connection.execute("SELECT coalesce(max(rowid), 0) FROM outcome").fetchone()[0]
            last = min(newest, state["rowid"] + limit)
            if last > state["rowid"]:
                self._add({"first": state["rowid"], "last": last, "since": 0, "until": 0}, state, skip=skip)
                more = True  # at least to look what is over
            else:
                more = self._ripened(last)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return more

    def _add(self, values: dict[str, int], state: _State, *, skip: bool) -> None:
        connection = self._connection
        rows = 0
        if skip:
            log.error("row %d of %s has an amount that cannot be summed; it is in no roll-up", values["last"],
                      self._path)  # fmt: skip
        else:
            gather(connection, sql.NEW, values)
            for statement in sql.admit():
                connection.execute(statement)
            stage(connection)
            self._keep()
            rows = connection.execute(f"SELECT coalesce(sum(calls), 0) FROM {CALLS.fresh}").fetchone()[0]
        new = {"rowid": values["last"], "rows": state["rows"] + rows, "skipped": state["skipped"] + skip}
        connection.executemany("INSERT OR REPLACE INTO rollup_state VALUES (?, ?)", new.items())

    def _keep(self) -> None:
        """Add what was gathered to the quarters of hours."""
        connection = self._connection
        for statement in (*map(sql.add, TABLES), *sql.OPEN):
            connection.execute(statement)
        times: dict[tuple[str, str, int, int], list[str]] = {}
        for slot, request_class, what, fresh, kept in connection.execute(sql.FRESH_TIMES).fetchall():
            texts = times.setdefault((request_class, what, SLOT_S, slot), [] if kept is None else [kept])
            texts.append(fresh)
        self._keep_times(times)

    def _keep_times(self, times: dict[tuple[str, str, int, int], list[str]]) -> None:
        rows = [(*key, text_of(together(texts))) for key, texts in times.items()]
        self._connection.executemany(sql.KEEP_TIMES, rows)

    def _ripened(self, last: int) -> bool:
        """Make one slot that has to be made; True when there is one more."""
        until = self._clock() - GRACE_S
        dirty = self._connection.execute(sql.RIPE, (SLOT_S, until)).fetchmany(2)
        if dirty:
            self._make(dirty[0][0], dirty[0][1], last)
            return True
        following = self._connection.execute(sql.NEXT).fetchone()[0]
        self._ripe = math.inf if following is None else max(following + GRACE_S, self._clock() + EVERY_S)
        return False

    def _make(self, span: int, slot: int, last: int) -> None:
        """Make the rows of one slot, from the ledger or from finer ones; what it is part of has to be made after it."""
        connection = self._connection
        for statement in (*(s for table in TABLES for s in sql.remove(table)), sql.REMOVE_TIMES):
            connection.execute(statement, (span, slot))
        if span == SLOT_S:
            gather(connection, sql.OLD, {"first": 0, "last": last, "since": slot, "until": slot + span})
            stage(connection)
            self._keep()
        else:
            for table in TABLES:
                for statement in sql.coarsen(table, span):
                    connection.execute(statement, (slot, slot + span))
            finer = (SPANS[SPANS.index(span) - 1], slot, slot + span)
            times: dict[tuple[str, str, int, int], list[str]] = {}
            for request_class, what, text in connection.execute(sql.FINER_TIMES, finer).fetchall():
                times.setdefault((request_class, what, span, slot), []).append(text)
            self._keep_times(times)
        connection.execute("DELETE FROM rollup_dirty WHERE span = ? AND slot = ?", (span, slot))
