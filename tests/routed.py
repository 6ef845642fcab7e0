"""Prompts of a small world in which it is known on which of them the larger model is worth its money; and chance."""

from __future__ import annotations

import functools
from math import comb

import numpy as np

from negawatt.routing.gain import GainModel

TOPICS = 6
DIMENSIONS = 16


class World:
    """*n* prompts on six topics; the small model fails at half of them, the large one seldom: or at any, alike."""

    def __init__(self, n: int, seed: int, *, routable: bool = True, candidates: int = 2) -> None:
        rng = np.random.default_rng(seed)
        centres = np.random.default_rng(1).normal(size=(TOPICS, DIMENSIONS))
        topic = rng.integers(0, TOPICS, n)
        vectors = centres[topic] + 0.4 * rng.normal(size=(n, DIMENSIONS))
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        self.texts = [f"topic {word} " + "word " * int(rng.integers(3, 40)) for word in topic]
        hard = topic % 2 if routable else np.full(n, 0.5)
        columns = []
        for place in range(candidates):
            skill = place / (candidates - 1)
            columns.append(rng.random(n) < 0.95 - (0.7 - 0.6 * skill) * hard)
        self.outcomes = np.column_stack(columns).astype(float)
        self.topic = topic

    def fitted(self, seed: int = 0) -> GainModel:
        return GainModel.fit(self.texts, self.vectors, self.outcomes, seed=seed)


@functools.cache
def known_world() -> World:
    return World(400, 1)


@functools.cache
def known_model() -> GainModel:
    return known_world().fitted()


def most_by_chance(alpha: float, n: int, odds: float = 0.001) -> int:
    """Return how many of *n* may happen, each with chance *alpha*, before it is no chance any more."""
    tail, k = 0.0, n
    while k > 0:
        tail += comb(n, k) * alpha**k * (1 - alpha) ** (n - k)
        if tail > odds:
            return k
        k -= 1
    return 0
