"""An Anthropic Messages request for a provider that speaks Chat Completions.

What was looked up, in 2026-11: the two APIs' references, as their SDKs have them; for thinking and effort
https://platform.claude.com/docs/en/build-with-claude/effort.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from negawatt.translate.messages_to_chat_answer import ChatAsMessages
from negawatt.translate.messages_to_chat_turns import CONTENT, TARGET, conversation
from negawatt.translate.read import object_at, objects_at, only, said, text_at
from negawatt.translate.table import Field, check_fields, refuse

__all__ = ["CONTENT", "FIELDS", "MessagesToChat"]

# The least thinking budget, in tokens, that is called so. Nobody has defined it; this is where another gateway draws
# the lines (https://docs.merge.dev/merge-gateway/capabilities/reasoning, 2026-11).
_BUDGETS = ((16_384, "high"), (4_096, "medium"), (0, "low"))

FIELDS: Mapping[str, Field] = {
    "cache_control": Field("left out", "it only makes the same answer cheaper"),
    "container": Field("refused", "there is no container"),
    "context_management": Field("refused", "nothing is cleared there; clear_thinking is left out, as thinking is"),
    "diagnostics": Field("left out", "it tells about Anthropic's cache, and changes no answer"),
    "inference_geo": Field("refused", "there is no telling where the provider computes"),
    "max_tokens": Field("renamed", "max_completion_tokens, which thinking counts towards as well; 0 is refused"),
    "mcp_servers": Field("refused", "tools are called by the caller, not by the provider"),
    "messages": Field("converted", "messages"),
    "metadata": Field("converted", "user, from user_id; its SHA-256 where it is longer than 64 characters"),
    "model": Field("same"),
    "output_config": Field("converted", "effort: reasoning_effort; format: response_format json_schema, strict"),
    "output_format": Field("converted", "as output_config.format, which has replaced it"),
    "service_tier": Field("converted", "standard_only: default; auto is left out, being the default"),
    "speed": Field("refused", "there is no such control; standard is left out, being the default"),
    "stop_sequences": Field("renamed", "stop"),
    "stream": Field("same", "with stream_options.include_usage"),
    "system": Field("converted", "the first message, of role system"),
    "temperature": Field("same"),
    "thinking": Field(
        "converted",
        "disabled: reasoning_effort none; enabled: from budget_tokens, below 4,096 low, below 16,384 medium, "
        "else high, unless output_config.effort says it; adaptive: output_config.effort, or the provider's default; "
        "between_tools is refused; display is left out",
    ),
    "thread": Field("refused", "nothing is kept there between calls; send the conversation"),
    "tool_choice": Field(
        "converted", "any: required; tool: a function; disable_parallel_tool_use: no parallel_tool_calls"
    ),
    "tools": Field("converted", "input_schema: parameters; tools that Anthropic defines or runs are refused"),
    "top_k": Field("refused", "there is no such control"),
    "top_p": Field("same"),
    "user_profile_id": Field("left out", "it says on whose behalf, to Anthropic"),
    "workspace_id": Field("left out", "it says on whose account, to Anthropic"),
}
_SAYS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "context_management": lambda value: isinstance(value, dict) and _only_thinking(value),
    "mcp_servers": lambda value: bool(value == []),
    "service_tier": lambda value: bool(value == "auto"),
    "speed": lambda value: bool(value == "standard"),
}
_TOOL: Mapping[str, Field] = {
    "allowed_callers": Field("refused", 'tools are called by the model itself; ["direct"] is left out'),
    "cache_control": Field("left out"),
    "defer_loading": Field("refused", "all tools are there from the start; false is left out"),
    "description": Field("same"),
    "eager_input_streaming": Field("left out", "it is about how the input comes, not what it is"),
    "input_examples": Field("refused", "there is no place for examples"),
    "input_schema": Field("renamed", "parameters"),
    "name": Field("same"),
    "strict": Field("same"),
    "type": Field("left out"),
}
_TOOL_SAYS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "allowed_callers": lambda value: bool(value == ["direct"]),
    "defer_loading": lambda value: value is False,
    "input_examples": lambda value: bool(value == []),
}
_LONGEST_USER = 64  # characters that OpenAI takes as `user`
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class MessagesToChat:
    """The caller speaks Messages, the provider Chat Completions. *new_id* names what the provider left nameless."""

    source = "messages"
    target = "chat"

    def __init__(self, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._new_id = new_id

    def request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        asked = said(data, _SAYS_NOTHING)
        check_fields(asked, FIELDS, TARGET)
        if asked.get("max_tokens") == 0:
            raise refuse("max_tokens", TARGET, "there is no answer of no tokens, nor a cache to be filled by one")
        same = {name: value for name, value in asked.items() if FIELDS[name].how == "same"}
        renamed = {"max_completion_tokens": asked.get("max_tokens"), "stop": asked.get("stop_sequences") or None}
        return {
            **same,
            **{name: value for name, value in renamed.items() if value is not None},
            "messages": conversation(asked.get("system"), objects_at(asked.get("messages"), "messages")),
            **_tools(asked),
            **_output(asked),
            **_bookkeeping(asked),
        }

    def translator(self, data: Mapping[str, Any]) -> ChatAsMessages:
        return ChatAsMessages(data, self._new_id)


def _only_thinking(value: dict[str, Any]) -> bool:
    """True where nothing but thinking is to be cleared, all of which is left out anyway."""
    edits = value.get("edits") or []
    return value.keys() <= {"edits"} and all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking_") for edit in edits
    )


def _tools(asked: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(objects_at(asked.get("tools"), "tools"))]
    told: dict[str, Any] = {"tools": tools} if tools else {}
    if asked.get("tool_choice") is None:
        return told
    choice = object_at(asked["tool_choice"], "tool_choice")
    kind = text_at(choice.get("type"), "tool_choice.type")
    only(choice, ("type", "name", "disable_parallel_tool_use"), TARGET, "tool_choice")
    if kind == "tool":
        name = text_at(choice.get("name"), "tool_choice.name")
        told["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in _TOOL_CHOICES:
        told["tool_choice"] = _TOOL_CHOICES[kind]
    else:
        raise refuse("tool_choice", TARGET, f"it is auto, any, none or a tool, not {kind!r}")
    if choice.get("disable_parallel_tool_use"):
        told["parallel_tool_calls"] = False
    return told


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        raise refuse(f"{where}.type", TARGET, f"the provider does not know {kind}, which Anthropic defines or runs")
    wanted = said(tool, _TOOL_SAYS_NOTHING)
    check_fields(wanted, _TOOL, TARGET, where)
    function: dict[str, Any] = {name: wanted[name] for name in ("name", "description") if name in wanted}
    function["parameters"] = object_at(wanted.get("input_schema"), f"{where}.input_schema")
    if "strict" in wanted:
        function["strict"] = wanted["strict"]
    return {"type": "function", "function": function}


def _output(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``reasoning_effort`` and ``response_format``."""
    config = object_at(asked.get("output_config", {}), "output_config")
    only(config, ("effort", "format"), TARGET, "output_config")
    told: dict[str, Any] = {}
    effort = _effort(asked.get("thinking"), config.get("effort"))
    if effort is not None:
        told["reasoning_effort"] = effort
    where = "output_config.format" if config.get("format") is not None else "output_format"
    form = config.get("format") or asked.get("output_format")
    if form is not None:
        only(object_at(form, where), ("type", "schema"), TARGET, where)
        if form.get("type") != "json_schema":
            raise refuse(where, TARGET, f"there is no {form.get('type')!r}; ask for a json_schema")
        schema = object_at(form.get("schema"), f"{where}.schema")
        # Chat wants a name, and is only as strict as Messages always is when told so.
        wanted = {"name": "answer", "schema": schema, "strict": True}
        told["response_format"] = {"type": "json_schema", "json_schema": wanted}
    return told


