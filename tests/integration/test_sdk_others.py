"""What is built on the SDKs, unmodified: instructor, LangChain, the Vercel AI SDK; and curl, which needs none."""

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
from speaking import PROTOCOLS, Spoken, spoken
from world import HERE

VERCEL = HERE / "vercel"


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoken]:
    with spoken(tmp_path_factory.mktemp("others")) as one:
        yield one


ADA = Person(name="Ada", age=36)
ASKED: Any = [{"role": "user", "content": "who?"}]


# -- instructor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["chat-1", "messages-1"])
def test_instructor_over_openai(gateway: Spoken, model: str) -> None:
    """By tools and by JSON schema, whole; and in pieces."""
    import instructor

    client = openai.OpenAI(base_url=gateway.base_url, api_key="unused")
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        patched = instructor.from_openai(client, mode=mode)
        found = patched.chat.completions.create(model=model, messages=ASKED, response_model=Person)
        assert found.model_dump() == ADA.model_dump()
    patched = instructor.from_openai(client)
    parts = list(patched.chat.completions.create_partial(model=model, messages=ASKED, response_model=Person))
    assert (parts[-1].name, parts[-1].age) == ("Ada", 36)


@pytest.mark.parametrize("model", ["messages-1", "chat-1"])
def test_instructor_over_anthropic(gateway: Spoken, model: str) -> None:
    """By tools."""
    import instructor

    client = instructor.from_anthropic(anthropic.Anthropic(base_url=gateway.url, api_key="unused"))
    found = client.messages.create(model=model, max_tokens=100, messages=ASKED, response_model=Person)
    assert found.model_dump() == ADA.model_dump()


# -- LangChain ---------------------------------------------------------------------------------------------------------


def langchain(kind: str, gateway: Spoken, model: str) -> Any:
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    if kind == "anthropic":
        return ChatAnthropic(model=model, base_url=gateway.url, api_key="unused", max_tokens=100)  # type: ignore[call-arg, arg-type]
    return ChatOpenAI(
        model=model, base_url=gateway.base_url, api_key="unused",  # type: ignore[arg-type]
        use_responses_api=kind == "responses", stream_usage=True,
    )  # fmt: skip


def text_of(message: Any) -> str:
    return message.content if isinstance(message.content, str) else "".join(
        part.get("text", "") for part in message.content
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["openai", "responses", "anthropic"])
@pytest.mark.parametrize("model", ["chat-1", "responses-1", "messages-1"])
def test_langchain(gateway: Spoken, kind: str, model: str) -> None:
    """Whole, streamed, with tools and their results, with a schema; usage as LangChain shows it."""
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def weather(city: str) -> str:
        """Tells the weather."""
        return f"sunny in {city}"

    llm = langchain(kind, gateway, model)
    answer = llm.invoke("hello")
    assert text_of(answer) == "you said: hello"
    assert answer.usage_metadata["total_tokens"] == 120
    assert "".join(map(text_of, llm.stream("hello"))) == "you said: hello"
    bound = llm.bind_tools([weather])
    asked: list[Any] = [HumanMessage("weather?")]
    call = bound.invoke(asked)
    assert call.tool_calls[0]["args"] == {"city": "Ada"}
    asked += [call, ToolMessage(weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])]
    assert text_of(bound.invoke(asked)) == "you said: the tool said sunny in Ada"
    assert llm.with_structured_output(Person).invoke("who?") == ADA


# -- the Vercel AI SDK -------------------------------------------------------------------------------------------------


def test_vercel(gateway: Spoken) -> None:
    """In Node: text, stream, tools in steps, objects; Chat, Responses, Messages, and one by translation."""
    node = shutil.which("node")
    if node is None or not (VERCEL / "node_modules" / "ai").is_dir():
        pytest.skip("needs Node and `npm ci` in tests/integration/vercel (`make setup` does it where npm is)")
    done = subprocess.run(
        [node, "script.mjs", gateway.base_url], cwd=VERCEL, capture_output=True, text=True, timeout=35
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"chat", "responses", "messages", "compatible", "translated"}
    for name, one in found.items():
        assert one["text"] == one["streamed"] == "you said: hello", name
        assert (one["usage"]["inputTokens"], one["usage"]["outputTokens"]) == (100, 20), name
        assert one["streamedUsage"]["outputTokens"] == 20, name
        assert one["tools"] == "you said: the tool said sunny in Ada" and one["steps"] == 2, name
        assert one["object"] == {"name": "Ada", "age": 36.5}, name


# -- curl --------------------------------------------------------------------------------------------------------------

BODIES: dict[str, Any] = {
    "/chat/completions": {"model": "all-1", "messages": ASKED},
    "/responses": {"model": "all-1", "input": "who?"},
    "/messages": {"model": "all-1", "messages": ASKED, "max_tokens": 9},
    "/messages/count_tokens": {"model": "all-1", "messages": ASKED},
    "/completions": {"model": "all-1", "prompt": "who?"},
    "/embeddings": {"model": "all-1", "input": "who?"},
    "/rerank": {"model": "all-1", "query": "who?", "documents": ["Ada", "Bob"]},
}
STREAMS = ("/chat/completions", "/responses", "/messages", "/completions")
LAST = {"/responses": "response.completed", "/messages": "message_stop"}


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("path", BODIES)
def test_curl(gateway: Spoken, path: str, prefix: str) -> None:
    """Every path with and without /v1, whole and streamed."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    for stream in (False, True) if path in STREAMS else (False,):
        body = json.dumps({**BODIES[path], "stream": stream} if stream else BODIES[path])
        done = subprocess.run(
            [curl, "-sS", "--noproxy", "*", "-i", f"{gateway.url}{prefix}{path}",
             "-H", "content-type: application/json", "-d", body],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        head, _, said = (
            done.stdout.partition("\n\n") if "\r\n\r\n" not in done.stdout else done.stdout.partition("\r\n\r\n")
        )
        assert "200 OK" in head and "x-negawatt-call-id" in head.lower(), done.stdout
        if stream:
            assert LAST.get(path, "[DONE]") in said.strip().split("\n\n")[-1]
        else:
            assert isinstance(json.loads(said), dict)
            assert "x-negawatt-overhead-ms" in head.lower()


def test_models_by_curl(gateway: Spoken) -> None:
    """With and without /v1, in both forms."""
    for prefix in ("", "/v1"):
        plain = gateway.get(f"{prefix}/models").json
        assert plain["object"] == "list"
        other = gateway.get(f"{prefix}/models", {"anthropic-version": "2023-06-01"}).json
        assert other["has_more"] is False
        assert gateway.get(f"{prefix}/models/chat-1").json["id"] == "chat-1"
    assert len(PROTOCOLS) == 3


def test_a_wrong_path_is_told_in_the_callers_words(gateway: Spoken) -> None:
    """In Anthropic's shape for its SDK; and a base URL with one /v1 too many is said to be that."""
    anthropics = {"anthropic-version": "2023-06-01"}
    assert gateway.get("/v1/nothing").error["code"] == "not_found"
    told = gateway.get("/v1/nothing", anthropics)
    assert (told.status, told.json["type"], told.error["type"]) == (404, "error", "not_found_error")
    twice = gateway.request("POST", "/v1/v1/messages", b"{}", anthropics)
    assert twice.status == 404 and "leave /v1 out of the SDK's base_url" in twice.error["message"]
