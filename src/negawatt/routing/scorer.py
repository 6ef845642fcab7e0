"""A learned score of answers: how likely an answer of the small model is right, seen from question and answer.

The same model as the router's (`negawatt.routing.gain`), which sees more: the vectors of the question and of the
answer, and what can be checked of an answer without asking anybody (`negawatt.routing.answer_checks`). What it says is
worth a threshold, and so it needs a calibration on other cases than those that it has learned from: it remembers
which these were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from negawatt.errors import ConfigError, InputError
from negawatt.routing import gain_file
from negawatt.routing.answer_checks import answer_checks
from negawatt.routing.gain import Card, GainModel, cross_fitted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from negawatt.embedders import Embedder

RIGHT = "a right answer"  # what an answer is measured against: the second candidate of the model, never wrong
_AT_ONCE = 64  # texts that are embedded
_MOST_READ = 8_000  # characters of either text
_REMEDY = "fit it again with `negawatt eval --scorer`"


class Row(NamedTuple):
    """An answer to a question, and whether it was right."""

    question: str
    answer: str
    right: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model sees of rows."""

    questions: list[str]
    vectors: NDArray[np.float32]
    checks: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def outcomes(self) -> NDArray[np.float64]:
        """Success of the answer, and of a right one: shape (rows, 2)."""
        import numpy as np

        return np.column_stack([self.right, np.ones(len(self.right))])

    def held_out(self, seed: int) -> NDArray[np.float64]:
        """Return the score of each row by a model that has not seen it. Raises `InputError`."""
        found = cross_fitted(self.questions, self.vectors, self.outcomes, seed=seed, extra=self.checks)
        return found.success[:, 0]


async def sight(rows: Sequence[Row], embedder: Embedder) -> Seen:
    """Return what is seen of *rows*. Raises `EmbedderError`, and `InputError` where there are none."""
    import numpy as np

    if not rows:
        raise InputError("no answer was given and judged, so no score of answers can be learned")
    questions, answers = [row.question[:_MOST_READ] for row in rows], [row.answer[:_MOST_READ] for row in rows]
    vectors = [
        _both(await embedder.embed(questions[i : i + _AT_ONCE]), await embedder.embed(answers[i : i + _AT_ONCE]))
        for i in range(0, len(rows), _AT_ONCE)
    ]
    checks = np.array([answer_checks(q, a) for q, a in zip(questions, answers, strict=True)])
    return Seen(questions, np.concatenate(vectors), checks, np.array([row.right for row in rows], dtype=np.float64))


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Scores answers (`negawatt.verify.answer.Scorer`)."""

    model: GainModel
    known: frozenset[int]  # digests of the questions that it has learned from
    embedder: Embedder

    @classmethod
    def fit(cls, seen: Seen, embedder: Embedder, *, name: str, seed: int) -> AnswerScorer:
        """Learn from *seen*, of which *embedder* made the vectors; *name*: whose answers they are.

        Raises `InputError` for fewer than 50 rows, and where all are right, or all wrong.
        """
        card = Card(embedder=embedder.id, candidates=(name, RIGHT))
        model = GainModel.fit(
            seen.questions, seen.vectors, seen.outcomes, seed=seed, card=card, extra=seen.checks
        )  # fmt: skip
        return cls(model, frozenset(digest(question) for question in seen.questions), embedder)

    @classmethod
    def load(cls, path: Path, where: str, embedder: Embedder | None) -> AnswerScorer:
        """Return the score in *path*. Raises `ConfigError`, which names *where*, the file and the remedy."""
        if embedder is None:
            raise ConfigError(f"{where}: a score of answers needs an embedder", param=where)
        model, beside = gain_file.load_with(path, where)
        if model.card.candidates[1:] != (RIGHT,) or "known" not in beside:
            raise ConfigError(f"{where}: {path}: it is a router, and no score of answers; {_REMEDY}", param=where)
        if model.card.embedder != embedder.id:
            what = f"it was fitted on vectors of {model.card.embedder}, and {embedder.id} is configured"
            raise ConfigError(f"{where}: {path}: {what}; {_REMEDY}", param=where)
        return cls(model, frozenset(beside["known"].astype(int).tolist()), embedder)

    def save(self, path: Path) -> None:
        """Write it to *path*: the whole file, or the one that was there before stays."""
        import numpy as np

        gain_file.save(self.model, path, {"known": np.array(sorted(self.known), np.float64)})

    async def __call__(self, question: str, answer: str) -> float:
        """Return the chance that *answer* is right. Raises `EmbedderError`."""
        import numpy as np

        question, answer = question[:_MOST_READ], answer[:_MOST_READ]
        vectors = await self.embedder.embed([question, answer])
        checks = np.array([answer_checks(question, answer)])
        found = self.model.predict([question], _both(vectors[:1], vectors[1:]), checks)
        return float(found.success[0, 0])


def known_in(path: Path, where: str) -> frozenset[int]:
    """Return the digests of the questions that the score in *path* has learned from. Raises `ConfigError`."""
    beside = gain_file.load_with(path, where)[1]
    return frozenset(beside["known"].astype(int).tolist()) if "known" in beside else frozenset()


def digest(question: str) -> int:
    """Return 52 bits of a digest of *question*, whatever its white space: what a float holds exactly."""
    return int.from_bytes(hashlib.sha256(" ".join(question.split()).encode()).digest()[:8], "big") >> 12


def _both(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length 1 that hold the rows of both."""
    import numpy as np

    both: NDArray[np.float32] = np.concatenate([one, other], axis=1, dtype=np.float32) / np.float32(2**0.5)
    return both
