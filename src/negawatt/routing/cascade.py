"""The cascade: ask the small model, verify, escalate.

Of several small models each is asked in turn, and the reference last. What was asked and not accepted is thrown away;
it stays on the books, as do judges and second opinions. An answer reaches its caller from one model alone: once a byte
of a small answer has left, the answer is the small one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from negawatt.call import Attempt, Call
from negawatt.config_routes import Cascade as Settings
from negawatt.errors import NegawattError, RequestError, UpstreamError, UpstreamStatus
from negawatt.pipeline import Handler
from negawatt.reply import Reply
from negawatt.routing.cases import Answered, Asked, answered, case_of
from negawatt.routing.choice import Choice
from negawatt.routing.drafting import Drafting
from negawatt.routing.exploring import Explorer
from negawatt.routing.gate import Bar, Gate
from negawatt.routing.held import Held
from negawatt.routing.predicting import predicted
from negawatt.routing.second import Seconds, dropped, gathered
from negawatt.verify import logprob
from negawatt.verify.agreeing import AgreementVerifier
from negawatt.verify.judging import Panel, combined
from negawatt.verify.verdict import Verdict

NAME = "route"
_BAD_REQUEST = 400


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a cascade works with.

    *asked* says what a person asked; *predicts*, whether a target takes predicted outputs; *schemas* are those of
    request classes. *drafting* None: nothing is drafted; *explorer* None: nothing is explored.
    """

    panel: Panel
    gate: Gate
    seconds: Seconds
    asked: Callable[[Call], Asked]
    spawn: Callable[[Awaitable[None]], object]
    predicts: Callable[[Any], bool] = lambda _: False
    schemas: Mapping[str, Any] = {}
    drafting: Drafting | None = None
    explorer: Explorer | None = None


class Tried(NamedTuple):
    """A small answer that is there, and what is thought of it."""

    choice: Choice
    attempt: Attempt | None
    answer: Answered
    verdicts: list[Verdict]

    def detail(self, bar: Bar) -> dict[str, Any]:
        said = [
            {
                "kind": v.kind,
                "passed": v.passed,
                "score": round(v.score, 4),
                **({"reason": v.reason} if v.reason else {}),
            }
            for v in self.verdicts
        ]
        score = round(combined(self.verdicts).score, 4)
        return {"model": self.choice.name, "score": score, "threshold": bar.least, "verdicts": said}


