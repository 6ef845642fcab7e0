"""The acceptance rules of all classes, and the cases that they learn from.

The cases are the truth: a rule is what follows from the cases of its class and tier. So a restart loses nothing,
replicas on one index learn from each other, and a person's word, given in another process, is heard. Where a rule has
found that the world has changed, that is written down among the cases too, and what came before counts for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from itertools import takewhile
from typing import NamedTuple

import msgspec

from negawatt.call import Call
from negawatt.clock import Clock
from negawatt.config import RequestClass, SemanticCache
from negawatt.errors import StoreError
from negawatt.indexes import FORGOT, HUMAN, Case, Cases
from negawatt.recall.features import Candidate
from negawatt.recall.rule import REMEMBERED, AcceptanceRule, Estimate, Verdict

log = logging.getLogger(__name__)

LEARNED = "learned"
CURATED = "curated"
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
        self._read: dict[tuple[str, str], _Reading] = {}
        self._own: dict[tuple[str, str], set[str]] = {}  # ids of the cases recorded since
        self._meanwhile: dict[tuple[str, str], list[Case]] = {}  # recorded while a rule is made anew

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

    async def decide(self, call: Call, candidate: Candidate | None) -> Verdict:
        """Say what to do with the *candidate* of *call*; None when it has none."""
        rule = await self.rule(call.request_class)
        if candidate is None:
            return rule.decide(None)
        return rule.decide(candidate.features, candidate.mark, watch=call.shadow)

    async def rule(self, request_class: str, tier: str = LEARNED) -> AcceptanceRule:
        """Return the rule of a class, after having read its cases; from time to time they are read again."""
        name = (request_class, tier)
        if name not in self._rules:
            self._rules[name] = self._fresh(request_class)
            await self._hear(name)
        elif self._clock.monotonic() - self._read[name].at > _RELOAD_S:
            self._read[name] = self._read[name]._replace(at=self._clock.monotonic())
            self._spawn(self._hear(name))
        return self._rules[name]

    def _fresh(self, request_class: str) -> AcceptanceRule:
        return AcceptanceRule(
            delta=budget_of(self._settings, self._classes, request_class), alpha=self._settings.alpha,
            explore=self._settings.explore, rng=self._rng,
        )  # fmt: skip

    async def _hear(self, name: tuple[str, str]) -> None:
        """Read the cases of a rule; make it anew where they say what it does not know."""
        now = self._clock.monotonic()
        last = self._read[name] = self._read.get(name, _NEVER)._replace(at=now)
        meanwhile: list[Case] = []
        self._meanwhile[name] = meanwhile
        try:
            cases = await self._cases.recent(*name, limit=REMEMBERED)
            said = _said(cases)
            if said != last.said or _others(cases, last.newest, self._own.get(name, set())):
                fresh, there = self._fresh(name[0]), {case.id for case in cases}
                await asyncio.to_thread(fresh.replay, cases)
                fresh.replay(case for case in meanwhile if case.id not in there)
                self._rules[name] = fresh
            self._own[name] = {case.id for case in meanwhile}
            self._read[name] = _Reading(now, cases[-1].id if cases else None, said)
        except StoreError as error:
            log.warning("what the semantic cache learned of class %s could not be read: %s", name[0], error.message)
        finally:
            if self._meanwhile.get(name) is meanwhile:
                del self._meanwhile[name]

    async def record(self, case: Case) -> None:
        """Keep *case*, and learn from it if somebody has compared."""
        name, drift = (case.request_class, case.tier), None
        self._is_ours(case)
        if case.wrong is not None and case.features:
            rule = await self.rule(*name)
            if rule.learn(case):
                drift = msgspec.structs.replace(
                    case, id=f"{case.id}-drift", action=FORGOT, features=(), risk=None, propensity=None, wrong=None,
                    basis=None, review=False, question="", matched="", answer="", fresh=None,
                )  # fmt: skip
                self._is_ours(drift)
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

    def _is_ours(self, case: Case) -> None:
        name = (case.request_class, case.tier)
        self._own.setdefault(name, set()).add(case.id)
        if name in self._meanwhile:
            self._meanwhile[name].append(case)

    def drawn_for_review(self) -> bool:
        return self._rng.random() < self._settings.review

    def estimates(self) -> dict[tuple[str, str], tuple[float, Estimate | None, int]]:
        """Return of each rule its budget, the estimated share of wrong hits, and how often it found a drift."""
        return {name: (rule.delta, rule.estimate(), rule.drifts) for name, rule in sorted(self._rules.items())}


class _Reading(NamedTuple):
    """When the cases of a rule were read, and what was in them."""

    at: float  # monotonic
    newest: str | None  # id of the newest case
    said: frozenset[tuple[str, bool | None]]


_NEVER = _Reading(0.0, None, frozenset())


def _others(cases: list[Case], newest: str | None, own: set[str]) -> bool:
    """True when *cases* has one after *newest*, as far as that is there, that is not our *own*."""
    after = takewhile(lambda case: case.id != newest, reversed(cases))
    return any(case.id not in own for case in after)


def _said(cases: list[Case]) -> frozenset[tuple[str, bool | None]]:
    """Return what another process may have written into *cases*: drifts, and the words of people."""
    return frozenset((case.id, case.wrong) for case in cases if case.action == FORGOT or case.basis == HUMAN)


def budget_of(settings: SemanticCache, classes: Mapping[str, RequestClass], request_class: str) -> float:
    """Return the error budget of a class: its own, or that of the lever."""
    policy = classes.get(request_class)
    return settings.max_error if policy is None or policy.max_error is None else policy.max_error
