"""What a model costs, from four places, in this order:

1. the user's own file (``[economics] prices``),
2. genai-prices: dated price sheets that ship with that package; it is never updated over the network,
3. a file in LiteLLM's format (``[economics] litellm_prices``),
4. nowhere: None, which is counted as *unpriced* and is never zero.

A lookup there takes about 0.2 ms, so a `Rate` is resolved once per provider, model, tier and UTC day, and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from negawatt.economics.litellm import LiteLLMPrices
from negawatt.economics.rates import Curve, Rate, Sheet, flat
from negawatt.economics.tables import digest_of, matches, read_table, refuse

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Spans = tuple[tuple[int, Rate | None], ...]  # (from second of the UTC day, prices), ascending; first 0
_MOST_KEPT = 10_000
_STAND_INS = frozenset({"recorded", "modelled"})  # they answer for another provider: found by the model's name
# What a tier is called in a request or an answer, in the terms of genai-prices.
_CONTEXTS: Mapping[str, Mapping[str, str]] = {
    "auto": {},
    "standard": {},
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
_UNITS = {
    "input_mtok": "input_tokens",
    "output_mtok": "output_tokens",
    "cache_read_mtok": "cache_read_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "cache_write_1h_mtok": "cache_write_1h_tokens",
    "output_reasoning_mtok": "reasoning_tokens",
    "input_audio_mtok": "audio_input_tokens",
    "output_audio_mtok": "audio_output_tokens",
    "input_image_mtok": "image_input_tokens",
    "output_image_mtok": "image_output_tokens",
    "cache_audio_read_mtok": "cached_audio_tokens",
    "cache_image_read_mtok": "cached_image_tokens",
    "web_searches_kcount": "web_searches",
    "requests_kcount": "requests",
}


class _Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[price]]`` of the user's file. USD per million tokens, per call, and per search unit."""

    models: _Text | tuple[_Text, ...]  # shell patterns; case does not count
    input_usd_per_mtok: Decimal | None = None  # one of these two, or search_unit_usd
    output_usd_per_mtok: Decimal | None = None
    source: _Text
    checked: date
    provider: str | None = None  # any
    tier: str | None = None  # the standard one
    cache_read_usd_per_mtok: Decimal | None = None  # as input
    cache_write_usd_per_mtok: Decimal | None = None  # as input
    cache_write_1h_usd_per_mtok: Decimal | None = None  # as a shorter cache write
    per_request_usd: Decimal | None = None
    search_unit_usd: Decimal | None = None  # of reranking


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    price: tuple[_Price, ...] = ()


class Prices:
    """Finds rates. Reads *overrides* (TOML) and *litellm* (JSON) at once, genai-prices at the first lookup.

    Raises `ConfigError`, which names the file and the bad value.
    """

    def __init__(self, overrides: Path | None = None, litellm: Path | None = None) -> None:
        self._own = () if overrides is None else _own_prices(overrides)
        self._litellm = None if litellm is None else LiteLLMPrices(litellm)
        self._files = tuple(
            (kind, digest_of(path)) for kind, path in (("overrides", overrides), ("litellm", litellm)) if path
        )
        self._kept: dict[tuple[str | None, str, str | None, int], _Spans] = {}
        self._version: str | None = None

    @property
    def version(self) -> str:
        """What the prices come from, such as ``genai-prices 0.2.3``, with a digest of each further file."""
        if self._version is None:
            from importlib.metadata import version

            parts = [f"genai-prices {version('genai-prices')}", *(f"{kind} {digest}" for kind, digest in self._files)]
            self._version = "; ".join(parts)
        return self._version

    def rate(self, provider: str | None, model: str, at: datetime, *, tier: str | None = None) -> Rate | None:
        """Return the prices of *model* at *provider* as they were at *at* (naive means UTC), None if unknown.

        *provider* None, ``recorded`` and ``modelled`` mean: whoever makes the model. *tier* is the service tier
        (``batch``, ``flex``, ``priority``, ``fast``); `Rate.tier` says whether it has prices of its own.
        """
        zone = at.tzinfo
        if zone is not None and zone is not UTC:
            at = at.astimezone(UTC)
        key = (provider, model, tier, at.toordinal())
        spans = self._kept.get(key)
        if spans is None:
            if len(self._kept) >= _MOST_KEPT:  # callers choose model names: keep the table bounded
                self._kept.clear()
            spans = self._kept[key] = self._spans(provider, model, at.date(), tier)
        if len(spans) == 1:
            return spans[0][1]
        second = at.hour * 3600 + at.minute * 60 + at.second
        return next(rate for start, rate in reversed(spans) if second >= start)

    def _spans(self, provider: str | None, model: str, day: date, tier: str | None) -> _Spans:
        own = self._own_rate(provider, model, tier)
        if own is not None:
            return ((0, own),)
        if provider in _STAND_INS:
            provider = None
        found = _find(provider, model)
        if found is not None:
            spans = _listed(*found, day, tier)
            if any(rate is not None for _, rate in spans):
                return spans
        return ((0, None if self._litellm is None else self._litellm.rate(provider, model, tier)),)

    def _own_rate(self, provider: str | None, model: str, tier: str | None) -> Rate | None:
        known = [
            price for price in self._own if price.provider in (None, provider) and matches(model.lower(), price.models)
        ]
        # An entry for the tier, else one for the standard tier, which then says that it is not for this one.
        price = next((one for one in known if one.tier == tier), next((one for one in known if one.tier is None), None))
        if price is None:
            return None
        return Rate(_own_sheet(price), source="override", provider=provider, model=model, tier=price.tier)


