"""The ledger against a provider's bill: what agrees, what does not, and why.

Both are summed up by UTC day and model; each attempt that was billed counts, retries included. Where the bill names
calls, they are matched by the id of their answer as well. What no reason covers stays unexplained, and is shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from negawatt.economics.tables import plain_name
from negawatt.ledger.bills import Line
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.reasons import ZERO, Aside, Reason, Sums, Unit, reasons_for, size_of

_EDGE_S = 300  # calls so near to midnight may be on the other day's bill
_DATED = re.compile(r"[-@](\d{4}-?\d{2}-?\d{2}|\d{4}|latest)$")


class Compared(NamedTuple):
    """One model on one day. *unexplained*: what of the difference in cost no reason covers."""

    day: str
    model: str
    matched: str  # how the model's names were matched
    bill: Sums | None
    ledger: Sums | None
    reasons: list[Reason]
    difference: Decimal | None
    unexplained: Decimal | None


class Result(NamedTuple):
    """All of it. *by*: what was compared, ``cost`` or ``tokens``."""

    by: str
    compared: list[Compared]
    bill: Decimal
    ledger: Decimal
    unexplained: Decimal  # summed without signs

    @property
    def captured(self) -> Decimal | None:
        """The share of the bill that the ledger has calls for; None for a bill of nothing."""
        if self.bill <= 0:
            return None
        past = sum((r.amount or ZERO for one in self.compared for r in one.reasons if r.code == "not_in_ledger"), ZERO)
        return max(ZERO, 1 - past / self.bill)

    @property
    def share(self) -> Decimal:
        """The share of the bill that no reason covers; 0 for an empty bill that the ledger agrees with."""
        whole = max(abs(self.bill), abs(self.ledger))
        return self.unexplained / whole if whole else ZERO


class _Attempt(NamedTuple):
    """One billed attempt of the ledger."""

    day: str
    at_edge: bool
    model: str
    answered_as: str | None  # the model's name in the answer
    response_id: str | None
    usage: Mapping[str, Any]
    cost: Decimal | None


def attempts_of(rows: Iterable[Outcome], provider: str | None = None) -> Iterator[_Attempt]:
    """Yield the billed attempts of *rows*; of one *provider*, by our name or by the price table's."""
    for row in rows:
        log = orjson.loads(row.attempt_log)
        for place, one in enumerate(log):
            if not one["billed"] or (provider is not None and provider not in (one["provider"], one.get("priced_as"))):
                continue
            moment = row.received_at + (one.get("started_s") or 0.0)
            into = moment % 86_400
            last = place == len(log) - 1  # the one that answered, if any did
            yield _Attempt(
                day=datetime.fromtimestamp(moment, UTC).date().isoformat(),
                at_edge=min(into, 86_400 - into) <= _EDGE_S,
                model=one["model"],
                answered_as=row.response_model if last else None,
                response_id=row.response_id if last and one["error"] is None else None,
                usage=one.get("usage") or {},
                cost=None if one["cost_pusd"] is None else Decimal(one["cost_pusd"]).scaleb(-12),
            )


class Names:
    """Matches the ledger's names of models with the bill's."""

    def __init__(self, billed: Iterable[str]) -> None:
        self._exact = {name.lower(): name for name in billed}
        self._plain = {plain_name(name): name for name in self._exact.values()}
        self._undated = {_DATED.sub("", plain): name for plain, name in self._plain.items()}

    def match(self, *names: str | None) -> tuple[str, str]:
        """Return the bill's name of the model that the ledger calls by one of *names*, and by which rule."""
        known = [name for name in names if name]
        for rule, table, form in (
            ("the same name", self._exact, str.lower),
            ("the same but for publisher and separators", self._plain, plain_name),
            ("without its date", self._undated, lambda name: _DATED.sub("", plain_name(name))),
        ):
            for name in known:
                found = table.get(form(name))
                if found is not None:
                    return found, rule
        return known[0] if known else "", "only in the ledger"


def reconcile(lines: Iterable[Line], rows: Iterable[Outcome], provider: str | None = None) -> Result:
    """Compare a bill's *lines* with the ledger's *rows*, which are of the same days."""
    books = _Books()
    for line in lines:
        books.add_line(line)
    books.add_attempts(attempts_of(rows, provider))
    return books.result()


