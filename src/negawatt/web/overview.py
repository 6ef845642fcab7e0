"""The first screen: tiles, the waterfall, the series, and what a reader must know to judge them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from negawatt.ledger.rollup_reader import Snapshot
from negawatt.ledger.rollup_tables import CALLS
from negawatt.web.facts import Facts
from negawatt.web.forecast import DAYS, forecast
from negawatt.web.intervals import METHOD
from negawatt.web.period import Period, day_of, days_before, month_of, zone_of
from negawatt.web.savings import Grouped, Levers, holdout, saved, waterfall
from negawatt.web.series import series
from negawatt.web.sums import PUSD, RELATIVE_ERROR, Sums, calls_by, latency, nothing

SCHEMA = "negawatt.overview/1"
_MONEY = ("calls", "cost_pusd", "unpriced")


def head(schema: str, snapshot: Snapshot, period: Period) -> dict[str, Any]:
    """Return what every answer about a period begins with."""
    progress = snapshot.progress
    return {
        "schema": schema,
        "period": period.shown(),
        "rollup": {"complete": progress.complete, "progress": round(progress.share, 4), "rows": progress.rows,
                   "behind": progress.behind},
    }  # fmt: skip


class View(NamedTuple):
    """What the first screen is made from."""

    snapshot: Snapshot
    period: Period
    facts: Facts
    grouped: Grouped
    totals: Sums


def overview(snapshot: Snapshot, period: Period, facts: Facts) -> dict[str, Any]:
    """Return the first screen's figures."""
    totals = calls_by(snapshot, period.whole, "total").get((0,), nothing(CALLS.sums))
    view = View(snapshot, period, facts, Grouped(snapshot, period.whole), totals)
    levers = Levers(snapshot, period.whole, view.grouped)
    return {
        **head(SCHEMA, snapshot, period),
        "tiles": _tiles(view),
        "waterfall": waterfall(view.grouped, levers, facts.levers),
        "series": series(snapshot, period),
        "honesty": _honesty(view),
    }


def _tiles(view: View) -> dict[str, Any]:
    snapshot, period, facts, grouped, totals = view
    ways = calls_by(snapshot, period.whole, "endings", ("cache", "ending"), ("calls",))
    endings, kinds = (
        _tally((key[2], sums["calls"]) for key, sums in ways.items()),
        _tally((key[1], sums["calls"]) for key, sums in ways.items()),
    )
    times = {what: snapshot.times(what, period.whole).get((0, "*")) for what in ("duration", "ttft")}
    calls = totals["calls"]
    return {
        "calls": calls,
        "saved": saved(grouped),
        "holdout": holdout(grouped),
        "spend": _spend(view),
        "success": facts.success,
        "latency": latency(times["duration"]),
        "ttft": latency(times["ttft"]),
        "overhead": {"n": calls, "mean_ms": 1e3 * totals["overhead_s"] / calls if calls else None},
        "errors": {"rate": grouped.rate("at_fault", "calls"), "calls": totals["at_fault"], "endings": endings},
        "uptime": _uptime(facts, period.now_s),
        "hits": {"rate": grouped.rate("hits", "looked_up"), "calls": totals["hits"], "kinds": kinds},
    }  # fmt: skip


def _uptime(facts: Facts, now: float) -> dict[str, Any]:
    started = facts.started_s
    passed = None if started is None else max(0.0, now - started)
    return {"started_s": started, "uptime_s": passed, "problems": facts.problems}


def _tally(pairs: Any) -> dict[str, int]:
    """Return the sums by name, the largest first."""
    found: dict[str, int] = {}
    for name, calls in pairs:
        found[name] = found.get(name, 0) + calls
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _spend(view: View) -> dict[str, Any]:
    snapshot, period, facts, _, totals = view
    now, zone = period.now_s, zone_of(period.zone)
    days = days_before(now, zone, DAYS)
    asked = [day_of(now, zone), month_of(now, zone), *days]
    found = calls_by(snapshot, asked, "total", names=_MONEY)
    today, month = (found.get((i,), nothing(_MONEY)) for i in range(2))
    costs = [found.get((i + 2,), nothing(_MONEY))["cost_pusd"] / PUSD for i in range(len(days))]
    told = forecast(
        now, period.zone, spent=month["cost_pusd"] / PUSD, days=costs, first_s=snapshot.earliest()
    )  # fmt: skip
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    return {
        "period_usd": totals.usd(),
        "period_baseline_usd": totals.usd("baseline_cost_pusd"),
        "unpriced": totals["unpriced"],
        "today_usd": today.usd(),
        "month_usd": month.usd(),
        "energy_wh": totals.energy(),
        "co2e_g": totals.known("co2e_g"),
        **{name: totals.known(name) for name in tokens},
        "unknown_usage": totals["unknown_usage"],
        "forecast": told.shown,
        "forecast_note": told.note,
        "budget": facts.budget,
    }


def _honesty(view: View) -> dict[str, Any]:
    snapshot, period, facts, grouped, totals = view
    sources: dict[str, int] = {}
    bases: dict[str, int] = {}
    texts: dict[str, int] = {}
    by = ("price_source", "energy_basis", "versions")
    for (_, source, basis, text), sums in calls_by(snapshot, period.whole, "sources", by, ("calls",)).items():
        for found, name in ((sources, source), (bases, basis), (texts, text)):
            if name:
                found[name] = found.get(name, 0) + sums["calls"]
    providers = calls_by(snapshot, period.whole, "models", ("provider",), ("calls",))
    kinds = _tally((facts.kinds.get(name, name), sums["calls"]) for (_, name), sums in providers.items())
    versions = {**facts.versions, **_versions(list(texts))}
    held, calls = sum(group["calls"] for group in grouped.held), totals["calls"]
    return {
        "rows": snapshot.progress.rows + snapshot.progress.behind,
        "calls": calls,
        "unpriced": totals["unpriced"],
        "unknown_usage": totals["unknown_usage"],
        "unknown_energy": totals["unknown_energy"],
        "prices": {"version": versions.get("prices"), "sources": _tally(sources.items())},
        "energy": {"version": versions.get("energy"), "bases": _tally(bases.items()), "boundary": facts.boundary},
        "grid": facts.grid,
        "holdout": {"share_configured": facts.holdout_share, "share_seen": held / calls if calls else None},
        "latency": {"relative_error": round(RELATIVE_ERROR, 3)},
        "intervals": METHOD,
        "simulated": {kind: kinds.get(kind, 0) for kind in ("modelled", "recorded")},
        "versions": versions,
    }


def _versions(texts: Sequence[str]) -> dict[str, str]:
    """Return the versions of the tables that the calls were priced by; several where they changed."""
    found: dict[str, list[str]] = {}
    for text in texts:
        try:
            told = orjson.loads(text or "{}")
        except orjson.JSONDecodeError:
            continue  # those beyond the most that are told apart
        for table, version in told.items() if isinstance(told, dict) else ():
            found.setdefault(table, []).append(str(version))
    return {table: ", ".join(dict.fromkeys(versions)) for table, versions in found.items()}
