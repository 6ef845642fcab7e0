"""The answer to `negawatt.translate.chat_to_responses`: events of the Responses API in, chunks of Chat Completions out.

Reasoning goes into ``reasoning_content`` (DeepSeek), citations with a URL into ``annotations``. Items that Chat has no
word for (calls of the provider's own tools, which a Chat request cannot ask for) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from negawatt.economics.usage_dialects import chat_usage
from negawatt.errors import UpstreamError, UpstreamProtocolError
from negawatt.wire.common import as_object
from negawatt.wire.responses import RESPONSES

_Chunk = dict[str, Any]
_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_CITATION = ("url", "title", "start_index", "end_index")
# Of a kind of item: the kind of its call in Chat, and the name of what it is called with, there and here.
_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}


class _Call:
    """A tool call in the making. *said*: as much of its arguments as has been passed on."""

    def __init__(self, place: int, kind: str) -> None:
        self.place = place
        self.kind, self.name = _CALLS[kind]
        self.said = ""


class ResponsesAsChat:
    """Translates one stream; a `negawatt.translate.Translator`."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
        self._calls: dict[int, _Call] = {}
        self._texts: dict[tuple[int, int, str], int] = {}  # how much has been passed on
        self._begun = False
        self._reasoned = False

    def feed(self, data: dict[str, Any]) -> list[_Chunk]:
        """Raises `UpstreamError` for an event that says that the provider failed, or that cannot be read."""
        kind = data.get("type")
        handler = _EVENTS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            return []
        try:
            return handler(self, data)
        except (AttributeError, KeyError, TypeError) as error:
            raise UpstreamProtocolError(f"an event of type {kind} is not what it should be") from error

    def end(self) -> list[_Chunk]:
        return []  # the last event has said it all

    # -- events ------------------------------------------------------------------------------------------------

    def created(self, data: dict[str, Any]) -> list[_Chunk]:
        response = as_object(data["response"])
        for ours, theirs, of in (("id", "id", str), ("created", "created_at", (int, float)), ("model", "model", str)):
            if isinstance(response.get(theirs), of):
                self._head[ours] = int(response[theirs]) if ours == "created" else response[theirs]
        return self._begin()

    def text(self, data: dict[str, Any]) -> list[_Chunk]:
        return self._say(data, "content_index", "content")

    def refusal(self, data: dict[str, Any]) -> list[_Chunk]:
        return self._say(data, "content_index", "refusal")

    def reasoning(self, data: dict[str, Any]) -> list[_Chunk]:
        self._reasoned = True
        return self._say(data, "summary_index" if "summary_index" in data else "content_index", "reasoning_content")

    def part_added(self, data: dict[str, Any]) -> list[_Chunk]:
        """Parts of a summary are paragraphs."""
        return self._chunk({"reasoning_content": "\n\n"}) if self._reasoned else []

    def _say(self, data: dict[str, Any], index: str, name: str) -> list[_Chunk]:
        key = (data["output_index"], data.get(index, 0), name)
        sent = self._texts.get(key, 0)
        if data["type"].endswith(".done"):  # some servers send only this
            text = data["refusal" if name == "refusal" else "text"][sent:]
        else:
            text = data["delta"]
        if not text:
            return []
        self._texts[key] = sent + len(text)
        logprobs = data.get("logprobs")
        more = {"logprobs": {"content": logprobs, "refusal": None}} if logprobs and name == "content" else {}
        return self._chunk({name: text}, **more)

    def annotation(self, data: dict[str, Any]) -> list[_Chunk]:
        annotation = as_object(data["annotation"])
        if annotation.get("type") != "url_citation":
            return []
        citation = {name: annotation[name] for name in _CITATION if name in annotation}
        return self._chunk({"annotations": [{"type": "url_citation", "url_citation": citation}]})

    def item_added(self, data: dict[str, Any]) -> list[_Chunk]:
        item, index = as_object(data["item"]), data["output_index"]
        if item.get("type") not in _CALLS or index in self._calls:
            return []
        call = self._calls[index] = _Call(len(self._calls), item["type"])
        call.said = item.get(call.name) or ""
        begun = {"index": call.place, "id": item["call_id"], "type": call.kind}
        return self._chunk({"tool_calls": [{**begun, call.kind: {"name": item["name"], call.name: call.said}}]})

    def arguments(self, data: dict[str, Any]) -> list[_Chunk]:
        return self._call(self._calls[data["output_index"]], data["delta"])

    def item_done(self, data: dict[str, Any]) -> list[_Chunk]:
        """Pass on what its deltas have not said."""
        item = as_object(data["item"])
        chunks = self.item_added(data)
        call = self._calls.get(data["output_index"])
        if call is not None and item.get("type") in _CALLS:
            chunks += self._call(call, (item.get(call.name) or "")[len(call.said) :])
        return chunks

    def _call(self, call: _Call, text: str) -> list[_Chunk]:
        if not text:
            return []
        call.said += text
        return self._chunk({"tool_calls": [{"index": call.place, call.kind: {call.name: text}}]})

    def final(self, data: dict[str, Any]) -> list[_Chunk]:
        response = as_object(data["response"])
        if data["type"] == "response.failed":
            error = as_object(response.get("error"))
            raise UpstreamError(str(error.get("message") or "the provider says that its answer failed")[:500])
        chunks = self.created(data)
        if isinstance(response.get("service_tier"), str):
            self._head["service_tier"] = response["service_tier"]
        reason = "tool_calls" if self._calls else "stop"
        if data["type"] == "response.incomplete":
            why = as_object(response.get("incomplete_details")).get("reason")
            reason = _FINISH_REASONS.get(why, "length") if isinstance(why, str) else "length"
        chunks += [{**self._head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}]
        used = RESPONSES.usage(response)
        return chunks if used is None else [*chunks, {**self._head, "choices": [], "usage": chat_usage(used)}]

    # -- chunks ------------------------------------------------------------------------------------------------

    def _begin(self) -> list[_Chunk]:
        if self._begun:
            return []
        self._begun = True
        choice = {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
        return [{**self._head, "choices": [choice]}]

    def _chunk(self, delta: Mapping[str, Any], **more: Any) -> list[_Chunk]:
        choice = {"index": 0, "delta": delta, **more, "finish_reason": None}
        return [*self._begin(), {**self._head, "choices": [choice]}]


_EVENTS: Mapping[str, Callable[[ResponsesAsChat, dict[str, Any]], list[_Chunk]]] = {
    "response.created": ResponsesAsChat.created,
    "response.output_text.delta": ResponsesAsChat.text,
    "response.output_text.done": ResponsesAsChat.text,
    "response.output_text.annotation.added": ResponsesAsChat.annotation,
    "response.refusal.delta": ResponsesAsChat.refusal,
    "response.refusal.done": ResponsesAsChat.refusal,
    "response.reasoning_summary_part.added": ResponsesAsChat.part_added,
    "response.reasoning_summary_text.delta": ResponsesAsChat.reasoning,
    "response.reasoning_summary_text.done": ResponsesAsChat.reasoning,
    "response.reasoning_text.delta": ResponsesAsChat.reasoning,
    "response.reasoning_text.done": ResponsesAsChat.reasoning,
    "response.output_item.added": ResponsesAsChat.item_added,
    "response.output_item.done": ResponsesAsChat.item_done,
    "response.function_call_arguments.delta": ResponsesAsChat.arguments,
    "response.custom_tool_call_input.delta": ResponsesAsChat.arguments,
    "response.completed": ResponsesAsChat.final,
    "response.incomplete": ResponsesAsChat.final,
    "response.failed": ResponsesAsChat.final,
}
