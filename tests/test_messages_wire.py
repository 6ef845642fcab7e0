"""Anthropic Messages: a whole answer and its events stand for each other, and every token is found where it is told."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.call import Request
from negawatt.economics.tokens import estimate_request_tokens, estimate_tokens
from negawatt.errors import CircuitOpen, InvalidRequest, ModelNotFound, RateLimited, UpstreamBroken, UpstreamTimeout
from negawatt.protocol import Contract
from negawatt.reply import Chunk, Reply
from negawatt.wire.messages import MESSAGES, answers, closing, complete, contract, identity, last, prompt, text_of
from negawatt.wire.messages_folder import INVALID_JSON, MessagesFolder, unfold
from negawatt.wire.sse import EventParser

TEXT = st.text(max_size=40)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-1000, 1000), st.floats(-1e6, 1e6), TEXT)
JSON = st.recursive(
    SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)), max_leaves=8
)
UNKNOWN = st.dictionaries(st.text("abcdefgh", min_size=3, max_size=8).map(lambda n: f"x_{n}"), JSON, max_size=2)


def objects(
    required: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with these fields, and some that nobody has heard of."""
    fixed = st.fixed_dictionaries(required, optional=optional or {})
    return st.builds(lambda known, unknown: {**known, **unknown}, fixed, UNKNOWN)


