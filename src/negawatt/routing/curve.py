"""What a score of prompts is worth: quality against the share, or the cost, of calls to the stronger model.

A score orders prompts: those with the highest scores go to the strong model. Cutting it at every height gives a curve
from "all to the weak one" to "all to the strong one". Of it:

- **APGR** = (area under the curve - weak) / (strong - weak): 0.5 for a coin; an oracle exceeds 1, because the weak
  model is sometimes right alone.
- **CPT q** = the smallest share of strong calls by which the curve first reaches weak + q (strong - weak).

Both as RouteLLM defines them (Ong et al. 2024, arXiv 2406.18665): the curve is cut at the 11 edges of 10 bins of equal
count, unless *points* says otherwise; ties are broken by seeded noise of 1e-9 (of the scores' range). A share of calls
is 0..1 throughout.

For more than two models: points of (cost, quality), the hull that mixing them at random reaches (the *zero router*),
and the area under it (AIQ, as RouterBench defines it: Hu et al. 2024, arXiv 2403.12031).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from negawatt.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

POINTS = 11
_NOISE = 1e-9


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality at rising *share* of calls to the strong model; *weak* and *strong*: quality of each alone."""

    share: Floats
    quality: Floats
    weak: float
    strong: float

    def apgr(self) -> float | None:
        """Return the average of the performance gap recovered; None where there is no gap."""
        gap = self.strong - self.weak
        if gap == 0:
            return None
        return (_area(self.share, self.quality) - self.weak * float(self.share[-1] - self.share[0])) / gap

    def cpt(self, recovered: float) -> float | None:
        """Return the share of strong calls that first recovers *recovered* (0..1) of the gap; None if none does."""
        wanted = self.weak + recovered * (self.strong - self.weak)
        if self.quality[0] >= wanted:
            return float(self.share[0])
        for i in range(1, len(self.share)):
            if self.quality[i] >= wanted:
                rise = self.quality[i] - self.quality[i - 1]
                part = (wanted - self.quality[i - 1]) / rise
                return float(self.share[i - 1] + part * (self.share[i] - self.share[i - 1]))
        return None

    def at(self, share: float) -> float:
        """Return the quality at a *share* of strong calls, between points by linear interpolation."""
        import numpy as np

        return float(np.interp(share, self.share, self.quality))

    def charged(self, weak_cost: float) -> Curve:
        """Return the curve of a cascade, which asks the weak model always, over what a router could do for its money.

        *weak_cost*: of a weak call, in strong ones. A cascade at share x costs weak_cost + x, as much as a router that
        asks only one of the two does at share x / (1 - weak_cost). What costs more than always asking the strong one
        is cut off.
        """
        import numpy as np

        if not 0 <= weak_cost < 1:
            raise InputError(f"a weak call costs less than a strong one, not {weak_cost:g} of it")
        last = self.at(1 - weak_cost)
        inside = self.share < 1 - weak_cost
        share = np.append(self.share[inside] / (1 - weak_cost), 1.0)
        return Curve(share, np.append(self.quality[inside], last), self.weak, self.strong)


def curve_of(
    scores: Floats, weak: Floats, strong: Floats, rng: np.random.Generator, *, points: int | None = POINTS
) -> Curve:
    """Return the curve of *scores* (higher: rather to the strong one), given the quality of either model by prompt.

    *points* None: the continuous curve, cut between all prompts. Raises `InputError` for fewer than two prompts,
    unequal lengths, and values that are not numbers.
    """
    import numpy as np

    scores, weak, strong = (np.asarray(values, np.float64) for values in (scores, weak, strong))
    if len(scores) < 2 or not len(scores) == len(weak) == len(strong):
        raise InputError(f"a curve needs as many scores as outcomes, two at least, not {len(scores)} of {len(weak)}")
    if not all(np.isfinite(values).all() for values in (scores, weak, strong)):
        raise InputError("a curve needs numbers: a score or an outcome is NaN or infinite")
    span = float(np.ptp(scores)) or 1.0
    scores = (scores - scores.min()) / span + rng.normal(0.0, _NOISE, len(scores))
    order = np.argsort(-scores, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])]) / len(scores)
    if points is None:
        sent = np.arange(len(scores) + 1)
    else:
        edges = np.quantile(scores, np.linspace(0, 1, points))
        rising = scores[order][::-1]
        sent = len(scores) - np.searchsorted(rising, edges[::-1], side="left")
        sent[0] = 0  # above the last edge, and not from it on: nothing is sent
    return Curve(sent / len(scores), weak.mean() + gained[sent], float(weak.mean()), float(strong.mean()))


def random_scores(n: int, rng: np.random.Generator) -> Floats:
    """Return the scores of a coin."""
    scores: Floats = rng.random(n)
    return scores


def length_scores(texts: Sequence[str]) -> Floats:
    """Return the scores of a rule that anybody can write: long prompts are hard."""
    import numpy as np

    return np.array([len(text) for text in texts], np.float64)


def group_scores(
    fitted_groups: Sequence[str], gains: Floats, groups: Sequence[str], *, pseudo_counts: float = 20.0
) -> Floats:
    """Return, for each of *groups*, the mean gain of its group among the fitted ones, shrunk to the mean of all.

    A privileged control: it sees what a router is not told.
    """
    import numpy as np

    overall = float(np.mean(gains))
    total: dict[str, float] = {}
    count: dict[str, int] = {}
    for group, gain in zip(fitted_groups, gains, strict=True):
        total[group] = total.get(group, 0.0) + float(gain)
        count[group] = count.get(group, 0) + 1
    shrunk = {g: (total[g] + pseudo_counts * overall) / (count[g] + pseudo_counts) for g in total}
    return np.array([shrunk.get(group, overall) for group in groups], np.float64)


def mixed(costs: Sequence[float], qualities: Sequence[float], cost: float) -> float | None:
    """Return the quality that mixing models at random reaches for *cost* on the mean; None below the cheapest."""
    import numpy as np

    hull = hull_of(costs, qualities)
    if cost < hull[0][0]:
        return None
    return float(np.interp(cost, [point[0] for point in hull], [point[1] for point in hull]))


def hull_of(costs: Sequence[float], qualities: Sequence[float]) -> list[tuple[float, float]]:
    """Return the non-decreasing concave hull of (cost, quality), from the cheapest to the best: the zero router."""
    points = sorted(zip(costs, qualities, strict=True), key=lambda point: (point[0], -point[1]))
    if not points:
        raise InputError("a hull needs at least one model")
    hull: list[tuple[float, float]] = []
    for cost, quality in points:
        if hull and (quality <= hull[-1][1] or cost == hull[-1][0]):
            continue
        while len(hull) > 1 and _slope(hull[-2], (cost, quality)) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append((cost, quality))
    return hull


def aiq(costs: Sequence[float], qualities: Sequence[float]) -> float | None:
    """Return the area under the hull over the span of costs, divided by that span; None where all cost the same.

    Beyond the best model the hull stays level: who pays more need not get less.
    """
    import numpy as np

    hull, most = hull_of(costs, qualities), max(costs)
    span = most - hull[0][0]
    if span == 0:
        return None
    x = np.array([point[0] for point in hull] + [most])
    y = np.array([point[1] for point in hull] + [hull[-1][1]])
    return _area(x, y) / span


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _area(x: Floats, y: Floats) -> float:
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
