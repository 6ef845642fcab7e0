"""The price of governing: forward throughput with all of it on against the same build with it off.

Each arm is a process of its own on the same CPU; they take turns, a few seconds each, in an order that changes, and all
are started anew a few times. An upstream in nginx and the load (wrk, 32 in flight, every request distinct, a task named
by three of them) share the other CPU. What is compared is CPU time for each call, since what else runs on the machine
takes wall time away from all and adds nothing to it: `during` the load, and `after` it, until everything that is kept
beside the path (roll-ups, tasks and the verdicts that wait, metrics, spans) has been worked off. What a process uses
when nothing is asked is taken off the time after.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import _govern_config as configs
from _load import Endpoint
from _machine import Processes, Started, allow_many_files, cpus
from _measure import CONNECTIONS, Run, settle
from _stub import Stub, missing, start_stub

Json = dict[str, Any]
HERE = Path(__file__).parent
ARMS = ("off", "on", "with_traces")
TASK_CALLS = 3
_RESAMPLES = 2000
_STARTS = 3  # of all processes
_IDLE_S = 4.0
_PATIENCE_S = 300.0
_BEHIND = """
SELECT coalesce((SELECT max(rowid) FROM outcome), 0),
    coalesce((SELECT value FROM rollup_state WHERE name = 'rowid'), 0),
    coalesce((SELECT value FROM task_state WHERE name = 'mark'), 0),
    (SELECT count(*) FROM task WHERE due_at IS NOT NULL)
"""


class Arm:
    """One gateway: its process, and what is known of it."""

    def __init__(self, name: str, folder: Path, cpu: int, config: Json, secret: str) -> None:
        self.name = name
        self.governs = name != "off"
        self.ledger = configs.ledger(folder, name)
        self._secret = secret
        log = folder / f"{name}.log"
        command = ["taskset", "-c", str(cpu), sys.executable, str(HERE / "_govern_server.py")]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, env=os.environ,
            )  # fmt: skip
        self.started = Started(name, process, log, 0.0)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"config": config, "watched": self.governs}).encode() + b"\n")
        process.stdin.flush()
        said = process.stdout.readline()
        if not said:
            raise RuntimeError(f"the gateway {name!r} did not come up: {self.started.said()}")
        headers = {"authorization": f"Bearer {secret}", "x-negawatt-class": configs.CLASS}
        self.endpoint = Endpoint(int(said), "/v1/chat/completions", "m", headers)
        self._page = self._watch() if self.governs else None

    def _watch(self) -> http.client.HTTPConnection:
        """Look at the live page, as a browser that is left open does."""
        page = http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=3600)
        page.request("GET", "/admin/api/live", headers={"authorization": f"Bearer {self._secret}"})
        answer = page.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"the live page of {self.name!r} answered {answer.status}")
        threading.Thread(target=_drain, args=(answer,), daemon=True).start()
        return page

    def behind(self) -> Json:
        """Return how many rows are in no roll-up yet, and in no task, and how many verdicts wait."""
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=30)) as connection:
            rows, rolled, tasked, waiting = connection.execute(_BEHIND).fetchone()
        if not self.governs:
            return {"rows": rows, "rollups": 0, "tasks": 0, "verdicts": 0}
        return {"rows": rows, "rollups": rows - rolled, "tasks": rows - tasked, "verdicts": waiting}

    def stop(self) -> None:
        self.started.process.terminate()
        try:
            self.started.process.wait(60)
        except subprocess.TimeoutExpired:
            self.started.process.kill()
            self.started.process.wait(5)


def _drain(answer: http.client.HTTPResponse) -> None:
    try:
        while answer.readline():
            pass
    except (OSError, http.client.HTTPException):
        return  # the gateway is stopped


def section(rounds: int, seconds: int, say: Callable[[str], None]) -> Json:
    """Return the figures of *rounds* rounds, each arm *seconds* in each. Raises RuntimeError."""
    if problem := missing():
        raise RuntimeError(problem)
    allow_many_files()
    samples: dict[str, list[Json]] = {arm: [] for arm in ARMS}
    idle: dict[str, list[float]] = {arm: [] for arm in ARMS}
    starts = min(_STARTS, rounds)
    for start in range(starts):
        many = rounds // starts + (start < rounds % starts)
        with tempfile.TemporaryDirectory(prefix="negawatt-bench-") as name, _world(Path(name), seconds) as (runs, sent):
            for arm, (run, there) in runs.items():
                run.wrk(there.endpoint, CONNECTIONS, seconds=2, task_calls=TASK_CALLS)  # what is worked out once is
                _worked_off(there)
                idle[arm].append(_idle(there))
            for number in range(many):
                turn = (start + number) % len(ARMS)
                for arm in (*ARMS[turn:], *ARMS[:turn]):
                    run, there = runs[arm]
                    samples[arm].append(_one(run, there, idle[arm][-1], sent if arm == "with_traces" else None))
                    say(f"overhead: start {start + 1}, round {number + 1}: {arm}: {samples[arm][-1]}")
    return _summary(samples, idle, seconds)


@contextmanager
def _world(folder: Path, seconds: int) -> Iterator[tuple[dict[str, tuple[Run, Arm]], Callable[[], int]]]:
    """Start the upstream, the collector and the arms that can run; give these, and how many bytes of spans came."""
    gateway_cpu, load_cpu = cpus()
    with ExitStack() as stack:
        stub: Stub = start_stub(stack.enter_context(Processes(folder)), folder, load_cpu)
        collector = stack.enter_context(_collector())
        secret = configs.make_key(folder)
        made = {"off": configs.off(folder, stub.url("m")), "on": configs.on(folder, stub.url("m")),
                "with_traces": configs.with_traces(folder, stub.url("m"), collector[0])}  # fmt: skip
        runs = {}
        for name in ARMS:
            there = Arm(name, folder, gateway_cpu, made[name], secret)
            stack.callback(there.stop)
            runs[name] = (Run("ours", {"m": there.endpoint}, {}, stub, there.started, load_cpu, seconds), there)
        yield runs, collector[1]


@contextmanager
def _collector() -> Iterator[tuple[str, Callable[[], int]]]:
    """Serve a collector that takes OTLP over HTTP; give its address, and how many spans it was sent."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                bodies.append(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    def spans() -> int:
        """Return the spans that have come since the last question."""
        found = 0
        while bodies:
            for of in ExportTraceServiceRequest.FromString(bodies.pop()).resource_spans:
                found += sum(len(scope.spans) for scope in of.scope_spans)
        return found

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _idle(there: Arm) -> float:
    """Return the CPU seconds that it uses in a second in which nothing is asked."""
    before, since = there.started.cpu_s(), time.monotonic()
    time.sleep(_IDLE_S)
    return (there.started.cpu_s() - before) / (time.monotonic() - since)


