"""Tables of outcomes, and the vectors of their prompts."""

from __future__ import annotations

import asyncio
import csv
import functools
import gzip
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from negawatt.embedders.opening import open_embedder
from negawatt.errors import InputError
from negawatt.routing.answer_checks import answer_checks

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
# List prices of January 2024 in USD per million tokens, in and out: the strong model's by OpenAI, the weak one's by
# Together. Tokens are characters / 4, so only their ratio means anything.
WEAK_PRICE, STRONG_PRICE = (0.6, 0.6), (10.0, 30.0)
_CHUNK = 256
_TRUE, _FALSE = ("true", "yes"), ("false", "no")


@dataclass(frozen=True)
class Table:
    """Outcomes of two models on the same prompts, 0..1. *weak_cost* not None: the score may read the weak answer."""

    name: str
    texts: list[str]
    weak: np.ndarray
    strong: np.ndarray
    vectors: np.ndarray
    groups: list[str] | None = None
    extra: np.ndarray | None = None
    weak_cost: float | None = None


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV, .csv or .csv.gz. Raises `InputError`, which names the file."""
    csv.field_size_limit(1 << 30)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {error}") from error
    if not rows:
        raise InputError(f"{path}: expected a CSV with a header and rows, and found none")
    return rows


def column(rows: list[dict[str, str]], name: str, path: Path) -> list[str]:
    """Return a column as it stands. Raises `InputError`, which names the columns that there are."""
    if name not in rows[0]:
        raise InputError(f"{path}: no column {name!r}; there are {', '.join(map(repr, rows[0]))}")
    values = [row[name] for row in rows]
    for line, value in enumerate(values, 2):
        if value is None:
            raise InputError(f"{path}, row {line}: too few fields for column {name!r}")
    return values


def outcomes(rows: list[dict[str, str]], name: str, path: Path) -> np.ndarray:
    """Return a column of outcomes: 0, 1, true, false, or a number between. Raises `InputError`."""
    found = np.empty(len(rows))
    for i, value in enumerate(column(rows, name, path)):
        plain = value.strip().lower()
        try:
            found[i] = 1.0 if plain in _TRUE else 0.0 if plain in _FALSE else float(plain)
        except ValueError:
            found[i] = math.nan
        if not 0 <= found[i] <= 1:
            raise InputError(f"{path}, row {i + 2}, column {name!r}: expected an outcome from 0 to 1, not {value!r}")
    return found


def read_mmlu(folder: Path, vectors: Path | None) -> Table:
    path = folder / "mmlu_outcomes.csv.gz"
    rows = [row for row in read_rows(path) if row["contaminated"] == "0"]
    texts = [row["prompt"] for row in rows]
    return Table(
        "MMLU", texts, outcomes(rows, "mixtral_8x7b_correct", path), outcomes(rows, "gpt4_1106_correct", path),
        embedded(texts, vectors), [row["subject"] for row in rows],
    )  # fmt: skip


def read_gsm8k(folder: Path, vectors: Path | None) -> tuple[Table, Table]:
    """Return the arm that sees the prompt only, and the one that reads the weak answer too."""
    path = folder / "gsm8k_gsm8k_responses.csv.gz"
    contaminated = {row["eval_prompt"] for row in lines(folder / "gsm8k_contaminated_prompts.jsonl.gz")}
    rows = [row for row in read_rows(path) if row["prompt"] not in contaminated]
    texts, answers = ([row[name] for row in rows] for name in ("prompt", f"{WEAK}_response"))
    weak, strong = outcomes(rows, WEAK, path), outcomes(rows, STRONG, path)
    by_prompt, by_answer = embedded(texts, vectors), embedded(answers, vectors)
    asked = sum(map(len, texts))
    weak_usd = asked * WEAK_PRICE[0] + sum(map(len, answers)) * WEAK_PRICE[1]
    strong_usd = asked * STRONG_PRICE[0] + sum(len(row[f"{STRONG}_response"]) for row in rows) * STRONG_PRICE[1]
    checks = np.array([answer_checks(text, answer) for text, answer in zip(texts, answers, strict=True)])
    both = np.concatenate([by_prompt, by_answer], axis=1) / np.float32(2**0.5)
    return (
        Table("GSM8K, prompt only", texts, weak, strong, by_prompt),
        Table("GSM8K, weak answer read", texts, weak, strong, both, extra=checks, weak_cost=weak_usd / strong_usd),
    )


def read_table(path: Path, prompt: str, models: tuple[str, str], group: str | None, vectors: Path | None) -> Table:
    rows = read_rows(path)
    texts = column(rows, prompt, path)
    weak, strong = (outcomes(rows, model, path) for model in models)
    groups = None if group is None else column(rows, group, path)
    return Table(path.name, texts, weak, strong, embedded(texts, vectors), groups)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line.strip()]


def embedded(texts: list[str], folder: Path | None) -> np.ndarray:
    """Return the vectors of *texts* by the default embedder; kept in *folder* for the next time, if there is one."""
    kept = None
    if folder is not None:
        digest = hashlib.sha256(json.dumps([_embedder().id, texts]).encode()).hexdigest()
        kept = folder / f"{digest[:32]}.npy"
        if kept.exists():
            return np.load(kept, allow_pickle=False)
    chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
    workers = min(os.cpu_count() or 1, len(chunks))
    with ProcessPoolExecutor(workers) as pool:
        rows = np.concatenate(list(pool.map(_vectors, chunks)))
    if kept is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".npy", delete=False) as file:
            np.save(file, rows)
        Path(file.name).replace(kept)
    return rows


@functools.cache
def _embedder():
    return open_embedder("default:", "embedder", threads=False)


def _vectors(texts: Sequence[str]) -> np.ndarray:
    return asyncio.run(_embedder().embed(list(texts)))
