"""Replicas on one store: equal calls that miss on several at once make one call upstream, and nobody waits for long."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from worlds import (
    CLASSES,
    SAID,
    Chunks,
    Fake,
    World,
    answer,
    cached,
    chat,
    chunks_of,
    decisions,
    ended,
    start,
    virtual,
    world,
)

from negawatt.errors import StoreError, UpstreamStatus
from negawatt.proof.virtual import VirtualClock
from negawatt.registry import STORES, open_backend
from negawatt.stores.memory import MemoryStore

MOST_S = 10.0  # that a call waits for others, unless told otherwise
A_LOOK_S = 0.25  # the longest pause between two looks


class SharedStore(MemoryStore):
    """A store in memory that replicas share; the calls to it that take or give a right are counted."""

    shared = True

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.claimed: Counter[str] = Counter()
        self.broken = False

    async def get(self, key: str) -> bytes | None:
        if self.broken:
            raise StoreError("the server is gone")
        return await super().get(key)

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        if self.broken:
            raise StoreError("the server is gone")
        self.claimed[key] += 1
        return await super().claim(key, ttl_s=ttl_s)

    async def close(self) -> None:
        """Others use it still."""


Replicas = Callable[..., Any]


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Replicas:
    """Opens two gateways on one store: ``async with replicas(delay_s=...) as (one, other, store)``."""

    @asynccontextmanager
    async def opened(
        delay_s: float = 4.0, shared: bool = True, **tables: Any
    ) -> AsyncIterator[tuple[World, World, SharedStore]]:
        store = SharedStore(VirtualClock(asyncio.get_running_loop(), 0.0))
        store.shared = shared

        def backend(table: Any, *more: Any, **fields: Any) -> Any:
            return store if table is STORES else open_backend(table, *more, **fields)

        monkeypatch.setattr("negawatt.gateway.open_backend", backend)
        async with world(Fake(delay_s=delay_s), **tables) as one, world(Fake(delay_s=delay_s), **tables) as other:
            yield one, other, store
            await asyncio.sleep(MOST_S)
            assert not store._claims or not shared, "a right was not given back"
            for w in (one, other):
                assert not turns_of(w), "a turn was not left"

    return opened


def turns_of(w: World) -> Any:
    [cache] = [step.lever for step in w.gateway.pipeline._steps if step.name == "exact_cache"]
    return cache._turns and cache._turns._turns  # type: ignore[attr-defined]


def now() -> float:
    return asyncio.get_running_loop().time()


def noted(row: Any) -> list[tuple[str, str | None]]:
    return [(d["action"], d.get("reason")) for d in decisions(row, "exact_cache")]


@virtual
async def test_equal_misses_on_two_replicas_are_one_call(replicas: Replicas):
    """Ten on each: one is answered, nine share its flight, ten find what it stored; and they say for how long."""
    async with replicas() as (one, other, _):
        calls = [start(one) for _ in range(10)]
        await asyncio.sleep(0.5)
        calls += [start(other) for _ in range(10)]
        answers = await ended(*calls)
        assert {a.text for a in answers} == {"an answer"}
        assert (one.calls, other.calls) == (1, 0)
        assert Counter(row.ending for row in one.rows()) == {"answered": 1, "coalesced": 9}
        for row in other.rows():
            [hit] = decisions(row, "exact_cache")
            assert (row.ending, row.cache, hit["action"], hit["detail"]["shared"]) == ("cached", "exact", "hit", True)
            assert 3.5 <= row.queue_s <= 3.5 + A_LOOK_S and row.overhead_s == 0
            assert hit["detail"]["waited_s"] == pytest.approx(row.queue_s, abs=1e-3)
            assert row.baseline_cost_pusd == one.rows()[0].baseline_cost_pusd > row.cost_pusd == 0


@virtual
async def test_calls_that_differ_do_not_wait_for_each_other(replicas: Replicas):
    """Another question, another tenant's permissions: another key, another turn."""
    async with replicas() as (one, other, _):
        calls = [start(one), start(other, chat("other")), start(other, permissions="p")]
        await ended(*calls)
        assert (one.calls, other.calls) == (1, 2)
        assert {row.queue_s for row in (*one.rows(), *other.rows())} == {0}


