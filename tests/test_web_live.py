"""What is told to those who watch, and that nothing is done when nobody does."""

from __future__ import annotations

import asyncio

import orjson
from report_world import a_row

from negawatt.web.live import KEPT, Live


class World:
    """A live view whose second is over when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.second = asyncio.Event()
        self.live = Live(lambda: self.now, lambda: 3, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.second.clear()
        await self.second.wait()
        self.now += seconds

    async def tick(self) -> None:
        """Let the second be over, and the tick be made."""
        before = self.live._number
        while self.live._number == before:
            self.second.set()
            await asyncio.sleep(0)


def events(data: bytes) -> list[tuple[str, str, dict]]:
    found = []
    for part in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], fields["id"], orjson.loads(fields["data"])))
    return found


async def test_nothing_is_added_up_for_nobody():
    """No task, no sums, until somebody watches."""
    world = World()
    world.live.seen(a_row(0))
    assert world.live._tick is None and world.live._ticking is None


async def test_a_second_of_calls_is_one_tick():
    """Sums, classes and the newest calls, the newest first; then silence until there is a call again."""
    world = World()
    watch = world.live.watch(None)
    [(kind, _, hello)] = events(await anext(watch))
    assert kind == "hello" and hello == {"at_s": 1000.0, "in_flight": 3, "watchers": 1}
    for i in range(30):
        world.live.seen(a_row(i, request_class="a" if i % 3 else "b", cache="exact" if i % 2 else "miss"))
    world.live.seen(a_row(30, cost_pusd=None, ending="failed"))
    waiting = asyncio.ensure_future(anext(watch))
    await world.tick()
    [(kind, _, told)] = events(await waiting)
    assert kind == "tick"
    assert (told["calls"], told["errors"], told["hits"], told["unpriced"]) == (31, 1, 15, 1)
    assert told["by_class"] == {"a": 20, "b": 10, "default": 1}
    assert [call["id"] for call in told["newest"]] == [f"call-{i}" for i in range(30, 10, -1)]
    assert told["cost_usd"] == 0.03
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    world.live.close()
    assert [kind for kind, _, _ in events(await waiting)] == ["bye"]
    assert [one async for one in watch] == []


async def test_however_many_calls_a_second_has_its_tick_has_them_all():
    """They are added up some at a time, and what is left over when the second is over counts as well."""
    world = World()
    watch = world.live.watch(None)
    await anext(watch)
    for i in range(200):
        world.live.seen(a_row(i, request_class=f"class-{i % 60}", input_tokens=2, output_tokens=None, energy_j=18.0))
    waiting = asyncio.ensure_future(anext(watch))
    await world.tick()
    [(_, _, told)] = events(await waiting)
    assert (told["calls"], told["input_tokens"], told["output_tokens"], told["energy_wh"]) == (200, 400, 0, 1.0)
    assert [call["id"] for call in told["newest"]] == [f"call-{i}" for i in range(199, 179, -1)]
    assert told["by_class"] == {f"class-{n}": 4 if n < 20 else 3 for n in range(50)}, "the first fifty, in full"
    world.live.close()
    await watch.aclose()


async def test_who_comes_back_hears_what_they_missed():
    """By the id of the last event; a reset where that is too long ago, or of another process."""
    world = World()
    watch = world.live.watch(None)
    await anext(watch)
    last = ""
    for i in range(KEPT + 5):
        world.live.seen(a_row(i))
        waiting = asyncio.ensure_future(anext(watch))
        await world.tick()
        [(_, last, _)] = events(await waiting)
        if i == KEPT - 3:
            recent = last
        if i == 2:
            old = last
    back = world.live.watch(recent)
    told = events(await anext(back))
    assert [kind for kind, _, _ in told] == ["hello"] + ["tick"] * 7
    assert told[-1][1] == last
    for stranger in (old, "0000-3", "junk", f"{last.partition('-')[0]}-999999"):
        other = world.live.watch(stranger)
        assert [kind for kind, _, _ in events(await anext(other))] == ["hello", "reset"]
        await other.aclose()
    await back.aclose()
    await watch.aclose()
    assert world.live.watchers == 0
    world.live.close()


async def test_a_watcher_who_does_not_read_holds_nothing_up():
    """What it has not read is in the common memory of two minutes, and nowhere else."""
    world = World()
    slow, quick = world.live.watch(None), world.live.watch(None)
    await anext(slow)
    await anext(quick)
    for i in range(KEPT * 2):
        world.live.seen(a_row(i))
        waiting = asyncio.ensure_future(anext(quick))
        await world.tick()
        await waiting
    assert len(world.live._kept) == KEPT
    assert len(events(await anext(slow))) == KEPT
    for watch in (slow, quick):
        await watch.aclose()
    world.live.close()
