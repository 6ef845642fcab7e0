"""From the row of a call to its spans: one for the call, one for each time that a provider was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.errors import NegawattError
from negawatt.ledger.outcome import Outcome
from negawatt.telemetry import names
from negawatt.telemetry.bounds import Errors
from negawatt.telemetry.names import Naming
from negawatt.telemetry.traceparent import span_of
from negawatt.telemetry.tracing import Said, Seen

Addresses = Mapping[str, tuple[str, int]]
_WELL = frozenset({"answered", "cached", "coalesced", "cancelled", "abandoned"})  # hanging up is no error
_LONGEST_CONTENT = 65_536  # characters of what was asked, or answered
_LONGEST_REASON = 200
_SAVED = ("input_tokens", "output_tokens", "upstream_s", "basis")


class Span(NamedTuple):
    """One span. Times are nanoseconds since 1970; *failed*: the type of the error, None where there was none."""

    name: str
    client: bool  # else internal
    trace_id: int
    span_id: int
    parent: int | None
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...] = ()  # all at the end: when a lever decided is not written down
    failed: str | None = None


class Spans:
    """Makes spans of calls. *addresses*: host and port of each provider."""

    def __init__(self, *, naming: Naming, addresses: Addresses) -> None:
        self._naming = naming
        self._addresses = addresses
        self._errors = Errors()

    def of(self, seen: Seen) -> list[Span]:
        """Return the spans of the call: its own first, then those of its attempts, as its children."""
        one = seen.outcome
        began_ns = round(one.received_at * 1e9)
        own = span_of(one.id)
        attributes = {**names.attributes_of(one), **seen.parameters}
        if one.error_type is not None:
            attributes["error.type"] = self._errors.label(one.error_type)
        if seen.finish_reasons:
            attributes[names.FINISH_REASONS] = seen.finish_reasons
        if seen.said is not None:
            attributes |= _content(seen.said)
        call = Span(
            _named(one.operation, one.request_model), False, seen.trace_id, own, seen.parent, began_ns,
            began_ns + round(one.duration_s * 1e9), names.renamed(attributes, self._naming), _decisions(one),
            None if one.ending in _WELL else attributes.get("error.type", one.ending),
        )  # fmt: skip
        attempts = [] if one.attempt_log == "[]" else orjson.loads(one.attempt_log)
        return [call, *(self._attempt(seen, call, number, attempt) for number, attempt in enumerate(attempts))]

    def _attempt(self, seen: Seen, call: Span, number: int, attempt: Mapping[str, Any]) -> Span:
        one = seen.outcome
        began_ns = call.began_ns + round(attempt["started_s"] * 1e9)
        lasted_s = attempt.get("duration_s")
        error = attempt.get("error")
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": one.operation, "gen_ai.provider.name": attempt["provider"],
            "gen_ai.request.model": attempt["model"], **seen.parameters,
        }  # fmt: skip
        address = self._addresses.get(attempt["provider"])
        if address is not None:
            attributes[names.SERVER_ADDRESS], attributes[names.SERVER_PORT] = address
        usage = attempt.get("usage") or {}
        for column in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            if usage.get(column):
                attributes[names.ATTRIBUTES[column]] = usage[column]
        if attempt.get("cost_pusd") is not None:
            attributes |= names.cost_attributes(attempt["cost_pusd"], told=usage.get("cost_usd") is not None)
        if attempt.get("status") is not None:
            attributes["http.response.status_code"] = attempt["status"]
        if error is None:
            attributes |= _answered(one, seen)
        else:
            attributes["error.type"] = self._errors.label(error)
        return Span(
            _named(one.operation, attempt["model"]), True, seen.trace_id, span_of(one.id, number), call.span_id,
            began_ns, call.ended_ns if lasted_s is None else began_ns + round(lasted_s * 1e9),
            names.renamed(attributes, self._naming), (), attributes.get("error.type"),
        )  # fmt: skip


def _answered(one: Outcome, seen: Seen) -> dict[str, Any]:
    """Return what only the attempt has whose answer it was; with several that answered, each has it."""
    found: dict[str, Any] = {"gen_ai.response.model": one.response_model, "gen_ai.response.id": one.response_id}
    if seen.finish_reasons:
        found[names.FINISH_REASONS] = seen.finish_reasons
    return {name: value for name, value in found.items() if value is not None}


def _named(operation: str, model: str | None) -> str:
    return operation if model is None else f"{operation} {model[:100]}"


def _decisions(one: Outcome) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the decisions of the levers as events."""
    if one.decisions == "[]":
        return ()
    events = []
    for decision in orjson.loads(one.decisions):
        said: dict[str, Any] = {
            f"negawatt.{name}": decision[name] for name in ("lever", "action", "mode") if decision.get(name)
        }
        if decision.get("reason"):
            said["negawatt.reason"] = decision["reason"][:_LONGEST_REASON]
        saved = decision.get("saved") or {}
        said |= {f"negawatt.saved.{name}": saved[name] for name in _SAVED if saved.get(name) is not None}
        if saved.get("cost_pusd") is not None:
            said["negawatt.saved.cost_usd"] = saved["cost_pusd"] / 10**12
        if saved.get("energy_j") is not None:
            said |= dict(zip(("negawatt.saved.energy.low_joules", "negawatt.saved.energy.central_joules",
                              "negawatt.saved.energy.high_joules"), saved["energy_j"], strict=True))  # fmt: skip
        events.append(("negawatt.decision", said))
    return tuple(events)


def _content(said: Said) -> dict[str, Any]:
    """Return what was asked and answered, as the convention has it: JSON of messages with their parts."""
    found = {}
    try:
        prompt = said.wire.prompt(said.request)
    except NegawattError:
        return {}  # it was refused, for it could not be read
    texts = [{"role": "user", "content": text} for text in prompt.texts]
    asked = [_message(one) for one in (*prompt.messages, *texts) if isinstance(one, dict)]
    if asked:
        found[names.INPUT_MESSAGES] = _json(asked)
    if said.answer is not None:
        text = said.wire.text_of(said.answer)
        found[names.OUTPUT_MESSAGES] = _json([_message({"role": "assistant", "content": text})])
    return found


def _message(message: Any) -> dict[str, Any]:
    content = message.get("content")
    pieces = content if isinstance(content, list) else [content]
    parts = [
        {"type": "text", "content": piece if isinstance(piece, str) else piece.get("text")}
        for piece in pieces
        if isinstance(piece, str) or (isinstance(piece, dict) and "text" in piece)
    ]
    return {"role": message.get("role"), "parts": parts}


def _json(messages: list[dict[str, Any]]) -> str:
    text = msgspec.json.encode(messages).decode()
    return text if len(text) <= _LONGEST_CONTENT else text[:_LONGEST_CONTENT] + "... (cut off)"
