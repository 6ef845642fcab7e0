"""The part of a request that stays the same comes first: providers' caches end at the first difference.

What changes from call to call in the instructions moves into a block of its own behind everything else; a user's words
are never touched. Tools come in the order, and with the order of keys, in which the same tools were first sent.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from negawatt.shape.volatile import Settled, Unmoved, Volatile

_OPENS, _CLOSES = "<context>", "</context>"


class Composed(NamedTuple):
    """A request with its stable part first.

    *data* is what was given, the same object, when nothing had to change. *moved*: the lines that are now in the block
    behind everything, *context* characters long. *unmoved*: what still breaks the prefix.
    """

    data: Mapping[str, Any]
    moved: tuple[str, ...]
    unmoved: tuple[Unmoved, ...]
    tools_restored: bool
    context: int


class StablePrefix:
    """Composes requests of chat, messages and responses. What it remembers is bounded, and holds no prompt's words."""

    def __init__(self, *, most: int = 1000) -> None:
        self._volatile = Volatile(most)
        self._tools: OrderedDict[bytes, list[Any]] = OrderedDict()
        self._most = most

    def compose(self, data: Mapping[str, Any], protocol: str = "chat", *, late: bool = True) -> Composed:
        """Return *data*, a request body of *protocol*, with what changes behind what does not. Never raises for it.

        *late*: the model takes instructions behind a conversation. Where it does not (many templates of open models),
        the block is a part of the last user turn, or a user turn of its own behind results of tools.
        """
        changed: dict[str, Any] = {}
        settled: list[Settled] = []
        if protocol == "messages":
            self._field(data, "system", changed, settled)
        elif protocol == "responses":
            self._field(data, "instructions", changed, settled)
        turns = "input" if protocol == "responses" else "messages"
        history = data.get(turns)
        if isinstance(history, list):
            history = self._instructions(history, settled)
        moved = tuple(line for one in settled for line in one.moved)
        unmoved = [one for part in settled for one in part.unmoved]
        block = "\n".join([_OPENS, *moved, _CLOSES])
        if moved:
            behind = _behind(history, block, late and protocol != "messages")
            if behind is None:
                unmoved += [Unmoved("instructions", line, "there is no turn to put it behind") for line in moved]
                changed, moved = {}, ()
            else:
                changed[turns] = behind
        tools = self._ordered(data.get("tools"))
        if tools is not None:
            changed["tools"] = tools
        whole = data if not changed else {**data, **changed}
        return Composed(whole, moved, tuple(unmoved), tools is not None, len(block) if moved else 0)

    def _field(self, data: Mapping[str, Any], name: str, changed: dict[str, Any], settled: list[Settled]) -> None:
        if name in data:
            content = self._content(data[name], name, settled)
            if content is not data[name]:
                changed[name] = content

    def _instructions(self, history: Sequence[Any], settled: list[Settled]) -> list[Any]:
        """Settle the system and developer messages that the conversation begins with."""
        found = list(history)
        for at, message in enumerate(found):
            if not isinstance(message, Mapping) or message.get("role") not in ("system", "developer"):
                break
            content = self._content(message.get("content"), f"message {at}", settled)
            if content is not message.get("content"):
                found[at] = {**message, "content": content}
        return found

    def _content(self, content: Any, where: str, settled: list[Settled]) -> Any:
        """Settle a text, or the parts of one; return the same object when nothing moved."""
        if isinstance(content, str):
            one = self._volatile.settle(content, where)
            if one.moved and not one.text.strip():
                one = Settled(content, (), (*one.unmoved, Unmoved(where, content[:40], "nothing else is said there")))
            settled.append(one)
            return one.text if one.moved else content
        if not isinstance(content, list):
            return content
        parts = [
            {**part, "text": text}
            if isinstance(part, Mapping)
            and isinstance(part.get("text"), str)
            and (text := self._content(part["text"], where, settled)) is not part["text"]
            else part
            for part in content
        ]
        return content if all(a is b for a, b in zip(parts, content, strict=True)) else parts

    def _ordered(self, tools: Any) -> list[Any] | None:
        """Return *tools* as they were first sent, None where they are so already."""
        if not isinstance(tools, list) or not tools:
            return None
        try:
            each = sorted(orjson.dumps(tool, option=orjson.OPT_SORT_KEYS) for tool in tools)
            sent = orjson.dumps(tools)
        except orjson.JSONEncodeError:
            return None
        key = hashlib.blake2b(b"\0".join(each), digest_size=16).digest()
        first = self._tools.pop(key, tools)
        self._tools[key] = first
        if len(self._tools) > self._most:
            self._tools.popitem(last=False)
        return None if orjson.dumps(first) == sent else first


def _behind(history: Any, block: str, late: bool) -> list[Any] | None:
    """Return *history* with *block* behind it, apart from whatever a user said; None where that cannot be done."""
    if not isinstance(history, list) or not history or not isinstance(history[-1], Mapping):
        return None
    *before, last = history
    if last.get("role") == "assistant":
        return None  # it is to be continued
    if late:
        first = history[0].get("role") if isinstance(history[0], Mapping) else None
        return [*history, {"role": first if first in ("system", "developer") else "developer", "content": block}]
    if last.get("role") != "user":
        return [*history, {"role": "user", "content": block}]
    content = last.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return (
        [*before, {**last, "content": [*parts, {"type": "text", "text": block}]}] if isinstance(parts, list) else None
    )
