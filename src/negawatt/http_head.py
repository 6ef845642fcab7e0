"""The heads of HTTP messages: what a request's headers say to us, and what a response's say to callers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from negawatt.call import Call
from negawatt.caller import Headers as Passed
from negawatt.caller import Hints
from negawatt.errors import (
    BudgetExceeded,
    CircuitOpen,
    InvalidRequest,
    MethodNotAllowed,
    UpstreamStatus,
    body_of,
    status_of,
)
from negawatt.levers.meter import cache_of
from negawatt.protocol import Wire
from negawatt.reply import Reply
from negawatt.telemetry.traceparent import parent_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Routes(Protocol):
    """Answers under some paths."""

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the methods that *path* answers to; nothing when it is none of these."""
        ...

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Answer a request under one of these paths. Raises `NegawattError`."""
        ...


JSON = (b"content-type", b"application/json")
# What administrators see lies in no cache, and is nothing but what it says it is.
PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_HINTS = {
    b"x-negawatt-class": "request_class",
    b"x-negawatt-task": "task",
    b"x-negawatt-user": "user",
    b"x-negawatt-permissions": "permissions",
    b"x-negawatt-corpus-version": "corpus_version",
    b"x-negawatt-prompt-version": "prompt_version",
    b"x-negawatt-tool-digests": "tool_digests",
    b"x-negawatt-cache-tags": "cache_tags",
    b"x-negawatt-claim": "claim",
    b"x-negawatt-session": "session",
    b"x-negawatt-mode": "mode",
    b"x-negawatt-quality": "quality",
    b"x-negawatt-risk": "risk",
    b"x-negawatt-deadline-ms": "deadline_ms",
    b"cache-control": "cache_control",
    b"x-api-key": "key",
    b"api-key": "key",
}
# Headers that end here: they are about this connection, the caller's own key, browser, machine or trace, or about us.
_OURS = frozenset({
    b"accept", b"accept-encoding", b"accept-language", b"baggage", b"connection", b"content-encoding", b"content-type",
    b"cookie", b"dnt", b"expect", b"forwarded", b"host", b"keep-alive", b"openai-organization", b"openai-project",
    b"pragma", b"priority", b"proxy-authorization", b"proxy-connection", b"referer", b"te", b"tracestate", b"trailer",
    b"transfer-encoding", b"upgrade", b"upgrade-insecure-requests", b"user-agent", b"via", b"x-real-ip",
})  # fmt: skip
_OURS_BEGIN = (b"x-negawatt-", b"x-stainless-", b"sec-", b"x-forwarded-", b":")
_MOST_PASSED = 64


class Head:
    """What a request's headers say."""

    __slots__ = ("allowed", "anthropic", "asked", "cross_site", "declared", "hints", "origin", "passed", "wire")

    def __init__(self, hints: Hints, declared: int | None, origin: str | None, *, cross_site: bool) -> None:
        self.hints = hints
        self.declared = declared  # size of the body
        self.origin = origin  # of the page that asks, where a browser does
        self.cross_site = cross_site
        self.allowed = False  # the page may call: the server's word
        self.asked = b""  # headers that the page would like to send
        self.passed: Passed = ()  # what is for the provider
        self.anthropic = False  # the caller expects answers in the form of that API
        self.wire: Wire | None = None  # the protocol of the path

    @classmethod
    def of(cls, headers: Headers) -> Head:
        found: dict[str, str] = {}
        declared, origin, cross_site, asked = None, None, False, b""
        passed: list[tuple[str, str]] = []
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
            elif name == b"access-control-request-headers":
                asked = value
            elif name == b"traceparent":
                found["traceparent"] = value.decode("latin-1")
                if parent_of(found["traceparent"]) is not None:  # ids and nothing else: a provider may have them
                    passed.append(("traceparent", found["traceparent"]))
            elif name not in _OURS and not name.startswith(_OURS_BEGIN) and len(passed) < _MOST_PASSED:
                passed.append((name.decode("latin-1"), value.decode("latin-1")))
        head = cls(Hints(**found), declared, origin, cross_site=cross_site)
        head.asked = asked
        if passed:
            head.passed = tuple(passed)
            head.anthropic = any(name == "anthropic-version" for name, _ in passed)
        return head


