"""What the guards are worth on a stream: precision at an equal share of hits, and the right hits that each one costs.

A static similarity threshold answers a stream from an empty start, without the guards at *AT*, then with them at the
threshold at which as many are answered. No rule learns here: this is about the guards alone.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from negawatt.recall.guards import conflict
from negawatt.recall.reading import Reading, read

AT = 0.8
_HALVINGS = 7


def ablated(texts: list[str], labels: list[str], vectors: np.ndarray, order: np.ndarray) -> dict:
    """Return hits and precision without guards and with them, and what each guard vetoed at *AT*, right and wrong."""
    readings = [read(text) for text in texts]
    plain = _streamed(labels, vectors, order, AT, None)
    vetoes = _streamed(labels, vectors, order, AT, readings)["vetoes"]
    low, high = 0.3, AT
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        few = _streamed(labels, vectors, order, middle, readings)["hit"] < plain["hit"]
        low, high = (low, middle) if few else (middle, high)
    guarded = _streamed(labels, vectors, order, low, readings)
    rows = {name: {key: one[key] for key in ("hit", "precision", "at")} for name, one in
            (("without", plain), ("with", guarded))}  # fmt: skip
    return {**rows, "vetoes": vetoes, "n": len(texts)}


def _streamed(
    labels: list[str], vectors: np.ndarray, order: np.ndarray, at: float, readings: list[Reading] | None
) -> dict:
    kept: list[int] = []
    rows = np.empty((len(labels), vectors.shape[1]), np.float32)
    hits = right = 0
    vetoes: Counter[tuple[str, bool]] = Counter()
    for i in order:
        if kept:
            similarities = rows[: len(kept)] @ vectors[i]
            best = kept[int(similarities.argmax())]
            if similarities.max() >= at:
                same = labels[best] == labels[i]
                veto = None if readings is None else conflict(readings[i], readings[best])
                if veto is None:
                    hits += 1
                    right += same
                    continue
                vetoes[veto, same] += 1
        rows[len(kept)] = vectors[i]
        kept.append(int(i))
    named = {veto: {"right": vetoes[veto, True], "wrong": vetoes[veto, False]} for veto, _ in sorted(vetoes)}
    return {
        "hit": round(hits / len(labels), 4), "precision": round(right / hits, 4) if hits else None, "at": round(at, 4),
        "vetoes": named,
    }  # fmt: skip
