"""Options that several verbs share."""

from __future__ import annotations

import re
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from negawatt.errors import ConfigError

if TYPE_CHECKING:
    from negawatt.config import Config

_SPAN = re.compile(r"(\d{1,9})([mhdw])", re.ASCII)
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

config_option = click.option(
    "--config", "-c", "config_path", type=click.Path(path_type=Path), metavar="FILE",
    help="Configuration; default: negawatt.toml in this folder, else the defaults.",
)  # fmt: skip
ledger_option = click.option(
    "--ledger", "-l", "ledger_path", type=click.Path(path_type=Path), metavar="FILE",
    help="SQLite ledger; default: the one that the configuration names.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and everything else to stderr.")
since_option = click.option(
    "--since", metavar="WHEN", help="Only calls since then: 24h, 7d, 30m, or a date such as 2026-11-01 (UTC)."
)
until_option = click.option("--until", metavar="WHEN", help="Only calls before then; the same forms.")


def load(config_path: Path | None) -> Config:
    """Return the configuration, also where no provider is set: not every verb needs one."""
    from negawatt.config import load_config

    return load_config(config_path)


def ledger_file(ledger_path: Path | None, config: Config) -> Path:
    """Return the path of the SQLite ledger to read. Raises `ConfigError` when there is no such thing."""
    from negawatt.registry import Url

    if ledger_path is not None:
        return ledger_path
    url = Url.parse(config.ledger.url, "ledger.url")
    if url.scheme != "sqlite":
        raise ConfigError(f"ledger.url: {config.ledger.url!r} is not a file that can be read here; use --ledger FILE")
    return Path(url.path)


def span(text: str) -> int | None:
    """Return *text*, such as 24h, 30m, 7d or 2w, in seconds; None where it is no such span."""
    found = _SPAN.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def own_name() -> str:
    """Return what to type to run this program again: ``negawatt`` where a shell finds it, else as it was called."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{sys.executable} -m negawatt"
    found = shutil.which("negawatt")
    return "negawatt" if found is not None and Path(found).resolve() == Path(called).resolve() else called


def moment(text: str | None, default: float, name: str) -> float:
    """Return *text* as seconds since 1970. Raises `click.BadParameter`, which names the option."""
    if text is None:
        return default
    seconds = span(text)
    if seconds is not None:
        return time.time() - seconds
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither a span (24h, 7d) nor a date (2026-11-01)"
        raise click.BadParameter(message, param_hint=name) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
