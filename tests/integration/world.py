"""The world of the integration tests: processes, and what a test asks of them. Everything is stopped by its pid."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import http.client
import json
import os
import re
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp

HERE = Path(__file__).parent
NEGAWATT = Path(sys.executable).parent / "negawatt"
START_S = 20.0  # for a process to come up on a busy machine
AT_ONCE_S = 0.3  # 100 ms, and what a busy machine adds
CHAT = "/v1/chat/completions"
Json = dict[str, Any]
_T = TypeVar("_T")


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def text(self) -> Any:
        return self.json["choices"][0]["message"]["content"]

    @property
    def events(self) -> list[str]:
        """The data of the events of a stream."""
        return [part.removeprefix("data: ") for part in self.body.decode().split("\n\n") if part]


def until(found: Callable[[], _T | None], within_s: float = 5.0, every_s: float = 0.01) -> _T:
    """Return what *found* gives as soon as it is true. Raises `AssertionError` when that takes too long."""
    end = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(every_s)
    return value


class Process:
    """One child, its output in a file, ended by its pid."""

    def __init__(self, command: list[str], log: Path, **environ: str) -> None:
        self.log = log
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent,
                env={**kept, "PYTHONUNBUFFERED": "1", **environ},
            )  # fmt: skip
        self.pid = self._child.pid
        atexit.register(self.stop)  # a test that failed before it could

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, within_s: float = 15.0) -> int:
        return self._child.wait(within_s)

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def stop(self) -> None:
        atexit.unregister(self.stop)
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(3.0)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(5.0)

    def announced(self, pattern: str) -> int:
        """Return the port in what the child printed."""

        def look() -> int | None:
            found = re.search(pattern, self.output)
            assert found or self._child.poll() is None, f"it ended at once: {self.output}"
            return int(found[1]) if found else None

        return until(look, START_S)

    @property
    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    @property
    def sockets(self) -> int:
        """How many sockets it holds open."""
        count = 0
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                count += str(link.readlink()).startswith("socket:")
            except FileNotFoundError:  # closed since it was listed
                continue
        return count


class Upstream(Process):
    """The stub provider (`upstream.py`)."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, str(HERE / "upstream.py")], folder / "upstream.log")
        self.port = self.announced(r"PORT (\d+)")
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", data, timeout=5) as response:
            return json.load(response)

    def stats(self) -> Json:
        found: Json = self._ask("/stats")
        return found

    def tag(self, name: str) -> Json:
        """What was asked under the tag *name*: calls, open, most_open, hung_up_at, tokens."""
        nothing = {"calls": 0, "open": 0, "most_open": 0, "hung_up_at": [], "tokens": 0}
        found: Json = self.stats()["tags"].get(name, nothing)
        return found

    def last(self, tag: str) -> Json:
        """The last request under *tag*: path, headers, body."""
        found: Json = self._ask(f"/last/{tag}")
        return found

    def open_gate(self, name: str) -> None:
        self._ask(f"/gate/{name}", b"{}")


