"""When may an answer be accepted unseen? A threshold with a guarantee, and a monitor that watches whether it holds.

`accept_threshold`: with confidence 1 - alpha, at most a share delta of the accepted answers is wrong, as long as
requests come from where the calibration rows came from. Thresholds are tested from strict to permissive, each by the
one-sided bound of Clopper and Pearson (1934) on the errors among those that it accepts, until the first one fails: a
fixed sequence needs no correction for many tests (Bauer 1991; as "learn then test" in Angelopoulos et al. 2021). The
sequence is fixed by the number of rows alone. It begins where a fifth of the rows is accepted, or where rows without
any error would suffice if that is more: a stricter threshold would rest on so few rows that one error ends it all.

`DriftMonitor`: requests change. Labels of accepted answers that were checked later arrive one by one, and may be looked
at after each: the chance that it ever raises an alarm while the error is at most delta is alpha, for all time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from negawatt.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_SHARE = 0.2
_STEPS = 20  # a step of the sequence accepts a twentieth of the rows more: small steps only stop at bumps
_MOST_ROWS = 1_000_000  # that one would ask anybody to label
_EXCESS = (1.5, 2.0, 3.0, 6.0)  # times delta: what the monitor bets on


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepting:
    """Accept answers whose score is at least *threshold*; None: abstain, accept none. *reason* is for people.

    *accepted*, *wrong*, *bound*: calibration rows accepted, errors among them, and the share of such answers that is
    wrong at most (of the strictest threshold where it abstains). *rows_needed*: so many calibration rows would be
    needed if all went on like this, or, where there are too few, without any error; None where none would do.
    """

    threshold: float | None
    delta: float
    alpha: float
    rows: int
    accepted: int
    wrong: int
    bound: float
    reason: str
    rows_needed: int | None = None


def accept_threshold(
    scores: Floats, wrong: Floats, *, delta: float, alpha: float = 0.05, least_share: float = LEAST_SHARE
) -> Accepting:
    """Return the most permissive threshold that passes, given *scores* (higher: likelier right) and *wrong* (0 or 1).

    Neither the model behind the scores nor anything else may have been fitted on these rows. Raises `InputError` for
    values that are none, and unless 0 < delta, alpha < 1.
    """
    import numpy as np

    scores, wrong = np.asarray(scores, np.float64), np.asarray(wrong, np.float64)
    _check(scores, wrong, delta, alpha)
    n, clean = len(scores), clean_rows(delta, alpha)
    start = max(clean, math.ceil(n * least_share))
    if start > n:
        return Accepting(
            threshold=None, delta=delta, alpha=alpha, rows=n, accepted=0, wrong=0, bound=1.0, rows_needed=clean,
            reason=f"{n} calibration rows cannot show an error below {delta:g}: {clean} without any error are needed",
        )  # fmt: skip
    order = np.argsort(-scores, kind="stable")
    ranked, errors = scores[order], np.cumsum(wrong[order])
    sizes = sorted({min(n, start + math.ceil(step * n / _STEPS)) for step in range(_STEPS + 1)})
    passed: tuple[float, int, int] | None = None
    for size in sizes:
        # A threshold accepts all that have its score, also beyond the size that led to it.
        threshold = float(ranked[size - 1])
        accepted = int(np.searchsorted(-ranked, -threshold, side="right"))
        failed = int(errors[accepted - 1])
        if not within(failed, accepted, delta, alpha):
            break
        passed = threshold, accepted, failed
    if passed is None:
        return _abstaining(n, accepted, failed, delta, alpha)
    threshold, accepted, failed = passed
    bound = upper_bound(failed, accepted, alpha)
    return Accepting(
        threshold=threshold, delta=delta, alpha=alpha, rows=n, accepted=accepted, wrong=failed, bound=bound,
        reason=f"of {accepted} accepted calibration rows {failed} were wrong: at most {bound:.2%} of all such",
    )  # fmt: skip


def accept(scores: Sequence[float], right: Sequence[bool], delta: float, alpha: float) -> tuple[float | None, str]:
    """Return the threshold that `accept_threshold` finds, None to abstain, and its reason."""
    import numpy as np

    found = accept_threshold(np.asarray(scores, np.float64), ~np.asarray(right, bool), delta=delta, alpha=alpha)
    return found.threshold, found.reason


def clean_rows(delta: float, alpha: float) -> int:
    """Return how many rows without any error show that the error is at most *delta*, with confidence 1 - *alpha*."""
    return math.ceil(math.log(alpha) / math.log1p(-delta))


def within(errors: int, n: int, delta: float, alpha: float) -> bool:
    """True when *errors* of *n* show, with confidence 1 - *alpha*, that the error is at most *delta*."""
    from negawatt.statistics import beta_cdf

    return errors < n and 1 - beta_cdf(delta, errors + 1, n - errors) <= alpha


def upper_bound(errors: int, n: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson bound of a share of which *errors* of *n* were seen."""
    if errors >= n:
        return 1.0
    low, high = errors / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if within(errors, n, middle, alpha):
            high = middle
        else:
            low = middle
    return high


