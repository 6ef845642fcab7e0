"""When may a guess answer? The acceptance rule, learned online under an error budget.

The budget: with confidence ``1 - alpha``, the share of wrong hits among all requests stays below ``delta``. Wrong hits
cannot be counted, for nobody asked the model; so three things stand in for counting.

1. A logistic regression says for each candidate how likely it is to be wrong, from its features and all that were ever
   compared: candidates that were declined (the model was asked, and its answer is known), and explored ones. What it
   says is raised by one standard error of its own, so that it is not bold where it has seen little.
2. A share of those that would be served is *explored*: the model is asked anyway. Over what was compared near the
   acceptance threshold, each with the risk it had been given *before* it was compared, the ratio of wrong ones to the
   sum of the risks corrects the regression (a Gamma posterior, prior 4 wrong in 4 expected).
3. The expected number of wrong hits so far, plus the normal quantile times its standard deviation (of the count, and
   of the correction), may not exceed ``delta * n``. The threshold is moved so that this holds at twice the requests
   seen so far, at the rate at which risks came lately.

The two variances of step 3 are added, so ``alpha`` is spent once. Where the correction is so large that even
its lower bound breaks the budget, the world has changed: what was learned is forgotten, and exploring starts again.
"""

from __future__ import annotations

from collections import deque
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from negawatt.indexes import Case
from negawatt.recall.features import PRIOR

if TYPE_CHECKING:
    import random

    import numpy as np
    from numpy.typing import NDArray

_LEAST_COMPARED = 60  # before the first fit
_LEAST_OF_EACH = 5  # right ones, and wrong ones
_FIT_WINDOW = 5000  # of compared candidates
_RATIO_WINDOW = 3000
_RISK_WINDOW = 1000  # requests whose risks say how risks come
_RATIO_PRIOR = 4.0
_NEAR = 3.0  # "near the threshold": up to so many times it
_LEAST_NEAR = 0.02
_TUNE_EVERY = 20  # requests
_DRIFT_WINDOW = 300  # newest comparisons near the threshold
_DRIFT_QUANTILE = 3.0  # it is looked for at every wrong one: one false alarm in a thousand looks
_MOST_RISK = 0.5


class Verdict(NamedTuple):
    """What the rule says of one candidate. *action*: "serve", "explore" or "miss"; *risk* of being wrong."""

    action: str
    risk: float
    propensity: float | None = None


class Estimate(NamedTuple):
    """The share of wrong hits among *n* requests: estimate, and an interval at the rule's confidence."""

    low: float
    central: float
    high: float
    n: int


