"""Energy: the formulas give the published check values, and every figure is an ordered range with a basis."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negawatt.economics.coefficients import Size
from negawatt.economics.energy import NO_ENERGY, Energy, Joules, own_joules
from negawatt.economics.tables import plain_name
from negawatt.economics.usage import Usage
from negawatt.errors import ConfigError

ENERGY = Energy()
TABLE = ENERGY.coefficients
ROWS = [(model, row) for model in TABLE.models for row in model.rows]
ROW_IDS = [f"{model.name} {row.gpu}" for model, row in ROWS]
LAWS = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
COUNT = st.integers(0, 2_000_000)
KNOWN = [
    ("openai", "gpt-4o", 10.0),
    ("openai", "gpt-4o-mini", 0.6),
    ("anthropic", "claude-opus-4-8", 25.0),
    ("new", "unheard-of", 3.0),
    ("groq", "llama-3.1-8b-instant", 0.08),
    ("together", "deepseek-ai/DeepSeek-R1", 7.0),
    ("together", "Qwen/Qwen2.5-0.5B", 0.1),
    ("vllm", "meta-llama/Llama-3.1-70B-Instruct", None),
    ("ollama", "llama3.1:8b", None),
    ("mistral", "open-mixtral-8x7b", 0.7),
    ("x", "bloom-1760b", None),
    ("together", "llama-3.1-8b-awq", None),
]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    total = draw(COUNT)
    read = draw(st.integers(0, total))
    return Usage(input_tokens=total, output_tokens=draw(COUNT), cache_read_tokens=read)


@pytest.mark.parametrize(("model", "row"), ROWS, ids=ROW_IDS)
def test_the_fit_returns_the_published_values_at_batch_64(model, row):
    """The formula of the fit, to 1 %."""
    size = Size(
        active_b=model.active_b,
        total_b=model.total_b,
        bytes=TABLE.bytes_of(model.precision),
        long_reasoning=model.task == "long_reasoning",
    )
    assert TABLE.fit.output_joules(size, 64, float(row.gpu == "B200")) == pytest.approx(row.fit64, rel=0.01)


@pytest.mark.parametrize(("model", "row"), ROWS, ids=ROW_IDS)
def test_the_table_is_interpolated_through_its_points(model, row):
    """At each measured batch its value; between them straight in ln B; beyond the best one constant."""
    for batch, joules in row.points:
        assert row.output_joules(batch) == pytest.approx(joules)
    for (b0, e0), (b1, e1) in zip(row.points, row.points[1:], strict=False):
        assert row.output_joules(math.sqrt(b0 * b1)) == pytest.approx(math.sqrt(e0 * e1))
    assert row.output_joules(100_000) == row.points[-1][1]
    assert row.output_joules(1) > row.points[0][1]
    if row.itl50 is not None:  # the quickest useful configuration is no better than the best one
        assert row.itl50 >= row.points[-1][1]


def test_prefill_returns_the_check_values():
    """Joules per uncached input token at 40 % utilisation, to 2 % (the values are rounded); fp8 takes half."""
    for active_b, joules in TABLE.checks.prefill:
        assert TABLE.prefill.input_joules(active_b, 0.4) == pytest.approx(joules, rel=0.02)
        assert TABLE.prefill.input_joules(active_b, 0.4, "fp8") == pytest.approx(joules / 2, rel=0.02)


@pytest.mark.parametrize("anchor", TABLE.anchors, ids=[anchor.what for anchor in TABLE.anchors])
def test_each_published_prompt_lies_inside_the_range(anchor):
    """Every whole-prompt figure lies between low and high, and the range is at most 10 times wide."""
    prior = TABLE.prior(anchor.class_)
    rate = ENERGY.rate(
        "somebody", "closed", output_price_usd_per_mtok=prior.below_usd_per_mtok * 0.99 if prior.name != "xl" else 99.0
    )
    low, _, high = rate.joules(Usage(input_tokens=anchor.input_tokens, output_tokens=anchor.output_tokens)).wh
    assert all(low <= wh <= high for wh in anchor.wh)
    assert high / low <= 10


@pytest.mark.parametrize(("provider", "model", "price"), KNOWN)
@given(usage=usages())
@LAWS
def test_low_is_below_central_and_central_below_high(provider, model, price, usage):
    """Whatever the model and the usage; and no range of a plain answer is wider than 10 times."""
    rate = ENERGY.rate(provider, model, output_price_usd_per_mtok=price)
    joules = rate.joules(usage)
    assert 0 <= joules.low <= joules.central <= joules.high
    assert rate.e_out[2] / rate.e_out[0] <= 10


@given(usage=usages(), more=st.integers(1, 100_000), field=st.sampled_from(["input_tokens", "output_tokens"]))
@LAWS
def test_more_tokens_never_take_less_energy(usage, more, field):
    """Monotone in fresh input and in output, also where long context begins."""
    rate = ENERGY.rate("openai", "gpt-4o")
    values = {name: getattr(usage, name) for name in Usage.__struct_fields__}
    larger = rate.joules(Usage(**{**values, field: values[field] + more}))
    smaller = rate.joules(usage)
    assert larger.low >= smaller.low and larger.central > smaller.central and larger.high > smaller.high


def test_the_classes_give_the_reference_figures():
    """Small and frontier at 500 tokens in and 400 out: 0.016 and 0.23 Wh."""
    usage = Usage(input_tokens=500, output_tokens=400)
    assert ENERGY.rate("openai", "gpt-4o-mini").joules(usage).wh[1] == pytest.approx(0.0156, rel=0.01)
    assert ENERGY.rate("openai", "gpt-4o").joules(usage).wh[1] == pytest.approx(0.2333, rel=0.01)


def test_a_cache_hit_spares_everything_but_our_own_work():
    """The whole estimated call, less the CPU time it took us; the range stays ordered."""
    spent = ENERGY.rate("openai", "gpt-4o").joules(Usage(input_tokens=500, output_tokens=400))
    own = ENERGY.own(cpu_seconds=0.002)
    saved = spent - own
    assert saved.central == pytest.approx(spent.central - own.central)
    assert saved.low == spent.low - own.high and saved.high == spent.high - own.low
    assert own.central > 0
    assert (NO_ENERGY - own).central == -own.central


def test_compression_spares_prefill_only():
    """Removed input tokens times e_in; nothing of the output."""
    rate = ENERGY.rate("openai", "gpt-4o")
    before = rate.joules(Usage(input_tokens=5000, output_tokens=400))
    after = rate.joules(Usage(input_tokens=3000, output_tokens=400))
    assert before.central - after.central == pytest.approx(2000 * rate.e_in[1])


def test_a_cap_spares_decode_only():
    """Removed output tokens times e_out."""
    rate = ENERGY.rate("openai", "gpt-4o")
    before = rate.joules(Usage(input_tokens=500, output_tokens=900))
    after = rate.joules(Usage(input_tokens=500, output_tokens=400))
    assert before.central - after.central == pytest.approx(500 * rate.e_out[1])


def test_a_prefix_cache_spares_95_percent_of_that_prefill():
    """Cache reads take 5 % of an input token; decode is unchanged, cache writes cost what input costs."""
    rate = ENERGY.rate("openai", "gpt-4o")
    cold = rate.joules(Usage(input_tokens=5000, output_tokens=100))
    warm = rate.joules(Usage(input_tokens=5000, output_tokens=100, cache_read_tokens=4000))
    assert cold.central - warm.central == pytest.approx(0.95 * 4000 * rate.e_in[1])
    assert rate.joules(Usage(input_tokens=5000, output_tokens=100, cache_write_tokens=4000)) == cold


def test_a_route_spares_the_difference_of_the_two_totals():
    """An 8 B model takes several times less per output token than a 70 B one."""
    usage = Usage(input_tokens=500, output_tokens=400)
    large, small = (ENERGY.rate("together", f"llama-3.1-{size}-instruct").joules(usage) for size in ("70b", "8b"))
    assert (large - small).central == pytest.approx(large.central - small.central)
    assert 4 < large.central / small.central < 10


def test_long_context_costs_more_per_token():
    """Above 8,000 input tokens each one takes 1 + n/60,000 times as much."""
    rate = ENERGY.rate("openai", "gpt-4o")
    assert rate.joules(Usage(input_tokens=8000, output_tokens=0)).central == pytest.approx(8000 * rate.e_in[1])
    assert rate.joules(Usage(input_tokens=60_000, output_tokens=0)).central == pytest.approx(120_000 * rate.e_in[1])


@pytest.mark.parametrize(
    ("provider", "model", "price", "basis", "source"),
    [
        ("groq", "llama-3.1-8b-instant", None, "estimated:table", "table"),
        ("fireworks", "accounts/fireworks/models/llama-v3p1-70b-instruct", None, "estimated:table", "table"),
        ("together", "openai/gpt-oss-120b", None, "estimated:table", "table"),
        (None, "mistralai/Mixtral-8x7B-Instruct-v0.1", 0.7, "estimated:open-weights", "card"),
        ("together", "deepseek-r1-distill-llama-70b", None, "estimated:open-weights", "name"),
        ("together", "llama-3.1-8b-instruct-awq", None, "estimated:open-weights", "table"),
        ("openai", "gpt-4.1-mini-2025-04-14", None, "estimated:class", "map"),
        ("google", "gemini-1.5-flash-8b", 0.15, "estimated:class", "map"),
        ("someone", "new-model", 3.0, "estimated:class", "price"),
    ],
)
def test_each_figure_says_where_it_comes_from(provider, model, price, basis, source):
    """Table before fit before class; a closed model's list before a size in its name; the price last."""
    rate = ENERGY.rate(provider, model, output_price_usd_per_mtok=price)
    assert (rate.basis, rate.class_source, rate.boundary) == (basis, source, "facility")


