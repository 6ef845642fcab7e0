"""What one text says of numbers, names, negation and the like: what the guards compare."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from itertools import pairwise

import msgspec

from negawatt.recall.quantities import SCALES, SUFFIXES, Quantities, quantities, spelled
from negawatt.recall.words import words

_MOST_READ = 20_000  # characters; what comes after is compared by the embedding alone
_MOST_KEPT = 2_000  # characters of a text of which the reading is kept for the next time
_MOST_GLANCED = 500  # characters

_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]{1,500})`")
_CODE_LINE = re.compile(
    r"^[ \t]*(?:def |class |import |from \w+ import |return |if .*:$|for .*:$|while .*:$|#include|public |private |"
    r"(?:var|let|const) \w+ ?=|SELECT .* FROM |INSERT INTO |UPDATE \w+ SET |\$ ?\w+ -|<\w+[^<>\n]{0,200}>)"
    r"|[;{}][ \t]{0,20}$|\b\w{1,64}\([^()\n]{0,200}\)\s{0,20}[;{]|\b\w{1,64} ?[!=+*/-]= ?\w",
    re.MULTILINE,
)
_EXACT = re.compile(
    r"https?://[^\s<>\"']{1,500}|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,5}|(?<!\w)[@#]\w{2,64}|"
    r"(?<![\w/])(?:~|\.{1,2})?/[\w./-]{2,200}|[A-Za-z]:\\[\w\\.-]{1,200}"
)
_QUOTED = re.compile(
    r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|«([^»\n]{1,200})»|(?<!\w)'([^'\n]{1,200})'(?!\w)|(?<!\w)‘([^’\n]{1,200})’"
)
_MIXED = re.compile(  # letters and figures in one: gpt-4o, iPhone12, 12a; and names of files
    r"\b(?=\w{0,30}\d)[^\W\d_]\w{0,30}(?:-\d[\w.]{0,20})?\b|\b[^\W\d_]{1,10}-\d[\w.]{0,20}\b|\b\d{1,20}[^\W\d_]\w{0,20}\b|"
    r"\b[\w-]{1,64}\.(?:c|cpp|css|csv|docx?|exe|gif|go|html?|java|jpe?g|js|json|md|mp[34]|pdf|php|png|py|"
    r"rb|rs|sh|sql|toml|ts|txt|xlsx?|xml|ya?ml|zip)\b"
)
_MEASURE = re.compile(r"\d{1,20}([^\W\d_]+)")  # 20kg, 1st: no code
_TAILS = frozenset({*SUFFIXES, *SCALES, "am", "pm"})
_INTERJECTION = re.compile(r"\b(?:no|nein|non|nee)(?=\s{0,3}[,.;:!])", re.IGNORECASE)  # "No, it is not."
_VERSION = re.compile(r"\bv\.?\s?(?=\d)", re.IGNORECASE)
_LISTED = re.compile(r"^[ \t]{0,20}\(?\d{1,2}[.)](?=\s)", re.MULTILINE)  # the number of an item in a list
_APOSTROPHE = re.compile(r"['’]s\b|['’]")
_WORD = re.compile(r"[^\W\d_]+")
_SAID = re.compile(r"[^\W\d_]+|[.!?;\n]")
_STOPS = str.maketrans("!?;\n", "....")
_WRITTEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ALNUM = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"(?:\A|[.!?:;\n]|[-*•]\s)[^\w.!?:;\n]*")
_A = r"(?:(?:the|a|an|my|our|your|some|any) )?"
_FROM_TO = re.compile(rf"\bfrom {_A}(\S+) (?:\S+ ){{0,3}}?(?:in|on)?to {_A}(\S+)")
_CONVERT = re.compile(
    rf"\b(?:convert|exchange|change|translate|transfer|switch|upgrade) {_A}(\S+) (?:\S+ ){{0,3}}?(?:in)?to {_A}(\S+)"
)
_TO = re.compile(rf"(?<!\S)(\S+) (?:in|on)?to (?={_A}(\S+))")
_TO_FROM = re.compile(rf"\bto {_A}(\S+) (?:\S+ ){{0,2}}?from {_A}(\S+)")
_THAN = re.compile(rf"(?<!\S)(\S+) (?:(?:is|are|was|were) )?(?:more |less )?\S+ than {_A}(\S+)")
_MONTH = re.compile(
    r"\b(?:in|of|since|until|during|early|late|mid|next|last|\d{1,2}(?:st|nd|rd|th)?)[ -](march|may)\b|\b(march|may) \d"
)
_SCRIPTS = (
    ("cyrillic", 0x400, 0x52F), ("greek", 0x370, 0x3FF), ("arabic", 0x600, 0x6FF), ("hebrew", 0x590, 0x5FF),
    ("devanagari", 0x900, 0x97F), ("kana", 0x3040, 0x30FF), ("hangul", 0xAC00, 0xD7AF), ("han", 0x4E00, 0x9FFF),
    ("thai", 0xE00, 0xE7F),
)  # fmt: skip


class Reading(msgspec.Struct, frozen=True):
    """What one text says, as far as the guards are concerned."""

    words: frozenset[str]
    amounts: Quantities
    dates: frozenset[str]
    names: frozenset[str]
    runs: frozenset[tuple[str, ...]]  # names that follow each other
    squashed: str  # letters and figures, without anything between
    initials: str  # of the words, in their order
    exact: frozenset[str]  # addresses, paths, code inside a sentence
    quoted: frozenset[str]  # quotations, squashed: the other text may have the words without the marks
    codes: frozenset[str]  # of letters and figures, or names of files; without what stands between
    pieces: frozenset[str]  # of letters and figures, in up to three words
    code: tuple[str, ...]
    denied: frozenset[str]  # stems of what is said not to be
    affirmed: frozenset[str]  # and of all else
    compared: frozenset[str]
    opposed: frozenset[str]
    directions: frozenset[tuple[str, str]]
    language: str | None


def read(text: str) -> Reading:
    """Return what *text* says. Takes time in proportion to its length, and looks at the first 20,000 characters."""
    text = text.strip()  # "public" and "public " say the same, and only the one would look like code
    return _kept(text) if len(text) <= _MOST_KEPT else _read(text[:_MOST_READ])


@lru_cache(maxsize=4096)
def _kept(text: str) -> Reading:
    return _read(text)


def _read(text: str) -> Reading:
    lists = words()
    code, prose = _code(text)
    inline = {" ".join(one.split()) for one in _INLINE.findall(prose)}
    prose = _VERSION.sub("version ", _INLINE.sub(" ", prose))
    addresses = _EXACT.findall(prose)
    exact = inline | {one.rstrip(".,;:!?)").casefold() for one in addresses}
    if addresses:
        prose = _EXACT.sub(" ", prose)
    quoted = {_squashed("".join(one)) for one in _QUOTED.findall(prose)} - {""}
    plain = spelled(_INTERJECTION.sub(" ", prose).casefold())
    flat = _APOSTROPHE.sub("", plain)
    told = _WORD.findall(flat)
    hyphened = {one.replace("-", "") for one in _WRITTEN.findall(flat) if "-" in one}
    known = frozenset(told) | hyphened
    names, runs = _names(prose)
    denied, affirmed = _denied(_without_questions(flat))
    return Reading(
        words=known,
        amounts=quantities(_LISTED.sub(" ", plain)),
        dates=_dates(told, flat),
        names=names,
        runs=runs,
        squashed=_squashed(plain),
        initials="".join(word[0] for word in told),
        exact=frozenset(exact),
        quoted=frozenset(quoted),
        codes=_codes(prose),
        pieces=_pieces(_ALNUM.findall(plain)),
        code=code,
        denied=denied,
        affirmed=affirmed,
        compared=known & lists.compared,
        opposed=known & lists.opposed,
        directions=_directions(" ".join(told)),
        language=_language(text, told),
    )


def _denied(told: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the stems of the words that a negation stands before, and of all other words that carry meaning."""
    lists = words()
    denied: set[str] = set()
    affirmed: set[str] = set()
    reach = 0
    carried: list[str] = []  # since the negation
    for word, following in pairwise([*told, ".", "."]):
        if word in lists.negations or (word in lists.ceasing and following.endswith("ing")):
            reach, carried = 1, []
        elif word == ".":
            denied |= set(carried[-1:] if reach else ())  # "I must not go": there is nothing but small words
            reach, carried = 0, []
        elif word in lists.carriers:  # "is not a", "do not have the": what is denied comes after
            if reach:
                carried.append(word)
            else:
                affirmed.add(word)
        elif reach:
            denied.add(stem(word))
            reach = 0
        else:
            affirmed.add(stem(word))
    return frozenset(denied), frozenset(affirmed)


