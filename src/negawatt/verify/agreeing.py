"""Do several answers to one question say the same? Two that do are seldom wrong in the same way.

What an answer comes to is compared, by the first of these that says anything:

1. of JSON objects, the field ``answer``, ``final_answer`` or ``result`` where both have it, else all of them;
2. the same words;
3. the number behind ``####``, ``\\boxed{`` or the word "answer", where both have one;
4. of short answers, the number or the words in them;
5. the number in the last sentence of both;
6. with a learned embedder, whether they mean the same and no fact of one conflicts with the other.

Where none says anything, they do not agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from negawatt.errors import EmbedderError
from negawatt.recall.compare import digest_of
from negawatt.recall.guards import conflict, read
from negawatt.verify.agreement import agree, worked_answer
from negawatt.verify.groundedness import sentences
from negawatt.verify.verdict import Case, Verdict

if TYPE_CHECKING:
    from negawatt.embedders import Embedder

_SHORT = 80  # characters
_SAME = 0.9  # similarity from which two texts mean the same
_MOST_READ = 4000  # characters of a text that are compared by what they mean
_FIELDS = ("answer", "final_answer", "result")
_MARKED = re.compile(r"####|\\boxed\{|\banswers?\b(?:\s+(?:is|are))?\W{0,5}-?[$€£]?\d", re.IGNORECASE)


class AgreementVerifier:
    """Passes an answer that the others agree with: all of them, or a share of *least*. Its score is that share.

    *with_models*: who answers beside the model; without any, it is asked so often that there are *samples* answers.
    """

    kind = "agreement"

    def __init__(
        self, with_models: Sequence[str], samples: int, *, least: float | None = None, embedder: Embedder | None = None
    ) -> None:
        self.with_models = tuple(with_models)
        self.samples = samples
        self._least = 1.0 if least is None else least
        self._embedder = embedder if embedder is not None and embedder.learned else None

    async def __call__(self, case: Case) -> Verdict:
        if len(case.answers) != 1:
            return Verdict(False, 0.0, f"there are {len(case.answers)} texts to compare, not one", self.kind)
        if not case.others:
            return Verdict(False, 0.0, "there is no other answer to compare it with", self.kind)
        agreed = [await same(case.answers[0], other, self._embedder) for other in case.others]
        score = sum(agreed) / len(agreed)
        passed = score >= self._least
        reason = None if passed else f"{sum(agreed)} of {len(agreed)} other answers agree with it"
        return Verdict(passed, score, reason, self.kind)


async def same(one: str, other: str, embedder: Embedder | None = None) -> bool:
    """True when *one* and *other* come to the same."""
    a, b = _object(one), _object(other)
    if a is not None and b is not None:
        return _same_objects(a, b)
    if not one.strip() or not other.strip():
        return False
    if digest_of(one.casefold()) == digest_of(other.casefold()):
        return True
    texts = (one, other)
    if all(_MARKED.search(text) for text in texts):
        return agree([worked_answer(text) or "" for text in texts])
    if all(len(text.strip()) <= _SHORT for text in texts):
        return agree(texts)
    numbers = [worked_answer((sentences(text) or [""])[-1]) for text in texts]
    if all(numbers):
        return agree([number or "" for number in numbers])
    return embedder is not None and await _mean_the_same(one, other, embedder)


def _object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _same_objects(one: dict[str, Any], other: dict[str, Any]) -> bool:
    field = next((name for name in _FIELDS if name in one and name in other), None)
    if field is None:
        return one == other
    a, b = one[field], other[field]
    return a == b or (not isinstance(a, (dict, list)) and not isinstance(b, (dict, list)) and agree([str(a), str(b)]))


async def _mean_the_same(one: str, other: str, embedder: Embedder) -> bool:
    if conflict(read(one), read(other)) is not None:
        return False
    try:
        vectors = await embedder.embed([one[:_MOST_READ], other[:_MOST_READ]])
    except EmbedderError:
        return False
    return float(vectors[0] @ vectors[1]) >= _SAME
