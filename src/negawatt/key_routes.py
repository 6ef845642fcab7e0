"""Keys and the audit log over HTTP, for administrators: ``/admin/keys`` and ``/admin/audit``.

No page but the gateway's own can ask for any of it (`negawatt.origins`). What changes something has to say that it is
JSON, which a browser sends elsewhere only after it was allowed to, and the key is in a header that no browser adds by
itself. ``docs/keys.md`` has it from the administrator's side.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec
import orjson

from negawatt.access.audit import Line
from negawatt.access.file import GRACE_S, KeyFile
from negawatt.access.key import Key, Terms
from negawatt.doors import check_names, name_of, shown
from negawatt.errors import ConfigError, InvalidRequest, NotFound
from negawatt.gateway import Gateway
from negawatt.guard import Guard
from negawatt.http_head import Head, Receive, Send, query_of, send_private
from negawatt.levers.admit import administrator

_KEYS, _AUDIT = "/admin/keys", "/admin/audit"
_KEY_PATH = re.compile(r"/admin/keys/([^/]{1,400})")
_ROTATE_PATH = re.compile(r"/admin/keys/([^/]{1,400})/rotate")
_MOST_LINES = 1000
_ASKED = ("limit", "before", "verify")  # of the log

Read = Callable[[Head, Receive], Awaitable[bytes | None]]


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be said of a rotation. *grace_s*: seconds that the old secrets are good for."""

    grace_s: float = GRACE_S


class KeyRoutes:
    """Answers what administrators ask of the keys of *gateway*. *read* reads a request's body."""

    def __init__(self, gateway: Gateway, read: Read) -> None:
        self._gateway = gateway
        self._read = read

    def methods(self, path: str) -> tuple[str, ...]:
        """Return what *path* answers to; nothing when it is none of these."""
        if path == _KEYS:
            return ("GET", "POST")
        if path == _AUDIT:
            return ("GET",)
        if _ROTATE_PATH.fullmatch(path):
            return ("POST",)
        return ("DELETE",) if _KEY_PATH.fullmatch(path) else ()

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Answer one request. Raises `NegawattError`."""
        method, path = scope["method"], scope["path"]
        by = name_of(administrator(self._gateway.keyring, head.hints.key))
        file = self._gateway.access.keys
        if file is None:
            raise NotFound("there is no file of keys here", param="access.keys")
        if path == _AUDIT:
            query = {name: values[0] for name, values in query_of(scope["query_string"], _ASKED).items()}
            await send_private(send, 200, await asyncio.to_thread(_audit, file, query))
        elif method == "GET":
            await send_private(send, 200, {"keys": await asyncio.to_thread(self._keys, file)})
        elif method == "DELETE":
            found = _KEY_PATH.fullmatch(path)
            assert found is not None
            name = _named(file, found)
            key = await self._changed(file.revoke, name, by, self._gateway.clock.time())
            await send_private(send, 200, {"key": self._shown(key)})
        else:
            body = await self._body(dict(scope["headers"]), head, receive)
            if body is not None:
                await self._post(file, path, by, body, send)

    async def _post(self, file: KeyFile, path: str, by: str, body: bytes, send: Send) -> None:
        now = self._gateway.clock.time()
        found = _ROTATE_PATH.fullmatch(path)
        if found is None:
            terms = _read_as(Terms, body)
            check_names(terms, self._gateway.config)
            key, secret = await self._changed(file.create, terms, by, now)
        else:
            grace_s = _read_as(Rotation, body or b"{}").grace_s
            key, secret = await self._changed(file.rotate, _named(file, found), by, now, grace_s)
        await send_private(send, 201 if found is None else 200, {"key": self._shown(key), "secret": secret})

    async def _changed(self, change: Callable[..., Any], *arguments: Any) -> Any:
        """Make a change, off the event loop; the next call here is already under it."""
        done = await asyncio.to_thread(change, *arguments)
        await asyncio.to_thread(self._gateway.access.keyring_changed)
        return done

    def _keys(self, file: KeyFile) -> list[dict[str, Any]]:
        """Return the keys of the file, and of the configuration those facts that it has."""
        kept = [self._shown(key) for key in file.all()] if file.begun else []
        configured = [
            {**msgspec.to_builtins(key), "state": "active", "source": "configuration"}
            for key in self._gateway.config.keys
        ]
        return [*configured, *kept]

    def _shown(self, key: Key) -> dict[str, Any]:
        return shown(key, self._gateway.clock.time())

    async def _body(self, headers: dict[bytes, bytes], head: Head, receive: Receive) -> bytes | None:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise InvalidRequest("content-type: expected application/json", param="content-type")
        with Guard(receive, self._gateway.alarms, self._gateway.config.server.body_timeout_s) as guard:
            body = await self._read(head, receive)
            guard.reading = False
        return body


def _named(file: KeyFile, found: re.Match[str]) -> str:
    """Return the id in the path. Raises `NotFound` where no key was ever made."""
    name = unquote(found[1])
    if not file.begun:
        raise NotFound(f"id: there is no key {name[:100]!r}", param="id")
    return name


def _audit(file: KeyFile, query: dict[str, str]) -> dict[str, Any]:
    if not file.begun:
        return {"lines": [], "verified": None}
    limit = _number(query, "limit", 100, _MOST_LINES)
    before = _number(query, "before", 2**62, 2**62)
    lines: list[Line] = file.lines(before=before, limit=limit)
    verified = file.verify()._asdict() if _number(query, "verify", 0, 1) else None
    return {"lines": msgspec.to_builtins(lines), "verified": verified}


def _number(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or not 1 <= int(text) <= most:
        raise InvalidRequest(f"{name}: expected a whole number from 1 to {most}", param=name)
    return int(text)


def _read_as(kind: type[Any], body: bytes) -> Any:
    """Return *body* as *kind*. Raises `InvalidRequest`, which names the field."""
    from negawatt.config import convert

    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    try:
        return convert(data, kind, "body")
    except ConfigError as error:
        raise InvalidRequest(error.message, param=error.param) from error
