"""Judging the answers of a run: each verifier of a dataset looks at each answer, and its verdict is kept.

Verdicts are made anew only where the answer, the verifier or what it compares with has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import orjson

from negawatt.call import Request
from negawatt.config_routes import Check
from negawatt.embedders.opening import open_embedder
from negawatt.errors import ConfigError
from negawatt.gateway import Gateway
from negawatt.proof.asking import asked_in
from negawatt.proof.cases import SuiteCase
from negawatt.proof.evaluate import Books, Progress, Question, each, open_for
from negawatt.proof.run_file import Answer, Judged, RunFile
from negawatt.proof.suite import Suite
from negawatt.routing.cases import supplied
from negawatt.routing.scorer import AnswerScorer
from negawatt.verify.answer import Scorer
from negawatt.verify.judging import judged
from negawatt.verify.opening import Given, open_verifier
from negawatt.verify.verdict import Case, Verifier
from negawatt.wire.wires import WIRES

BY_DEFAULT = (Check(kind="exact"),)
_BY_VECTORS = frozenset({"agreement", "groundedness", "answer"})
_SHOWN_REASON = 300


class Task(msgspec.Struct, frozen=True):
    """One verdict to be given."""

    answer: Answer
    case: SuiteCase
    check: Check
    others: tuple[str, ...] | None  # what others answered; None: nobody else was asked
    live: bool = False  # as a gateway would judge it, which does not know what is expected

    @property
    def by(self) -> str:
        """A digest of the verifier and of what it compares with."""
        expected = "live" if self.live else self.case.expected
        told = [msgspec.to_builtins(self.check), expected, self.case.context, self.others, self.live]
        return hashlib.sha256(orjson.dumps(told)).hexdigest()[:32]


class Unaided:
    """Tells what a verifier spent, when it may ask a model."""

    def __init__(self, gateway: Gateway, books: Books) -> None:
        self._gateway = gateway
        self._books = books
        self.cost_pusd: int | None = 0
        self.calls = 0

    async def ask(self, model: str, prompt: str) -> str:
        """Ask *model*, and return the text of its answer. Raises `NegawattError`."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        call = self._gateway.new_call(orjson.dumps(body))
        written = self._books.expect(call.id)
        self.calls += 1
        try:
            reply = await self._gateway.handle(call)
            try:
                await reply.whole()
                return "\n".join(call.wire.answers(reply.data))
            finally:
                await reply.close()
        finally:
            row = await written
            known = self.cost_pusd is not None and row.cost_pusd is not None
            self.cost_pusd = self.cost_pusd + row.cost_pusd if known else None  # type: ignore[operator]


def checks_of(suite: Suite, case: SuiteCase) -> tuple[Check, ...]:
    """Return the verifiers of *case*; where its dataset names none, its answer is compared with the expected one."""
    return suite.file.datasets[case.dataset].verify or BY_DEFAULT


def tasks(suite: Suite, cases: Mapping[str, SuiteCase], asked: Iterable[Question], found: RunFile) -> list[Task]:
    """Return all verdicts that the answers in *found* need."""
    needed = []
    for question in asked:
        answer = found.answer(question.key, question.asked)
        if answer is not None and answer.data is not None:
            case = cases[answer.case]
            for check in checks_of(suite, case):
                needed.append(Task(answer, case, check, others_of(suite, found, answer, check, case.protocol)))
    return needed


def others_of(suite: Suite, found: RunFile, answer: Answer, check: Check, protocol: str) -> tuple[str, ...] | None:
    """Return what the other models of an agreement, or further samples of this one, answered in this run."""
    if check.kind != "agreement":
        return None
    same = [one for one in found.answers.values() if one.case == answer.case and one.data is not None]
    models = {one.called: one.model for one in suite.candidates}
    if check.with_models:
        named = [
            [one for one in same if models.get(one.candidate) == model and one.repeat == answer.repeat]
            for model in check.with_models
        ]
        if not all(named):
            return None
        chosen = [of_model[0] for of_model in named]
    else:
        chosen = [one for one in same if one.candidate == answer.candidate and one.repeat != answer.repeat]
        chosen = chosen[: check.samples - 1]
        if len(chosen) < check.samples - 1:
            return None
    wire = WIRES[protocol]
    return tuple("\n".join(wire.answers(one.data or {})) for one in chosen)


def verdict_of(found: RunFile, task: Task) -> Judged | None:
    """Return the verdict on *task*, None where there is none yet."""
    return found.verdicts.get((task.answer.key, task.answer.asked, task.by))


