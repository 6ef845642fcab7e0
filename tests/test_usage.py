"""Usage: whatever shape a provider sends, every token is counted once, and nothing becomes a silent zero."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negawatt.economics.usage import COUNTS, Usage, usage_from_anthropic, usage_from_chat

COUNT = st.integers(0, 2_000_000)
JUNK = st.one_of(
    st.sampled_from(
        [None, True, False, "", "many", "-3", "1e400", "nan", [], {}, float("nan"), float("inf"), 10**400, -1]
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**6).map(str),
    st.floats(0, 1e6),
)
LAWS = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_lawful(usage: Usage) -> None:
    assert all(getattr(usage, name) >= 0 for name in COUNTS)
    assert usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert usage.reasoning_tokens <= usage.output_tokens
    assert usage.audio_output_tokens + usage.image_output_tokens <= usage.output_tokens
    assert usage.cached_audio_tokens <= usage.audio_input_tokens
    assert usage.cached_image_tokens <= usage.image_input_tokens
    assert usage.cached_audio_tokens + usage.cached_image_tokens <= usage.cache_read_tokens
    media = usage.audio_input_tokens + usage.image_input_tokens - usage.cached_audio_tokens - usage.cached_image_tokens
    assert usage.cache_read_tokens + usage.cache_write_tokens + media <= usage.input_tokens


def test_an_openai_block_is_read_with_its_details():
    """Cached tokens are a subset of the input and reasoning tokens a subset of the output."""
    usage = usage_from_chat(
        {
            "prompt_tokens": 1200,
            "completion_tokens": 300,
            "total_tokens": 1500,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
        }
    )
    assert usage == Usage(input_tokens=1200, output_tokens=300, cache_read_tokens=1024, reasoning_tokens=64)
    assert usage.total_tokens == 1500
    assert usage.fresh_input_tokens == 176


def test_what_a_model_did_not_take_over_of_a_prediction_is_output():
    """Rejected prediction tokens are part of the completion, and are paid as such: they are not added once more."""
    details = {"reasoning_tokens": 0, "accepted_prediction_tokens": 18, "rejected_prediction_tokens": 10}
    block = {"prompt_tokens": 81, "completion_tokens": 39, "total_tokens": 120, "completion_tokens_details": details}
    usage = usage_from_chat(block)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.basis) == (81, 39, "measured")


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        [],
        "12",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": "many"},
        {"total_tokens": 12},
    ],
)
def test_a_block_that_says_nothing_is_none(raw: Any):
    """Null fields, zeros and prose are not a measurement of zero tokens."""
    assert usage_from_chat(raw) is None
    assert usage_from_anthropic(raw) is None


def test_counts_may_be_strings_and_details_null():
    """Some servers send numbers as strings and details as null."""
    raw = {"prompt_tokens": "12", "completion_tokens": "3.0", "total_tokens": "15", "prompt_tokens_details": None}
    assert usage_from_chat(raw) == Usage(input_tokens=12, output_tokens=3)


def test_a_missing_side_is_taken_from_the_total():
    """Embeddings send the input and the total only."""
    assert usage_from_chat({"prompt_tokens": 8, "total_tokens": 8}) == Usage(input_tokens=8, output_tokens=0)
    assert usage_from_chat({"completion_tokens": 3, "total_tokens": 11}) == Usage(input_tokens=8, output_tokens=3)


def test_a_side_that_nobody_knows_makes_the_usage_partial():
    """A lower bound is marked as one."""
    assert usage_from_chat({"prompt_tokens": 8, "completion_tokens": None}) == Usage(
        input_tokens=8, output_tokens=0, basis="partial"
    )
    assert usage_from_chat({"completion_tokens": 8}) == Usage(input_tokens=0, output_tokens=8, basis="partial")


@pytest.mark.parametrize(
    ("extra", "read", "write"),
    [
        ({"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}, 60, 0),
        ({"cached_tokens": 60}, 60, 0),
        ({"cache_read_input_tokens": 60, "cache_creation_input_tokens": 30}, 60, 30),
        ({"prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}}, 60, 30),
        ({"prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 30}}, 60, 30),
        ({"prompt_tokens_details": {"cached_tokens": 160}}, 100, 0),
    ],
)
def test_cached_tokens_are_found_under_every_name(extra: dict[str, Any], read: int, write: int):
    """DeepSeek, Moonshot, Anthropic-like proxies and OpenRouter each have their own; more than the input is clamped."""
    usage = usage_from_chat({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, **extra})
    assert usage is not None
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.input_tokens) == (read, write, 100)


def test_reasoning_outside_the_completion_is_added():
    """xAI counts reasoning in the total only; the result agrees with its own cost to the last digit."""
    usage = usage_from_chat(
        {
            "prompt_tokens": 10120,
            "completion_tokens": 1499,
            "total_tokens": 14428,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2809},
            "cost_in_usd_ticks": 232856000,
        }
    )
    assert usage is not None
    assert (usage.output_tokens, usage.reasoning_tokens, usage.total_tokens) == (4308, 2809, 14428)
    assert usage.cost_usd == Decimal("0.0232856")


def test_thinking_that_shows_only_in_the_total_is_output():
    """Gemini's compatible endpoint leaves thoughts out of completion_tokens; the parts must sum to the total."""
    usage = usage_from_chat({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623})
    assert usage == Usage(input_tokens=20, output_tokens=603, reasoning_tokens=405)


