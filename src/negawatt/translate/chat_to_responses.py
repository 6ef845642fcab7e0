"""A Chat Completions request for a provider that speaks the Responses API.

What was looked up, in 2026-11: the two APIs' references, as OpenAI's SDK has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from negawatt.translate.chat_to_responses_answer import ResponsesAsChat
from negawatt.translate.chat_to_responses_turns import CONTENT, TARGET, conversation
from negawatt.translate.read import object_at, objects_at, only, said, text_at
from negawatt.translate.table import Field, check_fields, refuse

__all__ = ["CONTENT", "FIELDS", "ChatToResponses"]

_NO_CONTROL = "there is no such control there"
FIELDS: Mapping[str, Field] = {
    "audio": Field("refused", "answers are text"),
    "frequency_penalty": Field("refused", f"{_NO_CONTROL}; 0 is left out"),
    "function_call": Field("refused", "the older form: use tool_choice"),
    "functions": Field("refused", "the older form: use tools"),
    "logit_bias": Field("refused", f"{_NO_CONTROL}; an empty one is left out"),
    "logprobs": Field("converted", "include message.output_text.logprobs"),
    "max_completion_tokens": Field("renamed", "max_output_tokens"),
    "max_tokens": Field("renamed", "max_output_tokens; max_completion_tokens counts where both are given"),
    "messages": Field("converted", "input"),
    "metadata": Field("same"),
    "modalities": Field("refused", 'answers are text; ["text"] is left out'),
    "model": Field("same"),
    "moderation": Field("same"),
    "n": Field("refused", "there is one answer; 1 is left out"),
    "parallel_tool_calls": Field("same"),
    "prediction": Field("left out", "it only makes the same answer come sooner"),
    "presence_penalty": Field("refused", f"{_NO_CONTROL}; 0 is left out"),
    "prompt_cache_key": Field("same"),
    "prompt_cache_options": Field("same"),
    "prompt_cache_retention": Field("same"),
    "reasoning_effort": Field("converted", "reasoning.effort"),
    "response_format": Field("converted", "text.format"),
    "safety_identifier": Field("same"),
    "seed": Field("refused", "there is nothing that makes an answer repeatable"),
    "service_tier": Field("same"),
    "stop": Field("refused", "there are no stop sequences"),
    "store": Field("converted", "store; false where it is not given: Chat's callers did not ask for it"),
    "stream": Field("same"),
    "stream_options": Field("left out", "the usage is always there; the gateway shows it to those who ask"),
    "temperature": Field("same"),
    "tool_choice": Field("converted", "the same choice without its inner object"),
    "tools": Field("converted", "the same tools without their inner objects"),
    "top_logprobs": Field("same"),
    "top_p": Field("same"),
    "user": Field("same"),
    "verbosity": Field("converted", "text.verbosity"),
    "web_search_options": Field("refused", "the search is the provider's own; ask it in its own protocol"),
}
_SAYS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "frequency_penalty": lambda value: bool(value == 0),
    "logit_bias": lambda value: bool(value == {}),
    "logprobs": lambda value: value is False,
    "modalities": lambda value: bool(value == ["text"]),
    "n": lambda value: bool(value == 1),
    "presence_penalty": lambda value: bool(value == 0),
    "stop": lambda value: bool(value == []),
}
_SCHEMA = ("name", "description", "schema", "strict")
_TOOLS: Mapping[str, tuple[str, ...]] = {
    "function": ("name", "description", "parameters", "strict"),
    "custom": ("name", "description", "format"),
}


class ChatToResponses:
    """The caller speaks Chat Completions, the provider Responses."""

    source = "chat"
    target = "responses"

    def request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        asked = said(data, _SAYS_NOTHING)
        check_fields(asked, FIELDS, TARGET)
        same = {name: value for name, value in asked.items() if FIELDS[name].how == "same"}
        limit = asked.get("max_completion_tokens", asked.get("max_tokens"))
        return {
            **same,
            "input": conversation(objects_at(asked.get("messages"), "messages")),
            "store": asked.get("store") is True,
            **({} if limit is None else {"max_output_tokens": limit}),
            **({"include": ["message.output_text.logprobs"]} if asked.get("logprobs") else {}),
            **({"reasoning": {"effort": asked["reasoning_effort"]}} if "reasoning_effort" in asked else {}),
            **_text(asked),
            **_tools(asked),
        }

    def translator(self, data: Mapping[str, Any]) -> ResponsesAsChat:
        return ResponsesAsChat()


def _text(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``text``: the form of the answer and how much it says."""
    text: dict[str, Any] = {}
    if "verbosity" in asked:
        text["verbosity"] = asked["verbosity"]
    form = asked.get("response_format")
    if form is not None:
        kind = text_at(object_at(form, "response_format").get("type"), "response_format.type")
        if kind == "json_schema":
            only(form, ("type", "json_schema"), TARGET, "response_format")
            schema = object_at(form.get("json_schema"), "response_format.json_schema")
            only(schema, _SCHEMA, TARGET, "response_format.json_schema")
            text["format"] = {"type": kind, **{name: value for name, value in schema.items() if value is not None}}
        elif kind in ("text", "json_object"):
            only(form, ("type",), TARGET, "response_format")
            text["format"] = {"type": kind}
        else:
            raise refuse("response_format.type", TARGET, f"there is no {kind!r}")
    return {"text": text} if text else {}


def _tools(asked: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(objects_at(asked.get("tools"), "tools"))]
    told: dict[str, Any] = {"tools": tools} if tools else {}
    choice = asked.get("tool_choice")
    if isinstance(choice, str):
        told["tool_choice"] = choice
    elif choice is not None:
        told["tool_choice"] = _choice(object_at(choice, "tool_choice"))
    return told


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = text_at(tool.get("type"), f"{where}.type")
    if kind not in _TOOLS:
        raise refuse(f"{where}.type", TARGET, f"there is no tool of the kind {kind!r}")
    only(tool, ("type", kind), TARGET, where)
    inner = object_at(tool.get(kind), f"{where}.{kind}")
    only(inner, _TOOLS[kind], TARGET, f"{where}.{kind}")
    text_at(inner.get("name"), f"{where}.{kind}.name")
    made = {"type": kind, **{name: value for name, value in inner.items() if value is not None}}
    if kind == "function":
        # Left out, Responses takes a schema as strict, and Chat as not.
        return {"parameters": {"type": "object", "properties": {}}, "strict": False, **made}
    form = made.get("format")
    if isinstance(form, dict) and isinstance(form.get("grammar"), dict):
        made["format"] = {"type": "grammar", **form["grammar"]}
    return made


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    kind = text_at(choice.get("type"), "tool_choice.type")
    if kind in _TOOLS:
        name = object_at(choice.get(kind), f"tool_choice.{kind}").get("name")
        return {"type": kind, "name": text_at(name, f"tool_choice.{kind}.name")}
    if kind != "allowed_tools":
        raise refuse("tool_choice.type", TARGET, f"there is no {kind!r}")
    allowed = object_at(choice.get("allowed_tools"), "tool_choice.allowed_tools")
    tools = objects_at(allowed.get("tools"), "tool_choice.allowed_tools.tools")
    return {"type": kind, "mode": allowed.get("mode"), "tools": [_choice(tool) for tool in tools]}
