"""The real `openai` package against a real gateway, sync and async: what a caller who changes `base_url` sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from sdk import Sdk, text_of
from world import Gateway, Upstream, chat, in_thread


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[Sdk]:
    client = Sdk(request.param, gateway.base_url)
    yield client
    await client.close()


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "strict": True,  # some versions of the SDK stream no others
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLED = {"name": "weather", "arguments": '{"city": "Zürich", "days": 3}'}


class Person(BaseModel):
    name: str
    age: int


async def test_a_whole_answer_arrives_with_its_usage(sdk: Sdk) -> None:
    """What the provider says reaches the caller unchanged, words, reason, model and usage."""
    answer = await sdk.ask(**chat("good morning"))
    assert answer.choices[0].message.content.endswith("to good morning")
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.system_fingerprint) == ("plain", "fp_stub")
    assert answer.usage.total_tokens == 10 + answer.usage.completion_tokens


async def test_a_stream_says_what_the_whole_answer_says(sdk: Sdk, task: str) -> None:
    """The chunks joined are the answer, in order, and end with a finish reason."""
    chunks = await sdk.stream(**chat({"tag": task, "text": "one two three, größer 🙂"}))
    assert text_of(chunks) == "one two three, größer 🙂"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(chunks) == 7  # the role, five words, the reason


async def test_a_stream_has_no_usage_that_was_not_asked_for(sdk: Sdk, task: str) -> None:
    """The gateway asks the provider for the usage, to bill it; the caller who did not ask does not see it."""
    chunks = await sdk.stream(**chat({"tag": task}))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_a_stream_ends_with_its_usage_when_asked(sdk: Sdk, task: str) -> None:
    """With include_usage the last chunk carries the usage and no choices."""
    chunks = await sdk.stream(**chat({"tag": task, "text": "a b c"}, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_cached_stream_has_usage_only_when_asked(sdk: Sdk, task: str) -> None:
    """An answer from the cache keeps the same rule as one from the provider."""
    request = chat({"tag": task, "text": "a b"}, temperature=0)
    await sdk.ask(**request)
    without = await sdk.stream(**request)
    with_usage = await sdk.stream(**request, stream_options={"include_usage": True})
    assert all(chunk.usage is None and chunk.choices for chunk in without)
    assert with_usage[-1].usage.completion_tokens == 2
    assert text_of(without) == text_of(with_usage) == "a b"


async def test_tool_calls_arrive_whole_and_streamed(sdk: Sdk, task: str) -> None:
    """The name and the arguments of a call are the same in both forms, however they were cut."""
    request = chat({"tag": task, "tool": CALLED}, tools=TOOLS)
    call = (await sdk.ask(**request)).choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", *CALLED.values())
    final = await sdk.gathered(**request)
    assert final.choices[0].finish_reason == "tool_calls"
    streamed = final.choices[0].message.tool_calls[0]
    assert (streamed.id, streamed.function.name, streamed.function.arguments) == ("call_1", *CALLED.values())


async def test_what_the_provider_is_asked_is_what_was_asked(sdk: Sdk, upstream: Upstream, task: str) -> None:
    """Fields that the gateway does not know pass unharmed; the provider's key replaces the caller's."""
    asked: dict[str, Any] = {
        "model": "plain",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "tool_calls": [{"id": "call_9", "type": "function", "function": CALLED}]},
            {"role": "tool", "tool_call_id": "call_9", "content": "21 °C"},
            {"role": "user", "content": json.dumps({"tag": task})},
        ],
        "tools": TOOLS, "tool_choice": "auto", "seed": 7, "logit_bias": {"50256": -100}, "metadata": {"a": "b"},
    }  # fmt: skip
    await sdk.ask(**asked, extra_body={"future_field": {"deep": [1, 2.5, None, "é"]}})
    last = upstream.last(task)
    assert last["body"] == {**asked, "future_field": {"deep": [1, 2.5, None, "é"]}}
    assert last["path"] == "/v1/chat/completions"
    assert last["headers"]["authorization"] == "bearer the-provider-key"
    assert not [name for name in last["headers"] if name.startswith("x-")]


async def test_structured_output_is_parsed(sdk: Sdk, upstream: Upstream, task: str) -> None:
    """`parse` with a pydantic model sends a json_schema and gives the object back."""
    request = chat({"tag": task, "text": '{"name": "Ada", "age": 36}'}, temperature=0)
    for _ in range(2):  # the second one from the cache
        answer = await sdk.call("parse", **request, response_format=Person)
        assert answer.choices[0].message.parsed == Person(name="Ada", age=36)
    assert upstream.tag(task)["calls"] == 1
    assert upstream.last(task)["body"]["response_format"]["json_schema"]["name"] == "Person"


async def test_an_answer_that_breaks_its_schema_is_not_kept(sdk: Sdk, upstream: Upstream, task: str) -> None:
    """The caller gets what the model said, and the next equal call asks the model again."""
    request = chat({"tag": task, "text": '{"name": "Ada"}'}, temperature=0)
    for number in (1, 2):
        with pytest.raises(ValueError, match="age"):
            await sdk.call("parse", **request, response_format=Person)
        assert upstream.tag(task)["calls"] == number


async def test_the_models_are_listed(sdk: Sdk) -> None:
    """`models.list` gives the names that callers may use."""
    models = {model.id: model for model in await sdk.models()}
    assert {"plain", "saved", "gpt-4o-mini", "hasty"} <= models.keys()
    assert models["gpt-4o-mini"].owned_by == "priced"


@pytest.mark.parametrize("stored_as", ["whole", "stream"])
async def test_an_equal_call_is_answered_from_the_cache(
    sdk: Sdk, upstream: Upstream, task: str, stored_as: str
) -> None:
    """What was kept whole can be streamed and the other way round: the same words, one call upstream."""
    request = chat({"tag": task, "text": "two  spaces and\na line"}, temperature=0, n=2)
    first = await (sdk.ask(**request) if stored_as == "whole" else sdk.gathered(**request))
    whole, streamed, raw = await sdk.ask(**request), await sdk.gathered(**request), await sdk.raw(**request)
    assert raw.headers["x-negawatt-cache"] == "exact"
    assert upstream.tag(task)["calls"] == 1
    for again in (whole, streamed):
        assert again.id == first.id
        assert again.system_fingerprint == "fp_stub"
        said = [(c.index, c.message.content, c.finish_reason) for c in again.choices]
        assert said == [(i, "two  spaces and\na line", "stop") for i in (0, 1)]
    assert whole.usage.completion_tokens == raw.parse().usage.completion_tokens > 0


@pytest.mark.parametrize("stored_as", ["whole", "stream"])
async def test_a_tool_call_is_answered_from_the_cache(sdk: Sdk, upstream: Upstream, task: str, stored_as: str) -> None:
    """Tool calls survive the cache in both directions."""
    request = chat({"tag": task, "tool": CALLED}, tools=TOOLS, temperature=0)
    await (sdk.ask(**request) if stored_as == "whole" else sdk.gathered(**request))
    for again in (await sdk.ask(**request), await sdk.gathered(**request)):
        [call] = again.choices[0].message.tool_calls
        assert (call.id, call.function.name, call.function.arguments) == ("call_1", *CALLED.values())
        assert again.choices[0].finish_reason == "tool_calls"
    assert upstream.tag(task)["calls"] == 1


async def test_the_headers_say_what_it_cost_and_saved(sdk: Sdk, task: str) -> None:
    """Call id, class, cache, model, cost, saving, energy and our own time are on every whole answer."""
    request = {**chat({"tag": task, "text": "a b c d e"}, temperature=0), "model": "gpt-4o-mini"}
    paid, free = (await sdk.raw(**request)).headers, (await sdk.raw(**request)).headers
    assert paid["x-negawatt-call-id"] != free["x-negawatt-call-id"]
    assert (paid["x-negawatt-cache"], free["x-negawatt-cache"]) == ("miss", "exact")
    assert paid["x-negawatt-class"] == "default"
    assert paid["x-negawatt-model"] == "gpt-4o-mini"
    cost = Decimal(paid["x-negawatt-cost-usd"])
    assert cost == (10 * Decimal("0.15") + 5 * Decimal("0.6")) / 1_000_000  # the price list's, per million tokens
    assert Decimal(free["x-negawatt-cost-usd"]) == 0
    assert Decimal(free["x-negawatt-saved-usd"]) == cost
    assert 0 <= float(paid["x-negawatt-overhead-ms"]) < 1000
    assert float(paid["x-negawatt-energy-wh"].split(";")[0]) > 0


async def test_many_calls_at_once_get_each_their_own_answer(gateway: Gateway, task: str) -> None:
    """Eighty different calls in flight, half of them streamed, are not mixed up."""
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key="any", max_retries=0, timeout=20) as client:

        async def one(i: int) -> str:
            request: Any = chat({"tag": task, "text": f"the words of {i}", "delay_s": 0.02 * (i % 3)})
            if i % 2:
                return str((await client.chat.completions.create(**request)).choices[0].message.content)
            return text_of([chunk async for chunk in await client.chat.completions.create(**request, stream=True)])

        assert await asyncio.gather(*map(one, range(80))) == [f"the words of {i}" for i in range(80)]


async def test_a_prompt_of_a_megabyte_passes(sdk: Sdk, upstream: Upstream, task: str) -> None:
    """Long contexts go through whole."""
    request = chat({"tag": task})
    request["messages"].insert(0, {"role": "system", "content": "größer " * 150_000})
    assert "answer 1" in (await sdk.ask(**request)).choices[0].message.content
    assert len(upstream.last(task)["body"]["messages"][0]["content"]) == 7 * 150_000


async def test_paths_without_v1_work_too(gateway: Gateway) -> None:
    """A base_url without /v1 reaches the same gateway."""
    client = Sdk("sync", gateway.url)
    assert (await client.ask(**chat("hello"))).choices
    assert await client.models()
    await client.close()


async def test_a_fallback_answers_for_a_provider_that_is_down(sdk: Sdk, gateway: Gateway, task: str) -> None:
    """The caller sees an answer; the row names who gave it and both attempts."""
    request = {**chat({"tag": task, "text": "here I am"}), "model": "saved"}
    answer = await sdk.ask(**request, extra_headers={"x-negawatt-task": task})
    assert answer.choices[0].message.content == "here I am"
    row = await in_thread(lambda: gateway.one_row(task))
    assert (row["ending"], row["provider"], row["attempts"]) == ("answered", "stub", 2)
