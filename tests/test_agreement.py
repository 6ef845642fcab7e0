"""Agreement of answers: what counts as the same, and what never does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negawatt.verify.agreement import agree, final_answer, worked_answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("18", "18"), ("$1,234.50 each", "1234.5"), ("1000.0", "1000"), ("007", "7"), ("-0", "0"), (".5 cups", "0.5"),
        ("-3", "-3"), ("2:00 pm", "2"), ("Paris.", "paris"), ("  The   Seine ", "the seine"), ("", None), (" . ", None),
    ],
)  # fmt: skip
def test_the_final_answer_is_the_first_number_or_else_the_text(text: str, said: str | None):
    """Commas, units, trailing zeros, case and space make no other answer; nothing is no answer."""
    assert final_answer(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("16 - 3 = 13, and 9 * 2 = 18.\n#### 18", "18"),
        ("The answer is $42. I used 7 steps.", "42"),
        (r"so \boxed{1,200} in 30 days", "1200"),
        ("3 and then 4", "4"),
        ("The answer is not known.", None),
        ("The answer is unclear, but we had 12 of them.", "12"),
    ],
)
def test_a_worked_answer_ends_behind_its_last_marker(text: str, said: str | None):
    """Else it is the last number; a text without numbers has none."""
    assert worked_answer(text) == said


def test_two_that_say_the_same_agree():
    """Written differently, and also when there are three of them."""
    assert agree(["$18", "18.00"])
    assert agree(["18 dollars", "18", "$18.0"])
    assert not agree(["18", "18", "19"])
    assert not agree(["yes", "18"])


def test_one_alone_and_nothing_never_agree():
    """There is no agreement with oneself, and two empty answers have said nothing."""
    assert not agree(["18"])
    assert not agree([])
    assert not agree(["", ""])
    assert not agree(["", "18"])


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [("7.998", "8", True), ("66.7", "66.6667", True), ("2.5", "3", False), ("38.4", "38", False), ("199", "200", False),
     ("0", "0.001", False)],
)  # fmt: skip
def test_a_number_agrees_with_itself_rounded_but_not_with_a_neighbour(a: str, b: str, same: bool):
    """Rounding may change it by half a percent; and who wants it to the letter can have that."""
    assert agree([a, b]) is agree([b, a]) is same
    assert not agree([a, b], rounded=False)


@given(st.text(max_size=80))
def test_what_says_something_agrees_with_itself(text: str):
    """Whatever the text: it agrees with itself unless it says nothing."""
    assert agree([text, text]) is (final_answer(text) is not None)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_the_final_answer_of_a_final_answer_is_itself(number: object):
    """Writing a number in the one way twice changes nothing."""
    said = final_answer(f"{number:,}")
    assert said is not None
    assert final_answer(said) == said
    assert float(said) == float(str(number))


def test_a_monstrous_number_is_compared_as_text():
    """A thousand digits are no number that somebody answers with, and cost no time."""
    assert agree(["9" * 5000, "9" * 5000])
    assert not agree(["9" * 5000, "9" * 4999])
