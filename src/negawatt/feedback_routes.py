"""Feedback over HTTP: ``POST /v1/feedback``. ``docs/success.md`` has it from the caller's side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import orjson

from negawatt.errors import InvalidRequest, RequestTooLarge
from negawatt.gateway import Gateway
from negawatt.guard import Guard
from negawatt.http_head import JSON, Head, Receive, Send, origin_headers, send_body
from negawatt.success.telling import MOST_BYTES, Said, said_in

PATHS = ("/v1/feedback", "/feedback")
Read = Callable[[Head, Receive], Awaitable[bytes | None]]


class FeedbackRoutes:
    """Takes what callers say of their calls and tasks. *read* reads a request's body, within the server's limit."""

    def __init__(self, gateway: Gateway, read: Read) -> None:
        self._gateway = gateway
        self._read = read

    def methods(self, path: str) -> tuple[str, ...]:
        """Return what *path* answers to; nothing when it is not this one."""
        return ("POST",) if path in PATHS else ()

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Answer once the word is on disk. Raises `NegawattError`."""
        self._gateway.keyring.caller(head.hints.key)  # a stranger's body is not looked at
        with Guard(receive, self._gateway.alarms, self._gateway.config.server.body_timeout_s) as guard:
            size = head.declared or 0
            body = await self._read(head, receive) if size <= MOST_BYTES else b""
            if body is None:
                return
            if max(size, len(body)) > MOST_BYTES:
                raise RequestTooLarge(f"feedback has at most {MOST_BYTES} bytes")
            guard.reading = False
            said = await self._gateway.feedback(_keyed(said_in(body), dict(scope["headers"])), head.hints)
            headers = [JSON, *(origin_headers(head.origin) if head.allowed and head.origin else ())]
            await send_body(send, 200, headers, orjson.dumps(said))


def _keyed(said: Said, headers: dict[bytes, bytes]) -> Said:
    """Return *said* with the key that its header names. Raises `InvalidRequest` where the body names another."""
    key = headers.get(b"idempotency-key", b"").decode("latin-1")
    if not key:
        return said
    if said.idempotency_key not in (None, key):
        raise InvalidRequest("idempotency_key: the header Idempotency-Key has another", param="idempotency_key")
    return msgspec.structs.replace(said, idempotency_key=key)
