"""HTTP: from a request on the wire to a Call, and from a Reply to a response. A plain ASGI application.

The response owns the Reply: it is closed here, whatever happens to the caller, so that each call leaves its row and
an answer that nobody waits for any more is cancelled upstream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import orjson

from negawatt.call import Call, Hints
from negawatt.deadline import Alarms
from negawatt.errors import (
    CircuitOpen,
    MethodNotAllowed,
    NegawattError,
    NotFound,
    PermissionDenied,
    RequestTimeout,
    UpstreamBroken,
    UpstreamStatus,
    body_of,
    status_of,
)
from negawatt.gateway import Gateway
from negawatt.levers.meter import cache_of
from negawatt.reply import Chunk, Reply
from negawatt.wire.chat import CHAT
from negawatt.wire.sse import DONE, event, events

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_HINTS = {
    b"x-negawatt-class": "request_class",
    b"x-negawatt-task": "task",
    b"x-negawatt-user": "user",
    b"x-negawatt-permissions": "permissions",
    b"x-negawatt-corpus-version": "corpus_version",
    b"x-negawatt-prompt-version": "prompt_version",
    b"x-negawatt-session": "session",
    b"x-negawatt-mode": "mode",
    b"x-negawatt-deadline-ms": "deadline_ms",
    b"cache-control": "cache_control",
    b"x-api-key": "key",
    b"api-key": "key",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# How long an answer may take before we look whether its caller is still there. Looking costs a task; most hits and
# quick answers are done by then.
_WATCH_AFTER_S = 0.02
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class Server:
    """The ASGI application over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.config.server
        self._routes: dict[tuple[str, str], Callable[[_Head, Receive, Send], Awaitable[None]]] = {}
        for path, method, handler in (
            ("/chat/completions", "POST", self._chat),
            ("/models", "GET", self._models),
        ):
            self._routes[method, path] = self._routes[method, f"/v1{path}"] = handler
        self._routes["GET", "/healthz"] = self._healthz
        self._routes["GET", "/readyz"] = self._readyz
        self._paths = {path for _, path in self._routes}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        handler = self._routes.get((scope["method"], scope["path"]))
        try:
            head = _Head.of(scope["headers"])
            if head.origin is not None or head.cross_site:
                self._refuse_strangers(head)
            if handler is None:
                await self._elsewhere(scope, head, send)
            else:
                await handler(head, receive, send)
        except NegawattError as error:
            await _send_error(send, error, None)

    # -- routes ------------------------------------------------------------------------------------------------

    async def _chat(self, head: _Head, receive: Receive, send: Send) -> None:
        guard = _Guard(receive, self._gateway.alarms, self._settings.body_timeout_s)
        call: Call | None = None
        reply: Reply | None = None
        try:
            body = await self._read(head, receive)
            call = self._gateway.new_call(body, head.hints, body_bytes=None if body else head.declared)
            guard.reading = False
            reply = await self._gateway.handle(call)
            if call.trail.call is not None and call.trail.call.request.stream:
                await self._send_stream(call, reply, head, send)
            else:
                await self._send_whole(call, reply, head, send)
            reply.undelivered = guard.gone
        except asyncio.CancelledError:
            if reply is not None:
                reply.undelivered = True
            if not guard.rang:
                raise
            guard.forgive()
            if not guard.gone:
                message = f"the request's body did not arrive within {self._settings.body_timeout_s:g} s"
                raise RequestTimeout(message) from None
        except Exception as error:
            if not isinstance(error, NegawattError):
                log.exception("call %s failed", None if call is None else call.id)
            await _send_error(send, error, call)
        finally:
            guard.stop()
            if reply is not None:
                await _closed(reply)

    async def _send_whole(self, call: Call, reply: Reply, head: _Head, send: Send) -> None:
        body = reply.body if not reply.streamed else await reply.whole()
        if not reply.finished:
            raise reply.error or UpstreamBroken("the answer broke off before its end")
        call.trail.first_byte = call.trail.clock.monotonic()
        headers = self._headers(call, reply, head, len(body))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _send_stream(self, call: Call, reply: Reply, head: _Head, send: Send) -> None:
        request = call.trail.call.request if call.trail.call is not None else call.request
        usage_wanted = CHAT.wants_usage(request)
        started = False
        try:
            async for burst in reply:
                data = [c.raw for c in burst if usage_wanted or not _usage_only(c)]
                if not started:
                    started = True
                    call.trail.first_byte = call.trail.clock.monotonic()
                    headers = self._headers(call, reply, head, None)
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                if data:
                    await send({"type": "http.response.body", "body": events(data), "more_body": True})
            if not reply.finished:
                reply.error = reply.error or UpstreamBroken("the answer broke off before its end")
                raise reply.error
        except NegawattError as error:
            if not started:
                raise
            # The status has left long ago: say it in the stream, and do not say that it is done.
            await send({"type": "http.response.body", "body": event(orjson.dumps(body_of(error)))})
            return
        await send({"type": "http.response.body", "body": event(DONE)})

    async def _models(self, head: _Head, receive: Receive, send: Send) -> None:
        caller = self._gateway.keyring.caller(head.hints.key)
        names = [name for name in self._gateway.catalogue.names() if caller.models is None or name in caller.models]
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": targets[0].provider}
            for name in names
            if (targets := self._gateway.catalogue.targets(name))
        ]
        await _send_json(send, 200, {"object": "list", "data": data})

    async def _healthz(self, head: _Head, receive: Receive, send: Send) -> None:
        await _send_json(send, 200, {"status": "ok"})

    async def _readyz(self, head: _Head, receive: Receive, send: Send) -> None:
        checks = await self._gateway.checks()
        ready = all(problem is None for problem in checks.values())
        shown = {name: problem or "ok" for name, problem in checks.items()}
        status = "ready" if ready else "not ready"
        await _send_json(send, 200 if ready else 503, {"status": status, "checks": shown})

    async def _elsewhere(self, scope: Any, head: _Head, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS" and head.origin is not None:
            await send({"type": "http.response.start", "status": 204, "headers": _preflight(head.origin)})
            await send({"type": "http.response.body", "body": b""})
        elif path in self._paths:
            allowed = ", ".join(sorted(m for m, p in self._routes if p == path))
            raise MethodNotAllowed(f"{path} answers to {allowed}, not to {method}")
        else:
            raise NotFound(f"there is nothing at {path[:200]}; try POST /v1/chat/completions")

    # -- parts -------------------------------------------------------------------------------------------------

    async def _read(self, head: _Head, receive: Receive) -> bytes:
        """Return the body; of one that is too large nothing, or its first part and a little more than the limit."""
        most = self._settings.max_body_bytes
        if head.declared is not None and head.declared > most:
            return b""
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts, size = [body], len(body)
        while message.get("more_body") and size <= most:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        return b"".join(parts)

    def _refuse_strangers(self, head: _Head) -> None:
        """Raise `PermissionDenied` for a browser's page that may not call.

        Any page that a person opens could otherwise spend their money through a gateway on their own machine.
        """
        if head.origin is not None:
            host = urlsplit(head.origin).hostname or ""
            if head.origin in self._settings.allow_origins or host in _LOOPBACK or host == self._settings.host:
                return
        message = f"pages of {head.origin or 'other sites'} may not call this gateway (server.allow_origins)"
        raise PermissionDenied(message, param="origin")

    def _headers(self, call: Call, reply: Reply, head: _Head, length: int | None) -> Headers:
        trail = call.trail
        newest = trail.call or call
        headers: Headers = [
            _JSON if length is not None else _EVENTS,
            (b"x-negawatt-call-id", call.id.encode()),
            (b"x-negawatt-class", newest.request_class.encode("latin-1", "replace")),
            (b"x-negawatt-cache", cache_of(trail).encode()),
        ]
        if newest.targets:
            model = trail.attempts[-1].target if trail.attempts else newest.targets[0]
            headers.append((b"x-negawatt-model", model.model.encode("latin-1", "replace")))
        if length is None:
            headers.append((b"cache-control", b"no-store"))
        else:
            headers.append((b"content-length", str(length).encode()))
            bill = trail.bill
            if bill is not None:
                _add_bill(headers, bill.actual.cost_usd, bill.saved_usd)
                if bill.actual.joules is not None:
                    low, central, high = bill.actual.joules.wh
                    headers.append((b"x-negawatt-energy-wh", b"%.3g;low=%.3g;high=%.3g" % (central, low, high)))
            spent_s = trail.clock.monotonic() - call.started - trail.waited_s
            spent_s -= sum((a.ended or a.started) - a.started for a in trail.attempts)
            headers.append((b"x-negawatt-overhead-ms", b"%.3f" % (max(0.0, spent_s) * 1000)))
        if head.origin is not None:
            headers.append((b"access-control-allow-origin", head.origin.encode("latin-1")))
        for name, value in reply.headers.items():
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
        return headers


def _usage_only(chunk: Chunk) -> bool:
    return b'"usage"' in chunk.raw and CHAT.is_usage_only(chunk.data)


def _add_bill(headers: Headers, cost: Decimal | None, saved: Decimal | None) -> None:
    if cost is not None:
        headers.append((b"x-negawatt-cost-usd", format(cost.normalize(), "f").encode()))
    if saved is not None:
        headers.append((b"x-negawatt-saved-usd", format(saved.normalize(), "f").encode()))


class _Head:
    """What a request's headers say."""

    __slots__ = ("cross_site", "declared", "hints", "origin")

    def __init__(self, hints: Hints, declared: int | None, origin: str | None, *, cross_site: bool) -> None:
        self.hints = hints
        self.declared = declared  # size of the body
        self.origin = origin  # of the page that asks, where a browser does
        self.cross_site = cross_site

    @classmethod
    def of(cls, headers: Headers) -> _Head:
        found: dict[str, str] = {}
        declared, origin, cross_site = None, None, False
        for name, value in headers:
            if name in _HINTS:
                if value:
                    found.setdefault(_HINTS[name], value.decode("latin-1"))
            elif name == b"authorization":
                kind, _, secret = value.decode("latin-1").partition(" ")
                if kind.lower() == "bearer":
                    found["key"] = secret.strip()
            elif name == b"content-length":
                declared = int(value)
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                cross_site = value in (b"cross-site", b"same-site")
        return cls(Hints(**found), declared, origin, cross_site=cross_site)


class _Guard:
    """Cancels the task that answers when its caller hangs up, or does not send their request in time.

    One alarm for both, and usually nothing more: quick answers are over before it rings.
    """

    __slots__ = ("_alarm", "_alarms", "_body_timeout_s", "_looking", "_receive", "_task", "gone", "rang", "reading")

    def __init__(self, receive: Receive, alarms: Alarms, body_timeout_s: float) -> None:
        self._receive = receive
        self._alarms = alarms
        self._body_timeout_s = body_timeout_s
        self._task = alarms.current_task()
        self._looking: asyncio.Task[None] | None = None
        self._alarm = alarms.set(alarms.now() + _WATCH_AFTER_S, self._wake)
        self.reading = True
        self.gone = False  # the caller hung up
        self.rang = False  # the task was cancelled from here

    def _wake(self) -> None:
        if not self.reading:
            self._looking = asyncio.ensure_future(self._look())
        else:
            self._alarm = self._alarms.set(self._alarms.now() + self._body_timeout_s, self._late)

    def _late(self) -> None:
        if self.reading:
            self._ring()
        else:
            self._wake()

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._ring()

    def _ring(self) -> None:
        self.rang = True
        if self._task is not None:
            self._task.cancel()

    def forgive(self) -> None:
        """The cancelling has been dealt with."""
        if self._task is not None:
            self._task.uncancel()

    def stop(self) -> None:
        self._alarms.drop(self._alarm)
        if self._looking is not None:
            self._looking.cancel()


async def _closed(reply: Reply) -> None:
    """Close *reply*, even while the task that does it is being cancelled."""
    if not reply.streamed or reply.finished:
        reply.settle()
    else:
        await asyncio.shield(reply.close())


def _preflight(origin: str) -> Headers:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key, x-negawatt-class, x-negawatt-task"),
        (b"vary", b"origin"),
    ]


async def _send_error(send: Send, error: BaseException, call: Call | None) -> None:
    status, body, extra = status_of(error), b"", {}
    if isinstance(error, UpstreamStatus):
        body, extra = error.body, dict(error.headers)
    elif isinstance(error, CircuitOpen):
        extra = {"retry-after": str(max(1, round(error.retry_after_s)))}
    headers: Headers = [_JSON, *((n.encode("latin-1"), v.encode("latin-1")) for n, v in extra.items())]
    if call is not None:
        headers.append((b"x-negawatt-call-id", call.id.encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = body or orjson.dumps(body_of(error))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, status: int, value: Any) -> None:
    body = orjson.dumps(value)
    headers = [_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
