"""Only Redis: a server that is gone, hangs, evicts, forgets, is full, or holds what is not ours."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from backends import ManualClock

from negawatt.errors import StoreError
from negawatt.registry import STORES, open_backend
from negawatt.stores import StoreStats
from negawatt.stores.redis import RedisStore

if TYPE_CHECKING:
    from redis_server import RedisServer

pytest_plugins = ["redis_server"]
Start = Callable[..., "RedisServer"]
BACK_S = 20.0  # for a store to be used again; it takes a second
_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"failing-{next(_numbers)}:"


@asynccontextmanager
async def opened(url: str, clock: ManualClock, **options: Any) -> AsyncIterator[RedisStore]:
    query = "&".join(f"{name}={value}" for name, value in {"timeout_ms": 10_000, **options}.items())
    store: RedisStore = open_backend(STORES, "negawatt.stores", f"{url}?{query}", "cache.store", clock)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(redis_server: RedisServer, clock: ManualClock, prefix: str) -> AsyncIterator[RedisStore]:
    async with opened(redis_server.url, clock, prefix=prefix) as one:
        yield one


@pytest.fixture
async def raw(redis_server: RedisServer) -> AsyncIterator[Any]:
    """The server as it is."""
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        yield client


def everything(store: RedisStore) -> list[Awaitable[Any]]:
    return [
        store.get("k"), store.put("k", b"1", ttl_s=10, tags=("t",)), store.delete("k"), store.delete_tagged(("t",)),
        store.delete_tagged(("t",), dry_run=True), store.claim("k", ttl_s=10), store.release("k", "token"),
        store.stats(),
    ]  # fmt: skip


async def error_of(work: Awaitable[Any]) -> str:
    with pytest.raises(StoreError) as caught:
        await work
    return caught.value.message


async def back(store: RedisStore) -> None:
    """Wait until *store* is used again."""
    end = asyncio.get_running_loop().time() + BACK_S
    while True:
        try:
            await store.stats()
            return
        except StoreError:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.05)


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += str(link.readlink()).startswith("socket:")
        except FileNotFoundError:  # the one by which this folder is read
            continue
    return count


# -- gone, and back ------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_fails_by_name_and_is_used_once_it_is(start_redis: Start, clock: ManualClock):
    """Down at the start: every method raises StoreError and nothing else, until there is a server."""
    server = start_redis()
    server.kill()
    async with opened(server.url, clock) as store:
        said = [await error_of(work) for work in everything(store)]
        assert said[0].startswith(f"redis at 127.0.0.1:{server.port} failed: ")
        server.start()
        await back(store)
        await store.put("k", b"1", ttl_s=10)
        assert await store.get("k") == b"1"


async def test_a_server_that_dies_later_comes_back_empty(start_redis: Start, clock: ManualClock):
    """Misses, no errors, after the restart; scripts are loaded again, and sums begin at nothing."""
    server = start_redis()
    async with opened(server.url, clock) as store:
        for i in range(10):
            await store.put(f"k{i}", b"x" * 100, ttl_s=1000, tags=("t",))
        server.kill()
        assert "redis at 127.0.0.1" in await error_of(store.get("k1"))
        server.start()
        await back(store)
        assert [await store.get(f"k{i}") for i in range(10)] == [None] * 10
        assert await store.delete_tagged(("t",)) == 0
        await store.put("k1", b"1", ttl_s=10, tags=("t",))
        assert await store.stats() == StoreStats(1, 3)


async def test_a_server_restarted_between_two_calls_is_not_noticed(start_redis: Start, clock: ManualClock):
    """A connection that went bad while nobody used it is replaced at once, without an error."""
    server = start_redis()
    async with opened(server.url, clock) as store:
        await store.put("k", b"1", ttl_s=10)
        server.kill()
        server.start()
        assert await store.get("k") is None


@asynccontextmanager
async def hanging() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server that accepts and never answers: its URL, and the connections that it was asked for."""
    asked: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        await reader.read()  # to the end
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", asked
    finally:
        server.close()
        for writer in asked:
            writer.close()


