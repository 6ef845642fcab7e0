"""How long calls took: counts by buckets that grow by a tenth, kept as JSON and added up here.

``[first, n, n, ...]``: so many calls in bucket *first*, in the next, and so on. Bucket 0 is below `LEAST_S`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

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


def add_to(counts: Counts, text: str) -> None:
    """Add what is kept as *text* to *counts*."""
    values = orjson.loads(text)
    for bucket, n in enumerate(values[1:], values[0]):
        if n:
            counts[bucket] = counts.get(bucket, 0) + n


def together(texts: Iterable[str]) -> Counts:
    """Return the sum of *texts*."""
    counts: Counts = {}
    for text in texts:
        add_to(counts, text)
    return counts
