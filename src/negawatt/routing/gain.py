"""The learned router: by how much would the reference model do better on this prompt?

Candidates stand in order of rising cost; the last one is the *reference*. For a prompt the model gives

- the **gain** of the reference over each other candidate, E[success of the reference - success of the candidate]. It is
  learned as such: whoever learns where the small model fails sends it prompts on which all fail;
- the probability of **success** of each candidate, calibrated on predictions for rows that were not fitted;
- how near the **nearest** prompt is that was learned from, so that the caller can abstain where nothing is known.

It is a Gaussian process (`negawatt.routing.process`) on what can be seen of the prompt, on its vector, and on what a
linear regression on the vector says of each candidate. All that has to be chosen is chosen from the fitting rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from negawatt.errors import InputError
from negawatt.routing import process
from negawatt.routing.process import Found, Process, Rows
from negawatt.routing.prompt_features import NAMES, prompt_features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

LEAST_ROWS = 50
_FOLDS = 5
_CLIP = 0.005  # of a predicted success before its logit is taken
_DOUBT = 0.5
_STEEPEST = 1.5  # calibration may stretch a prediction by so much
_UNFAMILIAR = 0.01  # of the fitting rows would be called unfamiliar themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a model says of itself. *candidates*: names in order of rising cost, the last being the reference."""

    embedder: str = ""
    candidates: tuple[str, ...] = ()
    date: str = ""
    rows: int = 0
    digest: str = ""  # SHA-256 of texts, vectors and outcomes


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of n prompts and k candidates. *familiar* False: no prompt like it was learned from."""

    gains: Floats  # (n, k - 1), -1..1
    success: Floats  # (n, k), 0..1
    nearest: Floats  # (n,), cosine
    familiar: NDArray[np.bool_]  # (n,)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of raw predictions: gains by slope and shift, successes by the two numbers of Platt's logistic."""

    gains: Floats  # (2, k - 1)
    success: Floats  # (2, k)


@dataclass(frozen=True, slots=True)
class GainModel:
    """A fitted router; `fit` makes one, `negawatt.routing.gain_file` keeps it."""

    card: Card
    process: Process  # its outputs are the gains, then the successes
    calibration: Calibration
    vectors: Singles  # (kept, dimensions)
    unfamiliar: float  # below this similarity

    @classmethod
    def fit(
        cls, texts: Sequence[str], vectors: Singles, outcomes: Floats, *, seed: int, card: Card | None = None,
        extra: Floats | None = None,
    ) -> GainModel:  # fmt: skip
        """Learn from *texts*, their unit *vectors* (n, d), and the *outcomes* 0..1 of k candidates (n, k).

        *extra*: more columns for each row, such as `negawatt.routing.answer_checks`. Raises `InputError`, with what is
        missing, for fewer than 50 rows, for values that are not numbers, and where nothing can be learned because no
        candidate differs from the reference, or always by the same.
        """
        import numpy as np

        vectors, outcomes = np.asarray(vectors, np.float32), np.asarray(outcomes, np.float64)
        extra = None if extra is None else np.asarray(extra, np.float64)
        card = card or Card()
        _check(texts, vectors, outcomes, extra, card)
        rng = np.random.default_rng(seed)
        rows = _described(texts, vectors, extra)
        targets = np.column_stack([outcomes[:, -1:] - outcomes[:, :-1], outcomes])
        found = Found.of(rows, targets, outcomes.shape[1] - 1, rng)
        found, held_out = _cross_fitted(rows, outcomes, targets, found, rng)
        keep = _kept(len(texts), rng)
        near = vectors[keep] @ vectors[keep].T
        np.fill_diagonal(near, -1.0)
        return cls(
            _told(card, texts, vectors, outcomes), Process.fit(rows, outcomes, targets, found, keep),
            _calibration(held_out, targets, outcomes.shape[1]), np.ascontiguousarray(vectors[keep]),
            float(np.quantile(near.max(axis=1), _UNFAMILIAR)),
        )  # fmt: skip

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def predict(self, texts: Sequence[str], vectors: Singles, extra: Floats | None = None) -> Predictions:
        """Return what is expected of *texts*, of their unit *vectors* (n, d) and *extra* columns, as they were fitted.

        Raises `InputError` for other shapes. One prompt takes a fraction of a millisecond.
        """
        import numpy as np

        vectors = np.asarray(vectors, np.float32)
        extra = None if extra is None else np.asarray(extra, np.float64)
        given = [vectors.shape, *([] if extra is None else [extra.shape])]
        wanted = [(len(texts), len(block.centre)) for block in self.process.blocks[1:]]
        if given != wanted:
            raise InputError(f"the router was fitted on other columns: vectors (and extra) are {given}, not {wanted}")
        raw = self.process.ask(_described(texts, vectors, extra))
        nearest = (vectors @ self.vectors.T).max(axis=1).astype(np.float64)
        k = (raw.shape[1] + 1) // 2
        gains = np.clip(raw[:, : k - 1] * self.calibration.gains[0] + self.calibration.gains[1], -1, 1)
        return Predictions(
            gains, _platt(raw[:, k - 1 :], self.calibration.success), nearest, nearest >= self.unfamiliar
        )


