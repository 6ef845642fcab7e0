"""Lists: without duplicates, or sorted, in the form in which they came: one item a line, or with commas.

"Duplicates" are equal items. A list with items that are nearly equal is declined: whether "Jon Smith" and "John Smith"
are the same is a matter of opinion.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from negawatt.offloads.asking import told
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_THIS = r"(?:(?:the|this|these|my)\s+)?(?:following\s+)?"
_ITEMS = r"(?:list(?:\s+of)?\s*)?(?P<items>items|words|names|lines|numbers|values|entries|strings)?"
_DEDUPE = re.compile(
    rf"(?:remove|delete|drop)\s+(?:all\s+)?(?:the\s+)?duplicates?(?:\s+(?:items|entries|lines|values))?\s+(?:from|in)\s+{_THIS}{_ITEMS}"
    rf"|de-?(?:dupe|duplicate)\s+{_THIS}{_ITEMS.replace('items>', 'things>')}",
    re.IGNORECASE,
)  # fmt: skip
_SORT = re.compile(
    rf"(?:sort|order|arrange|alphabeti[sz]e)\s+{_THIS}{_ITEMS}\s*(?P<how>(?:in\s+)?(?:alphabetical(?:ly)?|ascending|descending"
    r"|numerical(?:ly)?|increasing|decreasing)(?:\s+order)?|from\s+(?:smallest|lowest)\s+to\s+(?:largest|highest)"
    r"|from\s+(?:largest|highest)\s+to\s+(?:smallest|lowest)|from\s+a\s+to\s+z)?",
    re.IGNORECASE,
)  # fmt: skip
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_WORD = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)*")
_BULLET = re.compile(r"^(\s*[-*•]\s+)")
_MOST, _ALIKE = 500, 90


class _Items(NamedTuple):
    items: list[str]
    before: str  # a bullet, or nothing
    between: str

    def written(self, items: list[str]) -> str:
        return self.between.join(self.before + item for item in items)


def _items(body: str) -> _Items | None:
    """Return the items of *body*; None where they cannot be told apart for sure."""
    lines = [line.rstrip() for line in body.split("\n") if line.strip()]
    if len(lines) == 1:
        separator = ", " if ", " in lines[0] else ","
        items = [item.strip() for item in lines[0].split(",")]
        whole = 1 < len(items) <= _MOST and all(items) and not re.search(r"[\[\](){};\"]| and |[^\d]\.$", lines[0])
        return _Items(items, "", separator) if whole else None
    bullets = {(match[1] if (match := _BULLET.match(line)) else "") for line in lines}
    if len(bullets) != 1 or len(lines) > _MOST or any(line != line.lstrip() for line in lines if bullets == {""}):
        return None
    bullet = bullets.pop()
    return _Items([line[len(bullet) :] for line in lines], bullet, "\n")


class Lists:
    """Answers a request to sort a list, or to remove its duplicates."""

    name = "lists"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        wanted = told(ask.text)
        if wanted is None:
            return Declined("it is about no list")
        wish = wanted.wish
        dedupe, sort = _DEDUPE.fullmatch(wish), _SORT.fullmatch(wish)
        if dedupe is None and sort is None:
            return Declined("it is about no list")
        found = _items(wanted.body)
        if found is None:
            return Declined("its items cannot be told apart")
        kept = (
            _without_duplicates(found.items) if sort is None else _sorted(found.items, wish.lower(), sort["how"] or "")
        )
        return kept if isinstance(kept, Declined) else Answered(found.written(kept), kept)


def _without_duplicates(items: list[str]) -> list[str] | Declined:
    from rapidfuzz import fuzz, process

    kept = list(dict.fromkeys(items))
    folded = [item.casefold() for item in kept]
    for at, item in enumerate(folded[:-1]):
        if process.extractOne(item, folded[at + 1 :], scorer=fuzz.ratio, score_cutoff=_ALIKE) is not None:
            return Declined("some of its items are nearly equal")
    return kept


def _sorted(items: list[str], wish: str, how: str) -> list[str] | Declined:
    how = how.lower()
    down = "desc" in how or "decreasing" in how or how.startswith(("from largest", "from highest"))
    alphabetical = "alphabet" in wish or "a to z" in how
    if all(_NUMBER.fullmatch(item) for item in items):
        if alphabetical or not how:
            return Declined("whether as numbers or as words it does not say")
        return sorted(items, key=Decimal, reverse=down)
    if "numeric" in how or "from " in how.replace("from a to z", "") or "numbers" in wish:
        return Declined("not all of its items are plain numbers")
    if not all(_WORD.fullmatch(item) for item in items):
        return Declined("not all of its items are plain words")
    if not alphabetical and not how:
        return Declined("by what it does not say")
    folded = [item.lower() for item in items]
    if len(set(folded)) != len(set(items)):
        return Declined("some of its items differ in capitals only")
    return sorted(items, key=str.lower, reverse=down)