class Cascade:
    """Answers a call with the first answer that is accepted, of the choices in their order."""

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self._settings = settings
        self._tools = tools
        self._agreement = next((v for v in tools.panel.verifiers if isinstance(v, AgreementVerifier)), None)
        self._weighs = any(verifier.kind == "logprob" for verifier in tools.panel.verifiers)

    async def __call__(self, call: Call, forward: Handler, choices: Sequence[Choice]) -> Reply:
        """Return the answer. The last of *choices* is the reference. Raises `NegawattError`, of the reference only."""
        *small, reference = choices
        if call.shadow:
            bars = {one.name: self._tools.gate.bar(one.name).reason for one in small}
            would = f"would ask {', '.join(one.name for one in choices)} in turn"
            call.note(NAME, "cascade", would, detail={"expected": bars})
            return await forward(call)
        guess: str | None = None
        for choice in small:
            bar = self._tools.gate.bar(choice.name)
            if bar.accepts == "nothing":
                call.note(NAME, "abstained", bar.reason, detail={"model": choice.name})
                continue
            if call.streams and self._settings.stream == "trust":
                reply = await self._trusted(call, forward, choice, reference)
            else:
                reply, guess = await self._verified(call, forward, (choice, reference), bar)
            if reply is not None:
                return reply
        return await self._referred(call, forward, reference, guess)

    # -- verify before the first byte ------------------------------------------------------------------------------

    async def _verified(
        self, call: Call, forward: Handler, pair: tuple[Choice, Choice], bar: Bar
    ) -> tuple[Reply | None, str | None]:
        """Return the answer of the first of *pair* if it is accepted, else None; and what it said."""
        choice, reference = pair
        others = [] if self._agreement is None else self._tools.seconds.others(
            call, forward, choice.targets, self._agreement
        )  # fmt: skip
        before = len(call.trail.attempts)
        try:
            held = await self._small(call, forward, choice)
            attempt = _last(call, before)
            answer = answered(call, held.data)
            tried = Tried(choice, attempt, answer, await self._judge(call, forward, answer, await gathered(others)))
        except (UpstreamError, RequestError) as error:
            reason = f"{choice.name} failed: {type(error).__name__}: {error.message}"[:300]
            call.note(NAME, "escalated", reason, detail={"model": choice.name})
            return None, None
        finally:
            await dropped(others)
        guess = answer.texts[0] if len(answer.texts) == 1 else None
        # Without verifiers there is nothing but the draft's own verdict, which comes next.
        objection = _objection(bar, tried) if tried.verdicts or self._tools.drafting is None else None
        if objection is not None:
            call.note(NAME, "escalated", objection, detail=tried.detail(bar))
            return None, guess
        if self._tools.drafting is not None:
            return await self._drafted(call, forward, (tried, reference), bar, held), guess
        return self._accepted(call, held, tried, reference, bar), guess

    async def _small(self, call: Call, forward: Handler, choice: Choice) -> Held:
        """Ask *choice*, and return its answer when all of it is there. Raises `UpstreamError` and `RequestError`."""
        request = logprob.wants(call.wire.name, call.request) if self._weighs else None
        changed = {} if request is None else {"request": request}
        reply = await forward(call.with_(targets=choice.targets, hurried=True, **changed))
        held = await Held.of(call, reply)
        return held if request is None else held.without_logprobs(call)

    async def _judge(
        self, call: Call, forward: Handler, answer: Answered, others: Sequence[str] | None
    ) -> list[Verdict]:
        """Return the verdicts on *answer*. One that was cut off, filtered or failed is not put to anybody."""
        if not call.wire.complete(answer.data):
            return [Verdict(False, 0.0, "the answer did not come to its own end", "complete")]
        if 0 < len(answer.texts) < answer.choices:
            return [Verdict(False, 0.0, "one of its choices refuses, or calls a tool", "complete")]
        tools = self._tools
        case = case_of(
            call, tools.asked(call), answer, others=others, ask=tools.seconds.asker(call, forward),
            schema=tools.schemas.get(call.request_class),
        )  # fmt: skip
        return await tools.panel(case)

    def _accepted(self, call: Call, held: Held, tried: Tried, reference: Choice, bar: Bar) -> Reply:
        call.note(NAME, "accepted", bar.reason, detail=tried.detail(bar))
        reply = held.reply(call)
        self._answers(call, tried.choice, tried.attempt)
        self._explore(call, reply, tried.choice, reference)
        return reply

    def _explore(self, call: Call, reply: Reply, choice: Choice, reference: Choice) -> None:
        if self._tools.explorer is not None:
            self._tools.explorer.watch(call, reply, choice, reference)

    def _answers(self, call: Call, choice: Choice, attempt: Attempt | None) -> None:
        """Write down that *choice* answers the call, whatever else was asked on the way."""
        call.with_(targets=choice.targets if attempt is None else (attempt.target,))
        call.trail.answered = attempt

    # -- draft and verify ------------------------------------------------------------------------------------------

    async def _drafted(
        self, call: Call, forward: Handler, pair: tuple[Tried, Choice], bar: Bar, held: Held
    ) -> Reply | None:
        """Return the draft where the large model accepts it, or its correction; None where it says neither."""
        tried, reference = pair
        drafting = self._tools.drafting
        assert drafting is not None
        before = len(call.trail.attempts)
        contracts = (call.wire.contract(call.request), self._tools.schemas.get(call.request_class))
        found = await drafting.ask(call, forward, tried.answer, reference, contracts)
        detail = tried.detail(bar)
        detail["verdicts"].append({"kind": "draft", "passed": found.accepted, "score": float(found.accepted),
                                   "reason": found.reason})  # fmt: skip
        if found.accepted:
            call.note(NAME, "accepted", found.reason, detail=detail)
            reply = held.reply(call)
            self._answers(call, tried.choice, tried.attempt)
            self._explore(call, reply, tried.choice, reference)
            return reply
        if found.correction is None:
            call.note(NAME, "escalated", found.reason, detail=detail)
            return None
        call.note(NAME, "corrected", found.reason, detail=detail)
        asked = [one for one in call.trail.attempts[before:] if one.error is None]
        self._answers(call, reference, asked[-1] if asked else None)
        return found.correction

    # -- trust, and see afterwards ---------------------------------------------------------------------------------

    async def _trusted(self, call: Call, forward: Handler, choice: Choice, reference: Choice) -> Reply | None:
        """Return the answer of *choice* as it streams; None where it failed before its first chunk."""
        before = len(call.trail.attempts)
        try:
            reply = await forward(call.with_(targets=choice.targets, hurried=True))
        except (UpstreamError, RequestError) as error:
            reason = f"{choice.name} failed: {type(error).__name__}: {error.message}"[:300]
            call.note(NAME, "escalated", reason, detail={"model": choice.name})
            return None
        call.trail.answered = _last(call, before)
        call.note(NAME, "trusted", "streamed as it is; what is found out afterwards changes nothing",
                  detail={"model": choice.name})  # fmt: skip
        reply.on_end(partial(self._ended, call, forward, choice))
        self._explore(call, reply, choice, reference)
        return reply

    def _ended(self, call: Call, forward: Handler, choice: Choice, reply: Reply) -> None:
        if not reply.finished or reply.error is not None:
            return
        call.trail.hold()  # until the verdict is in: it may cost something
        try:
            self._tools.spawn(self._looked_at(call, forward, choice, reply))
        except BaseException:
            call.trail.release()
            raise

    async def _looked_at(self, call: Call, forward: Handler, choice: Choice, reply: Reply) -> None:
        """Judge what was streamed. Nobody waits for it."""
        bar = self._tools.gate.bar(choice.name)
        before = len(call.trail.attempts)
        others: list[Any] = []
        try:
            if self._agreement is not None:
                others = self._tools.seconds.others(call, forward, choice.targets, self._agreement)
            answer = answered(call, reply.data)
            verdicts = await self._judge(call, forward, answer, await gathered(others))
            tried = Tried(choice, None, answer, verdicts)
            objection = _objection(bar, tried)
            action = "verified" if objection is None else "doubted"
            call.note(NAME, action, objection or bar.reason, detail=tried.detail(bar))
        except NegawattError as error:
            call.note(NAME, "doubted", f"no verdict: {type(error).__name__}: {error.message}"[:300])
        finally:
            await dropped(others)
            if len(call.trail.attempts) > before:
                call.trail.bill = None  # it was made out before these were asked
            call.trail.release()

    # -- the reference ---------------------------------------------------------------------------------------------

    async def _referred(self, call: Call, forward: Handler, reference: Choice, guess: str | None) -> Reply:
        """Ask the reference, as it would have been asked without the small ones, or with *guess* to begin from."""
        call = call.with_(targets=reference.targets)
        before = len(call.trail.attempts)
        reply = await self._with_guess(call, forward, guess)
        if reply is None:
            reply = await forward(call)
        call.trail.answered = _last(call, before)
        return reply

    async def _with_guess(self, call: Call, forward: Handler, guess: str | None) -> Reply | None:
        """Ask with *guess* as predicted output; None where that is off, or the provider will not have it."""
        if guess is None or not self._settings.predict or not all(map(self._tools.predicts, call.targets)):
            return None
        request = predicted(call.wire.name, call.request, guess)
        if request is None:
            return None
        try:
            reply = await forward(msgspec.structs.replace(call, request=request))
        except (UpstreamStatus, RequestError) as error:
            if error.status != _BAD_REQUEST:
                raise
            call.note(NAME, "unpredicted", f"the predicted output was refused: {error.message}"[:200])
            return None
        finally:
            call.with_()  # the newest copy is again what the caller asked
        call.note(NAME, "predicted", "the small answer was given along as predicted output")
        return reply


def _objection(bar: Bar, tried: Tried) -> str | None:
    """Return why *tried* is not accepted, None when it is."""
    verdict = combined(tried.verdicts)
    if bar.accepts == "verdict":
        return None if verdict.passed else verdict.reason
    assert bar.least is not None
    if verdict.score >= bar.least and verdict.score > 0:
        return None
    because = "" if verdict.reason is None else f" ({verdict.reason})"
    return f"its score {verdict.score:.3f} is below {bar.least:.3f}{because}"


def _last(call: Call, before: int) -> Attempt | None:
    """Return the newest attempt since *before* that is what the caller asked, and did not fail."""
    made = call.trail.attempts[before:]
    return next((one for one in reversed(made) if not one.aside and one.error is None), None)
