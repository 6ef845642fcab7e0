"""Hard rules: what a candidate cannot do, or may not be asked, and the words for it. What is unknown is allowed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from choices import ACCOUNTS, MODELS, choice

from negawatt.caller import Caller
from negawatt.config_routes import Effort, Policy
from negawatt.economics.capabilities import KnownModels
from negawatt.routing.costs import Cost
from negawatt.routing.fits import Fits, Needs, least_tier

FITS = Fits(MODELS, ACCOUNTS)
MINI = choice("gpt-4o-mini", 1)
OWN = choice("my-own-model", 1, provider="house")


def policy(**fields: Any) -> Policy:
    return Policy(candidates=(MINI.candidate,), **fields)


def unfit(one: Any, needs: Needs, *, caller: Caller | None = None, cost: Cost | None = None, **fields: Any) -> str:
    """Return the reason; empty where there is none."""
    return FITS.unfit(one, needs, policy(**fields), caller, cost) or ""


def usd(amount: str | None) -> Cost:
    return Cost(None if amount is None else Decimal(amount), None, 1, 1)


# -- rules -----------------------------------------------------------------------------------------------------


def test_input_and_answer_have_to_fit_the_window():
    """Together; to the last token."""
    for tokens, fits in ((127_000, True), (127_001, False)):
        reason = unfit(MINI, Needs(input_tokens=tokens, output_tokens=1_000))
        assert (reason == "") is fits
    assert reason == "about 128,001 tokens of input and answer; its context window has 128,000"
    assert unfit(MINI, Needs(output_tokens=10**9)) == "", "what was not counted is not known not to fit"
    assert unfit(choice("gpt-4o-mini", context_tokens=500), Needs(input_tokens=501))
    assert unfit(OWN, Needs(input_tokens=10**9)) == "", "nobody knows its window"


@pytest.mark.parametrize("kind", ["image", "audio", "file"])
def test_what_the_request_has_beside_text_has_to_be_taken(kind: str):
    """By what is known of the model, or said of the candidate."""
    needs = Needs(inputs=frozenset({"text", kind}))
    deaf = choice("llama-3.3-70b-instruct", provider="groq")
    assert unfit(deaf, needs) == f"it takes no {kind}"
    assert unfit(deaf, Needs(inputs=frozenset({"text"}))) == ""
    assert unfit(choice("my-own-model", inputs=("text",)), needs) == f"it takes no {kind}"
    assert unfit(choice("llama-3.3-70b-instruct", inputs=("text", kind)), needs) == "", "the policy knows better"
    assert unfit(OWN, needs) == "", "unknown is not no"
    assert unfit(MINI, needs) == ("it takes no audio" if kind == "audio" else "")


def test_tools_have_to_be_called():
    """Only where it is known that they are not."""
    needs = Needs(tools=True)
    assert unfit(choice("m", tools=False), needs) == "it calls no tools"
    assert unfit(OWN, needs) == unfit(MINI, needs) == ""
    assert unfit(choice("m", tools=False), Needs()) == ""


def test_a_region_that_matters_has_to_be_said():
    """Here unknown is no: where data may go is not guessed."""
    rule: dict[str, Any] = {"regions": ("eu", "ch")}
    assert unfit(choice("m", region="eu"), Needs(), **rule) == ""
    assert unfit(choice("m", region="us"), Needs(), **rule) == "in us; allowed: eu, ch"
    assert unfit(choice("m"), Needs(), **rule) == "of a region that is not said; allowed: eu, ch"
    assert unfit(choice("m"), Needs()) == ""


def test_risk_has_a_least_tier():
    """A higher risk never has a lower one than a lesser risk has, whether or not it is said."""
    rule: dict[str, Any] = {"least_tier": {"medium": 2}}
    assert unfit(choice("m", 1), Needs(risk="medium"), **rule) == "of tier 1; risk medium asks for 2 at least"
    assert unfit(choice("m", 1), Needs(risk="high"), **rule)
    assert unfit(choice("m", 2), Needs(risk="high"), **rule) == ""
    assert unfit(choice("m", 1), Needs(risk="low"), **rule) == unfit(choice("m", 1), Needs(), **rule) == ""
    levels = ("low", "medium", "high")
    for said in ({}, {"low": 3}, {"low": 3, "high": 1}, {"high": 2}):
        found = [least_tier(policy(least_tier=said), level) for level in levels]  # type: ignore[arg-type]
        assert found == sorted(found)


def test_a_key_has_its_models():
    """Routing does not widen what a key may use."""
    assert unfit(MINI, Needs(), caller=Caller(models=frozenset({"auto"}))) == "this key may not use it"
    assert unfit(MINI, Needs(), caller=Caller(models=frozenset({"gpt-4o-mini"}))) == ""
    assert unfit(MINI, Needs(), caller=Caller()) == ""


def test_a_call_has_its_most():
    """By the estimate; what has no price does not fit under any limit."""
    rule = {"max_cost_usd": 0.01}
    assert unfit(MINI, Needs(), cost=usd("0.01"), **rule) == ""
    assert unfit(MINI, Needs(), cost=usd("0.0123456"), **rule) == "it would cost about 0.0123 USD, and the most is 0.01"
    assert unfit(MINI, Needs(), cost=usd(None), **rule) == "no price is known of it, and the most is 0.01 USD"
    assert unfit(MINI, Needs(), cost=usd(None)) == unfit(MINI, Needs(), **rule) == ""


def test_what_a_provider_keeps_only_it_can_go_on_from():
    """The conversation is there and nowhere else."""
    assert unfit(MINI, Needs(provider="openai")) == ""
    assert unfit(OWN, Needs(provider="openai")) == "the conversation is kept by openai"


# -- what is known ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "provider", "context", "inputs", "efforts"),
    [
        ("gpt-4o-2024-08-06", "openai", 128_000, {"text", "image", "file"}, ()),
        ("gpt-5-mini", "openai", 400_000, None, ("minimal", "low", "medium", "high")),
        ("openai/gpt-oss-20b", "groq", 131_072, {"text"}, ("low", "medium", "high")),
        ("claude-haiku-4-5-20251001", "anthropic", 200_000, {"text", "image", "file"}, ()),
        ("claude-opus-4-6", "anthropic", 1_000_000, {"text", "image", "file"}, ("low", "medium", "high", "max")),
        (
            "anthropic.claude-opus-4-5-20251101-v1:0",
            "aws",
            200_000,
            {"text", "image", "file"},
            ("low", "medium", "high"),
        ),
        ("gemini-2.5-flash", "google", 1_048_576, {"text", "image", "audio", "file"}, None),
        ("deepseek-chat", "deepseek", 1_000_000, {"text"}, None),
        ("meta-llama/Llama-3.3-70B-Instruct", "together", 128_000, {"text"}, None),
        ("nobody-knows-this", "openai", None, None, None),
    ],
)
def test_the_table_knows_the_usual_families(
    model: str, provider: str, context: int | None, inputs: set[str] | None, efforts: tuple[str, ...] | None
):
    """Whoever serves them, by whatever name; a field that nobody looked up is unknown."""
    found = MODELS.of(model, provider)
    assert (found.context_tokens, found.inputs, found.efforts) == (context, inputs and frozenset(inputs), efforts)


def test_predictions_are_taken_by_few():
    """As OpenAI names them."""
    taken = {name: MODELS.of(name, "openai").predicts for name in ("gpt-4o", "gpt-4.1-nano", "gpt-5", "o3", "mine")}
    assert taken == {"gpt-4o": True, "gpt-4.1-nano": True, "gpt-5": False, "o3": False, "mine": None}


def test_every_row_has_its_source():
    """And says something; efforts are words that a configuration takes."""
    table = KnownModels()._table
    for row in table.model:
        assert row.source and row.models
        said = (row.context_tokens, row.inputs, row.tools, row.efforts, row.predicts)
        assert any(value is not None for value in said), row.models
        assert set(row.efforts or ()) <= set(Effort.__args__)  # type: ignore[attr-defined]
    assert table.prefix_cache[-1].models == ("*",), "there is a rule for every model"


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Callers choose names."""
    from negawatt.economics import capabilities

    monkeypatch.setattr(capabilities, "_MOST_KEPT", 5)
    known = KnownModels()
    for place in range(20):
        known.of(f"model-{place}")
        known.prefix_cache(f"model-{place}")
    assert len(known._kept) <= 5 and len(known._caches) <= 5
