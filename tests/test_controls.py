"""The honest no: a router that knows nothing is not turned on, one that knows something is."""

from __future__ import annotations

import numpy as np
import pytest
from routed import World, most_by_chance

from negawatt.errors import InputError
from negawatt.routing.controls import ControlVerdict, beats_shuffled
from negawatt.routing.gain import cross_fitted

SEEDS = 100


def best_threshold(gains: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Choose as greedily as one can: the threshold that does best on the very rows that it is judged by."""

    def worth(cut: float) -> float:
        chosen = (gains[:, 0] > cut).astype(int)
        return float(
            (
                outcomes[np.arange(len(chosen)), chosen] - outcomes @ np.bincount(chosen, minlength=2) / len(chosen)
            ).mean()
        )

    cut = max(np.quantile(gains[:, 0], np.linspace(0.1, 0.9, 9)), key=worth)
    return (gains[:, 0] > cut).astype(int)


def luck(seed: int, n: int = 150) -> ControlVerdict:
    """A score that has nothing to do with the outcomes, cut where it looks best."""
    rng = np.random.default_rng(seed)
    outcomes = (rng.random((n, 2)) < (0.6, 0.8)).astype(float)
    gains = rng.normal(size=(n, 1))
    return beats_shuffled(best_threshold(gains, outcomes), gains, outcomes, seed=seed)


def test_a_router_that_knows_nothing_is_turned_on_in_one_case_of_twenty_at_most():
    """Although its threshold was chosen with sight of the outcomes."""
    assert sum(luck(seed).beats for seed in range(SEEDS)) <= most_by_chance(0.05, SEEDS)


def test_a_learned_router_is_not_turned_on_where_routing_cannot_help():
    """Fitted and judged by cross-fitting on outcomes that do not depend on the prompt."""
    turned_on = 0
    for seed in range(12):
        world = World(80, 100 + seed, routable=False)
        found = cross_fitted(world.texts, world.vectors, world.outcomes, seed=seed)
        verdict = beats_shuffled(best_threshold(found.gains, world.outcomes), found.gains, world.outcomes, seed=seed)
        turned_on += verdict.beats
    assert turned_on <= most_by_chance(0.05, 12)


def test_a_learned_router_is_turned_on_where_routing_helps():
    """On six topics of which three are hard for the small model: each time."""
    for seed in range(3):
        world = World(200, 200 + seed)
        found = cross_fitted(world.texts, world.vectors, world.outcomes, seed=seed)
        chosen = (found.gains[:, 0] > 0.2).astype(int)
        verdict = beats_shuffled(chosen, found.gains, world.outcomes, seed=seed)
        assert verdict.beats, verdict
        assert verdict.low is not None
        assert 0 < verdict.low < verdict.difference
        assert verdict.difference == pytest.approx(verdict.router - verdict.control)
        assert sum(verdict.shares) == pytest.approx(1)


def test_a_score_that_knows_something_may_be_cut_where_it_gains_nothing():
    """Then the scores pass, the choices do not, and the reason says which."""
    rng = np.random.default_rng(1)
    gains = rng.random((400, 1))
    outcomes = np.column_stack([np.zeros(400), (rng.random(400) < gains[:, 0])]).astype(float)
    verdict = beats_shuffled((gains[:, 0] > 0.998).astype(int), gains, outcomes, seed=0)
    assert verdict.p_scores < 0.01
    assert not verdict.beats
    assert "another threshold" in verdict.reason


def test_sending_everything_to_one_is_no_routing():
    """However good that one is: there is nothing to prove, and the reason says what to write instead."""
    outcomes = np.column_stack([np.zeros(100), np.ones(100)])
    verdict = beats_shuffled(np.ones(100, int), np.random.default_rng(0).random((100, 1)), outcomes, seed=0)
    assert not verdict.beats
    assert verdict.difference == 0
    assert "one candidate" in verdict.reason


def test_who_spends_more_is_compared_with_a_control_that_spends_as_much():
    """A router that sends the dear prompts to the dear model wins nothing by paying more."""
    rng = np.random.default_rng(2)
    size = rng.lognormal(0, 1, 500)
    outcomes = (rng.random((500, 2)) < (0.3, 0.9)).astype(float)
    costs = np.column_stack([0.1 * size, size])
    chosen = (size > np.median(size)).astype(int)
    plain = beats_shuffled(chosen, size[:, None], outcomes, seed=0)
    charged = beats_shuffled(chosen, size[:, None], outcomes, seed=0, costs=costs)
    assert charged.control > plain.control + 0.05
    assert not charged.beats


def test_rows_that_repeat_each_other_are_no_evidence_of_their_own():
    """Ten copies of each of twenty prompts: as uncertain as twenty prompts."""
    rng = np.random.default_rng(3)
    gains = np.repeat(rng.random((20, 1)), 10, axis=0)
    outcomes = np.repeat((rng.random((20, 2)) < (0.5, 0.7)).astype(float), 10, axis=0)
    chosen = (gains[:, 0] > 0.5).astype(int)
    names = [str(i // 10) for i in range(200)]
    apart = beats_shuffled(chosen, gains, outcomes, seed=0)
    together = beats_shuffled(chosen, gains, outcomes, seed=0, clusters=names)
    assert together.high is not None and together.low is not None
    assert apart.high is not None and apart.low is not None
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_of_three_candidates_choices_are_compared_with_the_same_three_shares():
    """Sending the hard prompts up and the easy ones down beats dealing them out."""
    world = World(300, 300, candidates=3)
    hard = world.topic % 2
    gains = np.column_stack([hard * 0.6, hard * 0.3])
    verdict = beats_shuffled(hard * 2, gains, world.outcomes, seed=0)
    assert verdict.beats
    assert verdict.shares[1] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"outcomes": np.ones((4, 1))}, "two candidates"),
        ({"chosen": np.zeros(3, int)}, "a choice and 1 gains for each of 4"),
        ({"chosen": np.full(4, 2)}, "from 0 to 1"),
        ({"gains": np.full((4, 1), np.nan)}, "not a number"),
        ({"costs": np.ones((4, 3))}, "costs like outcomes"),
    ],
)
def test_what_cannot_be_compared_is_refused(wrong: dict, message: str):
    """With what was expected."""
    right = {"chosen": np.zeros(4, int), "gains": np.zeros((4, 1)), "outcomes": np.ones((4, 2)), "seed": 0}
    with pytest.raises(InputError, match=message):
        beats_shuffled(**(right | wrong))