async def test_a_server_that_never_answers_is_given_up(clock: ManualClock):
    """After the timeout; for a second it is not even asked, then it is asked again."""
    async with hanging() as (url, asked):
        async with opened(url, clock, timeout_ms=50) as store:
            assert "failed: " in await error_of(store.get("k"))
            connections = len(asked)
            for work in everything(store):
                assert "failed a moment ago: " in await error_of(work)
            assert len(asked) == connections
            end = asyncio.get_running_loop().time() + BACK_S
            while len(asked) == connections:
                assert asyncio.get_running_loop().time() < end
                await error_of(store.get("k"))
                await asyncio.sleep(0.05)


async def test_waiting_for_a_server_that_failed_costs_no_connection(start_redis: Start, clock: ManualClock):
    """Three times over more callers than connections, at a server that freezes; afterwards not one is missing."""
    server = start_redis()
    async with opened(server.url, clock, timeout_ms=200) as store:
        for _ in range(3):
            server.freeze()
            calls = [asyncio.ensure_future(store.get("k")) for _ in range(64)]
            await asyncio.sleep(0.1)
            calls += [asyncio.ensure_future(store.get("k")) for _ in range(200)]
            await asyncio.gather(*calls, return_exceptions=True)
            server.thaw()
            await back(store)
        end = asyncio.get_running_loop().time() + BACK_S
        while store._free._value < 64:  # the client's own timeouts are a moment later than ours
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.05)


# -- nothing leaks -------------------------------------------------------------------------------------------------


async def test_more_calls_than_connections_wait_for_their_turn(
    redis_server: RedisServer, raw: Any, clock: ManualClock, prefix: str
):
    """A thousand at once are all answered, each with its own value, over 64 connections at most."""
    async with opened(redis_server.url, clock, prefix=prefix, timeout_ms=30_000) as store:
        before = (await raw.info("clients"))["connected_clients"]
        await asyncio.gather(*(store.put(f"k{i}", b"v%d" % i, ttl_s=100) for i in range(1000)))
        assert await asyncio.gather(*(store.get(f"k{i}") for i in range(1000))) == [b"v%d" % i for i in range(1000)]
        assert 1 < (await raw.info("clients"))["connected_clients"] - before <= 64


