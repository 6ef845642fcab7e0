"""Answers that consist of items: what may be taken apart, how it is put together, and whose share is whose."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.call import Request
from negawatt.economics.usage import Usage
from negawatt.recall.kept_items import Found, KeptItem, divided, shares, total_usage
from negawatt.wire.items import EmbeddingItems, RerankItems, items_of, with_tokens

EMBED, RERANK = EmbeddingItems(), RerankItems()
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def embedding(given_: Any = "a", **fields: Any) -> Request:
    return Request(data={"model": "text-embedding-3-small", "input": given_, **fields})


def rerank(documents: Any = ("a", "b"), **fields: Any) -> Request:
    return Request(data={"model": "rerank-v3.5", "query": "q", "documents": list(documents), **fields})


def vectors(*given_: Any, **fields: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(given_)]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}, **fields}


# -- what may be taken apart -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "model", "apart"),
    [
        ({}, "text-embedding-3-small", True),
        ({"late_chunking": False}, "jina-embeddings-v3", True),
        ({"late_chunking": None}, "jina-embeddings-v3", True),
        ({"late_chunking": True}, "jina-embeddings-v3", False),
        ({"late_chunking": "yes"}, "jina-embeddings-v3", False),
        ({"enable_auto_chunk": True}, "voyage-3.5", False),
        ({}, "voyage-context-3", False),
        ({}, "Voyage/voyage-context-4", False),
        ({"input": [{"text": "a"}, {"image": "b"}]}, "jina-clip-v2", False),
        ({"input": [1, 2]}, "m", True),
        ({"encoding_format": "base64"}, "m", True),
    ],
)
def test_inputs_that_are_embedded_together_stay_together(fields: dict[str, Any], model: str, apart: bool):
    """Late chunking, models that read the neighbours, and objects, which may make one vector together."""
    assert (EMBED.objection(embedding(**{"given_": fields.pop("input", "a"), **fields}), model) is None) is apart


@pytest.mark.parametrize(
    ("model", "apart"),
    [
        ("rerank-v3.5", True), ("rerank-v4.0-pro", True), ("rerank-english-v3.0", True), ("cohere.rerank-v3-5:0", True),
        ("rerank-2.5-lite", True), ("voyage/rerank-2", True), ("jina-reranker-v2-base-multilingual", True),
        ("BAAI/bge-reranker-v2-m3", True), ("Qwen/Qwen3-Reranker-0.6B", True),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", True), ("jina-reranker-v3", False), ("jinaai/jina-reranker-v3", False),
        ("rank-zephyr-7b", False), ("gpt-4o", False), ("somebodys-reranker", False), ("rerank-9", False),
    ],
)  # fmt: skip
def test_only_models_known_to_score_each_document_alone_are_taken_apart(model: str, apart: bool):
    """A listwise reranker's score depends on the other documents; what is not known counts as such."""
    assert (RERANK.objection(rerank(), model) is None) is apart


def test_the_user_may_name_rerankers_of_their_own():
    """By the name that callers use, or the provider's."""
    mine = items_of(["somebodys-*"])["rerank"]
    assert mine.objection(rerank(), "Somebodys-reranker") is None
    assert mine.objection(rerank(model="somebodys-best"), "x") is None
    assert mine.objection(rerank(), "x") == "it is not known whether this model scores each document by itself"
    assert mine.objection(rerank(), "jina-reranker-v3") == "this model scores the documents together"


# -- taking apart ----------------------------------------------------------------------------------------------------


def test_the_same_item_has_the_same_bytes_however_it_comes():
    """A text alone and in a list; token ids alone and in a list; objects with their keys in another order."""
    one = EMBED.split(embedding("a"))
    assert one == EMBED.split(embedding(["a"])) == EMBED.split(embedding(["a"], user="u"))
    assert EMBED.split(embedding([1, 2])) == EMBED.split(embedding([[1, 2]]))
    assert EMBED.split(embedding(["[1,2]"])).items != EMBED.split(embedding([[1, 2]])).items
    first = RERANK.split(rerank([{"text": "a", "title": "t"}])).items
    assert first == RERANK.split(rerank([{"title": "t", "text": "a"}])).items


