"""Books of budgets that outlive their process: after a stop, a kill, a failing disk, a dead replica, a lost server."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backends import ManualClock
from test_budget_books import DAY, START, line, state, wants

from negawatt.budgets import Line, Lines, Reservation, redis_scripts
from negawatt.budgets.redis import RedisBooks
from negawatt.budgets.sqlite import SqliteBooks, read_lines
from negawatt.errors import ConfigError, InputError, StoreError
from negawatt.registry import BUDGETS, open_backend

if TYPE_CHECKING:
    from redis_server import RedisServer

pytest_plugins = ["redis_server"]
LEASE_S = 60.0

RESERVES = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from backends import ManualClock
from test_budget_books import wants
from negawatt.budgets.sqlite import SqliteBooks

async def main():
    books = SqliteBooks(Path(sys.argv[1]), ManualClock())
    settled, open_ = wants(30), wants(40)
    await books.reserve(settled)
    await books.reserve(open_)
    books.settle(settled, [25])
    print("reserved", flush=True)
    time.sleep(60)

asyncio.run(main())
"""


# -- SQLite ----------------------------------------------------------------------------------------------------


async def test_a_stop_keeps_what_was_spent(tmp_path: Path, clock: ManualClock):
    """What was settled is there after a restart, and nothing is reserved."""
    books = SqliteBooks(tmp_path / "b.sqlite", clock)
    mine = wants(40)
    await books.reserve(mine)
    books.settle(mine, [25], ["assumed"])
    await books.close()
    again = SqliteBooks(tmp_path / "b.sqlite", clock)
    assert await again.lines() == [Line(line(), START + DAY, 25, 0, assumed=1)]
    await again.close()


async def test_after_a_kill_what_was_reserved_counts_as_spent(tmp_path: Path, clock: ManualClock):
    """Nobody knows what became of it: it is spent until the period ends, also after a second start."""
    path = tmp_path / "b.sqlite"
    command = [sys.executable, "-c", RESERVES, str(path), str(Path(__file__).parent)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "reserved\n"
        end = time.monotonic() + 10
        while [one[2:4] for one in read_lines(path, clock.time())] != [(25, 40)]:
            assert time.monotonic() < end, "it was not written down"
            time.sleep(0.01)
        with pytest.raises(ConfigError, match="another gateway has the budgets"):
            SqliteBooks(path, clock)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        child.stdout.close()
    for _ in range(2):
        books = SqliteBooks(path, clock)
        assert await books.lines() == [Line(line(), START + DAY, 65, 0, assumed=1)]
        assert (await books.reserve(wants(36))) is not None
        await books.close()


async def test_a_disk_that_refuses_stops_reservations_until_it_takes_them(tmp_path: Path, clock: ManualClock):
    """What cannot be written down is not spent; when the disk is back nothing was lost."""
    path = tmp_path / "b.sqlite"
    books = SqliteBooks(path, clock)
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("ALTER TABLE line RENAME TO elsewhere")
        mine = wants(40)
        await books.reserve(mine)
        await _until(lambda: books._failed is not None)
        for asked in (books.check(), books.reserve(wants(1))):
            with pytest.raises(StoreError, match="cannot be written down") as caught:
                await asked
            assert str(tmp_path) not in caught.value.message, "whoever asks for /readyz hears it"
        other.execute("ALTER TABLE elsewhere RENAME TO line")
        await _until(lambda: books._failed is None)
        await books.check()
        assert await books.reserve(wants(1)) is None
    finally:
        other.close()
        await books.close()
    assert [one[2:4] for one in read_lines(path, clock.time())] == [(0, 41)]


async def test_what_callers_named_stays_in_its_line_of_the_log(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """A model or a user may be called anything."""
    path, name = tmp_path / "b.sqlite", "x\nERROR all is lost\x1b[2J"
    books = SqliteBooks(path, clock)
    lines = Lines((("tokens/day/all", name, START),), (START + DAY,), (100,))
    await books.reserve(Reservation(lines, [40]))
    await books.close()
    await SqliteBooks(path, clock).close()
    (said,) = [one.getMessage() for one in caplog.records if "reserved" in one.getMessage()]
    assert said.isprintable() and repr(name) in said


def test_a_file_that_is_none_is_refused(tmp_path: Path, clock: ManualClock):
    """The error names the file, whoever opens it."""
    path = tmp_path / "b.sqlite"
    with pytest.raises(InputError, match="there are no books"):
        read_lines(path, clock.time())
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(ConfigError, match=r"b\.sqlite"):
        SqliteBooks(path, clock)
    with pytest.raises(InputError, match=r"b\.sqlite"):
        read_lines(path, clock.time())


async def _until(true: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + 15
    while not true():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)


# -- Redis -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def replica(
    request: Any, clock: ManualClock, redis_server: RedisServer
) -> AsyncIterator[Callable[..., RedisBooks]]:
    """Opens replicas' books, all under one prefix."""
    opened: list[RedisBooks] = []

    def begin(server: RedisServer = redis_server, timeout_ms: int = 10_000) -> RedisBooks:
        url = f"{server.url}?prefix={request.node.name}:&timeout_ms={timeout_ms}"
        opened.append(open_backend(BUDGETS, "negawatt.budgets", url, "budgeting.store", clock, lease_s=LEASE_S))
        return opened[-1]

    yield begin
    for books in opened:
        await books.close()


async def test_replicas_share_one_limit(replica: Callable[..., RedisBooks]):
    """What one has reserved the other cannot; a thousand reservations by two of them stay within the limit."""
    one, other = replica(), replica()
    assert await one.reserve(wants(60)) is None
    assert (await other.reserve(wants(60))) is not None
    several = (books.reserve(wants(1)) for _ in range(250) for books in (one, other))
    assert sum(found is None for found in await asyncio.gather(*several)) == 40


async def test_what_a_dead_replica_reserved_counts_as_spent(replica: Callable[..., RedisBooks], clock: ManualClock):
    """When its lease is over; should the replica live after all, what it settles then is right."""
    dead, living = replica(), replica()
    mine = wants(60)
    await dead.reserve(mine)
    assert await state(living) == Line(line(), START + DAY, 0, 60)
    clock.now += LEASE_S + 1
    assert await state(living) == Line(line(), START + DAY, 60, 0, assumed=1)
    dead.settle(mine, [10])
    await state(dead)
    assert await state(living) == Line(line(), START + DAY, 10, 0)


async def test_what_was_given_up_is_not_reserved_when_it_comes_late(replica: Callable[..., RedisBooks]):
    """A settlement that overtakes its reservation makes it void."""
    books = replica()
    mine = wants(60)
    mine.id, mine.open = "r-1", True
    books.settle(mine, [0])
    await state(books)
    with pytest.raises(StoreError, match="was made before"):
        await books.reserve(mine)
    assert await state(books) is None


async def test_who_is_cancelled_in_the_middle_reserves_nothing(replica: Callable[..., RedisBooks]):
    """Whenever the cancellation comes, what was reserved is given back."""
    books = replica()
    for turns in range(12):
        attempt = asyncio.ensure_future(books.reserve(wants(100)))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait({attempt})
        if not attempt.cancelled():
            assert attempt.result() is None
            break
        end = asyncio.get_running_loop().time() + 10
        while await state(books) is not None:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.005)


