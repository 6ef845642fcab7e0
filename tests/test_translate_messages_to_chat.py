"""Requests from Messages to Chat, and there and back: what is carried means the same, the rest is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anthropic.types
import openai.types.chat
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from negawatt.errors import InvalidRequest
from negawatt.translate.chat_to_messages import ChatToMessages
from negawatt.translate.messages_to_chat import MessagesToChat
from negawatt.translate.table import Untranslatable

PNG = "iVBORw0KGgo="
MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


def to_chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return MessagesToChat().request({**MESSAGES, **({"messages": list(messages)} if messages else {}), **fields})


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


# -- Messages to Chat ------------------------------------------------------------------------------------------


def test_results_come_before_what_the_user_says():
    """Each is a message of its own; an error is told in words, and images go where Chat can have them."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    use = {"type": "tool_use", "name": "look", "input": {"at": "sky"}}
    asked = to_chat(
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "So."}, {**use, "id": "a"}, {**use, "id": "b"}]},
        user(
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "seen"}, image]},
            {"type": "tool_result", "tool_use_id": "b", "content": "no sky", "is_error": True},
            {"type": "text", "text": "Well?"},
        ),
    )
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    assert asked["messages"][1:] == [
        {"role": "assistant", "content": "So.", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no sky"},
        user(
            {"type": "text", "text": "From the result of a:"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "text", "text": "Well?"},
        ),
    ]


def test_documents_are_carried():
    """PDF data as a file; plain text and search results as text, after what they are called."""
    plain = {"type": "text", "media_type": "text/plain", "data": "Lorem"}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    found = {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "R"}]}
    content = [{"type": "document", "source": plain, "title": "A"}, {"type": "document", "source": pdf}, found]
    assert to_chat(user(*content))["messages"][0]["content"] == [
        {"type": "text", "text": "A"},
        {"type": "text", "text": "Lorem"},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "text", "text": "T\nS"},
        {"type": "text", "text": "R"},
    ]


def test_past_thinking_and_marks_for_the_cache_are_left_out():
    """The one cannot be checked by another provider, the other changes no answer."""
    cached = {"cache_control": {"type": "ephemeral"}}
    asked = to_chat(
        {"role": "user", "content": [{"type": "text", "text": "Hi", **cached}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Hello"},
            ],
        },
        {"role": "user", "content": "Well?"},
        system=[{"type": "text", "text": "Be brief.", **cached}],
        tools=[{"name": "look", "input_schema": SCHEMA, **cached}],
        cache_control={"type": "ephemeral"},
    )
    assert [message["content"] for message in asked["messages"]] == ["Be brief.", "Hi", "Hello", "Well?"]
    assert asked["tools"] == [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]
    assert b"ephemeral" not in orjson.dumps(asked)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
        ({"max_tokens": 7}, {"max_completion_tokens": 7}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, {"reasoning_effort": "high"}),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "adaptive"}}, {"reasoning_effort": "max"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
    ],
)
def test_settings_are_carried_to_chat(fields: dict[str, Any], expected: dict[str, Any]):
    """Each in the words of Chat."""
    asked = to_chat(**fields)
    for name, value in expected.items():
        assert asked[name] == value


def test_adaptive_thinking_without_an_effort_is_the_providers_default():
    """The model decides: there is nothing to say."""
    assert to_chat(thinking={"type": "adaptive", "display": "summarized"}) == to_chat()


def test_a_user_id_that_is_too_long_is_hashed():
    """OpenAI takes 64 characters; nobody has to be able to read it."""
    told = to_chat(metadata={"user_id": "u" * 65})["user"]
    assert len(told) == 64
    assert told != "u" * 64


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_k": 5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"container": "c"}, "container"),
        ({"speed": "fast"}, "speed"),
        ({"thinking": {"type": "between_tools"}}, "thinking"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
        ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"never_heard_of": 1}, "never_heard_of"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "a", "input_schema": SCHEMA, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"messages": [user({"type": "server_tool_use", "id": "x"})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "hologram"})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "text", "text": "a", "x": 1})]}, "messages[0].content[0].x"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
            "messages[0].content[0].source",
        ),
        (
            {"messages": [user({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}})]},
            "messages[0].content[0].source",
        ),
        ({"messages": [{"role": "assistant", "content": "The answer is ("}]}, "messages[0]"),
    ],
)
def test_what_chat_has_no_word_for_is_refused_by_its_path(fields: dict[str, Any], param: str):
    """Nothing is lost in silence."""
    with pytest.raises(Untranslatable, match="Chat Completions") as caught:
        to_chat(**fields)
    assert caught.value.param == param


def test_only_thinking_is_cleared_which_is_left_out_anyway():
    """As Claude Code asks for it."""
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}]
    assert to_chat(context_management={"edits": edits}, diagnostics={"previous_message_id": None}) == to_chat()


