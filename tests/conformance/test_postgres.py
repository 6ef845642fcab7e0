"""PostgreSQL as it is met: down, restarted, hanging, shared by replicas, with few rights, of another model."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from backends import ManualClock
from indexes import DIMENSIONS, MODEL, SIZE, at, case, place_at
from postgres_server import PostgresServer

from negawatt.commands.recall import with_index
from negawatt.config import parse_config
from negawatt.errors import IndexMismatch, StoreError
from negawatt.gateway import Gateway
from negawatt.indexes import IndexStats
from negawatt.indexes.checks import ANY
from negawatt.indexes.postgres import PostgresIndex
from negawatt.registry import STORES, Url, open_backend
from negawatt.stores import StoreStats
from negawatt.stores.postgres import PostgresStore
from negawatt.stores.postgres_database import place_of

LONG_S = 60.0  # the most that anything here may take, on a loaded machine


@pytest.fixture
def schema() -> str:
    return f"p{uuid.uuid4().hex[:24]}"


@pytest.fixture
async def both(postgres: PostgresServer, schema: str) -> AsyncIterator[tuple[PostgresIndex, PostgresStore]]:
    """An index and a store in one schema."""
    async with opened(postgres, schema) as index, opened(postgres, schema, store=True) as store:
        yield index, store


@asynccontextmanager
async def opened(
    postgres: PostgresServer, schema: str, *, store: bool = False, model: str = MODEL, dimensions: int = DIMENSIONS,
    role: str = "postgres", timeout_ms: int = 20_000, max_bytes: int = 2**30, clock: ManualClock | None = None,
):  # fmt: skip
    """Open an index or a store, and close it."""
    clock = clock or ManualClock()
    place = place_at(postgres, schema, role=role, timeout_ms=timeout_ms)
    backend: Any = (
        PostgresStore(place, clock, max_bytes=max_bytes) if store else
        PostgresIndex(place, clock, model=model, dimensions=dimensions, max_bytes=max_bytes)
    )  # fmt: skip
    try:
        yield backend
    finally:
        await backend.close()


def uses(index: PostgresIndex, store: PostgresStore) -> list[Any]:
    """Return every way to use them, as functions."""
    return [
        lambda: index.nearest("s", at(0)), lambda: index.get("k"), lambda: index.delete("z"), lambda: index.stats(),
        lambda: index.put("k", at(0), b"v", scope="s", ttl_s=10), lambda: index.delete_tagged(("t",), dry_run=True),
        lambda: index.cases.add(case("a", 1.0)), lambda: index.cases.label("a", wrong=True, basis="human"),
        lambda: index.cases.recent("faq", "learned", limit=9), lambda: index.cases.waiting(limit=9),
        lambda: index.cases.classes(), lambda: store.get("k"),
        lambda: store.put("k", b"v", ttl_s=10), lambda: store.delete("z"), lambda: store.delete_tagged(("t",)),
        lambda: store.claim("c", ttl_s=1), lambda: store.release("c", "t"), lambda: store.stats(),
    ]  # fmt: skip


async def works_again(use: Any) -> Any:
    """Return what *use* gives once the moment after a failure is over."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                return await use()
            except StoreError:
                await asyncio.sleep(0.05)


async def test_a_database_that_is_down_makes_store_errors_until_it_is_back(
    postgres: PostgresServer, both: tuple[PostgresIndex, PostgresStore], monkeypatch
):
    """Whatever is asked; after a failure at once, without asking again; after a restart everything is there."""
    monkeypatch.setattr("negawatt.stores.postgres_database._COOLDOWN_S", LONG_S)
    index, store = both
    await index.put("k", at(0), b"kept", scope="s", ttl_s=100)
    await store.put("k", b"kept", ttl_s=100)
    postgres.stop()
    try:
        for use in uses(index, store):
            for backend in both:
                backend._database._down_until = 0.0  # the moment has passed
            with pytest.raises(StoreError, match=r"postgres at .*:5432/postgres failed: ") as first:
                await use()
            with pytest.raises(StoreError, match=r"postgres at .* failed: .* \(a moment ago\)"):
                await use()
            assert "a moment ago" not in str(first.value)
    finally:
        postgres.start()
    for backend in both:
        backend._database._down_until = 0.0
    assert await works_again(lambda: index.get("k")) == b"kept"
    assert await works_again(lambda: store.get("k")) == b"kept"
    assert [one.key for one in await index.nearest("s", at(0))] == ["k"]


