"""Vectors in one SQLite file: its rows are the truth, and what searches among them is made from the rows.

Each row carries a checksum; one that is damaged is dropped and said, never served. Vectors of a scope are read when
the scope is first asked for, and stay in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from negawatt.clock import Clock
from negawatt.errors import StoreError
from negawatt.indexes import IndexStats, Neighbour
from negawatt.indexes.cases import MOST
from negawatt.indexes.cases_sqlite import CASE_SCHEMA, SqliteCases
from negawatt.indexes.checks import ANY, check_dimensions, check_entry, check_model
from negawatt.indexes.nearest import EXACT_UP_TO, Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY, scope TEXT NOT NULL, vector BLOB NOT NULL, mark BLOB NOT NULL, value BLOB NOT NULL,
    expires_at REAL NOT NULL, used_at REAL NOT NULL, size INTEGER NOT NULL, sum INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS entry_scope ON entry (scope, expires_at);
CREATE INDEX IF NOT EXISTS entry_use ON entry (used_at);
CREATE INDEX IF NOT EXISTS entry_expiry ON entry (expires_at, size);
CREATE TABLE IF NOT EXISTS tag (
    tag TEXT NOT NULL, key TEXT NOT NULL REFERENCES entry (key) ON DELETE CASCADE, PRIMARY KEY (tag, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_key ON tag (key);
CREATE TABLE IF NOT EXISTS total (
    one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, size INTEGER NOT NULL
);
INSERT OR IGNORE INTO total VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entry BEGIN
    UPDATE total SET entries = entries + 1, size = size + new.size;
END;
CREATE TRIGGER IF NOT EXISTS entry_gone AFTER DELETE ON entry BEGIN
    UPDATE total SET entries = entries - 1, size = size - old.size;
END;
"""
_META = "SELECT value FROM meta WHERE name = ?"
_SET_META = "INSERT INTO meta VALUES (?, ?)"
_LOAD = "SELECT key, vector, mark, value, expires_at, sum FROM entry WHERE scope = ? AND expires_at > ? ORDER BY rowid"
_GET = "SELECT vector, mark, value, sum FROM entry WHERE key = ? AND expires_at > ?"
_SCOPE_OF = "SELECT scope FROM entry WHERE key = ?"
_DELETE = "DELETE FROM entry WHERE key = ?"
_INSERT = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TAG = "INSERT OR IGNORE INTO tag VALUES (?, ?)"
_TOUCH = "UPDATE entry SET used_at = ? WHERE key = ?"
_EXPIRED = "SELECT key, scope FROM entry WHERE expires_at <= ? LIMIT 100"
_TOTAL = "SELECT entries, size FROM total"
_OLDEST = "SELECT key, scope FROM entry WHERE key != ? ORDER BY used_at, rowid LIMIT 1"
_GONE = "SELECT count(*), coalesce(sum(size), 0) FROM entry WHERE expires_at <= ?"
_COUNT_SCOPES = "SELECT count(DISTINCT scope) FROM entry WHERE expires_at > ?"


