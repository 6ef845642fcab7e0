"""Do two answers say the same? The order of the judgements, and what each may decide."""

from __future__ import annotations

import numpy as np
import pytest
from recalls import Angles, Down

from negawatt.recall.compare import compare, digest_of, mark_of


class Judge:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, word: bool | None) -> None:
        self.word = word
        self.asked: list[tuple[str, str, str]] = []

    async def __call__(self, question: str, one: str, other: str) -> bool | None:
        self.asked.append((question, one, other))
        return self.word


SAME, DIFFERENT = 0.9, 0.75  # 25.8 and 41.4 degrees


async def said(one: str, other: str, judge: Judge | None = None, **degrees: float) -> tuple[bool, str] | None:
    return await compare(Angles(**degrees), "why?", one, other, same=SAME, different=DIFFERENT, judge=judge)


async def test_the_same_words_are_the_same_answer():
    """Whatever the space between them, and without asking anybody."""
    embedder = Angles()
    found = await compare(embedder, "q", "a  b\n", " a b", same=SAME, different=DIFFERENT, judge=Judge(False))
    assert found == (False, "exact")
    assert embedder.asked == []


@pytest.mark.parametrize(
    ("apart", "word", "wrong", "basis", "judged"),
    [
        (10, None, False, "embedding", False), (25, None, False, "embedding", False),
        (30, None, True, "embedding", True), (30, True, False, "judge", True), (30, False, True, "judge", True),
        (40, True, False, "judge", True), (43, True, True, "embedding", False), (90, True, True, "embedding", False),
    ],
)  # fmt: skip
async def test_the_judge_is_asked_only_about_what_lies_between(
    apart: float, word: bool | None, wrong: bool, basis: str, judged: bool
):
    """Near answers are right, distant ones wrong; between them the judge, and its silence counts as wrong."""
    judge = Judge(word)
    assert await said("here", "there", judge, here=0, there=apart) == (wrong, basis)
    assert judge.asked == ([("why?", "here", "there")] if judged else [])


async def test_without_a_judge_what_lies_between_is_wrong():
    """Doubt is not in favour of the cache."""
    assert await said("here", "there", here=0, there=30) == (True, "embedding")


@pytest.mark.parametrize(
    ("one", "other"),
    [("a fee of $5", "a fee of $6"), ("a card works", "a card does not work"), ("a day in May", "a day in June")],
)
async def test_answers_whose_facts_conflict_are_wrong(one: str, other: str):
    """However near to each other they lie, and no judge is asked."""
    judge = Judge(True)
    assert await said(one, other, judge, a=0) == (True, "embedding")
    assert judge.asked == []


async def test_an_embedder_that_is_down_decides_nothing():
    """Nobody can say, so nothing is learned."""
    assert await compare(Down(), "q", "a", "b", same=SAME, different=DIFFERENT, judge=Judge(True)) is None


async def test_of_long_answers_the_beginning_is_compared():
    """The embedder gets 4,000 characters of each, not a book."""
    embedder = Angles(long=0)
    long = "long " * 2_000
    await compare(embedder, "q", long + "a", long + "b", same=SAME, different=DIFFERENT, judge=None)
    assert [len(text) for text in embedder.asked] == [4_000, 4_000]


async def marked(text: str, near: dict[str, float], **degrees: float) -> bytes:
    """Return the mark of *text* among answers *near*, each marked by its first word."""
    vectors = await Angles(**{one.split()[0]: degrees for one, degrees in near.items()}).embed(list(near))
    known = [(one.encode(), vector, one) for one, vector in zip(near, vectors, strict=True)]
    return (await mark_of(Angles(**degrees), text, known, same=SAME))[0]


async def test_an_answer_joins_the_nearest_that_says_the_same():
    """So that neighbours whose answers differ in words only agree; else it has a mark of its own."""
    assert await marked("new", {"far": 24, "near": 5}, new=0) == b"near"
    assert await marked("new", {"far": 60}, new=0) == digest_of("new")
    assert await marked("new", {}, new=0) == digest_of("new")


async def test_an_answer_with_other_facts_joins_no_cluster():
    """Near in words, another number: a mark of its own, or that of one farther that agrees."""
    assert await marked("fee of 5 euros", {"fee of 6 euros": 0}, fee=0) == digest_of("fee of 5 euros")
    near = {"fee of 6 euros": 0, "fees of 5 euros": 9}
    assert await marked("fee of 5 euros", near, fee=0) == b"fees of 5 euros"


async def test_without_an_embedder_the_mark_is_that_of_the_words():
    """And there is no vector to compare the next ones with."""
    vector = np.array([1, 0], np.float32)
    assert await mark_of(Down(), "a", [(b"m", vector, "a b")], same=SAME) == (digest_of("a"), None)
