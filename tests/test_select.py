"""What is kept of a context for a query: within a budget, or as much as a retention target needs."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.shape.context import shape_context
from negawatt.shape.edits import restore
from negawatt.shape.scores import score
from negawatt.shape.select import Calibration, Example, default, fit, keep, keep_for
from negawatt.shape.sentences import Unit, units_of

TOWNS = ("Arlen", "Bodo", "Corin", "Delft", "Evora", "Fano", "Gouda", "Hanko", "Izola", "Jaca", "Kotor", "Lodz")
THINGS = ("bridge", "harbour", "library", "market", "mill", "museum", "school", "tower")


def town(name: str, rng: random.Random) -> str:
    years = {thing: rng.randrange(1200, 2000) for thing in THINGS}
    return " ".join(f"The {thing} of {name} was finished in {years[thing]}." for thing in THINGS)


@pytest.fixture
def towns() -> list[str]:
    rng = random.Random(7)
    return [town(name, rng) for name in TOWNS]


def example(number: int) -> Example:
    """Return a question of which the text sometimes uses another word than the question."""
    rng = random.Random(number)
    names = rng.sample(TOWNS, 6)
    texts = [town(name, rng) for name in names]
    thing, place = rng.choice(THINGS), rng.randrange(6)
    answer = texts[place].split(f"The {thing} of {names[place]} was finished in ")[1].split(".")[0]
    query = f"When was the {thing if rng.random() < 0.8 else 'building'} of {names[place]} finished?"
    return Example(units_of(texts), query, lambda text: f"{names[place]} was finished in {answer}" in text)


def is_subsequence(units: list[Unit], text: str) -> bool:
    place = 0
    for unit in units:
        found = text.find(unit.text.strip(), place)
        if found < 0:
            return False
        place = found + len(unit.text.strip())
    return True


def test_the_sentence_that_answers_is_kept_within_a_tenth(towns: list[str]):
    """Of 96 sentences the one that has both words of the question stays, and the budget holds."""
    kept = keep(units_of(towns), "When was the library of Izola finished?", ratio=10)
    assert "The library of Izola was finished in" in kept.text
    assert kept.words <= kept.words_before / 10
    assert kept.ratio is not None and kept.ratio >= 10


@given(st.floats(1, 50), st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_what_is_kept_is_in_order_whole_and_within_the_budget(ratio: float, budget: int):
    """Any budget keeps units as a whole, in document order."""
    units = units_of([town(name, random.Random(3)) for name in TOWNS[:5]])
    for kept in (
        keep(units, "tower of Bodo", ratio=ratio),
        keep(units, "tower of Bodo", budget_words=budget),
        keep_for(units, "tower of Bodo"),
    ):
        assert list(kept.places) == sorted(set(kept.places))
        assert is_subsequence([units[place] for place in kept.places], kept.text)
        assert kept.words == sum(units[place].words for place in kept.places)
    assert keep(units, "tower of Bodo", budget_words=budget).words <= budget


def test_a_neighbour_of_the_match_comes_before_a_stranger():
    """The answer often stands beside the sentence that repeats the question."""
    texts = ["Rain fell. The comet was seen by Hale. It returned after nine years. Cows graze.",
             "Birds sing. Water flows. It returned after nine years too. Stones rest."]  # fmt: skip
    units = units_of(texts)
    kept = keep(units, "When was the comet seen?", budget_words=13)
    assert kept.text == "Rain fell. The comet was seen by Hale. It returned after nine years. "


def test_similarities_lift_what_words_do_not_find():
    """A vector close to the query's counts half of the best score."""
    units = units_of(["The feline slept. The cat ran. Rain fell."])
    plain, lifted = score(units, "cat").of, score(units, "cat", similarities=[1.0, 0.0, 0.0]).of
    assert lifted[0] == pytest.approx(plain[0] + 0.5 * max(plain))
    assert lifted[1:] == plain[1:]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "no word"),
        ("What is it about?", "no word"),
        ("Which quark decays?", "no word"),
        ("Please translate what is said of the library of Izola", "all of the text"),
        ("Summarize the whole report on the library", "all of the text"),
        ("Explain photosynthesis chlorophyll stomata thylakoid glucose of Bodo", "most of what the query asks"),
    ],
)
def test_everything_is_kept_where_the_scores_say_nothing(towns: list[str], query: str, why: str):
    """It says why, and drops no sentence."""
    units = units_of(towns)
    kept = keep_for(units, query)
    assert kept.abstained is not None and why in kept.abstained
    assert kept.places == tuple(range(len(units)))
    assert kept.text == "\n\n".join(towns)


