"""Anthropic Messages: the dialects of its usage, and how a stream tells them in two parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shapes import BUGS, ESTIMATED, Counts, Json, Shape, named_lines, text, whole

ANTHROPIC = "Anthropic API reference, Messages"
SPLIT = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10}
PLAIN = {"input_tokens": 100, "output_tokens": 20}
CACHED = {"input_tokens": 40, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 10, "output_tokens": 20}

# name, source, the usage block of a whole answer, what it means
DIALECTS: list[tuple[str, str, Any, Counts]] = [
    ("plain", ANTHROPIC, PLAIN, Counts(100, 20)),
    ("cache read", "litellm #11789", {**PLAIN, "input_tokens": 40, "cache_read_input_tokens": 60},
     Counts(100, 20, read=60)),
    ("cache written", "litellm #11789", {**PLAIN, "input_tokens": 40, "cache_creation_input_tokens": 60},
     Counts(100, 20, write=60)),
    ("cache read and written", "litellm #11789", CACHED, Counts(100, 20, read=50, write=10)),
    ("written for five minutes", ANTHROPIC, {
        **PLAIN, "input_tokens": 60, "cache_creation_input_tokens": 40,
        "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 0},
    }, Counts(100, 20, write=40)),
    ("written for an hour", ANTHROPIC, {
        **PLAIN, "input_tokens": 60, "cache_creation_input_tokens": 40,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 40},
    }, Counts(100, 20, write=40, write_1h=40)),
    ("written for both", ANTHROPIC, {
        **PLAIN, "input_tokens": 60, "cache_creation_input_tokens": 40, "cache_creation": SPLIT,
    }, Counts(100, 20, write=40, write_1h=10)),
    ("lifetimes that do not sum to the total", "litellm #42663", {
        **PLAIN, "input_tokens": 60, "cache_creation_input_tokens": 40,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 10},
    }, Counts(100, 20, write=40, write_1h=10)),
    ("lifetimes without a total", BUGS, {
        **PLAIN, "input_tokens": 60, "cache_creation": SPLIT,
    }, Counts(100, 20, write=40, write_1h=10)),
    ("nothing fresh", ANTHROPIC, {"input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 20},
     Counts(100, 20, read=100)),
    ("thinking", ANTHROPIC, {**PLAIN, "output_tokens_details": {"thinking_tokens": 15}},
     Counts(100, 20, reasoning=15)),
    ("searches of the server", ANTHROPIC, {**PLAIN, "server_tool_use": {"web_search_requests": 3}},
     Counts(100, 20, searches=3)),
    ("the standard tier", ANTHROPIC, {**PLAIN, "service_tier": "standard"}, Counts(100, 20)),
    ("null cache counts", ANTHROPIC, {
        **PLAIN, "cache_read_input_tokens": None, "cache_creation_input_tokens": None, "cache_creation": None,
        "server_tool_use": None, "service_tier": None,
    }, Counts(100, 20)),
    ("zeros beside it", ANTHROPIC, {
        **PLAIN, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0}, "inference_geo": "global",
    }, Counts(100, 20)),
    ("counts as texts", BUGS, {"input_tokens": "100", "output_tokens": "20"}, Counts(100, 20)),
    ("no usage", BUGS, None, ESTIMATED),
    ("empty", BUGS, {}, ESTIMATED),
]  # fmt: skip
HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-2026-01-01"}
ENDING = {"stop_reason": "end_turn", "stop_sequence": None}


def body(usage: Any, *blocks: Json, **fields: Any) -> Json:
    content = list(blocks) or [{"type": "text", "text": "Two or three days."}]
    return {**HEAD, "content": content, **ENDING, "usage": usage, **fields}


def start(usage: Any) -> Json:
    message = {**HEAD, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    return {"type": "message_start", "message": message}


def block(index: int, begun: Json, *deltas: Json) -> list[Json]:
    return [
        {"type": "content_block_start", "index": index, "content_block": begun},
        *[{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas],
        {"type": "content_block_stop", "index": index},
    ]


def says(*words: str, index: int = 0) -> list[Json]:
    return block(index, {"type": "text", "text": ""}, *[{"type": "text_delta", "text": word} for word in words])


def delta(usage: Any, **fields: Any) -> Json:
    return {"type": "message_delta", "delta": {**ENDING, **fields}, "usage": usage}


STOP = {"type": "message_stop"}
PING = {"type": "ping"}
WORDS = says("Two or ", "three days.")


def _stream(begun: Any, ended: Any, blocks: list[Json] | None = None, **fields: Any) -> list[Json]:
    return [start(begun), *(blocks or WORDS), delta(ended, **fields), STOP]


THINKS = block(0, {"type": "thinking", "thinking": "", "signature": ""},
               {"type": "thinking_delta", "thinking": "Well."},
               {"type": "signature_delta", "signature": "c2ln"})  # fmt: skip
CALLS = [
    *block(1, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
           {"type": "input_json_delta", "partial_json": '{"a"'}, {"type": "input_json_delta", "partial_json": ": 1}"}),
    *block(2, {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}),
]  # fmt: skip
SEARCHED = [
    *block(0, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
           {"type": "input_json_delta", "partial_json": '{"query": "x"}'}),
    *block(1, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}),
    *block(2, {"type": "text", "text": "", "citations": []}, {"type": "text_delta", "text": "So."},
           {"type": "citations_delta", "citation": {"type": "web_search_result_location", "url": "https://example.com"}}),
]  # fmt: skip
FIRST = {"input_tokens": 100, "output_tokens": 1}
# name, source, the events, what they mean
STREAMS: list[tuple[str, str, list[Json], Counts]] = [
    ("input first, output last", ANTHROPIC, _stream(FIRST, {"output_tokens": 20}), Counts(100, 20)),
    ("everything again at the end", ANTHROPIC, _stream(FIRST, PLAIN), Counts(100, 20)),
    ("input known at the end only", "Bedrock and vLLM proxies", _stream({"input_tokens": 0, "output_tokens": 0}, PLAIN),
     Counts(100, 20)),
    ("zero input at the end", BUGS, _stream(FIRST, {"input_tokens": 0, "output_tokens": 20}),
     Counts(100, 20)),
    ("null input at the end", BUGS, _stream(FIRST, {"input_tokens": None, "output_tokens": 20}),
     Counts(100, 20)),
    ("cache in the first part", "litellm #11789", _stream({**CACHED, "output_tokens": 1}, {"output_tokens": 20}),
     Counts(100, 20, read=50, write=10)),
    ("cache in both parts", "litellm #11789", _stream({**CACHED, "output_tokens": 1}, CACHED),
     Counts(100, 20, read=50, write=10)),
    ("cache in the last part", BUGS, _stream({"input_tokens": 40, "output_tokens": 1}, CACHED),
     Counts(100, 20, read=50, write=10)),
    ("lifetimes in the first part", ANTHROPIC, _stream(
        {"input_tokens": 60, "cache_creation_input_tokens": 40, "cache_creation": SPLIT, "output_tokens": 1},
        {"output_tokens": 20}), Counts(100, 20, write=40, write_1h=10)),
    ("more input read on the way", "litellm #42663, server tools", _stream(
        {"input_tokens": 30, "output_tokens": 1},
        {**PLAIN, "server_tool_use": {"web_search_requests": 2}}, SEARCHED), Counts(100, 20, searches=2)),
    ("several deltas, growing", BUGS,
     [start(FIRST), *WORDS, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 8}},
      delta({"output_tokens": 20}), STOP], Counts(100, 20)),
    ("thinking and its signature", ANTHROPIC, _stream(FIRST, {"output_tokens": 20}, [*THINKS, *says("Days.", index=1)]),
     Counts(100, 20)),
    ("parallel tools in fragments", ANTHROPIC, _stream(FIRST, {"output_tokens": 20}, [*says("Wait."), *CALLS],
                                                       stop_reason="tool_use"), Counts(100, 20)),
    ("cut off by its limit", ANTHROPIC, _stream(FIRST, {"output_tokens": 20}, stop_reason="max_tokens"),
     Counts(100, 20)),
    ("paused", ANTHROPIC, _stream(FIRST, {"output_tokens": 20}, stop_reason="pause_turn"), Counts(100, 20)),
    ("refused", ANTHROPIC, _stream(FIRST, {"output_tokens": 20}, stop_reason="refusal"), Counts(100, 20)),
    ("pings in between", ANTHROPIC, [
        start(FIRST), PING, *WORDS[:2], PING, *WORDS[2:], delta({"output_tokens": 20}), PING, STOP], Counts(100, 20)),
    ("an event of tomorrow", ANTHROPIC, [start(FIRST), {"type": "something_new", "x": 1}, *WORDS,
                                         delta({"output_tokens": 20}), STOP], Counts(100, 20)),
    ("the standard tier", ANTHROPIC, _stream({**FIRST, "service_tier": "standard"}, {"output_tokens": 20}),
     Counts(100, 20)),
]  # fmt: skip
BEGUN = [start(FIRST), *WORDS[:2]]
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
FROM_START = Counts(100, None, basis="estimated")


def shapes() -> Iterator[Shape]:
    for name, source, usage, counts in DIALECTS:
        yield Shape(f"{name}, whole", "messages", source, whole(body(usage)), counts)
    for name, source, events, counts in STREAMS:
        yield Shape(f"{name}, streamed", "messages", source, (named_lines(events),), counts, streamed=True)
    good = _stream(FIRST, {"output_tokens": 20})
    bare = b"".join(b"data: " + text(event) + b"\n\n" for event in good)
    for name, stream, ends, counts in (
        ("CRLF", named_lines(good, end="\r\n"), "answered", Counts(100, 20)),
        ("events without names", bare, "answered", Counts(100, 20)),
        ("without message_stop", named_lines(good[:-1]), "answered", Counts(100, 20)),
        ("breaks off", named_lines(BEGUN), "upstream_broken", FROM_START),
        ("an error in the middle", named_lines([*BEGUN, OVERLOADED]), "upstream_broken", FROM_START),
        ("garbage in the middle", named_lines(BEGUN) + b"event: x\ndata: {no\n\n", "upstream_broken", FROM_START),
    ):
        yield Shape(name, "messages", BUGS, (stream,), counts, streamed=True, ends=ends)
    split = named_lines(_stream(FIRST, {"output_tokens": 20}, says("Grüße, 世界 🙂")))
    single = tuple(bytes([byte]) for byte in split)
    yield Shape("one byte at a time", "messages", BUGS, single, Counts(100, 20), streamed=True)