@pytest.mark.parametrize("fields", [{"dimensions": 8}, {"encoding_format": "base64"}, {"model": "n"}, {"task": "x"}])
def test_what_all_items_share_tells_them_apart(fields: dict[str, Any]):
    """Whatever field it is, known to us or not."""
    assert EMBED.split(embedding("a")).shared != EMBED.split(embedding("a", **fields)).shared


def test_a_rerankers_cut_is_not_part_of_what_is_shared():
    """The score of a document does not depend on how many are wanted; it does on the query."""
    assert RERANK.split(rerank()) == RERANK.split(rerank(top_n=1)) == RERANK.split(rerank(top_k=3))
    assert RERANK.split(rerank()).shared != RERANK.split(rerank(query="p")).shared
    assert RERANK.split(rerank()).shared != RERANK.split(rerank(return_documents=True)).shared


def test_a_narrowed_request_asks_for_the_rest():
    """Everything else stays as it was; a reranker is asked for all scores, in the words of the caller."""
    request = embedding(["a", "b", "c"], dimensions=3)
    assert EMBED.narrowed(request, [0, 2]).data == {**request.data, "input": ["a", "c"]}
    assert EMBED.narrowed(request, [0, 1, 2]) is request
    single = embedding("a")
    assert EMBED.narrowed(single, [0]) is single
    cut = rerank(["a", "b", "c"], top_n=1)
    assert RERANK.narrowed(cut, [1, 2]).data == {**cut.data, "documents": ["b", "c"], "top_n": 2}
    assert RERANK.narrowed(cut, [0, 1, 2]).data == {**cut.data, "top_n": 3}
    plain = rerank(["a", "b"])
    assert RERANK.narrowed(plain, [0, 1]) is plain and "top_n" not in RERANK.narrowed(plain, [1]).data
    assert EMBED.prompt(embedding([[1, 2], [3]]), 0).tokens == 2
    assert RERANK.prompt(cut, 1).texts == ["q", "b"]


# -- what an answer says ---------------------------------------------------------------------------------------------

