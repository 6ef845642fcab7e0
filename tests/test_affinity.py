"""A conversation keeps its model while that is cheaper, counting the prefix cache that a switch would lose."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from choices import ACCOUNTS, MODELS, choice
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ManualClock, bare_call, chat

from negawatt.call import Call
from negawatt.caller import Caller, Hints
from negawatt.economics.counting import TokenCounter
from negawatt.economics.energy import Joules
from negawatt.economics.usage import Usage
from negawatt.routing import affinity as module
from negawatt.routing.affinity import Affinity, cheaper
from negawatt.routing.choice import Choice
from negawatt.routing.costs import Cost, Costs
from negawatt.wire.completions import COMPLETIONS
from negawatt.wire.messages import MESSAGES

SMALL, LARGE = choice("gpt-4o-mini", 1), choice("gpt-4o", 2)
CLAUDE = choice("claude-sonnet-4-5", 2, provider="anthropic")
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long does delivery take?"}]
NEXT = [*TURNS, {"role": "assistant", "content": "Two days."}, {"role": "user", "content": "And to Norway?"}]


def affinity(clock: ManualClock | None = None, ttl_s: float = 300.0) -> Affinity:
    clock = clock or ManualClock()
    return Affinity(ttl_s=ttl_s, clock=clock, models=MODELS, reads_cached=ACCOUNTS.reads_cached)


def asks(messages: list[dict[str, Any]], *, user: str | None = None, tenant: str = "default", **fields: Any) -> Call:
    session = fields.pop("session", None)
    caller = Caller(tenant=tenant, user=user)
    return bare_call(chat(messages=messages, **fields), caller=caller, hints=Hints(session=session))


def used(input_tokens: int, **fields: Any) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=20, **fields)


# -- what is warm ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "warm"), [(1_023, 0), (1_024, 1_024), (2_000, 1_920)])
def test_openai_keeps_long_prompts_in_steps(tokens: int, warm: int):
    """By itself, from 1,024 tokens, 128 at a time."""
    known = affinity()
    known.remember(asks(TURNS), LARGE.targets[0], used(tokens))
    assert known.warm(asks(NEXT), LARGE) == warm
    assert known.warm(asks(NEXT), SMALL) == 0
    assert known.last(asks(NEXT)) == "openai/gpt-4o"


def test_anthropic_keeps_what_is_marked():
    """What it read and wrote, by its own count; nothing where the request marks nothing."""
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    marked = {"model": "m", "max_tokens": 9, "system": system, "messages": TURNS[1:]}
    plain = {**marked, "system": "Be brief."}
    usage = used(5_000, cache_read_tokens=3_000, cache_write_tokens=1_000)
    for request, warm in ((marked, 4_000), (plain, 0)):
        known = affinity()
        known.remember(bare_call(request, wire=MESSAGES), CLAUDE.targets[0], usage)
        assert known.warm(bare_call({**request, "messages": NEXT[1:]}, wire=MESSAGES), CLAUDE) == warm


def test_what_has_no_price_for_cached_input_is_not_warm():
    """Unless the provider says itself that it read from its cache."""
    own = choice("my-own-model", provider="house")
    for usage, warm in ((used(2_048), 0), (used(2_048, cache_read_tokens=1_024), 2_048)):
        known = affinity()
        known.remember(asks(TURNS), own.targets[0], usage)
        assert known.warm(asks(NEXT), own) == warm


@pytest.mark.parametrize(
    "changed",
    [
        [{**TURNS[0], "content": "Be long."}, *NEXT[1:]],
        [TURNS[0], {"role": "user", "content": "How long does delivery take, please?"}, *NEXT[2:]],
        NEXT[:1],
    ],
    ids=["instructions", "first turn", "shorter"],
)
def test_only_the_same_beginning_counts(changed: list[dict[str, Any]]):
    """Also within a session that the caller names: the cache goes by what is said, not by whose it is."""
    for session in (None, "s1"):
        known = affinity()
        known.remember(asks(TURNS, session=session), LARGE.targets[0], used(2_048))
        assert known.warm(asks(changed, session=session), LARGE) == 0
        assert known.warm(asks(NEXT, session=session), LARGE) == 2_048


def test_other_tools_are_another_beginning():
    """They come before everything else in the prompt."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    known = affinity()
    known.remember(asks(TURNS, tools=[tool]), LARGE.targets[0], used(2_048))
    assert known.warm(asks(NEXT, tools=[tool]), LARGE) == 2_048
    assert known.warm(asks(NEXT), LARGE) == 0


