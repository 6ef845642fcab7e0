"""The Gaussian process behind the learned router, uncalibrated: fitted on rows, asked about others.

Up to `KEPT_ROWS` rows are kept; of more, all are learned from, but those carry what was learned (a subset of
regressors; Quiñonero-Candela and Rasmussen 2005), so that asking costs the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from negawatt.routing.kernel import Block, Shape, find_shape
from negawatt.routing.linear import Linear, fit_linear

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Numbers = NDArray[np.floating[Any]]

KEPT_ROWS = 1500
LOUD = (0.0, 1.0, 3.0)  # the linear part's columns may count so many times as much as each of a prompt's form
_JITTER = 1e-6


@dataclass(frozen=True, slots=True)
class Rows:
    """Described prompts: *features* (n, f), unit *vectors* (n, d) and perhaps *extra* columns."""

    features: Floats
    vectors: Singles
    extra: Floats | None

    def __getitem__(self, keep: NDArray[np.intp]) -> Rows:
        return Rows(self.features[keep], self.vectors[keep], None if self.extra is None else self.extra[keep])

    def columns(self, linear: Floats) -> list[Numbers]:
        """Return what the blocks of the kernel are about."""
        import numpy as np

        found: list[Numbers] = [np.column_stack([self.features, linear]), self.vectors]
        return found if self.extra is None else [*found, self.extra]


@dataclass(frozen=True, slots=True)
class Found:
    """What the marginal likelihood says: the kernel's shape, and the noise of each output. *loud*: one of `LOUD`."""

    shape: Shape
    noises: Floats
    loud: float = 0.0

    @classmethod
    def of(cls, rows: Rows, targets: Floats, deciding: int, rng: np.random.Generator) -> Found:
        """The first *deciding* of *targets* decide about the shape.

        The linear part stays out of it: made of the outcomes themselves, it would make the noise look small.
        """
        blocks = [Block.standardised(rows.features), Block.scaled(rows.vectors)]
        if rows.extra is not None:
            blocks.append(Block.standardised(rows.extra))
        return cls(*find_shape(blocks, targets, deciding, rng))


@dataclass(frozen=True, slots=True)
class Process:
    """A fitted process of several outputs. *blocks*: features with the linear part, vectors, perhaps extra columns."""

    linear: Linear
    blocks: tuple[Block, ...]
    shape: Shape
    means: Floats  # (outputs,)
    weights: Singles  # (kept, outputs)

    @classmethod
    def fit(cls, rows: Rows, outcomes: Floats, targets: Floats, found: Found, keep: NDArray[np.intp]) -> Process:
        """Learn *targets* (n, outputs) from *rows* and keep some; *outcomes* (n, k) are for the linear part."""
        import numpy as np

        linear, left_out = fit_linear(rows.vectors, outcomes)
        columns = rows.columns(left_out)
        loud = np.ones(columns[0].shape[1])
        loud[-outcomes.shape[1] :] = found.loud
        blocks = (Block.standardised(columns[0], loud), Block.scaled(columns[1]), *map(Block.standardised, columns[2:]))
        kept = tuple(block.subset(keep) for block in blocks)
        means = targets.mean(axis=0)
        kernel = np.asarray(
            found.shape.kernel([b.distances(c) for b, c in zip(kept, columns, strict=True)]), np.float64
        )
        weights = _solved(kernel, keep, targets - means, found.noises)
        return cls(linear, kept, found.shape, means, weights.astype(np.float32))

    def ask(self, rows: Rows) -> Floats:
        """Return the outputs expected of *rows*, shape (n, outputs)."""
        columns = rows.columns(self.linear.of(rows.vectors))
        kernel = self.shape.kernel([b.distances(c) for b, c in zip(self.blocks, columns, strict=True)])
        expected: Floats = self.means + kernel @ self.weights
        return expected


def _solved(kernel: Floats, keep: NDArray[np.intp], targets: Floats, noises: Floats) -> Floats:
    """Return the weights of the kept rows, given the *kernel* of all rows against them."""
    import numpy as np

    weights = np.empty((len(keep), targets.shape[1]))
    all_kept = len(keep) == len(targets)
    for noise in np.unique(noises):
        outputs = np.flatnonzero(noises == noise)
        if all_kept:
            square, wanted = kernel + noise * np.eye(len(kernel)), targets[:, outputs]
        else:
            square = kernel.T @ kernel + noise * kernel[keep]
            square[np.diag_indices_from(square)] += _JITTER * float(np.trace(square)) / len(square)
            wanted = kernel.T @ targets[:, outputs]
        weights[:, outputs] = np.linalg.solve(square, wanted)
    return weights
