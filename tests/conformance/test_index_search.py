"""Large scopes, which are searched by a graph: nearly what exact search finds, and nothing that is gone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from backends import ManualClock
from indexes import Open, opening, some
from postgres_server import PostgresServer

from negawatt.indexes import Index
from negawatt.indexes import postgres_sql as sql
from negawatt.indexes.nearest import Vectors
from negawatt.indexes.postgres import PostgresIndex
from negawatt.stores.postgres_database import digest

DIMENSIONS, ENTRIES, K = 32, 700, 8
ROWS = some(ENTRIES, seed=7, dimensions=DIMENSIONS)
QUERIES = some(60, seed=8, dimensions=DIMENSIONS)


async def filled(open_index: Open, **more: int) -> Index:
    """Return an index with all rows in the scope "s", every third for a short time, and others beside it."""
    index = open_index("large", dimensions=DIMENSIONS, exact_up_to=100, **more)
    for place, row in enumerate(ROWS):
        await index.put(str(place), row, b"v", scope="s", ttl_s=10 if place % 3 == 0 else 1000, tags=(f"t{place % 5}",))
        if place % 10 == 0:
            await index.put(f"other {place}", row, b"v", scope=f"other {place % 20}", ttl_s=1000)
    await index.settled()  # type: ignore[attr-defined]
    return index


def by_graph(index: Index, scope: str = "s") -> bool:
    """True when searches in *scope* go through a graph."""
    if isinstance(index, PostgresIndex):
        return index._graphs.has(digest(scope))
    vectors = index._scopes[scope]  # type: ignore[attr-defined]
    return (vectors if isinstance(vectors, Vectors) else vectors.result())._graph is not None


async def recall(index: Index, alive: np.ndarray) -> float:
    """Return the share of the true nearest that are found; nothing else but entries of *alive* may be."""
    right = 0
    for query in QUERIES:
        cosines = np.where(alive, ROWS @ query, -2)
        neighbours = await index.nearest("s", query, k=K)
        places = [int(one.key) for one in neighbours]
        assert len(places) == min(K, alive.sum()), "as many as were wanted, as long as there are so many"
        assert alive[places].all(), "what is gone is not found"
        assert [one.similarity for one in neighbours] == pytest.approx(cosines[places].tolist(), abs=1e-5)
        assert [one.similarity for one in neighbours] == sorted((one.similarity for one in neighbours), reverse=True)
        right += len(set(places) & set(np.argsort(-cosines)[:K].tolist()))
    return right / (len(QUERIES) * min(K, int(alive.sum())))


async def test_nearly_all_that_exact_search_finds_is_found(open_index: Open):
    """At least 0.99 of it, with exact similarities; small scopes have no graph."""
    index = await filled(open_index)
    assert by_graph(index)
    assert not by_graph(index, "other 0")
    assert await recall(index, np.full(ENTRIES, True)) >= 0.99


async def test_what_has_expired_is_not_found_by_a_graph(open_index: Open, clock: ManualClock):
    """And does not push out what has not."""
    index = await filled(open_index)
    clock.now = 10
    assert await recall(index, np.arange(ENTRIES) % 3 != 0) >= 0.99


async def test_what_was_deleted_is_not_found_by_a_graph(open_index: Open):
    """One by one, by tag, pushed out, or put elsewhere; and what was put since then is found."""
    index = await filled(open_index)
    alive = np.arange(ENTRIES) % 5 != 2
    assert await index.delete_tagged(("t2",)) == (~alive).sum()
    for place in range(0, ENTRIES, 7):
        if alive[place]:
            assert await index.delete(str(place))
            alive[place] = False
    for place in range(0, ENTRIES, 14):
        await index.put(str(place), ROWS[place], b"v", scope="s", ttl_s=1000)
        alive[place] = True
    for place in range(1, ENTRIES, 11):
        await index.put(str(place), ROWS[place], b"v", scope="elsewhere", ttl_s=1000)
        alive[place] = False
    assert by_graph(index)
    assert await recall(index, alive) >= 0.99


async def test_as_many_are_found_though_nearly_all_that_are_near_have_gone(open_index: Open, clock: ManualClock):
    """The graph offers only so many candidates; where these are not enough, everything is compared."""
    index = await filled(open_index)
    for query in QUERIES[:3]:
        for place in np.argsort(-(ROWS @ query))[:300]:
            await index.delete(str(place))
    alive = np.array([await index.get(str(place)) is not None for place in range(ENTRIES)])
    clock.now = 10
    assert await recall(index, alive & (np.arange(ENTRIES) % 3 != 0)) >= 0.99


async def test_a_large_scope_is_searched_by_a_graph_after_a_restart(open_index: Open):
    """Made from the rows again, or found in the database."""
    index = await filled(open_index)
    if type(index).__name__ == "MemoryIndex":
        pytest.skip("nothing of an index in memory outlives its process")
    again = open_index("large", dimensions=DIMENSIONS, exact_up_to=100)
    assert await recall(again, np.full(ENTRIES, True)) >= 0.99
    await again.settled()  # type: ignore[attr-defined]
    assert by_graph(again)
    assert await recall(again, np.full(ENTRIES, True)) >= 0.99


async def test_without_usearch_a_large_scope_is_searched_exactly(
    tmp_path: Path, clock: ManualClock, monkeypatch, caplog
):
    """Also after a restart; one warning says what is missing."""
    monkeypatch.setattr("negawatt.indexes.nearest.find_spec", lambda name: None)
    for kind in ("memory", "sqlite"):
        async with opening(kind, clock, tmp_path, lambda: None) as opener:
            with caplog.at_level(logging.WARNING):
                assert await recall(await filled(opener), np.full(ENTRIES, True)) == 1
                if kind == "sqlite":
                    again = opener("large", dimensions=DIMENSIONS, exact_up_to=100)
                    assert await recall(again, np.full(ENTRIES, True)) == 1
    assert caplog.text.count("negawatt[semantic]") == 3


# -- PostgreSQL's graphs -------------------------------------------------------------------------------------------


async def test_the_planner_uses_the_graph_of_the_scope(postgres: PostgresServer, clock: ManualClock, tmp_path: Path):
    """A query in a large scope goes through its own graph, and not through anybody else's."""
    async with opening("postgres", clock, tmp_path, lambda: postgres) as opener:
        index = await filled(opener)
        assert isinstance(index, PostgresIndex)
        scope = digest("s").hex()
        await index._database.run(lambda c: c.execute("ANALYZE index_entry"))
        query = "EXPLAIN " + sql.GRAPH.format(scope=scope)
        plan = await index._database.run(lambda c: c.fetch(query, ROWS[0].tolist(), 0.0, 16))
        assert any(f"Index Scan using graph_{scope}" in row[0] for row in plan)


