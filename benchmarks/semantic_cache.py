"""What the semantic cache finds, and how often it is wrong: the figures in docs/levers/semantic_cache.md.

    python benchmarks/semantic_cache.py --data DIR --json
    python benchmarks/semantic_cache.py --pairs FILE.json --stream FILE.csv --json

DIR holds ``gptcache/``, ``banking77/``, ``arena-hard/`` and ``gsm8k/``; a set that is not there is left out with one
line. FILE.json is a list of {"origin", "similar"}, FILE.csv has the columns text and label (or category).

Pairs: all origins are put in as curated questions, all similars are asked; right is when the text of the origin found
is the one wanted. The rule is the one that ships.
Stream: each row is asked once, in random orders, from an empty start; its answer is its label. What is not served is
asked and kept; what is learned, is learned from that and from explored candidates only. The lever itself decides
(`negawatt.levers.semantic_cache`); only its embedder is replaced by vectors made before.
Prints tables, and as the last line one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from recall.guards import ablated
from recall.lookup import measure

from negawatt.call import Call, Request, Target, Trail
from negawatt.caller import Scope
from negawatt.clock import SystemClock
from negawatt.config import SemanticCache as Settings
from negawatt.embedders.opening import open_embedder
from negawatt.embedders.weights import MINILM
from negawatt.indexes.memory import MemoryIndex
from negawatt.levers.semantic_cache import Parts, SemanticCache
from negawatt.pipeline import Background
from negawatt.recall.curated import Answer, Curated
from negawatt.recall.learner import Learner
from negawatt.recall.policy import CachePolicy
from negawatt.reply import Reply
from negawatt.translate.said import said
from negawatt.wire.chat import CHAT

DELTAS = (0.005, 0.01, 0.02, 0.03, 0.05)
ORDERS = 20
SEED = 20261123
CURVE = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
STATIC = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


class Known:
    """An embedder that has made its vectors before."""

    learned, id = True, f"{MINILM}@known"

    def __init__(self, texts: list[str], vectors: np.ndarray) -> None:
        self.dimensions = vectors.shape[1]
        self._rows = dict(zip(texts, vectors, strict=True))

    async def embed(self, texts: list[str]) -> np.ndarray:
        return np.array([self._rows[text] for text in texts])

    async def close(self) -> None:
        """Nothing is open."""


def embedded(texts: list[str]) -> np.ndarray:
    """Return the vectors of *texts*, by the default embedder."""

    async def work() -> np.ndarray:
        embedder = open_embedder("minilm:", "embedder", threads=False)
        rows = [await embedder.embed(texts[i : i + 256]) for i in range(0, len(texts), 256)]
        return np.concatenate(rows)

    return asyncio.run(work())


# -- pairs ---------------------------------------------------------------------------------------------------------


def pairs(rows: list[dict[str, str]]) -> dict:
    """Return right, wrong and miss of the rule that ships, and the curve over its threshold."""
    origins = list(dict.fromkeys(row["origin"] for row in rows))
    texts = list(dict.fromkeys([*origins, *(row["similar"] for row in rows)]))
    known = Known(texts, embedded(texts))
    entries = [Answer(id=str(i), questions=(text,), answer=text) for i, text in enumerate(origins)]
    ships = Settings().curated_similarity
    curve = {str(at): named(asked(rows, entries, known, at)) for at in CURVE}
    plain = {str(at): named(plainly(rows, origins, known, at)) for at in CURVE}
    found = named(asked(rows, entries, known, ships))
    for at in CURVE:
        print(f"pairs at {at}: {curve[str(at)]}   similarity alone: {plain[str(at)]}")
    print(f"pairs, as it ships ({ships}): {found}, n {len(rows)}")
    return {**found, "n": len(rows), "threshold": ships, "curve": curve, "similarity_alone": plain}


def named(counts: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("right", "wrong", "miss"), counts, strict=True))


def asked(rows: list[dict[str, str]], entries: list[Answer], known: Known, similarity: float) -> tuple[int, int, int]:
    curated = Curated(entries, similarity)
    asyncio.run(curated.prepare(known))
    call = call_of("", Trail(SystemClock()))
    right = wrong = miss = 0
    for row in rows:
        match, _ = curated.find(call, row["similar"], known._rows[row["similar"]], time.time())
        if match is None:
            miss += 1
        elif match.entry.answer == row["origin"]:
            right += 1
        else:
            wrong += 1
    return right, wrong, miss


def plainly(rows: list[dict[str, str]], origins: list[str], known: Known, similarity: float) -> tuple[int, int, int]:
    """The baseline: the nearest, if it is near enough."""
    matrix = np.array([known._rows[text] for text in origins])
    right = wrong = miss = 0
    for row in rows:
        similarities = matrix @ known._rows[row["similar"]]
        best = int(similarities.argmax())
        if similarities[best] < similarity:
            miss += 1
        elif origins[best] == row["origin"]:
            right += 1
        else:
            wrong += 1
    return right, wrong, miss


# -- stream --------------------------------------------------------------------------------------------------------


def call_of(text: str, trail: Trail, i: int = 0) -> Call:
    request = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}]}
    return Call(
        id=f"call-{i}", wire=CHAT, request=Request(data=request), trail=trail, received_at=0.0, started=0.0,
        scope=Scope(), targets=(Target("p", "m", "m"),),
    )  # fmt: skip


def lever(known: Known, delta: float, seed: int, background: Background) -> SemanticCache:
    """Return the lever as the gateway makes it: an answer in other words is another answer."""
    settings = Settings(mode="on", max_error=delta, review=0, same_answer=1.0, other_answer=1.0)
    clock = SystemClock()
    index = MemoryIndex(clock, model=known.id, dimensions=known.dimensions)
    learner = Learner(
        settings, {}, cases=index.cases, clock=clock, rng=random.Random(seed), alert=lambda *_: None,
        spawn=background.spawn,
    )  # fmt: skip
    parts = Parts(known, index, learner, Curated((), 0.7), said, lambda *_: None, lambda _: None)
    return SemanticCache(settings, CachePolicy(settings, {}), parts, clock=clock, background=background)


async def streamed(texts: list[str], labels: list[str], vectors: np.ndarray, delta: float, order: int) -> dict:
    """Send the texts through, in one order; return the shares of hits, wrong hits and explored ones."""
    n = len(texts)
    known = Known([*texts, *sorted(set(labels))], vectors)
    background = Background()
    semantic = lever(known, delta, order, background)
    hits = wrong = explored = 0
    quarters = []
    clock = SystemClock()
    for step, i in enumerate(np.random.default_rng(SEED + order).permutation(n)):
        trail = Trail(clock)
        call = call_of(texts[i], trail, step)

        async def forward(call: Call, label: str = labels[i]) -> Reply:
            return said(call, label)

        reply = await semantic(call, forward)
        await reply.close()
        await background.drain()
        if reply.answered_by == "semantic_cache":
            hits += 1
            wrong += CHAT.text_of(reply.data) != labels[i]
        explored += trail.decisions[-1].action == "explored"
        if (step + 1) % max(1, n // 4) == 0:
            quarters.append(wrong / (step + 1))
    return {"hit": hits / n, "error": wrong / n, "explored": explored / n, "quarters": quarters[:4]}


def one_order(texts: list[str], labels: list[str], vectors: np.ndarray, job: tuple[float, int]) -> dict:
    return asyncio.run(streamed(texts, labels, vectors, *job))


def stream(texts: list[str], labels: list[str], orders: int) -> tuple[dict, dict]:
    """Return, for each budget, the means over *orders*, and in how many the budget was broken; and the baselines."""
    kinds = sorted(set(labels))
    vectors = embedded([*texts, *kinds])
    jobs = [(delta, order) for delta in DELTAS for order in range(orders)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(partial(one_order, texts, labels, vectors), jobs))
    found = {}
    for delta in DELTAS:
        runs = [run for (budget, _), run in zip(jobs, results, strict=True) if budget == delta]
        mean = {name: float(np.mean([run[name] for run in runs])) for name in ("hit", "error", "explored")}
        hits = [run["hit"] for run in runs]
        spread = 1.96 * float(np.std(hits, ddof=1)) / len(runs) ** 0.5 if len(runs) > 1 else None
        found[str(delta)] = {
            "hit": round(mean["hit"], 4), "error": round(mean["error"], 5),
            "violations": sum(run["error"] > delta for run in runs), "orders": len(runs),
            "explored": round(mean["explored"], 4), "largest_error": round(max(run["error"] for run in runs), 5),
            "hit_interval": None if spread is None else [round(mean["hit"] + sign * spread, 4) for sign in (-1, 1)],
            "error_by_quarter": [round(float(q), 5) for q in np.mean([run["quarters"] for run in runs], axis=0)],
            "n": len(texts),
        }  # fmt: skip
        print(f"budget {delta}: {found[str(delta)]}")
    order = np.random.default_rng(SEED).permutation(len(texts))
    baselines = {"static": static(texts, labels, vectors), "guards": ablated(texts, labels, vectors, order)}
    print(f"static thresholds, in hindsight: {baselines['static']}")
    print(f"guards on a static threshold: {baselines['guards']}")
    return found, baselines


def static(texts: list[str], labels: list[str], vectors: np.ndarray) -> dict:
    """The baseline: the nearest answers if it is near enough, in the first order."""
    order = np.random.default_rng(SEED).permutation(len(texts))
    found = {}
    for at in STATIC:
        rows, kept = np.empty((len(texts), vectors.shape[1]), np.float32), []
        hits = wrong = 0
        for i in order:
            if kept:
                similarities = rows[: len(kept)] @ vectors[i]
                best = int(similarities.argmax())
                if similarities[best] >= at:
                    hits += 1
                    wrong += labels[kept[best]] != labels[i]
                    continue
            rows[len(kept)] = vectors[i]
            kept.append(i)
        found[str(at)] = {"hit": round(hits / len(texts), 4), "error": round(wrong / len(texts), 5)}
    return found


# -- unrelated -----------------------------------------------------------------------------------------------------


def unrelated(texts: list[str], trained: tuple[list[str], list[str]] | None) -> dict:
    """Ask prompts that have nothing to do with each other: every hit is a false one.

    Each against all others as curated questions; and as a stream, after the rule has learned from *trained*, at the
    budget that ships, and at the loosest that is measured (which is not part of *false_hits*).
    """
    vectors = embedded(texts)
    entries = [Answer(id=str(i), questions=(text,), answer=text) for i, text in enumerate(texts)]
    curated = Curated(entries, Settings().curated_similarity)
    asyncio.run(curated.prepare(Known(texts, vectors)))
    rows, call, false = curated._vectors, call_of("", Trail(SystemClock())), 0
    for i, text in enumerate(texts):
        rows[i] = 0.0  # itself is not there
        match, _ = curated.find(call, text, vectors[i], time.time())
        rows[i] = vectors[i]
        if match is not None:
            false += 1
            print(f"false hit at {match.similarity:.3f}: {text[:100]!r} for {match.entry.answer[:100]!r}")
    ships = Settings().max_error
    by_budget = {} if trained is None else as_a_stream(texts, vectors, *trained, (ships, DELTAS[-1]))
    print(f"unrelated: n {len(texts)}, false hits {false} against all others, as a stream by budget {by_budget}")
    found = {"n": len(texts), "false_hits": false + by_budget.get(str(ships), 0), "as_curated": false}
    return {**found, "as_stream_by_budget": by_budget}


def as_a_stream(
    texts: list[str], vectors: np.ndarray, before: list[str], labels: list[str], budgets: tuple[float, ...]
) -> dict[str, int]:
    """Return how many of *texts* are answered by others, after all of *before* were asked, at each of *budgets*."""
    answers = [f"answer {i}" for i in range(len(texts))]
    more = [*before, *sorted(set(labels)), *answers]
    known = Known([*texts, *more], np.concatenate([vectors, embedded(more)]))
    steps = [*zip(before, labels, strict=True), *zip(texts, answers, strict=True)]
    return {str(delta): asyncio.run(after_training(known, steps, len(before), delta)) for delta in budgets}


async def after_training(known: Known, steps: list[tuple[str, str]], training: int, delta: float) -> int:
    background = Background()
    semantic = lever(known, delta, 0, background)
    hits = 0
    for step, (text, label) in enumerate(steps):

        async def forward(call: Call, label: str = label) -> Reply:
            return said(call, label)

        reply = await semantic(call_of(text, Trail(SystemClock()), step), forward)
        await reply.close()
        await background.drain()
        if step >= training and reply.answered_by == "semantic_cache":
            hits += 1
            print(f"false hit at a budget of {delta}: {text[:200]!r}, answered with {CHAT.text_of(reply.data)!r}")
    return hits


# -- data ----------------------------------------------------------------------------------------------------------


def read_stream(path: Path) -> tuple[list[str], list[str]]:
    csv.field_size_limit(10**7)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = "label" if rows and "label" in rows[0] else "category"
    if not rows or not {"text", named} <= set(rows[0]):
        raise SystemExit(f"{path}: expected a CSV with a header and the columns text and label (or category)")
    return [row["text"] for row in rows], [row[named] for row in rows]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line.strip()]


def prompts(folder: Path) -> list[str]:
    hard = folder / "arena-hard"
    found = [row["prompt"] for name in ("v0.1", "v2.0") for row in lines(hard / f"{name}__question.jsonl.gz")]
    found += [row["question"] for row in lines(folder / "gsm8k" / "test.jsonl.gz")]
    return list(dict.fromkeys(found))


def embed_ms(texts: list[str]) -> float:
    """Return the median milliseconds of one short text by itself, on one core."""

    async def work() -> float:
        embedder = open_embedder("minilm:", "embedder", threads=False)
        spent = []
        for text in texts[:400]:
            began = time.perf_counter()
            await embedder.embed([text])
            spent.append((time.perf_counter() - began) * 1000)
        return float(np.median(spent[20:]))

    return round(asyncio.run(work()), 2)


def there(path: Path) -> bool:
    if path.exists():
        return True
    print(f"{path} is not there: left out", file=sys.stderr)
    return False


def from_folder(folder: Path, orders: int, sizes: list[int]) -> dict:
    found: dict = {}
    trained = None
    if there(folder / "gptcache"):
        found["gptcache"] = pairs(json.loads(gzip.decompress((folder / "gptcache/mock_data.json.gz").read_bytes())))
    if there(folder / "banking77"):
        trained = read_stream(folder / "banking77" / "test.csv")
        found["banking77"], found["banking77_baselines"] = stream(*trained, orders)
        found["embed_ms"] = embed_ms(trained[0])
    if there(folder / "arena-hard") and there(folder / "gsm8k"):
        found["unrelated"] = unrelated(prompts(folder), trained)
    found["lookup"] = measure(sizes, with_embedding_ms=found.get("embed_ms"))
    for size, row in found["lookup"].items():
        print(f"lookup among {size}: {row}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the public data sets")
    parser.add_argument("--pairs", type=Path, help="JSON list of {origin, similar}")
    parser.add_argument("--stream", type=Path, help="CSV of text, label")
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="entries to look up among")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the last line is JSON anyway")
    given = parser.parse_args()
    found: dict = {}
    if given.pairs is not None:
        found["pairs"] = pairs(json.loads(given.pairs.read_text(encoding="utf-8")))
    if given.stream is not None:
        found["stream"], found["stream_baselines"] = stream(*read_stream(given.stream), given.orders)
    if given.data is not None:
        found |= from_folder(given.data, given.orders, [int(size) for size in given.sizes.split(",")])
    if not (given.pairs or given.stream or given.data):
        parser.error("give --data, or --pairs and --stream")
    found["date"] = time.strftime("%Y-%m-%d")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
