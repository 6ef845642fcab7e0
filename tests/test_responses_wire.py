"""The Responses protocol: what a valid request is, and that an answer and its events stand for each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from negawatt.call import Request
from negawatt.errors import InvalidRequest, UpstreamBroken
from negawatt.reply import Chunk
from negawatt.wire.responses import RESPONSES
from negawatt.wire.sse import EventParser

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
}  # fmt: skip


def answer(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 1.0, "status": "completed", "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "model": "m", "output": list(items),
        "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": USAGE, **fields,
    }  # fmt: skip


def text(said: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": [], **fields}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": list(parts)}


CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "f",
    "arguments": "{}",
}
REASONING = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Well."}], "status": None}
CITED = {"type": "url_citation", "url": "https://example.com", "title": "t", "start_index": 0, "end_index": 1}
KINDS = {
    "text": message(text()),
    "empty": message(text("")),
    "no parts": message(),
    "two parts": message(text("a"), text("b")),
    "a refusal": message({"type": "refusal", "refusal": "no"}),
    "a citation": message(text(annotations=[CITED])),
    "a call": CALL,
    "a custom call": {"id": "c", "type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "x = 1"},
    "thoughts": REASONING,
    "open thoughts": {"id": "rs_2", "type": "reasoning", "summary": [],
                      "content": [{"type": "reasoning_text", "text": "Hm."}]},
    "a search": {"id": "ws_1", "type": "web_search_call", "status": "completed",
                 "action": {"type": "search", "query": "x"}},
}  # fmt: skip
TEXT = st.text(max_size=12)
ITEM = st.one_of(
    st.sampled_from(list(KINDS.values())),
    st.builds(lambda parts: message(*map(text, parts)), st.lists(TEXT, max_size=3)),
    st.builds(lambda said: {**CALL, "arguments": said}, TEXT),
    st.builds(lambda said: {**REASONING, "summary": [{"type": "summary_text", "text": s} for s in said]},
              st.lists(TEXT, max_size=3)),
    st.dictionaries(TEXT, st.one_of(st.none(), st.integers(), TEXT, st.lists(TEXT, max_size=2)), max_size=4),
)  # fmt: skip


def folded(events: list[dict[str, Any]]) -> dict[str, Any]:
    folder = RESPONSES.folder()
    for event in events:
        folder.add(event)
    assert folder.complete and folder.faithful
    return folder.result()


def gathered(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Fold all but the last event: what there is of a stream that broke off at its very end."""
    folder = RESPONSES.folder()
    for event in events[:-1]:
        folder.add(event)
    assert not folder.complete
    return folder.result()


# -- answers ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEM, max_size=4), st.sampled_from(["completed", "incomplete", "failed", None, "tomorrow"]))
def test_an_answer_unfolds_and_folds_to_itself(items: list[dict[str, Any]], status: str | None):
    """Of any items, known or not, with fields that we do not know."""
    whole = answer(*items, status=status, x_new={"a": [1, None]})
    assert folded(RESPONSES.unfold(whole)) == whole


@pytest.mark.parametrize("name", KINDS)
def test_every_event_is_what_the_sdk_expects(name: str):
    """Types and required fields; numbers rise by one; what came before the last event says the same as it."""
    events = RESPONSES.unfold(answer(KINDS[name]))
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert gathered(events)["output"] == [KINDS[name]]


