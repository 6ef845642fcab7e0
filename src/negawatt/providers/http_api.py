"""The adapter for every model API over HTTP: what is special to a protocol is in its wire, to a vendor in its row."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import orjson

from negawatt.call import Call, Target
from negawatt.caller import Headers
from negawatt.errors import UpstreamBroken, UpstreamError, UpstreamProtocolError, UpstreamStatus
from negawatt.protocol import Wire
from negawatt.providers.transport import Download, Timeouts, Transport, Upload
from negawatt.providers.transport import Target as Address
from negawatt.reply import Burst, Chunk, Reply
from negawatt.wire.sse import DONE, EventParser

# Of an upstream's headers, those that are about its connection, its form or our account with it; callers get the rest.
_KEPT_BACK = frozenset({
    "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
    "access-control-allow-origin", "access-control-expose-headers", "access-control-max-age", "alt-svc",
    "anthropic-organization-id", "cache-control", "connection", "content-encoding", "content-length", "content-type",
    "date", "keep-alive", "location", "nel", "openai-organization", "openai-project", "proxy-authenticate",
    "report-to", "server", "set-cookie", "strict-transport-security", "trailer", "transfer-encoding", "upgrade",
    "vary", "via", "www-authenticate",
})  # fmt: skip
_OURS = "x-negawatt-"
_MOST_HEADERS = 64
_READ_OUT_S = 1.0
_MAX_ERROR_BYTES = 256 * 1024


class HttpApi:
    """Sends the caller's bytes on as they are, as far as the model name allows, and gives back what comes."""

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        base_url: str,
        *,
        transport: Transport,
        timeouts: Timeouts,
        speaks: Collection[str],
        headers: Headers = (),
        default_headers: Headers = (),
        usage_in_stream: bool = True,
    ) -> None:
        """*headers* are sent whatever the caller says, *default_headers* where the caller says nothing else."""
        self.name = name
        self.speaks = frozenset(speaks)
        self._transport = transport
        self._base_url = base_url.rstrip("/")
        self._addresses = {"/models": Address.parse(self._base_url + "/models")}
        self._timeouts = timeouts
        self._always = (("content-type", "application/json"), ("accept-encoding", "gzip, deflate"), *headers)
        self._set = frozenset(header.lower() for header, _ in self._always)
        self._defaults = default_headers
        self._usual = (*self._always, *default_headers)
        self._usage_in_stream = usage_in_stream

    async def ask(self, call: Call, target: Target) -> Reply:
        always, extra = self._headers(call.headers)
        upload = Upload(self._address(call.wire.path), self._body(call, target), "POST", always, extra)
        try:
            download = await self._transport.send(upload, timeout=self._timeouts)
        except UpstreamError as error:
            error.provider = self.name
            raise
        kept = False
        try:
            reply = await self._reply(call, download)
            kept = reply.streamed
            return reply
        except UpstreamError as error:
            error.provider = self.name
            raise
        finally:
            if not kept:
                await download.close()

    def _address(self, path: str) -> Address:
        address = self._addresses.get(path)
        if address is None:
            address = self._addresses[path] = Address.parse(self._base_url + path)
        return address

    def _headers(self, callers: Headers) -> tuple[Headers, Headers]:
        """Return our own headers and, apart from them, those of the caller that ours do not settle."""
        if not callers:
            return self._usual, ()
        passed = tuple([header for header in callers if header[0] not in self._set])
        if not self._defaults:
            return self._always, passed
        said = {name for name, _ in passed}
        return (*self._always, *[header for header in self._defaults if header[0] not in said]), passed

    async def _reply(self, call: Call, download: Download) -> Reply:
        if download.status != 200:
            raise await self._refusal(download)
        wire = call.wire
        media_type = download.headers.get("content-type", "")
        if call.streams and not media_type.startswith("application/json"):
            reply = Reply(wire, source=EventSource(download, wire))
        else:
            reply = Reply(wire, body=await download.read())
            said = wire.error_of(reply.data)
            if said is not None and not wire.complete(reply.data):
                raise UpstreamBroken(f"the provider answered with an error: {said}")
        reply.headers = _passed_on(download)
        return reply

    async def _refusal(self, download: Download) -> UpstreamError:
        """Return the error that an answer with another status than 200 stands for."""
        if not 400 <= download.status <= 599:
            message = f"the provider answered with status {download.status}, which is neither an answer nor an error"
            return UpstreamProtocolError(message, provider=self.name)
        body = await download.read()
        if len(body) > _MAX_ERROR_BYTES or not _is_object(body):
            body = b""  # a proxy's page, or nothing: ours takes its place
        error = UpstreamStatus(download.status, body, _passed_on(download), provider=self.name)
        if download.status == 401:
            # About our key, not the caller's, and providers quote parts of it: not for the caller to read.
            error.body = b""
            error.message = f"{self.name} refused the gateway's own key; whoever runs the gateway has to mend that"
        return error

    def _body(self, call: Call, target: Target) -> bytes:
        request = call.request
        if request.model != target.model:
            request = request.replace(model=target.model)
        if call.streams and self._usage_in_stream:
            # Without it a stream cannot be billed. Callers do not see the chunk that they did not ask for.
            request = call.wire.with_usage(request)
        return request.body

    async def models(self) -> list[str]:
        upload = Upload(self._addresses["/models"], b"", "GET", self._usual)
        download = await self._transport.send(upload, timeout=self._timeouts)
        try:
            body = await download.read()
            if download.status != 200:
                raise UpstreamStatus(download.status, body[:_MAX_ERROR_BYTES], {}, provider=self.name)
            return [str(entry["id"]) for entry in orjson.loads(body)["data"]]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            message = "the provider's list of models cannot be read"
            raise UpstreamProtocolError(message, provider=self.name) from error
        finally:
            await download.close()

    async def close(self) -> None:
        await self._transport.close()


