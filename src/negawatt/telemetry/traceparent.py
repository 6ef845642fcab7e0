"""W3C Trace Context: which trace a call belongs to, and what is told to those who are asked on its way.

A call whose caller sends ``traceparent`` is part of that trace. Any other has one of its own, whose id follows from the
call's: the trace of a row in the ledger can be found without having been written down.

Only ids leave here. ``tracestate`` and ``baggage`` may hold whatever their senders like, and are passed on to nobody.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

HEADER = "traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED = 1


class Parent(NamedTuple):
    """What a caller says of its trace."""

    trace_id: int
    span_id: int
    sampled: bool


def parent_of(header: str | None) -> Parent | None:
    """Return what *header* says; None where there is none, or it is not what the standard allows."""
    found = None if header is None else _FORM.fullmatch(header.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return Parent(trace_id, span_id, bool(int(found[4], 16) & _SAMPLED)) if trace_id and span_id else None


def header_of(trace_id: int, span_id: int) -> str:
    """Return the header that says that the span *span_id* is traced."""
    return f"00-{trace_id:032x}-{span_id:016x}-{_SAMPLED:02x}"


def trace_of(call_id: str) -> int:
    """Return the id of the trace of a call whose caller has none."""
    return int.from_bytes(blake2b(call_id.encode(), digest_size=16).digest(), "big") or 1


def span_of(call_id: str, attempt: int | None = None) -> int:
    """Return the id of the span of a call, or of its *attempt*, counted from 0."""
    what = call_id if attempt is None else f"{call_id}/{attempt}"
    return int.from_bytes(blake2b(what.encode(), digest_size=8, person=b"span").digest(), "big") or 1
