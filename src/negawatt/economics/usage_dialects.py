"""A usage block in the words of each protocol, for answers that are put from one into another.

Reading a block back gives the same counts, as far as the protocol has words for them.
"""

from __future__ import annotations

from typing import Any

from negawatt.economics.usage import Usage

_TIERS = frozenset({"batch", "priority"})  # of those that are not standard, what the Messages API knows


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Return *usage* as Chat Completions has it: details are parts of their sums."""
    read: dict[str, Any] = {"cached_tokens": usage.cache_read_tokens}
    made: dict[str, Any] = {"reasoning_tokens": usage.reasoning_tokens}
    for details, more in (
        (read, {"cache_write_tokens": usage.cache_write_tokens, "audio_tokens": usage.audio_input_tokens,
                "image_tokens": usage.image_input_tokens}),
        (made, {"audio_tokens": usage.audio_output_tokens, "image_tokens": usage.image_output_tokens}),
    ):  # fmt: skip
        details.update({name: count for name, count in more.items() if count})
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": read,
        "completion_tokens_details": made,
        **_cost(usage),
    }


def responses_usage(usage: Usage) -> dict[str, Any]:
    """Return *usage* as the Responses API has it."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
        **_cost(usage),
    }


def messages_usage(usage: Usage) -> dict[str, Any]:
    """Return *usage* as the Messages API has it: input leaves out what was read from and written to the cache."""
    found: dict[str, Any] = {
        "input_tokens": usage.fresh_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        **_cost(usage),
    }
    if usage.cache_write_tokens:
        found["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    if usage.reasoning_tokens:
        found["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.web_searches:
        found["server_tool_use"] = {"web_search_requests": usage.web_searches, "web_fetch_requests": 0}
    if usage.tier in _TIERS:
        found["service_tier"] = usage.tier
    return found


def _cost(usage: Usage) -> dict[str, float]:
    return {} if usage.cost_usd is None else {"cost": float(usage.cost_usd)}
