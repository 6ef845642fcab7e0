"""The transport over aiohttp: the same behaviour from another code base, and the judge of our own.

It differs in two rare cases. After a reset (rather than an orderly close) of a reused connection it does not resend,
since aiohttp does not tell whether a byte of the answer had come. A body that ends with the connection counts as
whole even if that end was a reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import aiohttp
from yarl import URL

from negawatt.errors import UpstreamBroken, UpstreamConnectError, UpstreamProtocolError, UpstreamTimeout
from negawatt.providers.content_coding import Inflater, coding_of
from negawatt.providers.transport import (
    Limits,
    Target,
    Timeouts,
    Upload,
    check_head,
    head_too_large,
    needs_length,
    tls_context,
    too_large,
    why_no_connection,
)

_UNASKED = ("accept", "accept-encoding", "content-type", "user-agent")  # what aiohttp would add
_BUFFER = 64 * 1024  # it stops reading at twice this


class AiohttpTransport:
    """A `Transport` over aiohttp."""

    def __init__(self, limits: Limits, ca_file: str | None = None) -> None:
        self._limits = limits
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None  # opened in the loop that uses it
        self._closed = False
        self._heard: WeakSet[object] = WeakSet()  # connections whose end is listened to

    async def send(self, upload: Upload, *, timeout: Timeouts) -> AiohttpDownload:
        check_head(upload.method, upload.headers)
        check_head(upload.method, upload.extra)
        if self._closed:
            raise UpstreamConnectError("the transport is closed")
        session = self._session or self._open_session()
        try:
            return await self._ask(session, upload, timeout)
        except _Stale:
            return await self._ask(session, upload, timeout, resent=True)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                # On closing, aiohttp cancels those who wait for a connection as if their callers had.
                raise UpstreamConnectError("the transport was closed") from error
            raise

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self, session: aiohttp.ClientSession, upload: Upload, timeout: Timeouts, *, resent: bool = False
    ) -> AiohttpDownload:
        asked = _Asked(timeout.first_byte_s, asyncio.timeout(None))
        with _translating(upload.target, timeout, asked, may_resend=not resent):
            async with asked.deadline:
                response = await session.request(
                    upload.method,
                    URL(upload.target.url, encoded=True),
                    data=upload.body if needs_length(upload) else None,
                    headers=(*upload.headers, *upload.extra),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=timeout.connect_s),
                    trace_request_ctx=asked,
                )
        if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > self._limits.max_head:
            response.close()
            raise head_too_large(self._limits.max_head)
        return AiohttpDownload(response, timeout.idle_s, self._limits.max_body, self._end_of(response))

    def _end_of(self, response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
        """Return what is done when the connection of *response* ends; None if the body is in already."""
        protocol = None if response.connection is None else response.connection.protocol
        end = None if protocol is None else protocol.closed
        if end is not None and protocol not in self._heard:
            self._heard.add(protocol)
            end.add_done_callback(asyncio.Future.exception)  # else it is reported as never retrieved
        return end

    def _open_session(self) -> aiohttp.ClientSession:
        limits = self._limits
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=limits.max_connections,
            keepalive_timeout=limits.keepalive_s,
            ssl=tls_context(self._ca_file),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_UNASKED,
            auto_decompress=False,
            read_bufsize=_BUFFER,
            max_line_size=limits.max_head,
            max_field_size=limits.max_head,
            trace_configs=[_tracing()],
        )
        return self._session


class AiohttpDownload:
    """A `Download` over an aiohttp response."""

    def __init__(
        self, response: aiohttp.ClientResponse, idle_s: float, max_body: int, end: asyncio.Future[None] | None
    ) -> None:
        self._response = response
        self._idle_s = idle_s
        self._max_body = max_body
        self._inflater: Inflater | None = None
        self._closed = False
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers.items():
            key = name.lower()
            self.headers[key] = f"{self.headers[key]}, {value}" if key in self.headers else value
        self._coding = coding_of(self.headers.get("content-encoding"))
        self._end = end
        if end is not None:
            end.add_done_callback(self._on_lost)
            response.content.on_eof(self._on_whole)

    async def read(self) -> bytes:
        pieces, size = [], 0
        while piece := await self._next():
            size += len(piece)
            if size > self._max_body:
                await self.close()
                raise too_large(self._max_body)
            pieces.append(piece)
        return b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._next()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        self._closed = True
        self._response.close()  # after the last byte this is nothing: the connection is back in the pool

    def _on_whole(self) -> None:
        if self._end is not None:
            self._end.remove_done_callback(self._on_lost)

    def _on_lost(self, _end: asyncio.Future[None]) -> None:
        # After a chunk header that it cannot parse, aiohttp closes the connection but leaves the reader waiting.
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(UpstreamProtocolError("the provider's answer is not HTTP/1.1"))

    async def _next(self) -> bytes:
        if self._coding is None:
            return await self._next_raw()
        if self._inflater is None:
            self._inflater = Inflater(self._coding)
        while not (piece := self._inflater.pull()):
            raw = await self._next_raw()
            if not raw:
                self._inflater.finish()
                return b""
            self._inflater.push(raw)
        return piece

    async def _next_raw(self) -> bytes:
        content = self._response.content
        if self._closed and not content.is_eof():
            raise UpstreamBroken("the answer was closed before its end")
        try:
            async with asyncio.timeout(self._idle_s):
                return await content.readany()
        except TimeoutError as error:
            self._response.close()
            raise UpstreamTimeout(f"the provider sent nothing more for {self._idle_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self._response.close()
            raise UpstreamBroken(f"the provider closed the connection in mid-answer ({error})") from error
        except aiohttp.http_exceptions.HttpProcessingError as error:
            self._response.close()
            raise UpstreamProtocolError(f"the provider's answer is not HTTP/1.1: {error.message}") from error


class _Stale(Exception):
    """The connection had been closed before the request arrived."""


class _Asked:
    """One request under way: when its answer is due, and whether its connection has answered before."""

    def __init__(self, first_byte_s: float, deadline: asyncio.Timeout) -> None:
        self.deadline = deadline
        self.reused = False
        self._first_byte_s = first_byte_s

    def sent(self, *, reused: bool) -> None:
        self.reused = reused
        self.deadline.reschedule(asyncio.get_running_loop().time() + self._first_byte_s)


def _tracing() -> aiohttp.TraceConfig:
    """Start the first-byte time-out when a request gets its connection."""

    async def opened(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.sent(reused=False)

    async def reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.sent(reused=True)

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(opened)
    config.on_connection_reuseconn.append(reused)
    return config


@contextmanager
def _translating(target: Target, timeout: Timeouts, asked: _Asked, *, may_resend: bool) -> Iterator[None]:
    """Raise aiohttp's exceptions as ours. The order matters: they inherit from each other and from OSError."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamTimeout(f"no connection to {target.origin} within {timeout.connect_s:g} s") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise UpstreamConnectError(why_no_connection(target, error.certificate_error)) from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamConnectError(why_no_connection(target, error.os_error)) from error
    except TimeoutError as error:
        raise UpstreamTimeout(f"the provider did not answer within {timeout.first_byte_s:g} s") from error
    except aiohttp.ServerDisconnectedError as error:
        # The message is a text if not a byte of the answer came, else the part of the head that did.
        if asked.reused and may_resend and isinstance(error.message, str):
            raise _Stale from error
        raise UpstreamBroken("the provider closed the connection without an answer") from error
    except aiohttp.ClientResponseError as error:
        raise UpstreamProtocolError(f"the provider's answer is not HTTP/1.1: {error.message}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamBroken(f"the provider closed the connection without an answer ({error})") from error
