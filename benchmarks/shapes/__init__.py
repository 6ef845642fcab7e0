"""A corpus of wire shapes: what providers send, byte for byte, and what the books must say of it.

Written from the public API descriptions and from bug reports of other gateways; *source* says which. The expected
counts are written by hand, beside each shape, and not computed by the code that is measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]
BUGS = "bug lists of other gateways"
PROXIES = "seen from proxies"
SSE = "HTML standard, server-sent events"


class Counts(NamedTuple):
    """What the ledger must say. *output* None: any number above 0 (of an estimate). *cost* None: by the price list."""

    input: int | None
    output: int | None
    read: int = 0
    write: int = 0
    write_1h: int = 0
    reasoning: int = 0
    basis: str = "measured"
    cost: str | None = None  # USD, as the provider itself said
    searches: int = 0
    tier: str | None = None


class Shape(NamedTuple):
    """One answer as it comes over the wire.

    *pieces* are what is sent, in as many writes; *ends* is how the call must end in the ledger.
    """

    name: str
    protocol: str
    source: str
    pieces: tuple[bytes, ...]
    counts: Counts
    streamed: bool = False
    ends: str = "answered"
    request: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}


ESTIMATED = Counts(None, None, basis="estimated")


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def data_lines(chunks: Iterable[Any], end: str = "\n", done: bool = True) -> bytes:
    """Return *chunks* as events without names, with ``[DONE]`` after them."""
    events = [b"data: " + text(chunk) + (end * 2).encode() for chunk in chunks]
    return b"".join([*events, f"data: [DONE]{end * 2}".encode() if done else b""])


def named_lines(chunks: Sequence[Json], end: str = "\n") -> bytes:
    """Return *chunks* as events named after their type."""
    return b"".join(
        f"event: {chunk['type']}{end}data: ".encode() + text(chunk) + (end * 2).encode() for chunk in chunks
    )


def whole(value: Json) -> tuple[bytes, ...]:
    return (text(value),)
