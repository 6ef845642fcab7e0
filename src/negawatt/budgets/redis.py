"""The books in Redis or Valkey: shared by replicas, exact among them.

Reservations are made by a script on the server, those that come at once together, and are recorded there with the
moment at which they lapse: what a replica that died had reserved counts as spent from then on, until its period ends.
What was spent is told in batches, behind the path; until it has arrived the reservation stands in its place.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import orjson

from negawatt.budgets import How, Line, LineId, Reservation, Short, redis_scripts
from negawatt.clock import Clock
from negawatt.errors import StoreError

log = logging.getLogger(__name__)

_BATCH = 50  # reservations that one script makes, or settles: a millisecond or two
_PAGE = 500
_AGAIN_S = 0.5
_LAST_S = 5.0  # for what is not settled yet when the gateway closes
_MOST_WAITING = 200_000
_MOST_SEEN = 100_000


class Server(Protocol):
    """Runs scripts; `negawatt.stores.redis.RedisStore` is one."""

    def run(self, script: str, *arguments: Any) -> Awaitable[Any]: ...

    def close(self) -> Awaitable[None]: ...


class RedisBooks:
    """Keeps lines on *server*. A reservation that is not settled within *lease_s* counts as spent."""

    shared = True

    def __init__(self, server: Server, clock: Clock, *, lease_s: float) -> None:
        self._server = server
        self._clock = clock
        self._lease_s = lease_s
        self._seen: dict[LineId, int] = {}
        self._mark = uuid.uuid4().hex[:16]  # no other process names a reservation as this one does
        self._numbers = itertools.count()
        self._asked: list[tuple[Reservation, asyncio.Future[Short | None]]] = []
        self._asker: asyncio.Task[None] | None = None
        self._waiting: list[tuple[Any, ...]] = []
        self._teller: asyncio.Task[None] | None = None

    async def reserve(self, reservation: Reservation) -> Short | None:
        if not reservation.id:
            reservation.id = f"{self._mark}-{next(self._numbers)}"
        answer: asyncio.Future[Short | None] = asyncio.get_running_loop().create_future()
        self._asked.append((reservation, answer))
        if self._asker is None:
            self._asker = asyncio.ensure_future(self._ask())
        try:
            return await answer
        except asyncio.CancelledError:
            # It may have been answered a moment before.
            if not answer.cancelled() and answer.exception() is None and answer.result() is None:
                self._give_back(reservation)
            raise

    async def _ask(self) -> None:
        """Have reserved what was asked for: all that came while the script before was under way, in one."""
        while self._asked:
            batch = self._asked[:_BATCH]
            del self._asked[:_BATCH]
            try:
                arguments: list[Any] = [int((self._clock.time() + self._lease_s) * 1000)]
                for reservation, _ in batch:
                    arguments += _said(reservation)
                found = await self._server.run(redis_scripts.RESERVE, *arguments)
            except StoreError as error:
                for reservation, answer in batch:
                    # Whether it was reserved is not known: it is given back, and if it comes later, it is void.
                    self._give_back(reservation)
                    if not answer.done():
                        answer.set_exception(StoreError(error.message))
                continue
            for (reservation, answer), told in zip(batch, found, strict=True):
                self._answer(reservation, answer, told)
        self._asker = None

    def _answer(self, reservation: Reservation, answer: asyncio.Future[Short | None], told: list[Any]) -> None:
        kind, *numbers = told
        if kind == b"held":
            for line, held in zip(reservation.lines.ids, numbers, strict=True):
                self._see(line, int(held))
            if answer.done():  # its caller is gone
                self._give_back(reservation)
            else:
                reservation.open = True
                answer.set_result(None)
        elif answer.done():
            return
        elif kind == b"short":
            place, spent, held = map(int, numbers)
            self._see(reservation.lines.ids[place], held)
            answer.set_result(Short(place, spent, held))
        else:
            answer.set_exception(StoreError(f"the reservation {reservation.id} was made before"))

    def _give_back(self, reservation: Reservation) -> None:
        reservation.open = True
        self.settle(reservation, [0] * len(reservation.amounts))

    def settle(self, reservation: Reservation, spent: Sequence[int], how: Sequence[How] | None = None) -> None:
        if not reservation.open:
            return
        reservation.open = False
        told: list[Any] = [reservation.id, len(spent)]
        for place, (line, amount, reserved) in enumerate(
            zip(reservation.lines.ids, spent, reservation.amounts, strict=True)
        ):
            known = "known" if how is None else how[place]
            less = amount - reserved
            told += (orjson.dumps(line), less, amount, int(known == "assumed"), int(known == "unknown"))
            if line in self._seen:
                self._seen[line] += less
        if len(self._waiting) >= _MOST_WAITING:
            log.error("budgets: a settlement is given up; what it reserved will count as spent")
            return
        self._waiting.append(tuple(told))
        if self._teller is None:
            self._teller = asyncio.ensure_future(self._tell())

    def held(self, line: LineId) -> int:
        return self._seen.get(line, 0)

    async def check(self) -> None:
        await self._server.run(redis_scripts.READY)

    async def lines(self) -> list[Line]:
        found: list[Line] = []
        while True:
            page = await self._server.run(redis_scripts.LINES, len(found), _PAGE)
            for name, *numbers in page:
                ends, spent, held, assumed, unknown = map(int, numbers)
                budget, value, start = orjson.loads(name)
                found.append(Line((budget, value, start), ends // 1000, spent, held - spent, assumed, unknown))
            if len(page) < _PAGE:
                return found

    async def close(self) -> None:
        if self._asker is not None:
            await asyncio.wait({self._asker}, timeout=_LAST_S)
        if self._teller is not None:
            await asyncio.wait({self._teller}, timeout=_LAST_S)
            if not self._teller.done():
                self._teller.cancel()
                await asyncio.wait({self._teller})
            if self._waiting:
                log.error("budgets: %d settlements could not be told; what they reserved will count as spent",
                          len(self._waiting))  # fmt: skip
        await self._server.close()

    def _see(self, line: LineId, held: int) -> None:
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[line] = held

    async def _tell(self) -> None:
        """Tell the server what was spent, until there is nothing left to tell."""
        told = False  # that they wait: once, and not at each try
        while self._waiting:
            batch = self._waiting[:_BATCH]
            try:
                await self._server.run(redis_scripts.SETTLE, *(part for told in batch for part in told))
            except StoreError as error:
                # It may have been settled: a second time is a no-op.
                if not told:
                    log.warning("budgets: settlements wait until they can be told: %s", error.message)
                told = True
                await asyncio.sleep(_AGAIN_S)
                continue
            del self._waiting[: len(batch)]
        self._teller = None


def _said(reservation: Reservation) -> list[Any]:
    said: list[Any] = [reservation.id, len(reservation.amounts)]
    for line, until, limit, amount in zip(
        reservation.lines.ids, reservation.lines.untils, reservation.lines.limits, reservation.amounts, strict=True
    ):  # fmt: skip
        over = (amount or 1) - limit
        said += (orjson.dumps(line), until * 1000, amount, over, -over)
    return said
