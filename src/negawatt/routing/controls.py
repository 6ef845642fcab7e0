"""The honest no: does routing beat the same choices dealt out at random?

The *shuffled control* sends as many requests to each candidate as the router does, but not the same ones. A router that
does not beat it knows nothing about requests: its savings could be had by a coin. Judge predictions for rows that were
not fitted (`negawatt.routing.gain.cross_fitted`).

Two questions, and both must be answered with yes:

1. Does the *score* know anything? All thresholds at once (the area under the curve), tested by permutation, p <= 0.05.
   A threshold picked after looking at the outcomes of many cannot make this one true.
2. Do the *choices* pay, as they would be made? The difference to the control at equal cost, row by row, and its 95 %
   interval: it lies above 0. A score that knows something may still be cut where it gains nothing.

Where routing cannot help, the first is passed by at most 5 in 100 routers, however the threshold was chosen; both,
by fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from negawatt.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Choices = NDArray[np.intp]

ALPHA = 0.05
PERMUTATIONS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlVerdict:
    """*beats*: the router may be turned on. *difference*: its success minus the control's, with 95 % interval.

    *p_choices*, *p_scores*: how often shuffled choices and shuffled scores do as well. *shares*: of each candidate.
    """

    beats: bool
    difference: float
    low: float | None
    high: float | None
    p_choices: float
    p_scores: float
    n: int
    router: float
    control: float
    shares: tuple[float, ...]
    reason: str


def beats_shuffled(
    chosen: Choices, gains: Floats, outcomes: Floats, *, seed: int, costs: Floats | None = None,
    clusters: Sequence[str] | None = None,
) -> ControlVerdict:  # fmt: skip
    """Return the verdict on *chosen*, the candidate (0 .. k - 1) of each row, and the predicted *gains* (n, k - 1).

    *outcomes*: success of each candidate, shape (n, k), the reference last. *costs*, likewise: the control gets as much
    money as the router spends, where that is more or less than its shares would cost on the mean. *clusters* names rows
    that repeat each other. Raises `InputError` for other shapes and for values that are none.
    """
    import numpy as np

    from negawatt.statistics import Bootstrap

    chosen, gains, outcomes = (
        np.asarray(chosen, np.intp),
        np.asarray(gains, np.float64),
        np.asarray(outcomes, np.float64),
    )
    _check(chosen, gains, outcomes, costs)
    n, k = outcomes.shape
    rng = np.random.default_rng(seed)
    dealt = _dealt(chosen, costs, k)
    got, control = outcomes[np.arange(n), chosen], outcomes @ dealt
    names = [str(i) for i in range(n)] if clusters is None else clusters
    interval = Bootstrap(names, rng).mean(got - control)
    shares = np.bincount(chosen, minlength=k) / n
    # The mean over all shuffles is known: only the spread of the shuffles needs drawing.
    p_choices = p_scores = 0
    drawn = _grouped(names, rng)
    truth = outcomes[:, -1:] - outcomes[:, :-1]
    ranks = gains.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / n
    score, excess = float((ranks * truth).sum()), float((got - control).sum())
    for _ in range(PERMUTATIONS):
        order = drawn()
        shuffled = outcomes[np.arange(n), chosen[order]] - control
        p_choices += float(shuffled.sum()) >= excess - 1e-9
        p_scores += float((ranks[order] * truth).sum()) >= score - 1e-9
    verdict = {"p_choices": (1 + p_choices) / (1 + PERMUTATIONS), "p_scores": (1 + p_scores) / (1 + PERMUTATIONS)}
    low = interval.low
    pays = low is not None and low > 0 and verdict["p_choices"] <= ALPHA
    beats = bool(pays and verdict["p_scores"] <= ALPHA)
    return ControlVerdict(
        beats=beats, difference=float((got - control).mean()), low=low, high=interval.high, n=n,
        router=float(got.mean()), control=float(control.mean()), shares=tuple(float(share) for share in shares),
        reason=_reason(shares, verdict["p_scores"], pays), **verdict,
    )  # fmt: skip


def _dealt(chosen: Choices, costs: Floats | None, k: int) -> Floats:
    """Return with which chance the control deals each candidate: the router's shares, for the router's money."""
    import numpy as np

    shares: Floats = np.bincount(chosen, minlength=k) / len(chosen)
    if costs is None:
        return shares
    costs = np.asarray(costs, np.float64)
    means, spent = costs.mean(axis=0), float(costs[np.arange(len(chosen)), chosen].mean())
    short = spent - float(means @ shares)
    towards = int(means.argmax() if short > 0 else means.argmin())
    room = float(means[towards] - means @ shares)
    part = min(1.0, short / room) if room != 0 else 0.0
    shares = shares * (1 - part)
    shares[towards] += part
    return shares


def _grouped(names: Sequence[str], rng: np.random.Generator) -> Callable[[], Choices]:
    """Return what draws a shuffle of the rows.

    Rows that repeat each other get their choices together: clusters of one size change places among themselves.
    """
    import numpy as np

    _, unit = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    if int(unit.max()) + 1 == len(unit):
        return lambda: rng.permutation(len(unit))
    by_unit = np.argsort(unit, kind="stable")
    counts = np.bincount(unit)
    starts = np.cumsum(counts) - counts
    blocks = [
        by_unit[starts[np.flatnonzero(counts == size)][:, None] + np.arange(size)] for size in np.unique(counts)
    ]  # each of shape (clusters of this size, size)

    def draw() -> Choices:
        order = np.empty(len(unit), np.intp)
        for block in blocks:
            order[block] = block[rng.permutation(len(block))]
        return order

    return draw


def _reason(shares: Floats, p_scores: float, pays: bool) -> str:
    if float(shares.max()) == 1.0:
        return "it sends everything to one candidate, so there is nothing to choose: name that candidate instead"
    if p_scores > ALPHA:
        return f"its scores know no more than shuffled ones (p = {p_scores:.3f}): do not route, or evaluate more"
    if not pays:
        return "its choices are not shown to beat the same shares dealt at random: another threshold, or more prompts"
    return "it beats the same shares dealt at random"


def _check(chosen: Choices, gains: Floats, outcomes: Floats, costs: Floats | None) -> None:
    import numpy as np

    if outcomes.ndim != 2 or outcomes.shape[1] < 2 or len(outcomes) < 2:
        raise InputError(f"the control needs outcomes of two candidates on two rows at least, not {outcomes.shape}")
    n, k = outcomes.shape
    if chosen.shape != (n,) or gains.shape != (n, k - 1) or (costs is not None and np.shape(costs) != (n, k)):
        raise InputError(f"the control needs a choice and {k - 1} gains for each of {n} rows, and costs like outcomes")
    if chosen.min() < 0 or chosen.max() >= k:
        raise InputError(f"choices are numbers of candidates from 0 to {k - 1}")
    if not (np.isfinite(gains).all() and np.isfinite(outcomes).all() and (costs is None or np.isfinite(costs).all())):
        raise InputError("a gain, an outcome or a cost is not a number")
