"""Chat Completions: a whole answer and its chunks stand for each other, and a bad request is told which field."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.call import Request
from negawatt.errors import InvalidRequest
from negawatt.reply import Reply
from negawatt.wire.chat import CHAT, ChatFolder, complete, identity, sampled, usage_only, wants_usage

TEXT = st.text(max_size=40)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-1000, 1000), st.floats(-1e6, 1e6), TEXT)
JSON = st.recursive(
    SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)), max_leaves=8
)
# Fields that nobody has heard of: no name of our own, and no index, which has a meaning in lists.
UNKNOWN = st.dictionaries(
    st.text("abcdefgh", min_size=3, max_size=8).map(lambda name: f"x_{name}"),
    st.one_of(SCALAR, st.dictionaries(st.sampled_from(["a", "b"]), SCALAR, max_size=2)),
    max_size=2,
)
TOOL_CALL = st.fixed_dictionaries(
    {
        "id": st.uuids().map(str),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text("abc_", min_size=1), "arguments": TEXT}),
    }
)
CITATION = st.fixed_dictionaries(
    {
        "type": st.just("url_citation"),
        "url_citation": st.fixed_dictionaries({"url": TEXT, "start_index": st.integers(0, 9999)}),
    }
)
TOKEN = st.fixed_dictionaries(
    {"token": TEXT, "logprob": st.floats(-50, 0), "bytes": st.lists(st.integers(0, 255), max_size=3)}
)
LOGPROBS = st.one_of(st.none(), st.fixed_dictionaries({"content": st.lists(TOKEN, max_size=4), "refusal": st.none()}))
MESSAGE = st.builds(
    lambda required, optional, unknown: {**required, **optional, **unknown},
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.none() | TEXT, "refusal": st.none() | TEXT}),
    st.fixed_dictionaries(
        {},
        optional={
            "tool_calls": st.lists(TOOL_CALL, max_size=4),
            "annotations": st.lists(CITATION, max_size=3),
            "reasoning_content": TEXT,
            "reasoning": TEXT,
            "reasoning_details": st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=2),
            "audio": st.none() | st.fixed_dictionaries({"id": TEXT, "data": TEXT, "transcript": TEXT}),
        },
    ),
    UNKNOWN,
)
CHOICE = st.builds(
    lambda required, optional, unknown: {**required, **optional, **unknown},
    st.fixed_dictionaries(
        {"message": MESSAGE, "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter"])}
    ),
    st.fixed_dictionaries({}, optional={"logprobs": LOGPROBS}),
    UNKNOWN,
)
USAGE = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 10**6), "completion_tokens": st.integers(0, 10**6)},
    optional={
        "total_tokens": st.integers(0, 10**6),
        "prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": st.integers(0, 9)}),
        "cost": st.floats(0, 1),
    },
)
WHOLE = st.builds(
    lambda required, optional, unknown, choices: {
        **required,
        **optional,
        **unknown,
        "choices": [{"index": i, **choice} for i, choice in enumerate(choices)],
    },
    st.fixed_dictionaries(
        {"id": TEXT, "object": st.just("chat.completion"), "created": st.integers(0, 2**40), "model": TEXT}
    ),
    st.fixed_dictionaries(
        {}, optional={"system_fingerprint": st.none() | TEXT, "service_tier": st.none() | TEXT, "usage": USAGE}
    ),
    UNKNOWN,
    st.lists(CHOICE, min_size=1, max_size=3),
)


def fold(chunks: list[dict[str, Any]]) -> ChatFolder:
    folder = ChatFolder()
    for chunk in chunks:
        folder.add(chunk)
    return folder


@settings(max_examples=150, deadline=None)
@given(WHOLE)
def test_unfolding_and_folding_again_gives_the_same_answer(whole: dict[str, Any]):
    """Text, tool calls, choices, logprobs, refusals, reasoning, annotations, usage, what nobody knows: all of it."""
    before = orjson.dumps(whole)
    folder = fold(CHAT.unfold(whole))
    assert folder.result() == whole
    assert folder.faithful
    assert folder.complete
    assert orjson.dumps(whole) == before, "neither direction writes into the answer"
    assert Reply(CHAT, body=before).faithful


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def fragments(chunk: dict[str, Any], places: list[int]) -> list[dict[str, Any]]:
    """Return *chunk* in smaller ones: every text of its delta and all its logprobs come bit by bit."""
    if not chunk["choices"] or not chunk["choices"][0]["delta"]:
        return [chunk]
    choice = chunk["choices"][0]
    first, rest = dict(choice["delta"]), []
    for name in ("content", "refusal", "reasoning_content", "reasoning"):
        if isinstance(first.get(name), str):
            first[name], *others = cut(first[name], places)
            rest += [{name: other} for other in others]
    calls = []
    for call in first.get("tool_calls", ()):
        start, *others = cut(call["function"]["arguments"], places)
        calls.append({**call, "function": {**call["function"], "arguments": start}})
        rest += [{"tool_calls": [{"index": call["index"], "function": {"arguments": other}}]} for other in others]
    if "tool_calls" in first:
        first["tool_calls"] = calls
    rest.sort(key=lambda delta: list(delta))  # the parallel calls interleave; each stays in its own order
    head = {name: value for name, value in chunk.items() if name in ("id", "object", "created", "model")}
    told = [{**chunk, "choices": [{**choice, "delta": first}]}]
    for delta in rest:
        told.append({**head, "choices": [{"index": choice["index"], "delta": delta, "finish_reason": None}]})
    return told


@settings(max_examples=100, deadline=None)
@given(WHOLE, st.lists(st.integers(0, 1000), max_size=4))
def test_it_does_not_matter_how_an_answer_was_cut_into_chunks(whole: dict[str, Any], places: list[int]):
    """Content, reasoning and the arguments of parallel tool calls may come in any fragments."""
    chunks = [part for chunk in CHAT.unfold(whole) for part in fragments(chunk, places)]
    before = orjson.dumps(chunks)
    folder = fold(chunks)
    assert folder.result() == whole
    assert folder.faithful
    assert orjson.dumps(chunks) == before, "folding leaves the chunks alone: others may yet read them"


def test_logprobs_that_come_with_each_chunk_are_one_list():
    """As OpenAI streams them: one entry a chunk, null where there is none."""
    delta = [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {}]
    logprobs: list[Any] = [None, {"content": [{"token": "a"}]}, {"content": [{"token": "b"}]}, None]
    chunks = [
        {"id": "1", "choices": [{"index": 0, "delta": d, "logprobs": p, "finish_reason": "stop" if not d else None}]}
        for d, p in zip(delta, logprobs, strict=True)
    ]
    choice = fold(chunks).result()["choices"][0]
    assert choice["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}
    assert choice["message"] == {"role": "assistant", "content": "ab"}


def test_usage_that_is_repeated_is_cumulative():
    """Servers that send usage with every chunk mean the last one, and a null says nothing."""
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usages: list[Any] = [{"completion_tokens": 1}, {"completion_tokens": 2}, None]
    assert fold([{**end, "usage": usage} for usage in usages]).result()["usage"] == {"completion_tokens": 2}


def test_names_and_ids_that_are_repeated_are_not_joined():
    """Some servers send role, id and name with every fragment."""
    part = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    chunk = {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [part]}}]}
    message = fold([chunk, chunk]).result()["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert message["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{{"}},
    ]


def test_a_stream_without_its_finish_reasons_is_not_complete():
    """Every choice that was begun must have ended; an empty stream has not even begun."""
    begun = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert not fold([]).complete
    assert not fold([begun]).complete
    assert not fold([begun, end]).complete
    assert fold([begun, end, {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}]).complete


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(JSON.map(lambda value: {"choices": value}), JSON.map(lambda v: {"choices": [v]}), st.builds(
    lambda index, delta, reason: {"choices": [{"index": index, "delta": delta, "finish_reason": reason}]},
    st.one_of(st.integers(0, 2), JSON), st.one_of(JSON, JSON.map(lambda v: {"tool_calls": v, "content": v})), JSON,
)), max_size=4))  # fmt: skip
def test_garbage_never_stops_a_fold(chunks: list[dict[str, Any]]):
    """Whatever a provider sends, the fold goes on, and what it gives can be looked into and counted."""
    folder = fold(chunks)
    whole = folder.result()
    assert isinstance(CHAT.text_of(whole), str)
    assert CHAT.complete(whole) in (True, False)
    for chunk in chunks:
        assert CHAT.usage_only({**chunk, "usage": {"prompt_tokens": 1}}) in (True, False)


@settings(max_examples=200, deadline=None)
@given(st.one_of(JSON, st.lists(st.one_of(JSON, st.fixed_dictionaries({}, optional={
    "index": JSON, "message": st.one_of(JSON, st.dictionaries(st.sampled_from(["content", "tool_calls"]), JSON)),
    "finish_reason": JSON,
})), max_size=3)))  # fmt: skip
def test_a_strange_whole_answer_is_faithful_only_if_nothing_is_lost(choices: Any):
    """What cannot be unfolded without loss says so, and is never kept; it never raises."""
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    reply = Reply(CHAT, body=orjson.dumps(whole))
    CHAT.text_of(whole)
    CHAT.complete(whole)
    if reply.faithful:
        assert fold(CHAT.unfold(whole)).result() == reply.data


def test_an_answer_nested_too_deeply_is_unfaithful_not_fatal():
    """Recursion has an end; an answer that goes beyond it is passed on but not kept."""
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    folder = fold([{"choices": [{"index": 0, "delta": {"content": deep}, "finish_reason": "stop"}]}])
    assert not folder.faithful


def test_what_is_merged_is_not_written_into_the_chunk_it_came_from():
    """Two chunks with an unknown object at the top: the first one still says what it said."""
    first: dict[str, Any] = {"x_meta": {"a": "1"}, "choices": []}
    fold([first, {"x_meta": {"a": "2"}, "choices": []}])
    assert first == {"x_meta": {"a": "1"}, "choices": []}


def test_padding_is_not_part_of_the_answer():
    """OpenAI pads chunks with a field of random length; it is dropped."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": c}}], "obfuscation": c * 3} for c in "ab"]
    assert "obfuscation" not in fold(chunks).result()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"choices": [{"finish_reason": "stop"}]}, True),
        ({"choices": [{"finish_reason": "tool_calls"}, {"finish_reason": "stop"}]}, True),
        ({"choices": [{"finish_reason": "length"}]}, False),
        ({"choices": [{"finish_reason": "content_filter"}]}, False),
        ({"choices": [{"finish_reason": "stop"}, {"finish_reason": None}]}, False),
        ({"choices": [{"finish_reason": ["stop"]}]}, False),
        ({"choices": []}, False),
        ({"choices": "stop"}, False),
        ({}, False),
    ],
)
def test_an_answer_is_complete_when_every_choice_came_to_its_own_end(data: dict[str, Any], expected: bool):
    """Cut off by a limit or a filter is not complete."""
    assert complete(data) is expected