@pytest.mark.parametrize(
    ("provider", "model", "price"), [("x", "new-model", None), ("x", "", None), ("ollama", "phi", 1.0), ("x", "y", 0.0)]
)
def test_an_unknown_model_has_no_figure(provider, model, price):
    """Neither zero nor a guess; a small machine's energy does not follow from a price."""
    assert ENERGY.rate(provider, model, output_price_usd_per_mtok=price) is None


@pytest.mark.parametrize(
    ("price", "name"),
    [(0.4, "small"), (1.5, "mid"), (4.99, "mid"), (5.0, "frontier"), (30.0, "frontier"), (30.5, "xl"), (600.0, "xl")],
)
def test_the_price_decides_the_class_of_a_model_nobody_lists(price, name):
    """Below 1.5 USD per million output tokens small, to 5 mid, to 30 frontier, above XL."""
    rate = ENERGY.rate("x", "new-model", output_price_usd_per_mtok=price)
    assert rate.e_out == TABLE.prior(name).e_out


def test_an_implausible_figure_is_flagged():
    """Electricity above a tenth of the price means that the model is smaller than thought, or sold below cost."""
    fine = ENERGY.rate("x", "llama-3.1-405b", output_price_usd_per_mtok=3.0)
    odd = ENERGY.rate("x", "llama-3.1-405b", output_price_usd_per_mtok=0.3)
    assert not fine.suspect and odd.suspect
    assert odd.price_share == pytest.approx(fine.price_share * 10)
    # J per token <= price per Mtok / (USD per kWh) * 3.6
    assert fine.price_share == pytest.approx(fine.e_out[1] / (3.0 / TABLE.ceiling.usd_per_kwh * 3.6))


