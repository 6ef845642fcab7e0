"""The books of one process."""

from __future__ import annotations

from collections.abc import Sequence

from negawatt.budgets import Charge, Line, LineId, Reservation, Short
from negawatt.clock import Clock

_SWEEP_EVERY = 1000  # new lines, between two looks at those whose period has ended
_KEPT_S = 86_400.0  # after the end of its period: an attempt may outlast it


class Entry:
    """A line, as it changes."""

    __slots__ = ("assumed", "reserved", "spent", "unknown", "until")

    def __init__(self, until: int) -> None:
        self.until = until
        self.spent = self.reserved = self.assumed = self.unknown = 0


class MemoryBooks:
    """Keeps lines as long as the process lives."""

    shared = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[LineId, Entry] = {}
        self._open: set[str] = set()
        self._new = 0

    async def reserve(self, reservation: Reservation) -> Short | None:
        entries = self._entries
        found = []
        for place, claim in enumerate(reservation.claims):
            entry = entries.get(claim.line)
            if entry is None:
                entry = Entry(claim.until)  # kept once everything fits
            if entry.spent + entry.reserved + (claim.amount or 1) > claim.limit:
                return Short(place, entry.spent, entry.spent + entry.reserved)
            found.append(entry)
        for claim, entry in zip(reservation.claims, found, strict=True):
            if claim.line not in entries:
                self._add(claim.line, entry)
            entry.reserved += claim.amount
            self._changed(claim.line)
        self._open.add(reservation.id)
        return None

    def settle(self, reservation: Reservation, charges: Sequence[Charge]) -> None:
        if reservation.id not in self._open:
            return
        self._open.discard(reservation.id)
        for claim, (amount, how) in zip(reservation.claims, charges, strict=True):
            entry = self._entries.get(claim.line)
            if entry is None:
                continue  # its period is long over
            entry.spent += amount  # first: whoever writes it down meanwhile must not see less than there is
            entry.reserved -= claim.amount
            if how != "known":
                entry.assumed += how == "assumed"
                entry.unknown += how == "unknown"
            if not (entry.spent or entry.reserved or entry.unknown):
                del self._entries[claim.line]  # a call that cost nothing leaves nothing
            self._changed(claim.line)

    def held(self, line: LineId) -> int:
        entry = self._entries.get(line)
        return 0 if entry is None else entry.spent + entry.reserved

    async def lines(self) -> list[Line]:
        now = self._clock.time()
        return [
            Line(line, e.until, e.spent, e.reserved, e.assumed, e.unknown)
            for line, e in self._entries.items()
            if e.until > now
        ]

    async def close(self) -> None:
        """Nothing is open."""

    def _changed(self, line: LineId) -> None:
        """For those who write it down."""

    def _add(self, line: LineId, entry: Entry) -> None:
        self._entries[line] = entry
        self._new += 1
        if self._new >= _SWEEP_EVERY:
            self._new = 0
            over = self._clock.time() - _KEPT_S
            for name in [name for name, one in self._entries.items() if one.until < over and not one.reserved]:
                del self._entries[name]
