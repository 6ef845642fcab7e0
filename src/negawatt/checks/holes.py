"""Where something is put into a text: the fields of ``str.format``, and the expressions of Jinja."""

from __future__ import annotations

import re
from string import Formatter

from negawatt.checks.surfaces import Hole

_FIELD = re.compile(r"[A-Za-z_]\w*(?:[.\[][\w.\]\[]*)?|\d*")
_PERCENT = re.compile(r"%(?:\((?P<name>[^()%]{1,100})\))?[-#0 +]{0,5}\d{0,5}(?:\.\d{1,5})?[sdrfgiuxXeE%]")
_JINJA = re.compile(r"\{\{-?\s*(?P<said>[A-Za-z_][^{}]*?)\s*-?\}\}|\{%-?\s*(?P<tag>[^{}%]*?)\s*-?%\}")


def cut(text: str, line: int = 1) -> tuple[str, tuple[Hole, ...]]:
    """Return *text*, which begins on *line*, without what marks its holes, and those.

    Text in which any field of ``str.format`` would not be a name (JSON, code) has none of those.
    """
    return _format(text, line) or _jinja(text, line)


def cut_percent(text: str, line: int = 1) -> tuple[str, tuple[Hole, ...]]:
    """Return the same of a text that ``%`` is applied to; each hole is said by its name, or its sign."""
    parts, holes, at, length = [], [], 0, 0
    for match in _PERCENT.finditer(text):
        parts.append(text[at : match.start()])
        length += match.start() - at
        if match[0] == "%%":
            parts.append("%")
            length += 1
        else:
            holes.append(Hole(length, match["name"] or match[0], line))
        at = match.end()
    return "".join([*parts, text[at:]]), tuple(holes)


def _jinja(text: str, line: int) -> tuple[str, tuple[Hole, ...]]:
    parts, holes, at, length = [], [], 0, 0
    for match in _JINJA.finditer(text):
        parts.append(text[at : match.start()])
        length += match.start() - at
        said = match["said"] if match["said"] is not None else match["tag"]
        holes.append(Hole(length, said, line + text.count("\n", 0, match.start())))
        at = match.end()
    return "".join([*parts, text[at:]]), tuple(holes)


def _format(text: str, line: int) -> tuple[str, tuple[Hole, ...]] | None:
    """Return what `cut` does; None for a text that nobody formats: its double braces, if any, are meant."""
    try:
        fields = list(Formatter().parse(text))
    except ValueError:
        return None
    names = [name for _, name, _, _ in fields if name is not None]
    if not names or not all(_FIELD.fullmatch(name) for name in names):
        return None
    parts, holes, length = [], [], 0
    for literal, name, _, _ in fields:
        parts.append(literal)
        length += len(literal)
        if name is not None:
            holes.append(Hole(length, name, line + "".join(parts).count("\n")))
    return "".join(parts), tuple(holes)
