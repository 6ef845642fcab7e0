"""Opening backends by URL, ours and plug-ins' alike.

A plug-in is an entry point of the group ``negawatt.stores`` (or ``.ledgers``): its name is the URL's scheme, its
value a function ``(url, clock) -> backend``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from negawatt.clock import Clock
from negawatt.errors import ConfigError

STORES = {
    "memory": "negawatt.registry:memory_store",
    "sqlite": "negawatt.registry:sqlite_store",
    "redis": "negawatt.stores.redis:open_redis",
    "rediss": "negawatt.stores.redis:open_redis",
    "postgres": "negawatt.stores.postgres:open_postgres",
    "postgresql": "negawatt.stores.postgres:open_postgres",
}
INDEXES = {
    "memory": "negawatt.indexes.opening:open_memory",
    "sqlite": "negawatt.indexes.opening:open_sqlite",
    "postgres": "negawatt.indexes.postgres:open_postgres",
    "postgresql": "negawatt.indexes.postgres:open_postgres",
}
BUDGETS = {
    "memory": "negawatt.budgets.opening:open_memory",
    "sqlite": "negawatt.budgets.opening:open_sqlite",
    "redis": "negawatt.budgets.opening:open_redis",
    "rediss": "negawatt.budgets.opening:open_redis",
}
LEDGERS = {"memory": "negawatt.registry:memory_ledger", "sqlite": "negawatt.registry:sqlite_ledger"}


class Url(msgspec.Struct, frozen=True):
    """``scheme:///path?name=value``. Three slashes: a path relative to here; four: an absolute one."""

    text: str
    scheme: str
    path: str
    query: dict[str, str]

    @classmethod
    def parse(cls, text: str, where: str) -> Url:
        """Take *text* apart. Raises `ConfigError`, which names *where* it stands."""
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme:
            raise ConfigError(f"{where}: {text!r} is not a URL such as sqlite:///file", param=where)
        rest, _, query = rest.partition("?")
        if rest.startswith("///"):
            rest = rest[3:]
        elif rest.startswith("//") and scheme in ("memory", "sqlite") and len(rest) > 2:
            raise ConfigError(f"{where}: {text!r} needs three slashes before a path: {scheme}:///file", param=where)
        return cls(text, scheme, unquote(rest.removeprefix("//")), dict(parse_qsl(query)))

    def only(self, *names: str, where: str) -> None:
        """Raise `ConfigError` for an option that is none of *names*: it would be ignored, and nobody would know."""
        unknown = sorted(set(self.query) - set(names))
        if unknown:
            known = ", ".join(names) or "none"
            raise ConfigError(f"{where}: unknown option {unknown[0]!r}; known: {known}", param=where)

    def bytes(self, name: str, default: int, where: str) -> int:
        """Return the number of bytes under *name* of the query. Raises `ConfigError`."""
        text = self.query.get(name)
        if text is None:
            return default
        units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        number, unit = (text[:-3], units[text[-3:]]) if text[-3:] in units else (text, 1)
        if not number.isdigit() or int(number) == 0:
            raise ConfigError(f"{where}: {name}={text!r} is not a number of bytes such as 268435456 or 256MiB")
        return int(number) * unit


def open_backend(table: Mapping[str, str], group: str, text: str, where: str, clock: Clock, **more: Any) -> Any:
    """Return the backend that the URL *text* names. Raises `ConfigError` for an unknown scheme or a bad URL.

    *more* is what backends of this table need beside it.
    """
    url = Url.parse(text, where)
    if url.scheme in table:
        module, _, name = table[url.scheme].partition(":")
        opener: Callable[..., Any] = getattr(import_module(module), name)
        return opener(url, where, clock, **more)
    for point in entry_points(group=group):
        if point.name == url.scheme:
            return point.load()(text, clock, **more)
    raise _unknown(table, url, where)


def check_url(table: Mapping[str, str], group: str, text: str, where: str) -> Url:
    """Return the URL *text*, opening nothing. Raises `ConfigError` where no backend could be opened by it."""
    url = Url.parse(text, where)
    if url.scheme not in table and all(point.name != url.scheme for point in entry_points(group=group)):
        raise _unknown(table, url, where)
    if url.scheme == "sqlite":
        _file(url, where)
    if group == "negawatt.stores" and url.scheme in ("memory", "sqlite"):
        _most(url, 0, where)
    return url


def _unknown(table: Mapping[str, str], url: Url, where: str) -> ConfigError:
    known = ", ".join(sorted(table))
    return ConfigError(f"{where}: no backend for {url.scheme!r}; known: {known}", param=where)


def memory_store(url: Url, where: str, clock: Clock) -> Any:
    from negawatt.stores.memory import MemoryStore

    return MemoryStore(clock, _most(url, 256 * 2**20, where))


def sqlite_store(url: Url, where: str, clock: Clock) -> Any:
    from negawatt.stores.sqlite import SqliteStore

    return SqliteStore(_file(url, where), clock, _most(url, 2**30, where))


def _most(url: Url, default: int, where: str) -> int:
    url.only("max_bytes", where=where)
    return url.bytes("max_bytes", default, where)


def memory_ledger(_: Url, __: str, ___: Clock) -> Any:
    from negawatt.ledger.memory import MemoryLedger

    return MemoryLedger()


def sqlite_ledger(url: Url, where: str, _: Clock, *, rollups: bool = True) -> Any:
    from negawatt.ledger.sqlite import SqliteLedger

    return SqliteLedger(_file(url, where), rollups=rollups)


def _file(url: Url, where: str) -> Path:
    if not url.path:
        raise ConfigError(f"{where}: {url.text!r} names no file", param=where)
    path = Path(url.path)
    if not path.parent.is_dir():
        raise ConfigError(f"{where}: there is no folder {path.parent}", param=where)
    return path
