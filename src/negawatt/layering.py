"""Layers for an application's own code, opened where they are first used.

    cache = LayerCache("sqlite:///cache.sqlite")

    @cache.cached("retrieval", corpus_version="2026-10", permissions=lambda groups: groups)
    def search(query, groups): ...

`cached` alone uses the store that ``negawatt.toml`` of the current folder names; without that file, memory.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

import msgspec

from negawatt.clock import Clock, SystemClock
from negawatt.config import Config, load_config
from negawatt.layers.cache import Layers
from negawatt.layers.functions import Options
from negawatt.layers.values import Lead
from negawatt.layers.wrapping import CachedFunction, wrapped
from negawatt.pipeline import Background
from negawatt.registry import STORES, open_backend
from negawatt.telemetry import Telemetry

if TYPE_CHECKING:
    from negawatt.stores import Store

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
_RENEWALS = 4  # at once, of plain functions


class LayerCache:
    """The layers over the store that *config* names: a `Config`, the path of a TOML file, or the URL of a store.

    None is ``negawatt.toml`` in the current folder, or else memory. Nothing is opened before the first use, in each
    process anew; from then on it may be used from any thread and any event loop. `close` it, or leave a ``with``
    (or ``async with``) block; else it is closed when the process ends. Used again, it opens again.
    """

    def __init__(self, config: Config | Path | str | None = None, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._opening = threading.Lock()
        self._homes: dict[int, _Home] = {}  # by process: threads and connections do not outlive a fork

    def cached(self, layer: str, **options: Unpack[Options]) -> Callable[[Callable[_P, _R]], CachedFunction[_P, _R]]:
        """Return a decorator that keeps in *layer* what a function, plain or a coroutine, returns.

        Its key is made of the function's name and ``version``, its arguments and its scope. Raises `TypeError` for a
        function or an option that cannot be, and at a call for an argument that cannot be part of a key; at the
        first call `negawatt.errors.ConfigError`, and `UnknownLayer`.
        """

        def decorate(function: Callable[_P, _R]) -> CachedFunction[_P, _R]:
            found: CachedFunction[_P, _R] = wrapped(function, layer, self._home, options)
            return found

        return decorate

    def invalidate(self, *, dry_run: bool = False, **tags: str | int) -> int:
        """Delete what has all of *tags* from all layers, and from what a gateway keeps in the same store.

        Return how much. Raises `ValueError` without any tag, and `negawatt.errors.StoreError`.
        """
        if not tags:
            raise ValueError("invalidate: say what: layer=, tenant=, corpus_version=, or a tag of your own")
        home = self._home()
        wanted = tuple(f"{name}={value}" for name, value in tags.items())
        return home.submit(home.layers.delete_tagged(wanted, dry_run=dry_run)).result()

    def stats(self) -> dict[str, Any]:
        """Return entries and bytes of the store, and what each layer did in this process. Raises `StoreError`."""
        home = self._home()
        return home.submit(home.layers.stats()).result()

    def close(self) -> None:
        """Finish what is being renewed, and close the store."""
        with self._opening:
            home = self._homes.pop(os.getpid(), None)
        if home is not None:
            atexit.unregister(self.close)
            home.close()

    def __enter__(self) -> LayerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> LayerCache:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def _home(self) -> _Home:
        home = self._homes.get(os.getpid())
        if home is not None:
            return home
        with self._opening:
            if os.getpid() not in self._homes:
                self._homes[os.getpid()] = _Home(_configured(self._config), self._clock)
                atexit.register(self.close)
            return self._homes[os.getpid()]


class _Home:
    """An event loop in a thread of its own, and the layers that live there."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="negawatt-layers", daemon=True)
        self.pool = ThreadPoolExecutor(_RENEWALS, thread_name_prefix="negawatt-renewal")
        self._background = Background()
        self._thread.start()
        try:
            self._store, self.layers = self.submit(self._open(config, clock)).result()
        except BaseException:
            self._stop()
            raise

    async def _open(self, config: Config, clock: Clock) -> tuple[Store, Layers]:
        store: Store = open_backend(STORES, "negawatt.stores", config.cache.store, "cache.store", clock)
        layers = Layers(config.cache, store=store, clock=clock, background=self._background, telemetry=Telemetry())
        return store, layers

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call_soon(self, work: Callable[[Lead], None], lead: Lead) -> None:
        self._loop.call_soon_threadsafe(work, lead)

    def close(self) -> None:
        self.pool.shutdown(wait=True)
        self.submit(self._close()).result()
        self._stop()

    async def _close(self) -> None:
        await self._background.drain()
        await self._store.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _configured(config: Config | Path | str | None) -> Config:
    if isinstance(config, Config):
        return config
    if isinstance(config, str):
        usual = Config()
        return msgspec.structs.replace(usual, cache=msgspec.structs.replace(usual.cache, store=config))
    return load_config(config)


@functools.cache
def default_cache() -> LayerCache:
    """Return what `cached` keeps things in."""
    return LayerCache()


def cached(layer: str, **options: Unpack[Options]) -> Callable[[Callable[_P, _R]], CachedFunction[_P, _R]]:
    """Return a decorator as `LayerCache.cached` does, over the store of ``negawatt.toml`` in the current folder."""
    return default_cache().cached(layer, **options)