def test_the_chunk_with_the_usage_is_recognised():
    """The one that `include_usage` adds, and the empty choice that some servers put into it."""
    usage = {"prompt_tokens": 1}
    assert usage_only({"choices": [], "usage": usage})
    assert usage_only({"choices": [{}], "usage": usage})
    assert usage_only({"choices": [{"index": 0, "delta": {}}], "usage": usage})
    assert not usage_only({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage})
    assert not usage_only({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
    assert not usage_only({"choices": [], "usage": None})


GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        {"temperature": 0, "top_p": 1, "n": 2, "seed": -4, "stop": ["a"], "stream": True, "x_unknown": {"a": [1]}},
        {"temperature": None, "stop": None, "stream": None, "tools": None, "response_format": None},
    ],
)
def test_a_good_request_passes(fields: dict[str, Any]):
    """Unknown fields pass unseen, and null is as good as absent."""
    CHAT.check(Request(data={**GOOD, **fields}))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": 5}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": ["hello"]}, "messages[0]"),
    ({"messages": [{"role": "user"}, {"content": "a"}]}, "messages[1].role"),
    ({"messages": [{"role": 1, "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "tool_calls": {}}]}, "messages[0].tool_calls"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"temperature": "0"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"n": 0}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": 1000}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": "many"}, "max_completion_tokens"),
    ({"seed": "1"}, "seed"),
    ({"stop": 5}, "stop"),
    ({"tools": {}}, "tools"),
    ({"response_format": "json"}, "response_format"),
    ({"user": 5}, "user"),
    ({"metadata": []}, "metadata"),
]


@pytest.mark.parametrize(("fields", "where"), BAD, ids=[f"{where}={next(iter(f.values()))!r:.20}" for f, where in BAD])
def test_a_bad_request_is_told_which_field(fields: dict[str, Any], where: str):
    """The message begins with the path of the field, which is also the error's param."""
    with pytest.raises(InvalidRequest) as caught:
        CHAT.check(Request(data={**GOOD, **fields}))
    assert caught.value.param == where
    assert caught.value.message.startswith(f"{where}: ")
    assert "`" not in caught.value.message


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(name: str):
    """A required field that is not there at all."""
    with pytest.raises(InvalidRequest, match=f"{name}: this field is required") as caught:
        CHAT.check(Request(data={n: v for n, v in GOOD.items() if n != name}))
    assert caught.value.param == name


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"', b"null", b"\xff", b'{"a": NaN}'])
def test_a_body_that_is_no_object_is_refused(body: bytes):
    """Bad JSON and JSON of another kind are the caller's to mend."""
    with pytest.raises(InvalidRequest, match="the request body"):
        CHAT.check(Request(body))


@pytest.mark.parametrize(
    ("fields", "is_sampled"),
    [({}, False), ({"temperature": 0}, False), ({"temperature": 0.2}, True), ({"n": 1}, False), ({"n": 2}, True)],
)
def test_draws_are_known_by_temperature_and_number(fields: dict[str, Any], is_sampled: bool):
    """A temperature above 0, or several choices, ask for draws; silence does not."""
    assert sampled(Request(data={**GOOD, **fields})) is is_sampled


def test_usage_is_wanted_only_when_it_was_asked_for():
    """`include_usage` must be true, nothing less."""
    assert wants_usage(Request(data={**GOOD, "stream_options": {"include_usage": True}}))
    assert not wants_usage(Request(data={**GOOD, "stream_options": {"include_usage": 1}}))
    assert not wants_usage(Request(data={**GOOD, "stream_options": None}))
    assert not wants_usage(Request(data=GOOD))


def test_identity_leaves_the_request_alone():
    """It is a view of its own: making a key does not change what is sent on."""
    request = Request(data={**GOOD, "temperature": 1.0, "user": "u"})
    assert identity(request)["temperature"] == 1
    assert orjson.loads(request.body) == {**GOOD, "temperature": 1.0, "user": "u"}
