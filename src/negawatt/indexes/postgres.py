"""Vectors in PostgreSQL with pgvector: shared by replicas, which see at once what any of them has put.

``postgres://user@host:5432/database?schema=negawatt&max_entries=100000&max_bytes=1GiB&timeout_ms=500
&password_env=PGPASS``. Scopes of up to some thousand entries are searched exactly; larger ones by a graph of their
own (`negawatt.indexes.postgres_graphs`). A similarity is always that of the whole vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from negawatt.clock import Clock
from negawatt.errors import StoreError
from negawatt.indexes import IndexStats, Neighbour
from negawatt.indexes import postgres_sql as sql
from negawatt.indexes.cases import MOST
from negawatt.indexes.cases_postgres import PostgresCases
from negawatt.indexes.checks import ANY, check_dimensions, check_entry, check_model
from negawatt.indexes.opening import count_of
from negawatt.indexes.postgres_graphs import EXPANSION_SEARCH, Graphs
from negawatt.stores.postgres_database import (
    MOST_ROUNDS,
    SETUP_LOCK,
    Connection,
    Database,
    Place,
    Uses,
    digest,
    has_table,
    in_one_line,
    lock_number,
    make_tables,
    place_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXACT_UP_TO = 5_000
_MORE = 8  # asked of a graph beyond what is wanted, so that the older of equals is among them
_MOST_BY_GRAPH = 100
_PLAIN_UP_TO = 1_536  # dimensions: such a row fits into a page as it is


def open_postgres(url: Any, where: str, clock: Clock, *, model: str, dimensions: int) -> PostgresIndex:
    """Open the index that *url* names; nothing is connected yet. Raises `ConfigError`."""
    place = place_of(url, where, more=("max_entries", "max_bytes"))
    return PostgresIndex(
        place, clock, model=model, dimensions=dimensions, max_entries=count_of(url, "max_entries", 100_000, where),
        max_bytes=url.bytes("max_bytes", 2**30, where),
    )  # fmt: skip


class PostgresIndex:
    """Holds at most *max_entries* entries and *max_bytes* of keys, vectors, marks and values, over all replicas.

    Time is the replicas' own: their clocks should agree.
    """

    def __init__(  # noqa: PLR0913
        self, place: Place, clock: Clock, *, model: str, dimensions: int, max_entries: int = 100_000,
        max_bytes: int = 2**30, exact_up_to: int = EXACT_UP_TO, max_cases: int = MOST,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._model, self._dimensions = model, dimensions
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._database = Database(place, self._prepare, settings={"hnsw.ef_search": str(EXPANSION_SEARCH)})
        self._lock = lock_number(place.schema, "index")
        self._graphs = Graphs(self._database, dimensions=dimensions, exact_up_to=exact_up_to)
        self._uses = Uses(self._touch)
        self._cases = PostgresCases(self._database, max_cases)

    @property
    def cases(self) -> PostgresCases:
        return self._cases

    async def check(self) -> None:
        await self._database.opened()

    async def put(  # noqa: PLR0913
        self, key: str, vector: NDArray[np.float32], value: bytes, *, scope: str, ttl_s: float, mark: bytes = b"",
        tags: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        check_entry(vector, mark, model=self._model, dimensions=self._dimensions)
        name, place, within, now = key.encode("utf-8", "surrogatepass"), digest(key), digest(scope), self._clock.time()
        size = len(key) + 4 * self._dimensions + len(mark) + len(value)
        if size > self._max_bytes:
            await self.delete(key)
            return
        row = (
            place, within, vector.tolist(), mark, name, value, now + ttl_s, size, self._uses.moment(now),
            [digest(tag) for tag in tags],
        )  # fmt: skip

        async def work(connection: Connection) -> None:
            if self._uses:
                await connection.execute(sql.TOUCH, *self._uses.taken())
            await connection.execute(sql.CLEAR, place, now)
            await self._make_room(connection, await connection.fetchval(sql.INSERT, *row))

        await self._database.changed(self._lock, work)
        self._graphs.added(within)

    async def nearest(self, scope: str, vector: NDArray[np.float32], *, k: int = 8) -> list[Neighbour]:
        check_dimensions(vector, model=self._model, dimensions=self._dimensions)
        within, sought, now = digest(scope), vector.tolist(), self._clock.time()
        rows: list[Any] = []
        if k <= _MOST_BY_GRAPH and self._graphs.has(within):
            query = sql.GRAPH.format(scope=within.hex())
            rows = await self._database.run(lambda c: c.fetch(query, sought, now, k + _MORE))
        if len(rows) < k:  # where many have expired or gone, a graph has too few that are alive
            rows = await self._database.run(lambda c: c.fetch(sql.EXACT, within, sought, now, k))
        return [Neighbour(row["name"].decode("utf-8", "replace"), row["similarity"], row["mark"]) for row in rows[:k]]

    async def get(self, key: str) -> bytes | None:
        now = self._clock.time()
        row = await self._database.run(lambda c: c.fetchrow(sql.GET, digest(key), now))
        if row is None:
            return None
        self._uses.note(row["id"], now)
        return bytes(row["value"])

    async def delete(self, key: str) -> bool:
        gone = await self._database.changed(self._lock, lambda c: c.fetchval(sql.DELETE, digest(key)))
        return gone is not None

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        wanted, now = list({digest(tag) for tag in tags}), self._clock.time()
        if dry_run:
            return int(await self._database.run(lambda c: c.fetchval(sql.COUNT_TAGGED, wanted, len(wanted), now)))
        return await self._database.deleted(
            self._lock, lambda c, most: c.fetch(sql.DELETE_TAGGED, wanted, len(wanted), now, most)
        )

    async def stats(self) -> IndexStats:
        return IndexStats(*await self._database.run(lambda c: c.fetchrow(sql.STATS, self._clock.time())))

    async def settled(self) -> None:
        """Wait until nothing is being built or written in the background."""
        await self._graphs.settled()
        await self._uses.settled()

    async def close(self) -> None:
        await self._graphs.close()
        await self._uses.settled()
        await self._database.close()

    # -- parts -------------------------------------------------------------------------------------------------

    async def _make_room(self, connection: Connection, newest: int) -> None:
        for _ in range(MOST_ROUNDS):  # where a bound was lowered by much, the next puts go on
            entries, size = await connection.fetchrow(sql.TOTAL)
            too_many, too_large = entries - self._max_entries, size - self._max_bytes
            if too_many <= 0 and too_large <= 0:
                return
            if await connection.execute(sql.MAKE_ROOM, newest, too_many, too_large) == "DELETE 0":
                return

    async def _touch(self, entries: list[int], at: list[float]) -> None:
        await self._database.changed(self._lock, lambda c: c.execute(sql.TOUCH, entries, at))

    async def _prepare(self, connection: Connection, place: Place) -> str:
        """Make sure of extension and tables, and that they are of our model. Raises `IndexMismatch`."""
        if self._model == ANY and not await has_table(connection, place, sql.PROBE):
            raise StoreError(f"there is no index in the schema {place.schema} of {place.name}")
        path = f'"{place.schema}", {await self._extension(connection, place)}'
        storage = "PLAIN" if self._dimensions <= _PLAIN_UP_TO else "EXTERNAL"
        await make_tables(
            connection, place, sql.PROBE, sql.SCHEMA.format(dimensions=self._dimensions, storage=storage), path=path
        )
        query = sql.META.format(schema=place.schema)
        had = await connection.fetchrow(query)
        if had is None and self._model != ANY:
            await connection.execute(f"SET search_path = {path}")
            await connection.execute(sql.SET_META, self._model, self._dimensions)
            had = await connection.fetchrow(query)
        if had is not None:
            check_model(f"the schema {place.schema} of {place.name}", tuple(had), (self._model, self._dimensions))
        return path

    async def _extension(self, connection: Connection, place: Place) -> str:
        """Return the schema that pgvector is in, quoted, after having made the extension where there is none."""
        import asyncpg

        found = await connection.fetchval(sql.EXTENSION)
        if found is None:
            try:
                async with connection.transaction():
                    await connection.execute(SETUP_LOCK)
                    await connection.execute(sql.CREATE_EXTENSION)
            except asyncpg.InsufficientPrivilegeError as error:
                message = (
                    f"the database at {place.name} has no pgvector, and the role may not make it "
                    f"({in_one_line(error)}): let a superuser run CREATE EXTENSION vector in it"
                )
                raise StoreError(message) from error
            except (asyncpg.UndefinedFileError, asyncpg.FeatureNotSupportedError) as error:
                message = f"the server at {place.name} has no pgvector ({in_one_line(error)}): install it there"
                raise StoreError(message) from error
            found = await connection.fetchval(sql.EXTENSION)
        return '"' + str(found).replace('"', '""') + '"'
