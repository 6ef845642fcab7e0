"""Recordings: answers that models gave, in a file, to be given again.

One JSON object per line, ``.gz`` or plain::

    {"request": {"model", "messages", ...}, "response": {a whole answer}, "protocol": "chat",
     "timing": {"first_chunk_s", "duration_s", "basis": "measured" | "modelled"},
     "provider": whose prices apply, "correct": true | false | null,
     "usage_basis": "measured" | "estimated", "note": any text}

A line of the ledger's export is one as well, where it holds a request, a response and the time upstream.

**Which answer belongs to a request.** A recorded answer fits when its request had the same model, the same messages
and the same of everything else that can change the answer (``tools``, ``response_format``, ``n``, fields that we do
not know), but for the sampling parameters (`SAMPLING`). Where answers were recorded with exactly the request's
sampling parameters too, only those are given; otherwise any that fits. Several are given in the order of the file,
and then again from the first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from negawatt.call import Request
from negawatt.errors import InputError
from negawatt.lines import Place, read_lines, write_lines
from negawatt.wire.wires import WIRES

# How an answer is drawn, and how long it may be; not what is asked.
SAMPLING = frozenset({
    "frequency_penalty", "logit_bias", "max_completion_tokens", "max_output_tokens", "max_tokens", "min_p",
    "presence_penalty", "repetition_penalty", "seed", "stop", "stop_sequences", "temperature", "top_k", "top_p",
})  # fmt: skip

Seconds = Annotated[float, Meta(ge=0, lt=86_400)]
Text = Annotated[str, Meta(min_length=1)]


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the answer took, in seconds from the moment of asking. *first_chunk_s* None: not known."""

    first_chunk_s: Seconds | None = None
    duration_s: Seconds
    basis: Literal["measured", "modelled"]


class RecordedAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer to one request.

    *correct* is the verdict on this answer to this request; None where there is none. *usage_basis* says whether the
    token counts in *response* are the provider's own (measured) or were counted by whoever made the file.
    """

    request: dict[str, Any]
    response: dict[str, Any]
    timing: Timing
    provider: str | None = None
    correct: bool | None = None
    usage_basis: Literal["measured", "estimated"] = "measured"
    note: str | None = None
    protocol: str = "chat"  # of both

    @property
    def id(self) -> str | None:
        found = self.response.get("id")
        return found if isinstance(found, str) else None

    @property
    def model(self) -> str:
        return str(self.request["model"])

    @property
    def text(self) -> str:
        """What the answer says, as its protocol's `text_of` gives it."""
        return WIRES[self.protocol].text_of(self.response)

    @property
    def first_chunk_s(self) -> float:
        """Seconds to the first chunk; to the end, where the file does not say."""
        return self.timing.duration_s if self.timing.first_chunk_s is None else self.timing.first_chunk_s

    @property
    def duration_s(self) -> float:
        return self.timing.duration_s


class _Choice(msgspec.Struct):
    message: dict[str, Any]
    index: int = 0
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    """What must be right in a chat completion for it to be given again; the rest is kept as it is."""

    id: Text
    model: Text
    choices: Annotated[list[_Choice], Meta(min_length=1)]
    usage: dict[str, Any] | None = None


class _ChatAnswer(msgspec.Struct):
    response: _Whole


class _Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    request: dict[str, Any]
    response: dict[str, Any]
    timing: Timing
    provider: Text | None = None
    correct: bool | None = None
    usage_basis: Literal["measured", "estimated"] = "measured"
    note: str | None = None
    protocol: str = "chat"


class _ExportLine(msgspec.Struct, kw_only=True):
    """A line of the ledger's export that holds an answer; it has further fields."""

    request: dict[str, Any]
    response: dict[str, Any]
    upstream_s: Seconds
    protocol: str = "chat"
    time_to_first_chunk_s: Seconds | None = None
    provider: Text | None = None
    correct: bool | None = None
    usage_basis: str | None = None