@virtual
async def test_nobody_waits_longer_than_the_bound(replicas: Replicas):
    """An answer that takes a minute: after ten seconds the other replica asks too, once for all its calls."""
    async with replicas(delay_s=60) as (one, other, _):
        first, began = start(one), now()
        waiting = [start(other) for _ in range(5)]
        await ended(*waiting)
        assert now() - began == pytest.approx(MOST_S + 60, abs=A_LOOK_S)
        assert (one.calls, other.calls) == (1, 1)
        for row in other.rows():
            assert row.queue_s >= MOST_S
            [(action, reason)] = [one for one in noted(row) if one[0] == "miss"]
            assert (action, reason) in {
                ("miss", "another replica is still asking"),
                ("miss", "another replica asked, and nothing came of it in time"),
            }
        await ended(first)


@virtual
async def test_the_bound_is_a_setting(replicas: Replicas):
    """Three seconds, as the configuration says."""
    async with replicas(delay_s=60, levers=cached(wait_for_others_s=3)) as (one, other, _):
        first, began = start(one), now()
        await ended(start(other))
        assert now() - began == pytest.approx(63, abs=A_LOOK_S)
        await ended(first)


@virtual
async def test_half_of_the_deadline_is_for_asking_oneself(replicas: Replicas):
    """One who has 8 seconds waits 4 of them, and is answered in the others."""
    async with replicas(delay_s=60) as (one, other, _):
        other.provider.delay_s = 3
        first, began = start(one), now()
        assert [a.text for a in await ended(start(other, deadline_ms="8000"))] == ["an answer"]
        assert now() - began == pytest.approx(7, abs=0.01)
        await ended(first)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ([UpstreamStatus(500, b"{}", {})], "an error"),
        ([answer("cut", choices=[{"index": 0, "message": {"role": "assistant", "content": "c"},
                                  "finish_reason": "length"}])], "not worth keeping"),
    ],
)  # fmt: skip
@virtual
async def test_what_comes_to_nothing_lets_the_next_one_ask(replicas: Replicas, script: list[Any], how: str):
    """An error, or an answer that is not kept: the right is given back at once, and the other replica asks."""
    async with replicas() as (one, other, _):
        one.provider.script = script
        first, began = start(one), now()
        await asyncio.sleep(0.1)
        assert (await other.ask()).text == "an answer"
        assert now() - began <= 4 + A_LOOK_S + 4
        assert (one.calls, other.calls) == (1, 1)
        assert noted(other.rows()[0]) == [("miss", "another replica asked, and nothing came of it in time")]
        await ended(first)


@virtual
async def test_a_hang_up_lets_the_next_one_ask(replicas: Replicas):
    """The only caller leaves in the middle: the other replica does not wait for what nobody makes any more."""
    async with replicas(delay_s=8) as (one, other, _):
        first, began = start(one), now()
        second = start(other)
        await asyncio.sleep(1)
        first.cancel()
        await ended(first, second)
        assert (await second).text == "an answer"
        assert now() - began <= 1 + A_LOOK_S + 8
        assert (one.calls, other.calls) == (1, 1)


@virtual
async def test_the_first_caller_may_leave_while_others_share_its_call(replicas: Replicas):
    """The right belongs to the process: it is held as long as one of its callers waits for the answer."""
    async with replicas() as (one, other, _):
        first, second, third = start(one), start(one), start(other)
        await asyncio.sleep(1)
        first.cancel()
        await ended(first, second, third)
        assert [a.text for a in (await second, await third)] == ["an answer"] * 2
        assert (one.calls, other.calls) == (1, 0)


