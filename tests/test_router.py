"""The learned router at work: which threshold it follows, what it says, and when it is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest

from negawatt.config_routes import Quality
from negawatt.embedders.hashing import Hashing
from negawatt.errors import ConfigError, InputError
from negawatt.proof.router_fit import Learnable, fit_router, read_outcomes, spoken, worth
from negawatt.routing.gain import Predictions
from negawatt.routing.router import NEVER, Level, Router, boldest, choices, levels_of
from negawatt.statistics import least_share

EMBEDDER = Hashing(64)
EASY, HARD = "which team sorts parcel", "add up four sums of many numbers"


def prompts(n, seed=1):
    """Return prompts of two kinds, and which are hard."""
    rng = random.Random(seed)
    hard = [rng.random() < 0.4 for _ in range(n)]
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"]
    return [f"{HARD if h else EASY} {' '.join(rng.choices(words, k=4))}" for h in hard], np.array(hard)


def learned(n=160, seed=1, rates=((0.98, 0.4), (0.98, 0.98))):
    """Return rows on which the small model fails at hard prompts, at *rates* (easy, hard) of each candidate."""
    texts, hard = prompts(n, seed)
    rng = np.random.default_rng(seed)
    outcomes = np.column_stack([rng.random(n) < np.where(hard, bad, good) for good, bad in rates]).astype(float)
    return Learnable(names=("small", "large"), texts=texts, outcomes=outcomes, costs=np.tile([1.0, 10.0], (n, 1)))


def fitted(rows, success=0.85):
    vectors = EMBEDDER.embed(rows.texts).astype(np.float32)
    return fit_router(rows, vectors, EMBEDDER.id, Quality(success=success), 1)


@pytest.fixture(scope="module")
def useful():
    """A router on rows on which routing helps."""
    return fitted(learned())


@pytest.fixture(scope="module")
def router(useful):
    return useful.router


def vector(text):
    return EMBEDDER.embed([text])[0].astype(np.float32)


def level(threshold, successes, n=200, **fields):
    return Level(
        threshold, n, successes, fields.get("better", 0), fields.get("worse", 0), 0.5, fields.get("referred", 0.5)
    )


def test_hard_prompts_go_to_the_reference_and_easy_ones_do_not(router):
    """The router has learned which kind is which, and says what it expects of either."""
    target = Quality(success=0.85)
    texts, hard = prompts(60, seed=2)
    found = [router.choose(text, vector(text), target) for text in texts]
    large = np.array([one.name == "large" for one in found])
    assert large[~hard].mean() < 0.1 < 0.5 < large[hard].mean()
    easy = next(one for one, h in zip(found, hard, strict=True) if not h)
    assert (easy.index, easy.name, easy.abstained) == (0, "small", False)
    assert set(easy.probabilities) == {"small", "large"} and easy.expected_success == easy.probabilities["small"]
    assert easy.low is not None and easy.low >= 0.85
    assert "is allowed" in easy.reason


def test_a_stricter_target_is_followed_less_boldly(router):
    """More calls go to the reference the more is asked for; what nobody reaches is abstained from."""
    texts, _ = prompts(60, seed=3)
    shares = []
    for success in (0.6, 0.85, 0.9):
        target = Quality(success=success)
        shares.append(sum(router.choose(text, vector(text), target).name == "large" for text in texts))
    assert shares == sorted(shares) and shares[0] < shares[-1]
    chosen = router.choose(texts[0], vector(texts[0]), Quality(success=0.999))
    assert chosen.abstained and chosen.name == "large"
    assert chosen.reason == "no threshold is surely good enough for the target"


def test_it_abstains_from_what_it_has_not_learned_from(router):
    """A prompt unlike all others goes to the reference, and so does any without a target."""
    strange = -vector(EASY)
    chosen = router.choose("qzx", strange, Quality(success=0.9))
    assert chosen.abstained and chosen.name == "large" and chosen.reason.startswith("nothing like it was learned from")
    chosen = router.choose(EASY, vector(EASY), None)
    assert chosen.abstained and chosen.reason == "there is no target to choose by"
    assert router.choose(EASY, vector(EASY), Quality(confidence=0.9)).abstained


def test_thresholds_are_gone_through_in_order_until_one_fails():
    """The last before the first failure counts; a good one after a bad one does not."""
    levels = (level(NEVER, 199, referred=1.0), level(0.0, 195), level(0.1, 170), level(0.2, 199))
    assert boldest(levels, Quality(success=0.9)) == 1
    assert boldest(levels, Quality(success=0.8)) == 3
    assert boldest(levels, Quality(success=0.999)) is None


def test_a_target_of_loss_counts_the_rows_that_differ():
    """A level that changes nothing loses nothing; one that loses some must lose surely little."""
    levels = (level(NEVER, 180, referred=1.0), level(0.0, 180, better=2, worse=2), level(0.1, 160, worse=20))
    assert boldest(levels, Quality(loss=0.05)) == 1
    assert boldest(levels, Quality(loss=0.001)) == 0


def test_the_guarantee_holds_however_the_gains_were_guessed():
    """Followed on other requests of the same kind, a level misses its target no more often than it may."""
    target, runs = Quality(success=0.85, confidence=0.9), 150
    rng, missed, followed = np.random.default_rng(4), 0, 0
    for _ in range(runs):
        # True chances of the small model, and guesses of them that are half noise; the large one is right at 0.97.
        chance = rng.beta(4, 1.5, size=150)
        outcomes = np.column_stack([rng.random(150) < chance, rng.random(150) < 0.97]).astype(float)
        guessed = (0.97 - chance + rng.normal(0, 0.15, 150))[:, None]
        found = Predictions(guessed, np.full((150, 2), 0.5), np.ones(150), np.ones(150, dtype=bool))
        levels = levels_of(found, outcomes, None)
        place = boldest(levels, target)
        if place:
            followed += 1
            many = rng.beta(4, 1.5, size=20_000)
            small = 0.97 - many + rng.normal(0, 0.15, 20_000) <= levels[place].threshold
            missed += np.where(small, many, 0.97).mean() < 0.85
    assert followed > runs / 2  # a rule that never follows misses nothing
    assert least_share(missed, runs, 0.999) <= 0.1


def test_routing_that_cannot_help_is_not_enabled():
    """Where what a prompt looks like says nothing of who is right, the honest answer is no."""
    rows = learned(200, rates=((0.75, 0.75), (0.95, 0.95)))
    found = fitted(rows, 0.8)
    assert not found.enabled
    assert spoken(found).startswith("The router is not enabled: ")


def test_routing_that_helps_is_enabled_and_beats_its_control(useful):
    """Enabled only with an interval above 0 against the same shares dealt at random for the same money."""
    assert useful.enabled and useful.verdict is not None and useful.verdict.low > 0
    assert useful.level is not None and 0 < useful.level.referred < 1 and useful.level.cost < 1
    assert useful.figures["apgr"] > 0.6


def test_a_target_that_not_even_the_reference_meets_enables_nothing(useful):
    """The reason names the reference."""
    rows = learned()
    right = np.full((160, 1), 0.1)
    found = Predictions(right, np.full((160, 2), 0.5), np.ones(160), np.ones(160, dtype=bool))
    said = worth(rows, useful.router, found, Quality(success=0.995), 1)
    assert not said.enabled and "not even the reference" in said.reason


def test_of_several_candidates_the_cheapest_that_is_enough_is_chosen():
    """The first whose gain is within the threshold; unfamiliar rows go to the reference."""
    gains = np.array([[0.3, 0.05], [0.01, 0.0], [0.3, 0.2], [0.0, 0.0]])
    found = Predictions(gains, np.ones((4, 3)), np.ones(4), np.array([True, True, True, False]))
    assert choices(found, 0.1).tolist() == [1, 0, 2, 2]
    assert choices(found, NEVER).tolist() == [2, 2, 2, 2]


def test_levels_count_what_following_them_comes_to():
    """From the reference alone to as little of it as possible, each with its sums."""
    gains = np.array([[0.9], [0.1], [-0.1], [0.5]])
    outcomes = np.array([[0, 1], [1, 1], [1, 0], [0, 1]], dtype=float)
    found = Predictions(gains, np.full((4, 2), 0.5), np.ones(4), np.ones(4, dtype=bool))
    levels = levels_of(found, outcomes, np.tile([1.0, 4.0], (4, 1)))
    assert levels[0] == Level(NEVER, 4, 3, 0, 0, 1.0, 1.0)
    assert levels[1] == Level(-0.1, 4, 4, 1, 0, 13 / 16, 0.75)
    assert levels[-1] == Level(0.9, 4, 2, 1, 2, 0.25, 0.0)
    assert [one.cost for one in levels_of(found, outcomes, None)] == [one.referred for one in levels]


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_router_comes_back_from_its_file(router, tmp_path):
    """It says the same of the same prompts, to the last digit of what is kept."""
    router.save(tmp_path / "r.npz")
    again = Router.load(tmp_path / "r.npz")
    assert (again.names, again.embedder, again.levels) == (router.names, EMBEDDER.id, router.levels)
    for text in prompts(20, seed=5)[0]:
        one, other = (r.choose(text, vector(text), Quality(success=0.9)) for r in (router, again))
        assert one.name == other.name and one.gain == pytest.approx(other.gain, abs=1e-6)


def test_a_router_for_others_is_refused(router, tmp_path):
    """Other candidates, another reference, another embedder, no thresholds: each with what would mend it."""
    router.check(("small", "large"), EMBEDDER.id, "policies.p.router")
    with pytest.raises(ConfigError, match=r"policies\.p\.router: it was fitted for small, large, and the policy has"):
        router.check(("small", "huge"), EMBEDDER.id, "policies.p.router")
    with pytest.raises(ConfigError, match="fit it again"):
        router.check(("large", "small"), EMBEDDER.id, "policies.p.router")
    with pytest.raises(ConfigError, match=r"vectors of hashing-64, and minilm is configured; set recall\.embedder"):
        router.check(("small", "large"), "minilm", "policies.p.router")
    from negawatt.routing import gain_file

    gain_file.save(router.model, tmp_path / "bare.npz")
    with pytest.raises(ConfigError, match=r"bare\.npz: it holds a model without its thresholds; fit it again"):
        Router.load(tmp_path / "bare.npz")


# -- tables of outcomes ------------------------------------------------------------------------------------------------


def test_outcomes_are_read_from_a_table(tmp_path):
    """Any columns, true and false, 0 to 1."""
    (tmp_path / "o.csv").write_text("q,s,l,topic\none,true,1,a\ntwo,False,0.5,b\n")
    rows = read_outcomes(tmp_path / "o.csv", "q", {"small": "s", "large": "l"})
    assert (rows.names, rows.texts, rows.costs) == (("small", "large"), ["one", "two"], None)
    assert rows.outcomes.tolist() == [[1.0, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q,s,l\n", "o.csv: no row: it is empty"),
        ("q,s\na,1\n", "o.csv: there is no column 'l'; there: q, s"),
        ("q,s,l\na,1,maybe\n", "o.csv:2: l: expected an outcome (0 to 1, true or false), got 'maybe'"),
        ("q,s,l\na,1,7\n", "o.csv:2: l: expected an outcome"),
    ],
)
def test_a_bad_table_is_refused_with_line_and_column(tmp_path, text, said):
    """Nothing is guessed of an outcome that is none."""
    (tmp_path / "o.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_outcomes(tmp_path / "o.csv", "q", {"small": "s", "large": "l"})
    assert said in caught.value.message


@pytest.mark.parametrize("rates", [((1, 1), (1, 1)), ((0, 0), (1, 1))])
def test_one_label_only_teaches_nothing(rates):
    """Both always right, or one always and the other never: there is nothing to learn, and the error says so."""
    with pytest.raises(InputError, match="one label only"):
        fitted(learned(100, rates=rates))


def test_too_few_rows_are_refused():
    """With the number that is needed."""
    with pytest.raises(InputError, match="63 rows at least, and here are 20"):
        fitted(learned(20))