CITATION = objects({"type": st.just("char_location"), "cited_text": TEXT, "document_index": st.integers(0, 9)})
INPUT = st.dictionaries(TEXT, JSON, max_size=3)
TEXT_BLOCK = objects({"type": st.just("text"), "text": TEXT}, {"citations": st.none() | st.lists(CITATION, max_size=3)})
TOOL_BLOCK = objects(
    {
        "type": st.sampled_from(["tool_use", "server_tool_use", "mcp_tool_use"]),
        "id": st.uuids().map(lambda u: f"toolu_{u}"),
        "name": TEXT,
        "input": INPUT,
    },
    {"caller": st.none() | st.just({"type": "direct"})},
)
BLOCK = st.one_of(
    TEXT_BLOCK,
    TOOL_BLOCK,
    objects({"type": st.just("thinking"), "thinking": TEXT, "signature": TEXT}),
    objects({"type": st.just("redacted_thinking"), "data": TEXT}),
    objects({"type": st.just("compaction"), "content": st.none() | TEXT}, {"encrypted_content": st.none() | TEXT}),
    objects({"type": st.just("web_search_tool_result"), "tool_use_id": TEXT, "content": JSON}),
    objects({"type": st.just("fallback"), "from": st.just({"model": "a"}), "to": st.just({"model": "m-1"})}),
    objects({"type": st.just("nobody_knows"), "index": st.integers(0, 3), "text": JSON, "input": JSON}),
)
COUNT = st.none() | st.integers(0, 10**6)
USAGE = objects(
    {"input_tokens": COUNT, "output_tokens": COUNT},
    {
        "cache_read_input_tokens": COUNT,
        "cache_creation_input_tokens": COUNT,
        "cache_creation": st.none() | st.just({"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}),
        "server_tool_use": st.none() | st.just({"web_search_requests": 1}),
        "output_tokens_details": st.none() | st.just({"thinking_tokens": 1}),
        "iterations": st.none() | st.just([{"type": "message", "input_tokens": 1, "output_tokens": 2}]),
        "service_tier": st.none() | st.sampled_from(["standard", "priority", "batch"]),
    },
)
WHOLE = objects(
    {
        "id": TEXT,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": st.just("m-1"),
        "content": st.lists(BLOCK, max_size=4),
        "stop_reason": st.none() | st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal"]),
        "stop_sequence": st.none() | TEXT,
    },
    {
        "usage": st.none() | USAGE,
        "container": st.none() | st.just({"id": "container_1"}),
        "stop_details": st.none() | st.just({"type": "refusal", "category": None}),
        "context_management": st.none() | st.just({"applied_edits": []}),
    },
)


def fold(events: list[dict[str, Any]]) -> MessagesFolder:
    folder = MESSAGES.folder()
    for event in events:
        folder.add(event)
    assert isinstance(folder, MessagesFolder)
    return folder


@settings(max_examples=150, deadline=None)
@given(WHOLE)
def test_unfolding_and_folding_again_gives_the_same_answer(whole: dict[str, Any]):
    """Every kind of block, citations, signatures, usage, nulls, what nobody knows: all of it."""
    before = orjson.dumps(whole)
    events = unfold(whole)
    folder = fold(events)
    assert folder.result() == whole
    assert folder.faithful
    assert folder.complete
    assert orjson.dumps(whole) == before, "neither direction writes into the answer"
    assert Reply(MESSAGES, body=before).faithful
    assert [last(event) for event in events].count(True) == 1


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def fragments(event: dict[str, Any], places: list[int]) -> list[dict[str, Any]]:
    """Return *event* in smaller ones, as the API sends texts and inputs."""
    delta = event.get("delta", {})
    for name in ("text", "thinking", "partial_json"):
        if isinstance(delta.get(name), str):
            return [{**event, "delta": {**delta, name: part}} for part in cut(delta[name], places)]
    return [event]


def interleaved(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *events* with all blocks begun first, and their deltas in turns."""
    parts = [e for e in events if "index" in e]
    starts = [e for e in parts if e["type"] == "content_block_start"]
    stops = [e for e in parts if e["type"] == "content_block_stop"]
    each = [[e for e in parts if e["index"] == i and "delta" in e] for i in range(len(starts))]
    deltas = [e for row in itertools.zip_longest(*each) for e in row if e is not None]
    return [events[0], *starts, {"type": "ping"}, *deltas, *stops, *events[-2:]]


@settings(max_examples=100, deadline=None)
@given(WHOLE, st.lists(st.integers(0, 1000), max_size=4))
def test_it_does_not_matter_how_an_answer_was_cut_into_events(whole: dict[str, Any], places: list[int]):
    """Texts and the inputs of parallel tool calls may come in any fragments, in turns."""
    events = interleaved([part for event in unfold(whole) for part in fragments(event, places)])
    before = orjson.dumps(events)
    folder = fold(events)
    assert folder.result() == whole
    assert folder.faithful
    assert orjson.dumps(events) == before, "folding leaves the events alone: others may yet read them"


# A stream as the API sends it, with thinking, two tool calls and usage at both ends.
STREAM: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 25,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40},
                "output_tokens": 1,
                "service_tier": "standard",
            },
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    },
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "see.", "estimated_tokens": 50},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Grüße, "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "世界 🌍"}},
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "hello"}},
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    },
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city": "Mün'}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": 'chen"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"input_tokens": 25, "output_tokens": 89},
        "context_management": {"applied_edits": []},
    },
    {"type": "message_stop"},
]
WHOLE_OF_STREAM = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {
            "type": "text",
            "text": "Grüße, 世界 🌍",
            "citations": [{"type": "char_location", "cited_text": "hello"}],
        },
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "München"}},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 25,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40},
        "output_tokens": 89,
        "service_tier": "standard",
    },
    "context_management": {"applied_edits": []},
}


def test_a_stream_as_the_api_sends_it_folds_into_the_answer_as_the_api_sends_it():
    """Thinking with its signature, text with a citation, two parallel tool calls, one without input."""
    folder = fold(STREAM)
    assert folder.result() == WHOLE_OF_STREAM
    assert folder.faithful
    assert folder.complete
    assert folder.result() == WHOLE_OF_STREAM, "it may be asked again"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_it_does_not_matter_where_the_network_cuts_a_stream(places: list[int], line_end: bytes):
    """CRLF, characters and lines cut anywhere, comments in between: the same answer."""
    body = b": hello\n\n" + MESSAGES.frame([Chunk(data=event) for event in STREAM])
    body = body.replace(b"\n", line_end)
    edges = [0, *sorted({place % len(body) for place in places}), len(body)]
    parser = EventParser()
    events = [event for a, b in itertools.pairwise(edges) for event in parser.feed(body[a:b])] + parser.end()
    folder = fold([orjson.loads(event) for event in events])
    assert folder.result() == WHOLE_OF_STREAM
    assert folder.faithful


def test_events_are_named_after_their_type():
    """The Anthropic SDK skips events without a name."""
    framed = MESSAGES.frame([Chunk(data=event) for event in STREAM[-2:]])
    assert framed.startswith(b'event: message_delta\ndata: {"type":"message_delta"')
    assert framed.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert MESSAGES.end == b""


def test_fields_that_nobody_knows_survive_wherever_they_are_told():
    """On the message, with why it ended, beside that, and on the last event, where one cloud tells its own counts."""
    start = {**START, "message": {**START["message"], "x_start": [{"index": 0}, {"index": 0}]}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "x_delta": 1}, "x_beside": {"a": None}}
    folder = fold([start, end, {"type": "message_stop", "x_metrics": {"inputTokenCount": 1}}])
    assert folder.result() == {
        **start["message"],
        "stop_reason": "end_turn",
        "x_delta": 1,
        "x_beside": {"a": None},
        "x_metrics": {"inputTokenCount": 1},
    }
    assert folder.faithful
    assert folder.complete


# -- usage -----------------------------------------------------------------------------------------------------


def test_usage_comes_from_both_ends_of_the_stream():
    """Input with what the cache took and gave from the start, output from the end; nothing is added up."""
    used = MESSAGES.usage(fold(STREAM).result())
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.basis) == (175, 89, "measured")
    assert (used.cache_read_tokens, used.cache_write_tokens, used.cache_write_1h_tokens) == (100, 50, 40)


START: dict[str, Any] = {"type": "message_start", "message": {"type": "message", "role": "assistant", "content": []}}


def answer_with(begun: dict[str, Any] | None, *ends: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fold of a stream that tells this usage at its start, and these afterwards."""
    start = {**START, "message": {**START["message"], **({} if begun is None else {"usage": begun})}}
    deltas = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage} for usage in ends]
    return fold([start, *deltas, {"type": "message_stop"}]).result()


@pytest.mark.parametrize(
    ("begun", "ends", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 5}, [], (7, 5, "measured")),
        (None, [{"input_tokens": 7, "output_tokens": 5}], (7, 5, "measured")),
        ({"input_tokens": 7, "output_tokens": 1}, [{"output_tokens": 5}], (7, 5, "measured")),
        ({"input_tokens": 0, "output_tokens": 0}, [{"input_tokens": 7, "output_tokens": 5}], (7, 5, "measured")),
        ({"input_tokens": 7, "output_tokens": 1}, [{"input_tokens": 0, "output_tokens": 5}], (7, 5, "measured")),
        ({"input_tokens": 7, "output_tokens": 1}, [{"input_tokens": None, "output_tokens": 5}], (7, 5, "measured")),
        ({"input_tokens": 7}, [{"output_tokens": 2}, {"output_tokens": 4}, {"output_tokens": 5}], (7, 5, "measured")),
        ({"input_tokens": 7, "cache_read_input_tokens": 3}, [{"output_tokens": 5}], (10, 5, "measured")),
        ({"input_tokens": "7", "output_tokens": "1"}, [{"output_tokens": "5"}], (7, 5, "measured")),
        (None, [{"output_tokens": 5}], (0, 5, "partial")),
        ({"input_tokens": 7}, [None], (7, 0, "partial")),
    ],
)
def test_usage_is_found_wherever_it_is_told(begun: Any, ends: Any, expected: tuple[int, int, str]):
    """At the start, at the end, at both, repeated: the later count holds, and one that falls to zero is none."""
    if not ends:
        ends = [None]
        begun = {**begun}
    used = MESSAGES.usage(answer_with(begun, *ends))
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.basis) == expected


