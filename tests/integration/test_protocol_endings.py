"""Streams of every protocol that end badly: the caller hangs up, the provider stalls, breaks, or talks nonsense.

Each leaves one row that says so, an error in the protocol's own words, and nothing open upstream.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import AT_ONCE_S, Caller, Gateway, Json, Upstream, until

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "completions": "/v1/completions",
}
CHUNK = {"id": "x", "created": 1, "model": "m"}
BEGUN = {"id": "resp_x", "object": "response", "status": "in_progress", "model": "m", "output": [], "usage": None}
FIRST: dict[str, list[Json]] = {
    "chat": [{**CHUNK, "object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": {"content": "so far so good"}, "finish_reason": None}]}],
    "completions": [{**CHUNK, "object": "text_completion", "choices": [
        {"index": 0, "text": "so far so good", "finish_reason": None}]}],
    "responses": [
        {"type": "response.created", "response": BEGUN, "sequence_number": 0},
        {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0,
         "delta": "so far so good", "logprobs": [], "sequence_number": 1},
    ],
    "messages": [
        {"type": "message_start", "message": {
            "id": "msg_x", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {"input_tokens": 25, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "so far so good"}},
    ],
}  # fmt: skip
every_protocol = pytest.mark.parametrize("protocol", PATHS)
MODELS = {"patient": "plain", "hasty": "hasty"}


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory, configured: Callable[..., Json]) -> Iterator[Gateway]:
    """A gateway whose providers speak all of them."""
    config = configured()
    for provider in config["providers"]:
        provider["protocols"] = list(PATHS)
    gateway = Gateway(tmp_path_factory.mktemp("speaking"), config, STUB_KEY="the-provider-key")
    yield gateway
    gateway.stop()


def asking(protocol: str, model: str = "plain", **script: Any) -> Json:
    """A request whose answer begins well, and goes on as *script* says."""
    said = json.dumps({"do": "events", "events": FIRST[protocol], **script})
    if protocol in ("chat", "messages"):
        request: Json = {"messages": [{"role": "user", "content": said}], "max_tokens": 100}
    else:
        request = {"input": said}
    return {"model": model, "stream": True, **({"prompt": "x"} if protocol == "completions" else {}), **request}


@every_protocol
@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
def test_a_caller_who_hangs_up_ends_the_call_upstream(
    speaking: Gateway, upstream: Upstream, task: str, protocol: str, hard: bool
) -> None:
    """The provider's connection is closed within a moment; the row is there, and what came is paid for."""
    caller = Caller(speaking, asking(protocol, tag=task, then="wait"), task, PATHS[protocol])
    caller.read_until(b"so far so good")
    gone = caller.hang_up(hard=hard)
    hung_up_at = until(lambda: upstream.tag(task)["hung_up_at"], 3.0)
    assert len(hung_up_at) == 1 and hung_up_at[0] - gone < AT_ONCE_S
    row = speaking.one_row(task)
    assert (row["ending"], row["protocol"], row["usage_basis"]) == ("cancelled", protocol, "estimated")
    assert 3 <= row["output_tokens"] <= 6
    assert row["input_tokens"] == 25 if protocol == "messages" else row["input_tokens"] > 0


@every_protocol
@pytest.mark.parametrize("then", ["hang_up", "reset", "end", "garbage", "long line", "wait"])
def test_a_provider_that_fails_in_the_middle_is_an_error_in_the_stream(
    speaking: Gateway, upstream: Upstream, task: str, protocol: str, then: str
) -> None:
    """What had come is there, then the error in the protocol's own words, and no sign that it was all."""
    model = "hasty" if then == "wait" else "plain"
    answer = speaking.post(asking(protocol, model, tag=task, then=then), task, PATHS[protocol])
    assert answer.status == 200
    text = answer.body.decode()
    assert "so far so good" in text and "[DONE]" not in text
    error = error_in(protocol, text)
    assert error["message"] and error["code"].startswith("upstream_")
    row = speaking.one_row(task)
    assert (row["ending"], row["usage_basis"], row["attempts"]) == ("upstream_broken", "estimated", 1)
    assert 3 <= row["output_tokens"] <= 6
    until(lambda: upstream.tag(task)["open"] == 0)


def error_in(protocol: str, text: str) -> Json:
    """Return the error in the last event of a stream."""
    last = [part for part in text.split("\n\n") if part][-1]
    lines = dict(line.split(": ", 1) for line in last.split("\n"))
    data: Json = json.loads(lines["data"])
    if protocol in ("responses", "messages"):
        assert lines["event"] == data["type"] == "error"
    if protocol == "responses":
        assert data["message"] == data["error"]["message"]
    found: Json = data["error"]
    return found


@every_protocol
def test_an_error_before_the_first_byte_has_its_status_and_shape(speaking: Gateway, task: str, protocol: str) -> None:
    """No connection: a 502 in the words of the path's protocol."""
    answer = speaking.post(asking(protocol, "nobody", tag=task), task, PATHS[protocol])
    assert answer.status == 502
    assert answer.error["code"] == "upstream_unreachable"
    if protocol == "messages":
        assert answer.json["type"] == "error" and answer.error["type"] == "api_error"
    assert speaking.one_row(task)["ending"] == "upstream_error"


@every_protocol
def test_bad_input_is_refused_in_the_protocols_words(speaking: Gateway, task: str, protocol: str) -> None:
    """The field is named; a call that never began leaves its row too."""
    answer = speaking.post({"model": 5}, task, PATHS[protocol])
    assert answer.status == 400
    assert answer.error["param"] == "model" and answer.error["type"] == "invalid_request_error"
    row = speaking.one_row(task)
    assert (row["ending"], row["protocol"]) == ("refused", protocol)
