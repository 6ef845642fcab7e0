"""The dashboard at a given number of rows: how long its first screen takes, and whether the server stays as it was.

A real server process over a real ledger of made-up rows (`_synthetic`), half of which name tasks, with all that
governs: tasks rolled up and judged, budgets of which one has a line for each of 10,000 users, promises, and alerts.
Each request opens a connection of its own.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from _machine import TICK_S
from _synthetic import write_ledger

from negawatt.budgets import Lines, Reservation
from negawatt.budgets.rules import Rules
from negawatt.budgets.sqlite import SqliteBooks
from negawatt.clock import SystemClock
from negawatt.config import load_config
from negawatt.success.keeping import catch_up
from negawatt.success.rules import rules_of

VIEWS = 200  # in each time zone, twice
USERS = 10_000  # with a line of a budget
ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns")
_FIRST_PAINT = "/admin/api/overview?zone={zone}"
_OTHERS = ("classes", "prompts", "caches", "routing", "requests", "requests?lever=route", "budgets", "alerts")
_CONFIG = """
[ledger]
url = "sqlite:///{ledger}"
[[providers]]
name = "modelled"
url = "modelled:?a=0.001&b=0.0"
[classes.support]
owner = "desk"
success = {{ answered = true }}
[classes.search]
owner = "search"
success = {{ answered = true, no_retry_within_s = 600 }}
[slo]
latency_p95_ms = 5000
error_rate = 0.05
cost_per_success_usd = 0.05
output_inflation = 2.0
[alerts]
sinks = [{{ kind = "log" }}]
[[budgets]]
name = "everything"
usd = 100000
per = "month"
[[budgets]]
name = "each-user"
tokens = 1000000
per = "month"
each = "user"
"""
_ROLLED = "SELECT value FROM rollup_state WHERE name = 'rowid'"
_DIRTY = "SELECT count(*) FROM rollup_dirty WHERE slot + span < ?"


async def dashboard(rows: int) -> dict[str, Any]:
    """Return the figures at *rows* rows: milliseconds of the first screen's data, memory, seconds to make roll-ups."""
    with tempfile.TemporaryDirectory(prefix="negawatt-dashboard-") as folder:
        return await asyncio.to_thread(_measured, Path(folder), rows)


def _measured(folder: Path, rows: int) -> dict[str, Any]:
    ledger, config = folder / "ledger.sqlite", folder / "negawatt.toml"
    write_ledger(ledger, rows, until=time.time())
    config.write_text(_CONFIG.format(ledger=ledger), encoding="utf-8")
    began = time.process_time()
    catch_up(ledger, rules_of(load_config(config)))
    tasks_s = time.process_time() - began
    asyncio.run(_spend(folder / "ledger-budgets.sqlite", config))
    server = _Server(config, ledger)
    try:
        began = time.perf_counter()
        server.until_rolled(rows)
        built_s = time.perf_counter() - began
        server.until_idle()
        first_ms = server.timed(_FIRST_PAINT.format(zone="UTC"))  # reads what no view has read yet
        rss = [server.rss_mb()]
        views: dict[str, list[float]] = {zone: [] for zone in ZONES}
        for _ in range(2):
            for zone, found in views.items():
                found += [server.timed(_FIRST_PAINT.format(zone=zone)) for _ in range(VIEWS)]
            pages = {name: _middle([server.timed(f"/admin/api/{name}") for _ in range(11)]) for name in _OTHERS}
            rss.append(server.rss_mb())
    finally:
        server.stop()
    every = [ms for found in views.values() for ms in found]
    return {
        "median_ms": _middle(every), "p95_ms": _at(every, 0.95), "most_ms": max(every), "first_ms": round(first_ms, 1),
        "by_zone_ms": {zone: {"median": _middle(found), "p95": _at(found, 0.95)} for zone, found in views.items()},
        "pages_ms": pages,
        "rows": rows,
        "views": len(every),
        "rss_mb": {name: round(mb, 1) for name, mb in zip(("before", "after", "after_as_many_more"), rss, strict=True)},
        "rollup_build_s": round(built_s, 1),
        "tasks_build_cpu_s": round(tasks_s, 1),
        "tasks": _count(ledger, "SELECT count(*) FROM task"),
        "judged": _count(ledger, "SELECT count(*) FROM task WHERE success IS NOT NULL"),
        "budget_lines": _count(folder / "ledger-budgets.sqlite", "SELECT count(*) FROM line"),
        "ledger_mb": round(ledger.stat().st_size / 1e6) if ledger.exists() else None,
    }  # fmt: skip


def _count(path: Path, statement: str) -> int:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return int(connection.execute(statement).fetchone()[0])
    finally:
        connection.close()


async def _spend(path: Path, config: Path) -> None:
    """Make books in which every user has spent something."""
    rule = next(rule for rule in Rules(load_config(config).budgets).rules if rule.budget.each == "user")
    start, end = rule.period(time.time())
    books = SqliteBooks(path, SystemClock())
    for user in range(USERS):
        value = orjson.dumps(("red", f"u{user}")).decode()
        spent = 1 + user * 97 % rule.limit
        reservation = Reservation(Lines(((rule.key, value, start),), (end,), (rule.limit,)), [spent])
        await books.reserve(reservation)
        books.settle(reservation, [spent])
    await books.close()


class _Server:
    """A negawatt of its own, ended by its pid."""

    def __init__(self, config: Path, ledger: Path) -> None:
        self._ledger = ledger
        self._log = config.with_name("server.log")
        command = [sys.executable, "-m", "negawatt", "serve", "--config", str(config), "--port", "0"]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self._port = self._announced()

    def _announced(self) -> int:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self._log.read_text(encoding="utf-8"))
            if found:
                return int(found[1])
            time.sleep(0.05)
        raise RuntimeError(f"the server did not come up: {self._log.read_text(encoding='utf-8')}")

    def until_rolled(self, rows: int) -> None:
        """Wait until all is in the roll-ups, hours and days that are over included."""
        connection = sqlite3.connect(f"file:{self._ledger}?mode=ro", uri=True, timeout=30)
        while not (
            (found := connection.execute(_ROLLED).fetchone()) is not None
            and found[0] >= rows
            and connection.execute(_DIRTY, (time.time() - 900,)).fetchone()[0] == 0
        ):
            time.sleep(0.2)
        connection.close()

    def until_idle(self, patience_s: float = 300.0) -> None:
        """Wait until it has read the past and rolled all of it up: it does next to nothing for two seconds."""
        end = time.monotonic() + patience_s
        before = self._cpu_s()
        while time.monotonic() < end:
            time.sleep(2.0)
            now = self._cpu_s()
            if now - before < 0.1:
                return
            before = now
        raise RuntimeError(f"the server was still busy after {patience_s:.0f} s")

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def timed(self, path: str) -> float:
        """Return the milliseconds until all of *path* is there."""
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        spent_ms = (time.perf_counter() - began) * 1e3
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:300]!r}")
        return spent_ms

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self._child.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else float("nan")

    def stop(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(5)


def _middle(values: list[float]) -> float:
    return _at(values, 0.5)


def _at(values: list[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 1)


if __name__ == "__main__":
    import json

    print(json.dumps(asyncio.run(dashboard(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)), indent=2))
