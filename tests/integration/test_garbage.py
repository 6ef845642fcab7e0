"""Answers that are JSON but not what the protocol allows: the caller hears of it, and the call has its one row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from world import Gateway, Json, chat

WELL = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
ENDED = {"index": 0, "delta": {}, "finish_reason": "stop"}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


BODIES: dict[str, Any] = {
    "nothing": {},
    "choices is null": {**WELL, "choices": None},
    "choices is a number": {**WELL, "choices": 5},
    "choices is text": {**WELL, "choices": "abc"},
    "choices is an object": {**WELL, "choices": {"a": 1}},
    "choices of text": {**WELL, "choices": ["a"]},
    "choices of nothing": {**WELL, "choices": [None]},
    "message is text": {**WELL, "choices": [{"index": 0, "message": "hi", "finish_reason": "stop"}]},
    "content is a number": {**WELL, "choices": [{"index": 0, "message": {"content": 5}, "finish_reason": "stop"}]},
    "tool calls of text": {**WELL, "choices": [{"message": {"tool_calls": ["x"]}, "finish_reason": "stop"}]},
    "tool calls is a number": {**WELL, "choices": [{"message": {"tool_calls": 5}, "finish_reason": "stop"}]},
    "function is text": {**WELL, "choices": [{"message": {"tool_calls": [{"function": "f"}]}}]},
    "reason is a list": {**WELL, "choices": [{"message": {}, "finish_reason": ["stop"]}]},
    "usage is text": {**WELL, "choices": [], "usage": "much"},
    "usage of text": {**WELL, "choices": [], "usage": {"prompt_tokens": "x", "completion_tokens": -4}},
    "usage is huge": {**WELL, "choices": [], "usage": {"prompt_tokens": 2**80, "completion_tokens": 1e300}},
    "usage beyond sqlite": {**WELL, "choices": [], "usage": {"prompt_tokens": 2**63, "completion_tokens": 2**63}},
    "model is a list": {**WELL, "model": ["m"], "choices": []},
    "very deep": {**WELL, "choices": [{"message": {"content": deep(400)}, "finish_reason": "stop"}]},
}


@pytest.mark.parametrize("name", BODIES)
def test_a_strange_body_leaves_one_row(gateway: Gateway, task: str, name: str) -> None:
    """Whatever the provider's JSON holds, it is passed on or refused, never a crash; twice, and as a stream."""
    script = {"do": "bare", "tag": task, "body": json.dumps(BODIES[name])}
    for stream in (False, False, True):
        answer = gateway.post(chat(script, temperature=0, stream=stream), task)
        assert answer.status in (200, 502), answer.body
    for row in gateway.settled_rows(task, 3):
        assert row["ending"] in ("answered", "cached", "upstream_error", "upstream_broken"), row["error_message"]


