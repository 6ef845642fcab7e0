"""Questions with contexts for `benchmarks/compression.py`: read or drawn, and the trivial ways to shorten them."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20261123
PLAIN = re.compile(r"(?<=[.!?])\s+")  # the protocol's own splitter; negawatt has another
WORD = re.compile(r"\w+")
SMALL_WORDS = """
a an the of in on at to for from by with as is are was were be been being do does did has have had what which who
whom whose when where why how many much that this these those it its and or not no than then there their they he she
his her him i you we such so can could may might will would shall should
"""
STOP = frozenset(SMALL_WORDS.split())

Score = Callable[[list[str], list[int], str, int], list[float]]


class BadInput(Exception):
    """A file that is not what it should be; says which line, and what was expected."""


@dataclass(frozen=True)
class Question:
    """*contexts* of which one has one of *answers*; *group* is what is drawn or held out as a whole."""

    question: str
    contexts: list[str]
    answers: list[str]
    group: str

    def survives(self, text: str) -> bool:
        return any(answer in text for answer in self.answers)


@dataclass(frozen=True)
class Spans:
    query: str
    turns: list[str]
    gold: list[tuple[int, int]]


def xquad(folder: Path) -> list[Question]:
    """Return each question with its paragraph, the others of its article, and enough of other articles to make ten."""
    data = json.loads(gzip.decompress((folder / "xquad.en.json.gz").read_bytes()))["data"]
    paragraphs = [[one["context"] for one in article["paragraphs"]] for article in data]
    found: list[Question] = []
    for a, article in enumerate(data):
        for p, paragraph in enumerate(article["paragraphs"]):
            for asked in paragraph["qas"]:
                rng = random.Random(len(found))
                same = [text for i, text in enumerate(paragraphs[a]) if i != p]
                other = [text for i, texts in enumerate(paragraphs) if i != a for text in texts]
                contexts = [paragraph["context"], *rng.sample(same, min(4, len(same)))]
                contexts += rng.sample(other, 10 - len(contexts))
                rng.shuffle(contexts)
                answers = [one["text"] for one in asked["answers"]]
                found.append(Question(asked["question"], contexts, answers, f"{a:03}"))
    return found


def halves(questions: Sequence[Question]) -> tuple[list[int], list[int]]:
    """Return the indices of the fitting and of the test half: whole groups, drawn with the seed."""
    groups = sorted({one.group for one in questions})
    random.Random(SEED).shuffle(groups)
    fitting = set(groups[: len(groups) // 2])
    fit = [i for i, one in enumerate(questions) if one.group in fitting]
    return fit, [i for i, one in enumerate(questions) if one.group not in fitting]


def rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (where, object) of each line of a JSONL file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{where}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadInput(f"{where}: expected an object")
        found.append((where, row))
    if not found:
        raise BadInput(f"{path}: it has no line")
    return found


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file; those with the same contexts are one group.

    One whose answers stand in none of its contexts is left out: nothing that is kept could have them.
    """
    found = []
    read = 0
    for where, row in rows(path):
        question, contexts, answers = (row.get(name) for name in ("question", "contexts", "answers"))
        if not isinstance(question, str) or not _texts(contexts) or not _texts(answers):
            raise BadInput(f'{where}: expected {{"question": text, "contexts": [text, ...], "answers": [text, ...]}}')
        read += 1
        if any(answer in context for answer in answers for context in contexts):
            found.append(Question(question, contexts, answers, "\0".join(sorted(contexts))))
    if not found:
        raise BadInput(f"{path}: no question of which an answer stands in its contexts")
    if len(found) < read:
        print(f"{path}: {read - len(found)} of {read} questions have an answer in no context, and are left out")
    return found


