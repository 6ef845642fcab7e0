"""What ``negawatt eval`` does beyond the table: fit a router, calibrate a cascade, hold a policy against its target."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.evaluate import judge
from negawatt.config_routes import Cascade, Quality
from negawatt.errors import ConfigError, InputError

if TYPE_CHECKING:
    from negawatt.proof.against import Chooser, Held
    from negawatt.proof.cascade_fit import Run
    from negawatt.proof.cases import SuiteCase
    from negawatt.proof.outcome_table import OutcomeTable
    from negawatt.proof.router_fit import Fitted, Learnable
    from negawatt.proof.routing_table import Learned

_MOST_NAMED = 20


def router(summary: dict[str, Any], table: OutcomeTable, path: Path) -> tuple[Learned | None, int]:
    """Fit a router on *table* and put what it is worth into *summary*; keep it at *path* if it may be used."""
    from negawatt.proof.router_fit import learnable
    from negawatt.proof.routing_table import Learned

    suite = table.suite
    fitted = _fit(learnable(table), suite.config.recall.embedder, suite.file.quality, suite.file.seed, str(suite.path))
    _add(summary, fitted)
    if not fitted.enabled:
        return None, 1
    _keep(fitted, path)
    return Learned("learned", {"router": str(path)}), 0


def _fit(rows: Learnable, embedder: str, quality: Quality, seed: int, source: str) -> Fitted:
    from negawatt.proof.router_fit import embedded, fit_router

    if quality.success is None and quality.loss is None:
        what = "a router is fitted for a target: set success (or loss) under [quality], or --success with --outcomes"
        raise InputError(f"{source}: quality: {what}", param="quality")
    vectors, name = asyncio.run(embedded(rows.texts, embedder, f"{source}: config.recall.embedder"))
    return fit_router(rows, vectors, name, quality, seed)


def _add(summary: dict[str, Any], fitted: Fitted) -> None:
    from negawatt.proof.router_fit import spoken

    summary["router"] = fitted.figures
    summary.setdefault("sheets", []).append(fitted.sheet)
    summary.setdefault("verdicts", []).append(spoken(fitted))


def _keep(fitted: Fitted, path: Path) -> None:
    try:
        fitted.router.save(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)


def from_outcomes(options: dict[str, Any], as_json: bool) -> int:
    """Fit a router on a table of outcomes; return the exit code."""
    from negawatt.commands.options import load
    from negawatt.proof.router_fit import read_outcomes

    if options["router"] is None or not options["models"] or options["success"] is None:
        raise click.UsageError("--outcomes needs --router FILE.npz, --models A=COLUMN,B=COLUMN and --success SHARE")
    pairs = [pair.partition("=") for pair in options["models"].split(",")]
    models = {name.strip(): column.strip() or name.strip() for name, _, column in pairs}
    if len(models) < 2 or not all(models):
        raise click.BadParameter("expected two candidates or more, each with its column", param_hint="--models")
    rows = read_outcomes(options["outcomes"], options["prompt"], models)
    first_line = "Outcomes as the table has them: nothing was asked, no cost is known."
    return _from_rows(rows, load(None).recall.embedder, options, as_json, first_line)


def from_verdicts(options: dict[str, Any], as_json: bool) -> int:
    """Fit a router on what a cascade's verifiers said in the ledger; return the exit code."""
    from negawatt.commands.options import ledger_file, load
    from negawatt.proof.ledger_verdicts import verdicts_in

    if options["router"] is None or options["success"] is None:
        raise click.UsageError("--verdicts needs --router FILE.npz and --success SHARE")
    config = load(options["config_path"])
    rows = verdicts_in(ledger_file(None, config), config, options["verdicts"])
    first_line = "The verifiers' words, as the ledger has them: accepted counts as right, and so does the reference."
    return _from_rows(rows, config.recall.embedder, options, as_json, first_line)


def _from_rows(rows: Learnable, embedder: str, options: dict[str, Any], as_json: bool, first_line: str) -> int:
    """Fit a router on *rows*, say what it is worth, keep it if it may be used, and return the exit code."""
    from rich.console import Console

    from negawatt.proof.evaluation_report import curve_report, json_report

    fitted = _fit(rows, embedder, Quality(success=options["success"]), 1, rows.source)
    summary: dict[str, Any] = {"first_line": first_line}
    _add(summary, fitted)
    Console(stderr=as_json).print(curve_report(summary))
    if fitted.enabled:
        _keep(fitted, options["router"])
    if as_json:
        click.echo(json_report(summary))
    return 0 if fitted.enabled else 1


