"""What every index refuses before it keeps anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negawatt.errors import IndexMismatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_MARK_BYTES = 64
ANY = "*"
_NOT_LENGTH_ONE = 1e-3


def check_entry(vector: NDArray[np.float32], mark: bytes, *, model: str, dimensions: int) -> None:
    """Raise `IndexMismatch` for another dimension, `ValueError` for what is no vector of length 1 or a long mark."""
    check_dimensions(vector, model=model, dimensions=dimensions)
    if not abs(float(vector @ vector) - 1) < _NOT_LENGTH_ONE:  # also for what is not a number
        raise ValueError("a vector of an index has length 1")
    if len(mark) > MOST_MARK_BYTES:
        raise ValueError(f"a mark has at most {MOST_MARK_BYTES} bytes, got {len(mark)}")


def check_dimensions(vector: NDArray[np.float32], *, model: str, dimensions: int) -> None:
    """Raise `IndexMismatch` unless *vector* is one that *model* may have made."""
    if vector.shape != (dimensions,):
        message = f"this index holds vectors of {model} with {dimensions} dimensions, got one of shape {vector.shape}"
        raise IndexMismatch(message)


def check_model(place: str, had: tuple[str, int], wanted: tuple[str, int]) -> None:
    """Raise `IndexMismatch` when *place* was made for another model: (id, dimensions) of each.

    An id of ``ANY`` is that of somebody who only looks.
    """
    if had != wanted and wanted[0] != ANY:
        message = (
            f"{place} holds vectors of {had[0]} with {had[1]} dimensions, and the embedder is {wanted[0]} with "
            f"{wanted[1]}: vectors of different models cannot be compared; name another index, or the old embedder"
        )
        raise IndexMismatch(message, param="recall.index")
