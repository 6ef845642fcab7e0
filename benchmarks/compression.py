"""What survives when contexts are shortened: the figures in docs/compression.md.

    python benchmarks/compression.py --data DIR [--fit] --json
    python benchmarks/compression.py --qa FILE.jsonl --json
    python benchmarks/compression.py --spans FILE.jsonl --json

DIR holds ``xquad-en/``, ``lost-in-the-middle/`` and ``tau-bench/``; one that is not there is left out with one line.

--qa: lines of {"question", "contexts": [text, ...], "answers": [text, ...]}. Retention is the share of questions of
which some answer stands in what is kept, at 1/2, 1/3, 1/5 and 1/10 of the words. ``auto`` decides by itself how much
to keep for a retention of 98 %: calibrated on one half of the questions (whole groups: articles, or questions with
the same contexts), and measured on the other; its ratio is all words before over all words after. ``shipped`` does so
with the calibration that negawatt ships, which has seen half of XQuAD. Printed under ``qa``.

--spans: lines of {"query", "turns": [text, ...], "gold": [[first, last], ...]}. first and last are indices of turns
from 0, both inclusive; where any is too large for that, all of the file are offsets of words of the turns joined by
spaces. The share of the words of the gold spans that are kept, over all rows. Printed under ``spans``.

Key-value retrieval: the JSON object with all records, shortened at least 20 times; the share whose asked-for pair is
still there byte for byte. Tools: the calls of recorded conversations with 14 tools, fitted on one half of the tasks.

Retention is a necessary condition for a right answer, and no measure of answers. Intervals are 95 %: groups are
resampled, or Clopper-Pearson. Times are CPU time of one thread. The last line is one JSON object.
--fit prints the calibration that ships (src/negawatt/shape/calibration.toml) from the fitting half of XQuAD.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _contexts import (
    BASELINES,
    SEED,
    BadInput,
    Question,
    Spans,
    greedy,
    halves,
    plain_units,
    read_questions,
    read_spans,
    xquad,
)
from _machine import machine

from negawatt.economics.tokens import tokens_in
from negawatt.shape.edits import restore
from negawatt.shape.history import fold, unfold
from negawatt.shape.lossless import minify_json
from negawatt.shape.select import Calibration, Example, Kept, fit, keep, keep_for
from negawatt.shape.sentences import units_of
from negawatt.shape.structured import shape_structured
from negawatt.shape.tools import Need, fit_tools, name_of, prune
from negawatt.statistics import Bootstrap, clopper_pearson

RATIOS = (2, 3, 5, 10)
TARGET = 0.98
KV_RATIO = 20


def share(hits: Sequence[bool], groups: Sequence[str]) -> tuple[float, float | None, float | None]:
    """Return the share of *hits* with its interval."""
    found = Bootstrap(groups, np.random.default_rng(SEED)).proportion(np.array(hits, float))
    return float(found.mean or 0.0), found.low, found.high


def cell(figure: tuple[float, float | None, float | None]) -> str:
    low, high = ("?" if one is None else f"{one:.3f}" for one in figure[1:])
    return f"{figure[0]:.3f} ({low} to {high})"


def retention(questions: Sequence[Question]) -> tuple[dict[str, dict[str, float]], float]:
    """Print the table of all ways at all ratios; return negawatt's row, and its milliseconds per 1,000 tokens."""
    groups = [one.group for one in questions]
    print(f"| n = {len(questions)}, {len(set(groups))} groups | " + " | ".join(f"{ratio}x" for ratio in RATIOS) + " |")
    print("| --- |" + " --- |" * len(RATIOS))
    for name, score in BASELINES.items():
        hits: dict[int, list[bool]] = {ratio: [] for ratio in RATIOS}
        for number, one in enumerate(questions):
            texts, sources = plain_units(one.contexts)
            scores = score(texts, sources, one.question, number)
            for ratio in RATIOS:
                hits[ratio].append(one.survives(greedy(texts, scores, ratio)))
        print(f"| {name} | " + " | ".join(cell(share(hits[ratio], groups)) for ratio in RATIOS) + " |", flush=True)
    ours: dict[int, list[bool]] = {ratio: [] for ratio in RATIOS}
    spent = tokens = 0.0
    for one in questions:
        began = time.process_time()
        units = units_of(one.contexts)
        texts_kept = [keep(units, one.question, ratio=RATIOS[0]).text]
        spent += time.process_time() - began
        tokens += sum(map(tokens_in, one.contexts))
        texts_kept += [keep(units, one.question, ratio=ratio).text for ratio in RATIOS[1:]]
        for ratio, text in zip(RATIOS, texts_kept, strict=True):
            ours[ratio].append(one.survives(text))
    print("| negawatt | " + " | ".join(cell(share(ours[ratio], groups)) for ratio in RATIOS) + " |")
    _, test = halves(questions)
    if test:
        parts = [cell(share([ours[r][i] for i in test], [groups[i] for i in test])) for r in RATIOS]
        print(f"| negawatt, test half alone (n = {len(test)}) | " + " | ".join(parts) + " |")
    row = {str(ratio): {"retention": round(sum(ours[ratio]) / len(questions), 4)} for ratio in RATIOS}
    return row, 1e6 * spent / tokens if tokens else math.nan


