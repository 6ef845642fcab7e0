"""``negawatt init`` and ``negawatt serve``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from negawatt.commands.options import config_option, json_option, load
from negawatt.errors import ConfigError


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default="negawatt.toml")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@json_option
def init(path: Path, force: bool, as_json: bool) -> None:
    """Write a configuration that explains itself to PATH (negawatt.toml)."""
    if path.exists() and not force:
        raise ConfigError(f"{path}: is there already; --force overwrites it")
    text = resources.files("negawatt.commands").joinpath("starter.toml").read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    if as_json:
        import orjson

        click.echo(orjson.dumps({"path": str(path)}))
        return
    click.echo(f"{path} is written. Set a provider's key variable, then: negawatt serve")


@click.command()
@config_option
@click.option("--host", help="Address to listen on; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one. Default 4100.")
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@json_option
def serve(config_path: Path | None, host: str | None, port: int | None, check: bool, as_json: bool) -> None:
    """Serve the OpenAI API on a port of this machine.

    \b
    Change one line in your application:
        OpenAI(base_url="http://127.0.0.1:4100/v1")

    Without a configuration, every known provider whose key variable is set (OPENAI_API_KEY, GROQ_API_KEY, ...) is
    used. Without keys of its own it listens on this machine only.
    """
    import msgspec

    from negawatt.serving import dry_run
    from negawatt.serving import serve as run

    config = load(config_path)
    asked = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **asked))
    if not config.providers:
        raise ConfigError(
            "no provider: set the key variable of one (such as OPENAI_API_KEY), or add a [[providers]] entry "
            "('negawatt init' writes a configuration to start from)"
        )
    if check:
        dry_run(config)
        click.echo('{"sound":true}' if as_json else "the configuration is sound")
        return

    def announce(address: str, metrics: str | None) -> None:
        if as_json:
            more = "" if metrics is None else f',"metrics":"{metrics}/metrics"'
            click.echo(f'{{"address":"{address}","base_url":"{address}/v1"{more}}}')
        else:
            more = "" if metrics is None else f"; metrics: {metrics}/metrics"
            click.echo(f"negawatt is listening on {address} (OpenAI API: {address}/v1, dashboard: {address}/){more}")

    run(config, announce)
