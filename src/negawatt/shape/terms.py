"""Words of a text as they are compared: case-folded, without their endings, and without what says nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"[a-zß-öø-ÿ\d]+|[A-ZÀ-ÖØ-Þ]+(?![a-zß-öø-ÿ])|[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ\d]*")
# Scripts that put no space between words.
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0eff]+")
_ENDINGS = (
    "ational", "ations", "ation", "ingly", "edly", "ments", "ment", "ness", "ings", "ing", "ions", "ion", "ers", "er",
    "ed", "es", "ly", "al", "s", "e",
)  # fmt: skip
_LEAST_STEM = 4
_ALIKE = 0.6  # of their runs of three letters: "septicemia" and "septicemic" have 89 %, "thank" and "that" 57 %
# Words that a question has in whatever it asks about; written from general knowledge of English.
_SMALL_WORDS = """
a an the of in on at to for from by with as is are was were be been being do does did has have had having what which who
whom whose when where why how many much that this these those there here it its they them their he him his she her i me
my you your we us our and or not no nor than then so if such can could may might will would shall should must about into
over after before between during through under up down out off again more most other some any each few all both own same
too very just only also please tell give show find explain describe list name say said says according context text
passage document following question answer summarize summarise summary discuss discussed
discussion mention mentioned now thanks thank s t don doesn didn isn aren wasn
"""
_SAYS_NOTHING = frozenset(_SMALL_WORDS.split())


def terms(text: str) -> list[str]:
    """Return the words of *text* in order, as they are compared."""
    return [stem(word) for word in _words(text)]


def asked(query: str) -> frozenset[str]:
    """Return the words of *query* that say what it is about; empty when none does."""
    return frozenset(stem(word) for word in _words(query) if word not in _SAYS_NOTHING)


def spelled_out(text: str) -> str:
    """Return *text* with the words of names in code apart: ``getUserDetails`` becomes three."""
    return " ".join(part for word in _WORD.findall(text) for part in _CAMEL.findall(word) or [word])


def nearest(word: str, vocabulary: Collection[str]) -> str | None:
    """Return the word of *vocabulary* spelled most like *word*, or None when none is like it.

    Likeness is Dice's coefficient of their runs of three letters, a mark before the first one: at least 60 %, and
    the first letter is the same. Words that say nothing are like none.
    """
    if len(word) < _LEAST_STEM or not word.isalpha():
        return None  # another number is another thing
    own = _runs(word)
    best, found = _ALIKE, None
    for other in vocabulary:
        if len(other) < _LEAST_STEM or other[0] != word[0] or other in _SAYS_NOTHING:
            continue
        runs = _runs(other)
        alike = 2 * len(own & runs) / (len(own) + len(runs))
        if alike > best or (alike == best and (found is None or other < found)):
            best, found = alike, other
    return found


@lru_cache(50_000)
def stem(word: str) -> str:
    """Return *word*, case-folded already, without the commonest endings of English: a key, not a word."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
            word = word.removesuffix(ending)
            break
    else:
        if len(word) == _LEAST_STEM and word.endswith("s") and not word.endswith("ss"):
            word = word[:-1]
    if len(word) > _LEAST_STEM and word[-1] == word[-2]:
        word = word[:-1]
    return f"{word[:-1]}i" if len(word) >= _LEAST_STEM and word.endswith("y") else word


def _words(text: str) -> Sequence[str]:
    found = _WORD.findall(text.casefold())
    if text.isascii() or not _UNSPACED.search(text):
        return found
    parts: list[str] = []
    for word in found:
        run = _UNSPACED.fullmatch(word)
        parts += [word[i : i + 2] for i in range(max(1, len(word) - 1))] if run else [word]
    return parts


@lru_cache(50_000)
def _runs(word: str) -> frozenset[str]:
    marked = f"^{word}"
    return frozenset(marked[i : i + 3] for i in range(max(1, len(marked) - 2)))
