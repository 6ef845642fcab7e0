"""``negawatt keys``: make, list, revoke and rotate keys, and read the log of what was changed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import config_option, json_option, load, moment, span
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.access.file import KeyFile
    from negawatt.access.key import Key
    from negawatt.config import Config

_file_option = click.option("--file", "path", type=click.Path(path_type=Path), metavar="FILE",
                            help="File of keys; default: the one that the configuration names.")  # fmt: skip


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate the keys that callers send, and read the log of what was changed.

    They lie in the file that access.keys of the configuration names (negawatt-keys.sqlite of this folder), as digests.
    A server that runs knows of a change within a second.
    """


@keys.command()
@click.option("--id", "name", metavar="NAME", help="How the ledger and budgets call it; default: one is drawn.")
@click.option("--note", default="", help="Who holds it, or what it is for.")
@click.option("--tenant", default="default", show_default=True, help="Nothing is ever shared between tenants.")
@click.option("--user", metavar="NAME", help="The calls' user, where they name none.")
@click.option("--permission", "permissions", multiple=True, metavar="NAME",
              help="Calls with different permissions share nothing; may be given several times.")  # fmt: skip
@click.option("--model", "models", multiple=True, metavar="NAME", help="That it may use; several times. Default: any.")
@click.option("--class", "classes", multiple=True, metavar="NAME",
              help="Of which its calls may be, declared or classified; several times. Default: any.")  # fmt: skip
@click.option("--budget", "budgets", multiple=True, metavar="NAME",
              help="That its calls count against, beside those that fit anyway; several times.")  # fmt: skip
@click.option("--expires", metavar="WHEN", help="90d, 12h, or a date such as 2027-01-31 (UTC). Default: never.")
@click.option("--admin", is_flag=True, help="For / and /admin, and not for calls unless --use says so.")
@click.option("--use/--no-use", default=None, help="For calls. Default: yes, unless it is an administrator's.")
@_file_option
@config_option
@json_option
def create(path: Path | None, config_path: Path | None, as_json: bool, **given: Any) -> None:
    """Make a key and print its secret, once: only a digest of it is kept.

    Standard output has the secret alone, so that it can be caught: KEY=$(negawatt keys create --note ci).
    """
    from negawatt.access.key import Terms
    from negawatt.doors import check_names, person

    config = load(config_path)
    now = time.time()
    terms = Terms(
        id=given["name"], note=given["note"], tenant=given["tenant"], user=given["user"],
        permissions=given["permissions"], models=given["models"] or None, classes=given["classes"] or None,
        budgets=given["budgets"], expires_at=_later(given["expires"], now, "--expires"), admin=given["admin"],
        use=not given["admin"] if given["use"] is None else given["use"],
    )  # fmt: skip
    check_names(terms, config)
    key, secret = _file(path, config).create(terms, person(), now)
    _say_secret(key, secret, now, as_json, f"key {key.id} is made ({_kind(key)}); its secret is shown this once:")