@pytest.mark.parametrize(
    "usage", [None, [], "many", {}, {"input_tokens": None}, {"input_tokens": 0, "output_tokens": 0}]
)
def test_usage_that_says_nothing_is_none(usage: Any):
    """Never zeros: whoever asks estimates then."""
    assert MESSAGES.usage({**WHOLE_OF_STREAM, "usage": usage}) is None


def test_compactions_are_billed_beside_what_the_sums_say():
    """The API leaves them out of its totals; they are of the same model."""
    usage = {
        "input_tokens": 23_000,
        "output_tokens": 1_000,
        "iterations": [
            {"type": "compaction", "input_tokens": 100, "cache_read_input_tokens": 179_900, "output_tokens": 3_500},
            {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
        ],
    }
    used = MESSAGES.usage({**WHOLE_OF_STREAM, "usage": usage})
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.cache_read_tokens) == (203_000, 4_500, 179_900)
    assert used.basis == "measured"


def test_advice_from_another_model_makes_the_count_a_lower_bound():
    """Its tokens are not in the sums, and have another price."""
    iterations = [{"type": "advisor_message", "model": "m", "input_tokens": 5, "output_tokens": 5}]
    used = MESSAGES.usage({**WHOLE_OF_STREAM, "usage": {**WHOLE_OF_STREAM["usage"], "iterations": iterations}})
    assert used is not None
    assert (used.output_tokens, used.basis) == (89, "partial")


