"""Our own HTTP/1.1 client: the transport, and the connections it keeps to each origin.

A pool has a fixed number of slots. A slot is held from before a connection is opened until it is closed, whether the
connection is asked or idle. Who finds none free waits in line; what becomes free is handed to the first in line, so
that nobody who comes later can take it, and who is cancelled while it is being handed over passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any

from negawatt.errors import UpstreamBroken, UpstreamConnectError, UpstreamTimeout
from negawatt.providers.http1_connection import Http1Connection
from negawatt.providers.http1_download import Http1Download
from negawatt.providers.transport import (
    Limits,
    Target,
    Timeouts,
    Upload,
    check_head,
    needs_length,
    tls_context,
    why_no_connection,
)

_MAX_HEADS = 1024  # rendered heads kept; they are few where keys are few
_JOIN_BELOW = 64 * 1024  # a larger body is written on its own rather than copied behind the head
_FAREWELL_S = 1.0  # how long a polite TLS close may take

if TYPE_CHECKING:
    # The slot of a closed connection (None), or an idle one with its slot.
    Turn = asyncio.Future["Http1Connection | None"]


class Http1Transport:
    """A `Transport` over httptools."""

    def __init__(self, limits: Limits, ca_file: str | None = None) -> None:
        self._limits = limits
        self._ca_file = ca_file
        self._pools: dict[str, OriginPool] = {}
        self._heads: dict[tuple[object, ...], bytes] = {}
        self._closed = False

    async def send(self, upload: Upload, *, timeout: Timeouts) -> Http1Download:
        request = self._render(upload)
        body = b"" if len(upload.body) < _JOIN_BELOW else upload.body
        pool = self._pools.get(upload.target.origin) or self._open_pool(upload.target)
        connection = pool.take() or await pool.acquire(timeout.connect_s)
        head_only = upload.method == "HEAD"
        download = connection.ask(request, body, head_only, timeout)
        await self._head_of(download)
        if download.stale:
            connection = await pool.acquire(timeout.connect_s, fresh=True)
            download = connection.ask(request, body, head_only, timeout)
            await self._head_of(download)
        if not download.status:
            download.raise_error()
        return download

    async def close(self) -> None:
        self._closed = True
        pools = list(self._pools.values())
        for pool in pools:
            pool.close()
        for pool in pools:
            await pool.drained()

    @staticmethod
    async def _head_of(download: Http1Download) -> None:
        waiter = download.waiter
        if waiter is not None:
            try:
                await waiter
            except BaseException:
                download.drop()
                raise

    def _render(self, upload: Upload) -> bytes:
        target, body = upload.target, upload.body
        key = (upload.method, target.url, upload.headers)
        head = self._heads.get(key)
        if head is None:
            check_head(upload.method, upload.headers)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            start = f"{upload.method} {target.path} HTTP/1.1\r\nhost: {target.authority}\r\n"
            head = self._heads[key] = start.encode("ascii") + _fields(upload.headers)
        if upload.extra:
            check_head(upload.method, upload.extra)
            head += _fields(upload.extra)
        if not needs_length(upload):
            return head + b"\r\n"
        if len(body) < _JOIN_BELOW:
            return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        return b"%bcontent-length: %d\r\n\r\n" % (head, len(body))

    def _open_pool(self, target: Target) -> OriginPool:
        if self._closed:
            raise UpstreamConnectError("the transport is closed")
        context = tls_context(self._ca_file) if target.scheme == "https" else None
        pool = self._pools[target.origin] = OriginPool(target, self._limits, context)
        return pool


class OriginPool:
    """The connections to one origin. The last one used is the next, so that those too many fall idle and expire."""

    def __init__(self, target: Target, limits: Limits, context: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._limits = limits
        self._context = context
        self._slots = limits.max_connections  # free ones
        self._idle: deque[Http1Connection] = deque()  # longest idle first
        self._line: deque[Turn] = deque()
        self._connections: set[Http1Connection] = set()  # whose socket is open
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._drained: asyncio.Future[None] | None = None

    def take(self) -> Http1Connection | None:
        """Return an idle connection, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            connection.idle_since = None
            if connection.usable():
                return connection
            connection.drop()
        return None

    async def acquire(self, connect_s: float, *, fresh: bool = False) -> Http1Connection:
        """Return a connection once there is one for this caller. *fresh*: rather a new one than one that was idle,
        and first in line, for who has waited before.

        Raises UpstreamConnectError and UpstreamTimeout.
        """
        if fresh and self._idle:
            self._idle[0].drop(politely=True)
        if self._closed:
            raise UpstreamConnectError("the transport is closed")
        if self._slots:
            self._slots -= 1
        else:
            handed = await self._wait_in_line(first=fresh)
            if handed is not None:
                return handed
        try:
            return await self._connect(connect_s)
        except BaseException:
            self._free_slot()
            raise

    def release(self, connection: Http1Connection) -> None:
        """Take back a connection that may be used again."""
        turn = self._next_in_line()
        if turn is not None:
            turn.set_result(connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._limits.keepalive_s, self._sweep)

    def retire(self, connection: Http1Connection) -> None:
        """A connection will not be used again: its slot is free."""
        if connection.idle_since is not None:
            self._idle.remove(connection)
            connection.idle_since = None
        self._free_slot()

    def lost(self, connection: Http1Connection) -> None:
        """The socket of a connection is closed."""
        self._connections.discard(connection)
        if self._drained is not None and not self._connections and not self._drained.done():
            self._drained.set_result(None)

    def close(self) -> None:
        """Drop every connection; who is in line gets an error."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while (turn := self._next_in_line()) is not None:
            turn.set_exception(UpstreamConnectError("the transport was closed"))
        for connection in list(self._connections):
            connection.drop(UpstreamBroken("the transport was closed"))

    async def drained(self) -> None:
        """Wait until the last socket is closed."""
        if self._connections:
            self._drained = self._loop.create_future()
            await self._drained

    async def _wait_in_line(self, *, first: bool) -> Http1Connection | None:
        while True:
            turn: Turn = self._loop.create_future()
            if first:
                self._line.appendleft(turn)
            else:
                self._line.append(turn)
            try:
                handed = await turn
            except asyncio.CancelledError:
                self._pass_on(turn)
                raise
            if handed is None or handed.usable():
                return handed
            handed.drop()  # it died on the way, and its slot went to the next in line
            if self._slots:
                self._slots -= 1
                return None
            first = True

    def _pass_on(self, turn: Turn) -> None:
        if turn.cancelled():
            with contextlib.suppress(ValueError):  # its turn came just then, and was passed over
                self._line.remove(turn)
        elif turn.exception() is None:
            handed = turn.result()
            if handed is None:
                self._free_slot()
            elif handed.usable():
                self.release(handed)
            else:
                handed.drop()

    def _next_in_line(self) -> Turn | None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                return turn
        return None

    def _free_slot(self) -> None:
        turn = self._next_in_line()
        if turn is None:
            self._slots += 1
        else:
            turn.set_result(None)

    async def _connect(self, connect_s: float) -> Http1Connection:
        target = self._target
        options: dict[str, Any] = {}
        if self._context is not None:
            options = {
                "ssl": self._context,
                "server_hostname": target.host.rstrip("."),
                "ssl_shutdown_timeout": _FAREWELL_S,
            }
        opened = functools.partial(Http1Connection, self, self._loop, self._limits.max_head, self._limits.max_body)
        try:
            async with asyncio.timeout(connect_s):
                _, connection = await self._loop.create_connection(opened, target.host, target.port, **options)
        except TimeoutError as error:
            raise UpstreamTimeout(f"no connection to {target.origin} within {connect_s:g} s") from error
        except (OSError, UnicodeError) as error:
            raise UpstreamConnectError(why_no_connection(target, error)) from error
        if self._closed:
            connection.drop()
            raise UpstreamConnectError("the transport was closed")
        if not connection.enter():
            raise UpstreamConnectError(f"{target.origin} closed the connection, or spoke, before it was asked")
        return connection

    def opened(self, connection: Http1Connection) -> None:
        """The socket of a connection is open."""
        self._connections.add(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        while self._idle:
            oldest = self._idle[0]
            left = (oldest.idle_since or now) + self._limits.keepalive_s - now
            if left > 0:
                self._sweeper = self._loop.call_later(left, self._sweep)
                return
            oldest.drop(politely=True)


def _fields(headers: tuple[tuple[str, str], ...]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("ascii")
