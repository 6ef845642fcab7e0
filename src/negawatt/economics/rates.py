"""What tokens cost: one price for every token, worked out once per model and day.

Prices form a tree: cached input is input, cached audio is both cached input and audio. Only the most special price
of a token counts (leaf accounting). Because leaves are differences of counts, the whole sum is linear in the
reported counts: `Rate` keeps one integer weight per count, so a cost is a handful of integer multiplications,
exact to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from negawatt.economics.usage import Usage

Curve = tuple[tuple[int, Decimal], ...]  # (from more than so many input tokens, USD per token), ascending; first -1
Sheet = Mapping[str, Curve]  # price of each field of Usage; "requests" is the price of one call

# A field that has no price of its own costs what the more general one costs: its tokens are already counted there.
_PARENTS = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "audio_input_tokens": "input_tokens",
    "image_input_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "audio_output_tokens": "output_tokens",
    "image_output_tokens": "output_tokens",
}
_JOINS = {"cached_audio_tokens": "audio_input_tokens", "cached_image_tokens": "image_input_tokens"}
_COMMON = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
# What is counted, but is no token: without a price of its own it has none.
_APART = ("web_searches", "search_units")
_SPECIAL = (*(name for name in _PARENTS if name not in _COMMON), *_JOINS, *_APART)
_MTOK = 1_000_000
_ZERO = Decimal(0)


class Charge(NamedTuple):
    """An amount and who says so: ``provider``, ``override``, ``genai-prices`` or ``litellm``."""

    usd: Decimal
    source: str


class Leaf(NamedTuple):
    """What a call used of one kind, and the *weight* that this has in its cost: of one rate, all in one unit."""

    kind: str  # input, cache_read, output, ...: a name of `kinds`
    quantity: int
    weight: int


class _Weights(NamedTuple):
    """Price per unit of each count, as a difference to what it is part of, in 10^-scale USD."""

    fixed: int
    input: int
    output: int
    read: int
    write: int
    write_1h: int
    special: tuple[tuple[str, int], ...]


class Rate:
    """The prices of one model at one provider at one time.

    *source* is ``override``, ``genai-prices`` or ``litellm``. *provider* and *model* are the entry's own names.
    *tier* is the service tier whose prices these are, None for the standard ones, also when the tier that was
    asked for has no prices of its own.
    """

    __slots__ = (
        "_flat", "_missing", "_scale", "_steps", "input_usd_per_mtok", "model", "output_usd_per_mtok", "provider",
        "reads_cached", "source", "tier",
    )  # fmt: skip

    def __init__(self, sheet: Sheet, *, source: str, provider: str | None, model: str, tier: str | None = None) -> None:
        self.source = source
        self.provider = provider
        self.model = model
        self.tier = tier
        self.input_usd_per_mtok = _base(sheet, "input_tokens")
        self.output_usd_per_mtok = _base(sheet, "output_tokens")
        self.reads_cached = "cache_read_tokens" in sheet
        self._missing = tuple(name for name in ("input_tokens", "output_tokens", *_APART) if name not in sheet)
        starts = sorted({start for curve in sheet.values() for start, _ in curve} | {-1})
        steps = [(start, _marginal({name: _at(curve, start + 1) for name, curve in sheet.items()})) for start in starts]
        self._scale = max(_decimals(price) for _, step in steps for price in step.values())
        self._steps = tuple((start, _weights(step, self._scale)) for start, step in steps)
        self._flat = self._steps[0][1] if len(steps) == 1 else None

    def cost(self, usage: Usage) -> Decimal:
        """Return what *usage* costs, in USD, exactly; what the provider itself reported is not looked at."""
        tokens = usage.input_tokens
        fixed, fresh, output, read, write, write_1h, special = self._flat or self._step(tokens)
        total = (
            fixed
            + tokens * fresh
            + usage.output_tokens * output
            + usage.cache_read_tokens * read
            + usage.cache_write_tokens * write
            + usage.cache_write_1h_tokens * write_1h
        )
        for name, weight in special:
            total += getattr(usage, name) * weight
        return Decimal(total).scaleb(-self._scale)

    def leaves(self, usage: Usage) -> list[Leaf]:
        """Return what *usage* is made of, each token in one place, and what each part has in the cost.

        The weights are in proportion to the prices, and their sum is to `cost` as each is to its part of it, exactly.
        """
        fixed, fresh, output, read, write, write_1h, pairs = self._flat or self._step(usage.input_tokens)
        special = dict(pairs)
        get = special.get
        audio, image = get("audio_input_tokens", 0), get("image_input_tokens", 0)
        each = {
            "input": fresh,
            "cache_read": fresh + read,
            "cache_write": fresh + write,
            "cache_write_1h": fresh + write + write_1h,
            "input_audio": fresh + audio,
            "input_image": fresh + image,
            "cache_read_audio": fresh + read + audio + get("cached_audio_tokens", 0),
            "cache_read_image": fresh + read + image + get("cached_image_tokens", 0),
            "output": output,
            "reasoning": output + get("reasoning_tokens", 0),
            "output_audio": output + get("audio_output_tokens", 0),
            "output_image": output + get("image_output_tokens", 0),
            "web_search": get("web_searches", 0),
            "search_unit": get("search_units", 0),
        }
        found = [Leaf(kind, quantity, quantity * each[kind]) for kind, quantity in kinds(usage)]
        if any(leaf.quantity < 0 for leaf in found):  # reasoning in sound: what is counted twice cannot be told apart
            made = [leaf for leaf in found if leaf.kind in _MADE]
            found = [leaf for leaf in found if leaf.kind not in _MADE]
            found.append(Leaf("output", usage.output_tokens, sum(leaf.weight for leaf in made)))
        return [*found, Leaf("request", 1, fixed)] if fixed else found

    def covers(self, usage: Usage) -> bool:
        """True when all that *usage* counts has a price here, in the tier that it was answered in."""
        return usage.tier == self.tier and not any(getattr(usage, name) for name in self._missing)

    def _step(self, input_tokens: int) -> _Weights:
        # The tier is chosen by the whole input and holds for the whole call.
        weights = self._steps[0][1]
        for start, step in self._steps:
            if input_tokens > start:
                weights = step
        return weights

    def __repr__(self) -> str:
        return f"Rate({self.provider}/{self.model}, {self.input_usd_per_mtok}/{self.output_usd_per_mtok} USD per Mtok)"


_MADE = ("output", "reasoning", "output_audio", "output_image")


def kinds(usage: Usage) -> list[tuple[str, int]]:
    """Return how much *usage* has of each kind, those that it has none of left out: each token in one place."""
    cached_audio, cached_image = usage.cached_audio_tokens, usage.cached_image_tokens
    audio, image = usage.audio_input_tokens - cached_audio, usage.image_input_tokens - cached_image
    read = usage.cache_read_tokens - cached_audio - cached_image
    reasoning, audio_made, image_made = usage.reasoning_tokens, usage.audio_output_tokens, usage.image_output_tokens
    found = (
        ("input", usage.fresh_input_tokens - audio - image),
        ("cache_read", read),
        ("cache_write", usage.cache_write_tokens - usage.cache_write_1h_tokens),
        ("cache_write_1h", usage.cache_write_1h_tokens),
        ("input_audio", audio),
        ("input_image", image),
        ("cache_read_audio", cached_audio),
        ("cache_read_image", cached_image),
        ("output", usage.output_tokens - reasoning - audio_made - image_made),
        ("reasoning", reasoning),
        ("output_audio", audio_made),
        ("output_image", image_made),
        ("web_search", usage.web_searches),
        ("search_unit", usage.search_units),
    )
    return [one for one in found if one[1]]


def charge(usage: Usage, rate: Rate | None) -> Charge | None:
    """Return what *usage* cost: what the provider said, else by *rate*, else None: unpriced, never zero.

    Where a part of it has no price, or its tier has none of its own, the whole is unpriced: part of a price is wrong.
    """
    if usage.cost_usd is not None:
        return Charge(usage.cost_usd, "provider")
    return None if rate is None or not rate.covers(usage) else Charge(rate.cost(usage), rate.source)


def flat(usd: Decimal, per: int = _MTOK) -> Curve:
    """Return the curve of a price of *usd* per *per* tokens, whatever the input."""
    return ((-1, usd / per),)


def _base(sheet: Sheet, name: str) -> Decimal | None:
    return sheet[name][0][1] * _MTOK if name in sheet else None


def _at(curve: Curve, tokens: int) -> Decimal:
    price = curve[0][1]
    for start, later in curve:
        if tokens > start:
            price = later
    return price


def _marginal(prices: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Return what one unit of each count adds, given that the units it is part of are counted too."""
    added = {name: prices.get(name, _ZERO) for name in ("input_tokens", "output_tokens", "requests", *_APART)}
    for name in _PARENTS:
        added[name] = _price(name, prices) - _price(_PARENTS[name], prices)
    read = added["cache_read_tokens"]
    for join, modality in _JOINS.items():
        # A token that is both was given both differences above; it is given its own price instead.
        apart = _price("input_tokens", prices) + read + added[modality]
        if join in prices:
            added[join] = prices[join] - apart
        elif "cache_read_tokens" in prices and modality in prices:
            added[join] = prices["cache_read_tokens"] - apart
    return added


def _price(name: str, prices: Mapping[str, Decimal]) -> Decimal:
    while name not in prices and name in _PARENTS:
        name = _PARENTS[name]
    return prices.get(name, _ZERO)


def _decimals(price: Decimal) -> int:
    exponent = price.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _weights(added: Mapping[str, Decimal], scale: int) -> _Weights:
    whole = {name: int(price.scaleb(scale)) for name, price in added.items()}
    special = tuple((name, whole[name]) for name in _SPECIAL if whole.get(name))
    fresh, output, read, write, write_1h = (whole[name] for name in _COMMON)
    return _Weights(whole["requests"], fresh, output, read, write, write_1h, special)
