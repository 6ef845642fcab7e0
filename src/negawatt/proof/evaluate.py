"""Running a suite: every candidate is asked every case, through the same gateway that serves.

No saving lever is on, so that each candidate is measured by itself; retries are, since callers have them too. Recorded
candidates are asked first, on a virtual clock: an answer that took a second then takes no time now, and is still
reported as a second. Live ones follow in real time. Judging comes last, in real time: a judge may be a model.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import orjson

from negawatt.call import Request
from negawatt.caller import Caller, Hints
from negawatt.catalogue import Catalogue, open_providers
from negawatt.clock import Clock
from negawatt.errors import ConfigError, NegawattError
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Content, Outcome
from negawatt.proof.cases import SuiteCase
from negawatt.proof.evaluation_gateway import alias, complete, config_for, policy_digest, recordings
from negawatt.proof.run_file import Answer, RunFile
from negawatt.proof.suite import EvalCandidate, Suite
from negawatt.proof.virtual import VirtualClock, VirtualLoop, run
from negawatt.providers import Provider as OpenProvider
from negawatt.reply import Reply
from negawatt.wire.wires import WIRES

Progress = Callable[[], None]
_ROW_S = 30.0  # a row is written when the last attempt has ended


class Question(msgspec.Struct, frozen=True):
    """One call to be made."""

    candidate: EvalCandidate
    case: SuiteCase
    repeat: int
    body: dict[str, Any]
    asked: str  # digest

    @property
    def key(self) -> tuple[str, str, int]:
        return self.candidate.called, self.case.id, self.repeat


class Books(MemoryLedger):
    """A ledger that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}

    def append(self, outcome: Outcome, content: Content | None = None) -> None:
        waiting = self._waiting.pop(outcome.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)

    def expect(self, call_id: str) -> asyncio.Future[Outcome]:
        """Return what will hold the row of the call *call_id*, which has not ended yet."""
        found = self._waiting[call_id] = asyncio.get_running_loop().create_future()
        return found


class Anyone:
    """Every call of an evaluation is the same caller's."""

    open = True
    divided = False

    def caller(self, secret: str | None) -> Caller:
        return Caller()

    holder = caller


def questions(suite: Suite, cases: Sequence[SuiteCase]) -> list[Question]:
    """Return every call of *suite*, in seeded order: candidate by candidate would measure the hour as well.

    Raises `ConfigError` where a candidate's settings make a request that nobody would take.
    """
    found = []
    for place, candidate in enumerate(suite.candidates):
        source = candidate.answers
        if candidate.recording is not None:
            source = "recorded:" + _digest_of(suite.beside(candidate.recording).read_bytes())
        for case in cases:
            body = _body(candidate, case)
            if case is cases[0]:
                _check(suite, f"candidates[{place}].settings", body, case.protocol)
            how = policy_digest(suite, candidate.model) if candidate.policy else candidate.effort
            said = orjson.dumps([source, how, case.protocol, body], option=orjson.OPT_SORT_KEYS)
            digest = _digest_of(said)
            found += [Question(candidate, case, repeat, body, digest) for repeat in range(suite.file.repeats)]
    random.Random(suite.file.seed).shuffle(found)
    return found


def _digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _body(candidate: EvalCandidate, case: SuiteCase) -> dict[str, Any]:
    body = {"model": candidate.model, **case.request, **candidate.settings}
    if candidate.system is not None and case.protocol == "chat":
        asked = [one for one in body["messages"] if one.get("role") not in ("system", "developer")]
        body["messages"] = [{"role": "system", "content": candidate.system}, *asked]
    elif candidate.system is not None:
        body["system" if case.protocol == "messages" else "instructions"] = candidate.system
    return body


def _check(suite: Suite, where: str, body: dict[str, Any], protocol: str) -> None:
    try:
        WIRES[protocol].check(Request(data=body))
    except NegawattError as error:
        raise ConfigError(f"{suite.path}: {where}: {error.message}", param=where) from error


def missing(asked: Iterable[Question], found: RunFile, *, failed: bool = False) -> list[Question]:
    """Return those of *asked* that *found* has no answer to; with *failed* also those whose call failed."""
    answers = [(one, found.answer(one.key, one.asked)) for one in asked]
    return [one for one, answer in answers if answer is None or (failed and answer.data is None)]


