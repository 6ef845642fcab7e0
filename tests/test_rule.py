"""The acceptance rule: nothing before evidence, no more wrong answers than the budget, and what it says of itself."""

from __future__ import annotations

import functools
from math import comb

import msgspec
import pytest
from streams import NOTHING, Lived, a_rule, lived, word

GOOD = (1.0, 1.3, 1.2, 1.2, 1.2, 1.2, 1.4, 0.9)
POOR = (1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.2, 0.6)
STREAMS = 30


@functools.cache
def streams(delta: float) -> tuple[Lived, ...]:
    return tuple(lived(seed, a_rule(delta, seed=seed)) for seed in range(STREAMS))


@functools.cache
def most_by_chance(alpha: float, n: int, odds: float = 0.001) -> int:
    """Return how many of *n* may happen, each with chance *alpha*, before it is no chance any more."""
    tail, k = 0.0, n
    while k > 0:
        tail += comb(n, k) * alpha**k * (1 - alpha) ** (n - k)
        if tail > odds:
            return k
        k -= 1
    return 0


def test_before_evidence_nothing_is_served():
    """However good a candidate looks: a fresh rule asks the model, and says that it knows nothing."""
    rule = a_rule(0.5)
    for _ in range(300):
        assert rule.decide(GOOD)[:2] == ("miss", 1.0)
    assert (rule.requests, rule.threshold) == (300, 0.0)


@pytest.mark.parametrize("wrong", [True, False])
def test_evidence_of_one_kind_is_no_evidence(wrong: bool):
    """Comparisons that were all right, or all wrong, teach no difference: nothing is served by them."""
    rule = a_rule(0.5)
    for i in range(200):
        assert rule.decide(GOOD).action == "miss"
        rule.learn(word(f"c{i}", GOOD, risk=1.0, wrong=wrong))


@pytest.mark.parametrize("delta", [0.01, 0.02, 0.05])
def test_the_budget_is_kept_as_often_as_promised(delta: float):
    """Of 30 streams no more break the budget than alpha allows by chance, and it does answer."""
    broken = [one for one in streams(delta) if one.wrong > delta * one.requests]
    assert len(broken) <= most_by_chance(0.05, STREAMS)
    assert sum(one.served for one in streams(delta)) > 0.2 * sum(one.requests for one in streams(delta))


def test_where_the_features_say_nothing_next_to_nothing_is_served():
    """A third of all candidates is wrong and nothing tells them apart: a budget of 1 % leaves no room for guesses."""
    found = [lived(seed, a_rule(0.01, seed=seed), weights=NOTHING) for seed in range(10)]
    assert [one.wrong for one in found if one.wrong > 0.01 * one.requests] == []
    assert sum(one.served for one in found) < 0.05 * sum(one.requests for one in found)


@pytest.mark.parametrize("delta", [0.01, 0.02, 0.05])
def test_the_true_share_of_wrong_hits_is_seldom_above_the_estimate(delta: float):
    """The upper end of the interval is one: in at most as many streams as alpha allows there were more."""
    above = [one for one in streams(delta) if one.wrong / one.requests > one.rule.estimate().high]
    assert len(above) <= most_by_chance(0.05, STREAMS)


def test_an_estimate_is_an_interval_about_a_figure():
    """None before the first request; zero while nothing was served; then low, central and high in their order."""
    rule = a_rule()
    assert rule.estimate() is None
    rule.decide(GOOD)
    assert rule.estimate() == (0.0, 0.0, 0.0, 1)
    low, central, high, n = streams(0.02)[0].rule.estimate()
    assert 0 <= low < central < high < 1
    assert n == streams(0.02)[0].requests


def test_a_share_of_what_would_be_served_is_explored():
    """On average about what was asked for; with the chance of it on the case, and the risky ones more often."""
    cases = [case for one in streams(0.05) for case in one.cases if case.action in ("served", "explored")]
    explored = [case for case in cases if case.action == "explored"]
    expected = sum(case.propensity for case in cases)
    assert abs(len(explored) - expected) < 5 * expected**0.5
    assert 0.02 < len(explored) / len(cases) < 0.1
    assert all(0 < case.propensity <= 0.5 for case in cases)
    by_risk = sorted(cases, key=lambda case: case.risk)
    assert by_risk[0].propensity < by_risk[-1].propensity


def test_what_was_lived_through_can_be_replayed():
    """From the cases alone another process comes to the same decisions, whenever and however often it reads them."""
    one = streams(0.02)[3]
    first, second = a_rule(0.02), a_rule(0.02)
    first.replay(one.cases)
    second.replay(one.cases[:700])
    second.replay(one.cases[700:])
    probes = [case.features for case in lived(99, a_rule()).cases if case.features]
    assert [first.risk(probe) for probe in probes] == pytest.approx([second.risk(p) for p in probes], abs=0.01)
    assert first.threshold == pytest.approx(second.threshold, rel=0.1)
    assert first.estimate() == pytest.approx(second.estimate(), rel=0.1)
    assert first.requests == one.rule.requests

    def taken(rule) -> list[bool]:
        return [rule.risk(probe) <= rule.threshold for probe in probes]

    same = sum(a == b for a, b in zip(taken(first), taken(one.rule), strict=True))
    assert same >= 0.97 * len(probes)  # the one refits from time to time, the other at the end
    assert first.estimate().central == pytest.approx(one.rule.estimate().central, rel=0.2)


