"""HTTP: from a request on the wire to a Call, and from a Reply to a response. A plain ASGI application.

The response owns the Reply: it is closed here, whatever happens to the caller, so that each call leaves its row and
an answer that nobody waits for any more is cancelled upstream.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

from negawatt import governing
from negawatt.budget_routes import BudgetRoutes
from negawatt.call import Call
from negawatt.closing import Closing
from negawatt.deadline import Deadline
from negawatt.errors import (
    DeadlineExceeded,
    MethodNotAllowed,
    ModelNotFound,
    NegawattError,
    NotFound,
    NotKept,
    RequestTimeout,
    UpstreamBroken,
    UpstreamError,
    forget_frames,
    status_of,
)
from negawatt.feedback_routes import FeedbackRoutes
from negawatt.gateway import Gateway
from negawatt.guard import Guard
from negawatt.http_head import (
    Head,
    Receive,
    Routes,
    Send,
    answer_headers,
    preflight_headers,
    send_error,
    send_json,
)
from negawatt.key_routes import KeyRoutes
from negawatt.layer_routes import LayerRoutes
from negawatt.metrics_routes import MetricsRoutes
from negawatt.origins import refuse_foreign_pages, refuse_strangers
from negawatt.protocol import Wire
from negawatt.reply import Reply
from negawatt.watch_routes import WatchRoutes
from negawatt.web_routes import WebRoutes
from negawatt.wire.wires import WIRES

log = logging.getLogger(__name__)

_MODEL_PATH = re.compile(r"(?:/v1)?/models/(.+)")
_OURS = ("/admin", "/metrics")  # under which nothing is for pages of others
_SHAPED_PATH = re.compile(r"(?:/v1)?/shaped/([^/]{1,200})")
_LAST_WORD_S = 0.2  # for the error event of a caller who may not be reading
_LATE = "the call's deadline passed in the middle of its answer"


class Server:
    """The ASGI application over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.config.server
        self._routes: dict[tuple[str, str], Callable[[Head, Receive, Send], Awaitable[None]]] = {}
        for wire in WIRES.values():
            self._routes["POST", wire.path] = self._routes["POST", f"/v1{wire.path}"] = partial(self._call, wire)
        self._routes["GET", "/models"] = self._routes["GET", "/v1/models"] = self._models
        self._routes["GET", "/healthz"] = self._healthz
        self._routes["GET", "/readyz"] = self._readyz
        self._paths = {path for _, path in self._routes}
        self._web = WebRoutes(gateway, self._read, governing.shown(gateway))
        self._more: tuple[Routes, ...] = (
            LayerRoutes(gateway, self._read),
            KeyRoutes(gateway, self._read),
            FeedbackRoutes(gateway, self._read),
            BudgetRoutes(gateway),
            WatchRoutes(gateway),
            *((MetricsRoutes(gateway),) if gateway.config.telemetry.metrics_port is None else ()),
            self._web,
        )

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        handler = self._routes.get((scope["method"], scope["path"]))
        head = Head.of(scope["headers"])
        try:
            if head.origin is not None or head.cross_site or scope["path"].startswith(_OURS):
                self._refuse_pages(scope, head)
            if handler is not None:
                await handler(head, receive, send)
            elif scope["method"] == "GET" and (found := _MODEL_PATH.fullmatch(scope["path"])):
                await self._model(found[1], head, send)
            elif scope["method"] == "GET" and (found := _SHAPED_PATH.fullmatch(scope["path"])):
                await self._shaped(found[1], head, send)
            elif not await self._found(scope, head, receive, send):
                await self._elsewhere(scope, head, send)
        except NegawattError as error:
            if head.anthropic and head.wire is None:
                head.wire = WIRES["messages"]  # whoever asks in its words is answered in them, wherever they ask
            self._count(error, self._route(scope["path"]))
            await send_error(send, error, None, head)

    def stop(self) -> None:
        """End what would go on for ever: the server is about to close its connections."""
        self._web.close()

    def close(self) -> None:
        """Let go of what is open; call `stop` before."""
        self._web.release()

    # -- routes ------------------------------------------------------------------------------------------------

    async def _call(self, wire: Wire, head: Head, receive: Receive, send: Send) -> None:
        head.wire = wire
        guard = Guard(receive, self._gateway.alarms, self._settings.body_timeout_s)
        call: Call | None = None
        reply: Reply | None = None
        try:
            body = await self._read(head, receive)
            if body is None:
                return
            call = self._gateway.new_call(
                body, head.hints, wire=wire, headers=head.passed, body_bytes=None if body else head.declared
            )
            guard.reading = False
            reply = await self._gateway.handle(call)
            streams = call.trail.call is not None and call.trail.call.streams
            sending = (self._send_stream if streams else self._send_whole)(call, reply, head, send)
            if reply.deadline is None or not (streams or reply.streamed):
                await sending  # a body that is there already goes out in one piece, and waits for nobody
            else:
                await reply.deadline.hold(sending, _LATE)
            reply.undelivered = guard.gone
        except asyncio.CancelledError as cancelled:
            if reply is not None:
                reply.undelivered = True
            if not guard.rang:
                raise
            guard.forgive()
            forget_frames(cancelled)
            if not guard.gone:
                message = f"the request's body did not arrive within {self._settings.body_timeout_s:g} s"
                raise RequestTimeout(message) from None
        except Exception as error:
            if not isinstance(error, NegawattError):
                log.exception("call %s failed", None if call is None else call.id)
            await self._fail(error, call, reply, head, send)
            forget_frames(error)
        finally:
            guard.stop()
            if reply is not None:
                await _closed(reply)

    async def _send_whole(self, call: Call, reply: Reply, head: Head, send: Send) -> None:
        body = reply.body if not reply.streamed else await reply.whole()
        if not reply.finished:
            raise reply.error or UpstreamBroken("the answer broke off before its end")
        call.trail.first_byte = call.trail.clock.monotonic()
        await send({
            "type": "http.response.start",
            "status": reply.status,
            "headers": answer_headers(call, reply, head, len(body)),
        })  # fmt: skip
        await send({"type": "http.response.body", "body": body})

    async def _send_stream(self, call: Call, reply: Reply, head: Head, send: Send) -> None:
        request = call.trail.call.request if call.trail.call is not None else call.request
        wire = call.wire
        closing = Closing(wire, usage_wanted=wire.wants_usage(request))
        error: NegawattError | None = None
        try:
            async for burst in reply:
                chunks = closing.take(burst)
                if call.trail.first_byte is None:
                    call.trail.first_byte = call.trail.clock.monotonic()
                    headers = answer_headers(call, reply, head, None)
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                if chunks:
                    await send({"type": "http.response.body", "body": wire.frame(chunks), "more_body": True})
        except UpstreamError as broken:
            error = broken
        if error is None and (not reply.finished or call.trail.first_byte is None):
            error = UpstreamBroken("the answer broke off before its end")
        if error is not None:
            held = closing.rest(call)
            if held and call.trail.first_byte is not None:  # what had come before it broke is theirs
                await send({"type": "http.response.body", "body": wire.frame(held), "more_body": True})
            raise error
        await send({"type": "http.response.body", "body": wire.frame(closing.rest(call)) + wire.end})

    async def _fail(self, error: Exception, call: Call | None, reply: Reply | None, head: Head, send: Send) -> None:
        """Tell the caller of *error*: in the stream, without saying that it is done, if the status has left."""
        if reply is not None and reply.error is None:
            reply.error = error
        if call is None or call.trail.first_byte is None:
            self._count(error, "" if head.wire is None else head.wire.path)
            await send_error(send, error, call, head)
            return
        said = send({"type": "http.response.body", "body": call.wire.error_event(error)})
        try:
            await Deadline(self._gateway.alarms, _LAST_WORD_S).hold(said, _LATE)
        except DeadlineExceeded:
            log.debug("call %s: its caller does not read; hung up", call.id)

    async def _models(self, head: Head, receive: Receive, send: Send) -> None:
        names = await self._names(head)
        if head.anthropic:
            data = [_anthropic_model(name) for name in names]
            ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
            await send_json(send, 200, {"data": data, "has_more": False, **ends})
            return
        models = [model for name in names if (model := self._described(name)) is not None]
        await send_json(send, 200, {"object": "list", "data": models})

    async def _model(self, name: str, head: Head, send: Send) -> None:
        name = unquote(name)
        model = self._described(name) if self._gateway.keyring.caller(head.hints.key).may_use(name) else None
        if model is None:
            raise ModelNotFound(f"model: no provider here serves {name[:200]!r}", param="model")
        await send_json(send, 200, _anthropic_model(name) if head.anthropic else model)

    async def _names(self, head: Head) -> list[str]:
        caller = self._gateway.keyring.caller(head.hints.key)
        return [name for name in await self._gateway.models() if caller.may_use(name)]

    def _described(self, name: str) -> dict[str, Any] | None:
        targets = self._gateway.catalogue.targets(name)
        return {"id": name, "object": "model", "created": 0, "owned_by": targets[0].provider} if targets else None

    async def _shaped(self, name: str, head: Head, send: Send) -> None:
        """Give back what was shortened of a call, or one text of it, as it was."""
        caller = self._gateway.keyring.caller(head.hints.key)
        found = await self._gateway.original(unquote(name), caller, head.hints)
        if found is None:
            raise NotKept("no text that was shortened is kept under this id for this caller", param="id")
        await send_json(send, 200, found)

    async def _healthz(self, head: Head, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": "ok"})

    async def _readyz(self, head: Head, receive: Receive, send: Send) -> None:
        checks = await self._gateway.checks()
        ready = all(problem is None for problem in checks.values())
        shown = {name: problem or "ok" for name, problem in checks.items()}
        status = "ready" if ready else "not ready"
        await send_json(send, 200 if ready else 503, {"status": status, "checks": shown})

    async def _found(self, scope: Any, head: Head, receive: Receive, send: Send) -> bool:
        """Let those answer whose path it is; False when it is nobody's."""
        method, path = scope["method"], scope["path"]
        for routes in self._more:
            methods = routes.methods(path)
            if method in methods:
                await routes(scope, head, receive, send)
                return True
            if methods and not (method == "OPTIONS" and head.origin is not None):
                allowed = ", ".join(methods)
                raise MethodNotAllowed(f"{path[:200]} answers to {allowed}, not to {method}", allow=allowed)
        return False

    async def _elsewhere(self, scope: Any, head: Head, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS" and head.origin is not None:
            headers = preflight_headers(head.origin, head.asked)
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        elif path in self._paths:
            allowed = ", ".join(sorted(m for m, p in self._routes if p == path))
            raise MethodNotAllowed(f"{path} answers to {allowed}, not to {method}", allow=allowed)
        elif path.startswith("/v1/v1/"):
            raise NotFound(f"there is nothing at {path[:200]}; leave /v1 out of the SDK's base_url, which adds its own")
        else:
            raise NotFound(f"there is nothing at {path[:200]}; try POST /v1/chat/completions")

    def _route(self, path: str) -> str:
        """Return *path* as the metrics may name it: what has names in it is ``other``."""
        if path in self._paths:
            return path.removeprefix("/v1")
        ours = any(routes.methods(path) for routes in self._more) or _MODEL_PATH.fullmatch(path)
        return "other" if ours or _SHAPED_PATH.fullmatch(path) else "unmatched"

    def _count(self, error: BaseException, route: str) -> None:
        self._gateway.telemetry.count("negawatt_http_errors_total", route=route, status=str(status_of(error)))

    # -- parts -------------------------------------------------------------------------------------------------

    async def _read(self, head: Head, receive: Receive) -> bytes | None:
        """Return the body; of one that is too large nothing, or its first part and a little more than the limit.

        None: the caller was gone before all of it had come.
        """
        most = self._settings.max_body_bytes
        if head.declared is not None and head.declared > most:
            return b""
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts, size = [body], len(body)
        while message.get("more_body") and size <= most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        return b"".join(parts)

    def _refuse_pages(self, scope: Any, head: Head) -> None:
        """Raise `PermissionDenied` for a browser's page that may not ask for this."""
        if scope["path"].startswith(_OURS):
            refuse_foreign_pages(head, scope["headers"], self._settings, keyless=self._gateway.keyring.open)
        elif not (scope["method"] == "GET" and self._web.public(scope["path"])):  # links lead there from anywhere
            refuse_strangers(head, self._settings)


def _anthropic_model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}


async def _closed(reply: Reply) -> None:
    """Close *reply*, even while the task that does it is being cancelled."""
    if not reply.streamed or reply.finished:
        reply.settle()
    else:
        await asyncio.shield(reply.close())