def test_a_budget_holds_even_where_the_scores_say_nothing(towns: list[str]):
    """Of equals, the earlier ones are kept."""
    units = units_of(towns)
    kept = keep(units, "xyzzy", ratio=4)
    assert kept.places[0] == 0 and 0 < kept.words <= kept.words_before / 4


def test_retention_reaches_its_target_on_questions_that_were_not_fitted():
    """Fitted on 300 questions, at least 95 % keep their answer on 300 others, with less than half of the text."""
    calibration = fit((example(number) for number in range(300)), "towns")
    hits = before = after = 0
    for number in range(1000, 1300):
        one = example(number)
        kept = keep_for(one.units, one.query, 0.97, calibration=calibration)
        hits += one.survives(kept.text)
        before, after = before + kept.words_before, after + kept.words
    # 97 % of 300 is 291; 282 or fewer would come by chance once in 500 times. Everything here is seeded.
    assert hits >= 283
    assert after < before / 2


def test_a_higher_target_keeps_more_and_one_beyond_the_evidence_keeps_all(towns: list[str]):
    """50 examples cannot vouch for 99 %."""
    calibration = fit((example(number) for number in range(50)), "towns")
    gaps = [calibration.gap(retention) for retention in (0.5, 0.8, 0.9, 0.95)]
    assert gaps == sorted(gaps)
    assert calibration.gap(0.99) is None
    kept = keep_for(units_of(towns), "library of Izola", 0.99, calibration=calibration)
    assert kept.abstained == "too few examples for this retention" and kept.words == kept.words_before


def test_the_gap_is_the_conformal_quantile():
    """Of 19 examples, 95 % takes the largest gap, 90 % the second, and 96 % none."""
    calibration = Calibration(tuple(float(19 - i) for i in range(19)), 19, "counted")
    assert [calibration.gap(retention) for retention in (0.95, 0.9, 0.96)] == [19.0, 18.0, None]
    assert Calibration((math.inf, 1.0), 2, "lost").gap(0.6) is None
    thinned = Calibration((3.0, 2.0), 100, "thinned")
    assert thinned.gap(0.5) == 2.0  # more than needed, never less
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.gap(1.0)


def test_the_calibration_that_ships_says_where_it_comes_from():
    """It vouches for 98 %, and not for 99.9 %."""
    shipped = default()
    assert "XQuAD" in shipped.source and shipped.n > 500
    assert list(shipped.largest) == sorted(shipped.largest, reverse=True)
    assert shipped.gap(0.98) is not None and shipped.gap(0.999) is None


@pytest.mark.parametrize("wrong", [{}, {"ratio": 2, "budget_words": 5}, {"ratio": 0.5}])
def test_a_budget_that_is_none_is_refused(wrong: dict):
    """One of ratio and words, and no ratio below 1."""
    with pytest.raises(ValueError, match="ratio of at least 1"):
        keep(units_of(["A b. C d."]), "b", **wrong)


def test_examples_without_any_are_refused():
    """A calibration needs evidence."""
    with pytest.raises(ValueError, match="at least one"):
        fit([], "nothing")


def test_texts_of_every_form_are_shortened_and_come_back(towns: list[str]):
    """Prose, JSON and a log, each in its own way; the pieces restore each text."""
    records = (
        '[{"town": "Izola", "mills": 3}, {"town": "Jaca", "mills": 2}, {"town": "Bodo", "mills": 1}, {"town": "Fano"}]'
    )
    log = "\n".join(f"2026-01-02 10:00:{i:02} INFO mill {i} turned" for i in range(30))
    texts = [*towns, records, log]
    shaped = shape_context(texts, "When was the mill of Izola finished?")
    assert "The mill of Izola was finished" in " ".join(one.text for one in shaped)
    assert sum(len(one.text) for one in shaped) < sum(map(len, texts)) / 2
    assert [restore(one.text, one.edits, one.removed.get) for one in shaped] == texts
    assert '"Izola", "mills": 3' in shaped[-2].text and '"Fano"' not in shaped[-2].text
