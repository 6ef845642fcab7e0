"""Intents are learned from examples: what is like them gets their class, what is like none of them gets none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import virtual

from negawatt.embedders.batching import Batching
from negawatt.embedders.hashing import Hashing
from negawatt.errors import ConfigError, EmbedderError
from negawatt.routing.intent_model import learn
from negawatt.routing.intents import Example, Intents, load_examples

FILE = """
[examples]
refund = ["I want my money back", "refund my order please", "where is my refund", "money back for my order", "refund"]
hours = ["when are you open", "hours on sunday", "are you open today", "what are your opening hours", "open now"]
"""


def write(folder: Path, text: str, name: str = "intents.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def clouds(centres: Sequence[int], each: int, *, spread: float = 0.12, seed: int = 0) -> tuple[Any, Any]:
    """Return unit vectors around some of 16 axes, and the place of each one's axis among *centres*."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(centres)), each)
    rows = rng.normal(0, spread, (len(labels), 16)).astype(np.float32)
    rows[np.arange(len(labels)), np.array(centres)[labels]] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def test_the_same_examples_come_from_each_format(tmp_path: Path):
    """TOML for a few, CSV and JSONL for many; default need not be a class of the configuration."""
    rows = [("I want my money back", "refund"), ("open\nnow", "hours"), ("a joke", "default")] * 5
    table: dict[str, list[str]] = {}
    for i, (text, label) in enumerate(rows):
        table.setdefault(label, []).append(f"{text} {i}")
    flat = [(text, label) for label, texts in table.items() for text in texts]
    toml = "[examples]\n" + "\n".join(f"{label} = {texts!r}" for label, texts in table.items()).replace("'", '"')
    csv = "class,text,note\n" + "".join(f'{label},"{text}",x\n' for text, label in flat)
    lines = "".join(f'{{"text": {text!r}, "class": "{label}"}}\n'.replace("'", '"') for text, label in flat)
    files = [write(tmp_path, toml), write(tmp_path, csv, "a.csv"), write(tmp_path, f"\n{lines}", "a.jsonl")]
    found = [{(one.text, one.label) for one in load_examples(path, {"refund", "hours"})} for path in files]
    assert found[0] == found[1] == found[2] == set(flat)


MANY = ", ".join(f'"text {i}"' for i in range(5))
BAD = [
    ("intents.toml", "[examples]\nrefund = [" + MANY + "]", "all examples are of 'refund'; give some of another class"),
    ("intents.toml", "[examples]", "there are no examples"),
    (
        "intents.toml",
        FILE.replace("hours =", "hors ="),
        "examples.hors[0]: no class is named 'hors'; add it to [classes]",
    ),
    ("intents.toml", FILE.replace(', "open now"', ""), "hours: expected at least 5 examples, found 4"),
    (
        "intents.toml",
        FILE.replace('"open now"', '"Are  you open TODAY"'),
        "hours: expected at least 5 examples, found 4",
    ),
    ("intents.toml", FILE.replace('"open now"', '" "'), "examples.hours[4]: the text is empty; take it out"),
    ("intents.toml", FILE.replace('"open now"', "3"), "examples.hours[4]: the text is empty"),
    ("intents.toml", FILE.replace('"open now"', '"Refund"'), "(examples.refund[4]) and 'hours' (examples.hours[4])"),
    ("intents.toml", FILE + "[other]", "expected one table, [examples]"),
    ("intents.toml", "[examples]\nrefund = 3", "examples.refund: expected a list of texts"),
    ("intents.toml", "[examples", "not valid TOML"),
    ("intents.csv", "text,label\na,b", "the columns text and class"),
    ("intents.csv", "text,class\na", "line 2: the class is missing"),
    ("intents.csv", "", "the columns text and class"),
    ("intents.jsonl", '{"text": "a"}', "line 1: expected an object with the fields text and class"),
    ("intents.jsonl", "\n{", "line 2: not valid JSON"),
    ("intents.yaml", "", "expected a file that ends in .toml, .csv, .jsonl"),
]


@pytest.mark.parametrize(("name", "text", "said"), BAD, ids=[said[:50] for _, _, said in BAD])
def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, name: str, text: str, said: str):
    """With the file, the entry and the remedy."""
    path = write(tmp_path, text, name)
    with pytest.raises(ConfigError) as caught:
        load_examples(path, {"refund", "hours"})
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert caught.value.param == "levers.classify.intents"


def test_the_example_of_the_documentation_can_be_learned_from(tmp_path: Path):
    """As it stands there."""
    page = (Path(__file__).parent.parent / "docs" / "levers" / "classify.md").read_text(encoding="utf-8")
    shown = page.partition("```toml\n[examples]")[2].partition("```")[0]
    found = load_examples(write(tmp_path, f"[examples]{shown}"), {"support", "billing"})
    assert {one.label for one in found} == {"support", "billing", "default"}


def test_a_file_that_is_not_there_is_named():
    """As every other file of the configuration."""
    with pytest.raises(ConfigError, match=r"levers\.classify\.intents: none\.toml: cannot be read"):
        load_examples(Path("none.toml"), set())


def test_new_vectors_get_the_class_of_those_they_are_like():
    """And a probability that is about right."""
    rows, labels = clouds([0, 1, 2], 20)
    model = learn(rows, labels, ("a", "b", "c"), outside=None)
    asked, truth = clouds([0, 1, 2], 200, seed=1)
    told, within = model.judge(asked)
    right = told.argmax(axis=1) == truth
    assert right.mean() > 0.98 and model.accuracy > 0.95
    assert abs(told.max(axis=1).mean() - right.mean()) < 0.05
    assert np.allclose(told.sum(axis=1), 1, atol=1e-4)
    assert 0.9 < within.mean() < 1


