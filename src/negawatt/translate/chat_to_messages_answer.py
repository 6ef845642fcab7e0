"""The answer to `negawatt.translate.chat_to_messages`: events of Anthropic Messages in, chunks of Chat Completions out.

Chat has one string of content, so the text blocks are joined. What it has no field for goes where its providers have
put it: thinking in ``reasoning_content`` (DeepSeek) and, whole, with its signature, in ``reasoning_details``
(OpenRouter), so that a caller can hand it back; the stop sequence in the choice's ``stop_reason`` (vLLM); citations
without a URL, and blocks of tools that the provider ran itself, in ``provider_specific_fields`` (LiteLLM).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from negawatt.economics.usage_dialects import chat_usage
from negawatt.errors import UpstreamError, UpstreamProtocolError
from negawatt.wire.common import as_object, error_of
from negawatt.wire.messages import MESSAGES

FORMAT = "anthropic-claude-v1"  # of reasoning_details
# Chat has no word for a turn that is to be continued, nor for a full context window: what came is not all.
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "length",
    "refusal": "content_filter",
    "model_context_window_exceeded": "length",
}
_TIERS = {"standard": "default", "priority": "priority"}

_Delta = dict[str, Any]
_Chunk = dict[str, Any]


class _Block(Protocol):
    """One content block in the making. All of it returns what a choice's ``delta`` has to say."""

    def begin(self) -> list[_Delta]: ...

    def add(self, delta: Mapping[str, Any]) -> list[_Delta]: ...

    def end(self) -> list[_Delta]: ...


class MessagesAsChat:
    """Translates one stream; a `negawatt.translate.Translator`. *created*: seconds since 1970."""

    def __init__(self, created: int) -> None:
        self._head: dict[str, Any] = {
            "id": "", "object": "chat.completion.chunk", "created": created, "model": "",
        }  # fmt: skip
        self._usage: dict[str, Any] = {}
        self._ending: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self._seen = _Seen()
        self._begun = False
        self._over = False

    def feed(self, data: dict[str, Any]) -> list[_Chunk]:
        """Raises `UpstreamError` for an event that says that the provider failed, or that cannot be read."""
        handler = _EVENTS.get(data["type"]) if isinstance(data.get("type"), str) else None
        if handler is None:
            return []  # "ping", and kinds of events that are yet to come: the API says that they may be ignored
        try:
            return handler(self, data)
        except (AttributeError, KeyError, TypeError) as error:
            raise UpstreamProtocolError(f"an event of type {data['type']} is not what it should be") from error

    def end(self) -> list[_Chunk]:
        return [] if self._over else self.message_stop({})

    # -- events ------------------------------------------------------------------------------------------------

    def message_start(self, data: dict[str, Any]) -> list[_Chunk]:
        message = as_object(data["message"])
        for name in ("id", "model"):
            if isinstance(message.get(name), str):
                self._head[name] = message[name]
        self._count(message.get("usage"))
        tier = self._usage.get("service_tier")
        if isinstance(tier, str) and tier in _TIERS:
            self._head["service_tier"] = _TIERS[tier]
        return self._begin()

    def block_start(self, data: dict[str, Any]) -> list[_Chunk]:
        fields = data["content_block"]
        if data["index"] in self._blocks:
            raise UpstreamProtocolError(f"content block {data['index']} was begun twice")
        block = _BLOCKS.get(fields["type"], _OtherBlock)(fields, self._seen)
        self._blocks[data["index"]] = block
        return self._say(block.begin())

    def block_delta(self, data: dict[str, Any]) -> list[_Chunk]:
        return self._say(self._block(data).add(data["delta"]))

    def block_stop(self, data: dict[str, Any]) -> list[_Chunk]:
        chunks = self._say(self._block(data).end())
        del self._blocks[data["index"]]
        return chunks

    def _block(self, data: dict[str, Any]) -> _Block:
        block = self._blocks.get(data["index"])
        if block is None:
            raise UpstreamProtocolError(f"content block {data['index']} is not open")
        return block

    def message_delta(self, data: dict[str, Any]) -> list[_Chunk]:
        self._ending.update({name: value for name, value in as_object(data.get("delta")).items() if value is not None})
        self._count(data.get("usage"))
        return []

    def message_stop(self, data: dict[str, Any]) -> list[_Chunk]:
        self._over = True
        chunks = [chunk for block in self._blocks.values() for chunk in self._say(block.end())]
        self._blocks.clear()
        refused = as_object(self._ending.get("stop_details")).get("explanation")
        if isinstance(refused, str) and refused:
            chunks += self._say([{"refusal": refused}])
        chunks += self._begin()
        reason = self._ending.get("stop_reason")
        if not isinstance(reason, str) or not reason:
            raise UpstreamProtocolError("the provider does not say why its answer ended")
        # One that is not known here is passed on as it is: to say "stop" would be to say that it is all there.
        choice: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": _FINISH_REASONS.get(reason, reason)}
        if isinstance(self._ending.get("stop_sequence"), str):
            choice["stop_reason"] = self._ending["stop_sequence"]
        chunks.append({**self._head, "choices": [choice]})
        used = MESSAGES.usage({"usage": self._usage, "stop_reason": reason})
        if used is not None:
            chunks.append({**self._head, "choices": [], "usage": chat_usage(used)})
        return chunks

    def error(self, data: dict[str, Any]) -> list[_Chunk]:
        raise UpstreamError(error_of(data) or "the provider says that it failed, not how")

    # -- their parts -------------------------------------------------------------------------------------------

    def _count(self, usage: Any) -> None:
        """Take the newer counts, which are cumulative. One that falls to zero is not known there, and stays."""
        for name, value in as_object(usage).items():
            if value or name not in self._usage:
                self._usage[name] = value

    def _begin(self) -> list[_Chunk]:
        if self._begun:
            return []
        self._begun = True
        return [self._chunk({"role": "assistant", "content": None})]

    def _say(self, deltas: list[_Delta]) -> list[_Chunk]:
        if not deltas:
            return []
        for delta in deltas:
            self._seen.characters += len(delta.get("content") or "")
        return self._begin() + [self._chunk(delta) for delta in deltas]

    def _chunk(self, delta: _Delta) -> _Chunk:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


