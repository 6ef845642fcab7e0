"""The events of a stream of the Responses API, and the whole answer that they stand for.

The last event brings the whole answer, and then it alone counts. What came before it is gathered for streams that
break off, and for servers that leave the output out of their last event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from negawatt.wire.common import as_object, as_objects
from negawatt.wire.merge import Text, Unfaithful, join, own, plain

FINAL = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}
_BEGUN = frozenset({"response.created", "response.queued", "response.in_progress"})
_ENDED = frozenset(FINAL.values())
# Of a response that has only begun, what is not known yet.
_NOT_YET: dict[str, Any] = {
    "status": "in_progress",
    "output": [],
    "usage": None,
    "error": None,
    "incomplete_details": None,
}


class _Spot(NamedTuple):
    """Where an event's text belongs: in the field *name* of an item, or of one of the entries of its list *parts*."""

    name: str
    parts: str | None = None
    at: str = ""  # of the event: which entry
    kind: str = ""  # of an entry that nobody announced


_SPOTS = {
    "response.output_text": _Spot("text", "content", "content_index", "output_text"),
    "response.refusal": _Spot("refusal", "content", "content_index", "refusal"),
    "response.reasoning_text": _Spot("text", "content", "content_index", "reasoning_text"),
    "response.reasoning_summary_text": _Spot("text", "summary", "summary_index", "summary_text"),
    "response.function_call_arguments": _Spot("arguments"),
    "response.mcp_call_arguments": _Spot("arguments"),
    "response.custom_tool_call_input": _Spot("input"),
    "response.code_interpreter_call_code": _Spot("code"),
}
_PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}


