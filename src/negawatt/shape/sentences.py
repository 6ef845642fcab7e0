"""Texts cut into units that can be kept or left out: sentences, list items, headings, rows, whole blocks of code.

A unit has its own trailing space, so the units of a text, put together, are the text again, character by character.
Code between fences is one unit and is never cut. A full stop ends a sentence only where a new one can begin: not after
"Dr.", an initial, "e.g.", the number of a list, or inside a figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6}\s|[ \t]*<h[1-6]\b")
_ITEM = re.compile(r"[ \t]*(?:[-*+•–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+\S")
_ROW = re.compile(r"[ \t]*\|")
_SPEAKER = re.compile(r"[ \t]*[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*){0,3}:\s")
# Whether a place where a sentence may end is its end is decided by what stands before it and after it.
_END = re.compile(
    r"(?<![.!?…])[.!?…]+[\"'”’)\]]{0,3}\s+(?=[\"'“‘(\[¿¡]{0,3}[^\Wa-zß-öø-ÿ_])"
    r"|[。！？]+[」』”）]{0,2}\s*"
)
_BEFORE = re.compile(r"(?:^|[\s(\[\"'“‘/-])([\w.]{1,12})\Z")
_FIRST_WORD = re.compile(r"[\"'“‘(\[]{0,3}([^\W\d_]+)")
# Abbreviations that go on, those that seldom end a sentence, and words that begin one far more often than a name.
_NEVER = """
mr mrs ms dr prof st vs e.g i.e cf approx ca fig figs eq no nos vol pp p gen col lt sgt capt rev hon gov sen rep mt ft
art sec ch viz resp incl bzw z.b d.h m mme mlle sr sra
"""
_SELDOM = """
etc inc ltd co corp jr al bros dept est jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m ph.d b.c a.d u.s u.k
u.n
"""
_FIRST = """
the a an in on at it its he she they we you i this that these those there but and however if when while as after before
since although though for from by with to during under his her their our some many most all both each another other
what who why how where which then thus so also
"""
_NEVER_LAST, _SELDOM_LAST, _BEGINS = (frozenset(words.split()) for words in (_NEVER, _SELDOM, _FIRST))
_WRAPPED = 50  # characters from which on a line without an end is taken to go on in the next one


class Unit(msgspec.Struct, frozen=True):
    """What is kept or left out as a whole.

    *source*: which of the texts it is from; *document*: texts of the same one go on from each other. *start*:
    its offset in its text. *kind*: prose, heading, item, row, code or blank.
    """

    text: str
    source: int
    document: int
    start: int
    kind: str

    @property
    def words(self) -> int:
        """How many words it has: pieces between white space."""
        return len(self.text.split())


def units_of(texts: Sequence[str], *, together: bool = False) -> list[Unit]:
    """Return the units of *texts*, in order; those of each text put together are that text.

    *together*: the texts go on from each other, as the turns of a conversation do.
    """
    found: list[Unit] = []
    for source, text in enumerate(texts):
        start = 0
        for kind, piece in _pieces(text):
            found.append(Unit(piece, source, 0 if together else source, start, kind))
            start += len(piece)
    return found


def units(text: str) -> list[Unit]:
    """Return the units of one text."""
    return units_of([text])


def joined(kept: Iterable[Unit]) -> str:
    """Return *kept* as one text; between units of different texts stands an empty line."""
    parts: list[str] = []
    last: int | None = None
    for unit in kept:
        if last is not None and unit.source != last:
            ended = len(parts[-1]) - len(parts[-1].rstrip("\n"))
            parts.append("\n" * (2 - ended))
        parts.append(unit.text)
        last = unit.source
    return "".join(parts)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, piece) of *text*."""
    for kind, run in _runs(text):
        for piece in _sentences(run) if kind in ("prose", "item") else [run]:
            yield kind, piece


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, piece) of *text*: its lines, those of one fence or of one wrapped paragraph together."""
    kind, fence = "", ""
    run: list[str] = []
    for line in _LINE.findall(text):
        if fence:
            run.append(line)
            bare = line.strip()
            if bare.startswith(fence) and not bare.strip(fence[0]):
                yield "code", "".join(run)
                fence, run = "", []
            continue
        here = _kind(line)
        if run and (here != "prose" or kind not in ("prose", "item") or not _goes_on(run[-1], line)):
            yield kind, "".join(run)
            run = []
        opening = _FENCE.match(line) if here == "code" else None
        fence = opening[1] if opening else ""
        kind = kind if run else here
        run.append(line)
    if run:
        yield kind, "".join(run)


def _kind(line: str) -> str:
    if not line.strip():
        return "blank"
    if _FENCE.match(line):
        return "code"
    if _HEADING.match(line):
        return "heading"
    if _ROW.match(line):
        return "row"
    return "item" if _ITEM.match(line) else "prose"


def _goes_on(before: str, line: str) -> bool:
    """True when *line* goes on with what the line *before* it says: that one is wrapped."""
    first = _FIRST_WORD.match(line.lstrip())
    if first is None or _SPEAKER.match(line):
        return False
    if first[1][0].islower():
        return True
    return len(before) > _WRAPPED and (len(first[1]) == 1 or not first[1].isupper())


def _sentences(run: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(run):
        if match[0][0] == "." and match[0][:2] != ".." and not _is_end(run, match):
            continue
        yield run[start : match.end()]
        start = match.end()
    if start < len(run):
        yield run[start:]


def _is_end(run: str, match: re.Match[str]) -> bool:
    """True when the full stop at *match* ends a sentence, and not an abbreviation, an initial or a list's number."""
    before = _BEFORE.search(run, max(0, match.start() - 14), match.start())
    if before is None:
        return True
    word = before[1]
    if word.casefold() in _NEVER_LAST:
        return not word.islower() and word.casefold() in ("no", "m", "p") and _begins(run, match.end())
    if word.isdigit():
        return bool(run[: before.start(1)].strip())  # "1. First": the number of an item
    if word.casefold() in _SELDOM_LAST or (len(word) == 1 and word.isupper()) or re.fullmatch(r"(?:\w\.)+\w", word):
        return _begins(run, match.end())
    return True


def _begins(run: str, place: int) -> bool:
    """True when the word at *place* is one that begins sentences."""
    first = _FIRST_WORD.match(run, place)
    return first is not None and first[1].casefold() in _BEGINS
