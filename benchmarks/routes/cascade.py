"""Several cheap models are asked; where their answers agree one is taken, else the strong one is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from negawatt.errors import InputError
from negawatt.routing.curve import aiq, hull_of, mixed
from negawatt.statistics import Bootstrap, Interval
from negawatt.verify.agreement import agree
from routes.pairs import GUARANTEE_SPLITS, SEED, guarantee, one_guarantee
from routes.tables import column, outcomes, read_rows

# List prices of 2024 in USD per million tokens, in and out, of OpenAI, Anthropic and, for the open models, Together;
# tokens are characters / 4.
PRICES = {
    "gpt-4o-mini-2024-07-18": (0.15, 0.6), "claude-3-haiku-20240307": (0.25, 1.25), "gpt-4o-2024-08-06": (2.5, 10.0),
    "claude-3-5-sonnet-20241022": (3.0, 15.0), "Meta-Llama-3.1-8B-Instruct": (0.18, 0.18),
    "gemma-2-9b-it": (0.3, 0.3), "Meta-Llama-3.1-70B-Instruct": (0.88, 0.88), "gpt-3.5-turbo-0125": (0.5, 1.5),
    "claude-3-5-haiku-20241022": (0.8, 4.0),
}  # fmt: skip
CASCADES = (
    (("gpt-4o-mini-2024-07-18", "claude-3-haiku-20240307"), "gpt-4o-2024-08-06"),
    (("Meta-Llama-3.1-8B-Instruct", "gemma-2-9b-it"), "Meta-Llama-3.1-70B-Instruct"),
    (("Meta-Llama-3.1-8B-Instruct", "gemma-2-9b-it"), "claude-3-5-sonnet-20241022"),
)


@dataclass(frozen=True)
class Answers:
    """Of one model to all questions. *costs* in any one unit; None: unknown."""

    answers: list[str]
    correct: np.ndarray
    costs: np.ndarray | None


def cascade(cheap: Sequence[Answers], strong: Answers) -> dict:
    """Return the figures C: each with its value and 95 % interval, from a paired bootstrap over questions."""
    n = len(strong.answers)
    accepted = agreements(cheap)
    right = np.where(accepted, cheap[0].correct, strong.correct)
    exact = agreements(cheap, rounded=False)
    boot = Bootstrap([str(i) for i in range(n)], np.random.default_rng(SEED))
    gap = strong.correct - cheap[0].correct
    paid = None
    if strong.costs is not None and all(one.costs is not None for one in cheap):
        paid = sum(one.costs for one in cheap) + np.where(accepted, 0.0, strong.costs)
    tested = partial(one_guarantee, accepted.astype(float), cheap[0].correct)
    runs = [tested(np.random.default_rng([SEED, 9, i])) for i in range(GUARANTEE_SPLITS)]
    swapped = [
        tested(np.random.default_rng([SEED, 9, i]), right_later=cheap[1].correct) for i in range(GUARANTEE_SPLITS)
    ]
    return {
        "accuracy": shown(boot.mean(right)), "weak": shown(boot.mean(cheap[0].correct)),
        "strong": shown(boot.mean(strong.correct)), "escalated": shown(boot.mean(1.0 - accepted)),
        "cost_ratio": None if paid is None else shown(boot.ratio(paid, strong.costs)),
        "over_strong": shown(boot.mean(right - strong.correct)),
        "recovered": shown(boot.ratio(right - cheap[0].correct, gap)) if gap.sum() else None,
        "accepted_precision": shown(boot.ratio(cheap[0].correct * accepted, accepted.astype(float))),
        "escalated_exact": round(float(1 - exact.mean()), 4),
        "accuracy_exact": round(float(np.where(exact, cheap[0].correct, strong.correct).mean()), 4),
        "mixed_at_equal_cost": None if paid is None else mixed_at(cheap[0], strong, float(paid.mean())),
        "shuffled": round(float(cheap[0].correct.mean() + (1 - accepted.mean()) * gap.mean()), 4),
        "oracle": round(float(np.maximum(cheap[0].correct, strong.correct).mean()), 4),
        "guarantee": guarantee([runs]), "n": n,
        "guarantee_shifted": {**guarantee([swapped]), "shift": "the second cheap model answers"},
    }  # fmt: skip


def agreements(cheap: Sequence[Answers], *, rounded: bool = True) -> np.ndarray:
    return np.array([agree(said, rounded=rounded) for said in zip(*(one.answers for one in cheap), strict=True)])


def mixed_at(weak: Answers, strong: Answers, cost: float) -> float | None:
    """Return what tossing a coin between the first cheap model and the strong one reaches for as much money."""
    costs = [float(one.costs.mean()) for one in (weak, strong)]
    reached = mixed(costs, [float(one.correct.mean()) for one in (weak, strong)], cost)
    return None if reached is None else round(reached, 4)


def pool(models: dict[str, Answers]) -> dict:
    """Return the zero router of the models whose prices are known: what mixing them at random reaches, and its area."""
    priced = {name: one for name, one in models.items() if one.costs is not None}
    costs = [1000 * float(one.costs.mean()) for one in priced.values()]
    right = [float(one.correct.mean()) for one in priced.values()]
    any_right = np.max([one.correct for one in priced.values()], axis=0).mean()
    return {
        "models": list(priced), "hull": [[round(value, 4) for value in point] for point in hull_of(costs, right)],
        "aiq": round(aiq(costs, right), 4), "any_right": round(float(any_right), 4),
    }  # fmt: skip


def shown(interval: Interval) -> dict:
    return {
        name: None if value is None else round(value, 4)
        for name, value in (("value", interval.mean), ("low", interval.low), ("high", interval.high))
    }


def read_cascade(path: Path, models: Sequence[str], costs: dict[str, float] | None) -> list[Answers]:
    """Return the answers of *models* from the columns MODEL:answer, MODEL:correct and perhaps MODEL:cost."""
    rows = read_rows(path)
    if costs is not None and set(models) - set(costs):
        raise InputError(f"--costs: none for {', '.join(sorted(set(models) - set(costs)))}")
    found = []
    for model in models:
        spent = None
        if costs is not None:
            spent = np.full(len(rows), costs[model])
        elif f"{model}:cost" in rows[0]:
            spent = numbers(rows, f"{model}:cost", path)
        answers = column(rows, f"{model}:answer", path)
        found.append(Answers(answers, outcomes(rows, f"{model}:correct", path), spent))
    return found


def numbers(rows: list[dict[str, str]], name: str, path: Path) -> np.ndarray:
    try:
        found = np.array([float(value) for value in column(rows, name, path)])
    except ValueError as error:
        raise InputError(f"{path}, column {name!r}: {error}") from error
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise InputError(f"{path}, column {name!r}: a cost is a number from 0 on")
    return found


def read_zeroeval(folder: Path) -> dict[str, Answers]:
    """Return the answers by model, in the order of the questions; models that were not asked all of them left out."""
    by_model: dict[str, dict[str, dict[str, str]]] = {}
    for row in read_rows(folder / "gsm_outcomes.csv.gz"):
        by_model.setdefault(row["model"], {})[row["id"]] = row
    ids = sorted(max(by_model.values(), key=len))
    found = {}
    for model, rows in by_model.items():
        if len(rows) < len(ids):
            continue
        costs = None
        if model in PRICES:
            asked, said = PRICES[model]
            costs = np.array([int(rows[i]["prompt_chars"]) * asked + int(rows[i]["output_chars"]) * said for i in ids])
            costs = costs / 4e6
        correct = np.array([float(rows[i]["correct"]) for i in ids])
        found[model] = Answers([rows[i]["parsed_answer"] for i in ids], correct, costs)
    return found
