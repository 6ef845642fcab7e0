"""The accept threshold keeps its promise as often as it says, and the monitor notices when the world has changed."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from routed import most_by_chance

from negawatt.errors import InputError
from negawatt.routing.guarantee import Accepting, DriftMonitor, accept_threshold, clean_rows, upper_bound


def calibration(seed: int, n: int = 500, *, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores between 0 and 1; answers with score s are wrong with chance slope * (1 - s) ** 2."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    return scores, (rng.random(n) < slope * (1 - scores) ** 2).astype(float)


def true_error(threshold: float, slope: float) -> float:
    return slope * (1 - threshold) ** 2 / 3


@pytest.mark.parametrize("delta", [0.02, 0.05, 0.1])
def test_the_error_of_accepted_answers_is_exceeded_as_seldom_as_promised(delta: float):
    """Of 300 calibrations, each on rows of its own, 5 % may break the bound; and it is of use: it does accept."""
    slope = 10 * delta  # so that 55 % of the answers could be accepted by somebody who knew
    rules = [accept_threshold(*calibration(seed, slope=slope), delta=delta) for seed in range(300)]
    thresholds = [rule.threshold for rule in rules if rule.threshold is not None]
    assert sum(true_error(threshold, slope) > delta for threshold in thresholds) <= most_by_chance(0.05, 300)
    assert len(thresholds) > 90
    assert np.mean([1 - threshold for threshold in thresholds]) > 0.3


def test_scores_that_say_nothing_accept_next_to_nothing():
    """A fifth of all answers is wrong whatever the score: hardly ever is a tenth promised."""
    rules = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rules.append(accept_threshold(rng.random(500), (rng.random(500) < 0.2).astype(float), delta=0.1))
    assert sum(rule.threshold is not None for rule in rules) <= most_by_chance(0.05, 200)
    assert all("were wrong" in rule.reason for rule in rules)


def test_too_few_rows_abstain_and_say_how_many_are_needed():
    """58 rows without an error cannot show 5 %; 59 can."""
    rule = accept_threshold(np.arange(58.0), np.zeros(58), delta=0.05)
    assert (rule.threshold, rule.rows_needed, rule.accepted) == (None, 59, 0)
    assert "59 without any error" in rule.reason
    assert accept_threshold(np.arange(59.0), np.zeros(59), delta=0.05).threshold == 0
    assert clean_rows(0.02, 0.05) == 149


def test_where_more_rows_would_help_it_says_so_and_where_not_it_does_not_promise():
    """An error below the bound, seen on too few rows, is a matter of rows; an error above it is not."""
    some = np.zeros(100)
    some[50] = 1
    hopeful = accept_threshold(np.zeros(100), some, delta=0.03)
    assert hopeful.threshold is None
    assert hopeful.rows_needed is not None
    assert 100 < hopeful.rows_needed < 1000
    many = np.tile([0.0, 1.0], 50)
    assert accept_threshold(np.zeros(100), many, delta=0.03).rows_needed is None


def test_equal_scores_are_accepted_together_or_not_at_all():
    """A threshold cannot part what has one score: all of them count."""
    scores = np.repeat([1.0, 0.0], [300, 200])
    wrong = np.zeros(500)
    wrong[300:400] = 1
    rule = accept_threshold(scores, wrong, delta=0.05)
    assert (rule.threshold, rule.accepted, rule.wrong) == (1.0, 300, 0)
    wrong[:30] = 1
    assert accept_threshold(scores, wrong, delta=0.05).threshold is None


def test_after_the_first_failure_nothing_more_permissive_is_tried():
    """Better luck further down does not count: that is what the guarantee rests on."""
    scores = np.arange(1000.0, 0, -1)
    wrong = np.zeros(1000)
    wrong[200:240] = 1
    rule = accept_threshold(scores, wrong, delta=0.08)
    assert rule.accepted == 200
    assert upper_bound(40, 1000, 0.05) < 0.08


@pytest.mark.parametrize(("errors", "n"), [(0, 59), (3, 100), (10, 500)])
def test_the_bound_is_that_of_the_binomial(errors: int, n: int):
    """At the bound, so few errors or fewer have exactly the chance alpha."""
    p = upper_bound(errors, n, 0.05)
    assert sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(errors + 1)) == pytest.approx(0.05, rel=1e-6)
    assert upper_bound(n, n, 0.05) == 1


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=200),
    st.sampled_from([0.02, 0.1, 0.3]),
)
def test_whatever_the_rows_what_is_accepted_passed_its_own_test(rows: list[tuple[int, int]], delta: float):
    """The threshold accepts as many rows, with as many errors, as it says, and their bound is within delta."""
    scores, wrong = (np.array(column, float) for column in zip(*rows, strict=True))
    rule: Accepting = accept_threshold(scores, wrong, delta=delta)
    if rule.threshold is None:
        assert rule.reason
    else:
        accepted = scores >= rule.threshold
        assert (int(accepted.sum()), int(wrong[accepted].sum())) == (rule.accepted, rule.wrong)
        assert upper_bound(rule.wrong, rule.accepted, 0.05) == rule.bound <= delta


@pytest.mark.parametrize(
    ("scores", "wrong", "delta", "message"),
    [
        ([0.1], [0.0], 0.0, "between 0 and 1"), ([0.1], [0.5], 0.1, "1 .wrong. or 0"),
        ([0.1, np.nan], [0, 0], 0.1, "row 2"), ([0.1, 0.2], [0.0], 0.1, "a label for each"),
    ],
)  # fmt: skip
def test_what_is_no_calibration_is_refused(scores: list, wrong: list, delta: float, message: str):
    """A bound of nothing, labels that are none, a missing score."""
    with pytest.raises(InputError, match=message):
        accept_threshold(np.array(scores), np.array(wrong), delta=delta)


# -- drift -----------------------------------------------------------------------------------------------------------


def test_the_monitor_raises_a_false_alarm_as_seldom_as_promised():
    """At an error of exactly delta, over 2,000 labels, looked at after each: in 5 % of streams at most."""
    alarms = 0
    for seed in range(100):
        monitor = DriftMonitor(0.05, 0.05)
        for wrong in np.random.default_rng(seed).random(2000) < 0.05:
            if monitor.add(bool(wrong)):
                alarms += 1
                break
    assert alarms <= most_by_chance(0.05, 100)


@pytest.mark.parametrize("quiet", [0, 1000])
def test_an_error_twice_as_large_is_found(quiet: int):
    """Also when all was well for a long time before: within some hundreds of labels, and always within 4,000."""
    delays = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        monitor = DriftMonitor(0.05, 0.05)
        for wrong in rng.random(quiet) < 0.02:
            monitor.add(bool(wrong))
        assert not monitor.alarmed
        delay = next((i for i, wrong in enumerate(rng.random(4000) < 0.1, 1) if monitor.add(bool(wrong))), None)
        assert delay is not None
        delays.append(delay)
    assert np.median(delays) < 1200


def test_the_interval_holds_for_all_time():
    """At every look of a stream at once: in 95 % of streams, and it grows narrow."""
    broken = 0
    for seed in range(60):
        monitor, outside = DriftMonitor(0.05, 0.05), False
        for i, wrong in enumerate(np.random.default_rng(seed).random(800) < 0.1, 1):
            monitor.add(bool(wrong))
            if i % 40 == 0:
                found = monitor.estimate
                outside |= not found.low <= 0.1 <= found.high
        broken += outside
        assert monitor.estimate.high - monitor.estimate.low < 0.1
    assert broken <= most_by_chance(0.05, 60)


def test_an_alarm_stays_and_a_monitor_goes_on_from_where_it_was():
    """After a restart it knows what it knew."""
    monitor = DriftMonitor(0.02)
    assert monitor.estimate == (None, 0.0, 1.0, 0)
    for i in range(40):
        monitor.add(i % 3 == 0)
    assert monitor.alarmed
    assert monitor.add(False)
    again = DriftMonitor.resumed(0.02, 0.05, monitor.state())
    for wrong in (False, True, False):
        assert again.add(wrong) == monitor.add(wrong)
    assert (again.estimate, again.evidence) == (monitor.estimate, monitor.evidence)
    assert again.estimate.n == 44
    with pytest.raises(InputError, match="numbers"):
        DriftMonitor.resumed(0.02, 0.05, [1.0])
    with pytest.raises(InputError, match="between 0 and 1"):
        DriftMonitor(1.0)


def test_thousands_of_wrong_answers_do_not_overflow():
    """Evidence has an end, and the alarm is still there."""
    monitor = DriftMonitor(0.01)
    for _ in range(5000):
        monitor.add(True)
    assert monitor.alarmed
    assert np.isfinite(monitor.evidence)
    assert monitor.estimate.high == 1
