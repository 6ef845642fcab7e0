"""The curve of a score: what the definitions say, at their corners, and for anything that one may be given."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negawatt.errors import InputError
from negawatt.routing.curve import (
    aiq,
    curve_of,
    group_scores,
    hull_of,
    length_scores,
    mixed,
    random_scores,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return (draw.random(n) < 0.6).astype(float), (draw.random(n) < 0.8).astype(float)


def test_the_ends_of_the_curve_are_the_two_models():
    """Nothing sent: the weak model. All sent: the strong one. In between, ten equal steps."""
    weak, strong = drawn(1000)
    curve = curve_of(np.arange(1000.0), weak, strong, rng())
    assert curve.share == pytest.approx(np.linspace(0, 1, 11))
    assert (curve.quality[0], curve.quality[-1]) == pytest.approx((weak.mean(), strong.mean()))


def test_a_coin_recovers_half_of_the_gap_and_an_oracle_more_than_all():
    """An oracle leaves to the weak model what only the weak one knows."""
    weak, strong = drawn(20_000)
    coin = curve_of(random_scores(20_000, rng()), weak, strong, rng())
    assert coin.apgr() == pytest.approx(0.5, abs=0.03)
    assert coin.cpt(0.5) == pytest.approx(0.5, abs=0.05)
    oracle = curve_of(strong - weak, weak, strong, rng())
    assert (oracle.apgr() or 0) > 1
    assert (oracle.cpt(0.8) or 1) < 0.25


def test_a_curve_that_can_be_worked_out_by_hand():
    """Four prompts; the strong model is worth it on the two that are scored highest."""
    curve = curve_of(np.array([4.0, 3.0, 2.0, 1.0]), np.array([0.0, 0, 1, 1]), np.ones(4), rng(), points=None)
    assert curve.share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.quality.tolist() == [0.5, 0.75, 1, 1, 1]
    assert curve.apgr() == pytest.approx(0.75)
    assert curve.cpt(0.5) == pytest.approx(0.25)
    assert curve.cpt(0.75) == pytest.approx(0.375)
    assert curve.at(0.375) == pytest.approx(0.875)


def test_the_first_crossing_counts_where_the_curve_turns_back():
    """The curve overshoots, falls, and comes again: the smallest share is what one has to pay."""
    weak = np.array([0.0, 0, 1, 1, 0, 0])
    strong = np.array([1.0, 1, 0, 0, 1, 1])
    curve = curve_of(np.arange(6.0, 0, -1), weak, strong, rng(), points=None)
    assert curve.cpt(0.5) == pytest.approx(1 / 6)


def test_where_there_is_no_gap_nothing_can_be_recovered():
    """Then the average has no meaning, which is not 0; and its half is reached at once."""
    curve = curve_of(np.arange(10.0), np.ones(10), np.ones(10), rng())
    assert curve.apgr() is None
    assert curve.cpt(0.5) == 0


def test_equal_scores_are_parted_by_the_seed_and_not_by_the_order_of_rows():
    """A constant score is a coin: no rule of sorting makes it better than that."""
    weak, strong = np.zeros(4000), np.repeat([1.0, 0.0], 2000)
    for order in (slice(None), slice(None, None, -1)):
        assert curve_of(np.zeros(4000), weak[order], strong[order], rng()).apgr() == pytest.approx(0.5, abs=0.05)


def test_a_cascade_is_charged_for_the_weak_calls_that_it_threw_away():
    """It costs more than always asking the strong model before it has sent everything: that part is cut off."""
    weak, strong = drawn(5000)
    free = curve_of(strong - weak, weak, strong, rng(), points=None)
    dear = free.charged(0.25)
    assert dear.share[-1] == 1
    assert dear.at(0.4) == pytest.approx(free.at(0.3))
    assert (dear.apgr() or 0) < (free.apgr() or 0)
    assert free.charged(0.0).apgr() == pytest.approx(free.apgr())
    with pytest.raises(InputError, match="costs less"):
        free.charged(1.0)


def test_the_controls_score_as_they_say():
    """Length by characters; a group by its mean gain, drawn towards that of all, and an unknown one by that of all."""
    assert length_scores(["a", "abc"]).tolist() == [1, 3]
    scores = group_scores(["x", "x", "y"], np.array([1.0, 1.0, 0.0]), ["x", "y", "z"], pseudo_counts=1)
    assert scores == pytest.approx([(2 + 2 / 3) / 3, (0 + 2 / 3) / 2, 2 / 3])


def test_the_hull_leaves_out_who_is_dearer_and_no_better():
    """Mixing the neighbours at random reaches as much for the same money."""
    costs, qualities = [1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 0.55, 0.9, 0.8, 1.0]
    assert hull_of(costs, qualities) == [(1.0, 0.5), (3.0, 0.9), (5.0, 1.0)]
    assert mixed(costs, qualities, 2.0) == pytest.approx(0.7)
    assert mixed(costs, qualities, 0.5) is None
    assert mixed(costs, qualities, 9.0) == pytest.approx(1.0)
    assert aiq(costs, qualities) == pytest.approx((2 * 0.7 + 2 * 0.95) / 4)
    assert aiq([1.0], [0.5]) is None
    with pytest.raises(InputError, match="at least one"):
        hull_of([], [])


@pytest.mark.parametrize(
    ("scores", "weak", "strong", "message"),
    [
        ([1.0], [0.0], [1.0], "two at least"),
        ([1.0, 2.0], [0.0], [1.0], "as many"),
        ([1.0, np.nan], [0, 0], [1, 1], "NaN"),
    ],
)
def test_what_is_no_curve_is_refused(scores: list, weak: list, strong: list, message: str):
    """Too few, unequal lengths, not a number."""
    with pytest.raises(InputError, match=message):
        curve_of(np.array(scores), np.array(weak), np.array(strong), rng())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60))
def test_any_score_stays_within_what_the_models_can_do(rows: list[tuple[int, int, int]]):
    """Shares rise, quality lies between neither and either being right, and does not depend on the score's scale."""
    scores, weak, strong = (np.array(column, float) for column in zip(*rows, strict=True))
    curve = curve_of(scores, weak, strong, rng())
    assert (np.diff(curve.share) >= 0).all()
    assert (curve.quality >= np.minimum(weak, strong).mean() - 1e-9).all()
    assert (curve.quality <= np.maximum(weak, strong).mean() + 1e-9).all()
    assert np.array_equal(curve_of(1000 * scores - 7, weak, strong, rng()).share, curve.share)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 1)), min_size=1, max_size=12))
def test_no_model_lies_above_the_hull(models: list[tuple[float, float]]):
    """And the hull rises ever less steeply."""
    costs, qualities = ([model[i] for model in models] for i in (0, 1))
    hull = hull_of(costs, qualities)
    for cost, quality in models:
        assert (mixed(costs, qualities, cost) or 0) >= quality - 1e-9
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(hull)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(slopes))