def _effort(thinking: Any, effort: Any) -> str | None:
    if effort is not None and effort not in _EFFORTS:
        raise refuse("output_config.effort", TARGET, f"{effort!r} is no effort there")
    named: str | None = effort
    if thinking is None:
        return named
    only(object_at(thinking, "thinking"), ("type", "budget_tokens", "display"), TARGET, "thinking")
    kind = thinking.get("type")
    if kind == "disabled":
        return "none"
    if kind not in ("enabled", "adaptive"):
        raise refuse("thinking", TARGET, f"it cannot be of type {kind!r}")
    if effort is not None or kind == "adaptive":
        return named
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        raise refuse("thinking.budget_tokens", TARGET, "expected a number of tokens")
    return next((name for least, name in _BUDGETS if budget >= least), "low")


def _user(name: str) -> str:
    """Return *name*, which nobody reads anyway, in a form that is short enough."""
    return name if len(name) <= _LONGEST_USER else hashlib.sha256(name.encode()).hexdigest()


def _bookkeeping(asked: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    metadata = object_at(asked.get("metadata", {}), "metadata")
    only(metadata, ("user_id",), TARGET, "metadata")
    if metadata.get("user_id") is not None:
        told["user"] = _user(text_at(metadata["user_id"], "metadata.user_id"))
    tier = asked.get("service_tier")
    if tier is not None:
        if tier != "standard_only":
            raise refuse("service_tier", TARGET, f"there is no {tier!r}")
        told["service_tier"] = "default"
    if asked.get("stream") is True:
        told["stream_options"] = {"include_usage": True}  # in Messages the usage is always there
    return told