def _own_prices(path: Path) -> tuple[_Price, ...]:
    prices = read_table(path, _File, exact=True).price
    for i, price in enumerate(prices):
        if price.input_usd_per_mtok is None and price.output_usd_per_mtok is None and price.search_unit_usd is None:
            raise refuse(path, f"price[{i}].input_usd_per_mtok", "an entry needs a price of tokens, or search_unit_usd")
        for name in _Price.__struct_fields__:
            value = getattr(price, name)
            if isinstance(value, Decimal) and not (value.is_finite() and value >= 0):
                raise refuse(path, f"price[{i}].{name}", f"a price is a finite number of USD, 0 or more, not {value}")
    return prices


def _own_sheet(price: _Price) -> Sheet:
    sheet = {
        "input_tokens": _optional(price.input_usd_per_mtok),
        "output_tokens": _optional(price.output_usd_per_mtok),
        "cache_read_tokens": _optional(price.cache_read_usd_per_mtok),
        "cache_write_tokens": _optional(price.cache_write_usd_per_mtok),
        "cache_write_1h_tokens": _optional(price.cache_write_1h_usd_per_mtok),
        "requests": _optional(price.per_request_usd, 1),
        "search_units": _optional(price.search_unit_usd, 1),
    }
    return {name: curve for name, curve in sheet.items() if curve}


def _optional(usd: Decimal | None, per: int = 1_000_000) -> Curve:
    return () if usd is None else flat(usd, per)


def _find(provider: str | None, model: str) -> tuple[Provider, ModelInfo] | None:
    """Return the entry of genai-prices; a publisher before a slash may name the provider where none is given."""
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    publisher, _, name = model.rpartition("/")
    ways = [(provider, model)]
    if provider is None and publisher:
        ways += [(None, name), (publisher.rpartition("/")[2], name)]
    # A snapshot of its own for each lookup: the shared one keeps every name it was ever asked for.
    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    for where, what in ways:
        try:
            return snapshot.find_provider_model(what, None, where, None)
        except LookupError:
            continue
    return None


def _listed(provider: Provider, model: ModelInfo, day: date, tier: str | None) -> _Spans:
    """Return the prices of *day*, cut where they change with the hour."""
    midnight = datetime.combine(day, time(), UTC)
    spans: list[tuple[int, Rate | None]] = []
    last: Any = None
    for second in _cuts(model):
        at = midnight + timedelta(seconds=second)
        standard = model.get_prices(at)
        # What one provider resells of another has no variants there.
        context = _context(tier) if any(model is own for own in provider.models) else {}
        prices = model.get_prices(at, context) if context else standard
        if last is not None and prices == last:
            continue
        last = prices
        sheet = _sheet(prices)
        applied = tier if prices != standard else None
        rate = Rate(sheet, source="genai-prices", provider=provider.id, model=model.id, tier=applied) if sheet else None
        spans.append((second, rate))
    return tuple(spans)


def _context(tier: str | None) -> Mapping[str, str]:
    return {} if tier is None else _CONTEXTS.get(tier, {"service_tier": tier})


def _cuts(model: ModelInfo) -> Sequence[int]:
    """Return the seconds of a UTC day at which a price of *model* may change, the first one 0."""
    cuts = {0}
    conditions = model.prices if isinstance(model.prices, list) else ()
    for condition in (*conditions, *(model.price_variants or ())):
        for edge in ("start_time", "end_time"):
            moment = getattr(condition.constraint, edge, None)
            if isinstance(moment, time):
                utc = datetime.combine(date(2000, 1, 1), moment, moment.tzinfo or UTC).astimezone(UTC)
                cuts.add(utc.hour * 3600 + utc.minute * 60 + utc.second)
    return sorted(cuts)


def _sheet(prices: ModelPrice) -> Sheet:
    """Return the prices per token; nothing where tokens have no price (free of charge is not told from unknown)."""
    from genai_prices.types import TieredPrices

    sheet: dict[str, Curve] = {}
    for key, price in vars(prices).items():
        name = _UNITS.get(key)
        if name is None or price is None:
            continue
        per = 1000 if key.endswith("_kcount") else 1_000_000
        if isinstance(price, TieredPrices):
            tiers = sorted((tier.start, tier.price / per) for tier in price.tiers)
            sheet[name] = ((-1, price.base / per), *tiers)
        else:
            sheet[name] = flat(price, per)
    return sheet if "input_tokens" in sheet or "output_tokens" in sheet else {}


def context_window(provider: str | None, model: str) -> int | None:
    """Return the context window of *model* in tokens, by genai-prices; None where it does not say."""
    found = _find(None if provider in _STAND_INS else provider, model)
    return None if found is None else found[1].context_window
