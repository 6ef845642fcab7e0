"""The routing table: which model it picks, what it claims, and that it can be pasted."""

import random
import tomllib

import pytest
from suites import case, measured, write_suite

from negawatt.config import parse_config
from negawatt.config_routes import Quality
from negawatt.errors import InputError
from negawatt.proof.routing_table import as_toml, cases_needed, key, routing_tables, value
from negawatt.statistics import least_share, most_share

RATES = {"small": lambda n: n % 4 != 0, "middle": lambda n: n % 20 != 0, "large": lambda n: n % 50 != 0}


def tables(folder, rates=RATES, quality="success = 0.85", **fields):
    table = measured(write_suite(folder, rates, quality=quality, **fields))
    return routing_tables(table, table.suite.file.quality, "small-suite")


def test_the_smallest_model_that_reliably_meets_the_target_is_picked(tmp_path):
    """Of three, the cheap one is below the target, and the middle one is enough."""
    [table] = tables(tmp_path, n=200)
    assert table.chosen is not None and table.candidates[table.chosen].name == "middle"
    assert [one.meets for one in table.candidates] == [False, True, True]


def test_a_rate_above_the_target_is_not_enough(tmp_path):
    """19 of 20 are 95 %, but 20 cases do not show that it is surely above 85 %."""
    [table] = tables(tmp_path, {"middle": lambda n: n % 20 != 0, "large": lambda n: n % 20 != 0}, n=20)
    assert table.chosen is None and table.best is not None
    best = table.candidates[table.best]
    assert best.rate == 0.95 and best.low < 0.85
    assert best.needed is not None and f"about {best.needed - 20} more cases" in table.verdict


def test_the_bounds_hold_for_all_candidates_at_once():
    """Candidates none of which is good enough are accepted, any of them, in at most 5 % of the runs."""
    rng, runs, accepted = random.Random(1), 400, 0
    confidence = 1 - 0.05 / 3
    bounds = [least_share(k, 100, confidence) for k in range(101)]
    for _ in range(runs):
        rights = [sum(rng.random() < 0.9 for _ in range(100)) for _ in range(3)]
        accepted += any(bounds[right] >= 0.9 for right in rights)
    assert least_share(accepted, runs, 0.999) <= 0.05


def test_what_is_pasted_is_a_configuration(tmp_path):
    """The file is read by the product's own reader, and holds what was measured, rounded to the safe side."""
    found = tables(tmp_path, n=200)
    config = parse_config(tomllib.loads(as_toml(found)), "routing.toml")
    policy = config.policies["small-suite"]
    assert (policy.how, policy.model, policy.quality) == ("fixed", "middle", Quality(success=0.85))
    assert [one.model for one in policy.candidates] == ["small", "middle", "large"]
    for candidate, one in zip(policy.candidates, found[0].candidates, strict=True):
        assert candidate.success is not None and candidate.success.n == 200
        assert candidate.success.suite == "Small suite" and candidate.success.date == found[0].date
        assert one.low - 1e-4 <= candidate.success.low <= one.low


def test_each_class_has_a_table_of_its_own(tmp_path):
    """Where the small model is good enough for one class only, only that class is given it."""
    rows = [case(n, **{"class": "easy" if n % 2 else "hard"}) for n in range(160)]
    rates = {"small": lambda n: n % 2 == 1, "large": lambda n: True}
    found = tables(tmp_path, rates, cases=rows)
    assert [(one.group, one.candidates[one.chosen].name) for one in found] == [
        (None, "large"), ("easy", "small"), ("hard", "large"),
    ]  # fmt: skip
    config = parse_config(tomllib.loads(as_toml(found, ["easy", "hard"])), "routing.toml")
    assert config.classes["easy"].policy == "small-suite-easy"
    assert config.policies["small-suite-easy"].model == "small"


def test_a_class_that_no_candidate_is_good_enough_for_has_no_table(tmp_path):
    """The others have theirs, and a remark says why this one is not there."""
    rows = [case(n, **{"class": "easy" if n % 2 else "hard"}) for n in range(160)]
    found = tables(tmp_path, {"small": lambda n: n % 2 == 1, "large": lambda n: n % 2 == 1}, cases=rows)
    text = as_toml(found, ["easy", "hard"])
    assert set(parse_config(tomllib.loads(text), "routing.toml").policies) == {"small-suite-easy"}
    assert "# No candidate meets the target for hard. The best is" in text


def test_a_target_of_loss_compares_with_the_reference(tmp_path):
    """A model that errs where the reference errs loses nothing; one that errs elsewhere loses what it loses."""
    alike = {"small": lambda n: n % 5 != 0, "large": lambda n: n % 5 != 0}
    [table] = tables(tmp_path, alike, quality="loss = 0.05", n=200)
    assert table.candidates[table.chosen].name == "small"
    worse = {"small": lambda n: n % 5 != 0, "large": lambda n: n % 50 != 0}
    [table] = tables(tmp_path, worse, quality="loss = 0.05", n=200)
    assert table.candidates[table.chosen].name == "large"
    assert table.candidates[0].loss == pytest.approx(0.18)
    assert table.candidates[0].loss_high > 0.18


def test_without_a_target_there_is_no_table(tmp_path):
    """A table needs something to hold."""
    with pytest.raises(InputError, match="there is no target: set success"):
        tables(tmp_path, quality="confidence = 0.9")


@pytest.mark.parametrize(("rate", "target"), [(0.95, 0.9), (0.99, 0.95), (1.0, 0.99)])
def test_as_many_cases_as_it_says_are_enough_and_fewer_are_not(rate, target):
    """The number is the smallest at which the bound reaches the target."""
    n = cases_needed(rate, target, 0.95)
    assert least_share(rate * n, n, 0.95) >= target > least_share(rate * (n - 1), n - 1, 0.95)


def test_no_number_of_cases_helps_a_model_that_is_not_good_enough():
    """A rate at or below the target never shows more than it."""
    assert cases_needed(0.9, 0.9, 0.95) is None and cases_needed(0.5, 0.9, 0.95) is None


def test_one_sided_bounds_are_exact():
    """The bounds of Clopper and Pearson: of 0 of 10 at 95 %, 1 - 0.05 ** (1 / 10)."""
    assert most_share(0, 10, 0.95) == pytest.approx(1 - 0.05**0.1)
    assert least_share(10, 10, 0.95) == pytest.approx(0.05**0.1)
    assert (least_share(0, 10, 0.95), most_share(10, 10, 0.95)) == (0.0, 1.0)
    assert (least_share(0, 0, 0.95), most_share(0, 0, 0.95)) == (0.0, 1.0)


SAID = ["a", 'say "so"', "back\\slash", "line\nbreak", "\t\x7f", "größe", True, 3, 0.25, [1, "b"], {"a-b": {"c d": 1}}]


@pytest.mark.parametrize("said", SAID)
def test_what_is_written_as_toml_is_read_as_it_was(said):
    """Strings with quotes, ends of lines and signs that no terminal shows come back unchanged."""
    assert tomllib.loads(f"{key('x y')} = {value(said)}") == {"x y": said}