def examples(questions: Sequence[Question], places: Sequence[int]) -> list[Example]:
    return [Example(units_of(q.contexts), q.question, q.survives) for q in (questions[i] for i in places)]


def by_itself(questions: Sequence[Question]) -> dict[str, dict[str, float | None]]:
    """Print and return what deciding by itself keeps, on the test half."""
    fitting, test = halves(questions)
    found: dict[str, dict[str, float | None]] = {}
    if not fitting or not test:
        print("too few groups for a fitting and a test half: auto is left out")
        return {"auto": {"retention": None, "ratio": None}}
    own = fit(examples(questions, fitting), "the fitting half")
    for name, calibration in (("auto", own), ("shipped", None)):
        found[name] = decided(questions, test, name, calibration)
    return found


def decided(questions: Sequence[Question], test: list[int], name: str, calibration: Calibration | None) -> Any:
    kept: list[Kept] = []
    hits = []
    for i in test:
        one = questions[i]
        kept.append(keep_for(units_of(one.contexts), one.question, TARGET, calibration=calibration))
        hits.append(one.survives(kept[-1].text))
    groups = [questions[i].group for i in test]
    before, after = (np.array([getattr(k, field) for k in kept], float) for field in ("words_before", "words"))
    ratio = Bootstrap(groups, np.random.default_rng(SEED)).ratio(before, after)
    abstained = sum(one.abstained is not None for one in kept)
    print(
        f"{name}, target {TARGET:.0%}, n = {len(test)}: retention {cell(share(hits, groups))}, "
        f"ratio {cell((ratio.mean or 0.0, ratio.low, ratio.high))}, kept everything: {abstained}"
    )
    return {"retention": round(sum(hits) / len(hits), 4), "ratio": round(ratio.mean or 0.0, 3)}


def spans(rows: Sequence[Spans], counted: str) -> dict[str, Any]:
    """Print and return the share of gold words that are kept."""
    found: dict[str, Any] = {}
    prepared = [(units_of(one.turns, together=True), one, gold_words(one, counted)) for one in rows]
    groups = [str(i) for i in range(len(rows))]
    for name in [*map(str, RATIOS), "auto"]:
        kept = [
            keep_for(units, one.query, TARGET) if name == "auto" else keep(units, one.query, ratio=int(name))
            for units, one, _ in prepared
        ]
        left = np.array([words_kept(u, k, g) for (u, _, g), k in zip(prepared, kept, strict=True)], float)
        gold = np.array([len(g) for _, _, g in prepared], float)
        figure = Bootstrap(groups, np.random.default_rng(SEED)).ratio(left, gold)
        ratio = sum(k.words_before for k in kept) / max(1, sum(k.words for k in kept))
        print(f"spans {name}: gold words kept {cell((figure.mean or 0.0, figure.low, figure.high))}, ratio {ratio:.2f}")
        found[name] = {"retention": None if figure.mean is None else round(figure.mean, 4)}
    found["auto"]["ratio"] = round(ratio, 3)
    return {**found, "n": len(rows), "gold": counted}


