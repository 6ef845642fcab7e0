"""``negawatt slo`` and ``negawatt alerts``: how the promises stand, and whether the sinks can be reached."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import config_option, json_option, ledger_file, ledger_option, load

if TYPE_CHECKING:
    from negawatt.config import Config

url_option = click.option("--url", metavar="ADDRESS", help="Of a gateway that runs, such as http://127.0.0.1:4100.")
key_option = click.option("--key-env", metavar="NAME", help="Variable that holds the key of an administrator there.")


@click.group()
def slo() -> None:
    """Look at what is promised of each class, and whether it is kept."""


@slo.command()
@config_option
@ledger_option
@url_option
@key_option
@json_option
def status(
    config_path: Path | None, ledger_path: Path | None, url: str | None, key_env: str | None, as_json: bool
) -> None:
    """Show of each promise: target, good of all, what is left of the budget of errors, burn rates, and the verdict.

    From the ledger alone, with no gateway running; with --url from the gateway there, which also knows what is not in
    its rows. Exit code 1 when one is breached.
    """
    import orjson

    from negawatt.commands.remote import asked

    if url is not None:
        found = asked(url, "/admin/slo", key_env)
    else:
        config = load(config_path)
        found = _from_ledger(ledger_file(ledger_path, config), config)
    if as_json:
        click.echo(orjson.dumps(found))
    else:
        for line in _lines(found["classes"]):
            click.echo(line)
    breached = any(row["verdict"] == "breached" for one in found["classes"] for row in one["promises"])
    raise SystemExit(1 if breached else 0)


def _from_ledger(path: Path, config: Config) -> dict[str, Any]:
    from negawatt.clock import SystemClock
    from negawatt.governing import successes
    from negawatt.watch.alert import iso
    from negawatt.watching import watch_of

    clock = SystemClock()
    return {"at": iso(clock.time()), "classes": asyncio.run(watch_of(path, config, clock, successes(path))).slos()}


def _lines(classes: list[dict[str, Any]]) -> list[str]:
    if not classes:
        return ["nothing is promised: add [slo], or [classes.NAME.slo], to the configuration"]
    lines = []
    for one in classes:
        owner = f", owner {one['owner']}" if one["owner"] else ""
        lines.append(f"class {one['class']}{owner}, {one['window_days']:g} days")
        for row in one["promises"]:
            lines.append(f"  {row['verdict']:<9} {row['slo']:<17} {_target(row):<16} {_said(row)}")
    return lines


def _target(row: dict[str, Any]) -> str:
    if row["target"] is None:
        return ""
    share = row["unit"] == "share"
    return f"<= {row['target'] * (100 if share else 1):g} {'%' if share else row['unit']}"


def _said(row: dict[str, Any]) -> str:
    if "total" not in row:
        return str(row["message"]) or ("nothing is known of it here" if row["verdict"] == "unknown" else "as promised")
    if not row["total"]:
        return "no calls"
    burns = ", ".join(f"{name} {_rate(one['long'])}/{_rate(one['short'])}" for name, one in row["burn"].items())
    good = f"{row['good']} of {row['total']} good, {row['budget_left']:.1%} of the budget left"
    return f"{good}; burn rates, long/short: {burns}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2g}"


@click.group()
def alerts() -> None:
    """Try the sinks that alerts go to."""


@alerts.command()
@config_option
@json_option
def test(config_path: Path | None, as_json: bool) -> None:
    """Send a test alert to every sink, first firing and then resolved, and say what each answered.

    Exit code 1 when one did not take it.
    """
    import orjson

    found = asyncio.run(_tried(load(config_path)))
    if as_json:
        click.echo(orjson.dumps({"sinks": found}))
    else:
        for one in found:
            answer = f"took it: {one['answer']}" if one["taken"] else f"did not take it: {one['answer']}"
            click.echo(f"{one['sink']} ({one['kind']}): {answer}")
    raise SystemExit(0 if all(one["taken"] for one in found) else 1)


async def _tried(config: Config) -> list[dict[str, Any]]:
    import time

    from negawatt.recalling import Carrier
    from negawatt.watch.alert import trials
    from negawatt.watch.sinks import SinkError, open_sinks

    carrier = Carrier()
    found = []
    try:
        for sink in open_sinks(config.alerts, carrier, os.environ):
            now = time.time()
            try:
                answers = [await sink.sender.send([alert], now) for alert in trials(now)]
                answer, taken = answers[-1], True
            except SinkError as error:
                answer, taken = error.message, False
            found.append({"sink": sink.name, "kind": sink.kind, "taken": taken, "answer": answer})
    finally:
        await carrier.close()
    return found