async def test_a_thousand_failing_calls_leave_no_connection_behind(clock: ManualClock):
    """At a server that hangs: each fails, as a StoreError; afterwards as many sockets are open as before, and no task
    has died unheard."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with hanging() as (url, asked):
        before = sockets()
        async with opened(url, clock, timeout_ms=100) as store:
            done = await asyncio.gather(*(store.get("k") for _ in range(1000)), return_exceptions=True)
            assert {type(one) for one in done} == {StoreError}
            del done  # their tracebacks keep what has died
        gc.collect()
        assert complaints == [], "errors that nobody took note of"
        assert 0 < len(asked) <= 2 * 64
        end = asyncio.get_running_loop().time() + BACK_S
        while sockets() > before:  # the server's own ends are closed when it has read the end
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.05)


async def test_callers_who_leave_in_the_middle_disturb_nobody(store: RedisStore, raw: Any):
    """A thousand calls given up at every stage: the next get their own answers, and connections are left for them."""
    await asyncio.gather(*(store.put(f"k{i}", b"v%d" % i, ttl_s=100) for i in range(50)))
    before = (await raw.info("stats"))["total_connections_received"]
    for stage in range(10):
        calls = [asyncio.ensure_future(store.get(f"k{i % 50}")) for i in range(100)]
        for _ in range(stage):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await asyncio.gather(*(store.get(f"k{i}") for i in range(50))) == [b"v%d" % i for i in range(50)]
    assert (await raw.info("stats"))["total_connections_received"] <= before + 64


# -- what is not ours, and what is lost ----------------------------------------------------------------------------


async def test_a_foreign_key_under_the_prefix_is_our_error_and_no_more(store: RedisStore, raw: Any, prefix: str):
    """What needs it fails, a thousand times over without a pause; what does not need it goes on."""
    await raw.set(f"{prefix}t:mine", "foreign")
    for _ in range(1000):
        assert "refused: " in await error_of(store.put("k", b"1", ttl_s=10, tags=("mine",)))
    await store.put("other", b"1", ttl_s=10, tags=("yours",))
    assert await store.get("other") == b"1"
    await raw.delete(f"{prefix}m")
    await raw.set(f"{prefix}m", "foreign")
    for work in (store.get("k"), store.put("k", b"1", ttl_s=10), store.delete("k"), store.stats()):
        assert "WRONGTYPE" in await error_of(work)


async def test_a_foreign_value_is_replaced(store: RedisStore, raw: Any, prefix: str):
    """A list where a value should be is an error to read, and is gone once something is put there."""
    await store.put("k", b"1", ttl_s=10)
    await raw.delete(f"{prefix}v:k")
    await raw.rpush(f"{prefix}v:k", "a", "b")
    assert "WRONGTYPE" in await error_of(store.get("k"))
    await store.put("k", b"2", ttl_s=10)
    assert await store.get("k") == b"2"


@pytest.mark.parametrize("lost", ["v:a", "m", "x", "u:g", "t:t", "b"])
async def test_whatever_is_lost_the_sums_come_right(
    store: RedisStore, raw: Any, clock: ManualClock, prefix: str, lost: str
):
    """Any one of the keys evicted: nothing false is served, a tag deletes all that can be read, and bounds hold."""
    for key in "abcdef":
        await store.put(key, key.encode() * 99, ttl_s=100, tags=("t", f"t-{key}"), group="g")
    assert await raw.delete(f"{prefix}{lost}") == 1
    found = [key for key in "abc" if await store.get(key) == key.encode() * 99]
    assert found == {"v:a": ["b", "c"], "m": [], "t:t": []}.get(lost, ["a", "b", "c"])
    await store.put("a", b"new", ttl_s=200, tags=("t",), group="g", group_max_bytes=500)
    assert await store.get("a") == b"new"
    readable = [key for key in "abcdef" if await store.get(key) is not None]
    assert await store.delete_tagged(("t",)) == len(readable)
    assert [key for key in "abcdef" if await store.get(key) is not None] == []
    clock.now = 150  # the rest has expired, whether or not it could be reached
    await store.put("z", b"1", ttl_s=100, group="g")
    assert await store.get("z") == b"1"
    if lost != "x":  # without it nobody sweeps, until room is needed
        assert await store.stats() == StoreStats(1, 2)
    for i in range(50):
        await store.put(f"n{i}", b"x" * 98, ttl_s=100, group="g", group_max_bytes=1_000)
    assert (await store.stats()).bytes <= 1_000


async def test_what_cannot_be_put_in_order_still_counts(store: RedisStore, raw: Any, prefix: str, clock: ManualClock):
    """A group whose order of use is lost is bounded all the same: it takes nothing new until the old has expired."""
    for key in "abc":
        await store.put(key, b"x" * 199, ttl_s=100, group="g")
    await raw.delete(f"{prefix}u:g")
    await store.put("new", b"x" * 197, ttl_s=100, group="g", group_max_bytes=700)
    assert await store.get("new") is None
    clock.now = 101
    await store.put("new", b"x" * 197, ttl_s=100, group="g", group_max_bytes=700)
    assert await store.get("new") is not None


async def test_a_leftover_order_of_use_takes_nothing_from_another_group(store: RedisStore, raw: Any, prefix: str):
    """The books are lost and a key comes back in another group: the old group's bound does not touch it."""
    await store.put("a", b"x" * 100, ttl_s=100, group="g")
    await raw.delete(f"{prefix}m", f"{prefix}b", f"{prefix}x")
    await store.put("a", b"x" * 100, ttl_s=100, group="h")
    for key in "bcd":
        await store.put(key, b"x" * 100, ttl_s=100, group="g", group_max_bytes=250)
    assert [key for key in "abcd" if await store.get(key) is not None] == ["a", "c", "d"]
    assert (await store.stats()).bytes == 303