@pytest.mark.parametrize("length", range(len(STREAM) + 1))
def test_a_stream_that_breaks_off_anywhere_is_counted_as_far_as_it_came(length: int):
    """Input as measured at the start, output from what came, and the basis says so."""
    folder = fold(STREAM[:length])
    data = folder.result()
    used = MESSAGES.usage(data)
    if length == 0:
        assert used is None
        return
    assert used is not None
    assert used.input_tokens == 175
    if length > STREAM.index(STREAM[-2]):
        assert (used.output_tokens, used.basis) == (89, "measured")
    else:
        assert used.basis == "estimated"
        assert used.output_tokens == max(1, estimate_tokens(text_of(data)))
    assert folder.complete == (length >= len(STREAM) - 1), "the last event may be left out, the one before may not"


@settings(max_examples=100, deadline=None)
@given(WHOLE, st.integers(0, 200))
def test_cutting_a_stream_never_raises_and_never_counts_nothing_for_something(whole: dict[str, Any], place: int):
    """At every place: a result, a text, a usage that keeps the laws; measured only if the end had been told."""
    events = unfold(whole)
    part = events[: place % (len(events) + 1)]
    data = fold(part).result()
    text_of(data)
    answers(data)
    complete(data)
    used = MESSAGES.usage(data)
    if used is None:
        return
    assert used.cache_read_tokens + used.cache_write_tokens <= used.input_tokens
    assert used.reasoning_tokens <= used.output_tokens
    if not data.get("stop_reason"):
        assert used.basis != "measured"
        assert used.output_tokens >= estimate_tokens(text_of(data))


def test_a_stream_equals_its_whole_to_the_token():
    """The same answer, asked for as a stream or not, costs the same."""
    assert MESSAGES.usage(fold(unfold(WHOLE_OF_STREAM)).result()) == MESSAGES.usage(WHOLE_OF_STREAM)


# -- what goes wrong -------------------------------------------------------------------------------------------


def test_an_error_in_mid_stream_is_found_and_ends_it():
    """It is not an answer any more, and what came before is still there to be counted."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    folder = fold([*STREAM[:9], error])
    assert MESSAGES.error_of(error) == "Overloaded"
    assert not folder.complete
    assert not folder.faithful
    data = folder.result()
    assert MESSAGES.error_of(data) == "Overloaded"
    assert "Grüße" in text_of(data)
    assert not complete(data)


def test_an_error_in_place_of_an_answer_is_one_event():
    """Whole or streamed it says the same."""
    error = {"type": "error", "error": {"type": "api_error", "message": "no"}, "request_id": "req_1"}
    assert unfold(error) == [error]
    assert fold([error]).result() == error
    assert not Reply(MESSAGES, body=orjson.dumps(error)).faithful
    assert MESSAGES.error_of(WHOLE_OF_STREAM) is None


@pytest.mark.parametrize("left_out", [{"message_stop"}, {"content_block_stop"}])
def test_servers_may_leave_out_the_ends(left_out: set[str]):
    """Without the last event an answer is whole if it said why it ended; with it, blocks need no ends of their own."""
    folder = fold([event for event in STREAM if event["type"] not in left_out])
    assert folder.complete
    assert folder.faithful
    assert folder.result() == WHOLE_OF_STREAM


def test_without_both_ends_a_stream_is_not_complete():
    """An open block at the end of the connection may have been cut off."""
    assert not fold([e for e in STREAM if e["type"] not in ("message_stop", "content_block_stop")]).complete
    assert not fold([]).complete
    assert not fold([{"type": "message_stop"}]).complete


def tool_call(*parts: str, begun: Any = None) -> MessagesFolder:
    """Return the fold of a tool call whose input comes in these parts."""
    block = {"type": "tool_use", "id": "1", "name": "f", "input": {} if begun is None else begun}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": p}}
        for p in parts
    ]
    stop = {"type": "content_block_stop", "index": 0}
    return fold([START, {"type": "content_block_start", "index": 0, "content_block": block}, *deltas, stop])


def test_input_that_is_no_json_is_kept_but_not_trusted():
    """As Anthropic's documentation tells clients to pass it on: as text in an object."""
    folder = tool_call('{"a": ', "tru")
    assert not folder.faithful
    assert folder.result()["content"][0]["input"] == {INVALID_JSON: '{"a": tru'}
    assert text_of(folder.result()) == 'f{"a": tru'


def test_input_may_come_whole_with_the_start_of_its_block():
    """Some servers, and the API for tools of its own; said twice it must be the same."""
    assert tool_call(begun={"a": 1}).result()["content"][0]["input"] == {"a": 1}
    assert tool_call("", begun={"a": 1}).faithful
    assert tool_call('{"a": 1}', begun={"a": 1}).faithful
    assert not tool_call('{"a": 2}', begun={"a": 1}).faithful
    assert tool_call('{"a": 2}', begun={"a": 1}).result()["content"][0]["input"] == {"a": 2}


