"""What a gateway costs: negawatt beside LiteLLM, Portkey and TensorZero, on one CPU, in one run.

    .venv/bin/python benchmarks/overhead.py [--json] [--seconds N] [--rounds N] [--targets ours,litellm] [--out FILE]

Progress goes to stderr; the last line of stdout is one JSON object (without --json, a table stands above it). How it
measures, and what not to read into it: docs/benchmarks.md. ``make peers`` installs the others.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

from _machine import Processes, allow_many_files, cpus, machine
from _measure import MEASURES, Figures, Run, hit, import_ms, settle
from _peers import NO_CACHE, ROOT, TARGETS, NotInstalled, direct
from _report import as_table, goals, ratios, summary
from _stub import Stub, missing, start_stub


class Benchmark:
    """All rounds of all targets; what a target could not do is in ``reasons``, never silently left out."""

    def __init__(self, processes: Processes, folder: Path, seconds: float, where: tuple[int, int]) -> None:
        self._processes = processes
        self._folder = folder
        self._seconds = seconds
        self._gateway_cpu, self._load_cpu = where
        self._stub: Stub = start_stub(processes, folder, self._load_cpu)
        self.samples: dict[str, list[Figures]] = {}
        self.reasons: dict[str, dict[str, str]] = {}

    def round(self, number: int, names: list[str]) -> None:
        """Measure the stub alone and then each target, in an order that rotates from round to round."""
        turn = number % len(names) if names else 0
        self._one("direct", Run("direct", direct(self._stub), direct(self._stub), self._stub, None, *self._where()))
        for name in names[turn:] + names[:turn]:
            if "installed" in self.reasons.get(name, {}):
                continue
            say(f"round {number + 1}: {name}")
            try:
                self._target(name)
            except NotInstalled as error:
                self._reason(name, "installed", str(error))
            except (RuntimeError, OSError) as error:
                self._reason(name, "start", str(error))

    def _where(self) -> tuple[int, float]:
        return self._load_cpu, self._seconds

    def _target(self, name: str) -> None:
        target = TARGETS[name](self._stub, self._folder, name == "ours")
        started, start_s = target.start(self._processes, self._gateway_cpu)
        run = Run(name, target.endpoints, direct(self._stub), self._stub, started, *self._where())
        try:
            first = {"start_s": start_s, "rss_idle_mb": started.rss_mb()}
            sample = self._one(name, run, first)
            sample["rss_peak_mb"] = started.peak_mb()
        finally:
            self._processes.stop(started)
        if target.ledger is not None:
            sample |= ledger_rows(target.ledger, run.asked)
        if name == "litellm":
            sample |= self._hit_with_cache_on(name)
        for figure, command in target.imports.items():
            sample[figure] = import_ms(command, n=3)

    def _one(self, name: str, run: Run, first: Figures | None = None) -> Figures:
        """Take every measure once; a failed one is noted with its reason."""
        sample: Figures = dict(first or {})
        self.samples.setdefault(name, []).append(sample)
        for measure in MEASURES:
            if measure is hit and name != "ours":
                continue
            try:
                settle(run)
                sample |= measure(run)
            except (RuntimeError, OSError, subprocess.TimeoutExpired, ValueError) as error:
                self._reason(name, measure.__name__, f"{type(error).__name__}: {error}")
            if run.gateway is not None and not run.gateway.alive():
                self._reason(name, measure.__name__, f"the gateway died: {run.gateway.said(500)}")
                break
        return sample

    def _hit_with_cache_on(self, name: str) -> Figures:
        """Start it once more with its cache on, for the hits alone."""
        target = TARGETS[name](self._stub, self._folder, True)
        started, _ = target.start(self._processes, self._gateway_cpu)
        try:
            return hit(Run(name, target.endpoints, direct(self._stub), self._stub, started, *self._where()))
        except (RuntimeError, OSError) as error:
            self._reason(name, "hit", str(error))
            return {}
        finally:
            self._processes.stop(started)

    def _reason(self, name: str, what: str, why: str) -> None:
        say(f"  {name}: {what}: {why}")
        self.reasons.setdefault(name, {})[what] = why

    def report(self, names: list[str]) -> dict[str, Any]:
        """Return the JSON object: medians over the rounds, their range, ratios, goals, machine and date."""
        for name in set(names) & set(NO_CACHE):
            self.reasons.setdefault(name, {}).setdefault("hit", NO_CACHE[name])
        for name in set(TARGETS) - set(names):
            self.reasons[name] = {"chosen": "left out with --targets"}
        figures = {name: summary(self.samples[name]) if name in self.samples else None for name in TARGETS}
        return {
            **figures,
            "direct": summary(self.samples["direct"]),
            "reasons": {name: " | ".join(f"{k}: {v}" for k, v in why.items()) for name, why in self.reasons.items()},
            "ratios": ratios(figures),
            "goals": goals(figures),
            "machine": {**machine(), "gateway_cpu": self._gateway_cpu, "load_cpu": self._load_cpu, **versions()},
            "seconds": self._seconds,
            "date": datetime.date.today().isoformat(),
        }


def ledger_rows(ledger: Path, asked: int) -> Figures:
    """Count what the ledger kept: the durable ledger must have been on, with a row of every answered call."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = max((db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables), default=0)
    return {"ledger_rows": rows, "ledger_answered": asked}


