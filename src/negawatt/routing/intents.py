"""Intents: classes of requests that are learned from examples in a file.

A TOML file for some:

[examples]
support = ["How do I reset my password?", "The app does not start"]
default = ["Tell me a joke"]          # belongs to none; may be left out

and for many a CSV file with the columns ``text`` and ``class``, or a JSONL file with objects of these two fields.

The vectors of the examples are made when the gateway starts, beside the calls, and kept in memory alone: a thousand
texts take MiniLM about four seconds on one core. Calls that come before are classified by rules only.
"""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import orjson

from negawatt.embedders import Embedder
from negawatt.errors import ConfigError, EmbedderError
from negawatt.recall.readable import unreadable

if TYPE_CHECKING:
    from negawatt.routing.intent_model import IntentModel

log = logging.getLogger(__name__)

WHERE = "levers.classify.intents"
NONE = "default"
LEAST_EXAMPLES = 5  # of each class
_BATCH = 16  # texts given to the embedder at once, so that calls need not wait long for it
_AGAIN_S = 30.0  # after the last try


class Example(NamedTuple):
    """One row of the file. *place*: where it stands there, for messages."""

    text: str
    label: str
    place: str


class Guess(NamedTuple):
    """What the model says of one text. *label* None: of no class, for the *reason*."""

    label: str | None
    reason: str | None
    ranking: tuple[tuple[str, float], ...]  # classes with their probabilities, the likeliest first; () for nobody asked


