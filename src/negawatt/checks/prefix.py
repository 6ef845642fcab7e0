"""The part that stays the same: up to its first change, providers read it from their caches at a lower price."""

from __future__ import annotations

import re
from collections.abc import Iterator

from negawatt.checks.findings import Finding, found
from negawatt.checks.measure import Lock, Measured
from negawatt.checks.plan import Plan
from negawatt.checks.surfaces import Block, Hole, Surface
from negawatt.shape.volatile import TOKEN, Volatile

_WORDS = frozenset({
    "now", "utcnow", "today", "date", "datetime", "time", "timestamp", "ts", "clock", "uuid", "uuid1", "uuid4", "guid",
    "nonce", "random", "randint", "token", "hex", "urandom", "strftime", "isoformat", "monotonic",
})  # fmt: skip
_PAIRS = (
    "request id",
    "session id",
    "trace id",
    "run id",
    "call id",
    "message id",
    "conversation id",
    "correlation id",
)
_MAY_CHANGE = (
    (frozenset({"date", "time", "datetime", "day", "hour"}), "2026-01-01"),
    (frozenset({"id", "key", "token", "hex"}), "123e4567-e89b-12d3-a456-426614174000"),
)
_PARTS = re.compile(r"[A-Z]?[a-z]+\d?|[A-Z]+(?![a-z])|\d+")
_EXPRESSION = re.compile(r"[.(]")
_FULL = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d")
_LAST = "move it behind everything that stays the same, best into the last message"


def changes(said: str) -> bool:
    """True when what is put in says by its words that it is another one with each request: ``now()``, request_id."""
    if "'" in said or '"' in said:
        said = re.sub(r"'[^']*'|\"[^\"]*\"", "", said)
    words = [word.lower() for word in _PARTS.findall(said)]
    pairs = " ".join(words)
    if any(pair in pairs for pair in _PAIRS):
        return True
    named = _WORDS - {"token", "hex", "date", "time"} if not _EXPRESSION.search(said) else _WORDS
    return bool(named.intersection(words)) or any(pairs.endswith(f"current {one}") for one in ("date", "time"))


def _called_current(before: str, said: str) -> bool:
    """True when the words *before* say of what is put in that it is the present one: "Today is {date}"."""
    named = {word.lower() for word in _PARTS.findall(said)}
    for words, example in _MAY_CHANGE:
        text = before[-200:] + example
        if named & words and any(match.end() == len(text) for match in Volatile().tokens(text)):
            return True
    return False


def volatile(measured: Measured) -> Iterator[Finding]:
    """Yield what changes with each request and stands before what does not."""
    for surface in measured.surfaces:
        if surface.kind == "few-shots":
            continue  # a date in an example is part of what it shows
        parted = False  # something has been put in that differs anyway
        for at, block in enumerate(surface.blocks):
            if not block.stable:
                break
            for hole in block.holes if not parted else ():
                if not (changes(hole.said) or _called_current(block.text[: hole.at], hole.said)):
                    parted = True
                    break
                if _behind(surface, at, block, hole):
                    what = f"{{{hole.said}}} changes with each request, and text that stays the same stands behind it"
                    yield found("volatile", "error", surface, surface.at(block, hole.line), what, _LAST)
            yield from _literal(surface, block)


def _behind(surface: Surface, at: int, block: Block, hole: Hole) -> bool:
    """True when more than a few words follow *hole* in its own block, or any other block does."""
    return len(block.text[hole.at :].split()) > 3 or any(one.text.strip() for one in surface.blocks[at + 1 :])


def _literal(surface: Surface, block: Block) -> Iterator[Finding]:
    said = {match.start() for match in Volatile().tokens(block.text)}
    for match in TOKEN.finditer(block.text):
        place = surface.at(block, block.line_of(match[0]))
        if match.start() in said:
            what = f"{match[0]!r} is a moment or an id that the words before it call the current one"
            yield found("volatile", "error", surface, place, what, f"put it in as a variable, and {_LAST}")
        elif match.lastgroup == "uuid" or (match.lastgroup == "time" and _FULL.match(match[0])):
            what = f"{match[0]!r} looks as if it had been copied from a rendered prompt"
            yield found("volatile", "warning", surface, place, what, "leave it out, or write what it stands for")


def broken(plan: Plan, measured: Measured, lock: Lock | None) -> Iterator[Finding]:
    """Yield the prefixes that are too short for any provider to keep, though there is enough that stays the same."""
    least = plan.file.prefix_minimum
    for surface in measured.surfaces:
        now = measured.of(surface)
        before = None if lock is None else lock.surfaces.get(surface.name)
        model = plan.file.models[0]
        prefix, whole = now.prefix[model], now.tokens[model]
        first = next(((block, hole) for block in surface.blocks for hole in block.holes), None)
        place = surface.place if first is None else surface.at(first[0], first[1].line)
        if surface.kind == "few-shots" or prefix >= least:
            continue
        had = 0 if before is None else before.prefix.get(model, 0)
        if had >= least > 0:
            what = f"the part of {surface.name} that stays the same has fallen from {had:,} to {prefix:,} tokens"
            yield found("prefix", "error", surface, place, f"{what}; providers keep {least:,} and more", _LAST)
        elif whole >= least and first is not None:
            what = (
                f"{{{first[1].said}}} stands behind {prefix:,} of {whole:,} tokens that stay the same: "
                f"too few for a provider to keep, which takes {least:,}"
            )
            yield found("prefix", "warning", surface, place, what, "put what stays the same before what is put in")
