"""Reading feedback: what callers may say, and which field is wrong where they may not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from negawatt.caller import Caller, Hints
from negawatt.errors import InvalidRequest
from negawatt.keys import scope_of, user_of
from negawatt.ledger.feedback import Feedback

MOST_BYTES = 65_536
_Name = Annotated[str, Meta(min_length=1, max_length=512)]
_KEY = re.compile(r"[\x20-\x7e]{1,200}")


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/feedback``."""

    call_id: _Name | None = None
    task_id: _Name | None = None
    success: bool | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    useful_tokens: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    reason: Annotated[str, Meta(max_length=2000)] | None = None
    idempotency_key: str | None = None


def said_in(body: bytes) -> Said:
    """Return what *body*, JSON, says. Raises `InvalidRequest`, which names the field."""
    try:
        return msgspec.json.decode(body, type=Said)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request body is not valid JSON: {error}") from None


def said_by(fields: Mapping[str, Any]) -> Said:
    """Return what *fields* say. Raises `InvalidRequest`, which names the field."""
    try:
        return msgspec.convert(dict(fields), Said)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def feedback(said: Said, caller: Caller, hints: Hints, at: float) -> Feedback:
    """Return what *caller* said at *at* as the ledger keeps it."""
    return Feedback(
        at=at, tenant=caller.tenant, permissions=scope_of(caller, hints, personal=False).permissions,
        kind="call" if said.call_id is not None else "task", about=said.call_id or said.task_id or "",
        success=said.success, score=said.score, useful_tokens=said.useful_tokens, reason=said.reason,
        user_id=user_of(caller, hints), key_id=caller.key_id, idempotency_key=said.idempotency_key,
    )  # fmt: skip


def checked(said: Said) -> Said:
    """Return *said* if it makes sense. Raises `InvalidRequest`, which names the field."""
    if (said.call_id is None) == (said.task_id is None):
        raise InvalidRequest("call_id: name one call, or with task_id one task", param="call_id")
    if all(value is None for value in (said.success, said.score, said.useful_tokens, said.reason)):
        raise InvalidRequest("success: say it, or score, useful_tokens or reason", param="success")
    for name in ("call_id", "task_id", "reason"):
        text = getattr(said, name)
        if text is not None and not _storable(text):
            raise InvalidRequest(f"{name}: it holds half of a character", param=name)
    if said.idempotency_key is not None and not _KEY.fullmatch(said.idempotency_key):
        raise InvalidRequest("idempotency_key: expected 1 to 200 printable characters", param="idempotency_key")
    return said


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(error: msgspec.ValidationError) -> InvalidRequest:
    what, _, where = str(error).partition(" - at `$")
    field = where.rstrip("`").removeprefix(".")
    unknown = re.search(r"contains unknown field `(.+)`", what)
    if unknown:
        field, what = unknown[1][:80], f"there is no such field here; known: {', '.join(Said.__struct_fields__)}"
    what = what.replace("`", "")
    message = f"{field}: {what}" if field else f"the request body must be a JSON object: {what}"
    return InvalidRequest(message, param=field or None)
