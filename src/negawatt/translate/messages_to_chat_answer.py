"""The answer to `negawatt.translate.messages_to_chat`: chunks of Chat Completions in, events of Anthropic Messages out.

Messages has one content block open at a time, Chat may send the fragments of several tool calls in turns. What is
said in a block that cannot be open yet waits, and nothing is said in one that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from negawatt.economics.usage_dialects import messages_usage
from negawatt.errors import UpstreamError, UpstreamProtocolError
from negawatt.wire.chat import CHAT
from negawatt.wire.common import as_object, as_objects, error_of

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_TIERS = {"default": "standard", "priority": "priority", "fast": "priority"}
_REASONING = ("reasoning_content", "reasoning")
_UNSAYABLE = ("audio", "images")  # nobody asked for them in Messages, but some models make them
_FUNCTION_CALL = -1  # the place of a call in the older form, of which there is one

_Event = dict[str, Any]


class _Block:
    """A content block in the making. *waiting* are the deltas that have not been sent."""

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.waiting: list[dict[str, Any]] = []
        self.begun = False
        self.signed = False  # thinking that has its signature is over
        self.texts: list[str] = []  # of thinking
        self.length = 0  # of the texts
        self.object = _Object()

    @property
    def ready(self) -> bool:
        return self.kind != "tool_use" or bool(self.fields["name"])

    def over(self) -> bool:
        """True when no more can come, given that something else has begun after it."""
        return self.kind != "tool_use" or self.object.over()


class _Object:
    """Knows whether the fragments of a JSON object make a whole one. They are looked at only when somebody asks."""

    def __init__(self) -> None:
        self._unread: list[str] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._seen = False

    def add(self, text: str) -> None:
        self._unread.append(text)

    def over(self) -> bool:
        for text in self._unread:
            for letter in text:
                self._read(letter)
        self._unread.clear()
        return self._seen and not self._depth

    def _read(self, letter: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif letter == "\\":
                self._escaped = True
            elif letter == '"':
                self._in_string = False
        elif letter == '"':
            self._in_string = True
        elif letter in "{[":
            self._depth, self._seen = self._depth + 1, True
        elif letter in "}]":
            self._depth -= 1


def _an_object(value: Any) -> dict[str, Any]:
    """Return *value*, or an empty object for null. Raises `UpstreamProtocolError` for anything else."""
    if value is None or isinstance(value, dict):
        return value or {}
    raise UpstreamProtocolError("a part of the answer is not an object")


def _all_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in the list *value*, none for null. Raises `UpstreamProtocolError` for anything else."""
    if value is None or isinstance(value, list):
        return [_an_object(entry) for entry in value or ()]
    raise UpstreamProtocolError("a part of the answer is not a list")


