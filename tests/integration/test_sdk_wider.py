"""More of what the SDKs can do, against providers of every protocol: helpers, betas, streams of objects, asyncio."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel
from speaking import Spoken, spoken
from world import HERE

VERCEL = HERE / "vercel"
HELLO: Any = [{"role": "user", "content": "hello"}]
models = pytest.mark.parametrize("model", ["chat-1", "responses-1", "messages-1"])


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


ADA = Person(name="Ada", age=36)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoken]:
    with spoken(tmp_path_factory.mktemp("wider")) as one:
        yield one


@pytest.fixture(scope="module")
def ours(gateway: Spoken) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(gateway: Spoken) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="unused", max_retries=0) as client:
        yield client


# -- OpenAI's and Anthropic's own helpers ------------------------------------------------------------------------------


@models
def test_openai_parses_while_it_streams(ours: openai.OpenAI, model: str) -> None:
    """A pydantic model in; its object when the stream has ended, in Chat and in Responses."""
    with ours.chat.completions.stream(model=model, messages=HELLO, response_format=Person) as events:
        assert events.get_final_completion().choices[0].message.parsed == ADA
    with ours.responses.stream(model=model, input="who?", text_format=Person) as answers:
        assert answers.get_final_response().output_parsed == ADA


@models
def test_openai_reasons_and_calls(ours: openai.OpenAI, model: str) -> None:
    """The items of an answer, its thoughts among them, go back with the tool's result, with nothing stored."""
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
            "additionalProperties": False}  # fmt: skip
    options: Any = {"tools": [{"type": "function", "name": "weather", "parameters": city, "strict": True}],
                    "reasoning": {"effort": "low", "summary": "auto"}, "store": False,
                    "include": ["reasoning.encrypted_content"]}  # fmt: skip
    first = ours.responses.create(model=model, input=HELLO, **options)
    call: Any = next(item for item in first.output if item.type == "function_call")
    told: Any = [*HELLO, *(item.model_dump(exclude_none=True) for item in first.output),
                 {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]  # fmt: skip
    assert ours.responses.create(model=model, input=told, **options).output_text == "you said: the tool said sunny"


@models
def test_anthropic_parses(theirs: anthropic.Anthropic, model: str) -> None:
    """A pydantic model in, an object back, whole and streamed."""
    whole = theirs.messages.parse(model=model, max_tokens=100, messages=HELLO, output_format=Person)
    assert whole.parsed_output == ADA
    with theirs.messages.stream(model=model, max_tokens=100, messages=HELLO, output_format=Person) as stream:
        assert stream.get_final_message().parsed_output == ADA


@models
def test_anthropic_thinks_and_calls(theirs: anthropic.Anthropic, model: str) -> None:
    """The blocks of an answer, its thoughts among them, go back with the tool's result."""
    options: Any = {
        "model": model, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}],
    }  # fmt: skip
    first = theirs.messages.create(messages=HELLO, **options)
    call = next(block for block in first.content if block.type == "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    told: Any = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last: Any = theirs.messages.create(messages=told, **options).content[-1]
    assert last.text == "you said: the tool said sunny"


@models
def test_anthropics_beta_resources(theirs: anthropic.Anthropic, model: str) -> None:
    """They ask at ``?beta=true``: the same path, whole, streamed and counted."""
    asked: Any = {"model": model, "max_tokens": 100, "messages": HELLO, "betas": ["new-2026-01-01"]}
    answer: Any = theirs.beta.messages.create(**asked)
    assert answer.content[0].text == "you said: hello"
    with theirs.beta.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == "you said: hello"
    assert theirs.beta.messages.count_tokens(model=model, messages=HELLO).input_tokens > 0


# -- instructor and LangChain ------------------------------------------------------------------------------------------


@models
def test_instructor_in_pieces_and_in_responses(ours: openai.OpenAI, theirs: anthropic.Anthropic, model: str) -> None:
    """Partial objects over Anthropic's streams, and objects over Responses."""
    import instructor

    asked: Any = [{"role": "user", "content": "who?"}]
    parts = list(instructor.from_anthropic(theirs).messages.create_partial(
        model=model, max_tokens=100, messages=asked, response_model=Person
    ))  # fmt: skip
    assert (parts[-1].name, parts[-1].age) == ("Ada", 36)
    over_responses = instructor.from_openai(ours, mode=instructor.Mode.RESPONSES_TOOLS)
    found = over_responses.chat.completions.create(model=model, messages=asked, response_model=Person)
    assert found.model_dump() == ADA.model_dump()


@models
@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
async def test_langchain_with_asyncio(gateway: Spoken, kind: str, model: str) -> None:
    """Its other half: whole, streamed, tool calls in a stream, objects."""
    from langchain_anthropic import ChatAnthropic
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def weather(city: str) -> str:
        """Tells the weather."""
        return f"sunny in {city}"

    llm: Any = (
        ChatAnthropic(model=model, base_url=gateway.url, api_key="unused", max_tokens=100)  # type: ignore[call-arg, arg-type]
        if kind == "messages"
        else ChatOpenAI(
            model=model, base_url=gateway.base_url, api_key="unused", use_responses_api=kind == "responses"  # type: ignore[arg-type]
        )
    )  # fmt: skip
    assert (await llm.ainvoke("hello")).text == "you said: hello"
    assert "".join([chunk.text async for chunk in llm.astream("hello")]) == "you said: hello"
    gathered: Any = None
    async for chunk in llm.bind_tools([weather]).astream("weather?"):
        gathered = chunk if gathered is None else gathered + chunk
    assert [(call["name"], call["args"]) for call in gathered.tool_calls] == [("weather", {"city": "Ada"})]
    assert await llm.with_structured_output(Person).ainvoke("who?") == ADA


# -- the Vercel AI SDK -------------------------------------------------------------------------------------------------


def test_vercel_from_every_protocol_to_every_other(gateway: Spoken) -> None:
    """Text, tools in steps of a stream, a forced tool, an object from a stream, a picture; and embeddings."""
    node = shutil.which("node")
    if node is None or not (VERCEL / "node_modules" / "ai").is_dir():
        pytest.skip("needs Node and `npm ci` in tests/integration/vercel (`make test` does it where npm is)")
    done = subprocess.run([node, "every.mjs", gateway.base_url], cwd=VERCEL, capture_output=True, text=True, timeout=35)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["embeddings"] == [[1, 0.5], [3, 0.5]]
    assert len(answer["found"]) == 12
    for name, one in answer["found"].items():
        assert one == {
            "text": "you said: hello",
            "tools": {"text": "you said: the tool said sunny in Ada", "output": 40},
            "forced": [{"city": "Ada"}],
            "object": {"name": "Ada", "age": 36.5},
            "picture": "you said: look [picture]",
        }, name
