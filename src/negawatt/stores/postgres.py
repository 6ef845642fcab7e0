"""Bytes in PostgreSQL: shared by replicas, and they outlive everything.

``postgres://user@host:5432/database?schema=negawatt&max_bytes=1GiB&timeout_ms=500&password_env=PGPASS``. A database
that is slow or gone makes `StoreError`, at once for a second after each failure; when it is back, it is used again.
"""

from __future__ import annotations

import uuid
from itertools import pairwise
from typing import Any

from negawatt.clock import Clock
from negawatt.stores import StoreStats
from negawatt.stores import postgres_sql as sql
from negawatt.stores.postgres_database import (
    MOST_ROUNDS,
    Connection,
    Database,
    Place,
    Uses,
    digest,
    lock_number,
    make_tables,
    place_of,
)

_SWEPT_EVERY = 64  # claims


def open_postgres(url: Any, where: str, clock: Clock) -> PostgresStore:
    """Open the store that *url* names; nothing is connected yet. Raises `ConfigError`."""
    place = place_of(url, where, more=("max_bytes",))
    return PostgresStore(place, clock, max_bytes=url.bytes("max_bytes", 2**30, where))


class PostgresStore:
    """Holds at most *max_bytes* of keys and values, over all replicas; the database's own overhead comes on top.

    Time is the replicas' own: their clocks should agree.
    """

    shared = True

    def __init__(self, place: Place, clock: Clock, *, max_bytes: int = 2**30) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._database = Database(place, _prepare)
        self._lock = lock_number(place.schema, "store")
        self._uses = Uses(self._touch)
        self._claims = 0

    async def get(self, key: str) -> bytes | None:
        now, place = self._clock.time(), digest(key)
        value = await self._database.run(lambda c: c.fetchval(sql.GET, place, now))
        if value is None:
            return None
        self._uses.note(place, now)
        return bytes(value)

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
        place, kind, now = digest(key), digest(group), self._clock.time()
        used_at, marks = self._uses.moment(now), [digest(tag) for tag in tags]
        row = (place, value, now + ttl_s, used_at, kind, size, marks)

        async def work(connection: Connection) -> None:
            if self._uses:
                await connection.execute(sql.TOUCH, *self._uses.taken())
            await connection.execute(sql.CLEAR, place, now)
            await connection.execute(sql.INSERT, *row)
            await self._make_room(connection, place, kind, group_max_bytes)

        await self._database.changed(self._lock, work)

    async def delete(self, key: str) -> bool:
        return bool(await self._database.changed(self._lock, lambda c: c.fetchval(sql.DELETE, digest(key))))

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        wanted, now = list({digest(tag) for tag in tags}), self._clock.time()
        if dry_run:
            return int(await self._database.run(lambda c: c.fetchval(sql.COUNT_TAGGED, wanted, len(wanted), now)))
        return await self._database.deleted(
            self._lock, lambda c, most: c.fetch(sql.DELETE_TAGGED, wanted, len(wanted), now, most)
        )

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        token, now = uuid.uuid4().hex, self._clock.time()
        taken = await self._database.run(lambda c: c.fetchval(sql.CLAIM, digest(key), token, now + ttl_s, now))
        self._claims += 1
        if self._claims % _SWEPT_EVERY == 0:
            await self._database.run(lambda c: c.execute(sql.LAPSED, now))
        return token if taken else None

    async def release(self, key: str, token: str) -> None:
        await self._database.run(lambda c: c.execute(sql.RELEASE, digest(key), token))

    async def stats(self) -> StoreStats:
        return StoreStats(*await self._database.run(lambda c: c.fetchrow(sql.STATS, self._clock.time())))

    async def close(self) -> None:
        await self._uses.settled()
        await self._database.close()

    async def _make_room(self, connection: Connection, newest: bytes, kind: bytes, group_max: int | None) -> None:
        for _ in range(MOST_ROUNDS):  # where a bound was lowered by much, the next puts go on
            totals: list[tuple[bytes, int]] = [tuple(row) for row in await connection.fetch(sql.TOTALS)]
            in_group = 0 if group_max is None else dict(totals).get(kind, 0) - group_max
            too_large = sum(held for _, held in totals) - self._max_bytes
            if in_group > 0:
                wanted = [(kind, in_group)]
            elif too_large > 0:  # from the largest group, until it is no longer the largest
                pairs = pairwise([*totals, (b"", 0)])
                wanted = [(one, max(1, min(too_large, held - smaller))) for (one, held), (_, smaller) in pairs]
            else:
                return
            for one, size in wanted:
                if await connection.execute(sql.MAKE_ROOM, one, newest, size) != "DELETE 0":
                    break

    async def _touch(self, entries: list[bytes], at: list[float]) -> None:
        await self._database.changed(self._lock, lambda c: c.execute(sql.TOUCH, entries, at))


async def _prepare(connection: Connection, place: Place) -> str:
    path = f'"{place.schema}"'
    await make_tables(connection, place, sql.PROBE, sql.SCHEMA, path=path)
    return path
