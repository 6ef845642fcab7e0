"""Only Redis: what its URL may say, and what the store does beside what every store does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
import trustme
from backends import ManualClock

from negawatt.errors import ConfigError, StoreError
from negawatt.registry import STORES, open_backend
from negawatt.stores import StoreStats, redis_scripts
from negawatt.stores.redis import RedisStore

if TYPE_CHECKING:
    from redis_server import RedisServer

pytest_plugins = ["redis_server"]
Open = Callable[..., RedisStore]
_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"only-{next(_numbers)}:"


@pytest.fixture
async def opened(clock: ManualClock, prefix: str) -> AsyncIterator[Open]:
    """Opens stores by URL, with a prefix that no other test has, and closes them all."""
    stores: list[RedisStore] = []

    def opener(url: str, **options: Any) -> RedisStore:
        query = "&".join(f"{k}={v}" for k, v in {"prefix": prefix, "timeout_ms": 10_000, **options}.items())
        stores.append(open_backend(STORES, "negawatt.stores", f"{url}?{query}", "cache.store", clock))
        return stores[-1]

    yield opener
    for store in stores:
        await store.close()


@pytest.fixture
def store(redis_server: RedisServer, opened: Open) -> RedisStore:
    return opened(redis_server.url)


@pytest.fixture
async def raw(redis_server: RedisServer) -> AsyncIterator[Any]:
    """The server as it is."""
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        yield client


# -- the URL -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@h", "a password in the URL"),
        ("redis://user:@h", "a password in the URL"),
        ("redis://h?prefx=a", "there is no option 'prefx'; known: prefix, max_bytes"),
        ("redis://h?socket_timeout=", "there is no option 'socket_timeout'"),
        ("redis://h/cache", "'/cache' is not the number of a database"),
        ("redis://h:port", "Port could not be cast"),
        ("redis://h:70000", "Port out of range"),
        ("redis://h?timeout_ms=0", "timeout_ms='0' is not a number above 0"),
        ("redis://h?timeout_ms=", "timeout_ms='' is not a number above 0"),
        ("redis://h?timeout_ms=fast", "timeout_ms='fast' is not"),
        ("redis://h?max_bytes=many", "max_bytes='many' is not a number of bytes"),
        ("redis://h?password_env=NO_SUCH_VARIABLE", "the variable NO_SUCH_VARIABLE is not set"),
        ("redis://h?ca_file=ca.pem", "ca_file is for rediss://"),
        ("rediss://h?ca_file=/no/such/file", "there is no file /no/such/file"),
    ],
)
def test_a_bad_url_names_its_field_and_what_is_wrong(url: str, said: str, clock: ManualClock):
    """Before anything is connected; a password is named by its variable, never written down."""
    with pytest.raises(ConfigError) as caught:
        open_backend(STORES, "negawatt.stores", url, "cache.store", clock)
    assert caught.value.message.startswith(f"cache.store: {said}")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["redis:", "redis://", "redis://h", "rediss://h:6380/3", "redis://user@[::1]/0"])
async def test_a_good_url_opens_without_a_server(url: str, opened: Open):
    """Nothing is asked of the server before it is needed."""
    assert isinstance(opened(url), RedisStore)


async def test_the_number_of_the_database_counts(redis_server: RedisServer, opened: Open):
    """Two databases of one server share nothing."""
    one, other = opened(redis_server.url), opened(redis_server.url[:-1] + "1")
    await one.put("k", b"1", ttl_s=10)
    assert (await one.get("k"), await other.get("k")) == (b"1", None)


async def test_a_password_comes_from_the_environment(start_redis, opened: Open, monkeypatch):
    """The right one opens; a wrong one, or none, is a failing store that says so and names no password."""
    server = start_redis("--requirepass", "right-one")
    monkeypatch.setenv("RIGHT", "right-one")
    monkeypatch.setenv("WRONG", "wrong-one")
    right = opened(server.url, password_env="RIGHT")
    await right.put("k", b"1", ttl_s=10)
    assert await right.get("k") == b"1"
    for store, said in ((opened(server.url, password_env="WRONG"), "password"), (opened(server.url), "uthentication")):
        with pytest.raises(StoreError, match=said) as caught:
            await store.get("k")
        assert "-one" not in caught.value.message


async def test_tls_trusts_whom_it_is_told_to(start_redis, opened: Open, tmp_path: Path):
    """`rediss://` checks the server's certificate, against an authority of one's own where it is named."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    server = start_redis(
        "--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no", "--tls-ca-cert-file", "ca.pem",
        "--tls-key-file", "key.pem", "--tls-cert-file", "cert.pem",
    )  # fmt: skip
    url = server.url.replace("redis:", "rediss:")
    trusting = opened(url, ca_file=tmp_path / "ca.pem")
    await trusting.put("k", b"1", ttl_s=10)
    assert await trusting.get("k") == b"1"
    for bad in (opened(url), opened(url.replace("127.0.0.1", "localhost"), ca_file=tmp_path / "ca.pem")):
        with pytest.raises(StoreError, match="certificate"):
            await bad.get("k")