async def test_a_server_that_is_gone_is_said_and_told_when_it_is_back(
    replica: Callable[..., RedisBooks], start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
):
    """Reservations fail at once; what was spent is told as soon as the server answers again, and that it waits once."""
    server = start_redis()
    books = replica(server, timeout_ms=300)
    mine = wants(60)
    await books.reserve(mine)
    server.freeze()
    books.settle(mine, [50])
    for asked in (books.reserve(wants(1)), books.check()):
        with pytest.raises(StoreError):
            await asked
    server.thaw()
    end = asyncio.get_running_loop().time() + 15
    while True:
        assert asyncio.get_running_loop().time() < end
        try:
            if (await state(books)) == Line(line(), START + DAY, 50, 0):
                break
        except StoreError:
            pass  # it leaves the server alone for a moment
        await asyncio.sleep(0.1)
    assert ["settlements wait" in line for line in caplog.messages] == [True]


async def test_a_server_that_takes_nothing_is_said(
    replica: Callable[..., RedisBooks], start_redis: Callable[..., RedisServer]
):
    """It answers, and is full: whoever asks whether budgets can be reserved hears it without reserving any."""
    import redis

    server = start_redis()
    books = replica(server, timeout_ms=5000)
    await books.check()
    client = redis.Redis.from_url(server.url)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    client.close()
    with pytest.raises(StoreError, match="memory"):
        await books.check()


def test_the_scripts_need_nothing_that_the_server_lacks(redis_server: RedisServer):
    """Each is one that the server can load."""
    import redis

    client = redis.Redis.from_url(redis_server.url)
    for script in (redis_scripts.RESERVE, redis_scripts.SETTLE, redis_scripts.LINES, redis_scripts.READY):
        assert client.script_load(script)
    client.close()