async def test_an_entry_of_no_bytes_at_all_is_an_entry(store: RedisStore):
    """An empty value under an empty key, alone in its group."""
    await store.put("", b"", ttl_s=100)
    await store.put("a", b"1", ttl_s=100)
    await store.delete("a")
    await store.put("b", b"1", ttl_s=100, group="other")
    assert await store.get("") == b""
    assert await store.stats() == StoreStats(2, 2)


async def test_a_lost_right_is_free(store: RedisStore, raw: Any, prefix: str):
    """It can be taken by the next, and giving it back harms nobody."""
    token = await store.claim("k", ttl_s=10)
    assert token
    await raw.delete(f"{prefix}c:k")
    assert await store.claim("k", ttl_s=10)
    await store.release("k", token)
    assert await store.claim("k", ttl_s=10) is None


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru"])
async def test_a_server_that_evicts_makes_misses_and_nothing_worse(start_redis: Start, clock: ManualClock, policy: str):
    """Four times what fits is put: what is read is right, what a tag deletes is gone, and the store goes on."""
    server = start_redis("--maxmemory", "4mb", "--maxmemory-policy", policy)
    async with opened(server.url, clock) as store:
        for i in range(4_000):
            await store.put(f"k{i}", b"%d:" % i + b"x" * 4_000, ttl_s=1000, tags=(f"t{i % 2}",), group=f"g{i % 3}")
        values = [await store.get(f"k{i}") for i in range(4_000)]
        assert all(value is None or value.startswith(b"%d:" % i) for i, value in enumerate(values))
        # What keeps the books of a tag may be what is evicted, and all that has the tag goes with it.
        assert sum(value is not None for value in values) < 3_000
        await store.delete_tagged(("t0",))
        assert [i for i in range(0, 4_000, 2) if await store.get(f"k{i}") is not None] == []
        await store.delete_tagged(("t1",))
        clock.now = 2_000
        for _ in range(5):
            await store.stats()
        await store.put("k", b"1", ttl_s=10)
        assert await store.get("k") == b"1"


async def test_a_full_server_still_answers_what_it_has(start_redis: Start, clock: ManualClock):
    """One that must not evict refuses to keep more: an error for the put, and reading goes on."""
    server = start_redis("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    async with opened(server.url, clock) as store:
        kept = 0
        with pytest.raises(StoreError, match="maxmemory"):
            for i in range(4_000):
                await store.put(f"k{i}", b"x" * 4_000, ttl_s=1000, tags=("t",))
                kept += 1
        assert 0 < kept < 1_100
        assert await store.get("k0") == b"x" * 4_000
        assert await store.stats() == StoreStats(kept, sum(len(f"k{i}") + 4_000 for i in range(kept)))
        assert await store.delete_tagged(("t",)) == kept
        await store.put("k", b"1", ttl_s=10)
        assert await store.get("k") == b"1"


@pytest.mark.parametrize("command", ["FLUSHALL", "SCRIPT FLUSH"])
async def test_a_server_that_forgets_is_empty_and_goes_on(start_redis: Start, clock: ManualClock, command: str):
    """Everything, or only our scripts, which are loaded again."""
    server = start_redis()
    async with opened(server.url, clock) as store, redis.asyncio.Redis.from_url(server.url) as raw:
        await store.put("k", b"1", ttl_s=10)
        await raw.execute_command(*command.split())
        assert await store.get("k") == (None if command == "FLUSHALL" else b"1")
        await store.put("k", b"2", ttl_s=10)
        assert await store.get("k") == b"2"
        assert await store.stats() == StoreStats(1, 2)