class Recording:
    """Answers that can be looked up by request. It remembers whose turn is next: see `fresh`."""

    def __init__(self, answers: Iterable[RecordedAnswer], *, source: str = "", notes: tuple[str, ...] = ()) -> None:
        self.answers = tuple(answers)
        self.source = source
        self.notes = notes
        self._fitting: dict[bytes, list[RecordedAnswer]] = {}
        self._exact: dict[bytes, list[RecordedAnswer]] = {}
        self._question: dict[bytes, list[RecordedAnswer]] = {}
        for answer in self.answers:
            protocol = answer.protocol
            whole = _identity(answer.request, protocol)
            self._exact.setdefault(_digest(whole, protocol), []).append(answer)
            self._fitting.setdefault(_digest(_without(whole, SAMPLING), protocol), []).append(answer)
            self._question.setdefault(_digest(_without(whole, SAMPLING, "model"), protocol), []).append(answer)
        self._given: Counter[bytes] = Counter()

    @classmethod
    def load(cls, path: Path | str) -> Recording:
        """Return the recording in the file *path*. Raises `InputError`: ``file:line: field: what is wrong``."""
        found = [answer for _, answer in read_answers(path)]
        answers = [answer for answer in found if answer is not None]
        without = len(found) - len(answers)
        if not answers:
            why = f"none of its {without} ledger lines holds a request and its answer" if without else "it is empty"
            raise InputError(f"{path}: no recorded answer: {why}")
        notes = (f"ledger lines left out, without an answer from upstream: {without}",) if without else ()
        return cls(answers, source=str(path), notes=notes)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def models(self) -> dict[str, str | None]:
        """The models that answered, each with the provider whose prices apply (the first one, if several)."""
        found: dict[str, str | None] = {}
        for answer in self.answers:
            found[answer.model] = found.get(answer.model) or answer.provider
        return found

    def fresh(self) -> Recording:
        """Return the same recording with every turn at the first answer; arms of a replay take one each."""
        other = copy(self)
        other._given = Counter()
        return other

    @property
    def protocols(self) -> frozenset[str]:
        return frozenset(answer.protocol for answer in self.answers)

    def lookup(self, request: Mapping[str, Any], protocol: str = "chat") -> RecordedAnswer | None:
        """Return the next answer that fits *request* (rule: above), or None if none was recorded."""
        whole = _identity(request, protocol)
        key = _digest(whole, protocol)
        answers = self._exact.get(key)
        if answers is None:
            key = _digest(_without(whole, SAMPLING), protocol)
            answers = self._fitting.get(key)
        if answers is None:
            return None
        turn = self._given[key]
        self._given[key] += 1
        return answers[turn % len(answers)]

    def verdict(self, request: Mapping[str, Any], answer: str, protocol: str = "chat") -> bool | None:
        """Say whether *answer*, the text or the id of what the caller got, is a right answer to *request*.

        The recorded answers to the same question count, whichever model gave them: one of the same text or id gives
        its own verdict. Anything else is False where the question has a verdict at all, since then it is not an
        answer to it that anybody judged right; None where it has none.
        """
        question = _without(_identity(request, protocol), SAMPLING, "model")
        known = self._question.get(_digest(question, protocol), ())
        same = [one for one in known if answer in (one.text, one.id)]
        if same:
            same.sort(key=lambda one: one.model != request.get("model"))  # the model that was asked comes first
            return next((one.correct for one in same if one.correct is not None), None)
        return False if any(one.correct is not None for one in known) else None


def read_answers(path: Path | str) -> Iterator[tuple[Place, RecordedAnswer | None]]:
    """Yield what each line of the file *path* holds; None for a ledger line without an answer from upstream.

    Raises `InputError`: ``file:line: field: what is wrong``.
    """
    for place, raw in read_lines(Path(path)):
        data = place.parse(raw)
        yield place, _exported(place, data) if "received_at" in data else _recorded(place, data)


def write_recording(path: Path | str, answers: Iterable[RecordedAnswer]) -> int:
    """Write *answers* to the file *path*; gzip where it ends in ``.gz``. Return how many there were."""
    return write_lines(Path(path), (msgspec.to_builtins(answer) for answer in answers))


def _recorded(place: Place, data: dict[str, Any]) -> RecordedAnswer:
    line = place.convert(data, _Line)
    _check(place, data, line.protocol)
    first_chunk_s = line.timing.first_chunk_s
    if first_chunk_s is not None and first_chunk_s > line.timing.duration_s:
        raise place.error(f"expected at most timing.duration_s, got {first_chunk_s}", "timing.first_chunk_s")
    return RecordedAnswer(
        request=line.request,
        response=data["response"],
        timing=line.timing,
        provider=line.provider,
        correct=line.correct,
        usage_basis=line.usage_basis,
        note=line.note,
        protocol=line.protocol,
    )


def _exported(place: Place, data: dict[str, Any]) -> RecordedAnswer | None:
    """Return the answer in a line of the ledger's export; None if a cache gave it, or it was not kept whole."""
    if data.get("request") is None or data.get("response") is None or not data.get("upstream_s"):
        return None
    if data.get("ending", "answered") != "answered":
        return None
    line = place.convert(data, _ExportLine)
    _check(place, data, line.protocol)
    first = line.time_to_first_chunk_s
    return RecordedAnswer(
        request=line.request,
        response=data["response"],
        timing=Timing(
            first_chunk_s=None if first is None else min(first, line.upstream_s),
            duration_s=line.upstream_s,
            basis="measured",
        ),
        provider=line.provider,
        correct=line.correct,
        usage_basis="measured" if line.usage_basis in (None, "measured") else "estimated",
        protocol=line.protocol,
    )


def _check(place: Place, data: dict[str, Any], protocol: str) -> None:
    """Raise `InputError` unless the request could be asked, and the response could be given again."""
    place.check(data["request"], protocol, "request")
    if protocol == "chat":
        place.convert(data, _ChatAnswer)
    said = WIRES[protocol].error_of(data["response"])
    if said is not None:
        raise place.error(f"this is an error, not an answer: {said}", "response")


def _identity(request: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    fields = WIRES[protocol].identity(Request(data=dict(request)))
    return _without(fields, frozenset({"n"})) if fields.get("n") == 1 else fields  # one choice is what nobody asks for


def _without(fields: Mapping[str, Any], names: frozenset[str], *more: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names and name not in more}


def _digest(fields: Mapping[str, Any], protocol: str) -> bytes:
    return hashlib.sha256(protocol.encode() + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).digest()
