"""The file of the SQLite index: killed in the middle, damaged, of another model, shared."""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from backends import ManualClock
from indexes import DIMENSIONS, MODEL, at, case, some

from negawatt.clock import SystemClock
from negawatt.errors import IndexMismatch, StoreError
from negawatt.indexes import IndexStats
from negawatt.indexes.checks import ANY
from negawatt.indexes.sqlite import SqliteIndex

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


def opened(path: Path, clock: ManualClock | SystemClock, *, model: str = MODEL, dimensions: int = DIMENSIONS):
    return SqliteIndex(path, clock, model=model, dimensions=dimensions)


async def filled(path: Path, clock: ManualClock, count: int = 20) -> None:
    """Leave a file with *count* entries and as many cases."""
    index = opened(path, clock)
    for i, row in enumerate(some(count, seed=4)):
        await index.put(f"k{i}", row, b"value of %03d, " % i * 20, scope="s", ttl_s=100, tags=("t",))
        await index.cases.add(case(f"c{i:03}", float(i), question=f"question of {i:03}"))
    await index.close()


async def test_all_that_was_acknowledged_survives_a_kill(path: Path):
    """`kill -9` in the middle of puts: every entry and case that the process had told of is there, and is found."""
    command = [sys.executable, str(WRITER), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(60)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().splitlines()]
    assert writer.returncode == -signal.SIGKILL, "it was in the middle"
    index, rows = opened(path, SystemClock()), some(5_000, seed=3)
    for i in told:
        assert await index.get(f"k{i}") == b"value %d" % i
        assert [one.key for one in await index.nearest(f"s{i % 3}", rows[i], k=1)] == [f"k{i}"]
    assert [one.id for one in await index.cases.recent("faq", "learned", limit=5_000)][: len(told)] == [
        f"c{i:05}" for i in told
    ]
    assert (await index.stats()).entries in (len(told), len(told) + 1), "one may have been written and not yet told"
    await index.put("after", at(0), b"", scope="after", ttl_s=10)
    await index.close()


async def test_a_restart_finds_everything(path: Path, clock: ManualClock):
    """Values, vectors, marks, lifetimes and tags."""
    first = opened(path, clock)
    await first.put("a", at(0), b"1", scope="s", ttl_s=100, mark=b"m", tags=("t",))
    await first.put("b", at(1), b"2", scope="s", ttl_s=5)
    await first.close()
    clock.now = 10
    second = opened(path, clock)
    assert [(one.key, one.mark) for one in await second.nearest("s", at(0))] == [("a", b"m")]
    assert await second.get("a") == b"1"
    assert await second.delete_tagged(("t",)) == 1
    await second.close()


def flip(path: Path, needle: bytes) -> None:
    """Change one bit of what the file holds of *needle*, every copy of it."""
    body = path.read_bytes()
    assert needle in body
    changed = bytes([needle[0], needle[1] ^ 1]) + needle[2:]
    path.write_bytes(body.replace(needle, changed))


@pytest.mark.parametrize("what", ["vector", "value"])
async def test_an_entry_with_a_flipped_bit_is_dropped(path: Path, clock: ManualClock, caplog, what: str):
    """Neither found nor given, and the log says so; all others are there."""
    await filled(path, clock)
    flip(path, some(20, seed=4)[7].tobytes() if what == "vector" else b"value of 007")
    index = opened(path, clock)
    with caplog.at_level(logging.WARNING):
        assert await index.get("k7") is None
    assert "k7" in caplog.text and "damaged" in caplog.text
    assert (await index.stats()).entries == 19
    await index.close()


@pytest.mark.parametrize("what", ["vector", "value"])
async def test_a_search_drops_entries_with_a_flipped_bit(path: Path, clock: ManualClock, caplog, what: str):
    """When their scope is first read."""
    await filled(path, clock)
    flip(path, some(20, seed=4)[7].tobytes() if what == "vector" else b"value of 007")
    index = opened(path, clock)
    with caplog.at_level(logging.WARNING):
        there = {one.key for one in await index.nearest("s", some(20, seed=4)[7], k=99)}
    assert there == {f"k{i}" for i in range(20) if i != 7}
    assert "1 damaged" in caplog.text
    assert (await index.get("k7"), (await index.stats()).entries) == (None, 19)
    await index.close()


async def test_a_case_with_a_flipped_bit_is_dropped(path: Path, clock: ManualClock, caplog):
    """Nothing is learned from it, and the log says so."""
    await filled(path, clock)
    flip(path, b"question of 007")
    index = opened(path, clock)
    with caplog.at_level(logging.WARNING):
        there = [one.id for one in await index.cases.recent("faq", "learned", limit=99)]
    assert there == [f"c{i:03}" for i in range(20) if i != 7]
    assert "c007" in caplog.text and "damaged" in caplog.text
    await index.close()