def test_a_history_that_was_rewritten_is_cold():
    """An agent that summarises what went before loses the cache, and nobody counts on it."""
    known = affinity()
    known.remember(asks(NEXT), LARGE.targets[0], used(4_096))
    summed_up = [*TURNS, {"role": "assistant", "content": "(a summary)"}, {"role": "user", "content": "Go on."}]
    assert known.warm(asks(summed_up), LARGE) == 0


@pytest.mark.parametrize(
    "other", [{"tenant": "bolt"}, {"user": "bob"}, {"session": "s2"}], ids=["tenant", "user", "session"]
)
def test_nobody_else_s_conversation_counts(other: dict[str, Any]):
    """The same words from another caller say nothing of what theirs has cost."""
    own = {"tenant": "acme", "user": "alice", "session": "s1"}
    known = affinity()
    known.remember(asks(TURNS, **own), LARGE.targets[0], used(2_048))
    assert known.warm(asks(NEXT, **own), LARGE) == 2_048
    assert known.warm(asks(NEXT, **{**own, **other}), LARGE) == 0


def test_a_session_s_name_is_not_mistaken_for_a_beginning():
    """Who names no session cannot be taken for one who does."""
    known = affinity()
    known.remember(asks(TURNS, session="s1"), LARGE.targets[0], used(2_048))
    assert known.last(asks(NEXT)) is None


def test_it_is_forgotten_after_its_lifetime():
    """When the provider has dropped it, as far as is known; each answer makes it last anew."""
    clock = ManualClock()
    known = affinity(clock)
    known.remember(asks(TURNS), LARGE.targets[0], used(2_048))
    clock.now += 299
    assert known.warm(asks(NEXT), LARGE) == 2_048
    known.remember(asks(NEXT), LARGE.targets[0], used(2_304))
    clock.now += 299
    assert known.warm(asks(NEXT), LARGE) == 2_304
    clock.now += 2
    assert (known.warm(asks(NEXT), LARGE), known.last(asks(NEXT))) == (0, None)


def test_with_no_lifetime_nothing_is_remembered():
    """``affinity_s = 0`` turns it off."""
    known = affinity(ttl_s=0)
    known.remember(asks(TURNS), LARGE.targets[0], used(2_048))
    assert known.warm(asks(NEXT), LARGE) == 0 and not known._warm


def test_efforts_are_kept_apart():
    """Whether another effort reads the same cache is for providers to know."""
    low, high = choice("gpt-5", 1, effort="low"), choice("gpt-5", 2, effort="high")
    known = affinity()
    known.remember(asks(TURNS), low.targets[0], used(2_048))
    assert (known.warm(asks(NEXT), low), known.warm(asks(NEXT), high)) == (2_048, 0)


def test_what_is_no_conversation_has_no_affinity():
    """A prompt without turns, and one too long to be read on the way."""
    known = affinity()
    text = bare_call({"model": "m", "prompt": "Once upon a time"}, wire=COMPLETIONS)
    known.remember(text, LARGE.targets[0], used(2_048))
    assert known.warm(text, LARGE) == 0
    long = asks([{"role": "user", "content": "x" * (module._LONGEST + 1)}])
    known.remember(long, LARGE.targets[0], used(2_048))
    assert known.warm(long, LARGE) == 0 and not known._warm


