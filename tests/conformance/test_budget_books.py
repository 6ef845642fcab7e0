"""One suite over all books of budgets: memory, SQLite, Redis. Nothing is exceeded by a reservation, nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from backends import EPOCH, ManualClock

from negawatt.budgets import Books, Line, LineId, Lines, Reservation, Short
from negawatt.budgets.memory import MemoryBooks
from negawatt.budgets.sqlite import SqliteBooks
from negawatt.registry import BUDGETS, open_backend

pytest_plugins = ["redis_server"]
DAY = 86_400
START = int(EPOCH // DAY * DAY)
_numbers = itertools.count()
Open = Callable[[], Books]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def open_books(request: Any, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Open]:
    """Opens books of one kind; those that are shared hold the same lines each time."""
    kind, prefix = request.param, f"budgets-{next(_numbers)}:"
    opened: list[Books] = []

    def begin() -> Books:
        if kind == "memory":
            opened.append(MemoryBooks(clock))
        elif kind == "sqlite":
            opened.append(SqliteBooks(tmp_path / f"books-{len(opened)}.sqlite", clock))
        else:
            server = request.getfixturevalue("redis_server")
            url = f"{server.url}?prefix={prefix}&timeout_ms=10000"
            opened.append(open_backend(BUDGETS, "negawatt.budgets", url, "budgeting.store", clock, lease_s=60.0))
        return opened[-1]

    yield begin
    for books in opened:
        await books.close()


@pytest.fixture
def books(open_books: Open) -> Books:
    return open_books()


def line(name: str = "all", value: str = "", start: int = START) -> LineId:
    return (f"tokens/day/{name}", value, start)


def wants(amount: int, limit: int = 100, name: str = "all", *, start: int = START) -> Reservation:
    return Reservation(Lines((line(name, start=start),), (start + DAY,), (limit,)), [amount])


async def state(books: Books, name: str = "all") -> Line | None:
    """Return how a line stands once everything that was settled has been told."""
    end = asyncio.get_running_loop().time() + 10
    while getattr(books, "_waiting", None):
        assert asyncio.get_running_loop().time() < end, "the settlements were not told"
        await asyncio.sleep(0.005)
    return next((one for one in await books.lines() if one.id == line(name)), None)


async def test_what_is_reserved_is_there_and_what_is_settled_is_spent(books: Books):
    """A reservation is held; settling puts what was spent in its place; asking whether one can be changes nothing."""
    await books.check()
    assert await books.lines() == []
    mine = wants(40)
    assert await books.reserve(mine) is None
    assert await state(books) == Line(line(), START + DAY, 0, 40)
    assert books.held(line()) == 40
    books.settle(mine, [25])
    assert await state(books) == Line(line(), START + DAY, 25, 0)
    assert books.held(line()) == 25


async def test_what_does_not_fit_is_not_reserved(books: Books):
    """The answer says which claim does not fit, and what its line has spent and holds."""
    mine = wants(60)
    await books.reserve(mine)
    assert await books.reserve(wants(41)) == Short(0, 0, 60)
    books.settle(mine, [50])
    await state(books)
    assert await books.reserve(wants(51)) == Short(0, 50, 50)
    assert await books.reserve(wants(50)) is None


async def test_a_reservation_of_several_lines_is_all_or_nothing(books: Books):
    """Where the second does not fit, nothing is held of the first."""
    both = Reservation(Lines((line("a"), line("b")), (START + DAY, START + DAY), (100, 5)), [10, 10])
    assert await books.reserve(both) == Short(1, 0, 0)
    assert await books.reserve(wants(100, name="a")) is None


async def test_settling_twice_counts_once(books: Books):
    """Who settles again changes nothing; nor does who settles what was refused."""
    mine = wants(40)
    await books.reserve(mine)
    for _ in range(2):
        books.settle(mine, [25])
    refused = wants(1000)
    await books.reserve(refused)
    books.settle(refused, [1000])
    assert await state(books) == Line(line(), START + DAY, 25, 0)


async def test_a_call_may_cost_more_than_it_reserved(books: Books):
    """All of it is counted; then nothing fits any more."""
    mine = wants(40)
    await books.reserve(mine)
    books.settle(mine, [120])
    assert await state(books) == Line(line(), START + DAY, 120, 0)
    assert await books.reserve(wants(1)) == Short(0, 120, 120)
    assert await books.reserve(wants(1, limit=121)) is None, "a raised limit counts at once"


async def test_what_cost_nothing_leaves_nothing(books: Books):
    """A line whose only attempt was not charged is gone."""
    mine = wants(40)
    await books.reserve(mine)
    books.settle(mine, [0])
    assert await state(books) is None


async def test_what_nobody_knows_is_counted_as_such(books: Books):
    """Attempts that were assumed to cost what was reserved, and such of which nothing is known."""
    for amount, spent, how in ((40, 40, "assumed"), (0, 0, "unknown"), (10, 5, "known")):
        mine = wants(amount)
        assert await books.reserve(mine) is None
        books.settle(mine, [spent], [how])
    assert await state(books) == Line(line(), START + DAY, 45, 0, assumed=1, unknown=1)


async def test_an_amount_that_nobody_knows_needs_a_line_that_is_not_used_up(books: Books):
    """Zero is reserved as long as anything is left."""
    mine = wants(100)
    await books.reserve(mine)
    assert await books.reserve(wants(0)) == Short(0, 0, 100)


async def test_periods_are_lines_of_their_own(books: Books, clock: ManualClock):
    """What was spent yesterday takes nothing from today, and is not among the lines any more."""
    mine = wants(100)
    await books.reserve(mine)
    books.settle(mine, [100])
    await state(books)
    clock.now += DAY
    assert await books.reserve(wants(100, start=START + DAY)) is None
    assert [one.id[2] for one in await books.lines()] == [START + DAY]


async def test_a_call_that_outlasts_its_period_is_settled_in_it(books: Books, clock: ManualClock):
    """It reserved in the old period, and that is where it counts."""
    mine = wants(100)
    await books.reserve(mine)
    clock.now += DAY
    await books.reserve(wants(10, start=START + DAY))
    books.settle(mine, [90])
    await state(books)
    assert [(one.id[2], one.spent, one.reserved) for one in await books.lines()] == [(START + DAY, 0, 10)]


async def test_large_amounts_are_exact(books: Books):
    """Millions of dollars in pico-dollars, beyond what a double can tell apart."""
    limit = 4 * 10**18
    mine = wants(limit - 1, limit)
    assert await books.reserve(mine) is None
    assert await books.reserve(wants(2, limit)) == Short(0, 0, limit - 1)
    assert await books.reserve(wants(1, limit)) is None
    books.settle(mine, [limit - 3])
    assert await state(books) == Line(line(), START + DAY, limit - 3, 1)


async def test_a_name_may_have_any_characters(books: Books):
    """Users are called what they are called."""
    odd = ("usd/day/x y/z", '["a\\u0000","Zoë\\"l:"]', START)
    await books.reserve(Reservation(Lines((odd,), (START + DAY,), (10,)), [1]))
    assert [one.id for one in await books.lines()] == [odd]


@pytest.mark.parametrize("seed", range(3))
async def test_in_any_order_nothing_is_exceeded_and_nothing_lost(books: Books, seed: int):
    """Reservations, settlements and cancellations at random: never above the limit, and all of it adds up."""
    rng, limit = random.Random(seed), 1_000
    spent = 0

    async def one() -> None:
        nonlocal spent
        mine = wants(rng.randint(1, 60), limit)
        attempt = asyncio.ensure_future(books.reserve(mine))
        if rng.random() < 0.2:
            await asyncio.sleep(0)
            attempt.cancel()
        try:
            short = await attempt
        except asyncio.CancelledError:
            books.settle(mine, [0])
            return
        if short is not None:
            return
        await asyncio.sleep(rng.random() * 0.01)
        used = rng.choice((0, mine.amounts[0], rng.randint(0, mine.amounts[0])))
        spent += used
        books.settle(mine, [used])

    async def watch() -> None:
        while True:
            found = next((one for one in await books.lines() if one.id == line()), None)
            assert found is None or found.spent + found.reserved <= limit
            await asyncio.sleep(0.002)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(one() for _ in range(150)))
    end = asyncio.get_running_loop().time() + 10
    while True:  # what was cancelled in the middle is given back a moment later
        found = await state(books)
        if found is None or found.reserved == 0 or asyncio.get_running_loop().time() > end:
            break
        await asyncio.sleep(0.01)
    assert not watching.done(), watching.exception()
    watching.cancel()
    assert (0 if found is None else found.spent, 0 if found is None else found.reserved) == (spent, 0)
    assert 0 < spent <= limit