@keys.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@_file_option
@config_option
@json_option
def list_keys(everything: bool, path: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the keys of the file: what they are for, until when, and when they were used last."""
    import orjson

    from negawatt.doors import shown

    file, now = _file(path, load(config_path)), time.time()
    found = [key for key in file.all() if everything or key.state(now) == "active"] if file.begun else []
    if as_json:
        click.echo(orjson.dumps({"keys": [shown(key, now) for key in found]}))
        return
    if not found:
        click.echo("no keys; `negawatt keys create` makes one", err=True)
        return
    _print_table(found, now)


@keys.command()
@click.argument("key_id")
@_file_option
@config_option
@json_option
def revoke(key_id: str, path: Path | None, config_path: Path | None, as_json: bool) -> None:
    """End the key KEY_ID, at once and for good."""
    import orjson

    from negawatt.doors import person, shown

    now = time.time()
    key = _existing(path, load(config_path)).revoke(key_id, person(), now)
    if as_json:
        click.echo(orjson.dumps({"key": shown(key, now)}))
    else:
        click.echo(f"key {key.id} is revoked")


@keys.command()
@click.argument("key_id")
@click.option("--grace", default="6h", show_default=True, metavar="SPAN",
              help="So long the old secret stays good: 24h, 30m, 7d; 0 ends it at once.")  # fmt: skip
@_file_option
@config_option
@json_option
def rotate(key_id: str, grace: str, path: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Give the key KEY_ID a new secret, which is printed once."""
    from negawatt.doors import person

    now, grace_s = time.time(), _span(grace, "--grace")
    key, secret = _existing(path, load(config_path)).rotate(key_id, person(), now, grace_s)
    until = "no longer good" if not grace_s else f"good until {_when(now + grace_s)}"
    said = f"key {key.id} has a new secret, shown this once; the old one is {until}:"
    _say_secret(key, secret, now, as_json, said)


@keys.command()
@click.option("--verify", is_flag=True, help="Walk the whole chain; exit code 1 where a line was changed or is gone.")
@click.option("--expect", metavar="DIGEST", help="Of a line noted earlier, which has to be in the chain; verifies.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Newest lines to show.")
@click.option(
    "--since", metavar="WHEN", help="Only lines since then: 24h, 7d, 30m, or a date such as 2026-11-01 (UTC)."
)
@_file_option
@config_option
@json_option
def audit(path: Path | None, config_path: Path | None, as_json: bool, **asked: Any) -> None:
    """Show who changed what, newest first, or verify that nothing of it was altered.

    Each line holds the digest of the one before. Whoever may write the file could make all of it anew: note the digest
    of the newest line elsewhere, and give it as --expect later.
    """
    import msgspec
    import orjson

    from negawatt.proof.formats import one_line

    file = _existing(path, load(config_path))
    if asked["verify"] or asked["expect"] is not None:
        found = file.verify(asked["expect"])
        if as_json:
            click.echo(orjson.dumps(found._asdict()))
        else:
            click.echo(f"{found.lines} lines, {'whole' if found.problem is None else found.problem}; head {found.head}")
        raise SystemExit(0 if found.problem is None else 1)
    lines = file.lines(since=moment(asked["since"], 0.0, "--since"), limit=asked["limit"])
    if as_json:
        click.echo(orjson.dumps({"lines": msgspec.to_builtins(lines)}))
        return
    for line in lines:
        told = " ".join(f"{name}={value}" for name, value in line.detail.items())
        # What was done may hold a caller's words: one line stays one line, and none looks like another.
        said = f"{line.place:>5}  {_when(line.at)}  {line.actor}  {line.action}  {line.about}  {told}".rstrip()
        click.echo(one_line(said))


def _file(path: Path | None, config: Config) -> KeyFile:
    from negawatt.access.file import KeyFile
    from negawatt.doors import key_file

    return key_file(config)[0] if path is None else KeyFile(path)


def _existing(path: Path | None, config: Config) -> KeyFile:
    file = _file(path, config)
    if not file.begun:
        raise InputError(f"{file.path}: there is no file of keys here; `negawatt keys create` makes it")
    return file


def _say_secret(key: Key, secret: str, now: float, as_json: bool, said: str) -> None:
    import orjson

    from negawatt.doors import shown

    if as_json:
        click.echo(orjson.dumps({"key": shown(key, now), "secret": secret}))
        return
    click.echo(said, err=True)
    click.echo(secret)


def _print_table(found: list[Key], now: float) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("key", "for", "tenant", "may", "until", "last used", "secrets"):
        table.add_column(name, overflow="fold")
    for key in found:
        until = key.state(now) if key.state(now) != "active" else _when(key.expires_at)
        good = [one for one in key.secrets if one.ends_at is None or one.ends_at > now]
        handles = [
            f"nwk_{one.handle}" + ("" if one.ends_at is None else f" until {_when(one.ends_at)}") for one in good
        ]
        cells = (key.id, key.note or key.user or "", key.tenant, _scopes(key), until, _when(key.used_at))
        # As they are: what is in brackets in somebody's note is no markup.
        table.add_row(*(Text(cell) for cell in (*cells, "\n".join(handles))))
    Console().print(table)


def _kind(key: Key) -> str:
    return " and ".join(name for name, has in (("calls", key.use), ("administration", key.admin)) if has)


def _scopes(key: Key) -> str:
    lines = [_kind(key)]
    for name in ("models", "classes", "budgets"):
        if getattr(key, name):
            lines.append(f"{name}: {', '.join(getattr(key, name))}")
    return "\n".join(lines)


def _when(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _later(text: str | None, now: float, name: str) -> float | None:
    """Return *text*, a span or a date, as seconds since 1970 to come. Raises `click.BadParameter`."""
    if text is None:
        return None
    seconds = span(text)
    return moment(text, 0.0, name) if seconds is None else now + seconds


def _span(text: str, name: str) -> float:
    """Return *text* as seconds. Raises `click.BadParameter`."""
    seconds = 0 if text == "0" else span(text)
    if seconds is None:
        raise click.BadParameter(f"{text!r} is not a span such as 24h, 30m or 0", param_hint=name)
    return float(seconds)
