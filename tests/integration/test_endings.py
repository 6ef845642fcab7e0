"""Every way a call can end leaves exactly one row, which says how; and nothing stays open upstream."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from world import AT_ONCE_S, Caller, Gateway, Upstream, chat, until

WHOLE_AND_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
    {"index": 0, "delta": {"content": "so far"}, "finish_reason": None}
]}  # fmt: skip


def closed_at_once(upstream: Upstream, tag: str, since: float) -> None:
    """See that the stub's connection for *tag* was closed within a moment of *since*."""
    hung_up_at = until(lambda: upstream.tag(tag)["hung_up_at"], 3.0)
    assert len(hung_up_at) == 1
    assert hung_up_at[0] - since < AT_ONCE_S
    assert upstream.tag(tag)["open"] == 0


# -- answered ----------------------------------------------------------------------------------------------------------


@WHOLE_AND_STREAMED
def test_answered(gateway: Gateway, task: str, stream: bool) -> None:
    """An answer read to its end: `answered`, with what it used and how long it took."""
    answer = gateway.post(chat({"tag": task, "text": "a b c"}, stream=stream), task)
    assert answer.status == 200
    row = gateway.one_row(task)
    assert (row["ending"], row["status"], row["cache"], row["error_type"]) == ("answered", 200, "bypass", None)
    assert (row["stream"], row["attempts"], row["provider"], row["request_model"]) == (stream, 1, "stub", "plain")
    assert (row["input_tokens"], row["output_tokens"], row["usage_basis"]) == (10, 3, "measured")
    assert 0 < row["upstream_s"] <= row["duration_s"]
    assert row["time_to_first_chunk_s"] <= row["duration_s"]
    assert row["id"] == answer.headers["x-negawatt-call-id"]


@WHOLE_AND_STREAMED
def test_cached(gateway: Gateway, task: str, stream: bool) -> None:
    """A hit: `cached`, no attempt, nothing used, and what the call would have used without us."""
    request = chat({"tag": task, "text": "a b c"}, temperature=0)
    gateway.post(request, f"{task}-first")
    assert gateway.post({**request, "stream": stream}, task).status == 200
    row = gateway.one_row(task)
    assert (row["ending"], row["status"], row["cache"], row["attempts"]) == ("cached", 200, "exact", 0)
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)
    assert (row["baseline_input_tokens"], row["baseline_output_tokens"]) == (10, 3)
    assert gateway.one_row(f"{task}-first")["fingerprint"] == row["fingerprint"]


@WHOLE_AND_STREAMED
def test_coalesced(gateway: Gateway, upstream: Upstream, task: str, stream: bool) -> None:
    """Who joins another's call: `coalesced`; who made the call bears its cost."""
    body = chat({"tag": task, "gate": task, "text": "a b c"}, stream=stream)
    first = Caller(gateway, body, f"{task}-first")
    until(lambda: upstream.tag(task)["open"])
    second = Caller(gateway, body, task)
    time.sleep(0.1)  # so that it has joined
    upstream.open_gate(task)
    for caller in (first, second):
        caller.read_until(b"[DONE]" if stream else b'"usage"')
        caller.hang_up()
    row, paid = gateway.one_row(task), gateway.one_row(f"{task}-first")
    assert (row["ending"], row["cache"], row["attempts"], row["output_tokens"]) == ("coalesced", "coalesced", 0, 0)
    assert (row["baseline_output_tokens"], paid["output_tokens"], paid["ending"]) == (3, 3, "answered")
    assert row["queue_s"] > 0.05
    assert upstream.tag(task)["calls"] == 1


def test_an_answer_without_usage_is_counted_here(gateway: Gateway, task: str) -> None:
    """Where the provider does not say what it used, the row has an estimate that says so."""
    assert gateway.post(chat({"tag": task, "no_usage": True}, stream=True), task).status == 200
    row = gateway.one_row(task)
    assert (row["ending"], row["usage_basis"]) == ("answered", "estimated")
    assert row["output_tokens"] > 0


