"""A real PostgreSQL with pgvector, on a socket in a folder of its own: the one that PyPI's pgserver carries.

PostgreSQL does not run as root: there, its binaries run as an unprivileged user, in a folder that this user owns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_UNPRIVILEGED = ("postgres", "nobody")
_START_S = 60.0
_SOURCES = shutil.ignore_patterns("*.py", "__pycache__", "include")
_OPTIONS = ("-F", "-c", "listen_addresses=", "-c", "max_connections=60", "-c", "shared_buffers=32MB",
            "-c", "autovacuum_naptime=10min", "-c", "timezone=UTC")  # fmt: skip


class PostgresServer:
    """One cluster, in *folder*. Stopped, it can be started again and has all that it had."""

    def __init__(self, folder: Path, binaries: Path, user: str | None) -> None:
        self.folder = folder
        self._binaries = binaries
        self._as: dict[str, Any] = {"user": user, "group": _group(user), "extra_groups": []} if user else {}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *, role: str = "postgres", database: str = "postgres", **options: str) -> str:
        """Return a URL as the configuration names it."""
        query = "&".join(f"{name}={value}" for name, value in {"host": str(self.folder), **options}.items())
        return f"postgres://{role}@/{database}?{query}"

    def create(self) -> None:
        """Make the files of an empty cluster."""
        command = ["initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync", "-U", "postgres"]
        self._run([*command, "-D", str(self.folder / "data")])

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *_OPTIONS], cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **self._as
            )
        until = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it at once: connections are cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_S)
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let none of its processes answer: connections stay open, and nothing comes."""
        processes = self._processes()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)

    def sql(self, text: str, *, database: str = "postgres") -> None:
        """Run *text* as the superuser."""
        command = ["psql", "-h", str(self.folder), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-q"]
        self._run([*command, "-d", database, "-c", text])

    def ask_for_password(self, role: str) -> None:
        """Let *role* in with its password only, from the next start on."""
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")

    def _is_ready(self) -> bool:
        return self._tried(["pg_isready", "-q", "-h", str(self.folder), "-U", "postgres"]).returncode == 0

    def _processes(self) -> list[int]:
        """Return the process ids of the server and of those that it started, itself first."""
        assert self._process is not None
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True)
        return [self._process.pid, *map(int, found.stdout.split())]

    def _run(self, command: list[str]) -> None:
        done = self._tried(command)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")

    def _tried(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        path = str(self._binaries / command[0])
        return subprocess.run(
            [path, *command[1:]], cwd=self.folder, capture_output=True, text=True, timeout=_START_S, **self._as
        )


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server and stop it in the end; skip the test, with one line, where none can run."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp" if Path("/tmp").is_dir() else None))
    try:
        try:
            server = _prepared(folder)
            server.create()
            server.start()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            pytest.skip(f"no PostgreSQL can run here: {' '.join(str(error).split())[:300]}")
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _prepared(folder: Path) -> PostgresServer:
    """Return a server whose folder belongs to a user who may run it."""
    spec = find_spec("pgserver")  # found, not imported: importing it makes folders
    if spec is None or spec.origin is None:
        raise RuntimeError("pgserver is not installed")
    install = Path(spec.origin).parent / "pginstall"
    if os.geteuid() != 0:
        return PostgresServer(folder, install / "bin", None)
    user = _unprivileged()
    shutil.chown(folder, user, _group(user))
    server = PostgresServer(folder, install / "bin", user)
    try:
        server._run(["postgres", "--version"])
    except (OSError, RuntimeError):  # a folder above is closed to this user
        for name in ("pgserver", "pgserver.libs"):
            shutil.copytree(install.parents[1] / name, folder / "install" / name, ignore=_SOURCES)
        server = PostgresServer(folder, folder / "install" / "pgserver" / "pginstall" / "bin", user)
    return server


def _unprivileged() -> str:
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    for user in _UNPRIVILEGED:
        if user in known:
            return user
    raise RuntimeError(f"root may not run it, and there is no user {' or '.join(_UNPRIVILEGED)}")


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
