"""Items of embeddings and of rerank through OpenAI's SDK, unmodified: a real provider, a real gateway, a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from speaking import Speaker
from world import Gateway, Json, until

MODEL = "all-1"
RERANKER = "all-bge-reranker-v2-m3"


def opened(folder: Path, speaker: Speaker) -> Gateway:
    """Start a gateway whose cache outlives it."""
    return Gateway(folder, {
        "holdout": {"share": 0.0},
        "cache": {"store": f"sqlite:///{folder / 'cache.sqlite'}"},
        "levers": {"item_cache": {"rerank_models": ["all-bge-*"]}, "retry": {"attempts": 1}},
        "economics": {"prices": str(folder / "prices.toml")},
        "providers": [{
            "name": "all", "kind": "openai-compatible", "base_url": speaker.base_url, "models": ["all-*"],
            "protocols": ["embeddings", "rerank"],
        }],
    })  # fmt: skip


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speaker]:
    one = Speaker(tmp_path_factory.mktemp("speaker"))
    yield one
    one.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    (folder / "prices.toml").write_text(
        f'[[price]]\nmodels = "{MODEL}"\ninput_usd_per_mtok = 10\noutput_usd_per_mtok = 0\n'
        'source = "made up"\nchecked = 2026-11-24\n',
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def gateway(folder: Path, speaker: Speaker) -> Iterator[Gateway]:
    one = opened(folder, speaker)
    yield one
    one.stop()


def client(gateway: Gateway, task: str) -> openai.OpenAI:
    """Return the SDK; the provider remembers the last request under its task's name."""
    headers = {"x-negawatt-task": task, "x-test-tag": task}
    return openai.OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0, default_headers=headers)


def vectors(texts: list[str]) -> list[list[float]]:
    """Return what the provider says of *texts*."""
    return [[float(len(text)), 0.5] for text in texts]


def embed(gateway: Gateway, task: str, texts: Any, **fields: Any) -> Any:
    """Return the SDK's answer; its user is whom the provider remembers the request for."""
    return client(gateway, task).embeddings.create(model=MODEL, input=texts, user=task, **fields)


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=["base64", "numbers"])
def test_a_batch_of_a_hundred_with_ninety_known_sends_ten(
    gateway: Gateway, speaker: Speaker, task: str, form: Json
) -> None:
    """In base64, as the SDK asks by default, and in numbers; the vectors are those of the whole batch."""
    texts = [f"{'numbers' if form else 'base64'} {i} {'x' * i}" for i in range(100)]
    embed(gateway, task, texts[10:], **form)
    answer = embed(gateway, task, texts, **form)
    assert [one.embedding for one in answer.data] == vectors(texts)
    assert [one.index for one in answer.data] == list(range(100))
    assert speaker.last(task)["body"]["input"] == texts[:10]
    rows = gateway.settled_rows(task, 2)
    assert [row["attempts"] for row in rows] == [1, 1] and rows[1]["input_tokens"] == 100
    assert answer.usage.prompt_tokens == 200  # what the ten used, and what the ninety had used
    assert rows[1]["baseline_input_tokens"] == 200
    assert rows[1]["cost_pusd"] * 2 == rows[1]["baseline_cost_pusd"]


def test_what_is_all_known_costs_nothing(gateway: Gateway, speaker: Speaker, task: str) -> None:
    """Every text from another batch; the row says that it was answered from the cache, and what that spared."""
    texts = ["known one", "known number two"]
    for text in texts:
        embed(gateway, task, text)
    raw = client(gateway, task).embeddings.with_raw_response.create(model=MODEL, input=texts, user=task)
    answer = raw.parse()
    assert [one.embedding for one in answer.data] == vectors(texts) and answer.usage.prompt_tokens == 200
    row = gateway.settled_rows(task, 3)[2]
    assert (row["ending"], row["cache"], row["attempts"], row["cost_pusd"]) == ("cached", "exact", 0, 0)
    assert row["baseline_input_tokens"] == 200 and row["baseline_cost_pusd"] == 2_000_000_000
    assert speaker.last(task)["body"]["input"] == texts[1]


def test_token_ids_are_items_too(gateway: Gateway, speaker: Speaker, task: str) -> None:
    """Lists of them, some known."""
    embed(gateway, task, [[1, 2, 3], [4]])
    answer = embed(gateway, task, [[4], [5, 6]])
    assert [one.embedding for one in answer.data] == [[1.0, 0.5], [2.0, 0.5]]
    assert speaker.last(task)["body"]["input"] == [[5, 6]]


def test_inputs_that_are_embedded_together_are_asked_together(gateway: Gateway, speaker: Speaker, task: str) -> None:
    """And kept as a whole, by the exact cache."""
    for texts in (["first late", "second late"], ["first late", "third late"], ["first late", "third late"]):
        embed(gateway, task, texts, extra_body={"late_chunking": True})
    assert speaker.last(task)["body"]["input"] == ["first late", "third late"]
    assert [row["cache"] for row in gateway.settled_rows(task, 3)] == ["miss", "miss", "exact"]


def test_documents_are_scored_once(gateway: Gateway, speaker: Speaker, task: str) -> None:
    """A reranker named in the configuration: the rest is asked, the ranking is of all, and cut as asked."""

    def rank(documents: list[str], **fields: Any) -> Json:
        body = {"model": RERANKER, "query": "q", "documents": documents, "user": task, **fields}
        found: Json = gateway.post(body, task, "/v1/rerank").json
        return found

    rank(["a", "b"], top_n=1)
    answer = rank(["c", "b", "a"], top_n=2)
    assert speaker.last(task)["body"]["documents"] == ["c"]
    # The provider gives 1/2 to the first document that it sees, 1/3 to the second.
    assert answer["results"] == [{"index": 0, "relevance_score": 0.5}, {"index": 2, "relevance_score": 0.5}]
    assert gateway.settled_rows(task, 2)[1]["attempts"] == 1


def test_items_are_there_after_a_restart(
    gateway: Gateway, speaker: Speaker, folder: Path, task: str, tmp_path: Path
) -> None:
    """They lie in the store, whole: another gateway over the same file answers from them."""

    def kept() -> bool:  # beside the answer, a moment later
        embed(gateway, task, ["kept one", "kept two"])
        return any(row["cache"] == "exact" for row in gateway.rows(task))

    until(kept)
    (tmp_path / "prices.toml").write_text((folder / "prices.toml").read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("cache.sqlite", "cache.sqlite-wal", "cache.sqlite-shm"):
        if (folder / name).exists():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    other = opened(tmp_path, speaker)
    try:
        answer = embed(other, task, ["kept two", "kept one"])
        assert [one.embedding for one in answer.data] == vectors(["kept two", "kept one"])
        assert other.one_row(task)["cache"] == "exact"
    finally:
        other.stop()