def test_a_shadow_run_and_an_answer_of_unknown_usage_leave_nothing():
    """The one asked nobody, of the other nothing is known."""
    known = affinity()
    known.remember(asks(TURNS), LARGE.targets[0], None)
    known.remember(bare_call(chat(messages=TURNS), shadow=True), LARGE.targets[0], used(2_048))
    assert not known._warm


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """In conversations, in targets of each, and in prompts that are read and never answered."""
    monkeypatch.setattr(module, "_MOST_CONVERSATIONS", 3)
    monkeypatch.setattr(module, "_MOST_READ", 3)
    known = affinity()
    for place in range(10):
        call = asks([{"role": "user", "content": f"question {place}"}])
        assert known.warm(call, LARGE) == 0
    assert len(known._read) == 3
    for place in range(10):
        known.remember(asks([{"role": "user", "content": f"question {place}"}]), LARGE.targets[0], used(2_048))
        known.remember(asks(TURNS), choice(f"gpt-{place}").targets[0], used(2_048))
    assert len(known._warm) == 3
    assert max(len(targets) for targets in known._warm.values()) == module._MOST_TARGETS
    assert len(known._read) <= 3


# -- what is kept ----------------------------------------------------------------------------------------------


def estimates(call: Call, known: Affinity, choices: list[Choice], tokens: int) -> dict[str, Cost]:
    costs = Costs(ACCOUNTS, TokenCounter())
    return {
        one.name: costs.estimate(one, call, input_tokens=tokens, output_tokens=20, warm_tokens=known.warm(call, one))
        for one in choices
    }


def test_a_conversation_keeps_its_model_where_that_is_cheaper():
    """What is warm at the dearer one makes it the cheaper one here; cold, it would not be."""
    cheap, dear = choice("gpt-5.6-luna", 1), choice("gpt-5.4", 1)
    call, known = asks(NEXT), affinity()
    both = [cheap, dear]
    assert known.keep(call, cheap, both, estimates(call, known, both, 100_000)) is cheap
    known.remember(asks(TURNS), dear.targets[0], used(99_968))
    found = estimates(call, known, both, 100_000)
    assert known.warm(call, dear) == 99_968
    assert found[dear.name].usd is not None and found[cheap.name].usd is not None
    assert known.keep(call, cheap, both, found) is dear
    assert known.keep(call, cheap, both, estimates(call, known, both, 1_000_000)) is cheap, "most of it would be cold"


def test_a_lower_tier_is_not_kept_for_its_price():
    """The conversation asked something harder now: quality comes first."""
    call, known = asks(NEXT), affinity()
    known.remember(asks(TURNS), SMALL.targets[0], used(99_968))
    both = [SMALL, LARGE]
    assert known.keep(call, LARGE, both, estimates(call, known, both, 100_000)) is LARGE


def test_what_was_never_asked_is_no_reason_to_switch():
    """A cheaper candidate of a higher tier that the conversation never had is for the policy to choose."""
    call, known = asks(NEXT), affinity()
    bargain = choice("gpt-4.1-nano", 3)
    both = [LARGE, bargain]
    assert known.keep(call, LARGE, both, estimates(call, known, both, 1_000)) is LARGE


MONEY = st.one_of(st.none(), st.decimals("0", "1", places=6))
ENERGY = st.one_of(st.none(), st.floats(0, 1_000))
CANDIDATE = st.tuples(st.integers(0, 4), MONEY, ENERGY)


@settings(max_examples=300, deadline=None)
@given(CANDIDATE, st.lists(CANDIDATE, max_size=5), st.sampled_from(["cost", "energy"]))
def test_it_never_loosens_and_never_costs_more(own: Any, others: Any, order: Any):
    """Whatever is warm and whatever it costs: no lower tier than chosen, and no dearer; the unknown changes nothing."""
    made = [choice(f"model-{place}", tier) for place, (tier, _, _) in enumerate([own, *others])]
    prices = {
        one.name: Cost(usd, None if joules is None else Joules(joules, joules, joules), 1, 1)
        for one, (_, usd, joules) in zip(made, [own, *others], strict=True)
    }
    chosen, rest = made[0], made[1:]
    found = cheaper(chosen, rest, prices, order)

    def key(one: Choice) -> Decimal | float | None:
        cost = prices[one.name]
        return cost.usd if order == "cost" else None if cost.joules is None else cost.joules.central

    assert found.tier >= chosen.tier
    if found is not chosen:
        best, before = key(found), key(chosen)
        assert best is not None and before is not None and best < before
        assert all(key(one) is None or key(one) >= best for one in rest if one.tier >= chosen.tier)  # type: ignore[operator]
    if key(chosen) is None:
        assert found is chosen
