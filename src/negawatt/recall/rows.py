"""Rows of numbers, the newest of them: what an acceptance rule has seen, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Arrays = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]

_FIRST = 64  # slots, before there are more


class Rows:
    """Keeps the newest *most* rows: features, the bucket of an answer, a risk, and a flag."""

    def __init__(self, features: int, most: int) -> None:
        self._features = features
        self._most = most
        self._next = 0
        self._count = 0
        self._arrays: _Arrays | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def features(self) -> NDArray[np.float64]:
        """Shape (n, features); the order is that of the slots."""
        return self._filled()[0][: self._count]

    @property
    def answers(self) -> NDArray[np.int64]:
        return self._filled()[1][: self._count]

    @property
    def risks(self) -> NDArray[np.float64]:
        return self._filled()[2][: self._count]

    @property
    def flags(self) -> NDArray[np.int64]:
        return self._filled()[3][: self._count]

    def add(self, features: Sequence[float], answer: int, risk: float, flag: int) -> int:
        """Put a row in, in place of the oldest one where all slots are taken; return its slot."""
        slot = self._next
        self._grow(slot)
        self.set(slot, features, answer, risk, flag)
        self._count = max(self._count, slot + 1)
        self._next = (slot + 1) % self._most
        return slot

    def set(self, slot: int, features: Sequence[float], answer: int, risk: float, flag: int) -> None:
        """Replace what is in *slot*."""
        x, answers, risks, flags = self._filled()
        x[slot], answers[slot], risks[slot], flags[slot] = features, answer, risk, flag

    def newest(self, count: int) -> NDArray[np.int64]:
        """Return the slots of the newest *count* rows, oldest first."""
        import numpy as np

        count = min(count, self._count)
        return (self._next - count + np.arange(count)) % max(1, self._count)

    def _filled(self) -> _Arrays:
        if self._arrays is None:
            import numpy as np

            shape = min(_FIRST, self._most)
            self._arrays = (
                np.zeros((shape, self._features)), np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64)
            )  # fmt: skip
        return self._arrays

    def _grow(self, slot: int) -> None:
        import numpy as np

        arrays = self._filled()
        if slot < len(arrays[1]):
            return
        more = min(self._most, 2 * len(arrays[1])) - len(arrays[1])
        x, answers, risks, flags = arrays
        self._arrays = (
            np.concatenate([x, np.zeros((more, self._features))]), np.concatenate([answers, np.zeros(more, np.int64)]),
            np.concatenate([risks, np.zeros(more)]), np.concatenate([flags, np.zeros(more, np.int64)]),
        )  # fmt: skip
