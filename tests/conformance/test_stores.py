"""What every store does: bytes under a key, for so long, within bounds, deleted by tag."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from backends import ManualClock

from negawatt.errors import ConfigError
from negawatt.registry import STORES, open_backend
from negawatt.stores import Store, StoreStats
from negawatt.stores.memory import MemoryStore
from negawatt.stores.sqlite import SqliteStore

pytest_plugins = ["redis_server"]
Open = Callable[..., Store]
BIG = 1 << 20
_numbers = itertools.count()


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
async def open_store(request: Any, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Open]:
    """Opens stores of one kind, each with a file, prefix or schema of its own, and closes them all."""
    opened: list[Store] = []
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None

    def opener(max_bytes: int = BIG) -> Store:
        if request.param == "memory":
            opened.append(MemoryStore(clock, max_bytes))
        elif request.param == "postgres":
            url = request.getfixturevalue("postgres").url(schema=f"s{uuid.uuid4().hex}", timeout_ms="10000")
            url += f"&max_bytes={max_bytes}"
            opened.append(open_backend(STORES, "negawatt.stores", url, "cache.store", clock))
        elif request.param == "sqlite":
            opened.append(SqliteStore(tmp_path / f"cache-{len(opened)}.sqlite", clock, max_bytes))
        else:
            url = f"{server.url}?prefix=suite-{next(_numbers)}:&max_bytes={max_bytes}&timeout_ms=10000"
            opened.append(open_backend(STORES, "negawatt.stores", url, "cache.store", clock))
        return opened[-1]

    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Open) -> Store:
    return open_store()


async def kept(store: Store, *keys: str) -> str:
    """Return those of *keys* that are there, in the order in which they were asked for."""
    return "".join([key for key in keys if await store.get(key) is not None])


async def test_what_was_put_is_there(store: Store):
    """Any bytes, none at all included; what was not put is not there."""
    for value in (b"", b"a", bytes(range(256)) * 40):
        await store.put("k", value, ttl_s=10)
        assert await store.get("k") == value
    assert await store.get("other") is None


async def test_any_text_is_a_key(store: Store):
    """Quotes, NULs and other alphabets are only characters."""
    keys = ["'; DROP TABLE entry; --", "a\0b", "ключ", "%", "_", ""]
    for i, key in enumerate(keys):
        await store.put(key, str(i).encode(), ttl_s=10)
    assert [await store.get(key) for key in keys] == [str(i).encode() for i in range(len(keys))]


async def test_an_entry_lives_as_long_as_it_was_said_to(store: Store, clock: ManualClock):
    """Not a moment longer: it is not served stale between two sweeps."""
    await store.put("short", b"1", ttl_s=10)
    await store.put("long", b"2", ttl_s=100)
    clock.now = 9.999
    assert await kept(store, "short", "long") == "shortlong"
    clock.now = 10.0
    assert await kept(store, "short", "long") == "long"
    assert (await store.stats()).entries == 1


async def test_putting_again_replaces_value_lifetime_and_tags(store: Store, clock: ManualClock):
    """Nothing of the older entry is left, nor counted."""
    await store.put("k", b"old", ttl_s=5, tags=("old", "both"), group="g")
    clock.now = 4
    await store.put("k", b"newer", ttl_s=5, tags=("new", "both"), group="h")
    clock.now = 8
    assert await store.get("k") == b"newer"
    assert await store.stats() == StoreStats(1, len("k") + len(b"newer"))
    assert await store.delete_tagged(("old",)) == 0
    assert await store.delete_tagged(("both",)) == 1
    assert await store.stats() == StoreStats(0, 0)


async def test_the_least_recently_used_make_room(open_store: Open, clock: ManualClock):
    """Reading counts as use, and the newest entry always stays."""
    store = open_store(8_000)
    for i, key in enumerate("abcd"):
        clock.now = i
        await store.put(key, b"x" * 1_600, ttl_s=1000)
    for i, key in enumerate("ab"):
        clock.now = 10 + i
        assert await store.get(key) is not None
    clock.now = 20
    await store.put("e", b"x" * 1_600, ttl_s=1000)
    assert await kept(store, *"abcde") == "abde"
    assert (await store.stats()).bytes <= 8_000


async def test_no_more_goes_than_has_to(open_store: Open, clock: ManualClock):
    """One large entry pushes out as many as it needs room for; a small one pushes out one."""
    store = open_store(10_000)
    for i, key in enumerate("abcdef"):
        clock.now = i
        await store.put(key, b"x" * 1_200, ttl_s=1000)
    clock.now = 10
    await store.put("g", b"x" * 4_000, ttl_s=1000)
    found = await kept(store, *"abcdefg")
    assert found in ("cdefg", "defg"), "those that had to go, the oldest first, and the new one stays"
    clock.now = 20
    await store.put("h", b"x" * 1_200, ttl_s=1000)
    assert (await kept(store, *"abcdefgh")).endswith("fgh")


async def test_the_newest_stays_though_all_others_are_of_the_same_age(open_store: Open):
    """A clock that stands still does not make the newest entry the oldest."""
    store = open_store(6_000)
    for i in range(10):
        await store.put(f"{9 - i}", b"x" * 2_000, ttl_s=10)
        assert await store.get(f"{9 - i}") is not None


async def test_what_is_larger_than_the_store_is_not_kept(open_store: Open):
    """It pushes nothing out, but what it was meant to replace is gone."""
    store = open_store(5_000)
    await store.put("a", b"x" * 100, ttl_s=10)
    await store.put("b", b"x" * 100, ttl_s=10)
    await store.put("a", b"x" * 6_000, ttl_s=10)
    assert await kept(store, "a", "b") == "b"


async def test_a_group_keeps_within_its_own_bound(open_store: Open, clock: ManualClock):
    """A full group makes room in itself and takes none from the others."""
    store = open_store(100_000)
    await store.put("other", b"x" * 1_000, ttl_s=100, group="g2")
    for i, key in enumerate("abcdef"):
        clock.now = 1 + i
        await store.put(key, b"x" * 1_000, ttl_s=100, group="g1", group_max_bytes=4_000)
    assert await kept(store, "other", *"abcdef") in ("otherdef", "othercdef")
    clock.now = 10
    await store.put("huge", b"x" * 4_001, ttl_s=100, group="g1", group_max_bytes=4_000)
    assert await kept(store, "huge") == ""
    assert "f" in await kept(store, *"abcdef")


async def test_a_full_store_takes_from_its_largest_group(open_store: Open, clock: ManualClock):
    """A class with many answers does not push out those of the others."""
    store = open_store(10_000)
    await store.put("s", b"x" * 1_000, ttl_s=100, group="small")
    for i in range(20):
        clock.now = 1 + i
        await store.put(f"l{i}", b"x" * 1_000, ttl_s=100, group="large")
    assert await kept(store, "s", "l0", "l19") == "sl19"


async def test_a_new_group_gets_in_even_as_the_largest(open_store: Open, clock: ManualClock):
    """One large entry of a new group does not push itself out."""
    store = open_store(10_000)
    for i in range(8):
        clock.now = i
        await store.put(f"a{i}", b"x" * 900, ttl_s=100, group=f"g{i}")
    clock.now = 10
    await store.put("large", b"x" * 6_000, ttl_s=100, group="new")
    assert await kept(store, "large") == "large"
    assert (await store.stats()).bytes <= 10_000


async def test_deleting_says_whether_there_was_something(store: Store):
    """Once."""
    await store.put("k", b"1", ttl_s=10)
    assert await store.delete("k") is True
    assert await store.delete("k") is False
    assert await store.get("k") is None


TAGGED = {
    "a": ("tenant=x", "class=faq"),
    "b": ("tenant=x", "class=chat"),
    "c": ("tenant=y", "class=faq"),
    "d": (),
}


async def fill(store: Store) -> None:
    for key, tags in TAGGED.items():
        await store.put(key, b"1", ttl_s=10, tags=tags)


@pytest.mark.parametrize(
    ("tags", "gone"),
    [
        (("tenant=x",), "ab"),
        (("tenant=x", "class=faq"), "a"),
        (("class=faq", "class=faq"), "ac"),
        (("tenant=x", "tenant=y"), ""),
        (("tenant=z",), ""),
        (("tenant=x' OR 1=1 --",), ""),
        ((), ""),
    ],
)
async def test_entries_are_deleted_by_all_of_the_tags(store: Store, tags: tuple[str, ...], gone: str):
    """All of them must be there; no tags at all delete nothing. A dry run counts the same and deletes nothing."""
    await fill(store)
    assert await store.delete_tagged(tags, dry_run=True) == len(gone)
    assert await kept(store, *TAGGED) == "abcd"
    assert await store.delete_tagged(tags) == len(gone)
    assert await kept(store, *TAGGED) == "".join(key for key in TAGGED if key not in gone)
    assert await store.delete_tagged(tags) == 0


async def test_the_expired_are_not_counted_among_the_deleted(store: Store, clock: ManualClock):
    """What nobody could read any more was not deleted by us."""
    await fill(store)
    clock.now = 11
    assert await store.delete_tagged(("tenant=x",), dry_run=True) == 0
    assert await store.delete_tagged(("tenant=x",)) == 0


async def test_a_tag_named_twice_is_one_tag(store: Store):
    """Also when it is put."""
    await store.put("k", b"1", ttl_s=10, tags=("a", "a"))
    assert await store.delete_tagged(("a",)) == 1


async def test_many_puts_at_once_all_arrive(open_store: Open):
    """Concurrent writers and readers of the same keys: the last word of each counts, and the sums hold."""
    store = open_store()

    async def write(i: int) -> None:
        await store.put(f"k{i % 50}", b"v%d" % i, ttl_s=100, tags=(f"t{i % 5}",), group=f"g{i % 50 % 3}")
        await store.get(f"k{(i * 7) % 50}")

    await asyncio.gather(*(write(i) for i in range(300)))
    values = [await store.get(f"k{i}") for i in range(50)]
    assert values == [b"v%d" % (250 + i) for i in range(50)]
    assert (await store.stats()).entries == 50
    assert await store.delete_tagged(("t0",)) == 10
    assert (await store.stats()).entries == 40


async def test_bounds_hold_under_a_storm(open_store: Open, clock: ManualClock):
    """Whatever is put, in whatever groups, the store stays within its bytes and what it says it holds is there."""
    store = open_store(20_000)
    for i in range(200):
        clock.now = i * 0.1
        size = (i * 7919) % 3_000
        bound = 5_000 if i % 3 else None
        await store.put(f"k{i % 37}", b"x" * size, ttl_s=15, group=f"g{i % 4}", group_max_bytes=bound)
        if i % 5 == 0:
            await store.get(f"k{(i * 3) % 37}")
        if i % 40 == 39:
            assert (await store.stats()).bytes <= 20_000
    stats = await store.stats()
    values = {key: value for i in range(37) if (value := await store.get(key := f"k{i}")) is not None}
    assert stats == StoreStats(len(values), sum(len(key) + len(value) for key, value in values.items()))


async def test_opened_by_url(tmp_path: Path, clock: ManualClock, monkeypatch):
    """`memory:` and `sqlite:///`, with their size."""
    monkeypatch.chdir(tmp_path)
    for url in ("memory:", "memory://?max_bytes=5000", "sqlite:///cache.sqlite?max_bytes=5000"):
        store: Store = open_backend(STORES, "negawatt.stores", url, "cache.store", clock)
        await store.put("k", b"1", ttl_s=10)
        assert await store.get("k") == b"1"
        await store.close()
    assert (tmp_path / "cache.sqlite").exists()


@pytest.mark.parametrize(
    "url",
    ["", "memory", "mongo://x", "sqlite:", "sqlite://file", "sqlite:///no/such/folder/f", "memory:?max_bytes=many",
     "memory:?max_bytes=0", "memory:?max_bytes=-5"],
)  # fmt: skip
async def test_a_bad_url_names_its_field(url: str, clock: ManualClock):
    """The error says where the URL stands."""
    with pytest.raises(ConfigError, match=r"^cache\.store: "):
        open_backend(STORES, "negawatt.stores", url, "cache.store", clock)


# -- the right to make what belongs under a key --------------------------------------------------------------------


async def test_one_at_a_time_has_the_right_to_make_it(store: Store):
    """Whoever asks meanwhile gets nothing; once it is given back, the next gets it. Other keys are other rights."""
    token = await store.claim("k", ttl_s=10)
    assert token
    assert await store.claim("k", ttl_s=10) is None
    assert await store.claim("other", ttl_s=10)
    await store.release("k", token)
    again = await store.claim("k", ttl_s=10)
    assert again and again != token


async def test_the_right_lapses(store: Store, clock: ManualClock):
    """One who died holds nobody up, and not a moment before."""
    assert await store.claim("k", ttl_s=10)
    clock.now = 9.999
    assert await store.claim("k", ttl_s=10) is None
    clock.now = 10.0
    assert await store.claim("k", ttl_s=10)
    assert await store.claim("k", ttl_s=10) is None


async def test_a_right_that_lapsed_takes_nothing_from_its_new_owner(store: Store, clock: ManualClock):
    """Neither an old token nor a made-up one gives back what somebody else has."""
    old = await store.claim("k", ttl_s=10)
    assert old
    clock.now = 11
    new = await store.claim("k", ttl_s=10)
    assert new
    for token in (old, "made up", ""):
        await store.release("k", token)
        assert await store.claim("k", ttl_s=10) is None
    await store.release("k", new)
    assert await store.claim("k", ttl_s=10)


async def test_giving_back_twice_does_no_harm(store: Store):
    """Nor what nobody has."""
    await store.release("k", "never given")
    token = await store.claim("k", ttl_s=10)
    assert token
    await store.release("k", token)
    await store.release("k", token)
    assert await store.claim("k", ttl_s=10)


async def test_the_right_has_nothing_to_do_with_the_value(store: Store):
    """It can be taken where there is a value, is no entry, and outlives the value's deletion."""
    await store.put("k", b"1", ttl_s=100, tags=("t",))
    token = await store.claim("k", ttl_s=10)
    assert token
    assert await store.get("k") == b"1"
    assert await store.stats() == StoreStats(1, 2)
    await store.put("k", b"22", ttl_s=100, tags=("t",))
    assert await store.delete_tagged(("t",)) == 1
    assert await store.claim("k", ttl_s=10) is None
    await store.release("k", token)
    await store.put("k", b"1", ttl_s=100)
    await store.release("k", token)
    assert await store.get("k") == b"1"


async def test_of_many_who_ask_at_once_one_gets_it(store: Store):
    """A hundred claimants, three times over: one token each time."""
    for _ in range(3):
        tokens = await asyncio.gather(*(store.claim("k", ttl_s=10) for _ in range(100)))
        taken = [token for token in tokens if token is not None]
        assert len(taken) == 1
        await store.release("k", taken[0])
