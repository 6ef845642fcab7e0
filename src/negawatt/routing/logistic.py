"""Multinomial logistic regression: by L-BFGS, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Slope = Callable[[Floats], tuple[float, Floats]]

_KEPT = 10  # steps that the curvature is estimated from
_SMALLEST_STEP = 1e-6


def fit(rows: Floats, labels: NDArray[np.intp], classes: int, penalty: float, start: Floats | None = None) -> Floats:
    """Return the weights, shape (columns + 1, classes), that make *labels* likeliest; the last row is the intercept.

    The mean negative log-likelihood plus *penalty* / 2 times the sum of the squared weights (without the intercept) is
    least (Nocedal 1980, with Armijo's rule). *start*: weights to begin from, those of another penalty.
    """
    columns = rows.shape[1]
    wide = np.hstack([rows, np.ones((len(rows), 1), np.float32)])
    told = np.zeros((len(rows), classes), np.float32)
    told[np.arange(len(rows)), labels] = 1.0

    def slope(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(columns + 1, classes)
        logs = log_softmax(wide @ weights)
        loss = -float((logs * told).sum()) / len(rows) + penalty / 2 * float((weights[:-1] ** 2).sum())
        gradient = wide.T @ ((np.exp(logs) - told) / np.float32(len(rows)))
        gradient[:-1] += np.float32(penalty) * weights[:-1]
        return loss, gradient.ravel()

    begin = np.zeros((columns + 1) * classes, np.float32) if start is None else start.ravel()
    return _least(slope, begin).reshape(columns + 1, classes)


def scores(rows: Floats, weights: Floats) -> Floats:
    """Return the logarithms of the classes' probabilities, shape (rows, classes)."""
    return log_softmax(rows @ weights[:-1] + weights[-1])


def log_softmax(values: Floats) -> Floats:
    """Return *values* less the logarithm of the sum of their exponentials, row by row."""
    values = values - values.max(axis=1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)), np.float32)


def _least(slope: Slope, at: Floats, *, steps: int = 200, tolerance: float = 3e-5) -> Floats:
    """Return where the function is least whose value and gradient *slope* gives, from *at* on; *steps* at most."""
    value, gradient = slope(at)
    moved: list[tuple[Floats, Floats, float]] = []
    for _ in range(steps):
        if float(np.abs(gradient).max()) <= tolerance:
            break
        way = _downhill(gradient, moved)
        gain, step = float(gradient @ way), 1.0
        while True:
            there = at - np.float32(step) * way
            new_value, new_gradient = slope(there)
            if new_value <= value - 1e-4 * step * gain:
                break
            step /= 2
            if step < _SMALLEST_STEP:
                return at  # as low as these numbers can tell
        shift, turn = there - at, new_gradient - gradient
        bend = float(shift @ turn)
        if bend > 1e-12:
            moved = [*moved[1 - _KEPT :], (shift, turn, 1 / bend)]
        at, value, gradient = there, new_value, new_gradient
    return at


def _downhill(gradient: Floats, moved: list[tuple[Floats, Floats, float]]) -> Floats:
    """Return the way that Newton's method would go, by the curvature that the last steps met (two-loop recursion)."""
    way = gradient.copy()
    shares: list[float] = []
    for shift, turn, inverse in reversed(moved):
        shares.append(inverse * float(shift @ way))
        way -= np.float32(shares[-1]) * turn
    if moved:
        shift, turn, inverse = moved[-1]
        way *= np.float32(1 / (inverse * float(turn @ turn)))
    else:
        way /= np.float32(max(1.0, float(np.abs(gradient).sum())))
    for (shift, turn, inverse), share in zip(moved, reversed(shares), strict=True):
        way += shift * np.float32(share - inverse * float(turn @ way))
    return way
