"""Threads that read the ledger for pages, each with a connection of its own, so that the event loop never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from negawatt.ledger.rollup_reader import Reader

_T = TypeVar("_T")
THREADS = 2
_WAITING = 64  # questions; with more, one is refused


class TooMany(Exception):
    """More is asked than can be answered soon."""


class Pool:
    """Answers questions to the ledger at *path*. Threads and connections are opened when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._readers: list[Reader] = []
        self._threads = ThreadPoolExecutor(THREADS, "negawatt-pages")
        self._waiting = 0

    async def ask(self, question: Callable[[Reader], _T]) -> _T:
        """Return what *question* answers. Raises what it raises, and `TooMany`."""
        if self._waiting >= _WAITING:
            raise TooMany
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)
        finally:
            self._waiting -= 1

    def _answer(self, question: Callable[[Reader], _T]) -> _T:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = Reader(self._path)
            self._readers.append(reader)
        return question(reader)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()
