"""A request of the Responses API for a provider that speaks Chat Completions.

What was looked up, in 2026-11: the two APIs' references, as OpenAI's SDK has them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from negawatt.translate.read import object_at, objects_at, only, said, text_at
from negawatt.translate.responses_to_chat_answer import ChatAsResponses
from negawatt.translate.responses_to_chat_turns import CONTENT, TARGET, conversation
from negawatt.translate.table import Field, check_fields, refuse

__all__ = ["CONTENT", "FIELDS", "ResponsesToChat"]

_STATE = "nothing is kept there between calls; send the conversation"
FIELDS: Mapping[str, Field] = {
    "access_programs": Field("refused", "there are none"),
    "background": Field("refused", "answers come at once"),
    "background_options": Field("refused", "answers come at once"),
    "context_management": Field("refused", "nothing is folded there"),
    "conversation": Field("refused", _STATE),
    "image": Field("refused", "no pictures are made there"),
    "include": Field(
        "converted",
        "message.output_text.logprobs: logprobs; reasoning.encrypted_content is left out, there is none; the others "
        "are refused",
    ),
    "input": Field("converted", "messages"),
    "instructions": Field("converted", "the first message, of role system"),
    "max_output_tokens": Field("renamed", "max_completion_tokens"),
    "max_tool_calls": Field("refused", "tools are called by the caller, not by the provider"),
    "metadata": Field("left out", "for whoever looks at the provider's records; the answer has it again"),
    "model": Field("same"),
    "moderation": Field("refused", "there is no such control there"),
    "parallel_tool_calls": Field("same", "left out where there are no tools"),
    "previous_response_id": Field("refused", _STATE),
    "prompt": Field("refused", "the template is kept with another provider"),
    "prompt_cache_key": Field("left out", "it only makes the same answer cheaper"),
    "prompt_cache_options": Field("left out", "as prompt_cache_key"),
    "prompt_cache_retention": Field("left out", "as prompt_cache_key"),
    "reasoning": Field(
        "converted", "effort: reasoning_effort; summary is left out: thoughts are shown where they come"
    ),
    "safety_identifier": Field("converted", "user"),
    "service_tier": Field("same"),
    "store": Field("left out", "nothing is kept there"),
    "stream": Field("same", "with stream_options.include_usage"),
    "stream_options": Field("left out", "it is about padding"),
    "temperature": Field("same"),
    "text": Field("converted", "format: response_format; verbosity: verbosity"),
    "tool_choice": Field("converted", "the same choice; tools of the provider's own are refused"),
    "tools": Field(
        "converted", "functions and custom tools, strict only where it is said; tools of the provider's own are refused"
    ),
    "top_logprobs": Field("same", "with logprobs"),
    "top_p": Field("same"),
    "truncation": Field("refused", "nothing is cut there; disabled is left out, being the default"),
    "user": Field("same", "counts more than safety_identifier"),
}
_SAYS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "background": lambda value: value is False,
    "context_management": lambda value: bool(value == []),
    "text": lambda value: bool(value == {}),
    "top_logprobs": lambda value: bool(value == 0),
    "truncation": lambda value: bool(value == "disabled"),
}
_LOGPROBS = "message.output_text.logprobs"
_NO_USE = "reasoning.encrypted_content"
_FORMAT = ("type", "name", "description", "schema", "strict")
_TOOLS: Mapping[str, tuple[str, ...]] = {
    "function": ("name", "description", "parameters", "strict"),
    "custom": ("name", "description", "format"),
}
_LEFT_OUT_OF_TOOLS = ("type", "defer_loading")


class ResponsesToChat:
    """The caller speaks Responses, the provider Chat Completions.

    *new_id* names what Chat leaves nameless; *clock*: seconds since 1970.
    """

    source = "responses"
    target = "chat"

    def __init__(
        self, new_id: Callable[[], str] = lambda: uuid.uuid4().hex, clock: Callable[[], float] = time.time
    ) -> None:
        self._new_id = new_id
        self._clock = clock

    def request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        asked = said(data, _SAYS_NOTHING)
        check_fields(asked, FIELDS, TARGET)
        same = {name: value for name, value in asked.items() if FIELDS[name].how == "same"}
        if not asked.get("tools"):
            same.pop("parallel_tool_calls", None)
        user = asked.get("user", asked.get("safety_identifier"))
        return {
            **same,
            "messages": conversation(asked.get("instructions"), asked.get("input")),
            **({} if user is None else {"user": user}),
            **({"max_completion_tokens": asked["max_output_tokens"]} if "max_output_tokens" in asked else {}),
            **({"stream_options": {"include_usage": True}} if asked.get("stream") is True else {}),
            **_logprobs(asked),
            **_reasoning(asked),
            **_text(asked),
            **_tools(asked),
        }

    def translator(self, data: Mapping[str, Any]) -> ChatAsResponses:
        return ChatAsResponses(data, self._new_id, int(self._clock()))


def _logprobs(asked: Mapping[str, Any]) -> dict[str, Any]:
    wanted = asked.get("include") or []
    for place, name in enumerate(wanted if isinstance(wanted, list) else [wanted]):
        if name not in (_LOGPROBS, _NO_USE):
            raise refuse(f"include[{place}]", TARGET, f"there is no {name!r}")
    return {"logprobs": True} if _LOGPROBS in wanted or asked.get("top_logprobs") else {}


def _reasoning(asked: Mapping[str, Any]) -> dict[str, Any]:
    reasoning = object_at(asked.get("reasoning", {}), "reasoning")
    only(reasoning, ("effort", "summary", "generate_summary"), TARGET, "reasoning")
    effort = reasoning.get("effort")
    return {} if effort is None else {"reasoning_effort": text_at(effort, "reasoning.effort")}


def _text(asked: Mapping[str, Any]) -> dict[str, Any]:
    text = object_at(asked.get("text", {}), "text")
    only(text, ("format", "verbosity"), TARGET, "text")
    told: dict[str, Any] = {}
    if text.get("verbosity") not in (None, "medium"):  # medium is the default, and most servers do not know it
        told["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is None:
        return told
    kind = text_at(object_at(form, "text.format").get("type"), "text.format.type")
    only(form, _FORMAT, TARGET, "text.format")
    if kind == "json_schema":
        schema = {name: form[name] for name in _FORMAT[1:] if form.get(name) is not None}
        told["response_format"] = {"type": kind, "json_schema": schema}
    elif kind == "json_object":
        told["response_format"] = {"type": kind}
    elif kind != "text":
        raise refuse("text.format.type", TARGET, f"there is no {kind!r}")
    return told


def _tools(asked: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(objects_at(asked.get("tools"), "tools"))]
    told: dict[str, Any] = {"tools": tools} if tools else {}
    choice = asked.get("tool_choice")
    if isinstance(choice, str):
        if tools or choice == "required":
            told["tool_choice"] = choice
    elif choice is not None:
        told["tool_choice"] = _choice(object_at(choice, "tool_choice"))
    return told


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = text_at(tool.get("type"), f"{where}.type")
    if kind not in _TOOLS:
        raise refuse(f"{where}.{kind}", TARGET, "it is a tool of the provider's own, which is not there")
    if tool.get("defer_loading"):
        raise refuse(f"{where}.defer_loading", TARGET, "all tools are there from the start")
    only(tool, (*_TOOLS[kind], *_LEFT_OUT_OF_TOOLS), TARGET, where)
    text_at(tool.get("name"), f"{where}.name")
    inner = {name: tool[name] for name in _TOOLS[kind] if tool.get(name) is not None}
    form = inner.get("format")
    if isinstance(form, dict) and form.get("type") == "grammar":
        grammar = {name: value for name, value in form.items() if name != "type"}
        inner["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": kind, kind: inner}


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    kind = text_at(choice.get("type"), "tool_choice.type")
    if kind in _TOOLS:
        return {"type": kind, kind: {"name": text_at(choice.get("name"), "tool_choice.name")}}
    if kind != "allowed_tools":
        raise refuse(f"tool_choice.{kind}", TARGET, "it is a tool of the provider's own, which is not there")
    tools = [_choice(tool) for tool in objects_at(choice.get("tools"), "tool_choice.tools")]
    return {"type": kind, "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}
