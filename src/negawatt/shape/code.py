"""Code shortened by whole top-level blocks: a function, a class, or a run of statements stays as it is, or goes.

A block begins at a line without indentation after an empty line, outside of every bracket and string; Python is taken
apart by its own parser. Blocks that the query names or uses words of stay, and so do the imports at the top, what
stands outside of functions and classes, and whatever the kept blocks call by name. In the place of the others stands
a comment with their names. Where the blocks cannot be told apart for certain, nothing is changed.
"""

from __future__ import annotations

import ast
import re

import msgspec

from negawatt.shape.edits import Cut, Shaped, apply, unchanged
from negawatt.shape.terms import asked, spelled_out, terms

_QUIET = re.compile(
    r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|`(?:[^`\\]|\\.)*`|//[^\n]*|/\*[\s\S]*?\*/'
)
_NAMED = re.compile(
    r"^(?:export\s+|default\s+|public\s+|private\s+|static\s+|async\s+|pub\s+|final\s+|abstract\s+)*"
    r"(?:def|class|function\*?|func|fn|interface|struct|enum|trait|impl|type|const|let|var)\s+(?:\([^)\n]*\)\s*)?(\w+)",
    re.MULTILINE,
)
_NAME = re.compile(r"[^\W\d]\w*")
_CODE_LINE = re.compile(
    r"\s*(?:def |class |import |from \S+ import |return\b|@\w|#include|package |func |fn |pub |public |private |const "
    r"|let |var |if\b.*[:{]\s*$|for\b.*[:{]\s*$|while\b.*[:{]\s*$|else\b|\}|//|[\w.\[\]]+ [-+*/|&]?= \S)|.*[;{]\s*$"
)
_LEAST_LINES, _SHARE = 6, 0.5
_HASH = re.compile(r"^\s*(?:#(?!include|define|if|endif)|def |from \w+ import )", re.MULTILINE)


class Block(msgspec.Struct, frozen=True):
    """``text[start:end]``, lines as a whole. *name*: what it defines, or None for other statements."""

    start: int
    end: int
    name: str | None


def is_code(text: str) -> bool:
    """True when half of the lines of *text* look like code in a common language, and its blocks can be told apart."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < _LEAST_LINES or sum(bool(_CODE_LINE.match(line)) for line in lines) < _SHARE * len(lines):
        return False
    return blocks_of(text) is not None


def blocks_of(code: str) -> list[Block] | None:
    """Return the top-level blocks of *code*, which together are all of it; None when they cannot be told apart."""
    return _python(code) or _other(code)


def shape_code(code: str, query: str) -> Shaped:
    """Return *code* without the functions and classes that *query* does not need."""
    blocks = blocks_of(code)
    if blocks is None:
        return unchanged(code, "its blocks cannot be told apart")
    wanted = asked(query) | asked(spelled_out(query))
    hit = {i for i, one in enumerate(blocks) if one.name and _suits(one.name, code[one.start : one.end], query, wanted)}
    if not hit:
        return unchanged(code, "no function or class has a word of the query")
    kept = _with_used(code, blocks, hit)
    mark = "#" if _HASH.search(code) else "//"
    cuts: list[Cut] = []
    run: list[Block] = []
    for i, block in enumerate([*blocks, None]):
        if block is not None and i not in kept:
            run.append(block)
        elif run:
            names = ", ".join(one.name or "" for one in run)
            cuts.append(Cut(run[0].start, run[-1].end, f"{mark} ... left out: {names}\n\n", "code"))
            run = []
    return apply(code, cuts) if cuts else unchanged(code, "every block is needed")


def _suits(name: str, body: str, query: str, wanted: frozenset[str]) -> bool:
    """True when *query* names a block, or has words of its name, or two or more of what it says."""
    if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query):
        return True
    own = set(terms(spelled_out(name)))
    return bool(own & wanted) or len(set(terms(spelled_out(body))) & wanted) >= 2


def _with_used(code: str, blocks: list[Block], hit: set[int]) -> set[int]:
    """Return the blocks *hit*, all without a name, and those that any of these mention, directly or not."""
    defined = {one.name: i for i, one in enumerate(blocks) if one.name}
    kept = {i for i, one in enumerate(blocks) if not one.name} | hit
    todo = list(kept)
    while todo:
        block = blocks[todo.pop()]
        for name in _NAME.findall(code[block.start : block.end]):
            used = defined.get(name)
            if used is not None and used not in kept:
                kept.add(used)
                todo.append(used)
    return kept


def _python(code: str) -> list[Block] | None:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not body:
        return None
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    if code.count("\n") + (not code.endswith("\n")) != len(starts) - 1:
        return None  # form feeds and the like: the parser counts lines in another way
    blocks = []
    place = 0
    for node in body:
        end = starts[node.end_lineno or len(starts) - 1]
        if end <= place:
            continue  # the second statement of one line
        name = node.name if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else None
        blocks.append(Block(place, end, name))
        place = end
    return [*blocks[:-1], Block(blocks[-1].start, len(code), blocks[-1].name)]


def _other(code: str) -> list[Block] | None:
    """Return the blocks of a language with brackets, strings and comments told apart as in most."""
    quiet = _QUIET.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), code)
    depth = place = begun = 0
    blocks: list[Block] = []
    empty = False
    for line in quiet.splitlines(keepends=True):
        original = code[place : place + len(line)]
        if empty and depth == 0 and original.strip() and not original[0].isspace() and original[0] not in "}])":
            blocks.append(_block(code, begun, place))
            begun = place
        depth += sum(sign in "{[(" for sign in line) - sum(sign in "}])" for sign in line)
        if depth < 0:
            return None
        empty = not original.strip()
        place += len(line)
    if depth or "{" not in quiet:
        return None  # unbalanced, or a language of which nothing is known
    return [*blocks, _block(code, begun, len(code))]


def _block(code: str, start: int, end: int) -> Block:
    names = _NAMED.findall(code[start:end])
    # More than one definition, or none: it is kept as a whole whatever the query asks.
    return Block(start, end, names[0] if len(names) == 1 else None)
