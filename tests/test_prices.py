"""Prices: every token has one price, unknown is None, and our arithmetic is that of genai-prices to the last digit."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from negawatt.economics.prices import Prices
from negawatt.economics.rates import Rate, charge, flat
from negawatt.economics.usage import Usage
from negawatt.errors import ConfigError

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MODELS = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4o-audio-preview"),
    ("openai", "gpt-5"),
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-5.4"),
    ("openai", "o3"),
    ("openai", "gpt-4.1-nano"),
    ("openai", "gpt-3.5-turbo"),
    ("openai", "gpt-realtime"),
    ("openai", "text-embedding-3-small"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-3-5-haiku-latest"),
    ("anthropic", "claude-opus-4-8"),
    ("anthropic", "claude-3-opus-20240229"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-flash-lite"),
    ("google", "gemini-1.5-pro"),
    ("deepseek", "deepseek-chat"),
    ("deepseek", "deepseek-reasoner"),
    ("mistral", "mistral-large-latest"),
    ("mistral", "open-mixtral-8x7b"),
    ("groq", "llama-3.1-8b-instant"),
    ("groq", "openai/gpt-oss-120b"),
    ("together", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    ("x-ai", "grok-4"),
    ("azure", "gpt-4o"),
    ("aws", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("cohere", "command-r-plus"),
    ("perplexity", "sonar"),
    ("perplexity", "sonar-deep-research"),
    ("openrouter", "openai/gpt-4o"),
]
TIERS = {
    None: None,
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
LAWS = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices()


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Lawful usages of every size, also beyond the thresholds of price tiers."""
    total = draw(st.one_of(st.integers(0, 3000), st.integers(100_000, 1_200_000)))
    output = draw(st.integers(0, 100_000))
    assume(total + output > 0)
    read = draw(st.integers(0, total))
    write = draw(st.integers(0, total - read))
    media = total - read - write
    audio = draw(st.integers(0, media))
    image = draw(st.integers(0, media - audio))
    cached_audio = draw(st.integers(0, min(audio, read)))
    spoken = draw(st.integers(0, output))
    return Usage(
        input_tokens=total,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=draw(st.integers(0, write)),
        reasoning_tokens=draw(st.integers(0, output - spoken)),
        audio_input_tokens=audio,
        image_input_tokens=image,
        cached_audio_tokens=cached_audio,
        cached_image_tokens=draw(st.integers(0, min(image, read - cached_audio))),
        audio_output_tokens=spoken,
        web_searches=draw(st.integers(0, 3)),
    )


def by_genai_prices(provider: str, model: str, usage: Usage, at: datetime, tier: str | None) -> Decimal:
    from genai_prices import Usage as TheirUsage
    from genai_prices import calc_price

    theirs = TheirUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        input_audio_tokens=usage.audio_input_tokens,
        output_audio_tokens=usage.audio_output_tokens,
        input_image_tokens=usage.image_input_tokens,
        cache_audio_read_tokens=usage.cached_audio_tokens,
        cache_image_read_tokens=usage.cached_image_tokens,
        web_searches=usage.web_searches,
    )
    result = calc_price(theirs, model, provider_id=provider, genai_request_timestamp=at, price_context=TIERS[tier])
    return result.total_price


@given(
    which=st.sampled_from(MODELS),
    usage=usages(),
    ago=st.integers(0, 24 * 400),
    tier=st.sampled_from(list(TIERS)),
)
@settings(LAWS, max_examples=300)
def test_a_cost_is_that_of_genai_prices_to_the_last_digit(prices, which, usage, ago, tier):
    """Real models, every kind of token, every price tier, at any hour of the last 400 days."""
    at = NOW - timedelta(hours=ago)
    rate = prices.rate(*which, at, tier=tier)
    assert rate is not None
    assert rate.source == "genai-prices"
    assert rate.cost(usage) == by_genai_prices(*which, usage, at, tier)


@given(which=st.sampled_from(MODELS), usage=usages(), more=st.integers(1, 500_000))
@LAWS
def test_more_tokens_never_cost_less(prices, which, usage, more):
    """Fresh input and output are monotone, also across the cliff of a price tier."""
    rate = prices.rate(*which, NOW)
    cost = rate.cost(usage)
    for field in ("input_tokens", "output_tokens"):
        values = {name: getattr(usage, name) for name in Usage.__struct_fields__}
        assert rate.cost(Usage(**{**values, field: values[field] + more})) >= cost >= 0


@given(a=usages(), b=usages())
@LAWS
def test_two_calls_cost_what_they_cost_apart(prices, a, b):
    """Where there are no tiers, the cost of a sum is the sum of the costs: no token is priced twice."""
    rate = prices.rate("openai", "gpt-4o-audio-preview", NOW)
    assert rate.cost(a) + rate.cost(b) == rate.cost(a + b)


