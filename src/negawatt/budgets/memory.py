"""The books of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from negawatt.budgets import How, Line, LineId, Lines, Reservation, Short
from negawatt.clock import Clock
from negawatt.errors import StoreError

_SWEEP_EVERY = 1000  # new lines, between two looks at those that are not needed any more
_AT_ONCE = 1000  # lines that are read in one go
_KEPT_S = 86_400.0  # after the end of its period: who looks at what was spent yesterday


class Entry:
    """A line, as it changes."""

    __slots__ = ("assumed", "reserved", "spent", "under_way", "unknown", "until")

    def __init__(self, until: int) -> None:
        self.until = until
        self.spent = self.reserved = self.assumed = self.unknown = 0
        self.under_way = 0  # reservations

    @property
    def empty(self) -> bool:
        """True when nothing would be lost with it: a call that cost nothing leaves nothing."""
        return not (self.spent or self.under_way or self.unknown)


class MemoryBooks:
    """Keeps lines as long as the process lives."""

    shared = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[LineId, Entry] = {}
        self._generation = 0  # changes when entries are forgotten: `Lines` then look for theirs anew
        self._new = 0
        self._failed: str | None = None  # why nothing can be reserved

    async def reserve(self, reservation: Reservation) -> Short | None:
        lines, amounts = reservation.lines, reservation.amounts
        if self._failed is not None:
            await self.check()
        if lines.generation != self._generation:
            self._find(lines)
        entries = lines.entries
        for entry, limit, amount in zip(entries, lines.limits, amounts, strict=True):
            held = entry.spent + entry.reserved
            if held + (amount or 1) > limit:
                return Short(entries.index(entry), entry.spent, held)
        for entry, amount in zip(entries, amounts, strict=True):
            entry.reserved += amount
            entry.under_way += 1
        reservation.open = True
        self._changed(lines)
        return None

    def settle(self, reservation: Reservation, spent: Sequence[int], how: Sequence[How] | None = None) -> None:
        if not reservation.open:
            return
        reservation.open = False
        lines = reservation.lines
        if lines.generation != self._generation:
            self._find(lines)
        for entry, amount, reserved in zip(lines.entries, spent, reservation.amounts, strict=True):
            entry.spent += amount  # first: whoever writes it down meanwhile must not see less than there is
            entry.reserved -= reserved
            entry.under_way -= 1
        if how is not None:
            for entry, known in zip(lines.entries, how, strict=True):
                entry.assumed += known == "assumed"
                entry.unknown += known == "unknown"
        self._changed(lines)

    def held(self, line: LineId) -> int:
        entry = self._entries.get(line)
        return 0 if entry is None else entry.spent + entry.reserved

    async def check(self) -> None:
        if self._failed is not None:
            raise StoreError(f"what is reserved cannot be written down: {self._failed}")

    async def lines(self) -> list[Line]:
        now, found = self._clock.time(), []
        for number, (line, e) in enumerate(list(self._entries.items()), 1):
            if e.until > now and not e.empty:
                found.append(Line(line, e.until, e.spent, e.reserved, e.assumed, e.unknown))
            if not number % _AT_ONCE:
                await asyncio.sleep(0)  # calls go before
        return found

    async def close(self) -> None:
        """Nothing is open."""

    def _changed(self, lines: Lines) -> None:
        """For those who write it down."""

    def _find(self, lines: Lines) -> None:
        """Put the entries of *lines* with them, those that are new among them."""
        if self._new >= _SWEEP_EVERY:
            self._sweep()
        found = []
        for line, until in zip(lines.ids, lines.untils, strict=True):
            entry = self._entries.get(line)
            if entry is None:
                entry = self._entries[line] = Entry(until)
                self._new += 1
            found.append(entry)
        lines.entries, lines.generation = found, self._generation

    def _sweep(self) -> None:
        """Forget what nobody needs: users and models may be named by callers, and calls may cost nothing."""
        self._new = 0
        self._generation += 1
        over = self._clock.time() - _KEPT_S
        for line in [line for line, e in self._entries.items() if e.empty or (e.until < over and not e.under_way)]:
            del self._entries[line]