def test_boundaries_are_nested():
    """The accelerators take less than the server, and it less than the facility; each rate names its own."""
    for model in ("llama-3.1-70b", "mixtral-8x7b", "gpt-4o"):
        rates = [Energy(boundary=boundary).rate("x", model) for boundary in ("accelerator", "server", "facility")]
        assert rates[0].e_out[1] < rates[1].e_out[1] < rates[2].e_out[1]
        assert [rate.boundary for rate in rates] == ["accelerator", "server", "facility"]
        assert rates[2].e_out[1] / rates[0].e_out[1] == pytest.approx(1.72)


def test_ones_own_server_has_its_own_batch_and_facility():
    """A known batch narrows the range and moves the figure; hosts keep theirs unknown."""
    busy, quiet = (Energy(batch=batch).rate("vllm", "llama-3.1-70b-instruct") for batch in (256, 8))
    unknown = ENERGY.rate("vllm", "llama-3.1-70b-instruct")
    assert quiet.e_out[1] / busy.e_out[1] > 4
    assert busy.e_out[2] / busy.e_out[0] < unknown.e_out[2] / unknown.e_out[0]
    assert Energy(batch=8).rate("groq", "llama-3.1-70b").batch is None
    assert unknown.k == TABLE.boundary.own_facility != ENERGY.rate("groq", "llama-3.1-70b").k


@pytest.mark.parametrize("batch", [0, 4097])
def test_a_batch_outside_the_evidence_is_refused(batch):
    """Nothing is extrapolated beyond what was measured."""
    with pytest.raises(ConfigError, match="batch"):
        Energy(batch=batch)