def load_examples(path: Path, classes: Collection[str]) -> tuple[Example, ...]:
    """Return the examples in the file at *path*, each of one of *classes* or of ``default``.

    Raises `ConfigError`, which names the file, the entry and the remedy.
    """
    readers = {".toml": _from_toml, ".csv": _from_csv, ".jsonl": _from_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        _refuse(f"{path}: expected a file that ends in {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{WHERE}: {path}: cannot be read: {error.strerror}", param=WHERE) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{WHERE}: {path}: not UTF-8: {error}", param=WHERE) from error
    found = tuple(reader(text, path))
    _check(found, path, {*classes, NONE})
    return found


def _from_toml(text: str, path: Path) -> Iterator[Example]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", param=WHERE) from error
    table = data.get("examples")
    if not isinstance(table, dict) or set(data) != {"examples"}:
        _refuse(f"{path}: expected one table, [examples], with a list of texts for each class")
    for label, texts in table.items():
        if not isinstance(texts, list):
            _refuse(f"{path}: examples.{label}: expected a list of texts")
        for i, one in enumerate(texts):
            yield _example(one, label, path, f"examples.{label}[{i}]")


def _from_csv(text: str, path: Path) -> Iterator[Example]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not {"text", "class"} <= set(rows.fieldnames or ()):
        _refuse(f"{path}: expected a first line that names the columns text and class")
    try:
        for row in rows:
            yield _example(row["text"], row["class"], path, f"line {rows.line_num}")
    except csv.Error as error:
        raise ConfigError(f"{path}: line {rows.line_num}: not valid CSV: {error}", param=WHERE) from error


def _from_jsonl(text: str, path: Path) -> Iterator[Example]:
    for i, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{path}: line {i}: not valid JSON: {error}", param=WHERE) from error
        if not isinstance(row, dict) or not {"text", "class"} <= set(row):
            _refuse(f"{path}: line {i}: expected an object with the fields text and class")
        yield _example(row["text"], row["class"], path, f"line {i}")


def _example(text: Any, label: Any, path: Path, place: str) -> Example:
    if not isinstance(text, str) or not text.strip():
        _refuse(f"{path}: {place}: the text is empty; take it out")
    if not isinstance(label, str) or not label:
        _refuse(f"{path}: {place}: the class is missing")
    return Example(text, label, place)


def _check(found: tuple[Example, ...], path: Path, classes: set[str]) -> None:
    """Raise `ConfigError` for what cannot be learned from."""
    seen: dict[str, Example] = {}
    for one in found:
        if one.label not in classes:
            known = ", ".join(sorted(classes))
            _refuse(f"{path}: {one.place}: no class is named {one.label[:100]!r}; add it to [classes]; known: {known}")
        same = seen.setdefault(" ".join(one.text.casefold().split()), one)
        if same.label != one.label:
            both = f"{same.label!r} ({same.place}) and {one.label!r} ({one.place})"
            _refuse(f"{path}: {one.text[:80]!r} is of two classes, {both}; keep one of them")
    counts = Counter(one.label for one in found)
    if len(counts) < 2:
        only = f"all examples are of {next(iter(counts))!r}" if counts else "there are no examples"
        _refuse(f"{path}: {only}; give some of another class, or of {NONE!r}: with one alone there is nothing to learn")
    distinct = Counter(one.label for one in seen.values())
    for label in counts:
        if distinct[label] < LEAST_EXAMPLES:
            many = f"{distinct[label]} different ones" if distinct[label] else "none"
            _refuse(f"{path}: {label}: expected at least {LEAST_EXAMPLES} examples, found {many}; add some")


def _refuse(what: str) -> NoReturn:
    raise ConfigError(f"{WHERE}: {what}", param=WHERE)


class Intents:
    """Says which class a text is of. Opened when made; of use when it has learned, which takes seconds.

    *threads* False: it learns in the event loop, as replay needs it.
    """

    def __init__(self, examples: tuple[Example, ...], *, threads: bool = True) -> None:
        # The same text twice would be held out and kept at once, and so make the model surer than it may be.
        self._examples = tuple({" ".join(one.text.casefold().split()): one for one in examples}.values())
        self._threads = threads
        self._model: IntentModel | None = None
        self._embedder: Embedder | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._again = 0.0

    @classmethod
    def open(cls, path: Path, classes: Collection[str], *, threads: bool = True) -> Intents:
        """Return those of the file at *path*, which have not learned yet. Raises `ConfigError`."""
        return cls(load_examples(path, classes), threads=threads)

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def model(self) -> IntentModel | None:
        """What was learned; None before."""
        return self._model

    @property
    def missing(self) -> str | None:
        """Why nothing can be said yet; None when it can."""
        if self._model is not None:
            return None
        return self._problem or "the intents are being learned"

    def begin(self, embedder: Embedder) -> None:
        """Learn beside what goes on, unless that is done, or under way, or was tried within the last half minute."""
        loop = asyncio.get_running_loop()
        if self._model is None and self._task is None and loop.time() >= self._again:
            self._again = loop.time() + _AGAIN_S
            self._task = loop.create_task(self._learn(embedder))

    async def prepare(self, embedder: Embedder) -> None:
        """Learn, unless that is done, and wait for it. That the embedder failed is said by `missing`."""
        self.begin(embedder)
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Stop learning."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def guess(self, text: str) -> Guess:
        """Return the class of *text*, as far as its vector tells. Raises `EmbedderError`."""
        if self._model is None or self._embedder is None:
            return Guess(None, self.missing, ())
        foreign = unreadable(self._embedder.id, text)
        if foreign is not None:
            return Guess(None, foreign, ())
        told, within = self._model.judge(await self._embedder.embed([text]))
        ranking = tuple(sorted(zip(self._model.classes, told[0].tolist(), strict=True), key=lambda one: -one[1]))
        if not within[0] and ranking[0][0] != NONE:
            return Guess(None, "unlike the examples", ranking)
        return Guess(ranking[0][0], None, ranking)

    async def _learn(self, embedder: Embedder) -> None:
        try:
            import numpy as np

            from negawatt.routing.intent_model import learn

            texts = [one.text for one in self._examples]
            rows = np.vstack([await embedder.embed(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)])
            classes = tuple(dict.fromkeys(one.label for one in self._examples))
            labels = np.array([classes.index(one.label) for one in self._examples])
            outside = classes.index(NONE) if NONE in classes else None
            if self._threads:
                model = await asyncio.to_thread(learn, rows, labels, classes, outside=outside)
            else:
                model = learn(rows, labels, classes, outside=outside)
            self._embedder, self._model, self._problem = embedder, model, None
            share = f"{model.accuracy:.0%} right when held out"
            log.info("intents: learned %d classes from %d examples; %s", len(classes), len(texts), share)
        except EmbedderError as error:
            self._problem = f"the embedder failed: {error.message}"
            log.warning("intents: not learned yet, rules alone classify: %s", error.message)
        finally:
            self._task = None