@pytest.mark.parametrize("damage", ["not a database", "cut short", "scribbled over", "empty"])
async def test_a_damaged_file_is_set_aside(path: Path, clock: ManualClock, caplog, damage: str):
    """The index begins cold, the damaged file is kept beside it, and the log says so; an empty file is no damage."""
    await filled(path, clock, 200)
    body = path.read_bytes()
    path.write_bytes({
        "not a database": b"hello, this is no database" * 100, "cut short": body[: len(body) // 2],
        "scribbled over": body[:8192] + b"\xaa" * (len(body) - 8192), "empty": b"",
    }[damage])  # fmt: skip
    with caplog.at_level(logging.WARNING):
        index = opened(path, clock)
    aside = list(path.parent.glob("index.sqlite.damaged-*"))
    assert (len(aside), "set aside as" in caplog.text) == ((0, False) if damage == "empty" else (1, True))
    assert await index.stats() == IndexStats(0, 0, 0)
    assert await index.cases.classes() == []
    await index.put("k", at(0), b"1", scope="s", ttl_s=10)
    assert [one.key for one in await index.nearest("s", at(0))] == ["k"]
    await index.close()


async def test_a_file_of_another_model_is_refused_with_both_names(path: Path, clock: ManualClock):
    """And of the same model with other dimensions. The file is left as it is."""
    await filled(path, clock)
    said = rf"index.sqlite holds vectors of {MODEL} with {DIMENSIONS} dimensions, and the embedder is other with 8"
    with pytest.raises(IndexMismatch, match=said):
        opened(path, clock, model="other")
    with pytest.raises(IndexMismatch, match=f"{MODEL} with 8 dimensions, and the embedder is {MODEL} with 9"):
        opened(path, clock, dimensions=9)
    index = opened(path, clock)
    assert (await index.stats()).entries == 20
    await index.close()


async def test_somebody_who_only_looks_needs_no_model(path: Path, clock: ManualClock):
    """And leaves no name behind in an empty file."""
    opened_first = opened(path, clock, model=ANY, dimensions=1)
    await opened_first.close()
    await filled(path, clock)
    index = opened(path, clock, model=ANY, dimensions=1)
    assert (await index.stats()).entries == 20
    assert len(await index.cases.recent("faq", "learned", limit=99)) == 20
    assert await index.delete_tagged(("t",)) == 20
    await index.close()


async def test_a_file_that_cannot_be_opened_is_our_error(tmp_path: Path, clock: ManualClock):
    """A folder where the file should be, or no folder at all: StoreError, and nothing is moved."""
    for place in (tmp_path, tmp_path / "no" / "folder" / "f"):
        with pytest.raises(StoreError):
            opened(place, clock)
    assert tmp_path.is_dir()


async def test_a_failure_later_on_is_our_error(path: Path, clock: ManualClock):
    """Whatever SQLite says, callers see StoreError and nothing else."""
    index = opened(path, clock)
    with sqlite3.connect(path) as other:
        other.executescript("DROP TABLE tag; DROP TABLE entry; DROP TABLE learned_case;")
    for work in (
        index.get("k"), index.put("k", at(0), b"1", scope="s", ttl_s=1), index.nearest("s", at(0)), index.delete("k"),
        index.delete_tagged(("t",)), index.stats(), index.cases.add(case("a", 1.0)), index.cases.classes(),
        index.cases.recent("faq", "learned", limit=1), index.cases.waiting(limit=1),
        index.cases.label("a", wrong=True, basis="human"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="SQLite index"):
            await work
    await index.close()


async def test_what_another_process_deleted_is_not_found_for_long(path: Path, clock: ManualClock):
    """`negawatt cache delete` beside a running gateway: no value is given, and then no candidate either."""
    await filled(path, clock)
    index, other = opened(path, clock), opened(path, clock, model=ANY, dimensions=1)
    assert len(await index.nearest("s", at(0), k=99)) == 20
    assert await other.delete_tagged(("t",)) == 20
    assert [await index.get(f"k{i}") for i in range(20)] == [None] * 20
    assert await index.nearest("s", at(0), k=99) == []
    await index.close()
    await other.close()


async def test_scopes_in_which_nothing_is_take_no_memory(path: Path, clock: ManualClock):
    """Each conversation is a scope of its own: what was searched, and what was emptied, is let go."""
    index = opened(path, clock)
    for i in range(50):
        assert await index.nearest(f"s{i}", at(0)) == []
    await asyncio.gather(*(index.put(f"k{i}", at(0), b"", scope=f"s{i}", ttl_s=10) for i in range(5)))
    assert set(index._scopes) == {f"s{i}" for i in range(5)}
    for i in range(5):
        await index.delete(f"k{i}")
    assert (index._scopes, index._putting) == ({}, {})
    await index.close()


async def test_who_leaves_takes_nobody_along(path: Path, clock: ManualClock):
    """Of two who wait for the vectors of a scope, the one who began to read them may go."""
    await filled(path, clock)
    index = opened(path, clock)
    first = asyncio.create_task(index.nearest("s", at(0)))
    second = asyncio.create_task(index.nearest("s", at(0)))
    await asyncio.sleep(0)
    first.cancel()
    assert len(await second) == 8
    await index.close()
