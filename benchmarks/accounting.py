"""Share of calls that are accounted exactly: every shape of the corpus through a real gateway, against its ledger.

    python benchmarks/accounting.py --json

A server of our own sends the bytes of each shape (`shapes/`); ``negawatt serve`` stands before it; each call's row must
have the counts, the basis, the ending and the cost that the shape says. Each shape is asked in its own protocol, and
once more in every protocol that it can be translated from. Prices are prime numbers, one for each kind of token, so
that no two mistakes cancel out. The last line is ``{"shapes": n, "exact": n, ...}``; each miss is shown above it.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from shapes import Json, Shape, chat, messages, others, responses

PRICES = {"input": 7, "output": 31, "cache_read": 3, "cache_write": 11, "cache_write_1h": 13}  # USD per million tokens
PATHS = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens", "completions": "/v1/completions", "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}  # fmt: skip
QUESTION = [{"role": "user", "content": "How long does delivery take?"}]
REQUESTS: dict[str, Json] = {
    "chat": {"messages": QUESTION, "stream_options": {"include_usage": True}},
    "responses": {"input": "How long does delivery take?"},
    "messages": {"messages": QUESTION, "max_tokens": 100},
    "count_tokens": {"messages": QUESTION},
    "completions": {"prompt": "How long does delivery take?"},
    "embeddings": {"input": "How long does delivery take?"},
    "rerank": {"query": "delivery", "documents": ["Two days.", "Lamps."]},
}
TRANSLATED = ("chat", "responses", "messages")
START_S, CALL_S = 30.0, 20.0


class Asked(NamedTuple):
    """One call: a shape, and the protocol that its caller speaks."""

    task: str
    shape: Shape
    number: int
    protocol: str


# -- the provider ----------------------------------------------------------------------------------------------


class Provider:
    """A server that sends the bytes of the shape whose number is in the model's name."""

    def __init__(self, corpus: list[Shape]) -> None:
        self._corpus = corpus
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                await self._answer(self._corpus[int(body["model"].rpartition("-")[2])], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, shape: Shape, writer: asyncio.StreamWriter) -> None:
        kind = "text/event-stream" if shape.streamed else "application/json"
        headers = {"content-type": kind, "transfer-encoding": "chunked", **shape.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode())
        for piece in shape.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if len(shape.pieces) > 1:
                await writer.drain()
                await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


# -- the gateway -----------------------------------------------------------------------------------------------


def configuration(folder: Path, port: int) -> Path:
    """Write a gateway's files to *folder*: one provider for each protocol, all with the one list of prices."""
    prices = "\n".join(f"{name}_usd_per_mtok = {usd}" for name, usd in PRICES.items())
    (folder / "prices.toml").write_text(
        f'[[price]]\nmodels = "*"\n{prices}\nsource = "made up"\nchecked = 2026-11-24\n', encoding="utf-8"
    )
    providers = "".join(
        f'[[providers]]\nname = "{name}"\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
        f'models = ["{name}-*"]\nprotocols = ["{name}"]\n'
        for name in PATHS
    )
    path = folder / "negawatt.toml"
    path.write_text(
        f'[ledger]\nurl = "sqlite:///{folder}/ledger.sqlite"\n[holdout]\nshare = 0.0\n'
        f'[economics]\nprices = "{folder}/prices.toml"\n[levers.exact_cache]\nmode = "off"\n'
        f"[levers.retry]\nattempts = 1\nbreaker_failures = 1000000\n{providers}",
        encoding="utf-8",
    )
    return path


def serve(folder: Path, port: int) -> tuple[subprocess.Popen[str], int]:
    """Start ``negawatt serve`` and return it with its port."""
    command = [sys.executable, "-m", "negawatt", "serve", "--port", "0", "--config", str(configuration(folder, port))]
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)
    assert gateway.stdout is not None
    own = int(gateway.stdout.readline().rpartition(":")[2].split("/")[0].split()[0])
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", own, timeout=5)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return gateway, own
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the gateway did not come up")


def ask(port: int, one: Asked) -> None:
    """Make one call and read its answer to the end, whatever it is."""
    request = {
        **REQUESTS[one.protocol], **one.shape.request, "model": f"{one.shape.protocol}-{one.number}",
        "stream": one.shape.streamed,
    }  # fmt: skip
    if not one.shape.streamed:
        request.pop("stream_options", None)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_S)
    try:
        headers = {"content-type": "application/json", "x-negawatt-task": one.task}
        connection.request("POST", PATHS[one.protocol], json.dumps(request), headers)
        connection.getresponse().read()
    except (http.client.HTTPException, OSError):
        pass  # a stream that breaks off: the row says the rest
    finally:
        connection.close()


# -- the books -------------------------------------------------------------------------------------------------


