"""What one call comes to, taken apart: a charge for each kind of token that each provider billed, and what was spared.

The cost in the ledger is the truth; what is worked out here is only its division. The parts of a call are in
proportion to the prices of its time, in whole pico-dollars, and what is left over by rounding down goes to the part
that costs most: so they sum to the cost to the last digit, whatever the prices of today are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from negawatt.economics.accounts import Accounts
from negawatt.economics.rates import kinds
from negawatt.economics.usage import Usage

COLUMNS = (
    "received_at", "tenant", "key_id", "request_class", "request_model", "provider", "cost_pusd", "price_source",
    "energy_low_j", "energy_j", "energy_high_j", "energy_basis", "co2e_g", "decisions", "attempt_log",
)  # fmt: skip
GATEWAY = "negawatt"  # provides what no provider was asked for
OTHER = "other"  # kind of what a call cost that none of its attempts accounts for
UNREPORTED = "unreported"  # kind of what was billed, and of which the provider did not say how much it was
UNITS = {"web_search": "Searches", "search_unit": "Search Units", "request": "Requests"}  # kinds that are no tokens
ANY = "tokens"  # kind of what was billed without a price for its parts


class Row(NamedTuple):
    """Of a row of the ledger, what is exported: `COLUMNS`, in their order."""

    received_at: float
    tenant: str | None
    key_id: str | None
    request_class: str
    request_model: str | None
    provider: str | None
    cost_pusd: int | None
    price_source: str | None
    energy_low_j: float | None
    energy_j: float | None
    energy_high_j: float | None
    energy_basis: str | None
    co2e_g: float | None
    decisions: str
    attempt_log: str


class Charge(NamedTuple):
    """A part of what a call used. *pusd*: None where the call has no price. *split*: how the part was found.

    *quantity*: None where nobody knows it.
    """

    provider: str
    model: str
    kind: str
    quantity: int | None
    pusd: int | None
    split: str  # prices, proportion, whole


class Spared(NamedTuple):
    """What one lever spared of a call, or, where it is negative, cost beside it. None: unknown."""

    lever: str
    basis: str
    provider: str
    model: str
    pusd: int | None
    tokens: int | None


class _Attempt(msgspec.Struct, frozen=True):
    provider: str
    model: str
    billed: bool
    priced_as: str | None = None
    usage: Usage | None = None
    cost_pusd: int | None = None


class _Saved(msgspec.Struct, frozen=True):
    model: str
    provider: str
    basis: str
    cost_pusd: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Decision(msgspec.Struct, frozen=True):
    lever: str
    mode: str = "on"
    saved: _Saved | None = None


_attempts = msgspec.json.Decoder(list[_Attempt]).decode
_decisions = msgspec.json.Decoder(list[_Decision]).decode


def charges_of(row: Row, accounts: Accounts) -> list[Charge]:
    """Return the charges of one call. There is at least one, and known costs sum to ``row.cost_pusd``."""
    attempts = [] if row.attempt_log == "[]" else [one for one in _attempts(row.attempt_log) if one.billed]
    found: list[Charge] = []
    for attempt in attempts:
        found += _parts(attempt, accounts, row)
    if row.cost_pusd is None:
        return found or [Charge(row.provider or GATEWAY, row.request_model or "", UNREPORTED, None, None, "whole")]
    if not found:
        kind, quantity = (OTHER, None) if row.cost_pusd else ("none", 0)
        return [Charge(row.provider or GATEWAY, row.request_model or "", kind, quantity, row.cost_pusd, "whole")]
    rest = row.cost_pusd - sum(charge.pusd or 0 for charge in found)
    if rest:
        place = max(range(len(found)), key=lambda i: found[i].pusd or 0)
        found[place] = found[place]._replace(pusd=(found[place].pusd or 0) + rest)
    return found


def spared_of(row: Row) -> list[Spared]:
    """Return what the levers spared of one call; decisions in shadow changed nothing, and count for nothing."""
    if row.decisions == "[]":
        return []
    found = []
    for decision in _decisions(row.decisions):
        saved = decision.saved
        if saved is None or decision.mode == "shadow":
            continue
        known = saved.input_tokens is not None and saved.output_tokens is not None
        tokens = (saved.input_tokens or 0) + (saved.output_tokens or 0) if known else None
        found.append(Spared(decision.lever, saved.basis, saved.provider, saved.model, saved.cost_pusd, tokens))
    return found


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divide *total* in proportion to *weights*, rounded down; the largest takes what is left."""
    whole = sum(weights)
    largest = max(range(len(weights)), key=weights.__getitem__)
    found = [total * weight // whole for weight in weights] if whole else [0] * len(weights)
    found[largest] += total - sum(found)
    return found


def _parts(attempt: _Attempt, accounts: Accounts, row: Row) -> list[Charge]:
    """Return the charges of one attempt; without a cost of its own where its call has none."""
    cost = None if row.cost_pusd is None else attempt.cost_pusd or 0
    usage, provider, model = attempt.usage, attempt.provider, attempt.model
    if usage is None:
        return [Charge(provider, model, UNREPORTED, None, cost, "whole")]
    rate = accounts.rate(attempt.priced_as, model, usage.tier, row.received_at)
    if cost is None:
        return [Charge(provider, model, kind, n, None, "whole") for kind, n in kinds(usage)] or [
            Charge(provider, model, UNREPORTED, None, None, "whole")
        ]
    leaves = [] if rate is None or not rate.covers(usage) else rate.leaves(usage)
    if not leaves or (cost and not any(leaf.weight for leaf in leaves)):
        return [Charge(provider, model, ANY, usage.total_tokens, cost, "whole")]
    assert rate is not None
    exact = usage.cost_usd is None and round(rate.cost(usage).scaleb(12)) == cost
    split = "prices" if exact else "proportion"
    parts = shares(cost, [leaf.weight for leaf in leaves])
    return [
        Charge(provider, model, leaf.kind, leaf.quantity, part, split)
        for leaf, part in zip(leaves, parts, strict=True)
    ]  # fmt: skip
