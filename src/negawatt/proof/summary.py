"""What a replay, or a live ledger, shows: every figure of a report, as plain JSON values.

The shape is described in docs/report.md. Unknown is null and counted, never 0; a saving is positive when less was
used; every saving is ``{mean, low, high}``, where *mean* is the figure over all calls and the rest its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import numpy as np

from negawatt.ledger.outcome import Outcome
from negawatt.proof.caches import cache_figures
from negawatt.proof.figures import (
    DELIVERED,
    PUSD,
    Figures,
    Rows,
    Table,
    arm_figures,
    builtin,
    decisions_of,
    lever_figures,
    lever_order,
    row_figures,
    savings,
)
from negawatt.statistics import UNDEFINED, Array, Bootstrap, Interval, column

Provider = Literal["recorded", "modelled", "live"]

REPLAY = "negawatt.replay/1"
LEDGER = "negawatt.ledger/1"
SAVINGS = ("cost_pct", "input_tokens_pct", "output_tokens_pct", "energy_pct", "latency_p50_pct")
HOLDOUT_NEEDS = 30  # calls; with fewer the holdout says nothing
_LEAVING_OUT = "without_"
_POINTS = 240  # of a curve


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What every report says about itself. *grid*: zone, year and source of the carbon intensity."""

    title: str
    date: str
    seed: int = 1
    machine: str = ""
    command: str = ""
    boundary: str = "facility"
    grid: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}
    notes: Sequence[str] = ()