def test_calls_in_fragments_that_come_in_turns_are_put_together():
    """Two calls and a text, their deltas mixed, as parallel calls may come; without a last event they are whole too."""
    begun = {**CALL, "arguments": "", "status": "in_progress"}
    place = {"item_id": "x", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "response": answer(status="in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": message()},
        {"type": "response.content_part.added", **place, "part": text("")},
        {"type": "response.output_item.added", "output_index": 1, "item": begun},
        {"type": "response.output_item.added", "output_index": 2, "item": {**begun, "call_id": "call_2"}},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"b"'},
        {"type": "response.output_text.delta", **place, "delta": "so "},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a": 1}'},
        {"type": "response.output_text.delta", **place, "delta": "far"},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ": 2}"},
    ]
    folder = RESPONSES.folder()
    for event in events:
        folder.add(event)
    found = folder.result()["output"]
    assert [found[0]["content"][0]["text"], found[1]["arguments"], found[2]["arguments"]] == [
        "so far", '{"a": 1}', '{"b": 2}',
    ]  # fmt: skip
    assert RESPONSES.text_of(folder.result()) == 'so far\nf{"a": 1}\nf{"b": 2}'


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=3), st.data())
def test_a_stream_that_is_cut_anywhere_can_be_read(items: list[dict[str, Any]], data: st.DataObject):
    """It is not complete, nothing raises, and it says no more than the whole."""
    events = RESPONSES.unfold(answer(*items))
    cut = data.draw(st.integers(0, len(events) - 1))
    folder = RESPONSES.folder()
    for event in events[:cut]:
        folder.add(event)
    assert not folder.complete
    found = folder.result()
    assert RESPONSES.usage(found) is None and not RESPONSES.complete(found)
    assert len(RESPONSES.text_of(found)) <= len(RESPONSES.text_of(answer(*items)))


GARBAGE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 10**9), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
NAMES = st.sampled_from([event["type"] for kind in KINDS.values() for event in RESPONSES.unfold(answer(kind))])
FIELDS = st.sampled_from(
    ["output_index", "content_index", "summary_index", "delta", "text", "item", "part", "response"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.one_of(NAMES, TEXT), st.dictionaries(FIELDS, GARBAGE, max_size=5)), max_size=6))
def test_nothing_that_a_provider_sends_stops_the_fold(events: list[tuple[str, dict[str, Any]]]):
    """Nulls, wrong types, huge and negative indexes: unfaithful at most."""
    folder = RESPONSES.folder()
    for kind, fields in events:
        folder.add({"type": kind, **fields})
    found = folder.result()
    RESPONSES.usage(found), RESPONSES.answers(found), RESPONSES.complete(found)
    assert isinstance(RESPONSES.text_of(found), str)


def test_what_is_left_out_of_the_last_event_is_taken_from_those_before():
    """Some servers end with an empty output."""
    events = RESPONSES.unfold(answer(message(text())))
    events[-1] = {**events[-1], "response": answer()}
    assert folded(events)["output"] == [message(text())]


def test_framed_events_are_named_and_survive_crlf_and_split_characters():
    """Through the parser one byte at a time."""
    events = RESPONSES.unfold(answer(message(text("Grüße 🙂"))))
    raw = RESPONSES.frame([Chunk(data=event) for event in events])
    assert raw.startswith(b"event: response.created\ndata: {")
    parser = EventParser()
    bare = raw.replace(b"\n", b"\r\n")
    found = [event for byte in bare for event in parser.feed(bytes([byte]))] + parser.end()
    assert [Chunk(one).data for one in found] == events


def test_errors_are_told_from_answers():
    """An error event, and an error in place of an answer; a response that failed is an answer with its usage."""
    assert RESPONSES.error_of({"type": "error", "code": "x", "message": "overloaded", "param": None}) == "overloaded"
    assert RESPONSES.error_of({"error": {"message": "no"}}) == "no"
    failed = answer(status="failed", error={"code": "server_error", "message": "no"})
    assert RESPONSES.error_of(failed) is None and not RESPONSES.complete(failed)
    event = RESPONSES.unfold(failed)[-1]
    assert event["type"] == "response.failed" and RESPONSES.error_of(event) is None
    used = RESPONSES.usage(failed)
    assert used is not None and used.total_tokens == 15


def test_our_own_error_is_an_error_event():
    """With the flat fields of the API, and the object that SDKs raise."""
    raw = RESPONSES.error_event(UpstreamBroken("it broke"))
    (event,) = EventParser().feed(raw)
    data = Chunk(event).data
    assert raw.startswith(b"event: error\n")
    assert data["message"] == data["error"]["message"] == "it broke" and data["code"] == "upstream_broken"


