"""What the suites over indexes need: every kind of index, opened at a place of its own, and vectors."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from backends import ManualClock

from negawatt.indexes import Case, Index
from negawatt.indexes.memory import MemoryIndex
from negawatt.indexes.postgres import PostgresIndex
from negawatt.indexes.sqlite import SqliteIndex
from negawatt.registry import Url
from negawatt.stores.postgres_database import place_of

MODEL, DIMENSIONS = "words-8", 8
SIZE = len("k") + 4 * DIMENSIONS  # of an entry without mark and value, under a key of one character
KINDS = ("memory", "sqlite", "postgres")
Open = Callable[..., Index]


@asynccontextmanager
async def opening(kind: str, clock: ManualClock, folder: Path, postgres: Callable[[], Any]) -> AsyncIterator[Open]:
    """Give a function that opens indexes of one kind; equal *place*: the same file or schema. Closes them all."""
    opened: list[Index] = []
    run = uuid.uuid4().hex[:24]

    def opener(place: str | None = None, *, model: str = MODEL, dimensions: int = DIMENSIONS, **more: Any) -> Index:
        name = place or f"p{len(opened)}"
        wanted = {"model": model, "dimensions": dimensions, **more}
        if kind == "memory":
            opened.append(MemoryIndex(clock, **wanted))
        elif kind == "sqlite":
            opened.append(SqliteIndex(folder / f"{name}.sqlite", clock, **wanted))
        else:
            opened.append(PostgresIndex(place_at(postgres(), f"i{run}_{name}"), clock, **wanted))
        return opened[-1]

    try:
        yield opener
    finally:
        for index in opened:
            await index.close()


def place_at(server: Any, schema: str, *, role: str = "postgres", timeout_ms: int = 20_000) -> Any:
    """Return a place on *server*, with so much time that a loaded machine does not matter."""
    text = server.url(role=role, schema=schema, timeout_ms=str(timeout_ms))
    return place_of(Url.parse(text, "recall.index"), "recall.index", more=())


def at(degrees: float) -> np.ndarray:
    """Return a vector of length 1 at an angle in one plane: of two, the cosine is that of the angle between them."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[0], vector[1] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return vector


def some(n: int, *, seed: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Return *n* vectors of length 1, shape (n, dimensions)."""
    rows = np.random.default_rng(seed).standard_normal((n, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def case(id: str, at: float, **fields: Any) -> Case:
    """Return a case with something in every field."""
    usual: dict[str, Any] = {
        "request_class": "faq", "tenant": "acme", "tier": "learned", "action": "explored", "features": (0.5, 0.25),
        "risk": 0.125, "propensity": 0.05, "key": "k", "question": "où?", "matched": "where?", "answer": "here",
    }  # fmt: skip
    return Case(id=id, at=at, **{**usual, **fields})
