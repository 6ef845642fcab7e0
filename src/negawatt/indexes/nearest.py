"""The vectors of one scope, and the search among them: exact while they are few, approximate and re-scored beyond.

Exact search reads every vector once, which takes 0.2 to 0.5 ms for 4,000 of them. Beyond, a graph (usearch, 8-bit)
finds candidates, and the cosines of these are computed exactly. The graph holds nothing that the rows do not, and is
built from them anew whenever it is in doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from math import log10
from typing import TYPE_CHECKING, Any

from negawatt.indexes import Neighbour

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

EXACT_UP_TO = 4_000
_OVERSAMPLED = 3  # candidates of the graph for each neighbour wanted
_LEAST_SOUGHT, _MOST_SOUGHT = 32, 1_024
_ROUNDING = 1e-5  # what a cosine computed in another order may differ by
_CONNECTIVITY, _EXPANSION_ADD = 16, 96
_ALONE = 10_000  # vectors which one thread adds, one by one, before others help
_EXPANSION_SEARCH, _ENOUGH_FOR = 64, 100_000  # candidates kept in mind during a search, among so many vectors


def expansion(count: int) -> int:
    """Return how many candidates a search among *count* vectors keeps in mind.

    Three times as many for ten times the vectors: with 64 among a million only 0.89 of the nearest are found, with 192
    0.99 (``benchmarks/recall/lookup.py``).
    """
    return _EXPANSION_SEARCH if count <= _ENOUGH_FOR else round(_EXPANSION_SEARCH * 3 ** log10(count / _ENOUGH_FOR))


class Vectors:
    """The entries of one scope. *dimensions* of every vector; all of them of length 1."""

    def __init__(self, dimensions: int, *, exact_up_to: int = EXACT_UP_TO) -> None:
        self._dimensions = dimensions
        self._exact_up_to = exact_up_to
        self._rows: NDArray[np.float32] | None = None
        self._expires: NDArray[np.float64] | None = None
        self._ages: NDArray[np.int64] | None = None  # in the order in which they were put
        self._put = 0
        self._keys: list[str | None] = []
        self._marks: list[bytes] = []
        self._places: dict[str, int] = {}
        self._free: list[int] = []
        self._graph: Any = None
        self._building: asyncio.Task[None] | None = None
        self._changed: set[int] = set()  # places, since the graph began to be built

    def __len__(self) -> int:
        return len(self._places)

    def put(self, key: str, vector: NDArray[np.float32], mark: bytes, expires_at: float) -> None:
        """Keep *vector* under *key*; replaces what was there."""
        self.remove(key)
        place = self._free.pop() if self._free else self._grown()
        assert self._rows is not None and self._expires is not None and self._ages is not None
        self._put += 1
        self._rows[place], self._expires[place], self._ages[place] = vector, expires_at, self._put
        self._keys[place], self._marks[place] = key, mark
        self._places[key] = place
        self._changed.add(place)
        if self._graph is not None:
            self._graph.add(place, self._rows[place])
            self._changed.clear()
        elif len(self._places) > self._exact_up_to:
            self._begin()

    def load(self, keys: Sequence[str], rows: NDArray[np.float32], marks: Sequence[bytes], expires: Any) -> None:
        """Fill empty vectors with many entries, oldest first: shapes (n,), (n, dimensions), (n,), (n,)."""
        import numpy as np

        self._rows = np.ascontiguousarray(rows, np.float32)
        self._expires = np.asarray(expires, np.float64)
        self._ages, self._put = np.arange(len(keys)), len(keys)
        self._keys, self._marks = list(keys), list(marks)
        self._places = {key: place for place, key in enumerate(keys)}
        if len(keys) > self._exact_up_to and self._may_build():
            self._graph = self._built(np.arange(len(keys)), self._rows)

    def remove(self, key: str) -> bool:
        """Forget *key*; True if it was there."""
        place = self._places.pop(key, None)
        if place is None:
            return False
        assert self._expires is not None
        self._expires[place], self._keys[place], self._marks[place] = 0.0, None, b""
        self._free.append(place)
        self._changed.add(place)
        if self._graph is not None:
            self._graph.remove(place)
        return True

    def keys(self) -> list[str]:
        return list(self._places)

    def nearest(self, vector: NDArray[np.float32], k: int, now: float) -> list[Neighbour]:
        """Return the *k* entries alive at *now* that are nearest to *vector*: nearest first, of equals the older."""
        import numpy as np

        if self._rows is None or self._ages is None or not self._places or k < 1:
            return []
        places = self._alive_by_graph(vector, k, now) if self._graph is not None else None
        if places is None:
            places = self._alive_and_near(vector, k, now)
        # Row by row, so that equal vectors are equally similar: a product of matrices does not promise that.
        similarities = (self._rows[places] * vector).sum(axis=1)
        best = np.lexsort((self._ages[places], -similarities))[:k]
        return [
            Neighbour(key, float(similarities[i]), self._marks[places[i]])
            for i in best
            if (key := self._keys[places[i]]) is not None
        ]

    async def settled(self) -> None:
        """Wait until no graph is being built."""
        if self._building is not None:
            await self._building

    # -- parts -------------------------------------------------------------------------------------------------

    def _alive_and_near(self, vector: NDArray[np.float32], k: int, now: float) -> NDArray[np.int64]:
        """Return the places of the *k* nearest that are alive, and of all that are as near as the last of these."""
        import numpy as np

        assert self._rows is not None and self._expires is not None
        used = len(self._keys)
        alive = self._expires[:used] > now
        if used <= 4 * k:
            return np.flatnonzero(alive)
        similarities = np.where(alive, self._rows[:used] @ vector, np.float32(-2))
        least = np.partition(similarities, used - k)[used - k]
        return np.flatnonzero((similarities >= least - _ROUNDING) & alive)

    def _alive_by_graph(self, vector: NDArray[np.float32], k: int, now: float) -> NDArray[np.int64] | None:
        """Return the places of at least *k* that are near and alive; None when the graph finds too few."""
        import numpy as np

        assert self._expires is not None
        self._graph.expansion_search = expansion(len(self._places))
        sought = max(_LEAST_SOUGHT, _OVERSAMPLED * k)
        while sought <= _MOST_SOUGHT:  # more and more, where many that are near have expired
            places = self._graph.search(vector, sought).keys.astype(np.int64)
            places = places[self._expires[places] > now]
            if len(places) >= k:
                return np.asarray(places)
            sought *= 4
        return None

    def _grown(self) -> int:
        """Return a new place, making the arrays larger where they are full."""
        import numpy as np

        place = len(self._keys)
        if self._rows is None or self._expires is None or self._ages is None:
            self._rows = np.empty((1, self._dimensions), np.float32)
            self._expires, self._ages = np.zeros(1), np.zeros(1, np.int64)
        elif place == len(self._rows):
            larger = place + max(1, place // 2) + 8
            rows = np.empty((larger, self._dimensions), np.float32)
            rows[:place] = self._rows
            self._rows = rows
            self._expires = np.concatenate([self._expires, np.zeros(larger - place)])
            self._ages = np.concatenate([self._ages, np.zeros(larger - place, np.int64)])
        self._keys.append(None)
        self._marks.append(b"")
        return place

    def _begin(self) -> None:
        """Build the graph in a thread; until it is there, search stays exact."""
        if self._building is not None and not self._building.done():
            return
        if self._may_build():
            self._building = asyncio.get_running_loop().create_task(self._build())

    def _may_build(self) -> bool:
        if find_spec("usearch") is not None:
            return True
        log.warning("more than %d entries in one scope, and no usearch: search stays exact, and becomes slow "
                    "(pip install 'negawatt[semantic]')", self._exact_up_to)  # fmt: skip
        self._exact_up_to = 2**62
        return False

    async def _build(self) -> None:
        import numpy as np

        assert self._rows is not None
        self._changed.clear()
        places = np.array(sorted(self._places.values()))
        graph = await asyncio.to_thread(self._built, places, self._rows[places])
        there = set(places.tolist())
        for place in self._changed:
            if place in there:
                graph.remove(place)
            if self._keys[place] is not None:
                graph.add(place, self._rows[place])
        self._graph = graph

    def _built(self, places: NDArray[np.int64], rows: NDArray[np.float32]) -> Any:
        from usearch.index import Index

        graph = Index(
            ndim=self._dimensions, metric="cos", dtype="i8", connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD, expansion_search=expansion(len(places)),
        )  # fmt: skip
        # Threads that add to a small graph at once lose links that it never gets back.
        graph.add(places[:_ALONE], rows[:_ALONE], threads=1)
        if len(places) > _ALONE:
            graph.add(places[_ALONE:], rows[_ALONE:])
        return graph