async def test_a_restart_between_two_uses_costs_at_most_a_moment(
    postgres: PostgresServer, both: tuple[PostgresIndex, PostgresStore]
):
    """Connections that were cut are made anew."""
    index, store = both
    await asyncio.gather(*(index.put(f"k{i}", at(i), b"v", scope="s", ttl_s=100) for i in range(20)))
    await asyncio.gather(*(store.get(f"k{i}") for i in range(20)))
    postgres.stop()
    postgres.start()
    assert await works_again(lambda: index.get("k7")) == b"v"
    assert await works_again(lambda: store.get("k7")) is None
    assert len(await asyncio.gather(*(index.nearest("s", at(i)) for i in range(20)))) == 20


async def test_a_database_that_hangs_is_given_up_in_time(postgres: PostgresServer, schema: str):
    """Nothing comes over its connections, open or new: StoreError all the same, and no use waits for long."""
    async with (
        opened(postgres, schema, timeout_ms=200) as index,
        opened(postgres, schema, store=True, timeout_ms=200) as store,
    ):
        assert await works_again(lambda: index.put("k", at(0), b"v", scope="s", ttl_s=100)) is None
        assert await works_again(lambda: store.get("k")) is None
        async with asyncio.timeout(LONG_S):
            with postgres.frozen():
                for _ in range(3):  # also by connections that nobody has yet
                    index._database._down_until = 0.0
                    with pytest.raises(StoreError):
                        await index.get("k")
                with pytest.raises(StoreError):
                    await asyncio.gather(*(index.nearest("s", at(0)) for _ in range(30)))
                with pytest.raises(StoreError):
                    await store.get("k")
        assert await works_again(lambda: index.get("k")) == b"v"
        assert await works_again(lambda: store.get("k")) is None


async def test_nothing_is_connected_before_the_first_use(url_of_nowhere: str):
    """An opener only looks at its URL: the database may be down, and its host unknown."""
    store = open_backend(STORES, "negawatt.stores", url_of_nowhere, "cache.store", ManualClock())
    with pytest.raises(StoreError, match="no-such-folder"):
        await store.get("k")
    await store.close()


@pytest.fixture
def url_of_nowhere() -> str:
    return "postgres://user@/database?host=/no-such-folder&timeout_ms=20000"


# -- replicas ------------------------------------------------------------------------------------------------------


async def test_replicas_see_at_once_what_any_of_them_did(postgres: PostgresServer, schema: str):
    """Entries, values, deletions, cases, what a person said, and who has the right to make what."""
    async with opened(postgres, schema) as one, opened(postgres, schema) as other:
        await one.put("k", at(0), b"from one", scope="s", ttl_s=100, mark=b"m", tags=("t",))
        assert [(found.key, found.mark) for found in await other.nearest("s", at(0))] == [("k", b"m")]
        await other.put("k", at(0), b"from other", scope="s", ttl_s=100, tags=("t",))
        assert await one.get("k") == b"from other"
        assert await one.delete_tagged(("t",)) == 1
        assert (await other.get("k"), await other.nearest("s", at(0))) == (None, [])
        await one.cases.add(case("a", 1.0))
        assert await other.cases.label("a", wrong=True, basis="human")
        assert [found.wrong for found in await one.cases.recent("faq", "learned", limit=9)] == [True]
    async with opened(postgres, schema, store=True) as one, opened(postgres, schema, store=True) as other:
        await one.put("k", b"v", ttl_s=100)
        assert await other.get("k") == b"v"
        token = await one.claim("c", ttl_s=100)
        assert token is not None
        assert await other.claim("c", ttl_s=100) is None
        await one.release("c", token)
        assert await other.claim("c", ttl_s=100) is not None


async def test_gateways_in_other_schemas_share_nothing(postgres: PostgresServer, schema: str):
    """Several in one database, also with other models; and a schema may have a word of SQL as its name."""
    async with opened(postgres, schema) as one, opened(postgres, "order", model="m", dimensions=3) as other:
        await one.put("k", at(0), b"v", scope="s", ttl_s=100)
        await one.cases.add(case("a", 1.0))
        assert await other.get("k") is None
        assert (await other.stats(), await other.cases.classes()) == (IndexStats(0, 0, 0), [])


