"""Cases in the file of the SQLite index."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from negawatt.indexes import Case
from negawatt.indexes.cases import HUMAN, MOST

CASE_SCHEMA = """
CREATE TABLE IF NOT EXISTS learned (
    id TEXT NOT NULL, tier TEXT NOT NULL, request_class TEXT NOT NULL, at REAL NOT NULL, review INTEGER NOT NULL,
    basis TEXT, body BLOB NOT NULL, PRIMARY KEY (id, tier)
);
CREATE INDEX IF NOT EXISTS learned_class ON learned (request_class, tier, at);
CREATE INDEX IF NOT EXISTS learned_review ON learned (at) WHERE review;
"""
_GET = "SELECT body FROM learned WHERE id = ?"
_DELETE = "DELETE FROM learned WHERE id = ? AND tier = ?"
_INSERT = "INSERT INTO learned VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT = "SELECT count(*) FROM learned WHERE request_class = ? AND tier = ?"
_TRIM = (
    "DELETE FROM learned WHERE rowid IN "
    "(SELECT rowid FROM learned WHERE request_class = ? AND tier = ? ORDER BY at, rowid LIMIT ?)"
)
_RECENT = "SELECT body FROM learned WHERE request_class = ? AND tier = ? ORDER BY at DESC, rowid DESC LIMIT ?"
_WAITING = f"SELECT body FROM learned WHERE review AND basis IS NOT '{HUMAN}' ORDER BY at, id LIMIT ?"
_CLASSES = "SELECT DISTINCT request_class, tier FROM learned ORDER BY request_class, tier"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Case).decode
_TRIMMED_EVERY = 100


class SqliteCases:
    """Keeps the newest *most* cases, about, of each class and tier; shares file and thread with the index."""

    def __init__(
        self, connection: sqlite3.Connection, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]], most: int = MOST
    ) -> None:
        self._connection = connection
        self._in_thread = in_thread
        self._most = most
        self._added = 0

    async def add(self, case: Case) -> None:
        await self._in_thread(partial(self._add, case))

    async def label(self, id: str, *, wrong: bool, basis: str) -> bool:
        return bool(await self._in_thread(partial(self._label, id, wrong, basis)))

    async def recent(self, request_class: str, tier: str, *, limit: int) -> list[Case]:
        rows = await self._rows(_RECENT, request_class, tier, limit)
        return [_decode(row[0]) for row in reversed(rows)]

    async def waiting(self, *, limit: int) -> list[Case]:
        return [_decode(row[0]) for row in await self._rows(_WAITING, limit)]

    async def classes(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self._rows(_CLASSES)]

    async def _rows(self, query: str, *values: object) -> list[Any]:
        return list(await self._in_thread(lambda: self._connection.execute(query, values).fetchall()))

    def _add(self, case: Case) -> None:
        for (body,) in self._connection.execute(_GET, (case.id,)).fetchall():
            old = _decode(body)
            if old.tier == case.tier and old.basis == HUMAN and case.basis != HUMAN:
                case = msgspec.structs.replace(case, wrong=old.wrong, basis=old.basis)
        self._keep(case)
        self._added += 1
        if self._added % _TRIMMED_EVERY == 0 or self._most < _TRIMMED_EVERY:
            where = (case.request_class, case.tier)
            extra = self._connection.execute(_COUNT, where).fetchone()[0] - self._most
            if extra > 0:
                self._connection.execute(_TRIM, (*where, extra))

    def _label(self, id: str, wrong: bool, basis: str) -> bool:
        cases = [_decode(row[0]) for row in self._connection.execute(_GET, (id,)).fetchall()]
        for case in cases:
            if case.basis != HUMAN or basis == HUMAN:
                self._keep(msgspec.structs.replace(case, wrong=wrong, basis=basis))
        return bool(cases)

    def _keep(self, case: Case) -> None:
        self._connection.execute(_DELETE, (case.id, case.tier))
        row = (case.id, case.tier, case.request_class, case.at, int(case.review), case.basis, _encode(case))
        self._connection.execute(_INSERT, row)
