"""``negawatt route``: what routing would do with a request, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from negawatt.commands.options import config_option, json_option, load
from negawatt.errors import InputError


@click.group()
def route() -> None:
    """Try out how requests are classified and routed, without asking a model."""


@route.command()
@click.argument("prompt", required=False)
@click.option("--model", default="auto", show_default=True, help="What the caller asks for: auto, a policy, a model.")
@click.option("--class", "request_class", metavar="NAME", help="The class that the caller declares.")
@click.option("--system", metavar="TEXT", help="A system prompt.")
@click.option(
    "--request", "request_file", type=click.Path(path_type=Path), metavar="FILE", help="A whole request, JSON."
)
@click.option("--protocol", default="chat", show_default=True, help="The protocol of --request.")
@click.option("--quality", metavar="SHARE", help="As a caller would say it in x-negawatt-quality.")
@click.option("--risk", metavar="LEVEL", help="As a caller would say it in x-negawatt-risk.")
@config_option
@json_option
def test(config_path: Path | None, prompt: str | None, as_json: bool, **options: Any) -> None:
    """Say which model a request would go to: its class, its features, what each candidate would cost.

    Nothing is sent anywhere, and no key of a provider is needed.

    \b
    negawatt route test "What is the capital of France?"
    negawatt route test --request request.json --class support --quality 0.95
    """
    import asyncio

    import orjson

    from negawatt.caller import Hints
    from negawatt.proof.rehearsal import rehearse

    body = _body(prompt, options)
    hints = Hints(request_class=options["request_class"], quality=options["quality"], risk=options["risk"])
    found = asyncio.run(rehearse(load(config_path), body, hints, options["protocol"]))
    if as_json:
        click.echo(orjson.dumps(found))
        return
    _print(found)


def _body(prompt: str | None, options: dict[str, Any]) -> bytes:
    import orjson

    if (prompt is None) == (options["request_file"] is None):
        raise InputError("expected a PROMPT, or --request FILE, and not both")
    if options["request_file"] is not None:
        path: Path = options["request_file"]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    messages = [{"role": "system", "content": options["system"]}] if options["system"] else []
    return orjson.dumps({"model": options["model"], "messages": [*messages, {"role": "user", "content": prompt}]})


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    classified = found["class"]
    console.print(f"class    [bold]{classified['name']}[/bold]  ({classified['why']})")
    for candidate in classified["candidates"]:
        console.print(f"         {candidate['name']}: {candidate['why']}", style="dim")
    if found["policy"] is None:
        console.print(f"model    [bold]{found['chosen']['model']}[/bold]  (no policy: the one asked for)")
        return
    console.print(f"policy   [bold]{found['policy']['name']}[/bold]  (how: {found['policy']['how']}, "
                  f"target: {found['policy']['target'] or 'none'})")  # fmt: skip
    chosen = found["chosen"]
    if chosen is None:
        console.print("model    none: no candidate may take this request", style="red")
    else:
        console.print(f"model    [bold]{chosen['model']}[/bold]  ({chosen['why']})")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("candidate", "tier", "expected success", "expected cost", "energy", ""):
        table.add_column(heading)
    for one in found["candidates"]:
        cost = "unknown" if one["cost_usd"] is None else f"${one['cost_usd']:.6f}"
        energy = "unknown" if one["energy_j"] is None else f"{one['energy_j']:.3g} J"
        success = "unknown" if one["probability"] is None else f"{one['probability']:.1%}"
        table.add_row(one["name"], str(one["tier"]), success, cost, energy, one["shut"] or "")
    console.print(table)
    features = ", ".join(f"{name} {value}" for name, value in found["features"].items() if value not in (None, [], {}))
    console.print(f"features {features}", style="dim")
