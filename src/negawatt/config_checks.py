"""What the types of the configuration cannot say: names that must exist, and must be there once."""

from __future__ import annotations

import re

from negawatt.config import LEVER_NAMES, Config
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
        for name, request_class in config.classes.items():
            for lever in request_class.levers:
                if lever not in LEVER_NAMES:
                    self._refuse(f"classes.{name}.levers.{lever}", "there is no such lever", set(LEVER_NAMES))

    def _once(self, table: str, names: list[str]) -> None:
        for i, name in enumerate(names):
            if name in names[:i]:
                self._refuse(f"{table}[{i}]", f"{name!r} is there twice")

    def _refuse(self, where: str, what: str, known: set[str] | None = None) -> None:
        hint = f"; known: {', '.join(sorted(known)) or 'none'}" if known is not None else ""
        raise ConfigError(f"{self._source}: {where}: {what}{hint}", param=where)
