"""``negawatt cache``: look into the caches, judge what they guessed, and clear them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import config_option, json_option, ledger_file, ledger_option, load
from negawatt.commands.recall import cache_report, learned, review
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.call import Request
    from negawatt.caller import Scope
    from negawatt.config import Config
    from negawatt.protocol import Wire


@click.group()
def cache() -> None:
    """Look into the caches, judge what they guessed, and clear them."""


for _command in (cache_report, learned, review):
    cache.add_command(_command)


@cache.command()
@click.argument("first")
@click.argument("second")
@click.option("--protocol", default="chat", show_default=True, help="That the files' requests are in.")
@config_option
@ledger_option
@json_option
def why(
    first: str, second: str, protocol: str, config_path: Path | None, ledger_path: Path | None, as_json: bool
) -> None:
    """Say why two requests are, or are not, the same to the cache.

    FIRST and SECOND are files with a request each (JSON), or ids of calls in the ledger (nw-...): with
    ledger.keep_content their requests are compared field by field, without it only their fingerprints.
    Exit code 0 when they are the same, 1 when they are not.
    """
    config = load(config_path)
    sides = [_side(name, protocol, ledger_path, config) for name in (first, second)]
    found = _differences(sides[0], sides[1])
    caution = [f"{name}: {reason}" for name, side in zip((first, second), sides, strict=True)
               if (reason := _not_cacheable(side, config)) is not None]  # fmt: skip
    if as_json:
        import orjson

        click.echo(orjson.dumps({"same": not found, "differences": found, "not_cacheable": caution}))
    else:
        click.echo("the same: one answers for the other" if not found else "not the same:")
        for line in found:
            click.echo(f"  {line}")
        for line in caution:
            click.echo(f"not cached: {line}")
    raise SystemExit(1 if found else 0)


class _Side:
    """One of the two: a request with its scope, or only what the ledger knows of it."""

    def __init__(self, wire: Wire, request: Request | None, scope: Scope, row: Any = None) -> None:
        self.wire = wire
        self.request = request
        self.scope = scope
        self.row = row


def _side(name: str, protocol: str, ledger_path: Path | None, config: Config) -> _Side:
    import orjson

    from negawatt.call import Request
    from negawatt.caller import Scope
    from negawatt.ledger.sqlite import read_content, read_rows
    from negawatt.wire.wires import WIRES

    if name.startswith("nw-") and not Path(name).exists():
        path = ledger_file(ledger_path, config)
        row = next((row for row in read_rows(path) if row.id == name), None)
        if row is None:
            raise InputError(f"{path}: there is no call {name}")
        content = read_content(path, name)
        policy = config.classes.get(row.request_class)
        scope = Scope(
            tenant=row.tenant or "default",
            permissions=row.permissions or "",
            user=row.user_id if policy is not None and policy.personal else None,
            corpus_version=row.corpus_version,
            prompt_version=row.prompt_version,
            headers=None if row.key_headers is None else tuple(map(tuple, orjson.loads(row.key_headers))),
        )
        return _Side(WIRES[row.protocol], None if content is None else Request(content.request), scope, row)
    try:
        request = Request(Path(name).read_bytes())
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    if protocol not in WIRES:
        raise InputError(f"--protocol: there is no protocol {protocol!r}; known: {', '.join(WIRES)}")
    WIRES[protocol].check(request)
    return _Side(WIRES[protocol], request, Scope())


def _differences(one: _Side, other: _Side) -> list[str]:
    from negawatt.keys import differences, request_digest

    if one.wire is not other.wire:
        return [f"protocol: {one.wire.name}, and {other.wire.name}"]
    if one.request is not None and other.request is not None:
        return differences((one.request, one.scope), (other.request, other.scope), one.wire)
    found = []
    prints = [
        side.row.fingerprint if side.request is None else request_digest(side.request, side.wire).hex()
        for side in (one, other)
    ]
    if None in prints:
        found.append("fingerprint: not known for a call that was not cacheable")
    elif prints[0] != prints[1]:
        found.append("fingerprint: the requests differ; their content was not kept (ledger.keep_content)")
    for name in one.scope.__struct_fields__ if one.row is not None and other.row is not None else ():
        values = [getattr(side.scope, name) for side in (one, other)]
        if values[0] != values[1]:
            found.append(f"scope.{name}: {values[0]!r}, and {values[1]!r}")
    return found


def _not_cacheable(side: _Side, config: Config) -> str | None:
    if side.request is None:
        return None
    name = "default" if side.row is None else side.row.request_class
    policy = config.classes.get(name)
    when = config.levers.exact_cache.when if policy is None or policy.cache is None else policy.cache
    if when == "never":
        return f"not for the class {name}"
    if when == "deterministic" and not side.wire.deterministic(side.request):
        return "temperature is not 0, so it is not deterministic"
    return None


_url_option = click.option("--url", metavar="URL", help="Ask the gateway that runs there, whatever its store.")
_key_option = click.option("--key-env", metavar="NAME", help="Variable with the key for it; nothing else is reached "
                           "than what is of that key's tenant.")  # fmt: skip


@cache.command()
@_url_option
@_key_option
@config_option
@json_option
def stats(url: str | None, key_env: str | None, config_path: Path | None, as_json: bool) -> None:
    """Say how much is in the cache, of a running gateway (--url) also what each layer did.

    Without --url only stores that outlive their process can be asked: a memory store lives in its server.
    """
    from negawatt.commands import remote

    if url is not None:
        found = remote.stats(url, key_env)
    else:
        kept = asyncio.run(_with_store(load(config_path), lambda store: store.stats()))
        found = {"entries": kept.entries, "bytes": kept.bytes}
    if as_json:
        import orjson

        click.echo(orjson.dumps(found))
        return
    click.echo(f"{found['entries']} entries, {found['bytes']} bytes")
    for name, counts in found.get("layers", {}).items():
        click.echo(f"  {name}: {', '.join(f'{action} {n}' for action, n in sorted(counts.items())) or 'not used'}")


@cache.command()
@click.option("--tag", "tags", multiple=True, required=True, metavar="NAME=VALUE",
              help="tenant=, class=, model=, corpus_version=, prompt_version=, layer=, function=, or one of your own "
                   "(x-negawatt-cache-tags); several: entries that have all of them.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say how many, and delete nothing.")
@_url_option
@_key_option
@config_option
@json_option
def delete(
    tags: tuple[str, ...], dry_run: bool, url: str | None, key_env: str | None, config_path: Path | None, as_json: bool
) -> None:
    """Delete the entries that have all of the tags, from the store and from the semantic index."""
    from negawatt.commands import remote
    from negawatt.doors import note_here

    for tag in tags:
        if not all(tag.partition("=")[::2]):
            raise click.BadParameter(f"{tag!r} is not NAME=VALUE", param_hint="--tag")
    if url is not None:
        said = remote.delete_tagged(url, key_env, tags, dry_run=dry_run)
        found: dict[str, int] = {name: said[name] for name in ("store", "index") if name in said}
    else:
        config = load(config_path)
        found = _deleted(config, tags, dry_run=dry_run)
        if not dry_run:
            note_here(config, "cache.deleted", "", {"tags": list(tags), **found})
    if as_json:
        import orjson

        click.echo(orjson.dumps({"entries": sum(found.values()), "dry_run": dry_run, **found}))
    else:
        click.echo(f"{sum(found.values())} entries {'would be ' if dry_run else ''}deleted")


def _deleted(config: Config, tags: tuple[str, ...], *, dry_run: bool) -> dict[str, int]:
    from negawatt.commands.recall import with_index

    found = {}
    if not config.cache.store.startswith("memory:") or config.recall.index.startswith("memory:"):
        found["store"] = asyncio.run(_with_store(config, lambda store: store.delete_tagged(tags, dry_run=dry_run)))
    if not config.recall.index.startswith("memory:"):
        found["index"] = with_index(config, lambda index: index.delete_tagged(tags, dry_run=dry_run))
    return found


async def _with_store(config: Config, ask: Any) -> Any:
    from negawatt.clock import SystemClock
    from negawatt.registry import STORES, open_backend

    if config.cache.store.startswith("memory:"):
        raise InputError(
            "cache.store: a memory store lives in its server; use --url, or a store such as sqlite:///FILE to look into"
        )
    store = open_backend(STORES, "negawatt.stores", config.cache.store, "cache.store", SystemClock())
    try:
        return await ask(store)
    finally:
        await store.close()
