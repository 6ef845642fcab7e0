"""Books after ``kill -9``: a real gateway under load, killed at a random moment and started again, against the bill.

The upstream is ours and counts, to the token, what it would charge: the prompt of every request that reached it, and
what it had made when its answer was done or nobody was there to take it any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from _govern_budget import redis_server

from negawatt.budgets import Line
from negawatt.budgets.sqlite import read_lines

Json = dict[str, Any]
CALLERS = 32
WINDOW_S = 0.05  # docs/budgets.md, where the books are
_START_S, _SLOWEST_S, _STEP = 30.0, 0.08, 8
_LIMIT = 10**12


class Upstream:
    """Answers chat completions over HTTP, whole and streamed, and keeps the bill of each."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.bills: list[list[float]] = []  # when it came, and tokens
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.idle()

    async def idle(self) -> None:
        """Wait until every answer that was begun has ended."""
        while self._open:
            await asyncio.wait(set(self._open))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while head := await _head(reader):
                self._open.add(task)
                await self._answer(json.loads(await reader.readexactly(head)), reader, writer)
                self._open.discard(task)
        except (OSError, asyncio.IncompleteReadError):
            return  # the gateway was killed
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, request: Json, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        prompt = len(request["messages"][0]["content"]) // 4 + 7
        made = self._rng.randint(1, request["max_tokens"])
        bill = [time.monotonic(), float(prompt)]
        self.bills.append(bill)
        steps = made // _STEP + 1
        pause_s = self._rng.uniform(0.002, _SLOWEST_S) / steps
        streamed = request.get("stream") is True
        if streamed:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for step in range(steps):
            await asyncio.sleep(pause_s)
            if reader.at_eof() or writer.is_closing():
                raise OSError("nobody is there any more")
            count = min(_STEP, made - step * _STEP)
            bill[1] += count
            if streamed:
                delta = {"index": 0, "delta": {"content": "word " * count}, "finish_reason": None}
                _send(writer, {"choices": [delta]})
                await writer.drain()
        usage = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        if streamed:
            _send(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            _send(writer, {"choices": [], "usage": usage})
            _chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
        else:
            message = {"role": "assistant", "content": "word " * made}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({**_NAMED, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
        await writer.drain()


_NAMED = {"id": "c", "created": 1, "model": "m"}


def _send(writer: asyncio.StreamWriter, fields: Json) -> None:
    _chunk(writer, b"data: %s\n\n" % json.dumps({**_NAMED, "object": "chat.completion.chunk", **fields}).encode())


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def _head(reader: asyncio.StreamReader) -> int:
    """Return the length of the body that a request's head announces; 0 where there is no request any more."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
    except asyncio.IncompleteReadError:
        return 0
    return int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])


async def _caller(port: int, number: int, seed: int) -> int:
    """Ask and ask, hang up now and then, until the gateway is gone; return how often it was answered."""
    rng, answered = random.Random(f"{seed}/{number}"), 0
    while True:
        words = f"{number}/{answered}: " + "words " * rng.randint(1, 60)
        request = {"model": "m", "messages": [{"role": "user", "content": words}], "max_tokens": rng.randint(10, 400),
                   "stream": rng.random() < 0.5}  # fmt: skip
        body = json.dumps(request).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n")  # fmt: skip
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return answered
        try:
            writer.write(head.encode() + body)
            if rng.random() < 0.1:
                await asyncio.sleep(rng.uniform(0, _SLOWEST_S))
            elif not await reader.read(-1):
                return answered
            answered += 1
        except OSError:
            return answered
        finally:
            writer.close()


class Gateway:
    """A gateway of its own, ended by its pid."""

    def __init__(self, folder: Path, upstream: int, store: str) -> None:
        config = folder / "negawatt.toml"
        config.write_text(
            f'[ledger]\nurl = "sqlite:///{folder}/ledger.sqlite"\n[holdout]\nshare = 0.0\n'
            '[levers.exact_cache]\nmode = "off"\n[levers.retry]\nattempts = 1\n'
            f'[budgeting]\nstore = "{store}"\n[[budgets]]\nname = "cap"\ntokens = {_LIMIT}\n'
            f'[[providers]]\nname = "stub"\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
        )
        self._log = folder / "gateway.log"
        with self._log.open("wb") as out:
            command = [sys.executable, "-m", "negawatt", "serve", "--config", str(config), "--port", "0"]
            self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=os.environ)
        self.port = 0

    async def up(self) -> Gateway:
        until = time.monotonic() + _START_S
        while "127.0.0.1:" not in (said := self._log.read_text(errors="replace")) or "\n" not in said:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the gateway did not come up: {said[-500:]}")
            await asyncio.sleep(0.02)
        self.port = int(said.partition("127.0.0.1:")[2].split()[0].strip("/,."))
        while True:
            try:
                self._get("/healthz")
                return self
            except OSError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.02)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)

    def state(self) -> Json:
        found: Json = self._get("/admin/budgets")["budgets"][0]
        return found

    def end(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(20)


def _kept(path: Path) -> Line | None:
    """Return what the killed process left in its file; None where its books are elsewhere."""
    return read_lines(path, time.time())[0] if path.exists() else None


async def once(seed: int, store: str) -> Json:
    """Kill one gateway under load and start it again; return what its books say, and what it was billed."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="negawatt-bench-") as name:
        folder = Path(name)
        async with Upstream(seed) as upstream:
            gateway = Gateway(folder, upstream.port, store.replace("FOLDER", name))
            try:
                await gateway.up()
                callers = [asyncio.ensure_future(_caller(gateway.port, i, seed)) for i in range(CALLERS)]
                await asyncio.sleep(rng.uniform(0.8, 2.0))
                killed = time.monotonic()
            finally:
                gateway.end(signal.SIGKILL)
            answered = sum(await asyncio.gather(*callers))
            await upstream.idle()
            kept = _kept(folder / "ledger-budgets.sqlite")
            again = Gateway(folder, upstream.port, store.replace("FOLDER", name))
            try:
                state = (await again.up()).state()
            finally:
                again.end(signal.SIGTERM)
    billed = sum(tokens for _, tokens in upstream.bills)
    books = int(state["spent"]) + int(state["reserved"])
    return {
        "answered": answered, "asked": len(upstream.bills), "billed": billed, "books": books,
        "unsettled": int(state["reserved"]) if kept is None else kept.reserved,
        "below": max(0.0, billed - books), "above": max(0.0, books - billed),
        "window": sum(tokens for at, tokens in upstream.bills if killed - at <= WINDOW_S),
        "under_way": sum(1 for at, _ in upstream.bills if killed - at <= _SLOWEST_S),
    }  # fmt: skip


def section(kills: int, say: Any) -> Json:
    """Return the figures of *kills* kills with books in SQLite, and in Redis where there is one."""
    found: Json = {"kills": kills, "window_ms": 1000 * WINDOW_S, "backends": {}}
    with redis_server() as redis:
        stores = {"sqlite": "ledger:", "redis": None if redis is None else f"{redis}&prefix=kill-SEED:"}
        for name, store in stores.items():
            if store is None:
                found["backends"][name] = {"reason": "no redis-server and no valkey-server here"}
                continue
            samples = []
            for seed in range(kills):
                samples.append(asyncio.run(once(seed, store.replace("SEED", str(seed)))))
                say(f"kill: {name}: {seed + 1}: {samples[-1]}")
            found["backends"][name] = _summary(samples)
    return found


def _summary(samples: list[Json]) -> Json:
    return {
        "kills": len(samples),
        "billed_tokens": statistics.mean([one["billed"] for one in samples]),
        "books_of_bill": {
            "low": min(one["books"] / one["billed"] for one in samples),
            "median": statistics.median([one["books"] / one["billed"] for one in samples]),
            "high": max(one["books"] / one["billed"] for one in samples),
        },
        "times_below": sum(one["below"] > 0 for one in samples),
        "most_below_tokens": max(one["below"] for one in samples),
        "most_above_tokens": max(one["above"] for one in samples),
        "most_above_without_unsettled_tokens": max(one["above"] - one["unsettled"] for one in samples),
        "unsettled_tokens": statistics.mean([one["unsettled"] for one in samples]),
        "within_the_window": all(one["below"] <= one["window"] for one in samples),
        "asked": statistics.mean([one["asked"] for one in samples]),
        "under_way": statistics.mean([one["under_way"] for one in samples]),
    }
