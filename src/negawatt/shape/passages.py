"""Which passages of what a user sent are context that came along, by the marks that stand around them.

Marks are a tag such as ``<document>``, a fence, three quotes, or a line such as ``Context:`` that another one such as
``Question:`` ends. What is not marked is the user's own word, and is never touched. In doubt there is no passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

LEAST = 200  # characters: of a shorter passage little could be saved
_TAGS = (
    "article|articles|background|chunk|chunks|content|contents|context|contexts|data|doc|docs|document|documents|"
    "evidence|excerpt|excerpts|file|files|knowledge|log|logs|page|passage|passages|reference|references|result|results|"
    "retrieved_context|search_result|search_results|snippet|snippets|source|sources|table|text|transcript"
)
_OPENING = re.compile(rf"<({_TAGS})(?:\s[^<>\n]{{0,200}})?>", re.IGNORECASE)
_CLOSING = re.compile(rf"</(?:{_TAGS})>", re.IGNORECASE)
_FENCE = re.compile(r"^(?P<mark>`{3,}|~{3,}|\"\"\"|''')[\w+.-]{0,20}[ \t]*$", re.MULTILINE)
_LABEL = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+|\*\*)?(?:"
    r"(?P<context>(?:retrieved |supporting |provided )?(?:contexts?|documents?|passages?|background|sources?|excerpts?"
    r"|search results?|knowledge|articles?|transcript|evidence)(?:[ \t]*\[?\d{1,3}\]?)?)"
    r"|(?P<ask>(?:final |user )?questions?|query|task|instructions?|request|q)"
    r"|(?P<other>answer|a|rules?|output|format|note|constraints?)"
    r")(?:\*\*)?[ \t]*:(?:\*\*)?",
    re.IGNORECASE | re.MULTILINE,
)
# Where the wording or the layout of a text is what is asked about, none of it is in the way.
_FORM = re.compile(
    r"\b(?:verbatim|word for word|exact (?:words?|wording|text)|typos?|spelling (?:mistakes|errors)|grammar|indentation"
    r"|pretty.print\w*|white ?space|line breaks?|blank lines?|how many (?:words|lines|characters)|word count|base64)\b"
    r"|(?:^|[.!?:;,\n]\s{0,9}|\b(?:please|and|then|you)\s{1,9})(?:proofread|re-?format|re-?indent|format|lint|minify|deduplicate"
    r"|translate|rewrite|rephrase|paraphrase|correct|copy|transcribe|decode|encode|repeat|diff|count|find (?:all )?"
    r"duplicates?|remove (?:all )?duplicates?)\b",
    re.IGNORECASE,
)


class Passage(NamedTuple):
    """``text[start:end]``, without the marks around it."""

    start: int
    end: int


def passages(text: str, *, alone: bool = True) -> list[Passage]:
    """Return the passages of *text* that are context, in their order.

    None where all of it would be context, unless it is not *alone*: the user's own words stand in another part.
    """
    found = _marked(text)
    return found if not alone or _said(text, found) else []


def _marked(text: str) -> list[Passage]:
    if len(text) < LEAST:
        return []
    found: list[Passage] = []
    marked = (_trimmed(text, one) for one in (*_tagged(text), *_fenced(text), *_labelled(text)))
    for one in sorted(marked, key=lambda one: (one.start, -one.end)):
        if one.end - one.start >= LEAST and (not found or found[-1].end <= one.start):
            found.append(one)
    return found


def without(text: str, found: list[Passage]) -> str:
    """Return *text* without the passages *found* in it: what its user says themselves."""
    parts, at = [], 0
    for one in found:
        parts.append(text[at : one.start])
        at = one.end
    return " ".join([*parts, text[at:]])


def own_words(text: str) -> str:
    """Return what the user of *text* says themselves, without the tags that passages stood in."""
    return _said(text, _marked(text))


def _said(text: str, found: list[Passage]) -> str:
    return _CLOSING.sub(" ", _OPENING.sub(" ", without(text, found))).strip()


def about_form(ask: str) -> bool:
    """True when *ask* is about how its text is written: then nothing of that text may change."""
    return _FORM.search(ask) is not None


def _trimmed(text: str, one: Passage) -> Passage:
    """Return *one* without the space at its ends, which belongs to the marks."""
    body = text[one.start : one.end]
    return Passage(one.end - len(body.lstrip()), one.start + len(body.rstrip())) if body.strip() else one


def _tagged(text: str) -> Iterator[Passage]:
    endless: set[str] = set()  # names of which no end follows: looked for once, so that the time stays in proportion
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        name, at = opening[1], opening.end()
        end = -1 if name in endless else text.find(f"</{name}>", at)
        if end < 0:
            endless.add(name)
            continue
        yield Passage(at, end)
        at = end + len(name) + 3


def _fenced(text: str) -> Iterator[Passage]:
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[0].strip() == opened["mark"]:
            yield Passage(opened.end() + 1, fence.start())
            opened = None


def _labelled(text: str) -> Iterator[Passage]:
    """Yield what stands between a label of context and the next of another kind, or the end after an ask."""
    begun: int | None = None
    asked = False
    for label in _LABEL.finditer(text):
        if label["context"] is not None:
            begun = label.end() if begun is None else begun
            continue
        if begun is not None:
            yield Passage(begun, label.start())
            begun = None
        asked = asked or label["ask"] is not None
    if begun is not None and asked:
        yield Passage(begun, len(text))