async def test_replicas_that_start_at_once_make_the_tables_once(postgres: PostgresServer, schema: str):
    """Indexes and stores, of one schema and of several, in a database that has nothing yet."""
    database = f"d{schema}"
    postgres.sql(f"CREATE DATABASE {database}")
    backends: list[Any] = []
    for i in range(12):
        text = postgres.url(database=database, schema=f"{schema}_{i % 2}", timeout_ms="20000")
        place = place_of(Url.parse(text, "x"), "x", more=())
        index = PostgresIndex(place, ManualClock(), model=MODEL, dimensions=DIMENSIONS)
        backends += [index, PostgresStore(place, ManualClock())]
    await asyncio.gather(*(backend.stats() for backend in backends))
    await asyncio.gather(*(index.put("k", at(0), b"v", scope="s", ttl_s=9) for index in backends[::2]))
    assert [(await index.stats()).entries for index in backends[::2]] == [1] * 12
    for backend in backends:
        await backend.close()


async def test_replicas_write_at_the_same_time(postgres: PostgresServer, schema: str):
    """No one waits for another in a circle, and the counts hold."""
    async with opened(postgres, schema, store=True, max_bytes=40_000) as one:
        async with opened(postgres, schema, store=True, max_bytes=40_000) as other:
            await asyncio.gather(*(
                store.put(f"k{i % 30}", b"x" * 1_000, ttl_s=100, group=f"g{i % 4}", group_max_bytes=15_000)
                for i in range(120) for store in (one, other)
            ))  # fmt: skip
            await asyncio.gather(*(store.delete(f"k{i}") for i in range(30) for store in (one, other)))
            assert await one.stats() == await other.stats() == StoreStats(0, 0)


async def test_what_a_replica_only_reads_is_not_the_first_to_go(postgres: PostgresServer, schema: str, monkeypatch):
    """It writes down what it read, though it puts nothing; others make room by it."""
    monkeypatch.setattr("negawatt.stores.postgres_database._WRITTEN_EVERY_S", -1.0)
    clock = ManualClock()
    more: dict[str, Any] = {"clock": clock, "max_bytes": 3 * (SIZE + 1)}
    async with opened(postgres, schema, **more) as one, opened(postgres, schema, **more) as other:
        for degrees, key in enumerate("abc"):
            clock.now += 1
            await one.put(key, at(degrees), b"v", scope="s", ttl_s=100)
        clock.now += 1
        assert await other.get("a") == b"v"
        await other.settled()
        clock.now += 1
        await one.put("d", at(9), b"v", scope="s", ttl_s=100)
        assert [found.key for found in await one.nearest("s", at(0))] == ["a", "c", "d"]
    more = {"clock": clock, "max_bytes": 6, "store": True}
    async with opened(postgres, schema, **more) as one, opened(postgres, schema, **more) as other:
        for key in "abc":
            clock.now += 1
            await one.put(key, b"v", ttl_s=100)
        clock.now += 1
        assert await other.get("a") == b"v"
        await other._uses.settled()
        clock.now += 1
        await one.put("d", b"v", ttl_s=100)
        assert [await one.get(key) for key in "abcd"] == [b"v", None, b"v", b"v"]


# -- rights --------------------------------------------------------------------------------------------------------


async def test_a_role_that_may_make_nothing_is_told_what_it_needs(postgres: PostgresServer, schema: str):
    """And works once it has been given it: a schema of its own."""
    postgres.sql(f"CREATE EXTENSION IF NOT EXISTS vector; CREATE ROLE {schema} LOGIN")
    async with opened(postgres, schema, role=schema) as index, opened(postgres, schema, role=schema, store=True) as s:
        for backend in (index, s):
            with pytest.raises(StoreError, match=f"permission denied .*CREATE SCHEMA {schema} AUTHORIZATION role"):
                await backend.stats()
        postgres.sql(f"CREATE SCHEMA {schema} AUTHORIZATION {schema}")
        assert await works_again(lambda: index.put("k", at(0), b"v", scope="s", ttl_s=9)) is None
        assert await works_again(lambda: s.put("k", b"v", ttl_s=9)) is None


