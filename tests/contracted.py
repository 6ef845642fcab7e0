"""Answers that should be JSON, in every chat protocol: a provider that speaks one and says what it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from worlds import MODEL, Answer, Chunks, Fake, World

from negawatt.call import Call, Target
from negawatt.protocol import Wire
from negawatt.reply import Reply
from negawatt.wire.chat import CHAT
from negawatt.wire.messages import MESSAGES
from negawatt.wire.responses import RESPONSES

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object", "properties": {"name": TEXT, "born": {"type": "integer"}}, "required": ["name", "born"],
    "additionalProperties": False,
}  # fmt: skip
GOOD = '{"name": "Ada", "born": 1815}'
ADA = {"name": "Ada", "born": 1815}
WIRES: dict[str, Wire] = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}
PROTOCOLS = tuple(WIRES)
KINDS = [(protocol, stream) for protocol in PROTOCOLS for stream in (False, True)]


def asking(protocol: str, text: str = "Who was she?", *, schema: Any = SCHEMA, **fields: Any) -> dict[str, Any]:
    """Return a request of *protocol* that asks for *schema*; None: for any text."""
    turns = [{"role": "user", "content": text}]
    request: dict[str, Any]
    if protocol == "chat":
        request = {"model": MODEL, "messages": turns}
        form = {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}}
    elif protocol == "responses":
        request = {"model": MODEL, "input": text}
        form = {"text": {"format": {"type": "json_schema", "name": "person", "schema": schema}}}
    else:
        request = {"model": MODEL, "messages": turns, "max_tokens": 4_000}
        form = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    return {**request, "temperature": 0, **({} if schema is None else form), **fields}


def saying(protocol: str, text: str, *, tokens: int = 20, cut: bool = False, tool: bool = False) -> dict[str, Any]:
    """Return a whole answer of *protocol* that says *text*; *cut*: at its limit; *tool*: it calls one instead."""
    if protocol == "chat":
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if tool:
            call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "length" if cut else "tool_calls" if tool else "stop",
        }
        usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
                "usage": usage}  # fmt: skip
    if protocol == "responses":
        part = {"type": "output_text", "text": text, "annotations": []}
        item: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "status": "completed",
                                "content": [part]}  # fmt: skip
        if tool:
            item = {"id": "m", "type": "function_call", "call_id": "t", "name": "f", "arguments": "{}",
                    "status": "completed"}  # fmt: skip
        return {
            "id": "r", "object": "response", "created_at": 1, "model": MODEL, "output": [item],
            "status": "incomplete" if cut else "completed", "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": {"input_tokens": 100, "output_tokens": tokens, "total_tokens": 100 + tokens},
        }  # fmt: skip
    block: dict[str, Any] = {"type": "text", "text": text}
    if tool:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    return {
        "id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [block],
        "stop_reason": "max_tokens" if cut else "tool_use" if tool else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": tokens},
    }  # fmt: skip


class Speaker(Fake):
    """Says *texts* in turn, the last one for ever, in *protocol*; an entry may be a whole answer or an error."""

    def __init__(self, protocol: str, *texts: Any) -> None:
        super().__init__(every_s=0.01)
        self.protocol = protocol
        self.speaks = frozenset({protocol})
        self.texts = list(texts)

    async def ask(self, call: Call, target: Target) -> Reply:
        self.asked.append(dict(call.request.data))
        self.models.append(target.model)
        said = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        await asyncio.sleep(self.delay_s)
        if isinstance(said, BaseException):
            raise said
        whole = saying(self.protocol, said) if isinstance(said, str) else said
        wire = WIRES[self.protocol]
        if not call.request.stream:
            return Reply(wire, body=orjson.dumps(whole))
        return Reply(wire, source=Chunks(wire.unfold(whole), every_s=self.every_s))


async def said(w: World, protocol: str, request: dict[str, Any], **hints: str | None) -> Answer:
    """Ask *request* as the server does it."""
    return await w.send(w.call(request, wire=WIRES[protocol], **hints))


def text_of(protocol: str, answer: Answer) -> str:
    """Return what *answer* says: the one text, of a stream as its chunks have it."""
    wire = WIRES[protocol]
    if answer.chunks:
        folder = wire.folder()
        for chunk in answer.chunks:
            folder.add(chunk)
        (text,) = wire.answers(folder.result())
        return text
    (text,) = wire.answers(answer.data)
    return text
