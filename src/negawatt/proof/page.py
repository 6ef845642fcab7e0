"""What stands in a report: words, tables and pictures, made from a summary. No markup but that of the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from negawatt.proof import charts, formats
from negawatt.proof.figures import P95_NEEDS
from negawatt.proof.summary import Series

WIDTHS = (720, 340)  # each picture is made for a desk and for a phone
_RESIDUAL = 0.005  # of the first bar: a smaller difference between decisions and totals gets no bar of its own

Figures = Mapping[str, Any]

_FORMS: tuple[tuple[str, str, formats.Format], ...] = (
    ("input_tokens", "input tokens", formats.count),
    ("output_tokens", "output tokens", formats.count),
    ("cost_usd", "cost", formats.usd),
    ("energy_wh", "energy (estimated)", formats.wh),
    ("latency_s", "latency, all calls", formats.seconds),
)
_HEADLINE = (
    ("cost_pct", "cost", ""),
    ("energy_pct", "energy", " (estimated)"),
    ("input_tokens_pct", "input tokens", ""),
    ("output_tokens_pct", "output tokens", ""),
    ("latency_p50_pct", "latency p50", ""),
)


class Tile(NamedTuple):
    """One saving, large: the change, its interval, and lines that say from what to what."""

    name: str
    change: str
    bounds: str
    details: Sequence[str]


class Cell(NamedTuple):
    """One cell of a table: a figure, and lesser ones under it."""

    text: str
    under: Sequence[str] = ()

    @classmethod
    def of(cls, text: str, *under: str) -> Cell:
        return cls(text, [line for line in under if line])


class Picture(NamedTuple):
    """A picture in two widths, with the table of its numbers."""

    title: str
    note: str
    wide: str
    narrow: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def ends(summary: Figures) -> tuple[Figures | None, Figures | None]:
    """Return the two arms that are compared: without any lever, and with all of them; None where it was not run."""
    arms = summary["arms"]
    return arms.get("none", arms.get("baseline")), arms.get("all", arms.get("actual"))


def arm_label(name: str) -> str:
    """Return the words for an arm."""
    if name.startswith("without_"):
        return f"all but {name.removeprefix('without_')}"
    words = {"none": "no levers", "all": "all levers", "baseline": "no levers (est.)", "actual": "as it went"}
    return words.get(name, name)


def headline(summary: Figures) -> str:
    """Return the savings in one line, as changes: ``cost −41 % [−45, −37] · energy −38 % [−42, −34] (estimated)``."""
    parts = [f"{name} {formats.change(summary['savings'][key])}{mark}" for key, name, mark in _HEADLINE]
    return " · ".join(parts)


def unpriced(arm: Figures) -> str:
    """Return how many calls a cost leaves out; empty when it is complete."""
    n = arm["unpriced_requests"]
    return f"+ {n:,} unpriced" if n else ""


def tail_ms(arm: Figures) -> str:
    """Return the p95, or why it is not shown."""
    return f"n < {P95_NEEDS}" if arm["p95_ms"] is None else formats.ms(arm["p95_ms"])


def success(arm: Figures) -> tuple[str, str, str]:
    """Return the success rate, the cost of all judged calls for each that succeeded, and how many were judged.

    A dash if none was judged; the third is empty if all were.
    """
    judged = arm["judged_requests"]
    if not judged:
        return "–", "", ""
    each = arm["cost_per_success_usd"]
    some = "" if judged == arm["requests"] else f"{judged:,} judged"
    return formats.percent(arm["success_rate"]), "undefined" if each is None else formats.usd(each), some


def versus(arm: Figures, key: str) -> str:
    """Return an arm's change against no levers, without its interval."""
    if "savings" not in arm:
        return ""
    saving = arm["savings"][key]
    return formats.change({**saving, "low": None, "high": None})


def tiles(summary: Figures) -> list[Tile]:
    """Return the savings, and the success rate where it is known."""
    before, after = ends(summary)
    if before is None or after is None:
        return []

    def of(key: str, name: str, figure: str, form: formats.Format) -> Tile:
        saving = summary["savings"][key]
        change = formats.change({**saving, "low": None, "high": None})
        details = [f"{form(_central(before[figure]))} → {form(_central(after[figure]))}"]
        if isinstance(after[figure], list):
            details.append(f"({formats.wh_range(after[figure][0], after[figure][2])})")
        return Tile(name, change, formats.bounds_of_change(saving), details)

    made = [
        of("cost_pct", "cost", "cost_usd", formats.usd),
        of("energy_pct", "energy (estimated)", "energy_wh", formats.wh),
        of("input_tokens_pct", "input tokens", "input_tokens", formats.count),
        of("output_tokens_pct", "output tokens", "output_tokens", formats.count),
        of("latency_p50_pct", "latency p50", "p50_ms", formats.ms),
    ]
    if after["success_rate"] is not None:
        rate = after["intervals"]["success_rate"]
        each = [success(arm)[1] for arm in (before, after)]
        low, high = (formats.percent(rate[end]).removesuffix(" %") for end in ("low", "high"))
        judged = ", ".join(filter(None, ("cost of each", success(after)[2])))
        made.append(Tile("success", formats.percent(rate["mean"]), f"[{low}, {high}]", [" → ".join(each), judged]))
    return made


