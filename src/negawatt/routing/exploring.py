"""A share of the accepted answers is asked of the reference too, when nobody waits any more: how a drift is noticed."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from negawatt.call import Call, Target
from negawatt.errors import NegawattError
from negawatt.recall.compare import Judge, compare
from negawatt.reply import Reply
from negawatt.routing.cases import Asked, supplied
from negawatt.routing.choice import Choice
from negawatt.routing.gate import Gate
from negawatt.verify.agreeing import same

if TYPE_CHECKING:
    from negawatt.embedders import Embedder

log = logging.getLogger(__name__)

AskReference = Callable[[Call, tuple[Target, ...]], Awaitable[Reply]]
"""Asks what the call asked of these targets, in a row of its own, and returns the whole answer."""
Compare = Callable[[Call, str, str, str], Awaitable[bool | None]]
"""Says whether the first text was a wrong answer to a question where the second is right; None: it cannot be said."""


class Explorer:
    """Draws *share* of the accepted answers, and tells the gate what became of them."""

    def __init__(  # noqa: PLR0913
        self,
        gate: Gate,
        *,
        share: float,
        rng: random.Random,
        spawn: Callable[[Awaitable[None]], object],
        ask_reference: AskReference,
        compare: Compare,
        asked: Callable[[Call], Asked],
    ) -> None:
        self._gate = gate
        self._share = share
        self._rng = rng
        self._spawn = spawn
        self._ask_reference = ask_reference
        self._compare = compare
        self._asked = asked

    def watch(self, call: Call, reply: Reply, choice: Choice, reference: Choice) -> None:
        """If *reply*, which *choice* gave and which was accepted, is drawn: ask *reference* too when it has ended."""
        if self._rng.random() < self._share:
            reply.on_end(partial(self._begin, call, choice, reference))

    def _begin(self, call: Call, choice: Choice, reference: Choice, reply: Reply) -> None:
        if reply.finished and reply.error is None:
            said = call.wire.answers(reply.data)
            if len(said) == 1 and said[0].strip():
                self._spawn(self._explore(call, said[0], choice, reference))

    async def _explore(self, call: Call, said: str, choice: Choice, reference: Choice) -> None:
        try:
            reply = await self._ask_reference(call, reference.targets)
        except NegawattError as error:
            log.info("what %s would have said was not found out: %s", reference.name, error.message)
            return
        right = call.wire.answers(reply.data)
        if len(right) != 1 or not right[0].strip():
            return
        question, _ = supplied(self._asked(call))
        wrong = await self._compare(call, question, said, right[0])
        if wrong is not None:
            self._gate.learn(choice.name, wrong)


def comparing(
    embedder: Embedder | None, judge_of: Callable[[Call], Judge | None], *, alike: float = 0.9, different: float = 0.75
) -> Compare:
    """Return what compares a small answer with the reference's: by what they come to, by meaning, by a judge.

    Two short answers that do not come to the same differ. Longer ones are compared by a learned *embedder*: from
    similarity *alike* on they say the same, if no fact of one conflicts with the other; below *different*, or where
    facts conflict, they do not. What lies between, or all of it without an embedder, is put to the judge; where there
    is none, or the judge does not know, it cannot be said, and counts for nobody.
    """
    learned = embedder if embedder is not None and embedder.learned else None

    async def compared(call: Call, question: str, said: str, right: str) -> bool | None:
        if await same(said, right):
            return False
        if all(len(text) <= _TELLING for text in (said, right)):
            return True
        judge = judge_of(call)
        if learned is None:
            verdict = None if judge is None else await judge(question, said, right)
            return None if verdict is None else not verdict
        unknown = False

        async def asked(question: str, one: str, other: str) -> bool | None:
            nonlocal unknown
            verdict = None if judge is None else await judge(question, one, other)
            unknown = verdict is None
            return verdict

        found = await compare(learned, question, said, right, same=alike, different=different, judge=asked)
        return None if found is None or unknown else found.wrong

    return compared


_TELLING = 80  # characters up to which answers that do not come to the same are different ones
