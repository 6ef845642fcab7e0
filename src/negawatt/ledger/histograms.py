"""How long calls took: counts by buckets that grow by a tenth, kept as JSON and added up here.

``[first, n, n, ...]``: so many calls in bucket *first*, in the next, and so on. Bucket 0 is below `LEAST_S`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import add

import orjson

GROWTH = 1.1  # from one bucket to the next
LEAST_S = 1e-5
MOST = 300
_LOG = math.log(GROWTH)

Counts = dict[int, int]  # calls by bucket


def bucket_of(seconds: float) -> int:
    """Return the bucket of *seconds*."""
    return 0 if seconds < LEAST_S else min(MOST, int(math.log(seconds / LEAST_S) / _LOG) + 1)


def middle_of(bucket: int) -> float:
    """Return the seconds in the (geometric) middle of *bucket*: no time in it is farther than 5 % from that."""
    return LEAST_S * (GROWTH ** (bucket - 0.5) if bucket else 1.0)


def text_of(counts: Counts) -> str:
    """Return *counts*, of which there is one at least, as they are kept."""
    first, last = min(counts), max(counts)
    return orjson.dumps([first, *(counts.get(bucket, 0) for bucket in range(first, last + 1))]).decode()


def together(texts: Iterable[str]) -> Counts:
    """Return the sum of *texts*."""
    sums = Sums()
    for text in texts:
        sums.add(text)
    return sums.counts()


class Sums:
    """Adds up many texts, without looking at each count: a view reads a thousand of them."""

    def __init__(self) -> None:
        self._sums = [0] * (MOST + 1)

    def add(self, text: str) -> None:
        first, *values = orjson.loads(text)
        last = first + len(values)
        self._sums[first:last] = map(add, self._sums[first:last], values)

    def counts(self) -> Counts:
        return {bucket: n for bucket, n in enumerate(self._sums) if n}