def versions() -> dict[str, str | None]:
    """Return the versions that a reader needs to make the numbers again."""
    commands = {
        "commit": ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        "litellm": [str(ROOT / "peers/litellm/bin/pip"), "list", "--format=freeze"],
        "tensorzero": [str(ROOT / "peers/tensorzero/bin/pip"), "list", "--format=freeze"],
        "node": ["node", "--version"],
    }
    found: dict[str, str | None] = {}
    for name, command in commands.items():
        try:
            out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            found[name] = None
            continue
        pinned = [line for line in out.splitlines() if line.startswith(f"{name}==")]
        found[name] = pinned[0].partition("==")[2] if pinned else out.splitlines()[0]
    package = ROOT / "peers/portkey/node_modules/@portkey-ai/gateway/package.json"
    found["portkey"] = json.loads(package.read_text())["version"] if package.exists() else None
    return found


def write(out: Path, report: dict[str, Any], samples: dict[str, list[Figures]]) -> None:
    """Write the report to *out*, every round beside it, and every latency sample to a CSV of the same name."""
    plain = {n: [{k: v for k, v in s.items() if k != "_latency"} for s in rounds] for n, rounds in samples.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**report, "rounds": plain}, indent=1) + "\n")
    with out.with_suffix(".latency.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["target", "round", "side", "seconds"])
        for name, rounds in samples.items():
            for number, sample in enumerate(rounds, 1):
                for side, values in sample.get("_latency", {}).items():
                    rows.writerows([name, number, side, f"{value:.7f}"] for value in values)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing on stdout but the JSON object")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="each target once in each (default 3)")
    parser.add_argument("--targets", default=",".join(TARGETS), help=f"of {','.join(TARGETS)} (default all)")
    parser.add_argument("--out", type=Path, help="write the JSON, with every round, and the latency samples beside it")
    chosen = parser.parse_args()
    chosen.names = [name for name in chosen.targets.split(",") if name]
    unknown = [name for name in chosen.names if name not in TARGETS]
    if unknown or chosen.rounds < 1 or chosen.seconds < 1:
        parser.error(f"no such target: {', '.join(unknown)}" if unknown else "at least 1 round and 1 second")
    return chosen


def main() -> int:
    chosen = options()
    if problem := missing():
        say(problem)
        return 2
    signal.signal(signal.SIGTERM, _stop)
    allow_many_files()
    where = cpus()
    os.sched_setaffinity(0, {where[1]})  # this process sleeps while a load runs; it must not wake on the gateway's CPU
    try:
        with tempfile.TemporaryDirectory(prefix="negawatt-bench-") as folder, Processes(Path(folder)) as processes:
            benchmark = Benchmark(processes, Path(folder), chosen.seconds, where)
            for number in range(chosen.rounds):
                benchmark.round(number, chosen.names)
            report = benchmark.report(chosen.names)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    if chosen.out is not None:
        write(chosen.out, report, benchmark.samples)
    if not chosen.json:
        print(as_table(report))
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
