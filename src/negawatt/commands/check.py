"""``negawatt check``: the regression test for prompts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import config_option, json_option, ledger_option, load
from negawatt.errors import NegawattError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from negawatt.checks.figures import Figures, Pricing
    from negawatt.checks.findings import Finding
    from negawatt.checks.measure import Lock
    from negawatt.checks.plan import Plan
    from negawatt.checks.static import Checked

_FILE = click.Path(path_type=Path)
_SPAN_S = 30 * 86_400.0


@click.command()
@click.argument("file", type=_FILE, default=Path("negawatt.check.toml"), required=False)
@click.option("--update", is_flag=True, help="Write tokens.lock.json anew: what is there now is agreed to.")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--replay", is_flag=True, help="Also look at recorded answers: see `cassettes` in FILE.")
@click.option("--cassettes", type=_FILE, multiple=True, metavar="PATH",
              help="For --replay: a recording, or a folder of them, instead of those in FILE.")  # fmt: skip
@click.option("--live", type=_FILE, metavar="SUITE", help="Also compare base and head on an evaluation; needs --base.")
@click.option("--base", metavar="FOLDER|COMMIT",
              help="What to compare with: a checkout, or a commit to check out; else the lock.")  # fmt: skip
@click.option("--out", type=_FILE, metavar="FOLDER", default=Path("check-evaluation"), show_default=True,
              help="For --live: where the answers are kept.")  # fmt: skip
@click.option("--yes", is_flag=True, help="For --live: ask live models without asking you first.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write the comment for a pull request.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--sarif", type=_FILE, metavar="FILE", help="Write SARIF 2.1.0.")
@ledger_option
@config_option
@json_option
def check(file: Path, as_json: bool, **options: Any) -> None:
    """Hold the prompts of a repository against their budgets, and against what they were.

    FILE (negawatt.check.toml) names them: templates, Python constants, tool schemas, few-shot examples. Without
    --replay and --live nothing is asked, nothing is run, and no key is needed.

    \b
    negawatt check                      for every pull request
    negawatt check --update             agree to what is there, and commit tokens.lock.json
    negawatt check --replay             recorded answers still fit the prompts
    negawatt check --live suite.toml --base main     base against head, answer by answer

    Exit codes: 0 nothing is wrong, 1 something is, 2 bad input, 3 it cannot be told (too few pairs).
    """
    from negawatt.checks.findings import exit_code, kept
    from negawatt.checks.plan import load_plan
    from negawatt.checks.static import check as checked_by
    from negawatt.commands.check_tiers import checkout

    if options["live"] is not None and options["base"] is None:
        raise click.UsageError("--live compares with a --base")
    plan = load_plan(file)
    checked = checked_by(plan, update=options["update"])
    with checkout(plan, options["base"]) as base:
        findings, more = _tiers(checked, base, options)
        findings = kept(plan, [*checked.findings, *findings])
        made = _figures(checked, base, options)
    code = exit_code(findings, strict=options["strict"])
    _write(checked, made, findings, more, options)
    if as_json:
        import orjson

        from negawatt.checks.figures import as_json as report

        click.echo(orjson.dumps(report(made, findings, strict=options["strict"], **more)))
    _say(checked, made, findings, more, err=as_json)
    raise SystemExit(code)


def _tiers(
    checked: Checked, base: Path | None, options: dict[str, Any]
) -> tuple[list[Finding], dict[str, dict[str, Any]]]:
    """Return what the tiers beyond the static one find, and their figures."""
    from negawatt.commands import check_tiers

    findings: list[Finding] = []
    more: dict[str, dict[str, Any]] = {}
    if options["replay"] or options["cassettes"]:
        found, more["replay"] = check_tiers.replay(checked, options["cassettes"], update=options["update"])
        findings += found
    if options["live"] is not None and base is not None:
        suite, out = options["live"], options["out"]
        found, more["live"] = check_tiers.live(checked.plan, suite, base, out, yes=options["yes"])
        findings += found
    return findings, more


def _figures(checked: Checked, base: Path | None, options: dict[str, Any]) -> Figures:
    from negawatt.checks.figures import figures

    pricing = _pricing(checked.plan, options["config_path"])
    return figures(checked, _base(checked, base), _calls(checked, options), pricing)


def _base(checked: Checked, folder: Path | None) -> Lock | None:
    """Return what the prompts were: counted in *folder*, or as the lock has it."""
    import msgspec

    from negawatt.checks.measure import measure
    from negawatt.checks.plan import load_plan
    from negawatt.checks.surfaces import read_surfaces

    if folder is None:
        return checked.before
    path = folder / checked.plan.path.name
    if not path.is_file():
        return None  # the base had no check yet: every surface is new
    try:
        plan = load_plan(path)
        same = msgspec.structs.replace(plan.file, models=checked.plan.file.models, budgets=(), ignore=())
        plan = msgspec.structs.replace(plan, file=same)
        return measure(plan, read_surfaces(plan)).lock
    except NegawattError as error:  # whoever mends it must be able to pass
        click.echo(f"--base: {error.message}; the lock is compared with instead", err=True)
        return checked.before


def _calls(checked: Checked, options: dict[str, Any]) -> Mapping[str, float | None]:
    """Return how often a day each surface is sent: declared, else by the ledger's calls of its class or template."""
    daily = None if options["ledger_path"] is None else _daily(options["ledger_path"])
    found: dict[str, float | None] = {}
    for surface in checked.measured.surfaces:
        said, request_class = surface.group.calls_per_day, surface.group.request_class
        key = ("template", surface.template) if request_class is None else ("class", request_class)
        counted = None if daily is None or key[1] is None else daily.get(key, 0.0)
        found[surface.name] = counted if said is None else said
    return found


