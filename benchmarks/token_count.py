"""How far each way of counting tokens before a call is off, and what it costs: the tables in docs/tokens.md.

    python benchmarks/token_count.py DATA_FOLDER

DATA_FOLDER holds ``arena-hard/``, ``tau-bench/``, ``lost-in-the-middle/`` and ``xquad-en/``; a set that is not there is
left out with one line. The truth is the whole text under the tokenizer (o200k_base), not a provider's bill. For the
correction, another tokenizer (cl100k_base) and a frame of 40 tokens a call stand in for a provider whose tokenizer we
do not have. Prints one line for each set and way, then one JSON object.
"""

from __future__ import annotations

import gzip
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from negawatt.economics.count_corrections import Corrections
from negawatt.economics.count_sampling import SampledCounter
from negawatt.economics.counting import BUDGET, TokenCounter
from negawatt.economics.counting_models import Encodings
from negawatt.economics.tokens import tokens_in
from negawatt.protocol import Prompt

SEED = 20261124
MOST = 400  # texts a set
STAND_IN_FRAME = 40
WORDS = "the order was sent to our office last week and has not arrived yet please tell me where it is"


def rows(path: Path) -> list:
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def prompts(folder: Path) -> list[str]:
    """Every second one of v2.0 (the others made the estimator's fit), and all of v0.1."""
    newer = [row["prompt"] for row in rows(folder / "arena-hard" / "v2.0__question.jsonl.gz")][1::2]
    return newer + [row["prompt"] for row in rows(folder / "arena-hard" / "v0.1__question.jsonl.gz")]


def conversations(folder: Path) -> list[str]:
    data = json.loads(gzip.decompress((folder / "tau-bench" / "gpt-4o-airline.json.gz").read_bytes()))
    return [json.dumps(row["traj"], ensure_ascii=False) for row in data]


def records(folder: Path) -> list[str]:
    path = folder / "lost-in-the-middle" / "kv-retrieval-140_keys.jsonl.gz"
    return [json.dumps(row["ordered_kv_records"]) for row in rows(path)[:200]]


def articles(folder: Path) -> list[str]:
    data = json.loads(gzip.decompress((folder / "xquad-en" / "xquad.en.json.gz").read_bytes()))["data"]
    return ["\n\n".join(part["context"] for part in article["paragraphs"]) for article in data]


SETS: dict[str, Callable[[Path], list[str]]] = {
    "prompts (arena-hard)": prompts,
    "conversations (tau-bench)": conversations,
    "UUIDs in JSON (lost-in-the-middle)": records,
    "articles (xquad)": articles,
}


def interval_of_median(values: list[float]) -> list[float]:
    rng = random.Random(SEED)
    found = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(1000))
    return [found[24], found[974]]


def summary(counts: list[float], truth: list[int], times_s: list[float]) -> dict:
    errors = sorted(abs(a - t) / t for a, t in zip(counts, truth, strict=True))
    return {
        "n": len(truth),
        "median": statistics.median(errors),
        "interval": interval_of_median(errors),
        "p95": errors[int(0.95 * (len(errors) - 1))],
        "sum": sum(counts) / sum(truth) - 1,
        "us": None if not times_s else statistics.median(times_s) * 1e6,
    }


def timed(count: Callable[[str], float], text: str, repeats: int = 5) -> tuple[float, float]:
    """Return the count and the least of its times in seconds."""
    best, found = float("inf"), 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        found = count(text)
        best = min(best, time.perf_counter() - started)
    return found, best


def ways(tokenize: Callable[[str], float]) -> dict[str, Callable[[str], float]]:
    def fresh(text: str) -> float:
        return SampledCounter(tokenize, budget=BUDGET, size=tokens_in).count([text])[0]

    return {
        "whole": tokenize,
        "as the gateway, new": fresh,
        "estimator": tokens_in,
        "characters/4": lambda t: len(t) / 4,
    }


def again(tokenize: Callable[[str], float], texts: list[str], truth: list[int]) -> dict:
    """What the gateway says of a text that it has counted before, and how often it takes until that is exact."""
    calls, times, counts = [], [], []
    for text in texts:
        counter = SampledCounter(tokenize, budget=BUDGET, size=tokens_in)
        n = 1
        while not counter.count([text])[1] and n < 500:
            n += 1
        found, seconds = timed(lambda same, counter=counter: counter.count([same])[0], text)
        calls.append(n)
        counts.append(found)
        times.append(seconds)
    return {**summary(counts, truth, times), "calls_until_whole": statistics.median(calls), "most_calls": max(calls)}


def corrected(stand_in: Callable[[str], float], texts: list[str]) -> dict:
    """Every text once, in random order: count, then learn. Errors of all calls after the first 20, as they came."""
    rng = random.Random(SEED)
    order = rng.sample(texts, len(texts))
    corrections, before, after, truth = Corrections(), [], [], []
    for i, text in enumerate(order):
        raw, measured = round(tokens_in(text)), int(stand_in(text)) + STAND_IN_FRAME
        found = corrections.corrected("stand-in", "estimated", raw)
        if i >= 20:
            before.append(float(raw))
            after.append(float(raw if found is None else found))
            truth.append(measured)
        corrections.learn("stand-in", "estimated", raw, measured)
    return {"estimator": summary(before, truth, []), "corrected": summary(after, truth, [])}


def chat_call() -> dict:
    """A chat request of 2 KB to a model of OpenAI's: a system prompt seen before (1.5 KB), a new question (0.5 KB)."""
    rng = random.Random(SEED)
    words = WORDS.split()
    system = " ".join(rng.choices(words, k=400))[:1500]
    found = {}
    for model in ("gpt-4o", "somebody-elses-model"):
        counter, times = TokenCounter(), []
        for _ in range(500):
            question = " ".join(rng.choices(words, k=150))[:500]
            asked = [{"role": "system", "content": system}, {"role": "user", "content": question}]
            started = time.perf_counter()
            counter.count(model, Prompt(messages=asked))
            times.append(time.perf_counter() - started)
        found[model] = {"n": 480, "us": statistics.median(times[20:]) * 1e6, "p95_us": sorted(times[20:])[456] * 1e6}
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder, encodings = Path(sys.argv[1]), Encodings()
    tokenize, stand_in = encodings.tokenizer("o200k_base"), encodings.tokenizer("cl100k_base")
    if tokenize is None or stand_in is None:
        sys.exit("tiktoken is not installed")
    result: dict = {"machine": {"arch": platform.machine(), "python": platform.python_version()}, "sets": {}}
    for name, read in SETS.items():
        try:
            texts = read(folder)
        except OSError:
            print(f"{name}: not in {folder}, left out")
            continue
        texts = [text for text in random.Random(SEED).sample(texts, min(MOST, len(texts))) if text]
        truth = [int(tokenize(text)) for text in texts]
        found = {}
        for way, count in ways(tokenize).items():
            pairs = [timed(count, text) for text in texts]
            found[way] = summary([tokens for tokens, _ in pairs], truth, [seconds for _, seconds in pairs])
        found["as the gateway, repeated"] = again(tokenize, texts, truth)
        result["sets"][name] = {
            "characters": statistics.median(map(len, texts)), "ways": found, "stand_in": corrected(stand_in, texts),
        }  # fmt: skip
        for way, line in [*found.items(), *((f"stand-in: {k}", v) for k, v in corrected(stand_in, texts).items())]:
            rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
            print(f"{name:36} {way:26}", rounded)
    result["chat call of 2 KB"] = chat_call()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
