"""Processes for the overhead benchmark: started on one CPU, measured through /proc, stopped by their ids (Linux)."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
OPEN_FILES = 16_384


def cpus() -> tuple[int, int]:
    """Return the CPU for the gateway under test and the CPU for load and stub; the same one where there is only one."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[-1]


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def allow_many_files() -> None:
    """Raise this process's limit of open files (and so its children's) for 1,000 calls in flight."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def machine() -> dict[str, object]:
    """Return the machine as it stands in every report."""
    return {
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def busy_s() -> float:
    """Return the CPU seconds that all processes of the machine have used since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(f) for f in fields[:7])
    return (user + nice + system + irq + softirq) * TICK_S


@dataclass(frozen=True)
class Started:
    """A running process and its descendants, found by the session it leads."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    since: float  # monotonic seconds at exec

    def pids(self) -> list[int]:
        """Return the ids of the process and all it started."""
        return [pid for pid, session, _ in _stats() if session == self.process.pid]

    def cpu_s(self) -> float:
        """Return the CPU seconds, user and system, of the living processes of the tree."""
        return sum(cpu for _, session, cpu in _stats() if session == self.process.pid)

    def rss_mb(self) -> float:
        """Return the resident memory of the tree in MB (10^6 bytes); shared pages count in each process."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """Return the sum of the largest resident memory that each process of the tree ever had, in MB."""
        return self._status("VmHWM")

    def _status(self, field: str) -> float:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(field + ":"):
                        total += int(line.split()[1])
        return total * 1024 / 1e6

    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self, last: int = 2000) -> str:
        """Return the end of what it printed."""
        return self.log.read_text(errors="replace")[-last:]


def _stats() -> Iterator[tuple[int, int, float]]:
    """Yield (pid, session id, CPU seconds) of every process."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the reading
        yield int(entry.name), int(fields[3]), (int(fields[11]) + int(fields[12])) * TICK_S


class Processes:
    """Starts processes, each leading a session of its own, and stops them all when the block ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Started] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            self.stop(self._running[-1])

    def start(self, name: str, argv: list[str], cpu: int, env: Mapping[str, str] | None = None) -> Started:
        """Start *argv* on *cpu*; its output goes to a file in the folder, which is also its working directory."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            since = time.monotonic()
            process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *argv],  # taskset execs: the pid stays
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        started = Started(name, process, log, since)
        self._running.append(started)
        return started

    def stop(self, started: Started, patience_s: float = 5.0) -> None:
        """Ask it to end, wait *patience_s*, then kill it and everything in its session."""
        if started in self._running:
            self._running.remove(started)
        if started.alive():
            started.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(patience_s)
        for pid in started.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started.process.wait()