def _central(figure: Any) -> Any:
    return figure[1] if isinstance(figure, list) else figure


def arms_table(summary: Figures) -> tuple[list[Cell], list[list[Cell]]]:
    """Return the head and the rows of the table of arms; each cell holds a figure and, under it, a lesser one."""
    head = [Cell.of("arm"), Cell.of("cost", "change"), Cell.of("energy, est.", "low–high"), Cell.of("CO₂e")]
    head += [Cell.of("tokens in", "out"), Cell.of("upstream", "calls"), Cell.of("p50", "p95")]
    head += [Cell.of("success", "cost of each")]
    rows = []
    for name, arm in summary["arms"].items():
        low, central, high = arm["energy_wh"]
        calls = arm["upstream_calls"]
        rows.append([
            Cell.of(arm_label(name)),
            Cell.of(formats.usd(arm["cost_usd"]), versus(arm, "cost_pct"), unpriced(arm)),
            Cell.of(formats.wh(central), formats.wh_range(low, high)),
            Cell.of(formats.grams(arm["co2e_g"]) if "co2e_g" in arm else "–"),
            Cell.of(formats.count(arm["input_tokens"]), formats.count(arm["output_tokens"])),
            Cell.of("–" if calls is None else formats.count(calls)),
            Cell.of(formats.ms(arm["p50_ms"]), tail_ms(arm)),
            Cell.of(*success(arm)),
        ])  # fmt: skip
    return head, rows


def lever_rows(name: str, lever: Figures) -> list[tuple[str, str, str]]:
    """Return what the lever *name* saved: (what, how much, its interval or remark), savings as positive amounts."""
    share = lever["hit_rate"]
    hits = "calls" if name == "route" else "hits"  # what it does is no answer of its own
    rows = [(hits, formats.count(lever["hits"]), _of_calls(share) if share["mean"] is not None else "")]
    for key, what, form in _FORMS:
        rows.append((what, form(lever[key]["mean"]), _bounds(lever[key], form)))
        if key == "cost_usd" and lever["cost_pct"]["mean"] is not None:
            share = lever["cost_pct"]
            rows.append(("share of all cost", f"{_share(share['mean'])} %", _bounds(share, _share)))
        if key == "energy_wh":
            low, _, high = lever[key]["estimates"]
            rows.append(("energy, low–high", formats.wh_range(low, high), ""))
    if lever["unpriced_hits"]:
        rows.append(("hits without a price", formats.count(lever["unpriced_hits"]), "not in the cost above"))
    if "marginal" in lever:
        cost = lever["marginal"]["cost_pct"]
        points = "undefined" if cost["mean"] is None else f"{formats.points(cost['mean'])} points"
        rows.append(("cost on top of rest", points, _bounds(cost, formats.points)))
    return rows


def _share(value: float | None) -> str:
    return formats.UNKNOWN if value is None else formats.percent(value / 100).removesuffix(" %")