class _Books:
    """Both sides, by day and model."""

    def __init__(self) -> None:
        self._bill: dict[tuple[str, str], Sums] = defaultdict(Sums)
        self._ledger: dict[tuple[str, str], Sums] = defaultdict(Sums)
        self._aside: dict[tuple[str, str], Aside] = defaultdict(Aside)
        self._rules: dict[str, str] = {}
        self._named: dict[str, tuple[tuple[str, str], Line]] = {}  # lines by their ids, until the ledger's call is seen
        self._has_ids = self._has_cost = self._has_tokens = False

    def add_line(self, line: Line) -> None:
        key = (line.day, line.model)
        aside = self._aside[key]
        aside.lines += 1
        self._has_cost = self._has_cost or line.cost is not None
        self._has_tokens = self._has_tokens or line.has_tokens
        if line.cost is not None and line.cost < 0:
            aside.add("credits", line.cost)
        elif line.item is not None and _is_apart(line.item):
            aside.items[line.item] = aside.items.get(line.item, ZERO) + (line.cost or ZERO)
        if line.response_id is not None:
            self._has_ids = True
            self._named[line.response_id] = (key, line)
        if line.tier is not None:
            aside.tiers[line.tier] += line.calls or 1
        _add_line(self._bill[key], line)

    def add_attempts(self, attempts: Iterable[_Attempt]) -> None:
        names = Names({model for _, model in self._bill})
        for one in attempts:
            model, rule = names.match(one.answered_as, one.model)
            self._rules.setdefault(model, rule)
            key = (one.day, model)
            _add_attempt(self._ledger[key], one)
            self._set_aside(self._aside[key], one)
        for key, line in self._named.values():
            self._aside[key].add("unknown", line.cost, _tokens_of(line))

    def _set_aside(self, aside: Aside, one: _Attempt) -> None:
        tokens = one.usage.get("input_tokens", 0) + one.usage.get("output_tokens", 0)
        if one.usage.get("basis", "measured") != "measured":
            aside.add("estimated", one.cost, tokens)
        if one.cost is None:
            aside.add("unpriced", None, tokens)
        if one.usage.get("tier"):
            aside.tiers[one.usage["tier"]] += 1
        if one.at_edge:
            aside.add("edge", one.cost, tokens)
        if self._has_ids and one.response_id is not None and self._named.pop(one.response_id, None) is None:
            aside.add("missing", one.cost, tokens)

    def result(self) -> Result:
        by = "cost" if self._has_cost else "tokens"
        compared = [self._compare(key, by) for key in sorted({*self._bill, *self._ledger})]
        compared.sort(key=lambda one: (-abs(one.unexplained or ZERO), -abs(one.difference or ZERO), one.day))
        return Result(
            by=by,
            compared=compared,
            bill=sum((size_of(one, by) for one in self._bill.values()), ZERO),
            ledger=sum((size_of(one, by) for one in self._ledger.values()), ZERO),
            unexplained=sum((abs(one.unexplained or ZERO) for one in compared), ZERO),
        )

    def _unit(self, by: str) -> Unit:
        return Unit(by, self._has_cost and self._has_tokens)

    def _compare(self, key: tuple[str, str], by: str) -> Compared:
        bill, ledger, aside = self._bill.get(key), self._ledger.get(key), self._aside[key]
        difference = size_of(bill, by) - size_of(ledger, by)
        rest = difference
        reasons: list[Reason] = []
        for reason in reasons_for(bill, ledger, aside, difference, self._unit(by)):
            taken = _taken(rest, reason)
            if taken or reason.amount is None:
                reasons.append(reason._replace(amount=taken if reason.amount is not None else None))
                rest -= taken
        rule = self._rules.get(key[1], "only in the bill")
        return Compared(*key, rule, bill, ledger, reasons, difference, rest)


def _is_apart(item: str) -> bool:
    """True for an item that is no tokens of a call: storage, searches, tools, pictures, credits."""
    return not re.search(r"token|input|output|cache|usage", item, re.IGNORECASE)


def _add_line(sums: Sums, line: Line) -> None:
    sums.calls += line.calls if line.calls is not None else 1 if line.response_id is not None else 0
    sums.fresh += line.fresh or 0
    sums.cache_read += line.cache_read or 0
    sums.cache_write += (line.cache_write or 0) + (line.cache_write_1h or 0)
    sums.output += line.output or 0
    sums.searches += line.searches or 0
    sums.pay(line.cost)


def _add_attempt(sums: Sums, one: _Attempt) -> None:
    usage = one.usage
    read, written = usage.get("cache_read_tokens", 0), usage.get("cache_write_tokens", 0)
    sums.calls += 1
    sums.fresh += usage.get("input_tokens", 0) - read - written
    sums.cache_read += read
    sums.cache_write += written
    sums.output += usage.get("output_tokens", 0)
    sums.searches += usage.get("web_searches", 0)
    sums.pay(one.cost)


def _taken(rest: Decimal, reason: Reason) -> Decimal:
    """Return how much of *rest* the reason covers: never more than there is, never with another sign."""
    amount = reason.amount
    if amount is None or not rest or (amount > 0) != (rest > 0):
        return ZERO
    return min(amount, rest) if rest > 0 else max(amount, rest)


def _tokens_of(line: Line) -> int:
    counts = (line.fresh, line.cache_read, line.cache_write, line.cache_write_1h, line.output)
    return sum(count or 0 for count in counts)
