"""The graphs (HNSW) of large scopes, one for each.

A graph of all scopes together would have to be searched with a filter, and a filter loses neighbours: the graph
offers so many candidates, of whatever scope they are. A graph of one scope has nothing to filter, and a scope of a
few thousand entries needs none: they are all compared. So a graph is made, beside the running traffic and by one
replica, when a scope has outgrown that; and taken away when the scope has shrunk.
"""

from __future__ import annotations

import asyncio
import logging

from negawatt.errors import StoreError
from negawatt.indexes import postgres_sql as sql
from negawatt.stores.postgres_database import Connection, Database, lock_number

log = logging.getLogger(__name__)

_MOST_DIMENSIONS = 2_000  # that pgvector puts into a graph
_CONNECTIVITY, _EXPANSION_ADD = 16, 128
EXPANSION_SEARCH = 200
_LOOKED_EVERY_S = 60.0
_COUNTED_EVERY = 64  # puts


class Graphs:
    """Knows which scopes have a graph, and has one built for a scope of more than *exact_up_to* entries."""

    def __init__(self, database: Database, *, dimensions: int, exact_up_to: int) -> None:
        self._database = database
        self._possible = dimensions <= _MOST_DIMENSIONS
        self._exact_up_to = exact_up_to
        self._lock = lock_number(database.place.schema, "graphs")
        self._there: set[str] = set()
        self._looked_at = float("-inf")
        self._puts = 0
        self._task: asyncio.Task[None] | None = None

    def has(self, scope: bytes) -> bool:
        """True when searching in *scope* may use a graph; what other replicas built is known within a minute."""
        now = asyncio.get_running_loop().time()
        if self._possible and now - self._looked_at > _LOOKED_EVERY_S:
            self._begin(None)
        return scope.hex() in self._there

    def added(self, scope: bytes) -> None:
        """Note that an entry was put into *scope*: from time to time its size is looked at."""
        self._puts += 1
        wanted = self._possible and scope.hex() not in self._there
        if wanted and self._puts % min(_COUNTED_EVERY, self._exact_up_to) == 0:
            self._begin(scope)

    async def settled(self) -> None:
        """Wait until nothing is being built."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _begin(self, scope: bytes | None) -> None:
        if self._task is None or self._task.done():
            self._looked_at = asyncio.get_running_loop().time()
            self._task = asyncio.get_running_loop().create_task(self._look(scope))

    async def _look(self, scope: bytes | None) -> None:
        try:
            self._there = {name for name, valid in (await self._database.run(_graphs)).items() if valid}
            if scope is not None and scope.hex() not in self._there and await self._is_large(scope):
                await self._database.beside(lambda connection: self._tend(connection, scope))
                self._there = {name for name, valid in (await self._database.run(_graphs)).items() if valid}
        except StoreError as error:
            log.warning("no graph of a large scope could be made, so its search stays exact: %s", error.message)

    async def _is_large(self, scope: bytes) -> bool:
        most = self._exact_up_to
        return int(await self._database.run(lambda c: c.fetchval(sql.COUNT, scope, most + 1))) > most

    async def _tend(self, connection: Connection, scope: bytes) -> None:
        """Build the graph of *scope*, and take away those that broke off or that nobody needs any more."""
        if not await connection.fetchval(sql.TRY_LOCK, self._lock):
            return  # another replica is at it; the lock goes with its connection
        there = await _graphs(connection)
        for name, valid in there.items():
            count = await connection.fetchval(sql.COUNT, bytes.fromhex(name), self._exact_up_to)
            if not valid or count <= self._exact_up_to // 2:
                await connection.execute(sql.DROP_GRAPH.format(scope=name))
        if not there.get(scope.hex()):
            await connection.execute(sql.CREATE_GRAPH.format(scope=scope.hex(), m=_CONNECTIVITY, ef=_EXPANSION_ADD))


async def _graphs(connection: Connection) -> dict[str, bool]:
    """Return the scopes, in hexadecimal, of all graphs, and whether each is whole."""
    rows = await connection.fetch(sql.GRAPHS)
    return {row["name"].removeprefix("graph_"): row["valid"] for row in rows}
