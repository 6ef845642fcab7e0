"""What each block of each template costs, by the rows of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import orjson

from negawatt.economics.accounts import Accounts
from negawatt.economics.usage import Usage
from negawatt.ledger.outcome import Outcome

DAYS_A_MONTH = 30
_DAY_S = 86_400.0
LEAST_S = 3_600.0  # of the ledger, from which calls a day are reckoned


class BlockCost(msgspec.Struct, kw_only=True):
    """One block of one template. Money is its share of the input of the calls that said it, cached reads included.

    *usd_month* None: no price is known, or the rows span too little time. *unpriced*: calls that reached a model and
    have no price; they are in no sum of money.
    """

    template: str
    block: str
    versions: set[str] = msgspec.field(default_factory=set)
    calls: int = 0
    asked: int = 0  # of them, those that reached a model
    tokens: int = 0  # all together
    usd: Decimal = Decimal(0)
    unpriced: int = 0
    calls_a_day: float | None = None
    usd_month: float | None = None

    @property
    def tokens_a_call(self) -> float:
        return self.tokens / self.calls


class PromptCosts(msgspec.Struct, kw_only=True):
    """All blocks, the dearest first. *days* that the rows span, None where there are too few to tell."""

    blocks: list[BlockCost]
    rows: int
    days: float | None


def prompt_costs(rows: Iterable[Outcome], accounts: Accounts, span_s: float | None = None) -> PromptCosts:
    """Add up the blocks of *rows*. *span_s*: of which time they are; None: from the first to the last of them."""
    found: dict[tuple[str, str], BlockCost] = {}
    first = last = None
    count = 0
    for row in rows:
        count += 1
        first, last = first if first is not None else row.received_at, row.received_at
        if row.template is None or row.prompt_blocks is None:
            continue
        blocks: dict[str, int] = orjson.loads(row.prompt_blocks)
        asked, price = _price(row, sum(blocks.values()), accounts)
        for name, tokens in blocks.items():
            one = found.setdefault((row.template, name), BlockCost(template=row.template, block=name))
            one.versions.add(row.template_version or "")
            one.calls += 1
            one.tokens += tokens
            one.asked += asked
            if price is None:
                one.unpriced += asked
            else:
                one.usd += price * tokens
    if span_s is None and first is not None and last is not None:
        span_s = last - first
    days = None if span_s is None or span_s < LEAST_S else span_s / _DAY_S
    for one in found.values():
        if days is not None:
            one.calls_a_day = one.calls / days
            known = one.asked - one.unpriced
            if known or not one.asked:
                one.usd_month = float(one.usd) / days * DAYS_A_MONTH
    ordered = sorted(found.values(), key=lambda one: (-one.usd, -one.tokens, one.template, one.block))
    return PromptCosts(blocks=ordered, rows=count, days=days)


def _price(row: Outcome, least: int, accounts: Accounts) -> tuple[bool, Decimal | None]:
    """Return whether anybody was asked, and what a token of the input cost in *row*, in all attempts together.

    Attempts with a smaller input than the template, such as a judge's, did not read it. None: unknown.
    """
    total, asked = Decimal(0), False
    for attempt in orjson.loads(row.attempt_log):
        if not attempt["billed"]:
            continue
        stored = attempt["usage"]
        if stored is None:
            return True, None
        if stored["input_tokens"] < least:
            continue
        usage = _input(stored)
        cost = accounts.amount_as(attempt["priced_as"], attempt["model"], usage, row.received_at).cost_usd
        if cost is None or not usage.input_tokens:
            return True, None
        asked, total = True, total + cost / usage.input_tokens
    return asked, total


def _input(stored: dict[str, Any]) -> Usage:
    """Return a stored usage without its output, at list prices."""
    kept = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "tier", "basis")
    return msgspec.convert({**{k: v for k, v in stored.items() if k in kept}, "output_tokens": 0}, Usage)
