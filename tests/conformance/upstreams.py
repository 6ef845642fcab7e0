"""The small world of the transport suite: servers on 127.0.0.1 that say exactly what a test tells them to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from negawatt.providers.transport import Download, Limits, Target, Timeouts, Transport, Upload, open_transport

PATIENT = Timeouts(connect_s=5, first_byte_s=5, idle_s=5)
HASTY = Timeouts(connect_s=0.2, first_byte_s=0.2, idle_s=0.2)
AT_ONCE_S = 0.1  # a hang-up has to be seen by the server within this

over_both = pytest.mark.parametrize("name", ["httptools", "aiohttp"])

Play = Callable[["Conversation"], Awaitable[None]]


def answer(body: bytes = b"ok", *fields: str, status: str = "200 OK") -> bytes:
    """A whole response with a content-length."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes, fields: tuple[str, ...] = ()) -> bytes:
    """A whole chunked response."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *fields, "Transfer-Encoding: chunked"]).encode() + b"\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Conversation:
    """One connection as the server sees it."""

    def __init__(self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.number = len(upstream.conversations)  # 0: the first
        self._reader = reader
        self.writer = writer

    async def request(self) -> bytes | None:
        """The next request, head and body; None if the client hung up."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await self._reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.upstream.requests.append(head + body)
        return head + body

    async def say(self, *parts: bytes) -> None:
        """Send *parts*, each in a packet of its own: the client has read one before the next is written."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)

    async def hung_up(self) -> None:
        """Wait until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        self.upstream.hang_ups.set()

    def reset(self) -> None:
        """Break the connection off, so that the client gets an error and no orderly end."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Upstream:
    """A server whose every connection is played by one coroutine. Open it with `upstream`."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._tasks: set[asyncio.Task[None]] = set()
        self.conversations: list[Conversation] = []
        self.requests: list[bytes] = []
        self.hang_ups = asyncio.Event()
        self.origin = ""

    def target(self, path: str = "/") -> Target:
        return Target.parse(self.origin + path)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(self, reader, writer)
        self.conversations.append(conversation)
        task = asyncio.get_running_loop().create_task(self._converse(conversation))
        self._tasks.add(task)

    async def _converse(self, conversation: Conversation) -> None:
        try:
            await self._play(conversation)
        except ConnectionError:
            pass  # the client hung up while it was being written to
        finally:
            conversation.writer.close()

    def playing(self) -> list[asyncio.Task[None]]:
        """The conversations that are not over."""
        return [task for task in self._tasks if not task.done()]

    async def end(self) -> None:
        """Stop what still plays; an assertion that failed in a play fails the test."""
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome


@contextlib.asynccontextmanager
async def upstream(
    play: Play, *, host: str = "127.0.0.1", name: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Serve *play*; the origin is called *name*, if that is not *host*."""
    world = Upstream(play)
    server = await asyncio.start_server(world.serve, host, 0, ssl=tls, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    shown = name or (f"[{host}]" if ":" in host else host)
    world.origin = f"{'https' if tls else 'http'}://{shown}:{port}"
    try:
        yield world
    finally:
        server.close()
        await world.end()


@contextlib.asynccontextmanager
async def client(name: str, *, ca_file: str | Path | None = None, **limits: Any) -> AsyncIterator[Transport]:
    """Open the transport called *name*, and close it."""
    transport = open_transport(name, limits=Limits(**limits), ca_file=ca_file)
    try:
        yield transport
    finally:
        await transport.close()


async def send(transport: Transport, target: Target, *, timeout: Timeouts = PATIENT, **upload: Any) -> Download:
    """Send a request."""
    upload.setdefault("body", b"{}")
    return await transport.send(Upload(target, **upload), timeout=timeout)


async def fetch(
    transport: Transport, target: Target, *, timeout: Timeouts = PATIENT, **upload: Any
) -> tuple[int, bytes]:
    """Send a request, read the answer, close it."""
    download = await send(transport, target, timeout=timeout, **upload)
    try:
        return download.status, await download.read()
    finally:
        await download.close()


def saying(*parts: bytes) -> Play:
    """A server that answers every request with *parts*, packet by packet, and keeps the connection."""

    async def play(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            await conversation.say(*parts)

    return play


def saying_and_closing(*parts: bytes) -> Play:
    """A server that answers one request with *parts*, packet by packet, and closes."""

    async def play(conversation: Conversation) -> None:
        if await conversation.request() is not None:
            await conversation.say(*parts)

    return play


def saying_and_holding(*parts: bytes) -> Play:
    """A server that answers one request with *parts* and then waits for the client to hang up."""

    async def play(conversation: Conversation) -> None:
        if await conversation.request() is not None:
            await conversation.say(*parts)
            await conversation.hung_up()

    return play


def saying_and_resetting(*parts: bytes) -> Play:
    """A server that answers one request with *parts* and then breaks the connection off."""

    async def play(conversation: Conversation) -> None:
        if await conversation.request() is not None:
            await conversation.say(*parts)
            conversation.reset()

    return play


async def seen_at_once(world: Upstream) -> None:
    """Fail unless the server sees the hang-up at once."""
    async with asyncio.timeout(AT_ONCE_S):
        await world.hang_ups.wait()


def open_files() -> int:
    """How many file descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def settled() -> None:
    """Let the loop run what is ready, such as the closing of sockets."""
    for _ in range(10):
        await asyncio.sleep(0)