@pytest.mark.parametrize(
    ("way", "fields", "param"),
    [
        (ChatToMessages(), {"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        (ChatToMessages(), {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (ChatToMessages(), {"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        (ChatToMessages(), {"tools": [{"type": "function"}]}, "tools[0].function"),
        (ChatToMessages(), {"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        (MessagesToChat(), {"messages": [user({"type": "image"})]}, "messages[0].content[0].source"),
        (MessagesToChat(), {"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        (MessagesToChat(), {"system": [{"type": "text"}]}, "system[0].text"),
        (MessagesToChat(), {"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ],
)
def test_what_is_not_of_the_right_kind_is_refused_by_its_path(way: Any, fields: dict[str, Any], param: str):
    """Only the outermost fields have been looked at before."""
    with pytest.raises(InvalidRequest) as caught:
        way.request({**MESSAGES, **fields})
    assert caught.value.param == param


# -- laws ------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NAME = st.text("abc_", min_size=1, max_size=6)
TEXT = st.fixed_dictionaries({"type": st.just("text"), "text": WORDS})
IMAGE = st.fixed_dictionaries(
    {
        "type": st.just("image"),
        "source": st.one_of(
            st.just({"type": "base64", "media_type": "image/png", "data": PNG}),
            st.just({"type": "url", "url": "https://example.com/a.jpg"}),
        ),
    }
)
INPUT = st.dictionaries(
    WORDS, st.one_of(WORDS, st.integers(-9, 9), st.none(), st.booleans(), st.lists(WORDS)), max_size=3
)


def short(blocks: list[dict[str, Any]]) -> Any:
    """Return the string for a single text."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return turns in turn, from the user's first to the user's last, each call with its result."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": short(draw(st.lists(TEXT | IMAGE, min_size=1, max_size=3)))}
    ]
    for turn in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            messages.append({"role": "system", "content": draw(WORDS)})
        said = draw(st.lists(TEXT, max_size=2))
        calls = [
            {"type": "tool_use", "id": f"call_{turn}_{place}", "name": draw(NAME), "input": draw(INPUT)}
            for place in range(draw(st.integers(0 if said else 1, 3)))
        ]
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call["id"],
                "content": draw(st.one_of(st.just(""), WORDS, st.lists(TEXT, min_size=2, max_size=2))),
            }
            for call in calls
        ]
        after = draw(st.lists(TEXT | IMAGE, min_size=0 if results else 1, max_size=2))
        messages += [
            {"role": "assistant", "content": short(said + calls)},
            {"role": "user", "content": short(results + after)},
        ]
    return messages


TOOL = st.fixed_dictionaries(
    {"name": NAME, "input_schema": st.just(SCHEMA)}, optional={"description": WORDS, "strict": st.booleans()}
)
CHOICE = st.one_of(
    st.just({"type": "none"}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["auto", "any"])}, optional={"disable_parallel_tool_use": st.just(True)}
    ),
    st.fixed_dictionaries({"type": st.just("tool"), "name": NAME}),
)
THINKING = st.sampled_from(
    [
        {},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ]
)
REQUEST = st.builds(
    lambda required, optional, tools, thinking: {**required, **optional, **tools, **thinking},
    st.fixed_dictionaries(
        {"model": WORDS, "max_tokens": st.integers(1, 10**6), "messages": conversations()},
        optional={"system": st.one_of(WORDS, st.lists(TEXT, min_size=2, max_size=3))},
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 1),
            "top_p": st.floats(0, 1),
            "stop_sequences": st.lists(WORDS, min_size=1, max_size=3),
            "stream": st.booleans(),
            "metadata": st.fixed_dictionaries({"user_id": WORDS}),
            "service_tier": st.just("standard_only"),
        },
    ),
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"tools": st.lists(TOOL, min_size=1, max_size=2)}, optional={"tool_choice": CHOICE}),
    ),
    THINKING,
)


@settings(max_examples=150, deadline=None)
@given(REQUEST)
def test_there_and_back_a_request_means_the_same(request: dict[str, Any]):
    """Text, images, tools, calls and their results, system messages, settings."""
    before = orjson.dumps(request)
    there = MessagesToChat().request(request)
    assert ChatToMessages().request(there) == request
    assert orjson.dumps(request) == before, "translating leaves the request alone"


@settings(max_examples=100, deadline=None)
@given(REQUEST)
def test_what_is_sent_has_the_shapes_that_the_sdks_know(request: dict[str, Any]):
    """Each message and tool, by the types of the real SDKs."""
    chat = MessagesToChat().request(request)
    for message in chat["messages"]:
        well_formed(openai.types.chat.ChatCompletionMessageParam, message)
    for tool in chat.get("tools", ()):
        well_formed(openai.types.chat.ChatCompletionToolUnionParam, tool)
    back = ChatToMessages().request(chat)
    for message in back["messages"]:
        well_formed(anthropic.types.MessageParam, message)
    for tool in back.get("tools", ()):
        well_formed(anthropic.types.ToolParam, tool)


ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def well_formed(shape: Any, value: Mapping[str, Any]) -> None:
    ADAPTERS.setdefault(shape, TypeAdapter(shape))
    exhausted(ADAPTERS[shape].validate_python(value))


def exhausted(value: Any) -> None:
    """Go through *value*: pydantic looks into iterables only then."""
    if isinstance(value, Mapping):
        for inner in value.values():
            exhausted(inner)
    elif not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
        for inner in value:
            exhausted(inner)
