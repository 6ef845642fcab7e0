"""A Chat Completions request for a provider that speaks Anthropic Messages.

What was looked up, in 2026-11: the two APIs' references; for thinking and effort
https://platform.claude.com/docs/en/build-with-claude/effort and ``.../adaptive-thinking``; for system messages that
are not the first https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages; for
``reasoning_details`` https://openrouter.ai/docs/guides/best-practices/reasoning-tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from negawatt.translate.chat_to_messages_answer import MessagesAsChat
from negawatt.translate.chat_to_messages_turns import CONTENT, TARGET, cached, conversation
from negawatt.translate.read import object_at, objects_at, only, said, text_at
from negawatt.translate.table import Field, check_fields, refuse

# Messages has no answer without a limit. This one fits every Claude model that is still served (the smallest limit is
# 32,000), and stays under the 21,333 tokens above which Anthropic's SDKs demand a stream, for fear of idle connections.
DEFAULT_MAX_TOKENS = 16_384

__all__ = ["CONTENT", "DEFAULT_MAX_TOKENS", "FIELDS", "ChatToMessages"]

_NO_CONTROL = "there is no such control there"
FIELDS: Mapping[str, Field] = {
    "audio": Field("refused", "answers are text"),
    "frequency_penalty": Field("refused", f"{_NO_CONTROL}; 0 is left out"),
    "function_call": Field("refused", "the older form: use tool_choice"),
    "functions": Field("refused", "the older form: use tools"),
    "logit_bias": Field("refused", f"{_NO_CONTROL}; an empty one is left out"),
    "logprobs": Field("refused", "it does not tell probabilities; false is left out"),
    "max_completion_tokens": Field("renamed", f"max_tokens; where neither is given, {DEFAULT_MAX_TOKENS:,}"),
    "max_tokens": Field("same", "max_completion_tokens counts where both are given"),
    "messages": Field("converted", "messages, and system for those that come first"),
    "metadata": Field("left out", "for whoever looks at the provider's records"),
    "modalities": Field("refused", 'answers are text; ["text"] is left out'),
    "model": Field("same"),
    "moderation": Field("refused", _NO_CONTROL),
    "n": Field("refused", "there is one answer; 1 is left out"),
    "parallel_tool_calls": Field("converted", "tool_choice.disable_parallel_tool_use, the other way round"),
    "prediction": Field("left out", "it only makes the same answer come sooner"),
    "presence_penalty": Field("refused", f"{_NO_CONTROL}; 0 is left out"),
    "prompt_cache_key": Field("left out", "it only makes the same answer cheaper; cache_control on content is kept"),
    "prompt_cache_options": Field("left out", "as prompt_cache_key"),
    "prompt_cache_retention": Field("left out", "as prompt_cache_key"),
    "reasoning_effort": Field(
        "converted", "thinking adaptive and output_config.effort; minimal is low; none is thinking disabled"
    ),
    "response_format": Field(
        "converted", "json_schema: output_config.format, without its name, always strict; json_object is refused"
    ),
    "safety_identifier": Field("converted", "metadata.user_id"),
    "seed": Field("refused", "there is nothing that makes an answer repeatable"),
    "service_tier": Field("converted", "auto and priority: auto; default: standard_only; the others are refused"),
    "stop": Field("renamed", "stop_sequences"),
    "store": Field("left out", "for whoever looks at the provider's records"),
    "stream": Field("same"),
    "stream_options": Field("left out", "the usage is always there; the gateway shows it to those who ask"),
    "temperature": Field("same", "above 1 it is refused: that is the most there. Newer Claude models take none"),
    "thinking": Field("same", "no field of OpenAI's: Anthropic's own word, which counts more than reasoning_effort"),
    "tool_choice": Field("converted", "required: any; a function: tool; allowed_tools and custom are refused"),
    "tools": Field("converted", "parameters: input_schema; custom tools are refused"),
    "top_k": Field("same", "no field of OpenAI's, but of many servers. Newer Claude models take none"),
    "top_logprobs": Field("refused", "it does not tell probabilities; 0 is left out"),
    "top_p": Field("same", "newer Claude models take none"),
    "user": Field("converted", "metadata.user_id, where there is no safety_identifier"),
    "verbosity": Field("refused", f"{_NO_CONTROL}; medium is left out, being the default"),
    "web_search_options": Field("refused", "the search is the provider's own; ask it in its own protocol"),
}
_SAYS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "frequency_penalty": lambda value: bool(value == 0),
    "logit_bias": lambda value: bool(value == {}),
    "logprobs": lambda value: value is False,
    "modalities": lambda value: bool(value == ["text"]),
    "n": lambda value: bool(value == 1),
    "presence_penalty": lambda value: bool(value == 0),
    "top_logprobs": lambda value: bool(value == 0),
    "verbosity": lambda value: bool(value == "medium"),
}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only"}
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_TOOL = ("type", "function", "cache_control")
_FUNCTION = ("name", "description", "parameters", "strict")
_SCHEMA = ("name", "description", "schema", "strict")


class ChatToMessages:
    """The caller speaks Chat Completions, the provider Messages. *clock*: seconds since 1970."""

    source = "chat"
    target = "messages"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        asked = said(data, _SAYS_NOTHING)
        check_fields(asked, FIELDS, TARGET)
        temperature = asked.get("temperature")
        if isinstance(temperature, (int, float)) and temperature > 1:
            raise refuse("temperature", TARGET, "1 is the most there")
        limit = asked.get("max_completion_tokens", asked.get("max_tokens", DEFAULT_MAX_TOKENS))
        same = {name: value for name, value in asked.items() if FIELDS[name].how == "same"}
        return {
            **same,
            "max_tokens": limit,
            **conversation(objects_at(asked.get("messages"), "messages")),
            **_stops(asked),
            **_tools(asked),
            **_output(asked),
            **_bookkeeping(asked),
        }

    def translator(self, data: Mapping[str, Any]) -> MessagesAsChat:
        return MessagesAsChat(created=int(self._clock()))


# -- what is asked for -------------------------------------------------------------------------------------------


def _stops(asked: Mapping[str, Any]) -> dict[str, Any]:
    stop = asked.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    return {"stop_sequences": stops} if stops else {}


def _tools(asked: Mapping[str, Any]) -> dict[str, Any]:
    tools = [
        _tool(tool, f"tools[{place}]") for place, tool in enumerate(objects_at(asked.get("tools"), "tools"))
    ]  # fmt: skip
    choice = _tool_choice(asked.get("tool_choice"))
    if not tools:  # then "auto" and "none" are refused there, and say nothing
        return {} if choice is None or choice["type"] in ("auto", "none") else {"tool_choice": choice}
    if asked.get("parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type", "function") != "function":
        raise refuse(where, TARGET, "tools are functions")
    only(tool, _TOOL, TARGET, where)
    function = object_at(tool.get("function"), f"{where}.function")
    only(function, _FUNCTION, TARGET, f"{where}.function")
    kept = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    schema = object_at(function.get("parameters") or {"properties": {}}, f"{where}.function.parameters")
    strict = {"strict": function["strict"]} if function.get("strict") is not None else {}
    return {**kept, "input_schema": {"type": "object", **schema}, **strict, **cached(tool)}


def _tool_choice(choice: Any) -> dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in _TOOL_CHOICES:
            raise refuse("tool_choice", TARGET, f"it is auto, none, required or a function, not {choice!r}")
        return {"type": _TOOL_CHOICES[choice]}
    if object_at(choice, "tool_choice").get("type") != "function":
        raise refuse("tool_choice", TARGET, f"it cannot be of type {choice.get('type')!r}")
    function = object_at(choice.get("function"), "tool_choice.function")
    return {"type": "tool", "name": text_at(function.get("name"), "tool_choice.function.name")}


def _output(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``thinking`` and ``output_config``."""
    output: dict[str, Any] = {}
    thinking: dict[str, Any] = {}
    effort = asked.get("reasoning_effort")
    if effort == "none":
        thinking = {"type": "disabled"}
    elif effort is not None:
        if effort not in _EFFORTS:
            raise refuse("reasoning_effort", TARGET, f"{effort!r} is no effort there")
        thinking = {"type": "adaptive"}
        output["effort"] = _EFFORTS[effort]
    schema = _schema(asked.get("response_format"))
    if schema is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    return {
        **({"thinking": thinking} if thinking and "thinking" not in asked else {}),
        **({"output_config": output} if output else {}),
    }


def _schema(form: Any) -> dict[str, Any] | None:
    if form is None or object_at(form, "response_format").get("type") == "text":
        return None
    if form.get("type") != "json_schema":
        raise refuse("response_format", TARGET, f"there is no {form.get('type')!r}; ask for a json_schema")
    only(form, ("type", "json_schema"), TARGET, "response_format")
    wanted = object_at(form.get("json_schema"), "response_format.json_schema")
    only(wanted, _SCHEMA, TARGET, "response_format.json_schema")
    schema = object_at(wanted.get("schema") or {}, "response_format.json_schema.schema")
    told = wanted.get("description")
    # The model reads it there too; a schema that has its own says more about itself.
    return {**schema, "description": told} if told and "description" not in schema else schema


def _bookkeeping(asked: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    who = asked.get("safety_identifier", asked.get("user"))
    if who is not None:
        kept["metadata"] = {"user_id": who}
    tier = asked.get("service_tier")
    if tier is not None:
        if tier not in _TIERS:
            raise refuse("service_tier", TARGET, f"there is no {tier!r}")
        kept["service_tier"] = _TIERS[tier]
    return kept
