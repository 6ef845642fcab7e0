"""``negawatt eval``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import json_option
from negawatt.commands.proof import progress
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.proof.cases import SuiteCase
    from negawatt.proof.evaluate import Question
    from negawatt.proof.outcome_table import OutcomeTable
    from negawatt.proof.routing_table import RoutingTable
    from negawatt.proof.run_file import RunFile
    from negawatt.proof.suite import Suite


@click.command("eval")
@click.argument("suite", type=click.Path(path_type=Path), required=False)
@click.option("--sample", is_flag=True, help="Run the sample suite that comes with the package: recorded, no network.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the run and its reports lie; default: NAME-evaluation in this folder.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Only so many first cases of each dataset.")
@click.option("--yes", is_flag=True, help="Ask live models without asking you first.")
@json_option
def evaluate(suite: Path | None, sample: bool, as_json: bool, **options: Any) -> None:
    """Ask candidate models the same cases, judge their answers, and say which is the smallest that is good enough.

    SUITE is a TOML file: datasets with their verifiers, candidates (models, efforts, settings; asked live or from a
    recording) in which the last is the reference, and a target of quality.

    \b
    negawatt eval --sample                     what it looks like
    negawatt eval suite.toml --limit 20        a first look, at a small part of the cost
    negawatt eval suite.toml                   all of it; goes on where an earlier run broke off

    Before live models are asked it says how many calls that makes and about what they cost. The run is kept in FOLDER
    answer by answer; so are report.json, report.md, and routing.toml: the routing table, to be pasted into
    negawatt.toml. Exit codes: 0 a candidate meets the target (or there is none), 1 none does, 2 bad input.
    """
    from negawatt.proof.suite import load_suite
    from negawatt.proof.trace import SAMPLES

    if (suite is None) != sample:
        raise click.UsageError("give a SUITE, or --sample")
    path = SAMPLES / "evaluation.toml" if suite is None else suite
    loaded = load_suite(path, os.environ)
    folder = options["out"] or Path(f"{path.stem}-evaluation")
    table = _measured(loaded, folder, options["limit"], options["yes"])
    code = _told(table, folder, as_json)
    if code:
        raise SystemExit(code)


def _measured(suite: Suite, folder: Path, limit: int | None, yes: bool) -> OutcomeTable:
    """Ask and judge what is missing in *folder*, and return the table."""
    from negawatt.proof.cases import read_cases
    from negawatt.proof.evaluate import ask_all, missing, questions
    from negawatt.proof.judging import verifiable
    from negawatt.proof.outcome_table import table_of
    from negawatt.proof.run_file import RunFile

    cases = read_cases(suite, limit)
    verifiable(suite)
    asked = questions(suite, cases)
    with RunFile(folder / "run.jsonl") as found:
        todo = missing(asked, found)
        _agreed(suite, cases, todo, yes)
        with progress("asking") as (begin, step):
            begin(len(todo))
            ask_all(suite, todo, found, _counting(step))
        _judged(suite, cases, asked, found)
        return table_of(suite, cases, {one.key: one.asked for one in asked}, found)


def _judged(suite: Suite, cases: list[SuiteCase], asked: list[Question], found: RunFile) -> None:
    from negawatt.proof.judging import judge_all, tasks, verdict_of

    by_id = {case.id: case for case in cases}
    todo = [task for task in tasks(suite, by_id, asked, found) if verdict_of(found, task) is None]
    with progress("judging") as (begin, step):
        begin(len(todo))
        asyncio.run(judge_all(suite, todo, found, _counting(step)))


def _counting(step: Any) -> Any:
    done = iter(range(1, 1 << 60))
    return lambda: step(next(done))


def _agreed(suite: Suite, cases: list[SuiteCase], todo: list[Question], yes: bool) -> None:
    """Say what live calls will cost, and ask whether to make them. Raises `click.Abort` or `InputError`."""
    from negawatt.proof.evaluate import estimate
    from negawatt.proof.formats import usd
    from negawatt.proof.judging import checks_of

    judging = sum(check.kind == "judge" for case in cases for check in checks_of(suite, case))
    judging *= len(suite.candidates) * suite.file.repeats
    found = estimate(suite, todo, judging if todo else 0)
    if not found.calls:
        return
    about = f"about {usd(float(found.usd))}" if found.usd is not None else f"no price known for {found.unpriced[0]}"
    beside = f" ({judging:,} of them to judge, which are not in the price)" if judging else ""
    click.echo(f"This will make {found.calls:,} calls{beside}: {about} at list prices.", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("live models are asked only with --yes where nobody can be asked for it")
    click.confirm("Go on?", abort=True, err=True)


def _told(table: OutcomeTable, folder: Path, as_json: bool) -> int:
    """Print and write the report; return the exit code."""
    from rich.console import Console

    from negawatt.proof.evaluation_figures import evaluation
    from negawatt.proof.evaluation_report import json_report, markdown_report, terminal_report

    summary = evaluation(table)
    tables = _tables(table)
    summary["verdicts"] = [one.verdict for one in tables]
    summary["routing"] = _as_json(tables)
    Console(stderr=as_json).print(terminal_report(summary))
    _write(folder / "report.json", json_report(summary) + "\n")
    _write(folder / "report.md", markdown_report(summary))
    _routing(tables, table, folder)
    if as_json:
        click.echo(json_report(summary))
    return 1 if any(one.chosen is None for one in tables) else 0


def _tables(table: OutcomeTable) -> list[RoutingTable]:
    from negawatt.proof.routing_table import routing_tables, slug

    quality = table.suite.file.quality
    if quality.success is None and quality.loss is None:
        return []
    return routing_tables(table, quality, slug(table.suite.file.name))


def _as_json(tables: list[RoutingTable]) -> Any:
    import msgspec

    return msgspec.to_builtins(tables)


def _routing(tables: list[RoutingTable], table: OutcomeTable, folder: Path) -> None:
    """Write the routing table, if there is one; an older one that is not true any more goes."""
    from negawatt.proof.routing_table import as_toml

    path = folder / "routing.toml"
    if any(one.chosen is not None for one in tables):
        classes = sorted({case.request_class for case in table.cases if case.request_class})
        text = as_toml(tables, classes)
        _write(path, text)
        click.echo(f"\n{text}", err=True)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}", err=True)