def read_spans(path: Path) -> tuple[list[Spans], str]:
    """Return the rows of a file, and what their numbers count: turns, or words where they are too large for that."""
    found, wheres = [], []
    for where, row in rows(path):
        query, turns, gold = (row.get(name) for name in ("query", "turns", "gold"))
        if not isinstance(query, str) or not _texts(turns) or not isinstance(gold, list) or not gold:
            raise BadInput(f'{where}: expected {{"query": text, "turns": [text, ...], "gold": [[first, last], ...]}}')
        pairs = []
        for pair in gold:
            if not isinstance(pair, list) or len(pair) != 2 or not all(str(one).isdecimal() for one in pair):
                raise BadInput(f"{where}: expected [first, last] of two whole numbers, not {json.dumps(pair)[:60]}")
            first, last = int(pair[0]), int(pair[1])
            if first > last:
                raise BadInput(f"{where}: first {first} comes after last {last}")
            pairs.append((first, last))
        found.append(Spans(query, turns, pairs))
        wheres.append(where)
    if all(last < len(one.turns) for one in found for _, last in one.gold):
        return found, "turns"
    for where, one in zip(wheres, found, strict=True):
        words = sum(len(turn.split()) for turn in one.turns)
        if any(last >= words for _, last in one.gold):
            raise BadInput(f"{where}: a gold span ends after the last word ({words} words in {len(one.turns)} turns)")
    return found, "words"


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


# The baselines see the texts cut by the protocol's splitter, and keep what comes first in order of their score.


def plain_units(contexts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the sentences of *contexts* and which of them each is from."""
    cut = [(text, i) for i, context in enumerate(contexts) for text in PLAIN.split(context) if text]
    return [text for text, _ in cut], [i for _, i in cut]


def greedy(texts: Sequence[str], scores: Sequence[float], ratio: float) -> str:
    words = [len(text.split()) for text in texts]
    left, kept = sum(words) / ratio, set()
    for i in sorted(range(len(texts)), key=lambda i: (-scores[i], i)):
        if words[i] <= left:
            kept.add(i)
            left -= words[i]
    return " ".join(texts[i] for i in sorted(kept))


def head(texts: list[str], _sources: list[int], _query: str, _number: int) -> list[float]:
    return [-float(i) for i in range(len(texts))]


def at_random(texts: list[str], _sources: list[int], _query: str, number: int) -> list[float]:
    rng = random.Random(SEED + number)
    return [rng.random() for _ in texts]


def salience(texts: list[str], _sources: list[int], _query: str, _number: int) -> list[float]:
    """Sum of the idf of a sentence's words, stop words apart: what a compressor can know without the query."""
    said = [[word for word in WORD.findall(text.lower()) if word not in STOP] for text in texts]
    having = Counter(word for words in said for word in set(words))
    rare = {word: math.log(1 + (len(texts) - many + 0.5) / (many + 0.5)) for word, many in having.items()}
    return [sum(rare[word] for word in words) for words in said]


def bm25(texts: list[str], _sources: list[int], query: str, _number: int) -> list[float]:
    said = [WORD.findall(text.lower()) for text in texts]
    mean = sum(map(len, said)) / len(said)
    wanted = {word for word in WORD.findall(query.lower()) if word not in STOP}
    counts = [Counter(words) for words in said]
    having = {word: sum(word in one for one in counts) for word in wanted}
    found = []
    for words, one in zip(said, counts, strict=True):
        norm = 1.2 * (1 - 0.75 + 0.75 * len(words) / mean)
        found.append(
            sum(
                math.log(1 + (len(said) - having[w] + 0.5) / (having[w] + 0.5)) * one[w] * 2.2 / (one[w] + norm)
                for w in wanted
                if w in one
            )
        )
    return found


def bm25_neighbours(texts: list[str], sources: list[int], query: str, number: int) -> list[float]:
    own = bm25(texts, sources, query, number)
    found = []
    for i, score in enumerate(own):
        beside = [own[j] for j in (i - 1, i + 1) if 0 <= j < len(own) and sources[j] == sources[i]]
        found.append(score + 0.4 * max(beside, default=0.0))
    return found


BASELINES: dict[str, Score] = {
    "head": head,
    "random": at_random,
    "idf salience, no query": salience,
    "BM25": bm25,
    "BM25 + 0.4 x better neighbour": bm25_neighbours,
}
