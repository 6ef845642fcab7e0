"""Calibrating a cascade: from which score on may the answer of the small model be given, and what does that come to?

The cases are halved at random, by the seed of the suite. One half sets the threshold (`negawatt.routing.guarantee`):
with confidence 1 - alpha, at most a share `max_error` of the accepted answers is wrong. The other half, which nothing
was chosen on, says what the cascade does: how much it accepts, how often that is wrong, what it costs with every call
counted that it makes. The verifiers see what they see live, and not what is expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from negawatt.config_routes import Cascade, Check, Quality
from negawatt.errors import ConfigError
from negawatt.proof.cases import SuiteCase
from negawatt.proof.judging import Task, others_of, verdict_of
from negawatt.proof.outcome_table import PUSD, OutcomeTable
from negawatt.proof.run_file import RunFile
from negawatt.proof.suite import Suite
from negawatt.routing.calibration import Calibration
from negawatt.routing.guarantee import Accepting, accept_threshold
from negawatt.routing.router import Level
from negawatt.statistics import Array, Bootstrap, column

Run = tuple[Mapping[tuple[str, str, int], str], RunFile]
"""The digest of each question by candidate, case and repeat; and what has been found."""


class CascadeFit(msgspec.Struct, frozen=True, kw_only=True):
    """A calibrated cascade. *tested*: what it came to on the other half, None where it accepts nothing."""

    small: str
    reference: str
    settings: Cascade
    calibration: Calibration
    accepting: Accepting
    tested: Level | None
    enabled: bool
    reason: str
    figures: dict[str, Any]


def settings_of(suite: Suite) -> Cascade:
    """Return the cascade of *suite*. Raises `ConfigError` where there is none that could be calibrated."""
    cascade = suite.file.cascade
    if cascade is None or not cascade.verify:
        what = '--cascade needs the verifiers that are to be calibrated, such as verify = [{ kind = "logprob" }]'
        raise ConfigError(f"{suite.path}: cascade.verify: {what}", param="cascade.verify")
    for i, check in enumerate(cascade.verify):
        if check.kind == "exact":
            where = f"cascade.verify[{i}].kind"
            what = "exact compares with what is expected, which a gateway does not know"
            raise ConfigError(f"{suite.path}: {where}: {what}", param=where)
    if len(suite.candidates) < 2:
        what = "a cascade needs a small candidate before the reference"
        raise ConfigError(f"{suite.path}: candidates: {what}", param="candidates")
    return cascade


def small_of(table: OutcomeTable) -> int:
    """Return the place of the candidate that is asked first: the cheapest that is not the reference."""
    last = len(table.columns) - 1
    return next(i for i in table.by_cost() if i != last and not table.columns[i].candidate.policy)


def cascade_tasks(table: OutcomeTable, small: int, cascade: Cascade, run: Run) -> list[Task]:
    """Return the verdicts that calibrating *cascade* needs, of the first answer to each case."""
    return [task for case in table.cases for task in case_tasks(table, small, cascade.verify, case, run)]


def case_tasks(table: OutcomeTable, small: int, checks: Sequence[Check], case: SuiteCase, run: Run) -> list[Task]:
    """Return the verdicts on the first answer of candidate *small* to *case*; none where its call failed."""
    asked, found = run
    key = (table.columns[small].name, case.id, 0)
    answer = found.answer(key, asked[key])
    if answer is None or answer.data is None:
        return []
    return [
        Task(answer, case, check, others_of(table.suite, found, answer, check, case.protocol), live=True)
        for check in checks
    ]


def fit_cascade(table: OutcomeTable, small: int, policy: str, run: Run) -> CascadeFit:
    """Return the cascade of the suite, calibrated on the verdicts of *run*; *policy* will be its name."""
    cascade = settings_of(table.suite)
    scores, judging = _scores(table, small, cascade, run)
    rows = slice(None, None, table.suite.file.repeats)  # the first answer to each case
    one, reference = table.columns[small], table.reference
    right, best = one.success[rows], reference.success[rows]
    known = ~np.isnan(right) & ~np.isnan(best)
    order = np.random.default_rng(table.suite.file.seed).permutation(len(right))
    half = np.zeros(len(right), dtype=bool)
    half[order[: len(right) // 2]] = True
    learn = half & known & ~np.isnan(scores)
    accepting = accept_threshold(scores[learn], 1 - right[learn], delta=cascade.max_error, alpha=cascade.alpha)
    calibration = Calibration(
        policy=policy, model=one.candidate.choice, checks=cascade.verify,
        scores=tuple(float(score) for score in scores[learn]), right=tuple(bool(value) for value in right[learn]),
        date=datetime.now(UTC).date().isoformat(), suite=table.suite.file.name,
    )  # fmt: skip
    spent = one.cost_usd[rows] + judging
    test = known & ~half
    figures: dict[str, Any] = {"calibrated_on": int(learn.sum()), "tested_on": int(test.sum())}
    tested = None
    if accepting.threshold is not None:
        accepted = (scores >= accepting.threshold) & (scores > 0)  # NaN is neither
        tested, more = _tested(accepted[test], right[test], best[test], spent[test], reference.cost_usd[rows][test])
        figures |= more
    enabled, reason = _verdict(accepting, tested, table.suite.file.quality)
    return CascadeFit(
        small=one.candidate.choice, reference=reference.candidate.choice, settings=cascade, calibration=calibration,
        accepting=accepting, tested=tested, enabled=enabled, reason=reason, figures=figures,
    )  # fmt: skip


def _scores(table: OutcomeTable, small: int, cascade: Cascade, run: Run) -> tuple[Array, Array]:
    """Return the score of the small answer to each case (NaN: it failed), and what judging it cost in dollars."""
    scores: list[float | None] = []
    costs: list[float | None] = []
    for case in table.cases:
        tasks = case_tasks(table, small, cascade.verify, case, run)
        verdicts = [verdict for task in tasks if (verdict := verdict_of(run[1], task)) is not None]
        scores.append(math.prod(one.score for one in verdicts) if tasks and len(verdicts) == len(tasks) else None)
        known = [one.cost_pusd for one in verdicts]
        costs.append(None if None in known else sum(cost or 0 for cost in known) / PUSD)
    return column(scores), column(costs)


def _tested(accepted: Any, right: Array, best: Array, spent: Array, full: Array) -> tuple[Level, dict[str, Any]]:
    """Return what the cascade comes to on rows that nothing was chosen on."""
    n = len(right)
    done = np.where(accepted, right, best)
    cost = spent + np.where(accepted, 0.0, full)
    boot = Bootstrap([str(i) for i in range(n)], np.random.default_rng(1))
    ratio = boot.ratio(cost, full)
    level = Level(
        threshold=0.0, n=float(n), successes=float(done.sum()), better=float(((done - best) > 0).sum()),
        worse=float(((done - best) < 0).sum()), cost=math.nan if ratio.mean is None else ratio.mean,
        referred=1 - float(accepted.mean()) if n else 1.0,
    )  # fmt: skip
    wrong = boot.proportion(np.where(accepted, 1 - right, np.nan))
    figures = {
        "accepted": msgspec.to_builtins(boot.proportion(accepted.astype(np.float64))),
        "accepted_wrong": msgspec.to_builtins(wrong),
        "success": msgspec.to_builtins(boot.proportion(done)),
        "small": float(right.mean()) if n else None,
        "reference": float(best.mean()) if n else None,
        "cost_ratio": msgspec.to_builtins(ratio),
    }
    return level, figures


def _verdict(accepting: Accepting, tested: Level | None, quality: Quality) -> tuple[bool, str]:
    if accepting.threshold is None or tested is None:
        return False, accepting.reason
    if not tested.meets(quality):
        low = tested.success_low(quality.confidence)
        rate = tested.successes / tested.n
        return False, f"on the other half it does {rate:.1%} right, surely above {low:.1%}: not surely the target"
    return True, accepting.reason


def spoken(fit: CascadeFit) -> str:
    """Return one sentence on whether the cascade may be used."""
    if not fit.enabled or fit.tested is None:
        return f"The cascade of {fit.small} is not enabled: {fit.reason}."
    level = fit.tested
    wrong = fit.figures["accepted_wrong"]["mean"]
    cost = "an unknown share" if math.isnan(level.cost) else f"{level.cost:.0%}"
    return (
        f"The cascade accepts {1 - level.referred:.0%} of the answers of {fit.small}, from a score of "
        f"{fit.accepting.threshold:.3g}, of which {wrong or 0:.1%} were wrong on the other half (at most "
        f"{fit.settings.max_error:.1%} are promised); it does {level.successes / level.n:.1%} right for {cost} of the "
        "cost of the reference."
    )
