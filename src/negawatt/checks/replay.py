"""Recorded answers, held against the prompts of today: no model is asked.

A recorded answer is worth something as long as its prompt is still sent. Each must have been asked with a surface that
is there; must be whole; must keep the contract of its request; and neither side may have grown against the lock. A
rendering (a template with its variables) must have an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

from negawatt.call import Request
from negawatt.checks.findings import Finding
from negawatt.checks.measure import Lock, LockedCassette, Measured
from negawatt.checks.plan import Plan
from negawatt.checks.surfaces import Block, Place, Surface
from negawatt.economics.counting import TokenCounter
from negawatt.schemas import broken
from negawatt.wire.wires import WIRES

_ANEW = "record it anew, and run `negawatt check --update --replay`"
_SHORT = 3  # words: too few to know a prompt by


class Answered(Protocol):
    """A recorded answer; `negawatt.providers.recording.RecordedAnswer`."""

    @property
    def request(self) -> dict[str, Any]: ...
    @property
    def response(self) -> dict[str, Any]: ...
    @property
    def protocol(self) -> str: ...


class Cassette(NamedTuple):
    """A recording: its path from the folder of the plan, and each answer with its line."""

    name: str
    answers: Sequence[tuple[int, Answered]]


class Rendering(NamedTuple):
    """A request that names a template, rendered; *place* is its line."""

    place: Place
    template: str
    request: dict[str, Any]


class Replayed(msgspec.Struct, frozen=True):
    """What was found, and what a lock would remember of each cassette."""

    findings: list[Finding]
    cassettes: dict[str, LockedCassette]
    uncovered: list[str]  # surfaces that no recorded request has

    def as_json(self) -> dict[str, Any]:
        answers = sum(one.answers for one in self.cassettes.values())
        said = f"Replayed: {answers} recorded answers in {len(self.cassettes)} cassettes"
        if self.uncovered:
            said += f"; none for {len(self.uncovered)} of the prompts"
        return {"said": said + ".", "cassettes": msgspec.to_builtins(self.cassettes), "uncovered": self.uncovered}


def replayed(plan: Plan, measured: Measured, lock: Lock | None, cassettes: Sequence[Cassette]) -> Replayed:
    """Hold *cassettes* against the surfaces of today and against *lock*."""
    findings: list[Finding] = []
    counted: dict[str, LockedCassette] = {}
    covered: set[str] = set()
    prompts = [one for one in measured.surfaces if one.kind in ("template", "constant")]
    counter = TokenCounter(budget=None)
    for cassette in cassettes:
        for line, answer in cassette.answers:
            place = Place(cassette.name, line)
            sent = _texts(answer)
            found = {one.name for one in prompts if fits(one, sent)}
            covered |= found
            if prompts and not found:
                what = "this answer was recorded for a prompt that is not there any more"
                findings.append(_found(place, cassette.name, what, _ANEW))
            findings += _wrong(cassette.name, place, answer)
        counted[cassette.name] = _counted(cassette, counter)
        findings += _grown(plan, cassette.name, counted[cassette.name], lock)
    return Replayed(findings, counted, [one.name for one in prompts if one.name not in covered])


def unanswered(
    renderings: Sequence[Rendering], lookup: Callable[[Mapping[str, Any], str], object | None]
) -> Iterator[Finding]:
    """Yield the *renderings* that no recorded answer fits. *lookup*: `lookup` of a `Recording`."""
    for one in renderings:
        if lookup(one.request, "chat") is None:
            what = f"no answer is recorded for the template {one.template!r} as it is rendered now"
            yield _found(one.place, one.template, what, _ANEW)


def _found(place: Place, surface: str, what: str, remedy: str) -> Finding:
    return Finding("replay", "error", surface, place.path, place.line, what, remedy)


def _texts(answer: Answered) -> str:
    """Return everything that the request of *answer* says, as one text."""
    prompt = WIRES[answer.protocol].prompt(Request(data=answer.request))
    found = [*prompt.texts]
    for message in prompt.messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = content if isinstance(content, list) else [content]
        found += [part if isinstance(part, str) else part.get("text", "") for part in parts if part is not None]
    return "\n".join(text for text in found if isinstance(text, str))


def fits(surface: Surface, sent: str) -> bool:
    """Return whether *sent* says what *surface* says, with anything in its holes.

    Of a function, which returns one text or another, one is enough; a block that has a condition may be left out.
    """
    needed = [one for one in surface.blocks if not any(hole.said.startswith("when ") for hole in one.holes)]
    either = surface.blocks[0].name.startswith("return ")
    within = [_within(block, sent) for block in (surface.blocks if either else needed) if _pieces(block)]
    return any(within) if either else bool(within) and all(within)


def _pieces(block: Block) -> list[str]:
    """Return the texts between the holes of *block* that are long enough to know it by."""
    ends = [0, *(hole.at for hole in block.holes), len(block.text)]
    pieces = [block.text[start:end].strip() for start, end in pairwise(ends)]
    return [piece for piece in pieces if len(piece.split()) >= _SHORT]


def _within(block: Block, sent: str) -> bool:
    at = 0
    for piece in _pieces(block):
        at = sent.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def _wrong(name: str, place: Place, answer: Answered) -> Iterator[Finding]:
    """Yield what is wrong with one answer: it is not whole, or breaks the contract of its request."""
    wire = WIRES[answer.protocol]
    if not wire.complete(answer.response):
        yield _found(place, name, "this answer was cut off, or never ended", "record it anew, with a higher limit")
        return
    contract = wire.contract(Request(data=answer.request))
    if contract is None:
        return
    for text in wire.answers(answer.response):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            yield _found(place, name, f"the request asks for JSON, and this answer is none: {error}", _ANEW)
            continue
        if contract.schema is None:
            problem = None if isinstance(value, dict) else "the request asks for a JSON object, and this answer is none"
        else:
            problem = broken(contract.schema, value)
        if problem is not None:
            yield _found(place, name, problem, f"mend the prompt or the schema, and {_ANEW}")


def _counted(cassette: Cassette, counter: TokenCounter) -> LockedCassette:
    sent = given = 0
    for _, answer in cassette.answers:
        wire, request = WIRES[answer.protocol], Request(data=answer.request)
        model = str(answer.request.get("model", ""))
        sent += counter.count(model, wire.prompt(request), wire.contract(request)).tokens
        usage = wire.usage(answer.response)
        text = wire.text_of(answer.response)
        given += counter.count_text(model, text).tokens if usage is None else usage.output_tokens
    return LockedCassette(answers=len(cassette.answers), input_tokens=sent, output_tokens=given)


def _grown(plan: Plan, name: str, now: LockedCassette, lock: Lock | None) -> Iterator[Finding]:
    """Yield where requests or answers have grown, on average, by more than the guard allows."""
    update = "if it is meant, run `negawatt check --update --replay`"
    before = None if lock is None else lock.cassettes.get(name)
    if before is None:
        yield _found(Place(name, 1), name, f"{name} is not in {plan.file.lock}", update)
        return
    guard = plan.file.growth
    for side in ("input_tokens", "output_tokens"):
        old, new = (getattr(one, side) / max(one.answers, 1) for one in (before, now))
        if new - old > max(guard.tokens, old * guard.percent / 100):
            said = side.replace("_", " ")
            yield _found(Place(name, 1), name, f"{said} an answer have grown from {old:,.0f} to {new:,.0f}", update)
