"""The SDKs against providers of every protocol, where answers are not plain: whoever speaks what, they hear the same.

Each answer is written in each provider's own words, whole and streamed; each SDK must hear what it means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
from answers import CALLS, CASES, SAID, THOUGHT, calls_in_chat, pieces
from playing import Played, in_chat, in_responses, played
from world import Json

SPOKEN = ("chat", "responses", "messages")
callers = pytest.mark.parametrize("caller", SPOKEN)
providers = pytest.mark.parametrize("provider", SPOKEN)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class Heard(NamedTuple):
    """What an SDK made of an answer, in words of no protocol."""

    text: str
    calls: list[tuple[str, Json]]
    thoughts: str
    ending: str
    refusal: str = ""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with played(tmp_path_factory.mktemp("translated")) as one:
        yield one


# -- the three SDKs' ways of asking ------------------------------------------------------------------------------------

EMPTY: Json = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
TOOLS: list[Json] = [{"name": name, "parameters": EMPTY, "strict": True} for name in ("weather", "clock")]
ASKED: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": "hello"}],
             "tools": [{"type": "function", "function": tool} for tool in TOOLS]},
    "responses": {"input": "hello", "tools": [{"type": "function", **tool} for tool in TOOLS]},
    "messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100,
                 "tools": [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in TOOLS]},
}  # fmt: skip


@pytest.fixture(scope="module")
def sdks(gateway: Played) -> Iterator[Json]:
    """The unmodified SDK of each protocol."""
    settings: Json = {"api_key": "unused", "max_retries": 0, "timeout": 15}
    with (
        openai.OpenAI(base_url=gateway.base_url, **settings) as ours,
        anthropic.Anthropic(base_url=gateway.url, **settings) as theirs,
    ):
        yield {"chat": ours, "responses": ours, "messages": theirs}


def ask(sdks: Json, caller: str, stream: bool = False, task: str = "", **fields: Any) -> Any:
    """Return the SDK's whole answer; where it is streamed, as the SDK itself gathers it."""
    resource = sdks["chat"].chat.completions if caller == "chat" else getattr(sdks[caller], caller)
    fields = {**ASKED[caller], "extra_headers": {"x-negawatt-task": task}, **fields}
    if not stream:
        return resource.create(**fields)
    with resource.stream(**fields) as events:
        if caller == "messages":
            return events.get_final_message()
        if caller == "responses":
            return list(events)[-1].response  # the SDK has no other word for one that is incomplete
        try:
            return events.get_final_completion()
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            return events.current_completion_snapshot


def heard_in_chat(answer: Any) -> Heard:
    choice = answer.choices[0]
    message = choice.message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]
    thoughts = getattr(message, "reasoning_content", None) or ""
    return Heard(message.content or "", calls, thoughts, choice.finish_reason, message.refusal or "")


def heard_in_responses(answer: Any) -> Heard:
    text, refusal, thoughts = "", "", ""
    calls: list[tuple[str, Json]] = []
    for item in answer.output:
        if item.type == "function_call":
            calls.append((item.name, json.loads(item.arguments)))
        elif item.type == "reasoning":
            thoughts += "".join(part.text for part in [*item.summary, *(item.content or [])])
        else:
            text += "".join(part.text for part in item.content if part.type == "output_text")
            refusal += "".join(part.refusal for part in item.content if part.type == "refusal")
    ending = answer.incomplete_details.reason if answer.incomplete_details else answer.status
    return Heard(text, calls, thoughts, ending, refusal)


def heard_in_messages(answer: Any) -> Heard:
    of: dict[str, list[Any]] = {"text": [], "tool_use": [], "thinking": []}
    for block in answer.content:
        of[block.type].append(block)
    return Heard(
        "".join(block.text for block in of["text"]), [(block.name, block.input) for block in of["tool_use"]],
        "".join(block.thinking for block in of["thinking"]), answer.stop_reason,
    )  # fmt: skip


HEARD = {"chat": heard_in_chat, "responses": heard_in_responses, "messages": heard_in_messages}


# -- answers -----------------------------------------------------------------------------------------------------------

ENDINGS = {
    "calls": {"chat": "tool_calls", "responses": "completed", "messages": "tool_use"},
    "thoughts": {"chat": "stop", "responses": "completed", "messages": "end_turn"},
    "too long": {"chat": "length", "responses": "max_output_tokens", "messages": "max_tokens"},
    "filtered": {"chat": "content_filter", "responses": "content_filter", "messages": "refusal"},
}


