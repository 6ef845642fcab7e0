"""Turns: of the replicas on one store, one at a time makes what belongs under a key, and the others wait for it.

Within a process equal calls share one call already (`coalesce`), so each process takes one turn for all its calls.
Nobody waits longer than the bound: whoever made it may have died, or keep nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from negawatt.errors import StoreError
from negawatt.stores import Store

log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.01  # between two looks; grows by half each time
_LONGEST_PAUSE_S = 0.25

Look = Callable[[], Awaitable[bool]]
Spawn = Callable[[Awaitable[None]], "asyncio.Task[None]"]


class Turn:
    """What one process does about one key: it asks for the right to make it, and has it or goes on without."""

    __slots__ = ("calls", "found", "key", "problem", "ready", "token", "waited")

    def __init__(self, key: str) -> None:
        self.key = key
        self.calls = 0  # that take part in it
        self.token: str | None = None  # the right, where this process has it
        self.found = False  # somebody else has made it meanwhile
        self.waited = False  # for somebody else
        self.problem: str | None = None  # of the store
        self.ready: asyncio.Task[None] | None = None  # done when there is nothing more to wait for

    @property
    def over(self) -> bool:
        return self.ready is not None and self.ready.done()

    @property
    def in_vain(self) -> str:
        """Why one who has waited must ask after all."""
        if self.problem is not None:
            return f"the store failed: {self.problem}"
        asks = "another replica is still asking"
        return asks if self.token is None else "another replica asked, and nothing came of it in time"

    async def wait(self, most_s: float) -> None:
        """Wait until there is nothing more to wait for, at most *most_s*. Safe to cancel."""
        if self.ready is not None:
            await asyncio.wait({self.ready}, timeout=most_s)


class Turns:
    """The turns of this process, by key."""

    def __init__(self, store: Store, *, most_s: float, spawn: Spawn) -> None:
        """A right that was taken lapses after *most_s*, because nobody waits longer."""
        self._store = store
        self._most_s = most_s
        self._spawn = spawn
        self._turns: dict[str, Turn] = {}

    def enter(self, key: str, look: Look) -> Turn:
        """Take part in the turn of *key*. It is over once this process has the right, or *look* found the thing made.

        Must be followed by `leave`.
        """
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = Turn(key)
            turn.ready = self._spawn(self._acquire(turn, look))
        turn.calls += 1
        return turn

    def leave(self, turn: Turn) -> None:
        """Take part no more. The last one gives the right back, however its call ended."""
        turn.calls -= 1
        if turn.calls == 0 and turn.over:
            self._end(turn)

    async def _acquire(self, turn: Turn, look: Look) -> None:
        """Ask for the right until there is no more need of it. A task of its own: whoever leaves, others wait on."""
        now = asyncio.get_running_loop().time
        until, pause_s = now() + self._most_s, _FIRST_PAUSE_S
        try:
            while turn.calls:
                turn.token = await self._store.claim(turn.key, ttl_s=self._most_s)
                # Looked for afterwards: it may have been made, and the right given back, a moment before.
                turn.found = await look()
                left_s = until - now()
                if turn.token is not None or turn.found or left_s <= 0:
                    return
                turn.waited = True
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        except StoreError as error:
            turn.problem = error.message
        finally:
            if turn.calls == 0:
                self._end(turn)

    def _end(self, turn: Turn) -> None:
        del self._turns[turn.key]
        if turn.token is not None:
            self._spawn(self._release(turn.key, turn.token))

    async def _release(self, key: str, token: str) -> None:
        try:
            await self._store.release(key, token)
        except StoreError as error:
            log.info("the right to make %s was not given back, and lapses: %s", key[:12], error.message)
