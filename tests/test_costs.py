"""What a candidate would cost before it is asked: from prices, energy, and what calls of its class have used."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from choices import ACCOUNTS, choice
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import EPOCH, bare_call, chat

from negawatt.economics.counting import TokenCounter
from negawatt.economics.usage import Usage
from negawatt.routing import costs as module
from negawatt.routing.costs import USUAL_OUTPUT, Costs, limit_of
from negawatt.wire.embeddings import EMBEDDINGS
from negawatt.wire.messages import MESSAGES
from negawatt.wire.responses import RESPONSES

MINI, LARGE, NANO = choice("gpt-4o-mini"), choice("gpt-4o", 3), choice("gpt-4.1-nano", 2)
NOBODYS = choice("nobody-sells-this")
LOW, HIGH = choice("gpt-5", effort="low"), choice("gpt-5", effort="high")


def costs() -> Costs:
    return Costs(ACCOUNTS, TokenCounter())


def used(input_tokens: int, output_tokens: int) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


# -- one candidate ---------------------------------------------------------------------------------------------


def test_an_estimate_is_what_the_books_would_say_of_it():
    """The same prices and coefficients: what is guessed is only the number of tokens."""
    call = bare_call()
    found = costs().estimate(LARGE, call, input_tokens=1_000, output_tokens=200)
    booked = ACCOUNTS.amount("openai", "gpt-4o", used(1_000, 200), call.received_at)
    assert (found.usd, found.joules) == (booked.cost_usd, booked.joules)
    assert found.usd == (1_000 * Decimal("2.5") + 200 * 10) / 1_000_000


def test_what_is_warm_is_charged_as_such():
    """A cached token of GPT-4o costs half; more cannot be warm than there is."""
    cold, warm, all_warm = (
        costs().estimate(LARGE, bare_call(), input_tokens=1_000, output_tokens=0, warm_tokens=tokens).usd
        for tokens in (0, 800, 5_000)
    )
    assert cold is not None and warm is not None and all_warm is not None
    assert (warm, all_warm) == (cold - 800 * Decimal("1.25") / 1_000_000, cold / 2)


def test_what_has_no_price_has_no_estimate():
    """None, not zero."""
    found = costs().estimate(NOBODYS, bare_call(), input_tokens=1_000)
    assert (found.usd, found.joules) == (None, None)


def test_an_estimate_is_not_kept_among_the_amounts_of_calls():
    """They are priced again and again; guesses are not."""
    before = len(ACCOUNTS._amounts)
    for tokens in range(50):
        costs().estimate(MINI, bare_call(), input_tokens=10_000 + tokens)
    assert len(ACCOUNTS._amounts) == before


def test_input_is_counted_by_the_candidate_s_own_tokenizer():
    """Of the whole request, in the caller's protocol."""
    call = bare_call(chat("How long does delivery take?"))
    found = costs().count(call, MINI)
    assert found.basis in ("exact", "tokenizer", "estimated") and 5 < found.tokens < 40


# -- how long the answer will be -------------------------------------------------------------------------------


def test_an_answer_that_nothing_is_known_of_has_a_usual_length():
    """At most what the request allows, once for each answer that it asks for."""
    said: list[tuple[dict[str, Any], int]] = [
        ({}, USUAL_OUTPUT),
        ({"max_tokens": 50}, 50),
        ({"max_tokens": 100_000}, USUAL_OUTPUT),
        ({"n": 3}, 3 * USUAL_OUTPUT),
        ({"n": 3, "max_completion_tokens": 10}, 30),
    ]
    for fields, tokens in said:
        assert costs().output(MINI, bare_call(chat(**fields))) == (tokens, "constant")


def test_where_nothing_is_written_there_is_no_output():
    """Embeddings cost their input."""
    call = bare_call({"model": "m", "input": "hello"}, wire=EMBEDDINGS)
    assert costs().output(MINI, call).tokens == 0


@pytest.mark.parametrize(
    ("wire", "field"), [(MESSAGES, "max_tokens"), (RESPONSES, "max_output_tokens")], ids=["messages", "responses"]
)
def test_each_protocol_has_its_own_word_for_the_limit(wire: Any, field: str):
    """All of them are read; a limit that is no number is none."""
    assert costs().output(MINI, bare_call({"model": "m", field: 7}, wire=wire)).tokens == 7
    assert limit_of({field: 7}) == 7
    assert limit_of({field: None}) is None
    assert limit_of({field: True}) is None


def test_the_mean_of_a_class_is_learned():
    """First of the candidate itself, else of the class; a few calls are not believed, and other classes say nothing."""
    known = costs()
    call = bare_call(request_class="support")
    for _ in range(4):
        known.learn("support", MINI, used(500, 40))
    assert known.output(MINI, call).basis == "constant"
    known.learn("support", MINI, used(500, 40))
    assert known.output(MINI, call) == (40, "learned")
    assert known.output(LARGE, call) == (40, "class")
    assert known.output(MINI, bare_call()).basis == "constant"
    assert known.output(MINI, bare_call(chat(max_tokens=10), request_class="support")).tokens == 10


