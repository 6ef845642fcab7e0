"""Budgets: what an attempt at a provider may cost is reserved before it and settled after it.

All amounts are whole numbers in the smallest unit of their budget: tokens, pico-dollars, millijoules. A *line* is one
budget for one value (a user, a key, ...) in one period; `Books` keep the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

LineId = tuple[str, str, int]  # the budget's key, whose it is, and when the period begins (seconds since 1970)


class Claim(NamedTuple):
    """What one attempt may cost one line. *amount* 0: nobody knows, and it is let through."""

    line: LineId
    until: int  # when the period ends, in seconds since 1970
    limit: int
    amount: int


class Short(NamedTuple):
    """The first claim, by its place, that its line has not enough left for; nothing was reserved."""

    place: int
    spent: int
    held: int  # spent and reserved


class Charge(NamedTuple):
    """What became of a claim: *amount* was spent. *how*: known, assumed to be what was reserved, or unknown."""

    amount: int
    how: Literal["known", "assumed", "unknown"] = "known"


class Reservation:
    """What one attempt has reserved, until it is settled."""

    __slots__ = ("claims", "id")

    def __init__(self, id: str, claims: Sequence[Claim]) -> None:
        self.id = id
        self.claims = claims


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
        """Reserve all claims, or none of them and say which does not fit. Raises `StoreError`.

        Safe to cancel: what was reserved then is given back.
        """
        ...

    def settle(self, reservation: Reservation, charges: Sequence[Charge]) -> None:
        """Replace what was reserved by what was spent, claim by claim. Never blocks; a second time is a no-op."""
        ...

    def held(self, line: LineId) -> int:
        """Return what is spent and reserved as far as this process knows, without asking anybody."""
        ...

    async def lines(self) -> list[Line]:
        """Return the lines whose period has not ended. Raises `StoreError`."""
        ...

    async def close(self) -> None:
        """Let go of everything, after what was settled has been written."""
        ...
