"""What a call used, in tokens, whatever the protocol called it.

The laws that every `Usage` made here keeps:

- input includes what was read from and written to the provider's cache; output includes reasoning;
- details are subsets, never addends: ``cache_read + cache_write <= input``, ``cache_write_1h <= cache_write``,
  ``reasoning <= output``, ``audio + image <= input``, ``cached_audio + cached_image <= cache_read``;
- no count is negative, and a block that says nothing is None, never zeros.

Streams that repeat usage on every chunk send it cumulatively: parse the last block, never add them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

_NOTHING: Mapping[str, Any] = {}
_MOST = 10**12  # tokens; no real count is larger, and larger ones overflow what stores hold
_BASES = ("measured", "estimated", "partial")  # from best to worst
# What providers call the tier that everybody gets, in requests and answers.
_STANDARD = frozenset({"", "auto", "default", "on_demand", "standard", "standard_only"})
_TICKS_PER_USD = Decimal(10**10)  # xAI's cost_in_usd_ticks


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Tokens of one call, or of several added up.

    *basis*: ``measured`` is the provider's own count; ``estimated`` was counted here, without its tokenizer;
    ``partial`` means that the provider gave only one side, so the figure is a lower bound.
    *cost_usd* is what the provider itself said the call cost; None when it said nothing. *tier* is the service tier
    that it says it answered in (``batch``, ``flex``, ``priority``, ...), which has prices of its own; None is standard.
    """

    input_tokens: int  # includes cache reads and cache writes
    output_tokens: int  # includes reasoning
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0  # for any lifetime
    cache_write_1h_tokens: int = 0  # part of cache_write_tokens
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    cached_audio_tokens: int = 0  # part of both cache_read_tokens and audio_input_tokens
    cached_image_tokens: int = 0  # part of both cache_read_tokens and image_input_tokens
    web_searches: int = 0  # done by the provider, charged per search
    search_units: int = 0  # of reranking, where it is charged by them
    cost_usd: Decimal | None = None
    basis: str = "measured"
    tier: str | None = None

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def fresh_input_tokens(self) -> int:
        """Input that was neither read from nor written to a cache."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return both together: the worse basis; a cost only if both have one, a tier only if it is the same."""
        if not isinstance(other, Usage):
            return NotImplemented
        cost = None if self.cost_usd is None or other.cost_usd is None else self.cost_usd + other.cost_usd
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        tier = self.tier if self.tier == other.tier else None
        return Usage(**counts, cost_usd=cost, basis=max(self.basis, other.basis, key=_badness), tier=tier)


COUNTS = tuple(name for name in Usage.__struct_fields__ if name not in ("cost_usd", "basis", "tier"))


def _badness(basis: str) -> int:
    return _BASES.index(basis) if basis in _BASES else len(_BASES)


def with_tier(usage: Usage, tier: object) -> Usage:
    """Return *usage* as answered in *tier*, as the provider calls it; *usage* itself where that is the standard one."""
    if not isinstance(tier, str) or tier in _STANDARD:
        return usage
    return msgspec.structs.replace(usage, tier=tier)


def usage_from_chat(raw: Mapping[str, Any] | None) -> Usage | None:
    """Return the ``usage`` block of a Chat Completions (or embeddings) answer, or None if it says nothing.

    Takes null and missing fields, counts written as strings, and the dialects of OpenAI-compatible providers:
    DeepSeek's ``prompt_cache_hit_tokens``, top-level ``cached_tokens`` and ``reasoning_tokens``, cache fields in
    Anthropic's names, reasoning reported outside ``completion_tokens`` (xAI, Gemini), ``cost`` and
    ``cost_in_usd_ticks``. Never raises on what a provider may send.
    """
    if type(raw) is not dict and not isinstance(raw, Mapping):
        return None
    get = raw.get
    inside = _mapping(get("prompt_tokens_details"))
    outside = _mapping(get("completion_tokens_details"))
    prompt, completion, total = _count(get("prompt_tokens")), _count(get("completion_tokens")), get("total_tokens")
    basis = "measured"
    if prompt is None or completion is None:
        prompt, completion, basis = _incomplete(raw, prompt, completion)
        if prompt is None or completion is None:
            return None
    read = _count(inside.get("cached_tokens")) or _cache_read_elsewhere(raw)
    write = _count(inside.get("cache_write_tokens")) or _cache_write_elsewhere(raw, inside)
    reasoning = _count(outside.get("reasoning_tokens")) or _count(get("reasoning_tokens")) or 0
    if type(total) is not int or total != prompt + completion or reasoning > completion:
        prompt, completion, reasoning = _reconciled(prompt, completion, reasoning, read + write, _count(total))
    if not prompt and not completion:
        return None
    read = read if read < prompt else prompt
    usage = Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read_tokens=read,
        cache_write_tokens=write if write < prompt - read else prompt - read,
        reasoning_tokens=reasoning if reasoning < completion else completion,
        web_searches=_searches(raw),
        cost_usd=_cost(raw),
        basis=basis,
    )
    seen, made = inside.get, outside.get
    if seen("audio_tokens") or seen("image_tokens") or made("audio_tokens") or made("image_tokens"):
        return _with_media(usage, inside, outside)
    return usage


