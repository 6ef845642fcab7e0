"""What the semantic cache has learned, in figures: from the cases alone, so that any process can say it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from negawatt.config import Config
from negawatt.indexes import Case, Cases
from negawatt.recall.learner import LEARNED, budget_of
from negawatt.recall.rule import REMEMBERED, AcceptanceRule

_NORMAL = 1.96

Tier = tuple[str, str]  # request class, and "learned" or "curated"


async def learned_rows(config: Config, cases: Cases) -> list[dict[str, Any]]:
    """Return a row for each class and tier, sorted. Raises `StoreError`.

    *wrong_share* is ``{mean, low, high}``, or None where nothing is known. For learned answers it is what the
    acceptance rule estimates, of the newest 20,000 requests, with its own confidence (``1 - alpha`` between
    low and high). For curated answers, of which nobody asks the model, it is what people found wrong among those that
    they judged (Wilson's interval, 95 %); how many were given is not known here, for only what is drawn for review is
    written down.
    """
    rows = []
    for name in await cases.classes():  # a rule is made of many cases: not while others wait
        rows.append(await asyncio.to_thread(_row, config, name, await cases.recent(*name, limit=REMEMBERED)))
    return rows


def _row(config: Config, name: Tier, cases: list[Case]) -> dict[str, Any]:
    settings = config.levers.semantic_cache
    delta = budget_of(settings, config.classes, name[0])
    rule = AcceptanceRule(delta=delta, alpha=settings.alpha, explore=settings.explore, rng=random.Random(0))
    learned = name[1] == LEARNED
    wrong_share = _judged(cases)
    if learned:
        rule.replay(cases)
        found = rule.estimate()
        wrong_share = None if found is None else {"mean": found.central, "low": found.low, "high": found.high}
    return {
        "class": name[0],
        "tier": name[1],
        "budget": rule.delta if learned else None,
        "requests": rule.requests if learned else None,
        "wrong_share": wrong_share,
        "served": sum(case.action == "served" for case in cases) if learned else None,
        "explored": sum(case.action == "explored" for case in cases),
        "compared": sum(case.wrong is not None for case in cases),
        "human": sum(case.basis == "human" for case in cases),
        "waiting": sum(case.review and case.basis != "human" for case in cases),
        "threshold": rule.threshold if learned else None,
    }


def _judged(cases: list[Case]) -> dict[str, float] | None:
    judged = [bool(case.wrong) for case in cases if case.basis == "human"]
    if not judged:
        return None
    n, share, z = len(judged), sum(judged) / len(judged), _NORMAL
    middle, spread = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (max(0.0, min(1.0, (middle + sign * spread) / (1 + z * z / n))) for sign in (-1, 1))
    return {"mean": share, "low": low, "high": high}
