"""Passages that are said twice: paragraphs whose runs of four words are the same, all or nearly all.

Exact, and still fast: of each passage only the rarest runs are looked up, as many as a similar one cannot miss all of
(prefix filtering: Chaudhuri, Ganti and Kaushik 2006).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from negawatt.checks.findings import Finding, found
from negawatt.checks.measure import Measured
from negawatt.checks.plan import Plan
from negawatt.checks.surfaces import Block, Place, Surface

_RUN = 4
_WORD = re.compile(r"\w+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n|\n(?=#{1,6} )")


class _Passage(NamedTuple):
    surface: Surface
    place: Place
    words: tuple[str, ...]


def duplicated(plan: Plan, measured: Measured) -> Iterator[Finding]:
    """Yield every passage that an earlier one says already, with where that stands."""
    there = [one for surface in measured.surfaces if surface.kind != "tools" for one in _passages(plan, surface)]
    passages = {(one.place, one.words): one for one in reversed(there)}  # what is included stands in one place
    first: dict[tuple[str, ...], _Passage] = {}
    for one in reversed(passages.values()):
        before = first.setdefault(one.words, one)
        if before is not one:
            yield _said_twice(one, before, 1.0)
    distinct = list(first.values())
    for at, other, similarity in _similar([_runs(one.words) for one in distinct], plan.file.duplicates.similarity):
        yield _said_twice(distinct[at], distinct[other], similarity)


def _said_twice(one: _Passage, other: _Passage, similarity: float) -> Finding:
    how = "also" if similarity == 1 else f"nearly so ({100 * similarity:.0f} % alike)"
    same = one.place.path == other.place.path
    where = f"line {other.place.line}" if same else f"{other.place.path}:{other.place.line}"
    what = f"a passage of {len(one.words)} words ({' '.join(one.words[:6])} ...) stands {how} at {where}"
    remedy = "say it once" if same else "say it once, in a part that both use"
    return found("duplicate", "warning", one.surface, one.place, what, remedy)


def _passages(plan: Plan, surface: Surface) -> Iterator[_Passage]:
    least = plan.file.duplicates.words
    for block in surface.blocks:
        for text in _PARAGRAPH.split(block.text):
            words = tuple(_WORD.findall(text.lower()))
            if len(words) >= least:
                yield _Passage(surface, surface.at(block, _line(block, text)), words)


def _line(block: Block, text: str) -> int:
    """Return the line on which *text* begins, found by its first words."""
    start = text.strip().splitlines()[0]
    return block.line_of(start[:40])


def _runs(words: Sequence[str]) -> frozenset[int]:
    return frozenset(hash(tuple(words[at : at + _RUN])) for at in range(len(words) - _RUN + 1))


def _similar(sets: Sequence[frozenset[int]], least: float) -> Iterator[tuple[int, int, float]]:
    """Yield (later, earlier, Jaccard) of the pairs that are alike by *least* or more; for each later one the best."""
    seen = Counter(run for one in sets for run in one)
    places: dict[int, list[int]] = defaultdict(list)
    for at, one in enumerate(sets):
        rarest = sorted(one, key=lambda run: (seen[run], run))
        looked_up = rarest[: len(one) - math.ceil(least * len(one)) + 1]
        candidates = sorted({other for run in looked_up for other in places[run]})
        alike = [(len(one & sets[other]) / len(one | sets[other]), other) for other in candidates]
        best = max(alike, key=lambda pair: (pair[0], -pair[1]), default=(0.0, 0))
        if best[0] >= least:
            yield at, best[1], best[0]
        for run in looked_up:
            places[run].append(at)
