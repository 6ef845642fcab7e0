"""The policies: which of them a call is under, what it asks of a model, and how its candidates rank.

A caller comes under a policy by asking for it as if it were a model (``auto``, or its name), or by asking for a model
whose calls the policy takes over. The class decides which policy ``auto`` is. A caller may ask for more quality than
the policy does, or say a higher risk; never for less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from negawatt.call import Call, Target
from negawatt.config import RequestClass
from negawatt.config_routes import Candidate, Policy, Quality
from negawatt.config_types import LEVELS, Level
from negawatt.errors import ConfigError, InvalidRequest
from negawatt.routing.choice import Choice
from negawatt.routing.fits import least_tier
from negawatt.routing.matching import Matcher

AUTO = "auto"  # the same as in `negawatt.catalogue`, which a room cannot see
_WRITES = frozenset({"chat", "text_completion"})  # operations whose answers are words
Targets = Callable[[str], tuple[Target, ...]]
Order = Callable[[Sequence[Choice], str], Sequence[Choice]]
"""Sorts choices by ``cost`` or ``energy``, cheapest first; keeps the order of those that nobody can price."""


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What one call asks of a model, by its class, its policy and its caller. *sure*: the caller wants it shown."""

    quality: Quality | None
    risk: Level | None
    least_tier: int
    sure: bool = False


class Ranked(msgspec.Struct, frozen=True):
    """A policy whose candidates are in order, cheapest first; the reference is the strongest: of the highest tier."""

    name: str
    settings: Policy
    choices: tuple[Choice, ...]
    reference: Choice
    rules: tuple[tuple[Matcher, Choice], ...]
    digest: str

    @property
    def rising(self) -> tuple[Choice, ...]:
        """The choices in their order, the reference last."""
        return (*(choice for choice in self.choices if choice is not self.reference), self.reference)

    def choice(self, model: str, effort: str | None) -> Choice:
        return next(c for c in self.choices if (c.candidate.model, c.candidate.effort) == (model, effort))

    def asked_by_name(self, model: str) -> bool:
        """True when a caller who asks for *model* means a policy, and not a model that a policy takes over."""
        return model in (AUTO, self.name)

    def named(self, name: str) -> Choice:
        return next(choice for choice in self.choices if choice.name == name)

    def asked_at(self, target: Target) -> Choice | None:
        """Return whose *target* it is; None for a fallback that no policy chose."""
        return next((choice for choice in self.choices if choice.targets[0] == target), None)


class Policies:
    """All policies of a configuration. Raises `ConfigError` for a candidate that no provider serves."""

    def __init__(
        self, policies: Mapping[str, Policy], classes: Mapping[str, RequestClass], targets: Targets, order: Order
    ) -> None:
        self._classes = classes
        self._ranked = {name: ranked_of(name, policy, targets, order) for name, policy in policies.items()}
        self._patterns = [(p, name) for name, policy in policies.items() for p in policy.replaces]

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self._ranked.values())

    def get(self, name: str | None) -> Ranked | None:
        return None if name is None else self._ranked.get(name)

    def of(self, model: str, request_class: str) -> Ranked | None:
        """Return the policy of a call for *model*; None where its caller's word counts. Raises `InvalidRequest`."""
        policy = self._classes.get(request_class)
        own = None if policy is None or policy.policy is None else self._ranked[policy.policy]
        if model in self._ranked and model != AUTO:
            return self._ranked[model]
        if model == AUTO and self._ranked:
            found = own or self._ranked.get(AUTO)
            if found is None and len(self._ranked) == 1:
                found = next(iter(self._ranked.values()))
            if found is None:
                known = ", ".join(self._ranked)
                message = f"model: class {request_class!r} has no policy for 'auto'; name one of: {known}"
                raise InvalidRequest(message, param="model")
            return found
        if own is not None and any(fnmatchcase(model, pattern) for pattern in own.settings.replaces):
            return own
        taken = next((name for pattern, name in self._patterns if fnmatchcase(model, pattern)), None)
        return None if own is not None or taken is None else self._ranked[taken]

    def assigned(self, call: Call, instead: str | None = None) -> Call:
        """Return *call* under its policy: it leads to the reference, until somebody chooses. Raises `InvalidRequest`.

        *instead*: the policy that is to choose in any case, where the caller may use what it chooses.

        What the policy may choose is part of the scope, so that no cache gives one policy's answers to another.
        """
        ranked = self.of(call.request.model, call.request_class)
        cheaper = self.get(instead) if call.wire.operation in _WRITES else None
        if cheaper is not None and (call.caller is None or any(
            call.caller.may_use(one.candidate.model) for one in cheaper.choices
        )):  # fmt: skip
            ranked = cheaper
        if ranked is not None and call.wire.operation not in _WRITES:
            if ranked.asked_by_name(call.request.model) and call.wire.billed:
                message = f"model: {call.request.model!r} chooses among models that write: not for {call.wire.name}"
                raise InvalidRequest(message, param="model")
            return call
        if ranked is None:
            return call
        demand = self.demand(call, ranked)
        parts = [ranked.digest, demand.least_tier, demand.sure, _plain(demand.quality)]
        if call.caller is not None and not ranked.asked_by_name(call.request.model):
            parts.append([one.name for one in ranked.choices if call.caller.may_use(one.candidate.model)])
        digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]
        scope = msgspec.structs.replace(call.scope, model_policy=f"policy {ranked.name} {digest}")
        return call.with_(policy=ranked.name, targets=ranked.reference.targets, scope=scope)

    def demand(self, call: Call, ranked: Ranked) -> Demand:
        """Return what *call* asks for: the class's word before the policy's; the caller's where it is stricter."""
        policy = self._classes.get(call.request_class)
        quality = ranked.settings.quality if policy is None or policy.quality is None else policy.quality
        wanted = _share(call.hints.quality, "x-negawatt-quality")
        if wanted is not None:
            quality = _stricter(quality, wanted)
        risk = _risk(None if policy is None else policy.risk, call.hints.risk)
        return Demand(quality, risk, least_tier(ranked.settings, risk), sure=wanted is not None)


