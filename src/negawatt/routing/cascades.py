"""Cascades opened by their configuration, which is checked before anything is asked."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from negawatt.call import Call, Target
from negawatt.config import RequestClass
from negawatt.config_routes import Cascade as Settings
from negawatt.config_routes import Check, Policy
from negawatt.errors import ConfigError
from negawatt.routing.asked import asked_of
from negawatt.routing.calibration import bars_of, load_calibration
from negawatt.routing.cascade import Cascade, Tools
from negawatt.routing.cases import Asked
from negawatt.routing.choice import Choice
from negawatt.routing.drafting import Drafting, Spoken
from negawatt.routing.exploring import AskReference, Compare, Explorer
from negawatt.routing.gate import Alert, Bar, Gate
from negawatt.routing.guarantee import DriftMonitor
from negawatt.routing.scorer import AnswerScorer
from negawatt.routing.second import Seconds, TargetsOf
from negawatt.verify.judging import Panel
from negawatt.verify.opening import Given, open_verifier

if TYPE_CHECKING:
    from negawatt.embedders import Embedder

_TELL = frozenset({"chat", "responses"})  # protocols that tell probabilities of tokens


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What all cascades of a gateway share.

    Without *ask_reference* or *compare* nothing is explored, and no drift is noticed.
    """

    targets_of: TargetsOf
    spoken: Spoken
    spawn: Callable[[Awaitable[None]], object]
    rng: random.Random
    alert: Alert
    asked: Callable[[Call], Asked] = asked_of
    predicts: Callable[[Target], bool] = lambda _: False
    schemas: Mapping[str, Any] = {}
    embedder: Embedder | None = None
    ask_reference: AskReference | None = None
    compare: Compare | None = None


def open_cascade(name: str, policy: Policy, choices: Sequence[Choice], wiring: Wiring) -> Cascade:
    """Return the cascade of the policy *name* over *choices*, the reference last. Raises `ConfigError`."""
    where = f"policies.{name}.cascade"
    settings = policy.cascade or Settings()
    given = Given(
        wiring.embedder, choices[-1].candidate.model,
        lambda file, at: AnswerScorer.load(Path(file), at, wiring.embedder),
    )  # fmt: skip
    drafts = [check for check in settings.verify if check.kind == "draft"]
    panel = Panel([
        open_verifier(check, f"{where}.verify[{place}]", given)
        for place, check in enumerate(settings.verify) if check.kind != "draft"
    ])  # fmt: skip
    gate = Gate(
        name, _bars(name, settings, choices), alert=wiring.alert,
        monitor=lambda: DriftMonitor(settings.max_error, settings.alpha),
    )  # fmt: skip
    seconds = Seconds(wiring.targets_of)
    explorer = None
    if wiring.ask_reference is not None and wiring.compare is not None and settings.explore > 0:
        explorer = Explorer(
            gate, share=settings.explore, rng=wiring.rng, spawn=wiring.spawn, ask_reference=wiring.ask_reference,
            compare=wiring.compare, asked=wiring.asked,
        )  # fmt: skip
    drafting = None
    if drafts:
        model = drafts[0].model
        drafting = Drafting(seconds, wiring.spoken, targets=() if model is None else wiring.targets_of(model))
    tools = Tools(
        panel=panel, gate=gate, seconds=seconds, asked=wiring.asked, spawn=wiring.spawn, predicts=wiring.predicts,
        schemas=wiring.schemas, drafting=drafting, explorer=explorer,
    )  # fmt: skip
    return Cascade(settings, tools)


def _bars(name: str, settings: Settings, choices: Sequence[Choice]) -> dict[str, Bar]:
    if settings.calibration is None:
        return {}
    where = f"policies.{name}.cascade.calibration"
    bars = bars_of(load_calibration(Path(settings.calibration), where), name, settings, where)
    for choice in choices[:-1]:  # what is promised of some must not be broken by others
        missing = Bar("nothing", None, f"{settings.calibration} has no calibration of {choice.name}")
        bars.setdefault(choice.name, missing)
    return bars


