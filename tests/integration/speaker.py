"""A provider that speaks every protocol: a real server on 127.0.0.1 with a small mind of its own.

It calls the first tool that it is offered, once; says JSON that fits the schema it is asked for; else repeats what it
was asked. ``GET /last/NAME`` gives the last request whose ``user``, ``metadata.tag`` or ``x-test-tag`` was NAME.

Run as ``python speaker.py``: it prints ``PORT n`` and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

Json = dict[str, Any]
INPUT, OUTPUT, CACHED, THOUGHT = 100, 20, 40, 8
MODEL = "speaker-1"
_last: dict[str, Json] = {}


# -- what it says ------------------------------------------------------------------------------------------------------


def fitting(schema: Json) -> Any:
    """Return the least that keeps *schema*."""
    if "$ref" in schema or "anyOf" in schema:
        return fitting(schema["anyOf"][0]) if "anyOf" in schema else {}
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: fitting(inner) for name, inner in schema.get("properties", {}).items()}
    return {"string": "Ada", "integer": 36, "number": 36.5, "boolean": True, "array": []}.get(kind)


class Mind:
    """What it makes of a request, whatever the protocol: a tool call, or a text, and maybe a thought."""

    def __init__(self, asked: str, tools: list[tuple[str, Json]], schema: Json | None, answered: bool) -> None:
        self.call = tools[0] if tools and not answered else None
        self.arguments = json.dumps(fitting(self.call[1])) if self.call else ""
        self.text = "" if self.call else json.dumps(fitting(schema)) if schema else f"you said: {asked}"
        self.thought = ""

    @property
    def words(self) -> list[str]:
        """Its text in pieces."""
        return [self.text[at : at + 6] for at in range(0, len(self.text), 6)]

    @property
    def fragments(self) -> list[str]:
        return [self.arguments[at : at + 4] for at in range(0, len(self.arguments), 4)]


def said(content: Any) -> str:
    """Return the text of a message's content, in any protocol; pictures are named."""
    if isinstance(content, str):
        return content
    parts = []
    for part in content or []:
        if "image" in part["type"]:
            parts.append("[picture]")
        elif part.get("type") != "tool_result":
            parts.append(str(part.get("text") or ""))
    return " ".join(filter(None, parts))


# -- Chat Completions ------------------------------------------------------------------------------------------------


def chat_mind(request: Json) -> Mind:
    tools = [(tool["function"]["name"], tool["function"].get("parameters", {})) for tool in request.get("tools", [])]
    form = request.get("response_format") or {}
    last = request["messages"][-1]
    answered = last["role"] == "tool"
    asked = f"the tool said {said(last['content'])}" if answered else said(last["content"])
    return Mind(asked, tools, form.get("json_schema", {}).get("schema"), answered)


USAGE = {
    "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT,
    "prompt_tokens_details": {"cached_tokens": CACHED}, "completion_tokens_details": {"reasoning_tokens": THOUGHT},
}  # fmt: skip
CHAT_HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": MODEL}


def chat(request: Json) -> Json:
    mind = chat_mind(request)
    message: Json = {"role": "assistant", "content": mind.text or None, "refusal": None}
    if mind.call:
        function = {"name": mind.call[0], "arguments": mind.arguments}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    reason = "tool_calls" if mind.call else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {**CHAT_HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE, "x_speaker": {"kept": True}}


async def chat_stream(request: Json) -> AsyncIterator[Json]:
    mind = chat_mind(request)
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": word} for word in mind.words)]
    if mind.call:
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": mind.call[0], "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in mind.fragments]
    head = {**CHAT_HEAD, "object": "chat.completion.chunk"}
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if mind.call else "stop"}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": USAGE}


# -- Responses ---------------------------------------------------------------------------------------------------------


def responses_mind(request: Json) -> Mind:
    given = request.get("input") or ""
    last = {"role": "user", "content": given} if isinstance(given, str) else given[-1]
    answered = last.get("type") == "function_call_output"
    asked = f"the tool said {said(last['output'])}" if answered else said(last["content"])
    if request.get("previous_response_id"):
        asked += f" after {request['previous_response_id']}"
    tools = [(tool["name"], tool.get("parameters") or {}) for tool in request.get("tools") or []]
    form = (request.get("text") or {}).get("format") or {}
    return Mind(asked, tools, form.get("schema"), answered)


