"""Opens what the semantic cache works with, as the configuration names it: embedder, index, curated answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.embedders import Embedder
from negawatt.embedders.opening import open_embedder
from negawatt.errors import EmbedderError, StoreError
from negawatt.indexes import Index
from negawatt.recall.curated import Curated, load_curated
from negawatt.registry import INDEXES, open_backend

log = logging.getLogger(__name__)


class Recall(msgspec.Struct, frozen=True):
    """What is open."""

    embedder: Embedder
    index: Index
    curated: Curated


def recalls(config: Config) -> bool:
    """True when the semantic cache is on, in whatever mode, for any class."""
    policies = config.classes.values()
    return config.levers.semantic_cache.mode != "off" or any(
        policy.levers.get("semantic_cache", "off") != "off" for policy in policies
    )


@asynccontextmanager
async def open_recall(config: Config, clock: Clock, *, embedder: Embedder | None = None) -> AsyncIterator[Recall]:
    """Open it, and close it in the end; a given *embedder* stays open. Raises `ConfigError`."""
    settings = config.recall
    entries = () if settings.curated is None else load_curated(Path(settings.curated))
    own = open_embedder(settings.embedder, "recall.embedder") if embedder is None else None
    maker = own or embedder
    assert maker is not None
    try:
        index: Index = open_backend(
            INDEXES, "negawatt.indexes", settings.index, "recall.index", clock,
            model=maker.id, dimensions=maker.dimensions,
        )  # fmt: skip
        try:
            try:
                await index.check()
            except StoreError as error:  # not ready until it is there, and calls are misses
                log.warning("the index cannot be used yet: %s", error.message)
            curated = Curated(entries, config.levers.semantic_cache.curated_similarity)
            try:
                await curated.prepare(maker)
            except EmbedderError as error:
                log.warning("curated answers are not given until the next start: %s", error.message)
            yield Recall(maker, index, curated)
        finally:
            await index.close()
    finally:
        if own is not None:
            await own.close()
