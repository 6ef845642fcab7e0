"""``negawatt budgets``: what is spent, what is left, and when it begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import config_option, json_option, load
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.budgets import Line
    from negawatt.config import Config


@click.command()
@click.option("--url", metavar="URL", help="Ask the gateway that runs there, whatever its store.")
@click.option("--key-env", metavar="NAME", help="Variable with the key of an administrator, for it.")
@config_option
@json_option
def budgets(url: str | None, key_env: str | None, config_path: Path | None, as_json: bool) -> None:
    """Say how every budget stands: spent, reserved by calls under way, left, and when it begins anew.

    Exit code 0; 1 when one is used up. Books in memory live in their server: ask it with --url.
    """
    from negawatt.commands import remote

    found = remote.budgets(url, key_env) if url is not None else _kept(load(config_path))
    if as_json:
        import orjson

        click.echo(orjson.dumps({"budgets": found}))
    else:
        _show(found)
    raise SystemExit(1 if any(one["left_share"] <= 0 for one in found) else 0)


def _kept(config: Config) -> list[dict[str, Any]]:
    """Return how budgets stand by what lies in the store. Raises `InputError`."""
    import time

    from negawatt.budgets.rules import Rules
    from negawatt.budgets.states import states

    now = time.time()
    rules = Rules(config.budgets).rules
    lines = _lines(config, now) if rules else []
    return [state.data(now) for state in states(rules, lines, now)]


def _lines(config: Config, now: float) -> Sequence[Line]:
    from negawatt.budgeting import open_books, store_of
    from negawatt.budgets.sqlite import read_lines
    from negawatt.clock import SystemClock
    from negawatt.registry import Url

    url = Url.parse(store_of(config), "budgeting.store")
    if url.scheme == "memory":
        raise InputError("budgeting.store: books in memory live in their server; use --url")
    if url.scheme == "sqlite":  # a server may have it open: it is only read
        return read_lines(Path(url.path), now)

    async def ask() -> Sequence[Line]:
        books = open_books(config, SystemClock())
        assert books is not None
        try:
            return await books.lines()
        finally:
            await books.close()

    return asyncio.run(ask())


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        click.echo("no budget has been used, or none is configured ([[budgets]])")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from negawatt.proof.formats import one_line

    table = Table(box=None)
    for name in ("budget", "whose", "spent", "reserved", "limit", "left", "resets"):
        table.add_column(name, overflow="fold")
    for one in found:
        whose = ", ".join(str(part) for part in (one["whose"] or {}).values() if part is not None)
        unit = one["unit"]
        cells = (
            one["budget"], whose or "all", one["spent"], one["reserved"], f"{one['limit']} {unit}",
            f"{one['left_share']:.1%}", one["resets_at"].replace("T", " ").replace(":00Z", " UTC"),
        )  # fmt: skip
        table.add_row(*(Text(one_line(str(cell))) for cell in cells))  # as they are: callers name users and models
    Console().print(table)
