"""How long a decision takes, on one core, one prompt at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np

from negawatt.embedders.opening import open_embedder
from negawatt.routing.gain import GainModel
from routes.tables import Table

SHORT = (4, 12)  # words
_WARM, _TIMED = 30, 400


def measure(table: Table, labels: int) -> dict:
    """Return what a decision takes, from a text to a choice.

    ``decision_ms`` for short prompts (first lines of 4 to 12 words) with their embedding,
    ``decision_without_embedding_ms`` for the same prompts whose vectors are there, ``requests_per_s`` for whole prompts
    as they come, with embedding. ``_cpu`` is CPU time, which other work on the machine disturbs less.
    """
    rows = np.random.default_rng(0).permutation(len(table.texts))
    fit, rest = rows[:labels], rows[labels:]
    outcomes = np.column_stack([table.weak, table.strong])
    model = GainModel.fit([table.texts[i] for i in fit], table.vectors[fit], outcomes[fit], seed=0)
    threshold = float(np.median(outcomes[fit, 1] - outcomes[fit, 0]))
    first_lines = dict.fromkeys(table.texts[i].split("\n", 1)[0] for i in rest)
    short = [line for line in first_lines if SHORT[0] <= len(line.split()) <= SHORT[1]][: _WARM + _TIMED]
    embedder = open_embedder("default:", "embedder", threads=False)
    vectors: dict[str, np.ndarray] = {}

    def choice(text: str, vector: np.ndarray) -> int:
        return int(model.predict([text], vector).gains[0, 0] > threshold)

    async def decide(text: str) -> None:
        vectors[text] = await embedder.embed([text])
        choice(text, vectors[text])

    async def decide_known(text: str) -> None:
        choice(text, vectors[text])

    async def work() -> list[np.ndarray]:
        whole = [table.texts[i] for i in rest[: _WARM + _TIMED]]
        return [await timed(decide, short), await timed(decide_known, short), await timed(decide, whole)]

    with_embedding, without, as_they_come = asyncio.run(work())
    return {
        "decision_ms": quantiles(with_embedding[0]), "decision_cpu_ms": quantiles(with_embedding[1]),
        "decision_without_embedding_ms": quantiles(without[0]),
        "requests_per_s": round(1000 / float(as_they_come[0].mean()), 1),
        "requests_per_s_cpu": round(1000 / float(as_they_come[1].mean()), 1),
        "requests_per_s_without_embedding": round(1000 / float(without[0].mean()), 1), "decisions": len(short) - _WARM,
    }  # fmt: skip


async def timed(decide: Callable[[str], Awaitable[None]], texts: list[str]) -> np.ndarray:
    """Return the milliseconds of each decision, of the clock and of this process's CPU: shape (2, decisions)."""
    spent = []
    for text in texts:
        began, cpu = time.perf_counter(), time.process_time()
        await decide(text)
        spent.append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - cpu)))
    return np.array(spent[_WARM:]).T


def quantiles(spent: np.ndarray) -> dict[str, float]:
    return {name: round(float(np.quantile(spent, share)), 3) for name, share in (("p50", 0.5), ("p99", 0.99))}
