"""How well intents are told apart, and what is none of them is told: the figures in docs/levers/classify.md.

    python benchmarks/intents.py --data DIR --json
    python benchmarks/intents.py --data DIR --vectors FOLDER --json    keeps the vectors there, for the next time

DIR holds ``banking77/`` (train.csv, test.csv with the columns text and category); ``gsm8k/`` and ``tau-bench/`` are
left out with one line where they are not there.

Accuracy: 10 and 30 examples of each of 77 intents, drawn ten times from the training questions, and all 10,003; judged
by all 3,080 test questions. What learns is what ships (`negawatt.routing.intent_model.learn`), on the vectors of the
default embedder; everything that it chooses, it chooses on its training examples. Intervals of the drawn settings are
bootstrapped over draws and questions; that of the whole set is Clopper and Pearson's.
Out of scope: ten intents, drawn anew each time, are taken out of the training examples; the share of their test
questions that went to ``default``, and the share of the other intents' that did. ``rule`` is the calibrated rule alone,
``rule_and_confidence`` also asks for a probability of 0.5, as the lever does unless it is told otherwise.
Asks: of every model call of tau-bench's agent, whether the ask that is found is the customer's newest message.
Prints tables, and as the last line one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from negawatt.call import Call, Request, Trail
from negawatt.clock import SystemClock
from negawatt.config import Classify
from negawatt.embedders.opening import open_embedder
from negawatt.routing.asked import asked_of
from negawatt.routing.intent_model import KEPT, IntentModel, learn
from negawatt.routing.logistic import scores
from negawatt.statistics import clopper_pearson
from negawatt.wire.chat import CHAT

DRAWS, FULL_DRAWS = 10, 3
HELD_OUT = 10
SEED = 20261127
RESAMPLES = 2_000
FOREIGN = 500  # questions of GSM8K
CONFIDENCE = Classify().confidence


class Set(NamedTuple):
    """Texts with vectors and labels."""

    texts: list[str]
    vectors: np.ndarray
    labels: np.ndarray


def embedded(texts: list[str], folder: Path | None) -> np.ndarray:
    """Return the vectors of *texts*, by the default embedder; from *folder* where they lie there already."""

    async def work() -> np.ndarray:
        embedder = open_embedder("minilm:", "embedder", threads=False)
        digest = hashlib.sha256("\0".join([embedder.id, *texts]).encode()).hexdigest()[:24]
        kept = None if folder is None else folder / f"{digest}.npy"
        if kept is not None and kept.exists():
            return np.load(kept)
        rows = [await embedder.embed(texts[i : i + 256]) for i in range(0, len(texts), 256)]
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, np.concatenate(rows))
        return np.concatenate(rows)

    return asyncio.run(work())


def banking(folder: Path, vectors: Path | None) -> tuple[Set, Set, tuple[str, ...]]:
    """Return the training and the test questions of Banking77, and its intents."""
    rows = {}
    for name in ("train", "test"):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    classes = tuple(sorted({row["category"] for row in rows["train"]}))
    place = {name: i for i, name in enumerate(classes)}
    train, test = (
        Set(texts, embedded(texts, vectors), np.array([place[row["category"]] for row in some]))
        for some in rows.values()
        for texts in [[row["text"] for row in some]]
    )
    return train, test, classes


def drawn(labels: np.ndarray, shots: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return the places of *shots* examples of each label, drawn without replacement; of all of them for None."""
    if shots is None:
        return np.arange(len(labels))
    return np.concatenate([rng.choice(np.flatnonzero(labels == k), shots, replace=False) for k in np.unique(labels)])


# -- accuracy ------------------------------------------------------------------------------------------------------


