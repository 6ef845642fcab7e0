"""Which intent a vector is of, learned from labelled ones: how likely each is, and whether it is any of them at all.

Two opinions are mixed, for each errs where the other does not: a multinomial logistic regression, and the votes of the
examples, weighted by ``exp(similarity / 0.05)``. The mixture is geometric, ``p ~ regression^(1-w) * votes^w``. The
regression's penalty, *w* and a temperature are those under which examples that were held out are likeliest
(stratified cross-fitting), so that a probability of 0.8 is right about eight times in ten on requests like them.

A request is out of scope when it is less sure and less near than almost all examples were when held out: the sum of two
ranks, that of its highest probability and that of its mean similarity to the three nearest examples, lies below that of
97 % of them; one that is farther off than all but 0.5 % of them has no rank, however sure the model is.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from negawatt.routing.logistic import Floats, fit, log_softmax, scores

Labels = NDArray[np.intp]

PENALTIES = (1e-2, 1e-3, 1e-4, 3e-5, 1e-5, 3e-6)
MIXES = (0.0, 0.3, 0.5, 0.7)
KEPT = 0.97  # of examples that belong to a class
_FAR = 0.005  # of them, that lie so far from all others that being sure means nothing
_WIDTH = 0.05  # of the kernel, in similarity
_NEAREST = 3
_TEMPERATURES = np.geomspace(0.25, 64.0, 65)
_FOLDS, _FEW_FOLDS, _MANY = 5, 3, 4_000
_AT_ONCE = 512  # rows compared with all examples
_NONE = 1e-6  # of the votes, for who got none


class IntentModel(msgspec.Struct, frozen=True):
    """What was learned. *rows*: the examples' vectors, each of length 1; *labels*: sorted indices of *classes*."""

    classes: tuple[str, ...]
    rows: Floats
    labels: Labels
    weights: Floats
    penalty: float
    mix: float
    temperature: float
    sure: Floats  # the highest probabilities of the examples when held out, sorted
    near: Floats  # and their mean similarities to the nearest three
    least: float  # sum of ranks from which a request is within scope
    accuracy: float  # of the examples when held out

    def probabilities(self, vectors: Floats) -> Floats:
        """Return how likely each class is for each of *vectors*: shape (vectors, classes)."""
        return self._judged(vectors)[0]

    def judge(self, vectors: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return how likely each class is for each of *vectors*, and whether it is of any of them."""
        told, nearness = self._judged(vectors)
        return told, _ranks(self.sure, self.near, told.max(axis=1), nearness) >= self.least

    def _judged(self, vectors: Floats) -> tuple[Floats, Floats]:
        votes, nearness = _votes(self.rows, self.labels, len(self.classes), vectors)
        mixed = _mixed(scores(vectors, self.weights), votes, self.mix)
        return np.exp(log_softmax(mixed / np.float32(self.temperature))), nearness


def learn(rows: Floats, labels: Labels, classes: tuple[str, ...], *, outside: int | None, seed: int = 0) -> IntentModel:
    """Return the model of *rows*, vectors of length 1, that belong to *classes* by *labels*: two examples of each.

    *outside*: the class that stands for none of them, if there are examples of it.
    """
    order = np.argsort(labels, kind="stable")
    rows, labels = rows[order], labels[order]
    folds = _folds(labels, _FOLDS if len(rows) <= _MANY else _FEW_FOLDS, np.random.default_rng(seed))
    held_out, votes, nearness = _cross_fitted(rows, labels, len(classes), folds)
    best, penalty, mix, temperature = float("inf"), PENALTIES[0], 0.0, 1.0
    for one_penalty, logs in zip(PENALTIES, held_out, strict=True):
        for one_mix in MIXES:
            warmth, loss = _warmed(_mixed(logs, votes, one_mix), labels)
            if loss < best:
                best, penalty, mix, temperature = loss, one_penalty, one_mix, warmth
    mixed = _mixed(held_out[PENALTIES.index(penalty)], votes, mix)
    told = np.exp(log_softmax(mixed / np.float32(temperature)))
    inside = labels != (-1 if outside is None else outside)
    sure, near = np.sort(told.max(axis=1)[inside]), np.sort(nearness[inside])
    ranks = _ranks(sure, near, told.max(axis=1)[inside], nearness[inside])
    return IntentModel(
        classes=classes, rows=rows, labels=labels, weights=fit(rows, labels, len(classes), penalty), penalty=penalty,
        mix=mix, temperature=temperature, sure=sure, near=near, least=float(np.quantile(ranks, 1 - KEPT)),
        accuracy=float((told.argmax(axis=1) == labels).mean()),
    )  # fmt: skip


def _cross_fitted(rows: Floats, labels: Labels, classes: int, folds: Labels) -> tuple[list[Floats], Floats, Floats]:
    """Return what is said of each row by what was learned without its fold.

    The regression's log-probabilities for each of `PENALTIES`, the votes, and the nearness.
    """
    logs = [np.zeros((len(rows), classes), np.float32) for _ in PENALTIES]
    votes, nearness = np.zeros((len(rows), classes), np.float32), np.zeros(len(rows), np.float32)
    for fold in range(int(folds.max()) + 1):
        out, left = folds == fold, folds != fold
        votes[out], nearness[out] = _votes(rows[left], labels[left], classes, rows[out])
        weights = None
        for made, penalty in zip(logs, PENALTIES, strict=True):
            weights = fit(rows[left], labels[left], classes, penalty, weights)
            made[out] = scores(rows[out], weights)
    return logs, votes, nearness


def _folds(labels: Labels, most: int, rng: np.random.Generator) -> Labels:
    """Return which fold each row is in: as many of each class in each as can be, and never all of a class in one."""
    folds = np.zeros(len(labels), np.intp)
    counts = np.bincount(labels)
    many = int(max(2, min(most, counts[counts > 0].min())))
    for one in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == one))
        folds[places] = np.arange(len(places)) % many
    return folds


def _votes(rows: Floats, labels: Labels, classes: int, vectors: Floats) -> tuple[Floats, Floats]:
    """Return the logarithms of the classes' shares of the votes, and the mean similarity to the nearest examples.

    *labels* are sorted, and there is one of each class at least.
    """
    first = np.searchsorted(labels, np.arange(classes))
    shares, nearness = np.empty((len(vectors), classes), np.float32), np.empty(len(vectors), np.float32)
    many = min(_NEAREST, len(rows))
    for i in range(0, len(vectors), _AT_ONCE):
        similar = vectors[i : i + _AT_ONCE] @ rows.T
        nearness[i : i + _AT_ONCE] = np.partition(similar, -many, axis=1)[:, -many:].mean(axis=1)
        # Less the highest, so that the largest vote is 1 and nothing is lost to rounding.
        weighed = np.exp((similar - similar.max(axis=1, keepdims=True)) / np.float32(_WIDTH))
        cast = np.add.reduceat(weighed, first, axis=1)
        shares[i : i + _AT_ONCE] = cast / cast.sum(axis=1, keepdims=True)
    return np.log(shares + np.float32(_NONE)), nearness


def _mixed(logs: Floats, votes: Floats, mix: float) -> Floats:
    return log_softmax(np.float32(1 - mix) * logs + np.float32(mix) * votes)


def _warmed(logs: Floats, labels: Labels) -> tuple[float, float]:
    """Return the temperature under which *labels* are likeliest, and the mean negative log-likelihood under it.

    One label in ``n + 2`` is taken to be drawn blindly (Laplace): that none of a few was wrong makes nothing certain.
    """
    picked, doubt = np.arange(len(labels)), 1 / (len(labels) + 2)
    best, least = 1.0, float("inf")
    for temperature in _TEMPERATURES:
        told = log_softmax(logs / np.float32(temperature))
        loss = -float((1 - doubt) * told[picked, labels].mean() + doubt * told.mean())
        if loss < least:
            best, least = float(temperature), loss
    return best, least


def _ranks(sure: Floats, near: Floats, ask_sure: Floats, ask_near: Floats) -> NDArray[np.float64]:
    """Return the sum of both ranks among the examples' *sure* and *near*, which are sorted; -1 for what is far off."""
    ranks = (np.searchsorted(sure, ask_sure) + np.searchsorted(near, ask_near)) / max(1, len(sure))
    return np.where(ask_near < np.quantile(near, _FAR, method="lower"), -1.0, ranks)