def test_a_replayed_rule_goes_on_where_the_other_stood():
    """After a restart the budget still holds over all that came before and after."""
    kept = 0
    for seed in range(8):
        before = lived(seed, a_rule(0.02, seed=seed), n=800)
        rule = a_rule(0.02, seed=seed + 100)
        rule.replay(before.cases)
        after = lived(seed + 50, rule, n=800, start=800)
        kept += before.wrong + after.wrong <= 0.02 * 1600
        assert after.served > 0 and after.rule.requests == 1600
    assert kept >= 8 - most_by_chance(0.05, 8)


def test_a_second_word_replaces_the_first():
    """Of one case only the newest judgement counts: a person's, after that of a comparison."""
    cases = [case for case in streams(0.02)[0].cases if case.wrong is not None]
    corrected, straight = a_rule(), a_rule()
    for rule, first in ((corrected, True), (straight, False)):
        rule.replay(cases)
        for i in range(30):
            rule.learn(word(f"p{i}", GOOD, risk=0.02, wrong=first))
            rule.learn(word(f"p{i}", GOOD, risk=None, wrong=False))
    assert corrected.drifts == straight.drifts == 0
    assert corrected.risk(GOOD) == straight.risk(GOOD)


def test_a_word_that_is_not_replaced_counts():
    """Thirty more of a kind that were wrong raise its risk; thirty more that were right lower it."""
    cases = [case for case in streams(0.02)[0].cases if case.wrong is not None]
    risks = []
    for wrong in (False, None, True):
        rule = a_rule()
        rule.replay(cases if wrong is None else cases + [
            msgspec.structs.replace(cases[0], id=f"p{i}", features=GOOD, wrong=wrong) for i in range(30)
        ])  # fmt: skip
        risks.append(rule.risk(GOOD))
    assert risks == sorted(risks) and risks[0] < risks[1] < risks[2]


def test_more_of_the_same_evidence_makes_it_surer():
    """Ten times the comparisons, in the same proportions: less doubt, so less risk, in what was seen to be good."""
    cases = [case for case in streams(0.02)[1].cases if case.wrong is not None][:150]
    risks = []
    for times in (1, 3, 10):
        rule = a_rule()
        rule.replay([msgspec.structs.replace(case, id=f"{case.id}/{k}") for k in range(times) for case in cases])
        risks.append(rule.risk(GOOD))
    assert risks[0] > risks[1] > risks[2]


def test_what_looks_better_is_less_risky():
    """After evidence a candidate that is near and agreed upon is less likely to be wrong than a distant lone one."""
    for one in streams(0.02)[:5]:
        assert one.rule.risk(GOOD) < 0.1 < one.rule.risk(POOR)


def test_a_smaller_budget_never_takes_more():
    """On the same cases the threshold grows with delta, and with alpha."""
    cases = streams(0.02)[2].cases
    for by, values in {"delta": (0.001, 0.005, 0.01, 0.02, 0.05), "alpha": (0.001, 0.01, 0.05, 0.2)}.items():
        thresholds = []
        for value in values:
            rule = a_rule(value) if by == "delta" else a_rule(0.005, alpha=value)
            rule.replay(cases)
            thresholds.append(rule.threshold)
        assert thresholds == sorted(thresholds), by


def test_a_drift_forgets_and_is_counted():
    """When guesses that seemed safe turn out wrong one after the other, all that was learned is dropped at once."""
    rule = a_rule(0.02)
    lived(5, rule)
    assert rule.threshold > 0 and rule.decide(GOOD).action in ("serve", "explore")
    told = [rule.learn(word(f"d{i}", GOOD, risk=rule.risk(GOOD), wrong=True)) for i in range(200) if not rule.drifts]
    assert told[-1] and not any(told[:-1])
    assert (rule.drifts, rule.threshold, rule.requests) == (1, 0.0, 1501)
    assert [rule.decide(GOOD).action for _ in range(100)] == ["miss"] * 100


def test_after_a_drift_it_learns_again():
    """In the new world, from new evidence only; and keeps its budget there."""
    rule = a_rule(0.05)
    lived(6, rule)
    for i in range(200):
        if not rule.drifts:
            rule.learn(word(f"d{i}", GOOD, risk=rule.risk(GOOD), wrong=True))
    after = lived(7, rule)
    assert rule.drifts == 1 and after.served > 0
    assert after.wrong <= 0.05 * after.requests


def test_a_steady_world_seldom_looks_like_a_drift():
    """In 90 streams in which nothing changed, at most a few were forgotten."""
    drifts = [one.rule.drifts for delta in (0.01, 0.02, 0.05) for one in streams(delta)]
    assert sum(drifts) <= 3


def test_a_rule_that_has_seen_much_goes_on_learning():
    """When all places for comparisons are taken, new ones still change what it says."""
    rule = a_rule()  # it has answered nothing, so nothing is a drift
    for i in range(6000):
        rule.learn(word(f"many{i}", GOOD if i % 2 else POOR, wrong=i % 2 == 0))
    before = rule.risk(GOOD)
    for i in range(600):
        rule.learn(word(f"news{i}", GOOD, wrong=True))
    assert before < 0.02 and 0.1 < rule.risk(GOOD) < 1
