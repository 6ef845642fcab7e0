"""What is open to classify and route: intents that are being learned, routers read from their files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from negawatt.config import Config
from negawatt.embedders import Embedder
from negawatt.routing.intents import Intents, load_examples
from negawatt.routing.router import Router


class Choosing(msgspec.Struct, frozen=True):
    """What is open. *routers* by the name of their policy."""

    embedder: Embedder | None
    intents: Intents | None
    routers: Mapping[str, Router]


@asynccontextmanager
async def open_choosing(config: Config, embedder: Embedder | None, *, threads: bool = True) -> AsyncIterator[Choosing]:
    """Open it where it is on. *threads* as in `negawatt.recalling.open_embedding`. Raises `ConfigError`."""
    routers = _routers(config)
    intents = _intents(config, threads)
    if intents is not None and embedder is not None:
        intents.begin(embedder)
    try:
        yield Choosing(embedder, intents, routers)
    finally:
        if intents is not None:
            await intents.close()


def _intents(config: Config, threads: bool) -> Intents | None:
    settings = config.levers.classify
    if settings.intents is None or settings.mode == "off":
        return None
    return Intents(load_examples(Path(settings.intents), config.classes), threads=threads)


def _routers(config: Config) -> dict[str, Router]:
    return {
        name: Router.load(Path(policy.router), f"policies.{name}.router")
        for name, policy in config.policies.items()
        if policy.how == "learned" and policy.router is not None
    }
