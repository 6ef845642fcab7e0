"""Opens what the semantic cache works with, as the configuration names it: embedder, index, curated answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from negawatt.call import Target
from negawatt.catalogue import Catalogue
from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.embedders import Embedder
from negawatt.embedders.opening import open_embedder
from negawatt.errors import ConfigError, EmbedderError, StoreError
from negawatt.indexes import Index
from negawatt.indexes.opening import check_place
from negawatt.providers import transport
from negawatt.recall.curated import Curated, load_curated
from negawatt.registry import INDEXES, check_url, open_backend

log = logging.getLogger(__name__)


class Recall(msgspec.Struct, frozen=True):
    """What is open."""

    embedder: Embedder
    index: Index
    curated: Curated


class Carrier:
    """Carries requests to an embedder that is elsewhere (`negawatt.embedders.remote.Post`); opened when first used."""

    def __init__(self) -> None:
        self._transport: transport.Transport | None = None

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
        if self._transport is None:
            self._transport = transport.open_transport("httptools")
        timeouts = transport.Timeouts(connect_s=timeout_s, first_byte_s=timeout_s, idle_s=timeout_s)
        upload = transport.Upload(transport.Target.parse(url), body, "POST", tuple(headers.items()))
        download = await self._transport.send(upload, timeout=timeouts)
        try:
            return download.status, await download.read()
        finally:
            await download.close()

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()


def recalls(config: Config) -> bool:
    """True when the semantic cache is on, in whatever mode, for any class."""
    policies = config.classes.values()
    return config.levers.semantic_cache.mode != "off" or any(
        policy.levers.get("semantic_cache", "off") != "off" for policy in policies
    )


def judges(config: Config, catalogue: Catalogue) -> tuple[Target, ...]:
    """Return where the judge's model leads; nowhere without a judge. Raises `ConfigError` when nobody serves it."""
    judge, where = config.levers.semantic_cache.judge, "levers.semantic_cache.judge"
    found = () if judge is None else catalogue.targets(judge)
    if judge is not None and not found:
        known = ", ".join(catalogue.names()[:20]) or "none"
        raise ConfigError(f"{where}: no provider here serves {judge!r}; known: {known}", param=where)
    return found


def check_recall(config: Config, embedder: Embedder) -> None:
    """Raise `ConfigError` for what would keep it from opening; nothing is made, and nothing moved."""
    settings = config.recall
    judges(config, Catalogue(config))
    if settings.curated is not None:
        load_curated(Path(settings.curated))
    url = check_url(INDEXES, "negawatt.indexes", settings.index, "recall.index")
    if url.scheme in ("memory", "sqlite"):
        check_place(url, "recall.index", model=embedder.id, dimensions=embedder.dimensions)


def embeds(config: Config) -> bool:
    """True when something that is on works with vectors: the semantic cache, learned intents, routers, cascades."""
    on = config.levers.classify.mode != "off" and config.levers.classify.intents is not None
    return on or recalls(config) or any(policy.how in ("learned", "cascade") for policy in config.policies.values())


@asynccontextmanager
async def open_embedding(
    config: Config, *, embedder: Embedder | None = None, threads: bool = True
) -> AsyncIterator[Embedder | None]:
    """Open the embedder that all levers share, where one of them needs it; a given one stays open.

    *threads* False: it computes in the event loop, for on a virtual clock time would pass meanwhile. Raises
    `ConfigError`.
    """
    if embedder is not None or not embeds(config):
        yield embedder
        return
    carrier = Carrier()
    try:
        own = open_embedder(config.recall.embedder, "recall.embedder", threads=threads, post=carrier)
        try:
            yield own
        finally:
            await own.close()
    finally:
        await carrier.close()


@asynccontextmanager
async def open_recall(config: Config, clock: Clock, embedder: Embedder | None) -> AsyncIterator[Recall | None]:
    """Open the index and the curated answers where the semantic cache is on, else nothing; close them in the end.

    Raises `ConfigError`.
    """
    if embedder is None or not recalls(config):
        yield None
        return
    settings = config.recall
    entries = () if settings.curated is None else load_curated(Path(settings.curated))
    index: Index = open_backend(
        INDEXES, "negawatt.indexes", settings.index, "recall.index", clock,
        model=embedder.id, dimensions=embedder.dimensions,
    )  # fmt: skip
    try:
        try:
            await index.check()
        except StoreError as error:  # not ready until it is there, and calls are misses
            log.warning("the index cannot be used yet: %s", error.message)
        curated = Curated(entries, config.levers.semantic_cache.curated_similarity)
        try:
            await curated.prepare(embedder)
        except EmbedderError as error:
            log.warning("curated answers are not given until the embedder works: %s", error.message)
        yield Recall(embedder, index, curated)
    finally:
        await index.close()
