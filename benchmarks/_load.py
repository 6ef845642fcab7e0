"""The load clients of the overhead benchmark: raw sockets, so that the client is not what is measured.

Run as a process of its own, pinned to the load CPU: ``_load.py latency|streams|chunk_rate|stalled`` reads its task as
one JSON object from stdin and prints its result as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

QUESTION = (
    "You are the support desk of a parcel service. Answer in two sentences, politely, and do not promise anything "
    "that the tracking data do not say. Customer {n} asks: where is my parcel, and when will it arrive at my door?"
)
SPIN_S = 0.0003  # the last part of a wait is spun, not slept: nothing is in flight then, and sends are on time


@dataclass(frozen=True)
class Endpoint:
    """Where and how one gateway (or the stub itself) is asked for one route."""

    port: int
    path: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, n: int | str, *, stream: bool = False, repeatable: bool = False) -> bytes:
        """Return the request with the number *n* in its question; *repeatable* ones are deterministic, so cacheable."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": QUESTION.format(n=n)}],
            "temperature": 0 if repeatable else 0.7,
            "max_tokens": 64,
        }
        if stream:
            request["stream"] = True
        return json.dumps(request, separators=(",", ":")).encode()

    def message(self, body: bytes) -> bytes:
        """Return the whole HTTP request."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Line:
    """One kept-alive connection that asks and waits, one request at a time."""

    def __init__(self, endpoint: Endpoint, timeout_s: float = 30.0) -> None:
        self._endpoint = endpoint
        self._socket = socket.create_connection(("127.0.0.1", endpoint.port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (lower case) and body (chunked transfer coding left in). Raises OSError."""
        self._socket.sendall(self._endpoint.message(body))
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        rest = data[end + 4 :]
        if "content-length" in headers:
            while len(rest) < int(headers["content-length"]):
                rest += self._more()
        else:
            while not rest.endswith(b"0\r\n\r\n"):
                rest += self._more()
        return int(first.split()[1]), headers, rest

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the other side hung up")
        return data


# --- latency, one in flight, open loop -----------------------------------------------------------------------------


def latency(direct: Endpoint, through: Endpoint, pairs: int, seed: int) -> dict[str, Any]:
    """Ask *direct* and *through* in turn, *pairs* times, on a fixed schedule; seconds from the intended send time.

    The schedule leaves each side 2.5 times its warm median, at least 2 ms, so that one request is in flight at a time
    and a slow answer delays the next one's clock (no coordinated omission).
    """
    sides = {"direct": (Line(direct), direct), "through": (Line(through), through)}
    numbers = iter(range(seed, sys.maxsize))
    pause: dict[str, float] = {}
    for name, (line, endpoint) in sides.items():
        warm = []
        for _ in range(60):
            since = time.perf_counter()
            _ok(line.ask(endpoint.body(next(numbers))))
            warm.append(time.perf_counter() - since)
        pause[name] = min(max(2.5 * statistics.median(warm[20:]), 0.002), 0.25)
    samples: dict[str, list[float]] = {"direct": [], "through": []}
    lags: list[float] = []
    order = random.Random(seed)
    due = time.perf_counter() + 0.01
    for _ in range(pairs):
        for name in order.sample(["direct", "through"], 2):
            line, endpoint = sides[name]
            body = endpoint.body(next(numbers))
            _wait_until(due)
            sent = time.perf_counter()
            _ok(line.ask(body))
            samples[name].append(time.perf_counter() - due)
            lags.append(sent - due)
            due += pause[name]
    for line, _ in sides.values():
        line.close()
    return {**samples, "lag_s": statistics.median(lags)}


def _wait_until(due: float) -> None:
    left = due - time.perf_counter()
    if left > SPIN_S:
        time.sleep(left - SPIN_S)
    while time.perf_counter() < due:
        pass


def _ok(answer: tuple[int, dict[str, str], bytes]) -> None:
    if answer[0] != 200:
        raise RuntimeError(f"status {answer[0]}: {answer[2][:300]!r}")


# --- streams -------------------------------------------------------------------------------------------------------


