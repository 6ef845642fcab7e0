"""Which calls are traced, and what is remembered of them on the path. Nothing of OpenTelemetry's is needed here."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from negawatt.call import Call, Trail
from negawatt.config_telemetry import Otel
from negawatt.errors import NegawattError
from negawatt.ledger.outcome import Outcome
from negawatt.protocol import Wire
from negawatt.telemetry.names import PARAMETERS
from negawatt.telemetry.traceparent import HEADER, header_of, parent_of, span_of, trace_of

_MOST_WAITING = 8192  # calls; beyond that they are left out, and counted
_WORDS, _LONGEST_WORD = ("reasoning_effort",), 20  # all else has to be a number: it may be refused for not being one
_HALF = 1 << 64


class Said(NamedTuple):
    """What was asked and answered; kept only where the configuration asks for it."""

    wire: Wire
    request: Any
    answer: Mapping[str, Any] | None


class Seen(NamedTuple):
    """A call that has ended and is to be told of. *parent*: the caller's span, where it has one."""

    outcome: Outcome
    trace_id: int
    parent: int | None
    parameters: Mapping[str, Any]
    finish_reasons: tuple[str, ...]
    said: Said | None


class Tracer:
    """Decides by the caller's word, else by the id of the trace: all who see the same id decide alike."""

    def __init__(self, settings: Otel) -> None:
        self._below = round(settings.share * _HALF)
        self._content = settings.capture_content
        self._propagate = settings.propagate
        self.waiting: deque[Seen] = deque()
        self.dropped = 0

    def onward(self, call: Call, attempt: int) -> Call:
        """Return *call* with what the provider is told of its trace when it is asked for the *attempt*-th time."""
        headers = [header for header in call.headers if header[0] != HEADER]
        if self._propagate:
            trace_id, _, sampled = self._context(call)
            if sampled:
                headers.append((HEADER, header_of(trace_id, span_of(call.id, attempt))))
            elif parent_of(call.hints.traceparent) is not None:
                headers.append((HEADER, str(call.hints.traceparent).strip()))  # no span of ours stands between
        return msgspec.structs.replace(call, headers=tuple(headers))

    def observe(self, call: Call, trail: Trail, outcome: Outcome) -> None:
        """Take note of a call that has ended."""
        trace_id, parent, sampled = self._context(call)
        if not sampled:
            return
        if len(self.waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        asked = call.request.origin or call.request
        answer = _answer(trail)
        said = Said(call.wire, asked, answer) if self._content else None
        self.waiting.append(Seen(outcome, trace_id, parent, _parameters(asked), _finish_reasons(answer), said))

    def _context(self, call: Call) -> tuple[int, int | None, bool]:
        parent = parent_of(call.hints.traceparent)
        if parent is not None:
            return parent.trace_id, parent.span_id, parent.sampled
        trace_id = trace_of(call.id)
        return trace_id, None, trace_id % _HALF < self._below


def withheld(call: Call, attempt: int) -> Call:
    """Return *call* without what its caller says of its trace."""
    return msgspec.structs.replace(call, headers=tuple(one for one in call.headers if one[0] != HEADER))


def _answer(trail: Trail) -> Mapping[str, Any] | None:
    if trail.reply is None or trail.reply.error is not None:
        return None
    try:
        return trail.reply.data
    except NegawattError:
        return None  # a provider's answer that is no JSON: the call has failed, and its row says so


def _parameters(request: Any) -> dict[str, Any]:
    """Return the numbers and short words of *request* that a span has, by their attribute."""
    try:
        data = request.data
    except NegawattError:
        return {}  # it was refused for it
    found = {}
    for field, name in PARAMETERS.items():
        value = data.get(field)
        word = isinstance(value, str) and field in _WORDS and len(value) <= _LONGEST_WORD
        if word or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            found[name] = value
    return found


def _finish_reasons(answer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return why the answer ended, in the words of its protocol: of each choice, or of the whole."""
    if answer is None:
        return ()
    choices = answer.get("choices")
    if isinstance(choices, list):
        reasons = [one.get("finish_reason") for one in choices if isinstance(one, dict)]
    else:
        reasons = [answer.get("stop_reason") or answer.get("status")]
    return tuple(one for one in reasons if isinstance(one, str))