async def test_a_role_may_use_what_another_has_made(postgres: PostgresServer, schema: str):
    """With rights on the rows alone."""
    async with opened(postgres, schema) as index, opened(postgres, schema, store=True) as store:
        await index.check()
        await store.stats()
    postgres.sql(
        f"CREATE ROLE {schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {schema};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}"
    )
    async with opened(postgres, schema, role=schema) as index, opened(postgres, schema, role=schema, store=True) as s:
        for use in uses(index, s):
            await use()
        assert [found.key for found in await index.nearest("s", at(0))] == ["k"]


async def test_without_pgvector_it_is_said_who_has_to_do_what(postgres: PostgresServer, schema: str):
    """A store needs none."""
    postgres.sql(f"CREATE ROLE {schema} LOGIN")
    postgres.sql(f"CREATE DATABASE {schema} OWNER {schema}")
    text = postgres.url(role=schema, database=schema, timeout_ms="20000")
    place = place_of(Url.parse(text, "x"), "x", more=())
    index = PostgresIndex(place, ManualClock(), model=MODEL, dimensions=DIMENSIONS)
    store = PostgresStore(place, ManualClock())
    with pytest.raises(StoreError, match=r"no pgvector, and the role may not make it .*CREATE EXTENSION vector"):
        await index.check()
    await store.put("k", b"v", ttl_s=9)
    postgres.sql("CREATE EXTENSION vector", database=schema)
    assert await works_again(index.stats) == IndexStats(0, 0, 0)
    await index.close()
    await store.close()


async def test_a_password_comes_from_the_variable_that_the_url_names(
    postgres: PostgresServer, schema: str, monkeypatch
):
    """And from nowhere else; a wrong one is told without being shown."""
    postgres.sql(f"CREATE ROLE {schema} LOGIN PASSWORD 'right one'; CREATE SCHEMA {schema} AUTHORIZATION {schema}")
    postgres.ask_for_password(schema)
    postgres.stop()
    postgres.start()
    url = postgres.url(role=schema, schema=schema, password_env="PASSWORD_OF_TEST", timeout_ms="20000")
    for password, works in (("right one", True), ("wrong one", False)):
        monkeypatch.setenv("PASSWORD_OF_TEST", password)
        store = open_backend(STORES, "negawatt.stores", url, "cache.store", ManualClock())
        if works:
            assert await store.stats() == StoreStats(0, 0)
        else:
            with pytest.raises(StoreError, match="password authentication failed") as failed:
                await store.stats()
            assert "wrong one" not in str(failed.value)
        await store.close()


# -- another model, and what is wrong in the tables ----------------------------------------------------------------


async def test_tables_of_another_model_are_refused_with_both_names(postgres: PostgresServer, schema: str):
    """Before the first use, as the configuration's error; at a use as StoreError, which makes a miss."""
    async with opened(postgres, schema) as index:
        await index.put("k", at(0), b"v", scope="s", ttl_s=100)
    said = rf"the schema {schema} of .* holds vectors of {MODEL} with 8 dimensions, and the embedder is other with 8"
    async with opened(postgres, schema, model="other") as other:
        with pytest.raises(IndexMismatch, match=said):
            await other.check()
    async with opened(postgres, schema, model="other") as other:
        with pytest.raises(StoreError, match=said):
            await other.nearest("s", at(0))
    async with opened(postgres, schema, dimensions=9) as other:
        with pytest.raises(IndexMismatch, match=f"{MODEL} with 8 dimensions, and the embedder is {MODEL} with 9"):
            await other.check()


async def test_of_two_models_that_start_at_once_one_is_refused(postgres: PostgresServer, schema: str):
    """Whichever was second."""
    async with opened(postgres, schema, model="one") as one, opened(postgres, schema, model="two") as two:
        ended = await asyncio.gather(one.check(), two.check(), return_exceptions=True)
    assert sorted(type(end).__name__ for end in ended) == ["IndexMismatch", "NoneType"]


async def test_somebody_who_only_looks_makes_nothing(postgres: PostgresServer, schema: str):
    """Where there is an index they need no model; where there is none they are told, and none is there after it."""
    async with opened(postgres, schema, model=ANY, dimensions=1) as index:
        for _ in range(2):
            with pytest.raises(StoreError, match=f"no index in the schema {schema}"):
                await index.stats()
    async with opened(postgres, schema) as index:
        await index.put("k", at(0), b"v", scope="s", ttl_s=100, tags=("t",))
    async with opened(postgres, schema, model=ANY, dimensions=1) as index:
        assert (await index.stats()).entries == 1
        assert await index.delete_tagged(("t",)) == 1


