"""Offload and compress, live: through unmodified SDKs, in every protocol, whole and streamed, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from conftest import settings
from taught import decided, negawatt
from world import Gateway, Json, Upstream, toml

MODEL = "gpt-4o-mini"
SUM = "What is 12 * (3 + 4)?"
ROWS = json.dumps([{"town": f"town {i}", "mills": i} for i in range(60)], indent=4)
COMPACT = json.dumps(json.loads(ROWS), separators=(",", ":"))


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    levers: Json = {
        "retry": {"attempts": 1},
        "offload": {"mode": "on", "handlers": ["arithmetic"]},
        "compress": {"mode": "on", "least_tokens": 100},
    }
    config = settings(upstream, levers=levers, classes={"desk": {"offload": ["arithmetic"]}})
    one = Gateway(tmp_path_factory.mktemp("shaping"), config, STUB_KEY="the-provider-key")
    yield one
    one.stop()


def in_chat(gateway: Gateway, headers: dict[str, str], text: str, result: str | None, stream: bool) -> str:
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0, timeout=20, default_headers=headers)
    messages: list[Any] = [{"role": "user", "content": text}]
    if result is not None:
        call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        messages += [{"role": "assistant", "tool_calls": [call]}]
        messages += [{"role": "tool", "tool_call_id": "call_1", "content": result}, {"role": "user", "content": text}]
    if stream:
        chunks = sdk.chat.completions.create(model=MODEL, messages=messages, temperature=0, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    answer = sdk.chat.completions.create(model=MODEL, messages=messages, temperature=0)
    return str(answer.choices[0].message.content)


def in_responses(gateway: Gateway, headers: dict[str, str], text: str, result: str | None, stream: bool) -> str:
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0, timeout=20, default_headers=headers)
    said: list[Any] = [{"role": "user", "content": text}]
    if result is not None:
        said += [{"type": "function_call", "call_id": "call_1", "name": "find", "arguments": "{}"}]
        said += [{"type": "function_call_output", "call_id": "call_1", "output": result}]
        said += [{"role": "user", "content": text}]
    if stream:
        with sdk.responses.stream(model=MODEL, input=said, temperature=0) as events:
            return str(events.get_final_response().output_text)
    return str(sdk.responses.create(model=MODEL, input=said, temperature=0).output_text)


def in_messages(gateway: Gateway, headers: dict[str, str], text: str, result: str | None, stream: bool) -> str:
    sdk = anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0, default_headers=headers)
    said: list[Any] = [{"role": "user", "content": text}]
    if result is not None:
        said += [{"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "find", "input": {}}]}]
        brought = {"type": "tool_result", "tool_use_id": "call_1", "content": result}
        said += [{"role": "user", "content": [brought]}, {"role": "assistant", "content": "Go on."}]
        said += [{"role": "user", "content": text}]
    fields: Any = {"model": MODEL, "max_tokens": 50, "messages": said, "extra_body": {"temperature": 0}}
    if stream:
        with sdk.messages.stream(**fields) as events:
            return str(events.get_final_text())
    return str(sdk.messages.create(**fields).content[0].text)


PROTOCOLS = [in_chat, in_responses, in_messages]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sum_is_worked_out_in_code(
    gateway: Gateway, upstream: Upstream, task: str, protocol: Callable[..., str], stream: bool
) -> None:
    """The SDK gets an answer like any other, nothing is asked upstream, and the row says what that spared."""
    calls = upstream.stats()["calls"]
    headers = {"x-negawatt-task": task, "x-negawatt-class": "desk"}
    assert protocol(gateway, headers, SUM, None, stream) == "84"
    assert upstream.stats()["calls"] == calls
    row = gateway.one_row(task)
    assert (row["cache"], row["ending"], row["cost_pusd"], row["stream"]) == ("offload", "cached", 0, int(stream))
    assert row["baseline_cost_pusd"] > 0
    [hit] = decided(row, "offload")
    assert (hit["detail"], hit["saved"]["basis"]) == ({"handler": "arithmetic"}, "estimated")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_tool_returned_is_sent_shorter_and_comes_back(
    gateway: Gateway, upstream: Upstream, task: str, protocol: Callable[..., str], stream: bool
) -> None:
    """The provider gets the same records without their layout; the call's id gives them back as they were."""
    headers = {"x-negawatt-task": task, "x-negawatt-user": "ann"}
    script = json.dumps({"tag": task, "text": "Seven."})  # what the stub is to say, and where it notes the request
    assert protocol(gateway, headers, script, ROWS, stream).strip() == "Seven."
    row = gateway.one_row(task)
    [shortened] = decided(row, "compress")
    assert shortened["action"] == "shortened" and shortened["saved"]["input_tokens"] > 0
    assert row["baseline_input_tokens"] == row["input_tokens"] + shortened["saved"]["input_tokens"]
    found = gateway.get(f"/v1/shaped/{row['id']}", {"x-negawatt-user": "ann"}).json
    assert [one["text"] for one in found["texts"]] == [ROWS]
    assert gateway.get(f"/v1/shaped/{row['id']}", {"x-negawatt-user": "eve"}).status == 404
    sent = json.dumps(upstream.last(task)["body"])
    assert json.dumps(COMPACT)[1:-1] in sent and json.dumps(ROWS)[1:-1] not in sent


def test_a_handler_that_nobody_has_is_refused_at_the_start(upstream: Upstream, tmp_path: Path) -> None:
    """Before a socket opens, with the field and what there is."""
    config = settings(upstream, levers={"offload": {"mode": "on", "handlers": ["sums"]}})
    (tmp_path / "negawatt.toml").write_text(toml(config), encoding="utf-8")
    for check in ([], ["--check"]):
        done = negawatt(tmp_path, "serve", "--port", "0", *check)
        assert done.returncode == 2
        assert "levers.offload.handlers[0]: no handler 'sums'; known: arithmetic" in done.stderr
