"""One item of an answer that is kept: what is stored of it, and its share of what the whole answer used."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.call import Saved
from negawatt.economics.usage import Usage

_encode = msgspec.msgpack.Encoder().encode


class KeptItem(msgspec.Struct, frozen=True, gc=False):
    """A kept item, as it is stored. *result* and *frame* are JSON objects."""

    protocol: str
    result: bytes  # what the answer said of it
    frame: bytes  # what the answer said beside its items
    stored_at: float
    model: str
    provider: str
    usage: Usage | None  # its share
    upstream_s: float | None  # of the call that asked for it, with all that was asked then


_decode = msgspec.msgpack.Decoder(KeptItem).decode


class Found(NamedTuple):
    """A kept item that has been read."""

    entry: KeptItem
    result: dict[str, Any]
    frame: dict[str, Any]


def encoded(entry: KeptItem) -> bytes:
    """Return *entry* as it is stored."""
    return _encode(entry)


def decoded(value: bytes, protocol: str, max_bytes: int) -> Found | None:
    """Return what was stored; None when it cannot be read, or may not be served as an item of *protocol*."""
    if len(value) > max_bytes:
        return None
    try:
        entry = _decode(value)
        result, frame = orjson.loads(entry.result), orjson.loads(entry.frame)
    except (msgspec.MsgspecError, orjson.JSONDecodeError):
        return None
    if entry.protocol != protocol or not isinstance(result, dict) or not isinstance(frame, dict):
        return None
    return Found(entry, result, frame)


def shares(usage: Usage | None, weights: Sequence[int]) -> list[Usage | None]:
    """Return what each of several items used of *usage*, in proportion to *weights*. Input tokens sum to the total.

    A split is our estimate. None where nothing can be said: no usage, or one that is billed by search units, which
    belong to a request and not to its items.
    """
    if usage is None or usage.search_units or usage.output_tokens:
        return [None] * len(weights)
    if len(weights) == 1:
        return [usage]
    tokens = divided(usage.input_tokens, weights)
    read = divided(usage.cache_read_tokens, tokens)
    return [
        Usage(
            input_tokens=own, output_tokens=0, cache_read_tokens=cached, basis="estimated", tier=usage.tier,
            cost_usd=_part(usage.cost_usd, own, usage.input_tokens),
        )
        for own, cached in zip(tokens, read, strict=True)
    ]  # fmt: skip


def divided(total: int, weights: Sequence[int]) -> list[int]:
    """Return *total* in parts in proportion to *weights* (largest remainder); equal parts where all weigh nothing."""
    if not weights:
        return []
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def spared(items: Sequence[Found], *, whole: bool) -> Saved | None:
    """Return what giving *items* spared; None where the share of one of them is not known.

    *whole*: they are all of the answer, so that the call would have taken as long as the longest that they come from.
    """
    usage = total_usage(items)
    if usage is None:
        return None
    newest = max(items, key=lambda one: one.entry.stored_at).entry
    seconds = [one.entry.upstream_s for one in items]
    known = [s for s in seconds if s is not None]
    return Saved(
        usage=usage, model=newest.model, provider=newest.provider, basis=usage.basis,
        upstream_s=max(known) if whole and len(known) == len(seconds) else None,
    )  # fmt: skip


def total_usage(items: Sequence[Found]) -> Usage | None:
    """Return the shares of *items* together; None when there are none, or one is not known."""
    usages = [one.entry.usage for one in items if one.entry.usage is not None]
    if not usages or len(usages) < len(items):
        return None
    if len(usages) == 1:
        return usages[0]
    # Not one by one: a batch may have thousands, and a share has nothing but these.
    costs = [one.cost_usd for one in usages if one.cost_usd is not None]
    tiers = {one.tier for one in usages}
    return Usage(
        input_tokens=sum([one.input_tokens for one in usages]), output_tokens=0,
        cache_read_tokens=sum([one.cache_read_tokens for one in usages]),
        cost_usd=sum(costs, Decimal(0)) if len(costs) == len(usages) else None,
        basis="measured" if all(one.basis == "measured" for one in usages) else "estimated",
        tier=usages[0].tier if len(tiers) == 1 else None,
    )  # fmt: skip


def _part(cost_usd: Decimal | None, tokens: int, of: int) -> Decimal | None:
    if cost_usd is None or not of:
        return None
    return cost_usd * tokens / of
