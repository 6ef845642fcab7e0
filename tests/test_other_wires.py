"""Completions, embeddings, rerank: what a valid request is, how an answer unfolds, what it used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.call import Request
from negawatt.economics.usage import Usage
from negawatt.economics.usage_dialects import chat_usage, messages_usage, responses_usage
from negawatt.errors import InvalidRequest
from negawatt.wire.chat import CHAT
from negawatt.wire.completions import COMPLETIONS
from negawatt.wire.embeddings import EMBEDDINGS
from negawatt.wire.messages import MESSAGES
from negawatt.wire.rerank import RERANK
from negawatt.wire.responses import RESPONSES
from negawatt.wire.wires import WIRES

TEXT = st.text(max_size=10)
LOGPROBS = st.fixed_dictionaries({
    "tokens": st.lists(TEXT, max_size=3), "token_logprobs": st.lists(st.floats(-9, 0), max_size=3),
    "top_logprobs": st.none() | st.lists(st.dictionaries(TEXT, st.floats(-9, 0), max_size=2), max_size=2),
    "text_offset": st.lists(st.integers(0, 99), max_size=3),
})  # fmt: skip
CHOICES = st.lists(st.tuples(TEXT, st.none() | LOGPROBS, st.sampled_from(["stop", "length"])), min_size=1, max_size=3)


def completion(choices: list[tuple[str, Any, str]], **fields: Any) -> dict[str, Any]:
    made = [
        {"text": text, "index": i, "logprobs": logprobs, "finish_reason": reason}
        for i, (text, logprobs, reason) in enumerate(choices)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": made, "usage": usage,
            **fields}  # fmt: skip


def folded(wire: Any, chunks: list[dict[str, Any]]) -> Any:
    folder = wire.folder()
    for chunk in chunks:
        folder.add(chunk)
    assert folder.complete and folder.faithful
    return folder.result()


@settings(max_examples=150, deadline=None)
@given(CHOICES)
def test_a_completion_unfolds_and_folds_to_itself(choices: list[tuple[str, Any, str]]):
    """Of any number of choices, with logprobs, and with fields that we do not know."""
    whole = completion(choices, x_new={"a": [1]})
    assert folded(COMPLETIONS, COMPLETIONS.unfold(whole)) == whole


@settings(max_examples=100, deadline=None)
@given(CHOICES, st.integers(1, 4))
def test_a_completion_in_pieces_is_the_same(choices: list[tuple[str, Any, str]], size: int):
    """However its text is cut, and its choices mixed."""
    whole = completion([(text, None, reason) for text, _, reason in choices])
    head = {name: whole[name] for name in ("id", "object", "created", "model")}
    chunks: list[dict[str, Any]] = []
    longest = max(len(text) for text, *_ in choices)
    for at in range(0, max(longest, 1), size):
        for i, (text, *_) in enumerate(choices):
            choice = {"text": text[at : at + size], "index": i, "logprobs": None, "finish_reason": None}
            chunks.append({**head, "choices": [choice]})
    for i, (*_, reason) in enumerate(choices):
        chunks.append({**head, "choices": [{"text": "", "index": i, "logprobs": None, "finish_reason": reason}]})
    chunks.append({**head, "choices": [], "usage": whole["usage"]})
    assert folded(COMPLETIONS, chunks) == whole


@pytest.mark.parametrize("name", ["embeddings", "rerank", "count_tokens"])
def test_what_is_never_streamed_is_one_chunk(name: str):
    """Whole and chunk are the same thing; a second one is not faithful."""
    wire, whole = WIRES[name], {"data": [1], "x": None}
    assert folded(wire, wire.unfold(whole)) == whole
    folder = wire.folder()
    for _ in range(2):
        folder.add(whole)
    assert not folder.faithful and not wire.streams


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (EMBEDDINGS, {"input": None}, "input"), (EMBEDDINGS, {"input": []}, "input"), (EMBEDDINGS, {"input": 5}, "input"),
    (EMBEDDINGS, {"input": ["a", 1]}, "input"), (EMBEDDINGS, {"input": [[]]}, "input"),
    (EMBEDDINGS, {"input": "a", "dimensions": 0}, "dimensions"), (EMBEDDINGS, {"model": "", "input": "a"}, "model"),
    (RERANK, {"query": "q"}, "documents"), (RERANK, {"query": "q", "documents": []}, "documents"),
    (RERANK, {"query": 1, "documents": ["a"]}, "query"),
    (RERANK, {"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
    (COMPLETIONS, {"prompt": {}}, "prompt"), (COMPLETIONS, {"prompt": "a", "n": 0}, "n"),
    (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "fields", "param"), BAD, ids=[f"{w.name} {p} {i}" for i, (w, _, p) in enumerate(BAD)])
def test_a_bad_request_is_refused_by_its_field(wire: Any, fields: dict[str, Any], param: str):
    """With a message that names it."""
    with pytest.raises(InvalidRequest) as caught:
        wire.check(Request(data={"model": "m", **fields}))
    assert caught.value.param == param


@pytest.mark.parametrize("given_", ["a", ["a", "b"], [1, 2], [[1, 2], [3]], [{"text": "a"}, {"image": "x"}]])
def test_every_form_of_input_is_taken_and_counted(given_: Any):
    """A text, texts, token ids, lists of them, objects."""
    request = Request(data={"model": "m", "input": given_})
    EMBEDDINGS.check(request)
    found = EMBEDDINGS.prompt(request)
    assert found.texts or found.tokens == (2 if given_ == [1, 2] else 3)
    COMPLETIONS.check(Request(data={"model": "m", "prompt": "a"}))
    assert COMPLETIONS.prompt(Request(data={"model": "m", "prompt": [1, 2]})).tokens == 2


def test_the_key_has_what_can_change_the_answer():
    """The form of the vectors too: it is what callers get."""
    one = Request(data={"model": "m", "input": "a", "user": "u", "encoding_format": "base64"})
    assert EMBEDDINGS.identity(one) == {"model": "m", "input": "a", "encoding_format": "base64"}
    assert EMBEDDINGS.deterministic(one) and RERANK.deterministic(one) and not EMBEDDINGS.sampled(one)
    best = Request(data={"model": "m", "prompt": "a", "best_of": 3})
    assert COMPLETIONS.sampled(best) and not COMPLETIONS.deterministic(best)


def test_what_was_used():
    """Input only; search units; nothing where nothing is said."""
    assert EMBEDDINGS.usage({"usage": {"prompt_tokens": 7, "total_tokens": 7}}) == Usage(
        input_tokens=7, output_tokens=0
    )
    units = RERANK.usage({"meta": {"billed_units": {"search_units": 2}}})
    assert units is not None and (units.search_units, units.total_tokens) == (2, 0)
    assert RERANK.usage({"usage": {"total_tokens": 9}}) == Usage(input_tokens=9, output_tokens=0)
    assert RERANK.usage({"results": []}) is None and EMBEDDINGS.usage({"usage": None}) is None


USAGES = st.builds(
    lambda fresh, output, read, write, hour, thought: Usage(
        input_tokens=fresh + read + write, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write,
        cache_write_1h_tokens=min(hour, write), reasoning_tokens=min(thought, output),
    ),
    st.integers(1, 10**6), st.integers(0, 10**6), *[st.integers(0, 10**5)] * 4,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(USAGES)
def test_a_usage_is_the_same_in_every_protocols_words(used: Usage):
    """Written and read back, as far as there are words: only Messages tells lifetimes apart."""
    plain = Usage(**{name: getattr(used, name) for name in ("input_tokens", "output_tokens", "cache_read_tokens",
                                                            "cache_write_tokens", "reasoning_tokens")})  # fmt: skip
    assert CHAT.usage({"usage": chat_usage(used)}) == plain
    assert RESPONSES.usage({"usage": responses_usage(used)}) == plain
    assert MESSAGES.usage({"type": "message", "stop_reason": "end_turn", "usage": messages_usage(used)}) == used
