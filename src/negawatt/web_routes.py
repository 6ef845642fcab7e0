"""The dashboard over HTTP: the pages at ``/``, and under ``/admin/api`` what they show. docs/dashboard_api.md.

Looking changes nothing. What is shown is for administrators; the pages themselves hold no data and are for anybody.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import orjson

from negawatt.access.secrets import digest_of
from negawatt.errors import (
    AuthenticationError,
    InvalidRequest,
    NegawattError,
    NotFound,
    RateLimited,
    body_of,
)
from negawatt.gateway import Gateway
from negawatt.guard import Guard
from negawatt.http_head import EVENTS, JSON, PRIVATE, Head, Headers, Receive, Send, query_of, send_body
from negawatt.ledger.explorer import find, one
from negawatt.ledger.export import shown as shown_row
from negawatt.ledger.rollup_reader import Reader, Snapshot
from negawatt.levers.admit import administrator
from negawatt.origins import refuse_foreign_pages
from negawatt.web import asking, tables
from negawatt.web.live import WATCHERS, Live
from negawatt.web.overview import overview
from negawatt.web.pages import INDEX, STRICT, File, load
from negawatt.web.period import Period, period_of
from negawatt.web.pool import Pool, TooMany
from negawatt.web.sessions import Session, Sessions, cookie_of, set_cookie
from negawatt.web_sources import (
    LEVERS,
    Behind,
    Sources,
    cache_modes,
    classes_of,
    facts_of,
    learned_of,
    policies_of,
    shaped_of,
    success_of,
)

_API = "/admin/api/"
_PERIOD = ("zone", "since", "until", "bucket")
_REQUEST = re.compile(r"/admin/api/requests/([^/]{1,300})")
_MOST_BODY = 8_192
_encode = msgspec.json.Encoder().encode

Read = Callable[[Head, Receive], Awaitable[bytes | None]]
Query = Mapping[str, list[str]]
Answer = Callable[[Query], Awaitable[Any]]


class NoRollups(NegawattError):
    """The ledger is of a kind that the dashboard cannot read."""

    status = 501
    type = "not_supported_error"
    code = "no_rollups"


class WebRoutes:
    """Answers what the dashboard of *gateway* asks. *read* reads a request's body; *sources*: what others add.

    *behind*: what the pages are of, where it is not *gateway* as it serves.
    """

    def __init__(
        self, gateway: Gateway, read: Read, sources: Sources | None = None, behind: Behind | None = None
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._read = read
        self.sources = sources or Sources()
        self.sessions = Sessions(gateway.clock.time)
        self.live = Live(gateway.clock.time, lambda: gateway.admit.in_flight)
        gateway.meter.observers.append(self.live.seen)
        self._behind = behind or Behind(config=gateway.config, started_s=gateway.clock.time())
        self._files = load()
        path = getattr(gateway.ledger, "path", None)
        self._pool = Pool(path) if isinstance(path, Path) else None
        self._answers: dict[str, tuple[tuple[str, ...], Answer]] = {
            "overview": (_PERIOD, self._overview), "classes": (_PERIOD, self._classes),
            "prompts": (_PERIOD, self._prompts), "caches": (_PERIOD, self._caches),
            "routing": (_PERIOD, self._routing), "requests": (asking.PARAMETERS, self._requests),
            "budgets": ((), self._budgets), "alerts": ((), self._alerts),
        }  # fmt: skip

    def methods(self, path: str) -> tuple[str, ...]:
        """Return what *path* answers to; nothing when it is no path of the dashboard."""
        if path == "/" or path.startswith("/static/"):
            return ("GET",) if self.public(path) else ()
        if path == f"{_API}session":
            return ("DELETE", "GET", "POST")
        known = path in (f"{_API}live", *(_API + name for name in self._answers)) or _REQUEST.fullmatch(path)
        return ("GET",) if known else ()

    def public(self, path: str) -> bool:
        """True for what is the same for everybody: the pages, which hold no data."""
        return self._file(path) is not None

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Answer one request. Raises `NegawattError`."""
        path, headers = scope["path"], dict(scope["headers"])
        file = self._file(path)
        if file is not None:
            await _send_file(send, file, scope["query_string"], headers)
            return
        # Here as well as in the server: these routes may stand on a port of their own.
        keyless = self._gateway.keyring.open
        refuse_foreign_pages(head, scope["headers"], self._gateway.config.server, keyless=keyless)
        try:
            if path == f"{_API}session":
                await self._session(scope["method"], head, headers, receive, send)
                return
            self._administrator(head, headers)
            if path == f"{_API}live":
                await self._watch(head, headers, receive, send)
            elif (found := _REQUEST.fullmatch(path)) is not None:
                query_of(scope["query_string"], ())
                await _say(send, await self._request(unquote(found[1])))
            else:
                known, answer = self._answers[path.removeprefix(_API)]
                many = set(known).difference(_PERIOD)
                await _say(send, await answer(query_of(scope["query_string"], known, repeated=many)))
        except TooMany:
            raise RateLimited("too much is asked of the ledger at once; try again shortly") from None

    def close(self) -> None:
        """Say goodbye to those who watch: the server stops."""
        self.live.close()

    def release(self) -> None:
        """Let go of the ledger."""
        if self._pool is not None:
            self._pool.close()

    # -- who asks ----------------------------------------------------------------------------------------------

    def _administrator(self, head: Head, headers: Mapping[bytes, bytes], *, using: bool = True) -> None:
        """Raise `AuthenticationError` or `PermissionDenied` unless an administrator asks."""
        if head.hints.key is not None or self._gateway.keyring.open:
            administrator(self._gateway.keyring, head.hints.key)
        elif self._signed(headers, using=using) is None:
            raise AuthenticationError("sign in with the key of an administrator, or send it as a bearer token")

    def _signed(self, headers: Mapping[bytes, bytes], *, using: bool = True) -> Session | None:
        """Return the session of the browser that asks, which does not outlive the secret that it was begun with."""
        name = cookie_of(headers)
        session = self.sessions.find(name, using=using)
        if session is not None and not self._gateway.access.stands(session.caller, session.secret):
            self.sessions.end(name)
            return None
        return session

    def _may_go_on(self, head: Head, headers: Mapping[bytes, bytes]) -> bool:
        """True while who watches could ask for it again; watching is not using."""
        try:
            self._administrator(head, headers, using=False)
        except NegawattError:
            return False
        return True

    async def _session(
        self, method: str, head: Head, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:  # fmt: skip
        secure = headers.get(b"x-forwarded-proto") == b"https"  # then a cookie must not travel otherwise
        if method == "GET":
            await _say(send, self._signed_in(self._signed(headers)))
        elif method == "DELETE":
            self.sessions.end(cookie_of(headers))
            await _say(send, self._signed_in(None), (b"set-cookie", set_cookie("", secure=secure)))
        elif self.sessions.wait_s > 0:
            wait = str(int(self.sessions.wait_s) + 1).encode()
            error = RateLimited("too many failed attempts to sign in; try again in a minute")
            await send_body(send, 429, [JSON, *PRIVATE, (b"retry-after", wait)], _encode(body_of(error)))
        else:
            with Guard(receive, self._gateway.alarms, self._gateway.config.server.body_timeout_s) as guard:
                body = await self._read(head, receive) if (head.declared or 0) <= _MOST_BODY else b""
                guard.reading = False
            if body is None:
                return
            try:
                secret = _key_of(body, headers)
                caller = administrator(self._gateway.keyring, secret)
            except NegawattError:
                self.sessions.failed()
                raise
            name, session = self.sessions.begin(caller, digest_of(secret))
            await _say(send, self._signed_in(session), (b"set-cookie", set_cookie(name, secure=secure)))

    def _signed_in(self, session: Session | None) -> dict[str, Any]:
        open_ = self._gateway.keyring.open
        known = None if open_ or session is None else session
        return {
            "open": open_, "signed_in": open_ or session is not None,
            "key_id": None if known is None else known.caller.key_id,
            "expires_s": None if known is None else known.expires_s,
        }  # fmt: skip

    # -- figures -----------------------------------------------------------------------------------------------

    async def _ask(self, question: Callable[[Reader], Any]) -> Any:
        if self._pool is None:
            raise NoRollups("ledger.url: the dashboard reads a ledger in SQLite (sqlite:///FILE), and this is another")
        return await self._pool.ask(question)

    async def _figures(self, query: Query, figures: Callable[[Snapshot, Period], Any]) -> Any:
        if not self._gateway.config.ledger.rollups:
            raise NoRollups("ledger.rollups: it is false, so there are no sums of the rows to show")
        period = period_of({name: values[0] for name, values in query.items()}, self._gateway.clock.time())

        def question(reader: Reader) -> Any:
            with reader.snapshot() as snapshot:
                return figures(snapshot, period)

        return await self._ask(question)

    async def _success(self, query: Query, *, classes: bool = False) -> Any:
        period = period_of({name: values[0] for name, values in query.items()}, self._gateway.clock.time())
        return await success_of(self.sources, period.since_s, period.until_s, classes=classes)

    async def _overview(self, query: Query) -> Any:
        success, budgets = await self._success(query), await self.sources.budgets()
        facts = await facts_of(self._gateway, self._behind, success, budgets)
        return await self._figures(query, lambda snapshot, period: overview(snapshot, period, facts))

    async def _classes(self, query: Query) -> Any:
        success, alerts = await self._success(query, classes=True) or {}, await self.sources.alerts() or {}
        slos: dict[str, list[Any]] = {}
        for slo in alerts.get("slos", ()):
            slos.setdefault(slo["class"], []).append(slo)
        about = tables.About(configured=classes_of(self._behind.config), order=LEVERS, slos=slos, success=success)
        return await self._figures(query, lambda snapshot, period: tables.classes(snapshot, period, about))

    async def _prompts(self, query: Query) -> Any:
        return await self._figures(query, tables.prompts)

    async def _caches(self, query: Query) -> Any:
        modes = cache_modes(self._behind.config)
        found = await self._figures(query, lambda snapshot, period: tables.caches(snapshot, period, modes=modes))
        return {**found, **await learned_of(self._gateway, self._behind)}

    async def _routing(self, query: Query) -> Any:
        policies = policies_of(self._behind.config)
        return await self._figures(query, lambda snapshot, period: tables.routing(snapshot, period, policies=policies))

    async def _budgets(self, query: Query) -> Any:
        found = await self.sources.budgets()
        return {"schema": "negawatt.budgets/1", "configured": found is not None, "budgets": found or []}

    async def _alerts(self, query: Query) -> Any:
        found = await self.sources.alerts()
        return {"schema": "negawatt.alerts/1", "configured": found is not None, "slos": [], "alerts": [],
                **(found or {})}  # fmt: skip

    async def _requests(self, query: Query) -> Any:
        asked = asking.asked(query)
        page = await self._ask(lambda reader: find(reader.connection, asked.search, asked.limit, asked.start))
        return asking.shown(page)

    async def _request(self, call_id: str) -> Any:
        found = await self._ask(lambda reader: one(reader.connection, call_id))
        if found is None:
            raise NotFound(f"id: there is no call {call_id[:80]!r} in the ledger", param="id")
        outcome, content = found
        row = shown_row(outcome)
        for name, plain in (("user_id", "user"), ("request_class", "class"), ("task_id", "task"),
                            ("session_id", "session"), ("request_model", "model")):  # fmt: skip
            row[plain] = row.pop(name)
        kept = None if content is None else {"request": _loaded(content.request), "response": _loaded(content.response)}
        note = None if kept is not None else "what was asked and answered is not kept (ledger.keep_content)"
        return {"schema": "negawatt.request/1", "row": row, "content": kept, "content_note": note,
                **await shaped_of(self._gateway, row)}  # fmt: skip

    # -- live --------------------------------------------------------------------------------------------------

    async def _watch(self, head: Head, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        if self.live.watchers >= WATCHERS or self.live.closing:
            raise RateLimited(f"{WATCHERS} pages watch already")
        last = headers.get(b"last-event-id")
        start: Headers = [EVENTS, *PRIVATE, (b"x-accel-buffering", b"no")]
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": start})
            async with aclosing(self.live.watch(None if last is None else last.decode("latin-1"))) as events:
                while True:
                    following = asyncio.ensure_future(anext(events, None))
                    await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not following.done():
                        following.cancel()
                        await asyncio.wait({following})
                        return
                    data = following.result()
                    if data is None or not self._may_go_on(head, headers):
                        break
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()

    def _file(self, path: str) -> File | None:
        """Return the file at *path*, where there is one."""
        return self._files.get(INDEX if path == "/" else path.removeprefix("/static/")) if path[:1] == "/" else None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_file(send: Send, file: File, query: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Send *file*: for a year to who asks for this version of it, else to be asked for again."""
    tag = f'"{file.version}"'.encode()
    versioned = query == f"v={file.version}".encode()
    keep = b"public, max-age=31536000, immutable" if versioned else b"no-cache"
    told: Headers = [*STRICT, (b"etag", tag), (b"cache-control", keep)]
    if headers.get(b"if-none-match") == tag:
        await send({"type": "http.response.start", "status": 304, "headers": told})
        await send({"type": "http.response.body", "body": b""})
        return
    await send_body(send, 200, [(b"content-type", file.content_type.encode()), *told], file.body)


async def _say(send: Send, value: Any, *more: tuple[bytes, bytes]) -> None:
    await send_body(send, 200, [JSON, *PRIVATE, *more], _encode(value))


def _key_of(body: bytes, headers: Mapping[bytes, bytes]) -> str:
    """Return the key in the JSON *body*. Raises `InvalidRequest`."""
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        raise InvalidRequest("content-type: expected application/json", param="content-type")
    try:
        found = orjson.loads(body) if len(body) <= _MOST_BODY else None
    except orjson.JSONDecodeError:
        found = None
    key = found.get("key") if isinstance(found, dict) else None
    if not isinstance(key, str) or not key:
        raise InvalidRequest('key: expected {"key": "..."}', param="key")
    return key


def _loaded(raw: bytes | None) -> Any:
    """Return *raw* as JSON; as text where it is none."""
    if raw is None:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode("utf-8", "replace")
