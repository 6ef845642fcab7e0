"""Streams between Chat and Messages: in any fragments, nothing of what they say is lost on the way."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from translations import (
    ASKED,
    COMPLETION,
    MESSAGE,
    TO_CHAT,
    TO_MESSAGES,
    call,
    chat_chunks,
    chunk,
    ended,
    folded,
    in_chat,
    in_messages,
    in_order,
    messages_events,
    run,
)

from negawatt.economics.usage import usage_from_anthropic
from negawatt.errors import UpstreamError, UpstreamProtocolError
from negawatt.wire.chat import CHAT
from negawatt.wire.messages import MESSAGES

# -- streams ---------------------------------------------------------------------------------------------------


def test_calls_whose_fragments_come_in_turns_are_put_in_order():
    """The second waits until the first has all of its arguments, and is then told at once."""
    translator = TO_CHAT.translator(ASKED)
    seen = [
        translator.feed(chunk(delta))
        for delta in (
            call(0, '{"a"', "look", id="a"),
            call(1, '{"b"', "now", id="b"),
            call(0, ':"}"'),
            call(1, ":1}"),
            call(0, "}"),
            {},
        )
    ]
    assert [len(events) for events in seen] == [3, 0, 1, 0, 5, 0]
    assert [event["index"] for event in seen[4]] == [0, 0, 1, 1, 1]
    events = [event for events in seen for event in events] + translator.feed(ended()) + translator.end()
    in_order(events)
    assert [(block["id"], block["input"]) for block in folded(MESSAGES, events)["content"]] == [
        ("a", {"a": "}"}),
        ("b", {"b": 1}),
    ]


def test_text_that_comes_between_the_fragments_of_a_call_waits():
    """It is told after the call: Messages cannot go back to a block."""
    events = messages_events(
        [
            chunk({"role": "assistant", "content": "So. "}),
            chunk(call(0, "{", "look", id="a")),
            chunk({"content": "Wait."}),
            chunk(call(0, "}")),
            ended(),
        ]
    )
    assert [block.get("text") for block in folded(MESSAGES, events)["content"]] == ["So. ", None, "Wait."]


@pytest.mark.parametrize(
    "deltas",
    [
        [call(None, '{"a":1}', "look", id="a"), call(None, '{"b":', "now", id="b"), call(None, "2}")],
        [call(0, '{"a":1}', "look", id="a"), call(0, '{"b":2}', "now", id="b")],
        [call(0, '{"a":1}', "look", id="a"), call(1, '{"b":', "now", id="b"), call(1, "2}", "now", id="b")],
        [call(3, '{"a":1}', "look", id="a"), call(7, '{"b":2}', "now", id="b"), call(3, " ")],
    ],
    ids=["no index", "one index for all", "id and name repeated", "indexes with gaps"],
)
def test_calls_are_told_apart_however_servers_number_them(deltas: list[dict[str, Any]]):
    """By index, by id, or both."""
    events = messages_events([*map(chunk, deltas), ended()])
    calls = [(block["id"], block["name"], block["input"]) for block in folded(MESSAGES, events)["content"]]
    assert calls == [("a", "look", {"a": 1}), ("b", "now", {"b": 2})]


def test_a_call_without_an_id_gets_one():
    """Some servers send none; a result could not be matched to it."""
    events = messages_events([chunk(call(0, "{}", "look")), ended()])
    assert folded(MESSAGES, events)["content"][0]["id"] == "toolu_0"


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(call(0, "{}", "look", id="a")), chunk({"content": "x"}), chunk(call(0, "{}"))],
        [chunk(call(0, "{}", id="a")), ended()],
        [chunk({"content": {"not": "text"}})],
        [chunk({"images": [{"type": "image_url"}]})],
        [{**chunk(), "choices": [{"index": 1, "delta": {"content": "x"}}]}],
        [chunk({"content": "x"})],
    ],
    ids=["arguments after their end", "no name", "no text", "images", "a second choice", "no finish reason"],
)
def test_what_cannot_be_told_in_messages_is_an_error(chunks: list[dict[str, Any]]):
    """Better none than a wrong answer."""
    with pytest.raises(UpstreamProtocolError):
        run(TO_CHAT.translator(ASKED), chunks)


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}],
        [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": None}}],
        [{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "x"}}],
        [{"type": "content_block_start", "index": 0}],
        [{"type": "content_block_start", "index": [], "content_block": {"type": "text", "text": ""}}],
        [{"type": "message_start"}],
        [{"type": "message_start", "message": {"id": "m"}}],
    ],
)
def test_what_is_no_message_is_an_error(events: list[dict[str, Any]]):
    """Whatever comes, it is never a crash."""
    with pytest.raises(UpstreamProtocolError):
        run(TO_MESSAGES.translator(ASKED), events)


def test_an_error_in_place_of_an_answer_is_raised():
    """In the words of the provider."""
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(UpstreamError, match="Overloaded"):
        TO_MESSAGES.translator(ASKED).feed(failed)
    with pytest.raises(UpstreamError, match="no more"):
        TO_CHAT.translator(ASKED).feed({"error": {"message": "no more"}})


def test_pings_and_events_of_new_kinds_say_nothing():
    """The API asks its users to pass over the latter."""
    translator = TO_MESSAGES.translator(ASKED)
    assert translator.feed({"type": "ping"}) + translator.feed({"type": "a_new_one"}) + translator.feed({}) == []


def test_usage_on_every_chunk_is_told_once():
    """Cumulative counts: the last ones hold."""
    told = [
        chunk({"content": "x"}, usage={"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n})
        for n in (1, 2)
    ]
    usage = folded(MESSAGES, messages_events([*told, ended("stop"), chunk(usage=None)]))["usage"]
    used = usage_from_anthropic(usage)
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (7, 2)


def test_thinking_that_is_told_twice_is_thought_once():
    """OpenRouter streams it in two fields at once; others tell all of it again when they sign it."""
    detail = {"type": "reasoning.text", "text": "A", "format": "anthropic-claude-v1", "index": 0}
    signed = {**detail, "signature": "s"}
    for deltas in (
        [{"reasoning": "A", "reasoning_details": [detail]}, {"reasoning_details": [{**signed, "text": ""}]}],
        [{"reasoning_content": "A"}, {"reasoning_details": [signed]}],
        [{"reasoning_details": [signed]}],
    ):
        events = messages_events([*map(chunk, deltas), chunk({"reasoning_content": "B"}), ended("stop")])
        assert folded(MESSAGES, events)["content"] == [
            {"type": "thinking", "thinking": "A", "signature": "s"},
            {"type": "thinking", "thinking": "B", "signature": ""},
        ]


def test_content_may_come_in_parts():
    """As Mistral sends it when there is thinking in it."""
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Yes."}]
    kinds = folded(MESSAGES, messages_events([chunk({"content": thought}), ended("stop")]))["content"]
    assert [block.get("thinking", block.get("text")) for block in kinds] == ["Hm.", "Yes."]


# -- laws ------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
INPUT = st.dictionaries(WORDS, st.one_of(WORDS, st.integers(-9, 9), st.none(), st.lists(WORDS, max_size=2)), max_size=3)
USAGE = st.fixed_dictionaries(
    {"input_tokens": st.integers(0, 10**6), "output_tokens": st.integers(1, 10**6)},
    optional={
        "cache_read_input_tokens": st.integers(0, 10**6),
        "cache_creation_input_tokens": st.integers(0, 10**6),
    },
)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Return a whole answer of Messages with thinking, texts and calls."""
    text = draw(WORDS)
    content: list[dict[str, Any]] = []
    if draw(st.booleans()):
        content.append({"type": "thinking", "thinking": draw(WORDS) or "Hm", "signature": draw(WORDS)})
    if text:
        content.append({"type": "text", "text": text})
    for place in range(draw(st.integers(0, 4))):
        content.append({"type": "tool_use", "id": f"call_{place}", "name": f"f{place}", "input": draw(INPUT)})
    called = content and content[-1]["type"] == "tool_use"
    reason = "tool_use" if called else draw(st.sampled_from(["end_turn", "max_tokens"]))
    return {**MESSAGE, "content": content, "stop_reason": reason, "usage": draw(USAGE)}


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


