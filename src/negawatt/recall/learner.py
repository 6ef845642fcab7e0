"""The acceptance rules of all classes, and the cases that they learn from.

The cases are the truth: a rule is what follows from the cases of its class and tier. So a restart loses nothing,
replicas on one index learn from each other, and a person's word, given in another process, is heard. Where a rule has
found that the world has changed, that is written down among the cases too, and what came before counts for nobody.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from negawatt.call import Call
from negawatt.clock import Clock
from negawatt.config import RequestClass, SemanticCache
from negawatt.errors import StoreError
from negawatt.indexes import Case, Cases
from negawatt.recall.rule import AcceptanceRule, Estimate, Verdict

log = logging.getLogger(__name__)

LEARNED = "learned"
CURATED = "curated"
FORGOT = "forgot"  # action of the case that says: what came before it is forgotten
_REMEMBERED = 20_000  # cases of one class and tier
_RELOAD_S = 60.0

Alert = Callable[[str, str, str], None]  # name, request class, message


class Learner:
    """Knows the rule of each class. *alert* is called when one finds that the world has changed."""

    def __init__(  # noqa: PLR0913
        self,
        settings: SemanticCache,
        classes: Mapping[str, RequestClass],
        *,
        cases: Cases,
        clock: Clock,
        rng: random.Random,
        alert: Alert,
        spawn: Callable[[Awaitable[None]], object],
    ) -> None:
        self._settings = settings
        self._classes = classes
        self._cases = cases
        self._clock = clock
        self._rng = rng
        self._alert = alert
        self._spawn = spawn
        self._rules: dict[tuple[str, str], AcceptanceRule] = {}
        self._read_at: dict[tuple[str, str], float] = {}
        self._forgot: dict[tuple[str, str], str | None] = {}  # the newest case that said so

    async def remember(self) -> None:
        """Read what was learned of every class, so that it is known, and shown, before the first call."""
        try:
            names = await self._cases.classes()
        except StoreError as error:
            log.warning("what the semantic cache learned could not be read: %s", error.message)
            return
        for request_class, tier in names:
            if tier == LEARNED:
                await self.rule(request_class)

    async def decide(self, call: Call, features: tuple[float, ...] | None) -> Verdict:
        """Say what to do with the candidate of *call*, which has *features*; None when it has no candidate."""
        rule = await self.rule(call.request_class)
        verdict = rule.decide(features)
        if call.shadow and verdict.action == "serve":
            return Verdict("explore", verdict.risk, 1.0)  # the model is asked anyway
        return verdict

    async def rule(self, request_class: str, tier: str = LEARNED) -> AcceptanceRule:
        """Return the rule of a class, after having read its cases; from time to time they are read again."""
        name = (request_class, tier)
        rule = self._rules.get(name)
        if rule is None:
            policy = self._classes.get(request_class)
            budget = self._settings.max_error if policy is None or policy.max_error is None else policy.max_error
            rule = self._rules[name] = AcceptanceRule(
                delta=budget, alpha=self._settings.alpha, explore=self._settings.explore, rng=self._rng
            )
            await self._read(name, rule)
        elif self._clock.monotonic() - self._read_at[name] > _RELOAD_S:
            self._read_at[name] = self._clock.monotonic()
            self._spawn(self._read(name, rule))
        return rule

    async def _read(self, name: tuple[str, str], rule: AcceptanceRule) -> None:
        self._read_at[name] = self._clock.monotonic()
        try:
            cases = await self._cases.recent(*name, limit=_REMEMBERED)
        except StoreError as error:
            log.warning("what the semantic cache learned of class %s could not be read: %s", name[0], error.message)
            return
        forgot, cases = since_drift(cases)
        news = forgot != self._forgot.get(name) or any(case.basis == "human" for case in cases)
        if news or len(cases) >= rule.requests:
            self._forgot[name] = forgot
            rule.replay(cases)

    async def record(self, case: Case) -> None:
        """Keep *case*, and learn from it if somebody has compared."""
        drift = None
        if case.wrong is not None and case.features:
            rule = await self.rule(case.request_class, case.tier)
            if rule.learn(case.id, case.features, risk=case.risk, wrong=case.wrong):
                drift = msgspec.structs.replace(
                    case, id=f"{case.id}-drift", action=FORGOT, features=(), risk=None, propensity=None, wrong=None,
                    basis=None, review=False, question="", matched="", answer="", fresh=None,
                )  # fmt: skip
                self._forgot[case.request_class, case.tier] = drift.id
                self._alert(
                    "semantic_cache_drift", case.request_class,
                    f"too many guesses of class {case.request_class} turned out wrong: what was learned is forgotten, "
                    "and nothing is answered until the evidence is good again",
                )  # fmt: skip
        try:
            await self._cases.add(case)
            if drift is not None:
                await self._cases.add(drift)
        except StoreError as error:
            log.warning("a case of the semantic cache was not kept: %s", error.message)

    def drawn_for_review(self) -> bool:
        return self._rng.random() < self._settings.review

    def estimates(self) -> dict[tuple[str, str], tuple[float, Estimate | None, int]]:
        """Return of each rule its budget, the estimated share of wrong hits, and how often it found a drift."""
        return {name: (rule.delta, rule.estimate(), rule.drifts) for name, rule in sorted(self._rules.items())}


def since_drift(cases: list[Case]) -> tuple[str | None, list[Case]]:
    """Return the id of the newest of *cases* that says that what came before is forgotten, and the cases after it."""
    for i in range(len(cases) - 1, -1, -1):
        if cases[i].action == FORGOT:
            return cases[i].id, cases[i + 1 :]
    return None, cases