_EVENTS: Mapping[str, Callable[[MessagesAsChat, dict[str, Any]], list[_Chunk]]] = {
    "message_start": MessagesAsChat.message_start,
    "content_block_start": MessagesAsChat.block_start,
    "content_block_delta": MessagesAsChat.block_delta,
    "content_block_stop": MessagesAsChat.block_stop,
    "message_delta": MessagesAsChat.message_delta,
    "message_stop": MessagesAsChat.message_stop,
    "error": MessagesAsChat.error,
}


class _Seen:
    """What the blocks have to know of those before them."""

    def __init__(self) -> None:
        self.characters = 0  # of content
        self.calls = 0
        self.details = 0  # of reasoning

    def call(self) -> int:
        self.calls += 1
        return self.calls - 1

    def detail(self) -> int:
        self.details += 1
        return self.details - 1


class _TextBlock:
    def __init__(self, fields: dict[str, Any], seen: _Seen) -> None:
        self._fields = fields
        self._seen = seen
        self._start = seen.characters
        self._citations: list[dict[str, Any]] = [as_object(entry) for entry in fields.get("citations") or ()]

    def begin(self) -> list[_Delta]:
        return _told("content", self._fields["text"])

    def add(self, delta: Mapping[str, Any]) -> list[_Delta]:
        if delta["type"] == "citations_delta":
            self._citations.append(as_object(delta["citation"]))
            return []
        return _told("content", delta["text"])

    def end(self) -> list[_Delta]:
        linked = [self._annotation(one) for one in self._citations if isinstance(one.get("url"), str)]
        others = [one for one in self._citations if not isinstance(one.get("url"), str)]
        deltas: list[_Delta] = [{"annotations": linked}] if linked else []
        return [*deltas, {"provider_specific_fields": {"citations": others}}] if others else deltas

    def _annotation(self, citation: dict[str, Any]) -> dict[str, Any]:
        said = {"start_index": self._start, "end_index": self._seen.characters}
        title = citation.get("title") or ""
        return {"type": "url_citation", "url_citation": {**said, "title": title, "url": citation["url"]}}


def _told(name: str, text: Any) -> list[_Delta]:
    return [{name: text}] if _string(text) else []


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