def test_a_model_that_takes_over_gives_the_answer_its_name():
    """A whole answer bears the name of the last model; the stream tells it with a block of its own."""
    block = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
    start = {**START, "message": {**START["message"], "model": "a"}}
    folder = fold([start, {"type": "content_block_start", "index": 0, "content_block": block}])
    assert folder.result()["model"] == "b"
    assert folder.faithful


TEXT_DELTA = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": ""}}
STRANGE: list[tuple[str, dict[str, Any]]] = [
    ("a kind of event that nobody knows", {"type": "content_block_flip", "index": 1}),
    ("a kind of delta that nobody knows", {**TEXT_DELTA, "delta": {"type": "x_delta", "text": "a"}}),
    ("no type", {"index": 1}),
    ("nulls", {"type": "content_block_delta", "index": None, "delta": None}),
    ("a type that is a list", {"type": ["message_stop"]}),
    ("text that is a number", {**TEXT_DELTA, "delta": {"type": "text_delta", "text": 5}}),
    ("a field of a delta", {**TEXT_DELTA, "delta": {"type": "text_delta", "text": "", "x": 1}}),
    ("a field of an event", {**TEXT_DELTA, "x": 1}),
    ("a delta for a block that was never begun", {**TEXT_DELTA, "index": 9}),
    ("the end of a block that was never begun", {"type": "content_block_stop", "index": 9}),
    ("a block that is begun twice", {"type": "content_block_start", "index": 2, "content_block": {"type": "text"}}),
    ("a block that is a list", {"type": "content_block_start", "index": 2, "content_block": ["text"]}),
    ("a message that is begun twice", START),
]


@pytest.mark.parametrize(("name", "event"), STRANGE, ids=[name for name, _ in STRANGE])
def test_what_the_protocol_does_not_know_is_never_kept(name: str, event: dict[str, Any]):
    """The stream goes on, and its fold says that it is not to be trusted; nothing that could be read is lost."""
    folder = fold([*STREAM[:10], event, *STREAM[10:]])
    assert not folder.faithful, name
    assert folder.complete
    assert folder.result()["content"][1]["text"] == "Grüße, 世界 🌍"


def test_text_for_a_block_that_was_never_begun_is_counted():
    """It was generated, and will be billed."""
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
    folder = fold([START, delta, delta])
    assert text_of(folder.result()) == "hellohello"
    assert not folder.faithful


EVENT = st.one_of(
    JSON.map(lambda value: {"type": value}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from([event["type"] for event in STREAM]) | st.just("error"),
            "index": st.integers(0, 2) | JSON,
        },
        optional={
            "message": JSON | st.fixed_dictionaries({"content": JSON, "usage": JSON}),
            "content_block": JSON
            | st.fixed_dictionaries({"type": st.sampled_from(["text", "tool_use", "fallback"])}, optional={"to": JSON}),
            "delta": JSON
            | st.fixed_dictionaries(
                {"type": st.sampled_from(["text_delta", "input_json_delta", "signature_delta", "citations_delta"])},
                optional={"text": JSON, "partial_json": JSON, "signature": JSON, "citation": JSON, "usage": JSON},
            ),
            "usage": JSON,
            "error": JSON,
        },
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENT, max_size=6))
def test_garbage_never_stops_a_fold(events: list[dict[str, Any]]):
    """Whatever a provider sends, the fold goes on, and what it gives can be looked into, counted and written."""
    folder = fold(events)
    data = folder.result()
    assert isinstance(text_of(data), str)
    assert complete(data) in (True, False)
    answers(data)
    MESSAGES.usage(data)
    MESSAGES.error_of(data)
    orjson.dumps(data)
    for event in events:
        assert closing(event) in (True, False)
        assert last(event) in (True, False)
    if folder.faithful and folder.complete:
        assert fold(unfold(data)).result() == data


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional={
    "type": JSON | st.just("message"), "content": JSON | st.lists(JSON | BLOCK, max_size=3), "usage": JSON,
    "stop_reason": JSON, "container": JSON, "context_management": JSON, "model": JSON, "error": JSON,
}))  # fmt: skip
def test_a_strange_whole_answer_is_faithful_only_if_nothing_is_lost(whole: dict[str, Any]):
    """What cannot be unfolded without loss says so, and is never kept; it never raises."""
    reply = Reply(MESSAGES, body=orjson.dumps(whole))
    text_of(whole)
    complete(whole)
    answers(whole)
    MESSAGES.usage(whole)
    if reply.faithful:
        assert fold(unfold(whole)).result() == reply.data


