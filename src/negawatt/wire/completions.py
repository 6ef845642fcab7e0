"""OpenAI Completions, the legacy protocol of base models: a text goes on, whole or in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from negawatt.call import Request
from negawatt.errors import body_of
from negawatt.protocol import Contract, Prompt, Question, Wire
from negawatt.wire import chat
from negawatt.wire.common import (
    DONE_EVENT,
    as_objects,
    check_shape,
    continues_nothing,
    data_events,
    error_of,
    identity_without,
    openai_error_event,
)
from negawatt.wire.embeddings import check_texts, texts_of
from negawatt.wire.merge import Unfaithful, join, plain

_EVERY_CHUNK = ("id", "object", "created", "model", "system_fingerprint")
_FINISHED = ("finish_reason", "stop_reason")  # of a choice; the second is what vLLM stopped at


class _CompletionsRequest(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    prompt: Any = None  # without one the model begins a document
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None
    stop: str | list[str] | None = None
    user: str | None = None


def check(request: Request) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
    check_shape(request, _CompletionsRequest)
    if request.get("prompt") is not None:
        check_texts(request, "prompt")


def sampled(request: Request) -> bool:
    """True when the caller plainly asked for draws: a temperature above 0, or several choices."""
    return chat.sampled(request) or (request.get("best_of") or 1) > 1


def usage_only(data: Mapping[str, Any]) -> bool:
    """True for the last chunk, which carries the usage and no text."""
    return bool(data.get("usage")) and not any(_says(choice) for choice in as_objects(data.get("choices")))


def closing(data: Mapping[str, Any]) -> bool:
    """True for a chunk that brings the usage when nothing more is said."""
    choices = as_objects(data.get("choices"))
    return bool(data.get("usage")) and (not choices or any(choice.get("finish_reason") for choice in choices))


def _says(choice: Mapping[str, Any]) -> bool:
    return bool(choice.get("text") or choice.get("finish_reason"))


def prompt(request: Request) -> Prompt:
    """Return the texts, or the number of the tokens, that shall be gone on from."""
    return texts_of(request.get("prompt"))


def contract(request: Request) -> Contract | None:
    """Return what ``response_format`` asks for, which some servers take here too."""
    return chat.contract(request)


def text_of(data: Mapping[str, Any]) -> str:
    """Return the texts of all choices."""
    return "\n".join(answers(data))


def answers(data: Mapping[str, Any]) -> list[str]:
    """Return the text of each choice."""
    return [str(choice.get("text") or "") for choice in as_objects(data.get("choices"))]


class CompletionsFolder(chat.ChatFolder):
    """As the fold of Chat Completions, but for what a choice says: here it stands bare, and not in a delta."""

    def _add_choice(self, choice: dict[str, Any]) -> None:
        if not choice:
            return
        index = choice.get("index") or 0
        if not isinstance(index, int):
            raise Unfaithful("the index of a choice is not a number")
        whole = self._choices.setdefault(index, {"index": index})
        for name, value in choice.items():
            if name in _FINISHED:
                whole[name] = value if value is not None else whole.get(name)
            elif name != "index":
                whole[name] = join(whole.get(name), value, name)

    def result(self) -> dict[str, Any]:
        """Return what has been gathered so far, as a whole answer."""
        choices = [plain(self._choices[index]) for index in sorted(self._choices)]
        whole = {"object": "text_completion", **plain(self._head), "choices": choices}
        if self._has_usage and self._usage is not None:
            whole["usage"] = self._usage
        return whole


def unfold(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks that *whole* stands for: per choice what it says, then why it ended; last the usage."""
    head = {name: whole[name] for name in _EVERY_CHUNK if name in whole}
    once = {n: v for n, v in whole.items() if n not in head and n not in ("choices", "usage")}
    chunks: list[dict[str, Any]] = []
    for choice in as_objects(whole.get("choices")):
        said = {name: value for name, value in choice.items() if name not in _FINISHED}
        ended = {name: choice[name] for name in _FINISHED if name in choice}
        chunks.append({**head, "choices": [{**said, "finish_reason": None} if "finish_reason" in choice else said]})
        if ended:
            empty = {"text": ""} if isinstance(said.get("text"), str) else {}
            chunks.append({**head, "choices": [{"index": choice.get("index", 0), **empty, **ended}]})
    chunks = chunks or [{**head, "choices": []}]
    chunks[0].update(once)
    if "usage" in whole:
        chunks.append({**head, "choices": [], "usage": whole["usage"]})
    return chunks


class Completions:
    """The legacy Completions protocol, as a `negawatt.protocol.Wire`."""

    name = "completions"
    operation = "text_completion"
    path = "/completions"
    streams = True
    billed = True
    stateful = False
    end = DONE_EVENT
    annotated = staticmethod(chat.annotated)
    answers = staticmethod(answers)
    check = staticmethod(check)
    closing = staticmethod(closing)
    complete = staticmethod(chat.complete)
    continues = staticmethod(continues_nothing)
    contract = staticmethod(contract)
    deterministic = staticmethod(chat.deterministic)
    error_body = staticmethod(body_of)
    error_event = staticmethod(openai_error_event)
    error_of = staticmethod(error_of)
    frame = staticmethod(data_events)
    last = staticmethod(chat.last)
    prompt = staticmethod(prompt)
    sampled = staticmethod(sampled)
    text_of = staticmethod(text_of)
    unfold = staticmethod(unfold)
    usage = staticmethod(chat.usage)
    usage_only = staticmethod(usage_only)
    wants_usage = staticmethod(chat.wants_usage)
    with_usage = staticmethod(chat.with_usage)

    def folder(self) -> CompletionsFolder:
        return CompletionsFolder()

    def with_effort(self, request: Request, effort: str) -> Request:
        """Return *request* itself: this protocol is older than thinking."""
        return request

    def question(self, request: Request) -> Question | None:
        """Return None: instructions and question are one text here."""
        return None

    def identity(self, request: Request) -> dict[str, Any]:
        """Return what can change the answer; as in Chat Completions."""
        return identity_without(request, chat.NOT_IN_KEY)


COMPLETIONS: Wire = Completions()
