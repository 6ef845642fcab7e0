"""The stub upstreams of the overhead benchmark: nginx for whole answers, stub.c for late ones and streams."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from _machine import Processes, Started, free_port

HERE = Path(__file__).parent
NEEDS = {"wrk": "wrk", "nginx": "nginx-light", "cc": "gcc", "taskset": "util-linux"}  # command -> Debian package

# What each route of the stub is for. Every gateway knows a route by the name of a model.
STREAM_CHUNKS = 32  # paced: the first after 100 ms, then one each 30 ms; 16 streams offer 533 chunks a second
BRISK_CHUNKS = 200  # one each 5 ms: 16 streams offer 3,200 chunks a second, and seldom two at once
FAST_CHUNKS = 1000  # one each 0.5 ms: 16 streams offer 32,000 chunks a second, more than a gateway relays
FLOOD_CHUNKS = 13_000  # of 1,024 bytes, as fast as they are taken: 16 MB, more than the sockets' buffers hold
PATHS = {
    "m": "/v1",
    "slow": "/delay-200/v1",
    "stream": f"/stream-100000-30000-{STREAM_CHUNKS}-4/v1",
    "brisk": f"/stream-5000-5000-{BRISK_CHUNKS}-4/v1",
    "fast": f"/stream-1000-500-{FAST_CHUNKS}-4/v1",
    "flood": f"/stream-1000-0-{FLOOD_CHUNKS}-1024/v1",
}

ANSWER = {
    "id": "chatcmpl-stub",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "The parcel left the depot this morning and should arrive tomorrow before noon. "
                "You can follow it with the number in your confirmation mail.",
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 42, "completion_tokens": 31, "total_tokens": 73},
    "system_fingerprint": "fp_stub",
}

NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /stats {{ stub_status; }}
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""


def missing() -> str | None:
    """Return what to install before the benchmark can run, or None."""
    absent = [package for command, package in NEEDS.items() if _which(command) is None]
    return f"needs {', '.join(absent)} (Debian: apt-get install {' '.join(absent)})" if absent else None


def _which(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")


@dataclass(frozen=True)
class Stub:
    """Both stubs, running on one CPU."""

    nginx: Started
    streams: Started
    nginx_port: int
    streams_port: int

    def url(self, route: str) -> str:
        """Return the base URL of *route*, to which a client adds ``/chat/completions``."""
        port = self.nginx_port if route == "m" else self.streams_port
        return f"http://127.0.0.1:{port}{PATHS[route]}"

    def whole_answers(self) -> int:
        """Return how many requests nginx has answered."""
        text = _get(self.nginx_port, "/stats")
        numbers = re.search(r"\n\s*(\d+) (\d+) (\d+)", text)
        if numbers is None:
            raise RuntimeError(f"nginx's status page reads {text!r}")
        return int(numbers[3]) - 1  # the question itself counts

    def cpu_s(self) -> float:
        return self.nginx.cpu_s() + self.streams.cpu_s()


def start_stub(processes: Processes, folder: Path, cpu: int) -> Stub:
    """Compile stub.c, start both servers on *cpu* and wait until they answer."""
    binary = folder / "stub"
    subprocess.run([str(_which("cc")), "-O2", "-o", str(binary), str(HERE / "stub.c")], check=True)
    nginx_port, streams_port = free_port(), free_port()
    answer = json.dumps(ANSWER, separators=(",", ":"))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=nginx_port, answer=answer))
    nginx = processes.start(
        "nginx", [str(_which("nginx")), "-p", str(folder), "-c", f"{folder}/nginx.conf", "-e", "stderr"], cpu
    )
    streams = processes.start("stub", [str(binary), str(streams_port)], cpu)
    for started, port in ((nginx, nginx_port), (streams, streams_port)):
        _wait(started, port)
    return Stub(nginx, streams, nginx_port, streams_port)


def _wait(started: Started, port: int) -> None:
    for _ in range(100):
        try:
            _get(port, "/stats")
            return
        except OSError:
            if not started.alive():
                break
            time.sleep(0.05)
    raise RuntimeError(f"the stub {started.name} did not start: {started.said()}")


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
