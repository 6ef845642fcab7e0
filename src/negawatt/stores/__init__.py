"""Stores: bytes under a key, with a lifetime and tags. One protocol, opened by URL (`negawatt.registry`)."""

from __future__ import annotations

from typing import Protocol

import msgspec


class StoreStats(msgspec.Struct, frozen=True):
    """What is in a store. *bytes* counts values and keys, not the engine's own overhead."""

    entries: int
    bytes: int


class Store(Protocol):
    """Keeps bytes. Every method raises `negawatt.errors.StoreError`, and nothing else, when the backend fails."""

    shared: bool  # by replicas: what one of them makes, the others find

    async def get(self, key: str) -> bytes | None:
        """Return what was put under *key*, or None if it expired or never was."""
        ...

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
        """Keep *value* under *key* for *ttl_s* seconds.

        The entries that were not read for longest make room: those of *group* when it holds more than
        *group_max_bytes*, those of the largest group when the store is full. What is too large to be kept at all
        only takes away what was there.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Delete what is under *key*; True if there was something."""
        ...

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        """Delete every entry that has all of *tags*, none at all when there are no tags; return how many."""
        ...

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        """Take the sole right to make what belongs under *key*; return a token, or None while somebody else has it.

        The right lapses after *ttl_s* seconds, so that one who died holds nobody up. It has nothing to do with
        whether there is a value under *key*.
        """
        ...

    async def release(self, key: str, token: str) -> None:
        """Give the right back. A token that has lapsed takes nothing from whoever has it now."""
        ...

    async def stats(self) -> StoreStats: ...

    async def close(self) -> None: ...