@pytest.mark.parametrize("depth", [150, 600])
def test_an_answer_nested_too_deeply_is_unfaithful_not_fatal(depth: int):
    """Recursion has an end; an answer that goes beyond it is passed on but not kept."""
    deep: Any = "x"
    for _ in range(depth):
        deep = [deep]
    whole = {**WHOLE_OF_STREAM, "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": deep}}]}
    folder = fold(unfold(whole))
    assert not folder.faithful
    orjson.dumps(folder.result())
    assert isinstance(text_of(whole), str)
    assert not tool_call("[" * depth + "]" * depth).faithful


# -- what it says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"type": "message", "stop_reason": "end_turn"}, True),
        ({"type": "message", "stop_reason": "stop_sequence"}, True),
        ({"type": "message", "stop_reason": "tool_use"}, True),
        ({"type": "message", "stop_reason": "max_tokens"}, False),
        ({"type": "message", "stop_reason": "pause_turn"}, False),
        ({"type": "message", "stop_reason": "refusal"}, False),
        ({"type": "message", "stop_reason": "model_context_window_exceeded"}, False),
        ({"type": "message", "stop_reason": ["end_turn"]}, False),
        ({"type": "message", "stop_reason": None}, False),
        ({"stop_reason": "end_turn"}, False),
        ({"type": "error", "error": {}}, False),
        ({}, False),
    ],
)
def test_an_answer_is_complete_when_it_came_to_its_own_end(data: dict[str, Any], expected: bool):
    """Cut off, paused and refused are not."""
    assert complete(data) is expected


def test_what_has_to_keep_the_contract_is_the_text():
    """Not the thinking; and nothing where a tool is called or the model refuses."""
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": '{"a"'},
        {"type": "text", "text": ": 1}"},
    ]
    assert answers({"type": "message", "stop_reason": "end_turn", "content": blocks}) == ['{"a": 1}']
    assert answers({"type": "message", "stop_reason": "refusal", "content": blocks}) == []
    assert answers(WHOLE_OF_STREAM) == []


def test_the_text_for_counting_has_everything_that_was_generated():
    """Thinking, text, the names and inputs of tools, summaries; not what tools gave back."""
    content = [
        *WHOLE_OF_STREAM["content"],
        {"type": "compaction", "content": "so far"},
        {"type": "web_search_tool_result", "content": [{"title": "a page"}]},
    ]
    assert text_of({"content": content}) == 'Let me see.\nGrüße, 世界 🌍\nweather{"city":"München"}\ntime{}\nso far'


def test_only_the_event_with_the_usage_closes_a_stream():
    """It is annotated with what the call came to, and no event is there for the usage alone."""
    assert [closing(event) for event in STREAM].index(True) == len(STREAM) - 2
    assert not any(MESSAGES.usage_only(event) for event in STREAM)
    told = MESSAGES.annotated(STREAM[-2], {"cost_usd": 0.5, "cache": "miss"})
    assert told["usage"] == {"input_tokens": 25, "output_tokens": 89, "cost": 0.5}
    assert told["negawatt"] == {"cost_usd": 0.5, "cache": "miss"}
    assert "cost" not in MESSAGES.annotated(STREAM[-2], {"cost_usd": None})["usage"]
    assert "negawatt" not in STREAM[-2], "it is a copy"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (InvalidRequest("model: no", param="model"), "invalid_request_error", "invalid_request"),
        (ModelNotFound("no"), "not_found_error", "model_not_found"),
        (RateLimited("no"), "rate_limit_error", "rate_limited"),
        (UpstreamBroken("no"), "api_error", "upstream_broken"),
        (UpstreamTimeout("no"), "timeout_error", "upstream_timeout"),
        (CircuitOpen("no", retry_after_s=1), "overloaded_error", "circuit_open"),
        (ValueError("a secret"), "api_error", "internal_error"),
    ],
)
def test_errors_are_said_in_the_words_of_the_api(error: Exception, kind: str, code: str):
    """By their status; with our own code and the field, and nothing of what the caller may not see."""
    body = MESSAGES.error_body(error)
    assert (body["type"], body["error"]["type"], body["error"]["code"]) == ("error", kind, code)
    assert body["error"]["param"] == getattr(error, "param", None)
    assert "secret" not in body["error"]["message"]
    framed = MESSAGES.error_event(error)
    assert framed.startswith(b"event: error\ndata: {")
    assert orjson.loads(EventParser().feed(framed)[0]) == body


