"""What the overhead benchmark measures of one gateway: each function returns some figures of one round."""

from __future__ import annotations

import itertools
import json
import os
import resource
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _load import Endpoint, Line, task
from _machine import Started, busy_s
from _peers import CACHE_HEADER
from _stub import STREAM_CHUNKS, Stub

HERE = Path(__file__).parent
CONNECTIONS = 32
STREAMS = 16
IN_FLIGHT = 1000
STALLED = 100
PAIRS = 100  # of latency samples in a round, at least

Figures = dict[str, Any]
_loads = itertools.count(time.time_ns() // 1_000_000_000 % 10_000_000)


@dataclass
class Run:
    """One gateway (or the stub alone: *gateway* None) in one round."""

    name: str
    endpoints: dict[str, Endpoint]
    direct: dict[str, Endpoint]
    stub: Stub
    gateway: Started | None
    load_cpu: int
    seconds: float
    asked: int = 0  # requests that were answered: the ledger must have a row of each
    rps: float | None = None  # what it forwarded, once that is known

    def seed(self) -> int:
        """Return a number from which a load may count up without meeting another load's numbers."""
        return next(_loads) * 10_000_000

    @contextmanager
    def watched(self) -> Iterator[dict[str, float]]:
        """Fill in, when the block ends, the CPU seconds used by gateway, stub, load and everything else."""
        used: dict[str, float] = {}
        before = self._cpu()
        yield used
        after = self._cpu()
        used.update({name: after[name] - before[name] for name in before})
        used["foreign"] = used["all"] - used["gateway"] - used["stub"] - used["load"]

    def _cpu(self) -> dict[str, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "wall": time.monotonic(),
            "gateway": self.gateway.cpu_s() if self.gateway else 0.0,
            "stub": self.stub.cpu_s(),
            "load": children.ru_utime + children.ru_stime,
            "all": busy_s(),
        }

    def wrk(
        self, endpoint: Endpoint, connections: int, *, unique: bool = True, seconds: float = 0, task_calls: int = 0
    ) -> Figures:
        """Drive *endpoint* in a closed loop with wrk; *task_calls* calls name one task, none where it is 0.

        Returns its counts; raises RuntimeError when wrk fails.
        """
        before, after = endpoint.body("@", repeatable=not unique).decode().split("@")
        environment = {
            "BENCH_PATH": endpoint.path,
            "BENCH_HEADERS": "".join(f"{name}: {value}\n" for name, value in endpoint.headers.items()),
            "BENCH_PREFIX": before,
            "BENCH_SUFFIX": after,
            "BENCH_UNIQUE": "1" if unique else "0",
            "BENCH_SEED": str(self.seed()),
            **({"BENCH_TASK_CALLS": str(task_calls)} if task_calls else {}),
        }
        seconds = max(1, round(seconds or self.seconds))
        options = f"-t1 -c{connections} -d{seconds}s --timeout 30s".split()
        target = f"http://127.0.0.1:{endpoint.port}"
        done = subprocess.run(
            ["taskset", "-c", str(self.load_cpu), "wrk", *options, "-s", str(HERE / "load.lua"), target],
            capture_output=True,
            text=True,
            timeout=seconds + 40,
            env={**os.environ, **environment},
        )
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                counts: Figures = json.loads(line.removeprefix("RESULT "))
                counts["errors"] = sum(counts[k] for k in ("connect", "read", "write", "timeout", "status"))
                self.asked += counts["requests"]
                return counts
        raise RuntimeError(f"wrk failed: {done.stdout[-300:]} {done.stderr[-300:]}")

    def client(self, kind: str, **parameters: Any) -> Figures:
        """Run one of _load.py's clients on the load CPU and return its result. Raises RuntimeError when it fails."""
        done = subprocess.run(
            [*self.client_argv(), kind],
            input=task(kind, seed=self.seed(), **parameters) + "\n",
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"the {kind} client failed: {done.stderr.strip()[-300:]}")
        result: Figures = json.loads(done.stdout)
        return result

    def client_argv(self) -> list[str]:
        return ["taskset", "-c", str(self.load_cpu), sys.executable, str(HERE / "_load.py")]

    def rss_mb(self) -> float | None:
        return self.gateway.rss_mb() if self.gateway else None


def _per(run: Run, used: dict[str, float], count: float) -> float | None:
    """Return the gateway's CPU microseconds for each of *count*."""
    return 1e6 * used["gateway"] / count if run.gateway and count else None


def _shares(used: dict[str, float]) -> Figures:
    """Percent of one CPU; the load side must stay under 100 together, or the load was what was measured."""
    percent = {k: 100 * used[k] / used["wall"] for k in ("gateway", "stub", "load", "foreign")}
    return {f"{k}_cpu_pct": v for k, v in percent.items()}


def forward(run: Run) -> Figures:
    """Whole answers, 32 in flight, every request distinct. Refused if anything but the upstream answered."""
    _probe(run, 30)  # some load half of themselves at the first call
    run.wrk(run.endpoints["m"], CONNECTIONS, seconds=1)
    settle(run)
    upstream = run.stub.whole_answers()
    with run.watched() as used:
        counts = run.wrk(run.endpoints["m"], CONNECTIONS)
    upstream = run.stub.whole_answers() - upstream
    if counts["requests"] and upstream < 0.98 * counts["requests"]:
        raise RuntimeError(f"only {upstream} of {counts['requests']} distinct requests reached the upstream")
    run.rps = counts["requests"] / counts["seconds"]
    return {
        "forward_rps": run.rps,
        "forward_errors": counts["errors"],
        "forward_p50_ms": counts["p50_ms"],
        "forward_p99_ms": counts["p99_ms"],
        "forward_cpu_us": _per(run, used, counts["requests"]),
        "forward_shares": _shares(used),
        "rss_mb": run.rss_mb(),
    }


def hit(run: Run) -> Figures:
    """The same deterministic request again and again, 32 in flight. Refused if the cache did not answer it."""
    endpoint = run.endpoints["m"]
    header, wanted = CACHE_HEADER[run.name]
    line = Line(endpoint)
    seen = []
    for _ in range(5):  # the first fills; one of the others may belong to a control group
        _, headers, _ = line.ask(endpoint.body("0", repeatable=True))
        seen.append(headers.get(header))
        run.asked += 1
    line.close()
    if not any(value == wanted if wanted else value for value in seen):
        raise RuntimeError(f"equal requests were no cache hits: {header}: {seen}")
    run.wrk(endpoint, CONNECTIONS, unique=False, seconds=1)
    settle(run)
    upstream = run.stub.whole_answers()
    with run.watched() as used:
        counts = run.wrk(endpoint, CONNECTIONS, unique=False)
    upstream = run.stub.whole_answers() - upstream
    if upstream > 0.03 * counts["requests"]:
        raise RuntimeError(f"{upstream} of {counts['requests']} equal requests reached the upstream")
    return {
        "hit_rps": counts["requests"] / counts["seconds"],
        "hit_errors": counts["errors"],
        "hit_p50_ms": counts["p50_ms"],
        "hit_p99_ms": counts["p99_ms"],
        "hit_cpu_us": _per(run, used, counts["requests"]),
        "hit_upstream_pct": 100 * upstream / counts["requests"],
        "hit_shares": _shares(used),
    }


def added_latency(run: Run) -> Figures:
    """One in flight, open loop, direct and through in random order. Refused if the client sent late."""
    pairs = max(PAIRS, round(100 * run.seconds))
    result = run.client("latency", direct=run.direct["m"], through=run.endpoints["m"], pairs=_affordable(run, pairs))
    through, plain = statistics.median(result["through"]), statistics.median(result["direct"])
    if run.gateway is None:
        return {"direct_p50_ms": 1e3 * plain}
    run.asked += len(result["through"]) + 60
    if result["lag_s"] > max(0.01 * through, 2e-6):
        raise RuntimeError(f"the client sent {1e3 * result['lag_s']:.3f} ms late at the median: figures refused")
    return {
        "added_p50_ms": 1e3 * (through - plain),
        "direct_p50_ms": 1e3 * plain,
        "latency_lag_ms": 1e3 * result["lag_s"],
        "_latency": {side: result[side] for side in ("direct", "through")},
    }


def _affordable(run: Run, pairs: int) -> int:
    """Return *pairs*, fewer where an answer is slow: a round's latency takes about three times its seconds at most."""
    one_s = _probe(run, 5) / 1e3
    return max(PAIRS, min(pairs, round(3 * run.seconds / (2.5 * one_s + 0.002))))


def streaming(run: Run) -> Figures:
    """16 slow streams, 533 chunks a second in all: how much later the first chunk comes."""
    plain = run.client("streams", endpoint=run.direct["stream"], count=STREAMS, seconds=max(2.0, run.seconds / 2))
    if run.gateway is None:
        return {"stream_first_ms": 1e3 * statistics.median(plain["first_s"]), "stream_errors": plain["errors"]}
    with run.watched() as used:
        result = run.client("streams", endpoint=run.endpoints["stream"], count=STREAMS, seconds=run.seconds)
    streams = len(result["counts"])
    run.asked += streams
    short = sum(n < STREAM_CHUNKS - 2 for n in result["counts"])  # some fold the role or the finish into another chunk
    if not streams or short:
        raise RuntimeError(f"{short} of {streams} streams came short: {sorted(set(result['counts']))[:5]} chunks")
    return {
        "stream_first_added_ms": 1e3 * (statistics.median(result["first_s"]) - statistics.median(plain["first_s"])),
        "stream_gap_p50_ms": 1e3 * statistics.median(result["gaps_s"]),
        "stream_slow_cpu_us_per_chunk": _per(run, used, streams * STREAM_CHUNKS),
        "stream_errors": result["errors"],
        "stream_streams": streams,
        "stream_client_cpu_pct": result["client_cpu_pct"],
        "stream_shares": _shares(used),
    }


def stream_cpu(run: Run) -> Figures:
    """16 brisk streams, 3,200 chunks a second in all: the gateway's CPU for each chunk."""
    return _chunks(run, "brisk", {"stream_cpu_us_per_chunk": "cpu_us", "stream_brisk_chunks_per_s": "chunks_per_s"})


def stream_capacity(run: Run) -> Figures:
    """16 fast streams, 32,000 chunks a second in all: how many are relayed."""
    return _chunks(run, "fast", {"stream_fast_cpu_us_per_chunk": "cpu_us", "stream_chunks_per_s": "chunks_per_s"})


def _chunks(run: Run, route: str, names: dict[str, str]) -> Figures:
    """Count the chunks of endless streams on *route*; *names* says how the figures are called."""
    with run.watched() as used:
        result = run.client("chunk_rate", endpoint=run.endpoints[route], count=STREAMS, seconds=run.seconds)
    run.asked += result["streams"]
    result["cpu_us"] = _per(run, used, result["chunks"])
    return {
        **{name: result[key] for name, key in names.items()},
        f"stream_{route}_errors": result["errors"],
        f"stream_{route}_client_cpu_pct": result["client_cpu_pct"],
        f"stream_{route}_shares": _shares(used),
    }


def stalled_readers(run: Run) -> Figures:
    """100 clients ask for a 16 MB stream and do not read it: the gateway's memory, and whether it still answers."""
    if run.gateway is None:
        return {}
    before = run.gateway.rss_mb()
    readers = subprocess.Popen(
        [*run.client_argv(), "stalled"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert readers.stdin is not None and readers.stdout is not None
        readers.stdin.write(task("stalled", endpoint=run.endpoints["flood"], count=STALLED, seed=run.seed()) + "\n")
        readers.stdin.flush()
        ready, _, _ = select.select([readers.stdout], [], [], 30)
        if not ready or readers.stdout.readline() != "open\n":
            raise RuntimeError("the stalled readers could not open their streams")
        most = before
        for _ in range(8):
            time.sleep(max(3.0, run.seconds) / 8)
            most = max(most, run.gateway.rss_mb())
        answer_ms = _probe(run, 5)
    finally:
        readers.kill()
        readers.communicate()
    return {"stalled_rss_mb": most, "stalled_rss_added_mb": most - before, "stalled_answer_ms": answer_ms}


def _probe(run: Run, n: int) -> float:
    """Return the median milliseconds of *n* plain requests."""
    line, took = Line(run.endpoints["m"], timeout_s=60), []
    for _ in range(n):
        since = time.perf_counter()
        line.ask(run.endpoints["m"].body(run.seed()))
        took.append(1e3 * (time.perf_counter() - since))
    line.close()
    run.asked += n
    return statistics.median(took)


def in_flight(run: Run) -> Figures:
    """1,000 in flight on an upstream that takes 200 ms: at most 5,000 requests a second are possible.

    Where 1,000 take longer than the round, the load runs on until all could have been answered once, 25 s at most.
    """
    seconds = max(5.0, run.seconds, min(25.0, 1.5 * IN_FLIGHT / run.rps if run.rps else 0.0))
    with run.watched() as used:
        counts = run.wrk(run.endpoints["slow"], IN_FLIGHT, seconds=seconds)
    return {
        "in_flight_1000_rps": counts["requests"] / counts["seconds"],
        "in_flight_1000_errors": counts["errors"],
        "in_flight_1000_p50_ms": counts["p50_ms"],
        "in_flight_1000_cpu_us": _per(run, used, counts["requests"]),
        "in_flight_1000_shares": _shares(used),
        "in_flight_1000_rss_mb": run.rss_mb(),
    }


# In this order; the last leaves most behind. `settle` goes before each.
MEASURES: tuple[Callable[[Run], Figures], ...] = (
    forward,
    hit,
    added_latency,
    streaming,
    stream_cpu,
    stream_capacity,
    in_flight,
    stalled_readers,
)


def settle(run: Run, patience_s: float = 20.0) -> None:
    """Wait until the gateway has finished what the last load left behind. Raises RuntimeError if it does not."""
    until = time.monotonic() + patience_s
    while run.gateway is not None:
        before = run.gateway.cpu_s()
        time.sleep(0.5)
        if run.gateway.cpu_s() - before < 0.1:
            return
        if time.monotonic() > until:
            raise RuntimeError(f"still busy {patience_s:.0f} s after the load before had ended")


def import_ms(argv: list[str], n: int) -> float:
    """Return the median milliseconds that *argv* (python -c 'import ...') takes longer than python alone."""
    took: dict[str, list[float]] = {"bare": [], "import": []}
    for _ in range(n):
        for name, command in (("bare", [argv[0], "-c", "pass"]), ("import", argv)):
            since = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            took[name].append(time.perf_counter() - since)
    return 1e3 * (statistics.median(took["import"]) - statistics.median(took["bare"]))
