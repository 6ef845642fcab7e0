"""Chat Completions and Responses, each put into the other: requests keep their meaning, answers their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk, completion_create_params
from openai.types.responses import ResponseStreamEvent, response_create_params
from pydantic import TypeAdapter

from negawatt.errors import UpstreamError
from negawatt.reply import Reply
from negawatt.translate import Translator
from negawatt.translate.answer import translated
from negawatt.translate.chat_to_responses import FIELDS as CHAT_FIELDS
from negawatt.translate.chat_to_responses import ChatToResponses
from negawatt.translate.responses_to_chat import FIELDS as RESPONSES_FIELDS
from negawatt.translate.responses_to_chat import ResponsesToChat
from negawatt.translate.table import Untranslatable
from negawatt.wire.chat import CHAT
from negawatt.wire.responses import RESPONSES

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TO_RESPONSES = ChatToResponses()
TO_CHAT = ResponsesToChat(new_id=lambda: "0", clock=lambda: 1_700_000_000.5)
USER = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True},
}
FLAT_TOOL = {"type": "function", **TOOL["function"]}


def to_responses(**fields: Any) -> dict[str, Any]:
    return TO_RESPONSES.request({"model": "m", "messages": [USER], **fields})


def to_chat(**fields: Any) -> dict[str, Any]:
    return TO_CHAT.request({"model": "m", "input": "Hi", **fields})


def run(translator: Translator, chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    before = orjson.dumps(chunks)
    made = [one for chunk in chunks for one in translator.feed(chunk)] + translator.end()
    assert orjson.dumps(chunks) == before, "what is translated stays as it is"
    return made


def in_responses(chunks: Sequence[dict[str, Any]], asked: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the whole answer that the chunks of Chat are in Responses; each event is what the SDK expects."""
    events = run(TO_CHAT.translator(asked or {"model": "m", "input": "Hi"}), chunks)
    folder = RESPONSES.folder()
    for number, event in enumerate(events):
        EVENT.validate_python(event)
        assert event["sequence_number"] == number
        folder.add(event)
    assert folder.complete and folder.faithful
    gathered = RESPONSES.folder()
    for event in events[:-1]:
        gathered.add(event)
    assert gathered.result()["output"] == folder.result()["output"], "the events say what the last one sums up"
    return folder.result()


