"""The query of the request explorer, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from negawatt.errors import InvalidRequest
from negawatt.ledger.explorer import EQUAL, Page, Place, Search
from negawatt.web.period import moment, zone_of
from negawatt.web.sums import PUSD

LIMIT, MOST = 50, 200
_FLAGS = {"error": "at_fault", "holdout": "holdout", "stream": "stream", "unpriced": "unpriced"}
PARAMETERS = (
    *EQUAL, *_FLAGS, "lever", "action", "id", "since", "until", "zone", "min_cost_usd", "min_ms", "limit", "cursor"
)  # fmt: skip
_CURSOR = re.compile(r"(\d{1,12}(?:\.\d{1,20})?):(\d{1,19})", re.ASCII)
_MOST_VALUES = 20

Query = Mapping[str, Sequence[str]]


class Asked(NamedTuple):
    """What to look for, how many rows, and where to begin."""

    search: Search
    limit: int
    start: Place | None


def asked(query: Query) -> Asked:
    """Return what *query*, names to their values, asks for. Raises `InvalidRequest` that names the parameter."""
    equal = {name: query[name] for name in EQUAL if name in query}
    for name, values in equal.items():
        if len(values) > _MOST_VALUES:
            raise InvalidRequest(f"{name}: at most {_MOST_VALUES} values, got {len(values)}", param=name)
    cost, least_ms = _number(query, "min_cost_usd"), _number(query, "min_ms")
    zone, single = zone_of(_one(query, "zone") or "UTC"), {n: _one(query, n) or "" for n in ("since", "until")}
    search = Search(
        equal=equal,
        since=moment(single, "since", zone, default=date(1970, 1, 2)) if single["since"] else 0.0,
        until=moment(single, "until", zone, default=date(1970, 1, 2)) if single["until"] else float("inf"),
        begins=_one(query, "id"),
        lever=_one(query, "lever"),
        action=_one(query, "action"),
        min_cost_pusd=None if cost is None else int(min(cost * PUSD, Decimal(2**62))),
        min_s=None if least_ms is None else float(least_ms) / 1e3,
        **{field: _flag(query, name) for name, field in _FLAGS.items()},
    )
    return Asked(search, _limit(query), _cursor(query))


def shown(page: Page) -> dict[str, object]:
    """Return *page* as the answer has it."""
    at = page.following
    return {
        "schema": "negawatt.requests/1",
        "rows": page.rows,
        "next": None if at is None else f"{at[0]!r}:{at[1]}",
        "searched_until_s": page.until_s,
        "complete": page.complete,
    }


def _one(query: Query, name: str) -> str | None:
    values = query.get(name, ())
    if len(values) > 1:
        raise InvalidRequest(f"{name}: it is there twice", param=name)
    return values[0] if values and values[0] else None


def _flag(query: Query, name: str) -> bool | None:
    text = _one(query, name)
    if text not in (None, "0", "1"):
        raise InvalidRequest(f"{name}: expected 1 or 0, got {text[:40]!r}", param=name)
    return None if text is None else text == "1"


def _number(query: Query, name: str) -> Decimal | None:
    text = _one(query, name)
    if text is None:
        return None
    try:
        found = Decimal(text) if text.isascii() and len(text) <= 40 else Decimal(-1)
        if found.is_finite() and found >= 0:
            return found
    except InvalidOperation:
        pass  # said below, with the value
    raise InvalidRequest(f"{name}: expected a number of at least 0, got {text[:40]!r}", param=name)


def _limit(query: Query) -> int:
    text = _one(query, "limit")
    if text is None:
        return LIMIT
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST):
        raise InvalidRequest(f"limit: expected 1 to {MOST}, got {text[:40]!r}", param="limit")
    return int(text)


def _cursor(query: Query) -> Place | None:
    text = _one(query, "cursor")
    if text is None:
        return None
    found = _CURSOR.fullmatch(text)
    if not found or int(found[2]) >= 2**63:
        raise InvalidRequest("cursor: not one that a page gave as its next", param="cursor")
    return float(found[1]), int(found[2])
