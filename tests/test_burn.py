"""Burn rates: sliding sums, the arithmetic of budgets, and which endings count."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watched import fact

from negawatt.config import parse_config
from negawatt.errors import ConfigError
from negawatt.ledger.outcome import ENDINGS
from negawatt.watch.burn import PAIRS, SHORT, Burn, Rings, Standing, burn_rate
from negawatt.watch.endings import BAD, GOOD, KINDS, LEFT, NOTHING, kind_of
from negawatt.watch.rings import Ring
from negawatt.watch.tally import Tallies
from negawatt.watch.targets import CALLS, ERRORS, WIDTH, Targets, targets_of

DAY_S = 86_400.0
EVENTS = st.lists(
    st.tuples(st.floats(0, 500, allow_nan=False), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60
)


def promised(**slo: Any) -> Targets:
    """Return what is promised of class default."""
    return targets_of(parse_config({"slo": slo}))["default"]


def counts(calls: int, errors: int) -> list[int]:
    found = [0] * WIDTH
    found[CALLS], found[ERRORS] = calls, errors
    return found


@given(EVENTS, st.integers(1, 20))
def test_a_ring_sums_what_fell_into_the_span(events: list[tuple[float, int, int]], slots: int):
    """Whatever the order, the sum is that of the whole slots of the span, the newest included."""
    ring = Ring(10.0, 21, 2)
    newest = max(at for at, _, _ in events)
    for at, one, other in sorted(events):
        ring.add(at, [one, other])
    last = int(newest // 10)
    expected = [(one, other) for at, one, other in events if last - slots < int(at // 10) <= last]
    assert ring.sums(newest, slots * 10.0) == [sum(one for one, _ in expected), sum(other for _, other in expected)]


def test_what_is_older_than_the_ring_does_not_come_back():
    """A slot of long ago neither overwrites the newer one in its place, nor is it counted."""
    ring = Ring(1.0, 5, 1)
    ring.add(102.0, [7])
    ring.add(97.0, [1000])
    assert ring.sums(102.0, 5.0) == [7]
    ring.add(107.0, [1])
    assert ring.sums(107.0, 5.0) == [1]


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.floats(0.0001, 0.9))
def test_a_burn_rate_of_one_uses_the_budget_up_in_the_window(total: int, bad: int, allowed: float):
    """The share of bad events, in units of what is allowed; so what is left is one less the rate over the window."""
    bad = min(bad, total)
    rate = burn_rate(bad, total, allowed)
    assert rate is not None and rate == pytest.approx(bad / (total * allowed))
    objective = promised(error_rate=allowed).objectives[0]
    standing = Standing(objective, total, total - bad, ())
    assert standing.budget_left == pytest.approx(1 - rate)
    if abs(bad - total * allowed) > 1e-6 * total:
        assert standing.kept == (bad <= total * allowed)
    assert burn_rate(0, 0, allowed) is None and Standing(objective, 0, 0, ()).kept is None


@given(st.floats(0.01, 90, allow_nan=False))
def test_windows_keep_the_share_of_the_budget(days: float):
    """Of any window, 2 %, 5 % and 10 % are gone when a pair has burned at its rate for its long window."""
    gone = [pair.rate * pair.part for pair in PAIRS]
    assert gone == pytest.approx([0.02, 0.05, 0.10])
    month = [(30 * DAY_S * pair.part / 3600, 30 * DAY_S * pair.part / SHORT / 60) for pair in PAIRS]
    assert month == [pytest.approx((1, 5)), pytest.approx((6, 30)), pytest.approx((72, 360))]
    assert Rings(days * DAY_S).slot_s == pytest.approx(days * DAY_S / 720 / 120)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 40), st.floats(0.002, 0.05), st.integers(0, 2))
def test_a_steady_rate_is_measured_in_every_window(share: int, allowed: float, place: int):
    """One bad call of *share*, evenly: each window of each pair says so, once they are full."""
    targets, now = promised(error_rate=allowed, window_days=1), 10 * DAY_S
    rings = Rings(targets.window_s)
    step = rings.slot_s
    for back in range(int(targets.window_s / 10 / step)):
        rings.add(now - back * step, counts(share, 1))
    burn = rings.standings(targets, now)[0].burns[place]
    assert burn.long == pytest.approx(1 / share / allowed) and burn.short == pytest.approx(burn.long)


def test_both_windows_must_burn():
    """What is over is no alert, though the long window still burns; what has just begun is none either."""
    pair = PAIRS[0]
    assert Burn(pair, pair.rate, 20.0, 20.0, 9).fires(5)
    assert not Burn(pair, pair.rate, 20.0, 0.0, 9).fires(5)
    assert not Burn(pair, pair.rate, 2.0, 100.0, 9).fires(5)
    assert not Burn(pair, pair.rate, 20.0, None, 9).fires(5)
    assert not Burn(pair, pair.rate, 100.0, 100.0, 4).fires(5)


def test_a_rate_that_wavers_about_the_limit_is_one_alert():
    """Once it fires it does so until a window has fallen to three quarters of the limit."""
    pair = PAIRS[0]
    wavering = Burn(pair, pair.rate, 13.0, 12.0, 9)
    assert not wavering.fires(5) and wavering.fires(5, already=True)
    assert not Burn(pair, pair.rate, 13.0, 10.0, 9).fires(5, already=True)


def test_an_outage_is_urgent_also_where_much_is_allowed():
    """Of a promise that allows 30 %, a rate of 14.4 cannot be; when all calls fail, all pairs fire."""
    targets = promised(error_rate=0.3, window_days=30)
    rings, now = Rings(targets.window_s), 100 * DAY_S
    for back in range(3600):
        rings.add(now - back, counts(1, 1))
    standing = rings.standings(targets, now)[0]
    burn = standing.firing(targets.least_bad)
    assert burn is not None and burn.pair.name == "fast" and burn.limit == pytest.approx(3.0)


# Every ending, and what it says: kind, and the counts of calls and errors that it makes.
TABLE: list[tuple[dict[str, Any], int]] = [
    ({"ending": "answered"}, GOOD), ({"ending": "cached"}, GOOD), ({"ending": "coalesced"}, GOOD),
    ({"ending": "upstream_error", "status": 500, "error_type": "UpstreamStatus"}, BAD),
    ({"ending": "upstream_error", "status": 429, "error_type": "UpstreamStatus"}, BAD),
    ({"ending": "upstream_error", "status": 401, "error_type": "UpstreamStatus"}, BAD),
    ({"ending": "upstream_error", "status": 400, "error_type": "UpstreamStatus"}, NOTHING),
    ({"ending": "upstream_error", "status": 422, "error_type": "UpstreamStatus"}, NOTHING),
    ({"ending": "upstream_error", "status": 502, "error_type": "UpstreamConnectError"}, BAD),
    ({"ending": "upstream_broken", "status": 200, "error_type": "UpstreamBroken"}, BAD),
    ({"ending": "deadline", "status": 504}, BAD), ({"ending": "failed", "status": None}, BAD),
    ({"ending": "refused", "status": 400, "error_type": "InvalidRequest"}, NOTHING),
    ({"ending": "refused", "status": 429, "error_type": "BudgetExceeded"}, NOTHING),
    ({"ending": "refused", "status": 429, "error_type": "RateLimited"}, BAD),
    ({"ending": "cancelled"}, LEFT), ({"ending": "abandoned"}, LEFT),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "kind"), TABLE, ids=lambda one: str(one))
def test_each_ending_counts_as_it_is_documented(fields: dict[str, Any], kind: int):
    """Good and bad are calls; what the caller did, or stopped waiting for, is none."""
    assert kind_of(fact(**fields)) == kind
    tallies = Tallies(targets_of(parse_config({"slo": {"error_rate": 0.1}})))
    tallies(fact(**fields))
    taken = tallies.take().get("default")
    found = (0, 0) if taken is None else (taken.counts[CALLS], taken.counts[ERRORS])
    assert found == {GOOD: (1, 0), BAD: (1, 1), LEFT: (0, 0), NOTHING: (0, 0)}[kind]


def test_every_ending_is_in_the_table():
    """A new ending has to say what it counts as."""
    assert set(KINDS) == set(ENDINGS)


def test_a_caller_who_left_late_was_kept_waiting():
    """Of a caller who hung up nothing is known, but that it had been slow where it had been."""
    tallies = Tallies(targets_of(parse_config({"slo": {"latency_p95_ms": 1000, "ttft_p95_ms": 500}})))
    gone = {"ending": "abandoned", "stream": True, "time_to_first_chunk_s": None}
    tallies(fact(**gone, duration_s=0.4))
    assert tallies.take()["default"].counts[2:6] == [0, 0, 0, 0]  # only its cost
    tallies(fact(**gone, duration_s=0.7))
    tallies(fact(**gone, duration_s=1.2))
    assert tallies.take()["default"].counts[2:6] == [1, 1, 2, 2]


def test_the_gateways_own_calls_are_nobodys():
    """A judge's call and the counting of tokens are in no promise; what they cost is in the spend."""
    tallies = Tallies(targets_of(parse_config({"slo": {"error_rate": 0.1}})))
    own = '[{"lever":"semantic_cache","action":"judge","detail":{"for":"nw-1"}}]'
    tallies(fact(decisions=own, cost_pusd=5))
    tallies(fact(protocol="count_tokens", cost_pusd=0))
    assert tallies.take()["default"].counts == [0, 0, 0, 0, 0, 0, 0, 0, 5, 1]


