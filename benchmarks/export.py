"""What it takes to export a ledger: time, lines and memory of `negawatt export` in each of its formats.

    python benchmarks/export.py --rows 1000000 --json

A ledger of so many made-up calls over thirty days is written to a temporary folder: six models of three providers, 24
keys of three tenants, four classes, one call in eight answered from the cache, one in fifty without a price. Then the
command runs once for each format, in a process of its own; its peak memory is what the system says of that process
(Linux, macOS), which counts what its parent held before it: so the ledger is written by another child. What was billed
by the CSV is compared with the sum over the ledger. The last line is ``{"rows": n, "formats": {...}, ...}``.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from _machine import machine

FORMATS = ("focus-csv", "focus-parquet", "jsonl", "openmetrics")
MODELS = (
    ("openai", "gpt-4o-mini", 150, 600), ("openai", "gpt-4o", 2500, 10_000), ("openai", "gpt-5-mini", 250, 2000),
    ("anthropic", "claude-sonnet-4-5", 3000, 15_000), ("anthropic", "claude-haiku-4-5", 1000, 5000),
    ("mistral", "mistral-small-latest", 100, 300),
)  # fmt: skip
CLASSES = ("default", "faq", "code", "extract")
START = 1_793_491_200  # 2026-11-01 UTC
DAYS = 30
AT_ONCE = 10_000  # rows that wait to be written


def filled(path: Path, count: int, seed: int) -> int:
    """Write a ledger of *count* calls to *path*; return what they cost, in pico-dollars."""
    from negawatt.ledger.outcome import Outcome  # here: this process is not to grow by it
    from negawatt.ledger.sqlite import SqliteLedger

    draw = random.Random(seed)
    empty: dict[str, Any] = dict.fromkeys(Outcome.__struct_fields__)
    ledger, total = SqliteLedger(path), 0
    for i in range(count):
        row = a_call(draw, i, count)
        total += row["cost_pusd"] or 0
        ledger.append(Outcome(**{**empty, **row}))
        if i % AT_ONCE == 0:
            ledger.flush()
    ledger.close()
    return total


def a_call(draw: random.Random, i: int, count: int) -> dict[str, Any]:
    """Return what differs from None in the row of the call *i* of *count*."""
    provider, model, price_in, price_out = MODELS[min(int(draw.expovariate(0.6)), len(MODELS) - 1)]
    tokens, made, cached = draw.randrange(50, 8000), draw.randrange(1, 1200), 0
    if draw.random() < 0.4:
        cached = tokens // 2
    cost: int | None = (tokens * price_in + made * price_out) * 1000  # prices are millionths of dollars by 1000 tokens
    hit, unpriced = draw.random() < 0.125, draw.random() < 0.02
    usage = {"input_tokens": tokens, "output_tokens": made, "cache_read_tokens": cached}
    saved = {"input_tokens": tokens, "output_tokens": made, "model": model, "provider": provider, "cost_pusd": cost,
             "basis": "measured"}  # fmt: skip
    spent = None if unpriced else cost
    attempt = {"provider": provider, "priced_as": provider, "model": model, "billed": True, "usage": usage,
               "cost_pusd": spent, "status": 200, "error": None, "started_s": 0.0, "ended_s": 1.0}  # fmt: skip
    decisions = [{"lever": "exact_cache", "action": "hit", "mode": "on", "saved": saved}] if hit else []
    joules = 0.0 if hit else made * 0.8
    key = draw.randrange(24)
    return {
        "id": f"call-{i:09d}", "received_at": START + i * DAYS * 86_400 / count, "tenant": f"tenant-{key % 3}",
        "key_id": f"key-{key}", "request_class": draw.choice(CLASSES), "operation": "chat", "protocol": "chat",
        "stream": False, "request_model": model, "response_model": model, "provider": None if hit else provider,
        "ending": "answered", "status": 200, "cache": "hit" if hit else "miss", "holdout": False,
        "fingerprint": f"prompt-{i % 5000}", "attempts": 0 if hit else 1, "input_tokens": tokens,
        "output_tokens": made, "cache_read_tokens": cached, "cache_write_tokens": 0, "reasoning_tokens": 0,
        "usage_basis": "measured", "cost_pusd": 0 if hit else spent, "baseline_cost_pusd": cost,
        "price_source": None if hit or unpriced else "genai-prices", "energy_low_j": joules / 2, "energy_j": joules,
        "energy_high_j": joules * 2, "energy_basis": "estimated:class", "co2e_g": joules * 458 / 3.6e6,
        "duration_s": 1.0, "queue_s": 0.0, "upstream_s": 0.9, "overhead_s": 0.001,
        "decisions": json.dumps(decisions), "attempt_log": json.dumps([] if hit else [attempt]), "versions": "{}",
    }  # fmt: skip


def exported(folder: Path, form: str, by: str) -> dict[str, Any]:
    """Run the command in *folder*; return its seconds, peak memory, lines and the size of what it wrote."""
    out = folder / f"out.{form}"
    command = [sys.executable, "-m", "negawatt", "export", "--format", form, "--by", by, "--out", str(out), "--json"]
    begun = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - begun
    child.returncode = os.waitstatus_to_exitcode(status)  # it is waited for already
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
    found = json.loads(said)
    per_mib = 2**20 if sys.platform == "darwin" else 1024
    return {
        "seconds": round(took, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / per_mib), "calls": found["calls"], "lines": found["lines"],
        "file_mb": round(out.stat().st_size / 1e6, 1),
    }  # fmt: skip


def billed(path: Path) -> Decimal:
    """Return the sum of BilledCost over the CSV at *path*."""
    with path.open(encoding="utf-8", newline="") as file:
        return sum((Decimal(row["BilledCost"] or 0) for row in csv.DictReader(file)), Decimal(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--by", choices=("hour", "day"), default="day")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print only the last line")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = folder / "negawatt.sqlite"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            total = pool.apply(filled, (ledger, asked.rows, asked.seed))
        with sqlite3.connect(ledger) as connection:
            assert connection.execute("SELECT count(*) FROM outcome").fetchone() == (asked.rows,)
        connection.close()
        formats = {}
        for form in FORMATS:
            formats[form] = exported(folder, form, asked.by)
            if not asked.json:
                print(form, formats[form], flush=True)
        exact = billed(folder / "out.focus-csv") == Decimal(total).scaleb(-12)
        found = {
            "rows": asked.rows, "by": asked.by, "ledger_mb": round(ledger.stat().st_size / 1e6, 1),
            "sums_exact": exact, "formats": formats, "load": round(os.getloadavg()[1], 1), "machine": machine(),
        }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
