"""Texts are cut where a sentence, item, row or block of code ends, and put together they are the text again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.shape.sentences import joined, units, units_of
from negawatt.shape.terms import asked, nearest, spelled_out, stem, terms

PIECES = st.lists(
    st.sampled_from(
        ["Mr. ", "A b. ", "U.S. ", "e.g. ", "\n", "\n\n", "```\n", "~~~\n", "# T\n", "- item\n", "1. x\n", "| a |\n",
         "  ", "\t", "He said \"No.\" ", "Ja! ", "終わり。", "…", "x = 1;\n", "\r\n", "3.5 ", "\x0b", "\u2028",
         "A: b\n"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


def said(text: str) -> list[str]:
    return [unit.text.strip() for unit in units(text) if unit.text.strip()]


@given(st.one_of(st.text(max_size=300), PIECES))
@settings(max_examples=300, deadline=None)
def test_the_units_put_together_are_the_text(text: str):
    """Each unit stands at its offset, and none of the text is lost or changed."""
    found = units(text)
    assert "".join(unit.text for unit in found) == text == joined(found)
    assert all(text[unit.start : unit.start + len(unit.text)] == unit.text for unit in found)


@given(st.lists(PIECES, max_size=4))
@settings(max_examples=60, deadline=None)
def test_units_of_several_texts_know_their_text(texts: list[str]):
    """The source of a unit is the text that it stands in."""
    found = units_of(texts)
    assert all("".join(unit.text for unit in found if unit.source == i) == text for i, text in enumerate(texts))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rained. We left.", ["It rained.", "We left."]),
        ("Mr. Hale met Dr. Ito. They spoke.", ["Mr. Hale met Dr. Ito.", "They spoke."]),
        ("J. R. Lund wrote it. It sold.", ["J. R. Lund wrote it.", "It sold."]),
        ("The U.S. Senate sat. It grew 3.5 % a year.", ["The U.S. Senate sat.", "It grew 3.5 % a year."]),
        ("They live in the U.S. The rest left.", ["They live in the U.S.", "The rest left."]),
        ("Use tools, e.g. Saws. Then rest.", ["Use tools, e.g. Saws.", "Then rest."]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("Really? Yes! Good… Fine.", ["Really?", "Yes!", "Good…", "Fine."]),
        ("See p. 5 and Fig. 3 there. End.", ["See p. 5 and Fig. 3 there.", "End."]),
        ("In 1999. Then more.", ["In 1999.", "Then more."]),
        ("これは本です。読みます。", ["これは本です。", "読みます。"]),
        ("Über alles. Ödön kam.", ["Über alles.", "Ödön kam."]),
    ],
)
def test_a_sentence_ends_where_a_new_one_can_begin(text: str, sentences: list[str]):
    """Abbreviations, initials and figures end none."""
    assert said(text) == sentences


def test_lists_headings_and_rows_are_units_of_their_own():
    """The number of an item is no sentence."""
    text = "# Plan\n1. Buy milk. Cheap.\n2. Go\n- rest\n\n| a | b |\n| 1 | 2 |\n"
    assert said(text) == ["# Plan", "1. Buy milk.", "Cheap.", "2. Go", "- rest", "| a | b |", "| 1 | 2 |"]
    assert [unit.kind for unit in units(text)] == ["heading", "item", "item", "item", "item", "blank", "row", "row"]


def test_a_wrapped_line_goes_on_and_turns_of_talk_do_not():
    """Sentences over two lines stay whole; a speaker begins a new one."""
    wrapped = "The committee that met on the first day of the long\nConference agreed. It ended."
    assert said(wrapped) == [wrapped[: wrapped.index(" It")], "It ended."]
    assert said("Ann: what do you think about all of the long plan that we made\nBob: no") == [
        "Ann: what do you think about all of the long plan that we made", "Bob: no"]  # fmt: skip


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
def test_fenced_code_is_one_unit(fence: str):
    """Nothing within it ends a sentence, not even an empty line."""
    code = f"{fence}py\nx = 1. # A. B\n\n# C\ny = 2\n{fence}\n"
    found = units(f"Look here.\n{code}Done. Bye.")
    assert [unit.text for unit in found if unit.kind == "code"] == [code]
    assert found[-1].text == "Bye."


def test_words_are_compared_without_their_endings():
    """Cases, plurals and tenses are one word; names in code are taken apart; scripts without spaces go by pairs."""
    assert terms("Studies STUDIED study") == [stem("study")] * 3
    assert stem("countries") == stem("country") and stem("runs") == "run"
    assert spelled_out("getUserDetails get_user HTTPServer2") == "get User Details get user HTTP Server2"
    assert terms("東京都") == ["東京", "京都"]
    assert asked("What is it that they do?") == frozenset()
    assert asked("Who painted the ceiling?") == {stem("painted"), stem("ceiling")}


def test_a_misspelled_word_is_found_and_a_number_is_not_bent():
    """Likeness never turns one number into another."""
    assert nearest("septicemia", ["septicemic", "septum"]) == "septicemic"
    assert nearest("1998", ["1999"]) is None
    assert nearest("zebra", ["house"]) is None