def test_a_size_outside_the_fit_widens_the_range():
    """The fit was made on 3 to 405 billion active parameters."""
    inside, outside = ENERGY.rate("x", "model-7b"), ENERGY.rate("x", "model-1b")
    assert outside.e_out[2] / outside.e_out[0] > 1.5 * inside.e_out[2] / inside.e_out[0]


OVERRIDES = """
[[energy]]
models = "llama-3.1-70b*"
provider = "vllm"
joules_per_output_token = [0.4, 0.8, 3.8]
joules_per_input_token = [0.1, 0.2, 0.4]
boundary = "server"
basis = "measured:nvml"
source = "our meter"
checked = 2026-11-01

[[energy]]
models = ["house-model"]
active_b = 20
total_b = 60
precision = "fp8"
source = "model card"
checked = 2026-11-01

[[energy]]
models = "gpt-4o"
class = "small"
source = "a rumour"
checked = 2026-11-01
"""


def test_the_users_own_figures_come_first(tmp_path: Path):
    """Joules, a size or a class, each with its basis, converted to the boundary that is shown."""
    file = tmp_path / "energy.toml"
    file.write_text(OVERRIDES)
    energy = Energy(overrides=file)
    own = energy.rate("vllm", "meta-llama/Llama-3.1-70B-Instruct")
    assert (own.basis, own.class_source) == ("measured:nvml", "override")
    assert own.e_out[1] == pytest.approx(0.8 * TABLE.boundary.own_facility[1] / TABLE.boundary.server[1])
    assert energy.rate("groq", "llama-3.1-70b").basis == "estimated:table"
    assert energy.rate("vllm", "house-model").basis == "estimated:open-weights"
    assert energy.rate("openai", "gpt-4o").e_out == TABLE.prior("small").e_out
    assert energy.version.startswith(ENERGY.version + "; overrides ")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("[0.4, 0.8, 3.8]", "[0.9, 0.8, 3.8]", "energy[0].joules_per_output_token"),
        ("[0.4, 0.8, 3.8]", "[0.4, 0.8]", "energy[0].joules_per_output_token"),
        ('class = "small"', 'class = "huge"', "energy[2].class"),
        ('class = "small"', "", "energy[2]"),
        ('precision = "fp8"', 'precision = "fp7"', "energy[1].precision"),
        ("active_b = 20", "active_b = 200", "energy[1].active_b"),
        ("active_b = 20", "active_b = -1", "energy[1].active_b"),
        ('boundary = "server"', 'boundary = "desk"', "energy[0].boundary"),
        ("total_b", "all_b", "energy[1].all_b"),
    ],
)
def test_a_bad_energy_file_is_refused_with_its_path(tmp_path: Path, old: str, new: str, where: str):
    """The message names the file and the field."""
    file = tmp_path / "energy.toml"
    file.write_text(OVERRIDES.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        Energy(overrides=file)
    assert f"{file}: {where}" in caught.value.message


def test_joules_add_up_and_convert():
    """3,600 J are one watt-hour."""
    total = Joules(1800.0, 3600.0, 7200.0) + Joules(1800.0, 0.0, 0.0)
    assert total.wh == (1.0, 1.0, 2.0)
    assert total.times(0.5) == Joules(1800.0, 1800.0, 3600.0)
    assert own_joules(2.0, (4.0, 8.0, 15.0)) == Joules(8.0, 16.0, 30.0)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("llama3.1:8b", "llama3.1-8b"),
        ("a/b/llama-v3p1-8b", "llama-v3.1-8b"),
    ],
)
def test_names_are_compared_without_their_publisher(name, plain):
    """Hosts write one model in many ways."""
    assert plain_name(name) == plain


def test_a_rate_is_found_once():
    """The second lookup is the same object."""
    assert ENERGY.rate("openai", "gpt-4o") is ENERGY.rate("openai", "gpt-4o")


def test_the_example_in_the_docs_works(tmp_path: Path):
    """The energy file shown in docs/energy.md is read and used."""
    page = (Path(__file__).parent.parent / "docs" / "energy.md").read_text(encoding="utf-8")
    file = tmp_path / "energy.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    energy = Energy(overrides=file)
    assert energy.rate("vllm", "llama-3.1-70b-instruct").basis == "measured:nvml"
    assert energy.rate("x", "some-closed-model-2").e_out == TABLE.prior("mid").e_out