class Stream(asyncio.Protocol):
    """One connection that asks for streams, one after the other, until the time is up."""

    def __init__(self, endpoint: Endpoint, until: float, numbers: Callable[[], int]) -> None:
        """Start no stream after *until* (seconds of perf_counter)."""
        import httptools

        self._new_parser: Callable[[Any], Any] = httptools.HttpResponseParser
        self._endpoint = endpoint
        self._until = until
        self._numbers = numbers
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first_s: list[float] = []
        self.gaps_s: list[float] = []
        self.counts: list[int] = []
        self.chunks = 0
        self.errors = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._parser = self._new_parser(self)
        self._tail = b""
        self._count = 0
        self._whole = False
        self._sent = self._last = time.perf_counter()
        self._transport.write(self._endpoint.message(self._endpoint.body(self._numbers(), stream=True)))

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        self._parser.feed_data(data)
        if self._whole:
            self._next()

    def on_body(self, data: bytes) -> None:
        """Count the events with a choice in them: usage and [DONE] are not chunks of the answer."""
        *events, self._tail = (self._tail + data).replace(b"\r\n", b"\n").split(b"\n\n")
        new = sum(event.startswith(b"data: {") and b'"choices":[{' in event.replace(b": ", b":") for event in events)
        if not new:
            return
        self.chunks += new
        (self.gaps_s if self._count else self.first_s).append(self._now - (self._last if self._count else self._sent))
        self._count += new
        self._last = self._now

    def on_message_complete(self) -> None:
        self._whole = True

    def _next(self) -> None:
        self.counts.append(self._count)
        self.errors += self._parser.get_status_code() != 200
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self._transport.close()

    def hang_up(self) -> None:
        """Leave in mid-stream; what is missing is no error then."""
        self._whole = True
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += not self._whole
        if not self.done.done():
            self.done.set_result(None)


async def _open_streams(endpoint: Endpoint, count: int, until: float, seed: int) -> list[Stream]:
    """Open *count* connections, their starts spread over a second: a steady state, not a volley."""
    numbers = iter(range(seed, sys.maxsize))
    clients = []
    for _ in range(count):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Stream(endpoint, until, lambda: next(numbers)), "127.0.0.1", endpoint.port
        )
        clients.append(client)
        await asyncio.sleep(1.0 / count)
    return clients


async def streams(endpoint: Endpoint, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Hold *count* streams open for *seconds*, each connection starting the next when one has ended; let all end."""
    clients = await _open_streams(endpoint, count, time.perf_counter() + seconds, seed)
    await asyncio.gather(*(client.done for client in clients))
    return {
        "first_s": [s for c in clients for s in c.first_s],
        "gaps_s": [s for c in clients for s in c.gaps_s],
        "counts": [n for c in clients for n in c.counts],
        "errors": sum(c.errors for c in clients),
    }


async def chunk_rate(endpoint: Endpoint, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Hold *count* streams open, without end, and count the chunks that come in *seconds*; then hang up."""
    clients = await _open_streams(endpoint, count, float("inf"), seed)
    before, since = sum(c.chunks for c in clients), time.perf_counter()
    await asyncio.sleep(seconds)
    chunks, took = sum(c.chunks for c in clients) - before, time.perf_counter() - since
    for client in clients:
        client.hang_up()
    return {
        "chunks_per_s": chunks / took,
        "chunks": before + chunks,
        "streams": sum(len(c.counts) for c in clients),
        "errors": sum(c.errors for c in clients),
    }


def stalled(endpoint: Endpoint, count: int, seed: int) -> None:
    """Open *count* big streams, read nothing, say so on stdout, and hang on until stdin closes."""
    readers = []
    for i in range(count):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(10)
        reader.connect(("127.0.0.1", endpoint.port))
        reader.sendall(endpoint.message(endpoint.body(seed + i, stream=True)))
        readers.append(reader)
    print("open", flush=True)
    sys.stdin.read()
    for reader in readers:
        reader.close()


def task(kind: str, **parameters: Any) -> str:
    """Return the JSON that tells a client process what to do."""
    plain = {k: asdict(v) if isinstance(v, Endpoint) else v for k, v in parameters.items()}
    return json.dumps({"kind": kind, **plain})


def main() -> None:
    parameters = json.loads(sys.stdin.readline())
    kind = parameters.pop("kind")
    for name in ("direct", "through", "endpoint"):
        if name in parameters:
            parameters[name] = Endpoint(**parameters[name])
    if kind == "stalled":
        stalled(**parameters)
        return
    since, cpu = time.perf_counter(), time.process_time()
    if kind == "latency":
        result = latency(**parameters)
    else:
        import uvloop

        result = uvloop.run({"streams": streams, "chunk_rate": chunk_rate}[kind](**parameters))
    result["client_cpu_pct"] = 100 * (time.process_time() - cpu) / (time.perf_counter() - since)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
