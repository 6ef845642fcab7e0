"""OpenAI Chat Completions: what a valid request is, and how an answer and its chunks stand for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from negawatt.call import Request
from negawatt.economics.usage import Usage, usage_from_chat, with_tier
from negawatt.errors import body_of
from negawatt.protocol import Contract, Prompt, Question, Wire
from negawatt.wire.common import (
    DONE_EVENT,
    as_object,
    as_objects,
    check_shape,
    data_events,
    error_of,
    identity_without,
    openai_error_event,
)
from negawatt.wire.effort import chat_with_effort
from negawatt.wire.merge import Unfaithful, join, merge_into, own, plain
from negawatt.wire.question import question_in

_COMPLETE_REASONS = frozenset({"stop", "tool_calls", "function_call"})
# Fields that travel with every chunk; the rest of a whole body's head is sent once, on the first.
_EVERY_CHUNK = ("id", "created", "model", "service_tier", "system_fingerprint")
_NOT_IN_DELTA = frozenset({"index", "message", "delta", "finish_reason"})
# Fields of a request that say how to send the answer, or whose it is, but cannot change what the answer says.
NOT_IN_KEY = frozenset({
    "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store",
    "stream", "stream_options", "user",
})  # fmt: skip


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _ChatRequest(msgspec.Struct):
    """The types of the fields that we act on; everything else passes unseen."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: float | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None


def check(request: Request) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
    check_shape(request, _ChatRequest)


def deterministic(request: Request) -> bool:
    """True when the caller asked for the likeliest answer: temperature 0."""
    return bool(request.get("temperature") == 0)


def sampled(request: Request) -> bool:
    """True when the caller plainly asked for draws: a temperature above 0, or several choices."""
    return bool(request.get("temperature")) or (request.get("n") or 1) > 1


def identity(request: Request) -> dict[str, Any]:
    """Return what can change the answer: every field but those of `NOT_IN_KEY`; null is absent, 1.0 is 1."""
    return identity_without(request, NOT_IN_KEY)


def wants_usage(request: Request) -> bool:
    """True when the caller of a stream asked for the chunk with the usage."""
    options = request.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def with_usage(request: Request) -> Request:
    """Return *request* with ``stream_options.include_usage`` set: without it a stream cannot be billed."""
    if wants_usage(request):
        return request
    return request.replace(stream_options={**(request.get("stream_options") or {}), "include_usage": True})


def usage_only(data: Mapping[str, Any]) -> bool:
    """True for the last chunk, which carries the usage and nothing for the reader."""
    if not data.get("usage"):
        return False
    return all(not c.get("delta") and not c.get("finish_reason") for c in as_objects(data.get("choices")))


def closing(data: Mapping[str, Any]) -> bool:
    """True for a chunk that brings the usage when nothing more is said: alone, or beside a finish reason."""
    if not data.get("usage"):
        return False
    choices = as_objects(data.get("choices"))
    return any(c.get("finish_reason") for c in choices) or not any(c.get("delta") for c in choices)


def last(data: Mapping[str, Any]) -> bool:
    """False: only ``[DONE]`` ends the stream."""
    return False