@callers
@providers
@both_ways
@pytest.mark.parametrize("case", CASES)
def test_an_answer_means_the_same_to_every_sdk(
    gateway: Played, sdks: Json, task: str, caller: str, provider: str, stream: bool, case: str
) -> None:
    """Parallel calls in fragments, thoughts, answers cut off or filtered; and what was used is in the books."""
    model = gateway.player.play(f"{provider}-{case.replace(' ', '-')}", **CASES[case][provider])
    answer = ask(sdks, caller, stream, task, model=model)
    called = case == "calls"
    expected = Heard(
        "" if called else SAID, CALLS if called else [], THOUGHT if case == "thoughts" else "", ENDINGS[case][caller]
    )
    assert HEARD[caller](answer) == expected
    row = gateway.one_row(task)
    assert (row["protocol"], row["ending"], row["usage_basis"]) == (caller, "answered", "measured")
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (100, 20, 40)


@pytest.mark.parametrize("caller", ["responses", "messages"])
def test_calls_that_come_in_turns_are_told_apart(gateway: Played, sdks: Json, task: str, caller: str) -> None:
    """Chat may mix their fragments; where one is said after the other, none is lost and none gets another's."""
    model = gateway.player.play("chat-in-turns", **calls_in_chat(in_turns=True))
    heard = HEARD[caller](ask(sdks, caller, True, task, model=model))
    assert heard.calls == CALLS


@callers
@both_ways
@pytest.mark.parametrize("provider", ["chat", "responses"])
def test_a_refusal_is_heard(gateway: Played, sdks: Json, task: str, caller: str, provider: str, stream: bool) -> None:
    """OpenAI's two protocols have a word for it; in Messages it is a text and the reason why it ended."""
    part: Json = {"type": "refusal", "refusal": "I will not."}
    at: Json = {"content_index": 0}
    wires = {
        "chat": in_chat({"refusal": "I will not."}, [{"refusal": piece} for piece in pieces("I will not.")]),
        "responses": in_responses(
            [{"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}],
            [[{"type": "response.content_part.added", **at, "part": {**part, "refusal": ""}},
              *({"type": "response.refusal.delta", **at, "delta": piece} for piece in pieces("I will not.")),
              {"type": "response.refusal.done", **at, "refusal": "I will not."},
              {"type": "response.content_part.done", **at, "part": part}]],
        ),
    }  # fmt: skip
    model = gateway.player.play(f"{provider}-refusal", **wires[provider])
    heard = HEARD[caller](ask(sdks, caller, stream, task, model=model))
    if caller == "messages":
        assert (heard.text, heard.ending) == ("I will not.", "refusal")
    else:
        assert (heard.text, heard.refusal) == ("", "I will not.")


# -- errors ------------------------------------------------------------------------------------------------------------

ERRORS: dict[str, Json] = {
    "chat": {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
    "responses": {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
    "messages": {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}, "request_id": "req_1"},
}


@callers
@providers
@both_ways
@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "BadRequestError"), (403, "PermissionDeniedError"), (429, "RateLimitError"), (500, "InternalServerError"),
     (529, "InternalServerError|OverloadedError")],
)  # fmt: skip
def test_a_providers_error_is_the_sdks_own_exception(
    gateway: Played, sdks: Json, task: str, caller: str, provider: str, stream: bool, status: int, name: str
) -> None:
    """With the provider's words, its status, and how long to wait."""
    model = gateway.player.play(
        f"{provider}-error-{status}", status=status, body=ERRORS[provider], headers={"retry-after": "7"}
    )
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError), match="slow down") as caught:
        ask(sdks, caller, stream, task, model=model)
    assert type(caught.value).__name__ in name.split("|")
    error: Any = caught.value
    assert error.status_code == status
    assert error.response.headers["retry-after"] == "7"
    if caller == "messages":
        assert error.body["type"] == "error" and error.body["error"]["type"].endswith("_error")


BROKEN: dict[str, Json] = {
    "chat": {"error": {"message": "overloaded", "type": "server_error", "code": 503}},
    "responses": {"type": "error", "code": "server_error", "message": "overloaded", "param": None,
                  "sequence_number": 9},
    "messages": {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}},
}  # fmt: skip


@callers
@providers
def test_an_error_in_the_middle_is_raised(gateway: Played, sdks: Json, task: str, caller: str, provider: str) -> None:
    """No SDK takes what had come for the whole answer."""
    events = [*CASES["thoughts"][provider]["events"][:-3], BROKEN[provider]]
    model = gateway.player.play(f"{provider}-broken", events=events, body={})
    with pytest.raises((openai.APIError, anthropic.APIError), match="overloaded"):
        ask(sdks, caller, True, task, model=model)
    assert gateway.one_row(task)["ending"] == "upstream_broken"


# -- the same conversation, said in three ways -------------------------------------------------------------------------

PIXEL = "iVBORw0KGgo="
URL = f"data:image/png;base64,{PIXEL}"
SCHEMA: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
                "additionalProperties": False}  # fmt: skip
