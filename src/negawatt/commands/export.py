"""``negawatt export``: the ledger in forms that other programs read."""

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
from negawatt.commands.proof import progress

_FORMATS = ("focus-csv", "focus-parquet", "jsonl", "openmetrics")  # as in negawatt.exports, loaded when it is needed


@click.command()
@click.option("--format", "form", type=click.Choice(_FORMATS), default="focus-csv", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="-", show_default=True, metavar="FILE",
              help="Where to; - is standard output. It is there whole or not at all.")  # fmt: skip
@click.option("--by", type=click.Choice(("hour", "day")), default="day", show_default=True,
              help="Periods, in UTC, of which one row is made for each group; not for jsonl.")  # fmt: skip
@click.option("--savings/--no-savings", default=True, help="What the levers spared, as rows that cancel each other.")
@click.option("--account", default="negawatt", show_default=True, help="What to call the billing account (FOCUS).")
@since_option
@until_option
@ledger_option
@config_option
@json_option
def export(
    form: Any, out: Path, config_path: Path | None, ledger_path: Path | None, as_json: bool, **asked: Any
) -> None:
    """Write what calls cost and spared, for other programs.

    \b
      focus-csv, focus-parquet   charges by period, model and kind of token, in the shape of FOCUS 1.2
      jsonl                      the rows themselves; with kept content also a trace for `negawatt replay`
      openmetrics                sums by period with time stamps, for promtool tsdb create-blocks-from

    The sum of BilledCost is the sum over the ledger, to the last digit. Calls without a known price have no cost, are
    counted, and said.
    """
    from negawatt.books import open_accounts
    from negawatt.exports.exporting import Wanted
    from negawatt.exports.exporting import export as run
    from negawatt.exports.writing import output
    from negawatt.ledger.sqlite import count_rows

    config = load(config_path)
    path = ledger_file(ledger_path, config)
    since, until = moment(asked["since"], 0.0, "--since"), moment(asked["until"], float("inf"), "--until")
    if since >= until:
        raise click.BadParameter("it is not before --until", param_hint="--since")
    wanted = Wanted(path, since, until, form, asked["by"], asked["account"], asked["savings"])
    with output(out) as file, progress("exporting") as (of, done):
        of(count_rows(path, since, until))
        found = run(wanted, open_accounts(config), file, done)
    _say({"format": form, "out": str(out), **found}, as_json, to_stdout=str(out) != "-")


def _say(found: dict[str, Any], as_json: bool, *, to_stdout: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps(found), err=not to_stdout)
        return
    said = f"{found['calls']} calls exported in {found['lines']} lines"
    if "billed_usd" in found:
        said += f"; billed ${found['billed_usd']}, spared ${found['spared_usd']}"
    click.echo(said, err=True)
    if found.get("unpriced_calls"):
        click.echo(f"{found['unpriced_calls']} calls have no known price, and no cost here", err=True)
    if found.get("spared_unpriced"):
        click.echo(f"{found['spared_unpriced']} savings have no known price, and no cost here", err=True)
