"""Which policy a call is under, what it asks for, and how its candidates rank."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import ONLY, chat, configured, decisions, virtual, world

from negawatt.errors import ConfigError, InvalidRequest

SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
TWO = [{"model": SMALL}, {"model": LARGE}]
AUTO: dict[str, Any] = {"auto": {"model": SMALL, "candidates": TWO}}


def refused(**tables: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        configured(**tables)
    return raised.value.message


@virtual
async def test_who_asks_for_auto_gets_the_model_of_the_policy():
    """The name is no model's; the decision says which was chosen, and why."""
    async with world(policies=AUTO, levers=ONLY) as w:
        await w.ask(chat(model="auto"))
        assert w.provider.models == [SMALL]
        [row] = w.rows()
        assert row.request_model == "auto"
        assert decisions(row, "route")[0]["detail"]["model"] == SMALL


@virtual
async def test_a_policy_is_asked_for_by_its_name():
    """As if it were a model; other names lead where they led before."""
    policies = {"brave": {"model": SMALL, "candidates": TWO}, "careful": {"model": LARGE, "candidates": TWO}}
    async with world(policies=policies, levers=ONLY) as w:
        for name in ("brave", "careful", LARGE, SMALL):
            await w.ask(chat(model=name))
        assert w.provider.models == [SMALL, LARGE, LARGE, SMALL]


@virtual
async def test_a_policy_takes_over_the_calls_of_models_that_it_names():
    """And of no others."""
    policies = {"auto": {**AUTO["auto"], "replaces": ["gpt-4o*"]}}
    async with world(policies=policies, levers=ONLY) as w:
        for name in (LARGE, "gpt-4o-2024-08-06", "o3"):
            await w.ask(chat(model=name))
        assert w.provider.models == [SMALL, SMALL, "o3"]


@virtual
async def test_the_class_says_which_policy_auto_is():
    """Where it says none, auto is the policy of that name, or the only one."""
    policies = {"brave": {"model": SMALL, "candidates": TWO}, "careful": {"model": LARGE, "candidates": TWO}}
    classes = {"medical": {"policy": "careful"}, "chat": {"policy": "brave"}, "other": {}}
    async with world(policies=policies, classes=classes, levers=ONLY) as w:
        await w.ask(chat(model="auto"), request_class="medical")
        await w.ask(chat(model="auto"), request_class="chat")
        assert w.provider.models == [LARGE, SMALL]
        error = await w.failing(chat(model="auto"), request_class="other")
        assert isinstance(error, InvalidRequest)
        assert "brave, careful" in error.message


@virtual
async def test_the_holdout_and_callers_who_want_no_levers_get_the_reference():
    """The control group is what would have been without routing."""
    async with world(policies=AUTO, levers=ONLY, holdout={"share": 1}) as w:
        await w.ask(chat(model="auto"))
        assert w.provider.models == [LARGE]
    async with world(policies=AUTO, levers=ONLY) as w:
        await w.ask(chat(model="auto"), mode="off")
        await w.ask(chat(model="auto"), mode="shadow")
        assert w.provider.models == [LARGE, LARGE]
        noted, instead = decisions(w.rows()[1], "route")
        assert instead["mode"] == "shadow"
        assert instead["saved"]["cost_pusd"] > 0
        assert noted["mode"] == "shadow"
        assert noted["detail"]["model"] == SMALL


MEASURED = [
    {"model": SMALL, "success": {"rate": 0.85, "low": 0.8, "n": 400}},
    {"model": "gpt-4.1", "success": {"rate": 0.92, "low": 0.88, "n": 400}},
    {"model": LARGE, "success": {"rate": 0.97, "low": 0.95, "n": 400}},
]


@virtual
async def test_the_cheapest_that_was_measured_to_reach_the_target_is_asked():
    """The class's target counts before the policy's; callers may want more, never less."""
    policies = {"auto": {"quality": {"success": 0.75}, "candidates": MEASURED}}
    classes = {"exact": {"quality": {"success": 0.85}}}
    async with world(policies=policies, classes=classes, levers=ONLY) as w:
        for hints in ({}, {"request_class": "exact"}, {"quality": "0.9"}, {"quality": "0.1"}, {"quality": "0.99"}):
            await w.ask(chat(model="auto"), **hints)
        assert w.provider.models == [SMALL, "gpt-4.1", LARGE, SMALL, LARGE]


