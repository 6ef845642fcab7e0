"""An evaluation (`negawatt.proof.evaluation_figures`) for its readers: the terminal, a Markdown file, a program.

All tables are made once, as texts; the two forms differ in how they draw them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from negawatt.proof import formats

if TYPE_CHECKING:
    from rich.console import RenderableType

Figures = Mapping[str, Any]


class Sheet(msgspec.Struct, frozen=True):
    """One table of the report. *note* stands under it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str | None = None


def json_report(summary: Figures) -> str:
    """Return *summary* as indented JSON. Unknown is null."""
    return orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode()


def sheets(summary: Figures) -> list[Sheet]:
    """Return the tables of the report, those without a row left out."""
    made = [_quality(summary), _cost(summary), _time(summary), _against(summary), _trivial(summary), *_groups(summary)]
    made += [Sheet(one["title"], tuple(one["head"]), tuple(map(tuple, one["rows"])), one.get("note"))
             for one in summary.get("sheets", ())]  # fmt: skip
    return [sheet for sheet in made if sheet.rows]


def terminal_report(summary: Figures) -> RenderableType:
    """Return *summary* for a `rich.console.Console` to print."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(summary["first_line"], style="italic"), Text(_title(summary), style="bold")]
    parts += [Text(line) for line in failures(summary)]
    parts += map(_table, sheets(summary))
    parts += [Text(line, style="bold") for line in summary.get("verdicts", ())]
    parts.append(Text(_method(summary), style="dim"))
    return Group(*parts)


def curve_report(summary: Figures) -> RenderableType:
    """Return what is known of a router that was fitted without a suite."""
    from rich.console import Group
    from rich.text import Text

    sheets_ = [
        Sheet(one["title"], tuple(one["head"]), tuple(map(tuple, one["rows"])), one.get("note"))
        for one in summary["sheets"]
    ]
    verdicts = (Text(line, style="bold") for line in summary["verdicts"])
    return Group(Text(summary["first_line"], style="italic"), *map(_table, sheets_), *verdicts)


def _table(sheet: Sheet) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=sheet.title, title_justify="left", title_style="bold", caption=sheet.note, caption_justify="left"
    )
    for place, name in enumerate(sheet.head):
        table.add_column(name, justify="right" if place else "left", no_wrap=place == 0)
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def markdown_report(summary: Figures) -> str:
    """Return *summary* as a page of Markdown."""
    lines = [f"# {_title(summary)}", "", f"*{summary['first_line']}*", ""]
    for verdict in summary.get("verdicts", ()):
        lines += [f"**{_cell(verdict)}**", ""]
    lines += [f"- {line}" for line in failures(summary)]
    for sheet in sheets(summary):
        lines += ["", f"## {sheet.title}", "", f"| {' | '.join(map(_cell, sheet.head))} |"]
        lines.append(f"| --- |{' ---: |' * (len(sheet.head) - 1)}")
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in sheet.rows]
        lines += ["", sheet.note] if sheet.note else []
    lines += ["", _method(summary), ""]
    return "\n".join(lines)


def failures(summary: Figures) -> Iterator[str]:
    """Give a line for each reason why calls of a candidate failed."""
    for name, one in summary["candidates"].items():
        for reason, times in one["failed"]["reasons"].items():
            yield f"{name}: {times} of {one['n']} calls failed: {reason[:160]}"


def _title(summary: Figures) -> str:
    repeats = f" x {summary['repeats']}" if summary["repeats"] > 1 else ""
    return f"{summary['suite']}: {summary['cases']:,} cases{repeats}, {len(summary['candidates'])} candidates"


def _method(summary: Figures) -> str:
    judging = summary["judging"]
    judged = (
        f"; judging took {judging['calls']:,} calls, {formats.usd(judging['cost_usd'])}" if judging["calls"] else ""
    )
    return (
        f"Success is {summary['success_is']}. Intervals {summary['interval']}. Seed {summary['seed']}, "
        f"{summary['date']}, negawatt {summary['version']}{judged}."
    )


def _share(value: float | None) -> str:
    return formats.UNKNOWN if value is None else f"{100 * value:.1f} %"


def _of_share(figure: Figures | None) -> str:
    return formats.UNKNOWN if figure is None or figure["mean"] is None else formats.interval(figure, _share)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _quality(summary: Figures) -> Sheet:
    named = {"groundedness": "grounded", "schema": "structure"}
    kinds = sorted({kind for one in summary["candidates"].values() for kind in one["measures"]})
    shown = kinds if len(kinds) > 1 or set(kinds) & set(named) else []
    rows = [
        (
            name, f"{one['n']:,}", str(one["failed"]["n"]), _of_share(one["accuracy"]),
            *(_of_share(one["measures"].get(kind)) for kind in shown),
            *([_of_share(one["hallucination_rate"])] if "groundedness" in kinds else []),
        )
        for name, one in summary["candidates"].items()
    ]  # fmt: skip
    head = ("candidate", "calls", "failed", "success", *(named.get(kind, kind) for kind in shown))
    return Sheet("Quality", (*head, *(["not grounded"] if "groundedness" in kinds else [])), tuple(rows))


def _cost(summary: Figures) -> Sheet:
    rows = [
        (
            name, _money(one["cost_usd_per_call"]), _money(one["cost_usd_per_success"]),
            formats.count(one["input_tokens"]["mean"]), formats.count(one["output_tokens"]["mean"]),
        )
        for name, one in summary["candidates"].items()
    ]  # fmt: skip
    unpriced = sum(one["unpriced"] for one in summary["candidates"].values())
    note = f"{unpriced} calls have no known price; they are in no cost." if unpriced else None
    return Sheet("Cost", ("candidate", "1,000 calls", "1,000 successes", "tokens in", "out"), tuple(rows), note)


def _time(summary: Figures) -> Sheet:
    rows = []
    for name, one in summary["candidates"].items():
        energy = one["energy_wh_per_success"]
        told = formats.wh(energy["central"]["mean"])
        between = "" if told == formats.UNKNOWN else f" ({formats.wh_range(energy['low'], energy['high'])})"
        latency = (formats.seconds(one["latency_p50_s"]), formats.seconds(one["latency_p95_s"]))
        rows.append((name, *latency, f"{told}{between}"))
    head = ("candidate", "latency p50", "p95", "energy of a success (range)")
    return Sheet("Time and energy", head, tuple(rows), "Energy is an estimate, at the boundary that its basis names.")


def _money(figure: Figures) -> str:
    if figure["mean"] is None:
        return formats.UNKNOWN
    return formats.interval({k: None if v is None else 1000 * v for k, v in figure.items()}, formats.usd)


def _against(summary: Figures) -> Sheet:
    compared = summary["comparisons"]
    rows = [
        (
            name,
            _points(one["difference"]),
            str(one["better"]),
            str(one["worse"]),
            f"{one['p']:.3g}",
            f"{one['p_holm']:.3g}",
        )
        for name, one in compared["candidates"].items()
    ]
    head = ("candidate", "difference, points", "only it right", "only the other", "p", "p (Holm)")
    return Sheet(f"Against {compared['against']}", head, tuple(rows), f"p: {compared['test']}, two-sided")


def _points(figure: Figures) -> str:
    if figure["mean"] is None:
        return formats.UNKNOWN
    return formats.interval({k: None if v is None else 100 * v for k, v in figure.items()}, formats.points)


def _trivial(summary: Figures) -> Sheet:
    found = summary["baselines"]
    rows = [
        (f"always {found[which]['candidate']}", _share(found[which]["accuracy"]), "")
        for which in ("always_small", "always_large")
    ]
    for mix in found["random_mix"]:
        said = f"a coin, {_share(mix['share_of_large'])} large, at the cost of {mix['candidate']}"
        rows.append((said, _share(mix["accuracy"]), f"{_points(mix['difference'])} points to {mix['candidate']}"))
    oracle = found["oracle"]
    rows.append(
        ("oracle (nobody can)", _share(oracle["accuracy"]), f"{formats.usd(oracle['cost_usd_per_call'])} per call")
    )
    return Sheet("Trivial choices", ("choice", "success", ""), tuple(rows))


def _groups(summary: Figures) -> Sequence[Sheet]:
    if not summary["groups"]:
        return ()
    names = tuple(summary["candidates"])
    rows = [
        (group, str(one["cases"]), *(_of_share(one["accuracy"][name]) for name in names))
        for group, one in summary["groups"].items()
    ]
    return (Sheet("By group", ("group", "cases", *names), tuple(rows)),)
