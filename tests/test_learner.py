"""The learner: a rule for each class, which is what follows from its cases, wherever they were written."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recalls import evidence
from worlds import ManualClock, bare_call

from negawatt.config import RequestClass, SemanticCache
from negawatt.errors import StoreError
from negawatt.indexes import FORGOT, Case, Neighbour
from negawatt.indexes.cases import MemoryCases
from negawatt.indexes.sqlite import SqliteIndex
from negawatt.recall.features import Candidate
from negawatt.recall.learner import Learner
from negawatt.recall.rule import AcceptanceRule

GOOD = evidence(1)[0].features
CANDIDATE = Candidate((Neighbour("k", 0.9, b""),), GOOD)
CLASSES = {"strict": RequestClass(max_error=0.001), "lax": RequestClass(max_error=0.1), "plain": RequestClass()}


class Desk:
    """A learner, with what it spawned and what it said."""

    def __init__(self, cases: Any = None, clock: ManualClock | None = None, **settings: Any) -> None:
        self.clock = clock or ManualClock()
        self.cases = MemoryCases() if cases is None else cases
        self.alerts: list[tuple[str, str, str]] = []
        self.spawned: list[asyncio.Task[None]] = []
        self.learner = Learner(
            SemanticCache(**settings), CLASSES, cases=self.cases, clock=self.clock, rng=random.Random(1),
            alert=lambda *words: self.alerts.append(words), spawn=self._spawn,
        )  # fmt: skip

    def _spawn(self, work: Awaitable[None]) -> object:
        self.spawned.append(asyncio.ensure_future(work))
        return self.spawned[-1]

    async def heard(self, seconds: float = 61.0, request_class: str = "default") -> AcceptanceRule:
        """Let time pass and somebody ask; return the rule when what that set off has ended."""
        self.clock.now += seconds
        await self.learner.rule(request_class)
        await asyncio.gather(*self.spawned)
        return await self.learner.rule(request_class)

    async def warm(self, count: int = 600) -> AcceptanceRule:
        for case in evidence(count):
            await self.learner.record(case)
        rule = await self.learner.rule("default")
        for i in range(400):
            rule.decide(GOOD if i % 4 == 0 else None)
        return rule


async def test_each_class_has_a_rule_of_its_own_with_its_own_budget():
    """The class's, or the lever's where it names none; what one class learned says nothing of another."""
    desk = Desk(max_error=0.02)
    budgets = {name: (await desk.learner.rule(name)).delta for name in ("strict", "lax", "plain", "default")}
    assert budgets == {"strict": 0.001, "lax": 0.1, "plain": 0.02, "default": 0.02}
    await desk.warm()
    assert (await desk.learner.rule("default")).threshold > 0
    assert (await desk.learner.rule("plain")).requests == 0
    assert await desk.learner.rule("plain") is not await desk.learner.rule("plain", "curated")


async def test_a_restart_loses_nothing(tmp_path: Path):
    """Another process that opens the same file comes to the same rule."""
    index = SqliteIndex(tmp_path / "i.sqlite", ManualClock(), model="m", dimensions=4)
    first = await Desk(index.cases).warm()
    await index.close()
    index = SqliteIndex(tmp_path / "i.sqlite", ManualClock(), model="m", dimensions=4)
    try:
        again = await Desk(index.cases).learner.rule("default")
        assert again.requests == 600
        assert again.risk(GOOD) == pytest.approx(first.risk(GOOD), rel=0.2)
        assert again.risk(GOOD) < 0.1
    finally:
        await index.close()


async def test_replicas_on_one_index_learn_from_each_other():
    """What one has seen, the other knows within a minute; not before, and without asking at every call."""
    one = Desk()
    other = Desk(one.cases)
    await other.learner.rule("default")
    for case in evidence(600):
        await one.learner.record(case)
    assert (await other.heard(59)).risk(GOOD) == 1.0
    assert (await other.heard(2)).risk(GOOD) < 0.1
    assert len(other.spawned) == 1


async def test_a_persons_word_given_elsewhere_is_heard_within_a_minute():
    """Cases that seemed right are judged wrong in another process: the risk goes up, though no request came."""
    desk = Desk()
    rule = await desk.warm()
    before = rule.risk(GOOD)
    for i in range(0, 100, 2):
        assert await desk.cases.label(f"c{i}", wrong=True, basis="human")
    assert (await desk.heard(59)).risk(GOOD) == before
    assert (await desk.heard(2)).risk(GOOD) > 2 * before


async def test_a_drift_is_an_alert_and_what_came_before_is_forgotten_by_all():
    """By this process, by its next reading of the cases, by a replica, and after a restart."""
    desk = Desk()
    replica = Desk(desk.cases)
    rule = await desk.warm()
    assert (await replica.learner.rule("default")).risk(GOOD) < 0.1
    for i in range(100):
        if not rule.drifts:
            case = msgspec.structs.replace(evidence(1)[0], id=f"d{i}", at=1000.0 + i, wrong=True, risk=rule.risk(GOOD))
            await desk.learner.record(case)
    assert [(name, request_class) for name, request_class, _ in desk.alerts] == [("semantic_cache_drift", "default")]
    for one in (rule, await desk.heard(), await replica.heard(), await Desk(desk.cases).learner.rule("default")):
        assert (one.threshold, one.risk(GOOD)) == (0.0, 1.0)
    marks = [case for case in await desk.cases.recent("default", "learned", limit=9_999) if case.action == FORGOT]
    assert [(case.features, case.question, case.wrong) for case in marks] == [((), "", None)]


async def test_after_a_drift_new_cases_count():
    """Those after the mark, in this process and in the next."""
    desk = Desk()
    rule = await desk.warm()
    for i in range(100):
        if not rule.drifts:
            await desk.learner.record(
                msgspec.structs.replace(evidence(1)[0], id=f"d{i}", at=1000.0 + i, wrong=True, risk=rule.risk(GOOD))
            )
    for case in evidence(600, start=10_000):
        await desk.learner.record(msgspec.structs.replace(case, at=5_000.0 + case.at))
    assert rule.risk(GOOD) < 0.1
    assert (await Desk(desk.cases).learner.rule("default")).risk(GOOD) == pytest.approx(rule.risk(GOOD), abs=0.01)


async def test_in_shadow_what_would_be_served_is_compared():
    """The model is asked anyway, so the case says so."""
    desk = Desk()
    await desk.warm()
    calls = [bare_call().with_(shadow=shadow) for shadow in (False, True)]
    actions = [{(await desk.learner.decide(call, CANDIDATE)).action for _ in range(60)} for call in calls]
    assert actions == [{"serve", "explore"}, {"explore"}]


async def test_cases_that_cannot_be_read_or_kept_stop_nobody(caplog: pytest.LogCaptureFixture):
    """An index that is down: nothing is served, and the log says what is the matter."""

    class Down:
        async def recent(self, *_: object, limit: int) -> list[Case]:
            raise StoreError("no route")

        async def add(self, case: Case) -> None:
            raise StoreError("no route")

    desk = Desk(Down())
    with caplog.at_level(logging.WARNING):
        await desk.learner.record(evidence(1)[0])
        assert (await desk.learner.decide(bare_call(), CANDIDATE)).action == "miss"
    assert caplog.text.count("no route") == 2


async def test_a_share_of_hits_is_drawn_for_review():
    """As the settings say; none at all with 0."""
    drawn = [sum(Desk(review=share).learner.drawn_for_review() for _ in range(1)) for share in (0.0, 1.0)]
    assert drawn == [0, 1]
    learner = Desk(review=0.1).learner
    assert 50 < sum(learner.drawn_for_review() for _ in range(1000)) < 150


async def test_estimates_are_told_by_class_and_tier():
    """Budget, estimate and drifts of each rule; unknown while nothing was asked."""
    desk = Desk()
    await desk.learner.rule("strict")
    await desk.warm()
    estimates = desk.learner.estimates()
    assert list(estimates) == [("default", "learned"), ("strict", "learned")]
    assert estimates["strict", "learned"] == (0.001, None, 0)
    assert estimates["default", "learned"][1].n == 400
