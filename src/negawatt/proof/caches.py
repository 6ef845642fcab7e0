"""What each cache did, from the rows of the ledger: hits, what they saved, how old the answers were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from negawatt.ledger.outcome import Outcome

LEVERS = ("exact_cache", "item_cache", "coalesce", "semantic_cache")
_HITS = ("hit", "stale", "partial", "joined")


class CacheReport(msgspec.Struct, kw_only=True):
    """One cache. *asked*: calls that it looked at; *unpriced*: hits of which it is not known what they saved."""

    name: str
    calls: int = 0
    asked: int = 0
    hits: int = 0
    stale: int = 0
    explored: int = 0
    saved_pusd: int = 0  # of all others
    unpriced: int = 0
    saved_joules: float = 0.0  # central
    risks: float = 0.0  # sum over hits of how likely each was to be wrong, as the rule said: modelled
    age_p50_s: float | None = None
    age_p95_s: float | None = None


def caches(rows: Iterable[Outcome]) -> list[CacheReport]:
    """Return the report of each cache over *rows*. Shadow decisions count for nothing: they answered nobody."""
    reports = {name: CacheReport(name=name) for name in LEVERS}
    ages: dict[str, list[float]] = {name: [] for name in LEVERS}
    for row in rows:
        for name in LEVERS:
            reports[name].calls += 1
        for decision in orjson.loads(row.decisions):
            if decision["lever"] in reports and decision.get("mode", "on") != "shadow":
                _add(reports[decision["lever"]], decision, ages[decision["lever"]])
    for name, report in reports.items():
        report.age_p50_s, report.age_p95_s = _quantile(ages[name], 0.5), _quantile(ages[name], 0.95)
    return list(reports.values())


def _add(report: CacheReport, decision: dict[str, Any], ages: list[float]) -> None:
    action = decision["action"]
    if action in (*_HITS, "miss", "explored"):
        report.asked += 1
    report.explored += action == "explored"
    if action not in _HITS:
        return
    report.hits += 1
    report.stale += action == "stale"
    detail = decision.get("detail") or {}
    if isinstance(detail.get("age_s"), (int, float)):
        ages.append(float(detail["age_s"]))
    report.risks += detail.get("risk", 0.0)
    saved = decision.get("saved")
    if saved is None or saved.get("cost_pusd") is None:
        report.unpriced += 1
        return
    report.saved_pusd += saved["cost_pusd"]
    if saved.get("energy_j") is not None:
        report.saved_joules += saved["energy_j"][1]


def _quantile(values: list[float], share: float) -> float | None:
    if not values:
        return None
    values.sort()
    return values[min(len(values) - 1, int(share * len(values)))]