def gold_words(one: Spans, counted: str) -> set[int]:
    """Return the offsets, among the words of all turns, of those in the gold spans."""
    starts = [0]
    for turn in one.turns:
        starts.append(starts[-1] + len(turn.split()))
    if counted == "turns":
        return {i for first, last in one.gold for i in range(starts[first], starts[last + 1])}
    return {i for first, last in one.gold for i in range(first, last + 1)}


def words_kept(units: Sequence[Any], kept: Kept, gold: set[int]) -> int:
    places, start, found = set(kept.places), 0, 0
    for i, unit in enumerate(units):
        end = start + unit.words
        found += sum(word in gold for word in range(start, end)) if i in places else 0
        start = end
    return found


def key_value(path: Path) -> float:
    """Print and return the share of asked-for pairs that survive, byte for byte."""
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line]
    survived = restored = firsts = before = after = 0
    for line in lines:
        text = json.dumps(dict(line["ordered_kv_records"]), indent=1)
        pair = f"{json.dumps(line['key'])}: {json.dumps(line['value'])}"
        query = f'Which value has the key "{line["key"]}" in this JSON object?'
        found = shape_structured(text, query, ratio=KV_RATIO, place="first")
        if found is None or pair not in text:
            raise BadInput(f"{path}: a record is no JSON object")
        survived += pair in found.shaped.text
        firsts += found.position == 0
        restored += restore(found.shaped.text, found.shaped.edits, found.shaped.removed.get) == text
        before, after = before + len(text), after + len(found.shaped.text)
    n = len(lines)
    low, high = clopper_pearson(survived, n)
    print(
        f"{path.name}: {cell((survived / n, low, high))} of {n} pairs survive at {before / after:.1f}x fewer "
        f"characters; {firsts / n:.1%} stand first, {restored / n:.1%} of the originals came back byte for byte"
    )
    return round(survived / n, 4)


