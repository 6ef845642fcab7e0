"""What an Anthropic Messages request says, in the form that tokens are counted in."""

from __future__ import annotations

from typing import Any

import orjson

from negawatt.call import Request
from negawatt.protocol import Prompt
from negawatt.wire.common import as_object, as_objects
from negawatt.wire.messages_folder import INVALID_JSON

_TEXTS = ("title", "context", "text", "thinking", "stdout", "stderr")  # what blocks say, by the fields they say it in
_DEEPEST = 12  # blocks inside of blocks; four is the most that the API knows


def prompt(request: Request) -> Prompt:
    """Return the system prompt, the messages and the tools in the form that tokens are counted in.

    What has no text that we could read counts as nothing: PDFs, files, what the provider has encrypted.
    """
    messages: list[dict[str, Any]] = []
    system = _parts(request.get("system"))
    if system:
        messages.append({"role": "system", "content": system})
    for message in as_objects(request.get("messages")):
        messages += _as_chat(message)
    return Prompt(messages=messages, tools=[_function(tool) for tool in as_objects(request.get("tools"))])


def _as_chat(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return *message* as Chat Completions has it: results of tools are messages of their own, before what is said."""
    role, content = message.get("role"), message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    said: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in as_objects(content):
        kind = str(block.get("type"))
        if kind.endswith("tool_use"):
            function = {"name": block.get("name"), "arguments": written(block.get("input"))}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind.endswith("tool_result"):
            result = _parts(block.get("content"))
            if all(part["type"] == "text" for part in result):
                said.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _joined(result)})
            else:
                said.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": result})
        else:
            parts += _parts(block)
    if calls:
        said.append({"role": role, "content": parts, "tool_calls": calls})
    elif parts or not said:
        said.append({"role": role, "content": parts})
    return said


def _joined(parts: list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in parts)


def _parts(content: Any, room: int = _DEEPEST) -> list[dict[str, Any]]:
    """Return what a text, a block or a list of blocks says, as parts of type ``text`` and ``image_url``."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, dict):
        return [part for block in as_objects(content) for part in _parts(block, room - 1)] if room else []
    source = as_object(content.get("source"))
    if content.get("type") == "image":
        return [{"type": "image_url", "image_url": {"url": _address(source)}}]
    parts = [{"type": "text", "text": content[name]} for name in _TEXTS if isinstance(content.get(name), str)]
    inner = source.get("data") if source.get("type") == "text" else source.get("content", content.get("content"))
    return parts + (_parts(inner, room - 1) if room else [])


def _address(source: dict[str, Any]) -> str:
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    return str(source.get("url") or source.get("file_id") or "")


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    names = (("name", "name"), ("description", "description"), ("parameters", "input_schema"))
    return {"type": "function", "function": {ours: tool[theirs] for ours, theirs in names if theirs in tool}}


def written(value: Any) -> str:
    """Return a tool's input as JSON; what of it has come, when that is not all; "" for what cannot be written."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get(INVALID_JSON), str):
        return str(value[INVALID_JSON])
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""