def responses(request: Json) -> Json:
    mind = responses_mind(request)
    output: list[Json] = []
    if request.get("reasoning"):
        summary = [{"type": "summary_text", "text": "Let me see."}]
        output.append({"id": "rs_1", "type": "reasoning", "summary": summary})
    if mind.call:
        output.append({"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1",
                       "name": mind.call[0], "arguments": mind.arguments})  # fmt: skip
    else:
        part = {"type": "output_text", "text": mind.text, "annotations": [], "logprobs": []}
        output.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    used = {"input_tokens": INPUT, "input_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": 0},
            "output_tokens": OUTPUT, "output_tokens_details": {"reasoning_tokens": THOUGHT},
            "total_tokens": INPUT + OUTPUT}  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": "completed", "error": None,
        "incomplete_details": None, "instructions": request.get("instructions"), "model": MODEL, "output": output,
        "metadata": request.get("metadata") or {}, "parallel_tool_calls": True, "temperature": 1.0,
        "tool_choice": "auto",        "tools": request.get("tools") or [], "top_p": 1.0, "usage": used,
        "text": {"format": {"type": "text"}},
        "previous_response_id": request.get("previous_response_id"), "x_speaker": {"kept": True},
    }  # fmt: skip


async def responses_stream(request: Json) -> AsyncIterator[Json]:
    whole, mind = responses(request), responses_mind(request)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[Json] = [{"type": "response.created", "response": begun},
                          {"type": "response.in_progress", "response": begun}]  # fmt: skip
    for index, item in enumerate(whole["output"]):
        place = {"item_id": item["id"], "output_index": index}
        empty = {**item, "status": "in_progress", **({"content": []} if "content" in item else {}),
                 **({"summary": []} if "summary" in item else {}),
                 **({"arguments": ""} if "arguments" in item else {})}  # fmt: skip
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        if item["type"] == "reasoning":
            at, part = {**place, "summary_index": 0}, item["summary"][0]
            events += [
                {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}},
                {"type": "response.reasoning_summary_text.delta", **at, "delta": part["text"]},
                {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]},
                {"type": "response.reasoning_summary_part.done", **at, "part": part},
            ]
        elif item["type"] == "message":
            at, part = {**place, "content_index": 0}, item["content"][0]
            events.append({"type": "response.content_part.added", **at, "part": {**part, "text": ""}})
            events += [{"type": "response.output_text.delta", **at, "delta": w, "logprobs": []} for w in mind.words]
            events.append({"type": "response.output_text.done", **at, "text": mind.text, "logprobs": []})
            events.append({"type": "response.content_part.done", **at, "part": part})
        else:
            kind = "response.function_call_arguments"
            events += [{"type": f"{kind}.delta", **place, "delta": piece} for piece in mind.fragments]
            events.append({"type": f"{kind}.done", **place, "arguments": mind.arguments, "name": item["name"]})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    for number, event in enumerate([*events, {"type": "response.completed", "response": whole}]):
        yield {**event, "sequence_number": number}


# -- Messages ----------------------------------------------------------------------------------------------------------


def messages_mind(request: Json) -> Mind:
    last = request["messages"][-1]["content"]
    results = [] if isinstance(last, str) else [block for block in last if block["type"] == "tool_result"]
    asked = f"the tool said {said(results[0]['content'])}" if results else said(last)
    tools = [(tool["name"], tool["input_schema"]) for tool in request.get("tools") or []]
    form = (request.get("output_config") or {}).get("format") or request.get("output_format") or {}
    mind = Mind(asked, tools, form.get("schema"), bool(results))
    if (request.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        mind.thought = "Let me see."
    return mind


def messages(request: Json) -> Json:
    mind = messages_mind(request)
    content: list[Json] = []
    if mind.thought:
        content.append({"type": "thinking", "thinking": mind.thought, "signature": "c2lnbmVk"})
    if mind.call:
        content.append({"type": "tool_use", "id": "toolu_1", "name": mind.call[0], "input": json.loads(mind.arguments)})
    else:
        content.append({"type": "text", "text": mind.text})
    used = {"input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0,
            "output_tokens": OUTPUT, "service_tier": "standard"}  # fmt: skip
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": content,
        "stop_reason": "tool_use" if mind.call else "end_turn", "stop_sequence": None, "usage": used,
        "x_speaker": {"kept": True},
    }  # fmt: skip