def _worked_off(there: Arm) -> None:
    """Wait until nothing is left to do beside the path. Raises RuntimeError when that takes too long."""
    until = time.monotonic() + _PATIENCE_S
    while any(there.behind()[what] for what in ("rollups", "tasks", "verdicts")):
        if time.monotonic() > until:
            raise RuntimeError(f"{there.name}: still behind after {_PATIENCE_S:.0f} s: {there.behind()}")
        time.sleep(0.5)


def _one(run: Run, there: Arm, idle: float, spans: Callable[[], int] | None) -> Json:
    """Load one arm, and wait until it has worked all of it off; return what that took."""
    settle(run)
    upstream, began, since = run.stub.whole_answers(), there.started.cpu_s(), time.monotonic()
    counts = run.wrk(there.endpoint, CONNECTIONS, task_calls=TASK_CALLS)
    during = there.started.cpu_s() - began
    behind, ended = there.behind(), time.monotonic()
    asked = run.stub.whole_answers() - upstream
    calls = counts["requests"]
    if counts["errors"] or asked < 0.98 * calls:
        raise RuntimeError(f"{counts['errors']} errors; {asked} of {calls} reached the upstream")
    _worked_off(there)
    settle(run)
    waited_s = time.monotonic() - ended
    after = max(0.0, there.started.cpu_s() - began - during - idle * waited_s)
    return {
        "cpu_us": {"during": 1e6 * during / calls, "after": 1e6 * after / calls}, "calls": calls,
        "rps": calls / counts["seconds"], "behind": behind, "worked_off_s": waited_s,
        "load_s": ended - since, **({} if spans is None else {"spans": spans() / calls}),
    }  # fmt: skip


def _summary(samples: dict[str, list[Json]], idle: dict[str, list[float]], seconds: int) -> Json:
    on, off = samples["on"], samples["off"]
    whole, during = _lost(on, off, ("during", "after")), _lost(on, off, ("during",))
    rps = {arm: statistics.median([one["rps"] for one in found]) for arm, found in samples.items()}
    return {
        "overhead_ratio": whole["ratio"],
        "interval_95": whole["interval_95"],
        "during_only": during,
        "with_traces": {
            **_lost(samples["with_traces"], off, ("during", "after")),
            "spans_for_each_call": statistics.median([one["spans"] for one in samples["with_traces"]]),
        },
        "n": len(on), "starts": min(_STARTS, len(on)), "seconds": seconds, "calls": sum(one["calls"] for one in on),
        "cpu_us": {arm: {part: _median(found, "cpu_us", part) for part in ("during", "after")}
                   for arm, found in samples.items()},
        "behind_at_the_end": {what: _median(on, "behind", what) for what in ("rollups", "tasks", "verdicts")},
        "worked_off_s": statistics.median([one["worked_off_s"] for one in on]),
        "idle_share": {arm: statistics.median(found) for arm, found in idle.items()},
        "forward_rps": rps, "wall_ratio": 1 - rps["on"] / rps["off"],
        "method": "share of forward throughput lost, by CPU time for each call, during the load and after it",
    }  # fmt: skip


def _median(samples: list[Json], what: str, part: str) -> float:
    return statistics.median([one[what][part] for one in samples])


def _lost(some: list[Json], off: list[Json], parts: tuple[str, ...]) -> Json:
    """Return the share of calls that are not made in the same CPU time, with its interval over the rounds."""
    pairs = [tuple(sum(one["cpu_us"][part] for part in parts) for one in pair) for pair in zip(some, off, strict=True)]
    rng = random.Random(1)
    drawn = sorted(_ratio([rng.choice(pairs) for _ in pairs]) for _ in range(_RESAMPLES))
    return {"ratio": _ratio(pairs), "interval_95": [drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1]]}


def _ratio(pairs: list[tuple[float, ...]]) -> float:
    return 1 - sum(off for _, off in pairs) / sum(some for some, _ in pairs)
