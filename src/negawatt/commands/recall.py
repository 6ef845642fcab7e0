"""``negawatt cache review``, ``learned`` and ``report``: what the caches answered, and how often it was wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
    from negawatt.config import Config
    from negawatt.indexes import Case, Index
    from negawatt.ledger.outcome import Outcome

_T = TypeVar("_T")
_WORDS = {"r": False, "right": False, "w": True, "wrong": True}


@click.command()
@click.option("--label", "labels", nargs=2, multiple=True, metavar="ID right|wrong", help="Judge one, without asking.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most cases to show.")
@config_option
@json_option
def review(labels: tuple[tuple[str, str], ...], limit: int, config_path: Path | None, as_json: bool) -> None:
    """Judge what the semantic cache answered: a person's word counts as a label, and is not replaced.

    Shows the sampled hits that nobody has judged yet, oldest first: the question, the question it was taken for, and
    the answer that was given. With --json they are printed, and nobody is asked; with --label ID right (or wrong) one
    is judged from a script. A running gateway hears of it within a minute.
    """
    for _, word in labels:
        if word not in _WORDS:
            raise click.BadParameter(f"{word!r} is neither right nor wrong", param_hint="--label")
    config = load(config_path)
    if labels:
        missing = with_index(config, lambda index: _label(index, labels))
        if missing:
            raise InputError(f"--label: there is no case {', '.join(missing)}")
        click.echo(f"{len(labels)} judged")
        return
    waiting = with_index(config, lambda index: index.cases.waiting(limit=limit))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(waiting))
        return
    if not waiting:
        click.echo("nothing waits for review (levers.semantic_cache.review says what share of the hits does)")
    for case in waiting:
        word = _asked(case)
        if word == "q":
            break
        if word != "s":
            judged = ((case.id, word),)
            with_index(config, lambda index, judged=judged: _label(index, judged))  # type: ignore[misc]


def _asked(case: Case) -> str:
    click.echo(f"\n{case.id}  class {case.request_class}, {case.tier}, {case.action}")
    click.echo(f"  asked:     {case.question}")
    click.echo(f"  taken for: {case.matched}")
    click.echo(f"  answer:    {case.answer}")
    if case.fresh is not None:
        click.echo(f"  the model: {case.fresh}")
    return str(click.prompt("  right, wrong, skip or quit", type=click.Choice(["r", "w", "s", "q"]), default="s"))


async def _label(index: Index, labels: tuple[tuple[str, str], ...]) -> list[str]:
    """Write down a person's words; return the ids of which there is no case."""
    return [id for id, word in labels if not await index.cases.label(id, wrong=_WORDS[word], basis="human")]


@click.command()
@config_option
@json_option
def learned(config_path: Path | None, as_json: bool) -> None:
    """Say what the semantic cache has learned: per class its budget, and the estimated share of wrong answers."""
    rows = learned_of(load(config_path))
    if as_json:
        import orjson

        click.echo(orjson.dumps(rows))
        return
    if not rows:
        click.echo("nothing yet")
    for row in rows:
        click.echo(f"{row['class']} ({row['tier']}): {_wrong(row)}; {_evidence(row)}")


def learned_of(config: Config) -> list[dict[str, Any]]:
    """Return what the semantic cache has learned (`negawatt.recall.state`). Raises `InputError` or `StoreError`."""
    from negawatt.recall.state import learned_rows

    return with_index(config, lambda index: learned_rows(config, index.cases))


def _wrong(row: dict[str, Any]) -> str:
    share = row["wrong_share"]
    told = "unknown" if share is None else f"{share['mean']:.2%} [{share['low']:.2%}, {share['high']:.2%}]"
    if row["tier"] == "curated":
        return f"wrong {told} of {row['human']} judged by people"
    return f"wrong {told} of {row['requests']} requests (estimated), budget {row['budget']:.2%}"


def _evidence(row: dict[str, Any]) -> str:
    if row["tier"] == "curated":
        return f"{row['waiting']} wait for review"
    return (
        f"served {row['served']}, explored {row['explored']}, compared {row['compared']}, "
        f"judged by people {row['human']}, {row['waiting']} wait for review; answers up to a risk of "
        f"{row['threshold']:.2%}"
    )


@click.command(name="report")
@since_option
@until_option
@config_option
@ledger_option
@json_option
def cache_report(
    since: str | None, until: str | None, config_path: Path | None, ledger_path: Path | None, as_json: bool
) -> None:
    """Say of each cache what it answered and saved, how old the answers were, and how many may have been wrong.

    The same tables as in `negawatt report`, without the rest of it.
    """
    from negawatt.ledger.sqlite import read_rows

    config = load(config_path)
    start, end = moment(since, 0.0, "--since"), moment(until, float("inf"), "--until")
    rows = list(read_rows(ledger_file(ledger_path, config), start, end))
    learned_rows, note = learned_or_why_not(config)
    summary = {"caches": _caches(rows), "learned": learned_rows, "learned_note": note}
    if as_json:
        import orjson

        click.echo(orjson.dumps({"requests": len(rows), **summary}))
        return
    from rich.console import Console

    from negawatt.proof.report import caches_report

    Console().print(caches_report({"requests": len(rows), **summary}))


def _caches(rows: list[Outcome]) -> dict[str, Any]:
    import numpy as np

    from negawatt.proof.caches import cache_figures
    from negawatt.proof.figures import Rows, builtin, decisions_of
    from negawatt.statistics import Bootstrap

    boot = Bootstrap([row.fingerprint or row.id for row in rows], np.random.default_rng(1))
    return builtin(cache_figures(Rows(outcomes=rows, decided=decisions_of(rows), base_cost_pusd=None), boot))


def learned_or_why_not(config: Config) -> tuple[list[dict[str, Any]] | None, str]:
    """Return what was learned, or None and why it is not known; ([], "") where the semantic cache is off."""
    from negawatt.errors import ConfigError, StoreError
    from negawatt.recalling import recalls

    if not recalls(config):
        return [], ""
    try:
        return learned_of(config), ""
    except (InputError, ConfigError, StoreError) as error:
        return None, f"What the semantic cache has learned is not known here: {error.message}."


def with_index(config: Config, ask: Callable[[Index], Awaitable[_T]]) -> _T:
    """Open the index for looking only, and return what *ask* returns."""
    from negawatt.clock import SystemClock
    from negawatt.indexes.checks import ANY
    from negawatt.registry import INDEXES, Url, open_backend

    url = Url.parse(config.recall.index, "recall.index")
    if url.scheme == "memory":
        message = "recall.index: a memory index lives in its server; use sqlite:///FILE to look into it here"
        raise InputError(message)
    if url.scheme == "sqlite" and not Path(url.path).exists():  # looking makes no file
        raise InputError(
            f"recall.index: there is no file {url.path} yet; a server with the semantic cache on begins it"
        )

    async def work() -> _T:
        index: Index = open_backend(
            INDEXES, "negawatt.indexes", config.recall.index, "recall.index", SystemClock(), model=ANY, dimensions=1
        )
        try:
            return await ask(index)
        finally:
            await index.close()

    return asyncio.run(work())
