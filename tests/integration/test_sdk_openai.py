"""OpenAI's SDK, unmodified, in every protocol of its own: whole, streamed, with tools, with schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from speaking import Spoken, spoken, used

MODELS = pytest.mark.parametrize("model", ["chat-1", "responses-1", "messages-1", "all-1"])
TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
MEASURED = (100, 20, 40)


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoken]:
    with spoken(tmp_path_factory.mktemp("openai")) as one:
        yield one


@pytest.fixture
def client(gateway: Spoken, task: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=gateway.base_url, api_key="unused", max_retries=0, default_headers={"x-negawatt-task": task}
    )


def booked(gateway: Spoken, task: str, protocol: str) -> None:
    """See that the one row of *task* has what the provider used, whatever was translated."""
    row = gateway.one_row(task)
    assert used(row)[:3] == MEASURED and row["usage_basis"] == "measured"
    assert (row["protocol"], row["ending"]) == (protocol, "answered")


# -- Chat Completions ------------------------------------------------------------------------------------------------


@MODELS
def test_chat_whole(client: openai.OpenAI, gateway: Spoken, task: str, model: str) -> None:
    """A text and its usage, the same from a provider of any protocol."""
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "you said: hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (100, 20)
    booked(gateway, task, "chat")


@MODELS
@pytest.mark.parametrize("include_usage", [True, False])
def test_chat_streamed(client: openai.OpenAI, gateway: Spoken, task: str, model: str, include_usage: bool) -> None:
    """In pieces; the usage chunk with what the call came to, if it was asked for."""
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], stream=True, **options
    ))  # fmt: skip
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(said) == "you said: hello" and len([word for word in said if word]) > 1
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    assert len(with_usage) == include_usage
    if include_usage:
        last = chunks[-1]
        assert last.usage is not None and last.usage.total_tokens == 120 and last.choices == []
        assert last.negawatt["call_id"] == gateway.one_row(task)["id"]
    booked(gateway, task, "chat")


@MODELS
@pytest.mark.parametrize("stream", [False, True])
def test_chat_tools(client: openai.OpenAI, model: str, stream: bool) -> None:
    """The model calls, is told the result, and answers."""
    messages: Any = [{"role": "user", "content": "weather?"}]
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": TOOL, "strict": True}}]
    if stream:
        with client.chat.completions.stream(model=model, messages=messages, tools=tools) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(model=model, messages=messages, tools=tools).choices[0].message
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert (call.function.name, call.function.arguments.replace(" ", "")) == ("weather", '{"city":"Ada"}')
    messages += [message.model_dump(exclude_none=True, exclude={"parsed"}), {
        "role": "tool", "tool_call_id": call.id, "content": "sunny"}]  # fmt: skip
    for one in messages[1].get("tool_calls", []):
        one["function"].pop("parsed_arguments", None)
    answer = client.chat.completions.create(model=model, messages=messages, tools=tools)
    assert answer.choices[0].message.content == "you said: the tool said sunny"


@MODELS
def test_chat_parse(client: openai.OpenAI, model: str) -> None:
    """A pydantic model in, an object of it back."""
    answer = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "who?"}], response_format=Person
    )
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)


@MODELS
def test_chat_pictures(client: openai.OpenAI, model: str) -> None:
    """Beside words."""
    pixel = "data:image/png;base64,iVBORw0KGgo="
    content: Any = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": pixel}}]
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == "you said: look [picture]"


def test_chat_is_lossless(client: openai.OpenAI, gateway: Spoken, task: str) -> None:
    """Fields and headers that nobody here knows pass both ways."""
    raw = client.chat.completions.with_raw_response.create(
        model="chat-1", messages=[{"role": "user", "content": "hello"}], user=task,
        extra_body={"x_unknown": {"kept": [1, None]}}, extra_headers={"x-custom": "kept", "openai-beta": "b=1"},
    )  # fmt: skip
    assert raw.headers["x-speaker"] == "kept" and raw.parse().x_speaker == {"kept": True}
    asked = gateway.speaker.last(task)
    assert asked["body"]["x_unknown"] == {"kept": [1, None]}
    assert (asked["headers"]["x-custom"], asked["headers"]["openai-beta"]) == ("kept", "b=1")
    assert "authorization" not in asked["headers"] and "x-negawatt-task" not in asked["headers"]


# -- Responses -------------------------------------------------------------------------------------------------------


@MODELS
def test_responses_whole(client: openai.OpenAI, gateway: Spoken, task: str, model: str) -> None:
    """A text and its usage."""
    answer = client.responses.create(model=model, input="hello", instructions="Be brief.")
    assert answer.output_text == "you said: hello" and answer.status == "completed"
    assert answer.usage is not None and (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)
    assert answer.usage.input_tokens_details.cached_tokens == 40
    booked(gateway, task, "responses")


@MODELS
def test_responses_streamed(client: openai.OpenAI, gateway: Spoken, task: str, model: str) -> None:
    """Through the SDK's own accumulation; the last event says what the call came to."""
    with client.responses.stream(model=model, input="hello") as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert final.output_text == "you said: hello"
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > 1
    assert final.usage is not None and final.usage.total_tokens == 120
    last: Any = list(client.responses.create(model=model, input="hello", stream=True, metadata={}))[-1]
    assert last.response.negawatt["class"] == "default"
    rows = gateway.settled_rows(task, 2)
    assert [used(row)[:3] for row in rows] == [MEASURED] * 2


