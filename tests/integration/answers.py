"""Answers that are not plain, each in the words of every protocol: parallel calls, thoughts, answers cut off."""

from __future__ import annotations

import json
from itertools import zip_longest

from playing import Wire, in_chat, in_messages, in_responses
from world import Json


def pieces(text: str, size: int = 5) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


CALLS: list[tuple[str, Json]] = [("weather", {"city": "Ulm", "n": [1, {}]}), ("clock", {})]
WRITTEN = [json.dumps(arguments) for _, arguments in CALLS]


def calls_in_chat(in_turns: bool = False) -> Wire:
    """Two calls in fragments. *in_turns*: a fragment of the one, then one of the other."""
    made: list[Json] = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": WRITTEN[i]}}
        for i, (name, _) in enumerate(CALLS)
    ]
    begun = [{"index": i, **call, "function": {**call["function"], "arguments": ""}} for i, call in enumerate(made)]
    rest = [
        [{"index": i, "function": {"arguments": piece}} for piece in pieces(text)] for i, text in enumerate(WRITTEN)
    ]
    first, second = ([one, *more] for one, more in zip(begun, rest, strict=True))
    ordered = [one for pair in zip_longest(first, second) for one in pair if one] if in_turns else first + second
    return in_chat({"tool_calls": made}, [{"tool_calls": [one]} for one in ordered], "tool_calls")


def calls_in_responses() -> Wire:
    items: list[Json] = [
        {"id": f"fc_{i}", "type": "function_call", "status": "completed", "call_id": f"call_{i}", "name": name,
         "arguments": WRITTEN[i]} for i, (name, _) in enumerate(CALLS)
    ]  # fmt: skip
    kind = "response.function_call_arguments"
    deltas: list[list[Json]] = [
        [*({"type": f"{kind}.delta", "delta": piece} for piece in pieces(text)),
         {"type": f"{kind}.done", "arguments": text, "name": name}]
        for text, (name, _) in zip(WRITTEN, CALLS, strict=True)
    ]  # fmt: skip
    return in_responses(items, deltas)


def calls_in_messages() -> Wire:
    blocks: list[Json] = [
        {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": arguments}
        for i, (name, arguments) in enumerate(CALLS)
    ]
    deltas: list[list[Json]] = [
        [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(text)] for text in WRITTEN
    ]
    return in_messages(blocks, deltas, "tool_use")


SAID, THOUGHT = "so far, and naïve 🙂", "Let me see."


def said_in_chat(reason: str = "stop", thought: bool = False) -> Wire:
    deltas: list[Json] = [{"reasoning_content": piece} for piece in pieces(THOUGHT)] if thought else []
    deltas += [{"content": piece} for piece in pieces(SAID)]
    return in_chat({"content": SAID, **({"reasoning_content": THOUGHT} if thought else {})}, deltas, reason)


def said_in_responses(incomplete: str | None = None, thought: bool = False) -> Wire:
    part: Json = {"type": "output_text", "text": SAID, "annotations": [], "logprobs": []}
    message: Json = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    at: Json = {"content_index": 0}
    between: list[Json] = [
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in pieces(SAID)),
        {"type": "response.output_text.done", **at, "text": SAID, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
    ]
    if not thought:
        return in_responses([message], [between], incomplete)
    kind, where, summary = "response.reasoning_summary", {"summary_index": 0}, {"type": "summary_text", "text": THOUGHT}
    thinking: list[Json] = [
        {"type": f"{kind}_part.added", **where, "part": {**summary, "text": ""}},
        *({"type": f"{kind}_text.delta", **where, "delta": piece} for piece in pieces(THOUGHT)),
        {"type": f"{kind}_text.done", **where, "text": THOUGHT},
        {"type": f"{kind}_part.done", **where, "part": summary},
    ]
    reasoning: Json = {"id": "rs_1", "type": "reasoning", "summary": [summary]}
    return in_responses([reasoning, message], [thinking, between], incomplete)


def said_in_messages(reason: str = "end_turn", thought: bool = False) -> Wire:
    blocks: list[Json] = [{"type": "text", "text": SAID}]
    deltas: list[list[Json]] = [[{"type": "text_delta", "text": piece} for piece in pieces(SAID)]]
    if thought:
        blocks.insert(0, {"type": "thinking", "thinking": THOUGHT, "signature": "c2lnbmVk"})
        thinking: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(THOUGHT)]
        deltas.insert(0, [*thinking, {"type": "signature_delta", "signature": "c2lnbmVk"}])
    return in_messages(blocks, deltas, reason)


# Of each case, the answer of each provider.
CASES: dict[str, dict[str, Wire]] = {
    "calls": {"chat": calls_in_chat(), "responses": calls_in_responses(), "messages": calls_in_messages()},
    "thoughts": {"chat": said_in_chat(thought=True), "responses": said_in_responses(thought=True),
                 "messages": said_in_messages(thought=True)},
    "too long": {"chat": said_in_chat("length"), "responses": said_in_responses("max_output_tokens"),
                 "messages": said_in_messages("max_tokens")},
    "filtered": {"chat": said_in_chat("content_filter"), "responses": said_in_responses("content_filter"),
                 "messages": said_in_messages("refusal")},
}  # fmt: skip
