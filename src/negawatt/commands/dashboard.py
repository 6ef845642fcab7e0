"""``negawatt dashboard``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from negawatt.commands.options import config_option, json_option, ledger_file, ledger_option, load


@click.command()
@config_option
@ledger_option
@click.option("--port", type=click.IntRange(0, 65535), default=4101, show_default=True, help="0 takes a free one.")
@json_option
def dashboard(config_path: Path | None, ledger_path: Path | None, port: int, as_json: bool) -> None:
    """Show the dashboard of a ledger, on this machine only, until Ctrl-C.

    `negawatt serve` has it at / as well, live. This is for a ledger that no gateway writes: a copy, or a demo's.
    What a configuration says of classes, policies and caches is shown with the ledger that it names, or with any when
    it is given by --config.

    \b
    negawatt demo --ledger demo.sqlite
    negawatt dashboard --ledger demo.sqlite
    """
    from negawatt.dashboard import Dashboard, viewing
    from negawatt.serving import show

    config = load(config_path)
    ledger = ledger_file(ledger_path, config).absolute()
    described = config_path is not None or (ledger_path is None and Path("negawatt.toml").exists())
    viewed = viewing(ledger, port)

    def announce(address: str) -> None:
        click.echo(f'{{"address":"{address}"}}' if as_json else f"the dashboard is at {address} (Ctrl-C ends it)")

    show(viewed, announce, partial(Dashboard, about=config if described else None))
