"""An embedder without a model: texts are compared by their words and pieces of words, and not by what they mean."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+|[^\w\s]")  # marks count too: two texts of nothing but marks are not the same
_PIECE = 4  # characters
_PIECE_WEIGHT, _MARK_WEIGHT = 0.3, 0.2
_MOST_CHARACTERS = 16_384  # the rest is not looked at


class Hashing:
    """Counts words and pieces of words in *dimensions* signed buckets; upper and lower case are the same."""

    learned = False

    def __init__(self, dimensions: int = 384) -> None:
        self.dimensions = dimensions
        self.id = f"hashing-{dimensions}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each of *texts*; blank texts all get the same."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for feature, weight in _features(text[:_MOST_CHARACTERS].lower()):
                digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
                place = int.from_bytes(digest[:7], "big") % self.dimensions
                row[place] += weight if digest[7] & 1 else -weight
            length = float(np.linalg.norm(row))
            if length == 0:
                row[0] = length = 1.0
            row /= length
        return rows

    def size_of(self, text: str) -> int:
        """Return about how much work *text* is, in the same unit as for models: tokens."""
        return min(len(text), _MOST_CHARACTERS) // 16 + 1


def _features(text: str) -> Iterator[tuple[str, float]]:
    """Yield what *text* is made of, with how much it counts."""
    for word in _WORD.findall(text):
        if not (word.isalnum() or "_" in word):
            yield f"m:{word}", _MARK_WEIGHT
            continue
        yield f"w:{word}", 1.0
        padded = f"<{word}>"
        for start in range(max(1, len(padded) - _PIECE + 1)):
            yield f"p:{padded[start : start + _PIECE]}", _PIECE_WEIGHT
