"""Anthropic's SDK, unmodified: messages whole and streamed, tools, thinking, counting; its own provider or another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from speaking import Spoken, spoken, used

MODELS = pytest.mark.parametrize("model", ["messages-1", "chat-1", "responses-1", "all-1"])
HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
MEASURED = (100, 20, 40)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoken]:
    with spoken(tmp_path_factory.mktemp("anthropic")) as one:
        yield one


@pytest.fixture
def client(gateway: Spoken, task: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=gateway.url, api_key="unused", max_retries=0, default_headers={"x-negawatt-task": task}
    )


@MODELS
def test_messages_whole(client: anthropic.Anthropic, gateway: Spoken, task: str, model: str) -> None:
    """A text; input leaves out what was read from the provider's cache, and the books have all of it."""
    answer = client.messages.create(model=model, max_tokens=100, messages=HELLO, system="Be brief.")
    assert answer.content[0].type == "text" and answer.content[0].text == "you said: hello"
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (60, 40)
    assert answer.usage.output_tokens == 20
    row = gateway.one_row(task)
    assert used(row)[:3] == MEASURED and row["protocol"] == "messages"


@MODELS
def test_messages_streamed(client: anthropic.Anthropic, gateway: Spoken, task: str, model: str) -> None:
    """Through the SDK's own accumulation; the event with the usage says what the call came to."""
    with client.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "you said: hello"
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn" and final.usage.output_tokens == 20
    events = list(client.messages.create(model=model, max_tokens=100, messages=HELLO, stream=True))
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    note: Any = next(event for event in events if event.type == "message_delta")
    assert note.negawatt["cache"] == "bypass" and note.usage.output_tokens == 20
    assert [used(row)[:3] for row in gateway.settled_rows(task, 2)] == [MEASURED] * 2


@MODELS
@pytest.mark.parametrize("stream", [False, True])
def test_messages_tools(client: anthropic.Anthropic, model: str, stream: bool) -> None:
    """A call, its result, an answer."""
    asked: Any = [{"role": "user", "content": "weather?"}]
    if stream:
        with client.messages.stream(model=model, max_tokens=100, messages=asked, tools=[TOOL]) as events:
            answer: Any = events.get_final_message()
    else:
        answer = client.messages.create(model=model, max_tokens=100, messages=asked, tools=[TOOL])
    assert answer.stop_reason == "tool_use"
    call = next(block for block in answer.content if block.type == "tool_use")
    assert (call.name, call.input) == ("weather", {"city": "Ada"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    spoken_of: Any = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]
    asked += [{"role": "assistant", "content": spoken_of}, {"role": "user", "content": [result]}]
    answer = client.messages.create(model=model, max_tokens=100, messages=asked, tools=[TOOL])
    assert answer.content[0].text == "you said: the tool said sunny"


@MODELS
def test_messages_with_a_schema(client: anthropic.Anthropic, model: str) -> None:
    """Structured output, whoever answers."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    answer: Any = client.messages.create(
        model=model, max_tokens=100, messages=HELLO,
        output_config={"format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}},
    )  # fmt: skip
    assert answer.content[0].text == '{"age": 36}'


def test_thinking_keeps_its_signature(client: anthropic.Anthropic) -> None:
    """Whole and streamed, in its own protocol."""
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    answer: Any = client.messages.create(model="messages-1", max_tokens=2000, messages=HELLO, thinking=thinking)
    with client.messages.stream(model="messages-1", max_tokens=2000, messages=HELLO, thinking=thinking) as stream:
        streamed: Any = stream.get_final_message()
    for one in (answer, streamed):
        assert (one.content[0].thinking, one.content[0].signature) == ("Let me see.", "c2lnbmVk")


def test_it_is_lossless(client: anthropic.Anthropic, gateway: Spoken, task: str) -> None:
    """Marks for the provider's cache, betas, and what nobody here knows."""
    content: Any = [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    answer: Any = client.messages.create(
        model="messages-1", max_tokens=100, messages=[{"role": "user", "content": content}],
        metadata={"user_id": task}, extra_headers={"anthropic-beta": "new-2026"}, extra_body={"x_unknown": 1},
    )  # fmt: skip
    assert answer.x_speaker == {"kept": True}
    asked = gateway.speaker.last(task)
    assert asked["body"]["messages"][0]["content"] == content and asked["body"]["x_unknown"] == 1
    assert asked["headers"]["anthropic-beta"] == "new-2026" and asked["headers"]["anthropic-version"]
    assert "x-api-key" not in asked["headers"]


def test_counting(client: anthropic.Anthropic, gateway: Spoken, task: str) -> None:
    """By the provider where it can, else here, which the answer says; it costs nothing."""
    assert client.messages.count_tokens(model="all-1", messages=HELLO).input_tokens == 100
    here: Any = client.messages.count_tokens(model="chat-1", messages=HELLO)
    assert here.input_tokens > 5 and here.negawatt["basis"] in ("estimated", "corrected")
    rows = gateway.settled_rows(task, 2)
    assert {(row["cost_pusd"], row["input_tokens"], row["ending"]) for row in rows} == {(0, 0, "answered")}


def test_what_cannot_be_translated_is_refused_by_name(client: anthropic.Anthropic) -> None:
    """As the SDK's own exception."""
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model="chat-1", max_tokens=9, messages=HELLO, extra_body={"top_k": 5})
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert (body["error"]["code"], body["error"]["param"]) == ("untranslatable", "top_k")


def test_errors_are_its_own(client: anthropic.Anthropic) -> None:
    """A model that nobody serves, a field of the wrong type."""
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=9, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="messages-1", max_tokens=9, messages=HELLO, extra_body={"max_tokens": "many"})


def test_models(client: anthropic.Anthropic) -> None:
    """In the form that the SDK reads."""
    assert client.models.retrieve("messages-1").type == "model"
    assert all(model.type == "model" for model in client.models.list())
