"""Who did what right, and at what price: one row for each case and repeat, the same rows for every candidate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from negawatt.proof.cases import SuiteCase
from negawatt.proof.judging import Task, checks_of, others_of, verdict_of
from negawatt.proof.run_file import Answer, Judged, RunFile
from negawatt.proof.suite import EvalCandidate, Suite
from negawatt.providers.recording import Recording
from negawatt.statistics import Array, column

PUSD = 1e12


class Column(msgspec.Struct, kw_only=True):
    """What one candidate did. All arrays have one entry for each row of the table; NaN is unknown."""

    candidate: EvalCandidate
    success: Array  # 1 right, 0 wrong or failed
    failed: Array  # 1: the call itself failed
    cost_usd: Array
    energy_j: tuple[Array, Array, Array]  # low, central, high
    duration_s: Array
    input_tokens: Array
    output_tokens: Array
    kinds: dict[str, Array]  # by kind of verifier: passed or not; NaN where the call failed or it was not asked
    scores: dict[str, Array]
    reasons: dict[str, int]  # why calls failed, and how often
    bases: dict[str, int]  # of the tokens
    energy_bases: dict[str, int]

    @property
    def name(self) -> str:
        return self.candidate.called


class OutcomeTable(msgspec.Struct, kw_only=True):
    """The table. *rows*: (case, repeat). The candidates stand as in the suite; the last is the reference."""

    suite: Suite
    cases: Sequence[SuiteCase]
    rows: Sequence[tuple[SuiteCase, int]]
    columns: Sequence[Column]
    judging_usd: float | None
    judging_calls: int
    notes: tuple[str, ...] = ()  # of the recordings

    @property
    def reference(self) -> Column:
        return self.columns[-1]

    @property
    def clusters(self) -> list[str]:
        """What stands or falls together: the repeats of a case."""
        return [case.id for case, _ in self.rows]

    def by_cost(self) -> list[int]:
        """Return the places of the candidates, the cheapest first; those without a known price as in the suite."""
        means = [self.mean_cost(i) for i in range(len(self.columns))]
        return sorted(range(len(means)), key=lambda i: (math.inf if means[i] is None else means[i], i))

    def mean_cost(self, place: int) -> float | None:
        """Return the mean cost of a call of a candidate; None where none is known."""
        known = self.columns[place].cost_usd
        known = known[~np.isnan(known)]
        return float(known.mean()) if known.size else None

    def part(self, wanted: Callable[[SuiteCase], bool]) -> OutcomeTable:
        """Return the table of those cases alone."""
        mask = np.array([wanted(case) for case, _ in self.rows], dtype=bool)
        return msgspec.structs.replace(
            self,
            cases=[case for case in self.cases if wanted(case)],
            rows=[row for row, kept in zip(self.rows, mask, strict=True) if kept],
            columns=[_masked(one, mask) for one in self.columns],
        )


def _masked(one: Column, mask: Any) -> Column:
    fields = {name: getattr(one, name)[mask] for name in ("success", "failed", "cost_usd", "duration_s", "input_tokens",
              "output_tokens")}  # fmt: skip
    return msgspec.structs.replace(
        one,
        **fields,
        energy_j=tuple(values[mask] for values in one.energy_j),
        kinds={name: values[mask] for name, values in one.kinds.items()},
        scores={name: values[mask] for name, values in one.scores.items()},
    )


def table_of(
    suite: Suite, cases: Sequence[SuiteCase], asked: Mapping[tuple[str, str, int], str], found: RunFile
) -> OutcomeTable:
    """Return the table of what *found* holds; *asked* gives the digest of each question by candidate, case, repeat."""
    rows = [(case, repeat) for case in cases for repeat in range(suite.file.repeats)]
    spent: list[Judged] = []
    columns = [_column(suite, one, rows, asked, found, spent) for one in suite.candidates]
    known = [verdict.cost_pusd for verdict in spent]
    return OutcomeTable(
        suite=suite,
        cases=cases,
        rows=rows,
        columns=columns,
        judging_usd=None if None in known else sum(cost or 0 for cost in known) / PUSD,
        judging_calls=sum(verdict.calls for verdict in spent),
        notes=_notes(suite),
    )


def _notes(suite: Suite) -> tuple[str, ...]:
    """Return what the recordings say of themselves: who made them, and whether their times were measured."""
    files = dict.fromkeys(one.recording for one in suite.candidates if one.recording is not None)
    answers = [answer for file in files for answer in Recording.load(suite.beside(file)).answers]
    said = sorted({answer.note for answer in answers if answer.note})[:3]
    return (*said, *(["times are modelled"] if any(a.timing.basis == "modelled" for a in answers) else []))


def _column(
    suite: Suite,
    candidate: EvalCandidate,
    rows: Sequence[tuple[SuiteCase, int]],
    asked: Mapping[tuple[str, str, int], str],
    found: RunFile,
    spent: list[Judged],
) -> Column:
    keys = [(candidate.called, case.id, repeat) for case, repeat in rows]
    answers = [found.answer(key, asked[key]) for key in keys]
    verdicts = [
        {} if answer is None or answer.data is None else _verdicts(suite, case, answer, found)
        for (case, _), answer in zip(rows, answers, strict=True)
    ]
    spent += [verdict for row in verdicts for verdict in row.values()]
    kinds = sorted({kind for row in verdicts for kind in row})
    successes = [_success(suite, row[0], a, v) for row, a, v in zip(rows, answers, verdicts, strict=True)]
    costs = [None if a is None or a.cost_pusd is None else a.cost_pusd / PUSD for a in answers]
    joules = [a.energy_j if a is not None and a.energy_j is not None else (None, None, None) for a in answers]
    return Column(
        candidate=candidate,
        success=column(successes),
        failed=column(None if a is None else float(a.data is None) for a in answers),
        cost_usd=column(costs),
        energy_j=(column(j[0] for j in joules), column(j[1] for j in joules), column(j[2] for j in joules)),
        duration_s=column(None if a is None or a.data is None else a.duration_s for a in answers),
        input_tokens=column(None if a is None else a.input_tokens for a in answers),
        output_tokens=column(None if a is None else a.output_tokens for a in answers),
        kinds={k: column(float(row[k].passed) if k in row else None for row in verdicts) for k in kinds},
        scores={k: column(row[k].score if k in row else None for row in verdicts) for k in kinds},
        reasons=dict(Counter(a.error or a.ending for a in answers if a is not None and a.data is None)),
        bases=dict(Counter(a.usage_basis for a in answers if a is not None and a.usage_basis)),
        energy_bases=dict(Counter(a.energy_basis for a in answers if a is not None and a.energy_basis)),
    )


def _verdicts(suite: Suite, case: SuiteCase, answer: Answer, found: RunFile) -> dict[str, Judged]:
    """Return the verdicts on *answer* by kind; of several of one kind, the first that failed, else the last."""
    given: dict[str, Judged] = {}
    for check in checks_of(suite, case):
        task = Task(answer, case, check, others_of(suite, found, answer, check, case.protocol))
        verdict = verdict_of(found, task)
        if verdict is not None and (check.kind not in given or given[check.kind].passed):
            given[check.kind] = verdict
    return given


def _success(suite: Suite, case: SuiteCase, answer: Answer | None, verdicts: Mapping[str, Judged]) -> float | None:
    """Return 1 where all verifiers that decide have passed, 0 where one has not or the call failed."""
    if answer is None:
        return None
    if answer.data is None:
        return 0.0
    decides = suite.file.datasets[case.dataset].decides or {check.kind for check in checks_of(suite, case)}
    if any(kind not in verdicts for kind in decides):
        return None
    return float(all(verdicts[kind].passed for kind in decides))
