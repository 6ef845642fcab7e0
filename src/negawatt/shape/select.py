"""Which units of a context are kept for a query: as many as fit a budget, or as many as a retention target needs.

`keep` fills a budget greedily, best score first. `keep_for` decides by itself: it keeps each unit whose score lies at
most ``gap * sqrt(best)`` below the best one, and the gap for a retention target is read off examples with known
answers (`fit`). A weak best score says little, so the weaker it is, relative to itself, the more is kept.

The promise is that of split conformal prediction: where the next request is drawn like the examples were, what it
needs survives with at least the target's chance, over examples and request. On other traffic nothing is promised.
Where the scores say nothing, everything is kept, and `Kept.abstained` says why.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import resources

import msgspec

from negawatt.shape.scores import Scores, score
from negawatt.shape.sentences import Unit, joined

LEAST_KNOWN = 0.25  # share of the query's weight that must stand in the text; below it, the scores are about little
# Requests that need every sentence: what they name is what to do, or the text as a whole.
_ALL_OF_IT = re.compile(
    r"\s*(?:please\s+|(?:can|could|would) you\s+(?:please\s+)?)?(?:translate|rewrite|rephrase|paraphrase|proofread|"
    r"correct|reformat|convert|edit)\b|\s*(?:please\s+)?summari[sz]e\s+(?:the\s+|this\s+)?(?:whole|entire|full|all)\b",
    re.IGNORECASE,
)
_NEVER = math.inf  # the gap of an example that needs what cannot be told apart


class Kept(msgspec.Struct, frozen=True):
    """What is kept. *places*: indices into the units, in document order. *abstained*: why everything is, or None."""

    text: str
    places: tuple[int, ...]
    words: int
    words_before: int
    abstained: str | None = None

    @property
    def ratio(self) -> float | None:
        """How many times fewer words; None where none is left."""
        return self.words_before / self.words if self.words else None


class Example(msgspec.Struct, frozen=True):
    """A query whose need is known: *survives* tells whether a text still has it."""

    units: Sequence[Unit]
    query: str
    survives: Callable[[str], bool]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How large a gap each of *n* examples needed: the *largest* ones, in descending order, and where they come from.

    A gap of infinity is that of an example for which no gap is large enough.
    """

    largest: tuple[float, ...]
    n: int
    source: str

    def gap(self, retention: float) -> float | None:
        """Return the gap that keeps what is needed with the chance *retention*; None when too few examples tell.

        It is the conformal quantile: the ``ceil((n + 1) * retention)``-th smallest of the gaps needed, or the
        smallest that is known where only the largest were noted. Raises ValueError unless ``0 < retention < 1``.
        """
        if not 0 < retention < 1:
            raise ValueError(f"expected a retention between 0 and 1, not {retention}")
        # Rounded first: 0.95 times 20 is a hair more than 19, and must not count as one example more.
        above = self.n - math.ceil(round((self.n + 1) * retention, 9))
        if above < 0:
            return None
        gap = self.largest[min(above, len(self.largest) - 1)]
        return None if math.isinf(gap) else gap


def keep(
    units: Sequence[Unit],
    query: str,
    *,
    ratio: float | None = None,
    budget_words: int | None = None,
    scores: Scores | None = None,
) -> Kept:
    """Return the units that suit *query* best, within *budget_words*, or within all words divided by *ratio*.

    The best come first, and the earlier of equals; one that no longer fits is passed over. The budget holds even
    where the scores say nothing. Raises ValueError unless just one of the two is given, and ratio is at least 1.
    """
    words = [unit.words for unit in units]
    if (ratio is None) == (budget_words is None) or (ratio is not None and ratio < 1):
        raise ValueError("expected either a ratio of at least 1 or a budget of words")
    budget = sum(words) / ratio if ratio is not None else float(budget_words or 0)
    found = scores or score(units, query)
    if sum(words) <= budget:
        return _kept(units, range(len(units)), None)
    kept, used = set(), 0
    for place in _ranked(found):
        if words[place] and used + words[place] <= budget:
            kept.add(place)
            used += words[place]
    return _kept(units, kept, None)


def keep_for(
    units: Sequence[Unit],
    query: str,
    retention: float = 0.98,
    *,
    calibration: Calibration | None = None,
    scores: Scores | None = None,
) -> Kept:
    """Return as many units as *retention* needs: the chance that what *query* asks for is among them.

    *calibration* None: `default`.
    """
    gap = (calibration or default()).gap(retention)
    found = scores or score(units, query)
    reason = _says_nothing(found)
    if gap is None:
        reason = "too few examples for this retention"
    elif _ALL_OF_IT.match(query):
        reason = "the query asks about all of the text"
    elif reason is None and found.known < LEAST_KNOWN:
        reason = "most of what the query asks about is not in the text"
    if reason is not None or gap is None:
        return _kept(units, range(len(units)), reason)
    return _kept(units, [i for i, need in enumerate(_gaps(found)) if units[i].words and need <= gap], None)


def fit(examples: Iterable[Example], source: str) -> Calibration:
    """Return what *examples* say about how much has to be kept. Raises ValueError where none is given.

    *source*: where they come from, to be said wherever the calibration is used. An example whose need does not
    survive even in the whole text counts as one for which no gap is large enough.
    """
    gaps = sorted((_needed(example) for example in examples), reverse=True)
    if not gaps:
        raise ValueError("expected at least one example")
    return Calibration(tuple(gaps), len(gaps), source)


@cache
def default() -> Calibration:
    """Return the calibration that is used where none is given; ``calibration.toml`` says where it comes from."""
    content = resources.files("negawatt.shape").joinpath("calibration.toml").read_bytes()
    return msgspec.toml.decode(content, type=Calibration)


def _needed(example: Example) -> float:
    """Return the smallest gap with which the example keeps what it needs; 0 where everything is kept anyway."""
    found = score(example.units, example.query)
    if _says_nothing(found) is not None or found.known < LEAST_KNOWN:
        return 0.0 if example.survives(joined(example.units)) else _NEVER
    gaps = _gaps(found)
    steps = sorted(set(gaps))

    def survives(gap: float) -> bool:
        return example.survives(_kept(example.units, [i for i, one in enumerate(gaps) if one <= gap], None).text)

    place = bisect_left(steps, True, key=survives)
    return steps[place] if place < len(steps) else _NEVER


def _gaps(found: Scores) -> list[float]:
    """Return how far below the best score each lies, in units of that score's root."""
    best = max(found.of)
    return [(best - one) / math.sqrt(best) for one in found.of]


def _ranked(found: Scores) -> list[int]:
    return sorted(range(len(found.of)), key=lambda place: (-found.of[place], place))


def _says_nothing(found: Scores) -> str | None:
    if found.known == 0:
        return "the query has no word that the text has"
    if max(found.of, default=0.0) <= 0:
        return "no unit suits the query"
    return None


def _kept(units: Sequence[Unit], places: Iterable[int], abstained: str | None) -> Kept:
    """Return *places* as what is kept; an empty line stays where something before it is kept."""
    wanted = set(places)
    chosen: list[int] = []
    for place, unit in enumerate(units):
        after_text = bool(chosen) and units[chosen[-1]].words > 0 and units[chosen[-1]].source == unit.source
        if place in wanted or (not unit.words and after_text):
            chosen.append(place)
    before = sum(unit.words for unit in units)
    left = [units[place] for place in chosen]
    return Kept(joined(left), tuple(chosen), sum(unit.words for unit in left), before, abstained)