def in_chat(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole answer that the events of Responses are in Chat; each chunk is what the SDK expects."""
    folder = CHAT.folder()
    for chunk in run(TO_RESPONSES.translator({"model": "m", "messages": [USER]}), events):
        ChatCompletionChunk.model_validate(chunk)
        folder.add(chunk)
    assert folder.complete and folder.faithful
    return folder.result()


# -- requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "params"),
    [(CHAT_FIELDS, completion_create_params), (RESPONSES_FIELDS, response_create_params)],
    ids=["chat", "responses"],
)
def test_every_public_field_is_in_the_table(fields: dict[str, Any], params: Any):
    """What the SDK can send has a row, so that nothing is lost in silence."""
    kinds = [kind for name, kind in vars(params).items() if name.endswith("ParamsBase")]
    known = {name for kind in kinds for name in kind.__annotations__} | {"stream"}
    assert len(known) > 25 and known <= fields.keys()


SAID = st.text(min_size=1, max_size=8)
TURNS = st.lists(
    st.one_of(
        st.builds(lambda text: [{"role": "user", "content": text}], SAID),
        st.builds(lambda text: [{"role": "developer", "content": text}], SAID),
        st.builds(lambda text: [{"role": "assistant", "content": text}], SAID),
        st.builds(lambda url, text: [{"role": "user", "content": [
            {"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}],
            SAID, SAID),
        st.builds(lambda name, text: [
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": f"{name}2", "type": "function", "function": {"name": "g", "arguments": '{"a": 1}'}}]},
            {"role": "tool", "tool_call_id": name, "content": text},
            {"role": "tool", "tool_call_id": f"{name}2", "content": text}], SAID, SAID),
    ),
    min_size=1, max_size=5,
)  # fmt: skip
COMMON = st.fixed_dictionaries({}, optional={
    "temperature": st.sampled_from([0, 0.5, 2]),
    "top_p": st.sampled_from([0.1, 1]),
    "max_completion_tokens": st.integers(16, 99),
    "reasoning_effort": st.sampled_from(["low", "high"]),
    "verbosity": st.sampled_from(["low", "high"]),
    "user": SAID,
    "tools": st.just([TOOL]),
    "tool_choice": st.sampled_from(["required", {"type": "function", "function": {"name": "f"}}]),
    "response_format": st.sampled_from([
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}},
    ]),
})  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(TURNS, COMMON)
def test_a_request_that_goes_there_and_back_is_the_same(turns: list[list[dict[str, Any]]], fields: dict[str, Any]):
    """What both can say keeps its meaning, word for word."""
    messages = [message for turn in turns for message in turn]
    asked = {"model": "m", "messages": messages, **fields}
    assert TO_CHAT.request(TO_RESPONSES.request(asked)) == joined(asked)


def joined(asked: dict[str, Any]) -> dict[str, Any]:
    """Return *asked* as it comes back: calls join what the assistant said just before them."""
    messages: list[dict[str, Any]] = []
    for message in asked["messages"]:
        before = messages[-1] if messages else {}
        if message.get("tool_calls") and before.get("role") == "assistant" and "tool_calls" not in before:
            messages[-1] = {**before, "tool_calls": message["tool_calls"]}
        else:
            messages.append(message)
    return {**asked, "messages": messages}


def test_what_is_renamed_and_converted_towards_responses():
    """Limits, schema, tools, and that nothing is stored that nobody asked to store."""
    found = to_responses(max_tokens=9, logprobs=True, tools=[TOOL], n=1, stop=[], stream=True, store=None)
    assert found == {
        "model": "m", "input": [{"type": "message", **USER}], "store": False, "max_output_tokens": 9, "stream": True,
        "include": ["message.output_text.logprobs"], "tools": [FLAT_TOOL],
    }  # fmt: skip
    assert to_responses(store=True)["store"] is True
    bare = {"type": "function", "function": {"name": "f"}}
    assert to_responses(tools=[bare])["tools"][0]["strict"] is False, "Chat takes a schema as not strict"


def test_what_is_renamed_and_converted_towards_chat():
    """Instructions, state that is none, and streams that tell their usage."""
    found = to_chat(
        instructions="Be brief.", max_output_tokens=9, stream=True, store=True, truncation="disabled", tools=[],
        parallel_tool_calls=True, text={"format": {"type": "text"}, "verbosity": "medium"}, include=[],
        reasoning={"effort": "low", "summary": "auto"}, metadata={"a": "b"},
    )  # fmt: skip
    assert found == {
        "model": "m", "messages": [{"role": "system", "content": "Be brief."}, USER], "max_completion_tokens": 9,
        "stream": True, "stream_options": {"include_usage": True}, "reasoning_effort": "low",
    }  # fmt: skip


def test_thoughts_are_left_out_and_calls_join_their_message():
    """As agents send their own turns back."""
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "Wait.", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "42"}]},
    ]  # fmt: skip
    found = to_chat(input=items)["messages"]
    assert found[1] == {
        "role": "assistant", "content": "Wait.",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }  # fmt: skip
    assert found[2] == {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "42"}]}


REFUSED_THERE: dict[str, dict[str, Any]] = {
    "n": {"n": 2}, "seed": {"seed": 1}, "stop": {"stop": ["x"]}, "logit_bias": {"logit_bias": {"1": 1}},
    "frequency_penalty": {"frequency_penalty": 1}, "modalities": {"modalities": ["text", "audio"]},
    "web_search_options": {"web_search_options": {}}, "x_new": {"x_new": 1}, "functions": {"functions": []},
    "messages[0].content[0].input_audio": {"messages": [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
    "messages[0].name": {"messages": [{**USER, "name": "bob"}]},
    "messages[0]": {"messages": [{"role": "function", "name": "f", "content": "x"}]},
    "tools[0].type": {"tools": [{"type": "other"}]},
}  # fmt: skip
REFUSED_BACK: dict[str, dict[str, Any]] = {
    "previous_response_id": {"previous_response_id": "r"}, "conversation": {"conversation": "c"},
    "prompt": {"prompt": {"id": "p"}}, "max_tool_calls": {"max_tool_calls": 1}, "truncation": {"truncation": "auto"},
    "include[0]": {"include": ["file_search_call.results"]}, "x_new": {"x_new": 1},
    "tools[0].web_search": {"tools": [{"type": "web_search"}]},
    "tool_choice.file_search": {"tool_choice": {"type": "file_search"}},
    "input[0].item_reference": {"input": [{"type": "item_reference", "id": "x"}]},
    "input[0].image_generation_call": {"input": [{"type": "image_generation_call"}]},
    "input[0].content[0].file_id": {"input": [
        {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
    "input[0].output[0].input_image": {"input": [
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
}  # fmt: skip


@pytest.mark.parametrize("where", REFUSED_THERE)
def test_what_responses_has_no_word_for_is_refused_by_its_path(where: str):
    """The error names the feature, and says whose protocol it is that lacks it."""
    with pytest.raises(Untranslatable) as caught:
        to_responses(**REFUSED_THERE[where])
    assert caught.value.param == where and "Responses" in caught.value.message


@pytest.mark.parametrize("where", REFUSED_BACK)
def test_what_chat_has_no_word_for_is_refused_by_its_path(where: str):
    """State, tools of the provider's own, and what nobody knows."""
    with pytest.raises(Untranslatable) as caught:
        to_chat(**REFUSED_BACK[where])
    assert caught.value.param == where and "Chat Completions" in caught.value.message


# -- answers ---------------------------------------------------------------------------------------------------

USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2}}  # fmt: skip
ANSWERS = st.fixed_dictionaries({}, optional={
    "content": SAID, "refusal": SAID, "reasoning_content": SAID,
    "tool_calls": st.lists(st.builds(
        lambda name, said: {"id": name, "type": "function", "function": {"name": "f", "arguments": said}}, SAID, SAID,
    ), min_size=1, max_size=3),
})  # fmt: skip