async def test_poisoned_rows_are_refused_or_do_no_harm(postgres: PostgresServer, schema: str, caplog):
    """A vector that is none is refused by the table; a name, a value and a case may be any bytes."""
    async with opened(postgres, schema) as index:
        await index.put("k", at(0), b"v", scope="s", ttl_s=100)
        await index.cases.add(case("good", 1.0))
        await index.cases.add(case("bad", 2.0, review=True))
        for vector in ("[0,0,0,0,0,0,0,0]", "[2,0,0,0,0,0,0,0]", "[1,0]", "[NaN,0,0,0,0,0,0,0]"):
            with pytest.raises(RuntimeError, match=r"index_entry|dimensions|NaN"):
                postgres.sql(f"UPDATE {schema}.index_entry SET vector = '{vector}'")
        postgres.sql(f"UPDATE {schema}.index_entry SET name = '\\xff00fe', value = '\\xdeadbeef'")
        postgres.sql(f"UPDATE {schema}.index_case SET body = '\\xdeadbeef' WHERE at = 2")
        (found,) = await index.nearest("s", at(0))
        assert await index.get(found.key) is None
        assert await index.get("k") == b"\xde\xad\xbe\xef"
        with caplog.at_level(logging.WARNING):
            assert [one.id for one in await index.cases.recent("faq", "learned", limit=9)] == ["good"]
        assert "cannot be read and is dropped" in caplog.text
        assert await index.cases.waiting(limit=9) == []


async def test_rows_that_an_administrator_deletes_are_no_longer_counted(
    postgres: PostgresServer, both: tuple[PostgresIndex, PostgresStore], schema: str
):
    """Nor found: the bounds are about what is there."""
    index, store = both
    for i in range(5):
        await index.put(f"k{i}", at(i), b"v", scope="s", ttl_s=100, tags=("t",))
        await store.put(f"k{i}", b"v", ttl_s=100, tags=("t",))
    postgres.sql(f"DELETE FROM {schema}.index_entry WHERE id % 2 = 0; DELETE FROM {schema}.store_entry")
    assert await index.stats() == IndexStats(3, 3 * (SIZE + 2), 1)
    assert await store.stats() == StoreStats(0, 0)
    assert len(await index.nearest("s", at(0))) == await index.delete_tagged(("t",)) == 3


async def test_tables_that_an_administrator_drops_are_made_again(
    postgres: PostgresServer, both: tuple[PostgresIndex, PostgresStore], schema: str
):
    """By whoever is first to miss them: dropping the schema is how to begin anew, whatever runs."""
    index, store = both
    await index.put("k", at(0), b"v", scope="s", ttl_s=100)
    await store.put("k", b"v", ttl_s=100)
    postgres.sql(f"DROP SCHEMA {schema} CASCADE")
    for use in (index.stats, store.stats):
        with pytest.raises(StoreError, match="does not exist"):
            await use()
    assert await works_again(index.stats) == IndexStats(0, 0, 0)
    assert await works_again(store.stats) == StoreStats(0, 0)
    assert await index.put("k", at(0), b"v", scope="s", ttl_s=100) is None


async def test_much_is_deleted_part_by_part(
    postgres: PostgresServer, both: tuple[PostgresIndex, PostgresStore], monkeypatch
):
    """So that no statement takes too long; all of it, and counted."""
    monkeypatch.setattr("negawatt.stores.postgres_database.AT_ONCE", 3)
    index, store = both
    for i in range(9):
        await index.put(f"k{i}", at(i), b"v", scope="s", ttl_s=100, tags=("t", "u") if i < 7 else ("t",))
        await store.put(f"k{i}", b"v", ttl_s=100, tags=("t", "u") if i < 7 else ("t",))
    for backend in both:
        assert await backend.delete_tagged(("u", "t"), dry_run=True) == 7
        assert [await backend.delete_tagged(tags) for tags in (("u", "t"), ("t",), ("t",))] == [7, 2, 0]


