"""Cases in the file of the SQLite index."""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from negawatt.indexes import HUMAN, Case
from negawatt.indexes.cases import MOST

log = logging.getLogger(__name__)

CASE_SCHEMA = """
CREATE TABLE IF NOT EXISTS learned_case (
    id TEXT NOT NULL, tier TEXT NOT NULL, request_class TEXT NOT NULL, at REAL NOT NULL, review INTEGER NOT NULL,
    wrong INTEGER, basis TEXT, body BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (id, tier)
);
CREATE INDEX IF NOT EXISTS learned_case_class ON learned_case (request_class, tier, at, id);
CREATE INDEX IF NOT EXISTS learned_case_review ON learned_case (at, id) WHERE review;
"""
# What a person said stays: wrong and basis are columns, and the body's own are not looked at.
_KEPT = f"learned_case.basis IS '{HUMAN}' AND excluded.basis IS NOT '{HUMAN}'"
_ADD = f"""
INSERT INTO learned_case VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, tier) DO UPDATE SET
    request_class = excluded.request_class, at = excluded.at, review = excluded.review, body = excluded.body,
    sum = excluded.sum, wrong = CASE WHEN {_KEPT} THEN learned_case.wrong ELSE excluded.wrong END,
    basis = CASE WHEN {_KEPT} THEN learned_case.basis ELSE excluded.basis END
"""
_LABEL = f"UPDATE learned_case SET wrong = ?2, basis = ?3 WHERE id = ?1 AND (basis IS NOT '{HUMAN}' OR ?3 = '{HUMAN}')"
_IS_THERE = "SELECT count(*) FROM learned_case WHERE id = ?"
_COUNT = "SELECT count(*) FROM learned_case WHERE request_class = ? AND tier = ?"
_TRIM = (
    "DELETE FROM learned_case WHERE rowid IN "
    "(SELECT rowid FROM learned_case WHERE request_class = ? AND tier = ? ORDER BY at, id LIMIT ?)"
)
_ROWS = "SELECT id, tier, wrong, basis, body, sum FROM learned_case"
_RECENT = f"{_ROWS} WHERE request_class = ? AND tier = ? ORDER BY at DESC, id DESC LIMIT ?"
_WAITING = f"{_ROWS} WHERE review AND basis IS NOT '{HUMAN}' ORDER BY at, id LIMIT ?"
_CLASSES = "SELECT DISTINCT request_class, tier FROM learned_case ORDER BY request_class, tier"
_DROP = "DELETE FROM learned_case WHERE id = ? AND tier = ?"

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
        def work() -> bool:
            self._connection.execute(_LABEL, (id, wrong, basis))
            return bool(self._connection.execute(_IS_THERE, (id,)).fetchone()[0])

        return bool(await self._in_thread(work))

    async def recent(self, request_class: str, tier: str, *, limit: int) -> list[Case]:
        return list(await self._in_thread(lambda: self._read(_RECENT, request_class, tier, limit)))[::-1]

    async def waiting(self, *, limit: int) -> list[Case]:
        return list(await self._in_thread(lambda: self._read(_WAITING, limit)))

    async def classes(self) -> list[tuple[str, str]]:
        rows: Iterable[tuple[str, str]] = await self._in_thread(lambda: self._connection.execute(_CLASSES).fetchall())
        return [(request_class, tier) for request_class, tier in rows]

    def _add(self, case: Case) -> None:
        body = _encode(case)
        row = (
            case.id, case.tier, case.request_class, case.at, case.review, case.wrong, case.basis, body,
            zlib.crc32(body),
        )  # fmt: skip
        self._connection.execute(_ADD, row)
        self._added += 1
        if self._added % min(_TRIMMED_EVERY, self._most) == 0:
            where = (case.request_class, case.tier)
            extra = self._connection.execute(_COUNT, where).fetchone()[0] - self._most
            if extra > 0:
                self._connection.execute(_TRIM, (*where, extra))

    def _read(self, query: str, *values: object) -> list[Case]:
        """Return the cases that *query* finds; one that is damaged is dropped, and said."""
        cases = []
        for id, tier, wrong, basis, body, checksum in self._connection.execute(query, values).fetchall():
            if zlib.crc32(body) != checksum:
                log.warning("the case %s of the index is damaged: dropped", id)
                self._connection.execute(_DROP, (id, tier))
                continue
            judged = None if wrong is None else bool(wrong)
            cases.append(msgspec.structs.replace(_decode(body), wrong=judged, basis=basis))
        return cases