def test_the_last_event_carries_the_note():
    """Where SDKs keep it: ``response.negawatt``; the cost beside the usage."""
    event = RESPONSES.unfold(answer(message(text())))[-1]
    assert RESPONSES.closing(event) and RESPONSES.last(event)
    noted = RESPONSES.annotated(event, {"cost_usd": 0.5})
    parsed = EVENT.validate_python(noted)
    assert parsed.response.negawatt == {"cost_usd": 0.5} and noted["response"]["usage"]["cost"] == 0.5


# -- requests --------------------------------------------------------------------------------------------------


def request(**fields: Any) -> Request:
    return Request(data={"model": "m", "input": "hi", **fields})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"background": True}, "background"),
        ({"temperature": -1}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": {}}, "tools"),
    ],
)
def test_a_bad_request_is_refused_by_its_field(fields: dict[str, Any], param: str):
    """With a message that names it."""
    with pytest.raises(InvalidRequest) as caught:
        RESPONSES.check(request(**fields))
    assert caught.value.param == param and caught.value.message.startswith(param)


def test_what_passes():
    """Unknown fields, false and null flags, a request that only goes on."""
    RESPONSES.check(request(background=False, x_new=1, temperature=None))
    RESPONSES.check(request(input=None, previous_response_id="resp_0"))
    assert RESPONSES.continues(request(input=None, previous_response_id="resp_0")) == [
        ("previous_response_id", "resp_0")
    ]
    assert RESPONSES.continues(request()) == []


def test_the_key_has_what_can_change_the_answer():
    """Not how it is sent nor whose it is; a conversation that grows is never the same again."""
    assert RESPONSES.identity(request(stream=True, user="u", metadata={})) == {"model": "m", "input": "hi"}
    assert "previous_response_id" in RESPONSES.identity(request(previous_response_id="resp_0"))
    assert RESPONSES.deterministic(request(temperature=0)) and not RESPONSES.deterministic(request())
    assert not RESPONSES.deterministic(request(temperature=0, conversation="conv_1"))
    assert RESPONSES.sampled(request(conversation="conv_1"))


def test_the_prompt_is_what_tokens_are_counted_in():
    """Instructions, messages, calls, their results, pictures, tools."""
    found = RESPONSES.prompt(request(
        instructions="Be brief.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "look"},
                                         {"type": "input_image", "image_url": "https://x", "detail": "low"}]},
            CALL,
            {"type": "function_call_output", "call_id": "call_1", "output": "42"},
            REASONING,
        ],
        tools=[{"type": "function", "name": "f", "parameters": {}}],
    ))  # fmt: skip
    assert [one["role"] for one in found.messages] == ["developer", "user", "assistant", "tool", "assistant"]
    assert found.messages[1]["content"][1]["image_url"] == {"url": "https://x", "detail": "low"}
    assert found.messages[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert found.tools[0]["function"]["name"] == "f"


def test_the_contract_is_in_text_format():
    """A schema, any object, or nothing; refusals and calls do not have to keep it."""
    schema = {"type": "object"}
    found = RESPONSES.contract(request(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}))
    assert found is not None and found.schema == schema
    assert RESPONSES.contract(request(text={"format": {"type": "text"}})) is None
    assert RESPONSES.answers(answer(message(text("{}")))) == ["{}"]
    assert RESPONSES.answers(answer(message(text("{}")), CALL)) == []
    assert RESPONSES.answers(answer(message({"type": "refusal", "refusal": "no"}))) == []


def test_searches_are_counted_and_the_tier_is_kept():
    """Opening a page is not a search; a search that failed is not charged."""
    opened = {**KINDS["a search"], "action": {"type": "open_page", "url": "https://x"}}
    failed = {**KINDS["a search"], "status": "failed"}
    used = RESPONSES.usage(answer(KINDS["a search"], opened, failed, service_tier="flex"))
    assert used is not None and (used.web_searches, used.tier) == (1, "flex")
