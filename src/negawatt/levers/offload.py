"""offload: answer in code what code can answer, for the classes that allow it.

A handler sees the request only where its text is all of it: one turn of a person, in words, with no tool that must be
called. It answers only what it has understood as a whole (`negawatt.offloads`); everything else goes on to the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from negawatt.call import Call, Saved
from negawatt.config import RequestClass
from negawatt.errors import InvalidRequest
from negawatt.offloads.handler import Answered, Handler, OffloadAsk, Offloaded, first_answer
from negawatt.pipeline import Handler as Forward
from negawatt.protocol import Contract
from negawatt.recall.kept import Validator
from negawatt.reply import Reply
from negawatt.routing.asked import Asked, asked_of

NAME = "offload"
LONGEST_S = 1.0  # for all handlers together: a plug-in that waits must not hold up the model
_PROTOCOLS = ("chat", "responses", "messages")
_FAILED = "it failed: "  # how `first_answer` begins the reason of a handler that raised


class Parts(NamedTuple):
    """What the lever works with. *spared*: what a model would have used that had said the text."""

    say: Callable[[Call, str], Reply]
    validate: Validator
    spared: Callable[[Call, str], Saved | None]


class OffloadLever:
    """Asks *handlers*, in their order, those that the class of a call allows by name."""

    def __init__(self, handlers: Sequence[Handler], classes: Mapping[str, RequestClass], parts: Parts) -> None:
        self._allowed = {
            name: tuple(one for one in handlers if one.name in policy.offload)
            for name, policy in classes.items()
            if policy.offload
        }
        self._schemas = {name: policy.schema for name, policy in classes.items() if policy.schema is not None}
        self._parts = parts

    async def __call__(self, call: Call, forward: Forward) -> Reply:
        handlers = self._allowed.get(call.request_class, ())
        if not handlers or call.wire.name not in _PROTOCOLS:
            return await forward(call)
        asked = asked_of(call)
        refusal = not_for_code(call, asked)
        found = None if refusal is not None else await self._ask(handlers, asked.ask)
        if found is None:
            call.note(NAME, "pass", refusal or f"the handlers took longer than {LONGEST_S:g} s")
            return await forward(call)
        for name, reason in found.declined:
            if reason.startswith(_FAILED):
                call.note(NAME, "failed", f"{name}: {reason}")
        reply = None if found.answer is None else self._said(call, found.answer, found.handler or "")
        if reply is None and found.answer is None:
            call.note(NAME, "pass", "no handler is certain", detail={"declined": dict(found.declined)})
        return await forward(call) if reply is None else reply

    async def _ask(self, handlers: Sequence[Handler], text: str) -> Offloaded | None:
        """Return what the handlers say; None where they do not come to an end."""
        try:
            async with asyncio.timeout(LONGEST_S):
                return await first_answer(handlers, OffloadAsk(text))
        except TimeoutError:
            return None

    def _said(self, call: Call, answer: Answered, handler: str) -> Reply | None:
        """Return *answer* as the reply to *call*; None, with a note, where it is not what was asked for."""
        contracts = [call.wire.contract(call.request)]
        if call.request_class in self._schemas:
            contracts.append(Contract(self._schemas[call.request_class]))
        for contract in contracts:
            if contract is not None and self._parts.validate(contract, [answer.text]) is not None:
                call.note(NAME, "pass", f"{handler}: its answer would break the response format")
                return None
        try:
            reply = self._parts.say(call, answer.text)
        except InvalidRequest as error:  # a protocol in which it cannot be said
            call.note(NAME, "pass", f"{handler}: {error.message}")
            return None
        reply.answered_by = NAME
        call.note(NAME, "hit", saved=self._parts.spared(call, answer.text), detail={"handler": handler})
        return reply


def not_for_code(call: Call, asked: Asked) -> str | None:
    """Return why no handler is asked about *call*, of which more is known than its text; None where that is all."""
    body = call.request.data
    question = call.wire.question(call.request)
    if question is None or not question.text.strip():
        return "the last word is no person's, or not text alone"
    if question.follows_up or call.wire.continues(call.request):
        return "a follow-up: what was said before may change the answer"
    if asked.ask != question.text:
        return "an agent wrote into the turn"
    if asked.tools and _must_call(body.get("tool_choice")):
        return "a tool must be called"
    if body.get("n") not in (None, 1):
        return "several answers are wanted"
    if body.get("logprobs") or body.get("top_logprobs"):
        return "log probabilities are wanted, and code has none"
    if body.get("audio") is not None or "audio" in (body.get("modalities") or ()):
        return "speech is wanted"
    return "nothing is to be said" if body.get("max_tokens") == 0 else None


def _must_call(choice: object) -> bool:
    """True when *choice* leaves no answer in words, in any of the three protocols."""
    if isinstance(choice, str):
        return choice not in ("auto", "none")
    return isinstance(choice, Mapping) and choice.get("type") not in ("auto", "none")
