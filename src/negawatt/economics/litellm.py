"""Prices from a file in LiteLLM's format (``model_prices_and_context_window.json``).

The file is flat: one entry per model, prices as floats per token, with tiers and service tiers in the names of the
keys. It has no dates. An entry whose prices are all zero says nothing here: the file uses zero for "not known" too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from negawatt.economics.rates import Curve, Rate, Sheet
from negawatt.errors import ConfigError

_FIELDS = {
    "input_tokens": "input_cost_per_token",
    "output_tokens": "output_cost_per_token",
    "cache_read_tokens": "cache_read_input_token_cost",
    "cache_write_tokens": "cache_creation_input_token_cost",
    "cache_write_1h_tokens": "cache_creation_input_token_cost_above_1hr",
    "reasoning_tokens": "output_cost_per_reasoning_token",
    "audio_input_tokens": "input_cost_per_audio_token",
    "audio_output_tokens": "output_cost_per_audio_token",
    "image_input_tokens": "input_cost_per_image_token",
    "image_output_tokens": "output_cost_per_image_token",
    "cached_audio_tokens": "cache_read_input_audio_token_cost",
    "requests": "input_cost_per_request",
}
_TIER_SUFFIXES = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}
_THRESHOLD = re.compile(r"_above_(\d+)k_tokens$")
# The file's names of providers, where they differ from ours.
_PROVIDERS = {"google": "gemini", "together": "together_ai", "x-ai": "xai", "fireworks": "fireworks_ai"}


class LiteLLMPrices:
    """The entries of one file. Raises `ConfigError` when it cannot be read or is not in this format."""

    def __init__(self, path: Path) -> None:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: top level: expected an object, one entry per model")
        self._entries: dict[str, Mapping[str, Any]] = {}
        for name, entry in entries.items():
            if not isinstance(entry, dict):
                raise ConfigError(f"{path}: {name}: expected an object with prices", param=name)
            if name != "sample_spec":
                self._entries[name.lower()] = entry

    def rate(self, provider: str | None, model: str, tier: str | None) -> Rate | None:
        """Return the prices of *model*, or None where the file has none, or they are of another provider."""
        wanted = None if provider is None else _PROVIDERS.get(provider.lower(), provider.lower())
        for name in (model.lower(), f"{wanted}/{model}".lower()):
            entry = self._entries.get(name)
            if entry is None or (wanted is not None and _family(entry, name) != wanted):
                continue
            sheet, applied = _sheet(entry, tier)
            if sheet and any(price for curve in sheet.values() for _, price in curve):
                return Rate(sheet, source="litellm", provider=_family(entry, name), model=name, tier=applied)
        return None


def _family(entry: Mapping[str, Any], name: str) -> str:
    return str(entry.get("litellm_provider") or name.partition("/")[0]).lower()


def _sheet(entry: Mapping[str, Any], tier: str | None) -> tuple[Sheet, str | None]:
    suffix = _TIER_SUFFIXES.get(tier or "", "")
    sheet: dict[str, Curve] = {}
    applied = None
    for field, key in _FIELDS.items():
        own, standard = _curve(entry, key, suffix), _curve(entry, key, "")
        if suffix and own:
            applied = tier
        if own or standard:
            sheet[field] = own or standard
    if "input_tokens" not in sheet and "output_tokens" not in sheet:
        return {}, None
    return sheet, applied


def _curve(entry: Mapping[str, Any], key: str, suffix: str) -> Curve:
    """Return the prices under *key*, with those for more than so many thousand input tokens."""
    base = _number(entry.get(key + suffix))
    if base is None:
        return ()
    steps = [(-1, base)]
    for name, value in entry.items():
        if suffix:
            if not name.endswith(suffix):
                continue
            name = name.removesuffix(suffix)
        threshold = _THRESHOLD.search(name)
        price = _number(value)
        if threshold and name[: threshold.start()] == key and price is not None:
            steps.append((int(threshold[1]) * 1000, price))
    return tuple(sorted(steps))


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    price = Decimal(value)
    return price if price.is_finite() and price >= 0 else None