def test_a_stream_without_done_that_came_to_its_end_is_answered(gateway: Gateway, task: str) -> None:
    """Some servers forget [DONE]; the finish reason says that the answer is whole, and callers get their [DONE]."""
    answer = gateway.post(chat({"tag": task, "no_done": True}, stream=True), task)
    assert answer.events[-1] == "[DONE]"
    assert gateway.one_row(task)["ending"] == "answered"


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "InvalidRequest"),
        (b"", 400, "InvalidRequest"),
        (b"[]", 400, "InvalidRequest"),
        (chat(n=0), 400, "InvalidRequest"),
        ({**chat(), "messages": "hello"}, 400, "InvalidRequest"),
        ({"messages": []}, 400, "InvalidRequest"),
    ],
)
def test_refused(gateway: Gateway, upstream: Upstream, task: str, body: Any, status: int, error: str) -> None:
    """What we refuse from a known caller: `refused`, nothing asked and nothing spent."""
    before = upstream.stats()["calls"]
    assert gateway.post(body, task).status == status
    row = gateway.one_row(task)
    assert (row["ending"], row["status"], row["error_type"], row["attempts"]) == ("refused", status, error, 0)
    assert row["error_message"]
    assert upstream.stats()["calls"] == before


# -- the provider fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "model", "status", "error"),
    [
        ({"do": "status", "status": 500}, "plain", 500, "UpstreamStatus"),
        ({"do": "status", "status": 429, "headers": {"retry-after": "9"}}, "plain", 429, "UpstreamStatus"),
        ({"do": "status", "status": 400}, "plain", 400, "UpstreamStatus"),
        ({"do": "reset"}, "plain", 502, "UpstreamBroken"),
        ({"do": "hang_up"}, "plain", 502, "UpstreamBroken"),
        ({"do": "garbage"}, "plain", 502, "UpstreamProtocolError"),
        ({"do": "bare", "body": "{not json"}, "plain", 502, "UpstreamProtocolError"),
        ({"do": "bare", "body": '{"error": {"message": "no"}}'}, "plain", 502, "UpstreamBroken"),
        ({"do": "silent"}, "hasty", 504, "UpstreamTimeout"),
        ({}, "nobody", 502, "UpstreamConnectError"),
    ],
)
@WHOLE_AND_STREAMED
def test_upstream_error(
    gateway: Gateway, task: str, script: dict[str, Any], model: str, status: int, error: str, stream: bool
) -> None:
    """The provider fails before the first byte: `upstream_error`, with its status and what it was."""
    answer = gateway.post({**chat({"tag": task, **script}, stream=stream), "model": model}, task)
    assert answer.status == status
    row = gateway.one_row(task)
    assert (row["ending"], row["status"], row["error_type"], row["attempts"]) == ("upstream_error", status, error, 1)


@pytest.mark.parametrize("how", ["die", "reset_in_the_middle", "stall"])
def test_a_whole_answer_that_breaks_off_is_an_upstream_error(gateway: Gateway, task: str, how: str) -> None:
    """The body stops in its middle: nothing of it is given out, and the caller gets a status."""
    answer = gateway.post({**chat({"tag": task, "do": how}), "model": "hasty"}, task)
    assert answer.status == (504 if how == "stall" else 502)
    assert gateway.one_row(task)["ending"] == "upstream_error"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"do": "die"}, "upstream_broken"),
        ({"do": "reset_in_the_middle"}, "upstream_broken"),
        ({"do": "stall"}, "upstream_timeout"),
        ({"do": "events", "events": [CHUNK, {"error": {"message": "the model fell over"}}]}, "upstream_broken"),
        ({"do": "events", "events": [CHUNK, "{not json"]}, "upstream_protocol_error"),
        ({"do": "events", "events": [CHUNK, "[1, 2]"]}, "upstream_protocol_error"),
        ({"do": "events", "events": [CHUNK, "[DONE]"]}, "upstream_broken"),
        ({"do": "events", "events": [CHUNK]}, "upstream_broken"),
    ],
)
def test_upstream_broken(gateway: Gateway, task: str, script: dict[str, Any], code: str) -> None:
    """The provider fails in mid-stream: `upstream_broken`, an error event, and no [DONE]."""
    script = {"tag": task, "text": "a b c", "gap_s": 0.05, **script}
    answer = gateway.post({**chat(script, stream=True), "model": "hasty"}, task)
    assert answer.status == 200
    assert json.loads(answer.events[-1])["error"]["code"] == code
    assert "[DONE]" not in answer.events
    assert len(answer.events) >= 2
    row = gateway.one_row(task)
    assert row["ending"] == "upstream_broken"
    assert row["output_tokens"] is not None  # what had come is billed


