"""The layers over HTTP, for applications in any language: ``GET``, ``PUT``, ``DELETE`` of ``/v1/cache/{layer}``.

Who asks, and within which scope, is told by the same keys and headers as for calls. ``docs/levers/layers.md`` has it
from the caller's side.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from negawatt.call import Request
from negawatt.caller import Caller
from negawatt.doors import name_of
from negawatt.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotKept,
    PermissionDenied,
    RequestTooLarge,
    UnknownLayer,
    body_of,
)
from negawatt.gateway import Gateway
from negawatt.guard import Guard
from negawatt.http_head import JSON, Head, Headers, Receive, Send, origin_headers, query_of, send_body
from negawatt.keys import scope_of
from negawatt.layers.entry import BYTES
from negawatt.layers.values import Asked, Found, Lead, Missed
from negawatt.recall.policy import ITEM_LAYERS, callers_tags

METHODS = ("DELETE", "GET", "PUT")
_PATH = re.compile(r"(?:/v1)?/cache(?:/([^/]+))?")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "GET": ("key", "arguments", "claim", "wait"),
    "PUT": ("key", "arguments"),
    "DELETE": ("key", "arguments", "tag", "dry_run"),
}
_PARAMETERS_OF_ALL: dict[str, tuple[str, ...]] = {"GET": (), "DELETE": ("tag", "dry_run")}
_MOST_TAGS = 32
_NUMBER = re.compile(r"\d{1,6}(\.\d{0,6})?", re.ASCII)
_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,255}")
# What somebody stored is never a page of ours, whatever it calls itself.
_PLAIN: Headers = [
    (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"),
]  # fmt: skip

Read = Callable[[Head, Receive], Awaitable[bytes | None]]


def layer_of(path: str) -> str | None:
    """Return the layer that *path* names, "" for all of them; None when it is no path of the layers."""
    found = _PATH.fullmatch(path)
    return None if found is None else found[1] or ""


class LayerRoutes:
    """Answers what is asked of the layers of *gateway*. *read* reads a request's body, within the server's limit."""

    def __init__(self, gateway: Gateway, read: Read) -> None:
        self._gateway = gateway
        self._layers = gateway.layers
        self._read = read

    def methods(self, path: str) -> tuple[str, ...]:
        """Return what *path* answers to; nothing when it is no path of the layers."""
        return () if layer_of(path) is None else METHODS

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Answer one request to a layer, or to all. Raises `NegawattError`."""
        method, layer = scope["method"], layer_of(scope["path"]) or ""
        caller = self._gateway.keyring.caller(head.hints.key)
        if not layer and method == "PUT":
            raise MethodNotAllowed(f"{scope['path']} answers to DELETE, GET, not to PUT", allow="DELETE, GET")
        known = _PARAMETERS[method] if layer else _PARAMETERS_OF_ALL[method]
        query = query_of(scope["query_string"], known, repeated=("tag",))
        if method == "DELETE" and not ("key" in query or "arguments" in query):
            await self._delete_tagged(layer, caller, query, head, send)
        elif not layer:
            await _say(send, head, await self._layers.stats())
        elif method == "GET":
            await self._get(self._asked(layer, caller, query, head), query, head, receive, send)
        elif method == "PUT":
            await self._put(self._asked(layer, caller, query, head), _headers(scope), head, receive, send)
        else:
            await self._delete(self._asked(layer, caller, query, head), query, head, send)

    def _asked(self, layer: str, caller: Caller, query: dict[str, list[str]], head: Head) -> Asked:
        """Return what is asked. A user counts where the layer needs one, and where the caller names one."""
        personal = "user" in (self._layers.rules(layer).needs or ()) or head.hints.user is not None
        return Asked(
            layer=layer, scope=scope_of(caller, head.hints, personal=personal), material=_material(query),
            tags=callers_tags(head.hints.cache_tags), cache_control=head.hints.cache_control,
        )  # fmt: skip

    # -- one entry ---------------------------------------------------------------------------------------------

    async def _get(self, asked: Asked, query: dict[str, list[str]], head: Head, receive: Receive, send: Send) -> None:
        claim, wait_s = _flag(query, "claim"), _seconds(query, "wait")
        with Guard(receive, self._gateway.alarms, self._gateway.config.server.body_timeout_s) as guard:
            guard.reading = False
            step = await (self._layers.begin(asked, wait_s=wait_s) if claim else self._layers.get(asked))
            lead = step.renewal if isinstance(step, Found) else step if isinstance(step, Lead) else None
            token = None if lead is None else self._layers.hand_out(lead)
            headers = [*_PLAIN, *(origin_headers(head.origin) if head.allowed and head.origin else ())]
            if token is not None:
                headers.append((b"x-negawatt-claim", token.encode("ascii")))
            try:
                if isinstance(step, Found):
                    await _send_found(send, step, headers)
                else:
                    await _send_missed(send, step, headers, wait=claim and token is None)
            except BaseException:
                if token is not None:  # its caller is gone, and will not make it
                    await self._layers.release(asked, token)
                raise

    async def _put(self, asked: Asked, headers: dict[bytes, bytes], head: Head, receive: Receive, send: Send) -> None:
        content_type = headers.get(b"content-type", BYTES.encode()).decode("latin-1")
        try:
            if not _CONTENT_TYPE.fullmatch(content_type):
                raise InvalidRequest("content-type: expected 1 to 255 printable characters", param="content-type")
            if headers.get(b"content-encoding", b"identity") != b"identity":
                raise InvalidRequest("content-encoding: send the body as it is to be kept", param="content-encoding")
            with Guard(receive, self._gateway.alarms, self._gateway.config.server.body_timeout_s) as guard:
                body = await self._body(asked.layer, head, receive)
                if body is None:
                    return
                guard.reading = False
                refused = await self._layers.put(asked, body, content_type)
                await _say(send, head, {"stored": refused is None, "reason": refused})
        finally:
            if head.hints.claim is not None:
                await self._layers.release(asked, head.hints.claim)

    async def _body(self, layer: str, head: Head, receive: Receive) -> bytes | None:
        """Return the body; None when its sender is gone. Raises `RequestTooLarge`, which names the limit."""
        own, most = self._layers.rules(layer).max_entry_bytes, self._gateway.config.server.max_body_bytes
        limit = f"cache.layers.{layer}.max_entry_bytes" if own <= most else "server.max_body_bytes"
        most = min(own, most)
        size = head.declared or 0
        body = await self._read(head, receive) if size <= most else b""
        if max(size, len(body or b"")) > most:
            raise RequestTooLarge(f"the entry is too large; the limit is {most} bytes ({limit})")
        return body

    async def _delete(self, asked: Asked, query: dict[str, list[str]], head: Head, send: Send) -> None:
        """Delete one entry; with a claim in the headers, only give that back."""
        for name in ("tag", "dry_run"):
            if name in query:
                raise InvalidRequest(f"{name}: one entry is deleted by its key, or several by tags", param=name)
        if head.hints.claim is None:
            deleted = int(await self._layers.delete(asked))
        else:
            await self._layers.release(asked, head.hints.claim)
            deleted = 0
        await _say(send, head, {"deleted": deleted, "dry_run": False})

    # -- several -----------------------------------------------------------------------------------------------

    async def _delete_tagged(
        self, layer: str, caller: Caller, query: dict[str, list[str]], head: Head, send: Send
    ) -> None:
        """Delete what has all the tags, of the caller's own tenant: in one layer, or in all, the gateway's included."""
        known = (*self._layers.names, *ITEM_LAYERS)
        if layer and layer not in known:
            message = f"layer: there is no layer {layer[:100]!r}; known: {', '.join(sorted(known))}"
            raise UnknownLayer(message, param="layer")
        tags, dry_run = query.get("tag", []), _flag(query, "dry_run")
        if not tags:
            needed = "key, arguments or tag" if layer else "tag"
            raise InvalidRequest(f"{needed}: say what is to be deleted", param="key" if layer else "tag")
        if len(tags) > _MOST_TAGS:
            raise InvalidRequest(f"tag: at most {_MOST_TAGS} tags, got {len(tags)}", param="tag")
        for tag in tags:
            name, _, value = tag.partition("=")
            if not name or not value:
                raise InvalidRequest(f"tag: {tag[:80]!r} is not NAME=VALUE", param="tag")
            if name == "tenant" and value != caller.tenant:
                raise PermissionDenied(f"tag: this key is of the tenant {caller.tenant!r}", param="tag")
        own = [f"tenant={caller.tenant}", *([f"layer={layer}"] if layer else [])]
        found = await self._gateway.forget(tuple(dict.fromkeys([*own, *tags])), dry_run=dry_run)
        if not dry_run:
            note, told = self._gateway.access.audit.note, {"tags": [*own, *tags], **found}
            await asyncio.to_thread(note, name_of(caller), "cache.deleted", layer, told)
        await _say(send, head, {"deleted": sum(found.values()), "dry_run": dry_run, **found})


