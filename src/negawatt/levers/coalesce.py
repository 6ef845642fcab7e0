"""coalesce: equal calls in flight share one call upstream, whole or streamed.

The first of them starts the flight; whoever asks the same while it lasts joins it. Whoever leaves, the first
included, leaves the others alone; when the last one has left, the call upstream is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from negawatt.call import Call, Saved
from negawatt.config import Coalesce as Settings
from negawatt.config import RequestClass
from negawatt.errors import BudgetExceeded, UpstreamBroken
from negawatt.keys import key_of, missing_scope
from negawatt.pipeline import Handler
from negawatt.reply import Burst, Reply

NAME = "coalesce"
_MOST_BEHIND = 8


class Coalesce:
    """Keeps the flights that are under way, by key (`negawatt.keys`: never across tenants or permissions)."""

    def __init__(self, settings: Settings, classes: Mapping[str, RequestClass]) -> None:
        self._settings = settings
        self._classes = classes
        self._flights: dict[tuple[str, bool], Flight] = {}

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        reason = self._objection(call)
        if reason is not None:
            call.note(NAME, "bypass", reason)
            return await forward(call)
        key = (key_of(call), call.shadow)
        flight = self._flights.get(key)
        if flight is not None and flight.joinable:
            try:
                return await self._join(call, flight)
            except BudgetExceeded:
                if call.caller == flight.call.caller:
                    raise
                call.note(NAME, "bypass", "the budget of the first who asked is used up")
                return await forward(call)
        flight = Flight(call, self._settings.max_buffer_bytes)
        self._flights[key] = flight
        flight.on_over = lambda: self._forget(key, flight)
        flight.take_off(forward)
        return await flight.board()

    async def _join(self, call: Call, flight: Flight) -> Reply:
        clock = call.trail.clock
        began = clock.monotonic()
        call.note(NAME, "joined", detail={"call_id": flight.call.id})
        try:
            reply = await flight.board()
        finally:
            if not call.shadow:
                call.trail.waited_s += clock.monotonic() - began
        reply.answered_by = NAME
        if reply.streamed:
            boarded = clock.monotonic()
            reply.on_end(lambda ended: flight.add_wait(call, boarded))
        reply.on_read(lambda read: flight.credit(call))
        return reply

    def shares(self, call: Call) -> bool:
        """True for calls that join an equal one in flight."""
        return self._objection(call) is None

    def _objection(self, call: Call) -> str | None:
        policy = self._classes.get(call.request_class)
        when = self._settings.when
        if when == "never" or (policy is not None and policy.cache == "never"):
            return "not for this class"
        if call.hints.cache_control is not None:
            words = call.hints.cache_control.lower()
            if "no-cache" in words or "no-store" in words:
                return "the caller wants an answer of its own"
        missing = missing_scope(policy, call.scope)
        if missing is not None:
            return missing
        if when == "always" or (policy is not None and policy.cache == "always"):
            return None
        if when == "deterministic" and not call.wire.deterministic(call.request):
            return "not deterministic: temperature is not 0"
        if call.wire.sampled(call.request):
            return "the caller asked for draws of its own"
        return None

    def _forget(self, key: tuple[str, bool], flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class Flight:
    """One call upstream, and those who wait for it."""

    def __init__(self, call: Call, max_buffer_bytes: int) -> None:
        self.call = call  # the first caller's: its row bears the cost
        self.on_over: Any = None
        self._max_buffer_bytes = max_buffer_bytes
        self._task: asyncio.Task[Reply] | None = None
        self._origin: Reply | None = None
        self._bursts: list[Burst] = []
        self._first = 0  # position of the first burst that is still kept
        self._bytes = 0  # of all bursts so far
        self._kept = 0  # of those that are still kept
        self._passengers: set[Passenger] = set()
        self._aboard = 0
        self._over = False
        self._puller: asyncio.Future[None] | None = None

    @property
    def joinable(self) -> bool:
        """True while what has come is still there in full, to be read from its beginning."""
        return not self._over and self._bytes <= self._max_buffer_bytes

    def take_off(self, forward: Handler) -> None:
        self._task = asyncio.ensure_future(forward(self.call))
        self._task.add_done_callback(self._arrived)

    async def board(self) -> Reply:
        """Wait for the answer to begin and return a Reply of one's own. Raises what the call upstream raised."""
        assert self._task is not None
        self._aboard += 1
        try:
            origin = await asyncio.shield(self._task)
        except BaseException:
            self._leave()
            raise
        self._origin = origin  # who boards a moment after it arrived is here before its callback
        if not origin.streamed:
            reply = Reply(self.call.wire, body=origin.body)
            reply._data = origin._data
        else:
            passenger = Passenger(self)
            self._passengers.add(passenger)
            reply = Reply(self.call.wire, source=passenger, folder=origin.folder)
            reply.on_end(lambda _: self._passengers.discard(passenger))
        reply.status, reply.headers, reply.answered_by = origin.status, origin.headers, origin.answered_by
        reply.on_end(lambda _: self._leave())
        return reply

    def add_wait(self, call: Call, since: float) -> None:
        """Count on *call* the time from *since* on for which the shared answer was still coming."""
        if not call.shadow:
            attempts = self.call.trail.attempts
            ended = attempts[-1].ended if attempts else None
            call.trail.waited_s += max(0.0, (call.trail.clock.monotonic() if ended is None else ended) - since)

    def credit(self, call: Call) -> None:
        """Note on *call* what the shared call spared it, once that is known."""
        attempt = self.call.trail.answered
        if attempt is None or attempt.usage is None:
            attempt = next((one for one in reversed(self.call.trail.attempts) if one.usage is not None), None)
        if attempt is None or any(d.lever == NAME and d.saved is not None for d in call.trail.decisions):
            return
        assert attempt.usage is not None
        spent = None if attempt.ended is None else attempt.ended - attempt.started
        saved = Saved(
            usage=attempt.usage, model=attempt.target.model, provider=attempt.target.provider, upstream_s=spent,
            basis=attempt.usage.basis,
        )  # fmt: skip
        call.note(NAME, "shared", saved=saved, detail={"call_id": self.call.id})

    async def burst(self, position: int) -> Burst:
        """Return the burst at *position*, reading on if nobody has come so far yet. Safe to cancel.

        The fastest reader sets the pace; whoever waits takes over when the one who reads leaves.
        """
        while position >= self._first + len(self._bursts):
            if self._origin is None or self._origin.finished:
                raise StopAsyncIteration
            if self._origin.error is not None:
                raise self._origin.error
            if self._puller is None:
                await self._pull(self._origin)
            else:
                await asyncio.shield(self._puller)
        if position < self._first:
            raise UpstreamBroken("this reader fell so far behind the others that its place in the answer is gone")
        burst = self._bursts[position - self._first]
        if not self.joinable:
            self._trim(position)
        return burst

    def _trim(self, position: int) -> None:
        """Let go of what everybody aboard has read, now that nobody can join any more.

        The fastest sets the pace, so one who stands still would make us keep the rest of the answer: whoever is
        behind by more than `_MOST_BEHIND` buffers loses their place.
        """
        slowest = min((p.position for p in self._passengers), default=position)
        if len(self._passengers) < self._aboard:  # somebody has not sat down yet
            slowest = self._first
        most = _MOST_BEHIND * self._max_buffer_bytes
        while self._first < slowest or (self._kept > most and self._first < position):
            self._kept -= sum(len(chunk.raw) for chunk in self._bursts.pop(0))
            self._first += 1

    async def _pull(self, origin: Reply) -> None:
        self._puller = asyncio.get_running_loop().create_future()
        try:
            burst = await origin.__anext__()
            self._bursts.append(burst)
            for chunk in burst:
                chunk.forget()
                self._bytes += len(chunk.raw)
                self._kept += len(chunk.raw)
        except StopAsyncIteration:
            if not origin.finished:
                origin.error = UpstreamBroken("the answer broke off before its end")
            await self._end()
        except Exception:
            await self._end()
            raise
        finally:
            self._puller.set_result(None)
            self._puller = None

    def _arrived(self, task: asyncio.Task[Reply]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._land()
            return
        self._origin = task.result()
        if not self._origin.streamed:
            self._land()
            self._origin.settle()
        elif self._aboard == 0:
            asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        self._land()
        if self._origin is not None:
            await self._origin.close()

    def _land(self) -> None:
        if not self._over:
            self._over = True
            told, self.on_over = self.on_over, None  # it holds this flight: let go of, no collector has to part them
            told()

    def _leave(self) -> None:
        self._aboard -= 1
        if self._aboard == 0 and not self._over:
            self._land()
            if self._origin is not None:
                asyncio.ensure_future(self._origin.close())
            elif self._task is not None:
                self._task.cancel()


class Passenger:
    """One reader's place in a flight; a `negawatt.reply.Source`."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self.position = 0

    async def __anext__(self) -> Burst:
        burst = await self._flight.burst(self.position)
        self.position += 1
        return burst

    async def aclose(self) -> None:
        """Nothing to do: leaving the flight is what the reply's end does."""
