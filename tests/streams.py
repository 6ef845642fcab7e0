"""Streams of requests of which it is known how likely each candidate is to be wrong."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

from negawatt.indexes import Case
from negawatt.recall.rule import AcceptanceRule

LOGISTIC = (-1.0, -1.2, -0.4, -0.4, -0.6, -0.4, -1.2, 0.0)  # of the features: ln(odds of being wrong)
NOTHING = (-0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # the features say nothing: 31 % are wrong


class Lived(NamedTuple):
    """What a rule did with a stream, and what nobody but the test knows: how many hits were *wrong*."""

    rule: AcceptanceRule
    cases: list[Case]
    wrong: int
    served: int
    explored: int

    @property
    def requests(self) -> int:
        return len(self.cases)


def a_rule(delta: float = 0.02, *, alpha: float = 0.05, explore: float = 0.05, seed: int = 0) -> AcceptanceRule:
    return AcceptanceRule(delta=delta, alpha=alpha, explore=explore, rng=random.Random(seed))


def word(id: str, features: tuple[float, ...], *, wrong: bool, risk: float | None = None) -> Case:
    """Return the case of a candidate that somebody has compared."""
    return Case(
        id=id, at=0.0, request_class="default", tenant="default", tier="learned", action="missed", features=features,
        risk=risk, wrong=wrong,
    )  # fmt: skip


def lived(
    seed: int, rule: AcceptanceRule, n: int = 1500, weights: tuple[float, ...] = LOGISTIC, start: int = 0
) -> Lived:
    """Send *n* requests through *rule*: a fifth without a candidate, half with one that looks good."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.6, (n, 8))
    x[:, 0] = 1
    x[:, 1:7] += np.where(rng.random(n) < 0.6, 1.2, -1.0)[:, None]
    x[:, 7] = x[:, 1] * x[:, 6] / 2
    is_wrong = rng.random(n) < 1 / (1 + np.exp(-x @ np.array(weights)))
    alone = rng.random(n) < 0.2
    cases: list[Case] = []
    for i in range(n):
        features = () if alone[i] else tuple(map(float, x[i]))
        verdict = rule.decide(features or None)
        action = {"serve": "served", "explore": "explored", "miss": "missed"}[verdict.action]
        compared = None if action == "served" or not features else bool(is_wrong[i])
        cases.append(Case(
            id=f"{seed}-{start + i}", at=float(start + i), request_class="default", tenant="default", tier="learned",
            action=action, features=features, risk=verdict.risk if features else None, propensity=verdict.propensity,
            wrong=compared,
        ))  # fmt: skip
        if compared is not None:
            rule.learn(cases[-1])
    served = [i for i, case in enumerate(cases) if case.action == "served"]
    explored = sum(case.action == "explored" for case in cases)
    return Lived(rule, cases, int(is_wrong[served].sum()), len(served), explored)