def _daily(path: Path) -> dict[tuple[str, str | None], float]:
    """Return the calls a day that were sent of each class and template in the last 30 days, or as many as there are."""
    from collections import Counter

    from negawatt.ledger.sqlite import read_rows

    until = time.time()
    counts: Counter[tuple[str, str | None]] = Counter()
    first = until
    for row in read_rows(path, until - _SPAN_S, until):
        for key in (("class", row.request_class), ("template", row.template)):
            counts[key] += row.attempts  # what a cache answers is not sent
        first = min(first, row.received_at)
    days = max((until - first) / 86_400, 1.0)
    return {key: count / days for key, count in counts.items()}


def _pricing(plan: Plan, config_path: Path | None) -> Pricing:
    """Return the prices of today, opened when they are first asked for."""
    from functools import cache

    @cache
    def accounts() -> Any:
        from negawatt.books import open_accounts

        return open_accounts(load(config_path))

    return lambda model, usage: accounts().amount_as(plan.file.provider, model, usage, time.time())


def _write(
    checked: Checked, made: Figures, findings: list[Finding], more: dict[str, Any], options: dict[str, Any]
) -> None:
    from negawatt.checks.findings import exit_code
    from negawatt.commands.evaluate import write

    if options["markdown"] is not None:
        from negawatt.checks.markdown import comment

        code = exit_code(findings, strict=options["strict"])
        write(options["markdown"], comment(made, findings, code, _notes(more)))
    if options["junit"] is not None:
        from negawatt.checks.junit import junit

        write(options["junit"], junit(checked.measured.surfaces, findings))
    if options["sarif"] is not None:
        import orjson

        from negawatt.checks.sarif import sarif

        write(options["sarif"], orjson.dumps(sarif(findings), option=orjson.OPT_INDENT_2).decode() + "\n")


def _notes(more: dict[str, Any]) -> list[str]:
    return [str(one["said"]) for one in more.values()]


def _say(checked: Checked, made: Figures, findings: list[Finding], more: dict[str, Any], *, err: bool) -> None:
    """Say on the terminal what was found."""
    if checked.updated:
        click.echo(f"wrote {checked.plan.lock}", err=True)
    colours = {"error": "red", "warning": "yellow", "inconclusive": "cyan"}
    for one in findings:
        click.secho(str(one), fg=colours[one.level], err=err)
        click.echo(f"    {one.remedy}", err=err)
    for note in _notes(more):
        click.echo(note, err=err)
    changed = [line for line in made.lines if line.base != line.head]
    for line in changed:
        base, head = ("none" if n is None else f"{n:,}" for n in (line.base, line.head))
        click.echo(f"{line.surface}: {base} -> {head} tokens ({line.tokens:+,})", err=err)
    levels = [one.level for one in findings]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in ("error", "warning", "inconclusive"))
    surfaces = "1 surface" if len(made.lines) == 1 else f"{len(made.lines)} surfaces"
    click.echo(f"{surfaces}, {made.head:,} tokens to {made.model} ({made.basis}): {counts}", err=err)