def test_cached_and_reasoning_tokens_are_not_addends(prices):
    """gpt-5 at 1.25, 0.125 and 10 USD per million: checked by hand."""
    rate = prices.rate("openai", "gpt-5", NOW)
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=400_000, reasoning_tokens=90_000)
    assert rate.cost(usage) == Decimal("0.6") * Decimal("1.25") + Decimal("0.4") * Decimal("0.125") + 1
    assert (rate.input_usd_per_mtok, rate.output_usd_per_mtok) == (Decimal("1.25"), 10)


def test_the_tier_of_the_whole_input_prices_the_whole_call(prices):
    """gemini-2.5-pro doubles its input price above 200,000 tokens for all of them."""
    rate = prices.rate("google", "gemini-2.5-pro", NOW)
    assert rate.cost(Usage(input_tokens=200_000, output_tokens=0)) == Decimal("0.25")
    assert rate.cost(Usage(input_tokens=200_001, output_tokens=0)) == Decimal("0.5000025")


def test_a_service_tier_has_its_own_price_and_says_so(prices):
    """Batch is half price; a tier without prices of its own is charged as standard and says None."""
    usage = Usage(input_tokens=1000, output_tokens=1000)
    standard, batch = prices.rate("openai", "gpt-5", NOW), prices.rate("openai", "gpt-5", NOW, tier="batch")
    assert batch.cost(usage) == standard.cost(usage) / 2
    assert (standard.tier, batch.tier) == (None, "batch")
    assert prices.rate("groq", "llama-3.1-8b-instant", NOW, tier="batch").tier is None


def test_prices_of_the_hour_are_those_of_the_hour(prices):
    """DeepSeek was cheaper at night: 17:00 UTC is off-peak, 12:00 is not, whatever the zone it is written in."""
    day = datetime(2025, 6, 2, tzinfo=UTC)
    usage = Usage(input_tokens=1000, output_tokens=1000)
    peak, night = (prices.rate("deepseek", "deepseek-chat", day + timedelta(hours=h)).cost(usage) for h in (12, 17))
    assert night < peak
    elsewhere = (day + timedelta(hours=17)).astimezone(timezone(timedelta(hours=9)))
    assert prices.rate("deepseek", "deepseek-chat", elsewhere).cost(usage) == night


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-4o"),
        ("vllm", "llama-3.1-8b"),
        ("ollama", "llama3.1"),
        (None, "no-such-model"),
        ("openai", "whisper-1"),
        ("openai", ""),
    ],
)
def test_an_unknown_price_is_none(prices, provider, model):
    """Neither a model nobody lists, nor one that is not sold by the token, costs zero."""
    assert prices.rate(provider, model, NOW) is None
    assert charge(Usage(input_tokens=1, output_tokens=1), None) is None


@pytest.mark.parametrize("stand_in", [None, "recorded", "modelled"])
def test_a_stand_in_is_priced_as_the_model_it_stands_for(prices, stand_in):
    """Recorded answers cost what the model that gave them costs; a publisher before a slash names its provider."""
    assert prices.rate(stand_in, "gpt-4-1106-preview", NOW).provider == "openai"
    assert prices.rate(stand_in, "mistralai/Mixtral-8x7B-Instruct-v0.1", NOW).provider == "mistral"


def test_a_rate_is_found_once(prices):
    """The second lookup on a day is the same object."""
    assert prices.rate("openai", "gpt-4o", NOW) is prices.rate("openai", "gpt-4o", NOW + timedelta(minutes=3))


def test_what_the_provider_charged_goes_before_what_we_reckon():
    """A cost that the provider reported is used as it is, with its source."""
    rate = Rate({"input_tokens": flat(Decimal(1))}, source="override", provider=None, model="m")
    usage = Usage(input_tokens=1_000_000, output_tokens=0, cost_usd=Decimal("0.7"))
    assert charge(usage, rate) == (Decimal("0.7"), "provider")
    assert charge(Usage(input_tokens=1_000_000, output_tokens=0), rate) == (Decimal(1), "override")


OVERRIDES = """
[[price]]
provider = "vllm"
models = ["llama-*"]
input_usd_per_mtok = 0.05
output_usd_per_mtok = 0.2
cache_read_usd_per_mtok = 0.005
per_request_usd = 0.0001
source = "our GPU bill"
checked = 2026-11-01

[[price]]
models = "GPT-4o*"
input_usd_per_mtok = 2
output_usd_per_mtok = 8
source = "contract"
checked = 2026-11-01
"""