def chat_answer(message: dict[str, Any], finish: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, **message}
    choices = [{"index": 0, "message": said, "finish_reason": finish}]
    return {"id": "resp_1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": USED}


def fragments(whole: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Return the chunks of *whole*, what they say cut into pieces, those of the calls in turns."""
    chunks: list[dict[str, Any]] = []
    for chunk in CHAT.unfold(whole):
        delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
        if not any(delta.get(name) for name in ("content", "refusal", "reasoning_content", "tool_calls")):
            chunks.append(chunk)
            continue
        for name in ("reasoning_content", "content", "refusal"):
            text = delta.get(name) or ""
            pieces = [{name: text[at : at + size]} for at in range(0, len(text), size)]
            chunks += [{**chunk, "choices": [{"index": 0, "delta": piece}]} for piece in pieces]
        calls = delta.get("tool_calls") or []
        for call in calls:
            begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
            chunks.append({**chunk, "choices": [{"index": 0, "delta": {"tool_calls": [begun]}}]})
        longest = max((len(call["function"]["arguments"]) for call in calls), default=0)
        for at in range(0, longest, size):
            for call in calls:
                piece = {
                    "index": call["index"],
                    "function": {"arguments": call["function"]["arguments"][at : at + size]},
                }
                chunks.append({**chunk, "choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})
    return chunks


@settings(max_examples=100, deadline=None)
@given(ANSWERS, st.integers(1, 5))
def test_an_answer_of_chat_keeps_its_words_in_responses_and_back(message: dict[str, Any], size: int):
    """However it is cut: words, thoughts, calls, why it ended, what it used."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    whole = chat_answer(message, finish)
    there = in_responses(fragments(whole, size))
    assert RESPONSES.usage(there) == CHAT.usage(whole)
    kinds = [item["type"] for item in there["output"]]
    assert kinds.count("function_call") == len(message.get("tool_calls") or ())
    back = in_chat(RESPONSES.unfold(there))["choices"][0]
    assert back["finish_reason"] == finish
    told = {name: value for name, value in back["message"].items() if value is not None and name != "role"}
    assert told == message


@pytest.mark.parametrize(
    ("finish", "status"), [("stop", "completed"), ("length", "incomplete"), ("content_filter", "incomplete")]
)
def test_why_an_answer_ended_is_kept(finish: str, status: str):
    """There and back."""
    there = in_responses(CHAT.unfold(chat_answer({"content": "so"}, finish)))
    assert there["status"] == status
    assert in_chat(RESPONSES.unfold(there))["choices"][0]["finish_reason"] == finish


def test_whole_answers_go_the_same_way():
    """By unfolding: whole and stream cannot differ."""
    reply = Reply(CHAT, body=orjson.dumps(chat_answer({"content": "so"}, "stop")))
    asked = {"model": "m", "input": "Hi", "instructions": "x", "tools": [{"type": "function", "name": "f"}]}
    found = translated(reply, asked, TO_CHAT, RESPONSES, CHAT).data
    assert found["output"][0]["content"][0]["text"] == "so" and found["instructions"] == "x"
    assert found["tools"] == [{"parameters": None, "strict": True, "type": "function", "name": "f"}]


def test_a_call_whose_name_comes_late_loses_nothing():
    """Its arguments wait for it."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(finish: str | None = None, **function: Any) -> dict[str, Any]:
        delta = {"tool_calls": [{"index": 0, "function": function}]} if function else {}
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    found = in_responses([chunk(arguments='{"a"'), chunk(name="f", arguments=": 1}"), chunk("tool_calls")])
    assert (found["output"][0]["name"], found["output"][0]["arguments"]) == ("f", '{"a": 1}')


def test_servers_that_send_only_what_is_done_are_understood():
    """No deltas: the text and the arguments are in the last events of their items."""
    part = {"type": "output_text", "text": "so", "annotations": [], "logprobs": []}
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
    response = {"id": "r", "object": "response", "status": "completed", "output": [], "model": "m", "created_at": 1}
    found = in_chat([
        {"type": "response.output_text.done", **place, "text": "so", "logprobs": [], "part": part},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.completed", "response": response},
    ])  # fmt: skip
    message = found["choices"][0]["message"]
    assert message["content"] == "so" and message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_an_answer_that_failed_is_an_error():
    """Neither an end, nor nothing: what the provider says went wrong."""
    failed = {"type": "response.failed", "response": {"error": {"code": "x", "message": "overloaded"}}}
    with pytest.raises(UpstreamError, match="overloaded"):
        TO_RESPONSES.translator({}).feed(failed)
    with pytest.raises(UpstreamError, match="why its answer ended"):
        TO_CHAT.translator({}).end()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(
    st.sampled_from(["choices", "usage", "id", "model", "error", "created"]),
    st.recursive(st.one_of(st.none(), st.integers(), SAID), lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["index", "delta", "content", "tool_calls", "function", "name"]), inner)),
        max_leaves=6),
), max_size=4))  # fmt: skip
def test_garbage_is_an_error_at_most(chunks: list[dict[str, Any]]):
    """An `UpstreamError`, and never anything else."""
    translator = TO_CHAT.translator({"model": "m"})
    made: list[dict[str, Any]] = []
    try:
        for chunk in chunks:
            made += translator.feed(chunk)
        made += translator.end()
    except UpstreamError as error:
        assert error.message
    assert all(event["type"].startswith("response.") for event in made)