def test_efforts_are_learned_apart():
    """The same model writes more where it thinks more."""
    known = costs()
    for _ in range(5):
        known.learn("default", LOW, used(100, 50))
        known.learn("default", HIGH, used(100, 950))
    assert (known.output(LOW, bare_call()).tokens, known.output(HIGH, bare_call()).tokens) == (50, 950)


def test_a_mean_follows_what_changes():
    """After many calls of another length the old ones hardly count."""
    known = costs()
    for length in (1_000, 10):
        for _ in range(2_000):
            known.learn("default", MINI, used(100, length))
    assert known.output(MINI, bare_call()).tokens == 10


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """The oldest means go first."""
    monkeypatch.setattr(module, "_MOST_KEPT", 4)
    known = costs()
    for place in range(10):
        known.learn(f"class {place}", MINI, used(1, 1))
    assert len(known._means) == 4


# -- several ---------------------------------------------------------------------------------------------------


def names(found: Any) -> list[str]:
    return [one.name for one in found.choices]


def test_the_cheapest_comes_first():
    """By price; or by energy, if the policy says so."""
    by_cost = costs().ordered([LARGE, MINI, NANO], "cost", at=EPOCH)
    assert (names(by_cost), by_cost.note) == (["gpt-4.1-nano", "gpt-4o-mini", "gpt-4o"], None)
    by_energy = costs().ordered([LARGE, MINI], "energy", at=EPOCH)
    assert names(by_energy) == ["gpt-4o-mini", "gpt-4o"]


@pytest.mark.parametrize("order", ["cost", "energy"])
def test_where_a_price_is_unknown_the_policy_s_own_order_holds(order: Any):
    """And the reason names the candidate."""
    found = costs().ordered([LARGE, NOBODYS, MINI], order, at=EPOCH)
    assert names(found) == ["gpt-4o", "nobody-sells-this", "gpt-4o-mini"]
    assert found.note is not None and "nobody-sells-this" in found.note


def test_one_model_at_several_efforts_is_asked_at_the_least_first():
    """Their tokens cost the same. Where nothing is said of effort it counts as medium."""
    silent, least = choice("gpt-5"), choice("gpt-5", effort="minimal")
    found = costs().ordered([HIGH, silent, LOW, least], "cost", at=EPOCH)
    assert names(found) == ["gpt-5 at minimal", "gpt-5 at low", "gpt-5", "gpt-5 at high"]


def test_equal_prices_are_told_apart_by_energy():
    """At the same price the smaller one burns less."""
    from negawatt.economics.accounts import Amount
    from negawatt.economics.energy import Joules

    class Priced:
        """Books in which everything costs the same, and *joules* are burned by name."""

        def __init__(self, **joules: float | None) -> None:
            self.joules = joules

        def foreseen(self, provider: str, model: str, usage: Usage, at: float) -> Amount:
            burned = self.joules[model]
            joules = None if burned is None else Joules(burned, burned, burned)
            return Amount(Decimal(1), joules, "test", None)

    a, b, c = choice("a"), choice("b"), choice("c")

    def ordered(**joules: float | None) -> list[str]:
        known = Costs(Priced(**joules), TokenCounter())  # type: ignore[arg-type]
        return names(known.ordered([a, b, c], "cost", at=EPOCH))

    assert ordered(a=3, b=1, c=2) == ["b", "c", "a"]
    assert ordered(a=3, b=None, c=2) == ["a", "b", "c"], "what is unknown cannot be compared"


def test_the_blend_is_that_of_the_class():
    """Where answers are long, what is cheap to read may be dear to write."""
    reads = choice("gpt-4o-mini")  # 0.15 and 0.60
    writes = choice("mistral-large-2512", provider="mistral")
    known = costs()
    inputs = [
        ACCOUNTS.amount(c.targets[0].provider, c.targets[0].model, used(1_000, 0), EPOCH) for c in (reads, writes)
    ]
    assert None not in [amount.cost_usd for amount in inputs]
    for _ in range(5):
        known.learn("long", reads, used(10, 10_000))
    assert known._blend("long") == msgspec_replace(used(10, 10_000))
    assert known._blend("short") == msgspec_replace(used(3_000, 1_000))
    assert known._blend(None) == msgspec_replace(used(3_000, 1_000))


def msgspec_replace(usage: Usage) -> Usage:
    import msgspec

    return msgspec.structs.replace(usage, basis="estimated")


CANDIDATES = [MINI, LARGE, NANO, LOW, HIGH, choice("gpt-4.1"), choice("o3-mini")]


@settings(max_examples=60, deadline=None)
@given(st.permutations(CANDIDATES), st.sampled_from(["cost", "energy"]))
def test_the_order_does_not_depend_on_how_the_policy_is_written(candidates: Any, order: Any):
    """All are there, and none is dearer than the one after it."""
    found = costs().ordered(candidates, order, at=EPOCH)
    assert sorted(names(found)) == sorted(one.name for one in CANDIDATES)
    amounts = [
        ACCOUNTS.amount("openai", one.targets[0].model, used(3_000, 1_000), EPOCH) for one in found.choices
    ]  # fmt: skip
    keys = [a.cost_usd if order == "cost" else a.joules.central for a in amounts if a.joules is not None]
    assert keys == sorted(keys)  # type: ignore[type-var]
    assert names(found) == names(costs().ordered(CANDIDATES, order, at=EPOCH))
