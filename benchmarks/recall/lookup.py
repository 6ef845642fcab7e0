"""How long a lookup takes among many entries of one scope, and how many of the hits it finds.

The vectors are synthetic: unit vectors in clusters, with queries that are an entry and some noise (cosine 0.85 to
0.95), and as many that have nothing near. Recall is the share of the true nearest at 0.8 or more that the index finds.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from negawatt.clock import SystemClock
from negawatt.indexes.memory import MemoryIndex
from negawatt.indexes.nearest import Vectors

DIMENSIONS = 384
QUERIES = 1000
SEED = 20261124


def vectors(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return *n* unit vectors in clusters of about fifty, as questions come: shape (n, 384)."""
    centres = rng.standard_normal((max(1, n // 50), DIMENSIONS), np.float32)
    rows = centres[rng.integers(0, len(centres), n)]
    rows += rng.standard_normal(rows.shape, np.float32) * np.float32(0.7)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def near(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a query for each of *rows*: at a cosine of 0.85 to 0.95 from it."""
    noise = rng.standard_normal(rows.shape, np.float32)
    noise -= (noise * rows).sum(axis=1, keepdims=True) * rows
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(0.85, 0.95, (len(rows), 1)).astype(np.float32)
    return cosine * rows + np.sqrt(1 - cosine**2) * noise


def exact(rows: np.ndarray, queries: np.ndarray, at_once: int = 50_000) -> list[tuple[int, float]]:
    """Return place and similarity of the row nearest to each of *queries*."""
    places, similarities = np.zeros(len(queries), np.int64), np.full(len(queries), -2.0, np.float32)
    for start in range(0, len(rows), at_once):
        found = rows[start : start + at_once] @ queries.T
        best = found.argmax(axis=0)
        nearer = found[best, np.arange(len(queries))]
        better = nearer > similarities
        places[better], similarities[better] = best[better] + start, nearer[better]
    return list(zip(places.tolist(), similarities.tolist(), strict=True))


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(sizes: list[int], *, with_embedding_ms: float | None = None) -> dict[str, dict[str, float | int | None]]:
    """Return, for each of *sizes*, p50 and p99 in ms, recall, and bytes of memory for an entry.

    Each in a process of its own: memory that another size has left would be counted as free.
    """
    found = {}
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[str(size)] = pool.submit(_one, size, with_embedding_ms).result()
    return found


def _one(size: int, embedding_ms: float | None) -> dict[str, float | int | None]:
    return asyncio.run(_measured(size, embedding_ms))


async def _measured(n: int, embedding_ms: float | None) -> dict[str, float | int | None]:
    rng = np.random.default_rng(SEED)
    rows = vectors(n, rng)
    queries = np.concatenate([near(rows[rng.integers(0, n, QUERIES // 2)], rng), vectors(QUERIES // 2, rng)])
    truth = exact(rows, queries)
    before = resident()
    index = MemoryIndex(SystemClock(), model="synthetic", dimensions=DIMENSIONS, max_entries=2 * n, max_bytes=2**40)
    began = time.perf_counter()
    _load(index, rows)
    built_s = time.perf_counter() - began
    spent, found = [], 0
    hits = sum(similarity >= 0.8 for _, similarity in truth)
    for query, (place, similarity) in zip(queries, truth, strict=True):
        began = time.perf_counter()
        neighbours = await index.nearest("scope", query, k=12)
        value = await index.get(neighbours[0].key) if neighbours else None
        spent.append((time.perf_counter() - began) * 1000)
        found += similarity >= 0.8 and neighbours[0].key == str(place) and value is not None
    p50, p99 = (float(np.percentile(spent, q)) for q in (50, 99))
    return {
        "p50_ms": round(p50, 3), "p99_ms": round(p99, 3),
        "p50_with_embedding_ms": None if embedding_ms is None else round(p50 + embedding_ms, 3),
        "recall": round(found / hits, 4), "hits": hits, "n": len(queries),
        "bytes_per_entry": round((resident() - before) / n), "built_s": round(built_s, 1),
    }  # fmt: skip


def _load(index: MemoryIndex, rows: np.ndarray) -> None:
    """Fill *index* at once: one by one would measure the loop, and not the lookup."""
    from negawatt.indexes.memory import _Item

    keys = [str(i) for i in range(len(rows))]
    held = Vectors(DIMENSIONS)
    held.load(keys, rows.copy(), [b"m" * 16] * len(rows), np.full(len(rows), np.inf))
    index._scopes["scope"] = held
    for key in keys:
        index._items[key] = _Item(b"v", "scope", float("inf"), (), 1600)
