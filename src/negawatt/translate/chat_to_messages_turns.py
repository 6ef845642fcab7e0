"""The conversation of a Chat Completions request, as Anthropic Messages has it: what is said, by whom, in what form."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from negawatt.translate.chat_to_messages_answer import FORMAT
from negawatt.translate.read import check_kind, kind_at, object_at, objects_at, only, text_at
from negawatt.translate.table import Field, check_fields, refuse

TARGET = "Anthropic Messages"
_CACHE = Field("same", "no field of OpenAI's, but of those who pass it on to Anthropic")
_BREAKPOINT = Field("left out", "it only makes the same answer cheaper")
_NAME = Field("refused", "participants have no names there")
CONTENT: Mapping[str, Field] = {
    "system": Field(
        "converted", "first: system; later: a system message, where Messages allows one: between user and assistant"
    ),
    "system.name": _NAME,
    "developer": Field("converted", "as system"),
    "developer.name": _NAME,
    "user": Field("same", "those in a row become one"),
    "user.name": _NAME,
    "assistant": Field("same", "those in a row become one; a last one is what the answer goes on from"),
    "assistant.annotations": Field("left out", "they are for readers, the model wrote none of them"),
    "assistant.audio": Field("refused", "content is text, images and PDF"),
    "assistant.function_call": Field("refused", "the older form: use tool_calls"),
    "assistant.name": _NAME,
    "assistant.provider_specific_fields": Field("left out", "they are for readers, the model wrote none of them"),
    "assistant.reasoning": Field("left out", "as reasoning_content"),
    "assistant.reasoning_content": Field("left out", "thinking is taken back only with its signature"),
    "assistant.reasoning_details": Field(
        "converted", f"those of format {FORMAT} with a signature: thinking; encrypted: redacted_thinking"
    ),
    "assistant.refusal": Field("converted", "text"),
    "assistant.tool_calls": Field("converted", "tool_use; arguments must be a JSON object"),
    "tool": Field("converted", "tool_result; those in a row, and the user after them, become one message"),
    "tool.cache_control": _CACHE,
    "tool.name": Field("left out", "the call that it answers has it"),
    "function": Field("refused", "the older form: use tool messages"),
    "text": Field("same", "empty ones are left out"),
    "text.cache_control": _CACHE,
    "text.prompt_cache_breakpoint": _BREAKPOINT,
    "image_url": Field("converted", "image; data URLs of JPEG, PNG, GIF and WebP, and http URLs; detail is left out"),
    "image_url.cache_control": _CACHE,
    "image_url.prompt_cache_breakpoint": _BREAKPOINT,
    "file": Field("converted", "document, for PDF as data; file ids and other kinds are refused"),
    "file.cache_control": _CACHE,
    "file.prompt_cache_breakpoint": _BREAKPOINT,
    "input_audio": Field("refused", "content is text, images and PDF"),
    "refusal": Field("converted", "text"),
}
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_BASICS = {"tool": ("role", "content", "tool_call_id")}
_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL | re.IGNORECASE)
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_-]+")
_CALL = ("id", "type", "function", "index")
_FUNCTION = ("name", "arguments")
_FILE = {
    "file_data": Field("converted"),
    "filename": Field("converted"),
    "file_id": Field("refused", "the file is not there; send its data"),
}

_Block = dict[str, Any]


# -- the conversation --------------------------------------------------------------------------------------------


def conversation(messages: list[dict[str, Any]]) -> dict[str, Any]:
    system: list[_Block] = []
    turns: list[tuple[str, list[_Block]]] = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        role = kind_at(message, "role", _ROLES, where, TARGET)
        if CONTENT[role].how == "refused":
            raise refuse(where, TARGET, CONTENT[role].note)
        check_kind(message, role, CONTENT, _BASICS.get(role, ("role", "content")), TARGET, where)
        if role in ("system", "developer"):
            blocks = _texts(message.get("content"), f"{where}.content")
            if turns:
                _later_system(turns, blocks, messages[place + 1 :], where)
            else:
                system += blocks
        elif role == "user":
            _append(turns, "user", _blocks(message.get("content"), f"{where}.content"))
        elif role == "assistant":
            _append(turns, "assistant", _assistant(message, where))
        else:
            _append(turns, "user", [_tool_result(message, where)])
    spoken = [{"role": role, "content": _short(blocks)} for role, blocks in turns]
    return {"system": _short(system), "messages": spoken} if system else {"messages": spoken}


def _append(turns: list[tuple[str, list[_Block]]], role: str, blocks: list[_Block]) -> None:
    """Add to the last turn if it is of the same *role*: Messages would join the two anyway, and some servers must."""
    if turns and turns[-1][0] == role:
        turns[-1][1].extend(blocks)
    else:
        turns.append((role, list(blocks)))


def _later_system(
    turns: list[tuple[str, list[_Block]]], blocks: list[_Block], after: list[dict[str, Any]], where: str
) -> None:  # fmt: skip
    follows = next((m.get("role") for m in after if m.get("role") not in ("system", "developer")), None)
    if turns[-1][0] == "assistant" or follows not in (None, "assistant"):
        raise refuse(where, TARGET, "after the first messages, system may only stand between user and assistant")
    _append(turns, "system", blocks)


def _short(blocks: list[_Block]) -> str | list[_Block]:
    """Return *blocks* as the string that stands for them, if one does."""
    if not blocks:
        return ""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _assistant(message: dict[str, Any], where: str) -> list[_Block]:
    blocks = _thinking(message, where) + _texts(message.get("content"), f"{where}.content")
    if message.get("refusal") is not None:
        blocks += _texts(message["refusal"], f"{where}.refusal")
    calls = objects_at(message.get("tool_calls"), f"{where}.tool_calls")
    return blocks + [_tool_use(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)]


def _thinking(message: dict[str, Any], where: str) -> list[_Block]:
    blocks: list[_Block] = []
    for detail in objects_at(message.get("reasoning_details"), f"{where}.reasoning_details"):
        if detail.get("format") != FORMAT:
            continue
        signature, secret = detail.get("signature"), detail.get("data")
        if detail.get("type") == "reasoning.text" and isinstance(signature, str) and signature:
            blocks.append({"type": "thinking", "thinking": detail.get("text") or "", "signature": signature})
        elif detail.get("type") == "reasoning.encrypted" and isinstance(secret, str):
            blocks.append({"type": "redacted_thinking", "data": secret})
    return blocks


def _tool_use(call: dict[str, Any], where: str) -> _Block:
    if call.get("type", "function") != "function":
        raise refuse(where, TARGET, "calls are of functions")
    only(call, _CALL, TARGET, where)
    function = object_at(call.get("function"), f"{where}.function")
    only(function, _FUNCTION, TARGET, f"{where}.function")
    written = text_at(function.get("arguments", ""), f"{where}.function.arguments")
    try:
        arguments = orjson.loads(written) if written.strip() else {}
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise refuse(f"{where}.function.arguments", TARGET, "it takes a JSON object, and this is none")
    name = text_at(function.get("name"), f"{where}.function.name")
    return {"type": "tool_use", "id": _tool_use_id(call.get("id"), f"{where}.id"), "name": name, "input": arguments}


def _tool_use_id(value: Any, where: str) -> str:
    """Return *value* if Messages takes it as an id, else one made of it, the same for the call and its result."""
    name = text_at(value, where)
    if _TOOL_USE_ID.fullmatch(name):
        return name
    return f"toolu_{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _tool_result(message: dict[str, Any], where: str) -> _Block:
    content = _short(_blocks(message.get("content"), f"{where}.content"))
    about = _tool_use_id(message.get("tool_call_id"), f"{where}.tool_call_id")
    return {"type": "tool_result", "tool_use_id": about, "content": content, **cached(message)}


# -- content -----------------------------------------------------------------------------------------------------


def _texts(content: Any, where: str) -> list[_Block]:
    """Return the blocks of *content* where Chat has only text and refusals."""
    return _blocks(content, where, allowed=("text", "refusal"))


def _blocks(content: Any, where: str, allowed: tuple[str, ...] = ("text", "image_url", "file", "input_audio")) -> (
    list[_Block]
):  # fmt: skip
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks = []
    for place, part in enumerate(objects_at(content, where)):
        at = f"{where}[{place}]"
        kind = kind_at(part, "type", allowed, at, TARGET)
        if CONTENT[kind].how == "refused":
            raise refuse(f"{at}.{kind}", TARGET, CONTENT[kind].note)
        check_kind(part, kind, CONTENT, ("type", kind), TARGET, at)
        block = _PARTS[kind](part[kind], f"{at}.{kind}") if kind in part else _PARTS[kind](None, f"{at}.{kind}")
        if block.get("text") != "":
            blocks.append({**block, **cached(part)})
    return blocks


def cached(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {} if entry.get("cache_control") is None else {"cache_control": entry["cache_control"]}


def _text(value: Any, where: str) -> _Block:
    return {"type": "text", "text": text_at(value, where)}


def _image(value: Any, where: str) -> _Block:
    only(object_at(value, where), ("url", "detail"), TARGET, where)
    url = text_at(value.get("url"), f"{where}.url")
    inline = _DATA_URL.fullmatch(url)
    if inline is None:
        if url[:5].lower() == "data:":
            raise refuse(f"{where}.url", TARGET, "data URLs must be in base64")
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind = inline[1].lower()
    if kind not in _IMAGES:
        raise refuse(f"{where}.url", TARGET, f"images are JPEG, PNG, GIF or WebP, not {kind}")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": inline[2]}}


def _document(value: Any, where: str) -> _Block:
    file = object_at(value, where)
    check_fields(file, _FILE, TARGET, where)
    inline = _DATA_URL.fullmatch(text_at(file.get("file_data"), f"{where}.file_data"))
    if inline is None or inline[1].lower() != "application/pdf":
        raise refuse(f"{where}.file_data", TARGET, "files are PDF, as a data URL in base64")
    source = {"type": "base64", "media_type": "application/pdf", "data": inline[2]}
    title = {"title": file["filename"]} if file.get("filename") else {}
    return {"type": "document", "source": source, **title}


_PARTS: Mapping[str, Callable[[Any, str], _Block]] = {
    "text": _text,
    "refusal": _text,
    "image_url": _image,
    "file": _document,
}