class _ThinkingBlock:
    def __init__(self, fields: dict[str, Any], seen: _Seen) -> None:
        self._fields = fields
        self._seen = seen
        self._texts: list[str] = []
        self._signature = ""

    def begin(self) -> list[_Delta]:
        self._sign(self._fields.get("signature") or "")
        return self._think(self._fields.get("thinking") or "")

    def add(self, delta: Mapping[str, Any]) -> list[_Delta]:
        if delta["type"] == "signature_delta":
            self._sign(delta["signature"])
            return []
        return self._think(delta["thinking"])

    def _think(self, text: Any) -> list[_Delta]:
        self._texts.append(_string(text))
        return _told("reasoning_content", text)

    def _sign(self, signature: Any) -> None:
        self._signature = _string(signature) or self._signature

    def end(self) -> list[_Delta]:
        """Whole and in one piece: not everybody who gathers a stream knows how to join the pieces of an entry."""
        if not self._signature:
            return []
        detail = {"type": "reasoning.text", "text": "".join(self._texts), "signature": self._signature}
        return [{"reasoning_details": [{**detail, "format": FORMAT, "index": self._seen.detail()}]}]


class _SecretBlock:
    """Thinking that only the provider can read."""

    def __init__(self, fields: dict[str, Any], seen: _Seen) -> None:
        self._data = _string(fields["data"])
        self._seen = seen

    def begin(self) -> list[_Delta]:
        return []

    def add(self, delta: Mapping[str, Any]) -> list[_Delta]:
        raise UpstreamProtocolError(f"redacted thinking goes on with {delta['type']}")

    def end(self) -> list[_Delta]:
        detail = {"type": "reasoning.encrypted", "data": self._data, "format": FORMAT, "index": self._seen.detail()}
        return [{"reasoning_details": [detail]}]


class _ToolBlock:
    def __init__(self, fields: dict[str, Any], seen: _Seen) -> None:
        self._fields = fields
        self._index = seen.call()
        self._fed = False

    def begin(self) -> list[_Delta]:
        function = {"name": _string(self._fields["name"]), "arguments": ""}
        call = {"index": self._index, "id": _string(self._fields["id"]), "type": "function", "function": function}
        return [{"tool_calls": [call]}]

    def add(self, delta: Mapping[str, Any]) -> list[_Delta]:
        part = _string(delta["partial_json"])
        self._fed = self._fed or bool(part)
        return [self._arguments(part)] if part else []

    def end(self) -> list[_Delta]:
        """What the block was begun with counts where nothing more has come; Chat's arguments are never empty."""
        if self._fed:
            return []
        given = self._fields.get("input") or {}
        if not isinstance(given, dict):
            raise UpstreamProtocolError("the input of a tool is no object")
        return [self._arguments(orjson.dumps(given).decode())]

    def _arguments(self, part: str) -> _Delta:
        return {"tool_calls": [{"index": self._index, "function": {"arguments": part}}]}


class _OtherBlock:
    """What the provider's own tools said and did: nobody asked for it in Chat, but it is not ours to drop."""

    def __init__(self, fields: dict[str, Any], seen: _Seen) -> None:
        self._fields = fields
        self._parts: list[str] = []

    def begin(self) -> list[_Delta]:
        return []

    def add(self, delta: Mapping[str, Any]) -> list[_Delta]:
        if delta["type"] != "input_json_delta":
            raise UpstreamProtocolError(f"a block of type {self._fields['type']} goes on with {delta['type']}")
        self._parts.append(_string(delta["partial_json"]))
        return []

    def end(self) -> list[_Delta]:
        block = dict(self._fields)
        written = "".join(self._parts)
        if written.strip():
            try:
                block["input"] = orjson.loads(written)
            except orjson.JSONDecodeError as error:
                raise UpstreamProtocolError("the input of a tool is no valid JSON") from error
        return [{"provider_specific_fields": {"content_blocks": [block]}}]


_BLOCKS: Mapping[str, Callable[[dict[str, Any], _Seen], _Block]] = {
    "text": _TextBlock,
    "thinking": _ThinkingBlock,
    "redacted_thinking": _SecretBlock,
    "tool_use": _ToolBlock,
}
