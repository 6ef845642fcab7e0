"""The audit log: who changed what, and when. Lines are only ever added, and each holds the digest of the one before.

A line that was altered, or deleted from the middle, no longer fits its neighbours, and the file's own counter shows
when the newest are gone. Whoever may write the file could make the whole chain anew: note the digest of the newest
line elsewhere, and a chain that does not lead through it is another.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.access import sql
from negawatt.access.secrets import masked

_FIRST = "0" * 64
_MOST_BYTES = 16_384


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One change. *actor*: the key's id, ``cli:NAME`` or ``server``. *chain*: SHA-256 of this line and all before."""

    place: int
    at: float  # seconds since 1970, UTC
    actor: str
    action: str  # key.created, key.revoked, key.rotated, server.started, cache.deleted, ...
    about: str
    detail: dict[str, Any]
    chain: str


class Verified(NamedTuple):
    """What came of looking at the whole chain. *problem*: None where it is whole."""

    lines: int
    head: str  # digest of the newest line
    problem: str | None
    expected_at: int | None  # the place of the line whose digest was expected


def add(
    connection: sqlite3.Connection, now: float, actor: str, action: str, *, about: str, detail: Mapping[str, Any]
) -> Line:
    """Append one line, within the transaction that makes the change. A secret in it is reduced to its handle."""
    last = connection.execute(sql.HEAD).fetchone()
    place, before = (1, _FIRST) if last is None else (last[0] + 1, last[1])
    written = masked(orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode())
    if len(written) > _MOST_BYTES:
        written = orjson.dumps({"shortened": written[: _MOST_BYTES // 2]}).decode()
    texts = (masked(actor)[:300], masked(action)[:100], masked(about)[:300])
    chain = _chained(before, (place, now, *texts, written))
    connection.execute(sql.NOTE, (place, now, *texts, written, chain))
    return _line((place, now, *texts, written, chain))


def lines(connection: sqlite3.Connection, *, since: float, before: int | None, limit: int) -> list[Line]:
    """Return the newest *limit* lines from *since* on and below the place *before*, newest first."""
    below = 2**62 if before is None else before
    return [_line(row) for row in connection.execute(sql.LINES, (since, below, limit))]


def verify(connection: sqlite3.Connection, expect: str | None = None) -> Verified:
    """Walk the whole chain. *expect*: the digest of a line that must be part of it."""
    count, head, problem, found = 0, _FIRST, None, None
    for row in connection.execute(sql.ALL_LINES):
        count += 1
        if problem is None and row[0] != count:
            problem = f"line {count} is missing"
        if problem is None and _chained(head, row[:6]) != row[6]:
            problem = f"line {row[0]} is not what was written, or what came before it"
        head = row[6]
        if head == expect:
            found = row[0]
    last = connection.execute(sql.LAST_PLACE).fetchone()
    if problem is None and last is not None and last[0] != count:
        problem = f"the newest lines are missing: {last[0]} were written, {count} are there"
    if problem is None and expect is not None and found is None:
        problem = "no line has the expected digest: this is another chain"
    return Verified(count, head, problem, found)


def _chained(before: str, fields: tuple[Any, ...]) -> str:
    return hashlib.sha256(before.encode() + b"\n" + orjson.dumps(fields)).hexdigest()


def _line(row: tuple[Any, ...]) -> Line:
    place, at, actor, action, about, detail, chain = row
    return Line(
        place=place, at=at, actor=actor, action=action, about=about, detail=orjson.loads(detail), chain=chain
    )  # fmt: skip