# -- what is kept --------------------------------------------------------------------------------------------------

ODD = ["a\nb", "a b", "a\0b", "'\"{}[]", "\\n", "\r\n$3\r\n", "(", "-", "+", "ключ", "\udcff"]


async def test_keys_tags_groups_and_values_are_only_bytes(store: RedisStore):
    """Newlines, NULs, quotes and what the protocol is made of; tags that differ in a newline are two tags."""
    for key in ODD:
        await store.put(key, key.encode(errors="surrogatepass") * 2, ttl_s=10, tags=(key, "all"), group=key)
    assert [await store.get(key) for key in ODD] == [key.encode(errors="surrogatepass") * 2 for key in ODD]
    for key in ODD:
        assert await store.delete_tagged((key,)) == 1
        assert await store.get(key) is None
    assert await store.delete_tagged(("all",)) == 0
    assert await store.stats() == StoreStats(0, 0)


async def test_a_prefix_is_a_store_of_its_own(redis_server: RedisServer, opened: Open, prefix: str):
    """Two gateways on one server, apart: values, tags, bounds and rights."""
    one, other = opened(redis_server.url), opened(redis_server.url, prefix=f"{prefix}b:")
    await one.put("k", b"1", ttl_s=10, tags=("t",))
    assert await other.get("k") is None
    assert await other.delete_tagged(("t",)) == 0
    assert await other.stats() == StoreStats(0, 0)
    assert await one.claim("k", ttl_s=10) and await other.claim("k", ttl_s=10)
    assert await one.get("k") == b"1"


async def test_two_clients_share_everything(redis_server: RedisServer, opened: Open):
    """What one puts, tags and claims, the other finds, deletes and leaves alone."""
    one, other = opened(redis_server.url), opened(redis_server.url)
    assert one.shared and other.shared
    await one.put("k", b"1", ttl_s=10, tags=("t",))
    assert await other.get("k") == b"1"
    assert await one.claim("k", ttl_s=10) and await other.claim("k", ttl_s=10) is None
    assert await other.delete_tagged(("t",)) == 1
    assert await one.get("k") is None


async def test_bounds_hold_with_two_clients_at_once(redis_server: RedisServer, opened: Open):
    """Those of the store and those of each group, whoever writes; the sums say what is there."""
    clients = [opened(redis_server.url, max_bytes=60_000) for _ in range(2)]

    async def write(client: RedisStore, i: int) -> None:
        size, bound = (i * 7919) % 3_000, 20_000 if i % 3 else None
        await client.put(f"k{i % 97}", b"x" * size, ttl_s=1000, group=f"g{i % 3}", group_max_bytes=bound)

    for round_ in range(4):
        numbers = range(round_ * 100, round_ * 100 + 100)
        await asyncio.gather(*(write(client, i * 2 + j) for i in numbers for j, client in enumerate(clients)))
        assert (await clients[0].stats()).bytes <= 60_000
    values = {key: value for i in range(97) if (value := await clients[1].get(key := f"k{i}")) is not None}
    expected = StoreStats(len(values), sum(len(key) + len(value) for key, value in values.items()))
    assert await clients[0].stats() == await clients[1].stats() == expected
    assert len(values) > 10