def ranked_of(name: str, policy: Policy, targets: Targets, order: Order) -> Ranked:
    """Return *policy* with its candidates in order. Raises `ConfigError` for one that leads nowhere."""
    where = f"policies.{name}"
    unsorted = [_choice(one, i, where, targets) for i, one in enumerate(policy.candidates)]
    sorted_ = order(unsorted, policy.order)
    choices = tuple(
        msgspec.structs.replace(one, tier=place if one.candidate.tier is None else one.candidate.tier)
        for place, one in enumerate(sorted_, start=1)
    )
    highest = max(one.tier for one in choices)
    for level, tier in policy.least_tier.items():
        if tier > highest:
            what = f"{where}.least_tier.{level}: no candidate is of tier {tier} or above; the highest is {highest}"
            raise ConfigError(what, param=f"{where}.least_tier.{level}")
    by_name = {(one.candidate.model, one.candidate.effort): one for one in choices}
    rules = tuple(
        (Matcher(rule.when, f"{where}.rules[{i}].when"), by_name[rule.model, rule.effort])
        for i, rule in enumerate(policy.rules)
    )
    digest = hashlib.sha256(msgspec.json.encode(policy, order="sorted")).hexdigest()
    reference = [one for one in choices if one.tier == highest][-1]
    return Ranked(name, policy, choices, reference, rules, digest)


def _choice(candidate: Candidate, place: int, where: str, targets: Targets) -> Choice:
    found = targets(candidate.model)
    if not found:
        path = f"{where}.candidates[{place}].model"
        what = f"{path}: no provider here serves {candidate.model!r}; add a provider or a [[models]] entry for it"
        raise ConfigError(what, param=path)
    if candidate.effort is not None:
        found = (msgspec.structs.replace(found[0], effort=candidate.effort), *found[1:])
    return Choice(candidate, 0, found)


def _plain(quality: Quality | None) -> object:
    return None if quality is None else msgspec.to_builtins(quality)


def _stricter(quality: Quality | None, success: float) -> Quality:
    if quality is None:
        return Quality(success=success)
    if quality.success is None or quality.success < success:
        return msgspec.structs.replace(quality, success=success)
    return quality


def _share(text: str | None, header: str) -> float | None:
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidRequest(f"{header}: expected a share of right answers, 0 to 1, got {text[:50]!r}", param=header)
    return share


def _risk(own: Level | None, said: str | None) -> Level | None:
    if said is None:
        return own
    if said not in LEVELS:
        header = "x-negawatt-risk"
        raise InvalidRequest(f"{header}: expected {', '.join(LEVELS)}, got {said[:50]!r}", param=header)
    known = [level for level in (own, said) if level is not None]
    return max(known, key=LEVELS.index)
