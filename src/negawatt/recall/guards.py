"""What similarity does not see: two questions may be close in meaning and differ in the one word that matters.

A `Reading` holds what one text says of numbers, names, negation and the like; `conflict` names the guard that objects
to taking one text for the other. The guards know words, not meaning: where they are silent, nothing is proven.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

import msgspec

from negawatt.recall.quantities import quantities
from negawatt.recall.words import Pair, words

GUARDS = (
    "language", "code", "numbers", "units", "dates", "names", "negation", "comparatives", "antonyms", "direction"
)  # fmt: skip
_MOST_READ = 20_000  # characters; what comes after is compared by the embedding alone

_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]{1,500})`")
_CODE_LINE = re.compile(
    r"^[ \t]*(?:def |class |import |from \w+ import |return |if .*:$|for .*:$|while .*:$|#include|public |private |"
    r"(?:var|let|const) \w+ ?=|SELECT .* FROM |INSERT INTO |UPDATE \w+ SET |\$ ?\w+ -|<\w+[^<>\n]{0,200}>)"
    r"|[;{}]\s*$|\w+\([^()\n]{0,200}\)\s*[;{]|\w+ ?[!=+*/-]= ?\w",
    re.MULTILINE,
)
_EXACT = re.compile(
    r"https?://[^\s<>\"']{1,500}|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,5}|(?<!\w)[@#]\w{2,64}|"
    r"(?<![\w/])(?:~|\.{1,2})?/[\w./-]{2,200}|[A-Za-z]:\\[\w\\.-]{1,200}"
)
_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|«([^»\n]{1,200})»")
_MIXED = re.compile(
    r"\b(?=\w{0,30}[A-Za-z])(?=\w{0,30}\d)[A-Za-z]\w{0,30}(?:-\d[\w.]{0,20})?\b"
    r"|\b[A-Z]{2,10}-\d[\w.]{0,20}\b"
)
_INTERJECTION = re.compile(r"\b(?:no|nein|non|nee)(?=\s{0,3}[,.;:!])", re.IGNORECASE)  # "No, it is not."
_VERSION = re.compile(r"\bv(?=\d+\.\d)", re.IGNORECASE)
_LISTED = re.compile(r"(?:^|(?<=\s))\(?\d{1,2}[.)](?=\s)")  # the number of an item in a list
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*", re.UNICODE)
_SENTENCE = re.compile(r"(?:\A|[.!?:;\n]|[-*•]\s)[^\w.!?:;\n]*\Z")
_FROM_TO = re.compile(r"\bfrom ((?:\S+ ){1,4}?)(?:in|in)?to (\S+(?: \S+)?)")
_CONVERT = re.compile(
    r"\b(?:convert|exchange|change|translate|transfer|switch|upgrade) ((?:\S+ ){1,4}?)(?:in)?to (\S+(?: \S+)?)"
)
_ARTICLES = frozenset({"the", "a", "an", "my", "our", "your", "some", "any"})
_SCRIPTS = (
    ("cyrillic", 0x400, 0x52F), ("greek", 0x370, 0x3FF), ("arabic", 0x600, 0x6FF), ("hebrew", 0x590, 0x5FF),
    ("devanagari", 0x900, 0x97F), ("kana", 0x3040, 0x30FF), ("hangul", 0xAC00, 0xD7AF), ("han", 0x4E00, 0x9FFF),
    ("thai", 0xE00, 0xE7F),
)  # fmt: skip


class Reading(msgspec.Struct, frozen=True):
    """What one text says, as far as the guards are concerned."""

    words: frozenset[str]
    numbers: tuple[float, ...]  # without a unit
    units: tuple[tuple[str, float], ...]  # dimension, amount
    dates: frozenset[str]
    names: frozenset[str]
    letters: str  # all of them, without anything between
    initials: str  # of the words, in their order
    exact: frozenset[str]  # addresses, paths, quotations, codes
    code: tuple[str, ...]
    denied: frozenset[str]  # stems of what is said not to be
    affirmed: frozenset[str]  # and of all else
    compared: frozenset[str]
    opposed: frozenset[str]
    directions: frozenset[tuple[str, str]]
    language: str | None


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """Return what *text* says. Takes time in proportion to its length, and looks at the first 20,000 characters."""
    lists = words()
    text = text[:_MOST_READ]
    code, prose = _code(text)
    inline = {" ".join(one.split()) for one in _INLINE.findall(prose)}
    prose = _VERSION.sub("version ", _INLINE.sub(" ", prose))
    exact = inline | {one.rstrip(".,;:!?)").casefold() for one in _EXACT.findall(prose)}
    exact |= {" ".join("".join(one).split()).casefold() for one in _QUOTED.findall(prose)}
    prose = _EXACT.sub(" ", prose)
    exact |= {one.casefold() for one in _MIXED.findall(prose)}
    plain = _INTERJECTION.sub(" ", _MIXED.sub(" ", prose))
    told = [one.replace("’", "'").casefold() for one in _WORD.findall(plain)]
    bare = [one.removesuffix("'s").replace("'", "") for one in told]
    known = frozenset(bare)
    numbers, units = quantities(_LISTED.sub(" ", plain).casefold())
    joined = f" {' '.join(bare)} "
    for phrase in lists.no_negations:
        joined = joined.replace(f" {phrase} ", " ")
    denied, affirmed = _denied(joined.split())
    return Reading(
        words=known,
        numbers=numbers,
        units=units,
        dates=_dates(bare),
        names=_names(prose),
        letters="".join(bare),
        initials="".join(word[0] for word in bare if word),
        exact=frozenset(exact),
        code=code,
        denied=denied,
        affirmed=affirmed,
        compared=known & lists.compared,
        opposed=known & lists.opposed,
        directions=_directions(joined.replace("  ", " ")),
        language=_language(text, bare),
    )


def conflict(one: Reading, other: Reading) -> str | None:
    """Return the name of the guard that objects to taking *one* for *other*; None when none does. Symmetric."""
    if one is other or one == other:
        return None
    if one.language is not None and other.language is not None and one.language != other.language:
        return "language"
    if one.code != other.code:
        return "code"
    if one.numbers != other.numbers:
        return "numbers"
    if one.units != other.units:
        return "units"
    if one.dates != other.dates:
        return "dates"
    if one.exact != other.exact or not (_known(one.names, other) and _known(other.names, one)):
        return "names"
    if _negation(one, other):
        return "negation"
    if _opposite(words().comparatives, one.compared, other.compared):
        return "comparatives"
    if _opposite(words().antonyms, one.opposed, other.opposed):
        return "antonyms"
    if any((there, here) in other.directions for here, there in one.directions if here != there):
        return "direction"
    return None


def _known(names: frozenset[str], other: Reading) -> bool:
    """True when the other text has all *names*, as names or as words: it may be written in lower case."""
    return all(
        name in other.names
        or name in other.words
        or (len(name) > 4 and name in other.letters)  # in two words there, or in one
        or (len(name) < 5 and name in other.initials)
        for name in names
    )


def _negation(one: Reading, other: Reading) -> bool:
    """True when only one text denies anything, and the other says just that."""
    if one.denied and other.denied:
        return False  # both deny something; what, is a matter of words
    return not (one.denied.isdisjoint(other.affirmed) and other.denied.isdisjoint(one.affirmed))


def _denied(told: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the stems of the words that a negation stands before, and of all other words that carry meaning."""
    lists = words()
    denied: set[str] = set()
    affirmed: set[str] = set()
    reach = 0
    for word in told:
        if word in lists.negations:
            reach = 1
        elif word in lists.carriers:
            continue  # "is not a", "do not have the": what is denied comes after
        elif reach:
            denied.add(_stem(word))
            reach -= 1
        else:
            affirmed.add(_stem(word))
    return frozenset(denied), frozenset(affirmed)


