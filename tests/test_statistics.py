"""Intervals: they cover what they promise to cover, and say so when they cannot be known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.statistics import (
    MAX_UNITS,
    UNDEFINED,
    Bootstrap,
    _reached,
    beta_cdf,
    clopper_pearson,
    column,
    quantile,
)


def bootstrap(clusters, seed=1, resamples=500):
    return Bootstrap([str(c) for c in clusters], np.random.default_rng(seed), resamples)


def clustered_calls(rng, clusters=60):
    """Return (cluster of each call, cost without levers, cost with them); the true saving is 40 %."""
    sizes = rng.geometric(0.4, clusters)
    cluster = np.repeat(np.arange(clusters), sizes)
    price = rng.lognormal(0.0, 0.6, clusters)[cluster]
    spared = rng.random(clusters)[cluster] < 0.4
    return cluster, price, np.where(spared, 0.0, price)


def test_the_interval_of_a_saving_covers_the_truth_as_often_as_it_promises():
    """Of 300 samples of calls in clusters of repeats, about 95 % give an interval that holds the true saving."""
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(300):
        cluster, without, with_ = clustered_calls(rng)
        interval = bootstrap(cluster, seed=trial, resamples=400).saving_pct(without, with_)
        held += interval.low <= 40.0 <= interval.high
    assert 0.90 <= held / 300 <= 0.98


def test_ignoring_the_clusters_would_promise_too_much():
    """Were repeats taken for independent calls, the intervals of the same samples would be too narrow."""
    cluster, without, with_ = clustered_calls(np.random.default_rng(3), clusters=200)
    whole = bootstrap(cluster).saving_pct(without, with_)
    loose = bootstrap(range(len(cluster))).saving_pct(without, with_)
    assert loose.high - loose.low < 0.9 * (whole.high - whole.low)


def test_the_interval_of_a_median_saving_covers_the_truth():
    """Of 200 samples of paired latencies, about 95 % give an interval that holds the true fall of the median."""
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        before = rng.lognormal(0.0, 0.5, 120)
        after = before * rng.lognormal(math.log(0.7), 0.1, 120)
        interval = bootstrap(range(120), seed=trial, resamples=400).median_saving_pct(before, after)
        held += interval.low <= 30.0 <= interval.high
    assert 0.90 <= held / 200 <= 1.0


known = st.one_of(st.none(), st.just(0.0), st.floats(1e-9, 1e6))
rows = st.lists(st.tuples(st.integers(0, 8), known, known), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_an_interval_holds_its_own_figure(table):
    """However odd the sample, low <= figure <= high wherever they are known, and nothing is infinite."""
    boot = bootstrap([row[0] for row in table], resamples=100)
    a, b = column(row[1] for row in table), column(row[2] for row in table)
    for interval in (boot.total(a), boot.mean(a), boot.ratio(a, b), boot.saving_pct(a, b), boot.median(a)):
        if interval.mean is None:
            assert interval == UNDEFINED
            continue
        assert math.isfinite(interval.mean)
        assert interval.low is None or interval.low <= interval.mean
        assert interval.high is None or interval.mean <= interval.high < math.inf


@settings(max_examples=40, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_the_calls_changes_nothing(table, random):
    """The same calls in another order give the same intervals."""
    shuffled = list(table)
    random.shuffle(shuffled)

    def intervals(table):
        boot = bootstrap([row[0] for row in table], resamples=100)
        a, b = column(row[1] for row in table), column(row[2] for row in table)
        return [boot.total(a), boot.ratio(a, b), boot.median(a), boot.median_saving_pct(a, b)]

    for one, other in zip(intervals(table), intervals(shuffled), strict=True):
        for end in ("mean", "low", "high"):
            expected = getattr(other, end)
            assert getattr(one, end) == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-9))


def test_the_same_seed_gives_the_same_interval():
    """A report can be made again to the last digit."""
    cluster, without, with_ = clustered_calls(np.random.default_rng(2))
    assert bootstrap(cluster, seed=4).saving_pct(without, with_) == bootstrap(cluster, seed=4).saving_pct(
        without, with_
    )


def test_one_cluster_bounds_nothing():
    """A single call, or one prompt asked a hundred times, has a figure and no interval."""
    for n in (1, 100):
        interval = bootstrap(["same"] * n).saving_pct(np.full(n, 2.0), np.full(n, 1.0))
        assert (interval.mean, interval.low, interval.high) == (50.0, None, None)


def test_nothing_known_is_undefined():
    """With every value unknown, or no calls at all, there is no figure: it is not 0."""
    for values in (column([None, None, None]), column([])):
        boot = bootstrap(range(len(values)))
        assert boot.total(values) == UNDEFINED
        assert boot.median(values) == UNDEFINED
        assert boot.proportion(values) == UNDEFINED
        assert boot.saving_pct(values, values) == UNDEFINED


def test_a_saving_of_nothing_is_undefined():
    """If nothing was spent without levers, no percentage can be saved; a median of 0 is no base either."""
    zeros = np.zeros(10)
    boot = bootstrap(range(10))
    assert boot.saving_pct(zeros, zeros) == UNDEFINED
    assert boot.median_saving_pct(zeros, zeros) == UNDEFINED
    assert boot.total(zeros).mean == 0.0


def test_a_cost_per_success_without_success_is_undefined():
    """No success: neither 0 nor infinity. One success among few: no upper bound, since it might not have been."""
    boot = bootstrap(range(10))
    cost = np.ones(10)
    assert boot.ratio(cost, np.zeros(10)) == UNDEFINED
    one = boot.ratio(cost, np.array([1.0] + [0.0] * 9))
    assert one.mean == 10.0
    assert one.high is None


def test_an_unknown_row_is_left_out_of_the_figure():
    """A call whose cost one arm does not know is compared in neither."""
    boot = bootstrap(range(3))
    assert boot.saving_pct(column([10, None, 10]), column([5, 3, 5])).mean == 50.0


def test_very_many_clusters_are_dealt_into_groups():
    """Beyond 4,000 clusters the interval is made of groups, and stays about as wide."""
    rng = np.random.default_rng(9)
    n = 3 * MAX_UNITS
    values = rng.lognormal(0, 1, n)
    boot = bootstrap(range(n), resamples=300)
    interval = boot.mean(values)
    assert (boot.clusters, boot.units) == (n, MAX_UNITS)
    expected = 2 * 1.96 * values.std() / math.sqrt(n)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_resampled_quantiles_are_those_of_the_repeated_rows(rows):
    """The blocked walk finds the row that a plain walk over every repeated row finds."""
    times = np.random.default_rng(rows).poisson(1.0, (rows, 50)).astype(np.uint16)
    times[0, :] += 1
    found, drawn = _reached(times, 0.5)
    for i in range(50):
        repeated = np.repeat(np.arange(rows), times[:, i])
        assert drawn[i] == len(repeated)
        assert found[i] == repeated[math.ceil(len(repeated) / 2) - 1]


def test_a_quantile_is_a_value_that_was_seen():
    """The median of an even number is the lower one; a tail needs enough calls to be shown at all."""
    assert quantile(column([4, None, 1, 3, 2]), 0.5) == 2.0
    assert quantile(np.arange(100.0), 0.95) == 94.0
    assert quantile(np.arange(59.0), 0.95, at_least=60) is None
    assert quantile(column([None]), 0.5) is None


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(0, 10, (0.0, 0.30850)), (10, 10, (0.69150, 1.0)), (5, 10, (0.18709, 0.81291)), (1, 100, (0.00025, 0.05446))],
)
def test_clopper_pearson_gives_the_textbook_limits(successes, n, expected):
    """Published limits, to five digits."""
    assert clopper_pearson(successes, n) == pytest.approx(expected, abs=5e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data())
def test_clopper_pearson_inverts_the_binomial_test(n, data):
    """At the lower limit, so many successes or more have a chance of 2.5 %; at the upper one, so many or fewer."""
    successes = data.draw(st.integers(0, n))
    low, high = clopper_pearson(successes, n)

    def chance(counts, p):
        return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    if successes > 0:
        assert chance(range(successes, n + 1), low) == pytest.approx(0.025, rel=1e-6)
    if successes < n:
        assert chance(range(successes + 1), high) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_an_impossible_count_is_refused(successes, n):
    """More successes than trials is a mistake of the caller, not an interval."""
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        clopper_pearson(successes, n)


def test_the_beta_function_is_symmetric_and_monotone():
    """I_x(a, b) = 1 - I_(1-x)(b, a), rising from 0 to 1."""
    for a, b in ((0.5, 0.5), (3.0, 7.0), (400.0, 12.0), (5e4, 5e4)):
        values = [beta_cdf(x / 20, a, b) for x in range(21)]
        assert values[0] == 0.0
        assert values[-1] == 1.0
        assert values == sorted(values)
        assert all(v == pytest.approx(1 - beta_cdf(1 - x / 20, b, a), abs=1e-9) for x, v in enumerate(values))


def test_repeats_are_no_evidence_of_their_own():
    """One hundred repeats of ten prompts know no more about the success rate than the ten prompts do."""
    passed = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=float)
    once = bootstrap(range(10)).proportion(passed)
    often = bootstrap(np.repeat(np.arange(10), 100)).proportion(np.repeat(passed, 100))
    assert often.mean == once.mean == 0.7
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)


def test_a_rate_of_all_or_nothing_keeps_an_interval():
    """Where every call succeeded the true rate may still be lower: by how much, the number of prompts says."""
    all_passed = bootstrap(np.repeat(np.arange(10), 5)).proportion(np.ones(50))
    assert all_passed.mean == 1.0
    assert (all_passed.low, all_passed.high) == pytest.approx(clopper_pearson(10, 10))
