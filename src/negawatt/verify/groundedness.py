"""Does what was supplied to answer from support the answer?

Each sentence of the answer is a claim, and is compared with the one or two neighbouring sentences of the context that
support it best. Its *support* in 0..1 is the share of its words that stand there, weighted by how rare they are in the
context; what the question says already is no claim. A number, an amount, a weekday or month, a name, a code or a
quotation that neither context nor question has, or a denial of what is said there, leaves a sentence without support.

It knows words, not meaning. What is built from words of the context and says something else passes; what is true and
not in the context fails. Closeness of embeddings was tried beside the words: more wrong answers passed, and right was
told from wrong no better (``benchmarks/groundedness.py`` measures what is here).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from negawatt.recall.guards import Reading, read
from negawatt.recall.reading import stem
from negawatt.verify.verdict import Case, Verdict

SUPPORTED = 0.5  # support from which on a sentence counts as supported
_MOST_CONTEXT = 200_000  # characters
_MOST_AT_ONCE = 20_000  # characters that are judged on the event loop: about 10 ms
_MOST_SENTENCES, _MOST_CLAIMS = 2_000, 60
_BREAK = re.compile(r"(?<=[.!?…])[\"'”’)\]]{0,3}\s+(?=[\"'“‘(\[]{0,3}[A-Z0-9À-ÖØ-ÞА-Я])|\n+|(?<=[。！？])")
_BULLET = re.compile(r"^\s{0,20}(?:[-*•#>]{1,6}|\(?\d{1,2}[.)])\s+")
_CITED = re.compile(r"\[\d{1,3}(?:\s?[,–-]\s?\d{1,3}){0,10}\]")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_ABBREVIATED = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|No|Inc|Ltd|Jr|Sr|e\.g|i\.e|approx|ca)|\b[A-Z])\.$")
_NO_CLAIM = re.compile(
    r"(?:(?:sure|certainly|of course|great question|i hope this helps|let me know|according to the (?:context|text|"
    r"passage|document)s?|here is (?:the|a|your)|here are (?:the|some))\b[^.]{0,80}[.!:]?|yes|no)[.!]?",
    re.IGNORECASE,
)
# Words that say nothing by themselves; written from general knowledge of English.
_SMALL_WORDS = """
a about after all also an and any are as at be because been before being between both but by can could did do
does each for from had has have he her here him his how i if in into is it its just many may more most much my
no not of on one only or other our out over she should so some such than that the their them then there these
they this those through to under up was we were what when where which while who whom whose why will with would
you your according answer context text passage document
"""
_SMALL = frozenset(_SMALL_WORDS.split())


class Claim(msgspec.Struct, frozen=True):
    """One sentence of an answer. *reason*: why it has no support, where it lacks a fact."""

    text: str
    support: float
    reason: str | None = None


class GroundednessVerifier:
    """Passes an answer each sentence of which is supported; its score is the mean support of its sentences.

    With *least*, it is that score which decides.
    """

    kind = "groundedness"

    def __init__(self, *, least: float | None = None) -> None:
        self._least = least

    async def __call__(self, case: Case) -> Verdict:
        if not case.context or not case.context.strip():
            return Verdict(False, 0.0, "the request supplies no context to judge it by", self.kind)
        answers = [answer for answer in case.answers if answer.strip()]
        if not answers:
            return Verdict(False, 0.0, "there is no text to judge", self.kind)
        if len(case.context) + sum(map(len, answers)) > _MOST_AT_ONCE:
            claims = await asyncio.to_thread(claims_of, case.question, case.context, answers)
        else:
            claims = claims_of(case.question, case.context, answers)
        if not claims:
            return Verdict(False, 0.0, "the answer makes no claim that could be judged", self.kind)
        score = sum(claim.support for claim in claims) / len(claims)
        worst = min(claims, key=lambda claim: claim.support)
        passed = worst.support >= SUPPORTED if self._least is None else score >= self._least
        reason = worst.reason or "the context does not say it"
        return Verdict(passed, score, None if passed else f"{reason}: {worst.text[:120]!r}", self.kind)


def claims_of(question: str, context: str, answers: Sequence[str]) -> list[Claim]:
    """Return the sentences of *answers* that claim anything, each with its support in *context*."""
    supplied, asked = Context(context), Asked(frozenset(content(question)), read(question))
    texts = [text for answer in answers for text in sentences(answer) if not _NO_CLAIM.fullmatch(text)]
    return [supplied.judge(text, asked) for text in texts[:_MOST_CLAIMS]]


class Asked(msgspec.Struct, frozen=True):
    """What the question says already, and the answer may repeat."""

    words: frozenset[str]
    reading: Reading


class Context:
    """What an answer may be built from, read once."""

    def __init__(self, text: str) -> None:
        text = text[:_MOST_CONTEXT]
        self._sentences = sentences(text)[:_MOST_SENTENCES]
        self._stems = [frozenset(content(one)) for one in self._sentences]
        self._seen = Counter(word for stems in self._stems for word in stems)
        self._facts = _read_all(self._sentences)
        self._denied = [read(one).denied for one in self._sentences]

    def judge(self, text: str, asked: Asked) -> Claim:
        """Return how far the context supports the sentence *text*."""
        claim = read(text)
        missing = self._missing(claim, asked.reading)
        if missing is not None:
            return Claim(text, 0.0, missing)
        words = frozenset(content(text))
        said = (words - asked.words) or words
        if not said:
            return Claim(text, 1.0 if claim.amounts.numbers else 0.0)
        best, place = self._best(said, words)
        if best >= SUPPORTED and self._denies(claim, asked.reading, place):
            return Claim(text, 0.0, "it denies what the context says, or the other way round")
        return Claim(text, best)

    def _best(self, said: frozenset[str], words: frozenset[str]) -> tuple[float, int]:
        """Return the best support of *said* in two sentences side by side, and where the first of them is."""
        found, place, tie = 0.0, 0, -1.0
        for i in range(len(self._sentences)):
            window = self._window(i)
            share = self._share(said, window)
            if share < found:
                continue
            rest = self._share(words, window)  # of equal ones, that which speaks of what was asked
            if share > found or rest > tie:
                found, place, tie = share, i, rest
        return found, place

    def _window(self, place: int) -> frozenset[str]:
        return self._stems[place].union(*self._stems[place + 1 : place + 2])

    def _share(self, said: frozenset[str], window: frozenset[str]) -> float:
        total = sum(map(self._weight, said))
        return sum(self._weight(word) for word in said & window) / total if total else 0.0

    def _weight(self, word: str) -> float:
        """Return how much a word says: more, the fewer sentences have it; one that none has, the most."""
        many = len(self._sentences)
        return math.log(1 + (many - self._seen[word] + 0.5) / (self._seen[word] + 0.5)) + 0.1

    def _missing(self, claim: Reading, asked: Reading) -> str | None:
        """Return what *claim* names that neither the context nor the question has, in words."""
        own, amounts, given = self._facts, claim.amounts, asked.amounts
        figures = (amounts.numbers - own.numbers - given.numbers - given.perhaps) | (
            amounts.ordinals - own.ordinals - given.ordinals - given.perhaps
        )
        figures -= own.figures
        if figures:
            return f"the context has no number {', '.join(sorted(map(str, figures)))[:60]}"
        units = amounts.units - own.units - given.units
        if units:
            return f"the context has no such amount of {', '.join(sorted(unit[0] for unit in units))}"
        named = [*(claim.dates - own.dates - asked.dates), *(claim.exact - own.exact - asked.exact)]
        named += [n for n in claim.names if not own.has_name(n) and n not in asked.words and n not in asked.squashed]
        named += [c for c in claim.codes - asked.codes if c not in own.codes and c not in own.squashed]
        named += [q for q in claim.quoted if q not in own.squashed and q not in asked.squashed]
        return f"the context does not name {min(named)[:60]!r}" if named else None

    def _denies(self, claim: Reading, asked: Reading, place: int) -> bool:
        """True when only one of the claim and its support denies anything, and the other says just that."""
        if asked.denied:
            return False  # the question denies something: the answer may do so in other words
        denied = frozenset().union(*self._denied[place : place + 2])
        if bool(claim.denied) == bool(denied):
            return False
        said = frozenset().union(*(read(one).affirmed for one in self._sentences[place : place + 2]))
        if claim.denied:
            return not claim.denied.isdisjoint(said) and claim.denied.isdisjoint(denied)
        return not denied.isdisjoint(claim.affirmed)


class Facts(msgspec.Struct, frozen=True):
    """What all of a context names."""

    numbers: frozenset[str]
    ordinals: frozenset[str]
    units: frozenset[tuple[str, float] | str]
    dates: frozenset[str]
    words: frozenset[str]
    codes: frozenset[str]
    exact: frozenset[str]
    figures: frozenset[str]  # as they are written, whatever unit stands behind them
    squashed: str

    def has_name(self, name: str) -> bool:
        """True when the context has *name* as a word, or in several."""
        return name in self.words or name.removesuffix("s") in self.words or (len(name) > 4 and name in self.squashed)


def _read_all(texts: Sequence[str]) -> Facts:
    readings = [read(text) for text in texts]
    amounts = [reading.amounts for reading in readings]
    perhaps = frozenset[tuple[str, float] | str]().union(*(one.perhaps for one in amounts))
    words = frozenset(one for one in perhaps if isinstance(one, str))
    bare = frozenset().union(*(one.numbers for one in amounts))
    ordinals = frozenset().union(*(one.ordinals for one in amounts))
    return Facts(
        numbers=bare | words,
        ordinals=ordinals | words,
        units=frozenset().union(*(one.units for one in amounts)) | perhaps,
        dates=frozenset().union(*(reading.dates for reading in readings)),
        words=frozenset().union(*(reading.words for reading in readings)),
        codes=frozenset().union(*(reading.codes | reading.pieces for reading in readings)),
        exact=frozenset().union(*(reading.exact for reading in readings)),
        figures=frozenset(one.replace(",", "") for text in texts for one in _FIGURE.findall(text)),
        squashed=" ".join(reading.squashed for reading in readings),
    )


def sentences(text: str) -> list[str]:
    """Return the sentences of *text*, an item of a list and a heading each as one, without marks of citation."""
    found: list[str] = []
    for piece in _BREAK.split(_CITED.sub("", text)):
        plain = _BULLET.sub("", piece).strip(" \t*_`")
        if not plain:
            continue
        if found and _ABBREVIATED.search(found[-1]):
            found[-1] = f"{found[-1]} {plain}"  # "Dr. Smith" is no end
        else:
            found.append(plain)
    return found


def content(text: str) -> list[str]:
    """Return the stems of the words in *text* that say something; figures stand as they are."""
    plain = (word.casefold().replace("’", "'").removesuffix("'s") for word in _WORD.findall(text))
    return [stem(word) for word in plain if word not in _SMALL]
