"""A share of the accepted answers is asked of the reference too, when nobody waits any more: how a drift is noticed."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial

from negawatt.call import Call, Target
from negawatt.errors import NegawattError
from negawatt.reply import Reply
from negawatt.routing.cases import Asked, supplied
from negawatt.routing.choice import Choice
from negawatt.routing.gate import Gate
from negawatt.verify.agreeing import same

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


async def by_agreement(_: Call, __: str, said: str, right: str) -> bool | None:
    """Compare without an embedder and a judge: short answers and numbers tell; anything else cannot be said."""
    if await same(said, right):
        return False
    plain = all(len(text) <= _TELLING for text in (said, right))
    return True if plain else None


_TELLING = 80  # characters up to which answers that do not agree are different ones