def test_cached_input_that_shows_only_in_the_total_is_input():
    """Some proxies leave cached tokens out of prompt_tokens; the gap to the total tells."""
    raw = {"prompt_tokens": 31, "completion_tokens": 467, "total_tokens": 1751, "cache_read_input_tokens": 1253}
    assert usage_from_chat(raw) == Usage(input_tokens=1284, output_tokens=467, cache_read_tokens=1253)


@pytest.mark.parametrize(
    ("stated", "cost"),
    [
        ({"cost": 0.00123}, "0.00123"),
        ({"cost": "0.00123"}, "0.00123"),
        ({"cost": {"total_cost": 0.006}}, "0.006"),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, "0.021"),
        ({"cost": 0, "is_byok": True}, None),
        ({"cost": 0}, "0"),
        ({"cost": None}, None),
        ({"cost": -1}, None),
        ({"cost": "NaN"}, None),
    ],
)
def test_the_providers_own_cost_is_kept(stated: dict[str, Any], cost: str | None):
    """What the provider charged is exact; what is no amount of money is unknown, not zero."""
    usage = usage_from_chat({"prompt_tokens": 10, "completion_tokens": 2, **stated})
    assert usage is not None
    assert usage.cost_usd == (None if cost is None else Decimal(cost))


def test_audio_that_overlaps_the_cache_has_one_price():
    """80 cached and 50 audio tokens of 100 must overlap in 30."""
    usage = usage_from_chat(
        {
            "prompt_tokens": 100,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 50},
        }
    )
    assert usage is not None
    assert (usage.audio_input_tokens, usage.cached_audio_tokens) == (50, 30)
    assert_lawful(usage)


def test_anthropics_input_excludes_the_cache_and_ours_does_not():
    """input_tokens is what came after the cached prefix; the lifetimes of cache writes are kept."""
    usage = usage_from_anthropic(
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 50,
            "output_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60},
            "server_tool_use": {"web_search_requests": 2},
        }
    )
    assert usage == Usage(
        input_tokens=160,
        output_tokens=5,
        cache_read_tokens=50,
        cache_write_tokens=100,
        cache_write_1h_tokens=60,
        web_searches=2,
    )


@pytest.mark.parametrize(("one_hour", "kept"), [(0, 0), (60, 60), (140, 100)])
def test_a_split_that_does_not_sum_leaves_the_total_standing(one_hour: int, kept: int):
    """With server tools the split by lifetime may be zero or too large; the total of writes is what counts."""
    split = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": one_hour}
    usage = usage_from_anthropic(
        {"input_tokens": 10, "cache_creation_input_tokens": 100, "output_tokens": 5, "cache_creation": split}
    )
    assert usage is not None
    assert (usage.input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (110, 100, kept)


@given(
    prompt=COUNT, completion=COUNT, cached=COUNT, write=COUNT, reasoning=COUNT, audio=COUNT, image=COUNT, spoken=COUNT
)
@LAWS
def test_no_block_of_counts_breaks_the_laws(prompt, completion, cached, write, reasoning, audio, image, spoken):
    """Details stay subsets, whatever the provider says, and the total is kept when it is consistent."""
    raw = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": write,
            "audio_tokens": audio,
            "image_tokens": image,
        },
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": spoken, "image_tokens": audio},
    }
    usage = usage_from_chat(raw)
    if usage is None:
        assert prompt == completion == 0 and reasoning == 0
        return
    assert_lawful(usage)
    if reasoning <= completion:
        assert usage.total_tokens == prompt + completion


@given(
    raw=st.dictionaries(
        st.sampled_from(
            [
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "cost",
                "cached_tokens",
                "input_tokens",
                "output_tokens",
                "cache_creation_input_tokens",
                "cache_read_input_tokens",
                "cost_in_usd_ticks",
                "num_search_queries",
            ]
        ),
        JUNK,
    ),
    details=st.dictionaries(
        st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "image_tokens"]), JUNK
    ),
)
@LAWS
def test_no_junk_breaks_the_laws(raw, details):
    """Null, NaN, infinity, booleans, prose, negatives and huge numbers never raise and never count."""
    raw = {**raw, "prompt_tokens_details": details, "completion_tokens_details": details, "cache_creation": details}
    for usage in (usage_from_chat(raw), usage_from_anthropic(raw)):
        if usage is not None:
            assert_lawful(usage)
            assert usage.total_tokens > 0
            assert usage.cost_usd is None or usage.cost_usd >= 0


def test_usages_add_up_with_the_worse_basis():
    """A sum is as uncertain as its worst part, and its cost is known only if every part's is."""
    a = Usage(input_tokens=1, output_tokens=2, cost_usd=Decimal("0.5"))
    b = Usage(input_tokens=10, output_tokens=20, reasoning_tokens=5, cost_usd=Decimal("0.25"), basis="estimated")
    assert a + b == Usage(
        input_tokens=11, output_tokens=22, reasoning_tokens=5, cost_usd=Decimal("0.75"), basis="estimated"
    )
    assert (a + Usage(input_tokens=1, output_tokens=1)).cost_usd is None


def test_a_usage_survives_being_stored():
    """Stored as JSON and read again it is equal, so that a ledger can be priced again."""
    usage = Usage(input_tokens=11, output_tokens=22, cache_read_tokens=3, cost_usd=Decimal("0.0000012"))
    assert msgspec.json.decode(msgspec.json.encode(usage), type=Usage) == usage
