"""The books in one SQLite file: kept in memory, and written down behind the path.

One process at a time has the file. A thread writes the lines that changed as they are then: at once after a pause, else
every `INTERVAL_S`. So after a kill, the file has all but what was reserved in that last moment; what was reserved and
not settled counts as spent from then on, until its period ends: nobody knows any more what became of it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from negawatt.budgets import Line, LineId, Lines
from negawatt.budgets.memory import Entry, MemoryBooks
from negawatt.clock import Clock
from negawatt.errors import ConfigError, InputError

log = logging.getLogger(__name__)

INTERVAL_S = 0.05
_VERSION = 1
_KEPT_S = 400 * 86_400.0  # lines of periods that are over
_TABLE = """
CREATE TABLE IF NOT EXISTS line (
    budget TEXT NOT NULL,
    value TEXT NOT NULL,
    starts INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    assumed INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    PRIMARY KEY (budget, value, starts)
) WITHOUT ROWID
"""
_SELECT = "SELECT budget, value, starts, ends, spent, reserved, assumed, unknown FROM line WHERE ends > ?"
_UPSERT = "INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM line WHERE budget = ? AND value = ? AND starts = ?"
_FORGET = "DELETE FROM line WHERE ends < ?"


class SqliteBooks(MemoryBooks):
    """Opens, or makes, the books at *path*. Raises `ConfigError`, which names *where* the path was said.

    Reservations fail with `StoreError` while the disk refuses what was reserved before.
    """

    def __init__(self, path: Path, clock: Clock, where: str = "budgeting.store") -> None:
        super().__init__(clock)
        self._path = path
        self._changes: list[Lines] = []
        self._lock = _locked(path, where)
        try:
            self._connection = _open(path, clock, where)
            self._load()
        except BaseException:
            self._lock.close()
            raise
        self._wake = threading.Event()
        self._told = False  # the thread knows that there is something to write
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="negawatt-budgets", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what has changed, and let go of the file."""
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join(timeout=30.0)
            self._connection.close()
            self._lock.close()

    def _changed(self, lines: Lines) -> None:
        self._changes.append(lines)
        if not self._told:
            self._told = True
            self._wake.set()

    def _load(self) -> None:
        for budget, value, starts, ends, spent, reserved, assumed, unknown in self._connection.execute(
            _SELECT, (self._clock.time(),)
        ).fetchall():
            entry = self._entries[budget, value, starts] = Entry(ends)
            entry.spent, entry.assumed, entry.unknown = spent + reserved, assumed + (reserved > 0), unknown
            if reserved:
                log.warning("budget %s %r: the last process ended with %d of it reserved; it counts as spent",
                            budget, value, reserved)  # fmt: skip
        # Said before anything is reserved anew: a second kill must not count it twice, nor forget it.
        self._write([(*line, e.until, e.spent, 0, e.assumed, e.unknown) for line, e in self._entries.items()], [])

    def _run(self) -> None:
        pause = threading.Event()  # never set: a pause that a change does not end
        while not self._closing:
            self._wake.wait()
            self._drain()
            pause.wait(INTERVAL_S if self._failed is None else 1.0)
        self._drain()

    def _drain(self) -> None:
        self._wake.clear()
        self._told = False
        changes = self._changes[:]
        del self._changes[: len(changes)]  # and no new list: the path may be about to add to this one
        rows, gone = [], []
        for line in {line for lines in set(changes) for line in lines.ids}:
            entry = self._entries.get(line)
            if entry is None or entry.empty:
                gone.append(line)
            else:
                rows.append((*line, entry.until, entry.spent, entry.reserved, entry.assumed, entry.unknown))
        try:
            self._write(rows, gone)
            self._failed = None
        except sqlite3.Error as error:
            log.error("the budgets %s could not be written: %s", self._path, error)
            self._failed = f"{self._path.name}: {error}"  # whoever asks whether all is well hears it
            self._changes[:0] = set(changes)
            self._told = True
            self._wake.set()

    def _write(self, rows: Sequence[tuple[str | int, ...]], gone: list[LineId]) -> None:
        if not rows and not gone:
            return
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            cursor.executemany(_UPSERT, rows)
            cursor.executemany(_DELETE, gone)
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")


def _open(path: Path, clock: Clock, where: str) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise ConfigError(f"{where}: {path} has schema {version}; this version knows {_VERSION}", param=where)
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute(_FORGET, (clock.time() - _KEPT_S,))
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise ConfigError(
            f"{where}: {path}: no books of budgets, or they cannot be opened: {error}", param=where
        ) from error
    except ConfigError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _locked(path: Path, where: str) -> IO[bytes]:
    """Return a file whose lock this process has; another process with the same books would spend everything twice."""
    try:
        file = Path(f"{path}.lock").open("ab")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{where}: {path}.lock cannot be made: {error.strerror}", param=where) from error
    try:
        import fcntl
    except ImportError:  # no such locks on this system: the documentation says that one process may have the file
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        what = f"another gateway has the budgets {path}; several share theirs through redis://"
        raise ConfigError(f"{where}: {what}", param=where) from error
    return file


def read_lines(path: Path, now: float) -> list[Line]:
    """Return the lines in the file whose period has not ended, as its process last wrote them. Raises `InputError`."""
    if not path.exists():
        raise InputError(f"{path}: there are no books of budgets here")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)) as file:
            rows = file.execute(_SELECT, (now,)).fetchall()
    except sqlite3.Error as error:
        raise InputError(f"{path}: no books of budgets, or they cannot be read: {error}") from error
    return [Line((row[0], row[1], row[2]), *row[3:]) for row in rows]
