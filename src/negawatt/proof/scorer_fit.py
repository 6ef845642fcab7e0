"""Learning a score of the small candidate's answers from a run, and whether it knows anything.

What is said of it is said of answers that it had not seen (cross-fitted): the chance that a right answer scores above
a wrong one, with its interval over cases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np

from negawatt.config_routes import Check
from negawatt.embedders.opening import open_embedder
from negawatt.errors import ConfigError
from negawatt.proof.asking import asked_in
from negawatt.proof.cascade_fit import Run, small_of
from negawatt.proof.cases import SuiteCase
from negawatt.proof.outcome_table import OutcomeTable
from negawatt.routing.cases import supplied
from negawatt.routing.scorer import AnswerScorer, Row, digest, sight
from negawatt.wire.wires import WIRES

_RESAMPLES = 500


class ScorerFit(msgspec.Struct, frozen=True, kw_only=True):
    """A score, and whether it may be used. *auc*: mean, low, high. *enabled*: its lower bound is above a coin's."""

    scorer: AnswerScorer
    small: str
    n: int
    right: float
    auc: tuple[float, float, float]

    @property
    def enabled(self) -> bool:
        return self.auc[1] > 0.5

    @property
    def words(self) -> str:
        mean, low, high = self.auc
        told = (
            f"A right answer of {self.small} scores above a wrong one with chance {mean:.2f} [{low:.2f}, {high:.2f}] "
            f"({self.n} answers that it had not seen, {self.right:.0%} of them right)"
        )
        return f"{told}." if self.enabled else f"{told}: no better than a coin, so the score is not kept."


def fit_scorer(table: OutcomeTable, run: Run) -> ScorerFit:
    """Return the score of the cheapest candidate's answers. Raises `InputError` where nothing can be learned."""
    small = small_of(table)
    rows = _rows(table, small, run)
    suite = table.suite
    name = table.columns[small].candidate.choice

    async def work() -> tuple[AnswerScorer, tuple[float, float, float]]:
        embedder = open_embedder(suite.config.recall.embedder, f"{suite.path}: config.recall.embedder")
        try:
            seen = await sight(rows, embedder)
            scorer = AnswerScorer.fit(seen, embedder, name=name, seed=suite.file.seed)
            return scorer, _auc(seen.held_out(suite.file.seed), seen.right)
        finally:
            await embedder.close()

    scorer, auc = asyncio.run(work())
    right = float(np.mean([row.right for row in rows]))
    return ScorerFit(scorer=scorer, small=name, n=len(rows), right=right, auc=auc)


def refuse_known(known: frozenset[int], check: Check, cases: Sequence[SuiteCase], where: str) -> None:
    """Raise `ConfigError` where a score has learned from some of *cases*: it would be calibrated on what it knows."""
    count = sum(digest(supplied(asked_in(case))[0]) in known for case in cases)
    if count:
        what = f"{check.file} has learned from {count} of these {len(cases)} cases; calibrate it on others"
        raise ConfigError(f"{where}: {what}", param=where)


def _rows(table: OutcomeTable, small: int, run: Run) -> list[Row]:
    """Return question, answer and whether it was right, of each answer that was given and judged."""
    asked, found = run
    column, repeats = table.columns[small], table.suite.file.repeats
    rows: list[Row] = []
    for i, case in enumerate(table.cases):
        key = (column.name, case.id, 0)
        answer, right = found.answer(key, asked[key]), float(column.success[i * repeats])
        if answer is None or answer.data is None or np.isnan(right):
            continue
        texts = WIRES[case.protocol].answers(answer.data)
        if len(texts) == 1:
            rows.append(Row(supplied(asked_in(case))[0], texts[0], right >= 0.5))
    return rows


def _auc(scores: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """Return the chance that a right row scores above a wrong one (ties count half), and its 95 % interval."""

    def one(places: np.ndarray) -> float:
        ranks = np.unique(scores[places], return_inverse=True)
        _, counts = np.unique(ranks[1], return_counts=True)
        mean_rank = (np.cumsum(counts) - (counts - 1) / 2)[ranks[1]]
        good = right[places] > 0.5
        n, m = int(good.sum()), int((~good).sum())
        return float("nan") if not n or not m else float((mean_rank[good].sum() - n * (n + 1) / 2) / (n * m))

    rng = np.random.default_rng(1)
    every = np.arange(len(scores))
    drawn = [one(rng.integers(0, len(scores), len(scores))) for _ in range(_RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return one(every), float(low), float(high)
