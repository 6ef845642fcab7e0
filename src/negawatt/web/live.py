"""What is happening: what has changed in the last second, for those who watch.

Nothing is kept, and nothing is worked out, unless somebody watches or has just gone; the ledger is never asked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson

from negawatt.ledger.outcome import Outcome
from negawatt.ledger.rollup_tables import AT_FAULT

WATCHERS = 32
EVERY_S = 1.0
BEAT_S = 15.0
KEPT = 120  # ticks, for those who come back
LINGER_S = 120.0  # for which ticks are made when nobody is left
_NEWEST = 20  # calls in a tick
_CLASSES = 50
_SLICE = 64  # calls that are added up together
_NO_HIT = frozenset({"miss", "bypass"})


class Tick:
    """What calls came to since the last tick. They are added up some at a time: for a call it is one more on a list."""

    def __init__(self) -> None:
        self._waiting: list[Outcome] = []
        self.calls = self.errors = self.hits = self.unpriced = self.cost_pusd = self.baseline_pusd = 0
        self.input_tokens = self.output_tokens = 0
        self.energy_j = self.baseline_energy_j = 0.0
        self.by_class: dict[str, int] = {}
        self.newest: deque[Outcome] = deque(maxlen=_NEWEST)

    def add(self, outcome: Outcome) -> None:
        self._waiting.append(outcome)
        if len(self._waiting) == _SLICE:
            self.fold()

    def fold(self) -> int:
        """Add up what waits; return how many calls there were in all."""
        rows, self._waiting = self._waiting, []
        self.calls += len(rows)
        self.errors += sum([one.ending in AT_FAULT for one in rows])
        self.hits += sum([one.cache not in _NO_HIT for one in rows])
        self.unpriced += sum([one.cost_pusd is None for one in rows])
        self.cost_pusd += sum([one.cost_pusd or 0 for one in rows])
        self.baseline_pusd += sum([one.baseline_cost_pusd or 0 for one in rows])
        self.input_tokens += sum([one.input_tokens or 0 for one in rows])
        self.output_tokens += sum([one.output_tokens or 0 for one in rows])
        self.energy_j += sum([one.energy_j or 0.0 for one in rows])
        self.baseline_energy_j += sum([one.baseline_energy_j or 0.0 for one in rows])
        for name, calls in Counter([one.request_class for one in rows]).items():
            if name in self.by_class or len(self.by_class) < _CLASSES:
                self.by_class[name] = self.by_class.get(name, 0) + calls
        self.newest.extend(rows)
        return self.calls

    def told(self, at_s: float, in_flight: int) -> bytes:
        """Return the tick as JSON, newest call first."""
        return orjson.dumps({
            "at_s": at_s, "calls": self.calls, "errors": self.errors, "hits": self.hits, "unpriced": self.unpriced,
            "cost_usd": self.cost_pusd / 1e12, "baseline_usd": self.baseline_pusd / 1e12,
            "input_tokens": self.input_tokens, "output_tokens": self.output_tokens,
            "energy_wh": self.energy_j / 3600, "baseline_energy_wh": self.baseline_energy_j / 3600,
            "in_flight": in_flight, "by_class": self.by_class, "newest": [_call(o) for o in reversed(self.newest)],
        })  # fmt: skip


def _call(outcome: Outcome) -> dict[str, Any]:
    cost = outcome.cost_pusd
    return {
        "id": outcome.id, "received_s": outcome.received_at, "class": outcome.request_class, "tenant": outcome.tenant,
        "model": outcome.response_model or outcome.request_model, "ending": outcome.ending, "cache": outcome.cache,
        "cost_usd": None if cost is None else cost / 1e12, "duration_ms": outcome.duration_s * 1e3,
    }  # fmt: skip


class Live:
    """Give `seen` to the meter's observers, and iterate over `watch` for events. *clock*: seconds since 1970."""

    def __init__(
        self, clock: Callable[[], float], in_flight: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._in_flight = in_flight
        self._sleep = sleep
        self._epoch = secrets.token_hex(4)  # another process's numbers mean nothing here
        self._tick: Tick | None = None  # None: nobody watches, and nothing is added up
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._number = 0
        self._watching: set[asyncio.Event] = set()
        self._left_s = 0.0  # when the last watcher went
        self._first = asyncio.Event()  # there is something to tell
        self._ticking: asyncio.Task[None] | None = None
        self.closing = False

    @property
    def watchers(self) -> int:
        return len(self._watching)

    def seen(self, outcome: Outcome) -> None:
        """A row was written."""
        tick = self._tick
        if tick is not None:
            tick.add(outcome)
            self._first.set()

    def close(self) -> None:
        """Say goodbye to all."""
        self.closing = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._wake()

    async def watch(self, last: str | None) -> AsyncGenerator[bytes, None]:
        """Give server-sent events, as they happen; a heartbeat where nothing does. *last*: id of the last one had."""
        wake = asyncio.Event()
        had = self._number
        lines = [b"retry: 3000\n\n"]
        missed = self._after(last)
        self._begin(wake)
        try:
            hello = {"at_s": self._clock(), "in_flight": self._in_flight(), "watchers": self.watchers}
            lines.append(self._event("hello", had, orjson.dumps(hello)))
            if missed is None:
                lines.append(self._event("reset", had, b"{}"))
            else:
                lines += [self._event("tick", number, data) for number, data in missed]
            yield b"".join(lines)
            while not self.closing:
                try:
                    await asyncio.wait_for(wake.wait(), BEAT_S)
                except TimeoutError:
                    yield b": beat\n\n"
                    continue
                wake.clear()
                fresh = [(number, data) for number, data in self._kept if number > had]
                if fresh:
                    had = fresh[-1][0]
                    yield b"".join(self._event("tick", number, data) for number, data in fresh)
            yield self._event("bye", had, b"{}")
        finally:
            self._watching.discard(wake)
            self._left_s = self._clock()

    def _after(self, last: str | None) -> list[tuple[int, bytes]] | None:
        """Return the ticks after the one with the id *last*; None where they are not all there any more."""
        if last is None:
            return []
        epoch, _, number = last.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        if self._tick is None or int(number) > self._number:
            return None  # there was a time at which nothing was added up
        fresh = [one for one in self._kept if one[0] > int(number)]
        return fresh if len(fresh) == self._number - int(number) else None

    def _event(self, kind: str, number: int, data: bytes) -> bytes:
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (self._epoch.encode(), number, kind.encode(), data)

    def _begin(self, wake: asyncio.Event) -> None:
        self._watching.add(wake)
        if self._tick is None:
            self._tick = Tick()
            self._kept.clear()
            self._ticking = asyncio.create_task(self._run(), name="negawatt-live")

    async def _run(self) -> None:
        """Make a tick each second in which there was a call, until nobody has watched for a while."""
        while self._watching or self._clock() - self._left_s < LINGER_S:
            try:
                await asyncio.wait_for(self._first.wait(), LINGER_S)
            except TimeoutError:
                continue
            await self._sleep(EVERY_S)
            self._first.clear()
            tick, self._tick = self._tick, Tick()
            if tick is not None and tick.fold():
                self._number += 1
                self._kept.append((self._number, tick.told(self._clock(), self._in_flight())))
                self._wake()
        self._tick = None

    def _wake(self) -> None:
        for wake in self._watching:
            wake.set()
