"""Anthropic Messages: what a valid request is, what can change its answer, and what an answer says and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import orjson

from negawatt.call import Request
from negawatt.economics.tokens import estimate_tokens
from negawatt.economics.usage import Usage, usage_from_anthropic, with_tier
from negawatt.errors import body_of, status_of
from negawatt.protocol import Contract, Question, Wire
from negawatt.wire.common import (
    as_object,
    as_objects,
    check_shape,
    error_of,
    identity_without,
    named_events,
)
from negawatt.wire.effort import messages_with_effort
from negawatt.wire.messages_folder import MessagesFolder, unfold
from negawatt.wire.messages_prompt import prompt, written
from negawatt.wire.question import question_in

_COMPLETE_REASONS = frozenset({"end_turn", "stop_sequence", "tool_use"})
# Fields of a request that say how to send the answer, whose it is, or what to keep, but cannot change what it says.
NOT_IN_KEY = frozenset({"cache_control", "metadata", "service_tier", "speed", "stream"})
_BLOCKS_IN = ("content", "source", "tool", "definition", "tool_changes")  # where blocks and tools are, inside of blocks
_DEEPEST = 12  # blocks inside of blocks; four is the most that the API knows
_BILLED_ELSEWHERE = "advisor_message"  # an iteration of another model, which the counts beside it leave out
# HTTP status: what the API calls it. https://platform.claude.com/docs/en/api/errors, 2026-11.
_ERROR_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


# https://platform.claude.com/docs/en/api/errors, 2026-11; by our code.
_THREAD_ERRORS: Mapping[str, Any] = {
    "state_not_found": {"error_code": "thread_not_found"},
    "untranslatable": {"error_code": "thread_unsupported_request"},
}


class Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class Prompted(msgspec.Struct):
    """The types of the fields that we act on, as far as counting tokens has them too; the rest passes unseen."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None


class _MessagesRequest(Prompted, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=0)]  # 0 fills the provider's cache, and answers nothing
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_k: int | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, Any] | None = None


# -- requests --------------------------------------------------------------------------------------------------


def question(request: Request) -> Question | None:
    """Return the last user turn, if it is text only; around it is everything else."""
    return question_in(identity(request), "messages")


def check(request: Request) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
    check_shape(request, _MessagesRequest)


def deterministic(request: Request) -> bool:
    """True when the caller asked for the likeliest answer: temperature 0, and no thinking, which is always drawn.

    And of nothing that changes meanwhile: a container keeps the files of those who used it.
    """
    thinking = as_object(request.get("thinking")).get("type", "disabled")
    return bool(request.get("temperature") == 0) and thinking == "disabled" and not _changes(request)


def sampled(request: Request) -> bool:
    """True when the caller plainly asked for draws: a temperature above 0. That it is 1 by default is no such wish.

    Or works on in a container, which each answer changes.
    """
    return bool(request.get("temperature")) or _changes(request)


def _changes(request: Request) -> bool:
    """True when the provider keeps something that the answer changes: each answer is then somebody's own."""
    return bool(continues(request)) or request.get("thread") is not None


def continues(request: Request) -> Sequence[tuple[str, str]]:
    """Return the container that *request* works on in, and the answer whose thread it goes on with, by their ids."""
    container = request.get("container")
    name = container.get("id") if isinstance(container, dict) else container
    found = [] if name is None else [("container", str(name))]
    previous = as_object(request.get("thread")).get("previous_message_id")
    return found if previous is None else [*found, ("thread.previous_message_id", str(previous))]


def identity(request: Request) -> dict[str, Any]:
    """Return what can change the answer: every field but those of `NOT_IN_KEY`; null is absent, 1.0 is 1.

    The marks that say what the provider shall keep in its cache are left out wherever they may be.
    """
    kept = identity_without(request, NOT_IN_KEY)
    if b'"cache_control"' not in request.body:
        return kept
    for name in ("system", "tools"):
        if isinstance(kept.get(name), list):
            kept[name] = _unmarked(kept[name])
    if isinstance(kept.get("messages"), list):
        kept["messages"] = [
            {**message, "content": _unmarked(message["content"])}
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            else message
            for message in kept["messages"]
        ]
    return kept


def _unmarked(block: Any, room: int = _DEEPEST) -> Any:
    """Return *block*, or each of a list of them, without ``cache_control``; data of the caller's own is left alone."""
    if isinstance(block, list):
        return [_unmarked(entry, room - 1) for entry in block] if room else block
    if not isinstance(block, dict) or not room:
        return block
    return {
        name: _unmarked(value, room - 1) if name in _BLOCKS_IN else value
        for name, value in block.items()
        if name != "cache_control"
    }


def wants_usage(request: Request) -> bool:
    """True: every stream of this protocol shows its usage."""
    return True


def with_usage(request: Request) -> Request:
    """Return *request* itself: its stream will carry its usage."""
    return request


def contract(request: Request) -> Contract | None:
    """Return what ``output_config.format`` asks for, or ``output_format``, which was its name in the beta."""
    asked = as_object(as_object(request.get("output_config")).get("format")) or as_object(request.get("output_format"))
    if asked.get("type") != "json_schema":
        return None
    schema = asked.get("schema")
    return Contract({} if schema is None else schema)


# -- answers ---------------------------------------------------------------------------------------------------


def complete(data: Mapping[str, Any]) -> bool:
    """True when a whole answer came to its own end, neither cut off nor refused nor paused."""
    reason = data.get("stop_reason")
    return data.get("type") == "message" and isinstance(reason, str) and reason in _COMPLETE_REASONS


