"""What several protocols have in common: checking a request's shape, framing events, saying errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from negawatt.call import Request
from negawatt.errors import InvalidRequest, body_of
from negawatt.reply import Chunk
from negawatt.wire.sse import DONE, event, events

_TYPE = re.compile(rb'\{\s*"type"\s*:\s*"([a-z0-9_.]+)"', re.ASCII)
DONE_EVENT = event(DONE)


def check_shape(request: Request, kind: type) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be read as the struct *kind*."""
    try:
        msgspec.convert(request.data, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error


def _explained(text: str) -> InvalidRequest:
    what, _, where = text.partition(" - at `$")
    where = where.rstrip("`").removeprefix(".")
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        where = f"{where}.{missing[1]}" if where else missing[1]
        return InvalidRequest(f"{where}: this field is required", param=where)
    what = what.replace("`", "").replace("str", "string").replace("array", "list")
    return InvalidRequest(f"{where or 'body'}: {what[0].lower()}{what[1:]}", param=where or None)


def identity_without(request: Request, left_out: frozenset[str]) -> dict[str, Any]:
    """Return every field of *request* but those *left_out*; null is absent, 1.0 is 1."""
    kept = {name: value for name, value in request.data.items() if value is not None and name not in left_out}
    for name, value in kept.items():
        if type(value) is float and value.is_integer() and abs(value) < 2**53:
            kept[name] = int(value)
    return kept


def continues_nothing(request: Request) -> Sequence[tuple[str, str]]:
    """Return (): in this protocol a request says all that the answer depends on."""
    return ()


def as_object(value: Any) -> dict[str, Any]:
    """Return *value*, or an empty object in place of anything else: answers are not always what they should be."""
    return value if isinstance(value, dict) else {}


def as_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in the list *value*, and nothing in place of anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def error_of(data: Mapping[str, Any]) -> str | None:
    """Return the message of ``{"error": {"message"}}`` or ``{"error": "message"}``, cut to 500 characters."""
    error = data.get("error")
    if not isinstance(error, (dict, str)) or not error:
        return None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:500]


def data_events(chunks: Sequence[Chunk]) -> bytes:
    """Return *chunks* as events without names, as the Chat Completions API sends them."""
    return events([chunk.raw for chunk in chunks])


def named_events(chunks: Sequence[Chunk]) -> bytes:
    """Return *chunks* as events named after their ``type``, as the Messages and the Responses API send them."""
    return b"".join([b"event: " + _type_of(chunk) + b"\ndata: " + chunk.raw + b"\n\n" for chunk in chunks])


def _type_of(chunk: Chunk) -> bytes:
    found = _TYPE.match(chunk.raw)
    return found[1] if found else str(chunk.data.get("type", "message")).encode().replace(b"\n", b"")


def openai_error_event(error: BaseException) -> bytes:
    """Return *error* as the event that ends a stream of the Chat Completions API."""
    return event(orjson.dumps(body_of(error)))
