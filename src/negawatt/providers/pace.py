"""Giving an answer that is already there in its own time, whole or as a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from negawatt.protocol import Folded
from negawatt.reply import Burst, Chunk, Reply


class Paced:
    """An answer whose first chunk comes after *first_chunk_s* and whose end comes after *duration_s* seconds."""

    def __init__(self, wire: Folded, first_chunk_s: float, duration_s: float) -> None:
        self._wire = wire
        self._first_chunk_s = min(first_chunk_s, duration_s)
        self._duration_s = duration_s

    async def reply(self, body: dict[str, Any], *, stream: bool) -> Reply:
        began = asyncio.get_running_loop().time()
        if stream:
            chunks = [Chunk(data=data) for data in self._wire.unfold(body)]
            times = [began + self._first_chunk_s] + [began + self._duration_s] * (len(chunks) - 1)
            return Reply(self._wire, source=_Timetable(chunks, times))
        await asyncio.sleep(self._duration_s)
        return Reply(self._wire, body=orjson.dumps(body))


class _Timetable:
    """Chunks, each at its own event-loop time; a `negawatt.reply.Source` that is safe to cancel."""

    def __init__(self, chunks: list[Chunk], times: list[float]) -> None:
        self._chunks = chunks
        self._times = times
        self._next = 0

    async def __anext__(self) -> Burst:
        if self._next == len(self._chunks):
            raise StopAsyncIteration
        wait_s = self._times[self._next] - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        chunk = self._chunks[self._next]
        self._next += 1
        return [chunk]

    async def aclose(self) -> None:
        self._next = len(self._chunks)
