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
    from negawatt.recall.rule import AcceptanceRule

_T = TypeVar("_T")
_WORDS = {"r": False, "right": False, "w": True, "wrong": True}


@click.command()
@click.option("--label", "labels", nargs=2, multiple=True, metavar="ID right|wrong", help="Judge one, without asking.")
@click.option("--limit", default=20, show_default=True, help="The most cases to show.")
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
        for id, word in labels:
            found = with_index(config, lambda index, id=id, word=word: _label(index, id, word))  # type: ignore[misc]
            if not found:
                raise InputError(f"--label: there is no case {id}")
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
            with_index(config, lambda index, id=case.id, word=word: _label(index, id, word))  # type: ignore[misc]


def _asked(case: Case) -> str:
    click.echo(f"\n{case.id}  class {case.request_class}, {case.tier}, {case.action}")
    click.echo(f"  asked:     {case.question}")
    click.echo(f"  taken for: {case.matched}")
    click.echo(f"  answer:    {case.answer}")
    if case.fresh is not None:
        click.echo(f"  the model: {case.fresh}")
    return str(click.prompt("  right, wrong, skip or quit", type=click.Choice(["r", "w", "s", "q"]), default="s"))


async def _label(index: Index, id: str, word: str) -> bool:
    return await index.cases.label(id, wrong=_WORDS[word], basis="human")


@click.command()
@config_option
@json_option
def learned(config_path: Path | None, as_json: bool) -> None:
    """Say what the semantic cache has learned: per class its budget, and the estimated share of wrong answers."""
    config = load(config_path)
    rows = _learned(config)
    if as_json:
        import orjson

        click.echo(orjson.dumps(rows))
        return
    if not rows:
        click.echo("nothing yet")
    for row in rows:
        share = row["wrong_share"]
        told = "unknown" if share is None else f"{share[1]:.2%} [{share[0]:.2%}, {share[2]:.2%}]"
        click.echo(
            f"{row['class']} ({row['tier']}): wrong {told} of {row['requests']} requests, budget {row['budget']:.2%}; "
            f"served {row['served']}, explored {row['explored']}, compared {row['compared']}, "
            f"judged by people {row['human']}, answers up to a risk of {row['threshold']:.2%}"
        )


def _learned(config: Config) -> list[dict[str, Any]]:
    async def read(index: Index) -> list[tuple[tuple[str, str], list[Case]]]:
        return [(name, await index.cases.recent(*name, limit=20_000)) for name in await index.cases.classes()]

    return [_row(config, name, cases) for name, cases in with_index(config, read)]


def _row(config: Config, name: tuple[str, str], cases: list[Case]) -> dict[str, Any]:
    from negawatt.recall.learner import since_drift

    rule = _rule(config, name[0])
    cases = since_drift(cases)[1]
    rule.replay(cases)
    estimate = rule.estimate() if name[1] == "learned" else _judged(cases)
    return {
        "class": name[0],
        "tier": name[1],
        "budget": rule.delta,
        "requests": rule.requests,
        "wrong_share": None if estimate is None else [round(share, 6) for share in estimate[:3]],
        "served": sum(case.action == "served" for case in cases),
        "explored": sum(case.action == "explored" for case in cases),
        "compared": sum(case.wrong is not None for case in cases),
        "human": sum(case.basis == "human" for case in cases),
        "threshold": round(rule.threshold, 6),
    }


def _judged(cases: list[Case]) -> tuple[float, float, float] | None:
    """Return the share that people found wrong among what they looked at, with Wilson's interval; None for none."""
    judged = [case.wrong for case in cases if case.basis == "human"]
    if not judged:
        return None
    n, share, z = len(judged), sum(map(bool, judged)) / len(judged), 1.96
    middle, spread = (share + z * z / (2 * n)), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - spread) / (1 + z * z / n), share, (middle + spread) / (1 + z * z / n)


def _rule(config: Config, request_class: str) -> AcceptanceRule:
    import random

    from negawatt.recall.rule import AcceptanceRule

    settings, policy = config.levers.semantic_cache, config.classes.get(request_class)
    delta = settings.max_error if policy is None or policy.max_error is None else policy.max_error
    return AcceptanceRule(delta=delta, alpha=settings.alpha, explore=settings.explore, rng=random.Random(0))


@click.command(name="report")
@since_option
@until_option
@config_option
@ledger_option
@json_option
def cache_report(
    since: str | None, until: str | None, config_path: Path | None, ledger_path: Path | None, as_json: bool
) -> None:
    """Say of each cache what it answered and saved, how old the answers were, and how many may have been wrong."""
    from negawatt.ledger.sqlite import read_rows
    from negawatt.proof.caches import caches

    config = load(config_path)
    rows = read_rows(ledger_file(ledger_path, config), moment(since, 0.0, "--since"), moment(until, 2**62, "--until"))
    found = caches(rows)
    learned_rows = [] if config.recall.index.startswith("memory") else _learned(config)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode({"caches": found, "learned": learned_rows}))
        return
    for one in found:
        share = f"{one.hits / one.asked:.1%}" if one.asked else "-"
        click.echo(
            f"{one.name}: {one.hits} of {one.asked} calls answered ({share}), {one.stale} stale; saved "
            f"${one.saved_pusd / 1e12:.6f} and {one.saved_joules / 3600:.3g} Wh"
            + (f" ({one.unpriced} hits without a known price)" if one.unpriced else "")
            + (f"; age p50 {one.age_p50_s:.0f} s, p95 {one.age_p95_s:.0f} s" if one.age_p50_s is not None else "")
        )
    for row in learned_rows:
        share = row["wrong_share"]
        if share is not None:
            click.echo(
                f"semantic_cache, class {row['class']} ({row['tier']}): estimated wrong {share[1]:.2%} "
                f"[{share[0]:.2%}, {share[2]:.2%}] of {row['requests']} requests, budget {row['budget']:.2%}"
            )


def with_index(config: Config, ask: Callable[[Index], Awaitable[_T]]) -> _T:
    """Open the index for looking only, and return what *ask* returns."""
    from negawatt.clock import SystemClock
    from negawatt.indexes.checks import ANY
    from negawatt.registry import INDEXES, open_backend

    if config.recall.index.startswith("memory"):
        message = "recall.index: a memory index lives in its server; use sqlite:///FILE to look into it here"
        raise InputError(message)

    async def work() -> _T:
        index: Index = open_backend(
            INDEXES, "negawatt.indexes", config.recall.index, "recall.index", SystemClock(), model=ANY, dimensions=1
        )
        try:
            return await ask(index)
        finally:
            await index.close()

    return asyncio.run(work())
