"""What is known of a request, whatever its protocol: what rules look at, what the learned models are asked about.

The *ask* is what a person asked last. In an agent's loop the last message is seldom a person's: it is what a tool
returned, or a block that the agent wrote into the person's turn. The rule:

1. Going back from the newest message, only turns of role ``user`` count: never a tool's result, whatever protocol it
   came in.
2. Blocks that agents put into such turns are taken out (`reminders.toml` lists them, with their sources). Where a turn
   marks the person's own words (``<user_query>``), they alone count.
3. A turn of which nothing is left, and one that an agent wrote from its first word on, is passed over.
4. "continue" and the like ask for what was asked before: up to five such turns are passed over. Where nothing else was
   asked, they are the ask.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from negawatt.call import Call, Request
from negawatt.protocol import Contract, Prompt
from negawatt.recall.reading import language_at_sight

MOST_ASKED = 20_000  # characters of an ask
_MOST_READ = 200_000  # characters of one turn, of the system prompt, of the context
_MOST_TURNS = 5_000  # looked back at
_MOST_GOING_ON = 5
_MOST_PARTS = 10_000
_LONGEST_GOING_ON = 40  # characters
_MARKS = re.compile(r"[^\w\s]+")
_INSTRUCTIONS = ("system", "developer")
_TOOLS = ("tool", "function")
_KINDS = {
    "image_url": "image", "input_image": "image", "image": "image", "input_audio": "audio", "audio": "audio",
    "file": "file", "input_file": "file", "document": "file", "container_upload": "file",
}  # fmt: skip
_LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt",
    "dutch": "nl", "greek": "el", "hebrew": "he", "kana": "ja", "han": "zh", "hangul": "ko", "thai": "th",
}  # fmt: skip
LANGUAGES = frozenset(_LANGUAGES.values())
"""The languages that are told apart, ISO 639-1. A script that several languages share (Cyrillic) names none of them."""


class Asked(msgspec.Struct, frozen=True, dict=True, eq=False, kw_only=True):
    """A request, as far as rules and routers are concerned. What costs more than a look is made when asked for."""

    ask: str  # what a person asked last; "" where nobody did. At most `MOST_ASKED` characters
    protocol: str  # as `negawatt.protocol.Asked.name`
    model: str  # as the caller named it; "" for none
    tools: tuple[str, ...]  # names; "" for one that has none
    contract: Contract | None  # the JSON that is asked for; None: any text will do
    metadata: Mapping[str, str]  # of the request; numbers and booleans as JSON writes them, nothing deeper
    template: str | None  # of the prompt: ``negawatt.template``, or the id of a stored prompt (Responses)
    turns: int  # messages of role user, whoever wrote them
    after_tool: bool  # the last message is what a tool returned
    prompt: Prompt
    body: Mapping[str, Any]  # of the request, parsed
    place: int | None  # of the message with the ask, among those of the prompt

    @cached_property
    def system(self) -> str:
        """The instructions before the first turn, joined by blank lines; at most 200,000 characters."""
        told: list[str] = []
        for message in self.prompt.messages:
            if not isinstance(message, dict) or message.get("role") not in _INSTRUCTIONS:
                break
            told.append(_text(message.get("content")))
        return "\n\n".join(filter(None, told))[:_MOST_READ]

    @cached_property
    def system_words(self) -> str:
        """The system prompt with one space wherever there is any white space."""
        return " ".join(self.system.split())

    @cached_property
    def signature(self) -> str | None:
        """SHA-256 of the system prompt, whatever its white space: 64 hexadecimal digits. None without one."""
        words = self.system_words
        return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest() if words else None

    @cached_property
    def language(self) -> str | None:
        """The language of the ask, one of `LANGUAGES`; None when it does not give itself away."""
        return _LANGUAGES.get(language_at_sight(self.ask) or "")

    @cached_property
    def inputs(self) -> frozenset[str]:
        """What is there beside text: ``image``, ``audio``, ``file``."""
        found: set[str] = set()
        waiting: list[Any] = [self.body.get("messages"), self.body.get("input")]
        for _ in range(_MOST_PARTS):
            if not waiting:
                break
            part = waiting.pop()
            if isinstance(part, list):
                waiting += part[-_MOST_PARTS:]  # the newest are looked at first
            elif isinstance(part, dict):
                kind = part.get("type")
                if isinstance(kind, str) and kind in _KINDS:
                    found.add(_KINDS[kind])
                inner = (part.get("content"), part.get("output"))
                waiting += [one for one in inner if isinstance(one, (list, dict))]
        return frozenset(found)

    @cached_property
    def chars(self) -> int:
        """About how many characters of text the request has, tools left out."""
        told = sum(_length(m.get("content")) for m in self.prompt.messages if isinstance(m, dict))
        return told + sum(len(text) for text in self.prompt.texts)

    @cached_property
    def context(self) -> str:
        """The text of the request beside the ask, by blank lines; the newest 200,000 characters.

        Instructions, what tools returned, earlier turns of people and what agents put into them. Not what the model
        said itself: that supports nothing. Context that stands inside the ask is not here.
        """
        told: list[str] = []
        room = _MOST_READ
        for place in range(len(self.prompt.messages) - 1, -1, -1):
            message = self.prompt.messages[place]
            if room <= 0:
                break
            if not isinstance(message, dict) or message.get("role") == "assistant":
                continue
            text = _text(message.get("content"))
            if place == self.place:
                text = text.replace(self.ask, " ", 1).strip()
            if text:
                told.append(text[:room])
                room -= len(text)
        return "\n\n".join(reversed(told))


def asked_of(call: Call) -> Asked:
    """Return what is known of *call*; it is made once for each request.

    In microseconds, and in time proportional to the number of messages. Raises `InvalidRequest` for a body that is no
    JSON object, and nothing else.
    """
    known = call.request.asked
    if known is None or known.protocol != call.wire.name:
        known = call.request.asked = _read(call)
    return known


def _read(call: Call) -> Asked:
    request, wire = call.request, call.wire
    prompt = wire.prompt(request)
    messages = prompt.messages
    ask, place = _ask(messages)
    if not messages and prompt.texts and wire.operation != "embeddings":
        ask = prompt.texts[0][:MOST_ASKED]  # a legacy prompt; the query of a reranking
    last = messages[-1] if messages else None
    model = request.get("model")
    return Asked(
        ask=ask,
        protocol=wire.name,
        model=model if isinstance(model, str) else "",
        tools=tuple([_name(tool) for tool in prompt.tools]),
        contract=wire.contract(request),
        metadata=_metadata(request.get("metadata")),
        template=_template(request) if call.template is None else call.template.name,
        turns=sum(isinstance(message, dict) and message.get("role") == "user" for message in messages),
        after_tool=isinstance(last, dict) and last.get("role") in _TOOLS,
        prompt=prompt,
        body=request.data,
        place=place,
    )


# -- what a person asked ---------------------------------------------------------------------------------------


class _Reminders(NamedTuple):
    """`reminders.toml`, as it is searched with."""

    opening: re.Pattern[str]
    wrappers: frozenset[str]
    within: frozenset[str]
    beginnings: tuple[str, ...]
    tool_result: str
    going_on: frozenset[str]


@cache
def _reminders() -> _Reminders:
    data: dict[str, Any] = tomllib.loads(
        files("negawatt.routing").joinpath("reminders.toml").read_text(encoding="utf-8")
    )
    wrappers, within = data["wrappers"]["names"], data["wrappers"]["within"]
    names = [*wrappers, *within, *(name for row in data["blocks"] for name in row["names"])]
    listed = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return _Reminders(
        re.compile(rf"<({listed})(?:\s[^<>]{{0,200}})?>"),
        frozenset(wrappers),
        frozenset(within),
        tuple(data["beginnings"]["texts"]),
        data["beginnings"]["tool_result"],
        frozenset(data["going_on"]["texts"]),
    )


def _ask(messages: Sequence[Any]) -> tuple[str, int | None]:
    """Return what was asked last, and the place of its message; see the rule above."""
    going_on: tuple[str, int | None] = ("", None)
    passed = 0
    for place in range(len(messages) - 1, max(-1, len(messages) - 1 - _MOST_TURNS), -1):
        message = messages[place]
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        text = _said(_text(message.get("content")))
        if not text or text.isspace():
            continue
        if not _goes_on(text):
            return text[:MOST_ASKED], place
        if going_on[1] is None:
            going_on = text, place
        passed += 1
        if passed > _MOST_GOING_ON:
            break
    return going_on


def _said(text: str) -> str:
    """Return what a person said in the turn *text*: as it stands where nobody else did, "" where all is an agent's."""
    marks = _reminders()
    head = text[:200].lstrip()
    foreign = head.startswith(marks.beginnings) or (head.startswith("[") and marks.tool_result in head)
    if "<" not in text:
        return "" if foreign else text
    turn = _taken_apart(text)
    if turn.query is not None:
        return turn.query
    if not (foreign or turn.agents):
        return text
    return turn.within or ("" if foreign else turn.left)