class ChatAsMessages:
    """Translates one stream; a `negawatt.translate.Translator`. *asked*: the caller's request, in Messages."""

    def __init__(self, asked: Mapping[str, Any], new_id: Callable[[], str]) -> None:
        stops = asked.get("stop_sequences")
        self._stops = stops if isinstance(stops, list) else []
        self._new_id = new_id
        self._head: dict[str, str] = {}
        self._tier: str | None = None
        self._usage: dict[str, Any] | None = None
        self._queue: list[_Block] = []  # the first is open, or will be as soon as it can
        self._calls: dict[Any, _Block] = {}
        self._index = 0  # of the first in the queue
        self._text: list[str] = []  # all of the content, for those who cite from it
        self._finish: str | None = None
        self._stop_sequence: str | None = None
        self._called = False
        self._refused = False
        self._begun = False

    def feed(self, data: dict[str, Any]) -> list[_Event]:
        """Raises `UpstreamError` for a chunk that says that the provider failed, or that cannot be put into events."""
        message = error_of(data)
        if message is not None:
            raise UpstreamError(message)
        for name in ("id", "model"):
            if isinstance(data.get(name), str) and data[name]:
                self._head.setdefault(name, data[name])
        if isinstance(data.get("service_tier"), str):
            self._tier = _TIERS.get(data["service_tier"], self._tier)
        if isinstance(data.get("usage"), dict):
            self._usage = data["usage"]  # cumulative where it is repeated
        events: list[_Event] = []
        for choice in _all_objects(data.get("choices")):
            if choice:  # some servers send `choices: [{}]` with the usage
                events += self._choice(choice)
        return events

    def end(self) -> list[_Event]:
        if self._finish is None:
            raise UpstreamProtocolError("the provider does not say why its answer ended")
        events = self._begin() + self._advance(final=True)
        # The protocol has no word for "unknown" here; a block of zeros is read as one that says nothing.
        usage = {"output_tokens": 0, **self._used()}
        ending = {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_sequence}
        return [*events, {"type": "message_delta", "delta": ending, "usage": usage}, {"type": "message_stop"}]

    # -- what comes --------------------------------------------------------------------------------------------

    def _choice(self, choice: dict[str, Any]) -> list[_Event]:
        if choice.get("index") not in (None, 0):
            raise UpstreamProtocolError("the provider gave more than one answer; one was asked for")
        delta = _an_object(choice.get("delta"))
        self._think(delta)
        self._say(delta)
        for call in _all_objects(delta.get("tool_calls")):
            self._call(call)
        if delta.get("function_call") is not None:
            self._call({"index": _FUNCTION_CALL, "function": delta["function_call"]})
        self._cite(as_objects(delta.get("annotations")))
        for name in _UNSAYABLE:
            if delta.get(name):
                raise UpstreamProtocolError(f"the answer has {name}, and Anthropic Messages cannot say that")
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finish = reason
        stop = choice.get("stop_reason")  # vLLM's word for the stop sequence
        if isinstance(stop, str) and stop in self._stops:
            self._stop_sequence = stop
        return self._begin() + self._advance(final=self._finish is not None)

    def _think(self, delta: dict[str, Any]) -> None:
        """Servers call it ``reasoning_content`` or ``reasoning``; some repeat it in ``reasoning_details``, signed."""
        told = next((delta[n] for n in _REASONING if isinstance(delta.get(n), str) and delta[n]), "")
        details = as_objects(delta.get("reasoning_details"))
        texts = [str(detail.get("text") or detail.get("summary") or "") for detail in details]
        if told and told != "".join(texts):
            self._extend("thinking", "thinking", told)
            texts = [""] * len(details)
        for detail, text in zip(details, texts, strict=True):
            if text and not self._told(text):
                self._extend("thinking", "thinking", text)
            signature = detail.get("signature")
            if isinstance(signature, str) and signature:
                block = self._last("thinking")
                block.waiting.append({"type": "signature_delta", "signature": signature})
                block.signed = True

    def _told(self, text: str) -> bool:
        """True when *text* is what has been thought bit by bit since the last signature."""
        block = self._queue[-1] if self._queue else None
        if block is None or block.kind != "thinking" or block.signed or block.length != len(text):
            return False
        return "".join(block.texts) == text

    def _say(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
        for part in parts:
            self._say_part(as_object(part))
        if delta.get("refusal"):
            self._refused = True
            self._say_part({"type": "text", "text": delta["refusal"]})

    def _say_part(self, part: dict[str, Any]) -> None:
        """Content is a string, but Mistral sends parts when there is thinking in it."""
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            self._text.append(part["text"])
            self._extend("text", "text", part["text"])
        elif part.get("type") == "thinking":
            told = part.get("thinking")
            texts = [told] if isinstance(told, str) else [str(one.get("text") or "") for one in as_objects(told)]
            self._extend("thinking", "thinking", "".join(texts))
        else:
            raise UpstreamProtocolError("the content of the answer is not text")

    def _extend(self, kind: str, name: str, text: str) -> None:
        if text:
            block = self._last(kind)
            if kind == "thinking":
                block.texts.append(text)
                block.length += len(text)
            block.waiting.append({"type": f"{name}_delta", name: text})

    def _last(self, kind: str) -> _Block:
        """Return the block that is being made, if it is of this *kind*, else a new one after it."""
        if self._queue and self._queue[-1].kind == kind and not self._queue[-1].signed:
            return self._queue[-1]
        empty = {"type": kind, "text": ""} if kind == "text" else {"type": kind, "thinking": "", "signature": ""}
        self._queue.append(_Block(kind, empty))
        return self._queue[-1]

    def _call(self, call: dict[str, Any]) -> None:
        self._called = True
        function = _an_object(call.get("function"))
        block = self._block_of(call, function)
        if isinstance(function.get("name"), str):
            block.fields["name"] = block.fields["name"] or function["name"]
        part = function.get("arguments")
        if isinstance(part, dict):  # some servers do not write them down as text
            part = orjson.dumps(part).decode()
        if part is not None and not isinstance(part, str):
            raise UpstreamProtocolError("the arguments of a tool call are no text")
        if part:
            if block not in self._queue:
                if part.strip():
                    raise UpstreamProtocolError("a tool call went on after its arguments had come to their end")
                return
            block.object.add(part)
            block.waiting.append({"type": "input_json_delta", "partial_json": part})

    def _block_of(self, call: dict[str, Any], function: dict[str, Any]) -> _Block:
        """Return the block that a fragment belongs to: by its index, or, where servers leave that out, by its id.

        Some servers give every call the same index: a new id with a name is a new call.
        """
        place = call.get("index")
        name = call["id"] if isinstance(call.get("id"), str) and call["id"] else None
        if not isinstance(place, int):
            place = name or next(reversed(self._calls), 0)
        known = self._calls.get(place)
        if known is not None and not (name and function.get("name") and name != known.fields["id"]):
            known.fields["id"] = known.fields["id"] or name
            return known
        block = _Block("tool_use", {"type": "tool_use", "id": name, "name": "", "input": {}})
        self._calls[place] = block
        self._queue.append(block)
        return block

    def _cite(self, annotations: list[dict[str, Any]]) -> None:
        for annotation in annotations:
            cited = as_object(annotation.get("url_citation"))
            if not isinstance(cited.get("url"), str):
                continue
            start, end = cited.get("start_index"), cited.get("end_index")
            known = isinstance(start, int) and isinstance(end, int)
            citation = {
                "type": "web_search_result_location",
                "cited_text": "".join(self._text)[start:end] if known else "",
                "encrypted_index": "",  # only Anthropic's own search has one
                "title": cited.get("title"),
                "url": cited["url"],
            }
            self._last("text").waiting.append({"type": "citations_delta", "citation": citation})

    # -- what goes ---------------------------------------------------------------------------------------------

    def _begin(self) -> list[_Event]:
        if self._begun:
            return []
        self._begun = True
        usage = {"input_tokens": 0, "output_tokens": 0, **self._used()}
        if self._tier is not None:
            usage["service_tier"] = self._tier
        message: dict[str, Any] = {
            "id": self._head.get("id") or f"msg_{self._new_id()}",
            "type": "message",
            "role": "assistant",
            "model": self._head.get("model", ""),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return [{"type": "message_start", "message": message}]

    def _used(self) -> dict[str, Any]:
        """Return what is known of the usage."""
        used = CHAT.usage({"usage": self._usage})
        if used is None:
            return {}
        return messages_usage(used)

    def _advance(self, final: bool) -> list[_Event]:
        """Return the events that can be sent now. *final*: nothing more will come to any block."""
        events: list[_Event] = []
        while self._queue:
            block = self._queue[0]
            if not block.ready:
                if final:
                    raise UpstreamProtocolError("a tool call has no name")
                break
            if not block.begun:
                block.begun = True
                events.append(self._start(block))
            events += [self._event("content_block_delta", delta=delta) for delta in block.waiting]
            block.waiting.clear()
            if not final and not (len(self._queue) > 1 and block.over()):
                break
            events.append(self._event("content_block_stop"))
            del self._queue[0]
            self._index += 1
        return events

    def _start(self, block: _Block) -> _Event:
        if block.kind == "tool_use":
            block.fields["id"] = block.fields["id"] or f"toolu_{self._new_id()}"
        return self._event("content_block_start", content_block=dict(block.fields))

    def _event(self, kind: str, **fields: Any) -> _Event:
        return {"type": kind, "index": self._index, **fields}

    def _stop_reason(self) -> str | None:
        if self._refused:
            return "refusal"
        if self._finish == "stop" and self._called:
            return "tool_use"  # so does OpenAI end an answer whose tool was chosen by the caller
        if self._finish == "stop" and self._stop_sequence is not None:
            return "stop_sequence"
        # A reason that is not known here is passed on as it is: to say "end_turn" would be to say that it is all there.
        return _STOP_REASONS.get(self._finish or "", self._finish)
