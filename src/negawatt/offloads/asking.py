"""Taking a request apart into what is wanted and what it is wanted of."""

from __future__ import annotations

import re
from typing import NamedTuple

_POLITE = re.compile(
    r"^(?:(?:hi|hello|hey)[,!.]?\s+)?(?:please,?\s+)?(?:(?:can|could|would|will) you\s+)?(?:please\s+)?"
    r"(?:tell me,?\s+)?",
    re.IGNORECASE,
)
_THANKS = re.compile(r"[\s,]*(?:,?\s*please|,?\s*thanks?(?: you)?)?\s*[?!.]*\s*$", re.IGNORECASE)
_DELIMITED = re.compile(
    r"(?P<q>\"\"\"|'''|```|\"|'|“|<text>)(?:(?<=```)[a-z]*\n)?(?P<body>.*?)(?P<e>\"\"\"|'''|```|\"|'|”|</text>)[.\s]*",
    re.S,
)
_LONGEST = 400  # an instruction of more characters says more than is understood here
_PAIRS = {"“": "”", "<text>": "</text>"}
_MORE = re.compile(
    r"(?:^|[.!?\n]\s*|,\s*(?:and|then)\s+)(?:please|then|also|next|finally|afterwards|and|sort|return|format|output|translate|give|make"
    r"|only|ignore|explain|summari[sz]e|convert|list|remove|do not|don't|use|write|answer|reply|respond|include|exclude"
    r"|count|add|replace|show|tell|extract|find|in addition|note that|keep|skip|print)\b",
    re.IGNORECASE,
)  # fmt: skip


class Told(NamedTuple):
    """*wish*: the instruction, one line. *body*: what it is about. *delimited*: the body stands in marks of its own."""

    wish: str
    body: str
    delimited: bool


def plain(text: str) -> str:
    """Return a short request without what is said out of politeness, and its end mark; nothing of a long one."""
    text = " ".join(text.split())
    return _THANKS.sub("", _POLITE.sub("", text, count=1), count=1).strip() if len(text) <= _LONGEST else ""


def told(text: str) -> Told | None:
    """Return instruction and body of "do this with the following: ..."; None where they cannot be told apart.

    A body without marks of its own that goes on to give orders is none.
    """
    line, newline, rest = text.strip().partition("\n")
    wish, colon, same_line = line.partition(":")
    if not colon:
        if not newline or not rest.strip() or not line.rstrip().endswith(("?", ".")):
            return None
        wish, same_line = line, ""
    body = (same_line + newline + rest).strip("\n").strip()
    if not body:
        return None
    marked = _DELIMITED.fullmatch(body)
    if marked is not None and marked["e"] == _PAIRS.get(marked["q"], marked["q"]) and marked["q"] not in marked["body"]:
        return Told(plain(wish), marked["body"].strip("\n"), True)
    if _MORE.search(body):
        return None
    return Told(plain(wish), body, False)
