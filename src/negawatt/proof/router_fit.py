"""Fitting a learned router on what an evaluation found, and the honest no where it is worth nothing.

A router is enabled only where following it, for the target of the suite, is surely good enough and surely better than
dealing out the same choices at random for the same money. What is said of it is said of rows that it had not seen
(cross-fitted); the one that is saved has then been fitted on all rows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from negawatt.config_routes import Quality
from negawatt.errors import InputError
from negawatt.lines import Place
from negawatt.proof.asking import asked_in
from negawatt.proof.outcome_table import OutcomeTable
from negawatt.routing.controls import ControlVerdict, beats_shuffled
from negawatt.routing.curve import curve_of, mixed
from negawatt.routing.gain import LEAST_ROWS, Card, GainModel, Predictions, cross_fitted
from negawatt.routing.router import Level, Router, choices, levels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SHOWN = 10  # levels in the table of the curve
_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


class Learnable(msgspec.Struct, frozen=True, kw_only=True):
    """What a router can be fitted on: one row for each prompt, one column for each candidate, the reference last."""

    names: tuple[str, ...]
    texts: list[str]
    outcomes: Any  # (n, k) successes 0..1
    costs: Any = None  # (n, k) in dollars; None: not known, then a call of the reference counts 1 and others 0
    source: str = ""


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A router, and whether it may be used. *reason*: why, or why not."""

    router: Router
    level: Level | None
    verdict: ControlVerdict | None
    enabled: bool
    reason: str
    sheet: dict[str, Any]
    figures: dict[str, Any]


def learnable(table: OutcomeTable) -> Learnable:
    """Return what *table* teaches: repeats of a case are one row. Raises `InputError` where no policy could say it."""
    models = [i for i in table.by_cost() if not table.columns[i].candidate.policy]
    order = [i for i in models if i != len(table.columns) - 1] + [len(table.columns) - 1]
    columns = [table.columns[i] for i in order]
    names = tuple(one.candidate.choice for one in columns)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        what = f"two candidates are {twice}, and a policy cannot tell them apart; leave one out to fit a router"
        raise InputError(f"{table.suite.path}: candidates: {what}", param="candidates")
    repeats = table.suite.file.repeats
    outcomes = np.column_stack([one.success.reshape(-1, repeats).mean(axis=1) for one in columns])
    costs = np.column_stack([one.cost_usd.reshape(-1, repeats).mean(axis=1) for one in columns])
    known = ~np.isnan(outcomes).any(axis=1)
    texts = [asked_in(case).ask for case in table.cases]
    known &= np.array([bool(text.strip()) for text in texts], dtype=bool)
    return Learnable(
        names=names,
        texts=[text for text, kept in zip(texts, known, strict=True) if kept],
        outcomes=outcomes[known],
        costs=None if np.isnan(costs[known]).any() else costs[known],
        source=str(table.suite.path),
    )


def read_outcomes(path: Path, prompt: str, models: Mapping[str, str]) -> Learnable:
    """Return the table of outcomes in the CSV file *path*: *prompt* names a column, *models* one for each candidate.

    The candidates stand in order of rising cost, the reference last. Outcomes are 0 to 1, true or false. Raises
    `InputError`, which names the line and the column.
    """
    import gzip

    texts: list[str] = []
    rows: list[list[float]] = []
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            there = reader.fieldnames or []
            for column in (prompt, *models.values()):
                if column not in there:
                    raise InputError(f"{path}: there is no column {column!r}; there: {', '.join(there) or 'none'}")
            for row in reader:
                at = Place(path, reader.line_num)
                rows.append([_outcome(at, column, row[column]) for column in models.values()])
                texts.append(row[prompt])
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid CSV: {error}") from error
    if not rows:
        raise InputError(f"{path}: no row: it is empty")
    return Learnable(names=tuple(models), texts=texts, outcomes=np.array(rows), source=str(path))


def _outcome(at: Place, column: str, text: str | None) -> float:
    said = (text or "").strip().lower()
    try:
        value = _WORDS[said] if said in _WORDS else float(said)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise at.error(f"expected an outcome (0 to 1, true or false), got {(text or '')[:50]!r}", column)
    return value


