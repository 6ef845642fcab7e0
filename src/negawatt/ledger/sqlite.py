"""The ledger in one SQLite file: WAL, one writer thread, batches.

`append` puts a row on a list; the writer takes the whole list every `INTERVAL_S`. So a process that is killed loses
the rows of that last moment and no others, and the file is sound: every batch is one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from negawatt.errors import InputError
from negawatt.ledger import sql, sql_success
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import FIELDS, Content, Outcome
from negawatt.ledger.rollups import RollupWriter
from negawatt.ledger.sql_rollups import DIRTY
from negawatt.ledger.words import Words

log = logging.getLogger(__name__)

INTERVAL_S = 0.05
_PER_STATEMENT = (100, 10, 1)
_MAX_WAITING = 200_000  # rows kept for a disk that does not take them


class SqliteLedger:
    """Opens, or makes, the ledger at *path*. Raises `InputError` when the file is not a ledger that we can read.

    Without *rollups*, nobody keeps up its sums.
    """

    def __init__(self, path: Path, *, rollups: bool = True) -> None:
        self.path = path
        self.rollups = rollups
        self._connection = opened(path)
        self._rollups = RollupWriter(self._connection, path) if rollups else None
        self._waiting: list[tuple[Outcome, Content | None]] = []
        self._words = Words()
        self._lost = 0
        self._wake = threading.Event()
        self._written = threading.Condition()
        self._writing = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="negawatt-ledger", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many rows were given up because the disk did not take them for too long."""
        return self._lost

    def append(self, outcome: Outcome, content: Content | None = None) -> None:
        self._waiting.append((outcome, content))

    def record(self, word: Feedback) -> Future[bool]:
        found = self._words.add(word)
        self._wake.set()
        return found

    def flush(self) -> None:
        with self._written:
            self._wake.set()
            if not self._written.wait_for(self._nothing_waits, timeout=30.0):
                log.error("the ledger %s did not take its rows within 30 s", self.path)

    def _nothing_waits(self) -> bool:
        return not self._waiting and not self._words and not self._writing

    def close(self) -> None:
        """Write what waits and let go of the file."""
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join(timeout=30.0)
            self._connection.close()

    def rows(self, since: float = 0.0, until: float = float("inf")) -> Iterator[Outcome]:
        self.flush()
        yield from read_rows(self.path, since, until)

    def content(self, call_id: str) -> Content | None:
        self.flush()
        return read_content(self.path, call_id)

    async def answered(self, response_id: str) -> Outcome | None:
        return await asyncio.to_thread(self._answered, response_id)

    def _answered(self, response_id: str) -> Outcome | None:
        self.flush()
        connection = open_reading(self.path)
        try:
            row = connection.execute(sql.ANSWERED, (response_id,)).fetchone()
            return None if row is None else outcome_of(row)
        finally:
            connection.close()

    def _run(self) -> None:
        more = False  # of the roll-ups, which wait for nothing but the rows
        while not self._closing:
            self._wake.wait(0 if more else INTERVAL_S)
            self._wake.clear()
            self._drain()
            more = self._rollups is not None and self._rollups.work()
        self._drain()

    def _drain(self) -> None:
        self._writing = True
        batch = self._waiting[:]
        del self._waiting[: len(batch)]  # and no new list: `append` may be about to add to this one
        try:
            if batch:
                self._write(batch)
            self._words.write(self._connection)
        except sqlite3.OperationalError as error:  # the disk is full, locked or gone
            self._keep(batch, error)
        except (sqlite3.Error, ArithmeticError, ValueError):
            self._write_each(batch)
        finally:
            with self._written:
                self._writing = False
                self._written.notify_all()

    def _keep(self, batch: list[tuple[Outcome, Content | None]], error: sqlite3.Error) -> None:
        """The disk refused *batch*: keep it for the next round, up to a bound."""
        room = max(0, _MAX_WAITING - len(self._waiting))
        dropped = max(0, len(batch) - room)
        self._lost += dropped
        self._waiting[:0] = batch[dropped:]
        log.error("the ledger %s could not be written (%s); %d rows wait, %d lost", self.path, error,
                  len(self._waiting), self._lost)  # fmt: skip
        self._wake.wait(1.0)

    def _write_each(self, batch: list[tuple[Outcome, Content | None]]) -> None:
        """A row of *batch* cannot be kept by any disk, such as a number beyond 64 bits: keep all the others."""
        for place, one in enumerate(batch):
            try:
                self._write([one])
            except sqlite3.OperationalError as error:
                return self._keep(batch[place:], error)
            except (sqlite3.Error, ArithmeticError, ValueError) as error:
                self._lost += 1
                log.error("the ledger %s cannot hold the row of call %s: %s", self.path, one[0].id, error)

    def _write(self, batch: list[tuple[Outcome, Content | None]]) -> None:
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            _insert(cursor, [msgspec.structs.astuple(outcome) for outcome, _ in batch], sql.insert)
            contents = [(c.call_id, c.request, c.response) for _, c in batch if c is not None]
            _insert(cursor, contents, sql.insert_contents)
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")
        if self._rollups is not None:
            self._rollups.wrote()


