"""The dashboard at a given number of rows: how long its first screen takes, and whether the server stays as it was.

A real server process over a real ledger of made-up rows (`_synthetic`); each request opens a connection of its own.
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

from _synthetic import write_ledger

VIEWS = 200
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
"""
_ROLLED = "SELECT value FROM rollup_state WHERE name = 'rowid'"
_DIRTY = "SELECT count(*) FROM rollup_dirty WHERE slot + span < ?"


async def dashboard(rows: int) -> dict[str, Any]:
    """Return the figures at *rows* rows: milliseconds of the first screen's data, memory, seconds to make roll-ups."""
    with tempfile.TemporaryDirectory(prefix="negawatt-dashboard-") as folder:
        return await asyncio.to_thread(_measured, Path(folder), rows)


def _measured(folder: Path, rows: int) -> dict[str, Any]:
    ledger = folder / "ledger.sqlite"
    write_ledger(ledger, rows, until=time.time())
    server = _Server(folder, ledger)
    try:
        began = time.perf_counter()
        server.until_rolled(rows)
        built_s = time.perf_counter() - began
        server.timed(_FIRST_PAINT.format(zone="UTC"))  # opens the connection
        before = server.rss_mb()
        views = {zone: [server.timed(_FIRST_PAINT.format(zone=zone)) for _ in range(VIEWS)] for zone in ZONES}
        pages = {name: _middle([server.timed(f"/admin/api/{name}") for _ in range(11)]) for name in _OTHERS}
        after = server.rss_mb()
    finally:
        server.stop()
    every = [ms for found in views.values() for ms in found]
    return {
        "dashboard_ms": {"median": _middle(every), "p95": _at(every, 0.95)},
        "by_zone_ms": {zone: {"median": _middle(found), "p95": _at(found, 0.95)} for zone, found in views.items()},
        "pages_ms": pages,
        "rows": rows,
        "views": len(every),
        "rss_mb": {"before": round(before, 1), "after": round(after, 1)},
        "rollup_build_s": round(built_s, 1),
        "ledger_mb": round(ledger.stat().st_size / 1e6) if ledger.exists() else None,
    }


class _Server:
    """A negawatt of its own, ended by its pid."""

    def __init__(self, folder: Path, ledger: Path) -> None:
        self._ledger = ledger
        config = folder / "negawatt.toml"
        config.write_text(_CONFIG.format(ledger=ledger), encoding="utf-8")
        self._log = folder / "server.log"
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