def _of_calls(share: Figures) -> str:
    low, high = (formats.percent(share[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{formats.percent(share['mean'])} [{low}, {high}] of calls"


def _bounds(figure: Figures, form: formats.Format) -> str:
    if figure["mean"] is None or (figure["low"] is None and figure["high"] is None):
        return ""
    low, high = ("?" if figure[end] is None else form(figure[end]) for end in ("low", "high"))
    return f"[{low}, {high}]"


def bars(summary: Figures) -> list[charts.Bar]:
    """Return the steps from the cost without levers down to the cost with them; none where a cost is unknown."""
    before, after = ends(summary)
    if before is None or after is None or before["cost_usd"] is None or after["cost_usd"] is None:
        return []
    first, last = before["cost_usd"], after["cost_usd"]
    names = [arm_label(name) for name in summary["arms"] if name in ("none", "all", "baseline", "actual")]
    made = [charts.Bar(names[0], 0.0, first, "total", formats.usd(first))]
    at = first
    for name, lever in summary["levers"].items():
        cost = lever["cost_usd"]
        if cost["mean"] is None:
            continue
        start, at = at, at - cost["mean"]
        kind = "saved" if cost["mean"] >= 0 else "added"
        made.append(
            charts.Bar(name, start, at, kind, _step(-cost["mean"], first), _bounded(lever["cost_pct"], at, first))
        )
    if abs(at - last) > _RESIDUAL * abs(first):
        made.append(charts.Bar("not attributed", at, last, "rest", _step(last - at, first)))
    return [*made, charts.Bar(names[-1], 0.0, last, "total", formats.usd(last))]


def _bounded(share: Figures, end: float, first: float) -> tuple[float, float] | None:
    """Return where a bar may end: by the lever's share of the first bar, as the amount of traffic is given here."""
    if share["low"] is None or share["high"] is None:
        return None
    return end - (share["high"] - share["mean"]) / 100 * first, end + (share["mean"] - share["low"]) / 100 * first


def _step(change: float, of: float) -> str:
    share = f" ({formats.points(100 * change / of)} %)" if of else ""
    return ("+" if change > 0 else "") + formats.usd(change) + share


def waterfall(summary: Figures) -> Picture | None:
    """Return the picture of where the money went; None where there is no cost to show."""
    steps = bars(summary)
    if not steps:
        return None
    title = "Cost, lever by lever"
    told = "; ".join(f"{bar.label} {bar.value}" for bar in steps)
    wide, narrow = (charts.waterfall(steps, width, title=title, description=told) for width in WIDTHS)
    note = "From the cost without levers to the cost with them, in pipeline order. Whiskers are 95 % intervals."
    if any(bar.kind == "rest" for bar in steps):
        note += " Not attributed (hatched): what the levers' own decisions do not explain of the difference."
    rows = [[bar.label, bar.value, formats.usd(bar.end)] for bar in steps]
    return Picture(title, note, wide, narrow, ["step", "amount", "cost after it"], rows)


def latency(summary: Figures, series: Series) -> Picture | None:
    """Return the picture of how long callers waited for whole answers; None without any."""
    known = {name: values for name, values in series.latency_ms.items() if values}
    if not known:
        return None
    lines = []
    for name, values in known.items():
        arm = summary["arms"][name]
        legend = f"{arm_label(name)}: p50 {formats.ms(arm['p50_ms'])}, p95 {tail_ms(arm)}"
        marks = [] if arm["p50_ms"] is None else [(arm["p50_ms"], 0.5)]
        lines.append(charts.Line(legend, _kind(name), charts.distribution(values), marks))
    every = [value for values in known.values() for value in values]
    y = charts.Axis(0.0, 1.0, [(share, f"{share:.0%}".replace("%", " %")) for share in (0.0, 0.25, 0.5, 0.75, 1.0)])
    title = "Latency of whole answers"
    told = "Share of calls answered within a time. " + "; ".join(line.legend for line in lines)

    def plot(most: int) -> charts.Plot:
        axis = charts.latency_axis(every, most)
        scale = "answered within (log scale)" if axis.log else "answered within"
        return charts.Plot(title, told, lines, axis, y, scale, steps=True)

    wide, narrow = (charts.curves(plot(most), width, "latency") for width, most in zip(WIDTHS, (8, 5), strict=True))
    rows = [
        [f"{share:.0%}".replace("%", " %"), *(formats.ms(_at_share(values, share)) for values in known.values())]
        for share in (0.1, 0.25, 0.5, 0.75, 0.9)
    ]
    note = "How many calls had their whole answer within a time; marks are medians."
    return Picture(title, note, wide, narrow, ["share of calls", *map(arm_label, known)], rows)


def _at_share(values: Sequence[float], share: float) -> float:
    return values[max(0, math.ceil(share * len(values)) - 1)]


def spending(summary: Figures, series: Series) -> Picture | None:
    """Return the picture of the cost as it grew; None without any cost."""
    known = {name: points for name, points in series.cost_usd.items() if points}
    if not known or not any(points[-1][1] for points in known.values()):
        return None
    lines = []
    for name, points in known.items():
        arm = summary["arms"][name]
        legend = f"{arm_label(name)}: {formats.usd(arm['cost_usd'])} {unpriced(arm)}".strip()
        lines.append(charts.Line(legend, _kind(name), points, [points[-1]]))
    times = [at for points in known.values() for at, _ in points]
    top = max(points[-1][1] for points in known.values())
    title = "Cost over time"
    told = "Dollars spent so far. " + "; ".join(line.legend for line in lines)

    def plot(most: int) -> charts.Plot:
        x = charts.time_axis(min(times), max(times), most, dated=series.dated)
        name = "time, UTC" if series.dated else "time since the first call"
        return charts.Plot(title, told, lines, x, charts.money_axis(top, 6), name, filled=True)

    wide, narrow = (charts.curves(plot(most), width, "spending") for width, most in zip(WIDTHS, (8, 5), strict=True))
    axis = charts.time_axis(min(times), max(times), 6, dated=series.dated)
    ticks = [*axis.ticks, (max(times), "end")]
    rows = [[label, *(formats.usd(_until(points, at)) for points in known.values())] for at, label in ticks]
    note = "Cumulative; the tinted area is what was not spent. Calls without a price are left out."
    return Picture(title, note, wide, narrow, ["until", *map(arm_label, known)], rows)


def _until(points: Sequence[charts.Point], at: float) -> float:
    return max((spent for moment, spent in points if moment <= at), default=0.0)


def _kind(name: str) -> str:
    return "before" if name in ("none", "baseline") else "after"
