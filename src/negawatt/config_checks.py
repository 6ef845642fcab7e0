"""What the types of the configuration cannot say: names that must exist, and must be there once."""

from __future__ import annotations

import re
from typing import NoReturn

from negawatt.config import LEVER_NAMES, Config
from negawatt.config_budget_checks import check_budgets
from negawatt.config_routes import Policy, Quality
from negawatt.config_success import problem
from negawatt.config_watch_checks import check_alerts
from negawatt.errors import ConfigError

_LAYER = re.compile(r"[\w.-]{1,64}", re.ASCII)


class Problems:
    """What the types alone cannot say: names that must exist, and must be there once."""

    def __init__(self, config: Config, source: str) -> None:
        self._config = config
        self._source = source

    def check(self) -> None:
        config = self._config
        self._once("providers", [p.name for p in config.providers])
        self._once("models", [m.name for m in config.models])
        self._once("keys", [k.id for k in config.keys])
        providers = {p.name for p in config.providers}
        models = {m.name for m in config.models}
        for i, model in enumerate(config.models):
            if model.provider not in providers:
                self._refuse(f"models[{i}].provider", f"no provider is named {model.provider!r}", providers)
            for j, fallback in enumerate(model.fallbacks):
                if fallback not in models:
                    self._refuse(f"models[{i}].fallbacks[{j}]", f"no model is named {fallback!r}", models)
                if fallback == model.name:
                    self._refuse(f"models[{i}].fallbacks[{j}]", "a model cannot be its own fallback")
        for name in config.cache.layers:
            if not _LAYER.fullmatch(name) or name in ("embeddings", "rerank"):
                what = "a layer's name has letters, digits, _, . and -, 64 at most; embeddings and rerank are taken"
                self._refuse(f"cache.layers.{name[:80]}", what)
        semantic = config.levers.semantic_cache
        if semantic.same_answer < semantic.other_answer:
            what = f"expected a similarity of at least other_answer, which is {semantic.other_answer:g}"
            self._refuse("levers.semantic_cache.same_answer", what)
        wrong = config.telemetry.otel.problem()
        if wrong is not None:
            self._refuse(f"telemetry.otel.{wrong[0]}", wrong[1])
        for name, policy in config.policies.items():
            self._policy(name, policy)
        for name, request_class in config.classes.items():
            if request_class.policy is not None and request_class.policy not in config.policies:
                what = f"no policy is named {request_class.policy!r}"
                self._refuse(f"classes.{name}.policy", what, set(config.policies))
            self._quality(f"classes.{name}.quality", request_class.quality)
            structure = request_class.levers.get("structure", config.levers.structure.mode)
            wrong = problem(request_class.success, structure)
            if wrong is not None:
                self._refuse(f"classes.{name}.{wrong[0]}", wrong[1])
            for lever in request_class.levers:
                if lever not in LEVER_NAMES:
                    self._refuse(f"classes.{name}.levers.{lever}", "there is no such lever", set(LEVER_NAMES))
        for i, key in enumerate(config.keys):
            for j, name in enumerate(key.classes or ()):
                if name not in ("default", *config.classes):
                    self._refuse(f"keys[{i}].classes[{j}]", f"no class is named {name!r}", {"default", *config.classes})
        check_alerts(config.alerts, config.classes, self._refuse)
        check_budgets(config, self._refuse)

    def _policy(self, name: str, policy: Policy) -> None:
        where = f"policies.{name}"
        for i, model in enumerate(self._config.models):
            if model.name in (name, "auto"):
                self._refuse(
                    f"models[{i}].name", f"callers who ask for {model.name!r} mean a policy, so no model has it"
                )
        for i, one in enumerate(policy.candidates):
            if one.model == "auto" or one.model in self._config.policies:
                self._refuse(f"{where}.candidates[{i}].model", f"{one.model!r} is a policy, not a model")
        if not policy.candidates:
            self._refuse(f"{where}.candidates", "expected at least one")
        self._once(f"{where}.candidates", [_named(one.model, one.effort) for one in policy.candidates])
        known = {_named(one.model, one.effort) for one in policy.candidates}
        if policy.model is not None and _named(policy.model, policy.effort) not in known:
            self._refuse(f"{where}.model", f"{_named(policy.model, policy.effort)!r} is no candidate", known)
        for i, rule in enumerate(policy.rules):
            if _named(rule.model, rule.effort) not in known:
                self._refuse(f"{where}.rules[{i}].model", f"{_named(rule.model, rule.effort)!r} is no candidate", known)
        self._quality(f"{where}.quality", policy.quality)
        self._means(where, policy)
        self._reached(where, policy)

    def _means(self, where: str, policy: Policy) -> None:
        """Refuse a policy that lacks what its way of choosing needs."""
        if policy.how == "rule" and not policy.rules:
            self._refuse(f"{where}.rules", "how is rule: expected at least one")
        if policy.how == "learned" and policy.router is None:
            self._refuse(f"{where}.router", "how is learned: expected the file that `negawatt eval --router` makes")
        if policy.how == "cascade" and (policy.cascade is None or not policy.cascade.verify):
            self._refuse(f"{where}.cascade.verify", "how is cascade: expected at least one verifier, else every answer "
                         "of the small model would be accepted")  # fmt: skip
        if policy.how in ("learned", "cascade") and len(policy.candidates) < 2:
            self._refuse(f"{where}.candidates", f"how is {policy.how}: expected at least two, a small and a large one")
        if policy.how == "fixed" and policy.model is None and policy.quality is None and len(policy.candidates) > 1:
            self._refuse(
                f"{where}.model", "how is fixed: expected the model, or a quality that `negawatt eval` measured"
            )

    def _reached(self, where: str, policy: Policy) -> None:
        """Refuse a target that no candidate reached when it was evaluated."""
        target = None if policy.quality is None else policy.quality.success
        found = [one for one in policy.candidates if one.success is not None]
        if target is None or policy.how in ("learned", "cascade"):
            return
        if policy.how == "fixed" and policy.model is None and not found:
            what = "no candidate has been evaluated, so none is known to reach the target; run `negawatt eval`"
            self._refuse(f"{where}.candidates", f"{what}, or name the model")
        best = max(found, key=lambda one: one.success.low if one.success else 0.0, default=None)
        if best is None or best.success is None or best.success.low >= target or len(found) < len(policy.candidates):
            return
        what = (
            f"no candidate reached {target:g} when it was evaluated: the best, {_named(best.model, best.effort)}, "
            f"reaches {best.success.low:g} for certain ({best.success.rate:g} of {best.success.n}); lower the target, "
            "add a stronger candidate, or evaluate on more cases"
        )
        self._refuse(f"{where}.quality.success", what)

    def _quality(self, where: str, quality: Quality | None) -> None:
        if quality is not None and quality.success is None and quality.loss is None:
            self._refuse(where, "expected success, or loss")

    def _once(self, table: str, names: list[str]) -> None:
        for i, name in enumerate(names):
            if name in names[:i]:
                self._refuse(f"{table}[{i}]", f"{name!r} is there twice")

    def _refuse(self, where: str, what: str, known: set[str] | None = None) -> NoReturn:
        hint = f"; known: {', '.join(sorted(known)) or 'none'}" if known is not None else ""
        raise ConfigError(f"{self._source}: {where}: {what}{hint}", param=where)


def _named(model: str, effort: str | None) -> str:
    return model if effort is None else f"{model} at {effort}"