def test_what_is_like_no_class_is_out_of_scope():
    """Around other axes nearly everything is seen to be so, without any example of it."""
    rows, labels = clouds([0, 1, 2], 20)
    model = learn(rows, labels, ("a", "b", "c"), outside=None)
    _, within = model.judge(clouds([7, 8, 9], 100, seed=1)[0])
    assert within.mean() < 0.05


def test_classes_that_overlap_are_said_with_doubt():
    """Where half of the labels are wrong, no probability is near 1: temperature and penalty see to it."""
    rows, labels = clouds([0, 1], 60)
    rng = np.random.default_rng(3)
    labels = np.where(rng.random(len(labels)) < 0.5, labels, 1 - labels)
    told, _ = learn(rows, labels, ("a", "b"), outside=None).judge(clouds([0, 1], 200, seed=1)[0])
    assert 0.5 <= told.max(axis=1).mean() < 0.7


def test_a_few_that_were_all_right_make_nothing_certain():
    """Of ten examples held out none was wrong: the eleventh may be."""
    rows, labels = clouds([0, 1], 5, spread=0.01)
    told, _ = learn(rows, labels, ("a", "b"), outside=None).judge(clouds([0, 1], 50, spread=0.01, seed=1)[0])
    assert told.max(axis=1).min() > 0.8 and told.max(axis=1).max() < 0.99


def test_a_row_is_judged_by_itself():
    """Whatever others are asked beside it."""
    rows, labels = clouds([0, 1, 2], 20)
    model = learn(rows, labels, ("a", "b", "c"), outside=None)
    asked = clouds([0, 1, 2, 5], 5, seed=2)[0]
    together, within = model.judge(asked)
    alone = [model.judge(asked[i : i + 1]) for i in range(len(asked))]
    assert np.allclose(together, np.vstack([told for told, _ in alone]), atol=1e-5)
    assert [bool(one) for one in within] == [bool(one[0]) for _, one in alone]


class Failing:
    """An embedder that works when it is told to."""

    id, learned = "hashing-384", False

    def __init__(self) -> None:
        self.model = Hashing()
        self.dimensions = self.model.dimensions
        self.works = False
        self.asked = 0

    async def embed(self, texts: Sequence[str]) -> Any:
        self.asked += 1
        if not self.works:
            raise EmbedderError("out of order")
        return self.model.embed(texts)

    async def close(self) -> None:
        """Nothing is open."""


@virtual
async def test_intents_are_of_use_when_they_have_learned(tmp_path: Path):
    """Before, they say so; after, the class with the ranking; and a second preparing is nothing."""
    intents = Intents.open(write(tmp_path, FILE), {"refund", "hours"}, threads=False)
    assert len(intents) == 10 and intents.missing == "the intents are being learned"
    assert await intents.guess("refund") == (None, "the intents are being learned", ())
    embedder = Batching(Hashing(), threads=False)
    await intents.prepare(embedder)
    model = intents.model
    await intents.prepare(embedder)
    assert model is not None and intents.model is model and intents.missing is None
    guess = await intents.guess("money back for my order please")
    assert guess.label == "refund" and guess.reason is None
    assert [name for name, _ in guess.ranking] == ["refund", "hours"]
    assert sum(chance for _, chance in guess.ranking) == pytest.approx(1, abs=1e-4)
    assert (await intents.guess("цветок растёт")).label is None
    await intents.close()
    await embedder.close()


@virtual
async def test_an_embedder_that_fails_is_asked_again_later(tmp_path: Path):
    """Not at each call; and the reason is there meanwhile."""
    intents, embedder = Intents.open(write(tmp_path, FILE), {"refund", "hours"}, threads=False), Failing()
    await intents.prepare(embedder)
    assert intents.missing == "the embedder failed: out of order"
    embedder.works = True
    await intents.prepare(embedder)
    assert embedder.asked == 1
    await asyncio.sleep(30)
    await intents.prepare(embedder)
    assert intents.missing is None


async def _learned_in_a_thread(path: Path) -> None:
    intents, embedder = Intents.open(path, {"refund", "hours"}), Batching(Hashing())
    try:
        intents.begin(embedder)
        assert intents.missing is not None
        await intents.prepare(embedder)
        assert intents.missing is None
    finally:
        await intents.close()
        await embedder.close()


def test_learning_goes_on_beside_the_loop(tmp_path: Path):
    """In a thread, and it can be waited for."""
    asyncio.run(_learned_in_a_thread(write(tmp_path, FILE)))


@virtual
async def test_learning_can_be_stopped(tmp_path: Path):
    """Closing does not wait for what hangs."""

    class Hanging(Failing):
        async def embed(self, texts: Sequence[str]) -> Any:
            await asyncio.Event().wait()

    intents = Intents.open(write(tmp_path, FILE), {"refund", "hours"}, threads=False)
    intents.begin(Hanging())
    await asyncio.sleep(1)
    await intents.close()
    assert intents.model is None


def test_equal_texts_count_once():
    """Else they would be held out and kept at once."""
    twice = tuple(Example(text, "a", "") for text in ("Hello", "hello ", "other"))
    assert len(Intents(twice)) == 2