class ArmRun(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of a replay: ``none``, ``all`` or ``without_<lever>``.

    The same index is the same request in every arm. *success* None: not known. *clusters*: what repeats belong
    together, the unit of resampling.
    """

    name: str
    outcomes: Sequence[Outcome]
    success: Sequence[bool | None]
    clusters: Sequence[str]
    upstream_calls: int


class ReplayRun(About, frozen=True, kw_only=True):
    """A replay that has ended. *simulated*: something in it is modelled, and *notes* say what."""

    requests: int
    provider: Provider
    arms: Sequence[ArmRun]
    workload: Mapping[str, Any]
    simulated: bool


class LedgerView(About, frozen=True, kw_only=True):
    """How to report on a live ledger. *kinds*: the kind of each provider, where it is not its name.

    *learned*: what the semantic cache has learned, a row for each class and tier (`negawatt.recall.state`); None where
    it cannot be read, and *learned_note* says why.
    *tasks*: the figures of all tasks, and of each class (`negawatt.success.figures`); None where nobody rolled them up.
    """

    kinds: Mapping[str, str] = {}
    learned: Sequence[Mapping[str, Any]] | None = None
    learned_note: str = ""
    tasks: Mapping[str, Any] | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The curves of a report, by arm: sorted latencies, and (seconds, dollars so far).

    The seconds count from the first call, or since 1970 where *dated*.
    """

    latency_ms: dict[str, list[float]]
    cost_usd: dict[str, list[tuple[float, float]]]
    dated: bool = False


def summarise(run: ReplayRun) -> dict[str, Any]:
    """Return the summary of *run*. Raises ValueError when its arms do not hold the same requests."""
    sizes = {len(part) for arm in run.arms for part in (arm.outcomes, arm.success, arm.clusters)}
    if sizes - {run.requests}:
        raise ValueError(f"every arm must hold all {run.requests} requests; found {sorted(sizes)}")
    boot = Bootstrap(run.arms[0].clusters if run.arms else (), np.random.default_rng(run.seed))
    tables = {arm.name: Table.actual(arm.outcomes) for arm in run.arms}
    none, full = tables.get("none"), tables.get("all")
    arms: Figures = {}
    for arm in run.arms:
        figures = arm_figures(tables[arm.name], _successes(arm.success), boot)
        figures |= {"upstream_calls": arm.upstream_calls, **row_figures(arm.outcomes)}
        if none is not None and arm.name != "none":
            figures["savings"] = savings(none, tables[arm.name], boot)
        arms[arm.name] = figures
    outcomes = next((arm.outcomes for arm in run.arms if arm.name == "all"), ())
    base = None if none is None or full is None else none.cost_pusd
    rows = Rows(outcomes=outcomes, decided=decisions_of(outcomes), base_cost_pusd=base)
    left_out = [name.removeprefix(_LEAVING_OUT) for name in tables if name.startswith(_LEAVING_OUT)]
    levers = _levers(rows, boot, also=left_out)
    for lever, figures in levers.items():
        without = tables.get(_LEAVING_OUT + lever)
        if none is not None and full is not None and without is not None:
            figures["marginal"] = _marginal(none, without, full, boot)
    return builtin({
        "schema": REPLAY,
        "first_line": _replay_line(run),
        "requests": run.requests,
        "provider": run.provider,
        "simulated": run.simulated or run.provider == "modelled",
        "arms": arms,
        "savings": arms.get("all", {}).get("savings") or dict.fromkeys(SAVINGS, UNDEFINED),
        "levers": levers,
        "caches": cache_figures(rows, boot),
        "workload": run.workload,
        **_about(run, boot),
    })  # fmt: skip


def summarise_ledger(outcomes: Sequence[Outcome], view: LedgerView) -> dict[str, Any]:
    """Return the summary of *outcomes*: as the calls went, against what each would have come to without levers."""
    rows = sorted(outcomes, key=lambda o: (o.received_at, o.id))
    boot = Bootstrap([o.fingerprint or o.id for o in rows], np.random.default_rng(view.seed))
    actual, baseline = Table.actual(rows), Table.baseline(rows)
    judged = _successes([None] * len(rows))
    attempts = sum(o.attempts for o in rows)
    decided = Rows(outcomes=rows, decided=decisions_of(rows), base_cost_pusd=baseline.cost_pusd)
    arms = {
        "baseline": arm_figures(baseline, judged, boot) | {"upstream_calls": None},
        "actual": arm_figures(actual, judged, boot) | {"upstream_calls": attempts, **row_figures(rows)},
    }
    saved = savings(baseline, actual, boot)
    arms["actual"]["savings"] = saved
    kinds = {view.kinds.get(o.provider, o.provider) for o in rows if o.provider is not None} & {"modelled", "recorded"}
    versions = _versions(rows)
    return builtin({
        "schema": LEDGER,
        "first_line": _ledger_line(view, rows),
        "requests": len(rows),
        "provider": "live",
        "simulated": bool(kinds),
        "arms": arms,
        "savings": saved,
        "levers": _levers(decided, boot),
        "shadow_levers": _levers(decided, boot, shadow=True),
        "caches": cache_figures(decided, boot),
        "learned": view.learned,
        "learned_note": view.learned_note,
        "tasks": view.tasks,
        "holdout": _holdout(rows, actual, baseline, boot),
        "period": {"from": _iso(rows[0].received_at), "to": _iso(rows[-1].received_at)} if rows else None,
        **_about(view, boot),
        "versions": {**versions, **view.versions},
    })  # fmt: skip


def series_of(run: ReplayRun) -> Series:
    """Return the curves of *run*, with no levers and with all of them."""
    arms = [arm for arm in run.arms if arm.name in ("none", "all")]
    start = min((o.received_at for arm in arms for o in arm.outcomes), default=0.0)
    return Series(
        latency_ms={arm.name: _latencies(arm.outcomes, [o.duration_s for o in arm.outcomes]) for arm in arms},
        cost_usd={arm.name: _so_far(arm.outcomes, [o.cost_pusd for o in arm.outcomes], start) for arm in arms},
    )


def ledger_series(outcomes: Sequence[Outcome]) -> Series:
    """Return the curves of a live ledger, as it went and as it would have gone without levers."""
    return Series(
        latency_ms={
            "baseline": _latencies(outcomes, [o.baseline_duration_s for o in outcomes]),
            "actual": _latencies(outcomes, [o.duration_s for o in outcomes]),
        },
        cost_usd={
            "baseline": _so_far(outcomes, [o.baseline_cost_pusd for o in outcomes], 0.0),
            "actual": _so_far(outcomes, [o.cost_pusd for o in outcomes], 0.0),
        },
        dated=True,
    )


def _levers(rows: Rows, boot: Bootstrap, *, also: Sequence[str] = (), shadow: bool = False) -> dict[str, Figures]:
    """Return the figures of each lever that spared something, and of those in *also*, in pipeline order."""
    order = lever_order(rows.decided)
    for place, lever in enumerate(also):  # they are in pipeline order too
        if lever not in order:
            order.insert(max((order.index(one) + 1 for one in also[:place]), default=0), lever)
    figures = {lever: lever_figures(lever, rows, boot, shadow=shadow) for lever in order}
    return {lever: found for lever, found in figures.items() if found["hits"] or lever in also}


def _marginal(none: Table, without: Table, full: Table, boot: Bootstrap) -> dict[str, Interval]:
    """Return what a lever adds to all others: in percentage points of no levers, and in dollars."""
    dollars = boot.of_sums(lambda sums: (sums[..., 0] - sums[..., 1]) / PUSD, without.cost_pusd, full.cost_pusd)
    return {**savings(without, full, boot, base=none), "cost_usd": dollars}


def _holdout(rows: Sequence[Outcome], actual: Table, baseline: Table, boot: Bootstrap) -> Figures | None:
    """Return the holdout beside the rest: what was measured to be saved per call, and what was estimated."""
    held = np.array([1.0 if o.holdout else 0.0 for o in rows])
    count = int(held.sum())
    if count == 0:
        return None
    rest, cost, base = 1 - held, actual.cost_pusd, baseline.cost_pusd
    columns = (cost * held, held, cost * rest, rest, base * rest)

    def measured(s: Array) -> Array:
        return np.asarray(100 * (1 - (s[..., 2] / s[..., 3]) / (s[..., 0] / s[..., 1])))

    def estimated(s: Array) -> Array:
        return np.asarray(100 * (1 - s[..., 2] / s[..., 4]))

    gap = boot.of_sums(lambda s: measured(s) - estimated(s), *columns)
    return {
        "requests": count,
        "other_requests": len(rows) - count,
        "cost_per_call_usd": boot.ratio(cost * held / PUSD, held),
        "other_cost_per_call_usd": boot.ratio(cost * rest / PUSD, rest),
        "measured_saving_pct": boot.of_sums(measured, *columns),
        "estimated_saving_pct": boot.of_sums(estimated, *columns),
        "gap_points": gap,
        "verdict": _verdict(count, gap),
    }


def _verdict(count: int, gap: Interval) -> str:
    if count < HOLDOUT_NEEDS or gap.low is None or gap.high is None:
        return "too few"
    return "agree" if gap.low <= 0 <= gap.high else "disagree"


def _about(about: About, boot: Bootstrap) -> dict[str, Any]:
    return {
        "title": about.title,
        "date": about.date,
        "seed": about.seed,
        "machine": about.machine,
        "command": about.command,
        "energy_basis": {"basis": "estimated", "boundary": about.boundary, "grid": about.grid},
        "versions": about.versions,
        "notes": about.notes,
        "method": {
            "confidence": 0.95,
            "interval": "percentile bootstrap, whole clusters of repeats resampled",
            "rates": "Clopper-Pearson at the effective sample size",
            "resamples": boot.resamples,
            "clusters": boot.clusters,
        },
    }


def _replay_line(run: ReplayRun) -> str:
    """Return the report's first line: what in it is real and what is not."""
    if run.provider == "modelled":
        line = "Simulated: the provider is a model of latency, nothing was answered; replayed on a virtual clock"
    elif run.provider == "recorded":
        line = "Recorded: the answers come from a recording, replayed on a virtual clock"
        line = f"Partly simulated. {line}" if run.simulated else line
    else:
        line = "Partly simulated. Live provider" if run.simulated else "Live: a real provider answered"
    return "; ".join([line, *run.notes]) + "."


def _ledger_line(view: LedgerView, rows: Sequence[Outcome]) -> str:
    stood_in = [view.kinds.get(o.provider, o.provider) for o in rows if o.provider is not None]
    parts = ["Live ledger: costs are of calls that were made; what they would have cost without levers is estimated"]
    for kind, verb in (("modelled", "was modelled"), ("recorded", "came from a recording")):
        if kind in stood_in:
            parts.insert(0, f"Partly simulated: the answer of {stood_in.count(kind):,} of {len(rows):,} calls {verb}")
    return "; ".join([*parts, *view.notes]) + "."


def _versions(rows: Sequence[Outcome]) -> dict[str, str]:
    """Return the versions of the tables that the rows were priced by; several where they changed."""
    found: dict[str, list[str]] = {}
    for text in dict.fromkeys(o.versions for o in rows):
        for table, version in msgspec.json.decode(text or "{}", type=dict[str, str]).items():
            found.setdefault(table, []).append(version)
    return {table: ", ".join(dict.fromkeys(versions)) for table, versions in found.items()}


def _successes(success: Sequence[bool | None]) -> Array:
    return column(None if passed is None else float(passed) for passed in success)


def _latencies(outcomes: Sequence[Outcome], seconds: Sequence[float | None]) -> list[float]:
    """Return the latencies of delivered answers in ms, sorted, thinned to evenly spaced quantiles."""
    pairs = zip(outcomes, seconds, strict=True)
    values = sorted(s * 1e3 for o, s in pairs if s is not None and o.ending in DELIVERED)
    if len(values) <= _POINTS:
        return values
    return [values[round(i * (len(values) - 1) / (_POINTS - 1))] for i in range(_POINTS)]


def _so_far(outcomes: Sequence[Outcome], costs: Sequence[int | None], start: float) -> list[tuple[float, float]]:
    """Return (seconds since *start*, dollars so far), thinned to evenly spaced times. Unknown costs add nothing."""
    pairs = sorted((o.received_at - start, cost or 0) for o, cost in zip(outcomes, costs, strict=True))
    if not pairs:
        return []
    first, width = pairs[0][0], (pairs[-1][0] - pairs[0][0]) / _POINTS
    nothing_yet = (first, 0.0)
    bins: dict[int, tuple[float, float]] = {}
    total = 0
    for at, cost in pairs:
        total += cost
        bins[int((at - first) / width) if width > 0 else 0] = (at, total / PUSD)
    return [nothing_yet, *bins.values()]


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
