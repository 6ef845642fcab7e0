"""Opening the books of budgets by URL; `negawatt.registry` has the table."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from negawatt.budgets import Books
from negawatt.clock import Clock
from negawatt.errors import ConfigError


class Url(Protocol):
    """What is needed of `negawatt.registry.Url`."""

    @property
    def text(self) -> str: ...
    @property
    def path(self) -> str: ...
    def only(self, *names: str, where: str) -> None: ...


def open_memory(url: Url, where: str, clock: Clock, *, lease_s: float) -> Books:
    """``memory:``"""
    from negawatt.budgets.memory import MemoryBooks

    url.only(where=where)
    return MemoryBooks(clock)


def open_sqlite(url: Url, where: str, clock: Clock, *, lease_s: float) -> Books:
    """``sqlite:///FILE``"""
    from negawatt.budgets.sqlite import SqliteBooks

    url.only(where=where)
    if not url.path:
        raise ConfigError(f"{where}: {url.text!r} names no file", param=where)
    path = Path(url.path)
    if not path.parent.is_dir():
        raise ConfigError(f"{where}: there is no folder {path.parent}", param=where)
    return SqliteBooks(path, clock, where)


def open_redis(url: Url, where: str, clock: Clock, *, lease_s: float) -> Books:
    """``redis://HOST:PORT/0?prefix=negawatt:budgets:``; other options as for the cache's store."""
    from negawatt.budgets.redis import RedisBooks
    from negawatt.stores.redis import open_redis as open_store

    return RedisBooks(
        open_store(url, where, clock, prefix="negawatt:budgets:", timeout_ms=2000), clock, lease_s=lease_s
    )