async def test_a_graph_that_broke_off_or_is_no_longer_needed_is_taken_away(
    postgres: PostgresServer, clock: ManualClock, tmp_path: Path
):
    """When the next is built; searches go on meanwhile."""
    async with opening("postgres", clock, tmp_path, lambda: postgres) as opener:
        index = await filled(opener)
        assert isinstance(index, PostgresIndex)
        schema = index._database.place.schema
        broken = f"graph_{digest('broken').hex()}"
        postgres.sql(f"CREATE INDEX {broken} ON {schema}.index_entry (id) WHERE scope = 'broken'")
        postgres.sql(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{schema}.{broken}'::regclass")
        for tag in ("t0", "t1", "t2", "t3", "t4"):
            await index.delete_tagged((tag,))
        for place, row in enumerate(ROWS[:128]):
            await index.put(f"new {place}", row, b"v", scope="new", ttl_s=1000)
        await index.settled()
        rows = await index._database.run(lambda c: c.fetch(sql.GRAPHS))
        assert [(row["name"], row["valid"]) for row in rows] == [(f"graph_{digest('new').hex()}", True)]


async def test_two_replicas_build_one_graph(postgres: PostgresServer, clock: ManualClock, tmp_path: Path):
    """Whoever is second leaves it to the first, and learns of it."""
    async with opening("postgres", clock, tmp_path, lambda: postgres) as opener:
        one = await filled(opener, max_entries=100_000)
        other = opener("large", dimensions=DIMENSIONS, exact_up_to=100)
        assert isinstance(one, PostgresIndex) and isinstance(other, PostgresIndex)
        for place, row in enumerate(ROWS[:200]):
            for index in (one, other):
                await index.put(f"{id(index)} {place}", row, b"v", scope="both", ttl_s=1000)
        await one.settled()
        await other.settled()
        rows = await one._database.run(lambda c: c.fetch(sql.GRAPHS))
        assert sorted(row["name"] for row in rows) == sorted(f"graph_{digest(scope).hex()}" for scope in ("s", "both"))
        for index in (one, other):
            index._graphs._looked_at = float("-inf")  # a minute has passed
            await index.nearest("both", ROWS[5])
            await index.settled()
            assert by_graph(index, "both")
        assert [one.similarity for one in await other.nearest("both", ROWS[5], k=2)] == pytest.approx([1, 1], abs=1e-5)