CUT_IN_EVENTS = ("text", "thinking", "partial_json")


def event_fragments(event: dict[str, Any], places: list[int]) -> list[dict[str, Any]]:
    """Return *event* in smaller ones."""
    delta = event.get("delta", {})
    name = next((name for name in CUT_IN_EVENTS if isinstance(delta.get(name), str)), None)
    if name is None:
        return [event]
    return [{**event, "delta": {**delta, name: part}} for part in cut(delta[name], places)]


PLACES = st.lists(st.integers(0, 1000), max_size=4)


@settings(max_examples=100, deadline=None)
@given(answers(), PLACES)
def test_it_does_not_matter_how_a_message_was_cut_into_events(whole: dict[str, Any], places: list[int]):
    """The chunks of Chat, folded, are the whole answer translated."""
    events = [part for event in MESSAGES.unfold(whole) for part in event_fragments(event, places)]
    assert folded(CHAT, chat_chunks(events)) == in_chat(whole)


@settings(max_examples=100, deadline=None)
@given(answers())
def test_through_chat_and_back_an_answer_says_the_same(whole: dict[str, Any]):
    """What is thought, said and called, why it ended, and what it used."""
    back = in_messages(in_chat(whole))
    for name in ("id", "model", "content", "stop_reason"):
        assert back[name] == whole[name]
    assert usage_from_anthropic(back["usage"]) == usage_from_anthropic(whole["usage"])


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a whole completion, and chunks of it in which the fragments of the calls come in any order."""
    whole = in_chat(draw(answers()))
    message = whole["choices"][0]["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"reasoning_content": part} for part in cut(message.get("reasoning_content", ""), draw(PLACES))]
    deltas += [{"reasoning_details": [detail]} for detail in message.get("reasoning_details", ())]
    deltas += [{"content": part} for part in cut(message["content"] or "", draw(PLACES))]
    streams = []
    for place, made in enumerate(message.get("tool_calls", ())):
        first, *rest = cut(made["function"]["arguments"], draw(PLACES))
        begun = call(place, first, made["function"]["name"], id=made["id"], type="function")
        streams.append([begun, *(call(place, part) for part in rest)])
    begin = [stream.pop(0) for stream in streams]  # calls are begun in order
    order = draw(st.permutations([place for place, stream in enumerate(streams) for _ in stream]))
    deltas += begin + [streams[place].pop(0) for place in order]
    end = {**chunk(), "choices": [{"index": 0, "delta": {}, "finish_reason": whole["choices"][0]["finish_reason"]}]}
    head = {name: whole[name] for name in ("id", "model", "created")}
    chunks = [*map(chunk, deltas), end, chunk(usage=whole["usage"])]
    return whole, [{**one, **head} for one in chunks]


@settings(max_examples=150, deadline=None)
@given(interleaved())
def test_it_does_not_matter_how_a_completion_was_cut_into_chunks(made: tuple[dict[str, Any], list[dict[str, Any]]]):
    """The events of Messages, folded, are the whole answer translated, however parallel calls interleave."""
    whole, chunks = made
    expected = in_messages(whole)
    got = folded(MESSAGES, messages_events(chunks))
    got["usage"].pop("service_tier", None)
    expected["usage"].pop("service_tier", None)
    assert got == expected


JUNK = st.sampled_from(
    [b"null", b"0", b"-1", b"1.5", b"true", b'""', b'"x"', b"[]", b"[null]", b'["x"]', b"{}", b'{"x":0}']
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside of *value*."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for name, one in inner for found in [(*path, name), *places_in(one, (*path, name))]]


@st.composite
def spoiled(draw: st.DrawFn, chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *chunks* with some of what is in them lost, or of another kind."""
    copy: list[dict[str, Any]] = orjson.loads(orjson.dumps(chunks))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places_in(copy) if len(path) > 1]))
        inside: Any = copy
        for name in path[:-1]:
            inside = inside[name]
        if draw(st.booleans()):
            inside[path[-1]] = orjson.loads(draw(JUNK))
        else:
            del inside[path[-1]]
    return copy


@settings(max_examples=150, deadline=None)
@given(spoiled(MESSAGES.unfold(MESSAGE)), spoiled(CHAT.unfold(COMPLETION)))
def test_whatever_a_provider_sends_is_an_upstream_error_at_worst(events: Any, chunks: Any):
    """Fields that are missing, null or of another kind never end in a crash."""
    for translator, sent in ((TO_MESSAGES.translator(ASKED), events), (TO_CHAT.translator(ASKED), chunks)):
        try:
            run(translator, sent)
        except UpstreamError:
            continue
