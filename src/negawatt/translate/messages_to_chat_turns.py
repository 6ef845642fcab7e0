"""The conversation of an Anthropic Messages request, as Chat Completions has it: who says what, and in what form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from negawatt.translate.read import check_kind, kind_at, object_at, objects_at, only, said, text_at
from negawatt.translate.table import Field, refuse
from negawatt.wire.messages_folder import INVALID_JSON

TARGET = "Chat Completions"
_CACHE = Field("left out", "it only makes the same answer cheaper")
_SERVER_TOOL = Field("refused", "it is of a tool that Anthropic runs itself")
_NO_FILES = "the file is not there; send its data"
CONTENT: Mapping[str, Field] = {
    "system": Field("converted", "a system message: the first one, or where it stands in messages"),
    "user": Field("same", "tool results become tool messages, before the rest of what the user says"),
    "assistant": Field("same", "text before tool calls; as the last message it is refused: Chat has no prefill"),
    "text": Field("same", "empty ones are left out"),
    "text.cache_control": _CACHE,
    "text.citations": Field("left out", "the model wrote none of them"),
    "image": Field("converted", "image_url; of data a data URL; file ids are refused"),
    "image.cache_control": _CACHE,
    "image.transformations": Field("refused", "images are scaled by the provider's own rules; downsize is left out"),
    "document": Field("converted", "PDF data: file; text and content: text, after its title and context"),
    "document.cache_control": _CACHE,
    "document.citations": Field("refused", "answers do not cite documents; enabled: false is left out"),
    "document.context": Field("converted", "text before the document"),
    "document.title": Field("converted", "filename, or text before the document"),
    "search_result": Field("converted", "text, after its title and source"),
    "search_result.cache_control": _CACHE,
    "search_result.citations": Field("refused", "answers do not cite documents; enabled: false is left out"),
    "thinking": Field("left out", "only who signed it takes it back"),
    "redacted_thinking": Field("left out", "only who encrypted it can read it"),
    "tool_use": Field("converted", "tool_calls"),
    "tool_use.cache_control": _CACHE,
    "tool_use.caller": Field("refused", "tools are called by the model itself; direct is left out"),
    "tool_use.toolset_name": Field("refused", "there are no toolsets"),
    "tool_result": Field(
        "converted", "a tool message; images and PDF in it go into a user message after it, which names the call"
    ),
    "tool_result.cache_control": _CACHE,
    "tool_result.is_error": Field("converted", 'the result begins with "Error: "'),
    "tool_result.toolset_name": Field("refused", "there are no toolsets"),
    "bash_code_execution_tool_result": _SERVER_TOOL,
    "browser_state": Field("refused", "there is no browser"),
    "code_execution_tool_result": _SERVER_TOOL,
    "compaction": Field("refused", "only who made it can read it"),
    "connector_text": Field("refused", "it is of a connector that Anthropic runs itself"),
    "container_upload": Field("refused", "there is no container"),
    "fallback": Field("refused", "there is no other model to go on with"),
    "mcp_tool_result": _SERVER_TOOL,
    "mcp_tool_use": _SERVER_TOOL,
    "server_tool_use": _SERVER_TOOL,
    "text_editor_code_execution_tool_result": _SERVER_TOOL,
    "tool_reference": Field("refused", "tools cannot be found by search"),
    "tool_search_tool_result": _SERVER_TOOL,
    "web_fetch_tool_result": _SERVER_TOOL,
    "web_search_tool_result": _SERVER_TOOL,
}
_ROLES = ("system", "user", "assistant")
_KINDS = tuple(kind for kind in CONTENT if kind not in _ROLES and "." not in kind)
# The fields without which there is no block of a kind. The rest are in the table.
_BASICS: Mapping[str, tuple[str, ...]] = {
    "text": ("type", "text"),
    "image": ("type", "source"),
    "document": ("type", "source"),
    "search_result": ("type", "content", "source", "title"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "tool_use": ("type", "id", "name", "input"),
    "tool_result": ("type", "tool_use_id", "content"),
}
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "base64": ("media_type", "data"),
    "text": ("media_type", "data"),
    "content": ("content",),
    "url": ("url",),
    "file": ("file_id",),
}
_SAYS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "caller": lambda value: bool(value == {"type": "direct"}),
    "citations": lambda value: isinstance(value, dict) and not value.get("enabled"),
    "transformations": lambda value: isinstance(value, dict) and value.get("oversized_image") in (None, "downsize"),
}

_Part = dict[str, Any]
_Message = dict[str, Any]


def conversation(system: Any, messages: list[dict[str, Any]]) -> list[_Message]:
    """Return the messages of Chat Completions. Raises `Untranslatable`, which names the block."""
    told: list[_Message] = []
    first = _parts(system, "system", ("text",))
    if first:
        told.append({"role": "system", "content": _short(first)})
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        role = kind_at(message, "role", _ROLES, where, TARGET)
        check_kind(message, role, CONTENT, ("role", "content"), TARGET, where)
        told += _SPOKEN[role](message.get("content"), f"{where}.content")
    if messages and messages[-1].get("role") == "assistant":
        why = "it cannot be told to go on from what the assistant has begun to say (prefill)"
        raise refuse(f"messages[{len(messages) - 1}]", TARGET, why)
    return told


def _short(parts: list[_Part]) -> str | list[_Part]:
    """Return *parts* as the string that stands for them, if one does."""
    if not parts:
        return ""
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _system(content: Any, where: str) -> list[_Message]:
    parts = _parts(content, where, ("text",))
    return [{"role": "system", "content": _short(parts)}] if parts else []


def _user(content: Any, where: str) -> list[_Message]:
    results: list[_Message] = []
    seen: list[_Part] = []  # images and documents in results: tool messages are text
    said_parts: list[_Part] = []
    for at, kind, block in _kinds(content, where):
        if kind == "tool_result":
            message, shown = _tool_result(block, at)
            results.append(message)
            if shown:
                seen += [{"type": "text", "text": f"From the result of {message['tool_call_id']}:"}, *shown]
        elif kind == "tool_use":
            raise refuse(at, TARGET, "tools are called by the assistant, not by the user")
        else:
            said_parts += _part(block, kind, at)
    spoken = seen + said_parts
    return [*results, {"role": "user", "content": _short(spoken)}] if spoken or not results else results


def _tool_result(block: _Part, where: str) -> tuple[_Message, list[_Part]]:
    parts = _parts(block.get("content"), f"{where}.content", ("text", "image", "document", "search_result"))
    texts = [part for part in parts if part["type"] == "text"]
    if block.get("is_error"):
        texts = [{"type": "text", "text": f"Error: {texts[0]['text'] if texts else ''}"}, *texts[1:]]
    about = text_at(block.get("tool_use_id"), f"{where}.tool_use_id")
    message = {"role": "tool", "tool_call_id": about, "content": _short(texts)}
    return message, [part for part in parts if part["type"] != "text"]


def _assistant(content: Any, where: str) -> list[_Message]:
    texts: list[_Part] = []
    calls: list[dict[str, Any]] = []
    for at, kind, block in _kinds(content, where):
        if kind == "tool_use":
            calls.append(_tool_call(block, at))
        elif kind == "text":
            texts += _part(block, kind, at)
        elif CONTENT[kind].how != "left out":
            raise refuse(at, TARGET, f"the assistant says nothing of type {kind}")
    message: _Message = {"role": "assistant", "content": _short(texts) if texts or not calls else None}
    return [{**message, "tool_calls": calls} if calls else message]


def _tool_call(block: _Part, where: str) -> dict[str, Any]:
    given = object_at(block.get("input", {}), f"{where}.input")
    invalid = given.get(INVALID_JSON)  # where Anthropic's documentation puts what the model wrote wrongly
    written = invalid if len(given) == 1 and isinstance(invalid, str) else orjson.dumps(given).decode()
    name = text_at(block.get("name"), f"{where}.name")
    about = text_at(block.get("id"), f"{where}.id")
    return {"id": about, "type": "function", "function": {"name": name, "arguments": written}}


_SPOKEN: Mapping[str, Callable[[Any, str], list[_Message]]] = {
    "system": _system,
    "user": _user,
    "assistant": _assistant,
}


# -- content -----------------------------------------------------------------------------------------------------


def _kinds(content: Any, where: str) -> list[tuple[str, str, _Part]]:
    """Return (path, type, block) of each block of *content* that says anything. All of their fields are checked."""
    if content is None or isinstance(content, str):
        return [(where, "text", {"type": "text", "text": content})] if content else []
    blocks = []
    for place, entry in enumerate(objects_at(content, where)):
        at = f"{where}[{place}]"
        kind = kind_at(entry, "type", _KINDS, at, TARGET)
        if CONTENT[kind].how == "refused":
            raise refuse(f"{at}.type", TARGET, f"{kind}: {CONTENT[kind].note}")
        block = said(entry, {} if kind == "text" else _SAYS_NOTHING)
        check_kind(block, kind, CONTENT, _BASICS[kind], TARGET, at)
        blocks.append((at, kind, block))
    return blocks


def _parts(content: Any, where: str, allowed: tuple[str, ...]) -> list[_Part]:
    parts: list[_Part] = []
    for at, kind, block in _kinds(content, where):
        if kind not in allowed:
            raise refuse(at, TARGET, f"there can be no {kind} here")
        parts += _part(block, kind, at)
    return parts


def _part(block: _Part, kind: str, where: str) -> list[_Part]:
    return _PARTS[kind](block, where) if kind in _PARTS else []


def _text(block: _Part, where: str) -> list[_Part]:
    text = text_at(block.get("text"), f"{where}.text")
    return [{"type": "text", "text": text}] if text else []


def _source(block: _Part, kinds: tuple[str, ...], where: str) -> tuple[dict[str, Any], str]:
    source = object_at(block.get("source"), where)
    kind = kind_at(source, "type", kinds, where, TARGET)
    only(source, ("type", *_SOURCES[kind]), TARGET, where)
    return source, kind


def _image(block: _Part, where: str) -> list[_Part]:
    source, kind = _source(block, ("base64", "url", "file"), f"{where}.source")
    if kind == "file":
        raise refuse(f"{where}.source", TARGET, _NO_FILES)
    if kind == "base64":
        url = _data_url(source, f"{where}.source")
    else:
        url = text_at(source.get("url"), f"{where}.source.url")
    return [{"type": "image_url", "image_url": {"url": url}}]


def _data_url(source: dict[str, Any], where: str) -> str:
    kind = text_at(source.get("media_type"), f"{where}.media_type")
    return f"data:{kind};base64,{text_at(source.get('data'), f'{where}.data')}"


def _document(block: _Part, where: str) -> list[_Part]:
    at = f"{where}.source"
    source, kind = _source(block, tuple(_SOURCES), at)
    if kind == "file":
        raise refuse(at, TARGET, _NO_FILES)
    if kind == "url":
        raise refuse(at, TARGET, "it fetches no documents; send the data")
    heading = _heading(block, ("context",) if kind == "base64" else ("title", "context"), where)
    if kind == "base64":
        name = text_at(block.get("title") or "document.pdf", f"{where}.title")
        return [*heading, {"type": "file", "file": {"filename": name, "file_data": _data_url(source, at)}}]
    if kind == "text":
        return [*heading, {"type": "text", "text": text_at(source.get("data"), f"{at}.data")}]
    return heading + _parts(source.get("content"), f"{at}.content", ("text", "image"))


def _search_result(block: _Part, where: str) -> list[_Part]:
    heading = _heading(block, ("title", "source"), where)
    return heading + _parts(block.get("content"), f"{where}.content", ("text",))


def _heading(block: _Part, names: tuple[str, ...], where: str) -> list[_Part]:
    texts = [text_at(block[name], f"{where}.{name}") for name in names if block.get(name)]
    return [{"type": "text", "text": "\n".join(texts)}] if texts else []


_PARTS: Mapping[str, Callable[[_Part, str], list[_Part]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
