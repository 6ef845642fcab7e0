"""Only SQLite: what concerns its file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest
from backends import ManualClock

from negawatt.errors import StoreError
from negawatt.stores import Store, StoreStats
from negawatt.stores.sqlite import SqliteStore


async def kept(store: Store, *keys: str) -> str:
    """Return those of *keys* that are there, in the order in which they were asked for."""
    return "".join([key for key in keys if await store.get(key) is not None])


async def test_a_restart_finds_everything(tmp_path: Path, clock: ManualClock):
    """Values, lifetimes, tags, groups and bounds outlive the process."""
    path = tmp_path / "cache.sqlite"
    first = SqliteStore(path, clock)
    await first.put("a", b"1", ttl_s=100, tags=("t",), group="g")
    await first.put("b", b"2", ttl_s=5)
    await first.close()
    clock.now = 10
    second = SqliteStore(path, clock)
    assert await kept(second, "a", "b") == "a"
    assert await second.delete_tagged(("t",)) == 1
    await second.close()


async def test_a_use_before_a_restart_counts_after_it(tmp_path: Path, clock: ManualClock):
    """What was read lately is not the first to go, once a write has followed."""
    path = tmp_path / "cache.sqlite"
    first = SqliteStore(path, clock, max_bytes=3_000)
    for i, key in enumerate("ab"):
        clock.now = i
        await first.put(key, b"x" * 1_000, ttl_s=100)
    clock.now = 5
    await first.get("a")
    await first.put("c", b"x" * 500, ttl_s=100)
    await first.close()
    clock.now = 6
    second = SqliteStore(path, clock, max_bytes=3_000)
    await second.put("d", b"x" * 1_000, ttl_s=100)
    assert await kept(second, *"abcd") == "acd"
    await second.close()


@pytest.mark.parametrize("damage", ["not a database", "cut short", "scribbled over"])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, clock: ManualClock, caplog, damage: str):
    """The cache begins empty, the damaged file is kept beside it, and the log says so."""
    path = tmp_path / "cache.sqlite"
    store = SqliteStore(path, clock)
    for i in range(200):
        await store.put(f"k{i}", b"x" * 1_000, ttl_s=100)
    await store.close()
    body = path.read_bytes()
    path.write_bytes(
        {
            "not a database": b"hello, this is no database" * 100,
            "cut short": body[: len(body) // 2],
            "scribbled over": body[:8192] + b"\xaa" * (len(body) - 8192),
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        store = SqliteStore(path, clock)
    assert "damaged" in caplog.text
    assert len(list(tmp_path.glob("cache.sqlite.damaged-*"))) == 1
    assert await store.stats() == StoreStats(0, 0)
    await store.put("k", b"1", ttl_s=10)
    assert await store.get("k") == b"1"
    await store.close()


async def test_a_file_that_cannot_be_opened_is_our_error(tmp_path: Path, clock: ManualClock):
    """A folder where the file should be, or no folder at all: StoreError, and nothing is moved."""
    with pytest.raises(StoreError):
        SqliteStore(tmp_path, clock)
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "no" / "folder" / "f", clock)
    assert tmp_path.is_dir()


async def test_a_failure_later_on_is_our_error(tmp_path: Path, clock: ManualClock):
    """Whatever SQLite says, callers see StoreError and nothing else."""
    path = tmp_path / "cache.sqlite"
    store = SqliteStore(path, clock)
    other = sqlite3.connect(path)
    other.executescript("DROP TABLE entry; DROP TABLE tag;")
    other.close()
    for work in (
        store.get("k"),
        store.put("k", b"1", ttl_s=1),
        store.delete("k"),
        store.delete_tagged(("t",)),
        store.stats(),
    ):
        with pytest.raises(StoreError):
            await work
    await store.close()


async def test_two_processes_may_share_a_file(tmp_path: Path, clock: ManualClock):
    """What one puts, the other finds."""
    path = tmp_path / "cache.sqlite"
    one, other = SqliteStore(path, clock), SqliteStore(path, clock)
    await asyncio.gather(*(s.put(f"{n}{i}", b"1", ttl_s=9) for i in range(30) for n, s in (("a", one), ("b", other))))
    assert (await one.stats()).entries == (await other.stats()).entries == 60
    assert await one.get("b7") == await other.get("a7") == b"1"
    assert await one.delete("b7")
    assert await other.get("b7") is None
    await one.close()
    await other.close()