class EventSource:
    """The chunks of a streamed answer; a `negawatt.reply.Source` that is safe to cancel.

    It ends when the provider says ``[DONE]``, or what its protocol ends on, or closes. Whether the answer was whole
    by then is for the fold to say.
    """

    def __init__(self, download: Download, wire: Wire) -> None:
        self._download = download
        self._wire = wire
        self._has_last = not wire.end  # a protocol without [DONE] has an event that says so
        self._pieces = download.__aiter__()
        self._parser = EventParser()
        self._over = False
        self._error: UpstreamError | None = None  # to be raised when what came before it has been read
        self._rest: asyncio.Task[None] | None = None  # kept, so that it is not collected while it runs

    async def __anext__(self) -> Burst:
        while self._error is None and not self._over:
            try:
                piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                self._over = True
                burst = self._chunks(self._parser.end())
            else:
                burst = self._chunks(self._parser.feed(piece))
            if self._over:
                # The end of the body may come a packet later: read up to it beside the path, so that the
                # connection can be used again.
                self._rest = asyncio.ensure_future(self._read_out())
            if burst:
                return burst
        if self._error is not None:
            self._over = True
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del (
                    error
                )  # the frame that raised it would hold it, and it the frame: megabytes, until they are collected
        raise StopAsyncIteration

    async def _read_out(self) -> None:
        try:
            async with asyncio.timeout(_READ_OUT_S):
                async for _ in self._pieces:
                    pass
        except (UpstreamError, TimeoutError):
            pass  # the answer is whole: a connection that misbehaves after it is dropped, and nothing is lost
        finally:
            await self._download.close()

    def _chunks(self, events: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for data in events:
            if data == DONE:
                self._over = True
                break
            chunk = Chunk(data)
            self._error = self._wrong_with(chunk)
            if self._error is not None:
                break
            chunks.append(chunk)
            if self._has_last and self._wire.last(chunk.data):
                self._over = True
                break
        return chunks

    def _wrong_with(self, chunk: Chunk) -> UpstreamError | None:
        try:
            said = self._wire.error_of(chunk.data) if b'"error"' in chunk.raw else None
            _ = chunk.data  # it is parsed here, so that the chunks before a bad one reach whoever reads
        except UpstreamProtocolError as error:
            return error.with_traceback(None)
        return None if said is None else UpstreamBroken(f"the provider broke off with an error: {said}")

    async def aclose(self) -> None:
        self._over = True
        if self._rest is None:
            await self._download.close()


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def _passed_on(download: Download) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in download.headers.items():
        if name not in _KEPT_BACK and not name.startswith(_OURS) and len(found) < _MOST_HEADERS:
            found[name] = value
    return found