def _stem(word: str) -> str:
    """Return *word* without the commonest endings: enough to find it again in another tense."""
    for ending in ("ing", "ied", "ed", "ies", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word.removesuffix(ending)
            return stem[:-1] if ending in ("ing", "ed") and stem[-1] == stem[-2] else stem
    return word


def _opposite(pairs: tuple[Pair, ...], one: frozenset[str], other: frozenset[str]) -> bool:
    """True when the texts stand on different sides of a pair, and neither on both."""
    if not one or not other:
        return False
    for pair in pairs:
        sides = [(bool(said & pair.one), bool(said & pair.other)) for said in (one, other)]
        if sides in ([(True, False), (False, True)], [(False, True), (True, False)]):
            return True
    return False


def _code(text: str) -> tuple[tuple[str, ...], str]:
    """Return the pieces of code, without the space in them, and what is left."""
    pieces = [" ".join(piece.strip("`").split()) for piece in _FENCED.findall(text)]
    prose = _FENCED.sub(" ", text)
    if _CODE_LINE.search(prose):
        lines = [line for line in prose.split("\n") if _CODE_LINE.search(line)]
        pieces += [" ".join(line.split()) for line in lines]
        prose = "\n".join(line for line in prose.split("\n") if not _CODE_LINE.search(line))
    return tuple(pieces), prose


def _names(prose: str) -> frozenset[str]:
    """Return the words that are written with a capital letter though they begin no sentence, case-folded."""
    found = list(_WORD.finditer(prose))
    capital = [m for m in found if m[0][0].isupper()]
    if not capital or len(capital) > max(2, 0.6 * len(found)):
        return frozenset()  # a headline, or shouting: capitals say nothing
    ordinary = words().ordinary
    names: set[str] = set()
    for match in capital:
        name = match[0].replace("’", "'").casefold()
        if name in ordinary or name.removesuffix("'s") in ordinary:
            continue
        if _SENTENCE.search(prose[max(0, match.start() - 8) : match.start()]):
            continue
        names.add(name.removesuffix("'s").replace("'", ""))
    return frozenset(names - words().dates)


def _dates(told: list[str]) -> frozenset[str]:
    lists = words()
    found = {one for one in told if one in lists.dates}
    for first, second in pairwise(told):
        if first in lists.relative and second in lists.spans:
            found.add(f"{'last' if first in ('past', 'previous') else first} {second}")
    return frozenset(found)


def _directions(text: str) -> frozenset[tuple[str, str]]:
    """Return (here, there) of each "from here to there", by their first word that is no article."""
    found = set()
    for pattern in (_FROM_TO, _CONVERT):
        for here, there in pattern.findall(text[:2000]):
            ends = [next((w for w in end.split() if w not in _ARTICLES), "") for end in (here, there)]
            if all(ends):
                found.add((ends[0], ends[1]))
    return frozenset(found)


def language_of(text: str) -> str | None:
    """Return the language of *text*, or its script, or None when it does not give itself away."""
    return read(text).language


def _language(text: str, told: list[str]) -> str | None:
    """Return the language of a text by its script or its small words; None when it does not give itself away."""
    sample = [ord(c) for c in text[:400] if c.isalpha() and ord(c) > 0x36F]
    for name, first, last in _SCRIPTS:
        if sum(first <= c <= last for c in sample) > 2:
            return name
    counts = {name: sum(word in known for word in told[:60]) for name, known in words().languages.items()}
    best = max(counts, key=counts.__getitem__)
    rest = max(count for name, count in counts.items() if name != best)
    return best if counts[best] >= 2 and counts[best] > 1.5 * rest else None