def annotated(data: Mapping[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
    """Return *data* with *note* under ``negawatt``, and the cost where OpenRouter's callers look: ``usage.cost``."""
    if note.get("cost_usd") is None:
        return {**data, "negawatt": note}
    return {**data, "usage": {**as_object(data.get("usage")), "cost": note["cost_usd"]}, "negawatt": note}


def question(request: Request) -> Question | None:
    """Return the last user turn, if it is text only; around it is everything else."""
    return question_in(identity(request), "messages")


def prompt(request: Request) -> Prompt:
    """Return the messages and tools as they stand: theirs is the form that tokens are counted in."""
    return Prompt(messages=as_objects(request.get("messages")), tools=as_objects(request.get("tools")))


def contract(request: Request) -> Contract | None:
    """Return what ``response_format`` asks for."""
    asked = as_object(request.get("response_format"))
    if asked.get("type") == "json_object":
        return Contract(None)
    if asked.get("type") != "json_schema":
        return None
    schema = as_object(asked.get("json_schema")).get("schema")
    return Contract({} if schema is None else schema)


def answers(data: Mapping[str, Any]) -> list[str]:
    """Return the content of each choice that neither refuses nor calls a tool."""
    messages = [as_object(choice.get("message")) for choice in as_objects(data.get("choices"))]
    return [str(m.get("content") or "") for m in messages if not m.get("tool_calls") and not m.get("refusal")]


def continues(request: Request) -> Sequence[tuple[str, str]]:
    """Return the spoken answers that *request* gives back by their ids."""
    if b'"audio"' not in request.body:
        return ()
    audio = [as_object(message.get("audio")).get("id") for message in as_objects(request.get("messages"))]
    return [(f"messages[{place}].audio.id", str(name)) for place, name in enumerate(audio) if name is not None]


def usage(data: Mapping[str, Any]) -> Usage | None:
    """Return the ``usage`` block; Groq's streams once had theirs under a name of their own."""
    found = usage_from_chat(data.get("usage") or as_object(data.get("x_groq")).get("usage"))
    return None if found is None else with_tier(found, data.get("service_tier"))


def complete(data: Mapping[str, Any]) -> bool:
    """True when every choice of a whole answer came to its own end, neither cut off nor filtered."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        return False
    reasons = [choice.get("finish_reason") if isinstance(choice, dict) else None for choice in choices]
    return all(isinstance(reason, str) and reason in _COMPLETE_REASONS for reason in reasons)


def text_of(data: Mapping[str, Any]) -> str:
    """Return everything a whole answer says, tool calls included, as one text."""
    parts: list[str] = []
    for choice in as_objects(data.get("choices")):
        message = as_object(choice.get("message"))
        for name in ("reasoning_content", "reasoning", "content", "refusal"):
            if isinstance(message.get(name), str):
                parts.append(message[name])
        for tool_call in as_objects(message.get("tool_calls")):
            function = as_object(tool_call.get("function"))
            parts.append(f"{function.get('name', '')}{function.get('arguments', '')}")
    return "\n".join(parts)


def _unnumbered(calls: list[Any]) -> list[Any]:
    """Return tool calls in the order of their indexes, without them."""
    return [
        {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call
        for call in sorted(calls, key=_place)
    ]


def _place(entry: Any) -> int:
    index = as_object(entry).get("index")
    return index if isinstance(index, int) else 0


class ChatFolder:
    """Gathers chunks of a stream into the whole answer that they stand for."""

    def __init__(self) -> None:
        self.faithful = True
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Any = None
        self._has_usage = False

    @property
    def complete(self) -> bool:
        """True when every choice that was begun has its finish reason."""
        return bool(self._choices) and all(c.get("finish_reason") for c in self._choices.values())

    def add(self, data: dict[str, Any]) -> None:
        """Add one chunk. What cannot be joined makes the result unfaithful; it never stops the stream."""
        try:
            for name, value in data.items():
                if name == "choices":
                    for choice in value or ():
                        self._add_choice(choice)
                elif name == "usage":
                    # Cumulative where it is repeated: the last one counts. Null on every chunk but the last is usual.
                    self._has_usage = True
                    self._usage = own(value) if value is not None else self._usage
                elif name == "obfuscation":
                    continue  # padding against eavesdroppers, other on every chunk
                elif name not in self._head or (name in _EVERY_CHUNK and not self._head[name]):
                    self._head[name] = join(None, value)
                elif name not in _EVERY_CHUNK and name != "object" and self._head[name] != value:
                    self._head[name] = join(self._head[name], value, name)
        except (Unfaithful, AttributeError, TypeError, RecursionError):
            self.faithful = False

    def _add_choice(self, choice: dict[str, Any]) -> None:
        if not choice:
            return  # some servers send `choices: [{}]` with the usage
        index = choice.get("index") or 0
        if not isinstance(index, int):
            raise Unfaithful("the index of a choice is not a number")
        whole = self._choices.get(index)
        if whole is None:
            whole = self._choices[index] = {"index": index, "message": {}}
        for name, value in choice.items():
            if name == "delta":
                merge_into(whole["message"], value or {})
            elif name == "finish_reason":
                whole[name] = value or whole.get(name)
            elif name != "index":
                whole[name] = join(whole.get(name), value, name)

    def result(self) -> dict[str, Any]:
        """Return what has been gathered so far, as a whole answer."""
        choices = []
        for index in sorted(self._choices):
            choice = plain(self._choices[index])
            message = choice["message"]
            if isinstance(message.get("tool_calls"), list):
                message["tool_calls"] = _unnumbered(message["tool_calls"])
            choices.append(choice)
        whole = {**plain(self._head), "object": "chat.completion", "choices": choices}
        if self._has_usage and self._usage is not None:
            whole["usage"] = self._usage
        return whole


class Chat:
    """The Chat Completions protocol, as a `negawatt.protocol.Wire`."""

    name = "chat"
    operation = "chat"
    path = "/chat/completions"
    streams = True
    billed = True
    stateful = False
    end = DONE_EVENT
    annotated = staticmethod(annotated)
    answers = staticmethod(answers)
    check = staticmethod(check)
    closing = staticmethod(closing)
    complete = staticmethod(complete)
    continues = staticmethod(continues)
    contract = staticmethod(contract)
    deterministic = staticmethod(deterministic)
    error_body = staticmethod(body_of)
    error_event = staticmethod(openai_error_event)
    error_of = staticmethod(error_of)
    frame = staticmethod(data_events)
    identity = staticmethod(identity)
    last = staticmethod(last)
    prompt = staticmethod(prompt)
    question = staticmethod(question)
    sampled = staticmethod(sampled)
    text_of = staticmethod(text_of)
    usage = staticmethod(usage)
    usage_only = staticmethod(usage_only)
    wants_usage = staticmethod(wants_usage)
    with_effort = staticmethod(chat_with_effort)
    with_usage = staticmethod(with_usage)

    def folder(self) -> ChatFolder:
        return ChatFolder()

    def unfold(self, whole: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks that *whole* stands for: per choice what it says, then why it ended; last the usage."""
        head = {name: whole[name] for name in _EVERY_CHUNK if name in whole}
        head["object"] = "chat.completion.chunk"
        once = {n: v for n, v in whole.items() if n not in head and n not in ("choices", "usage", "object")}
        chunks: list[dict[str, Any]] = []
        for choice in as_objects(whole.get("choices")):
            delta = dict(as_object(choice.get("message")))
            if isinstance(delta.get("tool_calls"), list):
                delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(as_objects(delta["tool_calls"]))]
            said = {name: value for name, value in choice.items() if name not in _NOT_IN_DELTA}
            index = choice.get("index", 0)
            chunks.append({**head, "choices": [{"index": index, "delta": delta, **said, "finish_reason": None}]})
            ended = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
            chunks.append({**head, "choices": [ended]})
        if not chunks:
            chunks.append({**head, "choices": []})
        chunks[0].update(once)
        if "usage" in whole:
            chunks.append({**head, "choices": [], "usage": whole["usage"]})
        return chunks


CHAT: Wire = Chat()
