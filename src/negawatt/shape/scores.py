"""How well each unit of a text suits a query: BM25 over units, their neighbours, and their surroundings.

A unit's score is its own BM25 (Robertson and Zaragoza 2009; k1 1.2, b 0.75), plus 0.4 of the better neighbour's, plus
the BM25 of the passage around it: an answer often stands beside the sentence that repeats the question, in a
passage that is about it. Words are counted without their endings; a word of the query that no unit has stands for the
one spelled most like it. How rare a word is, is counted in the units at hand: what all of them say tells none apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec

from negawatt.shape.sentences import Unit
from negawatt.shape.terms import asked, nearest, terms

K1, B = 1.2, 0.75
NEIGHBOUR = 0.4
PASSAGE, AROUND = 1.0, 120  # weight; words on either side, of the same document: about a paragraph
SIMILARITY = 0.5  # of the best score, for a unit whose vector is the query's


class Scores(msgspec.Struct, frozen=True):
    """One score per unit, 0 or more. *known*: the share of the query's weight whose words stand in some unit.

    0 where the query has no word that says anything, or no unit has one of them.
    """

    of: tuple[float, ...]
    known: float


def score(units: Sequence[Unit], query: str, *, similarities: Sequence[float] | None = None) -> Scores:
    """Return how well each of *units* suits *query*.

    *similarities*: cosines of each unit's vector with the query's, where an embedder is at hand.
    """
    said = [terms(unit.text) for unit in units]
    counts, lengths = [Counter(words) for words in said], [len(words) for words in said]
    wanted, known = _wanted(query, counts)
    own = bm25(counts, lengths, wanted)
    around = _passages(units, counts, lengths, wanted)
    found = []
    for place, unit in enumerate(units):
        beside = [own[i] for i in (place - 1, place + 1) if 0 <= i < len(units) and units[i].document == unit.document]
        found.append(own[place] + NEIGHBOUR * max(beside, default=0.0) + PASSAGE * around[place])
    if similarities is not None:
        best = max(found, default=0.0) or 1.0
        found = [one + SIMILARITY * best * max(0.0, like) for one, like in zip(found, similarities, strict=True)]
    return Scores(tuple(found), known)


def bm25(counts: Sequence[Mapping[str, int]], lengths: Sequence[int], wanted: frozenset[str]) -> list[float]:
    """Return the BM25 of each document, given as the *counts* of its words and its length, for the words *wanted*."""
    many = len(counts)
    mean = sum(lengths) / many if many else 0.0
    rare = {word: _idf(many, sum(1 for one in counts if word in one)) for word in sorted(wanted)}
    found = []
    for one, length in zip(counts, lengths, strict=True):
        norm = K1 * (1 - B + B * length / mean) if mean else K1
        hits = ((weight, one[word]) for word, weight in rare.items() if word in one)
        found.append(sum(weight * times * (K1 + 1) / (times + norm) for weight, times in hits))
    return found


def _idf(many: int, having: int) -> float:
    return math.log(1 + (many - having + 0.5) / (having + 0.5))


def _wanted(query: str, counts: Sequence[Mapping[str, int]]) -> tuple[frozenset[str], float]:
    """Return the words to look for, and the share of the query's weight that they stand for."""
    vocabulary = frozenset[str]().union(*counts)
    words = asked(query)
    found, weight, total = set(), 0.0, 0.0
    for word in sorted(words):
        here = word if word in vocabulary else nearest(word, vocabulary)
        rare = _idf(len(counts), sum(1 for one in counts if here in one) if here else 0)
        total += rare
        if here is not None:
            found.add(here)
            weight += rare
    return frozenset(found), weight / total if total else 0.0


def _passages(
    units: Sequence[Unit], counts: Sequence[Mapping[str, int]], lengths: Sequence[int], wanted: frozenset[str]
) -> list[float]:
    """Return the BM25 of what stands around each unit."""
    windows: list[Counter[str]] = []
    sizes: list[int] = []
    held: Counter[str] = Counter()
    first = last = size = 0  # the window: units[first:last]
    ends = list(accumulate(lengths))
    for place, unit in enumerate(units):
        while last <= place or (
            last < len(units) and ends[last] - ends[place] <= AROUND and units[last].document == unit.document
        ):
            held.update({word: counts[last][word] for word in wanted if word in counts[last]})
            size += lengths[last]
            last += 1
        while ends[place] - lengths[place] - ends[first] + lengths[first] > AROUND or (
            units[first].document != unit.document
        ):
            held.subtract({word: counts[first][word] for word in wanted if word in counts[first]})
            size -= lengths[first]
            first += 1
        windows.append(+held)
        sizes.append(size)
    return bm25(windows, sizes, wanted)
