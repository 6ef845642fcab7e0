"""``negawatt tokens``: count tokens without a call, and see how far such counts were off."""

from __future__ import annotations

import sys
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
    from negawatt.economics.count_errors import CountError
    from negawatt.ledger.outcome import Outcome
    from negawatt.protocol import Contract, Prompt

_EXPLAINED = {
    "exact": "the model's own tokenizer; what stands around messages is published",
    "tokenizer": "a tokenizer; what stands around the messages is not published, or there are tools",
    "sampled": "a tokenizer, on parts of the text",
    "corrected": "an estimate, corrected by what the provider returned for this model",
    "estimated": "an estimate",
}


@click.group()
def tokens() -> None:
    """Count tokens before a call, and see how far such counts were off."""


@tokens.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--protocol", default="chat", show_default=True, help="That a request in FILE is in.")
@click.option("--text", "as_text", is_flag=True, help="FILE is a text, also where it looks like a request.")
@click.option("--quick", is_flag=True, help="Count as the gateway does: of a long prompt only samples are read.")
@config_option
@json_option
def count(model: str, file: Path, protocol: str, config_path: Path | None, **how: Any) -> None:
    """Say how many input tokens FILE (- for standard input) is to MODEL, and how that was counted.

    A JSON object is taken as a request of --protocol (its own "model" does not matter), anything else as a text.
    Nothing is sent anywhere. OpenAI's models are counted by their own tokenizer, others by the tokenizer.json that
    economics.tokenizers names for them, else by an estimate, which the basis then says.

    \b
      negawatt tokens count gpt-4o request.json
      echo 'Where is my order?' | negawatt tokens count claude-sonnet-4-5 -
    """
    import orjson

    from negawatt.economics.counting import BUDGET, TokenCounter
    from negawatt.economics.tokenizer_files import TokenizerFiles

    config = load(config_path)
    files = TokenizerFiles(config.economics.tokenizers)
    counter = TokenCounter(files, budget=BUDGET if how["quick"] else None)
    content = _read(file)
    request = None if how["as_text"] else _object(content)
    if request is None:
        found = counter.count(model, _text(content, str(file)))
    else:
        found = counter.count(model, *_asked({**request, "model": model}, protocol))
    read_as = "a text" if request is None else f"a request ({protocol})"
    if how["as_json"]:
        click.echo(
            orjson.dumps({"model": model, "input_tokens": found.tokens, "basis": found.basis, "read_as": read_as})
        )
    else:
        click.echo(f"{found.tokens} tokens, {found.basis}: {_EXPLAINED[found.basis]}; read as {read_as}")


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def _asked(request: dict[str, Any], protocol: str) -> tuple[Prompt, Contract | None]:
    """Return what *request* says. Raises `InputError` and `InvalidRequest`."""
    from negawatt.call import Request
    from negawatt.wire.wires import WIRES

    if protocol not in WIRES:
        raise InputError(f"--protocol: there is no protocol {protocol!r}; known: {', '.join(WIRES)}")
    wire, asked = WIRES[protocol], Request(data=request)
    wire.check(asked)
    return wire.prompt(asked), wire.contract(asked)


def _text(content: bytes, name: str) -> Prompt:
    from negawatt.protocol import Prompt

    try:
        return Prompt(texts=(content.decode("utf-8"),))
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: neither a request (a JSON object) nor text in UTF-8") from error


def _object(content: bytes) -> dict[str, Any] | None:
    """Return the JSON object that *content* is; None for anything else."""
    import orjson

    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


@tokens.command()
@config_option
@ledger_option
@since_option
@until_option
@json_option
def errors(config_path: Path | None, ledger_path: Path | None, as_json: bool, **when: Any) -> None:
    """Compare the counts made before calls with what providers measured, by model and basis.

    Only calls whose provider returned its own count, in one attempt, are compared. "mean" is signed: above zero, we
    counted too much. Intervals in brackets are at 95 %.
    """
    import orjson

    from negawatt.economics.count_errors import count_errors
    from negawatt.ledger.sqlite import read_rows

    path = ledger_file(ledger_path, load(config_path))
    since, until = moment(when["since"], 0.0, "--since"), moment(when["until"], float("inf"), "--until")
    found = count_errors(_counted(row) for row in read_rows(path, since, until) if _comparable(row))
    if as_json:
        click.echo(orjson.dumps([line._asdict() for line in found]))
    elif not found:
        click.echo("no call has both a count of ours and one of its provider")
    else:
        _print_table(found)


def _comparable(row: Outcome) -> bool:
    return row.attempts == 1 and row.cache not in ("exact", "coalesced")


def _counted(row: Outcome) -> Any:
    from negawatt.economics.count_errors import Counted

    return Counted(row.request_model, row.counted_input_tokens, row.count_basis, row.input_tokens, row.usage_basis)


def _print_table(found: list[CountError]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("model", "basis"):
        table.add_column(name)
    for name in ("calls", "mean", "median abs.", "95 % below", "within 5 %"):
        table.add_column(name, justify="right")
    for line in found:
        median = _percent(line.median_absolute, line.median_interval, ".1f")
        p95 = "" if line.p95_absolute is None else f"{100 * line.p95_absolute:.1f} %"
        table.add_row(
            line.model, line.basis, str(line.n),
            _percent(line.mean, line.mean_interval, "+.1f"), median, p95,
            _percent(line.near, line.near_interval, ".0f"),
        )  # fmt: skip
    Console(width=None if Console().is_terminal else 140).print(table)


def _percent(value: float, interval: tuple[float, float] | None, form: str) -> str:
    shown = f"{100 * value:{form}} %"
    return shown if interval is None else f"{shown} \\[{100 * interval[0]:{form}}, {100 * interval[1]:{form}}]"
