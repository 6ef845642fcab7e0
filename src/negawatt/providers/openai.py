"""The adapter for every server that speaks OpenAI's Chat Completions."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import orjson

from negawatt.call import Call, Request, Target
from negawatt.errors import UpstreamBroken, UpstreamError, UpstreamProtocolError, UpstreamStatus
from negawatt.providers.transport import Download, Timeouts, Transport, Upload
from negawatt.providers.transport import Target as Address
from negawatt.reply import Burst, Chunk, Reply, Wire
from negawatt.wire.sse import DONE, EventParser

# Of an upstream's headers, those that help its callers and tell them nothing of our key.
_PASSED_ON = ("x-request-id", "openai-processing-ms", "retry-after", "retry-after-ms")
_PASSED_ON_PREFIX = "x-ratelimit-"
_READ_OUT_S = 1.0
_MAX_ERROR_BYTES = 256 * 1024


class AskedWire(Wire, Protocol):
    """What the adapter must know of the protocol."""

    path: str


class OpenAICompatible:
    """Sends the caller's bytes on as they are, as far as the model name allows, and gives back what comes."""

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        base_url: str,
        *,
        transport: Transport,
        wire: AskedWire,
        timeouts: Timeouts,
        headers: tuple[tuple[str, str], ...] = (),
        usage_in_stream: bool = True,
    ) -> None:
        self.name = name
        self._transport = transport
        self._wire = wire
        self._address = Address.parse(base_url.rstrip("/") + wire.path)
        self._models_address = Address.parse(base_url.rstrip("/") + "/models")
        self._timeouts = timeouts
        self._headers = (("content-type", "application/json"), ("accept-encoding", "gzip, deflate"), *headers)
        self._usage_in_stream = usage_in_stream

    async def ask(self, call: Call, target: Target) -> Reply:
        upload = Upload(self._address, self._body(call.request, target), "POST", self._headers)
        try:
            download = await self._transport.send(upload, timeout=self._timeouts)
        except UpstreamError as error:
            error.provider = self.name
            raise
        kept = False
        try:
            reply = await self._reply(call.request, download)
            kept = reply.streamed
            return reply
        except UpstreamError as error:
            error.provider = self.name
            raise
        finally:
            if not kept:
                await download.close()

    async def _reply(self, request: Request, download: Download) -> Reply:
        if download.status != 200:
            raise await self._refusal(download)
        media_type = download.headers.get("content-type", "")
        if request.stream and not media_type.startswith("application/json"):
            reply = Reply(self._wire, source=EventSource(download))
        else:
            reply = Reply(self._wire, body=await download.read())
            if "error" in reply.data and "choices" not in reply.data:
                raise UpstreamBroken(f"the provider answered with an error: {_message(reply.data)}")
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

    def _body(self, request: Request, target: Target) -> bytes:
        changes: dict[str, Any] = {}
        if request.model != target.model:
            changes["model"] = target.model
        if request.stream and self._usage_in_stream:
            options = request.get("stream_options") or {}
            if options.get("include_usage") is not True:
                # Without it a stream cannot be billed. The caller does not see the chunk that they did not ask for.
                changes["stream_options"] = {**options, "include_usage": True}
        return request.replace(**changes).body if changes else request.body

    async def models(self) -> list[str]:
        upload = Upload(self._models_address, b"", "GET", self._headers)
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

    It ends when the provider says ``[DONE]`` or closes. Whether the answer was whole by then is for the fold to say.
    """

    def __init__(self, download: Download) -> None:
        self._download = download
        self._pieces = download.__aiter__()
        self._parser = EventParser()
        self._over = False
        self._rest: asyncio.Task[None] | None = None  # kept, so that it is not collected while it runs

    async def __anext__(self) -> Burst:
        while not self._over:
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
            if b'"error"' in data and isinstance(chunk.data.get("error"), (dict, str)):
                raise UpstreamBroken(f"the provider broke off with an error: {_message(chunk.data)}")
            chunks.append(chunk)
        return chunks

    async def aclose(self) -> None:
        self._over = True
        if self._rest is None:
            await self._download.close()


def _message(data: dict[str, Any]) -> str:
    error = data.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:500]


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def _passed_on(download: Download) -> dict[str, str]:
    return {
        name: value
        for name, value in download.headers.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
    }