def test_the_users_own_prices_come_first(tmp_path: Path):
    """An override prices what no table knows, and replaces what one does; fields left out cost as input."""
    file = tmp_path / "prices.toml"
    file.write_text(OVERRIDES)
    prices = Prices(overrides=file)
    own = prices.rate("vllm", "Llama-3.1-8B", NOW)
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400, cache_write_tokens=100)
    assert own.cost(usage) == Decimal("0.0001") + (600 * Decimal("0.05") + 400 * Decimal("0.005") + 20) / 1_000_000
    assert own.source == "override"
    assert prices.rate("openai", "gpt-4o-mini", NOW).output_usd_per_mtok == 8
    assert prices.rate("openai", "gpt-5", NOW).source == "genai-prices"
    assert prices.version.startswith("genai-prices 0.2")
    assert "; overrides " in prices.version


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[[price]]\nmodels = 'x'\n", "price[0]"),
        (OVERRIDES.replace("= 8", "= -8"), "price[1].output_usd_per_mtok"),
        (OVERRIDES.replace("= 8", "= nan"), "price[1].output_usd_per_mtok"),
        (OVERRIDES.replace("= 8", "= 'cheap'"), "price[1].output_usd_per_mtok"),
        (OVERRIDES.replace('source = "contract"', "soruce = 'contract'"), "price[1].soruce"),
        ("price = ", "not valid TOML"),
    ],
)
def test_a_bad_price_file_is_refused_with_its_path(tmp_path: Path, text: str, where: str):
    """The message names the file and the field; nothing is guessed."""
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Prices(overrides=file)
    assert str(file) in caught.value.message
    assert where in caught.value.message


def test_a_missing_price_file_is_refused(tmp_path: Path):
    """A path that leads nowhere is an error, not an empty table."""
    with pytest.raises(ConfigError, match="cannot be read"):
        Prices(overrides=tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Prices(litellm=tmp_path / "none.json")


LITELLM = {
    "sample_spec": {"input_cost_per_token": 0.0, "mode": "one of ..."},
    "gpt-4o": {"input_cost_per_token": 1.0, "litellm_provider": "openai"},
    "together_ai/new/model": {
        "litellm_provider": "together_ai",
        "input_cost_per_token": 1.5e-07,
        "input_cost_per_token_above_200k_tokens": 3e-07,
        "input_cost_per_token_batches": 7.5e-08,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 1.5e-08,
    },
    "ollama/llama3": {"litellm_provider": "ollama", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
}


def test_a_litellm_file_is_asked_last(tmp_path: Path):
    """It fills gaps with its tiers, never overrules genai-prices, and its zeros mean unknown."""
    file = tmp_path / "litellm.json"
    file.write_text(json.dumps(LITELLM))
    prices = Prices(litellm=file)
    rate = prices.rate("together", "new/model", NOW)
    assert rate.source == "litellm"
    usage = Usage(input_tokens=1000, output_tokens=10, cache_read_tokens=100)
    assert rate.cost(usage) == Decimal("0.000135") + Decimal("0.0000015") + Decimal("0.000006")
    assert rate.cost(Usage(input_tokens=200_001, output_tokens=0)) == Decimal("0.0600003")
    batch = prices.rate("together", "new/model", NOW, tier="batch")
    assert (batch.input_usd_per_mtok, batch.output_usd_per_mtok, batch.tier) == (
        Decimal("0.075"),
        Decimal("0.6"),
        "batch",
    )
    assert prices.rate("openai", "gpt-4o", NOW).source == "genai-prices"
    assert prices.rate("ollama", "llama3", NOW) is None
    assert prices.rate("groq", "new/model", NOW) is None
    assert "; litellm " in prices.version


def test_a_file_that_is_not_in_litellms_format_is_refused(tmp_path: Path):
    """The message names the file and the entry."""
    file = tmp_path / "litellm.json"
    for text, what in (("[]", "top level"), ('{"m": 3}', "m: "), ("{", "not valid JSON")):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            Prices(litellm=file)
        assert str(file) in caught.value.message and what in caught.value.message


def test_importing_and_making_prices_does_not_load_the_price_table():
    """genai-prices takes 0.15 s and 35 MB: it is loaded by the first lookup."""
    program = (
        "import sys\nfrom negawatt.economics.prices import Prices\np = Prices()\n"
        "assert 'genai_prices' not in sys.modules\n"
        "from datetime import datetime, UTC\nassert p.rate('openai', 'gpt-4o', datetime.now(UTC))\n"
        "assert 'genai_prices' in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_example_in_the_docs_works(tmp_path: Path):
    """The price file shown in docs/prices.md is read and used."""
    page = (Path(__file__).parent.parent / "docs" / "prices.md").read_text(encoding="utf-8")
    file = tmp_path / "prices.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert Prices(overrides=file).rate("vllm", "llama-3.1-8b", NOW).output_usd_per_mtok == Decimal("0.20")
