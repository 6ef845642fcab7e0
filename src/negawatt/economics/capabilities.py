"""What models can do: how much they read, in which forms, whether they call tools and think. Data, with its sources.

What neither the shipped table nor the price table says is unknown (None), which is not the same as no.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Literal

import msgspec

from negawatt.economics.tables import matches, plain_name, shipped

Input = Literal["text", "image", "audio", "file"]
Window = Callable[[str | None, str], int | None]
"""The context window of a provider's model, in tokens; None where it is not known."""

_MOST_KEPT = 4_096


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model. None: unknown."""

    context_tokens: int | None = None  # input and output together
    inputs: frozenset[Input] | None = None
    tools: bool | None = None
    efforts: tuple[str, ...] | None = None  # that it can be asked for; none: it takes no such word
    predicts: bool | None = None  # takes a predicted output


class PrefixCache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the providers of some models keep the beginnings of prompts. *marked*: only what the request marks."""

    models: tuple[str, ...]
    source: str
    checked: date
    marked: bool = False
    least_tokens: int = 1_024  # of a prompt; shorter ones are not kept
    step_tokens: int = 128


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of the models that a pattern matches; see the file."""

    models: tuple[str, ...]
    source: str
    checked: date
    context_tokens: int | None = None
    inputs: tuple[Input, ...] | None = None
    tools: bool | None = None
    efforts: tuple[str, ...] | None = None
    predicts: bool | None = None


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    prefix_cache: tuple[PrefixCache, ...]  # the last one is of all models
    model: tuple[_Row, ...]


class KnownModels:
    """Looks up what models can do. *window*: where the context window is asked for that the table does not say."""

    def __init__(self, window: Window | None = None) -> None:
        self._table = shipped("capabilities.toml", _Table)
        self._window = window
        self._kept: dict[tuple[str | None, str], Capabilities] = {}
        self._caches: dict[str, PrefixCache] = {}

    def of(self, model: str, provider: str | None = None) -> Capabilities:
        """Return what *model* can do, as its provider names it. *provider*: its id in the price tables."""
        key = (provider, model)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:  # callers choose model names: keep the table bounded
                self._kept.clear()
            found = self._kept[key] = self._looked_up(model, provider)
        return found

    def prefix_cache(self, model: str) -> PrefixCache:
        """Return how providers keep the beginnings of prompts to *model*; the usual way where nothing is known of it.

        Whether they charge less for what they kept is for the price table to say.
        """
        found = self._caches.get(model)
        if found is None:
            if len(self._caches) >= _MOST_KEPT:
                self._caches.clear()
            name = plain_name(model)
            found = next(row for row in self._table.prefix_cache if matches(name, row.models))
            self._caches[model] = found
        return found

    def _looked_up(self, model: str, provider: str | None) -> Capabilities:
        name = plain_name(model)
        rows = [row for row in self._table.model if matches(name, row.models)]
        inputs = next((row.inputs for row in rows if row.inputs is not None), None)
        context = next((row.context_tokens for row in rows if row.context_tokens is not None), None)
        if context is None and self._window is not None:
            context = self._window(provider, model)
        return Capabilities(
            context_tokens=context,
            inputs=None if inputs is None else frozenset(inputs),
            tools=next((row.tools for row in rows if row.tools is not None), None),
            efforts=next((row.efforts for row in rows if row.efforts is not None), None),
            predicts=next((row.predicts for row in rows if row.predicts is not None), None),
        )