class Gateway(Process):
    """A negawatt of its own, with its configuration and its ledger in *folder*."""

    def __init__(self, folder: Path, config: Json, **environ: str) -> None:
        self.ledger = folder / "ledger.sqlite"
        self._due: dict[str, int] = {}  # how many rows each task must have, to the end
        path = folder / "negawatt.toml"
        path.write_text(toml({"ledger": {"url": f"sqlite:///{self.ledger}"}, **config}), encoding="utf-8")
        command = [str(NEGAWATT), "serve", "--config", str(path), "--port", "0"]
        log = folder / f"gateway-{len(list(folder.glob('*.log')))}.log"
        super().__init__(command, log, **environ)
        try:
            self.port = self.announced(r"listening on http://127\.0\.0\.1:(\d+)")
            self.url = f"http://127.0.0.1:{self.port}"
            self.base_url = f"{self.url}/v1"
            until(self._healthy, START_S)
        except BaseException:
            self.stop()
            raise

    def _healthy(self) -> bool:
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False

    # Asking.

    def request(self, method: str, path: str, body: bytes | None = None, headers: Json | None = None) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Json | None = None) -> Answer:
        return self.request("GET", path, None, headers)

    def post(self, body: Json | bytes, task: str | None = None, path: str = CHAT, **headers: str) -> Answer:
        """Ask for a chat completion, or what is at *path*. Of *headers* ``x_api_key`` is sent as ``x-api-key``."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, headers_of(task, **headers))

    def try_post(self, body: Json) -> None:
        """Ask for a chat completion, and do not mind what comes of it."""
        with contextlib.suppress(http.client.HTTPException, OSError):
            self.post(body)

    def stop(self) -> None:
        """Stop it, and see that no row was added to those that were due."""
        super().stop()
        counts = {task: len(self.rows(task)) for task in self._due}
        assert {task: n for task, n in counts.items() if n > self._due[task]} == {}, "calls with more than one row"

    # The books.

    def rows(self, task: str | None = None) -> list[sqlite3.Row]:
        """The rows in the ledger file as they are now, of one task or all."""
        connection = sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=5.0)
        connection.row_factory = sqlite3.Row
        try:
            where = "" if task is None else "WHERE task_id = ?"
            values = () if task is None else (task,)
            return connection.execute(f"SELECT * FROM outcome {where} ORDER BY received_at", values).fetchall()
        finally:
            connection.close()

    def settled_rows(self, task: str, count: int, within_s: float = 5.0) -> list[sqlite3.Row]:
        """Wait until the task has *count* rows. That it stays so is looked at again when the gateway is stopped."""
        self._due[task] = count
        end = time.monotonic() + within_s
        while len(rows := self.rows(task)) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(rows) == count, f"{len(rows)} rows for {task}, {count} are due: {[row['ending'] for row in rows]}"
        return rows

    def one_row(self, task: str) -> sqlite3.Row:
        return self.settled_rows(task, 1)[0]


def toml(table: Json, path: str = "") -> str:
    """Return *table* as TOML: what is simple first, then the tables, then the lists of tables."""
    simple, nested = [], []
    for name, value in table.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            nested.append(f"[{where}]\n{toml(value, where)}")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            nested += [f"[[{where}]]\n{toml(one, where)}" for one in value]
        else:
            simple.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*simple, *nested]) + "\n"


def headers_of(task: str | None = None, **headers: str) -> dict[str, str]:
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"content-type": "application/json", **({"x-negawatt-task": task} if task else {}), **found}


def chat(say: str | Json = "hello", **fields: Any) -> Json:
    """A request whose last message is *say*: words, or a script for the stub."""
    content = say if isinstance(say, str) else json.dumps(say)
    return {"model": "plain", "messages": [{"role": "user", "content": content}], **fields}


async def ask(session: aiohttp.ClientSession, url: str, body: Json, **headers: str) -> Answer:
    """Send one chat completion and read its answer to the end."""
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers_of(**headers)) as response:
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())


@asynccontextmanager
async def many_connections() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that opens as many connections as it is asked for."""
    timeout = aiohttp.ClientTimeout(total=25)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield session


class Caller:
    """A caller on a bare socket, who may hang up when it likes."""

    def __init__(
        self, gateway: Gateway, body: Json | bytes, task: str | None = None, path: str = CHAT, **headers: str
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"host": "test", "content-length": str(len(data)), **headers_of(task, **headers)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        self.socket.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        self.read = b""

    def read_until(self, mark: bytes) -> bytes:
        """Read on until *mark* has come."""
        while mark not in self.read:
            piece = self.socket.recv(65536)
            assert piece, f"the gateway closed before {mark!r} came: {self.read[-500:]!r}"
            self.read += piece
        return self.read

    def hang_up(self, *, hard: bool = False) -> float:
        """Close, *hard* with a reset; return when that was, in seconds since 1970."""
        if hard:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        now = time.time()
        self.socket.close()
        return now


async def in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(None, work)
