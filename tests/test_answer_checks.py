"""Checks of a worked answer: its arithmetic is done again, and whatever is in it, nothing breaks or takes long."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.routing.answer_checks import NAMES, answer_checks, equations

QUESTION = "Janet's ducks lay 16 eggs per day. She eats 3 and bakes with 4. She sells the rest for $2 each."
GOOD = "She has 16 - 3 - 4 = 9 eggs left.\nShe makes 9 * $2 = $<<9*2=18>>18.\n#### 18"
BAD = "However, 16 - 3 = 12, so she might make 12 * 2.5 = 31"


def checked(answer: str, question: str = QUESTION) -> dict[str, float]:
    return dict(zip(NAMES, answer_checks(question, answer), strict=True))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16 - 3 = 13", [("16-3", "13", True)]),
        ("3 x (4 + 1) = 15 apples", [("3x(4+1)", "15", True)]),
        ("so 1,200 / 7 = 171.43", [("1,200/7", "171.43", True)]),
        ("20% * 50 = 10", [("20%*50", "10", True)]),
        ("(240 / 480) * 100% = 50%", [("(240/480)*100%", "50", True)]),
        ("5 \\* $2 = $11", [("5*2", "11", False)]),
        ("10 - 2 = -8", [("10-2", "8", False)]),
        ("5 / 0 = 3", [("5/0", "3", None)]),
        ("2 + 3 * 4 = 14, 2 * 3 + 4 = 10", [("2+3*4", "14", True), ("2*3+4", "10", True)]),
        ("in 2024 = a year, x = 3", []),
        ("5 6 + 1 = 7", [("6+1", "7", True)]),
    ],
)
def test_equations_are_found_and_worked_out_again(text: str, found: list):
    """With spaces, money, percent and brackets; what is no equation is left alone."""
    assert equations(text) == found


def test_a_sound_answer_looks_sound():
    """It has a final number, which it worked out, from numbers of the question, without hedging."""
    found = checked(GOOD)
    assert found["wrong_equations"] == found["hedges"] == found["numbers_unused"] == found["unfinished"] == 0
    assert found["final_computed"] == found["has_final"] == found["final_last"] == found["final_whole"] == 1
    assert found["final_size"] == pytest.approx(math.log1p(18))


def test_an_unsound_one_does_not():
    """Its arithmetic is wrong, it hedges, and it uses numbers that nobody gave."""
    found = checked(BAD)
    assert found["any_wrong_equation"] == 1
    assert found["wrong_equations"] == pytest.approx(math.log1p(2))
    assert found["hedges"] > 0
    assert found["numbers_invented"] > 0
    assert found["numbers_unused"] > 0


def test_an_answer_without_numbers_has_no_final_one():
    """And one that breaks off says so."""
    found = checked("I cannot know this because")
    assert found["has_final"] == found["final_size"] == found["final_computed"] == 0
    assert found["unfinished"] == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(alphabet="0123456789+-*/()=.,% x$\n#", max_size=300))
def test_any_texts_have_their_numbers(question: str, answer: str):
    """One finite number for each name, always."""
    for one, other in ((question, answer), (answer, question), (answer, answer)):
        found = answer_checks(one, other)
        assert len(found) == len(NAMES)
        assert all(math.isfinite(value) for value in found)


@pytest.mark.parametrize(
    "piece", ["9", "(", "1+", "1*", " ", "1 ", "-(", ".1", "1,", "answer 1 ", "((1)", "1=", "1+1="]
)
def test_a_long_answer_of_one_kind_is_no_trap(piece: str):
    """A text made to keep the patterns busy is looked at like any other: as many steps as it is long."""
    assert len(answer_checks(piece * 20_000, piece * 20_000)) == len(NAMES)
