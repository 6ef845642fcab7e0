"""A Redis or Valkey server of the tests' own: on a free port of this machine, without persistence, ended by its pid."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
MISSING = "no redis-server and no valkey-server here"
_START_S = 20.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class RedisServer:
    """One server process; `kill` and `start` again keep its port, and nothing else."""

    def __init__(self, folder: Path, *options: str) -> None:
        """*options* come last on the command line; in them ``{port}`` is the port."""
        assert BINARY is not None, MISSING
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            str(BINARY), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self._folder), "--daemonize", "no",
            *(option.format(port=self.port) for option in self._options),
        ]  # fmt: skip
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self._folder
            )
        end = time.monotonic() + _START_S
        while not self._answers():
            assert self._child.poll() is None, f"it ended at once: {log.read_text(errors='replace')}"
            assert time.monotonic() < end, f"it did not come up: {log.read_text(errors='replace')}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, with all that it holds."""
        assert self._child is not None
        self._child.kill()
        self._child.wait(10.0)

    def freeze(self) -> None:
        """Let it hold its connections and answer nothing, until `thaw`."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(5.0)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole session: tests keep apart by prefix, and leave it running."""
    if BINARY is None:
        pytest.skip(MISSING)
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers of one's own, with options: for what would disturb the others."""
    if BINARY is None:
        pytest.skip(MISSING)
    servers: list[RedisServer] = []

    def begin(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path, *options))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