class SqliteIndex:
    """Holds at most *max_entries* entries and *max_bytes* of keys, vectors, marks and values in the file at *path*.

    A file that is not a sound database is set aside, under its name and the time, and an empty one begun. Raises
    `IndexMismatch` for a file of another embedder, `StoreError` when it cannot be opened at all.
    """

    def __init__(  # noqa: PLR0913
        self, path: Path, clock: Clock, *, model: str, dimensions: int, max_entries: int = 100_000,
        max_bytes: int = 2**30, exact_up_to: int = EXACT_UP_TO, max_cases: int = MOST,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._model, self._dimensions = model, dimensions
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._exact_up_to = exact_up_to
        self._scopes: dict[str, asyncio.Future[Vectors]] = {}
        self._putting: dict[str, int] = {}  # how many are being put into a scope
        self._used: dict[str, float] = {}  # last use, not yet written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="negawatt-index")
        with failing_as_store_error(path):
            self._write = _open_or_set_aside(path)
            self._read = _connect(path)
        try:
            self._check_meta(path)
        except BaseException:
            self._close_files()
            raise
        self.cases = SqliteCases(self._write, self._in_thread, max_cases)

    async def check(self) -> None:
        """Do nothing: the file was looked at when it was opened."""

    async def put(  # noqa: PLR0913
        self, key: str, vector: NDArray[np.float32], value: bytes, *, scope: str, ttl_s: float, mark: bytes = b"",
        tags: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        check_entry(vector, mark, model=self._model, dimensions=self._dimensions)
        raw = vector.astype("<f4").tobytes()
        size = len(key) + len(raw) + len(mark) + len(value)
        if size > self._max_bytes:
            await self.delete(key)
            return
        self._putting[scope] = self._putting.get(scope, 0) + 1
        try:
            vectors = await self._vectors(scope)
            now = self._clock.time()
            row = (key, scope, raw, mark, value, now + ttl_s, now, size, _sum(raw, mark, value))
            for gone, its_scope in await self._in_thread(partial(self._put, row, tags)):
                self._forget(gone, its_scope)
            vectors.put(key, vector, mark, now + ttl_s)
        finally:
            self._putting[scope] -= 1
            self._let_go(scope)

    async def nearest(self, scope: str, vector: NDArray[np.float32], *, k: int = 8) -> list[Neighbour]:
        check_dimensions(vector, model=self._model, dimensions=self._dimensions)
        vectors = await self._vectors(scope)
        self._let_go(scope)
        return vectors.nearest(vector, k, self._clock.time())

    async def get(self, key: str) -> bytes | None:
        now = self._clock.time()
        with failing_as_store_error():
            row = self._read.execute(_GET, (key, now)).fetchone()
        if row is None:
            for scope in list(self._scopes):  # another process may have deleted it: it is not to be found any more
                self._forget(key, scope)
            return None
        raw, mark, value, checksum = row
        if _sum(raw, mark, value) != checksum:
            log.warning("the entry %s of the index is damaged: dropped", key)
            await self.delete(key)
            return None
        if len(self._used) < 10_000:
            self._used[key] = now
        return bytes(value)

    async def delete(self, key: str) -> bool:
        gone = await self._in_thread(partial(self._delete, [key]))
        for one, scope in gone:
            self._forget(one, scope)
        return bool(gone)

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        wanted = tuple(dict.fromkeys(tags))
        marks = ", ".join("?" * len(wanted))
        keys = f"SELECT key FROM tag WHERE tag IN ({marks}) GROUP BY key HAVING count(*) = {len(wanted)}"

        def work() -> tuple[int, list[tuple[str, str]]]:
            alive = f"SELECT count(*) FROM entry WHERE expires_at > ? AND key IN ({keys})"
            count = int(self._write.execute(alive, (self._clock.time(), *wanted)).fetchone()[0])
            found = [] if dry_run else [row[0] for row in self._write.execute(keys, wanted)]
            return count, self._delete(found)

        count, gone = await self._in_thread(work)
        for key, scope in gone:
            self._forget(key, scope)
        return count

    async def stats(self) -> IndexStats:
        now = (self._clock.time(),)

        def work() -> IndexStats:
            entries, size = self._write.execute(_TOTAL).fetchone()
            gone, gone_size = self._write.execute(_GONE, now).fetchone()
            scopes = self._write.execute(_COUNT_SCOPES, now).fetchone()[0]
            return IndexStats(entries - gone, size - gone_size, scopes)

        return await self._in_thread(work)

    async def settled(self) -> None:
        """Wait until nothing is being built in the background."""
        for scope in list(self._scopes):
            await (await self._vectors(scope)).settled()

    async def close(self) -> None:
        await self.settled()
        self._close_files()

    # -- parts -------------------------------------------------------------------------------------------------

    def _close_files(self) -> None:
        self._writer.shutdown(wait=True)
        self._write.close()
        self._read.close()

    def _check_meta(self, path: Path) -> None:
        with failing_as_store_error():
            row = self._write.execute(_META, ("model",)).fetchone()
            if row is None and self._model == ANY:
                return
            if row is None:
                self._write.execute(_SET_META, ("model", self._model))
                self._write.execute(_SET_META, ("dimensions", str(self._dimensions)))
                return
            dimensions = int(self._write.execute(_META, ("dimensions",)).fetchone()[0])
        check_model(str(path), (row[0], dimensions), (self._model, self._dimensions))

    async def _vectors(self, scope: str) -> Vectors:
        """Return the vectors of *scope*, which are read at its first use; whoever comes meanwhile waits."""
        reading = self._scopes.get(scope)
        if reading is None:
            # A task of its own: that one caller leaves is nothing to the others who wait for it.
            reading = asyncio.ensure_future(self._in_thread(partial(self._load, scope)))
            self._scopes[scope] = reading
            reading.add_done_callback(partial(self._forget_failure, scope))
        return reading.result() if reading.done() else await asyncio.shield(reading)

    def _forget_failure(self, scope: str, reading: asyncio.Future[Vectors]) -> None:
        if reading.cancelled() or reading.exception() is not None:
            self._scopes.pop(scope, None)

    def _loaded(self, scope: str) -> Vectors | None:
        reading = self._scopes.get(scope)
        if reading is None or not reading.done() or reading.cancelled() or reading.exception() is not None:
            return None
        return reading.result()

    def _load(self, scope: str) -> Vectors:
        import numpy as np

        keys, rows, marks, expires, damaged = [], [], [], [], []
        for key, raw, mark, value, expires_at, checksum in self._write.execute(_LOAD, (scope, self._clock.time())):
            if _sum(raw, mark, value) != checksum or len(raw) != 4 * self._dimensions:
                damaged.append(key)
                continue
            keys.append(key)
            rows.append(np.frombuffer(raw, "<f4"))
            marks.append(bytes(mark))
            expires.append(expires_at)
        if damaged:
            log.warning("%d damaged entries of the index dropped", len(damaged))
            self._delete(damaged)
        vectors = Vectors(self._dimensions, exact_up_to=self._exact_up_to)
        if keys:
            vectors.load(keys, np.array(rows), marks, expires)
        return vectors

    def _put(self, row: tuple[object, ...], tags: tuple[str, ...]) -> list[tuple[str, str]]:
        """Write one entry; return (key, scope) of all that had to go for it."""
        key, now = str(row[0]), row[6]
        used, self._used = self._used, {}
        self._write.executemany(_TOUCH, [(at, touched) for touched, at in used.items()])
        gone = self._delete([key])
        gone += self._delete([k for k, _ in self._write.execute(_EXPIRED, (now,)).fetchall()])
        self._write.execute(_INSERT, row)
        self._write.executemany(_TAG, [(tag, key) for tag in tags])
        entries, size = self._write.execute(_TOTAL).fetchone()
        while entries > self._max_entries or size > self._max_bytes:
            oldest = self._write.execute(_OLDEST, (key,)).fetchone()
            if oldest is None:
                break
            gone += self._delete([oldest[0]])
            entries, size = self._write.execute(_TOTAL).fetchone()
        return gone

    def _delete(self, keys: list[str]) -> list[tuple[str, str]]:
        found = []
        for key in keys:
            row = self._write.execute(_SCOPE_OF, (key,)).fetchone()
            if row is not None:
                self._write.execute(_DELETE, (key,))
                found.append((key, row[0]))
        return found

    def _forget(self, key: str, scope: str) -> None:
        vectors = self._loaded(scope)
        if vectors is not None:
            vectors.remove(key)
            self._let_go(scope)

    def _let_go(self, scope: str) -> None:
        """Keep nothing in memory of a scope in which nothing is: there is one for each conversation, or more."""
        if not self._putting.get(scope):
            self._putting.pop(scope, None)
            vectors = self._loaded(scope)
            if vectors is not None and not len(vectors):
                del self._scopes[scope]

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        def transaction() -> _T:
            with failing_as_store_error():
                self._write.execute("BEGIN IMMEDIATE")
                try:
                    result = work()
                except BaseException:
                    self._write.execute("ROLLBACK")
                    raise
                self._write.execute("COMMIT")
                return result

        return await asyncio.get_running_loop().run_in_executor(self._writer, transaction)


def _sum(raw: bytes, mark: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(mark, zlib.crc32(raw)))


def _open_or_set_aside(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not path.exists() or isinstance(error, sqlite3.OperationalError):
            raise
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        log.warning("the index file %s is damaged (%s): set aside as %s; starting cold", path, error, aside)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(_SCHEMA + CASE_SCHEMA)
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(" ".join(problem.split()))
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def failing_as_store_error(path: Path | None = None) -> Iterator[None]:
    """Raise what SQLite raises as `StoreError`, which names *path* where one is given."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        name = "" if path is None else f" {path}"
        raise StoreError(f"the SQLite index{name} failed: {error}") from error
