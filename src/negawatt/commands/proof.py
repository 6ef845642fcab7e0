"""``negawatt replay`` and ``negawatt report``."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import (
    config_option,
    json_option,
    ledger_file,
    ledger_option,
    load,
    moment,
    own_name,
    since_option,
    until_option,
)
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.proof.replay import Plan
    from negawatt.proof.summary import Series

html_option = click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as one self-contained page."
)
out_option = click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as JSON.")


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--provider", required=True, metavar="URL",
    help="Who answers: recorded:FILE (real recorded answers) or modelled:?a=0.3&b=0.02 (a latency and no answers).",
)  # fmt: skip
@click.option("--arms", default="none,all,leave-one-out", show_default=True, help="Which combinations to run.")
@click.option("--speedup", type=float, default=1.0, show_default=True, help="How much faster the calls arrive.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--format", "trace_format", help="Format of the trace; default: by its content (docs/replay.md).")
@click.option("--model", default="gpt-4o-mini", show_default=True, help="Model asked where the trace names none.")
@click.option("--limit", type=click.IntRange(1), help="Only so many first requests of the trace.")
@click.option("--title", default="Replay", show_default=True)
@config_option
@html_option
@out_option
@json_option
def replay(config_path: Path | None, html: Path | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Send recorded traffic through the gateway, with and without its levers, and say what each one saves.

    TRACE is JSONL of chat requests, our ledger's export, or a public trace (Azure, Mooncake). Time is virtual: a day
    takes seconds. Every saving has a 95 % interval.

    \b
    negawatt replay trace.jsonl --provider recorded:answers.jsonl --html report.html
    """
    from negawatt.proof.replay import Plan
    from negawatt.proof.trace import read_trace

    traffic = read_trace(
        options["trace"], format=options["trace_format"], model=options["model"], limit=options["limit"]
    )
    arms = tuple(arm.strip() for arm in options["arms"].split(",") if arm.strip())
    plan = Plan(
        trace=traffic,
        provider=options["provider"],
        config=load(config_path),
        arms=arms,
        speedup=options["speedup"],
        seed=options["seed"],
        title=options["title"],
        command=f"negawatt replay {options['trace'].name} --provider {_shown(options['provider'])} "
        f"--arms {','.join(arms)} --speedup {options['speedup']:g} --seed {options['seed']}",
    )
    _run(plan, html, out, as_json)


def _run(plan: Plan, html: Path | None, out: Path | None, as_json: bool, ledger: Path | None = None) -> None:
    from negawatt.proof.replay import arm_configs
    from negawatt.proof.replay import replay as run
    from negawatt.proof.summary import series_of, summarise

    with progress("replaying") as (begin, step):
        begin(len(plan.trace.entries) * len(arm_configs(plan.config, plan.arms)))
        result = run(plan, step)
    _deliver(summarise(result), series_of(result), html, out, as_json)
    if ledger is not None:
        from negawatt.proof.kept_rows import keep_rows

        n = keep_rows(result, ledger, time.time())
        again = f"{own_name()} dashboard --ledger {shlex.quote(str(ledger))}"
        click.echo(f"wrote {ledger}, {n} rows. To look at them as pages:\n  {again}", err=True)


@click.command()
@html_option
@out_option
@click.option(
    "--ledger", "-l", "ledger_path", type=click.Path(path_type=Path), metavar="FILE",
    help="Keep the rows of the run with all levers as a ledger, for negawatt dashboard.",
)  # fmt: skip
@json_option
def demo(html: Path | None, out: Path | None, ledger_path: Path | None, as_json: bool) -> None:
    """Replay the sample workload that comes with the package: no key, no service, no network.

    400 calls of an invented support desk, with answers written by a script: it shows what a replay tells, and proves
    nothing about your traffic.
    """
    from negawatt.config import load_config
    from negawatt.proof.kept_rows import refuse_existing
    from negawatt.proof.replay import Plan
    from negawatt.proof.trace import SAMPLES, read_trace

    if ledger_path is not None:
        refuse_existing(ledger_path)
    plan = Plan(
        trace=read_trace(SAMPLES / "support.trace.jsonl"),
        provider=f"recorded:{SAMPLES / 'support.recording.jsonl'}",
        config=load_config(SAMPLES / "support.toml", environ={}),
        title="Sample workload: a morning at a support desk",
        command="negawatt demo",
    )
    _run(plan, html, out, as_json, ledger_path)


@click.command()
@config_option
@ledger_option
@since_option
@until_option
@html_option
@out_option
@json_option
def report(  # noqa: PLR0913
    config_path: Path | None,
    ledger_path: Path | None,
    since: str | None,
    until: str | None,
    html: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what the live ledger's calls cost, what each lever saved, and how the holdout compares."""
    from datetime import UTC, datetime

    from negawatt import __version__
    from negawatt.books import open_accounts
    from negawatt.commands.recall import learned_or_why_not
    from negawatt.commands.tasks import caught_up
    from negawatt.ledger.sqlite import read_rows
    from negawatt.proof.summary import LedgerView, ledger_series, summarise_ledger

    config = load(config_path)
    path = ledger_file(ledger_path, config)
    begin, end = moment(since, 0.0, "--since"), moment(until, float("inf"), "--until")
    rows = list(read_rows(path, begin, end))
    carbon = open_accounts(config).carbon
    learned, learned_note = learned_or_why_not(config)
    view = LedgerView(
        title=f"Ledger {path.name}",
        date=datetime.now(UTC).date().isoformat(),
        command="negawatt report",
        grid={"zone": carbon.zone, "year": carbon.year, "source": carbon.source},
        versions={"negawatt": __version__},
        kinds={provider.name: provider.kind or provider.name for provider in config.providers},
        learned=learned,
        learned_note=learned_note,
        tasks=_tasks(caught_up(config_path, ledger_path), begin, end),
    )
    _deliver(summarise_ledger(rows, view), ledger_series(rows), html, out, as_json)


def _tasks(path: Path, begin: float, end: float) -> dict[str, Any]:
    import msgspec

    from negawatt.success.figures import figures

    total, classes = (msgspec.to_builtins(figures(path, begin, end, by)) for by in ("all", "class"))
    return {"all": total[0] if total else None, "classes": classes}


def _deliver(summary: Any, series: Series, html: Path | None, out: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from negawatt.proof.report import html_report, json_report, terminal_report

    Console(stderr=as_json).print(terminal_report(summary))
    if html is not None:
        _write(html, html_report(summary, series))
    if out is not None:
        _write(out, json_report(summary, indent=True) + "\n")
    if as_json:
        click.echo(json_report(summary))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}", err=True)


def _shown(provider: str) -> str:
    scheme, colon, rest = provider.partition(":")
    return f"{scheme}{colon}{Path(rest).name}" if scheme == "recorded" else provider


class progress:
    """A bar on stderr, where that is a terminal."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> Any:
        self._bar.start()
        task = self._bar.add_task("", total=None)
        return (
            lambda total: self._bar.update(task, total=total),
            lambda done: self._bar.update(task, completed=done),
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