async def messages_stream(request: Json) -> AsyncIterator[Json]:
    whole, mind = messages(request), messages_mind(request)
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty[block["type"]]}}
        deltas: list[Json] = [{"type": "text_delta", "text": word} for word in mind.words]
        if block["type"] == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": mind.thought},
                      {"type": "signature_delta", "signature": block["signature"]}]  # fmt: skip
        elif block["type"] == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in mind.fragments]
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": OUTPUT}}
    yield {"type": "message_stop"}


# -- the rest ----------------------------------------------------------------------------------------------------------


def count_tokens(request: Json) -> Json:
    return {"input_tokens": INPUT}


def completions(request: Json) -> Json:
    choice = {"index": 0, "text": f" and {request['prompt']}", "logprobs": None, "finish_reason": "stop"}
    return {**CHAT_HEAD, "object": "text_completion", "choices": [choice], "usage": USAGE}


async def completions_stream(request: Json) -> AsyncIterator[Json]:
    head = {**CHAT_HEAD, "object": "text_completion"}
    for word in (" and ", request["prompt"]):
        yield {**head, "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": USAGE}


def embeddings(request: Json) -> Json:
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    vectors = [[float(len(text)), 0.5] for text in texts]
    if request.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors]  # type: ignore[misc]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": INPUT, "total_tokens": INPUT}}


def rerank(request: Json) -> Json:
    results = [{"index": i, "relevance_score": 1 / (i + 2)} for i in range(len(request["documents"]))]
    return {"id": "rr_1", "results": results, "meta": {"billed_units": {"search_units": 1}}}


WHOLE: dict[str, Callable[[Json], Json]] = {
    "/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens, "/v1/completions": completions, "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
}  # fmt: skip
STREAMED: dict[str, Callable[[Json], AsyncIterator[Json]]] = {
    "/v1/chat/completions": chat_stream, "/v1/responses": responses_stream, "/v1/messages": messages_stream,
    "/v1/completions": completions_stream,
}  # fmt: skip


# -- the server --------------------------------------------------------------------------------------------------------


def remember(path: str, headers: dict[str, str], body: Json) -> None:
    metadata = body.get("metadata") or {}
    for name in (body.get("user"), metadata.get("user_id"), metadata.get("tag"), headers.get("x-test-tag")):
        if name:
            _last[str(name)] = {"path": path, "headers": headers, "body": body}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            await answer(writer, method, path, headers, json.loads(raw) if raw else {})
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def answer(writer: asyncio.StreamWriter, method: str, path: str, headers: dict[str, str], body: Json) -> None:
    if method == "GET":
        listed = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "speaker"}]}
        whole(writer, _last.get(path.removeprefix("/last/"), {}) if path.startswith("/last/") else listed)
        return
    remember(path, headers, body)
    if not body.get("stream"):
        whole(writer, WHOLE[path](body))
        return
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-speaker: kept\r\n"
                 b"transfer-encoding: chunked\r\n\r\n")  # fmt: skip
    async for event in STREAMED[path](body):
        name = f"event: {event['type']}\n" if "type" in event else ""
        piece(writer, f"{name}data: {json.dumps(event)}\n\n".encode())
        await writer.drain()
        await asyncio.sleep(0)
    if path.endswith("completions"):
        piece(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


def piece(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def whole(writer: asyncio.StreamWriter, value: Json) -> None:
    data = json.dumps(value).encode()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-speaker: kept\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
