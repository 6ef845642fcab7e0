"""Where a request of the Messages protocol can carry the provider's cache marks, and how they are put there.

A provider reads and writes prompts in the order tools, system, messages. A mark (``cache_control``) stands on a block
and means all of the prompt up to it. Four marks are allowed; three are used: behind the instructions, behind what the
provider has already, and behind what is to be written.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching, 2026-11.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from negawatt.shape.prefix_policy import Block, Lifetime, Marking

_CHARS_PER_TOKEN = 4  # only compared with one another, and with the least that is kept
_NO_MARK = frozenset({"thinking", "redacted_thinking"})
_HOUR_S = 3600.0


class Places(NamedTuple):
    """The blocks of a request, and for each whether it can carry a mark. *fixed*: how many are tools and system."""

    blocks: list[Block]
    markable: list[bool]
    fixed: int


def places_of(data: Mapping[str, Any], whose: bytes) -> Places | None:
    """Return where *data* can be marked; None where it cannot be read. Ids are digests, and differ by *whose* it is."""
    digest = hashlib.blake2b(whose, digest_size=16)
    blocks: list[Block] = []
    markable: list[bool] = []

    def add(value: Any, can: bool) -> None:
        raw = orjson.dumps(value)
        digest.update(raw)
        blocks.append(Block(digest.digest(), max(1, len(raw) // _CHARS_PER_TOKEN)))
        markable.append(can)

    tools, system, messages = data.get("tools"), data.get("system"), data.get("messages")
    try:
        if isinstance(tools, list) and tools:
            add(tools, isinstance(tools[-1], dict) and not tools[-1].get("defer_loading"))
        if isinstance(system, str) and system:
            add(system, system.strip() != "")
        for part in system if isinstance(system, list) else ():
            add(part, _takes_mark(part))
        fixed = len(blocks)
        for message in messages if isinstance(messages, list) else ():
            content = message.get("content") if isinstance(message, dict) else None
            last = content[-1] if isinstance(content, list) and content else None
            add(message, bool(content.strip()) if isinstance(content, str) else _takes_mark(last))
    except (orjson.JSONEncodeError, AttributeError):
        return None
    return Places(blocks, markable, fixed) if blocks else None


def _takes_mark(part: Any) -> bool:
    if not isinstance(part, dict) or part.get("type") in _NO_MARK:
        return False
    return part.get("type") != "text" or bool(str(part.get("text", "")).strip())


def upto_markable(places: Places, marking: Marking) -> Marking:
    """Return *marking* as far as marks can carry it: up to the last block within it that takes one."""
    upto = marking.upto
    while upto > marking.cached and not places.markable[upto - 1]:
        upto -= 1
    return marking._replace(upto=upto, lifetime=marking.lifetime if upto > marking.cached else None)


def marked(
    data: Mapping[str, Any], places: Places, marking: Marking, kept: Lifetime | None
) -> tuple[dict[str, Any], int]:
    """Return the fields of *data* that change with the marks of *marking*, and how many marks those are.

    *kept*: of what the provider has already.
    """
    at: dict[int, Lifetime] = {}
    for count, life in ((marking.cached, kept), (marking.upto, marking.lifetime)):
        if life is not None and count:
            at[count - 1] = life
    longest = max(at.values(), key=lambda life: life.ttl_s, default=None)
    fixed = next((n for n in range(places.fixed, 0, -1) if places.markable[n - 1]), 0)
    if longest is not None and 0 < fixed - 1 < max(at):
        at.setdefault(fixed - 1, longest)  # where conversations part, this much stays the same
    at = {place: life for place, life in at.items() if places.markable[place]}
    changed: dict[str, Any] = {}
    place = 0
    tools, system, messages = data.get("tools"), data.get("system"), data.get("messages")
    if isinstance(tools, list) and tools:
        if place in at:
            changed["tools"] = [*tools[:-1], _with_mark(tools[-1], at[place])]
        place += 1
    parts: Sequence[Any] = system if isinstance(system, list) else [_text(system)] if system else []
    if parts:
        found = [_with_mark(part, at[place + i]) if place + i in at else part for i, part in enumerate(parts)]
        if any(place + i in at for i in range(len(parts))):
            changed["system"] = found
        place += len(parts)
    turns = list(messages) if isinstance(messages, list) else []
    for i, message in enumerate(turns):
        if place + i in at:
            content = message["content"]
            inner = [_text(content)] if isinstance(content, str) else list(content)
            turns[i] = {**message, "content": [*inner[:-1], _with_mark(inner[-1], at[place + i])]}
            changed["messages"] = turns
    return changed, len(at)


def _text(text: Any) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _with_mark(part: Mapping[str, Any], life: Lifetime) -> dict[str, Any]:
    mark = {"type": "ephemeral", "ttl": "1h"} if life.ttl_s >= _HOUR_S else {"type": "ephemeral"}
    return {**part, "cache_control": mark}