def cascade(summary: dict[str, Any], table: OutcomeTable, run: Run, path: Path) -> tuple[Learned | None, int]:
    """Calibrate the suite's cascade and put what it is worth into *summary*; keep it at *path* if it may be used."""
    from negawatt.proof.cascade_fit import cascade_tasks, fit_cascade, settings_of, small_of, spoken
    from negawatt.proof.routing_table import Learned, slug
    from negawatt.routing.calibration import plain_checks, write_calibration

    settings, small = settings_of(table.suite), small_of(table)
    _on_others(table, settings)
    judge(table.suite, cascade_tasks(table, small, settings, run), run[1])
    fit = fit_cascade(table, small, slug(table.suite.file.name), run)
    summary["cascade"] = {
        "small": fit.small, "reference": fit.reference, "enabled": fit.enabled, "reason": fit.reason,
        "threshold": fit.accepting.threshold, "max_error": settings.max_error, "alpha": settings.alpha,
        "bound": fit.accepting.bound, **fit.figures,
    }  # fmt: skip
    summary.setdefault("verdicts", []).append(spoken(fit))
    if not fit.enabled:
        return None, 1
    try:
        write_calibration(path, [fit.calibration])
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)
    fields = {
        "verify": plain_checks(settings.verify), "max_error": settings.max_error, "alpha": settings.alpha,
        "explore": settings.explore, "stream": settings.stream, "predict": settings.predict, "calibration": str(path),
    }  # fmt: skip
    return Learned("cascade", {"cascade": fields}, (fit.small, fit.reference)), 0


def _on_others(table: OutcomeTable, settings: Cascade) -> None:
    """Raise `ConfigError` where a learned score would be calibrated on cases that it has learned from."""
    from negawatt.proof.scorer_fit import refuse_known
    from negawatt.routing.scorer import known_in

    for place, check in enumerate(settings.verify):
        if check.kind == "answer" and check.file is not None:
            where = f"{table.suite.path}: cascade.verify[{place}].file"
            refuse_known(known_in(Path(check.file), where), check, table.cases, where)


def scorer(summary: dict[str, Any], table: OutcomeTable, run: Run, path: Path) -> int:
    """Learn a score of answers, keep it at *path* if it knows anything, and return the exit code."""
    from negawatt.proof.scorer_fit import fit_scorer

    fit = fit_scorer(table, run)
    summary["scorer"] = {"small": fit.small, "n": fit.n, "right": fit.right, "auc": list(fit.auc), "kept": fit.enabled}
    summary.setdefault("verdicts", []).append(fit.words)
    if not fit.enabled:
        return 1
    try:
        fit.scorer.save(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)
    return 0


def against(summary: dict[str, Any], table: OutcomeTable, run: Run, options: dict[str, Any]) -> int:
    """Hold the policies of a file against their targets; put it into *summary* and return the exit code."""
    import msgspec

    from negawatt.proof.against import BELOW, INCONCLUSIVE, MET, Chooser, policies_in, policy_of

    path = options["against"]
    config = policies_in(path, os.environ)
    names = {case.id: policy_of(case, config, str(path), options["policy"]) for case in table.cases}
    found: list[Held] = []
    for name in sorted(set(names.values())):
        chooser = Chooser(name, config, str(path))
        part = table.part(partial(_under, name, names))
        try:
            found.append(_held(part, chooser, run, config.recall.embedder))
        except ConfigError as error:
            raise error if str(path) in error.message else ConfigError(f"{path}: {error.message}") from error
    summary["against"] = msgspec.to_builtins(found)
    summary["verdicts"] = [line for one in found for line in _said(one)]
    codes = [one.code for one in found]
    return BELOW if BELOW in codes else INCONCLUSIVE if INCONCLUSIVE in codes else MET


def _under(name: str, names: dict[str, str], case: SuiteCase) -> bool:
    return names[case.id] == name


def _held(table: OutcomeTable, chooser: Chooser, run: Run, embedder: str) -> Held:
    from negawatt.proof.against import held
    from negawatt.proof.against_cascade import Followed
    from negawatt.proof.asking import asked_in
    from negawatt.proof.router_fit import embedded

    if chooser.policy.how == "cascade":
        followed = Followed(chooser, chooser.source)
        judge(table.suite, list(followed.tasks(table, run)), run[1])
        success, cost, given = followed.outcomes(table, run)
        names = [table.columns[place].candidate.choice for place in given]
        places = [chooser.names.index(name) if name in chooser.names else chooser.reference for name in names]
        return held(table, chooser, places, (success, cost))
    vectors: Any = [None] * len(table.cases)
    if chooser.router is not None:
        texts = [asked_in(case).ask for case in table.cases]
        vectors, name = asyncio.run(embedded(texts, embedder, "recall.embedder"))
        chooser.router.check(tuple(chooser.names), name, f"{chooser.source}: policies.{chooser.name}.router")
    return held(table, chooser, [chooser.choose(case, v) for case, v in zip(table.cases, vectors, strict=True)])


def _said(found: Held) -> list[str]:
    lines = [found.words]
    if found.worse:
        named = ", ".join(found.worse[:_MOST_NAMED])
        more = f" and {len(found.worse) - _MOST_NAMED} more" if len(found.worse) > _MOST_NAMED else ""
        lines.append(f"Worse than the reference in {len(found.worse)} cases: {named}{more}.")
    return lines
