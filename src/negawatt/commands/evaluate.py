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
    from collections.abc import Callable

    from negawatt.proof.cascade_fit import Run
    from negawatt.proof.cases import SuiteCase
    from negawatt.proof.evaluate import Question
    from negawatt.proof.judging import Task
    from negawatt.proof.outcome_table import OutcomeTable
    from negawatt.proof.routing_table import Learned, RoutingTable
    from negawatt.proof.run_file import RunFile
    from negawatt.proof.suite import Suite

_FILE = click.Path(path_type=Path)


@click.command("eval")
@click.argument("suite", type=_FILE, required=False)
@click.option("--sample", is_flag=True, help="Run the sample suite that comes with the package: recorded, no network.")
@click.option("--out", type=_FILE, metavar="FOLDER",
              help="Where the run and its reports lie; default: NAME-evaluation in this folder.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Only so many first cases of each dataset.")
@click.option("--retry-failed", is_flag=True, help="Ask again what failed in an earlier run.")
@click.option("--yes", is_flag=True, help="Ask live models without asking you first.")
@click.option("--router", type=_FILE, metavar="FILE.npz",
              help="Fit a learned router, and keep it there if it beats its shuffled control.")  # fmt: skip
@click.option("--cascade", type=_FILE, metavar="FILE.json",
              help="Calibrate the suite's [cascade] for the cheapest candidate, and keep that there.")  # fmt: skip
@click.option("--scorer", type=_FILE, metavar="FILE.npz",
              help="Learn to tell right answers of the cheapest candidate, for a check of kind answer.")  # fmt: skip
@click.option("--against", type=_FILE, metavar="ROUTING.toml",
              help="Hold a policy against its target: exit 0 it is met, 1 it is not, 3 too few cases.")  # fmt: skip
@click.option("--policy", metavar="NAME", help="Which policy of ROUTING.toml; default: the one of each case's class.")
@click.option("--outcomes", type=_FILE, metavar="FILE.csv",
              help="Instead of a SUITE, with --router: a table of outcomes that you have.")  # fmt: skip
@click.option("--verdicts", metavar="POLICY",
              help="Instead of a SUITE, with --router: what a cascade's verifiers said in the ledger.")  # fmt: skip
@click.option("-c", "--config", "config_path", type=_FILE, metavar="FILE",
              help="Of --verdicts: the gateway's configuration, with its ledger.")  # fmt: skip
@click.option("--prompt", metavar="COLUMN", default="prompt", show_default=True, help="Of that table: the question.")
@click.option("--models", metavar="A=COLUMN,B=COLUMN",
              help="Of that table: candidates, cheapest first, the reference last.")  # fmt: skip
@click.option(
    "--success", type=click.FloatRange(0, 1), help="Of --outcomes and --verdicts: the target, a share of right answers."
)
@json_option
def evaluate(suite: Path | None, sample: bool, as_json: bool, **options: Any) -> None:
    """Ask candidate models the same cases, judge their answers, and say which is the smallest that is good enough.

    SUITE is a TOML file: datasets with their verifiers, candidates (models, efforts, settings; asked live or from a
    recording) in which the last is the reference, and a target of quality.

    \b
    negawatt eval --sample                     what it looks like
    negawatt eval suite.toml --limit 20        a first look, at a small part of the cost
    negawatt eval suite.toml                   all of it; goes on where an earlier run broke off
    negawatt eval suite.toml --router r.npz    fits a router on what was found, if that pays
    negawatt eval suite.toml --against routing.toml     for your CI

    Before live models are asked it says how many calls that makes and about what they cost. The run is kept in FOLDER
    answer by answer; so are report.json, report.md, and routing.toml: the routing table, to be pasted into
    negawatt.toml. Exit codes: 0 done, 1 no candidate meets the target (or: no router, no cascade is worth it; or the
    policy falls below), 2 bad input, 3 too few cases to tell.
    """
    from negawatt.commands import evaluate_routing
    from negawatt.proof.suite import load_suite
    from negawatt.proof.trace import SAMPLES

    if sum(options[name] is not None for name in ("router", "cascade", "scorer")) > 1:
        raise click.UsageError("give --router, --cascade or --scorer, one at a time")
    for name, fit in (("outcomes", evaluate_routing.from_outcomes), ("verdicts", evaluate_routing.from_verdicts)):
        if options[name] is not None:
            if suite is not None or sample:
                raise click.UsageError(f"--{name} stands in place of a SUITE")
            raise SystemExit(fit(options, as_json))
    if (suite is None) != sample:
        raise click.UsageError("give a SUITE, or --sample")
    path = SAMPLES / "evaluation.toml" if suite is None else suite
    loaded = load_suite(path, os.environ)
    folder = options["out"] or Path("sample-evaluation" if sample else f"{path.stem}-evaluation")
    raise SystemExit(_evaluated(loaded, folder, options, as_json))


