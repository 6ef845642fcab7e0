"""The tables of a report that are about caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negawatt.proof import formats
from negawatt.proof.page import Cell

Figures = Mapping[str, Any]
Cells = tuple[list[Cell], list[list[Cell]]]


def used_caches(summary: Figures) -> Figures:
    """Return the caches that looked at any call."""
    return {name: cache for name, cache in summary["caches"].items() if cache["calls"] or cache["hits"]}


def caches_table(summary: Figures) -> Cells:
    """Return the head and the rows of the table of caches."""
    head = [Cell.of("cache"), Cell.of("calls", "answered", "stale"), Cell.of("share", "95 % interval")]
    head += [Cell.of("cost saved", "energy, est.", "low–high"), Cell.of("tokens in", "out"), Cell.of("age p50", "p95")]
    rows = []
    for name, cache in used_caches(summary).items():
        low, central, high = cache["energy_wh"]
        unpriced = cache["unpriced_hits"]
        rows.append([
            Cell.of(name),
            Cell.of(*(formats.count(cache[key]) for key in ("calls", "hits", "stale"))),
            Cell.of(*_share_and_bounds(cache["hit_rate"])),
            Cell.of(
                formats.usd(cache["cost_usd"]), f"+ {unpriced:,} unpriced" if unpriced else "", formats.wh(central),
                "" if central is None else formats.wh_range(low, high),
            ),
            Cell.of(formats.count(cache["input_tokens"]), formats.count(cache["output_tokens"])),
            Cell.of(*("–" if s is None else formats.seconds(s) for s in cache["age_s"].values())),
        ])  # fmt: skip
    return head, rows


def learned_table(summary: Figures) -> Cells:
    """Return the head and the rows of what the semantic cache has learned."""
    head = [Cell.of("class", "tier"), Cell.of("wrong, est.", "interval"), Cell.of("budget"), Cell.of("requests")]
    head += [Cell.of("served", "explored"), Cell.of("compared", "by people")]
    rows = []
    for row in summary.get("learned") or ():
        wrong = row["wrong_share"]
        counts = {name: formats.count(row[name]) for name in ("served", "explored", "compared", "human")}
        rows.append([
            Cell.of(row["class"], row["tier"]),
            Cell.of(formats.UNKNOWN) if wrong is None else Cell.of(*_share_and_bounds(wrong, fine=True)),
            Cell.of("none" if row["budget"] is None else _fine(row["budget"])),
            Cell.of(formats.count(row["requests"])),
            Cell.of(counts["served"], counts["explored"]),
            Cell.of(counts["compared"], counts["human"]),
        ])  # fmt: skip
    return head, rows


def _share_and_bounds(rate: Figures, *, fine: bool = False) -> tuple[str, str]:
    if rate["mean"] is None:
        return "–", ""
    form = _fine if fine else formats.percent
    low, high = ("?" if rate[end] is None else form(rate[end]).removesuffix(" %") for end in ("low", "high"))
    return form(rate["mean"]), f"[{low}, {high}]"


def _fine(share: float) -> str:
    """Return a share as a percentage with two digits behind the point: budgets are small."""
    return f"{100 * share:.2f} %"


def caches_note(summary: Figures) -> str:
    """Return what must be known to read the table of caches."""
    note = (
        "Of the calls that each cache looked at. Stale: given beyond its lifetime, while the model was asked anew. "
        "What coalescing forwards it does not count. Caches of the application's own work leave no rows: they are in "
        "the metrics (negawatt_layer_operations_total) only."
    )
    semantic = summary["caches"]["semantic_cache"]
    if semantic["curated_hits"]:
        note += f" Curated answers of the semantic cache: {formats.count(semantic['curated_hits'])}."
    if semantic["explored"]:
        note += f" Asked although it would have answered, to compare: {formats.count(semantic['explored'])} calls."
    return note


def learned_note(summary: Figures) -> str:
    """Return how to read the estimate of wrong answers, or why there is none; empty where nobody asked for it."""
    if summary.get("learned"):
        return (
            "Wrong answers of the semantic cache, as a share of the newest 20,000 requests of the class: "
            "modelled from explored calls and interval at the lever's own confidence, for learned answers; the share "
            "that people found wrong among those they looked at, for curated ones."
        )
    return str(summary.get("learned_note") or "")
