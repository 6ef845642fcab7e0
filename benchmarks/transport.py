"""Requests a second, and CPU a request, of both transports side by side on one core.

    python benchmarks/transport.py [--seconds 2] [--rounds 5] [--json FILE]

A stub upstream (a bare uvloop protocol) runs in another process, pinned to the second core where there is one; the
client is pinned to the first. Rounds are interleaved. "bare" is a client without HTTP, which counts the bytes of the
answer: what the loop, the system calls and this stub cost alone, and thus the most that any client reaches.

Shapes: a whole answer of about 1 KB to a request of about 600 bytes, with 1 and with 32 in flight, and a chunked
answer of 100 events, 16 at once. CPU is that of the client's process, user and system. The last line of the output is
one JSON object:

    {"httptools": {SHAPE: {"rps", "cpu_us", "rps_low", "rps_high"}}, "aiohttp": ..., "bare": ..., "machine": ...}

with medians over the rounds, the lowest and the highest round, and for the stream shape events in place of requests
(events that arrived together are one piece).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import time
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from negawatt.providers.transport import Target, Timeouts, Transport, Upload, open_transport

NAMES = ("httptools", "aiohttp")
EVENTS = 100
TIMEOUTS = Timeouts(connect_s=5, first_byte_s=60, idle_s=30)
HEADERS = (
    ("authorization", "Bearer sk-0123456789abcdef0123456789abcdef"),
    ("content-type", "application/json"),
    ("accept-encoding", "gzip, deflate"),
)
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "How do I reset it? " * 28}]}).encode()

ANSWER = b'{"id":"chatcmpl-1","choices":[{"message":{"role":"assistant","content":"' + b"a" * 900 + b'"}}]}'
COMMON = b"date: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: stub\r\nx-request-id: req_0123456789\r\n"
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n" % (COMMON, len(ANSWER))
    + ANSWER
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n" % COMMON
EVENT = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


class Stub(asyncio.Protocol):
    """Answers each request, told apart only by its path; a streamed event goes out per turn of the loop."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            start = self.held[:end].lower().index(b"content-length: ") + 16
            length = int(self.held[start : self.held.index(b"\r\n", start)])
            if len(self.held) < end + 4 + length:
                return
            streamed = self.held.startswith(b"POST /stream")
            self.held = self.held[end + 4 + length :]
            if streamed:
                self.transport.write(STREAM_HEAD)
                self.stream(EVENTS)
            else:
                self.transport.write(WHOLE)

    def stream(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if left:
            self.transport.write(CHUNK)
            asyncio.get_running_loop().call_soon(self.stream, left - 1)
        else:
            self.transport.write(b"0\r\n\r\n")


def pin(core: int) -> None:
    """Stay on *core*, where the system can and has it."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def serve(pipe: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        server.close()

    pin(1)
    uvloop.run(run())


class Bare(asyncio.Protocol):
    """Knows how long the answer is, and no HTTP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.whole.set_result(None)

    async def ask(self, request: bytes) -> None:
        self.missing, self.whole = len(WHOLE), asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self.whole


async def whole(transport: Transport, upload: Upload) -> int:
    download = await transport.send(upload, timeout=TIMEOUTS)
    body = await download.read()
    await download.close()
    if len(body) != len(ANSWER):
        raise RuntimeError(f"the answer has {len(body)} bytes")
    return 1


async def streamed(transport: Transport, upload: Upload) -> int:
    download = await transport.send(upload, timeout=TIMEOUTS)
    size = 0
    async for piece in download:
        size += len(piece)
    await download.close()
    if size != EVENTS * len(EVENT):
        raise RuntimeError(f"the stream has {size} bytes")
    return EVENTS


SHAPES = {"whole_1": (whole, "/whole", 1), "whole_32": (whole, "/whole", 32), "stream_16": (streamed, "/stream", 16)}


async def measure(name: str, transport: Transport, shape: str, port: int, seconds: float) -> tuple[float, float]:
    """Return units a second and CPU microseconds a unit; a unit is a request or a streamed event."""
    job, path, in_flight = SHAPES[shape]
    upload = Upload(Target.parse(f"http://127.0.0.1:{port}{path}"), BODY, "POST", HEADERS)
    done = 0

    async def work(until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            units = await job(transport, upload)  # not `done += await`, which would lose what others add meanwhile
            done += units

    async def work_bare(until: float) -> None:
        nonlocal done
        request = b"POST /whole HTTP/1.1\r\nhost: stub\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
        _, bare = await asyncio.get_running_loop().create_connection(Bare, "127.0.0.1", port)
        while time.perf_counter() < until:
            await bare.ask(request)
            done += 1
        bare.transport.close()

    worker = work_bare if name == "bare" else work
    await asyncio.gather(*(worker(time.perf_counter() + 0.2) for _ in range(in_flight)))
    done, began, used = 0, time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker(began + seconds) for _ in range(in_flight)))
    return done / (time.perf_counter() - began), (time.process_time() - used) / done * 1e6


async def compare(port: int, seconds: float, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    seen: dict[str, dict[str, list[tuple[float, float]]]] = {}
    transports = {"bare": open_transport("httptools")} | {name: open_transport(name) for name in NAMES}
    for _ in range(rounds):
        for shape in SHAPES:
            for name, transport in transports.items():
                if name != "bare" or SHAPES[shape][0] is whole:
                    figures = await measure(name, transport, shape, port, seconds)
                    seen.setdefault(name, {}).setdefault(shape, []).append(figures)
    for transport in transports.values():
        await transport.close()
    return {name: {shape: summary(figures) for shape, figures in shapes.items()} for name, shapes in seen.items()}


def summary(results: list[tuple[float, float]]) -> dict[str, float]:
    rates = [rate for rate, _ in results]
    return {
        "rps": round(statistics.median(rates)),
        "rps_low": round(min(rates)),
        "rps_high": round(max(rates)),
        "cpu_us": round(statistics.median(cpu for _, cpu in results), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    stub = context.Process(target=serve, args=(theirs,), daemon=True)
    stub.start()
    port = ours.recv()
    pin(0)
    result = uvloop.run(compare(port, options.seconds, options.rounds))
    ours.send(None)
    stub.join(5)
    for name in result:
        for shape, figures in result[name].items():
            print(f"{name:10} {shape:10} {figures['rps']:>8,} /s {figures['cpu_us']:>7.1f} us CPU")
    report = {
        **result,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