class _Turn(NamedTuple):
    """A turn, taken apart. *agents*: an agent wrote into it."""

    left: str  # without any block
    agents: bool
    query: str | None  # the last block of a person's own words
    within: str | None  # and the last of those that are one only where an agent wrote


def _taken_apart(text: str) -> _Turn:
    marks = _reminders()
    kept: list[str] = []
    agents, query, within = False, None, None
    endless: set[str] = set()  # names of which no end follows: looked for once, so that the time stays in proportion
    at = begin = 0
    while (found := marks.opening.search(text, at)) is not None:
        name, at = found[1], found.end()
        end = -1 if name in endless else text.find(f"</{name}>", at)
        if end < 0:
            endless.add(name)
            continue
        if name in marks.within:
            within = text[at:end].strip() or within
        else:
            agents = True
            if name in marks.wrappers:
                query = text[at:end].strip() or query
        kept.append(text[begin : found.start()])
        at = begin = end + len(name) + 3
    kept.append(text[begin:])
    return _Turn("\n".join(filter(None, (piece.strip() for piece in kept))), agents, query, within)


def _goes_on(text: str) -> bool:
    if len(text) > _LONGEST_GOING_ON:
        return False
    words = " ".join(_MARKS.sub(" ", text.casefold()).split())
    return not words or words in _reminders().going_on


# -- reading ---------------------------------------------------------------------------------------------------


def _text(content: Any) -> str:
    """Return the text of *content* as it stands, its parts by line breaks; at most 200,000 characters."""
    if isinstance(content, str):
        return content[:_MOST_READ]
    if not isinstance(content, list):
        return ""
    texts: list[str] = []
    room = _MOST_READ
    for part in content[:_MOST_PARTS]:
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            texts.append(text[:room])
            room -= len(text)
            if room <= 0:
                break
    return "\n".join(texts)


def _length(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else ()
    return sum(len(text) for part in parts if isinstance(part, dict) and isinstance(text := part.get("text"), str))


def _name(tool: Any) -> str:
    """Return the name of a function, of a custom tool, or of one that the provider has."""
    inner = tool.get("function") if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _metadata(given: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        if isinstance(value, str):
            found[name] = value
        elif isinstance(value, (bool, int, float)):
            found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _template(request: Request) -> str | None:
    for field, key in (("negawatt", "template"), ("prompt", "id")):
        inner = request.get(field)
        name = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(name, str) and name:
            return name
    return None
