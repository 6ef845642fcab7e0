"""When a provider's prefix cache is worth its fee.

To write a prefix costs more than to send it (1.25 times at Anthropic, kept for five minutes; 2 times for an hour); to
read it back costs a tenth. A write pays only when the same prefix is sent again in time: `PrefixPolicy` expects that
from the past, part by part.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from math import log2
from typing import NamedTuple

from negawatt.shape.reuse import Kind, Sighting, Sightings, Tables

_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of a lifetime: the ages that life tables tell apart
_MOST_TIMES = 9  # more often is as good as this often
_FURTHER = 12  # uses ahead that are reckoned with


class Block(NamedTuple):
    """A piece of a prompt. *id* stands for all of the prompt up to its end: equal ids, equal prefixes."""

    id: Hashable
    tokens: int


class Lifetime(NamedTuple):
    """One price list of a provider: kept for *ttl_s* since the last use, for *write* times the price of input."""

    ttl_s: float
    write: float


class Marking(NamedTuple):
    """What to do with one prompt.

    The first *cached* blocks are read. Blocks up to *upto* are to be written (equal to *cached*: nothing is), for
    *lifetime*. *gain*: what the write is expected to save, in tokens at the price of input.
    """

    cached: int
    upto: int
    lifetime: Lifetime | None
    gain: float


class PrefixPolicy:
    """Decides what to write, from what was seen before; what the provider holds is what this policy had written.

    *read*: price of cached input, input = 1. *lifetimes*: what may be bought. Memory is bounded by *max_blocks*.
    *learned*: what another policy with the same lifetimes has learned, to begin with.
    """

    def __init__(
        self,
        lifetimes: Sequence[Lifetime] = (Lifetime(300.0, 1.25),),
        *,
        read: float = 0.1,
        max_blocks: int = 200_000,
        learned: Tables | None = None,
    ) -> None:
        self._lifetimes = tuple(lifetimes)
        self._read = read
        edges = sorted({life.ttl_s * share for life in lifetimes for share in _SHARES})
        self._ages = {life: edges.index(life.ttl_s) + 1 for life in lifetimes}
        self._near = min(life.ttl_s for life in lifetimes)
        self._sightings = Sightings(learned or Tables(edges, edges.index(self._near) + 1), max_blocks)
        self._kept: OrderedDict[Hashable, tuple[float, Lifetime]] = OrderedDict()  # until when, and for how long
        self._max_blocks = max_blocks

    @property
    def learned(self) -> Tables:
        """How often what kinds of parts came again."""
        return self._sightings.tables

    def decide(self, blocks: Sequence[Block], now: float, *, longest_s: float | None = None) -> Marking:
        """Return what to write of *blocks* at *now* (seconds, never running backwards); `observe` says it was sent.

        *longest_s*: only lifetimes up to it are bought.
        """
        self._sightings.until(now)
        cached = self.cached(blocks, now)
        best = Marking(cached, cached, None, 0.0)
        kinds = self._kinds(blocks, now)
        for life in self._lifetimes:
            if longest_s is not None and life.ttl_s > longest_s:
                continue
            worth: dict[tuple[Kind, int], float] = {}
            gain = 0.0
            for at in range(cached, len(blocks)):
                kind, times = kinds[at]
                key = (kind, times)
                if key not in worth:
                    worth[key] = self._worth(kind, times, life)
                gain += blocks[at].tokens * worth[key]
                if gain > best.gain:
                    best = Marking(cached, at + 1, life, gain)
        return best

    def observe(self, blocks: Sequence[Block], now: float, marking: Marking) -> None:
        """Note that *blocks* were sent at *now*, marked as *marking* says."""
        self._sightings.until(now)
        kinds = self._kinds(blocks, now)
        seen: dict[Kind, int] = {}
        for block, (kind, times) in zip(blocks, kinds, strict=True):
            self._sightings.add(block.id, Sighting(now, times, kind, block.tokens))
            seen[kind] = seen.get(kind, 0) + block.tokens
        for kind, tokens in seen.items():
            self._sightings.tables.came(kind, tokens)
        for at, block in enumerate(blocks[: marking.upto]):
            life = self._kept.pop(block.id)[1] if at < marking.cached else marking.lifetime
            if life is not None:
                self._kept[block.id] = (now + life.ttl_s, life)
        while len(self._kept) > self._max_blocks:
            self._kept.popitem(last=False)

    def cached(self, blocks: Sequence[Block], now: float) -> int:
        """Return how many of *blocks*, from the first, the provider still holds at *now*."""
        for at, block in enumerate(blocks):
            kept = self._kept.get(block.id)
            if kept is None or kept[0] < now:
                return at
        return len(blocks)

    def kept_for(self, block: Block) -> Lifetime | None:
        """Return for how long the provider keeps *block*, None where it was never written."""
        kept = self._kept.get(block.id)
        return None if kept is None else kept[1]

    def _kinds(self, blocks: Sequence[Block], now: float) -> list[tuple[Kind, int]]:
        """Return the kind of each block, and how often it has been sent with this time.

        What was sent before: by how often, and how long ago. What is new: by the share of the prompt that was sent
        before, and the size of the prompt in half octaves; apart from the last block, which the next turn fills up.
        """
        known: list[Sighting] = []
        for block in blocks:
            last = self._sightings.last(block.id)
            if last is None:
                break
            known.append(last)
        found: list[tuple[Kind, int]] = []
        for last in known:
            times, gap = min(last.times + 1, _MOST_TIMES), now - last.at
            lately = 0 if gap <= self._near / 8 else 1 if gap <= self._near else 2
            found.append((("again", times, lately), times))
        if len(known) < len(blocks):
            share = 1 + 4 * len(known) // len(blocks) if known else 0
            new: Kind = ("new", share, round(2 * log2(len(blocks))))
            found += [(new, 1)] * (len(blocks) - len(known) - 1)
            found.append((("end",), 1))
        return found

    def _worth(self, kind: Kind, times: int, life: Lifetime) -> float:
        """Return what to write one token of *kind* is expected to save.

        Written now, its next use in time costs `read` and the entry lives on; not written, it could be written then.
        """
        fee = life.write - 1
        after = self._after(times + 1, life)
        return self._sightings.tables.within(kind, self._ages[life]) * (1 - self._read + min(after, fee)) - fee

    def _after(self, times: int, life: Lifetime) -> float:
        """Return what a token that is held and was just sent for the *times*-th time is expected to save from then."""
        saved, chance = 0.0, 1.0
        for n in range(times, times + _FURTHER):
            chance *= self._sightings.tables.within(("again", min(n, _MOST_TIMES)), self._ages[life])
            saved += chance * (1 - self._read)
        return saved
