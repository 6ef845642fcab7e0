"""classify: name the class of a request, which every later lever is tuned by.

In this order: what is declared, then the classes' rules, then the intents that were learned, then ``default``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from negawatt.call import Call
from negawatt.caller import Caller
from negawatt.config import Classify as Settings
from negawatt.config import RequestClass
from negawatt.embedders import Embedder
from negawatt.errors import EmbedderError, InvalidRequest, PermissionDenied
from negawatt.keys import narrowed
from negawatt.pipeline import Handler
from negawatt.reply import Reply
from negawatt.routing.asked import Asked, asked_of
from negawatt.routing.intents import NONE, Guess, Intents
from negawatt.routing.matching import Matcher

NAME = "classify"
FIELD = "negawatt_class"  # of a request's metadata


class Finding(NamedTuple):
    """A class, and why. *by*: ``declared``, ``rule``, ``intent`` or ``default``."""

    name: str
    by: str
    reason: str
    probability: float | None = None


class Classify:
    """Gives each call its class, with the scope that the class asks for: never one less strict than it had.

    *intents* need the *embedder*. Raises `ConfigError`, naming the field, for a rule that can describe nothing.
    """

    def __init__(
        self,
        classes: Mapping[str, RequestClass],
        settings: Settings,
        intents: Intents | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self._classes = classes
        self._least = settings.confidence
        self._intents = intents
        self._embedder = embedder
        rules = [
            (name, i, match, Matcher(match, f"classes.{name}.match[{i}]"))
            for name, policy in classes.items()
            for i, match in enumerate(policy.match)
        ]
        # A template is as good as a declaration: those that name one come first.
        rules.sort(key=lambda rule: rule[2].template is None)
        self._rules = [(name, place, matcher) for name, place, _, matcher in rules]
        self._idle = not rules and intents is None

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        found = self._declared(call)
        if found is None and not (self._idle and call.request.get("metadata") is None):
            found = await self._found(asked_of(call), call.caller)
        if found is None:
            return await forward(call)
        policy = self._classes.get(found.name)
        call.note(NAME, found.name, found.reason, detail=_detail(found, policy, call))
        if found.name == call.request_class:
            return await forward(call)
        scope = narrowed(call.scope, call.caller, personal=policy is not None and policy.personal)
        return await forward(call.with_(request_class=found.name, scope=scope))

    async def explain(self, call: Call) -> list[Finding]:
        """Return every class that something speaks for; the first is the one that *call* gets. Raises as it would."""
        asked = asked_of(call)
        certain = [self._declared(call), self._in_metadata(asked, call.caller), *self._by_rules(asked)]
        found = [one for one in certain if one is not None]
        guess = None if self._intents is None else await self._guess(self._intents, asked)
        chosen = self._by_intent(guess)
        others = () if guess is None else guess.ranking
        less = [Finding(name, "intent", "less likely", chance) for name, chance in others if name != chosen.name]
        return [*found, chosen, *less]

    async def _found(self, asked: Asked, caller: Caller | None) -> Finding:
        certain = self._in_metadata(asked, caller) or next(self._by_rules(asked), None)
        if certain is not None:
            return certain
        return self._by_intent(None if self._intents is None else await self._guess(self._intents, asked))

    def _declared(self, call: Call) -> Finding | None:
        if call.hints.request_class is None:
            return None
        return Finding(call.request_class, "declared", "x-negawatt-class")

    def _in_metadata(self, asked: Asked, caller: Caller | None) -> Finding | None:
        """Return the class that the request's metadata names. Raises `InvalidRequest` where there is none such.

        To a *caller* who is held to some classes it is one of the others, whose names are not for everybody.
        """
        name = asked.metadata.get(FIELD)
        if name is None:
            return None
        if name != NONE and name not in self._classes:
            if caller is not None and caller.classes is not None:
                raise PermissionDenied(
                    f"class: this key may not make calls of the class {name[:100]!r}", param="class"
                )  # fmt: skip
            where, known = f"metadata.{FIELD}", ", ".join(sorted(self._classes)) or "none"
            raise InvalidRequest(f"{where}: no class is named {name[:100]!r}; known: {known}", param=where)
        return Finding(name, "declared", f"metadata.{FIELD}")

    def _by_rules(self, asked: Asked) -> Iterator[Finding]:
        """Yield the classes of which a match describes the request, in the order in which they count."""
        for name, place, matcher in self._rules:
            if matcher.matches(asked):
                yield Finding(name, "rule", f"classes.{name}.match[{place}]")

    async def _guess(self, intents: Intents, asked: Asked) -> Guess:
        """Return what the learned intents say; an embedder that fails says nothing, and why."""
        if not asked.ask.strip():
            return Guess(None, "nobody asked anything in words", ())
        if self._embedder is not None:
            intents.begin(self._embedder)
        try:
            return await intents.guess(asked.ask)
        except EmbedderError as error:
            return Guess(None, f"the embedder failed: {error.message}", ())

    def _by_intent(self, guess: Guess | None) -> Finding:
        if guess is None:
            return Finding(NONE, "default", "no rule applies")
        chance = guess.ranking[0][1] if guess.ranking else None
        if guess.label is None:
            return Finding(NONE, "default", guess.reason or "of no class", chance)
        if guess.label == NONE:
            return Finding(NONE, "intent", "like the examples of default", chance)
        if chance is None or chance < self._least:
            return Finding(NONE, "default", f"{guess.label} is not likely enough", chance)
        return Finding(guess.label, "intent", "like its examples", chance)


def _detail(found: Finding, policy: RequestClass | None, call: Call) -> dict[str, Any]:
    """Return what later levers and readers want to know of the class; what nobody said is left out."""
    told: dict[str, Any] = {"by": found.by}
    if found.probability is not None:
        told["confidence"] = round(found.probability, 4)
    if policy is not None:
        told |= {"path": policy.path, "complexity": policy.complexity, "risk": policy.risk, "latency": policy.latency}
    told["task"] = call.hints.task or (None if policy is None else policy.task)
    return {name: value for name, value in told.items() if value is not None}