async def test_a_store_whose_bound_was_lowered_shrinks_bit_by_bit(redis_server: RedisServer, opened: Open, monkeypatch):
    """One put takes away so much and no more; until there is room, the new entry is not kept."""
    monkeypatch.setattr(redis_scripts, "MOST_DROPPED", 10)
    large, small = opened(redis_server.url), opened(redis_server.url, max_bytes=1_000)
    for i in range(40):
        await large.put(f"k{i}", b"x" * 98, ttl_s=1000)
    await small.put("new", b"x" * 97, ttl_s=1000)
    assert (await small.get("new"), (await small.stats()).entries) == (None, 30)
    for _ in range(3):
        await small.put("new", b"x" * 97, ttl_s=1000)
    assert await small.get("new") is not None
    assert (await small.stats()).bytes <= 1_000


async def test_redis_own_expiry_is_for_what_nobody_asks_for(store: RedisStore, raw: Any, prefix: str):
    """It comes an hour after ours, for values and rights alike; very long lifetimes are taken."""
    await store.put("k", b"1", ttl_s=10)
    await store.claim("k", ttl_s=20)
    await store.put("long", b"1", ttl_s=float("inf"))
    assert 10_000 < await raw.pttl(f"{prefix}v:k") <= 10_000 + redis_scripts.GRACE_MS
    assert 20_000 < await raw.pttl(f"{prefix}c:k") <= 20_000 + redis_scripts.GRACE_MS
    assert await store.get("long") == b"1"


async def test_nothing_is_left_of_what_has_gone(store: RedisStore, raw: Any, prefix: str, clock: ManualClock):
    """Deleted, replaced, expired: no key of the server remembers it."""
    for i in range(30):
        await store.put(f"k{i % 20}", b"x", ttl_s=10, tags=(f"t{i % 5}", "all"), group=f"g{i % 3}")
    assert await store.delete_tagged(("t1",))
    clock.now = 11
    assert await store.stats() == StoreStats(0, 0)
    assert await raw.keys(f"{prefix}*") == []


# -- many keys of one tag ------------------------------------------------------------------------------------------


async def fill(raw: Any, prefix: str, clock: ManualClock, count: int, *tags: str) -> None:
    """Put *count* entries of *tags* at once, by the store's own script."""
    now, sha = int(clock.time() * 1000), await raw.script_load(redis_scripts.PUT)
    for first in range(0, count, 5_000):
        pipe = raw.pipeline(transaction=False)
        for i in range(first, min(first + 5_000, count)):
            pipe.evalsha(sha, 0, prefix, now, f"key-{i}", b"1", 10**9, 0, "", -1, 2**40, 20, 2000, *tags)
        assert set(await pipe.execute()) == {1}


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1000])
async def test_batches_miss_nothing_where_they_meet(
    store: RedisStore, raw: Any, prefix: str, clock: ManualClock, count: int
):
    """Whether or not the last batch is full; a dry run counts the same and deletes nothing."""
    await fill(raw, prefix, clock, count, "all", "these")
    await store.put("", b"1", ttl_s=100, tags=("all",))
    assert await store.delete_tagged(("all", "these"), dry_run=True) == count
    assert await store.delete_tagged(("all",), dry_run=True) == count + 1
    assert await store.delete_tagged(("these", "all")) == count
    assert await store.delete_tagged(("all",)) == 1


async def test_fifty_thousand_keys_of_a_tag_go_in_small_steps(
    store: RedisStore, raw: Any, prefix: str, clock: ManualClock
):
    """Others are served in between: no script looks at more than 500 of them."""
    await fill(raw, prefix, clock, 50_000, "all")
    assert await store.delete_tagged(("all",), dry_run=True) == 50_000
    before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    served = 0

    async def delete() -> int:
        return await store.delete_tagged(("all",))

    deleting = asyncio.ensure_future(delete())
    while not deleting.done():
        served += await store.claim(f"{served}", ttl_s=10) is not None
    assert await deleting == 50_000
    steps = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before - served
    assert steps >= 100
    assert served > 1
    assert await store.stats() == StoreStats(0, 0)
