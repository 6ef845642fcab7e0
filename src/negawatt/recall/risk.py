"""How likely is a candidate answer to be wrong? A regression that knows how little it has seen.

    P(wrong) = floor + (1 - floor) * logistic(weights . [features, record of the answer])

- *weights*: logistic regression with a weak Gaussian prior about `negawatt.recall.features.PRIOR`.
- *record*: whether candidates with this answer were wrong more often than their features say. A random intercept for
  each answer, estimated by one step of Newton's method from the residuals and shrunk towards none. A row that is
  fitted does not see its own residual, or the record would seem to know more than it does.
- *floor*: where everything agrees an answer may still be wrong, for models do not always answer alike. A wrong label
  comes from the floor or from the logistic part; which of the two is found by expectation maximisation, as in robust
  logistic regression (Copas 1988, "Binary regression models for contaminated data", JRSS B 50), with a Beta prior.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from negawatt.recall.features import PRIOR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_COMPARED = 60  # before the first fit
LEAST_OF_EACH = 5  # right ones, and wrong ones
_PRECISION = 0.3  # of the Gaussian prior of each weight: a standard deviation of 1.8
_RECORD_PRIOR = 1.0  # of the record's weight: as much as it says
_SHRINK = 4.0  # a record counts half when so much variance has been seen of its answer
_FLOOR_WRONG, _FLOOR_SEEN = (
    1.0,
    200.0,
)  # prior of the floor: as if one of some 200 had been wrong without reason
_ROUNDS = 8  # of expectation maximisation, each with
_STEPS = 6  # of Newton's method at most
_HALVINGS = 20
_BUCKETS = 1 << 16  # answers are told apart by 16 bits of their checksum: two that share them share a record


def bucket_of(answer: bytes) -> int:
    """Return the number under which the record of *answer* (its mark) is kept."""
    return zlib.crc32(answer) % _BUCKETS


@dataclass(frozen=True, slots=True)
class RiskModel:
    """A fitted model. Arguments of its methods: *x*, shape (n, features), and *answers*, shape (n,), of buckets."""

    weights: Floats
    covariance: Floats
    floor: float
    floor_variance: float
    records: Floats  # by bucket

    def central(self, x: Floats, answers: NDArray[np.int64]) -> Floats:
        """Return how likely each row is to be wrong."""
        return self.floor + (1 - self.floor) * _logistic(self._design(x, answers) @ self.weights)

    def cautious(self, x: Floats, answers: NDArray[np.int64]) -> Floats:
        """Return the same with one standard error of the regression on top: not bold where little was seen."""
        import numpy as np

        design = self._design(x, answers)
        doubt = np.sqrt(np.maximum(0.0, np.einsum("ij,jk,ik->i", design, self.covariance, design)))
        return self.floor + (1 - self.floor) * _logistic(design @ self.weights + doubt)

    def gradient(self, x: Floats, answers: NDArray[np.int64]) -> Floats:
        """Return the derivative of `central` by each weight and, last, by the floor: shape (n, weights + 1)."""
        import numpy as np

        design = self._design(x, answers)
        p = _logistic(design @ self.weights)
        return np.column_stack([((1 - self.floor) * p * (1 - p))[:, None] * design, 1 - p])

    def variance(self, gradients: Floats) -> Floats:
        """Return the variance of sums with *gradients*, shape (m, weights + 1), for want of evidence."""
        import numpy as np

        inner: Floats = np.einsum("ij,jk,ik->i", gradients[:, :-1], self.covariance, gradients[:, :-1])
        return inner + gradients[:, -1] ** 2 * self.floor_variance

    def _design(self, x: Floats, answers: NDArray[np.int64]) -> Floats:
        import numpy as np

        return np.column_stack([x, self.records[answers]])


def fitted(x: Floats, answers: NDArray[np.int64], wrong: Floats, start: RiskModel | None) -> RiskModel | None:
    """Return the model of the compared rows, *wrong* 1 or 0; None when there are too few. *start*: an earlier one."""
    import numpy as np

    if len(wrong) < LEAST_COMPARED or min(wrong.sum(), len(wrong) - wrong.sum()) < LEAST_OF_EACH:
        return None
    prior = np.append(np.asarray(PRIOR), _RECORD_PRIOR)
    weights = prior if start is None else start.weights
    floor = _FLOOR_WRONG / (_FLOOR_WRONG + _FLOOR_SEEN) if start is None else start.floor
    design, by_chance = x, wrong
    for _ in range(_ROUNDS):
        design = np.column_stack([x, _records(x, answers, wrong, weights, floor)[1]])
        p = _logistic(design @ weights)
        by_chance = wrong * floor / (floor + (1 - floor) * p)
        floor = float((_FLOOR_WRONG + by_chance.sum()) / (_FLOOR_WRONG + _FLOOR_SEEN + len(wrong)))
        weights, covariance = _regression(design, wrong, 1 - by_chance, prior, weights)
    p = _logistic(design @ weights)
    likely = floor + (1 - floor) * p
    information = float(((1 - p) ** 2 / (likely * (1 - likely))).sum()) + _FLOOR_WRONG / floor**2
    records = _records(x, answers, wrong, weights, floor)[0]
    return RiskModel(weights, covariance, floor, 1 / information, records)


def _records(
    x: Floats, answers: NDArray[np.int64], wrong: Floats, weights: Floats, floor: float
) -> tuple[Floats, Floats]:
    """Return the record of each bucket, and of each row that of its answer without the row itself."""
    import numpy as np

    likely = floor + (1 - floor) * _logistic(x @ weights[:-1])
    residual, spread = wrong - likely, likely * (1 - likely)
    residuals = np.bincount(answers, residual, minlength=_BUCKETS)
    spreads = np.bincount(answers, spread, minlength=_BUCKETS)
    others = (residuals[answers] - residual) / (spreads[answers] - spread + _SHRINK)
    return residuals / (spreads + _SHRINK), others


def _regression(x: Floats, wrong: Floats, counts: Floats, prior: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Return weights and their covariance: Newton's method; each row counts as much as *counts* says."""
    import numpy as np

    def loss(weights: Floats) -> float:
        z = x @ weights
        return float(counts @ (np.logaddexp(0, z) - wrong * z) + _PRECISION * (weights - prior) @ (weights - prior) / 2)

    weights, before = start, loss(start)
    for _ in range(_STEPS):
        p = _logistic(x @ weights)
        gradient = x.T @ (counts * (p - wrong)) + _PRECISION * (weights - prior)
        curvature = (x * (counts * p * (1 - p))[:, None]).T @ x + _PRECISION * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        after = loss(weights - step)
        for _ in range(_HALVINGS):  # a whole step may overshoot, and then swing for ever
            if after <= before:
                break
            step = step / 2
            after = loss(weights - step)
        if after > before or float(np.abs(step).max()) < 1e-4:
            break
        weights, before = weights - step, after
    p = _logistic(x @ weights)
    curvature = (x * (counts * p * (1 - p))[:, None]).T @ x + _PRECISION * np.eye(len(weights))
    return weights, np.asarray(np.linalg.inv(curvature), np.float64)


def _logistic(z: Floats) -> Floats:
    import numpy as np

    return 1 / (1 + np.exp(-np.clip(z, -50, 50)))
