"""Bytes in this process: bounded, the least recently used go first."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import NamedTuple

from negawatt.clock import Clock
from negawatt.stores import StoreStats


class _Item(NamedTuple):
    value: bytes
    expires_at: float
    tags: tuple[str, ...]
    group: str
    size: int


_OVERHEAD = 250  # bytes of Python around one entry, about


class MemoryStore:
    """Holds at most *max_bytes*, keys, values and overhead together."""

    shared = False

    def __init__(self, clock: Clock, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: dict[str, _Item] = {}
        # One order of use for each group, so that a full group makes room in itself.
        self._orders: dict[str, OrderedDict[str, None]] = {}
        self._group_bytes: dict[str, int] = {}
        self._tagged: dict[str, set[str]] = {}
        self._claims: dict[str, tuple[str, float]] = {}  # token, and when it lapses

    async def get(self, key: str) -> bytes | None:
        item = self._items.get(key)
        if item is None:
            return None
        # Expiry is checked on read: a sweeper alone would serve stale answers between sweeps.
        if item.expires_at <= self._clock.monotonic():
            self._drop(key)
            return None
        self._orders[item.group].move_to_end(key)
        return item.value

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl_s: float,
        tags: tuple[str, ...] = (),
        group: str = "",
        group_max_bytes: int | None = None,
    ) -> None:
        self._drop(key)
        size = len(key) + len(value) + sum(map(len, tags)) + _OVERHEAD
        if size > self._max_bytes or (group_max_bytes is not None and size > group_max_bytes):
            return
        item = _Item(value, self._clock.monotonic() + ttl_s, tags, group, size)
        self._items[key] = item
        self._orders.setdefault(group, OrderedDict())[key] = None
        self._group_bytes[group] = self._group_bytes.get(group, 0) + size
        self._bytes += size
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(key)
        while group_max_bytes is not None and self._group_bytes[group] > group_max_bytes:
            self._drop(next(iter(self._orders[group])))
        while self._bytes > self._max_bytes:
            # The newest entry is the last of its group: it is never the first, unless it is alone there.
            groups = (group for group, order in self._orders.items() if next(iter(order)) != key)
            self._drop(next(iter(self._orders[max(groups, key=self._group_bytes.__getitem__)])))

    async def delete(self, key: str) -> bool:
        return self._drop(key)

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        keys = set.intersection(*(self._tagged.get(tag, set()) for tag in tags))
        now = self._clock.monotonic()
        alive = [key for key in keys if self._items[key].expires_at > now]
        if not dry_run:
            for key in keys:
                self._drop(key)
        return len(alive)

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        now = self._clock.monotonic()
        held = self._claims.get(key)
        if held is not None and held[1] > now:
            return None
        token = uuid.uuid4().hex
        self._claims[key] = (token, now + ttl_s)
        return token

    async def release(self, key: str, token: str) -> None:
        held = self._claims.get(key)
        if held is not None and held[0] == token:
            del self._claims[key]

    async def stats(self) -> StoreStats:
        now = self._clock.monotonic()
        sizes = [len(key) + len(item.value) for key, item in self._items.items() if item.expires_at > now]
        return StoreStats(len(sizes), sum(sizes))

    async def close(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._orders.clear()
        self._group_bytes.clear()
        self._tagged.clear()
        self._claims.clear()
        self._bytes = 0

    def _drop(self, key: str) -> bool:
        item = self._items.pop(key, None)
        if item is None:
            return False
        self._bytes -= item.size
        order = self._orders[item.group]
        del order[key]
        self._group_bytes[item.group] -= item.size
        if not order:
            del self._orders[item.group], self._group_bytes[item.group]
        for tag in item.tags:
            keys = self._tagged.get(tag)
            if keys is None:
                continue  # a tag that the entry has twice
            keys.discard(key)
            if not keys:
                del self._tagged[tag]
        return True