def answer_headers(call: Call, reply: Reply, head: Head, length: int | None) -> Headers:
    """Return the headers of an answer of *length* bytes, None for a stream: what it was, and what it cost so far."""
    trail = call.trail
    newest = trail.call or call
    headers: Headers = [
        JSON if length is not None else EVENTS,
        (b"x-negawatt-call-id", call.id.encode()),
        (b"x-negawatt-class", _printable(newest.request_class)),
        (b"x-negawatt-cache", cache_of(trail).encode()),
    ]
    if newest.targets:
        answerer = trail.answerer
        model = newest.targets[0] if answerer is None else answerer.target
        headers.append((b"x-negawatt-model", _printable(model.model)))
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
        now = trail.clock.monotonic()
        spent_s = now - call.started - trail.waited_s - trail.upstream_s(now)
        headers.append((b"x-negawatt-overhead-ms", b"%.3f" % (max(0.0, spent_s) * 1000)))
    if trail.budget_left is not None:
        name, share = trail.budget_left()
        headers.append((b"x-negawatt-budget-remaining", b"%.4f;budget=%s" % (share, _printable(name))))
    if head.origin is not None:
        headers += origin_headers(head.origin)
    for name, value in reply.headers.items():
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    return headers


def _add_bill(headers: Headers, cost: Decimal | None, saved: Decimal | None) -> None:
    if cost is not None:
        headers.append((b"x-negawatt-cost-usd", format(cost.normalize(), "f").encode()))
    if saved is not None:
        headers.append((b"x-negawatt-saved-usd", format(saved.normalize(), "f").encode()))


def _printable(text: str) -> bytes:
    """Return *text* as a header may carry it: whatever callers call things, it stays one short line."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return text[:200].encode("ascii")


def origin_headers(origin: str) -> Headers:
    """Return what lets the page of *origin* read the response."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def preflight_headers(origin: str, asked: bytes) -> Headers:
    """Return the answer to a browser that asks whether the page of *origin* may send the headers *asked*."""
    headers = [*origin_headers(origin), (b"access-control-allow-methods", b"GET, POST, PUT, DELETE")]
    if asked:
        headers.append((b"access-control-allow-headers", asked))
    return headers


async def send_error(send: Send, error: BaseException, call: Call | None, head: Head | None) -> None:
    """Answer with *error*, in the words of the path's protocol; a provider's own error goes on as it came."""
    status, body = status_of(error), b""
    headers: Headers = [JSON]
    if isinstance(error, UpstreamStatus):
        body = error.body
        headers += [(n.encode("latin-1"), v.encode("latin-1")) for n, v in error.headers.items()]
    elif isinstance(error, CircuitOpen):
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    elif isinstance(error, BudgetExceeded):
        headers += _budget_headers(error)
    elif isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    elif status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if call is not None:
        headers.append((b"x-negawatt-call-id", call.id.encode()))
    if head is not None and head.allowed and head.origin is not None:
        headers += origin_headers(head.origin)
    say = body_of if head is None or head.wire is None else head.wire.error_body
    await send_body(send, status, headers, body or orjson.dumps(say(error)))


def _budget_headers(error: BudgetExceeded) -> Headers:
    """Return which budget it is and when it begins anew. Vendors' SDKs ask again by themselves unless told not to."""
    resets = datetime.fromtimestamp(error.resets_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers: Headers = [
        (b"retry-after", str(math.ceil(error.retry_after_s)).encode()),
        (b"x-negawatt-budget", _printable(error.budget)),
        (b"x-negawatt-budget-resets", resets.encode()),
    ]
    return headers if error.passing else [*headers, (b"x-should-retry", b"false")]


async def send_json(send: Send, status: int, value: Any) -> None:
    """Answer with *value*."""
    await send_body(send, status, [JSON], orjson.dumps(value))


async def send_private(send: Send, status: int, value: Any) -> None:
    """Answer with *value*, for whom it is meant and for nobody who comes after."""
    await send_body(send, status, [JSON, *PRIVATE], orjson.dumps(value))


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer with *body* and *headers*, to which its length is added."""
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def query_of(raw: bytes, known: Sequence[str], *, repeated: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the parameters of the query *raw*. Those of *repeated* may be there more than once.

    Raises `InvalidRequest` for one that is not *known*: it may be misspelt, and nothing is then as it was meant.
    """
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise InvalidRequest(f"the query cannot be read: {error}", param="query") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            there = ", ".join(known) or "none"
            raise InvalidRequest(f"{name[:80]}: there is no such parameter here; known: {there}", param=name[:80])
        if name in found and name not in repeated:
            raise InvalidRequest(f"{name}: it is there twice", param=name)
        found.setdefault(name, []).append(value)
    return found