# -- the caller leaves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("how", ["stall", "answer"])
def test_cancelled(gateway: Gateway, upstream: Upstream, task: str, how: str, hard: bool) -> None:
    """The caller hangs up in mid-stream: `cancelled`, and the provider's connection is closed at once."""
    script = {"do": how, "tag": task, "text": "word " * 200, "gap_s": 0.05}
    caller = Caller(gateway, chat(script, stream=True), task)
    caller.read_until(b'"word')
    closed_at_once(upstream, task, caller.hang_up(hard=hard))
    row = gateway.one_row(task)
    assert (row["ending"], row["status"]) == ("cancelled", 200)
    assert row["time_to_first_chunk_s"] > 0
    assert row["output_tokens"] is not None


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("how", ["silent", "stall"])
@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_abandoned(gateway: Gateway, upstream: Upstream, task: str, how: str, after_s: float, stream: bool) -> None:
    """The caller is gone before the first byte: `abandoned`, and the provider's connection is closed at once."""
    script = {"do": how, "tag": task, "chunks": 0}
    caller = Caller(gateway, chat(script, stream=stream), task)
    until(lambda: upstream.tag(task)["open"])
    time.sleep(after_s)
    closed_at_once(upstream, task, caller.hang_up())
    row = gateway.one_row(task)
    assert (row["ending"], row["attempts"]) == ("abandoned", 1)


def test_a_caller_who_leaves_during_a_pause_between_attempts_is_abandoned(
    start: Any, configured: Any, upstream: Upstream, task: str
) -> None:
    """The gateway does not go on trying for nobody."""
    gateway = start(configured(levers={"retry": {"attempts": 5, "backoff_s": 0.5}}))
    script = {"do": "status", "status": 503, "headers": {"retry-after": "1"}, "tag": task}
    caller = Caller(gateway, chat(script), task)
    until(lambda: upstream.tag(task)["calls"])
    caller.hang_up()
    row = gateway.one_row(task)
    assert (row["ending"], row["attempts"]) == ("abandoned", 1)
    time.sleep(1.2)
    assert upstream.tag(task)["calls"] == 1


def test_a_caller_who_leaves_while_sending_is_abandoned(gateway: Gateway, task: str) -> None:
    """A body that stops in its middle because its caller is gone is not called a bad request."""
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-negawatt-task: {task}\r\ncontent-length: 500\r\n\r\n"
    sock.sendall(head.encode() + b'{"model": "plain", ')
    time.sleep(0.1)
    sock.close()
    time.sleep(0.3)
    assert [row["ending"] for row in gateway.rows(task)] in ([], ["abandoned"])


# -- the deadline ------------------------------------------------------------------------------------------------------


@WHOLE_AND_STREAMED
def test_deadline(gateway: Gateway, upstream: Upstream, task: str, stream: bool) -> None:
    """The deadline passes before the answer: `deadline`, a 504, and the provider is not kept at work."""
    began = time.time()
    request = chat({"do": "silent", "tag": task}, stream=stream)
    answer = gateway.post(request, task, x_negawatt_deadline_ms="300")
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
    closed_at_once(upstream, task, began + 0.3)
    row = gateway.one_row(task)
    assert (row["ending"], row["status"], row["error_type"]) == ("deadline", 504, "DeadlineExceeded")
    assert 0.29 < row["duration_s"] < 1.0


def test_deadline_in_mid_stream(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """The deadline passes in the middle: an error event, no [DONE], `deadline`."""
    began = time.time()
    request = chat({"do": "stall", "tag": task}, stream=True)
    answer = gateway.post(request, task, x_negawatt_deadline_ms="300")
    assert answer.status == 200
    assert json.loads(answer.events[-1])["error"]["code"] == "deadline_exceeded"
    closed_at_once(upstream, task, began + 0.3)
    assert gateway.one_row(task)["ending"] == "deadline"


def test_two_calls_on_one_connection_leave_two_rows(gateway: Gateway, task: str) -> None:
    """Pipelined calls are answered in order, and each has its row."""
    caller = Caller(gateway, chat({"tag": task, "text": "the first", "delay_s": 0.05}), task)
    data = json.dumps(chat({"tag": task, "text": "the second"})).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-negawatt-task: {task}\r\ncontent-length: {len(data)}"
    caller.socket.sendall(f"{head}\r\n\r\n".encode() + data)
    said = caller.read_until(b"the second")
    assert said.index(b"the first") < said.index(b"the second")
    assert [row["ending"] for row in gateway.settled_rows(task, 2)] == ["answered", "answered"]
    caller.hang_up()
