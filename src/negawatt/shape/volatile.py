"""Which words of a prompt change from request to request, and which of them may be said elsewhere.

A token is *volatile* when it has the form of a date, a time, an id or a count, and either says so of itself ("Current
time: ...") or was seen to change in an otherwise equal text. It may move only with the whole line, or the whole
sentence, that it stands in, and only where that stands for itself: an item of a list, a row, an example or code has its
meaning from what is around it.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect
from collections import OrderedDict
from typing import NamedTuple

_MONTH = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?"
    "|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DAY = r"(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day,?\s)?"
_ZONE = r"(?:\s?(?:Z|UTC|GMT|[ECMP][SD]T|CES?T|[+-]\d{2}:?\d{2})\b)?"
_CLOCK = rf"\d{{1,2}}:\d{{2}}(?::\d{{2}}(?:\.\d{{1,9}})?)?(?:\s?[AaPp]\.?[Mm]\b\.?)?{_ZONE}"
_TIMES = (
    rf"\b\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]{_CLOCK})?",
    rf"\b{_CLOCK}",
    rf"\b{_DAY}{_MONTH}\.?\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}}\b",
    rf"\b{_DAY}\d{{1,2}}\.?\s{_MONTH}\.?,?\s\d{{4}}\b",
    r"\b\d{1,2}[./]\d{1,2}[./]\d{4}\b",
)
TOKEN = re.compile(
    r"(?P<uuid>\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b)"
    rf"|(?P<time>{'|'.join(_TIMES)})"
    r"|(?P<id>\b(?=[A-Za-z_-]{0,40}\d)(?=[\d_-]{0,40}[A-Za-z])[A-Za-z0-9_-]{16,}\b)"
    r"|(?P<number>(?<![\w.,])\d{1,20}(?!\w|[.,]\d))"
)


def _words(*found: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(found)})\b", re.IGNORECASE)


_SAYS_TIME = _words(
    "current(?:ly)?", "today(?:'s)?", "now", "present", "local", "utc", "generated", "request(?:ed)?", "session",
    "this (?:call|chat)", "as of", "it is", "timestamp",
)  # fmt: skip
_SAYS_NAME = _words(
    "request", "trace", "span", "session", "correlation", "conversation", "message", "run", "call", "turn", "nonce",
    r"cache ?bust\w*", "timestamp", "seed", "build",
)  # fmt: skip
_DEPENDS = _words(
    "above", "below", "following", "previous", "preceding", "these", "those", "such", "example", r"e\.g\.", "then",
    "therefore", "if", "unless", "when", "until", "before", "after", "since", "because", "not", "never", "only", "must",
    "should", "this (?!call|chat|request|session|conversation)",
)  # fmt: skip
_WITH_DIGIT = re.compile(r"^[^\n\d]*\d[^\n]*", re.M)
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.M)
_BOUND = re.compile(r"^\s*(?:[-*+•|>]|\d+[.)]\s|#|<|\{|\}|\[|\]|\"|')|^(?: {2,}|\t)")  # means something where it stands
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\[(\"'])")
_LONGEST = 240


class Unmoved(NamedTuple):
    """A volatile token that stays where it is, breaking the prefix from there on."""

    where: str
    token: str
    reason: str


class Settled(NamedTuple):
    """A text without its volatile lines and sentences, those, and what had to stay."""

    text: str
    moved: tuple[str, ...]
    unmoved: tuple[Unmoved, ...]


class Volatile:
    """Remembers, per text, what was seen to change in it. The *most* latest texts; only digests of their words."""

    def __init__(self, most: int = 1000) -> None:
        self._seen: OrderedDict[bytes, tuple[list[bytes], set[int]]] = OrderedDict()
        self._most = most

    def tokens(self, text: str) -> list[re.Match[str]]:
        """Return the tokens of *text* that are volatile, in order, and learn from it."""
        found = _found(text)
        if not found:
            return []
        frame = _frame(text, found)
        values = [_digest(match[0]) for match in found]
        before, changing = self._seen.pop(frame, (values, set()))
        changing = changing | {at for at, (old, new) in enumerate(zip(before, values, strict=True)) if old != new}
        self._seen[frame] = (values, changing)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return [match for at, match in enumerate(found) if at in changing or _says_so(text, match)]

    def settle(self, text: str, where: str) -> Settled:
        """Take out of *text* what is volatile and stands for itself."""
        found = self.tokens(text)
        if not found:
            return Settled(text, (), ())
        fences = [fence.start() for fence in _FENCE.finditer(text)]
        cuts: list[tuple[int, int]] = []
        unmoved: list[Unmoved] = []
        for match in found:
            unit = _unit(text, match, coded=bisect(fences, match.start()) % 2 == 1)
            if isinstance(unit, str):
                unmoved.append(Unmoved(where, match[0], unit))
            elif not cuts or unit[0] >= cuts[-1][1]:
                cuts.append(unit)
        kept, moved, at = [], [], 0
        for start, end in cuts:
            kept.append(text[at:start])
            moved.append(text[start:end].strip())
            at = end
        return Settled("".join([*kept, text[at:]]), tuple(moved), tuple(unmoved))


def _found(text: str) -> list[re.Match[str]]:
    """Return the tokens of *text*, volatile or not. Most lines of most prompts have no digit, and so none."""
    return [match for line in _WITH_DIGIT.finditer(text) for match in TOKEN.finditer(text, line.start(), line.end())]


def _frame(text: str, found: list[re.Match[str]]) -> bytes:
    """Return what stands for *text* but for its tokens."""
    parts, at = [], 0
    for match in found:
        parts += [text[at : match.start()], f"\0{match.lastgroup}\0"]
        at = match.end()
    return _digest("".join([*parts, text[at:]]))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _says_so(text: str, match: re.Match[str]) -> bool:
    """True when the words right before the token, in its sentence, say that it changes."""
    before = text[max(text.rfind("\n", 0, match.start()) + 1, match.start() - 60) : match.start()]
    before = re.split(r"[.!?;]\s", before)[-1]
    if match.lastgroup == "number":
        return False
    return (_SAYS_TIME if match.lastgroup == "time" else _SAYS_NAME).search(before) is not None


def _unit(text: str, match: re.Match[str], coded: bool) -> tuple[int, int] | str:
    """Return the line or sentence around the token, with the white space behind it, or why it has to stay."""
    if coded:
        return "it stands in code"
    first = text.rfind("\n", 0, match.start()) + 1
    last = text.find("\n", match.end())
    last = len(text) if last < 0 else last
    line = text[first:last]
    if _BOUND.match(line):
        return "it stands in a list, a table or another structure"
    if text[max(0, first - 40) : first].removesuffix("\n").rstrip(" ").endswith(":"):
        return "the line before introduces it"
    ends = [first + end.end() for end in _SENTENCE.finditer(line)]
    start = max([first, *(end for end in ends if end <= match.start())])
    stop = min([last, *(end for end in ends if end >= match.end())])
    unit = text[start:stop].strip()
    if len(unit) > _LONGEST:
        return "its sentence is long"
    if _DEPENDS.search(unit):
        return "its sentence depends on others, or is a rule"
    return start, min(len(text), stop + 1) if (start, stop) == (first, last) else stop
