"""The answer to `negawatt.translate.responses_to_chat`: chunks of Chat Completions in, events of the Responses API out.

Each kind of thing that is said becomes an item of its own, in the order in which they begin: what the model thinks
(``reasoning``), what it says (``message``), and each call. Items end when the answer does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from negawatt.economics.usage_dialects import responses_usage
from negawatt.errors import UpstreamError, UpstreamProtocolError
from negawatt.wire.chat import CHAT
from negawatt.wire.common import as_object, as_objects, error_of
from negawatt.wire.responses_folder import FINAL

_Event = dict[str, Any]
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_REASONING = ("reasoning_content", "reasoning")
_UNSAYABLE = ("audio", "images")  # nobody asked for them in Responses, but some models make them
_FUNCTION_CALL = -1  # the place of a call in the older form, of which there is one
# Of the request, what the answer repeats, and what it says where the request said nothing.
_REPEATED: Mapping[str, Any] = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True, "reasoning": None,
    "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None,
    "truncation": "disabled", "user": None,
}  # fmt: skip


class _Part:
    """One part of an item whose text is in the making. *field*: the name of its text."""

    def __init__(self, family: str, added: str, kind: str, field: str, index: tuple[str, int]) -> None:
        self.family = family  # of its events
        self.added = added  # of the events of its beginning and end
        self.field = field
        self.place = dict([index])
        self.fields: dict[str, Any] = {"type": kind, field: ""}
        if kind == "output_text":
            self.fields |= {"annotations": [], "logprobs": []}
        self.texts: list[str] = []

    def whole(self) -> dict[str, Any]:
        return {**self.fields, self.field: "".join(self.texts)}


class _Item:
    """One item of the output in the making."""

    def __init__(self, index: int, fields: dict[str, Any], parts_in: str = "", call: str = "") -> None:
        self.fields = fields
        self.place: dict[str, Any] = {"item_id": fields["id"], "output_index": index}
        self.parts_in = parts_in  # the list that its parts are in
        self.call = call  # the name of what a call is called with
        self.parts: list[_Part] = []
        self.texts: list[str] = []  # of a call

    def whole(self, status: str) -> dict[str, Any]:
        done = {**self.fields, "status": status} if "status" in self.fields else dict(self.fields)
        if self.call:
            return {**done, self.call: "".join(self.texts)}
        return {**done, self.parts_in: [part.whole() for part in self.parts]}


class ChatAsResponses:
    """Translates one stream; a `negawatt.translate.Translator`. *asked*: the caller's request, in Responses."""

    def __init__(self, asked: Mapping[str, Any], new_id: Callable[[], str], created: int) -> None:
        self._asked = asked
        self._new_id = new_id
        self._head: dict[str, Any] = {"id": "", "created_at": created, "model": asked.get("model") or ""}
        self._tier: str | None = None
        self._usage: dict[str, Any] | None = None
        self._items: list[_Item] = []
        self._thought: _Item | None = None
        self._said: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._early: dict[int, list[str]] = {}  # arguments of calls that have no name yet
        self._finish: str | None = None
        self._number = 0
        self._begun = False

    def feed(self, data: dict[str, Any]) -> list[_Event]:
        """Raises `UpstreamError` for a chunk that says that the provider failed, or that cannot be put into events."""
        message = error_of(data)
        if message is not None:
            raise UpstreamError(message)
        if isinstance(data.get("model"), str) and data["model"]:
            self._head["model"] = data["model"]
        if isinstance(data.get("id"), str) and data["id"] and not self._head["id"]:
            self._head["id"] = data["id"] if data["id"].startswith("resp_") else f"resp_{data['id']}"
        if isinstance(data.get("service_tier"), str):
            self._tier = data["service_tier"]
        if isinstance(data.get("usage"), dict):
            self._usage = data["usage"]  # cumulative where it is repeated
        try:
            events = [event for choice in data.get("choices") or () if choice for event in self._choice(choice)]
        except (AttributeError, KeyError, TypeError) as error:
            raise UpstreamProtocolError("a chunk of the answer is not what it should be") from error
        return self._numbered(events)

    def end(self) -> list[_Event]:
        if self._finish is None:
            raise UpstreamProtocolError("the provider does not say why its answer ended")
        why = _INCOMPLETE.get(self._finish)
        status = "completed" if why is None else "incomplete"
        events = [*self._begin(), *(event for item in self._items for event in _closed(item, status))]
        details = None if why is None else {"reason": why}
        output = [item.whole(status) for item in self._items]
        used = CHAT.usage({"usage": self._usage})
        usage = None if used is None else responses_usage(used)
        final = self._response(status, output=output, incomplete_details=details, usage=usage)
        return self._numbered([*events, {"type": FINAL[status], "response": final}])

    # -- what comes --------------------------------------------------------------------------------------------

    def _choice(self, choice: dict[str, Any]) -> Iterator[_Event]:
        if choice.get("index") not in (None, 0):
            raise UpstreamProtocolError("the provider gave more than one answer; one was asked for")
        delta = choice.get("delta") or {}
        yield from self._begin()
        thought = next((delta[name] for name in _REASONING if delta.get(name)), None)
        if isinstance(thought, str):
            yield from self._think(thought)
        if delta.get("content"):
            yield from self._say(
                delta["content"], "output_text", as_objects(as_object(choice.get("logprobs")).get("content"))
            )
        if delta.get("refusal"):
            yield from self._say(delta["refusal"], "refusal", [])
        for annotation in as_objects(delta.get("annotations")):
            yield from self._cite(annotation)
        for call in delta.get("tool_calls") or ():
            yield from self._call(call.get("index") or 0, call)
        if delta.get("function_call"):
            yield from self._call(_FUNCTION_CALL, {"function": delta["function_call"]})
        if any(delta.get(name) for name in _UNSAYABLE):
            raise UpstreamProtocolError("the provider answered with what cannot be said in Responses")
        self._finish = choice.get("finish_reason") or self._finish

    def _think(self, text: str) -> Iterator[_Event]:
        if self._thought is None:
            self._thought = self._item({"id": f"rs_{self._new_id()}", "type": "reasoning", "summary": []}, "summary")
            yield _added(self._thought)
        index = ("summary_index", 0)
        yield from _spoken(
            self._thought, text, "response.reasoning_summary_text", "response.reasoning_summary_part", "summary_text",
            "text", index,
        )  # fmt: skip

    def _say(self, text: str, kind: str, logprobs: list[dict[str, Any]]) -> Iterator[_Event]:
        if self._said is None:
            fields = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
            self._said = self._item({"id": f"msg_{self._new_id()}", **fields}, "content")
            yield _added(self._said)
        parts = self._said.parts
        index = next((i for i, part in enumerate(parts) if part.fields["type"] == kind), len(parts))
        field = "text" if kind == "output_text" else "refusal"
        place = ("content_index", index)
        for event in _spoken(self._said, text, f"response.{kind}", "response.content_part", kind, field, place):
            if event["type"] == "response.output_text.delta":
                parts[index].fields["logprobs"].extend(logprobs)
                event["logprobs"] = logprobs
            yield event

    def _cite(self, annotation: dict[str, Any]) -> Iterator[_Event]:
        citation = as_object(annotation.get("url_citation"))
        if annotation.get("type") != "url_citation" or self._said is None or not self._said.parts:
            return
        part = self._said.parts[0]
        made = {"start_index": 0, "end_index": 0, "title": "", **citation, "type": "url_citation"}
        known = part.fields.setdefault("annotations", [])
        known.append(made)
        place = {**self._said.place, **part.place, "annotation_index": len(known) - 1}
        yield {"type": "response.output_text.annotation.added", **place, "annotation": made}

    def _call(self, place: int, call: dict[str, Any]) -> Iterator[_Event]:
        kind = "custom" if call.get("type") == "custom" or "custom" in call else "function"
        inner = call.get(kind) or {}
        text = inner.get("input" if kind == "custom" else "arguments") or ""
        item = self._calls.get(place)
        if item is None:
            if not inner.get("name"):
                self._early.setdefault(place, []).append(text)
                return
            item = self._calls[place] = self._called(kind, inner["name"], call.get("id") or f"call_{self._new_id()}")
            text = "".join([*self._early.pop(place, []), text])
            yield _added(item)
        if text:
            item.texts.append(text)
            yield {"type": f"{_FAMILIES[item.call]}.delta", **item.place, "delta": text}

    def _called(self, kind: str, name: str, call_id: str) -> _Item:
        argument = "input" if kind == "custom" else "arguments"
        of = {"type": "custom_tool_call"} if kind == "custom" else {"type": "function_call", "status": "in_progress"}
        prefix = "ctc" if kind == "custom" else "fc"
        return self._item(
            {"id": f"{prefix}_{self._new_id()}", **of, "call_id": call_id, "name": name, argument: ""}, call=argument
        )

    # -- what goes ---------------------------------------------------------------------------------------------

    def _item(self, fields: dict[str, Any], parts_in: str = "", call: str = "") -> _Item:
        item = _Item(len(self._items), fields, parts_in, call)
        self._items.append(item)
        return item

    def _begin(self) -> Iterator[_Event]:
        if not self._begun:
            self._begun = True
            self._head["id"] = self._head["id"] or f"resp_{self._new_id()}"
            yield {"type": "response.created", "response": self._response("in_progress")}
            yield {"type": "response.in_progress", "response": self._response("in_progress")}

    def _response(self, status: str, **fields: Any) -> dict[str, Any]:
        repeated = {
            name: self._asked[name] if self._asked.get(name) is not None else default
            for name, default in _REPEATED.items()
        }
        tools = [{"parameters": None, "strict": True, **tool} if tool.get("type") == "function" else tool
                 for tool in as_objects(repeated["tools"])]  # fmt: skip
        return {
            **self._head, "object": "response", "status": status, "error": None, "incomplete_details": None, **repeated,
            "tools": tools, "previous_response_id": None, "store": False, "service_tier": self._tier, "output": [],
            "usage": None, **fields,
        }  # fmt: skip

    def _numbered(self, events: list[_Event]) -> list[_Event]:
        numbered = [{**event, "sequence_number": self._number + i} for i, event in enumerate(events)]
        self._number += len(events)
        return numbered