WRONG: dict[str, Any] = {
    "one too few": vectors([1.0]),
    "one too many": vectors([1.0], [2.0], [3.0]),
    "one twice": {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
    "an index beyond": {"data": [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}]},
    "a negative index": {"data": [{"index": 0, "embedding": [1.0]}, {"index": -1, "embedding": [1.0]}]},
    "an index that is true": {"data": [{"index": 0, "embedding": [1.0]}, {"index": True, "embedding": [1.0]}]},
    "an index in words": {"data": [{"index": "0", "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]},
    "a vector that is null": vectors([1.0], None),
    "an empty vector": vectors([1.0], []),
    "an empty text": vectors("AAAA", ""),
    "a vector of words": vectors(["a"], ["b"]),
    "vectors of two lengths": vectors([1.0], [1.0, 2.0]),
    "numbers and base64": vectors([1.0], "AAAA"),
    "an entry that is none": {"data": [{"index": 0, "embedding": [1.0]}, None]},
    "no list": {"data": {"0": [1.0]}},
    "nothing": {},
    "null": {"data": None},
    "an error": {**vectors([1.0], [2.0]), "error": {"message": "half of it failed"}},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_of_another_form_is_not_taken(name: str):
    """Nothing is guessed: it is passed on whole, or not at all."""
    assert EMBED.take(WRONG[name], 2) is None


def test_entries_are_taken_by_their_index():
    """Whatever their order; where none is given, the order is the order."""
    answer = {"data": [{"index": 1, "embedding": [2.0], "x": 1}, {"index": 0, "embedding": [1.0]}]}
    assert EMBED.take(answer, 2) == [{"embedding": [1.0]}, {"embedding": [2.0], "x": 1}]
    unsaid = {"data": [{"embedding": [1.0]}, {"index": 1, "embedding": [2.0]}]}  # zeros that somebody left out
    assert EMBED.take(unsaid, 2) == [{"embedding": [1.0]}, {"embedding": [2.0]}]
    several = vectors([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]])  # several vectors for one text
    assert EMBED.take(several, 2) is not None


@pytest.mark.parametrize(
    "answer",
    [
        {"results": [{"index": 0, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"relevance_score": 0.4}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": None}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": "0.4"}]},
        {"results": [{"index": 0, "relevance_score": True}, {"index": 1, "relevance_score": 0.1}]},
        {"results": None, "data": []},
        {},
    ],
)
def test_a_rerank_answer_without_an_index_or_a_score_is_not_taken(answer: dict[str, Any]):
    """Its order is that of relevance: a missing index cannot be guessed."""
    assert RERANK.take(answer, 2) is None


def test_what_was_counted_together_is_not_kept_with_an_item():
    """Neither the tokens of the batch, nor its price, nor Cohere's search units."""
    whole = vectors([1.0], id="e-1", usage={"prompt_tokens": 9, "total_tokens": 9, "cost": 0.1})
    assert EMBED.frame(whole) == {**whole, "data": None, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "tokens": {"input_tokens": 4}}
    assert RERANK.frame({"id": "r", "results": [1], "meta": meta}) == {
        "id": "r", "results": None, "meta": {"api_version": {"version": "2"}}
    }  # fmt: skip
    assert EMBED.frame({"data": [1], "usage": None, "meta": None}) == {"data": None, "usage": None, "meta": None}
    assert with_tokens({"usage": {"total_tokens": 3, "x": 1}}, 4) == {"usage": {"total_tokens": 7, "x": 1}}
    assert with_tokens({"usage": None}, 4) == {"usage": None}


# -- putting together ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_an_embeddings_answer_taken_apart_and_put_together_is_the_same(given_: list[list[float]], rng: Any):
    """Value for value, in whatever order it came."""
    whole = vectors(*given_, id="e-1")
    mixed = {**whole, "data": rng.sample(whole["data"], len(given_))}
    taken = EMBED.take(mixed, len(given_))
    assert taken is not None
    assert EMBED.merge(embedding(["x"] * len(given_)), taken, whole) == whole


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.none() | st.integers(1, 8),
    st.sampled_from(["results", "data"]),
)
def test_a_rerank_answer_is_sorted_and_cut_as_its_caller_asked(scores: list[float], top: int | None, name: str):
    """Best first, equal ones in the order of the documents, under the name that the provider has for the list."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    results = [{"index": i, "relevance_score": scores[i], "document": {"text": str(i)}} for i in order]
    request = rerank([str(i) for i in range(len(scores))], top_n=top)
    taken = RERANK.take({name: results}, len(scores))
    assert taken is not None
    merged = RERANK.merge(request, taken, RERANK.frame({name: results, "id": "r"}))
    assert merged == {name: results[:top], "id": "r"}


# -- shares ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(0, 10**6))
def test_the_shares_of_a_batch_sum_to_its_tokens(total: int, weights: list[int], read: int):
    """Exactly, whatever the weights; none is negative, and none is further than a token from its proportion."""
    parts = divided(total, weights)
    assert sum(parts) == total and min(parts) >= 0
    if any(weights):
        assert all(abs(part - total * weight / sum(weights)) < 1 for part, weight in zip(parts, weights, strict=True))
    usage = Usage(input_tokens=total, output_tokens=0, cache_read_tokens=min(read, total))
    split = [one for one in shares(usage, weights) if one is not None]
    assert sum(one.input_tokens for one in split) == total
    assert sum(one.cache_read_tokens for one in split) == usage.cache_read_tokens
    assert all(one.cache_read_tokens <= one.input_tokens for one in split)
    assert {one.basis for one in split} == ({"measured"} if len(weights) == 1 else {"estimated"})


def test_what_cannot_be_attributed_has_no_share():
    """Search units are of a request; no usage is no usage. A price is divided as its tokens are."""
    assert shares(None, [1, 2]) == [None, None]
    assert shares(Usage(input_tokens=0, output_tokens=0, search_units=1), [1, 2]) == [None, None]
    known, own = Usage(input_tokens=4, output_tokens=0), Usage(input_tokens=3, output_tokens=0, tier="batch")
    entry = KeptItem("embeddings", b"{}", b"{}", 1.0, "m", "p", known, None)
    found = [Found(entry, {}, {}), Found(msgspec.structs.replace(entry, usage=own), {}, {})]
    assert total_usage(found) == known + own and total_usage(found[:1]) is known and total_usage([]) is None
    assert total_usage([*found, Found(msgspec.structs.replace(entry, usage=None), {}, {})]) is None
    paid = shares(Usage(input_tokens=4, output_tokens=0, cost_usd=Decimal("0.4")), [1, 3])
    assert [one and one.cost_usd for one in paid] == [Decimal("0.1"), Decimal("0.3")]