def stem(word: str) -> str:
    """Return *word* without the commonest endings: enough to find it again in another tense."""
    for ending in ("ing", "ied", "ed", "ies", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word.removesuffix(ending)
            return stem[:-1] if ending in ("ing", "ed") and stem[-1] == stem[-2] else stem
    return word


def _without_questions(flat: str) -> list[str]:
    """Return the words of *flat* without the phrases in which a negation denies nothing; others are said with "not"."""
    lists = words()
    told = " ".join(_SAID.findall(_question().sub(" ", flat)))
    told = f" {told} ".translate(_STOPS)
    for phrase in lists.no_negations:
        told = told.replace(f" {phrase} ", " ")
    for phrase in lists.failing:
        told = told.replace(f" {phrase} ", " not ")
    return told.split()


@cache
def _question() -> re.Pattern[str]:
    """Return what finds "can't I" at the beginning of a sentence, and "isn't it" as its tag."""
    lists = words()
    inverted, asked = "|".join(sorted(lists.inverted)), "|".join(sorted(lists.asked))
    return re.compile(
        rf"(?:\A|[.!?;:,\n]|\b(?:and|but|so|then|hi|hello)\b)\s{{0,5}}(?:{inverted})\s(?=(?:{asked})\b)"
        rf"|(?<!why )(?<!how )\b(?:{inverted})\s(?:{asked})(?=\s{{0,5}}[?.!]{{0,5}}\s{{0,5}}\Z)"
    )


def _code(text: str) -> tuple[tuple[str, ...], str]:
    """Return the pieces of code, without the space in them, and what is left."""
    pieces = [" ".join(piece.strip("`").split()) for piece in _FENCED.findall(text)]
    prose = _FENCED.sub(" ", text)
    if _CODE_LINE.search(prose):
        lines = [line for line in prose.split("\n") if _CODE_LINE.search(line)]
        pieces += [" ".join(line.split()) for line in lines]
        prose = "\n".join(line for line in prose.split("\n") if not _CODE_LINE.search(line))
    return tuple(pieces), prose


def _squashed(text: str) -> str:
    return "".join(_ALNUM.findall(_APOSTROPHE.sub("", text.casefold())))


def _codes(prose: str) -> frozenset[str]:
    """Return what is made of letters and figures, without what stands between them."""
    lists = words()
    found = set()
    for one in _MIXED.findall(prose):
        measured = _MEASURE.fullmatch(one.casefold())
        if measured is None or not (measured[1] in lists.units or measured[1] in _TAILS):
            found.add("".join(_ALNUM.findall(one.casefold())))
    return frozenset(found)


def _pieces(told: list[str]) -> frozenset[str]:
    found: set[str] = set()
    if all(map(str.isalpha, told)):
        return frozenset()
    for many in (1, 2, 3):
        for i in range(len(told) - many + 1):
            piece = "".join(told[i : i + many])
            if len(piece) <= 64 and not piece.isalpha() and not piece.isdigit():
                found.add(piece)
    return frozenset(found)


def _names(prose: str) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """Return the words with a capital letter that begin no sentence, case-folded; and those that follow each other."""
    lists = words()
    found = list(_WRITTEN.finditer(prose))
    starts = {m.end() for m in _SENTENCE.finditer(prose)}
    inner = [m for m in found if m.start() not in starts]
    capital = [m for m in inner if m[0][0].isupper()]
    shouted = len(capital) > max(2, 0.6 * len(inner))
    if not capital or shouted or any(m[0][1:].islower() and m[0].casefold() in lists.headline for m in capital):
        return frozenset(), frozenset()  # a headline, or shouting: capitals say nothing
    names: set[str] = set()
    runs: set[tuple[str, ...]] = set()
    run: list[str] = []
    end = -2
    for match in found:
        name = _APOSTROPHE.sub("", match[0].casefold()).replace("-", "")
        if not match[0][0].isupper() or not name:
            continue
        run = [*run[-7:], name] if match.start() <= end + 1 else [name]
        end = match.end()
        if len(run) > 1:
            runs.add(tuple(run))
        if match.start() not in starts and not _nameless(name):
            names.add(name)
    return frozenset(names), frozenset(runs)


def _nameless(word: str) -> bool:
    """True for a word that may have a capital letter and names nothing."""
    lists = words()
    known = (lists.ordinary, lists.dates, lists.units, lists.numbers, lists.ordinals)
    return any(word in some or word.removesuffix("s") in lists.dates for some in known)


def _dates(told: list[str], flat: str) -> frozenset[str]:
    lists = words()
    found = {lists.dates[one] for one in told if one in lists.dates}
    found |= {lists.dates[one[:-1]] for one in told if one.endswith("s") and one[:-1] in lists.dates}
    found |= {"".join(month) for month in _MONTH.findall(flat)}
    for first, second in pairwise(told):
        if first in lists.relative and second in lists.spans:
            found.add(f"{'last' if first in ('past', 'previous') else first} {second}")
    return frozenset(found)


def _directions(text: str) -> frozenset[tuple[str, str]]:
    """Return (here, there) of each "from here to there", and of what else has an order."""
    text = text[:2000]
    found = {pair for pattern in (_FROM_TO, _CONVERT, _TO, _THAN) for pair in pattern.findall(text)}
    return frozenset(found | {(here, there) for there, here in _TO_FROM.findall(text)})


def language_of(text: str) -> str | None:
    """Return the language of *text*, or its script, or None when it does not give itself away."""
    return read(text).language


def language_at_sight(text: str) -> str | None:
    """Return the language of *text* as `language_of` does, from its first words as they stand: in microseconds."""
    begin = text[:_MOST_GLANCED]
    return _language(begin, _WORD.findall(_APOSTROPHE.sub("", begin.casefold())))


def _language(text: str, told: list[str]) -> str | None:
    """Return the language of a text by its script or its small words; None when it does not give itself away."""
    sample = [ord(c) for c in text[:400] if c.isalpha() and ord(c) > 0x36F]
    scripts = {name: sum(first <= c <= last for c in sample) for name, first, last in _SCRIPTS}
    if scripts["kana"] and scripts["kana"] + scripts["han"] > 2:
        return "kana"  # Japanese is written in both
    for name, count in scripts.items():
        if count > 2:
            return name
    counts = {name: sum(word in known for word in told[:60]) for name, known in words().languages.items()}
    best = max(counts, key=counts.__getitem__)
    rest = max(count for name, count in counts.items() if name != best)
    return best if counts[best] >= 2 and counts[best] > 1.5 * rest else None
