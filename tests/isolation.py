"""How the isolation matrix is asked: worlds with its callers, and the orders in which its cells ask."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from cells import KEYS, OPEN, PERSONAL, Cell, Tally, Telling, teller
from recalls import bold
from worlds import World, configured, settled, world

from negawatt.call import Call
from negawatt.clock import SystemClock
from negawatt.embedders.batching import Batching
from negawatt.embedders.hashing import Hashing
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger

FIRST, OTHER_WORDS = "How do I reset my password?", "how do I reset my password please"
ENVIRON = {key["key_env"]: OPEN[key["id"]] for key in KEYS}
OFF = {"mode": "off"}
ALL_OFF: dict[str, Any] = {
    "exact_cache": OFF, "item_cache": OFF, "coalesce": OFF, "semantic_cache": OFF, "retry": {"attempts": 1}
}  # fmt: skip


def levers(**on: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a gateway with no lever but those of *on*."""
    return {**ALL_OFF, **{name: {"mode": "on", **fields} for name, fields in on.items()}}


CACHES = {
    "exact_cache": levers(exact_cache={}),
    "semantic_cache": levers(semantic_cache={"review": 0}),
    "both": levers(exact_cache={}, coalesce={}, semantic_cache={"review": 0}),
}


@asynccontextmanager
async def telling(delay_s: float = 0.0, provider: Telling | None = None, **tables: Any) -> AsyncIterator[World]:
    """Open a world with the callers of the matrix, in which the semantic cache serves every candidate."""
    tables.setdefault("classes", {PERSONAL: {"personal": True}})
    embedder = Batching(Hashing(), threads=False)
    async with world(provider or Telling(delay_s), environ=ENVIRON, keys=KEYS, embedder=embedder, **tables) as w:
        emboldened(w)
        yield w
        await settled()


def emboldened(w: World) -> None:
    if w.gateway.learner is not None:
        bold(w), bold(w, PERSONAL)


async def told(w: World, call: Call) -> tuple[int, str]:
    """Return whose answer *call* got, and from which lever."""
    got = await w.send(call)
    return teller(orjson.loads(call.wire.text_of(got.data))["cell"]), got.by


async def one_after_another(w: World, cells: Sequence[Cell], tally: Tally) -> None:
    """Ask each cell, then each again: streamed where it was whole, and in other words where those may be answered."""
    for place, cell in enumerate(cells):
        tally.heard(cell, *await told(w, cell.call(w, FIRST, stream=place % 2 == 0)), strangers=place)
    await w.gateway.background.drain()
    for place, cell in enumerate(cells):
        words = OTHER_WORDS if w.gateway.learner is not None and place % 3 else FIRST
        call = cell.call(w, words, stream=place % 2 == 1)
        tally.heard(cell, *await told(w, call), strangers=len(cells) - 1)


async def all_at_once(w: World, cells: Sequence[Cell], tally: Tally) -> None:
    """Ask from each cell at the same moment, whole and streamed."""
    asked = [(cell, cell.call(w, FIRST, stream=stream)) for stream in (False, True) for cell in cells]
    found = await asyncio.gather(*(told(w, call) for _, call in asked))
    for (cell, _), (whose, by) in zip(asked, found, strict=True):
        tally.heard(cell, whose, by, strangers=len(cells) - 1)


async def tellers(w: World, call: Call) -> tuple[set[int], int, str]:
    """Return whose items are in the answer to *call*, how many of them are from before, and which lever gave it."""
    got = await w.send(call)
    if call.wire.name == "rerank":
        scores = [one["relevance_score"] for one in got.data["results"]]
        said = [(int(score), round(score % 1 * 100)) for score in scores]
    else:
        said = [(int(one["embedding"][0]), int(one["embedding"][1])) for one in got.data["data"]]
    return {who for who, _ in said}, sum(times == 1 for _, times in said), got.by


async def overlapping_batches(w: World, cells: Sequence[Cell], tally: Tally, protocol: str) -> None:
    """Ask from each cell for two items, then for one of them and a third."""
    for place, cell in enumerate(cells):
        whose, _, by = await tellers(w, cell.items(w, protocol, ["one", "two"]))
        for number in whose:
            tally.heard(cell, number, by, strangers=place)
    await w.gateway.background.drain()
    for cell in cells:
        whose, known, _ = await tellers(w, cell.items(w, protocol, ["two", "three"]))
        for number in whose:
            tally.heard(cell, number, "item_cache" if known == 1 else "provider", strangers=len(cells) - 1)


@asynccontextmanager
async def real(folder: Path, kind: str, **tables: Any) -> AsyncIterator[World]:
    """Open a gateway over one kind of store and index, on a loop whose time is real, for there are threads."""
    places = {"cache": {"store": "memory:"}, "recall": {"index": "memory:"}}
    if kind == "sqlite":
        places = {"cache": {"store": f"sqlite:///{folder}/cache.sqlite"},
                  "recall": {"index": f"sqlite:///{folder}/index.sqlite"}}  # fmt: skip
    provider, ledger = Telling(), MemoryLedger()
    config = configured(keys=KEYS, classes={PERSONAL: {"personal": True}}, **places, **tables)
    async with Gateway.open(
        config, clock=SystemClock(), rng=random.Random(0), ledger=ledger, environ=ENVIRON,
        providers={one.name: provider for one in config.providers}, embedder=Batching(Hashing(), threads=False),
    ) as gateway:  # fmt: skip
        w = World(gateway, provider, ledger)
        emboldened(w)
        yield w
