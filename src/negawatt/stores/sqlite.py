"""Bytes in one SQLite file: they outlive a restart, and processes on one machine may share them.

Reads are done at once, in the event loop: they take some 20 us. Writes go through one thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from negawatt.clock import Clock
from negawatt.errors import StoreError
from negawatt.stores import StoreStats

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL NOT NULL, used_at REAL NOT NULL,
    grp TEXT NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_use ON entry (grp, used_at, size);
CREATE INDEX IF NOT EXISTS entry_expiry ON entry (expires_at);
CREATE TABLE IF NOT EXISTS tag (
    tag TEXT NOT NULL, key TEXT NOT NULL REFERENCES entry (key) ON DELETE CASCADE, PRIMARY KEY (tag, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_key ON tag (key);
CREATE TABLE IF NOT EXISTS claim (key TEXT PRIMARY KEY, token TEXT NOT NULL, lapses_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS total (grp TEXT PRIMARY KEY, size INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entry BEGIN
    INSERT INTO total VALUES (new.grp, new.size) ON CONFLICT (grp) DO UPDATE SET size = size + new.size;
END;
CREATE TRIGGER IF NOT EXISTS entry_gone AFTER DELETE ON entry BEGIN
    UPDATE total SET size = size - old.size WHERE grp = old.grp;
END;
"""
_GET = "SELECT value FROM entry WHERE key = ? AND expires_at > ?"
_DELETE = "DELETE FROM entry WHERE key = ?"
_INSERT = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)"
_TAG = "INSERT OR IGNORE INTO tag VALUES (?, ?)"
_TOUCH = "UPDATE entry SET used_at = ? WHERE key = ?"
_EXPIRE = "DELETE FROM entry WHERE key IN (SELECT key FROM entry WHERE expires_at <= ? LIMIT 100)"
_GROUP_BYTES = "SELECT size FROM total WHERE grp = ?"
_BYTES = "SELECT coalesce(sum(size), 0) FROM total"
_BY_SIZE = "SELECT grp FROM total ORDER BY size DESC"
_OLDEST = "DELETE FROM entry WHERE key = (SELECT key FROM entry WHERE grp = ? AND key != ? ORDER BY used_at LIMIT 1)"
_CLAIM = (
    "INSERT INTO claim VALUES (?1, ?2, ?3) "
    "ON CONFLICT (key) DO UPDATE SET token = ?2, lapses_at = ?3 WHERE lapses_at <= ?4"
)
_RELEASE = "DELETE FROM claim WHERE key = ? AND token = ?"
_LAPSED = "DELETE FROM claim WHERE lapses_at <= ? AND key != ?"
_STATS = "SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM entry WHERE expires_at > ?"


class SqliteStore:
    """Holds at most *max_bytes* of keys and values in the file at *path*.

    A file that is not a sound database is set aside, under its name and the time, and an empty one begun.
    Raises `StoreError` when the file cannot be opened at all.
    """

    shared = False  # processes may, but then each claim is a write to the file: no replica waits for another over it

    def __init__(self, path: Path, clock: Clock, max_bytes: int = 1024 * 1024 * 1024) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._used: dict[str, float] = {}  # last use, not yet written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="negawatt-store")
        with _failing_as_store_error(path):
            try:
                self._write = _open(path)
            except sqlite3.DatabaseError as error:
                if not path.exists() or isinstance(error, sqlite3.OperationalError):
                    raise
                aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
                path.rename(aside)
                for suffix in ("-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                log.warning("the cache file %s is damaged (%s): set aside as %s; starting empty", path, error, aside)
                self._write = _open(path)
            self._read = _open(path)

    async def get(self, key: str) -> bytes | None:
        now = self._clock.time()
        with _failing_as_store_error():
            row = self._read.execute(_GET, (key, now)).fetchone()
        if row is None:
            return None
        if len(self._used) < 10_000:
            self._used[key] = now
        return bytes(row[0])

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl_s: float,
        tags: tuple[str, ...] = (),
        group: str = "",
        group_max_bytes: int | None = None,
    ) -> None:
        size = len(key) + len(value)
        if size > self._max_bytes or (group_max_bytes is not None and size > group_max_bytes):
            await self.delete(key)
            return
        now = self._clock.time()
        row = (key, value, now + ttl_s, now, group, size)
        await self._in_thread(partial(self._put, row, tags, group_max_bytes))

    async def delete(self, key: str) -> bool:
        return await self._in_thread(lambda: self._write.execute(_DELETE, (key,)).rowcount > 0)

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        marks = ", ".join("?" * len(tags))
        keys = f"SELECT key FROM tag WHERE tag IN ({marks}) GROUP BY key HAVING count(*) = {len(set(tags))}"
        alive = f"SELECT count(*) FROM entry WHERE expires_at > ? AND key IN ({keys})"

        def work() -> int:
            count = int(self._write.execute(alive, (self._clock.time(), *tags)).fetchone()[0])
            if not dry_run:
                self._write.execute(f"DELETE FROM entry WHERE key IN ({keys})", tags)
            return count

        return await self._in_thread(work)

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        token, now = uuid.uuid4().hex, self._clock.time()

        def work() -> bool:
            self._write.execute(_LAPSED, (now, key))
            return self._write.execute(_CLAIM, (key, token, now + ttl_s, now)).rowcount > 0

        return token if await self._in_thread(work) else None

    async def release(self, key: str, token: str) -> None:
        await self._in_thread(lambda: self._write.execute(_RELEASE, (key, token)))

    async def stats(self) -> StoreStats:
        with _failing_as_store_error():
            entries, size = self._read.execute(_STATS, (self._clock.time(),)).fetchone()
        return StoreStats(entries, size)

    async def close(self) -> None:
        self._writer.shutdown(wait=True)
        self._write.close()
        self._read.close()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        def transaction() -> _T:
            with _failing_as_store_error():
                self._write.execute("BEGIN IMMEDIATE")
                try:
                    result = work()
                except BaseException:
                    self._write.execute("ROLLBACK")
                    raise
                self._write.execute("COMMIT")
                return result

        return await asyncio.get_running_loop().run_in_executor(self._writer, transaction)

    def _put(
        self, row: tuple[str, bytes, float, float, str, int], tags: tuple[str, ...], group_max_bytes: int | None
    ) -> None:
        key, _, _, now, group, _ = row
        used, self._used = self._used, {}
        self._write.executemany(_TOUCH, [(at, touched) for touched, at in used.items()])
        self._write.execute(_EXPIRE, (now,))
        self._write.execute(_DELETE, (key,))
        self._write.execute(_INSERT, row)
        self._write.executemany(_TAG, [(tag, key) for tag in tags])
        while group_max_bytes is not None and self._number(_GROUP_BYTES, group) > group_max_bytes:
            self._write.execute(_OLDEST, (group, key))
        while self._number(_BYTES) > self._max_bytes:
            self._make_room(key)

    def _make_room(self, key: str) -> None:
        """Delete one entry, but not that of *key*: of the largest group that has another, the longest unread."""
        for (group,) in self._write.execute(_BY_SIZE).fetchall():
            if self._write.execute(_OLDEST, (group, key)).rowcount:
                return

    def _number(self, query: str, *values: str) -> int:
        row = self._write.execute(query, values).fetchone()
        return 0 if row is None else int(row[0])


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(_SCHEMA)
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(" ".join(problem.split()))
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _failing_as_store_error(path: Path | None = None) -> Iterator[None]:
    """Raise what SQLite raises as `StoreError`, which names *path* where one is given."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        name = "" if path is None else f" {path}"
        raise StoreError(f"the SQLite store{name} failed: {error}") from error
