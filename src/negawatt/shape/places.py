"""Where the texts of a request stand that may be shortened, in any of the three protocols, and how they are put back.

System prompts and developers' messages are no such places, nor what a person says: of a user's message only the
passages that came along as context (`negawatt.shape.passages`). What the model said itself may be folded, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from negawatt.shape.history import Message, Path
from negawatt.shape.passages import about_form, own_words, passages

FIELDS = {"chat": "messages", "messages": "messages", "responses": "input"}
"""The protocols that can be shortened, and the field of each that holds the conversation."""

_TEXT_PARTS = ("text", "input_text", "output_text")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_DEEPEST = 4


class Place(NamedTuple):
    """``string[start:end]`` of the string at *path*, which is *text*.

    *kind*: ``tool`` (what a tool returned), ``document``, or ``context`` (what came along with a user's words).
    *message*: its place in the conversation. *bound*: the message asks about how its text is written.
    """

    path: Path
    start: int
    end: int
    text: str
    kind: str
    message: int
    bound: bool = False


class Read(NamedTuple):
    """The places of a request. *ask*: what a person asked last, without context; *asked_at*: the message it is in.

    *marked*: the last message with a cache mark, -1 for none. *searched*: by message, what a tool's result was asked
    for.
    """

    protocol: str
    places: tuple[Place, ...]
    ask: str
    asked_at: int | None
    marked: int
    searched: Mapping[int, str]


def read(protocol: str, data: Mapping[str, Any], asked: str) -> Read:
    """Return the places of the request *data*. *asked*: what a person asked last, with all that stands around it."""
    field = FIELDS[protocol]
    messages = data.get(field)
    if isinstance(messages, str):
        return Read(protocol, tuple(_said((field,), messages, 0)), own_words(asked).strip(), 0, -1, {})
    messages = messages if isinstance(messages, list) else []
    asked_at = next((i for i in range(len(messages) - 1, -1, -1) if asked and _asks(messages[i], asked)), None)
    found: list[Place] = []
    marked, calls, searched = -1, dict[str, str](), dict[int, str]()
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        if "cache_control" in message or _is_marked(message.get("content")):
            marked = i
        calls.update(_calls(message))
        of = " ".join(calls[name] for name in _answers(message) if name in calls)
        if of:
            searched[i] = of
        found += _places((field, i), message, i)
    return Read(protocol, tuple(found), own_words(asked).strip(), asked_at, marked, searched)


def put_back(data: Mapping[str, Any], texts: Mapping[Path, str]) -> dict[str, Any]:
    """Return the fields of *data* in which *texts* stand at their paths; what lies beside them is shared."""
    fields: dict[str, dict[Path, str]] = {}
    for path, text in texts.items():
        fields.setdefault(str(path[0]), {})[path[1:]] = text
    return {name: _put(data[name], changes) for name, changes in fields.items()}


def at(data: Mapping[str, Any], path: Path) -> str:
    """Return the text at *path*. Raises LookupError or TypeError where there is none."""
    value: Any = data
    for step in path:
        value = value[step]
    if not isinstance(value, str):
        raise TypeError(f"there is no text at {path}")
    return value


def as_turns(protocol: str, data: Mapping[str, Any]) -> list[Message]:
    """Return the conversation as `negawatt.shape.history` reads it, message for message and part for part."""
    messages = data.get(FIELDS[protocol])
    if not isinstance(messages, list):
        return []
    turns = [message if isinstance(message, dict) else {} for message in messages]
    return [_turn(message) for message in turns] if protocol == "responses" else list(turns)


def path_of(protocol: str, data: Mapping[str, Any], path: Path) -> Path:
    """Return where what stands at *path* of `as_turns` stands in the request."""
    place, rest = path[0], path[1:]
    if protocol == "responses" and data["input"][place].get("type") in _OUTPUTS:
        rest = ("output", *rest[1:])
    return (FIELDS[protocol], place, *rest)


def _turn(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type") in _OUTPUTS:
        return {**item, "role": "tool", "content": _as_text(item.get("output"))}
    return {**item, "content": _as_text(item.get("content"))} if "role" in item else item


def _as_text(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [
        {**part, "type": "text"} if isinstance(part, dict) and part.get("type") in _TEXT_PARTS else part
        for part in content
    ]


def _put(value: Any, changes: Mapping[Path, str]) -> Any:
    if () in changes:
        return changes[()]
    steps: dict[str | int, dict[Path, str]] = {}
    for path, text in changes.items():
        steps.setdefault(path[0], {})[path[1:]] = text
    if isinstance(value, Mapping):
        return {**value, **{str(step): _put(value[step], inner) for step, inner in steps.items()}}
    return [_put(one, steps[i]) if i in steps else one for i, one in enumerate(value)]


# -- reading ---------------------------------------------------------------------------------------------------


def _places(path: Path, message: dict[str, Any], place: int) -> Iterator[Place]:
    role, content = message.get("role"), message.get("content")
    if message.get("type") in _OUTPUTS:
        yield from _whole((*path, "output"), message.get("output"), "tool", place)
    elif role in ("tool", "function"):
        yield from _whole((*path, "content"), content, "tool", place)
    elif role == "user" and isinstance(content, str):
        yield from _said((*path, "content"), content, place)
    elif role == "user" and isinstance(content, list):
        # What is asked about a text may stand in another part than the text.
        said = " ".join(own_words(text) for text in _texts(content)).strip()
        for i, part in enumerate(content):
            yield from _part((*path, "content", i), part, place, said)


def _part(path: Path, part: Any, place: int, said: str) -> Iterator[Place]:
    """Yield the places in *part*. *said*: what the user says themselves, in all parts."""
    if not isinstance(part, dict):
        return
    kind, text = part.get("type"), part.get("text")
    if kind in _TEXT_PARTS and isinstance(text, str):
        yield from _said((*path, "text"), text, place, said)
    elif kind == "tool_result":
        yield from _whole((*path, "content"), part.get("content"), "tool", place)
    elif kind in ("document", "search_result") and not _cited(part):
        for one in _document(path, part, place):
            yield one._replace(bound=about_form(said))


def _document(path: Path, part: dict[str, Any], place: int) -> Iterator[Place]:
    source = part.get("source")
    if part.get("type") == "search_result":
        yield from _whole((*path, "content"), part.get("content"), "document", place)
    elif isinstance(source, dict) and source.get("type") == "text":
        yield from _whole((*path, "source", "data"), source.get("data"), "document", place)
    elif isinstance(source, dict) and source.get("type") == "content":
        yield from _whole((*path, "source", "content"), source.get("content"), "document", place)


def _cited(part: dict[str, Any]) -> bool:
    """True where the answer is to say which characters of the text it goes by: they must not move."""
    citations = part.get("citations")
    return isinstance(citations, dict) and citations.get("enabled") is True


def _whole(path: Path, content: Any, kind: str, place: int) -> Iterator[Place]:
    if isinstance(content, str):
        if content:
            yield Place(path, 0, len(content), content, kind, place)
        return
    for i, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
            yield from _whole((*path, i, "text"), part["text"], kind, place)


def _said(path: Path, text: str, place: int, beside: str = "") -> Iterator[Place]:
    found = passages(text, alone=not beside)
    bound = bool(found) and about_form(beside or own_words(text))
    for one in found:
        yield Place(path, one.start, one.end, text[one.start : one.end], "context", place, bound)


def _asks(message: Any, asked: str) -> bool:
    if not isinstance(message, dict) or message.get("role") != "user":
        return False
    content = message.get("content")
    return asked in (content if isinstance(content, str) else "\n".join(_texts(content)))


def _texts(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else ()
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _is_marked(content: Any, room: int = _DEEPEST) -> bool:
    parts: Sequence[Any] = content if isinstance(content, list) and room else ()
    return any(
        isinstance(part, dict) and ("cache_control" in part or _is_marked(part.get("content"), room - 1))
        for part in parts
    )


def _calls(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the id of each call in *message*, and what its arguments say."""
    content, calls = message.get("content"), message.get("tool_calls")
    listed = [one for each in (calls, content) if isinstance(each, list) for one in each]
    for one in (message, *listed):
        if not isinstance(one, dict):
            continue
        function = one.get("function")
        given = function.get("arguments") if isinstance(function, dict) else one.get("arguments", one.get("input"))
        name = one.get("call_id") or one.get("id")
        if isinstance(name, str) and given is not None:
            yield name, given if isinstance(given, str) else " ".join(map(str, _leaves(given)))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _answers(message: dict[str, Any]) -> list[str]:
    """Return the ids of the calls whose results *message* brings."""
    content = message.get("content")
    parts = [message, *(content if isinstance(content, list) else ())]
    names = [part.get(key) for part in parts if isinstance(part, dict) for key in ("tool_call_id", "tool_use_id")]
    if message.get("type") in _OUTPUTS:
        names.append(message.get("call_id"))
    return [name for name in names if isinstance(name, str)]
