"""``negawatt tasks``: what one success costs, and single tasks. ``negawatt feedback``: saying whether one was."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
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
    from negawatt.success.listing import Task


@click.group()
def tasks() -> None:
    """Say what one successful task costs, and show single tasks."""


@tasks.command()
@click.option("--by", type=click.Choice(["all", "class", "tenant", "model", "template", "prompt"]), default="class",
              show_default=True, help="How tasks are grouped; prompt: by version.")  # fmt: skip
@config_option
@ledger_option
@since_option
@until_option
@json_option
def summary(by: Any, config_path: Path | None, ledger_path: Path | None, as_json: bool, **when: Any) -> None:
    """Say what tasks cost, how many succeeded, and what each success took: money, energy and time, with intervals."""
    import msgspec
    import orjson
    from rich.console import Console
    from rich.text import Text

    from negawatt.proof.report import cells_table
    from negawatt.proof.task_page import tasks_note, tasks_table
    from negawatt.success.figures import figures

    path = caught_up(config_path, ledger_path)
    since, until = moment(when["since"], 0.0, "--since"), moment(when["until"], float("inf"), "--until")
    total = msgspec.to_builtins(figures(path, since, until))
    groups = total if by == "all" else msgspec.to_builtins(figures(path, since, until, by))
    if as_json:
        click.echo(orjson.dumps({"by": by, "all": total[0] if total else None, "groups": groups}))
        return
    console = Console()
    if groups:
        console.print(cells_table(tasks_table(groups if by == "all" else [*groups, *total], by)))
    console.print(Text(tasks_note(total[0] if total else None)))


@tasks.command("list")
@click.option("--outcome", type=click.Choice(["success", "failure", "unknown"]), help="Only those.")
@click.option("--most", type=click.IntRange(1, 100_000), default=20, show_default=True, help="So many, the newest.")
@config_option
@ledger_option
@since_option
@until_option
@json_option
def list_(
    outcome: Any, most: int, config_path: Path | None, ledger_path: Path | None, as_json: bool, **when: Any
) -> None:
    """List the newest tasks: calls, cost, verdict and its basis."""
    import msgspec
    import orjson

    from negawatt.success.listing import tasks as found_in

    path = caught_up(config_path, ledger_path)
    since, until = moment(when["since"], 0.0, "--since"), moment(when["until"], float("inf"), "--until")
    found = found_in(path, since, until, outcome=outcome, most=most)
    if as_json:
        click.echo(orjson.dumps([msgspec.to_builtins(one) for one in found]))
        return
    for one in found:
        click.echo(_line(one))
    if not found:
        click.echo("no task")


def _line(one: Task) -> str:
    from negawatt.proof.formats import one_line, usd

    at = datetime.fromtimestamp(one.first_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    verdict = "unknown" if one.success is None else f"{'success' if one.success else 'failure'} ({one.basis})"
    calls = f"{one.calls} call{'' if one.calls == 1 else 's'}" + (f" + {one.asides} beside" if one.asides else "")
    return one_line(f"{at}  {one.id}  {one.request_class}  {one.model or '-'}  {calls}  {usd(one.cost_usd)}  {verdict}")


@tasks.command()
@click.argument("task")
@click.option("--tenant", default="default", show_default=True, help="Whose task it is.")
@config_option
@ledger_option
def show(task: str, tenant: str, config_path: Path | None, ledger_path: Path | None) -> None:
    """Show one task, its rows, and all that was said of it, as JSON. TASK: its name, or the id of its only call."""
    import msgspec
    import orjson

    from negawatt.ledger.export import shown
    from negawatt.success.listing import history

    path = caught_up(config_path, ledger_path)
    found, rows, words = history(path, task, tenant)
    if found is None and not words:
        raise InputError(f"{path}: there is no task {task!r} of the tenant {tenant!r}")
    said = {
        "task": None if found is None else msgspec.to_builtins(found),
        "calls": [shown(row) for row in rows],
        "feedback": [msgspec.to_builtins(word) for word in words],
    }
    click.echo(orjson.dumps(said, option=orjson.OPT_INDENT_2))


def caught_up(config_path: Path | None, ledger_path: Path | None) -> Path:
    """Return the path of the ledger, with its tasks rolled up to its newest row.

    By the rules of the configuration where that names the ledger; else by those that are in it. Raises `InputError`.
    """
    from negawatt.success.keeping import catch_up
    from negawatt.success.rules import rules_of

    config = load(config_path)
    path = ledger_file(ledger_path, config)
    if not path.exists():
        raise InputError(f"{path}: there is no ledger here")
    own = ledger_path is None and (config_path is not None or Path("negawatt.toml").exists())
    catch_up(path, rules_of(config) if own else None)
    return path


@click.command()
@click.option("--call", "call_id", metavar="ID", help="The call that it is about (x-negawatt-call-id), or")
@click.option("--task", "task_id", metavar="NAME", help="the task (x-negawatt-task).")
@click.option("--success", is_flag=True, help="It was one.")
@click.option("--failure", is_flag=True, help="It was none.")
@click.option("--score", type=float, help="From 0 to 1.")
@click.option("--useful-tokens", type=int, help="How many tokens of the answer were of use.")
@click.option("--reason", help="Why, in words.")
@click.option("--idempotency-key", metavar="KEY", help="The same key twice counts once.")
@click.option("--url", metavar="URL", help="Tell the gateway that runs there; else it is written to the ledger's file.")
@click.option("--key-env", metavar="NAME", help="With --url: the variable with the key for it.")
@click.option("--tenant", default="default", show_default=True, help="Without --url: whose call or task it is.")
@config_option
@ledger_option
@json_option
def feedback(
    url: str | None,
    key_env: str | None,
    tenant: str,
    config_path: Path | None,
    ledger_path: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say of a call, or of a task, whether it was a success. Late is welcome; a later word replaces an earlier one."""
    import orjson

    success, failure = given.pop("success"), given.pop("failure")
    if success and failure:
        raise click.UsageError("--success and --failure: say one of them")
    fields = {name: value for name, value in given.items() if value is not None}
    if success or failure:
        fields["success"] = success
    if url is not None:
        from negawatt.commands import remote

        found = remote.feedback(url, key_env, fields)
    else:
        found = _written(ledger_file(ledger_path, load(config_path)), fields, tenant)
    if as_json:
        click.echo(orjson.dumps(found))
    else:
        click.echo("recorded" if found["recorded"] else "it was said before")


def _written(path: Path, fields: dict[str, Any], tenant: str) -> dict[str, Any]:
    from negawatt.caller import NO_HINTS, Caller
    from negawatt.errors import InvalidRequest
    from negawatt.ledger.sqlite import opened
    from negawatt.ledger.words import kept
    from negawatt.success.telling import checked, said_by
    from negawatt.success.telling import feedback as word_of

    word = word_of(checked(said_by(fields)), Caller(tenant=tenant), NO_HINTS, time.time())
    if not path.exists():
        raise InputError(f"{path}: there is no ledger here")
    with closing(opened(path)) as connection:
        (new,) = kept(connection, [word])
    if isinstance(new, InvalidRequest):
        raise new
    return {"recorded": new, "repeated": not new, f"{word.kind}_id": word.about}
