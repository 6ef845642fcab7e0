"""Requests from Chat to Messages: what is carried means the same, the rest is refused by name."""

from __future__ import annotations

import typing
from typing import Any

import anthropic.types
import openai.types.chat
import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from negawatt.translate import chat_to_messages, messages_to_chat
from negawatt.translate.chat_to_messages import DEFAULT_MAX_TOKENS, ChatToMessages
from negawatt.translate.table import Untranslatable

PNG = "iVBORw0KGgo="
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}


def to_messages(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return ChatToMessages().request({**CHAT, **({"messages": list(messages)} if messages else {}), **fields})


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


# -- the tables ------------------------------------------------------------------------------------------------


def test_every_field_of_a_chat_request_has_its_row():
    """A field that the API has and the table does not would be refused as unknown."""
    public = {*typing.get_type_hints(CompletionCreateParamsBase), "stream"}
    assert public <= chat_to_messages.FIELDS.keys()


def test_every_field_of_a_messages_request_has_its_row():
    """The SDK no longer lists the sampling parameters, which the API still takes for older models."""
    public = {*typing.get_type_hints(MessageCreateParamsBase), "stream", "temperature", "top_p", "top_k"}
    assert public <= messages_to_chat.FIELDS.keys()


def kinds_of(union: Any) -> set[str]:
    """Return the literal ``type`` of each member of a union of typed dictionaries."""
    members = [typing.get_type_hints(member) for member in typing.get_args(union)]
    return {typing.get_args(member["type"])[0] for member in members if "type" in member}


def test_every_kind_of_content_has_its_row():
    """Messages and parts of Chat, blocks of Messages."""
    assert kinds_of(anthropic.types.ContentBlockParam) <= messages_to_chat.CONTENT.keys()
    assert kinds_of(openai.types.chat.ChatCompletionContentPartParam) <= chat_to_messages.CONTENT.keys()
    roles = {"system", "developer", "user", "assistant", "tool", "function"}
    assert roles <= chat_to_messages.CONTENT.keys()


@pytest.mark.parametrize("module", [chat_to_messages, messages_to_chat])
def test_whatever_is_refused_or_left_out_says_why(module: Any):
    """The documentation prints these notes, and so do the refusals."""
    for name, field in {**module.FIELDS, **module.CONTENT}.items():
        assert field.note or field.how == "same", name


# -- Chat to Messages ------------------------------------------------------------------------------------------


def test_the_first_system_messages_become_the_system_prompt():
    """All of those that come before anything else; one is a string, several are blocks."""
    hello = {"role": "user", "content": "Hi"}
    one = to_messages({"role": "system", "content": "Be brief."}, hello)
    assert one["system"] == "Be brief."
    assert one["messages"] == [hello]
    two = to_messages({"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, hello)
    assert two["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_a_later_system_message_stays_where_it_is():
    """Messages allows one between the user and the assistant, or at the end."""
    later = [{"role": "user", "content": "Hi"}, {"role": "developer", "content": "Now in French."}]
    assert to_messages(*later)["messages"][1] == {"role": "system", "content": "Now in French."}


def test_a_system_message_that_messages_cannot_place_is_refused():
    """Between the assistant and the user there can be none; moving it would change what it applies to."""
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    with pytest.raises(Untranslatable) as caught:
        to_messages(*said, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"})
    assert caught.value.param == "messages[2]"


def test_tool_calls_and_their_results_become_blocks():
    """The results of one turn, and what the user says after them, are one message."""
    asked = to_messages(
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, {**CALL, "id": "call:2"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
        {"role": "tool", "tool_call_id": "call:2", "content": [{"type": "text", "text": "grey"}]},
        {"role": "user", "content": "So?"},
        tools=[{"type": "function", "function": {**FUNCTION, "strict": True}}],
    )
    text, first, second = asked["messages"][1]["content"]
    assert text == {"type": "text", "text": "Let me see."}
    assert first == {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "sky"}}
    assert asked["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "blue"},
        {"type": "tool_result", "tool_use_id": second["id"], "content": "grey"},
        {"type": "text", "text": "So?"},
    ]
    assert second["id"].startswith("toolu_"), "Messages takes no colon in an id"
    tool = {"name": "look", "description": "Looks.", "input_schema": FUNCTION["parameters"], "strict": True}
    assert asked["tools"] == [tool]
    assert "tool_choice" not in asked


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("auto", None, {"type": "auto"}),
        ("none", None, {"type": "none"}),
        ("none", False, {"type": "none"}),
        ("required", True, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "look"}}, None, {"type": "tool", "name": "look"}),
    ],
)
def test_the_choice_of_tools_is_carried(choice: Any, parallel: bool | None, expected: dict[str, Any]):
    """Parallel calls are forbidden inside of the choice."""
    tools = [{"type": "function", "function": FUNCTION}]
    asked = to_messages(tools=tools, tool_choice=choice, parallel_tool_calls=parallel)
    assert asked["tool_choice"] == expected


def test_a_function_without_parameters_takes_an_empty_object():
    """Chat lets them be left out, Messages wants a schema."""
    asked = to_messages(tools=[{"type": "function", "function": {"name": "now"}}])
    assert asked["tools"] == [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]


def test_images_and_pdf_are_carried():
    """As data and by URL; whatever marks them for Anthropic's cache stays."""
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {
            "type": "image_url",
            "image_url": {"url": "https://example.com/a.jpg"},
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    image, linked, document = to_messages({"role": "user", "content": content})["messages"][0]["content"]
    assert image == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    source = {"type": "url", "url": "https://example.com/a.jpg"}
    assert linked == {"type": "image", "source": source, "cache_control": {"type": "ephemeral"}}
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    assert document == {"type": "document", "source": source, "title": "a.pdf"}


def test_thinking_goes_back_to_whoever_signed_it():
    """Only what has a signature, in the form that it was handed out in; other reasoning is left out."""
    details = [
        {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "xyz", "format": "anthropic-claude-v1", "index": 1},
        {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "google-gemini-v1"},
        {"type": "reasoning.text", "text": "Hm.", "format": "anthropic-claude-v1"},
    ]
    said = {"role": "assistant", "content": "Blue.", "reasoning_content": "Hm.", "reasoning_details": details}
    asked = to_messages({"role": "user", "content": "Hi"}, said, {"role": "user", "content": "Why?"})
    assert asked["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "Blue."},
    ]


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"max_tokens": DEFAULT_MAX_TOKENS}),
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 7, "max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"user": "u", "safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "priority"}, {"service_tier": "auto"}),
        ({"temperature": 1, "top_p": 0.5, "stream": True}, {"temperature": 1, "top_p": 0.5, "stream": True}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"reasoning_effort": "minimal"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ({"reasoning_effort": "xhigh"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
        (
            {"reasoning_effort": "high", "thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "output_config": {"effort": "high"}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
    ],
)
def test_settings_are_carried(fields: dict[str, Any], expected: dict[str, Any]):
    """Each in the words of Messages."""
    asked = to_messages(**fields)
    for name, value in expected.items():
        assert asked[name] == value


def test_what_says_no_more_than_silence_is_left_out():
    """Libraries send defaults with every request, and nulls; these are no reason to refuse."""
    silent = {
        "n": 1, "logprobs": False, "top_logprobs": 0, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {},
        "modalities": ["text"], "verbosity": "medium", "response_format": {"type": "text"}, "seed": None, "store": True,
        "metadata": {"a": "b"}, "stream_options": {"include_usage": True}, "prompt_cache_key": "k", "stop": [],
        "tool_choice": "auto", "parallel_tool_calls": False, "prediction": {"type": "content", "content": "x"},
    }  # fmt: skip
    assert to_messages(**silent) == to_messages()


HI = CHAT["messages"][0]
BAD_CALL = {**CALL, "function": {"name": "look", "arguments": "{"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 0}, "seed"),
        ({"temperature": 1.2}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"never_heard_of": 1}, "never_heard_of"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {**FUNCTION, "new": 1}}]}, "tools[0].function.new"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"messages": [user({"type": "input_audio", "input_audio": {}})]}, "messages[0].content[0].input_audio"),
        ({"messages": [user({"type": "text", "text": "a"}, {"type": "video"})]}, "messages[0].content[1].type"),
        ({"messages": [user({"type": "text", "text": "a", "x": 1})]}, "messages[0].content[0].x"),
        ({"messages": [user({"type": "file", "file": {"file_id": "f"}})]}, "messages[0].content[0].file.file_id"),
        (
            {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}})]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [HI, {"role": "function", "name": "f", "content": "x"}]}, "messages[1]"),
        ({"messages": [{**HI, "name": "Ann"}]}, "messages[0].name"),
        (
            {"messages": [HI, {"role": "assistant", "tool_calls": [BAD_CALL]}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)  # fmt: skip
def test_what_messages_has_no_word_for_is_refused_by_its_path(fields: dict[str, Any], param: str):
    """Nothing is lost in silence."""
    with pytest.raises(Untranslatable, match="Anthropic Messages") as caught:
        to_messages(**fields)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