class ResponsesFolder:
    """Gathers the events of a stream into the whole answer that they stand for."""

    def __init__(self) -> None:
        self.faithful = True
        self._begun: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._final: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """True when the event has come that ends the stream."""
        return self._final is not None

    def add(self, data: dict[str, Any]) -> None:
        """Add one event. What cannot be joined makes the result unfaithful; it never stops the stream."""
        try:
            self._take(str(data.get("type")), data)
        except (Unfaithful, AttributeError, KeyError, TypeError, RecursionError):
            self.faithful = False

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        name, _, verb = kind.rpartition(".")
        spot = _SPOTS.get(name)
        if spot is not None:
            self._say(spot, verb, data)
        elif kind in _ENDED:
            self._final = _object(data["response"])
        elif kind in _BEGUN:
            self._begun = own(_object(data["response"]))
        elif name == "response.output_item":
            self._items[_index(data["output_index"])] = own(_object(data["item"]))
        elif name in _PARTS:
            parts, index = _PARTS[name]
            _put(self._item(data), parts, _index(data[index]), own(_object(data["part"])))
        elif kind == "response.output_text.annotation.added":
            part = self._part(_SPOTS["response.output_text"], data)
            part.setdefault("annotations", []).append(own(data["annotation"]))

    def _say(self, spot: _Spot, verb: str, data: dict[str, Any]) -> None:
        place = self._part(spot, data)
        if verb == "delta":
            said = place.get(spot.name)
            if type(said) is Text:
                said.append(_text(data["delta"]))
            else:
                place[spot.name] = join(said or Text(), _text(data["delta"]))
            if data.get("logprobs"):
                place["logprobs"] = join(place.get("logprobs"), data["logprobs"])
        elif verb == "done" and spot.name in data:
            place[spot.name] = _text(data[spot.name])

    def _item(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._items.setdefault(_index(data["output_index"]), {})

    def _part(self, spot: _Spot, data: dict[str, Any]) -> dict[str, Any]:
        item = self._item(data)
        if spot.parts is None:
            return item
        index = _index(data.get(spot.at, 0))
        parts = item.setdefault(spot.parts, [])
        if index == len(parts):
            parts.append({"type": spot.kind})
        return _object(parts[index] if index < len(parts) else None)

    def result(self) -> dict[str, Any]:
        """Return what has been gathered so far, as a whole answer."""
        gathered = [plain(self._items[index]) for index in sorted(self._items)]
        if self._final is None:
            return {"object": "response", **self._begun, "output": gathered}
        if gathered and not self._final.get("output"):
            return {**self._final, "output": gathered}
        return dict(self._final)


def _put(item: dict[str, Any], name: str, index: int, part: dict[str, Any]) -> None:
    parts = item.setdefault(name, [])
    if index < len(parts):
        parts[index] = part
    elif index == len(parts):
        parts.append(part)
    else:
        raise Unfaithful("a part of the answer is missing")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfaithful("an object is missing")
    return value


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Unfaithful("an index is not a number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfaithful("a text is missing")
    return value


# -- unfolding -------------------------------------------------------------------------------------------------

Event = dict[str, Any]


def unfold(whole: dict[str, Any]) -> list[Event]:
    """Return the events that *whole* stands for; the last one has all of it."""
    begun = {**whole, **_NOT_YET}
    events: list[Event] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(as_objects(whole.get("output"))):
        events += item_events(item, index)
    status = whole.get("status")
    kind = FINAL.get(status, FINAL["completed"]) if isinstance(status, str) else FINAL["completed"]
    events.append({"type": kind, "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def item_events(item: dict[str, Any], index: int) -> Iterator[Event]:
    """Yield the events of one whole item of the output, without their numbers."""
    place = {"item_id": str(item.get("id") or ""), "output_index": index}
    kind = item.get("type")
    spots = _WHOLE.get(kind, ()) if isinstance(kind, str) else ()
    empty = dict(item)
    for spot in spots:
        name = spot.parts or spot.name
        if isinstance(item.get(name), list):
            empty[name] = []
        elif isinstance(item.get(name), str):
            empty[name] = ""
    yield {"type": "response.output_item.added", "output_index": index, "item": {**empty, **_unfinished(item)}}
    for spot in spots:
        if spot.parts is None:
            yield from _said(_NAMES[spot], spot.name, item, place)
        else:
            for number, part in enumerate(as_objects(item.get(spot.parts))):
                yield from _part_events(spot.parts, part, {**place, spot.at: number})
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _unfinished(item: dict[str, Any]) -> dict[str, Any]:
    return {"status": "in_progress"} if item.get("status") else {}


def _part_events(parts: str, part: dict[str, Any], place: Event) -> Iterator[Event]:
    spot = _BY_KIND.get((parts, str(part.get("type"))))
    if spot is None or not isinstance(part.get(spot.name), str):
        return  # the item's last event has it
    family = next(name for name, (of, _) in _PARTS.items() if of == parts)
    annotations = part.get("annotations") if isinstance(part.get("annotations"), list) else []
    empty = {**part, spot.name: "", **({"annotations": []} if "annotations" in part else {})}
    yield {"type": f"{family}.added", **place, "part": empty}
    for number, annotation in enumerate(annotations or ()):
        added = {"annotation_index": number, "annotation": annotation}
        yield {"type": "response.output_text.annotation.added", **place, **added}
    yield from _said(_NAMES[spot], spot.name, part, place)
    yield {"type": f"{family}.done", **place, "part": part}


def _said(family: str, name: str, holder: dict[str, Any], place: Event) -> Iterator[Event]:
    text = holder.get(name)
    if not isinstance(text, str):
        return
    more: Event = {"logprobs": holder.get("logprobs") or []} if family == "response.output_text" else {}
    if text:
        yield {"type": f"{family}.delta", **place, "delta": text, **more}
    if family == "response.function_call_arguments":
        more = {"name": as_object(holder).get("name")}
    yield {"type": f"{family}.done", **place, name: text, **more}


_NAMES = {spot: name for name, spot in _SPOTS.items() if name != "response.mcp_call_arguments"}
_BY_KIND = {(spot.parts, spot.kind): spot for spot in _SPOTS.values() if spot.parts is not None}
# Which texts of an item come in deltas, by the item's type.
_WHOLE = {
    "message": (_SPOTS["response.output_text"],),
    "reasoning": (_SPOTS["response.reasoning_summary_text"], _SPOTS["response.reasoning_text"]),
    "function_call": (_SPOTS["response.function_call_arguments"],),
    "custom_tool_call": (_SPOTS["response.custom_tool_call_input"],),
}