class AcceptanceRule:
    """One rule for one request class and tier. Feed it every request, in order, and every comparison."""

    def __init__(self, *, delta: float, alpha: float, explore: float, rng: random.Random) -> None:
        self.delta = delta
        self._quantile = NormalDist().inv_cdf(1 - alpha)
        self._explore = explore
        self._rng = rng
        self._reset()
        self.drifts = 0

    def _reset(self) -> None:
        self.requests = 0
        self.threshold = 0.0
        self._spent = 0.0  # sum of the risks of what was served
        self._risks: deque[float] = deque(maxlen=_RISK_WINDOW)
        self._compared: dict[str, tuple[tuple[float, ...], float | None, bool]] = {}
        self._weights: NDArray[np.float64] | None = None
        self._covariance: NDArray[np.float64] | None = None
        self._fitted_at = 0
        self._ratio, self._ratio_spread = 1.0, 0.5

    # -- deciding ----------------------------------------------------------------------------------------------

    def decide(self, features: tuple[float, ...] | None) -> Verdict:
        """Count one request and say what to do with its candidate; None when it has none."""
        self.requests += 1
        risk = self.risk(features)
        self._risks.append(risk)
        if self.requests % _TUNE_EVERY == 0:
            self._tune()
        if risk > self.threshold:
            return Verdict("miss", risk)
        # The riskiest are explored most: they teach most, and a wrong one that is explored does no harm.
        propensity = self._explore * (0.5 + 1.5 * risk / self.threshold)
        if self._rng.random() < propensity:
            return Verdict("explore", risk, propensity)
        self._spent += risk
        return Verdict("serve", risk, propensity)

    def risk(self, features: tuple[float, ...] | None) -> float:
        """Return how likely a candidate with *features* is to be wrong; 1 while nothing is known."""
        if features is None or self._weights is None or self._covariance is None:
            return 1.0
        import numpy as np

        x = np.asarray(features)
        doubt = float(np.sqrt(max(0.0, x @ self._covariance @ x)))
        return float(1 / (1 + np.exp(-min(50.0, float(x @ self._weights) + doubt))))

    # -- learning ----------------------------------------------------------------------------------------------

    def learn(self, id: str, features: tuple[float, ...], *, risk: float | None, wrong: bool) -> bool:
        """Take in that the candidate of call *id* was *wrong* or right; a second word replaces the first.

        *risk* is what the rule had said. Returns True when this shows a drift, after which it has forgotten all.
        """
        again = id in self._compared
        if again:
            risk = self._compared[id][1]
        self._compared[id] = (features, None if risk == 1.0 else risk, wrong)
        while len(self._compared) > _FIT_WINDOW:
            del self._compared[next(iter(self._compared))]
        seen = len(self._compared)
        if again or seen >= max(_LEAST_COMPARED, self._fitted_at + max(20, self._fitted_at // 20)):
            self._fit()
        if wrong and self._drifted():
            self.drifts += 1
            self._reset()
            return True
        return False

    def replay(self, cases: list[Case]) -> None:
        """Take in what an earlier process, or another replica, has seen: *cases*, oldest first."""
        self._reset()
        for case in cases:
            self.requests += 1
            risk = 1.0 if case.risk is None else case.risk
            self._risks.append(risk)
            if case.action == "served":
                self._spent += risk
            if case.wrong is not None and case.features:
                self._compared[case.id] = (case.features, None if risk == 1.0 else risk, case.wrong)
        while len(self._compared) > _FIT_WINDOW:
            del self._compared[next(iter(self._compared))]
        self._fit()
        self._tune()

    def _fit(self) -> None:
        """Fit the regression to what was compared: Newton's method, Gaussian prior of unit precision about `PRIOR`."""
        import numpy as np

        rows = list(self._compared.values())
        wrong = np.array([row[2] for row in rows], float)
        if len(rows) < _LEAST_COMPARED or min(wrong.sum(), len(rows) - wrong.sum()) < _LEAST_OF_EACH:
            return
        x = np.array([row[0] for row in rows])
        prior = np.zeros(x.shape[1])
        prior[: len(PRIOR)] = PRIOR[: x.shape[1]]
        weights = prior.copy()
        for _ in range(25):
            p = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
            gradient = x.T @ (p - wrong) + (weights - prior)
            curvature = (x * (p * (1 - p))[:, None]).T @ x + np.eye(len(weights))
            step = np.linalg.solve(curvature, gradient)
            weights = weights - step * min(1.0, 4.0 / float(np.abs(step).max() + 1e-12))
            if float(np.abs(step).max()) < 1e-6:
                break
        self._weights, self._covariance = weights, np.linalg.inv(curvature)
        self._fitted_at = len(rows)

    # -- the budget --------------------------------------------------------------------------------------------

    def _tune(self) -> None:
        """Move the threshold to where the budget is used, and not more."""
        if self._weights is None:
            return
        import numpy as np

        risks = np.sort(np.asarray(self._risks))
        rate = np.cumsum(risks) / len(risks)
        threshold = self.threshold
        for _ in range(3):  # the correction depends on the threshold, and the threshold on the correction
            wrong, expected = self._near(threshold, _RATIO_WINDOW)
            self._ratio = (wrong + _RATIO_PRIOR) / (expected + _RATIO_PRIOR)
            self._ratio_spread = (wrong + _RATIO_PRIOR) ** -0.5
            ahead = max(self.requests, 200)
            left = self._allowed(self.requests + ahead) - self._ratio * self._spent
            i = int(np.searchsorted(rate * self._ratio * (1 - self._explore), left / ahead))
            threshold = float(risks[i - 1]) if i > 0 else 0.0
        self.threshold = min(threshold, _MOST_RISK)

    def _allowed(self, n: int) -> float:
        """Return the most wrong hits to expect among *n* requests, so that they hardly exceed ``delta * n``."""
        low, high = 0.0, self.delta * n
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._most(middle) <= self.delta * n else (low, middle)
        return low

    def _most(self, expected: float) -> float:
        """Return the quantile ``1 - alpha`` of a count of which *expected* are expected, as far as we know.

        A Poisson count whose mean is uncertain; Cornish and Fisher's expansion to the third cumulant, since the counts
        are small.
        """
        doubt = expected * self._ratio_spread**2
        variance = expected * (1 + doubt)
        if variance == 0:
            return 0.0
        skew = expected * (1 + 3 * doubt + 2 * doubt**2) / variance
        return float(expected + self._quantile * variance**0.5 + (self._quantile**2 - 1) / 6 * skew)

    def _near(self, threshold: float, window: int) -> tuple[int, float]:
        """Return how many of the newest compared candidates near *threshold* were wrong, and the sum of their risks."""
        limit = max(_NEAR * threshold, _LEAST_NEAR)
        rows = [r for r in list(self._compared.values())[-window:] if r[1] is not None and r[1] <= limit]
        return sum(row[2] for row in rows), sum(row[1] or 0.0 for row in rows)

    def _drifted(self) -> bool:
        """True when the newest comparisons of what would be served say that the budget is being broken.

        The lower bound of how many of them were wrong (Wilson and Hilferty's approximation of the Poisson limit), as a
        share of them, times the share of requests that would be served.
        """
        if self.threshold == 0 or not self._risks:
            return False
        rows = [r for r in self._compared.values() if r[1] is not None and r[1] <= self.threshold][-_DRIFT_WINDOW:]
        wrong = sum(row[2] for row in rows)
        if wrong == 0:
            return False
        least = max(0.0, 1 - 1 / (9 * wrong) - _DRIFT_QUANTILE / (3 * wrong**0.5)) ** 3 * wrong
        served = sum(risk <= self.threshold for risk in self._risks) / len(self._risks)
        return bool(least / len(rows) * served > self.delta)

    def estimate(self) -> Estimate | None:
        """Return the share of wrong hits among all requests so far; None before the first."""
        if self.requests == 0:
            return None
        central = self._ratio * self._spent
        high = self._most(central)
        n = self.requests
        return Estimate(max(0.0, 2 * central - high) / n, central / n, high / n, n)
