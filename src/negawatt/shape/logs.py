"""Logs shortened: lines that say the same but for their times and numbers become the first, a count, and the last.

Errors, warnings and stack traces stay, with the two lines before and after each; so do lines that have what the query
names. No line is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from negawatt.shape.edits import Cut, Shaped, apply, unchanged
from negawatt.shape.terms import asked, terms

_STAMP = re.compile(
    r"[\[(]?(?:\d{4}-\d\d-\d\d|\d\d/\w{3}/\d{4}|\w{3} +\d{1,2} \d\d:\d\d|\d\d:\d\d:\d\d|\d{10,13}\b)"
    r"|[\[<(]?(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\b"
)
_TROUBLE = re.compile(
    r"\b(?:error|errors|warn|warning|fatal|critical|panic|exception|traceback|fail|failed|failure|denied|refused|abort"
    r"|aborted|timeout|timed out|segfault|unhandled|oom)\b|(?:Error|Exception)\b|^\s+at \S+\(|^\s+File \"",
    re.IGNORECASE | re.MULTILINE,
)
_VARIES = re.compile(r"0x[\da-f]+|\b[\da-f]{8,}(?:-[\da-f]{4,})*\b|\d+(?:[.:,/-]\d+)*", re.IGNORECASE)
_LEAST_LINES, _SHARE = 8, 0.6  # that begin with a time or a level
_LEAST_ALIKE = 4
_BESIDE = 2


def is_log(text: str) -> bool:
    """True when most lines of *text* begin with a time or a level."""
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) >= _LEAST_LINES and sum(bool(_STAMP.match(line.lstrip())) for line in lines) >= _SHARE * len(
        lines
    )


def shape_log(text: str, query: str = "") -> Shaped:
    """Return the log *text* with its repetitions folded."""
    lines = text.split("\n")
    held = _held(lines, query)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    cuts = []
    for first, last in _alike(lines, held):
        # The first and the last of them stay: from when to when.
        many = last - first - 1
        note = f"... {many} more lines like this ..."
        start, end = starts[first + 1], starts[last] - 1
        if len(note) < end - start:
            cuts.append(Cut(start, end, note, "log"))
    return apply(text, cuts) if cuts else unchanged(text, "no lines repeat each other")


def _held(lines: list[str], query: str) -> set[int]:
    """Return the lines that stay in any case."""
    wanted = asked(query)
    said = [set(terms(line)) for line in lines] if wanted else []
    # A word that most lines have tells none of them apart.
    rare = {word for word in wanted if 0 < sum(word in words for words in said) * 4 <= len(lines)}
    held: set[int] = set()
    for place, line in enumerate(lines):
        if _TROUBLE.search(line):
            held.update(range(max(0, place - _BESIDE), place + _BESIDE + 1))
        elif said and said[place] & rare:
            held.add(place)
    return held


def _alike(lines: list[str], held: set[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of the runs of at least four lines that are alike and need not stay."""
    first = 0
    shapes = [_VARIES.sub("#", line) for line in lines]
    for place in range(1, len(lines) + 1):
        goes_on = place < len(lines) and shapes[place] == shapes[first] and place not in held and first not in held
        if goes_on:
            continue
        if place - first >= _LEAST_ALIKE and shapes[first].strip():
            yield first, place - 1
        first = place