def test_classes_have_their_own_word_over_that_for_all():
    """A class says what differs; the rest is what holds for all, each class with its own window."""
    config = parse_config({
        "slo": {"error_rate": 0.01, "latency_p95_ms": 900},
        "classes": {"faq": {"owner": "support", "slo": {"latency_p95_ms": 300, "window_days": 7}}, "plain": {}},
    })  # fmt: skip
    found = targets_of(config)
    assert set(found) == {"default", "faq", "plain"}
    assert (found["faq"].latency_s, found["faq"].window_s, found["faq"].owner) == (0.3, 7 * DAY_S, "support")
    assert [one.name for one in found["faq"].objectives] == ["latency_p95", "error_rate"]
    assert (found["plain"].latency_s, found["plain"].window_s) == (0.9, 28 * DAY_S)


def test_a_stationary_world_raises_nothing():
    """Ten days at 200 calls an hour, failures in bursts at half of what is allowed, looked at every five minutes."""
    rng, targets = random.Random(11), promised(error_rate=0.01)
    rings, start = Rings(targets.window_s), 100 * DAY_S
    fired = []
    for number in range(13 * 288):
        at = start + number * 300
        calls = rng.randint(5, 28)
        errors = rng.randint(1, 5) if rng.random() < calls * 0.005 / 3 else 0
        rings.add(at, counts(calls, min(calls, errors)))
        if number > 3 * 288:
            fired += [burn.pair.name for burn in rings.standings(targets, at)[0].burns if burn.fires(targets.least_bad)]
    assert fired == []


WRONG = [
    ({"slo": {"error_rate": 0}}, "slo.error_rate"),
    ({"slo": {"error_rate": 1}}, "slo.error_rate"),
    ({"slo": {"latency_p95_ms": -1}}, "slo.latency_p95_ms"),
    ({"slo": {"output_inflation": 0.5}}, "slo.output_inflation"),
    ({"slo": {"window_days": 0}}, "slo.window_days"),
    ({"slo": {"latency_p95": 1}}, "slo.latency_p95: there is no such field"),
    ({"classes": {"faq": {"slo": {"latency_p95": 1}}}}, "classes.faq.slo.latency_p95: there is no such field"),
    ({"classes": {"faq": {"slo": {"least_bad": 0}}}}, "classes.faq.slo.least_bad"),
    ({"alerts": {"repeat_h": 0}}, "alerts.repeat_h"),
    ({"alerts": {"url": "dashboard"}}, "alerts.url: expected an address"),
]


@pytest.mark.parametrize(("tables", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_promise_that_cannot_be_is_refused(tables: dict[str, Any], said: str):
    """With the path of the field, before anything is opened."""
    with pytest.raises(ConfigError) as caught:
        parse_config(tables)
    assert said in caught.value.message