@virtual
async def test_one_who_waits_may_leave_and_the_others_wait_on(replicas: Replicas):
    """Whoever began the waiting; the row of the one who left says that it was waiting."""
    async with replicas() as (one, other, _):
        first = start(one)
        waiting = [start(other) for _ in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        await ended(first, *waiting)
        assert [a.text for a in (await waiting[1], await waiting[2])] == ["an answer"] * 2
        assert (one.calls, other.calls) == (1, 0)
        [left] = [row for row in other.rows() if row.ending != "cached"]
        assert (left.queue_s, left.overhead_s) == (1, 0)


@virtual
async def test_a_replica_that_died_holds_nobody_up_for_long(replicas: Replicas):
    """Its right lapses, at the latest when the wait is over; the next call does not wait at all."""
    async with replicas(delay_s=1) as (one, other, store):
        await one.ask()
        [key] = store._items
        await store.delete(key)
        assert await store.claim(key, ttl_s=MOST_S)  # and never heard of again
        began = now()
        await other.ask()
        assert now() - began <= MOST_S + A_LOOK_S + 1
        await store.delete(key)
        began = now()
        await other.ask()
        assert now() - began == 1


@virtual
async def test_asking_for_the_right_ends_with_the_waiting(replicas: Replicas):
    """Somebody keeps it for ten minutes: the store is asked some fifty times, and then left alone."""
    async with replicas(delay_s=60) as (one, other, store):
        first = start(one)
        await asyncio.sleep(1)
        [key] = store._claims
        store._claims[key] = ("theirs", store._clock.monotonic() + 600)
        await ended(start(other))
        assert store.claimed.total() < 100
        assert noted(other.rows()[0])[0] == ("miss", "another replica is still asking")
        await store.release(key, "theirs")
        await ended(first)


@virtual
async def test_streams_do_not_wait(replicas: Replicas):
    """Nothing of one could be sent before the other's answer was whole: first bytes come as soon as without it."""
    async with replicas() as (one, other, _):
        first, began = start(one), now()
        await asyncio.sleep(1)
        streamed = await other.ask(chat(stream=True))
        assert (streamed.by, one.calls, other.calls) == ("provider", 1, 1)
        assert other.rows()[0].queue_s == 0
        assert other.rows()[0].time_to_first_chunk_s == pytest.approx(4, abs=1)
        await ended(first)
        assert began < now()


@virtual
async def test_whole_answers_wait_for_a_stream(replicas: Replicas):
    """What another replica streams is stored whole: it serves those who can wait for the whole of it."""
    async with replicas() as (one, other, _):
        one.provider.script = [Chunks(chunks_of(answer(SAID)), every_s=0.1)]
        first = start(one, chat(stream=True))
        await asyncio.sleep(1)
        assert (await other.ask()).text == SAID
        assert (one.calls, other.calls) == (1, 0)
        await ended(first)


@pytest.mark.parametrize(
    ("shared", "tables", "hints"),
    [
        (False, {}, {}),
        (True, {"levers": cached(wait_for_others_s=0)}, {}),
        (True, {"levers": cached(mode="shadow")}, {}),
        (True, {"levers": {**cached(), "coalesce": {"mode": "off"}}}, {}),
        (True, {"levers": {**cached(), "coalesce": {"mode": "shadow"}}}, {}),
        (True, {"levers": {**cached(), "coalesce": {"when": "never"}}}, {}),
        (True, {"levers": cached(access="read_only")}, {}),
        (True, {}, {"mode": "shadow"}),
        (True, {}, {"mode": "off"}),
        (True, {}, {"cache_control": "no-cache"}),
        (True, {}, {"cache_control": "no-store"}),
        (True, {"classes": CLASSES}, {"request_class": "never"}),
        (True, {"holdout": {"share": 1}}, {}),
    ],
)
@virtual
async def test_who_would_not_share_does_not_wait(
    replicas: Replicas, shared: bool, tables: dict[str, Any], hints: dict[str, str]
):
    """A store of its own, the setting 0, shadow, no coalescing, nothing kept, the caller's word: no right is taken."""
    async with replicas(shared=shared, **tables) as (one, other, store):
        began = now()
        await ended(start(one, **hints), start(other, **hints))
        assert now() - began == pytest.approx(4, abs=0.01)
        assert (one.calls, other.calls) == (1, 1)
        assert store.claimed == {}
        assert {row.queue_s for row in (*one.rows(), *other.rows())} == {0}


@virtual
async def test_a_store_that_fails_meanwhile_ends_the_waiting(replicas: Replicas):
    """The call is asked at once; the row says what failed."""
    async with replicas() as (one, other, store):
        first = start(one)
        second = start(other)
        await asyncio.sleep(1)
        store.broken = True
        await ended(second)
        assert (await second).by == "provider"
        assert noted(other.rows()[0])[0] == ("miss", "the store failed: the server is gone")
        assert other.rows()[0].duration_s <= 1 + A_LOOK_S + 4
        store.broken = False
        await ended(first)


@virtual
async def test_what_is_stored_between_the_look_and_the_turn_is_found(replicas: Replicas):
    """The right was given back a moment ago: having it is no reason to ask for what is there by now."""
    async with replicas(delay_s=1) as (one, other, store):
        await one.ask()
        [(key, item)] = store._items.items()
        await store.delete(key)
        take = store.claim

        async def claim(wanted: str, *, ttl_s: float) -> str | None:
            await store.put(key, item.value, ttl_s=100)
            return await take(wanted, ttl_s=ttl_s)

        store.claim = claim  # type: ignore[method-assign]
        assert (await other.ask()).by == "exact_cache"
        assert other.calls == 0
