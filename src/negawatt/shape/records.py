"""Which records of a collection a query asks for: members of a JSON array or object, rows of a table.

A record is kept whole, byte for byte, or left out. One that has a name or number of the query just as it is written
there is always kept, whatever the budget. Where the query asks about all records at once, nothing is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from negawatt.shape.scores import bm25
from negawatt.shape.terms import asked, terms

_LIKELY = 0.5  # of the best score: from there on a record is kept where no ratio is set
_QUOTED = re.compile(r"\"([^\"\n]{2,200})\"|`([^`\n]{2,200})`|(?<!\w)'([^'\n]{2,200})'(?!\w)|“([^”\n]{2,200})”")
_CODE = re.compile(r"[^\W_](?:[\w.:/@+#-]*[^\W_])?")
_LEAST_CODE = 3  # characters
_OF_ALL = re.compile(
    r"\b(?:how many|count|total|sum|average|mean|median|most|least|every|each|all|any|compare|rank|sort|order by|"
    r"largest|smallest|highest|lowest|biggest|maximum|minimum|latest|earliest|oldest|newest|longest|shortest|cheapest|"
    r"summari[sz]e|summary|overview|trend|distribution|group|duplicates?|translate|convert|rewrite)\b",
    re.IGNORECASE,
)


class Choice(msgspec.Struct, frozen=True):
    """Which records are kept, in their order; the *best* one; or why no choice was made."""

    kept: tuple[int, ...] = ()
    best: int | None = None
    abstained: str | None = None


def choose(records: Sequence[str], query: str, room: int | None) -> Choice:
    """Return which of *records* to keep.

    *room*: how many characters they may take; those with an anchor of the query are kept beyond it. None: as many as
    seem to be asked for.
    """
    anchors = _anchors(query, records)
    named = [sum(_has(record, anchor) for anchor in anchors) for record in records]
    said = [terms(record) for record in records]
    scores = bm25([Counter(words) for words in said], [len(words) for words in said], asked(query))
    best = max(range(len(records)), key=lambda i: (named[i], scores[i], -i), default=None)
    if best is None or (not named[best] and scores[best] <= 0):
        return Choice(abstained="no record has a word of the query")
    if not named[best] and _OF_ALL.search(query):
        return Choice(abstained="the query asks about all records")
    kept = {i for i, many in enumerate(named) if many}
    if room is None:
        kept |= {i for i, one in enumerate(scores) if one >= max(_LIKELY * max(scores), 1e-9)}
        return Choice(tuple(sorted(kept)), best)
    left = room - sum(len(records[i]) for i in kept)
    for i in sorted(range(len(records)), key=lambda i: (-scores[i], i)):
        if i not in kept and scores[i] > 0 and len(records[i]) <= left:
            kept.add(i)
            left -= len(records[i])
    return Choice(tuple(sorted(kept | {best})), best)


def _anchors(query: str, records: Sequence[str]) -> list[str]:
    """Return what *query* names literally, and fewer than half of the records have: quotations, codes, numbers."""
    quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(query)]
    codes = [word for word in _CODE.findall(query) if len(word) >= _LEAST_CODE and any(sign.isdigit() for sign in word)]
    return [
        anchor
        for anchor in dict.fromkeys([*quoted, *codes])
        if 0 < sum(_has(record, anchor) for record in records) * 2 < len(records)
    ]


def _has(record: str, anchor: str) -> bool:
    """True when *record* has *anchor* as it is, and not as part of a longer word or number."""
    place = record.find(anchor)
    while place >= 0:
        before, after = record[:place][-1:], record[place + len(anchor) :][:1]
        inside = (before.isalnum() and anchor[0].isalnum()) or (after.isalnum() and anchor[-1].isalnum())
        if not inside:
            return True
        place = record.find(anchor, place + 1)
    return False