# -- requests --------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 0},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {
            "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            "thinking": {"type": "adaptive"},
        },
        {"temperature": 0, "top_p": 1, "top_k": 5, "stop_sequences": ["a"], "stream": True, "x_unknown": {"a": [1]}},
        {"temperature": None, "system": None, "stream": None, "tools": None, "metadata": None},
    ],
)
def test_a_good_request_passes(fields: dict[str, Any]):
    """Unknown fields pass unseen, null is as good as absent, and no token at all fills the provider's cache."""
    MESSAGES.check(Request(data={**GOOD, **fields}))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": 1, "content": "a"}]}, "messages[0].role"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"stream": "true"}, "stream"),
    ({"system": 5}, "system"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": False}, "temperature"),
    ({"tools": {}}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"thinking": True}, "thinking"),
    ({"stop_sequences": "a"}, "stop_sequences"),
    ({"stop_sequences": [1]}, "stop_sequences[0]"),
    ({"metadata": []}, "metadata"),
    ({"top_k": 1.5}, "top_k"),
    ({"output_config": "json"}, "output_config"),
]


@pytest.mark.parametrize(("fields", "where"), BAD, ids=[f"{where}={next(iter(f.values()))!r:.20}" for f, where in BAD])
def test_a_bad_request_is_told_which_field(fields: dict[str, Any], where: str):
    """The message begins with the path of the field, which is also the error's param."""
    with pytest.raises(InvalidRequest) as caught:
        MESSAGES.check(Request(data={**GOOD, **fields}))
    assert caught.value.param == where
    assert caught.value.message.startswith(f"{where}: ")


@pytest.mark.parametrize("name", ["model", "messages", "max_tokens"])
def test_a_missing_field_is_named(name: str):
    """A required field that is not there at all."""
    with pytest.raises(InvalidRequest, match=f"{name}: this field is required"):
        MESSAGES.check(Request(data={n: v for n, v in GOOD.items() if n != name}))


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
DATA = {"cache_control": "no-store", "other": [{"cache_control": 1}]}
MARKED: dict[str, Any] = {
    "system": [{"type": "text", "text": "a"}],
    "tools": [{"name": "f", "input_schema": {"type": "object", "properties": DATA}, "input_examples": [DATA]}],
    "messages": [
        {"role": "user", "content": "plain"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": DATA}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "b"}]},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "c"}]}},
            ],
        },
    ],
}