async def judge_all(suite: Suite, todo: Sequence[Task], found: RunFile, progress: Progress = lambda: None) -> None:
    """Give the verdicts of *todo*, and keep each in *found* as it comes.

    Raises `ConfigError` for a verifier that cannot run; one that raises has judged: it failed, with its reason.
    """
    logged: set[str] = set()
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(_given(suite, {task.check for task in todo}))
        verifiers = {check: _open(suite, check, given) for check in {task.check for task in todo}}
        opened = None
        if any(check.kind == "judge" for check in verifiers):
            opened = await stack.enter_async_context(open_for(suite, None))

        async def one(task: Task) -> None:
            spent = None if opened is None else Unaided(*opened)
            verifier = verifiers[task.check]
            found.append(await _judge(verifier, task, spent, logged))
            progress()

        await each(todo, one, suite.file.concurrency)


@asynccontextmanager
async def _given(suite: Suite, checks: Collection[Check]) -> AsyncIterator[Given]:
    """Open what *checks* need beside themselves: what a gateway would give them. Raises `ConfigError`."""
    if not any(check.kind in _BY_VECTORS for check in checks):
        yield Given(reference=suite.reference.model)
        return
    embedder = open_embedder(suite.config.recall.embedder, f"{suite.path}: config.recall.embedder")
    try:
        yield Given(embedder, suite.reference.model, lambda file, at: AnswerScorer.load(Path(file), at, embedder))
    finally:
        await embedder.close()


def _only_there(file: str, where: str) -> Scorer:
    """Stand for the learned score in *file* until somebody is judged. Raises `ConfigError` where there is none."""
    if not Path(file).is_file():
        raise ConfigError(f"{where}: {file}: there is no such file; `negawatt eval --scorer` makes one", param=where)

    async def never(question: str, answer: str) -> float:
        raise AssertionError("nobody judges before the score is open")

    return never


def _open(suite: Suite, check: Check, given: Given) -> Verifier:
    datasets = [(f"datasets[{i}]", one.verify) for i, one in enumerate(suite.file.datasets)]
    cascade = suite.file.cascade
    every = [*datasets, *([] if cascade is None else [("cascade", cascade.verify)])]
    places = [f"{where}.verify[{j}]" for where, checks in every for j, one in enumerate(checks) if one == check]
    return open_verifier(check, f"{suite.path}: {places[0] if places else 'verify'}", given)


def verifiable(suite: Suite) -> None:
    """Raise `ConfigError` for a verifier of *suite* that cannot be opened, before anything is asked."""
    candidates = [one.model for one in suite.candidates]
    cascade = suite.file.cascade
    named = [(f"datasets[{i}]", one.verify) for i, one in enumerate(suite.file.datasets)]
    for place, checks in [*named, *([] if cascade is None else [("cascade", cascade.verify)])]:
        for j, check in enumerate(checks):
            _open(suite, check, Given(reference=suite.reference.model, scorer=_only_there))
            where, absent = f"{place}.verify[{j}]", [m for m in check.with_models if m not in candidates]
            if check.kind == "agreement" and absent:
                what = f"{absent[0]!r} is no candidate of this suite; agreement compares with what candidates answered"
                raise ConfigError(f"{suite.path}: {where}.with_models: {what}", param=where)
            if check.kind == "agreement" and not check.with_models and suite.file.repeats < check.samples:
                what = f"agreement of {check.samples} samples needs repeats = {check.samples} at the top of the suite"
                raise ConfigError(f"{suite.path}: {where}.samples: {what}", param=where)


async def _judge(verifier: Verifier, task: Task, spent: Unaided | None, logged: set[str]) -> Judged:
    verdict = await judged(verifier, case_for(task, None if spent is None else spent.ask), seen=logged)
    candidate, case, repeat = task.answer.key
    return Judged(
        candidate=candidate, case=case, repeat=repeat, asked=task.answer.asked, by=task.by, kind=task.check.kind,
        passed=verdict.passed, score=verdict.score, reason=verdict.reason and verdict.reason[:_SHOWN_REASON],
        cost_pusd=0 if spent is None else spent.cost_pusd, calls=0 if spent is None else spent.calls,
    )  # fmt: skip


def case_for(task: Task, ask: Callable[[str, str], Awaitable[str]] | None = None) -> Case:
    """Return what a verifier is given of *task*."""
    wire, case, data = WIRES[task.case.protocol], task.case, task.answer.data or {}
    question, context = supplied(asked_in(case)) if task.live else (case.question, case.context)
    return Case(
        question=question,
        answers=wire.answers(data),
        data=data,
        context=context,
        contract=wire.contract(Request(data={"model": "any", **case.request})),
        expected=None if task.live else case.expected,
        others=task.others,
        ask=ask,
    )