def _evaluated(suite: Suite, folder: Path, options: dict[str, Any], as_json: bool) -> int:
    """Ask and judge what is missing in *folder*, report, and return the exit code."""
    from negawatt.commands import evaluate_routing
    from negawatt.proof.cases import read_cases
    from negawatt.proof.evaluate import ask_all, missing, questions
    from negawatt.proof.evaluation_figures import evaluation
    from negawatt.proof.judging import verifiable
    from negawatt.proof.outcome_table import table_of
    from negawatt.proof.run_file import RunFile

    cases = read_cases(suite, options["limit"])
    verifiable(suite)
    asked = questions(suite, cases)
    with RunFile(folder / "run.jsonl") as found:
        todo = missing(asked, found, failed=options["retry_failed"])
        agreed(suite, cases, todo, options["yes"])
        with progress("asking") as (begin, step):
            begin(len(todo))
            ask_all(suite, todo, found, counting(step))
        _judged(suite, cases, asked, found)
        run = ({one.key: one.asked for one in asked}, found)
        table = table_of(suite, cases, run[0], found)
        summary = evaluation(table, _command(suite))
        if options["against"] is not None:
            code = evaluate_routing.against(summary, table, run, options)
            _deliver(summary, folder, as_json)
            return code
        tables = _tables(table)
        learned, fit_code = _fitted(summary, table, run, options)
    summary["verdicts"] = [*(one.verdict for one in tables), *summary.get("verdicts", ())]
    summary["routing"] = _as_json(tables)
    _deliver(summary, folder, as_json)
    _routing(tables, table, folder, learned)
    return 1 if fit_code or any(one.chosen is None for one in tables) else 0


def measured(suite: Suite, folder: Path, *, yes: bool) -> OutcomeTable:
    """Ask and judge what is missing of *suite* in *folder*, and return its table."""
    from negawatt.proof.cases import read_cases
    from negawatt.proof.evaluate import ask_all, missing, questions
    from negawatt.proof.judging import verifiable
    from negawatt.proof.outcome_table import table_of
    from negawatt.proof.run_file import RunFile

    cases = read_cases(suite)
    verifiable(suite)
    asked = questions(suite, cases)
    with RunFile(folder / "run.jsonl") as found:
        todo = missing(asked, found)
        agreed(suite, cases, todo, yes)
        with progress("asking") as (begin, step):
            begin(len(todo))
            ask_all(suite, todo, found, counting(step))
        _judged(suite, cases, asked, found)
        return table_of(suite, cases, {one.key: one.asked for one in asked}, found)


def _fitted(
    summary: dict[str, Any], table: OutcomeTable, run: Run, options: dict[str, Any]
) -> tuple[Learned | None, int]:
    from negawatt.commands import evaluate_routing

    if options["router"] is not None:
        return evaluate_routing.router(summary, table, options["router"])
    if options["scorer"] is not None:
        return None, evaluate_routing.scorer(summary, table, run, options["scorer"])
    if options["cascade"] is not None:
        return evaluate_routing.cascade(summary, table, run, options["cascade"])
    return None, 0


def _command(suite: Suite) -> str:
    return f"negawatt eval {suite.path.name}"


def _judged(suite: Suite, cases: list[SuiteCase], asked: list[Question], found: RunFile) -> None:
    from negawatt.proof.judging import tasks

    judge(suite, tasks(suite, {case.id: case for case in cases}, asked, found), found)


def judge(suite: Suite, needed: list[Task], found: RunFile) -> None:
    """Give those verdicts of *needed* that *found* has not got."""
    from negawatt.proof.judging import judge_all, verdict_of

    todo = [task for task in needed if verdict_of(found, task) is None]
    with progress("judging") as (begin, step):
        begin(len(todo))
        asyncio.run(judge_all(suite, todo, found, counting(step)))


def counting(step: Callable[[int], None]) -> Callable[[], None]:
    done = iter(range(1, 1 << 60))
    return lambda: step(next(done))


def agreed(suite: Suite, cases: list[SuiteCase], todo: list[Question], yes: bool) -> None:
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


def _tables(table: OutcomeTable) -> list[RoutingTable]:
    from negawatt.proof.routing_table import routing_tables, slug

    quality = table.suite.file.quality
    if quality.success is None and quality.loss is None:
        return []
    return routing_tables(table, quality, slug(table.suite.file.name))


def _as_json(tables: list[RoutingTable]) -> Any:
    import msgspec

    return msgspec.to_builtins(tables)


def _deliver(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    from rich.console import Console

    from negawatt.proof.evaluation_report import json_report, markdown_report, terminal_report

    Console(stderr=as_json).print(terminal_report(summary))
    write(folder / "report.json", json_report(summary) + "\n")
    write(folder / "report.md", markdown_report(summary))
    if as_json:
        click.echo(json_report(summary))


def _routing(tables: list[RoutingTable], table: OutcomeTable, folder: Path, learned: Learned | None) -> None:
    """Write the routing table, if there is one; an older one that is not true any more goes."""
    from negawatt.proof.routing_table import as_toml

    path = folder / "routing.toml"
    if any(one.chosen is not None for one in tables):
        classes = sorted({case.request_class for case in table.cases if case.request_class})
        write(path, as_toml(tables, classes, learned))
    else:
        path.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write *text* to *path*, and say so. Raises `InputError`."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}", err=True)
