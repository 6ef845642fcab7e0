"""OpenAI Responses: the usage of its last event, and what there is without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shapes import BUGS, ESTIMATED, Counts, Json, Shape, named_lines, text, whole

OPENAI = "OpenAI API reference, Responses"
PLAIN = {
    "input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 120,
}  # fmt: skip
DIALECTS: list[tuple[str, str, Any, Counts]] = [
    ("plain", OPENAI, PLAIN, Counts(100, 20)),
    ("cached input", OPENAI, {**PLAIN, "input_tokens_details": {"cached_tokens": 64}}, Counts(100, 20, read=64)),
    ("cache written", OPENAI, {**PLAIN, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10}},
     Counts(100, 20, read=60, write=10)),
    ("reasoning", OPENAI, {**PLAIN, "output_tokens_details": {"reasoning_tokens": 15}}, Counts(100, 20, reasoning=15)),
    ("both", OPENAI, {
        **PLAIN, "input_tokens_details": {"cached_tokens": 64}, "output_tokens_details": {"reasoning_tokens": 15},
    }, Counts(100, 20, read=64, reasoning=15)),
    ("null details", BUGS, {
        **PLAIN, "input_tokens_details": None, "output_tokens_details": None,
    }, Counts(100, 20)),
    ("no details", "compatible servers", {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
     Counts(100, 20)),
    ("no total", "compatible servers", {"input_tokens": 100, "output_tokens": 20}, Counts(100, 20)),
    ("counts as texts", BUGS, {"input_tokens": "100", "output_tokens": "20"}, Counts(100, 20)),
    ("more cached than read", BUGS, {**PLAIN, "input_tokens_details": {"cached_tokens": 150}},
     Counts(100, 20, read=100)),
    ("cost", "OpenRouter", {**PLAIN, "cost": 0.0123}, Counts(100, 20, cost="0.0123")),
    ("null", BUGS, None, ESTIMATED),
    ("zeros", BUGS, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, ESTIMATED),
]  # fmt: skip


def message(said: str = "Two or three days.", status: str = "completed") -> Json:
    content = [{"type": "output_text", "text": said, "annotations": [], "logprobs": []}] if said else []
    return {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": content}


def body(usage: Any, *items: Json, **fields: Any) -> Json:
    return {
        "id": "resp_1", "object": "response", "created_at": 1764000000, "status": "completed", "error": None,
        "incomplete_details": None, "instructions": None, "model": "m-2026-01-01", "output": list(items) or [message()],
        "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": usage, **fields,
    }  # fmt: skip


def stream(final: Json, kind: str = "response.completed") -> list[Json]:
    begun = {**final, "status": "in_progress", "output": [], "usage": None}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": message("", "in_progress")},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "Two or ", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "three days.", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Two or three days.", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": {**part, "text": "Two or three days."}},
        {"type": "response.output_item.done", "output_index": 0, "item": message()},
        {"type": kind, "response": final},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FAILED = {"status": "failed", "error": {"code": "server_error", "message": "no"}}
THINKS = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Well."}]}
CALLS = [{"id": f"fc_{n}", "type": "function_call", "call_id": f"call_{n}", "name": "f", "arguments": "{}",
          "status": "completed"} for n in range(2)]  # fmt: skip
SEARCHED = [{"id": f"ws_{n}", "type": "web_search_call", "status": "completed",
             "action": {"type": "search", "query": "x"}} for n in range(2)]  # fmt: skip
# name, source, the last event's kind, its response, what it means
ENDS: list[tuple[str, str, Json, Counts]] = [
    ("cut off by its limit", "response.incomplete", body(PLAIN, **CUT), Counts(100, 20)),
    ("filtered", "response.incomplete", body(PLAIN, **{**CUT, "incomplete_details": {"reason": "content_filter"}}),
     Counts(100, 20)),
    ("a summary of its thoughts", "response.completed", body(PLAIN, THINKS, message()), Counts(100, 20)),
    ("parallel calls", "response.completed", body(PLAIN, *CALLS), Counts(100, 20)),
    ("searches", "response.completed", body(PLAIN, *SEARCHED, message()), Counts(100, 20, searches=2)),
    ("goes on from another", "response.completed", body(PLAIN, previous_response_id="resp_0"), Counts(100, 20)),
    ("the default tier", "response.completed", body(PLAIN, service_tier="default"), Counts(100, 20)),
]  # fmt: skip


def shapes() -> Iterator[Shape]:
    for name, source, usage, counts in DIALECTS:
        yield Shape(f"{name}, whole", "responses", source, whole(body(usage)), counts)
        events = (named_lines(stream(body(usage))),)
        yield Shape(f"{name}, streamed", "responses", source, events, counts, streamed=True)
    for name, kind, final, counts in ENDS:
        yield Shape(f"{name}, whole", "responses", OPENAI, whole(final), counts)
        events = (named_lines(stream(final, kind)),)
        yield Shape(f"{name}, streamed", "responses", OPENAI, events, counts, streamed=True)
    good = stream(body(PLAIN))
    error = {"type": "error", "code": "server_error", "message": "overloaded", "param": None, "sequence_number": 7}
    bare = b"".join(b"data: " + text(event) + b"\n\n" for event in good)
    for name, sent, ends, counts in (
        ("CRLF", named_lines(good, end="\r\n"), "answered", Counts(100, 20)),
        ("events without names", bare, "answered", Counts(100, 20)),
        ("[DONE] after the last event", named_lines(good) + b"data: [DONE]\n\n", "answered", Counts(100, 20)),
        ("items left out of the last event", named_lines([*good[:-1], {**good[-1], "response": {
            **body(PLAIN), "output": []}}]), "answered", Counts(100, 20)),
        ("breaks off", named_lines(good[:6]), "upstream_broken", ESTIMATED),
        ("an error in the middle", named_lines([*good[:6], error]), "upstream_broken", ESTIMATED),
        ("garbage in the middle", named_lines(good[:6]) + b"event: x\ndata: {no\n\n", "upstream_broken", ESTIMATED),
    ):  # fmt: skip
        yield Shape(name, "responses", BUGS, (sent,), counts, streamed=True, ends=ends)
    single = tuple(bytes([byte]) for byte in named_lines(good))
    yield Shape("one byte at a time", "responses", BUGS, single, Counts(100, 20), streamed=True)