CITY: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
              "additionalProperties": False}  # fmt: skip
ULM, BONN = '{"city":"Ulm"}', '{"city":"Bonn"}'


def chat_call(name: str, arguments: str) -> Json:
    return {"id": name, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def item_call(name: str, arguments: str) -> Json:
    return {"type": "function_call", "call_id": name, "name": "weather", "arguments": arguments}


def block_call(name: str, arguments: str) -> Json:
    return {"type": "tool_use", "id": name, "name": "weather", "input": json.loads(arguments)}


CONVERSATION: dict[str, Json] = {
    "chat": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"},
                                         {"type": "image_url", "image_url": {"url": URL}}]},
            {"role": "assistant", "content": "I look.", "tool_calls": [chat_call("a", ULM), chat_call("b", BONN)]},
            {"role": "tool", "tool_call_id": "a", "content": "sunny"},
            {"role": "tool", "tool_call_id": "b", "content": "rain"},
            {"role": "user", "content": "So?"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells.", "parameters": CITY}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False, "max_completion_tokens": 50, "temperature": 0.5, "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    },
    "responses": {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What is it?"},
                                         {"type": "input_image", "image_url": URL, "detail": "auto"}]},
            {"role": "assistant", "content": "I look."}, item_call("a", ULM), item_call("b", BONN),
            {"type": "function_call_output", "call_id": "a", "output": "sunny"},
            {"type": "function_call_output", "call_id": "b", "output": "rain"},
            {"role": "user", "content": "So?"},
        ],
        "tools": [{"type": "function", "name": "weather", "description": "Tells.", "parameters": CITY,
                   "strict": False}],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False, "max_output_tokens": 50, "temperature": 0.5, "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
    },
    "messages": {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, block_call("a", ULM),
                                              block_call("b", BONN)]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
                                         {"type": "tool_result", "tool_use_id": "b", "content": "rain"},
                                         {"type": "text", "text": "So?"}]},
        ],
        "tools": [{"name": "weather", "description": "Tells.", "input_schema": CITY}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "max_tokens": 50, "extra_body": {"temperature": 0.5},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    },
}  # fmt: skip


def plain(value: Any) -> Any:
    """Return *value* without what may be said in more than one way: defaults, marks, and a text that is all."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return compact(value)
    silent = {"cache_control": None, "detail": "auto", "strict": False, "type": "message", "store": False}
    kept = {n: plain(v) for n, v in value.items() if v is not None and (n not in silent or silent[n] not in (None, v))}
    for name in ("content", "system"):
        parts = kept.get(name)
        if isinstance(parts, list) and len(parts) == 1 and "text" in parts[0]:
            kept[name] = parts[0]["text"]
    return kept


def compact(value: Any) -> Any:
    """Arguments are JSON in a text, with blanks or without."""
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(json.loads(value), separators=(",", ":"))
    return value


@callers
@providers
def test_a_conversation_arrives_the_same_whoever_tells_it(
    gateway: Played, sdks: Json, task: str, caller: str, provider: str
) -> None:
    """Pictures, two calls and their results, a schema, a forced tool, effort and limits, in the provider's words."""
    model = gateway.player.play(f"{provider}-told", **CASES["thoughts"][provider])
    ask(sdks, caller, task=task, model=model, **CONVERSATION[caller])
    arrived = plain(gateway.player.asked(model))
    said = CONVERSATION[provider]
    expected = plain({"model": model, **said, **said.get("extra_body", {})})
    expected.pop("extra_body", None)
    if provider == "messages" and caller != "messages":
        assert arrived.pop("thinking") == {"type": "adaptive"}  # effort is how much of it
    if provider == "responses" and "instructions" not in arrived:
        first = arrived["input"].pop(0)
        assert first["role"] == "system"
        arrived["instructions"] = first["content"]
    assert arrived == expected


# -- the clients for asyncio -------------------------------------------------------------------------------------------


@providers
async def test_asynchronous_clients(gateway: Played, provider: str) -> None:
    """Streams of all three, read by the SDKs' other clients."""
    model = gateway.player.play(f"{provider}-async", **CASES["calls"][provider])
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as sdk:
        async with sdk.chat.completions.stream(model=model, **ASKED["chat"]) as events:
            assert heard_in_chat(await events.get_final_completion()).calls == CALLS
        async with sdk.responses.stream(model=model, **ASKED["responses"]) as answers:
            assert heard_in_responses(await answers.get_final_response()).calls == CALLS
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="unused", max_retries=0) as other:
        async with other.messages.stream(model=model, **ASKED["messages"]) as said:
            assert heard_in_messages(await said.get_final_message()).calls == CALLS