def accuracy(train: Set, test: Set, classes: tuple[str, ...], shots: int | None) -> tuple[dict, IntentModel]:
    """Return the share of test questions that got their intent, and what was learned last."""
    right, alone, fitted, held_out, sure = [], [], [], [], []
    for draw in range(1 if shots is None else DRAWS):
        places = drawn(train.labels, shots, np.random.default_rng(SEED + draw))
        began = time.perf_counter()
        model = learn(train.vectors[places], train.labels[places], classes, outside=None)
        fitted.append(time.perf_counter() - began)
        told = model.probabilities(test.vectors)
        right.append(told.argmax(axis=1) == test.labels)
        alone.append(scores(test.vectors, model.weights).argmax(axis=1) == test.labels)
        held_out.append(model.accuracy)
        sure.append(told.max(axis=1))
    hits = np.array(right)
    found = {
        "accuracy": round(float(hits.mean()) * 100, 2), "interval": interval(hits),
        "draws": len(hits), "n": len(test.labels), "examples": len(places), "seed": SEED,
        "regression_alone": round(float(np.mean(alone)) * 100, 2),
        "nearest_example": round(float(nearest(train, test, places).mean()) * 100, 2),
        "calibration_error": round(calibration(np.concatenate(sure), hits.ravel()), 4),
        "accuracy_held_out": round(float(np.mean(held_out)) * 100, 2), "fit_s": round(float(np.median(fitted)), 2),
    }  # fmt: skip
    return found, model


def interval(hits: np.ndarray) -> list[float]:
    """Return the 95 % interval of the mean, in percent: over draws and questions, or over questions alone."""
    if len(hits) == 1:
        low, high = clopper_pearson(float(hits.sum()), hits.size)
        return [round(low * 100, 2), round(high * 100, 2)]
    rng = np.random.default_rng(SEED)
    draws, questions = hits.shape
    means = []
    for _ in range(RESAMPLES):
        by_question = hits[rng.integers(draws, size=draws)].mean(axis=0)
        means.append(by_question[rng.integers(questions, size=questions)].mean())
    return [round(float(q) * 100, 2) for q in np.quantile(means, (0.025, 0.975))]


def nearest(train: Set, test: Set, places: np.ndarray) -> np.ndarray:
    """The baseline: the intent of the nearest example, of the last draw."""
    return train.labels[places][(test.vectors @ train.vectors[places].T).argmax(axis=1)] == test.labels


