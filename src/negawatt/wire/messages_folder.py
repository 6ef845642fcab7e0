"""Anthropic Messages: how an answer and the events of its stream stand for each other.

Events: ``message_start``; for each content block ``content_block_start``, ``_delta`` and ``_stop``; ``message_delta``
with why it ended and the usage; ``message_stop``. ``ping`` says nothing, ``error`` ends the stream in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from negawatt.wire.merge import Text, Unfaithful, plain

INVALID_JSON = "INVALID_JSON"  # where Anthropic's documentation puts a tool's input that is no valid JSON
_DEEPEST = 100
_EVENT_FIELDS = frozenset({"type", "index", "delta", "content_block"})
_JOINED = {"text_delta": "text", "thinking_delta": "thinking"}  # the field that these deltas extend
# The block that a delta belongs to, for one that was never started.
_BLOCK_OF = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
    "compaction_delta": "compaction",
}
# All that deltas may say and that lands in the block. The estimate is for whoever watches, not part of the answer.
_DELTA_FIELDS = frozenset({
    "type", "text", "thinking", "signature", "partial_json", "citation", "content", "encrypted_content",
    "estimated_tokens",
})  # fmt: skip
# Of a whole answer: what its stream tells at the end. The first are inside ``delta``, the others beside it.
_IN_DELTA = ("stop_reason", "stop_sequence", "stop_details", "container")
_BESIDE_DELTA = ("context_management",)
_ONLY_AT_END = ("output_tokens_details", "server_tool_use", "iterations", "fallback_credit")
_FINAL_USAGE = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", *_ONLY_AT_END,
)  # fmt: skip


class _Block:
    """One content block in the making."""

    __slots__ = ("fields", "fragments", "index", "stopped")

    def __init__(self, index: int, fields: dict[str, Any]) -> None:
        self.index = index
        self.fields = fields
        self.fragments: Text | None = None  # of its input
        self.stopped = False

    def extend(self, name: str, part: Any) -> None:
        """Add *part* to the text in the field *name*. Null adds nothing."""
        old = self.fields.get(name)
        if type(old) is Text and type(part) is str:
            old.append(part)
        elif type(part) is str and (old is None or type(old) is str):
            self.fields[name] = Text(old or "", part)
        elif part is not None:
            raise Unfaithful(f"{name} changed its type in the middle of the stream")

    def sign(self, delta: dict[str, Any]) -> None:
        old, new = self.fields.get("signature"), delta["signature"]
        if new is not None:
            self.fields["signature"] = _copied(new)
        if old and old != new:
            raise Unfaithful("two signatures")

    def add_input(self, delta: dict[str, Any]) -> None:
        part = delta["partial_json"]
        if self.stopped or type(part) is not str:
            raise Unfaithful("input that comes too late, or is no text")
        if self.fragments is None:
            self.fragments = Text()
        self.fragments.append(part)

    def cite(self, delta: dict[str, Any]) -> None:
        if self.fields.get("citations") is None:
            self.fields["citations"] = []
        self.fields["citations"].append(_copied(delta["citation"]))

    def compact(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if name != "type" and (value is not None or name not in self.fields):
                self.fields[name] = _copied(value)

    def stop(self) -> None:
        """End the block. Raises `Unfaithful` when its input is not what it was begun with, or no valid JSON."""
        self.stopped = True
        fragments, self.fragments = self.fragments, None
        if fragments is None:
            return
        old = self.fields.get("input")
        self.fields["input"] = _parsed(str(fragments), old)
        if old not in (None, {}, "", self.fields["input"]):
            raise Unfaithful("the input came twice, and they differ")
        if _is_invalid(self.fields["input"]):
            raise Unfaithful("the input is no valid JSON")

    def whole(self) -> dict[str, Any]:
        """Return a copy of what has come so far."""
        fields: dict[str, Any] = plain(self.fields)
        if self.fragments is not None:
            fields["input"] = _parsed(str(self.fragments), fields.get("input"))
        return fields


# What the other deltas do to their block.
_RARE: Mapping[str, Callable[[_Block, dict[str, Any]], None]] = {
    "signature_delta": _Block.sign,
    "input_json_delta": _Block.add_input,
    "citations_delta": _Block.cite,
    "compaction_delta": _Block.compact,
}


def _parsed(text: str, begun: Any) -> Any:
    """Return the input that fragments were joined to, under `INVALID_JSON` if it cannot be read; *begun* for none."""
    if not text.strip():
        return {} if begun is None else begun
    try:
        return _copied(orjson.loads(text))
    except (orjson.JSONDecodeError, Unfaithful):
        return {INVALID_JSON: text}


def _is_invalid(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {INVALID_JSON}


def _copied(value: Any, room: int = _DEEPEST) -> Any:
    """Return a copy of *value*. Raises `Unfaithful` for what is nested so deeply that no honest answer is."""
    if type(value) is not dict and type(value) is not list:
        return value
    if not room:
        raise Unfaithful(f"nested more than {_DEEPEST} levels deep")
    if type(value) is dict:
        return {name: _copied(inner, room - 1) for name, inner in value.items()}
    return [_copied(inner, room - 1) for inner in value]


class MessagesFolder:
    """Gathers the events of a stream into the whole answer that they stand for."""

    def __init__(self) -> None:
        self.faithful = True
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._blocks: list[_Block] = []  # in the order of their starts
        self._at: dict[Any, _Block] = {}  # the newest with each index
        self._begun = False
        self._over = False
        self._failed = False

    @property
    def complete(self) -> bool:
        """True when the stream said that it is over; or, for one that leaves that out, why, and no block is open."""
        if not self._begun or self._failed:
            return False
        return self._over or (bool(self._head.get("stop_reason")) and all(block.stopped for block in self._blocks))

    def add(self, data: dict[str, Any]) -> None:
        """Add one event. What cannot be joined makes the result unfaithful; it never stops the stream."""
        try:
            kind = data["type"]
            if kind == "content_block_delta":
                self._block_delta(data)
            else:
                _EVENTS[kind](self, data)
        except (Unfaithful, AttributeError, KeyError, TypeError, RecursionError):
            self.faithful = False

    def result(self) -> dict[str, Any]:
        """Return what has been gathered so far, as a whole answer."""
        whole: dict[str, Any] = plain(self._head)
        if self._blocks:
            whole["content"] = [block.whole() for block in sorted(self._blocks, key=_place)]
        if self._usage is not None:
            whole["usage"] = plain(self._usage)
        return whole

    # -- events ------------------------------------------------------------------------------------------------

    def message_start(self, data: dict[str, Any]) -> None:
        if self._begun or self._head or self._blocks:
            self.faithful = False  # begun twice, or late
        self._begun = True
        if type(data["message"]) is not dict:
            raise Unfaithful("message_start has no message")
        self._tell(data["message"])
        self._tell(data, besides=("type", "message"))

    def message_delta(self, data: dict[str, Any]) -> None:
        if not self._begun:
            self.faithful = False
        self._tell(data, besides=("type", "delta"))
        self._tell(data.get("delta") or {})

    def message_stop(self, data: dict[str, Any]) -> None:
        if not self._begun:
            self.faithful = False
        self._over = True
        self._tell(data, besides=("type",))
        for block in self._blocks:
            if not block.stopped:
                self._stop(block)

    def ping(self, data: dict[str, Any]) -> None:
        """Nothing: it keeps the connection alive."""

    def error(self, data: dict[str, Any]) -> None:
        self._failed, self.faithful = True, False
        self._tell(data, besides=("type",) if self._begun else ())

    def block_start(self, data: dict[str, Any]) -> None:
        index = data.get("index")
        if type(index) is not int or index in self._at or not self._begun or not data.keys() <= _EVENT_FIELDS:
            self.faithful = False
        block = self._open(index, data["content_block"])
        if block.fields.get("type") == "fallback":
            # Another model goes on from here; a whole answer bears the name of the last one.
            self._head["model"] = block.fields["to"]["model"]

    def block_stop(self, data: dict[str, Any]) -> None:
        if not data.keys() <= _EVENT_FIELDS:
            self.faithful = False
        self._stop(self._at[data["index"]])

    # -- their parts -------------------------------------------------------------------------------------------

    def _block_delta(self, data: dict[str, Any]) -> None:
        delta = data["delta"]
        kind = delta["type"]
        block = self._at.get(data.get("index")) or self._unannounced(data.get("index"), kind)
        name = _JOINED.get(kind)
        if name is not None:
            block.extend(name, delta[name])
        else:
            _RARE[kind](block, delta)
        if block.stopped:
            self.faithful = False
        elif len(data) != 3 or len(delta) != 2:
            self.faithful = self.faithful and data.keys() <= _EVENT_FIELDS and delta.keys() <= _DELTA_FIELDS

    def _unannounced(self, index: Any, kind: str) -> _Block:
        """Return the block for a delta whose own was never started: what it says is not lost, but may be misplaced."""
        self.faithful = False
        if type(index) is not int and self._blocks:
            return self._blocks[-1]
        return self._open(index, {"type": _BLOCK_OF[kind]})

    def _open(self, index: Any, fields: Any) -> _Block:
        if type(fields) is not dict:
            raise Unfaithful("a content block is no object")
        block = _Block(index if type(index) is int else len(self._blocks), _copied(fields))
        self._blocks.append(block)
        self._at[block.index] = block
        return block

    def _stop(self, block: _Block) -> None:
        try:
            block.stop()
        except Unfaithful:
            self.faithful = False

    def _tell(self, fields: dict[str, Any], besides: tuple[str, ...] = ()) -> None:
        """Write *fields* down as those of the message. Later ones win, but for nulls."""
        for name, value in fields.items():
            if name in besides:
                continue
            if name == "usage" and type(value) is dict:
                self._head.setdefault(name, None)  # its place among the others
                self._count(value)
            elif name == "content" and type(value) is list:
                self._head[name] = []
                for entry in value:
                    self._stop(self._open(len(self._blocks), entry))
            elif value is not None or name not in self._head:
                self._head[name] = _copied(value)

    def _count(self, usage: dict[str, Any]) -> None:
        """Take the newer counts: they are cumulative. One that falls to zero is not known there, and stays."""
        if self._usage is None:
            self._usage = {}
        for name, value in usage.items():
            old = self._usage.get(name)
            if value is None and old is not None:
                continue
            if value == 0 and old and name.endswith("_tokens"):
                continue
            self._usage[name] = _copied(value)


_EVENTS: Mapping[str, Callable[[MessagesFolder, dict[str, Any]], None]] = {
    "message_start": MessagesFolder.message_start,
    "content_block_start": MessagesFolder.block_start,
    "content_block_stop": MessagesFolder.block_stop,
    "message_delta": MessagesFolder.message_delta,
    "message_stop": MessagesFolder.message_stop,
    "ping": MessagesFolder.ping,
    "error": MessagesFolder.error,
}


def _place(block: _Block) -> int:
    return block.index


def unfold(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events that *whole* stands for; an error is one event."""
    if whole.get("type") == "error":
        return [dict(whole)]
    content = whole.get("content")
    start = {name: None if name in (*_IN_DELTA, *_BESIDE_DELTA) else value for name, value in whole.items()}
    end: dict[str, Any] = {"type": "message_delta", "delta": {n: whole[n] for n in _IN_DELTA if n in whole}}
    end.update({name: whole[name] for name in _BESIDE_DELTA if name in whole})
    if isinstance(content, list):
        start["content"] = []
    if isinstance(whole.get("usage"), dict):
        start["usage"], end["usage"] = _usage_apart(whole["usage"])
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(content if isinstance(content, list) else ()):
        begun, deltas = _apart(block) if isinstance(block, dict) else (block, [])
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    return [*events, end, {"type": "message_stop"}]