def text_of(data: Mapping[str, Any]) -> str:
    """Return everything a whole answer says, thinking and tool calls included, as one text."""
    said: list[str] = []
    for block in as_objects(data.get("content")):
        kind = str(block.get("type"))
        said += [block[name] for name in ("thinking", "text") if isinstance(block.get(name), str)]
        if kind.endswith("tool_use"):
            said.append(f"{block.get('name', '')}{written(block.get('input'))}")
        elif kind == "compaction" and isinstance(block.get("content"), str):
            said.append(block["content"])
    return "\n".join(said)


def answers(data: Mapping[str, Any]) -> list[str]:
    """Return the text of an answer that neither refuses nor calls a tool."""
    blocks = as_objects(data.get("content"))
    if data.get("stop_reason") in ("tool_use", "refusal") or any(block.get("type") == "tool_use" for block in blocks):
        return []
    return ["".join(str(block.get("text") or "") for block in blocks if block.get("type") == "text")]


def usage(data: Mapping[str, Any]) -> Usage | None:
    """Return the ``usage`` block, with what it tells apart: compactions, which it leaves out of its sums.

    A stream that broke off has only what was known at its start: its output is then estimated from what came.
    """
    raw = data.get("usage")
    if not isinstance(raw, Mapping):
        return None
    used = usage_from_anthropic(raw) if data.get("stop_reason") else _broken_off(raw, data)
    used = _with_iterations(used, raw)
    if used is None:
        return None
    fast = "fast" in (raw.get("speed"), data.get("speed"))
    tier = "fast" if fast else raw.get("service_tier")
    return with_tier(used, tier if isinstance(tier, str) else None)


def _broken_off(raw: Mapping[str, Any], data: Mapping[str, Any]) -> Usage | None:
    begun = usage_from_anthropic(raw)
    if begun is None or not begun.input_tokens:
        return None  # no prompt is empty: the provider had not said yet
    output = max(begun.output_tokens, estimate_tokens(text_of(data)))
    used = usage_from_anthropic({**raw, "output_tokens": output})
    if used is None or used.basis != "measured":
        return used
    return msgspec.structs.replace(used, basis="estimated")


def _with_iterations(used: Usage | None, raw: Mapping[str, Any]) -> Usage | None:
    """Return *used* with what compactions used; a lower bound where another model was asked for advice."""
    iterations = as_objects(raw.get("iterations"))
    cost = None if used is None else used.cost_usd
    for iteration in iterations:
        extra = usage_from_anthropic(iteration) if iteration.get("type") == "compaction" else None
        if extra is not None:
            used = extra if used is None else used + extra
    if used is None or not iterations:
        return used
    advised = any(iteration.get("type") == _BILLED_ELSEWHERE for iteration in iterations)
    return msgspec.structs.replace(used, cost_usd=cost, basis="partial" if advised else used.basis)


# -- the wire --------------------------------------------------------------------------------------------------


def closing(data: Mapping[str, Any]) -> bool:
    """True for a ``message_delta`` with the usage."""
    return data.get("type") == "message_delta" and bool(data.get("usage"))


def usage_only(data: Mapping[str, Any]) -> bool:
    """False: the event with the usage also says why the answer ended."""
    return False


def last(data: Mapping[str, Any]) -> bool:
    """True for ``message_stop``."""
    return data.get("type") == "message_stop"


def annotated(data: Mapping[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
    """Return *data* with *note* under ``negawatt``, and the cost as ``usage.cost``."""
    if note.get("cost_usd") is None:
        return {**data, "negawatt": note}
    return {**data, "usage": {**as_object(data.get("usage")), "cost": note["cost_usd"]}, "negawatt": note}


def error_body(error: BaseException) -> dict[str, Any]:
    """Return *error* as the Messages API says it, with our code and the field beside its type."""
    detail = body_of(error)["error"]
    status = status_of(error)
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    said = {"type": kind, "message": detail["message"], "code": detail["code"], "param": detail["param"]}
    thread = str(detail["param"]).partition(".")[0] == "thread"
    if thread and detail["code"] in _THREAD_ERRORS:  # the SDK's own loops then go on without
        said["details"] = _THREAD_ERRORS[detail["code"]]
    return {"type": "error", "error": said}


def error_event(error: BaseException) -> bytes:
    """Return *error* as the event that ends a stream."""
    return b"event: error\ndata: " + orjson.dumps(error_body(error)) + b"\n\n"


class Messages:
    """The Anthropic Messages protocol, as a `negawatt.protocol.Wire`."""

    name = "messages"
    operation = "chat"
    path = "/messages"
    streams = True
    billed = True
    stateful = True
    end = b""
    annotated = staticmethod(annotated)
    answers = staticmethod(answers)
    check = staticmethod(check)
    closing = staticmethod(closing)
    complete = staticmethod(complete)
    continues = staticmethod(continues)
    contract = staticmethod(contract)
    deterministic = staticmethod(deterministic)
    error_body = staticmethod(error_body)
    error_event = staticmethod(error_event)
    error_of = staticmethod(error_of)
    frame = staticmethod(named_events)
    identity = staticmethod(identity)
    last = staticmethod(last)
    prompt = staticmethod(prompt)
    question = staticmethod(question)
    sampled = staticmethod(sampled)
    text_of = staticmethod(text_of)
    unfold = staticmethod(unfold)
    usage = staticmethod(usage)
    usage_only = staticmethod(usage_only)
    wants_usage = staticmethod(wants_usage)
    with_effort = staticmethod(messages_with_effort)
    with_usage = staticmethod(with_usage)

    def folder(self) -> MessagesFolder:
        return MessagesFolder()


MESSAGES: Wire = Messages()
