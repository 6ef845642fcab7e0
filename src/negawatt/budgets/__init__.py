"""Budgets: what an attempt at a provider may cost is reserved before it and settled after it.

All amounts are whole numbers in the smallest unit of their budget: tokens, pico-dollars, millijoules. A *line* is one
budget for one value (a user, a key, ...) in one period; `Books` keep the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

LineId = tuple[str, str, int]  # the budget's key, whose it is, and when the period begins (seconds since 1970)


class Lines:
    """The lines that pay for an attempt: of each its id, when its period ends (seconds since 1970), and its limit."""

    __slots__ = ("entries", "generation", "ids", "limits", "untils")

    def __init__(self, ids: tuple[LineId, ...], untils: tuple[int, ...], limits: tuple[int, ...]) -> None:
        self.ids = ids
        self.untils = untils
        self.limits = limits
        self.entries: Sequence[Any] = ()  # what the books keep with them, so long as
        self.generation = -1  # it is of this generation


class Short(NamedTuple):
    """The first line, by its place, that has not enough left; nothing was reserved."""

    place: int
    spent: int
    held: int  # spent and reserved


How = Literal["known", "assumed", "unknown"]
"""How an amount that was spent is known: assumed is what was reserved; unknown, that nothing can be said."""


class Reservation:
    """What one attempt may cost each of its lines, until it is settled.

    An amount of 0: nobody knows, and it is let through as long as anything is left.
    """

    __slots__ = ("amounts", "id", "lines", "open")

    def __init__(self, lines: Lines, amounts: Sequence[int]) -> None:
        self.lines = lines
        self.amounts = amounts
        self.open = False  # it was reserved, and is not settled
        self.id = ""  # given by books that are shared


class Line(NamedTuple):
    """The state of one line. *assumed* and *unknown* count attempts."""

    id: LineId
    until: int
    spent: int
    reserved: int
    assumed: int = 0
    unknown: int = 0


class Books(Protocol):
    """Keeps lines. ``spent + reserved`` of a line never exceeds its limit by a reservation; settling may exceed it."""

    shared: bool  # by replicas: what others reserve is not seen here before the next reservation

    async def reserve(self, reservation: Reservation) -> Short | None:
        """Reserve of all its lines, or of none and say which has not enough. Raises `StoreError`.

        Safe to cancel: what was reserved then is given back.
        """
        ...

    def settle(self, reservation: Reservation, spent: Sequence[int], how: Sequence[How] | None = None) -> None:
        """Replace what was reserved by what was *spent*, line by line; *how* each is known, None: all are.

        Never blocks; a second time is a no-op.
        """
        ...

    def held(self, line: LineId) -> int:
        """Return what is spent and reserved as far as this process knows, without asking anybody."""
        ...

    async def check(self) -> None:
        """Raise `StoreError` where nothing could be reserved at the moment; cheap, and changes nothing."""
        ...

    async def lines(self) -> list[Line]:
        """Return the lines whose period has not ended. Raises `StoreError`."""
        ...

    async def close(self) -> None:
        """Let go of everything, after what was settled has been written."""
        ...