def read_rows(path: Path, count: int) -> dict[str, sqlite3.Row]:
    """Return the ledger's rows by task, once there are *count* of them."""
    until = time.monotonic() + CALL_S
    while True:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        rows = {row["task_id"]: row for row in connection.execute("SELECT * FROM outcome")}
        connection.close()
        if len(rows) >= count or time.monotonic() > until:
            return rows
        time.sleep(0.1)


def misses(one: Asked, row: sqlite3.Row | None) -> list[str]:
    """Return what is wrong with the row of a call: nothing, if it is exactly as its shape says."""
    if row is None:
        return ["no row"]
    expected = one.shape.counts
    usage = (json.loads(row["attempt_log"]) or [{}])[0].get("usage") or {}
    found: dict[str, Any] = {
        "ending": row["ending"], "input": row["input_tokens"], "output": row["output_tokens"],
        "read": row["cache_read_tokens"], "write": row["cache_write_tokens"],
        "write_1h": usage.get("cache_write_1h_tokens", 0), "reasoning": row["reasoning_tokens"],
        "basis": row["usage_basis"], "searches": usage.get("web_searches", 0), "tier": usage.get("tier"),
    }  # fmt: skip
    wanted = {"ending": one.shape.ends, **expected._asdict()}
    wrong = [
        f"{name}: {found[name]!r}, not {wanted[name]!r}"
        for name in found
        if found[name] != wanted[name] and not (wanted[name] is None and name in ("input", "output") and found[name])
    ]
    cost = None if row["cost_pusd"] is None else Decimal(row["cost_pusd"]).scaleb(-12)
    due = _due(one, row)
    return [*wrong, f"cost: {cost}, not {due}"] if cost != due else wrong


def _due(one: Asked, row: sqlite3.Row) -> Decimal | None:
    """Return what the call costs by the price list, in USD; what has no price there makes it unknown."""
    counts = one.shape.counts
    if one.shape.protocol == "count_tokens":
        return Decimal(0)
    if counts.cost is not None:
        return Decimal(counts.cost)
    if counts.searches:
        return None
    tokens = row["input_tokens"] if counts.input is None else counts.input
    made = row["output_tokens"] if counts.output is None else counts.output
    mills = (
        (tokens - counts.read - counts.write) * PRICES["input"]
        + counts.read * PRICES["cache_read"]
        + (counts.write - counts.write_1h) * PRICES["cache_write"]
        + counts.write_1h * PRICES["cache_write_1h"]
        + made * PRICES["output"]
    )
    return Decimal(mills) / 1_000_000


# -- the run ---------------------------------------------------------------------------------------------------


def calls(corpus: list[Shape]) -> list[Asked]:
    """Return every shape in its own protocol, then in those that it can be translated from."""
    own = [Asked(f"{n}-own", shape, n, shape.protocol) for n, shape in enumerate(corpus)]
    others_ = [
        Asked(f"{n}-{protocol}", shape, n, protocol)
        for n, shape in enumerate(corpus)
        for protocol in TRANSLATED
        if shape.protocol in TRANSLATED and protocol != shape.protocol and not shape.request
    ]
    return own + others_


def measure() -> tuple[Json, list[str]]:
    """Run the corpus; return the figures, and a line for each miss."""
    corpus = [shape for module in (chat, messages, responses, others) for shape in module.shapes()]
    asked = calls(corpus)
    provider = Provider(corpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gateway, port = serve(folder, provider.port)
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda one: ask(port, one), asked))
            rows = read_rows(folder / "ledger.sqlite", len(asked))
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(20)
    wrong = {one.task: found for one in asked if (found := misses(one, rows.get(one.task)))}
    lines = [
        f"{one.shape.protocol} ({one.protocol}) {one.shape.name}: {'; '.join(wrong[one.task])}"
        for one in asked
        if one.task in wrong
    ]
    own = [one for one in asked if one.protocol == one.shape.protocol]
    far = [one for one in asked if one.protocol != one.shape.protocol]
    figures = {
        "shapes": len(own), "exact": sum(one.task not in wrong for one in own),
        "translated": len(far), "translated_exact": sum(one.task not in wrong for one in far),
        "by_protocol": {name: sum(one.protocol == name for one in own) for name in PATHS},
        "date": datetime.now(UTC).date().isoformat(), "script": "benchmarks/accounting.py",
    }  # fmt: skip
    return figures, lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="only the last line, and the misses on stderr")
    options = parser.parse_args()
    figures, lines = measure()
    for line in lines:
        print(line, file=sys.stderr if options.json else sys.stdout)
    if not options.json:
        print(f"{figures['exact']} of {figures['shapes']} shapes exact; translated: {figures['translated_exact']} of "
              f"{figures['translated']}")  # fmt: skip
    print(json.dumps(figures))
    return 0 if not lines else 1


if __name__ == "__main__":
    sys.exit(main())