def ask_all(suite: Suite, todo: Sequence[Question], found: RunFile, progress: Progress = lambda: None) -> None:
    """Ask *todo*, and keep each answer in *found* as it comes. Raises `ConfigError` or `InputError`.

    A call that fails is an answer too, one that says why.
    """
    recorded = [one for one in todo if one.candidate.recording is not None]
    live = [one for one in todo if one.candidate.recording is None]
    if recorded:
        loop = VirtualLoop()
        clock = VirtualClock(loop, epoch=time.time() // 86_400 * 86_400)
        run(_ask_all(suite, recorded, found, clock, progress), loop)
    if live:
        asyncio.run(_ask_all(suite, live, found, None, progress))


async def _ask_all(
    suite: Suite, todo: Sequence[Question], found: RunFile, clock: Clock | None, progress: Progress
) -> None:
    async with open_for(suite, clock) as (gateway, books):
        await gateway.ready()
        names = {
            candidate.called: candidate.model if candidate.policy else alias(i)
            for i, candidate in enumerate(suite.candidates)
        }

        async def one(question: Question) -> None:
            found.append(await _ask(gateway, books, question, names[question.candidate.called]))
            progress()

        await each(todo, one, suite.file.concurrency)


async def each(items: Iterable[Any], work: Callable[[Any], Awaitable[None]], at_once: int) -> None:
    """Do *work* for each of *items*, *at_once* at a time, begun in their order. The first error ends it all."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


@asynccontextmanager
async def open_for(suite: Suite, clock: Clock | None) -> AsyncIterator[tuple[Gateway, Books]]:
    """Open a gateway for *suite*, without saving levers, on whose books nobody else is.

    *clock* None: in real time, with the providers of the configuration. Else on that clock, with recordings only.
    """
    config = config_for(suite, recorded=clock is not None)
    books = Books()
    providers: dict[str, OpenProvider] = {}
    if clock is None:
        providers |= open_providers(suite.config, os.environ)
    providers |= recordings(suite)
    try:
        async with Gateway.open(
            config, clock=clock, rng=random.Random(suite.file.seed), ledger=books, keyring=Anyone(),
            providers=complete(config, providers),
        ) as gateway:  # fmt: skip
            yield gateway, books
    finally:
        for provider in providers.values():
            await provider.close()


async def _ask(gateway: Gateway, books: Books, question: Question, name: str) -> Answer:
    """Ask one question and return what came of it, with its row of the books."""
    wire = WIRES[question.case.protocol]
    hints = Hints(request_class=question.case.request_class if question.candidate.policy else None)
    call = gateway.new_call(orjson.dumps({**question.body, "model": name}), hints, wire=wire)
    written = books.expect(call.id)
    reply: Reply | None = None
    data, error = None, None
    try:
        reply = await gateway.handle(call)
        await (reply.whole() if reply.deadline is None else reply.deadline.hold(reply.whole(), "the deadline passed"))
        data = dict(reply.data)
    except NegawattError as failure:
        error = f"{type(failure).__name__}: {failure.message}"
    finally:
        if reply is not None:
            await reply.close()
    row = await asyncio.wait_for(written, _ROW_S)
    return _answer(question, row, data, error)


def _answer(question: Question, row: Outcome, data: dict[str, Any] | None, error: str | None) -> Answer:
    joules = None
    if row.energy_low_j is not None and row.energy_j is not None and row.energy_high_j is not None:
        joules = (row.energy_low_j, row.energy_j, row.energy_high_j)
    candidate, case, repeat = question.key
    return Answer(
        candidate=candidate, case=case, repeat=repeat, asked=question.asked, ending=row.ending, data=data, error=error,
        model=row.response_model, provider=row.provider, input_tokens=row.input_tokens, output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens, usage_basis=row.usage_basis, cost_pusd=row.cost_pusd, energy_j=joules,
        energy_basis=row.energy_basis, duration_s=row.duration_s, first_chunk_s=row.time_to_first_chunk_s,
        attempts=row.attempts,
    )  # fmt: skip


class Estimate(msgspec.Struct, frozen=True):
    """What live calls will come to at list prices, before they are made. *usd* None: no price is known for some."""

    calls: int
    usd: Decimal | None
    unpriced: tuple[str, ...] = ()


def estimate(suite: Suite, todo: Sequence[Question], judging: int = 0) -> Estimate:
    """Return what asking *todo* live will cost: input counted, answers of `answer_tokens` or of their own limit."""
    from negawatt.books import open_accounts
    from negawatt.economics.counting import TokenCounter
    from negawatt.economics.usage import Usage

    accounts, known, tokens = open_accounts(suite.config), Catalogue(suite.config), TokenCounter()
    total, unpriced, calls = Decimal(0), set(), 0
    for one in todo:
        if one.candidate.recording is not None:
            continue
        calls += 1
        target = known.targets(one.candidate.model)[0]
        wire, body = WIRES[one.case.protocol], Request(data=one.body)
        counted = tokens.count(target.model, wire.prompt(body), wire.contract(body))
        most = one.body.get("max_tokens") or one.body.get("max_completion_tokens") or suite.file.answer_tokens
        usage = Usage(input_tokens=counted.tokens, output_tokens=int(most), basis="estimated")
        amount = accounts.amount(target.provider, target.model, usage, time.time())
        if amount.cost_usd is None:
            unpriced.add(one.candidate.called)
        else:
            total += amount.cost_usd
    return Estimate(calls + judging, None if unpriced else total, tuple(sorted(unpriced)))
