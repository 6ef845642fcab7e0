"""On what terms providers keep the beginnings of prompts, read off the price tables and the table of models."""

from __future__ import annotations

from collections.abc import Callable, Collection
from decimal import Decimal
from typing import NamedTuple

from negawatt.call import Target
from negawatt.economics.accounts import Accounts
from negawatt.economics.capabilities import KnownModels
from negawatt.economics.usage import Usage

_TOKENS = 1_000  # few, so that no tier for long prompts is met
_SHORT_S, _LONG_S = 300.0, 3600.0


class Terms(NamedTuple):
    """Of what a request marks, in prices of its input. *writes*: (seconds kept, price), the shortest first.

    *least_tokens*: of a prompt; shorter ones are not kept.
    """

    read: float
    writes: tuple[tuple[float, float], ...]
    least_tokens: int


class Kept(NamedTuple):
    """How a model's provider keeps prompts. *marked*: only what is marked. *reads*: it charges less for it."""

    least_tokens: int
    step_tokens: int
    marked: bool
    reads: bool


class Market(NamedTuple):
    """*terms*: of marks at a target, at a time; None where they mean nothing, or cost what nobody knows."""

    terms: Callable[[Target, float], Terms | None]
    kept: Callable[[Target, float], Kept]


def market_of(accounts: Accounts, models: KnownModels, speaks: Callable[[Target], Collection[str]]) -> Market:
    """Return what *accounts* and *models* know. *speaks*: the protocols of a target's provider."""

    def kept(target: Target, at: float) -> Kept:
        rule = models.prefix_cache(target.model)
        reads = accounts.reads_cached(target.provider, target.model, at)
        return Kept(rule.least_tokens, rule.step_tokens, rule.marked, reads)

    def cost(target: Target, at: float, read: int = 0, write: int = 0, write_1h: int = 0) -> Decimal | None:
        usage = Usage(
            input_tokens=_TOKENS, output_tokens=0, cache_read_tokens=read, cache_write_tokens=write,
            cache_write_1h_tokens=write_1h,
        )  # fmt: skip
        return accounts.amount(target.provider, target.model, usage, at).cost_usd

    def terms(target: Target, at: float) -> Terms | None:
        how = kept(target, at)
        if not how.marked or not how.reads or "messages" not in speaks(target):
            return None
        plain, read = cost(target, at), cost(target, at, read=_TOKENS)
        short = cost(target, at, write=_TOKENS)
        long = cost(target, at, write=_TOKENS, write_1h=_TOKENS)
        if not plain or read is None or short is None or short <= plain:
            return None  # a write that costs no more than input has no price of its own
        writes = [(_SHORT_S, float(short / plain))]
        if long is not None and long > short:
            writes.append((_LONG_S, float(long / plain)))
        return Terms(float(read / plain), tuple(writes), how.least_tokens)

    return Market(terms, kept)
