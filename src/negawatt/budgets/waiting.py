"""Calls that wait for their budget: in the order of their arrival."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

Whose = tuple[str, str]  # a budget's key, and whose it is: a line of waiting calls outlasts the period


class Turn:
    """A place among those who wait."""

    def __init__(self, others: deque[Turn]) -> None:
        self._others = others
        self._called = asyncio.Event()

    @property
    def first(self) -> bool:
        return self._others[0] is self

    def call(self) -> None:
        self._called.set()

    async def wait(self, most_s: float) -> None:
        """Wait until something has changed, *most_s* seconds at most."""
        waiting = asyncio.ensure_future(self._called.wait())
        try:
            await asyncio.wait({waiting}, timeout=None if most_s == math.inf else most_s)
        finally:
            waiting.cancel()
        self._called.clear()


class Waiting:
    """All who wait, in *lines*: by budget, and none where nobody waits."""

    def __init__(self) -> None:
        self.lines: dict[Whose, deque[Turn]] = {}

    def count(self, whose: Whose) -> int:
        """Return how many wait for this budget."""
        return len(self.lines.get(whose, ()))

    def wake(self, several: Iterable[Whose]) -> None:
        """Something came back to these: whoever waits first may try."""
        if self.lines:
            for whose in several:
                if whose in self.lines:
                    self.lines[whose][0].call()

    @asynccontextmanager
    async def turn(self, whose: Whose) -> AsyncIterator[Turn]:
        """Take the last place, and leave it in the end, whatever happens; then it is the next one's turn."""
        others = self.lines.setdefault(whose, deque())
        mine = Turn(others)
        others.append(mine)
        try:
            yield mine
        finally:
            others.remove(mine)
            if not others:
                del self.lines[whose]
            else:
                others[0].call()
