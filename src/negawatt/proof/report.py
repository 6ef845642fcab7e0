"""A summary (`negawatt.proof.summary`) for three readers: the terminal, a browser, a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

from negawatt.proof import cache_page, formats, page, task_page
from negawatt.proof.summary import Series

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Figures = Mapping[str, Any]


def json_report(summary: Figures, *, indent: bool = False) -> str:
    """Return *summary* as JSON: one line, or indented. Unknown is null; there is no NaN."""
    return orjson.dumps(summary, option=orjson.OPT_INDENT_2 if indent else None).decode()


def terminal_report(summary: Figures) -> RenderableType:
    """Return *summary* for a `rich.console.Console` to print; it fits 80 columns."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(summary["first_line"], style="italic")]
    parts.append(Text(f"\n{summary['title']}: {_calls(summary['requests'])}", style="bold"))
    if not summary["requests"]:
        return Group(*parts, Text("There was no call, so there is nothing to report."), *_trust(summary))
    parts.append(Text(page.headline(summary), style="bold green"))
    parts.append(_arms(summary))
    parts.append(_levers(summary["levers"]) if summary["levers"] else Text("No lever spared anything.\n"))
    if summary.get("shadow_levers"):
        parts += [Text("In shadow, would have saved:", style="bold"), _levers(summary["shadow_levers"])]
    parts += _caches(summary)
    parts += _tasks(summary)
    if summary.get("holdout") is not None:
        parts.append(Text(holdout_line(summary["holdout"]) + "\n"))
    return Group(*parts, *_trust(summary))


def caches_report(summary: Figures) -> RenderableType:
    """Return what the caches did, for a `rich.console.Console` to print: a part of `terminal_report`."""
    from rich.console import Group
    from rich.text import Text

    nothing = Text(f"No cache looked at any of {_calls(summary['requests'])}.")
    return Group(*([] if cache_page.used_caches(summary) else [nothing]), *_caches(summary))