async def test_a_bound_that_was_lowered_is_come_to_by_and_by(postgres: PostgresServer, schema: str, monkeypatch):
    """A put makes so much room and no more: it must end in time."""
    for module in ("indexes", "stores"):
        monkeypatch.setattr(f"negawatt.{module}.postgres.MOST_ROUNDS", 1)
    for store in (False, True):
        async with opened(postgres, schema, store=store) as before:
            for i in range(250):
                more = {} if store else {"vector": at(0), "scope": "s"}
                await before.put(f"k{i:03}", value=b"v", ttl_s=100, **more)
        bound = 10 * len("k000v") if store else 10 * (SIZE + 4)
        async with opened(postgres, schema, store=store, max_bytes=bound) as after:
            counts = []
            for i in range(4):
                await after.put(f"n{i:03}", value=b"v", ttl_s=100, **more)
                counts.append((await after.stats()).entries)
            assert counts == [151, 52, 10, 10]
            assert await after.get("n003") == b"v"


# -- in the gateway ------------------------------------------------------------------------------------------------


def configured(postgres: PostgresServer, schema: str) -> Any:
    url = postgres.url(schema=schema, timeout_ms="20000")
    return parse_config({
        "providers": [{"name": "modelled", "url": "modelled:?a=0.001&b=0.0"}], "cache": {"store": url},
        "recall": {"embedder": "hashing:", "index": url}, "levers": {"semantic_cache": {"mode": "on"}},
        "ledger": {"url": "memory:"}, "holdout": {"share": 0.0},
    }, "test")  # fmt: skip


async def test_a_gateway_of_another_model_does_not_start(postgres: PostgresServer, schema: str):
    """The error names the field and both models."""
    async with opened(postgres, schema) as index:
        await index.check()
    with pytest.raises(IndexMismatch, match=f"{MODEL} with 8 dimensions, and the embedder is hashing-384") as refused:
        async with Gateway.open(configured(postgres, schema), environ={}):
            pass
    assert refused.value.param == "recall.index"


async def test_a_gateway_starts_without_its_database_and_is_ready_when_it_is_there(
    postgres: PostgresServer, schema: str
):
    """Meanwhile calls are answered, and it says what it lacks; then it keeps its answers there."""
    postgres.stop()
    question = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Where is my order?"}],
        "temperature": 0,
    }
    try:
        async with Gateway.open(configured(postgres, schema), environ={}) as gateway:
            assert (await gateway.chat(question))["choices"]
            checks = await gateway.checks()
            assert "postgres at" in (checks["index"] or "") and "postgres at" in (checks["store"] or "")
            postgres.start()
            async with asyncio.timeout(LONG_S):
                while any((await gateway.checks()).values()):
                    await asyncio.sleep(0.05)
            await gateway.chat(question)
            await gateway.background.drain()
            assert (await gateway.store.stats()).entries == 1
            assert gateway.recall is not None
            assert (await gateway.recall.index.stats()).entries == 1
    finally:
        postgres.stop()
        postgres.start()


async def test_a_gateway_that_finds_another_model_later_is_not_ready(postgres: PostgresServer, schema: str):
    """It was there before the database: its calls are misses, and it says both names."""
    async with opened(postgres, schema) as index:
        await index.check()
    postgres.stop()
    try:
        async with Gateway.open(configured(postgres, schema), environ={}) as gateway:
            postgres.start()
            async with asyncio.timeout(LONG_S):
                while "hashing-384" not in ((await gateway.checks())["index"] or ""):
                    await asyncio.sleep(0.05)
            assert f"{MODEL} with 8" in ((await gateway.checks())["index"] or "")
            answer = await gateway.chat({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi there"}]})
            assert answer["choices"]
    finally:
        postgres.stop()
        postgres.start()


def test_the_command_line_looks_into_it(postgres: PostgresServer, schema: str):
    """Opened by somebody who knows no model."""

    async def fill() -> None:
        async with opened(postgres, schema) as index:
            await index.cases.add(case("a", 1.0, review=True))

    asyncio.run(fill())
    config = configured(postgres, schema)
    assert [one.id for one in with_index(config, lambda index: index.cases.waiting(limit=9))] == ["a"]
    assert with_index(config, lambda index: index.cases.label("a", wrong=False, basis="human"))
    assert with_index(config, lambda index: index.cases.waiting(limit=9)) == []
