"""Curated answers: questions that people have answered once and for all, in a file that a team maintains.

[[answer]]
id = "opening-hours"
questions = ["When are you open?", "What are your opening hours?"]
answer = "Monday to Friday, 9 to 17."
tenants = ["acme"]              # only they get it; without it, everybody does
classes = ["faq"]               # only for these; without it, for every class in which the semantic cache is on
permissions = ["staff"]         # only callers with exactly these permissions
corpus_version = "2026-11"      # only calls that name this version
until = 2027-01-01              # not from this day on
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
from msgspec import Meta

from negawatt.call import Call
from negawatt.config import convert
from negawatt.errors import ConfigError
from negawatt.keys import permissions_digest
from negawatt.recall.guards import Reading, conflict, read
from negawatt.recall.readable import unreadable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from negawatt.embedders import Embedder

_BATCH = 64
_LOOKED_AT = 3  # questions whose facts are compared
# Two curated questions so near to each other that the embedding cannot tell which of them was meant: a comma moves a
# text farther.
TIE = 0.001

Text = Annotated[str, Meta(min_length=1, max_length=20_000)]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the file."""

    id: Annotated[str, Meta(min_length=1, max_length=100)]
    questions: Annotated[tuple[Text, ...], Meta(min_length=1)]
    answer: Text
    tenants: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    permissions: tuple[str, ...] | None = None
    corpus_version: str | None = None
    until: datetime.date | None = None

    def is_for(self, call: Call, today: datetime.date) -> bool:
        """True when *call* is within the scope that the entry was written for."""
        scope = call.scope
        return (
            (self.tenants is None or scope.tenant in self.tenants)
            and (self.classes is None or call.request_class in self.classes)
            and (self.permissions is None or scope.permissions in _digests(self.permissions))
            and (self.corpus_version is None or scope.corpus_version == self.corpus_version)
            and (self.until is None or today < self.until)
        )


def _digests(permissions: tuple[str, ...]) -> tuple[str, str]:
    """Return how a scope writes *permissions*: as those of a key, and as those that a caller's header names."""
    digest = permissions_digest(permissions)
    return digest, f"+{digest}"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    answer: tuple[Answer, ...] = ()


class Match(NamedTuple):
    """A curated answer that may be given. *similarity* is that of the nearest of its questions."""

    entry: Answer
    similarity: float


def load_curated(path: Path) -> tuple[Answer, ...]:
    """Return the entries of the file at *path*. Raises `ConfigError`, which names the file, the entry and the field."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"recall.curated: {path}: cannot be read: {error.strerror}", param="recall.curated"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", param="recall.curated") from error
    entries = convert(data, _File, str(path)).answer
    for i, entry in enumerate(entries):
        if entry.id in {one.id for one in entries[:i]}:
            raise ConfigError(f"{path}: answer[{i}].id: {entry.id!r} is there twice", param="recall.curated")
    return entries


class Curated:
    """Finds the curated answer to a question, or none where it is in doubt.

    The rule is fixed: the nearest question that is in scope is similar enough, its facts agree, and no other answer
    whose facts agree is as near. Nothing is learned here, for there is nobody to ask: the team's word is the truth.
    """

    def __init__(self, entries: Sequence[Answer], similarity: float) -> None:
        self._entries = tuple(entries)
        self._similarity = similarity
        self._owners = [i for i, entry in enumerate(self._entries) for _ in entry.questions]
        self._questions = [question for entry in self._entries for question in entry.questions]
        self._readings: list[Reading] = []
        self._vectors: NDArray[np.float32] | None = None
        self._embedder_id = ""

    def __len__(self) -> int:
        return len(self._entries)

    async def prepare(self, embedder: Embedder) -> None:
        """Embed all questions, unless that is done. Raises `EmbedderError`."""
        import numpy as np

        if self._vectors is not None:
            return
        rows = [await embedder.embed(self._questions[i : i + _BATCH]) for i in range(0, len(self._questions), _BATCH)]
        self._vectors = np.vstack(rows) if rows else np.zeros((0, embedder.dimensions), np.float32)
        self._readings = [read(question) for question in self._questions]
        self._embedder_id = embedder.id

    def find(self, call: Call, text: str, vector: NDArray[np.float32], now: float) -> tuple[Match | None, str | None]:
        """Return the answer to *text*, or why none is given, if any is near; (None, None) when none is."""
        import numpy as np

        if self._vectors is None or not self._entries or unreadable(self._embedder_id, text) is not None:
            return None, None
        today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
        allowed = np.array([entry.is_for(call, today) for entry in self._entries])[self._owners]
        similarities = np.where(allowed, self._vectors @ vector, -1.0)
        order = [int(i) for i in np.argsort(-similarities, kind="stable")[: _LOOKED_AT + 1]]
        facts, doubt = read(text), None
        for place, best in enumerate(order[:_LOOKED_AT]):
            nearest, entry = float(similarities[best]), self._entries[self._owners[best]]
            if nearest < self._similarity:
                break
            wrong = conflict(facts, self._readings[best])
            if wrong is not None:
                doubt = doubt or f"{entry.id}: {wrong} differ"
                continue
            for other in order[place + 1 :]:
                near = self._owners[other] != self._owners[best] and nearest - float(similarities[other]) < TIE
                if near and conflict(facts, self._readings[other]) is None:
                    return None, f"{entry.id} and {self._entries[self._owners[other]].id} tie"
            return Match(entry, nearest), None
        return None, doubt
