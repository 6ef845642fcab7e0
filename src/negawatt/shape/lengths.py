"""How long the answers of a kind are: what nearly all of them needed, and whether they grow.

Lengths are in tokens. Everything here is exact about what it has seen, and has forgotten what is long ago.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

_KEPT = 2_000  # lengths: the quantile follows what changes
_EVERY = 20  # lengths, between two looks at the quantile
_RECENT = 50  # lengths that are compared with those before
_WINSOR = 0.9  # longer ones among the recent count as this quantile of them: a single giant is no growth
_SIGMAS = 3.0


class Lengths:
    """Of the answers of one kind. *least_seen*: before so many, nothing is said."""

    def __init__(self, quantile: float, least_seen: int) -> None:
        self._quantile = quantile
        self._least = least_seen
        self._seen: deque[int] = deque(maxlen=_KEPT)
        self._since = 0
        self._high: int | None = None
        self.count = 0

    def add(self, tokens: int) -> None:
        self._seen.append(tokens)
        self.count += 1
        self._since += 1
        if len(self._seen) < min(self._least, _KEPT):
            return
        # What is longer than nearly all counts at once; what is shorter, soon.
        if self._high is None or tokens > self._high or self._since >= _EVERY:
            self._since = 0
            self._high = quantile(sorted(self._seen), self._quantile)

    @property
    def high(self) -> int | None:
        """The length that a share of *quantile* of the answers does not exceed; None: too few have been seen."""
        return self._high


class Growth:
    """Tells when answers have become longer than *factor* times what they were.

    The recent ones are compared with those before them: their mean, less three standard errors, the longest tenth cut
    to the rest, must exceed *factor* times the mean of the past. After that, the recent ones are the past.
    """

    def __init__(self, factor: float, least_seen: int) -> None:
        self._factor = factor
        self._least = max(least_seen, _RECENT)
        self._past: deque[int] = deque(maxlen=_KEPT)
        self._recent: list[int] = []

    def add(self, tokens: int) -> tuple[float, float] | None:
        """Take in a length; return the means of the past and of the recent answers where these have grown."""
        self._recent.append(tokens)
        if len(self._recent) < _RECENT:
            return None
        recent, self._recent = self._recent, []
        if len(self._past) < self._least:
            self._past.extend(recent)
            return None
        past = sum(self._past) / len(self._past)
        mean, error = _winsorised(recent)
        if mean - _SIGMAS * error <= self._factor * past:
            self._past.extend(recent)
            return None
        self._past.clear()
        self._past.extend(recent)
        return past, mean


def quantile(ordered: Sequence[int], share: float) -> int:
    """Return the least of *ordered*, shortest first, that at least a *share* of them does not exceed."""
    return ordered[min(len(ordered), math.ceil(share * (len(ordered) + 1))) - 1]


def _winsorised(lengths: Sequence[int]) -> tuple[float, float]:
    """Return the mean of *lengths*, the longest tenth cut to the rest, and its standard error."""
    most = quantile(sorted(lengths), _WINSOR)
    cut = [min(one, most) for one in lengths]
    mean = sum(cut) / len(cut)
    variance = sum((one - mean) ** 2 for one in cut) / (len(cut) - 1)
    return mean, math.sqrt(variance / len(cut))
