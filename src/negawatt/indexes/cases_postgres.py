"""Cases in the database of the PostgreSQL index: replicas learn from each other's."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from negawatt.errors import StoreError
from negawatt.indexes import Case
from negawatt.indexes import postgres_sql as sql
from negawatt.indexes.cases import MOST
from negawatt.stores.postgres_database import Database

log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Case).decode
_TRIMMED_EVERY = 100


class PostgresCases:
    """Keeps the newest *most* cases, about, of each class and tier; shares its database with the index."""

    def __init__(self, database: Database, most: int = MOST) -> None:
        self._database = database
        self._most = most
        self._added = 0

    async def add(self, case: Case) -> None:
        row = (
            case.id.encode(), case.tier, case.request_class, case.at, case.review, case.wrong, case.basis,
            _encode(case),
        )  # fmt: skip
        await self._database.run(lambda connection: connection.execute(sql.ADD_CASE, *row))
        self._added += 1
        if self._added % min(_TRIMMED_EVERY, self._most) == 0:
            where = (case.request_class, case.tier, self._most)
            await self._database.run(lambda connection: connection.execute(sql.TRIM_CASES, *where))

    async def label(self, id: str, *, wrong: bool, basis: str) -> bool:
        found = await self._database.run(lambda c: c.fetchval(sql.LABEL, id.encode(), wrong, basis))
        return bool(found)

    async def recent(self, request_class: str, tier: str, *, limit: int) -> list[Case]:
        rows = await self._database.run(lambda c: c.fetch(sql.RECENT, request_class, tier, limit))
        return await self._read(reversed(rows))

    async def waiting(self, *, limit: int) -> list[Case]:
        return await self._read(await self._database.run(lambda c: c.fetch(sql.WAITING, limit)))

    async def classes(self) -> list[tuple[str, str]]:
        rows = await self._database.run(lambda c: c.fetch(sql.CLASSES))
        return sorted((row["request_class"], row["tier"]) for row in rows)

    async def _read(self, rows: Iterable[Any]) -> list[Case]:
        """Return the cases in *rows*; one that cannot be read is dropped, and said."""
        cases = []
        for row in rows:
            try:
                case = _decode(row["body"])
            except msgspec.MsgspecError as error:
                log.warning("a case of the index cannot be read and is dropped: %s", error)
                await self._drop(row["id"], row["tier"])
                continue
            cases.append(msgspec.structs.replace(case, wrong=row["wrong"], basis=row["basis"]))
        return cases

    async def _drop(self, id: bytes, tier: str) -> None:
        try:
            await self._database.run(lambda connection: connection.execute(sql.DROP_CASE, id, tier))
        except StoreError as error:
            log.warning("it could not be dropped: %s", error.message)
