"""The two configurations that are compared: with everything that governs, and without. Both have prices and keys.

`ON` is what the first has and the second has not. Whatever is built to govern belongs in it, turned on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

KEY, KEY_ENV = "nw-bench-0123456789abcdef0123456789abcdef", "NEGAWATT_BENCH_KEY"
PRICES = """[[price]]
models = "*"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.6
source = "made up"
checked = 2026-11-24
"""
ON: dict[str, Any] = {
    "budgets": [
        {"name": "everything", "usd": 1_000_000, "per": "month"},
        {"name": "per-key", "usd": 100_000, "per": "day", "each": "key"},
        {"name": "per-user", "tokens": 10**12, "per": "day", "each": "user"},
        {"name": "energy", "joules": 10**12, "per": "week", "of": {"class": "*"}, "unknown": "pass"},
    ],
}


def off(folder: Path, name: str, upstream: str) -> dict[str, Any]:
    """Return a configuration with a ledger of its own in *folder*, whose model ``m`` is at *upstream*."""
    prices = folder / "prices.toml"
    prices.write_text(PRICES, encoding="utf-8")
    return {
        "ledger": {"url": f"sqlite:///{folder / name}.sqlite"},
        "economics": {"prices": str(prices)},
        "holdout": {"share": 0},
        "keys": [{"id": "bench", "key_env": KEY_ENV, "tenant": "bench", "user": "ann"}],
        "providers": [{"name": "stub", "kind": "openai-compatible", "base_url": upstream, "models": ["m"]}],
    }


def on(folder: Path, name: str, upstream: str) -> dict[str, Any]:
    """Return the same with everything that governs."""
    return {**off(folder, name, upstream), **ON}
