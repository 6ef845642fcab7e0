"""Opening the indexes of this process by URL; `negawatt.registry` has the table."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from negawatt.clock import Clock
from negawatt.errors import ConfigError
from negawatt.indexes import Index


class Url(Protocol):
    """What is needed of `negawatt.registry.Url`."""

    @property
    def text(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> dict[str, str]: ...
    def bytes(self, name: str, default: int, where: str) -> int: ...
    def only(self, *names: str, where: str) -> None: ...


def open_memory(url: Url, where: str, clock: Clock, *, model: str, dimensions: int) -> Index:
    """``memory:?max_entries=100000&max_bytes=1GiB``"""
    from negawatt.indexes.memory import MemoryIndex

    max_entries, max_bytes = _most(url, where)
    return MemoryIndex(clock, model=model, dimensions=dimensions, max_entries=max_entries, max_bytes=max_bytes)


def open_sqlite(url: Url, where: str, clock: Clock, *, model: str, dimensions: int) -> Index:
    """``sqlite:///FILE?max_entries=100000&max_bytes=1GiB``"""
    from negawatt.indexes.sqlite import SqliteIndex

    if not url.path:
        raise ConfigError(f"{where}: {url.text!r} names no file", param=where)
    path = Path(url.path)
    if not path.parent.is_dir():
        raise ConfigError(f"{where}: there is no folder {path.parent}", param=where)
    max_entries, max_bytes = _most(url, where)
    return SqliteIndex(path, clock, model=model, dimensions=dimensions, max_entries=max_entries, max_bytes=max_bytes)


def check_place(url: Url, where: str, *, model: str, dimensions: int) -> None:
    """Raise `ConfigError` for bad options, and `IndexMismatch` when there is a file already, made for another model."""
    import sqlite3
    from contextlib import closing

    from negawatt.indexes.checks import check_model

    _most(url, where)
    path = Path(url.path)
    if not url.path or not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as file:
            had = dict(file.execute("SELECT name, value FROM meta").fetchall())
    except sqlite3.DatabaseError:
        return  # it is set aside at the start, or filled
    if "model" in had:
        check_model(str(path), (had["model"], int(had["dimensions"])), (model, dimensions))


def _most(url: Url, where: str) -> tuple[int, int]:
    """Return how many entries, and how many bytes, the index may hold."""
    url.only("max_entries", "max_bytes", where=where)
    return count_of(url, "max_entries", 100_000, where), url.bytes("max_bytes", 2**30, where)


def count_of(url: Url, name: str, default: int, where: str) -> int:
    text = url.query.get(name, str(default))
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(f"{where}: {name}={text!r} is not a number above 0", param=where)
    return int(text)
