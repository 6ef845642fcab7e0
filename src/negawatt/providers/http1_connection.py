"""One HTTP/1.1 connection.

The parser is llhttp, through httptools. Everything on the path of a request is a plain call: a request makes one
future to wait for the response head and one for each later wait, and no task. Deadlines share one timer per
connection, which is moved only when a deadline falls before it and otherwise looks, when it fires, whether the
deadline has moved on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from negawatt.errors import UpstreamBroken, UpstreamError, UpstreamProtocolError, UpstreamTimeout
from negawatt.providers.content_coding import coding_of
from negawatt.providers.http1_download import WANTS_PIECE, WANTS_WHOLE, Http1Download
from negawatt.providers.transport import Timeouts, head_too_large, too_large

if TYPE_CHECKING:
    from negawatt.providers.http1_pool import OriginPool

_PAUSE_ABOVE = 64 * 1024  # bytes held for the reader; one more read from the socket may bring 256 KiB
_NEVER = float("inf")
_TICK = 0.002  # loops may keep time in whole milliseconds, and fire a timer that much early


class Http1Connection(asyncio.Protocol):
    """A connection to one origin, which asks one thing at a time. Its pool makes it and takes it back."""

    __slots__ = (
        "_answered", "_deadline", "_download", "_fed", "_head_only", "_informational", "_keep", "_loop", "_max_body",
        "_max_head", "_parser", "_paused", "_pool", "_raw_headers", "_timeouts", "_timer", "_timer_at", "_transport",
        "_until_close", "idle_since", "open", "reused",
    )  # fmt: skip

    def __init__(self, pool: OriginPool, loop: asyncio.AbstractEventLoop, max_head: int, max_body: int) -> None:
        self.open = False  # it has a slot of the pool
        self.reused = False  # it has answered before
        self.idle_since: float | None = None  # loop time; None: in use
        self._pool = pool
        self._loop = loop
        self._max_head = max_head
        self._max_body = max_body
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._download: Http1Download | None = None
        self._timeouts = Timeouts()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._deadline = _NEVER
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._fed = 0  # bytes since the request was sent, or since the last piece of a body
        self._answered = self._informational = self._head_only = self._until_close = False
        self._keep = self._paused = False

    # What the pool and the download ask for.

    def ask(self, request: bytes, body: bytes, head_only: bool, timeouts: Timeouts) -> Http1Download:
        """Send *request* and *body*; return the download, whose waiter is done when its head is there or never."""
        transport = self._transport
        assert transport is not None
        download = Http1Download(self, self._loop.create_future(), self._max_body)
        self._download = download
        self._head_only = head_only
        self._timeouts = timeouts
        self._fed = 0
        self._answered = self._keep = False
        transport.write(request)
        if body:
            transport.write(body)
        self._arm(timeouts.first_byte_s)
        return download

    def enter(self) -> bool:
        """Begin its use, with a slot of the pool; return whether it is still alive."""
        self.open = self._transport is not None and not self._transport.is_closing()
        return self.open

    def usable(self) -> bool:
        """Return whether a request may be sent on it, as far as this end knows."""
        return self.open and self._transport is not None and not self._transport.is_closing()

    def expect(self, whole: bool) -> asyncio.Future[None]:
        """Return a future for the next piece, or for the *whole* body; the idle time-out begins."""
        if whole:
            self.resume()
        self._arm(self._timeouts.idle_s)
        return self._loop.create_future()

    def disarm(self) -> None:
        """Nobody waits: no time-out."""
        self._deadline = _NEVER

    def resume(self) -> None:
        """What was held has been taken, or may grow: read on."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def drop(self, error: UpstreamError | None = None, *, politely: bool = False) -> None:
        """Close the socket at once; *error* goes to who waits for an answer. *politely*: with a TLS farewell."""
        self._retire(error)
        if self._transport is not None:
            if politely:
                self._transport.close()
            else:
                self._transport.abort()

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._parser = HttpResponseParser(self)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        download, parser = self._download, self._parser
        if download is None or parser is None:  # bytes that nobody asked for
            self.drop()
            return
        self._answered = True
        self._fed += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._on_bad_bytes(download, error)
            return
        if download.complete:
            self._settle(download, self._keep)
        elif self._fed > self._max_head:
            self.drop(head_too_large(self._max_head))
        elif download.status:
            self._deliver(download)

    def connection_lost(self, exc: Exception | None) -> None:
        download = self._download
        if download is None:
            self._retire(None)
        elif exc is None and download.status and self._until_close:
            download.complete = True
            self._retire(None)
        elif not self._answered:
            download.stale = self.reused
            self._retire(UpstreamBroken(f"the provider closed the connection without an answer{_because(exc)}"))
        else:
            self._retire(UpstreamBroken(f"the provider closed the connection in mid-answer{_because(exc)}"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser = None  # it holds this object's methods
        self._transport = None
        self._pool.lost(self)

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self._download is None or self._download.complete:
            raise UpstreamProtocolError("the provider sent more than one answer")
        self._raw_headers.clear()
        self._informational = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._raw_headers.append((name, value))

    def on_headers_complete(self) -> None:
        download, parser = self._download, self._parser
        assert download is not None and parser is not None
        status = parser.get_status_code()
        if status < 100:
            raise UpstreamProtocolError(f"the provider answered with status {status}")
        if status < 200:
            self._informational = True
            return
        raw = self._raw_headers
        if self._fed > self._max_head and sum(len(name) + len(value) + 4 for name, value in raw) > self._max_head:
            raise head_too_large(self._max_head)
        headers: dict[str, str] = {}
        for name, value in raw:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        download.status = status
        download.headers = headers
        download.coding = coding_of(headers.get("content-encoding"))
        download.complete = self._head_only
        # A response that ends with the connection says neither its length nor that it is chunked (RFC 9112, 6.3).
        self._until_close = "content-length" not in headers or "transfer-encoding" in headers
        if self._until_close and "chunked" in headers.get("transfer-encoding", "").lower():
            self._until_close = False
        self._deadline = _NEVER
        download.wake()

    def on_body(self, data: bytes) -> None:
        download = self._download
        if download is not None and not download.complete:
            download.pieces.append(data)
            download.buffered += len(data)
            self._fed = 0

    def on_message_complete(self) -> None:
        download, parser = self._download, self._parser
        if self._informational or download is None or parser is None:
            return
        download.complete = True
        self._keep = parser.should_keep_alive()

    # What follows from it.

    def _deliver(self, download: Http1Download) -> None:
        if download.wants == WANTS_WHOLE and download.waiter is not None:
            if download.buffered > download.max_body:
                self.drop(too_large(download.max_body))
            else:
                self._arm(self._timeouts.idle_s)
            return
        if download.pieces and download.wants == WANTS_PIECE and download.waiter is not None:
            self._deadline = _NEVER
            download.wake()
        if download.buffered > _PAUSE_ABOVE and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _settle(self, download: Http1Download, keep: bool) -> None:
        """The answer is whole: let its reader have it, and the next request have the connection."""
        transport = self._transport
        if not keep or transport is None or not self.open or transport.get_write_buffer_size():
            self.drop()  # a provider that answers before it has read the request leaves some of it unsent
            return
        self._release(download, None)
        self.resume()
        self.reused = True
        self._pool.release(self)

    def _on_bad_bytes(self, download: Http1Download, error: Exception) -> None:
        if download.complete:
            self.drop()  # the answer was whole; only what came after it was bad
            return
        if isinstance(error, HttpParserCallbackError):
            if not isinstance(error.__context__, UpstreamError):
                raise error  # a fault of ours
            self.drop(error.__context__)
        elif isinstance(error, HttpParserUpgrade):
            self.drop(UpstreamProtocolError("the provider switched protocols without being asked"))
        else:
            self.drop(UpstreamProtocolError(f"the provider's answer is not HTTP/1.1: {error}"))

    def _retire(self, error: UpstreamError | None) -> None:
        """No longer in use, nor to be used again."""
        if self._download is not None:
            self._release(self._download, error)
        if self.open:
            self.open = False
            self._pool.retire(self)

    def _release(self, download: Http1Download, error: UpstreamError | None) -> None:
        self._download = None
        self._deadline = _NEVER
        download.connection = None
        if not download.complete:
            download.error = error or UpstreamBroken("the connection was closed before the answer was whole")
        download.wake()

    def _arm(self, seconds: float) -> None:
        deadline = self._deadline = self._loop.time() + seconds
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        left = self._deadline - self._loop.time()
        if self._deadline == _NEVER or self._download is None:
            return
        if left > _TICK:
            self._arm(left)
        elif self._download.status:
            self.drop(UpstreamTimeout(f"the provider sent nothing more for {self._timeouts.idle_s:g} s"))
        else:
            self.drop(UpstreamTimeout(f"the provider did not answer within {self._timeouts.first_byte_s:g} s"))


def _because(exc: Exception | None) -> str:
    return "" if exc is None else f" ({exc})"