EVENTS: dict[str, list[Any]] = {
    "nothing at all": [],
    "only done": ["[DONE]"],
    "empty objects": [{}, {}],
    "choices is null": [{**CHUNK, "choices": None}],
    "choices is a number": [{**CHUNK, "choices": 5}],
    "choices of text": [{**CHUNK, "choices": ["a"]}],
    "choices of text with usage": [{**CHUNK, "choices": ["a"], "usage": {"prompt_tokens": 1}}],
    "choices is a number with usage": [{**CHUNK, "choices": 5, "usage": {"prompt_tokens": 1}}],
    "index is a list": [{**CHUNK, "choices": [{"index": [], "delta": {"content": "a"}}]}],
    "indices of two kinds": [{**CHUNK, "choices": [{**ENDED, "index": "0"}, {**ENDED, "index": 1}]}],
    "index is null": [{**CHUNK, "choices": [{**ENDED, "index": None}, {**ENDED, "index": 1}]}],
    "delta is text": [{**CHUNK, "choices": [{"index": 0, "delta": "a"}]}],
    "tool calls of text": [{**CHUNK, "choices": [{**ENDED, "delta": {"tool_calls": ["x"]}}]}],
    "tool indices of two kinds": [
        {**CHUNK, "choices": [{**ENDED, "delta": {"tool_calls": [{"index": "0"}, {"index": 1}]}}]}
    ],
    "tool call functions of text": [{**CHUNK, "choices": [{**ENDED, "delta": {"tool_calls": [{"function": "f"}]}}]}],
    "reason is a list": [{**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": ["stop"]}]}],
    "usage is text": [{**CHUNK, "choices": [ENDED]}, {**CHUNK, "choices": [], "usage": "much"}],
    "usage is a list": [{**CHUNK, "choices": [ENDED]}, {**CHUNK, "choices": [], "usage": [1]}],
    "usage of text": [{**CHUNK, "choices": [ENDED]}, {**CHUNK, "choices": [], "usage": {"prompt_tokens": "x"}}],
    "usage beyond sqlite": [{**CHUNK, "choices": [ENDED]}, {**CHUNK, "choices": [], "usage": {"prompt_tokens": 2**63}}],
    "model is a list": [{**CHUNK, "model": ["m"], "choices": [ENDED]}],
    "content changes its kind": [
        {**CHUNK, "choices": [{"index": 0, "delta": {"content": value}}]} for value in ("a", 5, ["b"], {"c": 1})
    ],
    "very deep": [{**CHUNK, "choices": [{**ENDED, "delta": {"content": deep(400)}}]}],
}


@pytest.mark.parametrize("name", EVENTS)
def test_strange_events_leave_one_row(gateway: Gateway, task: str, name: str) -> None:
    """Whatever the chunks hold, the stream ends with [DONE] or an error, and the call has its row; twice."""
    script = {"do": "events", "tag": task, "events": EVENTS[name]}
    for _ in range(2):
        answer = gateway.post(chat(script, temperature=0, stream=True), task)
        assert answer.status in (200, 502), answer.body
        if answer.status == 200:
            assert answer.events[-1] == "[DONE]" or "error" in json.loads(answer.events[-1])
    for row in gateway.settled_rows(task, 2):
        assert row["ending"] in ("answered", "cached", "upstream_error", "upstream_broken"), row["error_message"]


def test_strange_answers_take_no_place_in_flight(
    start: Callable[..., Gateway], configured: Callable[..., Json], task: str
) -> None:
    """However an answer fails, its call is over: with room for three, a hundredth one still gets in."""
    gateway = start(configured(server={"max_in_flight": 3}))
    for name in EVENTS:
        gateway.try_post(chat({"do": "events", "tag": task, "events": EVENTS[name]}, temperature=0, stream=True))
    for name in BODIES:
        gateway.try_post(chat({"do": "bare", "tag": task, "body": json.dumps(BODIES[name])}, temperature=0))
    assert gateway.post(chat({"tag": task})).status == 200


@pytest.mark.parametrize("status", [201, 204, 302, 304, 599, 600, 999])
def test_a_strange_status_is_not_passed_on_as_success(gateway: Gateway, task: str, status: int) -> None:
    """A status that is neither 200 nor an error is the provider's fault; the caller gets an error status."""
    body = "" if status in (204, 304) else '{"error": {"message": "odd"}}'
    answer = gateway.post(chat({"do": "bare", "tag": task, "status": status, "body": body}), task)
    assert 400 <= answer.status <= 599, answer
    assert answer.error["message"]
    assert gateway.one_row(task)["ending"] == "upstream_error"


def test_an_error_status_without_a_body_has_ours(gateway: Gateway, task: str) -> None:
    """A provider that says nothing but a number: the body is ours, in OpenAI's form."""
    answer = gateway.post(chat({"do": "bare", "tag": task, "status": 503, "body": ""}), task)
    assert answer.status == 503
    assert "503" in answer.error["message"]


def test_an_error_page_in_html_does_not_claim_to_be_json(gateway: Gateway, task: str) -> None:
    """Proxies answer with HTML: the caller's JSON parser must not be handed it as application/json."""
    answer = gateway.post(chat({"do": "bare", "tag": task, "status": 502, "body": "<html>Bad gateway</html>"}), task)
    assert answer.status == 502
    if "json" in answer.headers["content-type"]:
        assert answer.error["message"]
