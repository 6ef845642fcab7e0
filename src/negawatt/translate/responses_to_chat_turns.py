"""The input of a Responses request as messages of Chat Completions: what is said, by whom, in what form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from negawatt.translate.read import check_kind, kind_at, objects_at, text_at
from negawatt.translate.table import Field, refuse

TARGET = "Chat Completions"
_CACHE = Field("left out", "it only makes the same answer cheaper")
_OURS = Field("left out", "it names the item, and says nothing to the model")
_SHOWN = Field("left out", "they are for readers, the model wrote none of them")
_HOSTED = Field("refused", "it was done by a tool of the provider's own, which is not there")
CONTENT: Mapping[str, Field] = {
    "message": Field("converted", "a message of its role; what the assistant says and calls becomes one message"),
    "message.id": _OURS,
    "message.phase": _OURS,
    "message.status": _OURS,
    "input_text": Field("converted", "text"),
    "input_text.prompt_cache_breakpoint": _CACHE,
    "input_image": Field("converted", "image_url, with its detail; file ids are refused"),
    "input_image.prompt_cache_breakpoint": _CACHE,
    "input_file": Field("converted", "file; URLs are refused"),
    "input_file.prompt_cache_breakpoint": _CACHE,
    "input_audio": Field("refused", "content is text, images and files"),
    "output_text": Field("converted", "text"),
    "output_text.annotations": _SHOWN,
    "output_text.logprobs": _SHOWN,
    "refusal": Field("same"),
    "function_call": Field("converted", "assistant.tool_calls"),
    "function_call.id": _OURS,
    "function_call.status": _OURS,
    "function_call.namespace": Field("refused", "functions have no namespaces there"),
    "function_call_output": Field("converted", "a tool message; of its content only text"),
    "function_call_output.id": _OURS,
    "function_call_output.status": _OURS,
    "custom_tool_call": Field("converted", "assistant.tool_calls"),
    "custom_tool_call.id": _OURS,
    "custom_tool_call.status": _OURS,
    "custom_tool_call_output": Field("converted", "a tool message; of its content only text"),
    "custom_tool_call_output.id": _OURS,
    "custom_tool_call_output.status": _OURS,
    "reasoning": Field("left out", "thoughts are taken back only by the provider that had them"),
    "item_reference": Field("refused", "the item is not there; send it whole"),
    "web_search_call": _HOSTED,
    "file_search_call": _HOSTED,
    "computer_call": _HOSTED,
    "computer_call_output": _HOSTED,
    "code_interpreter_call": _HOSTED,
    "image_generation_call": _HOSTED,
    "local_shell_call": _HOSTED,
    "local_shell_call_output": _HOSTED,
    "shell_call": _HOSTED,
    "shell_call_output": _HOSTED,
    "apply_patch_call": _HOSTED,
    "apply_patch_call_output": _HOSTED,
    "mcp_list_tools": _HOSTED,
    "mcp_approval_request": _HOSTED,
    "mcp_approval_response": _HOSTED,
    "mcp_call": _HOSTED,
    "compaction": Field("refused", "only the provider that folded a conversation can read it"),
}
_ROLES = ("system", "developer", "user", "assistant")
_MESSAGE = ("type", "role", "content")

_Message = dict[str, Any]


def conversation(instructions: Any, given: Any) -> list[_Message]:
    """Return the *instructions* and the input that is *given* as messages."""
    messages: list[_Message] = []
    if isinstance(instructions, list):
        messages += conversation(None, instructions)
    elif instructions is not None:
        messages.append({"role": "system", "content": text_at(instructions, "instructions")})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for place, item in enumerate(objects_at(given, "input")):
        _add(messages, item, f"input[{place}]")
    return messages


def _add(messages: list[_Message], item: Mapping[str, Any], where: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    handler = _ITEMS.get(text_at(kind, f"{where}.type"))
    if handler is None:
        field = CONTENT.get(kind)
        if field is not None and field.how == "left out":
            return
        raise refuse(f"{where}.{kind}", TARGET, field.note if field is not None else "there is no such item there")
    handler(messages, item, where)


def _message(messages: list[_Message], item: Mapping[str, Any], where: str) -> None:
    role = kind_at(item, "role", _ROLES, where, TARGET)
    check_kind(item, "message", CONTENT, _MESSAGE, TARGET, where)
    if role != "assistant":
        messages.append({"role": role, "content": _content(item.get("content"), f"{where}.content", _PARTS)})
        return
    said = _content(item.get("content"), f"{where}.content", _SAID)
    texts = said if isinstance(said, str) else "".join(part["text"] for part in said if part["type"] == "text")
    message: _Message = {"role": "assistant", "content": texts or None}
    refusals = [] if isinstance(said, str) else [part["refusal"] for part in said if part["type"] == "refusal"]
    if refusals:
        message["refusal"] = "".join(refusals)
    messages.append(message)


def _call(messages: list[_Message], item: Mapping[str, Any], where: str) -> None:
    kind = str(item["type"])
    inner, argument = ("custom", "input") if kind == "custom_tool_call" else ("function", "arguments")
    check_kind(item, kind, CONTENT, ("type", "call_id", "name", argument), TARGET, where)
    called = {
        "name": text_at(item.get("name"), f"{where}.name"),
        argument: text_at(item.get(argument), f"{where}.{argument}"),
    }
    call = {"id": text_at(item.get("call_id"), f"{where}.call_id"), "type": inner, inner: called}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _result(messages: list[_Message], item: Mapping[str, Any], where: str) -> None:
    check_kind(item, str(item["type"]), CONTENT, ("type", "call_id", "output"), TARGET, where)
    name = text_at(item.get("call_id"), f"{where}.call_id")
    content = _content(item.get("output"), f"{where}.output", _TEXTS)
    messages.append({"role": "tool", "tool_call_id": name, "content": content})


_ITEMS: Mapping[str, Callable[[list[_Message], Mapping[str, Any], str], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "custom_tool_call": _call,
    "custom_tool_call_output": _result,
}


# -- content ---------------------------------------------------------------------------------------------------

_Part = Callable[[Mapping[str, Any], str], dict[str, Any]]


def _content(content: Any, where: str, known: Mapping[str, _Part]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = []
    for place, part in enumerate(objects_at(content, where)):
        at = f"{where}[{place}]"
        kind = text_at(part.get("type"), f"{at}.type")
        if kind not in known:
            field = CONTENT.get(kind)
            note = field.note if field is not None and field.how == "refused" else "there is no such content here"
            raise refuse(f"{at}.{kind}", TARGET, note)
        parts.append(known[kind](part, at))
    return parts


def _text(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    check_kind(part, str(part["type"]), CONTENT, ("type", "text"), TARGET, where)
    return {"type": "text", "text": text_at(part.get("text"), f"{where}.text")}


def _refusal(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text_at(part.get("refusal"), f"{where}.refusal")}


def _image(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    if part.get("file_id") is not None:
        raise refuse(f"{where}.file_id", TARGET, "the file is not there; send its data")
    check_kind(part, "input_image", CONTENT, ("type", "image_url", "detail", "file_id"), TARGET, where)
    url = text_at(part.get("image_url"), f"{where}.image_url")
    detail = part.get("detail")
    if detail in (None, "auto"):
        return {"type": "image_url", "image_url": {"url": url}}
    if detail not in ("low", "high"):
        raise refuse(f"{where}.detail", TARGET, f"it is auto, low or high there, not {detail!r}")
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


def _file(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    if part.get("file_url") is not None:
        raise refuse(f"{where}.file_url", TARGET, "files are not fetched; send its data")
    fields = ("file_data", "file_id", "filename")
    check_kind(part, "input_file", CONTENT, ("type", "file_url", *fields), TARGET, where)
    return {"type": "file", "file": {name: part[name] for name in fields if part.get(name) is not None}}


_TEXTS: Mapping[str, _Part] = {"input_text": _text, "output_text": _text}
_SAID: Mapping[str, _Part] = {**_TEXTS, "refusal": _refusal}
_PARTS: Mapping[str, _Part] = {**_TEXTS, "input_image": _image, "input_file": _file}
