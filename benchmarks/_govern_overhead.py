"""The price of governing on the path: forward throughput with all of it on against the same build with it off.

Both gateways are in one process and take turns, a few seconds each, in an order that alternates; an upstream in nginx
and the load (wrk, 32 in flight, every request distinct) share the other CPU. The ratio is of CPU time for each call:
what else runs on the machine takes wall time away from both, but adds nothing to it.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _govern_config import KEY, KEY_ENV, off, on
from _load import Endpoint
from _machine import Started, allow_many_files, cpus
from _measure import CONNECTIONS, Run, settle
from _stub import missing, start_stub

Json = dict[str, Any]
HERE = Path(__file__).parent
_RESAMPLES = 2000


def section(rounds: int, seconds: int, say: Any) -> Json:
    """Return the figures of *rounds* rounds, each arm *seconds* in each. Raises RuntimeError."""
    from _machine import Processes

    if problem := missing():
        raise RuntimeError(problem)
    allow_many_files()
    gateway_cpu, load_cpu = cpus()
    with tempfile.TemporaryDirectory(prefix="negawatt-bench-") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        stub = start_stub(processes, folder, load_cpu)
        configs = {"on": on(folder, "on", stub.url("m")), "off": off(folder, "off", stub.url("m"))}
        started, ports = _start(folder, gateway_cpu, configs)
        try:
            headers = {"authorization": f"Bearer {KEY}"}
            endpoints = {arm: Endpoint(port, "/v1/chat/completions", "m", headers) for arm, port in ports.items()}
            run = Run("ours", endpoints, {}, stub, started, load_cpu, seconds)
            samples: dict[str, list[Json]] = {"on": [], "off": []}
            for arm in ("on", "off"):
                run.wrk(endpoints[arm], CONNECTIONS, seconds=2)  # what is worked out once has been
            for number in range(rounds):
                for arm in ("on", "off") if number % 2 else ("off", "on"):
                    settle(run)
                    samples[arm].append(_one(run, endpoints[arm]))
                    say(f"overhead: round {number + 1}: {arm}: {samples[arm][-1]}")
        finally:
            started.process.terminate()
            started.process.wait(20)
    return _summary(samples, rounds, seconds)


def _start(folder: Path, cpu: int, configs: dict[str, Json]) -> tuple[Started, dict[str, int]]:
    log = folder / "gateways.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), sys.executable, str(HERE / "_govern_server.py")], cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            env={**os.environ, KEY_ENV: KEY},
        )  # fmt: skip
    started = Started("gateways", process, log, 0.0)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(configs).encode() + b"\n")
    process.stdin.flush()
    said = process.stdout.readline()
    if not said:
        raise RuntimeError(f"the gateways did not come up: {started.said()}")
    ports: dict[str, int] = json.loads(said)
    return started, ports


def _one(run: Run, endpoint: Endpoint) -> Json:
    before = run.stub.whole_answers()
    with run.watched() as used:
        counts = run.wrk(endpoint, CONNECTIONS)
    asked = run.stub.whole_answers() - before
    if counts["errors"] or asked < 0.98 * counts["requests"]:
        raise RuntimeError(f"{counts['errors']} errors; {asked} of {counts['requests']} reached the upstream")
    return {"cpu_us": 1e6 * used["gateway"] / counts["requests"], "rps": counts["requests"] / counts["seconds"]}


def _summary(samples: dict[str, list[Json]], rounds: int, seconds: int) -> Json:
    pairs = [(a["cpu_us"], b["cpu_us"]) for a, b in zip(samples["on"], samples["off"], strict=True)]
    rng = random.Random(1)
    means = sorted(_ratio([rng.choice(pairs) for _ in pairs]) for _ in range(_RESAMPLES))
    cpu = {arm: statistics.median([one["cpu_us"] for one in found]) for arm, found in samples.items()}
    rps = {arm: statistics.median([one["rps"] for one in found]) for arm, found in samples.items()}
    return {
        "overhead_ratio": _ratio(pairs),
        "interval_95": [means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]],
        "n": rounds, "seconds": seconds, "cpu_us": cpu, "forward_rps": rps,
        "wall_ratio": 1 - rps["on"] / rps["off"], "method": "share of throughput lost, by CPU time for each call",
    }  # fmt: skip


def _ratio(pairs: list[tuple[float, float]]) -> float:
    """Return the share of calls that are not made in the same CPU time."""
    return 1 - sum(b for _, b in pairs) / sum(a for a, _ in pairs)
