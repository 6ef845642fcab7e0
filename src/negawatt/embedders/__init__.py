"""Embedders: texts to vectors of length 1, so that what means the same lies close. One protocol, opened by URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embedder(Protocol):
    """Makes vectors. `embed` raises `negawatt.errors.EmbedderError`, and nothing else, when it cannot.

    *id* names the model and its weights: vectors of embedders with another id are not comparable. *learned* False:
    texts are compared by their words only, and not by what they mean.
    """

    @property
    def id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def learned(self) -> bool: ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row for each of *texts*, in their order: shape (len(texts), dimensions), each of length 1.

        The row of a text does not depend on the others.
        """
        ...

    async def close(self) -> None: ...
