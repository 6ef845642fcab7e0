"""Following a cascade on the answers of a run: whose answer would have been given, and what would have been spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from negawatt.config_routes import Cascade
from negawatt.errors import ConfigError
from negawatt.proof.against import Chooser
from negawatt.proof.cascade_fit import Run, case_tasks
from negawatt.proof.judging import Task, verdict_of
from negawatt.proof.outcome_table import PUSD, OutcomeTable
from negawatt.routing.calibration import bars_of, load_calibration
from negawatt.routing.gate import Bar
from negawatt.statistics import Array, column


class Followed:
    """A cascade, with what it takes to accept an answer of each small candidate. Raises `ConfigError`."""

    def __init__(self, chooser: Chooser, source: str) -> None:
        settings = chooser.policy.cascade
        where = f"{source}: policies.{chooser.name}.cascade"
        if settings is None or not settings.verify:
            raise ConfigError(f"{where}.verify: a cascade needs at least one check", param=f"{where}.verify")
        if any(check.kind == "draft" for check in settings.verify):
            what = "a draft is accepted by asking the reference anew, which this run has not done"
            raise ConfigError(f"{where}.verify: {what}", param=f"{where}.verify")
        self.settings: Cascade = settings
        self._chooser = chooser
        self.bars: Mapping[str, Bar] = {}
        if settings.calibration is not None:
            found = load_calibration(Path(settings.calibration), f"{where}.calibration")
            self.bars = bars_of(found, chooser.name, settings, f"{where}.calibration")

    def small(self, table: OutcomeTable) -> list[int]:
        """Return the places, in the table, of those that are asked before the reference, in their order."""
        names = [name for i, name in enumerate(self._chooser.names) if i != self._chooser.reference]
        places = {one.candidate.choice: i for i, one in enumerate(table.columns)}
        return [places[name] for name in names if name in places]

    def tasks(self, table: OutcomeTable, run: Run) -> Iterator[Task]:
        """Give the verdicts that following it needs."""
        for small in self.small(table):
            for case in table.cases:
                yield from case_tasks(table, small, self.settings.verify, case, run)

    def outcomes(self, table: OutcomeTable, run: Run) -> tuple[Array, Array, list[int]]:
        """Return success and dollars of each case, and the place in the table of whose answer was given."""
        repeats, last = table.suite.file.repeats, len(table.columns) - 1
        successes, costs, given = [], [], []
        for i, case in enumerate(table.cases):
            row, spent, answered = i * repeats, 0.0, last
            for small in self.small(table):
                tasks = case_tasks(table, small, self.settings.verify, case, run)
                verdicts = [verdict for task in tasks if (verdict := verdict_of(run[1], task)) is not None]
                spent += float(table.columns[small].cost_usd[row])
                spent += sum(math.nan if one.cost_pusd is None else one.cost_pusd / PUSD for one in verdicts)
                scores = [one.score for one in verdicts]
                passed = bool(verdicts) and all(one.passed for one in verdicts)
                if self._accepts(table.columns[small].candidate.choice, scores, passed):
                    answered = small
                    break
            else:
                spent += float(table.columns[last].cost_usd[row])
            successes.append(float(table.columns[answered].success[row]))
            costs.append(spent)
            given.append(answered)
        return column(successes), column(costs), given

    def _accepts(self, name: str, scores: Sequence[float], passed: bool) -> bool:
        if self.settings.calibration is None:
            return passed
        bar, score = self.bars.get(name), math.prod(scores) if scores else 0.0
        return bar is not None and bar.least is not None and score > 0 and score >= bar.least
