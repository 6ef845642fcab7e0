"""Answers of Chat and Messages for the tests of their translation, and ways to put one into the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anthropic.types
import orjson
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from negawatt.reply import Reply
from negawatt.translate import Translator
from negawatt.translate.answer import translated
from negawatt.translate.chat_to_messages import ChatToMessages
from negawatt.translate.messages_to_chat import MessagesToChat
from negawatt.wire.chat import CHAT
from negawatt.wire.messages import MESSAGES

EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)
TO_MESSAGES = ChatToMessages(clock=lambda: 1_700_000_000.5)
TO_CHAT = MessagesToChat(new_id=lambda: "0")
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def in_chat(whole: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of Messages as Chat has it."""
    reply = Reply(MESSAGES, body=orjson.dumps(whole))
    return translated(reply, ASKED, TO_MESSAGES, CHAT, MESSAGES).data


def in_messages(whole: dict[str, Any], asked: dict[str, Any] = ASKED) -> dict[str, Any]:
    """Return an answer of Chat as Messages has it."""
    reply = Reply(CHAT, body=orjson.dumps(whole))
    return translated(reply, asked, TO_CHAT, MESSAGES, CHAT).data


def run(translator: Translator, chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all that *translator* makes of *chunks*, which it must leave as they are."""
    before = orjson.dumps(chunks)
    made = [one for chunk in chunks for one in translator.feed(chunk)] + translator.end()
    assert orjson.dumps(chunks) == before
    return made


def chat_chunks(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chunks of Chat that *events* stand for; each is what the SDK expects."""
    chunks = run(TO_MESSAGES.translator(ASKED), events)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return chunks


def messages_events(chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of Messages that *chunks* stand for; each is what the SDK expects, in order."""
    events = run(TO_CHAT.translator(ASKED), chunks)
    for event in events:
        EVENT.validate_python(event)
    in_order(events)
    return events


def in_order(events: Sequence[dict[str, Any]]) -> None:
    """One block is open at a time, they are numbered, and the head and the end are where they belong."""
    assert [event["type"] for event in (events[0], *events[-2:])] == ["message_start", "message_delta", "message_stop"]
    opened, is_open = -1, False
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            opened, is_open = opened + 1, True
        assert is_open
        assert event["index"] == opened
        is_open = event["type"] != "content_block_stop"
    assert not is_open


def folded(wire: Any, chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    folder = wire.folder()
    for chunk in chunks:
        folder.add(chunk)
    assert folder.faithful
    assert folder.complete
    whole: dict[str, Any] = folder.result()
    return whole


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "blue."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": 5,
        "output_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 4},
        "service_tier": "standard",
    },
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-x",
    "service_tier": "default",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "It is blue.",
                "reasoning_content": "Hm.",
                "refusal": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}},
                    {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 35,
        "completion_tokens": 30,
        "total_tokens": 65,
        "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 4},
    },
}


def chunk(delta: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x"}
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    return {**head, "choices": choices, **fields}


def call(index: int | None, arguments: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    place = {} if index is None else {"index": index}
    return {"tool_calls": [{**place, "function": function, **fields}]}


def ended(reason: str = "tool_calls") -> dict[str, Any]:
    return {**chunk(), "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
