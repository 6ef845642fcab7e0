"""Worlds with a semantic cache: an embedder that compares words, and rules that have seen enough."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from worlds import Fake, World, settled, world

from negawatt.embedders.batching import Batching
from negawatt.embedders.hashing import Hashing
from negawatt.errors import EmbedderError
from negawatt.indexes import Case, Neighbour
from negawatt.levers.semantic_cache import SemanticCache
from negawatt.recall.features import candidate_of
from negawatt.recall.learner import _NEVER
from negawatt.recall.rule import Verdict


class Bold:
    """A rule that serves every candidate; what it is told is written down."""

    def __init__(self, action: str = "serve") -> None:
        self.action = action
        self.told: list[tuple[str, bool]] = []
        self.requests = 0
        self.delta, self.drifts = 0.01, 0

    def decide(self, features: tuple[float, ...] | None, answer: bytes = b"", *, watch: bool = False) -> Verdict:
        self.requests += 1
        if features is None:
            return Verdict("miss", 1.0)
        return Verdict("explore" if watch else self.action, 0.001, 1.0 if watch else 0.05)

    def learn(self, case: Case) -> bool:
        assert case.wrong is not None
        self.told.append((case.id, case.wrong))
        return False

    def replay(self, cases: list[Case]) -> None:
        """Nothing to learn."""

    def estimate(self) -> None:
        return None


class Angles:
    """An embedder that is told where each text lies, by its first word: its vector at so many degrees."""

    id, dimensions, learned = "angles", 2, True

    def __init__(self, **degrees: float) -> None:
        self.degrees = degrees
        self.asked: list[str] = []

    async def embed(self, texts: list[str]) -> Any:
        self.asked += texts
        radians = np.radians([self.degrees[text.split()[0]] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)

    async def close(self) -> None:
        """Nothing is open."""


class Down(Angles):
    """One that fails."""

    async def embed(self, texts: list[str]) -> Any:
        raise EmbedderError("no route")


SEMANTIC = {
    "exact_cache": {"mode": "off"}, "coalesce": {"mode": "off"}, "retry": {"attempts": 1},
    "semantic_cache": {"mode": "on", "review": 0},
}  # fmt: skip


def semantic(**fields: Any) -> dict[str, Any]:
    """Return the levers' configuration with *fields* of the semantic cache."""
    return {**SEMANTIC, "semantic_cache": {**SEMANTIC["semantic_cache"], **fields}}  # type: ignore[dict-item]


def bold(w: World, request_class: str = "default", action: str = "serve") -> Bold:
    """Let the rule of a class serve everything; return it."""
    rule = Bold(action)
    assert w.gateway.learner is not None
    w.gateway.learner._rules[request_class, "learned"] = rule  # type: ignore[assignment]
    w.gateway.learner._read[request_class, "learned"] = _NEVER._replace(at=float("inf"))
    return rule


def lever_of(w: World) -> SemanticCache:
    """Return the semantic cache of the gateway."""
    return next(step.lever for step in w.gateway.pipeline._steps if step.name == "semantic_cache")  # type: ignore[return-value]


def evidence(count: int, *, start: int = 0, wrong_near: bool = False) -> list[Case]:
    """Return *count* cases from which a rule learns: neighbours that agree were right, lone distant ones wrong."""
    cases = []
    for i in range(count):
        near = i % 2 == 0
        similarity = (0.97 if near else 0.55) - 0.002 * (i % 50)
        neighbours = [
            Neighbour(f"k{j}", similarity - 0.01 * j * (1 + i % 3), b"a" if near else bytes([j])) for j in range(4)
        ]
        candidate = candidate_of(neighbours)
        assert candidate is not None
        wrong = (not near) or (wrong_near and i % 8 == 0)
        cases.append(Case(
            id=f"c{start + i}", at=float(i), request_class="default", tenant="default", tier="learned",
            action="missed", features=candidate.features, risk=None, wrong=wrong, basis="exact",
        ))  # fmt: skip
    return cases


@asynccontextmanager
async def recalling(provider: Fake | None = None, **tables: Any):
    """Open a `World` with a semantic cache that compares words, in the thread of the loop."""
    tables.setdefault("levers", SEMANTIC)
    async with world(provider, embedder=Batching(Hashing(), threads=False), **tables) as w:
        yield w
        await settled()
