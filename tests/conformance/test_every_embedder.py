"""What every embedder does: one row of length 1 for each text, the same in whatever company it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from embedding_server import DIMENSIONS, posting, serving
from small_bert import make_folder

from negawatt.embedders import Embedder
from negawatt.embedders.opening import open_embedder
from negawatt.embedders.weights import default_folder

KINDS = ["hashing", "small", "minilm", "openai", "tei"]
TEXTS = [
    "How do I reset the password?",
    "how do i reset the password",
    "Wie setze ich das Passwort zurück?",
    "パスワードを忘れました",
    "👍",
    "👎🏽 не работает",
    "a\0b\tc\nd",
    "half a character: \ud83d.",
    "x" * 300,
    "0",
]


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory) -> Path:
    pytest.importorskip("tokenizers")
    return make_folder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(params=[*KINDS, "small, in the event loop"])
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    """One of each kind, closed in the end."""
    kind, _, inline = request.param.partition(",")
    async with AsyncExitStack() as stack:
        post = None
        if kind == "hashing":
            url = "hashing:"
        elif kind == "minilm":
            if default_folder() is None:
                pytest.skip("the weights of MiniLM are not installed")
            url = "minilm:"
        elif kind == "small":
            pytest.importorskip("onnxruntime")
            url = f"minilm://{request.getfixturevalue('small_folder')}"
        else:
            host = await stack.enter_async_context(serving())
            post = await stack.enter_async_context(posting())
            url = {"openai": f"http://{host}/v1", "tei": f"tei+http://{host}"}[kind]
            url += f"?model=m&dimensions={DIMENSIONS}"
        opened = open_embedder(url, "recall.embedder", threads=not inline, post=post)
        stack.push_async_callback(opened.close)
        yield opened


async def test_one_row_of_length_one_for_each_text(embedder: Embedder):
    """Of 32 bits, as long as it says."""
    rows = await embedder.embed(TEXTS)
    assert rows.shape == (len(TEXTS), embedder.dimensions)
    assert rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6


async def test_no_text_no_row(embedder: Embedder):
    """The shape still says how long rows are."""
    assert (await embedder.embed([])).shape == (0, embedder.dimensions)


async def test_the_row_of_a_text_does_not_depend_on_the_others(embedder: Embedder):
    """The same bits alone, together, in another order, twice in one request, and of a fresh computation."""
    together = await embedder.embed(TEXTS)
    order = [7, 0, 0, 9, 3, 5, 1, 8, 2, 6, 4, 7]
    assert np.array_equal(await embedder.embed([TEXTS[i] for i in order]), together[order])
    for text, row in zip(TEXTS, together, strict=True):
        embedder._known.clear()
        assert np.array_equal((await embedder.embed([text]))[0], row)


async def test_other_texts_have_other_rows(embedder: Embedder):
    """A vector stands for its text: not even two emoji are taken for the same."""
    rows = await embedder.embed(["one apple", "nine pears", "7", "8", "?", "!"])
    cosines = rows @ rows.T - 2 * np.eye(len(rows))
    assert cosines.max() < 0.9999


async def test_empty_and_blank_texts_have_a_row(embedder: Embedder):
    """Nothing asked is no error."""
    rows = await embedder.embed(["", "   ", "\n"])
    assert np.isfinite(rows).all()
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6


async def test_a_book_has_a_row_soon(embedder: Embedder):
    """A megabyte of words, and one of a single word."""
    book = "the password is not in the book, " * 30_000
    async with asyncio.timeout(20):
        rows = await embedder.embed([book, "z" * 1_000_000])
    assert np.isfinite(rows).all()


async def test_callers_at_once_each_get_their_own(embedder: Embedder):
    """Forty callers, of whom some ask the same."""
    texts = [f"question {number % 25} about the password" for number in range(40)]
    answers = await asyncio.gather(*(embedder.embed([text, "the same of all"]) for text in texts))
    expected = await embedder.embed(texts)
    assert np.array_equal(np.concatenate([rows[:1] for rows in answers]), expected)
    assert all(np.array_equal(rows[1], answers[0][1]) for rows in answers)


async def test_a_caller_who_leaves_takes_nothing_from_the_others(embedder: Embedder):
    """Half of them are cancelled in the middle; the others get their rows, and so does who asks again."""
    texts = [f"question {number % 10} for the cancelled" for number in range(20)]
    tasks = [asyncio.ensure_future(embedder.embed([text])) for text in texts]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(rows.shape == (1, embedder.dimensions) for rows in done[1::2])
    again = await embedder.embed(texts)
    for number in range(1, 20, 2):
        assert np.array_equal(done[number][0], again[number])


async def test_a_caller_may_change_its_rows(embedder: Embedder):
    """What is remembered stays as it was."""
    rows = await embedder.embed(["the password"])
    kept = rows.copy()
    rows[:] = 0
    assert np.array_equal(await embedder.embed(["the password"]), kept)


async def test_it_says_what_it_is(embedder: Embedder):
    """Two embedders whose ids are the same make the same vectors; whether it is learned is known."""
    assert embedder.id
    assert embedder.dimensions > 0
    assert embedder.learned is not embedder.id.startswith("hashing")
