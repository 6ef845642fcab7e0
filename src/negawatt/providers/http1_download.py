"""The response to one request over our own HTTP/1.1 client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from negawatt.errors import UpstreamBroken, UpstreamError
from negawatt.providers.content_coding import Inflater
from negawatt.providers.transport import too_large

if TYPE_CHECKING:
    from negawatt.providers.http1_connection import Http1Connection

# What the reader waits for.
WANTS_HEAD, WANTS_PIECE, WANTS_WHOLE = 1, 2, 3


class Http1Download:
    """A `Download`. It holds the connection only until the last byte has come in: then the connection is free for
    the next request, though the body may still be read from here.
    """

    __slots__ = (
        "_inflater", "buffered", "coding", "complete", "connection", "error",
        "headers", "max_body", "pieces", "stale", "status", "waiter", "wants",
    )  # fmt: skip

    def __init__(self, connection: Http1Connection, waiter: asyncio.Future[None], max_body: int) -> None:
        self.status = 0  # 0: the head is not there yet
        self.headers: dict[str, str] = {}
        self.stale = False  # the connection had been closed before the request arrived
        self.waiter: asyncio.Future[None] | None = waiter
        self.wants = WANTS_HEAD
        self.connection: Http1Connection | None = connection  # None: whole, failed or closed
        self.error: UpstreamError | None = None
        self.complete = False
        self.pieces: list[bytes] = []
        self.buffered = 0
        self.max_body = max_body
        self.coding: str | None = None
        self._inflater: Inflater | None = None

    async def read(self) -> bytes:
        if self.coding is not None:
            return await self._read_decoded()
        while self.connection is not None and self.buffered <= self.max_body:
            await self._wait(WANTS_WHOLE)
        if self.error is not None:
            raise self.error
        if self.buffered > self.max_body:
            self.drop()
            raise too_large(self.max_body)
        return self._take()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await (self._next_piece() if self.coding is None else self._next_decoded())
        if not piece:
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Close the connection at once if the response is not whole."""
        if self.connection is not None:
            self.connection.drop(UpstreamBroken("the answer was closed before its end"))

    def raise_error(self) -> None:
        """Raise what ended the response before its time, if anything did."""
        if self.error is not None:
            raise self.error

    async def _next_piece(self) -> bytes:
        while not self.pieces:
            if self.error is not None:
                raise self.error
            if self.connection is None:
                return b""
            await self._wait(WANTS_PIECE)
        piece = self._take()
        if self.connection is not None:
            self.connection.resume()
        return piece

    async def _next_decoded(self) -> bytes:
        if self._inflater is None:
            self._inflater = Inflater(self.coding or "")
        while not (piece := self._inflater.pull()):
            raw = await self._next_piece()
            if not raw:
                self._inflater.finish()
                return b""
            self._inflater.push(raw)
        return piece

    async def _read_decoded(self) -> bytes:
        pieces, size = [], 0
        while piece := await self._next_decoded():
            size += len(piece)
            if size > self.max_body:
                self.drop()
                raise too_large(self.max_body)
            pieces.append(piece)
        return b"".join(pieces)

    def _take(self) -> bytes:
        pieces = self.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        return body

    async def _wait(self, wants: int) -> None:
        connection = self.connection
        assert connection is not None
        self.wants = wants
        self.waiter = connection.expect(wants == WANTS_WHOLE)
        try:
            await self.waiter
        except BaseException:
            self.waiter = None
            if self.connection is not None:
                self.connection.disarm()
            raise

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():  # done: it was cancelled
                waiter.set_result(None)
