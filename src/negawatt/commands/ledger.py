"""``negawatt ledger``: the rows themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from negawatt.commands.options import (
    config_option,
    json_option,
    ledger_file,
    ledger_option,
    load,
    moment,
    since_option,
    until_option,
)
from negawatt.commands.reconcile import reconcile
from negawatt.errors import InputError


@click.group()
def ledger() -> None:
    """Read, export, price again and reconcile the rows of the ledger."""


ledger.add_command(reconcile)


@ledger.command()
@config_option
@ledger_option
@since_option
@until_option
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: standard output.")
def export(
    config_path: Path | None, ledger_path: Path | None, since: str | None, until: str | None, out: Path | None
) -> None:
    """Write the rows as JSONL, as `negawatt export --format jsonl` does.

    With kept content it is both a trace and a recording for `negawatt replay`.
    """
    from negawatt.exports.exporting import write_lines
    from negawatt.exports.writing import output

    path = ledger_file(ledger_path, load(config_path))
    with output(out) as file:
        count = write_lines(path, moment(since, 0.0, "--since"), moment(until, float("inf"), "--until"), file)
    click.echo(f"{count} calls exported", err=True)


@ledger.command()
@click.argument("call_id")
@config_option
@ledger_option
def show(call_id: str, config_path: Path | None, ledger_path: Path | None) -> None:
    """Show one row, with the decisions and attempts that explain it, as JSON."""
    import orjson

    from negawatt.ledger.export import shown
    from negawatt.ledger.sqlite import read_rows

    path = ledger_file(ledger_path, load(config_path))
    row = next((row for row in read_rows(path) if row.id == call_id), None)
    if row is None:
        raise InputError(f"{path}: there is no call {call_id}")
    click.echo(orjson.dumps(shown(row), option=orjson.OPT_INDENT_2))


@ledger.command()
@config_option
@ledger_option
@since_option
@until_option
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
def reprice(config_path: Path | None, ledger_path: Path | None, dry_run: bool, as_json: bool, **when: Any) -> None:
    """Compute cost, energy and carbon anew from the stored usage, with the tables of today's configuration.

    Prices are those of the time of each call, as today's table knows them. What a provider said of its own cost stays.
    """
    import orjson

    from negawatt.books import open_accounts
    from negawatt.doors import note_here
    from negawatt.ledger.reprice import reprice_ledger

    config = load(config_path)
    since, until = moment(when["since"], 0.0, "--since"), moment(when["until"], float("inf"), "--until")
    path, accounts = ledger_file(ledger_path, config), open_accounts(config)
    change = reprice_ledger(path, accounts, since, until, dry_run=dry_run)
    if not dry_run:
        note_here(config, "ledger.repriced", str(path), {**change, **accounts.versions})
    if as_json:
        click.echo(orjson.dumps(change))
    else:
        verb = "would change" if dry_run else "changed"
        counts = f"{change['changed']} of {change['rows']} rows {verb}"
        click.echo(f"{counts}: ${change['before_usd']} -> ${change['after_usd']}; {change['unpriced']} unpriced")