_FAMILIES = {"arguments": "response.function_call_arguments", "input": "response.custom_tool_call_input"}


def _added(item: _Item) -> _Event:
    return {"type": "response.output_item.added", "output_index": item.place["output_index"], "item": dict(item.fields)}


def _spoken(  # noqa: PLR0913
    item: _Item, text: str, family: str, added: str, kind: str, field: str, index: tuple[str, int]
) -> Iterator[_Event]:
    """Yield the events of *text* in the part at *index* of *item*, which is begun where it is not there."""
    if index[1] == len(item.parts):
        item.parts.append(_Part(family, added, kind, field, index))
        begun = item.parts[-1]
        yield {"type": f"{added}.added", **item.place, **begun.place, "part": begun.whole()}
    part = item.parts[index[1]]
    part.texts.append(text)
    yield {"type": f"{family}.delta", **item.place, **part.place, "delta": text}


def _closed(item: _Item, status: str) -> Iterator[_Event]:
    """Yield the events that end *item*."""
    if item.call:
        text = "".join(item.texts)
        name = {"name": item.fields["name"]} if item.call == "arguments" else {}
        yield {"type": f"{_FAMILIES[item.call]}.done", **item.place, item.call: text, **name}
    for part in item.parts:
        whole = part.whole()
        logprobs = {"logprobs": whole["logprobs"]} if "logprobs" in whole else {}
        yield {"type": f"{part.family}.done", **item.place, **part.place, part.field: whole[part.field], **logprobs}
        yield {"type": f"{part.added}.done", **item.place, **part.place, "part": whole}
    done = item.whole(status)
    yield {"type": "response.output_item.done", "output_index": item.place["output_index"], "item": done}