def _abstaining(n: int, accepted: int, failed: int, delta: float, alpha: float) -> Accepting:
    bound = upper_bound(failed, accepted, alpha)
    reason = (
        f"of the {accepted} calibration rows with the highest scores {failed} were wrong: "
        f"as many as {bound:.2%} of such answers may be, and {delta:.2%} are allowed"
    )
    needed = None
    if failed / accepted < delta:
        times = 1.0
        while n * times < _MOST_ROWS and not within(round(failed * times), round(accepted * times), delta, alpha):
            times *= 1.1
        needed = math.ceil(n * times) if n * times < _MOST_ROWS else None
    remedy = "the score does not tell them apart" if needed is None else f"about {needed} rows would be needed"
    return Accepting(
        threshold=None, delta=delta, alpha=alpha, rows=n, accepted=accepted, wrong=failed, bound=bound,
        reason=f"{reason}; {remedy}", rows_needed=needed,
    )  # fmt: skip


def _check(scores: Floats, wrong: Floats, delta: float, alpha: float) -> None:
    import numpy as np

    if not (0 < delta < 1 and 0 < alpha < 1):
        raise InputError(f"delta and alpha lie between 0 and 1, not {delta} and {alpha}")
    if scores.ndim != 1 or scores.shape != wrong.shape:
        raise InputError(f"calibration needs a label for each score, not {wrong.shape} for {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError(f"calibration row {int(np.flatnonzero(~np.isfinite(scores))[0]) + 1} has no score")
    if not np.isin(wrong, (0, 1)).all():
        raise InputError("calibration labels are 1 (wrong) or 0 (right)")


class Estimate(NamedTuple):
    """A share, and where it lies with confidence 1 - alpha however often one looks; None: nothing seen."""

    mean: float | None
    low: float
    high: float
    n: int


class DriftMonitor:
    """Raises an alarm when accepted answers are wrong more often than *delta*.

    It bets, at odds that are fair for an error of delta, that the error is 1.5, 2, 3 or 6 times as large, and that it
    has been so since the first, the second, ... label; the stakes 1 / (j (j + 1)) for each start j sum to 1. While the
    error is at most delta, what it owns is worth no more than its stake on the mean; so it ever owns 1 / alpha with
    chance alpha at most (Ville 1939). The later a change comes, the smaller the stakes on it: after j labels it takes
    2 ln j more in the exponent to be found.
    """

    def __init__(self, delta: float, alpha: float = 0.05) -> None:
        if not (0 < delta < 1 and 0 < alpha < 1):
            raise InputError(f"delta and alpha lie between 0 and 1, not {delta} and {alpha}")
        self.delta, self.alpha = delta, alpha
        self.seen = self.wrong = 0
        self.alarmed = False
        supposed = [min(delta * times, (1 + delta) / 2) for times in _EXCESS]
        self._factors = [((1 - p) / (1 - delta), p / delta) for p in supposed]
        self._owned = [0.0] * len(supposed)

    @classmethod
    def resumed(cls, delta: float, alpha: float, state: Sequence[float]) -> DriftMonitor:
        """Return a monitor that goes on from `state`."""
        monitor = cls(delta, alpha)
        if len(state) != 3 + len(_EXCESS):
            raise InputError(f"the state of a drift monitor has {3 + len(_EXCESS)} numbers, not {len(state)}")
        monitor.seen, monitor.wrong, monitor.alarmed = int(state[0]), int(state[1]), bool(state[2])
        monitor._owned = list(state[3:])
        return monitor

    def state(self) -> list[float]:
        """Return all that it knows, for `resumed`."""
        return [float(self.seen), float(self.wrong), float(self.alarmed), *self._owned]

    def add(self, wrong: bool) -> bool:
        """Take the label of one accepted answer; return whether there is, or ever was, an alarm."""
        self.seen += 1
        self.wrong += wrong
        stake = 1 / (self.seen * (self.seen + 1))
        factors = [factor[wrong] for factor in self._factors]
        # Beyond 1e300 it has long raised its alarm, and need not own more.
        self._owned = [min((own + stake) * factor, 1e300) for own, factor in zip(self._owned, factors, strict=True)]
        self.alarmed = self.alarmed or self.evidence >= 1 / self.alpha
        return self.alarmed

    @property
    def evidence(self) -> float:
        """How many times its stake it owns: an e-value against "the error is at most delta"."""
        return sum(self._owned) / len(self._owned) + 1 / (self.seen + 1)

    @property
    def estimate(self) -> Estimate:
        """The share of wrong ones so far; its interval holds for all time (Robbins 1970: a mixture of betas)."""
        if self.seen == 0:
            return Estimate(None, 0.0, 1.0, 0)
        a, b = self.wrong + 0.5, self.seen - self.wrong + 0.5
        mixture = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) - math.log(math.pi)
        mean = self.wrong / self.seen
        limit = mixture - math.log(1 / self.alpha)

        def inside(p: float) -> bool:
            return _likelihood(self.wrong, p) + _likelihood(self.seen - self.wrong, 1 - p) >= limit

        return Estimate(mean, _edge(inside, mean, 0.0), _edge(inside, mean, 1.0), self.seen)


def _likelihood(times: int, p: float) -> float:
    if times == 0:
        return 0.0
    return times * math.log(p) if p > 0 else -math.inf


def _edge(inside: Callable[[float], bool], within: float, outside: float) -> float:
    """Return where *inside* ends between *within*, where it holds, and *outside*."""
    if inside(outside):
        return outside
    for _ in range(50):
        middle = (within + outside) / 2
        if inside(middle):
            within = middle
        else:
            outside = middle
    return outside
