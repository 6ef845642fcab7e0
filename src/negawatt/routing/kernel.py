"""How alike two prompts are: the kernel of the learned router, and how its shape is found.

Up to three *blocks* describe a prompt: what can be seen of it (`negawatt.routing.prompt_features`), its vector, and
whatever else the caller knows (checks of an answer). Each block has a Gaussian kernel k, and together they make the
kernel of an analysis of variance,

    K = product over blocks of (1 + weight * k) - 1, divided by its diagonal,

so that blocks speak together (a large weight) or each for itself (a small one). Weight, width and noise are those of
the largest marginal likelihood of a Gaussian process on the fitting rows (Rasmussen and Williams 2006, chapter 5), out
of a short list: with outcomes as noisy as those of language models, a long one is a way to be fooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Numbers = NDArray[np.floating[Any]]

WEIGHTS = (0.1, 1.0, 10.0)
WIDTHS = (1.0, 3.0)
NOISES = tuple(2.0 ** (power / 2) for power in range(-4, 17))
_SEARCHED = 1000  # rows that the shape is found on: the search costs the cube of it


@dataclass(frozen=True, slots=True)
class Block:
    """One description of the kept rows, shape (rows, columns): centred, and scaled to a mean squared distance of 2."""

    rows: Singles
    centre: Singles
    scale: Singles
    squares: Singles

    @classmethod
    def of(cls, rows: Numbers, centre: Numbers, scale: Numbers) -> Block:
        import numpy as np

        centre, scale = np.asarray(centre, np.float32), np.asarray(scale, np.float32)
        placed = np.ascontiguousarray((np.asarray(rows, np.float32) - centre) * scale, np.float32)
        return cls(placed, centre, scale, np.einsum("ij,ij->i", placed, placed))

    @classmethod
    def standardised(cls, rows: Numbers, loud: Floats | None = None) -> Block:
        """Columns of equal variance, times *loud*; one that never varies counts for nothing."""
        import numpy as np

        loud = np.ones(rows.shape[1]) if loud is None else loud
        spread = rows.std(axis=0)
        alive = (spread > 1e-6 * (1 + np.abs(rows).max(axis=0))) & (loud > 0)
        scale = np.where(alive, loud / np.where(alive, spread, 1), 0)
        scale /= max(1.0, float((loud[alive] ** 2).sum())) ** 0.5
        return cls.of(rows, rows.mean(axis=0), scale)

    @classmethod
    def scaled(cls, rows: Numbers) -> Block:
        """Vectors keep their angles: all columns are scaled alike."""
        import numpy as np

        centre = rows.mean(axis=0, dtype=np.float64)
        variance = float(((rows - centre) ** 2).sum(axis=1).mean())
        return cls.of(rows, centre, np.full(rows.shape[1], variance**-0.5 if variance > 1e-9 else 0.0))

    def distances(self, rows: Numbers) -> Singles:
        """Return the squared distances of *rows*, shape (n, columns), to the kept ones: shape (n, kept)."""
        import numpy as np

        placed = (np.asarray(rows, np.float32) - self.centre) * self.scale
        apart = np.asarray(placed @ self.rows.T, np.float32)
        apart *= -2
        apart += self.squares
        apart += np.einsum("ij,ij->i", placed, placed)[:, None]
        return np.maximum(apart, 0, out=apart)

    def subset(self, keep: NDArray[np.intp]) -> Block:
        import numpy as np

        return Block(np.ascontiguousarray(self.rows[keep]), self.centre, self.scale, self.squares[keep])

    def within(self) -> Singles:
        """Return the squared distances of the kept rows to each other."""
        import numpy as np

        apart: Singles = self.squares[:, None] + self.squares - 2 * (self.rows @ self.rows.T)
        np.maximum(apart, 0, out=apart)
        np.fill_diagonal(apart, 0)
        return apart


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the kernel: how much blocks speak together, and how far alikeness reaches (2: as far as rows are apart)."""

    weight: float
    width: float

    def kernel(self, distances: Sequence[Numbers]) -> Numbers:
        """Return K, given the squared distances in each block: 1 where there is none in any of them."""
        import numpy as np

        product: Numbers | None = None
        for apart in distances:
            # In their own precision: on the way to a decision, half of the time is spent here.
            factor = np.exp(apart * apart.dtype.type(-0.5 / self.width))
            factor *= apart.dtype.type(self.weight)
            factor += apart.dtype.type(1)
            product = factor if product is None else np.multiply(product, factor, out=product)
        assert product is not None, "a kernel needs a block"
        product -= product.dtype.type(1)
        product /= product.dtype.type((1 + self.weight) ** len(distances) - 1)
        return product


def find_shape(
    blocks: Sequence[Block], targets: Floats, deciding: int, rng: np.random.Generator
) -> tuple[Shape, Floats]:
    """Return the likeliest shape, and the likeliest noise of each of *targets*, shape (rows, outputs), given it.

    The first *deciding* outputs decide about the shape. Of more than 1,000 rows, 1,000 drawn at random are looked at.
    The noise is in units of the signal's variance.
    """
    import numpy as np

    keep = np.sort(rng.permutation(len(targets))[:_SEARCHED])
    distances = [block.subset(keep).within().astype(np.float64) for block in blocks]
    centred = targets[keep] - targets[keep].mean(axis=0)
    best: tuple[float, Shape, Floats] | None = None
    for shape in (Shape(weight, width) for weight in WEIGHTS for width in WIDTHS):
        evidence = log_evidence(np.asarray(shape.kernel(distances), np.float64), centred)
        total = float(evidence.max(axis=0)[:deciding].sum())
        if best is None or total > best[0]:
            best = total, shape, np.array(NOISES)[evidence.argmax(axis=0)]
    assert best is not None
    return best[1], best[2]


def log_evidence(kernel: Floats, targets: Floats) -> Floats:
    """Return the log marginal likelihood of centred *targets*: shape (noises, outputs), each at its best variance."""
    import numpy as np

    values, vectors = np.linalg.eigh(kernel)
    inside = (vectors.T @ targets) ** 2
    total = np.maximum(values, 0.0)[None, :] + np.array(NOISES)[:, None]
    variance = np.maximum((1 / total) @ inside / len(targets), 1e-300)
    evidence: Floats = -0.5 * (len(targets) * np.log(variance) + np.log(total).sum(axis=1)[:, None])
    return evidence
