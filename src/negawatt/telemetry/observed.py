"""From the rows of calls to the series of the metrics.

`Observed.observe` is told of each row on the path, and puts it on a list. What has gathered there is folded, sixty-four
rows at a time, when the event loop comes to it, and all of it whenever somebody asks. Nothing waits for a timer, so an
idle gateway does nothing, and a replay's virtual clock has nothing to jump to.

Of sixty-four rows most are alike. They are sorted by kind first, and the columns of each kind are added up at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from negawatt.clock import Clock
from negawatt.ledger.outcome import Outcome
from negawatt.telemetry import instruments as known
from negawatt.telemetry.bounds import NOBODY, Errors, Models
from negawatt.telemetry.series import Histogram, Metric, Number

log = logging.getLogger(__name__)
_SLICE = 64  # rows; about a quarter of a millisecond
_PICO = 10**12
_ANSWERED = frozenset({"answered", "cached", "coalesced"})
_CHOICES = frozenset({"chose", "accepted", "escalated", "corrected", "trusted", "abstained"})
_EXPLORED = frozenset({"explored", "explore"})
_DURATIONS = {
    "chat": known.DURATION, "text_completion": known.DURATION, "embeddings": known.EMBEDDINGS_DURATION
}  # fmt: skip


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Any = None  # where the provider said it


class _Attempt(msgspec.Struct, gc=False):
    """What is needed of an entry of the column attempt_log."""

    provider: str
    model: str
    started_s: float
    billed: bool = True
    error: str | None = None
    usage: _Usage | None = None
    cost_pusd: int | None = None
    duration_s: float | None = None


class _Saved(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_pusd: int | None = None
    energy_j: tuple[float, float, float] | None = None
    basis: str = "measured"


class _Detail(msgspec.Struct, gc=False):
    by: Any = None
    model: Any = None


class _Decision(msgspec.Struct, gc=False):
    """What is needed of an entry of the column decisions."""

    lever: str
    action: str
    mode: str = "on"
    saved: _Saved | None = None
    detail: _Detail | None = None


class _Call:
    """The series that calls of one kind add to, and those of them that are yet to be added."""

    __slots__ = ("duration", "first_chunk", "model", "overhead", "requests", "rows", "used")

    def __init__(
        self, model: str, requests: Number, duration: Histogram, first_chunk: Histogram, overhead: Histogram
    ) -> None:
        self.used = 0.0
        self.rows: list[Outcome] = []
        self.model = model  # its label
        self.requests = requests
        self.duration = duration
        self.first_chunk = first_chunk
        self.overhead = overhead

    def series(self) -> list[Number | Histogram]:
        return [self.requests, self.duration, self.first_chunk, self.overhead]

    def fold(self, now: float) -> None:
        rows, self.rows, self.used = self.rows, [], now
        self.requests.value += len(rows)
        self.duration.add([one.duration_s for one in rows])
        self.overhead.add([one.overhead_s for one in rows])
        first = [one.time_to_first_chunk_s for one in rows if one.stream and one.ending in _ANSWERED]
        self.first_chunk.add([seconds for seconds in first if seconds is not None])


class _Client:
    """The series that calls of one kind to one provider add to, and those of them that are yet to be added."""

    __slots__ = (
        "attempts", "cost", "duration", "first_chunk", "per_token", "sizes", "tokens", "unpriced", "used", "where"
    )  # fmt: skip

    def __init__(self, where: tuple[str, str, str], duration: Histogram, cost: Number, unpriced: Number) -> None:
        self.used = 0.0
        self.attempts: list[_Attempt] = []
        self.where = where  # operation, provider, model
        self.duration = duration
        self.cost = cost
        self.unpriced = unpriced
        self.first_chunk: Histogram | None = None
        self.per_token: Histogram | None = None
        self.tokens: list[Number] = []  # input, output, read, written, reasoned
        self.sizes: list[Histogram] = []  # input, output

    def series(self) -> list[Number | Histogram]:
        more = [one for one in (self.first_chunk, self.per_token) if one is not None]
        return [self.duration, self.cost, self.unpriced, *self.tokens, *self.sizes, *more]

    def fold(self, now: float) -> None:
        attempts, self.attempts, self.used = self.attempts, [], now
        self.duration.add([one.duration_s for one in attempts if one.duration_s is not None])
        self.cost.value += sum([one.cost_pusd for one in attempts if one.cost_pusd is not None])
        self.unpriced.value += sum([one.billed for one in attempts if one.cost_pusd is None])
        usages = [one.usage for one in attempts if one.usage is not None]
        if usages:
            read, sent = [one.input_tokens for one in usages], [one.output_tokens for one in usages]
            cached = [one.cache_read_tokens for one in usages], [one.cache_write_tokens for one in usages]
            columns = (read, sent, *cached, [one.reasoning_tokens for one in usages])
            for number, column in zip(self.tokens, columns, strict=True):
                number.value += sum(column)
            for size, column in zip(self.sizes, columns, strict=False):
                size.add(column)


class _Burned:
    """The series that the energy of calls adds to, and those of them that are yet to be added."""

    __slots__ = ("bounds", "grams", "rows", "used")

    def __init__(self, bounds: list[Number], grams: Number) -> None:
        self.used = 0.0
        self.rows: list[Outcome] = []
        self.bounds = bounds
        self.grams = grams

    def series(self) -> list[Number | Histogram]:
        return [*self.bounds, self.grams]

    def fold(self, now: float) -> None:
        rows, self.rows, self.used = self.rows, [], now
        low, central, high = self.bounds
        low.value += sum([one.energy_low_j or 0.0 for one in rows])
        central.value += sum([one.energy_j or 0.0 for one in rows])
        high.value += sum([one.energy_high_j or 0.0 for one in rows])
        self.grams.value += sum([one.co2e_g or 0.0 for one in rows])


class Observed:
    """Adds up what the rows say. *configured*: names of models that are labels from the start."""

    def __init__(
        self, clock: Clock, *, configured: Iterable[str], zone: str, most_models: int = 200, idle_s: float = 86_400.0
    ) -> None:
        self._clock = clock
        self._zone = zone
        self._idle_s = idle_s
        self._models = Models(configured, most_models)
        self._errors = Errors()
        money = {known.COST, known.SAVED_COST, known.LOST_COST}
        self._metrics = {one: Metric(one, scale=_PICO if one in money else 1) for one in known.FOLDED}
        # By what rows say where that is a label, else by the label that stands for it.
        self._calls: dict[tuple[str, str | None, str, str], _Call] = {}
        self._clients: dict[tuple[str, str, str, str | None, bool], _Client] = {}
        self._burned: dict[tuple[str, ...], _Burned] = {}
        self._spared: dict[tuple[str, str], list[tuple[Number, Number]]] = {}
        self._waiting: list[Outcome] = []
        self._filled: list[_Call | _Client | _Burned] = []  # to which something of the slice at hand belongs
        self._attempts_of = msgspec.json.Decoder(list[_Attempt]).decode
        self._decisions_of = msgspec.json.Decoder(list[_Decision]).decode

    # -- on the path -------------------------------------------------------------------------------------------

    def observe(self, outcome: Outcome) -> None:
        """Take note of the row of a call that has ended."""
        self._waiting.append(outcome)
        if len(self._waiting) == _SLICE:
            asyncio.get_running_loop().call_soon(self._fold_some)

    # -- off it ------------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        """Return all metrics, with what has been observed up to now, and without what has been idle for too long."""
        while self._waiting:
            self._fold_some(again=False)
        self._expire()
        return list(self._metrics.values())

    def _fold_some(self, *, again: bool = True) -> None:
        batch, self._waiting = self._waiting[:_SLICE], self._waiting[_SLICE:]
        if again and len(self._waiting) >= _SLICE:
            asyncio.get_running_loop().call_soon(self._fold_some)
        for outcome in batch:
            try:
                self._sort(outcome)
            except Exception:
                log.exception("call %s cannot be counted in the metrics", outcome.id)
        now, filled = self._clock.monotonic(), self._filled
        self._filled = []
        for kind in filled:
            try:
                kind.fold(now)
            except Exception:
                log.exception("calls of one kind cannot be counted in the metrics")

    def _sort(self, one: Outcome) -> None:
        """Put *one* to those of its kind, which are added up together."""
        call = self._calls.get((one.request_class, one.request_model, one.ending, one.cache)) or self._call_of(one)
        if not call.rows:
            self._filled.append(call)
        call.rows.append(one)
        asked = NOBODY
        if one.attempt_log != "[]":
            asked = self._sort_attempts(one)
        if one.energy_j is not None:
            key = (asked, one.energy_basis or NOBODY)
            burned = self._burned.get(key) or self._new_burned(*key)
            if not burned.rows:
                self._filled.append(burned)
            burned.rows.append(one)
        said = one.decisions
        if '"saved"' in said or '"explore' in said or '"route"' in said:
            self._fold_decisions(one, call.model)

    def _sort_attempts(self, one: Outcome) -> str:
        """Do so with what was asked of providers; return whose answer it was, else who was asked first."""
        attempts = self._attempts_of(one.attempt_log)
        asked = NOBODY
        streamed = one.time_to_first_chunk_s if one.stream and one.ending in _ANSWERED else None
        if streamed is not None and sum([attempt.error is None for attempt in attempts]) != 1:
            streamed = None  # whose first chunk it was is not known
        for attempt in attempts:
            usage = attempt.usage
            told = usage is not None and usage.cost_usd is not None
            key = (one.operation, attempt.provider, attempt.model, attempt.error, told)
            client = self._clients.get(key) or self._client_of(*key)
            if attempt.error is None or asked == NOBODY:
                asked = client.where[2]
            if not client.attempts:
                self._filled.append(client)
            client.attempts.append(attempt)
            if usage is not None and not client.tokens:
                self._with_tokens(client)
            if streamed is not None and attempt.error is None:
                self._fold_stream(client, attempt, streamed - attempt.started_s)
        return asked

    def _fold_stream(self, client: _Client, attempt: _Attempt, first_s: float) -> None:
        if first_s < 0:
            return
        if client.first_chunk is None:
            client.first_chunk = self._metrics[known.FIRST_CHUNK].histogram(*client.where)
            client.per_token = self._metrics[known.PER_TOKEN].histogram(*client.where)
        client.first_chunk.add([first_s])
        sent = 0 if attempt.usage is None else attempt.usage.output_tokens
        if client.per_token is not None and sent > 1 and attempt.duration_s is not None:
            client.per_token.add([max(0.0, attempt.duration_s - first_s) / (sent - 1)])

    def _fold_decisions(self, one: Outcome, model: str) -> None:
        for decision in self._decisions_of(one.decisions):
            if decision.mode == "shadow":
                continue  # what would have been is part of no sum
            if decision.saved is not None:
                self._fold_saved(decision.lever, decision.saved)
            if decision.lever == "route" and decision.action in _CHOICES:
                detail = decision.detail or _Detail()
                to = self._models.label(None if detail.model is None else str(detail.model), answered=True)
                reason = str(detail.by) if decision.action == "chose" and detail.by else decision.action
                self._metrics[known.ROUTING].number(model, to, reason).value += 1
            elif decision.action in _EXPLORED:
                self._metrics[known.EXPLORED].number(decision.lever, one.request_class).value += 1

    def _fold_saved(self, lever: str, saved: _Saved) -> None:
        """Add what was spared to saved, or what it is below nothing to lost: counters only grow."""
        pairs = self._spared.get((lever, saved.basis)) or self._new_spared(lever, saved.basis)
        energy = saved.energy_j or (None, None, None)
        values = (saved.input_tokens, saved.output_tokens, saved.cost_pusd, *energy)
        for (more, less), value in zip(pairs, values, strict=True):
            if value:
                if value > 0:
                    more.value += value
                else:
                    less.value -= value

    # -- cells, made once for each kind of call ----------------------------------------------------------------

    def _call_of(self, one: Outcome) -> _Call:
        model = self._models.label(one.request_model, answered=one.ending in _ANSWERED)
        key = (one.request_class, None if one.request_model is None else model, one.ending, one.cache)
        found = self._calls.get(key)
        if found is None:
            metrics = self._metrics
            found = self._calls[key] = _Call(
                model,
                metrics[known.REQUESTS].number(one.request_class, model, one.ending, one.cache),
                metrics[known.REQUEST_DURATION].histogram(one.request_class, one.cache),
                metrics[known.REQUEST_FIRST_CHUNK].histogram(one.request_class, one.cache),
                metrics[known.OVERHEAD].histogram(one.cache),
            )
        return found

    def _client_of(self, operation: str, provider: str, model: str, error: str | None, told: bool) -> _Client:
        where = (operation, provider, self._models.label(model, answered=error is None))
        failed = self._errors.label(error)
        key = (*where, None if error is None else failed, told)
        found = self._clients.get(key)
        if found is None:
            duration = self._metrics[_DURATIONS.get(operation, known.OTHER_DURATION)]
            found = self._clients[key] = _Client(
                where,
                duration.histogram(*where, failed),
                self._metrics[known.COST].number(where[2], "provider" if told else "local"),
                self._metrics[known.UNPRICED].number(where[2]),
            )
        return found

    def _new_burned(self, asked: str, basis: str) -> _Burned:
        energy = self._metrics[known.ENERGY]
        bounds = [energy.number(asked, basis, bound) for bound in ("low", "central", "high")]
        burned = self._burned[asked, basis] = _Burned(bounds, self._metrics[known.CO2E].number(self._zone, basis))
        return burned

    def _with_tokens(self, client: _Client) -> None:
        where = client.where
        counters = (
            known.INPUT_TOKENS, known.OUTPUT_TOKENS, known.CACHE_READ_TOKENS, known.CACHE_WRITE_TOKENS,
            known.REASONING_TOKENS,
        )  # fmt: skip
        client.tokens = [self._metrics[one].number(*where) for one in counters]
        sizes = (known.EMBEDDINGS_SIZES,) if where[0] == "embeddings" else (known.INPUT_SIZES, known.OUTPUT_SIZES)
        client.sizes = [self._metrics[one].histogram(*where) for one in sizes]

    def _new_spared(self, lever: str, basis: str) -> list[tuple[Number, Number]]:
        """Return what a decision of *lever* adds to: (saved, lost) of tokens, money and energy.

        Both are there from the start, so that their difference can be asked for.
        """
        pairs = []
        for saved, lost, more in (
            (known.SAVED_TOKENS, known.LOST_TOKENS, ("input", "output")),
            (known.SAVED_COST, known.LOST_COST, (None,)),
            (known.SAVED_ENERGY, known.LOST_ENERGY, ("low", "central", "high")),
        ):
            for one in more:
                values = (lever, basis) if one is None else (lever, basis, one)
                pairs.append((self._metrics[saved].number(*values), self._metrics[lost].number(*values)))
        self._spared[lever, basis] = pairs
        return pairs

    def _expire(self) -> None:
        """Drop the series of calls that have not been seen for too long, and the names that only they had."""
        since = self._clock.monotonic() - self._idle_s
        before = len(self._calls) + len(self._clients) + len(self._burned)
        self._calls = {key: one for key, one in self._calls.items() if one.used >= since}
        self._clients = {key: one for key, one in self._clients.items() if one.used >= since}
        self._burned = {key: one for key, one in self._burned.items() if one.used >= since}
        if len(self._calls) + len(self._clients) + len(self._burned) == before:
            return
        cells: list[_Call | _Client | _Burned] = [*self._calls.values(), *self._clients.values()]
        cells += self._burned.values()
        alive = {id(series) for cell in cells for series in cell.series()}
        steady = {known.ROUTING, known.EXPLORED, known.SAVED_TOKENS, known.LOST_TOKENS, known.SAVED_COST,
                  known.LOST_COST, known.SAVED_ENERGY, known.LOST_ENERGY}  # fmt: skip
        for instrument, metric in self._metrics.items():
            if instrument not in steady:
                metric.keep(alive)
        asked = {one.where[2] for one in self._clients.values()}
        self._models.forget(asked | {one.model for one in self._calls.values()})
