"""From the rounds of the overhead benchmark to its JSON object and its table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

Figures = dict[str, Any]

# Always there, null where it was not measured: the reason stands under "reasons".
KEYS = (
    "forward_rps",
    "hit_rps",
    "added_p50_ms",
    "added_p99_ms",
    "stream_chunks_per_s",
    "rss_mb",
    "start_s",
    "import_ms",
)
P99_NEEDS = 300  # samples; a p99 of fewer is hidden
FAST_OFFERED = 32_000  # chunks a second


def summary(rounds: Sequence[Figures]) -> Figures:
    """Return the median of every figure over the *rounds*, and (least, most, n) of each under ``spread``."""
    names = [name for sample in rounds for name in sample if not name.startswith("_")]
    result: Figures = dict.fromkeys(KEYS)
    spread: Figures = {}
    for name in dict.fromkeys(names):
        values = [sample[name] for sample in rounds if sample.get(name) is not None]
        if name.endswith("_shares"):
            result[name] = {k: _short(statistics.median(v[k] for v in values)) for k in (values[0] if values else ())}
        elif values:
            result[name] = _short(statistics.median(values))
            spread[name] = [_short(min(values)), _short(max(values)), len(values)]
        else:
            result[name] = None
    result |= _latency(rounds)
    result["spread"] = spread
    result["notes"] = _notes(result)
    return result


def _latency(rounds: Sequence[Figures]) -> Figures:
    """Return the p95 and p99 of all rounds together: through the gateway minus direct."""
    pooled: dict[str, list[float]] = {"direct": [], "through": []}
    for sample in rounds:
        for side, values in sample.get("_latency", {}).items():
            pooled[side] += values
    n = len(pooled["through"])
    if n < P99_NEEDS:
        return {"added_p99_ms": None, "latency_n": n}
    cut = {side: statistics.quantiles(values, n=100) for side, values in pooled.items()}
    added = {f"added_p{p}_ms": _short(1e3 * (cut["through"][p - 1] - cut["direct"][p - 1])) for p in (95, 99)}
    return {**added, "latency_n": n}


def _notes(figures: Figures) -> list[str]:
    """Return what a reader must know before using the figures."""
    notes = []
    for name, shares in figures.items():
        if not name.endswith("_shares") or not shares:
            continue
        what = name.removesuffix("_shares")
        if shares["load_cpu_pct"] + shares["stub_cpu_pct"] > 90 and shares["gateway_cpu_pct"] < 90:
            notes.append(f"{what}: load and stub used their CPU up: the gateway may do more than this")
        if shares["foreign_cpu_pct"] > 20:
            notes.append(f"{what}: other processes used {shares['foreign_cpu_pct']:.0f} % of a CPU meanwhile")
    if (figures.get("stream_chunks_per_s") or 0) > 0.93 * FAST_OFFERED:
        notes.append("stream_chunks_per_s: all that was offered; compare stream_fast_cpu_us_per_chunk")
    if figures.get("added_p99_ms") is None and figures.get("latency_n"):
        notes.append(f"added_p99_ms: hidden, {figures['latency_n']} samples are fewer than {P99_NEEDS}")
    if figures.get("ledger_rows") is not None and figures["ledger_rows"] < figures["ledger_answered"]:
        notes.append(f"ledger: {figures['ledger_rows']} rows for {figures['ledger_answered']} answered calls")
    return notes


def _short(value: float) -> float:
    """Return *value* with four significant digits, whole above 1,000 and where it is whole."""
    return round(value) if abs(value) >= 1000 or value == round(value) else float(f"{value:.4g}")


def _get(figures: Figures, name: str, key: str) -> float | None:
    value = (figures.get(name) or {}).get(key)
    return None if value is None else float(value)


def ratios(figures: Figures) -> dict[str, float | None]:
    """Return how many times negawatt's figure is of a peer's (None where one of them is missing)."""
    pairs = {
        "forward_over_litellm": ("forward_rps", "litellm", "forward_rps"),
        "forward_over_portkey": ("forward_rps", "portkey", "forward_rps"),
        "forward_over_tensorzero": ("forward_rps", "tensorzero", "forward_rps"),
        "hit_over_tensorzero_forward": ("hit_rps", "tensorzero", "forward_rps"),
        "hit_over_litellm_hit": ("hit_rps", "litellm", "hit_rps"),
        "stream_chunks_over_litellm": ("stream_chunks_per_s", "litellm", "stream_chunks_per_s"),
        "stream_chunks_over_portkey": ("stream_chunks_per_s", "portkey", "stream_chunks_per_s"),
        "stream_chunks_over_tensorzero": ("stream_chunks_per_s", "tensorzero", "stream_chunks_per_s"),
        "stream_cpu_over_tensorzero": ("stream_cpu_us_per_chunk", "tensorzero", "stream_cpu_us_per_chunk"),
        "rss_over_litellm": ("rss_mb", "litellm", "rss_mb"),
        "rss_over_tensorzero": ("rss_mb", "tensorzero", "rss_mb"),
    }
    found = {name: (_get(figures, "ours", mine), _get(figures, peer, its)) for name, (mine, peer, its) in pairs.items()}
    return {name: _short(mine / its) if mine is not None and its else None for name, (mine, its) in found.items()}


GOALS: tuple[tuple[str, str, Callable[[float, float], bool], float], ...] = (
    ("forward over LiteLLM", "ratio:forward_over_litellm", float.__ge__, 60.0),
    ("forward over TensorZero", "ratio:forward_over_tensorzero", float.__ge__, 1.0),
    ("exact-cache hits per second", "hit_rps", float.__ge__, 8000.0),
    ("hit over TensorZero's forward", "ratio:hit_over_tensorzero_forward", float.__ge__, 1.5),
    ("added latency p50, ms", "added_p50_ms", float.__le__, 0.5),
    ("first chunk later by, ms", "stream_first_added_ms", float.__le__, 1.5),
    ("CPU per chunk, us", "stream_cpu_us_per_chunk", float.__le__, 60.0),
    ("1,000 in flight, requests per second", "in_flight_1000_rps", float.__ge__, 2500.0),
    ("1,000 in flight, errors", "in_flight_1000_errors", float.__le__, 0.0),
    ("memory, MB", "rss_mb", float.__le__, 110.0),
    ("start, s", "start_s", float.__le__, 1.0),
    ("import, ms", "import_ms", float.__le__, 150.0),
)


def goals(figures: Figures) -> list[dict[str, object]]:
    """Return each figure to reach, with what was reached; ``met`` is None where it was not measured."""
    found = ratios(figures)
    result: list[dict[str, object]] = []
    for what, key, holds, goal in GOALS:
        ratio = key.removeprefix("ratio:")
        value = found[ratio] if ratio != key else _get(figures, "ours", key)
        met = None if value is None else holds(float(value), goal)
        result.append({"what": what, "goal": goal, "relation": holds.__name__.strip("_"), "value": value, "met": met})
    return result


ROWS = (
    ("forward, 32 in flight, req/s", "forward_rps"),
    ("  CPU per request, us", "forward_cpu_us"),
    ("exact-cache hit, req/s", "hit_rps"),
    ("  CPU per hit, us", "hit_cpu_us"),
    ("added latency p50, ms", "added_p50_ms"),
    ("added latency p99, ms (the machine's)", "added_p99_ms"),
    ("16 streams, 533 chunks/s: first chunk later by, ms", "stream_first_added_ms"),
    ("16 streams, 3,200 chunks/s: CPU per chunk, us", "stream_cpu_us_per_chunk"),
    ("16 streams, 32,000 chunks/s offered: relayed per s", "stream_chunks_per_s"),
    ("  CPU per chunk, us", "stream_fast_cpu_us_per_chunk"),
    ("1,000 in flight on 200 ms, req/s", "in_flight_1000_rps"),
    ("  errors", "in_flight_1000_errors"),
    ("memory idle, MB", "rss_idle_mb"),
    ("memory after load, MB", "rss_mb"),
    ("memory with 100 stalled readers, MB", "stalled_rss_mb"),
    ("  a plain request meanwhile, ms", "stalled_answer_ms"),
    ("memory at most, MB", "rss_peak_mb"),
    ("start, s", "start_s"),
    ("import, ms", "import_ms"),
    ("  with the server, ms", "import_serve_ms"),
)


def as_table(report: dict[str, Any]) -> str:
    """Return the figures as a Markdown table: median over the rounds, (least to most)."""
    names = [name for name in ("direct", "portkey", "tensorzero", "litellm", "ours") if report.get(name)]
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for title, key in ROWS:
        lines.append(f"| {title} | " + " | ".join(_cell(report[name], key) for name in names) + " |")
    for name in names:
        lines += [f"\n{name}: {note}" for note in report[name]["notes"]]
    lines += [f"\n{name}: {why}" for name, why in report["reasons"].items()]
    return "\n".join(lines)


def _cell(figures: Figures, key: str) -> str:
    value = figures.get(key)
    if value is None:
        return "–"
    least, most, n = figures["spread"].get(key, (value, value, 1))
    text = f"{value:,}"
    return text if n < 2 or least == most else f"{text} ({least:,} to {most:,})"
