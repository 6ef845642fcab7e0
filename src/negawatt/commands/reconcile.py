"""``negawatt ledger reconcile``: the ledger against a provider's bill."""

from __future__ import annotations

from decimal import Decimal
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
    since_option,
    until_option,
)
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.ledger.bills import Bill, Line
    from negawatt.ledger.reasons import Sums
    from negawatt.ledger.reconcile import Compared, Result

_DAY_S = 86_400.0


@click.command()
@click.argument("bill", type=click.Path(path_type=Path), metavar="BILL.csv")
@click.option("--provider", metavar="NAME", help="Only attempts at this provider; default: all in the ledger.")
@click.option("--map", "columns", multiple=True, metavar="COLUMN=FIELD",
              help="Of an unknown export: what a column means; docs/reconcile.md has the fields.")  # fmt: skip
@click.option("--tolerance", default="0.5%", show_default=True, help="Share of the bill that may stay unexplained.")
@config_option
@ledger_option
@since_option
@until_option
@json_option
def reconcile(bill: Path, columns: tuple[str, ...], tolerance: str, as_json: bool, **how: Any) -> None:
    """Compare the ledger with a provider's bill, and explain what differs.

    BILL.csv is what the provider's console exports: usage or costs, of Anthropic, OpenAI, OpenRouter, LiteLLM, or in
    the FOCUS format; any other with --map. Both are summed by UTC day and model. Exit code 0 when at most --tolerance
    of the bill stays unexplained, 1 when more does.

    \b
      negawatt ledger reconcile usage.csv --provider anthropic
      negawatt ledger reconcile bill.csv --map "Datum=day" --map "Modell=model" --map "USD=cost"
    """
    from negawatt.ledger.bills import Bill
    from negawatt.ledger.reconcile import reconcile as compare
    from negawatt.ledger.sqlite import read_rows

    most = _share(tolerance)
    opened = Bill(bill, _columns(columns))
    since, until = _span(opened, how["since"], how["until"])
    path = ledger_file(how["ledger_path"], load(how["config_path"]))
    lines = (line for line in opened if since <= _start(line) < until)
    result = compare(lines, read_rows(path, since, until), how["provider"])
    agrees = result.share <= most
    if as_json:
        import orjson

        click.echo(orjson.dumps({**_as_json(result), "format": opened.format.name, "explained": agrees}))
    else:
        _show(result, opened, agrees, tolerance)
    raise SystemExit(0 if agrees else 1)


def _share(text: str) -> Decimal:
    try:
        value = Decimal(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ArithmeticError:
        value = Decimal(-1)
    if not 0 <= value <= 1:
        raise click.BadParameter(f"{text!r} is no share, such as 0.5% or 0.005", param_hint="--tolerance")
    return value


def _columns(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        column, equals, field = pair.rpartition("=")
        if not equals or not column:
            raise click.BadParameter(f"{pair!r} is not COLUMN=FIELD", param_hint="--map")
        found[column] = field
    return found


def _start(line: Line) -> float:
    return moment(line.day, 0.0, "day")


def _span(bill: Bill, since: str | None, until: str | None) -> tuple[float, float]:
    """Return the days of the bill, as far as *since* and *until* leave them, in seconds since 1970."""
    first, last = None, None
    for line in bill:
        first = line.day if first is None else min(first, line.day)
        last = line.day if last is None else max(last, line.day)
    if first is None or last is None:
        raise InputError(f"{bill.path}: it has no lines")
    begin, end = moment(first, 0.0, "day"), moment(last, 0.0, "day") + _DAY_S
    return max(begin, moment(since, begin, "--since")), min(end, moment(until, end, "--until"))


# -- showing ---------------------------------------------------------------------------------------------------


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "by": result.by,
        "bill": str(result.bill),
        "ledger": str(result.ledger),
        "unexplained": str(result.unexplained),
        "unexplained_share": float(result.share),
        "captured_share": None if result.captured is None else float(result.captured),
        "compared": [_line(one) for one in result.compared],
    }


def _line(one: Compared) -> dict[str, Any]:
    return {
        "day": one.day,
        "model": one.model,
        "matched_by": one.matched,
        "bill": _sums(one.bill),
        "ledger": _sums(one.ledger),
        "difference": None if one.difference is None else str(one.difference),
        "unexplained": None if one.unexplained is None else str(one.unexplained),
        "reasons": [
            {"code": r.code, "text": r.text, "amount": None if r.amount is None else str(r.amount)} for r in one.reasons
        ],
    }


def _sums(sums: Sums | None) -> dict[str, Any] | None:
    if sums is None:
        return None
    names = ("calls", "fresh", "cache_read", "cache_write", "output", "searches")
    cost = None if sums.cost is None else str(sums.cost)
    return {**{name: getattr(sums, name) for name in names}, "cost_usd": cost}


def _show(result: Result, bill: Bill, agrees: bool, tolerance: str) -> None:
    form = _usd if result.by == "cost" else _tokens
    click.echo(f"{bill.path}: {bill.format.title}; compared by {result.by}, UTC days and models, largest first")
    for one in result.compared:
        if one.difference or one.reasons:
            click.echo(f"\n{one.day}  {one.model}  ({one.matched})")
            click.echo(f"  bill {form(_of(one.bill, result.by))}, ledger {form(_of(one.ledger, result.by))}: "
                       f"{form(one.difference, sign=True)}")  # fmt: skip
            for reason in one.reasons:
                click.echo(f"    {form(reason.amount, sign=True):>14}  {reason.code}: {reason.text}")
            if one.unexplained:
                click.echo(f"    {form(one.unexplained, sign=True):>14}  unexplained")
    same = sum(not one.difference for one in result.compared)
    click.echo(f"\n{same} of {len(result.compared)} days and models agree exactly.")
    if result.captured is not None:
        click.echo(f"captured: {result.captured:.2%} of the bill went by way of this gateway")
    click.echo(f"bill {form(result.bill)}, ledger {form(result.ledger)}; unexplained {form(result.unexplained)}, "
               f"{result.share:.2%} of it: {'within' if agrees else 'more than'} {tolerance}")  # fmt: skip


def _of(sums: Sums | None, by: str) -> Decimal | None:
    if sums is None:
        return None
    return Decimal(sums.tokens) if by == "tokens" else sums.cost


def _usd(amount: Decimal | None, *, sign: bool = False) -> str:
    if amount is None:
        return "none"
    places = 2 if abs(amount) >= 1 or not amount else 6
    return f"{'-' if amount < 0 else '+' if sign else ''}${abs(amount):,.{places}f}"


def _tokens(amount: Decimal | None, *, sign: bool = False) -> str:
    return "none" if amount is None else f"{amount:{'+' if sign else ''},.0f} tokens"
