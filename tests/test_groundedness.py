"""Groundedness: what the context says passes; other numbers, names, dates and claims do not."""

from __future__ import annotations

import pytest
from worlds import virtual

from negawatt.routing.cases import supplied
from negawatt.verify.groundedness import GroundednessVerifier, sentences
from negawatt.verify.verdict import Case, Verdict

CONTEXT = """Returns are accepted within 30 days of delivery. The customer pays for the return label.
Refunds go to the original card within 5 working days after the warehouse in Rotterdam has received the parcel.
Gift cards and opened software cannot be returned. The warehouse is closed on Sundays."""
QUESTION = "How do I return something?"


async def grounded(answer: str, *, question: str = QUESTION, context: str | None = CONTEXT, **fields: float) -> Verdict:
    return await GroundednessVerifier(**fields)(Case(question=question, answers=[answer], data={}, context=context))


@pytest.mark.parametrize(
    "answer",
    [
        "Returns are accepted within 30 days of delivery.",
        "You can return it within 30 days of delivery. The return label is paid by the customer.",
        "The refund goes to the original card within five working days.",
        "- The customer pays for the label [1].\n- Opened software cannot be returned [2].",
        "Sure! The warehouse in Rotterdam is closed on Sundays.",
        "30 days",
        "30",
    ],
)
@virtual
async def test_what_the_context_says_passes(answer: str):
    """In its own words or in part; numbers in words, lists, marks of citation and phrases around it do no harm."""
    found = await grounded(answer)
    assert found.passed, found.reason
    assert found.score >= 0.5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Returns are accepted within 60 days of delivery.", "60"),
        ("Refunds are sent after the warehouse in Antwerp has received the parcel.", "antwerp"),
        ("The warehouse is closed on Mondays.", "monday"),
        ("Opened software can be returned.", "denies"),
        ("Returns are not accepted within 30 days of delivery.", "denies"),
        ("Our partner shops exchange damaged lamps at any counter.", "does not say it"),
        (
            "Returns are accepted within 30 days of delivery. Damaged lamps are exchanged at any counter.",
            "does not say",
        ),
        ("The form is called RX-77.", "77"),
    ],
)
@virtual
async def test_what_it_does_not_say_fails(answer: str, reason: str):
    """One unsupported sentence is enough, and the reason names what is missing."""
    found = await grounded(answer)
    assert not found.passed
    assert reason in (found.reason or "").casefold()


@pytest.mark.parametrize(
    ("context", "answer"), [(None, "30 days"), ("  ", "30 days"), (CONTEXT, ""), (CONTEXT, "Sure!")]
)
@virtual
async def test_what_cannot_be_judged_fails(context: str | None, answer: str):
    """No context, no text, no claim: each with its reason."""
    found = await grounded(answer, context=context)
    assert (found.passed, found.score) == (False, 0.0)
    assert found.reason


@virtual
async def test_what_the_question_says_may_be_repeated():
    """A name from the question is no invention of the answer."""
    asked = "How long does Mr. Tanaka have to return order 4711?"
    assert (await grounded("Mr. Tanaka has 30 days from delivery to return order 4711.", question=asked)).passed


@virtual
async def test_the_score_is_the_mean_support_and_least_goes_by_it():
    """One of two sentences is there: half of it is supported."""
    answer = "Returns are accepted within 30 days of delivery. The fee is 12 euros."
    half = await grounded(answer)
    assert (half.passed, half.score) == (False, 0.5)
    assert (await grounded(answer, least=0.5)).passed
    assert not (await grounded(answer, least=0.6)).passed


@virtual
async def test_a_long_context_is_judged_as_a_short_one():
    """Beside the event loop, with the same verdict."""
    long = " ".join(f"Shelf {n} holds boxes of size {n % 7}." for n in range(3000))
    assert (await grounded("Returns are accepted within 30 days of delivery.", context=f"{CONTEXT}\n{long}")).passed
    assert not (await grounded("Returns are accepted in Antwerp.", context=f"{CONTEXT}\n{long}")).passed


def test_sentences_are_taken_apart():
    """At stops and line breaks, not at abbreviations or in numbers."""
    text = "Dr. Smith paid 3.5 euros. He left!\n* First item\n2) Second item [3]"
    assert sentences(text) == ["Dr. Smith paid 3.5 euros.", "He left!", "First item", "Second item"]


class Words:
    def __init__(self, ask: str, context: str = "") -> None:
        self.ask, self.context = ask, context


def test_a_long_ask_holds_its_context():
    """The question is the paragraph with the question mark; the rest is what to answer it from."""
    ask = f"Answer from this text.\n\n{CONTEXT * 2}\n\nHow long may I return it?"
    question, context = supplied(Words(ask))
    assert question == "How long may I return it?"
    assert context is not None
    assert "Rotterdam" in context
    assert supplied(Words("How long?", "all of it")) == ("How long?", "all of it")
    assert supplied(Words("How long?")) == ("How long?", None)
