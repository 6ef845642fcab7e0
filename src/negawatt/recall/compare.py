"""Do two answers say the same? By their text, then by what it means and states, then by a judge."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from negawatt.errors import EmbedderError
from negawatt.recall.guards import conflict, read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from negawatt.embedders import Embedder

_SPACE = re.compile(r"\s+")
_MOST_READ = 4000  # characters of an answer that are compared by what they mean


class Comparison(NamedTuple):
    """*basis*: exact, embedding or judge."""

    wrong: bool
    basis: str


Judge = Callable[[str, str, str], Awaitable[bool | None]]  # question, one answer, other answer: the same?


def digest_of(text: str) -> bytes:
    """Return 16 bytes that are equal for answers with the same words, whatever the space between them."""
    return hashlib.sha256(_SPACE.sub(" ", text).strip().encode()).digest()[:16]


async def compare(  # noqa: PLR0913
    embedder: Embedder, question: str, one: str, other: str, *, same: float, different: float, judge: Judge | None
) -> Comparison | None:
    """Say whether *one* would have been a wrong answer where the model said *other*; None when it cannot be said.

    From similarity *same* on they say the same, if their facts agree; below *different*, or where facts conflict,
    they do not. What lies between is put to the *judge*; without one, or when it does not know, it counts as wrong.
    """
    if digest_of(one) == digest_of(other):
        return Comparison(False, "exact")
    try:
        vectors = await embedder.embed([one[:_MOST_READ], other[:_MOST_READ]])
    except EmbedderError:
        return None
    similarity = float(vectors[0] @ vectors[1])
    if similarity < different or conflict(read(one), read(other)) is not None:
        return Comparison(True, "embedding")
    if similarity >= same:
        return Comparison(False, "embedding")
    verdict = None if judge is None else await judge(question, one, other)
    return Comparison(True, "embedding") if verdict is None else Comparison(not verdict, "judge")


async def mark_of(
    embedder: Embedder, text: str, near: list[tuple[bytes, NDArray[np.float32], str]], *, same: float
) -> tuple[bytes, NDArray[np.float32] | None]:
    """Return the mark of the answer *text*, and its vector: the mark of one *near* that says the same, else its own.

    So answers in other words form a cluster, and neighbours with answers of one cluster agree.
    """
    own = digest_of(text)
    try:
        vector = (await embedder.embed([text[:_MOST_READ]]))[0]
    except EmbedderError:
        return own, None
    facts = read(text)
    for similarity, mark, said in sorted(((float(vector @ v), m, t) for m, v, t in near), reverse=True):
        if similarity >= same and conflict(facts, read(said)) is None:
            return mark, vector
    return own, vector
