"""Which blocks of a template are needed: a suite is asked with the whole template, and without each of its blocks.

The same cases, model and settings, so that every case is a pair. A block is *needed* where leaving it out makes more
answers wrong than right, beyond chance; it is *baggage* where what leaving it out may cost lies within the margin.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from negawatt.errors import InputError, InvalidRequest
from negawatt.prompts.protocols import fields_of
from negawatt.prompts.template import Template
from negawatt.proof.cases import SuiteCase
from negawatt.proof.evaluate import Question, ask_all, missing, questions
from negawatt.proof.judging import judge_all, tasks, verdict_of
from negawatt.proof.outcome_table import Column, OutcomeTable, table_of
from negawatt.proof.run_file import RunFile
from negawatt.proof.suite import EvalCandidate, Suite
from negawatt.statistics import Bootstrap, Interval, holm, mcnemar, most_share

WHOLE = "all blocks"
OF_THE_CASE = {"prompt": "question", "question": "question", "context": "context"}
"""Variables that a case fills, where the template has them: which field of the case."""
_SIGNIFICANT = 0.05
_SURE = 0.95
_NOT_RECORDED = "NotRecorded"


class BlockFinding(msgspec.Struct, kw_only=True):
    """What leaving out one block did. Figures are per call: without it less with it; negative *quality* is a loss.

    *verdict*: ``needed``, ``baggage``, ``unclear`` (too few cases to tell), ``unsaid`` (no case has it), ``unasked``
    (nobody answered the changed prompts).
    """

    block: str
    part: str
    verdict: str
    cases: int
    worse: int
    better: int
    quality: Interval
    input_tokens: Interval
    cost_usd: Interval
    most_lost: float | None  # the share of cases that leaving it out makes wrong is at most that, with 95 %
    p: float | None  # McNemar's, adjusted for the number of blocks
    unanswered: int = 0


class Ablation(NamedTuple):
    """A template over a suite. *quality*: of the whole template."""

    template: str
    version: str
    model: str
    quality: Interval
    input_tokens: Interval
    margin: float
    blocks: list[BlockFinding]


class Plan(NamedTuple):
    """What is to be asked. *suite* has a candidate for each block, and the whole template as its reference."""

    suite: Suite
    template: Template
    cases: Sequence[SuiteCase]
    asked: list[Question]
    same: dict[tuple[str, str, int], tuple[str, str, int]]  # whose prompt does not have the block: who has its answer
    margin: float


def plan_of(
    suite: Suite,
    template: Template,
    cases: Sequence[SuiteCase],
    given: Mapping[str, Any],
    candidate: EvalCandidate,
    margin: float = 0.02,
) -> Plan:
    """Return what is to be asked of *candidate*. Raises `InputError` for a case that does not fill the template."""
    plain = {"system": None, "policy": False}
    names = [block.name for block in template.blocks]
    arms = [msgspec.structs.replace(candidate, name=_without(name), **plain) for name in names]
    whole = msgspec.structs.replace(candidate, name=WHOLE, **plain)
    wider = msgspec.structs.replace(suite, file=msgspec.structs.replace(suite.file, candidates=(*arms, whole)))
    by_name = {_without(name): (name,) for name in names}
    asked, same = [], {}
    for question in questions(wider, cases):
        left_out = by_name.get(question.candidate.called, ())
        changed, said = _with_template(question, template, given, left_out)
        asked.append(changed)
        if left_out and left_out[0] not in said:
            same[changed.key] = (WHOLE, changed.case.id, changed.repeat)
    return Plan(wider, template, cases, asked, same, margin)


def _without(name: str) -> str:
    return f"without {name}"


def _with_template(
    question: Question, template: Template, given: Mapping[str, Any], left_out: Sequence[str]
) -> tuple[Question, set[str]]:
    """Return *question* with the template in it, and the blocks that it would say were none left out."""
    case, own = question.case, {}
    for name, field in OF_THE_CASE.items():
        value = getattr(case, field)
        if name in template.variables and name not in given and value is not None:
            own[name] = value
    values = {**own, **given}
    try:
        every = {block.name for block in template.render(values).blocks}
        rendered = template.render(values, without=left_out)
    except InvalidRequest as error:
        raise InputError(f"case {case.id}: {error.message}") from error
    body = dict(question.body)
    if "prompt" in own or "question" in own:  # the template asks it: the case's own words are not said twice
        turns = "input" if case.protocol == "responses" else "messages"
        body[turns] = []
    body |= fields_of(case.protocol, body, rendered)
    said = orjson.dumps([question.asked, body], option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(said).hexdigest()[:32]
    return msgspec.structs.replace(question, body=body, asked=digest), every


def to_ask(plan: Plan, found: RunFile) -> list[Question]:
    """Return what *found* has no answer to; a case that does not have a block is not asked again without it."""
    return [one for one in missing(plan.asked, found) if one.key not in plan.same]


def ablate(plan: Plan, found: RunFile, progress: Callable[[], None] = lambda: None) -> Ablation:
    """Ask and judge what is missing in *found*, and return what each block is good for."""
    ask_all(plan.suite, to_ask(plan, found), found, progress)
    whole = {one.key: one for one in plan.asked}
    for one in plan.asked:
        if one.key in plan.same and found.answer(one.key, one.asked) is None:
            same = whole[plan.same[one.key]]
            answer = found.answer(same.key, same.asked)
            if answer is not None:
                found.append(msgspec.structs.replace(answer, candidate=one.candidate.called, asked=one.asked))
    needed = tasks(plan.suite, {case.id: case for case in plan.cases}, plan.asked, found)
    asyncio.run(judge_all(plan.suite, [task for task in needed if verdict_of(found, task) is None], found))
    table = table_of(plan.suite, plan.cases, {one.key: one.asked for one in plan.asked}, found)
    return _findings(plan, table)


def _findings(plan: Plan, table: OutcomeTable) -> Ablation:
    whole = table.reference
    drawn = Bootstrap(table.clusters, np.random.default_rng(random.Random(plan.suite.file.seed).getrandbits(32)))
    unrecorded = _unrecorded(whole)
    if unrecorded == len(table.rows):
        raise InputError(
            f"{whole.candidate.answers}: none of the prompts with template {plan.template.name!r} was recorded; a "
            "recording cannot answer changed prompts: give a candidate that is asked live"
        )
    found = [
        _finding(plan, table, drawn, place, source.part)
        for place, source in enumerate(plan.template.blocks)
    ]  # fmt: skip
    tested = [one for one in found if one.p is not None]
    for one, p in zip(tested, holm([one.p for one in tested if one.p is not None]), strict=True):
        one.p = p
        if p < _SIGNIFICANT and one.worse > one.better:
            one.verdict = "needed"
    return Ablation(
        plan.template.name, plan.template.version, whole.candidate.model, drawn.mean(whole.success),
        drawn.mean(whole.input_tokens), plan.margin, found,
    )  # fmt: skip


def _finding(plan: Plan, table: OutcomeTable, drawn: Bootstrap, place: int, part: str) -> BlockFinding:
    whole, arm, name = table.reference, table.columns[place], plan.template.blocks[place].name
    said = np.array([(_without(name), case.id, repeat) not in plan.same for case, repeat in table.rows], dtype=bool)
    unanswered = _unrecorded(arm)
    # A call that failed says nothing of the prompt.
    quality = np.where((arm.failed == 1) | (whole.failed == 1), np.nan, arm.success - whole.success)
    cases: dict[str, list[float]] = {}
    for case, change in zip(table.clusters, quality, strict=True):
        if not np.isnan(change):
            cases.setdefault(case, []).append(float(change))
    changes = [sum(values) for values in cases.values()]
    worse, better, n = sum(x < 0 for x in changes), sum(x > 0 for x in changes), len(changes)
    verdict, most, p = "unclear", None, None
    if not said.any():
        verdict = "unsaid"
    elif unanswered or not n:
        verdict = "unasked"
    else:
        most, p = most_share(worse, n, _SURE), mcnemar(better, worse)
        verdict = "baggage" if most <= plan.margin else "unclear"
    return BlockFinding(
        block=name, part=part, verdict=verdict, cases=n, worse=worse, better=better,
        quality=_bounded(drawn.mean(quality), worse + better, n),
        input_tokens=drawn.mean(arm.input_tokens - whole.input_tokens),
        cost_usd=drawn.mean(arm.cost_usd - whole.cost_usd), most_lost=most, p=p, unanswered=unanswered,
    )  # fmt: skip


def _bounded(drawn: Interval, differ: int, n: int) -> Interval:
    """Return *drawn*; where no case differs, which draws cannot tell from certainty, what so many cases allow."""
    if differ or not n:
        return drawn
    most = most_share(0, n, (1 + _SURE) / 2)
    return Interval(drawn.mean, -most, most)


def _unrecorded(column: Column) -> int:
    """Return how many calls a recording had no answer to."""
    return sum(count for reason, count in column.reasons.items() if reason.startswith(_NOT_RECORDED))
