"""How long an answer may be, and what ends it, as each protocol says it.

Sources, 2026-11: the APIs' references, as their SDKs have them. Chat Completions has two words for the limit: newer
models take ``max_completion_tokens`` only, many other servers ``max_tokens`` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from negawatt.call import Request
from negawatt.wire.common import as_object, as_objects

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
_STOPS: Mapping[str, str] = {"chat": "stop", "messages": "stop_sequences"}
_LEAST: Mapping[str, int] = {"responses": 16}  # https://platform.openai.com/docs/api-reference/responses, 2026-11
PROTOCOLS = frozenset(_FIELDS)


def limit_of(protocol: str, request: Request) -> int | None:
    """Return the most tokens that *request* allows for its answer, None where it does not say."""
    limits = [request.get(name) for name in _FIELDS[protocol]]
    return next((limit for limit in limits if isinstance(limit, int)), None)


def with_limit(protocol: str, request: Request, tokens: int, *, newer: bool = True) -> Request:
    """Return *request* with at most *tokens* for its answer, in the words that it has for that.

    *newer*: which of two words, where it has neither.
    """
    fields = _FIELDS[protocol]
    named = [name for name in fields if request.get(name) is not None]
    name = named[0] if named else fields[0] if newer else fields[-1]
    return request.replace(**{name: max(tokens, _LEAST.get(protocol, 1))})


def without_limit(protocol: str, request: Request, own: Request) -> Request:
    """Return *request* with the limit that *own* has, or none."""
    data = {name: value for name, value in request.data.items() if name not in _FIELDS[protocol]}
    return Request(data={**data, **{name: own.data[name] for name in _FIELDS[protocol] if name in own.data}})


def with_stop(protocol: str, request: Request, sequences: Sequence[str]) -> Request:
    """Return *request* with *sequences* that end its answer; itself where it has some, and where there are none."""
    field = _STOPS.get(protocol)
    if field is None or request.get(field) or not sequences:
        return request
    return request.replace(**{field: list(sequences)})


def with_verbosity(protocol: str, request: Request, verbosity: str) -> Request:
    """Return *request* with *verbosity* (low, medium, high); itself where it says one, or its protocol has no word."""
    if protocol == "chat" and request.get("verbosity") is None:
        return request.replace(verbosity=verbosity)
    if protocol == "responses" and as_object(request.get("text")).get("verbosity") is None:
        return request.replace(text={**as_object(request.get("text")), "verbosity": verbosity})
    return request


def cut_off(protocol: str, data: Mapping[str, Any]) -> bool:
    """True when the whole answer *data*, or one of its choices, ended at a limit of tokens."""
    if protocol == "messages":
        return data.get("stop_reason") in ("max_tokens", "model_context_window_exceeded")
    if protocol == "responses":
        return as_object(data.get("incomplete_details")).get("reason") == "max_output_tokens"
    return any(choice.get("finish_reason") == "length" for choice in as_objects(data.get("choices")))