def cross_fitted(
    texts: Sequence[str], vectors: Singles, outcomes: Floats, *, seed: int, extra: Floats | None = None
) -> Predictions:
    """Return predictions for all rows, each by a model that has seen neither the row nor its fold, not even to choose.

    Five fits: what `negawatt.routing.controls` needs for its verdict. Raises what `GainModel.fit` raises.
    """
    import numpy as np

    outcomes = np.asarray(outcomes, np.float64)
    fold = np.random.default_rng(seed).permutation(len(texts)) % _FOLDS
    n, k = outcomes.shape
    found = Predictions(np.empty((n, k - 1)), np.empty((n, k)), np.empty(n), np.empty(n, bool))
    for one in range(_FOLDS):
        inside, outside = np.flatnonzero(fold != one).tolist(), np.flatnonzero(fold == one).tolist()
        model = GainModel.fit(
            [texts[i] for i in inside], vectors[inside], outcomes[inside], seed=seed + one,
            extra=None if extra is None else extra[inside],
        )  # fmt: skip
        part = model.predict([texts[i] for i in outside], vectors[outside], None if extra is None else extra[outside])
        found.gains[outside], found.success[outside] = part.gains, part.success
        found.nearest[outside], found.familiar[outside] = part.nearest, part.familiar
    return found


def _described(texts: Sequence[str], vectors: Singles, extra: Floats | None) -> Rows:
    import numpy as np

    features = np.array([prompt_features(text) for text in texts], np.float64).reshape(len(texts), len(NAMES))
    return Rows(features, vectors, extra)


def _cross_fitted(
    rows: Rows, outcomes: Floats, targets: Floats, found: Found, rng: np.random.Generator
) -> tuple[Found, Floats]:
    """Return *found* with the loudness that predicts gains best on rows that were not fitted, and its predictions."""
    import numpy as np

    n, gains = len(targets), targets.shape[1] - outcomes.shape[1]
    fold, every = rng.permutation(n) % _FOLDS, np.arange(n)
    keeps = [_kept(int((fold != one).sum()), rng) for one in range(_FOLDS)]
    best: tuple[float, Found, Floats] | None = None
    for loud in process.LOUD:
        tried, held_out = replace(found, loud=loud), np.empty_like(targets)
        for one in range(_FOLDS):
            inside, outside = every[fold != one], every[fold == one]
            part = Process.fit(rows[inside], outcomes[inside], targets[inside], tried, keeps[one])
            held_out[outside] = part.ask(rows[outside])
        error = float(((held_out - targets)[:, :gains] ** 2).sum())
        if best is None or error < best[0]:
            best = error, tried, held_out
    assert best is not None
    return best[1], best[2]


