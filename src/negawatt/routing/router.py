"""The learned router at work: the fitted model, and how boldly it may be followed for a given target.

For a threshold t the router asks the cheapest candidate over which the reference is expected to gain at most t, and
the reference where there is none, or where nothing like the prompt was learned from. The file holds the model and,
for a row of thresholds from strict (always the reference) to bold, what following it would have come to on the rows
that it was fitted on, each predicted by a model that had not seen it.

**Which threshold.** Thresholds are gone through from strict to bold, each held against the target by its exact
one-sided bound at the confidence of the target, until one fails; the last that passed is taken. Testing in a fixed
order and stopping at the first failure needs no correction for many tests (a fixed sequence: Bauer 1991), and the
order depends on predictions alone, never on outcomes. So for one target the chance of a threshold that misses it is
at most 1 - confidence, if requests come from where the rows came from. Two things it does not cover: the model that
serves has seen a fifth more rows than those that were tested, and whoever asks under many targets tests as many times.

Where not even the strictest passes, the router abstains: the reference is asked, and the reason says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from negawatt.config_routes import Quality
from negawatt.errors import ConfigError
from negawatt.routing import gain_file
from negawatt.routing.gain import GainModel, Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Choices = NDArray[np.intp]

NEVER = -2.0  # a threshold below every gain: always the reference
STEPS = 40
_MOST_KEPT = 256  # targets: callers may name their own


class Level(NamedTuple):
    """What following one threshold came to, on rows that the model had not seen. Sums over *n* rows."""

    threshold: float
    n: float
    successes: float
    better: float  # rows that were done right where the reference was wrong
    worse: float  # the other way round
    cost: float  # as a share of what the reference would have cost
    referred: float  # share of the rows for which the reference was asked

    def success_low(self, confidence: float) -> float:
        """Return the lower bound of the success rate."""
        from negawatt.statistics import least_share

        return least_share(self.successes, self.n, confidence)

    def loss_high(self, confidence: float) -> float:
        """Return the upper bound of what is lost against the reference: half of the error for either direction."""
        from negawatt.statistics import least_share, most_share

        half = 1 - (1 - confidence) / 2
        return most_share(self.worse, self.n, half) - least_share(self.better, self.n, half)

    def meets(self, quality: Quality) -> bool:
        """Say whether its bounds reach *quality*. A level without any changed answer loses nothing."""
        if quality.success is not None and self.success_low(quality.confidence) < quality.success:
            return False
        if quality.loss is None or self.referred == 1:
            return True
        return self.loss_high(quality.confidence) <= quality.loss


class Choosing(msgspec.Struct, frozen=True, gc=False):
    """What the router says of one prompt.

    *index* and *name*: the candidate to ask. *expected_success*: of it on this prompt, by the model. *low*: the lower
    bound of the success rate of all that is chosen so. *gain*: what the reference is expected to do better than the
    chosen one on this prompt. *probabilities*: of success, by candidate. *abstained*: the reference, for want of
    knowledge.
    """

    index: int
    name: str
    expected_success: float
    low: float | None
    gain: float
    probabilities: dict[str, float]
    reason: str
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Router:
    """*levels* stand from strict to bold; the last candidate of the model is the reference."""

    model: GainModel
    levels: tuple[Level, ...]
    _chosen: dict[Quality, tuple[Level, float] | None]

    @classmethod
    def of(cls, model: GainModel, levels: tuple[Level, ...]) -> Router:
        return cls(model, levels, {})

    @classmethod
    def load(cls, path: Path, where: str = "router") -> Router:
        """Return the router in *path*. Raises `ConfigError`, which names *where*, the file and the remedy."""
        import numpy as np

        model, beside = gain_file.load_with(path, where)
        table = beside.get("levels")
        if table is None or table.ndim != 2 or table.shape[1] != len(Level._fields) or not len(table):
            what = "it holds a model without its thresholds; fit it again with `negawatt eval --router`"
            raise ConfigError(f"{where}: {path}: {what}", param=where)
        rows = np.asarray(table, np.float64).tolist()
        return cls.of(model, tuple(Level(*row) for row in rows))

    def save(self, path: Path) -> None:
        """Write the router to *path*: the whole file, or the one that was there before stays."""
        import numpy as np

        gain_file.save(self.model, path, {"levels": np.array(self.levels, np.float64)})

    @property
    def embedder(self) -> str:
        """The id of the embedder on whose vectors it was fitted."""
        return self.model.card.embedder

    @property
    def names(self) -> tuple[str, ...]:
        """Their names (`negawatt.routing.choice.Choice.name`), in order of rising cost; the last is the reference."""
        return self.model.card.candidates

    def check(self, candidates: tuple[str, ...], embedder: str, where: str) -> None:
        """Raise `ConfigError` unless it was fitted for these *candidates*, and on vectors of *embedder* (its id)."""
        if set(candidates) != set(self.names) or candidates[-1] != self.names[-1]:
            what = f"it was fitted for {', '.join(self.names)}, and the policy has {', '.join(candidates)}"
            raise ConfigError(f"{where}: {what}; fit it again with `negawatt eval --router`", param=where)
        if embedder != self.embedder:
            what = f"it was fitted on vectors of {self.embedder}, and {embedder} is configured"
            raise ConfigError(f"{where}: {what}; set recall.embedder, or fit it again", param=where)

    def level(self, quality: Quality) -> tuple[Level, float] | None:
        """Return the boldest level that is surely good enough for *quality*, and the lower bound of its success rate.

        None where not even the strictest level is.
        """
        if quality not in self._chosen:
            if len(self._chosen) >= _MOST_KEPT:
                self._chosen.clear()
            place = boldest(self.levels, quality)
            level = None if place is None else self.levels[place]
            self._chosen[quality] = None if level is None else (level, level.success_low(quality.confidence))
        return self._chosen[quality]

    def choose(self, text: str, vector: NDArray[np.float32], target: Quality | None) -> Choosing:
        """Return which candidate to ask for *text*, of which *vector* (length 1) is the embedding."""
        import numpy as np

        found = self.model.predict([text], np.asarray(vector, np.float32)[None, :])
        if target is None or (target.success is None and target.loss is None):
            return self._referred(found, None, "there is no target to choose by")
        followed = self.level(target)
        if followed is None:
            return self._referred(found, None, "no threshold is surely good enough for the target")
        level, low = followed
        if not found.familiar[0]:
            return self._referred(found, low, f"nothing like it was learned from ({found.nearest[0]:.2f})")
        index = int(choices(found, level.threshold)[0])
        gain = float(found.gains[0, index]) if index < found.gains.shape[1] else 0.0
        least = float(found.gains[0].min())
        reason = f"the reference is expected to gain {gain:+.3f} over it, and {level.threshold:.3f} is allowed"
        if index == found.gains.shape[1]:
            reason = f"the reference is expected to gain {least:+.3f}, and {level.threshold:.3f} is allowed"
            if level.threshold == NEVER:
                reason = "only the reference is surely good enough for the target"
        return self._choosing(found, index, gain, low, reason)

    def _referred(self, found: Predictions, low: float | None, reason: str) -> Choosing:
        last = len(self.names) - 1
        return self._choosing(found, last, 0.0, low, reason, abstained=True)

    def _choosing(
        self,
        found: Predictions,
        index: int,
        gain: float,
        low: float | None,
        reason: str,
        *,
        abstained: bool = False,
    ) -> Choosing:
        success = [float(p) for p in found.success[0]]
        probabilities = dict(zip(self.names, success, strict=True))
        return Choosing(index, self.names[index], success[index], low, gain, probabilities, reason, abstained)


def choices(found: Predictions, threshold: float) -> Choices:
    """Return the candidate of each row: the cheapest whose gain is at most *threshold*, else the reference."""
    import numpy as np

    enough = (found.gains <= threshold) & found.familiar[:, None]
    chosen: Choices = np.where(enough.any(axis=1), enough.argmax(axis=1), enough.shape[1]).astype(np.intp)
    return chosen


def levels_of(found: Predictions, outcomes: Floats, costs: Floats | None) -> tuple[Level, ...]:
    """Return the levels that cross-fitted predictions *found* come to; *outcomes* and *costs*: (rows, candidates).

    Thresholds lie at equal shares of the rows, by predictions alone. Without *costs*, a call to the reference counts 1
    and any other 0.
    """
    import numpy as np

    n, k = outcomes.shape
    if costs is None:
        costs = np.zeros((n, k))
        costs[:, -1] = 1.0
    least = np.where(found.familiar, found.gains.min(axis=1), np.inf)
    known = np.sort(least[np.isfinite(least)])
    places = sorted({math.ceil(step * len(known) / STEPS) - 1 for step in range(1, STEPS + 1)})
    thresholds = [NEVER, *dict.fromkeys(float(known[place]) for place in places if place >= 0)]
    rows, full = np.arange(n), float(costs[:, -1].sum())
    made = []
    for threshold in thresholds:
        chosen = choices(found, threshold)
        difference = outcomes[rows, chosen] - outcomes[:, -1]
        spent = float(costs[rows, chosen].sum())
        made.append(
            Level(
                threshold, float(n), float(outcomes[rows, chosen].sum()), float(difference.clip(0).sum()),
                float((-difference).clip(0).sum()), spent / full if full else 1.0, float((chosen == k - 1).mean()),
            )
        )  # fmt: skip
    return tuple(made)


def boldest(levels: tuple[Level, ...], quality: Quality) -> int | None:
    """Return the place of the last level before the first that fails *quality*; None where the first does."""
    place = None
    for i, level in enumerate(levels):
        if not level.meets(quality):
            break
        place = i
    return place
