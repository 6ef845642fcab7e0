"""When may a guess answer? The acceptance rule, learned online under an error budget.

The budget: with confidence ``1 - alpha``, the share of wrong hits among all requests stays below ``delta``. Wrong hits
cannot be counted, for nobody asked the model; so three things stand in for counting.

1. A model says for each candidate how likely it is to be wrong (`negawatt.recall.risk`), from all that were ever
   compared: candidates that were declined (the model was asked, and its answer is known), and explored ones.
2. A share of those that would be served is *explored*: the model is asked anyway. Over what was compared near the
   acceptance threshold, the ratio of wrong ones to those that the model expects corrects it (a Gamma posterior, prior 4
   wrong in 4 expected; a row beyond the threshold counts less, by the square of how far it is beyond).
3. What was served so far is judged by the model as it is now. Of the number of wrong hits (a Poisson count whose mean
   is only known as well as the model's parameters and the correction are) the quantile ``1 - alpha / 2`` may not exceed
   ``delta * n``. The threshold is moved so that this holds at twice the requests seen so far, if requests come as they
   came lately. The other half of alpha is for the choosing: a threshold that is moved again and again to where it seems
   just allowed is lucky more often than not.

Where the newest comparisons of what would be served say that the budget is being broken, the world has changed: what
was learned is forgotten, and exploring starts again; what was answered wrongly stays on the books. All of it is about
the newest 20,000 requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from negawatt.indexes import FORGOT, Case
from negawatt.recall.features import PRIOR
from negawatt.recall.risk import RiskModel, bucket_of, fitted
from negawatt.recall.rows import Rows

if TYPE_CHECKING:
    import random

    import numpy as np
    from numpy.typing import NDArray

REMEMBERED = 20_000  # requests
_COMPARED = 5000  # candidates
_FIT_EVERY = 20  # comparisons, and a twentieth of all
_LATELY = 1000  # requests that say how requests come
_RATIO_PRIOR = 4.0
_LEAST_RISK = 0.005  # of a threshold, for what is near it
_TUNE_EVERY = 20  # requests, and a hundredth of all
_LEAST_AHEAD = 200  # requests
_DRIFT_WINDOW = 300  # newest comparisons of what would be served
_DRIFT_QUANTILE = 3.5  # it is looked for at every wrong one: two false alarms in ten thousand looks
_MOST_RISK = 0.5
_LEAN = 6.0  # a candidate at the threshold is explored so many times more often, and once, than one without risk
_NO_CANDIDATE, _ASKED, _SERVED = range(3)
_NOTHING = (0.0,) * len(PRIOR)


class Verdict(NamedTuple):
    """What the rule says of one candidate. *action*: "serve", "explore" or "miss"; *risk* of being wrong."""

    action: str
    risk: float
    propensity: float | None = None


class Estimate(NamedTuple):
    """The share of wrong hits among *n* requests: estimate, and an interval at the rule's confidence, ``1 - alpha``."""

    low: float
    central: float
    high: float
    n: int


def _between(risks: NDArray[np.float64], fits: int) -> float:
    """Return a threshold below which there are the first *fits* of *risks*, which are sorted; 0 for none of them."""
    if fits == 0:
        return 0.0
    above = risks[fits] if fits < len(risks) else 2 * risks[-1]
    return float((risks[fits - 1] * above) ** 0.5)


