"""How long a decision takes, on one core, one prompt at a time."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from negawatt.embedders.opening import open_embedder
from negawatt.routing.gain import GainModel
from routes.tables import Table

SHORT = 200  # characters
_WARM, _TIMED = 30, 400


def measure(table: Table, labels: int) -> dict:
    """Return p50 and p99 in ms from a short prompt's text to a choice, with its embedding and without, and rate."""
    rows = np.random.default_rng(0).permutation(len(table.texts))
    fit = rows[:labels]
    outcomes = np.column_stack([table.weak, table.strong])
    model = GainModel.fit([table.texts[i] for i in fit], table.vectors[fit], outcomes[fit], seed=0)
    threshold = float(np.median(outcomes[fit, 1] - outcomes[fit, 0]))
    rest = rows[labels:]
    short = [i for i in rest if len(table.texts[i]) < SHORT][: _WARM + _TIMED]

    def choice(text: str, vector: np.ndarray) -> int:
        return int(model.predict([text], vector).gains[0, 0] > threshold)

    async def work() -> tuple[list[float], list[float]]:
        embedder = open_embedder("default:", "embedder", threads=False)

        async def decide(text: str) -> None:
            choice(text, await embedder.embed([text]))

        return await timed(decide, [table.texts[i] for i in short]), await timed(
            decide, [table.texts[i] for i in rest[: _WARM + _TIMED]]
        )

    with_embedding, as_they_come = asyncio.run(work())
    without = []
    for i in short:
        began = time.perf_counter()
        choice(table.texts[i], table.vectors[i : i + 1])
        without.append((time.perf_counter() - began) * 1000)
    return {
        "decision_ms": quantiles(with_embedding), "decision_without_embedding_ms": quantiles(without[_WARM:]),
        "requests_per_s": round(1000 / float(np.mean(as_they_come)), 1),
        "requests_per_s_without_embedding": round(1000 / float(np.mean(without[_WARM:])), 1),
    }  # fmt: skip


async def timed(decide, texts: list[str]) -> list[float]:
    spent = []
    for text in texts:
        began = time.perf_counter()
        await decide(text)
        spent.append((time.perf_counter() - began) * 1000)
    return spent[_WARM:]


def quantiles(spent: list[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(spent, share)), 3) for name, share in (("p50", 0.5), ("p99", 0.99))}
