"""The straight part: each candidate's success as a linear function of the vector (ridge regression).

Its predictions are two more features of a prompt for the kernel of `negawatt.routing.gain`. Two prompts are then alike
also where the candidates do alike on them, which no geometry of meanings says. For a row that is fitted the prediction
is the one without that row (leave-one-out): with its own outcome in it, it would seem to know everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Numbers = NDArray[np.floating[Any]]

PENALTIES = (20.0, 40.0, 80.0)  # of vectors of length 1


@dataclass(frozen=True, slots=True)
class Linear:
    """*map*, shape (dimensions, candidates), and *shift*, shape (candidates,)."""

    map: Floats
    shift: Floats

    def of(self, vectors: Numbers) -> Floats:
        """Return the success of each candidate, about 0..1, shape (n, candidates)."""
        found: Floats = vectors @ self.map + self.shift
        return found


def fit_linear(vectors: Numbers, outcomes: Floats) -> tuple[Linear, Floats]:
    """Return the regression of the smallest leave-one-out error, and those predictions, shape like *outcomes*."""
    import numpy as np

    centre, mean = vectors.mean(axis=0, dtype=np.float64), outcomes.mean(axis=0)
    rows, wanted = vectors - centre, outcomes - mean
    # The smaller of the two Gram matrices has all that is needed.
    tall = rows.shape[0] > rows.shape[1]
    values, basis = np.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
    values = np.maximum(values, 0.0)
    seen = rows @ basis if tall else basis * np.sqrt(values)
    inside = seen.T @ wanted
    best: tuple[float, Floats, Floats] | None = None
    for penalty in PENALTIES:
        weights = inside / (values + penalty)[:, None]
        leverage = np.einsum("ij,ij->i", seen, seen / (values + penalty)) + 1 / len(rows)
        left_out = outcomes - (wanted - seen @ weights) / np.maximum(1 - leverage, 1e-6)[:, None]
        error = float(((left_out - outcomes) ** 2).sum())
        if best is None or error < best[0]:
            found = (
                basis @ weights if tall else rows.T @ (basis @ (weights / np.sqrt(np.maximum(values, 1e-12))[:, None]))
            )
            best = error, found, left_out
    assert best is not None
    return Linear(best[1], mean - centre @ best[1]), best[2]