class AcceptanceRule:
    """One rule for one request class and tier. Feed it every request, in order, and every comparison."""

    def __init__(self, *, delta: float, alpha: float, explore: float, rng: random.Random) -> None:
        self.delta = delta
        self.drifts = 0
        self._quantile = NormalDist().inv_cdf(1 - alpha / 2)
        self._explore = explore
        self._rng = rng
        self._requests = Rows(len(PRIOR), REMEMBERED)  # flag: what became of it
        self._seen = 0  # requests, those included that are remembered no more
        self._forget()

    def _forget(self) -> None:
        """Forget what was learned; what was answered stays on the books."""
        self.threshold = 0.0
        self._compared = Rows(len(PRIOR), _COMPARED)  # flag: 1 if wrong
        self._slots: dict[str, int] = {}  # of the compared, by the call's id
        self._ids: dict[int, str] = {}
        self._model: RiskModel | None = None
        self._unfitted = 0  # comparisons since the last fit
        self._ratio, self._ratio_spread = 1.0, _RATIO_PRIOR**-0.5
        self._mean_lean = 1.0  # of the newest that would be served

    @property
    def requests(self) -> int:
        """How many requests the rule knows of."""
        return len(self._requests)

    # -- deciding ----------------------------------------------------------------------------------------------

    def decide(self, features: tuple[float, ...] | None, answer: bytes = b"", *, watch: bool = False) -> Verdict:
        """Count one request and say what to do with its candidate, which has *features* and *answer* (its mark).

        *features* None: it has no candidate. *watch*: the model is asked in any case.
        """
        bucket = bucket_of(answer)
        risk = 1.0 if features is None else self.risk(features, answer)
        verdict = self._verdict(risk, watch)
        flag = _SERVED if verdict.action == "serve" else _NO_CANDIDATE if features is None else _ASKED
        self._requests.add(features or _NOTHING, bucket, risk, flag)
        self._seen += 1
        if self._seen % max(_TUNE_EVERY, self.requests // 100) == 0:
            self._tune()
        return verdict

    def _verdict(self, risk: float, watch: bool) -> Verdict:
        if self.threshold == 0 or risk > self.threshold:
            return Verdict("miss", risk)
        if watch:
            return Verdict("explore", risk, 1.0)
        # The riskiest are explored most: they teach most, and a wrong one that is explored does no harm.
        propensity = min(1.0, self._explore * (1 + _LEAN * risk / self.threshold) / self._mean_lean)
        return Verdict("explore" if self._rng.random() < propensity else "serve", risk, propensity)

    def risk(self, features: tuple[float, ...], answer: bytes = b"") -> float:
        """Return how likely a candidate is to be wrong, rather too high than too low; 1 while nothing is known."""
        if self._model is None:
            return 1.0
        import numpy as np

        return float(self._model.cautious(np.asarray([features]), np.array([bucket_of(answer)]))[0])

    # -- learning ----------------------------------------------------------------------------------------------

    def learn(self, case: Case) -> bool:
        """Take in *case*, which somebody has compared; a second word replaces the first.

        Returns True when this shows a drift, after which the rule has forgotten all.
        """
        again = case.id in self._slots
        self._take(case)
        self._unfitted += 1
        if again or self._unfitted >= max(_FIT_EVERY, len(self._compared) // 20):
            self._fit()
        if case.wrong and self._drifted():
            self.drifts += 1
            self._forget()
            return True
        return False

    def replay(self, cases: Iterable[Case]) -> None:
        """Take in, beside what is known already, what an earlier process or another replica has seen: oldest first."""
        for case in cases:
            if case.action == FORGOT:
                self.drifts += 1
                self._forget()
                continue
            risk = 1.0 if case.risk is None else case.risk
            flag = _SERVED if case.action == "served" else _ASKED if case.features else _NO_CANDIDATE
            self._requests.add(case.features or _NOTHING, bucket_of(case.mark), risk, flag)
            self._seen += 1
            if case.wrong is not None and case.features:
                self._take(case)
        self._fit()
        self._tune()

    def _take(self, case: Case) -> None:
        row = (case.features, bucket_of(case.mark), 1.0 if case.risk is None else case.risk, int(bool(case.wrong)))
        if case.id in self._slots:
            self._compared.set(self._slots[case.id], *row)
            return
        slot = self._compared.add(*row)
        self._slots.pop(self._ids.get(slot, ""), None)
        self._slots[case.id], self._ids[slot] = slot, case.id

    def _fit(self) -> None:
        compared = self._compared
        model = fitted(compared.features, compared.answers, compared.flags.astype(float), self._model)
        if model is not None:
            self._model, self._unfitted = model, 0

    # -- the budget --------------------------------------------------------------------------------------------

    def _tune(self) -> None:
        """Move the threshold to where the budget is used, and not more."""
        if self._model is None:
            return
        import numpy as np

        lately = self._requests.newest(_LATELY)
        with_candidate = lately[self._requests.flags[lately] != _NO_CANDIDATE]
        if not len(with_candidate):
            return
        x, answers = self._requests.features[with_candidate], self._requests.answers[with_candidate]
        risks = self._model.cautious(x, answers)
        order = np.argsort(risks, kind="stable")
        x, answers, risks = x[order], answers[order], risks[order]
        ahead = max(self.requests, _LEAST_AHEAD)
        scale = ahead / len(lately) * (1 - self._explore)
        spent, spent_gradient = self._spent()
        expected = spent + scale * np.cumsum(self._model.central(x, answers))
        doubt = self._model.variance(spent_gradient + scale * np.cumsum(self._model.gradient(x, answers), axis=0))
        threshold = self.threshold
        for _ in range(3):  # the correction depends on the threshold, and the threshold on the correction
            self._correct(threshold)
            most = self._most(expected, doubt)
            fits = int(np.argmax(np.append(most > self.delta * (self.requests + ahead), True)))
            threshold = _between(risks, fits)
        self.threshold = min(threshold, _MOST_RISK)
        served = risks[risks <= self.threshold]
        self._mean_lean = 1 + _LEAN * float(served.mean()) / self.threshold if len(served) and self.threshold else 1.0

    def _spent(self) -> tuple[float, NDArray[np.float64]]:
        """Return how many wrong ones the model expects among what was served, and the derivative of that."""
        import numpy as np

        served = self._requests.flags == _SERVED
        if self._model is None or not served.any():
            return 0.0, np.zeros(len(PRIOR) + 2)
        x, answers = self._requests.features[served], self._requests.answers[served]
        return float(self._model.central(x, answers).sum()), self._model.gradient(x, answers).sum(axis=0)

    def _correct(self, threshold: float) -> None:
        """Compare the model with what was found near *threshold*."""
        if self._model is None:
            return
        import numpy as np

        x, answers = self._compared.features, self._compared.answers
        risks = self._model.cautious(x, answers)
        counts = np.minimum(1.0, (max(threshold, _LEAST_RISK) / risks) ** 2)
        wrong = float((counts * self._compared.flags).sum()) + _RATIO_PRIOR
        self._ratio = wrong / (float((counts * self._model.central(x, answers)).sum()) + _RATIO_PRIOR)
        self._ratio_spread = (float((counts**2 * self._compared.flags).sum()) + _RATIO_PRIOR) ** 0.5 / wrong

    def _most(self, expected: NDArray[np.float64], doubt: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the quantile ``1 - alpha / 2`` of counts of which the model expects *expected*, with variance *doubt*.

        Poisson counts whose means are uncertain; Cornish and Fisher's expansion to the third cumulant, since the counts
        are small.
        """
        import numpy as np

        mean = np.maximum(self._ratio * expected, 1e-9)
        doubt = self._ratio**2 * doubt + (mean * self._ratio_spread) ** 2
        variance = mean + doubt
        skew = (mean + 3 * doubt + 2 * doubt**2 / mean) / variance
        most: NDArray[np.float64] = mean + self._quantile * variance**0.5 + (self._quantile**2 - 1) / 6 * skew
        return most

    def _drifted(self) -> bool:
        """True when the newest comparisons of what would be served say that the budget is being broken.

        The lower bound of how many of them were wrong (Wilson and Hilferty's approximation of the Poisson limit), as a
        share of them, times the share of requests that would be served.
        """
        if self.threshold == 0 or self._model is None:
            return False
        order = self._compared.newest(_COMPARED)
        near = order[self._compared.risks[order] <= self.threshold][-_DRIFT_WINDOW:]
        wrong = int(self._compared.flags[near].sum())
        if wrong == 0:
            return False
        least = max(0.0, 1 - 1 / (9 * wrong) - _DRIFT_QUANTILE / (3 * wrong**0.5)) ** 3 * wrong
        lately = self._requests.newest(_LATELY)
        served = float((self._requests.risks[lately] <= self.threshold).mean())
        return bool(least / len(near) * served > self.delta)

    def estimate(self) -> Estimate | None:
        """Return the share of wrong hits among the requests the rule knows of.

        None before the first, and where something was served of which nothing is known any more.
        """
        n = self.requests
        if n == 0:
            return None
        import numpy as np

        if not (self._requests.flags == _SERVED).any():
            return Estimate(0.0, 0.0, 0.0, n)
        if self._model is None:
            return None
        spent, gradient = self._spent()
        central = self._ratio * spent
        high = float(self._most(np.array([spent]), self._model.variance(gradient[None, :]))[0])
        return Estimate(max(0.0, 2 * central - high) / n, central / n, high / n, n)