def calibration(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error, in ten bins of equal width."""
    bins = np.minimum((sure * 10).astype(int), 9)
    told = [(bins == b) for b in range(10)]
    return float(sum(abs(right[b].mean() - sure[b].mean()) * b.mean() for b in told if b.any()))


# -- out of scope --------------------------------------------------------------------------------------------------


def out_of_scope(train: Set, test: Set, classes: tuple[str, ...], shots: int | None) -> dict:
    """Return which share of the held-out intents' questions, and of the others', went to ``default``."""
    shares: dict[str, list[tuple[float, float]]] = {"rule": [], "rule_and_confidence": []}
    for draw in range(FULL_DRAWS if shots is None else DRAWS):
        rng = np.random.default_rng(SEED + draw)
        out = rng.choice(len(classes), HELD_OUT, replace=False)
        places = drawn(train.labels, shots, rng)
        places = places[~np.isin(train.labels[places], out)]
        left = np.setdiff1d(np.arange(len(classes)), out)
        labels = np.searchsorted(left, train.labels[places])
        model = learn(train.vectors[places], labels, tuple(classes[k] for k in left), outside=None)
        told, within = model.judge(test.vectors)
        foreign = np.isin(test.labels, out)
        for name, kept in (("rule", within), ("rule_and_confidence", within & (told.max(axis=1) >= CONFIDENCE))):
            shares[name].append((float((~kept)[foreign].mean()), float((~kept)[~foreign].mean())))
    return {
        "draws": len(shares["rule"]), "intents_held_out": HELD_OUT, "meant_to_be_lost": round(1 - KEPT, 3),
        **{name: _spread(np.array(values)) for name, values in shares.items()},
    }  # fmt: skip


def _spread(values: np.ndarray) -> dict:
    mean, low, high = (np.round(f(values * 100, axis=0), 1).tolist() for f in (np.mean, np.min, np.max))
    names = ("held_out_to_default", "in_scope_lost")
    return {name: {"mean": mean[i], "least": low[i], "most": high[i]} for i, name in enumerate(names)}


def unrelated(folder: Path, vectors: Path | None, model: IntentModel) -> dict:
    """Return which share of GSM8K's questions, which nobody asks a bank, went to ``default``."""
    text = gzip.decompress((folder / "gsm8k" / "test.jsonl.gz").read_bytes()).decode()
    texts = [json.loads(line)["question"] for line in text.split("\n") if line.strip()][:FOREIGN]
    told, within = model.judge(embedded(texts, vectors))
    kept = within & (told.max(axis=1) >= CONFIDENCE)
    low, high = clopper_pearson(float((~within).sum()), len(texts))
    return {
        "rule": round(float((~within).mean()) * 100, 1), "interval": [round(low * 100, 1), round(high * 100, 1)],
        "rule_and_confidence": round(float((~kept).mean()) * 100, 1), "n": len(texts),
    }  # fmt: skip


# -- asks and time -------------------------------------------------------------------------------------------------


def model_calls(folder: Path) -> Iterator[tuple[Call, str]]:
    """Yield every model call of the agent, and the customer's newest message in it."""
    clock = SystemClock()
    for one in json.loads(gzip.decompress((folder / "tau-bench" / "gpt-4o-airline.json.gz").read_bytes())):
        newest = ""
        for i, message in enumerate(one["traj"]):
            if message["role"] == "user":
                newest = message["content"]
            elif message["role"] == "assistant":
                request = Request(data={"model": "m", "messages": one["traj"][:i]})
                yield Call(
                    id="c", wire=CHAT, request=request, trail=Trail(clock), received_at=0.0, started=0.0
                ), newest  # fmt: skip


def asks(folder: Path) -> dict:
    """Return of how many calls the ask is the customer's, and what finding it takes."""
    right, after_tool, spent = 0, 0, []
    for call, newest in model_calls(folder):
        began = time.perf_counter()
        asked = asked_of(call)
        spent.append((time.perf_counter() - began) * 1e6)
        right += asked.ask == newest
        after_tool += asked.after_tool
    us = {"p50": round(float(np.median(spent)), 1), "p99": round(float(np.quantile(spent, 0.99)), 1)}
    return {"calls": len(spent), "right": right, "after_a_tool": after_tool, "us": us}


def judge_ms(model: IntentModel, vectors: np.ndarray) -> dict:
    """Return the milliseconds of judging one text whose vector is known."""
    spent = []
    for i in range(300):
        began = time.perf_counter()
        model.judge(vectors[i : i + 1])
        spent.append((time.perf_counter() - began) * 1e3)
    return {"p50": round(float(np.median(spent)), 3), "p99": round(float(np.quantile(spent, 0.99)), 3)}


def there(path: Path) -> bool:
    if path.exists():
        return True
    print(f"{path} is not there: left out", file=sys.stderr)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data sets")
    parser.add_argument("--vectors", type=Path, help="folder in which vectors are kept")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the last line is JSON anyway")
    given = parser.parse_args()
    found: dict = {}
    if there(given.data / "tau-bench"):
        found["asks"] = asks(given.data)
        print(f"asks: {found['asks']}")
    train, test, classes = banking(given.data / "banking77", given.vectors)
    for name, shots in (("10", 10), ("30", 30), ("full", None)):
        figures, model = accuracy(train, test, classes, shots)
        figures["judge_ms"] = judge_ms(model, test.vectors)
        figures["out_of_scope"] = out_of_scope(train, test, classes, shots)
        found[name] = figures
        print(f"{name}: {figures}", flush=True)
    if there(given.data / "gsm8k"):
        found["unrelated"] = unrelated(given.data, given.vectors, model)
        print(f"unrelated: {found['unrelated']}")
    found["date"] = time.strftime("%Y-%m-%d")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