@MODELS
@pytest.mark.parametrize("stream", [False, True])
def test_responses_tools(client: openai.OpenAI, model: str, stream: bool) -> None:
    """A call, its result, an answer."""
    tools: Any = [{"type": "function", "name": "weather", "parameters": TOOL, "strict": True}]
    if stream:
        with client.responses.stream(model=model, input="weather?", tools=tools) as events:
            list(events)
            answer: Any = events.get_final_response()
    else:
        answer = client.responses.create(model=model, input="weather?", tools=tools)
    call = next(item for item in answer.output if item.type == "function_call")
    assert (call.name, call.arguments.replace(" ", "")) == ("weather", '{"city":"Ada"}')
    told: Any = [
        {"role": "user", "content": "weather?"},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    answer = client.responses.create(model=model, input=told, tools=tools)
    assert answer.output_text == "you said: the tool said sunny"


@MODELS
def test_responses_parse(client: openai.OpenAI, model: str) -> None:
    """A pydantic model in, an object of it back."""
    answer = client.responses.parse(model=model, input="who?", text_format=Person)
    assert answer.output_parsed == Person(name="Ada", age=36)


def test_responses_go_on(client: openai.OpenAI, gateway: Spoken, task: str) -> None:
    """`previous_response_id` passes through; where the provider has no memory, it is refused by its name."""
    first = client.responses.create(model="responses-1", input="hello", user=task)
    second = client.responses.create(model="responses-1", input="more", previous_response_id=first.id, user=task)
    assert second.output_text == "you said: more after resp_1"
    assert gateway.speaker.last(task)["body"]["previous_response_id"] == first.id
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="chat-1", input="more", previous_response_id=first.id)
    assert (caught.value.code, caught.value.param) == ("untranslatable", "previous_response_id")


def test_responses_thoughts(client: openai.OpenAI) -> None:
    """Shown in the provider's own protocol, and from one that thinks in another."""
    for model in ("responses-1", "messages-1"):
        answer: Any = client.responses.create(model=model, input="hello", reasoning={"effort": "low"})
        assert [item.type for item in answer.output] == ["reasoning", "message"], model
        assert answer.output[0].summary[0].text == "Let me see."


@pytest.mark.parametrize(
    ("fields", "where"),
    [({"tools": [{"type": "web_search"}]}, "tools[0].web_search"), ({"max_tool_calls": 1}, "max_tool_calls")],
)
def test_what_cannot_be_translated_is_refused_by_name(client: openai.OpenAI, fields: Any, where: str) -> None:
    """A 400 that names the feature, as the SDK's own exception."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="messages-1", input="hello", **fields)
    assert (caught.value.code, caught.value.param) == ("untranslatable", where)


# -- the rest --------------------------------------------------------------------------------------------------------


def test_embeddings(client: openai.OpenAI, gateway: Spoken, task: str) -> None:
    """Base64, as the SDK asks by default, and numbers; paid by input."""
    for form in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model="all-1", input=["a", "bcd"], **form)
        assert [item.embedding for item in answer.data] == [[1.0, 0.5], [3.0, 0.5]]
    rows = gateway.settled_rows(task, 2)
    assert {(row["input_tokens"], row["output_tokens"], row["operation"]) for row in rows} == {(100, 0, "embeddings")}


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client: openai.OpenAI, gateway: Spoken, task: str, stream: bool) -> None:
    """The legacy protocol."""
    answer: Any = client.completions.create(model="all-1", prompt="once", stream=stream)
    parts = [part.choices[0].text for part in answer] if stream else [answer.choices[0].text]
    assert "".join(parts) == " and once"
    booked(gateway, task, "completions")


def test_models(client: openai.OpenAI) -> None:
    """Listed, and one by its name."""
    assert "speaker-1" in [model.id for model in client.models.list()] or client.models.retrieve("chat-1")
    assert client.models.retrieve("chat-1").owned_by == "chat"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