def _kept(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which of *n* rows are kept."""
    import numpy as np

    return np.sort(rng.permutation(n)[: process.KEPT_ROWS])


def _calibration(held_out: Floats, targets: Floats, k: int) -> Calibration:
    import numpy as np

    gains = np.empty((2, k - 1))
    for j in range(k - 1):
        x, y = held_out[:, j] - held_out[:, j].mean(), targets[:, j] - targets[:, j].mean()
        # Least squares, with a prior: the process believes itself to be right (a slope of 1), give or take a half.
        precision = _DOUBT**-2 * float(y.var())
        slope = (float(x @ y) + precision) / (float(x @ x) + precision)
        # A slope below 0 says that nothing was learned: then all prompts are alike.
        gains[0, j] = min(max(slope, 0.0), _STEEPEST)
        gains[1, j] = float(targets[:, j].mean()) - gains[0, j] * float(held_out[:, j].mean())
    columns = [_fit_platt(_logit(held_out[:, k - 1 + j]), targets[:, k - 1 + j]) for j in range(k)]
    return Calibration(gains, np.array(columns).T)


def _fit_platt(z: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and shift of the logistic of *z* nearest to *y* (0..1): Newton's method, a weak prior at (1, 0)."""
    import numpy as np

    prior, precision = np.array([1.0, 0.0]), np.diag([4.0, 1.0])
    design, weights = np.column_stack([z, np.ones_like(z)]), prior.copy()
    for _ in range(25):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - y) + precision @ (weights - prior)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + precision
        step = np.linalg.solve(curvature, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))
        if float(np.abs(step).max()) < 1e-8:
            break
    return max(float(weights[0]), 0.0), float(weights[1])


def _platt(raw: Floats, calibration: Floats) -> Floats:
    import numpy as np

    success: Floats = 1 / (1 + np.exp(-(_logit(raw) * calibration[0] + calibration[1])))
    return success


def _logit(p: Floats) -> Floats:
    import numpy as np

    # Beyond 0 and 1, where a regression may lead, order is kept by a straight line.
    inside = np.clip(p, _CLIP, 1 - _CLIP)
    logit: Floats = np.log(inside / (1 - inside)) + (p - inside) * 20
    return logit


def _told(card: Card, texts: Sequence[str], vectors: Singles, outcomes: Floats) -> Card:
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    digest.update(np.ascontiguousarray(vectors).tobytes())
    digest.update(np.ascontiguousarray(outcomes).tobytes())
    candidates = card.candidates or tuple(f"candidate {i + 1}" for i in range(outcomes.shape[1]))
    return Card(
        embedder=card.embedder, candidates=candidates, date=card.date, rows=len(texts), digest=digest.hexdigest()
    )


def _check(texts: Sequence[str], vectors: Singles, outcomes: Floats, extra: Floats | None, card: Card) -> None:
    import numpy as np

    n = len(texts)
    if outcomes.ndim != 2 or outcomes.shape[1] < 2:
        raise InputError(f"a router needs outcomes of two candidates at least, one column each, not {outcomes.shape}")
    if vectors.ndim != 2 or (extra is not None and extra.ndim != 2):
        raise InputError("vectors and extra columns need one row for each text")
    lengths = [len(vectors), len(outcomes), *([] if extra is None else [len(extra)])]
    if any(length != n for length in lengths):
        raise InputError(f"{n} texts need as many vectors and outcomes, not {lengths}: one row each")
    if card.candidates and len(card.candidates) != outcomes.shape[1]:
        raise InputError(f"{outcomes.shape[1]} columns of outcomes, but the candidates are {card.candidates}")
    if n < LEAST_ROWS:
        raise InputError(f"a router is fitted on {LEAST_ROWS} rows at least, and here are {n}: evaluate more prompts")
    for name, values in (("vectors", vectors), ("outcomes", outcomes), ("extra columns", extra)):
        if values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise InputError(f"row {row + 1} of the {name} is not a number: leave it out or evaluate it again")
    if outcomes.min() < 0 or outcomes.max() > 1:
        raise InputError("outcomes are successes between 0 and 1: divide scores by their largest value")
    gains = outcomes[:, -1:] - outcomes[:, :-1]
    for j in np.flatnonzero(np.ptp(gains, axis=0) == 0):
        name = card.candidates[j] if card.candidates else f"candidate {j + 1}"
        raise InputError(
            f"the training rows hold one label only: the gain over {name} is {gains[0, j]:g} on every one of {n} rows; "
            "leave that candidate out, or evaluate prompts on which the models differ"
        )