def usage_from_responses(raw: Mapping[str, Any] | None) -> Usage | None:
    """Return the ``usage`` block of an answer of the Responses API, or None if it says nothing. Never raises."""
    if not isinstance(raw, Mapping):
        return None
    details = {"prompt_tokens_details": "input_tokens_details", "completion_tokens_details": "output_tokens_details"}
    return usage_from_chat({**raw, **{chat: raw[own] for chat, own in details.items() if own in raw}})


def usage_from_input(raw: Mapping[str, Any] | None) -> Usage | None:
    """Return the ``usage`` block of an answer that has no output (embeddings, rerank), or None if it says nothing."""
    if not isinstance(raw, Mapping):
        return None
    counts = (_count(raw.get(name)) for name in ("prompt_tokens", "input_tokens", "total_tokens"))
    tokens = next((count for count in counts if count), None)
    if tokens is None:
        return None
    read = _count(_mapping(raw.get("prompt_tokens_details")).get("cached_tokens")) or 0
    return Usage(input_tokens=tokens, output_tokens=0, cache_read_tokens=min(read, tokens), cost_usd=_cost(raw))


def usage_from_cohere(meta: Mapping[str, Any] | None) -> Usage | None:
    """Return what Cohere's ``meta`` bills: search units, or tokens; None if it bills nothing.

    An answer that is billed by search units has no billed tokens, and that is known.
    """
    billed = _mapping(_mapping(meta).get("billed_units"))
    units, read, made = (_count(billed.get(name)) or 0 for name in ("search_units", "input_tokens", "output_tokens"))
    return Usage(input_tokens=read, output_tokens=made, search_units=units) if units or read or made else None


def usage_from_anthropic(raw: Mapping[str, Any] | None) -> Usage | None:
    """Return the ``usage`` block of an Anthropic message, or None if it says nothing.

    There, ``input_tokens`` excludes cache reads and cache writes: they are added. On streams, merge the block of
    ``message_start`` with that of ``message_delta`` first (later non-null fields win). Where the split of cache
    writes by lifetime does not sum to their total, the total holds, and what it leaves is of the 5-minute kind.
    """
    if not isinstance(raw, Mapping):
        return None
    fresh, output = _count(raw.get("input_tokens")), _count(raw.get("output_tokens"))
    read = _count(raw.get("cache_read_input_tokens")) or 0
    split = _mapping(raw.get("cache_creation"))
    one_hour = _count(split.get("ephemeral_1h_input_tokens")) or 0
    five_minutes = _count(split.get("ephemeral_5m_input_tokens")) or 0
    write = _count(raw.get("cache_creation_input_tokens")) or one_hour + five_minutes
    total_input = (fresh or 0) + read + write
    if not total_input and not output:
        return None
    details = _mapping(raw.get("output_tokens_details"))
    return Usage(
        input_tokens=total_input,
        output_tokens=output or 0,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=min(one_hour, write),
        reasoning_tokens=min(_count(details.get("thinking_tokens")) or 0, output or 0),
        web_searches=_searches(raw),
        cost_usd=_cost(raw),
        basis="partial" if output is None or fresh is None else "measured",
    )


def _count(value: Any) -> int | None:
    """Return *value* as a count; None for what is no count (null, negative, NaN, a boolean, prose)."""
    if type(value) is int:
        return value if 0 <= value <= _MOST else None
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if 0 <= number <= _MOST else None


def _mapping(value: Any) -> Mapping[str, Any]:
    if type(value) is dict:
        return value
    return value if isinstance(value, Mapping) else _NOTHING