def tool_lists(path: Path) -> None:
    """Print the recall of pruned tool lists against what they save."""
    conversations = json.loads(gzip.decompress(path.read_bytes()))
    tools = recorded_tools(conversations)
    tasks = sorted({one["task_id"] for one in conversations})
    random.Random(SEED).shuffle(tasks)
    fitting = set(tasks[: len(tasks) // 2])
    needs: dict[bool, list[tuple[str, Need]]] = {True: [], False: []}
    for one in conversations:
        for i, message in enumerate(one["traj"]):
            called = frozenset(call["function"]["name"] for call in message.get("tool_calls") or ())
            if called:
                need = Need(tools, one["traj"][:i], called)
                needs[one["task_id"] in fitting].append((str(one["task_id"]), need))
    calibration = fit_tools([need for _, need in needs[True]], "the fitting half of the tasks")
    size = sum(len(json.dumps(tool)) for tool in tools)
    for recall in (0.9, 0.95, 0.98, 0.99):
        hits, left = [], []
        for _, need in needs[False]:
            pruned = prune(need.tools, need.messages, calibration=calibration, recall=recall)
            hits.append(need.called <= {name_of(tool) for tool in pruned.tools})
            left.append(sum(len(json.dumps(tool)) for tool in pruned.tools) / size)
        figure = cell(share(hits, [task for task, _ in needs[False]]))
        less = 1 - float(np.mean(left))
        print(f"tools, target {recall:.0%}, n = {len(hits)} calls: recall {figure}, {less:.1%} less of the list")


def recorded_tools(conversations: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the tools that were called, with the arguments they had: their descriptions were not recorded."""
    arguments: dict[str, set[str]] = {}
    for one in conversations:
        for message in one["traj"]:
            for call in message.get("tool_calls") or ():
                own = arguments.setdefault(call["function"]["name"], set())
                own |= set(json.loads(call["function"]["arguments"]))
    return [
        {"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {key: {"type": "string"} for key in sorted(keys)}}}}
        for name, keys in sorted(arguments.items())
    ]  # fmt: skip


def conversations_fold(path: Path) -> None:
    """Print what folding old turns, and minifying what tools answered, save over all calls of the conversations."""
    before, folded, minified, groups = [], [], [], []
    came_back = True
    for one in json.loads(gzip.decompress(path.read_bytes())):
        for i, message in enumerate(one["traj"]):
            if message["role"] != "assistant":
                continue
            messages = one["traj"][:i]
            found = fold(messages)
            came_back = came_back and unfold(found, found.removed.get) == messages
            before.append(sum(len(json.dumps(each, ensure_ascii=False)) for each in messages))
            folded.append(found.saved)
            results = [each["content"] for each in messages if each["role"] == "tool" and each.get("content")]
            minified.append(sum(minify_json(text).saved for text in results))
            groups.append(str(one["task_id"]))
    total = np.array(before, float)
    bootstrap = Bootstrap(groups, np.random.default_rng(SEED))
    for name, saved in (("old turns folded", folded), ("JSON of tool results minified", minified)):
        figure = bootstrap.ratio(np.array(saved, float), total)
        print(
            f"{name}, n = {len(before)} calls: {cell((figure.mean or 0.0, figure.low, figure.high))} of the characters"
        )
    print(f"all original messages came back: {came_back}")


def print_calibration(questions: Sequence[Question]) -> None:
    fitting, _ = halves(questions)
    found = fit(examples(questions, fitting), "")
    print(f"n = {found.n}\nlargest = [")
    largest = [math.ceil(gap * 1000) / 1000 for gap in found.largest[: found.n // 10 + 1]]
    for start in range(0, len(largest), 14):
        print("    " + ", ".join(map(str, largest[start : start + 14])) + ",")
    print("]")


def from_folder(folder: Path, with_fit: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if there(folder / "xquad-en" / "xquad.en.json.gz"):
        questions = xquad(folder / "xquad-en")
        if with_fit:
            print_calibration(questions)
        row, took = retention(questions)
        found["xquad"] = {**row, "auto": by_itself(questions)["auto"]}
        found["ms_per_1k_tokens"] = round(took, 3)
        print(f"{took:.2f} ms of CPU per 1,000 tokens (estimated tokens), splitting included")
    for keys in ("75", "140"):
        path = folder / "lost-in-the-middle" / f"kv-retrieval-{keys}_keys.jsonl.gz"
        if there(path):
            found.setdefault("kv", {})[keys] = key_value(path)
    if there(folder / "tau-bench" / "gpt-4o-airline.json.gz"):
        tool_lists(folder / "tau-bench" / "gpt-4o-airline.json.gz")
        conversations_fold(folder / "tau-bench" / "gpt-4o-airline.json.gz")
    return found


def there(path: Path) -> bool:
    if path.exists():
        return True
    print(f"{path} is not there: left out")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the public data sets")
    parser.add_argument("--qa", type=Path, metavar="FILE", help="questions with contexts and answers")
    parser.add_argument("--spans", type=Path, metavar="FILE", help="queries with turns and gold spans")
    parser.add_argument("--fit", action="store_true", help="print the calibration that ships, from half of XQuAD")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the last line is JSON anyway")
    given = parser.parse_args()
    if not (given.data or given.qa or given.spans):
        parser.error("give --data, --qa or --spans")
    print(f"{time.strftime('%Y-%m-%d')}, seed {SEED}, {machine()}")
    found: dict[str, Any] = {}
    try:
        if given.data is not None:
            found |= from_folder(given.data, given.fit)
        if given.qa is not None:
            questions = read_questions(given.qa)
            row, took = retention(questions)
            found["qa"] = {**row, **by_itself(questions), "n": len(questions)}
            found.setdefault("ms_per_1k_tokens", round(took, 3))
        if given.spans is not None:
            found["spans"] = spans(*read_spans(given.spans))
    except BadInput as error:
        print(f"compression.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
