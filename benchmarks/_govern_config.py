"""The configurations that are compared: with everything that governs, without, and with traces as well.

All have prices, a class with an owner, and their keys in a file. `ON` is what the first has and the second has not, the
watch and the page that is open (`_govern_overhead`) apart. Whatever is built to govern belongs in it, turned on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from negawatt.access.file import KeyFile
from negawatt.access.key import Terms

CLASS = "support"
RETRY_S = 2.0  # short, so that the verdicts that wait for it fall into what is measured
PRICES = """[[price]]
models = "*"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.6
source = "made up"
checked = 2026-11-24
"""
OFF: dict[str, Any] = {"telemetry": {"metrics": False}, "ledger": {"rollups": False}}
ON: dict[str, Any] = {
    "budgets": [
        {"name": "everything", "usd": 1_000_000, "per": "month"},
        {"name": "per-key", "usd": 100_000, "per": "day", "each": "key"},
        {"name": "per-user", "tokens": 10**12, "per": "day", "each": "user"},
        {"name": "energy", "joules": 10**12, "per": "week", "of": {"class": "*"}, "unknown": "pass"},
    ],
    "slo": {
        "latency_p95_ms": 2_000, "ttft_p95_ms": 1_000, "error_rate": 0.01, "cost_per_success_usd": 1.0,
        "cache_error": 0.01, "output_inflation": 1.5, "window_days": 28,
    },
    "alerts": {"anomalies": True, "sinks": [{"kind": "log"}]},
}  # fmt: skip
SUCCESS = {"answered": True, "no_retry_within_s": RETRY_S}


def make_key(folder: Path) -> str:
    """Make the file of keys in *folder*, and in it the one that calls and looks; return its secret."""
    terms = Terms(id="bench", tenant="bench", user="ann", admin=True)
    return KeyFile(_keys(folder)).create(terms, "benchmark", time.time())[1]


def ledger(folder: Path, name: str) -> Path:
    return folder / f"{name}.sqlite"


def off(folder: Path, upstream: str) -> dict[str, Any]:
    """Return a configuration with a ledger of its own in *folder*, whose model ``m`` is at *upstream*."""
    return {**_base(folder, "off", upstream), **OFF, "ledger": {**_ledger(folder, "off"), **OFF["ledger"]}}


def on(folder: Path, upstream: str, name: str = "on") -> dict[str, Any]:
    """Return the same with everything that governs."""
    found = {**_base(folder, name, upstream), **ON}
    found["classes"][CLASS]["success"] = SUCCESS
    return found


def with_traces(folder: Path, upstream: str, collector: str) -> dict[str, Any]:
    """Return that with every call traced, and traces and metrics sent to *collector*."""
    return {**on(folder, upstream, "with_traces"), "telemetry": {"otel": {"endpoint": collector, "share": 1.0}}}


def _base(folder: Path, name: str, upstream: str) -> dict[str, Any]:
    prices = folder / "prices.toml"
    prices.write_text(PRICES, encoding="utf-8")
    return {
        "ledger": _ledger(folder, name),
        "economics": {"prices": str(prices)},
        "holdout": {"share": 0},
        "access": {"keys": f"sqlite:///{_keys(folder)}"},
        "classes": {CLASS: {"owner": "desk"}},
        "providers": [{"name": "stub", "kind": "openai-compatible", "base_url": upstream, "models": ["m"]}],
    }


def _keys(folder: Path) -> Path:
    return folder / "keys.sqlite"


def _ledger(folder: Path, name: str) -> dict[str, Any]:
    return {"url": f"sqlite:///{ledger(folder, name)}"}