@virtual
async def test_a_higher_risk_asks_for_a_higher_tier():
    """Whoever says it, class or caller; a lower one of the caller's changes nothing."""
    policies = {"auto": {**AUTO["auto"], "least_tier": {"high": 2}}}
    classes = {"risky": {"risk": "high"}}
    async with world(policies=policies, classes=classes, levers=ONLY) as w:
        await w.ask(chat(model="auto"))
        await w.ask(chat(model="auto"), request_class="risky")
        await w.ask(chat(model="auto"), risk="high")
        await w.ask(chat(model="auto"), request_class="risky", risk="low")
        assert w.provider.models == [SMALL, LARGE, LARGE, LARGE]


@pytest.mark.parametrize(("header", "value"), [("quality", "much"), ("quality", "2"), ("risk", "none")])
@virtual
async def test_a_wrong_word_of_the_caller_is_refused(header: str, value: str):
    """With the header's name."""
    async with world(policies=AUTO) as w:
        error = await w.failing(chat(model="auto"), **{header: value})
        assert isinstance(error, InvalidRequest)
        assert error.param == f"x-negawatt-{header}"


@virtual
async def test_no_cache_gives_an_answer_of_one_policy_to_another():
    """Nor of a lower target to who asked for a higher one; equal ones share."""
    policies = {"brave": {"model": SMALL, "candidates": TWO}, "careful": {"model": LARGE, "candidates": TWO}}
    async with world(policies=policies) as w:
        for name, hints in (("brave", {}), ("careful", {}), ("brave", {"quality": "0.9"}), ("brave", {})):
            await w.ask(chat(model=name), **hints)
        assert w.calls == 3
        assert [row.ending for row in w.rows()] == ["answered", "answered", "answered", "cached"]


@virtual
async def test_a_key_gets_no_model_that_it_may_not_use_unless_it_may_use_the_policy():
    """Who may ask for the policy by its name may have what it chooses."""
    keys = [
        {"id": "large", "key_env": "K1", "models": [LARGE]},
        {"id": "policy", "key_env": "K2", "models": ["auto"]},
    ]
    policies = {"auto": {**AUTO["auto"], "replaces": [LARGE]}}
    async with world(policies=policies, keys=keys, environ={"K1": "one", "K2": "two"}, levers=ONLY) as w:
        await w.ask(chat(model=LARGE), key="one")
        await w.ask(chat(model="auto"), key="two")
        assert w.provider.models == [LARGE, SMALL]


@virtual
async def test_what_only_the_reference_may_take_goes_to_it():
    """And what no candidate may take is refused, with the reason of each."""
    candidates = [{"model": SMALL, "context_tokens": 50}, {"model": LARGE, "context_tokens": 500}]
    policies = {"auto": {"model": SMALL, "candidates": candidates}}
    async with world(policies=policies, levers=ONLY) as w:
        await w.ask(chat("word " * 100, model="auto"))
        assert w.provider.models == [LARGE]
        error = await w.failing(chat("word " * 1000, model="auto"))
        assert SMALL in error.message
        assert LARGE in error.message
        assert "context" in error.message


@virtual
async def test_a_model_that_fails_costs_no_answer():
    """The reference is asked in its place, and both are on the books."""
    from worlds import answer, status

    async with world(policies=AUTO, levers=ONLY) as w:
        w.provider.script = [status(503), answer("from the large one")]
        assert (await w.ask(chat(model="auto"))).text == "from the large one"
        assert w.provider.models == [SMALL, LARGE]


@virtual
async def test_what_routing_saved_is_the_reference_less_what_was_asked():
    """By the price tables, for the same tokens."""
    async with world(policies=AUTO, levers=ONLY) as w:
        await w.ask(chat(model="auto"))
        [row] = w.rows()
        assert row.cost_pusd is not None
        assert row.baseline_cost_pusd is not None
        assert 10 * row.cost_pusd < row.baseline_cost_pusd < 25 * row.cost_pusd