def fit_router(rows: Learnable, vectors: NDArray[np.float32], embedder: str, quality: Quality, seed: int) -> Fitted:
    """Fit a router on *rows*, of whose texts *vectors* are the embeddings; say whether it may be used for *quality*.

    Raises `InputError` where it cannot be fitted: too few rows, or one label only.
    """
    card = Card(embedder=embedder, candidates=rows.names, date=datetime.now(UTC).date().isoformat())
    least = -(-LEAST_ROWS * 5 // 4)  # four fifths of them are what each of the models is fitted on that judge it
    if len(rows.texts) < least:
        what = f"a router takes {least} rows at least, and here are {len(rows.texts)}: evaluate more prompts"
        raise InputError(f"{rows.source}: {what}")
    try:
        found = cross_fitted(rows.texts, vectors, rows.outcomes, seed=seed)
        model = GainModel.fit(rows.texts, vectors, rows.outcomes, seed=seed, card=card)
    except InputError as error:
        raise InputError(f"{rows.source}: {error.message}", param=error.param) from error
    router = Router.of(model, levels_of(found, rows.outcomes, rows.costs))
    return worth(rows, router, found, quality, seed)


def worth(rows: Learnable, router: Router, found: Predictions, quality: Quality, seed: int) -> Fitted:
    """Return whether *router* may be used for *quality*, by predictions *found* for rows that it had not seen."""
    followed = router.level(quality)
    level = None if followed is None else followed[0]
    verdict = None
    if level is None:
        enabled, reason = False, "not even the reference is surely good enough for the target"
    else:
        chosen = choices(found, level.threshold)
        verdict = beats_shuffled(chosen, found.gains, rows.outcomes, seed=seed, costs=rows.costs)
        enabled, reason = verdict.beats, verdict.reason
        if level.referred == 1:
            enabled, reason = (
                False,
                "only the reference is surely good enough for the target: there is nothing to route",
            )
    sheet = _sheet(rows, router, quality)
    return Fitted(
        router=router, level=level, verdict=verdict, enabled=enabled, reason=reason, sheet=sheet,
        figures=_figures(rows, router, found, level, verdict, enabled, reason, seed),
    )  # fmt: skip


def spoken(fitted: Fitted) -> str:
    """Return one sentence on whether the router may be used."""
    verdict, level = fitted.verdict, fitted.level
    if not fitted.enabled or verdict is None or level is None:
        return f"The router is not enabled: {fitted.reason}."
    low, high = (None if end is None else 100 * end for end in (verdict.low, verdict.high))
    return (
        f"The router is enabled: it asks the reference in {level.referred:.0%} of the cases, for {level.cost:.0%} of "
        f"its cost, and does {100 * verdict.difference:+.1f} points [{low:+.1f}, {high:+.1f}] better than the same "
        "shares dealt at random for as much."
    )


def _figures(  # noqa: PLR0913
    rows: Learnable,
    router: Router,
    found: Predictions,
    level: Level | None,
    verdict: ControlVerdict | None,
    enabled: bool,
    reason: str,
    seed: int,
) -> dict[str, Any]:
    """Return what the report's JSON says of the router."""
    shape: dict[str, Any] = {"apgr": None, "cpt50": None, "cpt80": None}
    if len(rows.names) == 2:
        rng = np.random.default_rng(seed)
        curve = curve_of(found.gains[:, 0], rows.outcomes[:, 0], rows.outcomes[:, 1], rng)
        shape = {"apgr": curve.apgr(), "cpt50": curve.cpt(0.5), "cpt80": curve.cpt(0.8)}
    from dataclasses import asdict

    return {
        "enabled": enabled,
        "reason": reason,
        "rows": len(rows.texts),
        "candidates": list(rows.names),
        "embedder": router.embedder,
        "level": None if level is None else level._asdict(),
        "control": None if verdict is None else {**asdict(verdict), "shares": list(verdict.shares)},
        "cost_known": rows.costs is not None,
        **shape,
        "levels": [one._asdict() for one in router.levels],
    }


def _sheet(rows: Learnable, router: Router, quality: Quality) -> dict[str, Any]:
    """Return the curve as a table: the router beside a coin and a rule by length, at equal cost."""
    costs = rows.costs
    if costs is None:
        costs = np.zeros_like(rows.outcomes)
        costs[:, -1] = 1.0
    means, rates = costs.mean(axis=0), rows.outcomes.mean(axis=0)
    lengths = np.array([len(text) for text in rows.texts])
    longest = np.argsort(-lengths, kind="stable")
    step = max(1, len(router.levels) // _SHOWN)
    followed = router.level(quality)
    shown = []
    for i, level in enumerate(router.levels):
        here = followed is not None and level is followed[0]
        if i % step and not here and i != len(router.levels) - 1:
            continue
        spent = level.cost * means[-1]
        coin = mixed(list(means), list(rates), spent)
        share = (spent - means[0]) / (means[-1] - means[0]) if means[-1] != means[0] else 1.0
        long = longest[: round(min(1.0, max(0.0, share)) * len(lengths))]
        by_length = rows.outcomes[:, 0].sum() + (rows.outcomes[long, -1] - rows.outcomes[long, 0]).sum()
        shown.append([
            f"{level.referred:.0%}{' <-' if here else ''}", f"{level.cost:.0%}", f"{level.successes / level.n:.1%}",
            f"{level.success_low(quality.confidence):.1%}", "unknown" if coin is None else f"{coin:.1%}",
            f"{by_length / len(lengths):.1%}",
        ])  # fmt: skip
    of = "of the reference's cost" if rows.costs is not None else "no cost known: a call of the reference counts 1"
    note = (
        f"Always {rows.names[0]}: {rates[0]:.1%}; always {rows.names[-1]}: {rates[-1]:.1%}. Rows not fitted on; "
        f"cost: {of}; the coin and the rule by length have as much to spend. The arrow: what the target allows."
    )
    head = ["reference asked", "cost", "router", "surely above", "a coin", "by length"]
    return {"title": "Router", "head": head, "rows": shown, "note": note}


async def embedded(texts: Sequence[str], embedder: str, where: str) -> tuple[NDArray[np.float32], str]:
    """Return the vectors of *texts* by the embedder of that URL, and its id. Raises `ConfigError`, `EmbedderError`."""
    from negawatt.embedders.opening import open_embedder

    opened = open_embedder(embedder, where)
    try:
        parts = [await opened.embed(texts[i : i + 64]) for i in range(0, len(texts), 64)]
        return np.concatenate(parts), opened.id
    finally:
        await opened.close()
