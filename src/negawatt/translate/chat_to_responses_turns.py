"""The conversation of a Chat Completions request as items of the Responses API: what is said, by whom, in what form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from negawatt.translate.read import check_kind, kind_at, object_at, objects_at, only, text_at
from negawatt.translate.table import Field, refuse

TARGET = "Responses"
_CACHE = Field("left out", "it only makes the same answer cheaper")
_NAME = Field("refused", "participants have no names there")
_SHOWN = Field("left out", "they are for readers, the model wrote none of them")
_THOUGHT = Field("left out", "thoughts are taken back only as items of the provider's own")
CONTENT: Mapping[str, Field] = {
    "system": Field("same"),
    "system.name": _NAME,
    "developer": Field("same"),
    "developer.name": _NAME,
    "user": Field("same"),
    "user.name": _NAME,
    "assistant": Field("same", "what it says is one item, and each call another"),
    "assistant.annotations": _SHOWN,
    "assistant.audio": Field("refused", "content is text, images and files"),
    "assistant.function_call": Field("refused", "the older form: use tool_calls"),
    "assistant.name": _NAME,
    "assistant.provider_specific_fields": _SHOWN,
    "assistant.reasoning": _THOUGHT,
    "assistant.reasoning_content": _THOUGHT,
    "assistant.reasoning_details": _THOUGHT,
    "assistant.refusal": Field("converted", "a part of the message"),
    "assistant.tool_calls": Field("converted", "function_call and custom_tool_call"),
    "tool": Field("converted", "function_call_output, or custom_tool_call_output"),
    "tool.name": Field("left out", "the call that it answers has it"),
    "function": Field("refused", "the older form: use tool messages"),
    "text": Field("converted", "input_text"),
    "text.cache_control": _CACHE,
    "text.prompt_cache_breakpoint": _CACHE,
    "image_url": Field("converted", "input_image, with its detail"),
    "image_url.cache_control": _CACHE,
    "image_url.prompt_cache_breakpoint": _CACHE,
    "file": Field("converted", "input_file"),
    "file.cache_control": _CACHE,
    "file.prompt_cache_breakpoint": _CACHE,
    "input_audio": Field("refused", "content is text, images and files"),
    "refusal": Field("same"),
}
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_BASICS = ("role", "content", "tool_call_id")
_FILE = ("file_data", "file_id", "filename")

_Item = dict[str, Any]


def conversation(messages: list[dict[str, Any]]) -> list[_Item]:
    """Return *messages* as items of the input."""
    custom = {str(call.get("id")) for message in messages for call in _calls(message) if call.get("type") == "custom"}
    items: list[_Item] = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        role = kind_at(message, "role", _ROLES, where, TARGET)
        if role == "function":
            raise refuse(where, TARGET, CONTENT["function"].note)
        check_kind(message, role, CONTENT, _BASICS, TARGET, where)
        if role == "tool":
            items.append(_result(message, where, custom))
        elif role == "assistant":
            items += _assistant(message, where)
        else:
            items.append({"type": "message", "role": role, "content": _content(message.get("content"), where)})
    return items


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _result(message: Mapping[str, Any], where: str, custom: set[str]) -> _Item:
    name = text_at(message.get("tool_call_id"), f"{where}.tool_call_id")
    kind = "custom_tool_call_output" if name in custom else "function_call_output"
    return {"type": kind, "call_id": name, "output": _content(message.get("content"), where)}


def _assistant(message: Mapping[str, Any], where: str) -> list[_Item]:
    content, refusal = message.get("content"), message.get("refusal")
    parts: list[_Item] = []
    if isinstance(content, str):
        parts = [{"type": "output_text", "text": content}] if content else []
    else:
        for place, part in enumerate(objects_at(content, f"{where}.content")):
            parts.append(_said(part, f"{where}.content[{place}]"))
    if refusal is not None:
        parts.append({"type": "refusal", "refusal": text_at(refusal, f"{where}.refusal")})
    items: list[_Item] = [{"type": "message", "role": "assistant", "content": parts}] if parts else []
    for place, call in enumerate(objects_at(message.get("tool_calls"), f"{where}.tool_calls")):
        items.append(_call(call, f"{where}.tool_calls[{place}]"))
    return items


def _said(part: Mapping[str, Any], where: str) -> _Item:
    kind = kind_at(part, "type", ("text", "refusal"), where, TARGET)
    check_kind(part, kind, CONTENT, ("type", kind), TARGET, where)
    text = text_at(part.get(kind), f"{where}.{kind}")
    return {"type": "refusal", "refusal": text} if kind == "refusal" else {"type": "output_text", "text": text}


def _call(call: Mapping[str, Any], where: str) -> _Item:
    name = text_at(call.get("id"), f"{where}.id")
    if call.get("type") == "custom":
        only(call, ("id", "type", "custom", "index"), TARGET, where)
        custom = object_at(call.get("custom"), f"{where}.custom")
        only(custom, ("name", "input"), TARGET, f"{where}.custom")
        return {"type": "custom_tool_call", "call_id": name, "name": custom.get("name"), "input": custom.get("input")}
    only(call, ("id", "type", "function", "index"), TARGET, where)
    function = object_at(call.get("function"), f"{where}.function")
    only(function, ("name", "arguments"), TARGET, f"{where}.function")
    called = text_at(function.get("name"), f"{where}.function.name")
    return {"type": "function_call", "call_id": name, "name": called, "arguments": function.get("arguments") or "{}"}


# -- content ---------------------------------------------------------------------------------------------------


def _content(content: Any, where: str) -> str | list[_Item]:
    if isinstance(content, str):
        return content
    parts = objects_at(content, f"{where}.content")
    return [_part(part, f"{where}.content[{place}]") for place, part in enumerate(parts)]


def _part(part: Mapping[str, Any], where: str) -> _Item:
    kind = text_at(part.get("type"), f"{where}.type")
    convert = _PARTS.get(kind)
    if convert is None:
        field = CONTENT.get(kind)
        raise refuse(f"{where}.{kind}", TARGET, field.note if field is not None else "there is no such content there")
    check_kind(part, kind, CONTENT, ("type", kind), TARGET, where)
    return convert(part, where)


def _text(part: Mapping[str, Any], where: str) -> _Item:
    return {"type": "input_text", "text": text_at(part.get("text"), f"{where}.text")}


def _image(part: Mapping[str, Any], where: str) -> _Item:
    image = object_at(part.get("image_url"), f"{where}.image_url")
    only(image, ("url", "detail"), TARGET, f"{where}.image_url")
    url = text_at(image.get("url"), f"{where}.image_url.url")
    return {"type": "input_image", "image_url": url, "detail": image.get("detail") or "auto"}


def _file(part: Mapping[str, Any], where: str) -> _Item:
    file = object_at(part.get("file"), f"{where}.file")
    only(file, _FILE, TARGET, f"{where}.file")
    return {"type": "input_file", **{name: value for name, value in file.items() if value is not None}}


_PARTS: Mapping[str, Callable[[Mapping[str, Any], str], _Item]] = {"text": _text, "image_url": _image, "file": _file}