def html_report(summary: Figures, series: Series) -> str:
    """Return *summary* as one page that needs nothing else: no network, no script, both themes, any width."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    template = environment.from_string(resources.files("negawatt.proof").joinpath("report.html").read_text("utf-8"))
    pictures = (page.waterfall(summary), page.latency(summary, series), page.spending(summary, series))
    head, rows = page.arms_table(summary)
    tables = {"caches": cache_page.caches_table(summary), "learned": cache_page.learned_table(summary)}
    tasks = summary.get("tasks") or {"all": None, "classes": []}
    tables["tasks"] = task_page.tasks_table(task_page.groups(tasks))
    return template.render(
        s=summary,
        calls=_calls(summary["requests"]),
        period=summary.get("period"),
        tiles=page.tiles(summary),
        pictures=[picture for picture in pictures if picture is not None],
        arms_head=head,
        arms_rows=rows,
        levers={name: page.lever_rows(name, lever) for name, lever in summary["levers"].items()},
        shadow={name: page.lever_rows(name, lever) for name, lever in (summary.get("shadow_levers") or {}).items()},
        tables=tables,
        notes={
            "caches": cache_page.caches_note(summary),
            "learned": cache_page.learned_note(summary),
            "tasks": task_page.tasks_note(tasks["all"]),
        },
        holdout=None if summary.get("holdout") is None else holdout_line(summary["holdout"]),
        endings=_endings(summary),
        workload=[(str(name), _said(value)) for name, value in summary.get("workload", {}).items()],
        honesty=list(honesty(summary)),
    )


def honesty(summary: Figures) -> Iterator[tuple[str, str]]:
    """Give what the reader must know to judge the figures, as (name, words)."""
    method, energy = summary["method"], summary["energy_basis"]
    grid, versions = energy["grid"], summary["versions"]
    yield "sample", f"{_calls(summary['requests'])} in {method['clusters']:,} clusters of repeats"
    how = f"95 %: {method['interval']}, {method['resamples']:,} resamples, seed {summary['seed']}; "
    how += f"rates: {method['rates']}. They hold the sampling of calls, not the uncertainty of estimates"
    yield "intervals", how if method["clusters"] > 1 else "none: calls that all repeat one prompt bound nothing"
    bases = sorted({basis for arm in summary["arms"].values() for basis in arm.get("energy_bases", {})})
    yield (
        "energy",
        f"estimated, not measured, unless its basis says so; basis {', '.join(bases) or 'none'}; boundary "
        f"{energy['boundary']}; low, central and high are sums over calls. A provider's fleet may not shrink by it",
    )
    where = ", ".join(str(grid[key]) for key in ("zone", "year", "source") if grid.get(key) is not None)
    yield "carbon", f"location-based, grid {where or 'not stated'}"
    sources = sorted({source for arm in summary["arms"].values() for source in arm.get("price_sources", {})})
    yield (
        "prices",
        f"{versions.get('prices', 'table version not stated')}; taken from: {', '.join(sources) or 'nothing'}",
    )
    tables = [f"{name} {version}" for name, version in versions.items() if name != "prices"]
    yield "versions", ", ".join(tables) or "not stated"
    made = (summary["date"], summary["machine"] and f"on {summary['machine']}", summary["command"])
    yield "made", "; ".join(part for part in made if part)


def holdout_line(holdout: Figures) -> str:
    """Return what the control group says, and whether it agrees with the estimate."""
    verdicts = {
        "agree": "The two agree within their intervals.",
        "disagree": "WARNING: the two disagree beyond their intervals. Trust the holdout.",
        "too few": "Too few calls to compare.",
    }
    return (
        f"Holdout: {_calls(holdout['requests'])} passed through no lever and cost "
        f"{formats.interval(holdout['cost_per_call_usd'], formats.usd)} each, the other {holdout['other_requests']:,} "
        f"cost {formats.interval(holdout['other_cost_per_call_usd'], formats.usd)}. Cost by the holdout "
        f"{formats.change(holdout['measured_saving_pct'])}, by the estimate "
        f"{formats.change(holdout['estimated_saving_pct'])}. {verdicts[holdout['verdict']]}"
    )


def _trust(summary: Figures) -> list[RenderableType]:
    from rich.text import Text

    return [Text(f"{name}: {words}", style="dim") for name, words in honesty(summary)]


def _arms(summary: Figures) -> Table:
    """Return the arms by rows, two lines each, so that 80 columns are enough."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("arm", overflow="fold", max_width=24)
    for head in ("cost\nchange", "energy est.\nlow–high", "tokens in\nout", "upstream\ncalls", "p50\np95"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("success\ncost each", justify="right", no_wrap=True)
    for name, arm in summary["arms"].items():
        calls = arm["upstream_calls"]
        cost = [formats.usd(arm["cost_usd"]), page.unpriced(arm), page.versus(arm, "cost_pct")]
        cells = (
            page.arm_label(name),
            "\n".join(part for part in cost if part),
            f"{formats.wh(arm['energy_wh'][1])}\n{formats.wh_range(arm['energy_wh'][0], arm['energy_wh'][2])}",
            f"{formats.count(arm['input_tokens'])}\n{formats.count(arm['output_tokens'])}",
            "–" if calls is None else formats.count(calls),
            f"{formats.ms(arm['p50_ms'])}\n{page.tail_ms(arm)}",
            "\n".join(filter(None, page.success(arm))),
        )
        table.add_row(*map(Text, cells))
    return table


def _caches(summary: Figures) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = []
    if cache_page.used_caches(summary):
        parts += [Text("Caches", style="bold"), cells_table(cache_page.caches_table(summary))]
        parts.append(Text(cache_page.caches_note(summary) + "\n"))
    if cache_page.learned_note(summary):
        parts.append(Text("How often the semantic cache was wrong", style="bold"))
        parts += [cells_table(cache_page.learned_table(summary))] if summary["learned"] else []
        parts.append(Text(cache_page.learned_note(summary) + "\n"))
    return parts


def _tasks(summary: Figures) -> list[RenderableType]:
    from rich.text import Text

    tasks = summary.get("tasks")
    if not tasks or tasks["all"] is None:
        return []
    table = task_page.tasks_table(task_page.groups(tasks))
    return [Text("Tasks", style="bold"), cells_table(table), Text(task_page.tasks_note(tasks["all"]) + "\n")]


def cells_table(table: cache_page.Cells) -> Table:
    """Return a table of the page, for a `rich.console.Console` to print: a figure and, under it, the lesser ones."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head, rows = table
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, cell in enumerate(head):
        words = Text("\n".join(map(formats.one_line, (cell.text, *cell.under))))
        made.add_column(words, justify="right" if i else "left", no_wrap=i > 0, min_width=0 if i else 14)
    for row in rows:
        made.add_row(*(Text("\n".join(map(formats.one_line, (cell.text, *cell.under)))) for cell in row))
    return made


def _levers(levers: Figures) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("lever", overflow="fold", max_width=20)
    table.add_column("what")
    table.add_column("saved", justify="right")
    table.add_column("95 % interval", overflow="fold")
    for name, lever in levers.items():
        rows = page.lever_rows(name, lever)
        for i, (what, amount, bounds) in enumerate(rows):
            cells = ("" if i else name, what, amount, bounds)
            table.add_row(*map(Text, cells), end_section=i + 1 == len(rows))
    return table


def _endings(summary: Figures) -> list[tuple[str, dict[str, int]]]:
    """Return how the calls of each arm ended."""
    return [(page.arm_label(name), arm["endings"]) for name, arm in summary["arms"].items() if "endings" in arm]


def _calls(n: int) -> str:
    return "1 call" if n == 1 else f"{n:,} calls"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return formats.UNKNOWN if value is None else f"{value:,}" if type(value) is int else str(value)
