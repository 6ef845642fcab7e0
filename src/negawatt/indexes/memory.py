"""Vectors in this process: bounded, the entries that were not read for longest go first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from negawatt.clock import Clock
from negawatt.indexes import IndexStats, Neighbour
from negawatt.indexes.cases import MOST, MemoryCases
from negawatt.indexes.checks import check_dimensions, check_entry
from negawatt.indexes.nearest import EXACT_UP_TO, Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_SWEPT_EVERY = 1024  # puts


class _Item(NamedTuple):
    value: bytes
    scope: str
    expires_at: float
    tags: tuple[str, ...]
    size: int


class MemoryIndex:
    """Holds at most *max_entries* entries and *max_bytes* of keys, vectors, marks and values."""

    def __init__(  # noqa: PLR0913
        self, clock: Clock, *, model: str, dimensions: int, max_entries: int = 100_000, max_bytes: int = 2**30,
        exact_up_to: int = EXACT_UP_TO, max_cases: int = MOST,
    ) -> None:  # fmt: skip
        self.cases = MemoryCases(max_cases)
        self._clock = clock
        self._model, self._dimensions = model, dimensions
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._exact_up_to = exact_up_to
        self._items: OrderedDict[str, _Item] = OrderedDict()  # in the order of their last use
        self._scopes: dict[str, Vectors] = {}
        self._tagged: dict[str, set[str]] = {}
        self._bytes = 0
        self._puts = 0

    async def check(self) -> None:
        """Do nothing: what is in memory is of this embedder."""

    async def put(  # noqa: PLR0913
        self, key: str, vector: NDArray[np.float32], value: bytes, *, scope: str, ttl_s: float, mark: bytes = b"",
        tags: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        check_entry(vector, mark, model=self._model, dimensions=self._dimensions)
        self._drop(key)
        size = len(key) + 4 * self._dimensions + len(mark) + len(value)
        if size > self._max_bytes:
            return
        expires_at = self._clock.monotonic() + ttl_s
        vectors = self._scopes.get(scope)
        if vectors is None:
            vectors = self._scopes[scope] = Vectors(self._dimensions, exact_up_to=self._exact_up_to)
        vectors.put(key, vector, mark, expires_at)
        self._items[key] = _Item(value, scope, expires_at, tags, size)
        self._bytes += size
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(key)
        self._puts += 1
        if self._puts % _SWEPT_EVERY == 0:
            self._sweep()
        while len(self._items) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._items)))

    async def nearest(self, scope: str, vector: NDArray[np.float32], *, k: int = 8) -> list[Neighbour]:
        check_dimensions(vector, model=self._model, dimensions=self._dimensions)
        vectors = self._scopes.get(scope)
        return [] if vectors is None else vectors.nearest(vector, k, self._clock.monotonic())

    async def get(self, key: str) -> bytes | None:
        item = self._items.get(key)
        if item is None:
            return None
        if item.expires_at <= self._clock.monotonic():
            self._drop(key)
            return None
        self._items.move_to_end(key)
        return item.value

    async def delete(self, key: str) -> bool:
        return self._drop(key)

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        keys = set.intersection(*(self._tagged.get(tag, set()) for tag in tags))
        now = self._clock.monotonic()
        alive = sum(self._items[key].expires_at > now for key in keys)
        if not dry_run:
            for key in keys:
                self._drop(key)
        return alive

    async def stats(self) -> IndexStats:
        now = self._clock.monotonic()
        alive = [item for item in self._items.values() if item.expires_at > now]
        return IndexStats(len(alive), sum(item.size for item in alive), len({item.scope for item in alive}))

    async def settled(self) -> None:
        """Wait until nothing is being built in the background."""
        for vectors in list(self._scopes.values()):
            await vectors.settled()

    async def close(self) -> None:
        """Forget everything."""
        await self.settled()
        self._items.clear()
        self._scopes.clear()
        self._tagged.clear()
        self._bytes = 0

    def _sweep(self) -> None:
        """Drop what has expired: nobody would find it, but searches would go through it."""
        now = self._clock.monotonic()
        for key in [key for key, item in self._items.items() if item.expires_at <= now]:
            self._drop(key)

    def _drop(self, key: str) -> bool:
        item = self._items.pop(key, None)
        if item is None:
            return False
        self._bytes -= item.size
        vectors = self._scopes[item.scope]
        vectors.remove(key)
        if not len(vectors):
            del self._scopes[item.scope]
        for tag in item.tags:
            keys = self._tagged.get(tag, set())
            keys.discard(key)
            if not keys:
                self._tagged.pop(tag, None)
        return True
