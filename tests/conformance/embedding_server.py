"""An endpoint that makes vectors, on loopback, and what carries requests to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from negawatt.embedders.hashing import Hashing
from negawatt.embedders.remote import Post
from negawatt.providers.transport import Target, Timeouts, Upload, open_transport

DIMENSIONS = 24
Answer = Callable[[str, dict[str, Any]], tuple[int, bytes]]


def vectors(path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
    """Answer as an endpoint does that works; it is strict about empty texts, as both kinds are."""
    texts = asked["input" if path.endswith("/embeddings") else "inputs"]
    if not all(texts):
        return 422, b'{"error": "an input is empty"}'
    rows = (Hashing(DIMENSIONS).embed(texts) * 3).tolist()  # not of length 1
    if path.endswith("/embed"):
        return 200, json.dumps(rows).encode()
    data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
    return 200, json.dumps({"object": "list", "model": "m", "data": data[::-1]}).encode()  # in any order


@asynccontextmanager
async def serving(
    answer: Answer = vectors, asked: list[dict[str, Any]] | None = None, port: int = 0
) -> AsyncIterator[str]:
    """Serve on loopback and give ``host:port``. What was asked, headers and path included, is put in *asked*."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                first, *lines = head.strip().split("\r\n")
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                path = first.split(" ")[1]
                if asked is not None:
                    asked.append({"path": path, "headers": headers, "body": body})
                status, said = answer(path, body)
                writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(said)}\r\n\r\n".encode() + said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def posting() -> AsyncIterator[Post]:
    """Give what carries requests: the gateway's own transport."""
    transport = open_transport("httptools")

    async def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
        upload = Upload(Target.parse(url), body, "POST", tuple(headers.items()))
        timeouts = Timeouts(connect_s=timeout_s, first_byte_s=timeout_s, idle_s=timeout_s)
        download = await transport.send(upload, timeout=timeouts)
        try:
            return download.status, await download.read()
        finally:
            await download.close()

    try:
        yield post
    finally:
        await transport.close()