def marked(value: Any) -> Any:
    """Return *value* with a mark on every object that has a type, or a name and a schema, but for callers' data."""
    if isinstance(value, list):
        return [marked(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    mark = MARK if "type" in value or "input_schema" in value else {}
    mine = {n: v if n in ("input", "input_schema", "input_examples") else marked(v) for n, v in value.items()}
    return {**mine, **mark}


def test_marks_for_the_providers_cache_do_not_make_another_request():
    """At the top, on the system prompt, on tools, on blocks and on blocks inside of blocks."""
    plain, with_marks = Request(data={**GOOD, **MARKED}), Request(data={**GOOD, **marked(MARKED), **MARK})
    assert b'"ttl"' in with_marks.body
    assert identity(with_marks) == identity(plain)
    assert b'"ttl"' in with_marks.body, "what is sent on is left alone"


def test_data_of_the_callers_own_is_never_taken_for_a_mark():
    """A tool may well have a field of that name: another value is another request."""
    kept = identity(Request(data={**GOOD, **MARKED}))
    assert kept["messages"][1]["content"][0]["input"] == DATA
    assert kept["tools"] == MARKED["tools"]


def test_what_cannot_change_the_answer_is_not_part_of_the_identity():
    """Whose it is, how it is sent and at which tier; 1.0 is 1 and null is absent."""
    more = {"stream": True, "metadata": {"user_id": "u"}, "service_tier": "auto", "speed": "fast", "top_k": None}
    assert identity(Request(data={**GOOD, **more, "temperature": 1.0})) == {**GOOD, "temperature": 1}
    assert identity(Request(data={**GOOD, "thinking": {"type": "adaptive"}})) != identity(Request(data=GOOD))


@pytest.mark.parametrize(
    ("fields", "is_deterministic", "is_sampled"),
    [
        ({}, False, False),
        ({"temperature": 0}, True, False),
        ({"temperature": 0, "thinking": {"type": "disabled"}}, True, False),
        ({"temperature": 0, "thinking": {"type": "enabled", "budget_tokens": 1024}}, False, False),
        ({"temperature": 0.5}, False, True),
        ({"temperature": 1}, False, True),
    ],
)
def test_draws_are_known_by_temperature_and_thinking(fields: dict[str, Any], is_deterministic: bool, is_sampled: bool):
    """A temperature above 0 asks for draws, silence does not; thinking is drawn in any case."""
    request = Request(data={**GOOD, **fields})
    assert MESSAGES.deterministic(request) is is_deterministic
    assert MESSAGES.sampled(request) is is_sampled


def test_usage_needs_no_asking():
    """Every stream has it, so the request goes on unchanged."""
    request = Request(data={**GOOD, "stream": True})
    assert MESSAGES.wants_usage(request)
    assert MESSAGES.with_usage(request) is request


def test_a_contract_is_found_under_both_its_names():
    """`output_config.format` is today's, `output_format` was the beta's."""
    form = {"type": "json_schema", "schema": {"type": "object"}}
    assert contract(Request(data={**GOOD, "output_config": {"format": form}})) == Contract({"type": "object"})
    assert contract(Request(data={**GOOD, "output_format": form})) == Contract({"type": "object"})
    assert contract(Request(data={**GOOD, "output_config": {"effort": "low"}})) is None
    assert contract(Request(data={**GOOD, "output_config": {"format": {"type": "text"}}})) is None
    assert contract(Request(data=GOOD)) is None


def test_a_prompt_is_put_into_the_shape_that_tokens_are_counted_in():
    """System, text, pictures, tool calls, tool results, thinking, documents, tools."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    request = Request(data={
        **GOOD,
        "system": "be kind",
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, **MARK}],
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "one moment"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [
                    {"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
                {"type": "tool_result", "tool_use_id": "2", "content": [picture]},
                {"type": "document", "title": "t", "source": {"type": "text", "data": "plain"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/a.png"}},
            ]},
        ],
    })  # fmt: skip
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    asked = prompt(request)
    assert asked.messages == [
        {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "hm"}, {"type": "text", "text": "one moment"}],
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "b\nc"},
        {"role": "tool", "tool_call_id": "2", "content": [image]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "text", "text": "plain"},
                {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}},
            ],
        },
    ]
    assert asked.tools == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert estimate_request_tokens(asked.messages, asked.tools) > 100


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional={
    "system": JSON, "tools": JSON, "thinking": JSON, "temperature": JSON, "output_config": JSON, "cache_control": JSON,
    "messages": JSON | st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON | st.lists(JSON | BLOCK)})),
}))  # fmt: skip
def test_nothing_that_a_request_may_be_makes_it_unreadable(data: dict[str, Any]):
    """Whatever passes for a request can be looked into."""
    request = Request(data=data)
    asked = prompt(request)
    estimate_request_tokens(asked.messages, asked.tools)
    identity(request)
    contract(request)
    MESSAGES.deterministic(request)
    MESSAGES.sampled(request)


def test_blocks_inside_of_blocks_have_an_end():
    """What no client sends is not followed for ever."""
    block: dict[str, Any] = {"type": "text", "text": "deep"}
    for _ in range(120):
        block = {"type": "tool_result", "content": [block], **MARK}
    request = Request(data={**GOOD, "messages": [{"role": "user", "content": [block]}]})
    assert prompt(request).messages[0]["role"] == "tool"
    assert identity(request)["model"] == "m"


def test_a_usage_keeps_its_tier():
    """Priority and batch have prices of their own; the fast mode too, and it counts before the tier."""
    base = {"input_tokens": 1, "output_tokens": 1}
    tiers = {}
    for name, usage in (
        ("none", base),
        ("standard", {**base, "service_tier": "standard"}),
        ("priority", {**base, "service_tier": "priority"}),
        ("batch", {**base, "service_tier": "batch"}),
        ("fast", {**base, "service_tier": "standard", "speed": "fast"}),
    ):
        used = MESSAGES.usage({**WHOLE_OF_STREAM, "usage": usage})
        assert used is not None
        tiers[name] = msgspec.to_builtins(used).get("tier")
    assert tiers["priority"] == "priority"
    assert tiers["batch"] == "batch"
    assert tiers["fast"] == "fast"
    assert tiers["none"] == tiers["standard"]