def _incomplete(
    raw: Mapping[str, Any], prompt: int | None, completion: int | None
) -> tuple[int | None, int | None, str]:
    """Fill the missing side in from other names or from the total; what stays missing makes the usage partial."""
    if prompt is None:
        prompt = _count(raw.get("input_tokens"))
    if prompt is None and "prompt_cache_miss_tokens" in raw:
        hit, miss = _count(raw.get("prompt_cache_hit_tokens")), _count(raw["prompt_cache_miss_tokens"])
        prompt = None if miss is None else miss + (hit or 0)
    if completion is None:
        completion = _count(raw.get("output_tokens"))
    total = _count(raw.get("total_tokens"))
    if prompt is None and completion is None:
        return None, None, "partial"
    if prompt is None:
        known = total is not None and total >= (completion or 0)
        return (total - (completion or 0) if known and total is not None else 0), completion, _basis(known)
    if completion is None:
        known = total is not None and total >= prompt
        return prompt, (total - prompt if known and total is not None else 0), _basis(known)
    return prompt, completion, "measured"


def _basis(known: bool) -> str:
    return "measured" if known else "partial"


def _reconciled(prompt: int, completion: int, reasoning: int, cached: int, total: int | None) -> tuple[int, int, int]:
    """Return (input, output, reasoning) that include what a provider reported beside its counts.

    xAI and Gemini count reasoning in the total but not in ``completion_tokens``; some proxies do so with cached
    input. The gap between the total and its parts says which.
    """
    gap = (total or 0) - prompt - completion
    if reasoning and (gap == reasoning or reasoning > completion):
        return prompt, completion + reasoning, reasoning
    if gap <= 0:
        return prompt, completion, reasoning
    if gap == cached:
        return prompt + cached, completion, reasoning
    return prompt, completion + gap, reasoning or gap


def _cache_read_elsewhere(raw: Mapping[str, Any]) -> int:
    for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"):
        if name in raw:
            return _count(raw[name]) or 0
    return 0


def _cache_write_elsewhere(raw: Mapping[str, Any], inside: Mapping[str, Any]) -> int:
    if "cache_creation_input_tokens" in raw:
        return _count(raw["cache_creation_input_tokens"]) or 0
    return (_count(inside.get("cache_creation_tokens")) or 0) if inside else 0


def _searches(raw: Mapping[str, Any]) -> int:
    if "server_tool_use" in raw:
        return _count(_mapping(raw["server_tool_use"]).get("web_search_requests")) or 0
    return (_count(raw["num_search_queries"]) or 0) if "num_search_queries" in raw else 0


def _cost(raw: Mapping[str, Any]) -> Decimal | None:
    """Return what the provider says the call cost, in USD; None when it says nothing usable."""
    if "cost" in raw:
        stated = raw["cost"]
        if isinstance(stated, Mapping):  # Perplexity
            return _usd(stated.get("total_cost"))
        cost = _usd(stated)
        if cost is not None and raw.get("is_byok") is True:  # OpenRouter charged its fee; the rest went elsewhere
            upstream = _usd(_mapping(raw.get("cost_details")).get("upstream_inference_cost"))
            return None if upstream is None else cost + upstream
        return cost
    if "cost_in_usd_ticks" in raw:
        ticks = _usd(raw["cost_in_usd_ticks"])
        return None if ticks is None else ticks / _TICKS_PER_USD
    return None


def _usd(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def _with_media(usage: Usage, inside: Mapping[str, Any], outside: Mapping[str, Any]) -> Usage:
    """Return *usage* with its audio and image tokens, so split that every input token has one price.

    Where the parts exceed the input and the provider does not say which overlap, the least possible overlap with
    the cache reads is taken; what cannot overlap there counts as text.
    """
    read, everything = usage.cache_read_tokens, usage.input_tokens
    audio = min(_count(inside.get("audio_tokens")) or 0, everything)
    image = min(_count(inside.get("image_tokens")) or 0, everything - audio)
    split = _mapping(inside.get("cached_tokens_details"))
    cached_audio = min(_count(split.get("audio_tokens")) or 0, audio, read)
    cached_image = min(_count(split.get("image_tokens")) or 0, image, read - cached_audio)
    excess = read + usage.cache_write_tokens + audio + image - cached_audio - cached_image - everything
    if excess > 0:
        more = min(excess, audio - cached_audio, read - cached_audio - cached_image)
        cached_audio, excess = cached_audio + more, excess - more
        more = min(excess, image - cached_image, read - cached_audio - cached_image)
        cached_image, excess = cached_image + more, excess - more
        less = min(excess, audio - cached_audio)
        audio, image = audio - less, image - (excess - less)
    made_audio = min(_count(outside.get("audio_tokens")) or 0, usage.output_tokens)
    return msgspec.structs.replace(
        usage,
        audio_input_tokens=audio,
        image_input_tokens=image,
        cached_audio_tokens=cached_audio,
        cached_image_tokens=cached_image,
        audio_output_tokens=made_audio,
        image_output_tokens=min(_count(outside.get("image_tokens")) or 0, usage.output_tokens - made_audio),
    )