WRONG = [
    ({"auto": {"candidates": []}}, "policies.auto.candidates"),
    ({"auto": {"model": "gpt-5", "candidates": TWO}}, "policies.auto.model"),
    ({"auto": {"candidates": TWO}}, "policies.auto.model"),
    ({"auto": {"model": SMALL, "candidates": [*TWO, {"model": SMALL}]}}, "policies.auto.candidates[2]"),
    ({"auto": {"how": "rule", "candidates": TWO}}, "policies.auto.rules"),
    ({"auto": {"how": "learned", "candidates": TWO}}, "policies.auto.router"),
    ({"auto": {"how": "cascade", "candidates": TWO}}, "policies.auto.cascade.verify"),
    ({"auto": {"how": "learned", "router": "x", "candidates": TWO[:1]}}, "policies.auto.candidates"),
    ({"auto": {"quality": {"success": 0.9}, "candidates": TWO}}, "policies.auto.candidates"),
    ({"auto": {"quality": {"success": 0.99}, "candidates": MEASURED}}, "policies.auto.quality.success"),
    ({"auto": {"model": SMALL, "quality": {}, "candidates": TWO}}, "policies.auto.quality"),
    ({"auto": {"model": SMALL, "how": "best", "candidates": TWO}}, "policies.auto.how"),
    ({"auto": {"model": "auto", "candidates": [{"model": "auto"}]}}, "policies.auto.candidates[0].model"),
]


@pytest.mark.parametrize(("policies", "where"), WRONG)
def test_a_policy_that_cannot_choose_is_refused(policies: dict[str, Any], where: str):
    """With the path of what is wrong, before anything is opened."""
    assert refused(policies=policies).startswith(f"config: {where}: ")


def test_a_class_under_a_policy_that_is_not_there_is_refused():
    """With those that are."""
    assert "classes.a.policy: no policy is named 'b'; known: auto" in refused(
        policies=AUTO, classes={"a": {"policy": "b"}}
    )


def test_the_target_that_no_candidate_reached_is_refused_with_the_best_one_and_the_remedy():
    """So that nobody believes it to be held."""
    message = refused(policies={"auto": {"quality": {"success": 0.99}, "candidates": MEASURED}})
    assert f"the best, {LARGE}, reaches 0.95" in message
    assert "lower the target" in message


@virtual
async def test_a_candidate_that_no_provider_serves_is_refused():
    """By its name, with the remedy."""
    with pytest.raises(ConfigError, match=r"policies\.auto\.candidates\[1\]\.model: no provider here serves 'gpt-9'"):
        async with world(
            providers=[{"name": "openai", "models": [SMALL]}],
            policies={"auto": {"model": SMALL, "candidates": [{"model": SMALL}, {"model": "gpt-9"}]}},
        ):
            pass


@virtual
async def test_candidates_rank_by_their_price_whatever_their_order_in_the_file():
    """The reference is the dearest, unless tiers say otherwise."""
    for candidates, reference in (
        ([{"model": LARGE}, {"model": SMALL}], LARGE),
        ([{"model": LARGE, "tier": 1}, {"model": SMALL, "tier": 2}], SMALL),
    ):
        async with world(policies={"auto": {"model": SMALL, "candidates": candidates}}) as w:
            [ranked] = w.gateway.policies
            assert [choice.candidate.model for choice in ranked.choices] == [SMALL, LARGE]
            assert ranked.reference.candidate.model == reference


@virtual
async def test_the_models_list_names_the_policies():
    """So that a caller can find them."""
    async with world(policies={"careful": {"model": LARGE, "candidates": TWO}}) as w:
        assert w.gateway.catalogue.names() == ["auto", "careful"]


@virtual
async def test_who_asks_for_more_gets_what_was_shown_to_reach_it():
    """A model that nobody measured is the policy's word, not the caller's: the reference is asked."""
    async with world(policies=AUTO, levers=ONLY) as w:
        await w.ask(chat(model="auto"), quality="0.9")
        assert w.provider.models == [LARGE]


@virtual
async def test_only_models_that_write_are_chosen():
    """A policy asked for embeddings is refused; one that takes over a model's calls leaves these alone."""
    from negawatt.wire.embeddings import EMBEDDINGS

    policies = {"auto": {**AUTO["auto"], "replaces": ["text-*"]}}
    async with world(policies=policies) as w:
        with pytest.raises(InvalidRequest, match="not for embeddings"):
            await w.send(w.call({"model": "auto", "input": "x"}, wire=EMBEDDINGS))
        call = w.call({"model": "text-embedding-3-small", "input": "x"}, wire=EMBEDDINGS)
        assert (await w.gateway.arrived(call)).policy is None