async def _send_found(send: Send, found: Found, headers: Headers) -> None:
    headers += [
        (b"content-type", found.entry.content_type.encode("latin-1")), (b"x-negawatt-cache", found.state.encode()),
        (b"age", str(int(found.age_s)).encode()),
    ]  # fmt: skip
    await send_body(send, 200, headers, found.entry.value)


async def _send_missed(send: Send, step: Missed | Lead, headers: Headers, *, wait: bool) -> None:
    missed = step if isinstance(step, Missed) else Missed("nothing is kept under this key that may be given")
    headers += [JSON, (b"x-negawatt-cache", b"bypass" if missed.refused else b"miss")]
    if wait and not missed.refused:
        headers.append((b"retry-after", b"1"))  # somebody else is making it
    await send_body(send, 404, headers, orjson.dumps(body_of(NotKept(missed.reason, param="key"))))


async def _say(send: Send, head: Head, value: dict[str, Any]) -> None:
    headers = [JSON, *(origin_headers(head.origin) if head.allowed and head.origin else ())]
    await send_body(send, 200, headers, orjson.dumps(value))


def _headers(scope: Any) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _material(query: dict[str, list[str]]) -> bytes:
    """Return what the key is made of: the text of ``key``, or the JSON of ``arguments``, whose order is all one."""
    if ("key" in query) == ("arguments" in query):
        raise InvalidRequest("key: give the entry's key, any text, or its arguments as JSON", param="key")
    if "key" in query:
        if not query["key"][0]:
            raise InvalidRequest("key: it is empty", param="key")
        return Request.canonical({"key": query["key"][0]})
    try:
        value = orjson.loads(query["arguments"][0])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"arguments: not valid JSON: {error}", param="arguments") from error
    return Request.canonical({"arguments": value}, sort=True)


def _flag(query: dict[str, list[str]], name: str) -> bool:
    text = query.get(name, ["0"])[0]
    if text not in ("0", "1", "false", "true"):
        raise InvalidRequest(f"{name}: expected 1 or 0, got {text[:50]!r}", param=name)
    return text in ("1", "true")


def _seconds(query: dict[str, list[str]], name: str) -> float | None:
    if name not in query:
        return None
    text = query[name][0]
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"{name}: expected a number of seconds, got {text[:50]!r}", param=name)
    return float(text)
