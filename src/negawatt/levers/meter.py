"""meter: open the books when a call comes in, close them when it has ended, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import msgspec

from negawatt.call import Attempt, Call, Decision, Trail
from negawatt.economics.accounts import Accounts, Amount, Bill, to_pusd
from negawatt.economics.energy import Joules
from negawatt.errors import DeadlineExceeded, InvalidRequest, NegawattError, RequestError, UpstreamError
from negawatt.keys import request_digest
from negawatt.ledger import Ledger
from negawatt.ledger.outcome import Content, Outcome
from negawatt.pipeline import Handler
from negawatt.reply import Reply

_CACHED_AS = {
    "exact_cache": "exact", "item_cache": "exact", "coalesce": "coalesced", "semantic_cache": "semantic",
    "offload": "offload",
}  # fmt: skip
_ANSWERED_AS = {
    "exact_cache": "cached", "item_cache": "cached", "coalesce": "coalesced", "semantic_cache": "cached",
    "offload": "cached",
}  # fmt: skip
_MISSED = frozenset({"miss", "partial", "explored"})
CACHES = frozenset({"exact_cache", "item_cache", "coalesce", "semantic_cache"})
_encode = msgspec.json.Encoder().encode


class Count(Protocol):
    """Adds one to a counter with these labels."""

    def __call__(self, name: str, **labels: str) -> None: ...


class Blocks(Protocol):
    """Returns, as JSON, the tokens that blocks of a template have to a model."""

    def __call__(self, model: str, blocks: Sequence[tuple[str, str]]) -> str: ...


class Meter:
    """Writes one row for each call whose caller is known."""

    def __init__(
        self,
        accounts: Accounts,
        ledger: Ledger,
        *,
        keep_content: bool = False,
        count: Count | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._keep_content = keep_content
        self._count = count
        self._blocks = blocks
        self._versions = _encode(accounts.versions).decode()
        self.fingerprinted: frozenset[str] = frozenset()  # classes whose rows need their request's digest
        self.observers: list[Callable[[Outcome], None]] = []  # told of each row; what they do is on the path
        self.traced: Callable[[Call, Trail, Outcome], None] | None = None  # likewise, of calls with their trail

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        trail = call.trail
        trail.on_complete = self._write
        try:
            reply = await forward(call)
        except BaseException as error:
            trail.end(ending_of(error), status=error.status if isinstance(error, NegawattError) else None, error=error)
            raise
        trail.reply = reply
        reply.on_end(lambda ended: trail.end(_ending(ended, trail), status=ended.status, error=ended.error))
        reply.on_read(partial(self._settle, call))
        return reply

    def _settle(self, call: Call, reply: Reply) -> None:
        """Work out what the call comes to, unless an attempt outlasts it: others may still read what it pays for."""
        if all(attempt.ended is not None for attempt in call.trail.attempts):
            call.trail.bill = self._accounts.bill(call.trail, call.received_at)

    def _write(self, trail: Trail) -> None:
        call = trail.call
        if call is None or call.caller is None:
            return  # a stranger: nobody to bill, and nobody may fill our disk unknown
        if self._count is not None:
            for decision in trail.decisions:
                if decision.lever in CACHES:
                    self._count("negawatt_cache_decisions_total", cache=decision.lever, action=decision.action,
                                mode=decision.mode, request_class=call.request_class)  # fmt: skip
        content = None
        if self._keep_content and trail.reply is not None:
            asked = call.request.origin or call.request
            content = Content(call.id, asked.body, trail.reply.body if trail.reply.finished else None)
        outcome = self.outcome(call, trail)
        self._ledger.append(outcome, content)
        for observer in self.observers:
            observer(outcome)
        if self.traced is not None:
            self.traced(call, trail, outcome)

    def outcome(self, call: Call, trail: Trail) -> Outcome:
        """Return the row of a call that has ended."""
        bill = self._accounts.bill(trail, call.received_at) if trail.bill is None else trail.bill
        last = trail.answerer
        caller, hints, error = call.caller, call.hints, trail.error
        checked = bool(call.targets)
        digest = self._digest(call)
        duration_s, upstream_s, queue_s, overhead_s = _times(call, trail)
        first = trail.first_byte if trail.first_byte is not None else None if last is None else last.first_chunk
        return Outcome(
            id=call.id,
            received_at=call.received_at,
            tenant=None if caller is None else caller.tenant,
            user_id=None if caller is None else caller.user,
            key_id=None if caller is None else caller.key_id,
            request_class=call.request_class,
            task_id=hints.task,
            session_id=hints.session,
            operation=call.wire.operation,
            protocol=call.wire.name,
            stream=call.streams if checked else None,
            request_model=call.request.model if checked else None,
            response_model=_response_model(trail, last, bill),
            provider=None if last is None else last.target.provider,
            ending=trail.ending or "failed",
            status=trail.status,
            error_type=None if error is None else type(error).__name__,
            error_message=error.message[:500] if isinstance(error, NegawattError) else None,
            cache=cache_of(trail),
            holdout=trail.holdout,
            fingerprint=None if digest is None else digest.hex(),
            **self._amounts(bill, trail, overhead_s),
            duration_s=duration_s,
            queue_s=queue_s,
            upstream_s=upstream_s,
            overhead_s=overhead_s,
            time_to_first_chunk_s=None if first is None else first - call.started,
            baseline_duration_s=_baseline_s(bill, duration_s),
            decisions=self._decisions(trail, bill, call.received_at),
            attempt_log=self._attempts(trail, bill, call.started),
            versions=self._versions,
            permissions=call.scope.permissions or None,
            corpus_version=call.scope.corpus_version,
            prompt_version=call.scope.prompt_version,
            key_headers=None if call.scope.headers is None else _encode(call.scope.headers).decode(),
            response_id=_response_id(trail),
            counted_input_tokens=None if trail.counted is None else trail.counted.tokens,
            count_basis=None if trail.counted is None else trail.counted.basis,
            **self._template(call, last),
            aside_for=call.aside_for,
        )

    def _digest(self, call: Call) -> bytes | None:
        asked = call.request.origin or call.request
        if asked.digest is None and call.targets and call.request_class in self.fingerprinted:
            with suppress(InvalidRequest):  # it is nested too deeply to be written again
                return request_digest(asked, call.wire)
        return asked.digest

    def _template(self, call: Call, last: Attempt | None) -> dict[str, Any]:
        """Return the columns of a prompt template; the answer has left, so that counting its blocks delays nobody."""
        if call.template is None:
            return {}
        target = last.target if last is not None else call.targets[0] if call.targets else None
        counted = None if self._blocks is None or target is None else self._blocks(target.model, call.template.blocks)
        return {
            "template": call.template.name, "template_version": call.template.version, "prompt_blocks": counted
        }  # fmt: skip

    def _amounts(self, bill: Bill, trail: Trail, overhead_s: float) -> dict[str, Any]:
        """Return the columns of usage, money and energy. What we burned ourselves comes off every saving."""
        usage = bill.usage
        # No attempt, or none that reached a provider: nothing was used, and that is known.
        nothing = 0 if usage is None and not any(a.billed for a in trail.attempts) else None
        actual, baseline = bill.actual.joules, bill.baseline_joules
        if actual is not None and overhead_s:
            actual += self._accounts.own(overhead_s)
        named = bill.actual if bill.actual.price_source is not None else _first_named(bill)
        return {
            "attempts": len(trail.attempts),
            "input_tokens": nothing if usage is None else usage.input_tokens,
            "output_tokens": nothing if usage is None else usage.output_tokens,
            "cache_read_tokens": nothing if usage is None else usage.cache_read_tokens,
            "cache_write_tokens": nothing if usage is None else usage.cache_write_tokens,
            "reasoning_tokens": nothing if usage is None else usage.reasoning_tokens,
            "usage_basis": None if usage is None else usage.basis,
            "baseline_input_tokens": bill.baseline_input_tokens,
            "baseline_output_tokens": bill.baseline_output_tokens,
            "cost_pusd": to_pusd(bill.actual.cost_usd),
            "baseline_cost_pusd": to_pusd(bill.baseline_cost_usd),
            "price_source": named.price_source,
            "energy_low_j": None if actual is None else actual.low,
            "energy_j": None if actual is None else actual.central,
            "energy_high_j": None if actual is None else actual.high,
            "baseline_energy_low_j": None if baseline is None else baseline.low,
            "baseline_energy_j": None if baseline is None else baseline.central,
            "baseline_energy_high_j": None if baseline is None else baseline.high,
            "energy_basis": named.energy_basis,
            "co2e_g": self._grams(actual),
        }

    def _grams(self, joules: Joules | None) -> float | None:
        return None if joules is None else self._accounts.carbon.grams(joules).central if joules.high else 0.0

    def _decisions(self, trail: Trail, bill: Bill, at: float) -> str:
        if not trail.decisions:
            return "[]"
        rows = [d if d.saved is None else self._priced(d, place, bill, at) for place, d in enumerate(trail.decisions)]
        return _encode(rows).decode()

    def _priced(self, decision: Decision, place: int, bill: Bill, at: float) -> Decision | dict[str, Any]:
        assert decision.saved is not None
        if place in bill.void:
            return msgspec.structs.replace(decision, saved=None)
        return {
            "lever": decision.lever,
            "action": decision.action,
            "reason": decision.reason,
            "mode": decision.mode,
            "saved": self._accounts.priced_saving(decision.saved, place, bill, at),
            "detail": decision.detail,
        }

    def _attempts(self, trail: Trail, bill: Bill, began: float) -> str:
        if not trail.attempts:
            return "[]"
        return _encode([
            {
                "provider": attempt.target.provider,
                "priced_as": self._accounts.price_id(attempt.target.provider),
                "model": attempt.target.model,
                **({} if attempt.target.effort is None else {"effort": attempt.target.effort}),
                "status": attempt.status,
                "error": attempt.error,
                "billed": attempt.billed,
                "usage": attempt.usage,
                "cost_pusd": to_pusd(amount.cost_usd),
                "started_s": round(attempt.started - began, 6),
                "duration_s": None if attempt.ended is None else round(attempt.ended - attempt.started, 6),
            }
            for attempt, amount in zip(trail.attempts, bill.attempts, strict=True)
        ]).decode()  # fmt: skip


def ending_of(error: BaseException) -> str:
    """Return how a call ends that raised *error* before its answer began."""
    if isinstance(error, RequestError):
        return "refused"
    if isinstance(error, UpstreamError):
        return "upstream_error"
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    return "abandoned" if isinstance(error, asyncio.CancelledError) else "failed"


def _ending(reply: Reply, trail: Trail) -> str:
    if isinstance(reply.error, UpstreamError):
        return "upstream_broken"
    if isinstance(reply.error, DeadlineExceeded):
        return "deadline"
    if reply.error is not None:
        return "failed"
    if reply.undelivered or not reply.finished:
        return "abandoned" if trail.first_byte is None else "cancelled"
    return _ANSWERED_AS.get(reply.answered_by, "answered")


def cache_of(trail: Trail) -> str:
    """Return ``exact``, ``semantic``, ``coalesced``, ``offload``, ``miss`` or ``bypass``."""
    reply = trail.reply
    if reply is not None and reply.answered_by in _CACHED_AS:
        return _CACHED_AS[reply.answered_by]
    for decision in trail.decisions:
        if decision.lever in CACHES and decision.action in _MISSED and decision.mode == "on":
            return "miss"
    return "bypass"


def _first_named(bill: Bill) -> Amount:
    """Return an amount that says where its price is from: of an answer that cost nothing, what it spared."""
    for amount in bill.saved.values():
        if amount.price_source is not None:
            return amount
    return bill.actual


def _response_model(trail: Trail, last: Attempt | None, bill: Bill) -> str | None:
    reply = trail.reply
    if reply is not None and reply.error is None and reply.answered_by not in _ANSWERED_AS:
        try:
            model = reply.data.get("model")
        except NegawattError:
            model = None
        if isinstance(model, str):
            return model
    if last is not None:
        return last.target.model
    return bill.spared[-1].model if bill.spared else None


def _response_id(trail: Trail) -> str | None:
    """Return the provider's id of its answer; what it paid for is named so in its exports."""
    reply = trail.reply
    if reply is None or reply.answered_by != "provider":
        return None
    try:
        found = reply.data.get("id")
    except NegawattError:
        return None
    return found if isinstance(found, str) else None


def _times(call: Call, trail: Trail) -> tuple[float, float, float, float]:
    """Return seconds: in all, at providers, waiting on purpose, and ours."""
    ended = call.started if trail.ended is None else trail.ended
    duration_s = ended - call.started
    upstream_s = trail.upstream_s(ended)
    queue_s = min(trail.waited_s, duration_s)
    # What is there already is ours up to its first byte; how slowly a caller reads it is not.
    ours_until = ended if trail.attempts or trail.first_byte is None else trail.first_byte
    overhead_s = max(0.0, ours_until - call.started - queue_s - upstream_s)
    return duration_s, min(upstream_s, duration_s), queue_s, overhead_s


def _baseline_s(bill: Bill, duration_s: float) -> float | None:
    """Return how long the call would have taken: what the decisions spared of it, else what it took."""
    if not bill.spared:
        return duration_s
    seconds = [saved.upstream_s for saved in bill.spared]
    return None if None in seconds else sum([s for s in seconds if s is not None])