def _usage_apart(usage: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of *usage* is told at the start, when the output has hardly begun, and what at the end."""
    final = {name: usage[name] for name in _FINAL_USAGE if usage.get(name) is not None}
    start = {name: None if name in _ONLY_AT_END else value for name, value in usage.items()}
    if type(usage.get("output_tokens")) is int and usage["output_tokens"] > 1:
        start["output_tokens"] = 1
    return start, final


def _apart(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how *block* begins, and the deltas that make it whole."""
    kind = block.get("type")
    if kind == "text":
        begun, deltas = _without_texts(block, {"text": "text_delta"})
        if isinstance(block.get("citations"), list):
            begun["citations"] = []
            deltas += [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
        return begun, deltas
    if kind == "thinking":
        return _without_texts(block, {"thinking": "thinking_delta", "signature": "signature_delta"})
    if kind == "compaction":
        said: dict[str, Any] = {name: block[name] for name in ("content", "encrypted_content") if name in block}
        if any(value is not None for value in said.values()):
            return {**block, **dict.fromkeys(said)}, [{"type": "compaction_delta", **said}]
    if isinstance(kind, str) and kind.endswith("tool_use") and isinstance(block.get("input"), dict):
        try:
            written = orjson.dumps(block["input"]).decode() if block["input"] else ""
        except orjson.JSONEncodeError:  # nested too deeply to be written
            return dict(block), []
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": written}]
    return dict(block), []


def _without_texts(block: dict[str, Any], deltas: dict[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    begun = dict(block)
    said = []
    for name, delta in deltas.items():
        if isinstance(block.get(name), str) and block[name]:
            begun[name] = ""
            said.append({"type": delta, name: block[name]})
    return begun, said