def check_cascade(
    name: str,
    policy: Policy,
    classes: Mapping[str, RequestClass],
    choices: Sequence[Choice],
    lookup: tuple[TargetsOf, Callable[[Target], Collection[str]]],
) -> list[str]:
    """Return what is doubtful about the cascade of the policy *name*; raise `ConfigError` for what cannot work.

    *lookup*: where a model's name leads, and the protocols that the provider of a target speaks.
    """
    where = f"policies.{name}.cascade"
    settings = policy.cascade or Settings()
    if not settings.verify:
        raise _wrong(f"{where}.verify", 'a cascade needs at least one check, such as [{ kind = "judge" }]')
    if len(choices) < 2:
        raise _wrong(f"policies.{name}.candidates", "a cascade needs a small model, and the reference after it")
    served = {one: policy_ for one, policy_ in classes.items() if policy_.policy == name}
    checks = Checks(where, choices, served, lookup)
    doubts = [doubt for place, check in enumerate(settings.verify) for doubt in checks.look(place, check)]
    if sum(check.kind == "draft" for check in settings.verify) > 1:
        raise _wrong(f"{where}.verify", "a cascade drafts once: leave one check of kind draft")
    if settings.stream == "trust":
        doubts.append(f'{where}.stream: with "trust" streams carry no guarantee: verdicts come too late for them')
    if settings.calibration is None:
        doubts.append(f"{where}.calibration: without one, accepted answers carry no guarantee")
    return doubts


def _wrong(where: str, message: str) -> ConfigError:
    return ConfigError(f"{where}: {message}", param=where)


class Checks:
    """Looks at the checks of one cascade. *classes*: those that the policy chooses for."""

    def __init__(
        self,
        where: str,
        choices: Sequence[Choice],
        classes: Mapping[str, RequestClass],
        lookup: tuple[TargetsOf, Callable[[Target], Collection[str]]],
    ) -> None:
        self._where = where
        self._small = choices[:-1]
        self._classes = classes
        self._targets_of, self._speaks = lookup

    def look(self, place: int, check: Check) -> list[str]:
        """Return what is doubtful about *check*. Raises `ConfigError`."""
        where = f"{self._where}.verify[{place}]"
        look: dict[str, Callable[[str, Check], list[str]]] = {
            "exact": self._exact, "schema": self._schema, "logprob": self._logprob, "groundedness": self._groundedness,
            "agreement": self._agreement, "judge": self._judge, "draft": self._draft,
        }  # fmt: skip
        return look[check.kind](where, check) if check.kind in look else []

    def _exact(self, where: str, _: Check) -> list[str]:
        raise _wrong(f"{where}.kind", "no live request says what answer it expects; exact is for `negawatt eval` alone")

    def _schema(self, where: str, _: Check) -> list[str]:
        doubts = []
        for name, policy in self._classes.items():
            if policy.schema is not None or any(match.schema for match in policy.match):
                continue
            if policy.match and all(match.schema is False for match in policy.match):
                message = f"class {name} matches requests without a schema only: give it one (classes.{name}.schema)"
                raise _wrong(f"{where}.kind", f"{message}, or use another check")
            doubts.append(f"{where}.kind: requests of class {name} that ask for no schema all go to the reference")
        return doubts

    def _logprob(self, where: str, _: Check) -> list[str]:
        for choice in self._small:
            if not any(_TELL & set(self._speaks(target)) for target in choice.targets):
                message = f"no provider of {choice.name} tells probabilities of tokens; use another check"
                raise _wrong(f"{where}.kind", message)
        return []

    def _groundedness(self, where: str, _: Check) -> list[str]:
        return [
            f"{where}.kind: class {name} is of path {policy.path}, not retrieve: without a context nothing passes"
            for name, policy in self._classes.items() if policy.path not in (None, "retrieve")
        ]  # fmt: skip

    def _agreement(self, where: str, check: Check) -> list[str]:
        for model in check.with_models:
            self._served(f"{where}.with_models", model)
            self._not_small(f"{where}.with_models", model, "a model agrees with itself; name another, or leave it out")
        return []

    def _judge(self, where: str, check: Check) -> list[str]:
        if check.model is None:
            return []
        targets = self._served(f"{where}.model", check.model)
        same = [choice.name for choice in self._small if choice.targets[:1] == targets[:1]]
        return [f"{where}.model: {name} judges its own answers" for name in same]

    def _draft(self, where: str, check: Check) -> list[str]:
        if check.model is not None:
            self._served(f"{where}.model", check.model)
            self._not_small(f"{where}.model", check.model, "it drafts itself; name a larger one, or leave it out")
        return []

    def _served(self, where: str, model: str) -> tuple[Target, ...]:
        targets = self._targets_of(model)
        if not targets:
            raise _wrong(where, f"no provider here serves {model!r}; name one that [[models]] or a provider has")
        return targets

    def _not_small(self, where: str, model: str, why: str) -> None:
        mine = [(target.provider, target.model) for target in self._targets_of(model)[:1]]
        for choice in self._small:
            if [(target.provider, target.model) for target in choice.targets[:1]] == mine:
                raise _wrong(where, f"{model!r} is the small model {choice.name}: {why}")