def _insert(cursor: sqlite3.Cursor, rows: Sequence[tuple[Any, ...]], statement: Any) -> None:
    start = 0
    for size in _PER_STATEMENT:
        while len(rows) - start >= size:
            cursor.execute(statement(size), list(chain.from_iterable(rows[start : start + size])))
            start += size


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection that may write to the ledger at *path*, made or brought up to date. Raises `InputError`."""
    try:
        connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise InputError(f"{path}: the ledger cannot be opened: {error}") from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > sql.VERSION:
            raise InputError(f"{path}: this ledger has schema {version}; this version knows {sql.VERSION}")
        if version < sql.VERSION:
            _bring_up_to_date(connection)
    except sqlite3.Error as error:
        connection.close()
        raise InputError(f"{path}: not a ledger, or it cannot be opened: {error}") from error
    except InputError:
        connection.close()
        raise
    return connection


def in_memory(outcomes: Sequence[Outcome]) -> sqlite3.Connection:
    """Return a ledger of *outcomes* that has no file."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _bring_up_to_date(connection)
    _insert(connection.cursor(), [msgspec.structs.astuple(outcome) for outcome in outcomes], sql.insert)
    return connection


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Make the tables, or add the columns that an older version did not have; rows stay as they are."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(sql.TABLE)
        has = {name for (name,) in connection.execute(sql.HAS)}
        for name, column in sql.COLUMNS.items():
            if name not in has:
                connection.execute(f"ALTER TABLE outcome ADD COLUMN {column}")
        for statement in sql.REST.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {sql.VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def open_reading(path: Path) -> sqlite3.Connection:
    """Open the ledger at *path* to be read only; an older one is brought up to date first. Raises `InputError`."""
    if not path.exists():
        raise InputError(f"{path}: there is no ledger here")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)
        connection.execute(sql.LOOK).fetchone()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if 0 < version < sql.VERSION:
            opened(path).close()
    except sqlite3.Error as error:
        raise InputError(f"{path}: not a ledger, or it cannot be read: {error}") from error
    return connection


def read_rows(path: Path, since: float = 0.0, until: float = float("inf")) -> Iterator[Outcome]:
    """Give the outcomes in the ledger at *path*, oldest first. Raises `InputError`."""
    connection = open_reading(path)
    try:
        for row in connection.execute(sql.SELECT, (since, until)):
            yield outcome_of(row)
    finally:
        connection.close()


def read_content(path: Path, call_id: str) -> Content | None:
    """Return what the call asked and was answered, None where that was not kept. Raises `InputError`."""
    connection = open_reading(path)
    try:
        row = connection.execute(sql.CONTENT, (call_id,)).fetchone()
        return None if row is None else Content(*row)
    finally:
        connection.close()


def read_columns(path: Path, names: Sequence[str], since: float, until: float) -> Iterator[tuple[Any, ...]]:
    """Give only the columns *names* of the outcomes in [since, until), oldest first. Raises `InputError`."""
    connection = open_reading(path)
    try:
        yield from connection.execute(sql.columns(names), (since, until))
    finally:
        connection.close()


def read_with_content(path: Path, since: float, until: float) -> Iterator[tuple[Outcome, Content | None]]:
    """Give the outcomes in [since, until) with what was asked and answered, oldest first. Raises `InputError`."""
    connection = open_reading(path)
    try:
        for *row, request, response in connection.execute(sql.EXPORT, (since, until)):
            outcome = outcome_of(tuple(row))
            yield outcome, None if request is None else Content(outcome.id, request, response)
    finally:
        connection.close()


def count_rows(path: Path, since: float, until: float) -> int:
    """Return how many outcomes were received in [since, until). Raises `InputError`."""
    connection = open_reading(path)
    try:
        return int(connection.execute(sql.COUNT_BETWEEN, (since, until)).fetchone()[0])
    finally:
        connection.close()


def update_rows(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the priced columns of *outcomes* anew, in one transaction. Raises `InputError`."""
    connection = opened(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        values = [(*(getattr(o, name) for name in sql.REPRICED), o.id) for o in outcomes]
        connection.executemany(sql.REPRICE, values)
        connection.executemany(sql_success.TOUCH_ROW, [(o.id,) for o in outcomes])
        connection.executemany(DIRTY, [(o.id,) for o in outcomes])  # their roll-ups have to be made anew
        connection.execute("COMMIT")
    finally:
        connection.close()


def outcome_of(row: tuple[Any, ...]) -> Outcome:
    """Return the row that `sql.NAMES` names."""
    values = dict(zip(FIELDS, row, strict=True))
    for name in ("stream", "holdout"):
        values[name] = None if values[name] is None else bool(values[name])
    return Outcome(**values)
