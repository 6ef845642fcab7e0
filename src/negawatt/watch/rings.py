"""Sliding sums: counts by slot of time, the oldest overwritten by the newest."""

from __future__ import annotations

from collections.abc import Sequence


class Ring:
    """*slots* slots of *slot_s* seconds each, with *width* counts in each.

    A span that is asked for is made of whole slots, the newest under way included: it is up to one slot short.
    """

    def __init__(self, slot_s: float, slots: int, width: int) -> None:
        self.slot_s = slot_s
        self._slots = slots
        self._width = width
        self._numbers = [-1] * slots  # which slot of all time stands in each place
        self._counts: list[list[int] | None] = [None] * slots

    def add(self, at: float, counts: Sequence[int]) -> None:
        """Add *counts* to the slot of the time *at*; what is older than the ring reaches is left out."""
        number = int(at // self.slot_s)
        place = number % self._slots
        if self._numbers[place] > number:
            return
        there = self._counts[place]
        if self._numbers[place] < number or there is None:
            self._numbers[place], self._counts[place] = number, list(counts)
            return
        for i, count in enumerate(counts):
            there[i] += count

    def sums(self, now: float, span_s: float) -> list[int]:
        """Return the sums of the *span_s* seconds up to *now*."""
        last = int(now // self.slot_s)
        return self.between(last - round(span_s / self.slot_s) + 1, last)

    def between(self, first: int, last: int) -> list[int]:
        """Return the sums of the slots numbered *first* to *last*, both included."""
        total = [0] * self._width
        for number, counts in self.filled():
            if first <= number <= last:
                for i, count in enumerate(counts):
                    total[i] += count
        return total

    def filled(self) -> list[tuple[int, list[int]]]:
        """Return (number, counts) of every slot that has been counted in."""
        return [(n, counts) for n, counts in zip(self._numbers, self._counts, strict=True) if counts is not None]
