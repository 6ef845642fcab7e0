"""The guards: what two questions must agree in before the one may be answered with the other's answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.recall.guards import GUARDS, conflict, read
from negawatt.recall.reading import language_of
from negawatt.recall.words import words

VETOED = {
    "numbers": [
        ("I have 3 cats", "I have 4 cats"), ("three cats", "four cats"),
        ("ten thousand people", "a thousand people"), ("1,000 users", "1,001 users"), ("5 million", "5 billion"),
        ("5k", "6k"), ("the first step", "the second step"), ("the 1st prize", "the 2nd prize"),
        ("step one or two", "step 3"), ("1/2 of it", "1/3 of it"), ("what is 2+3", "what is 2*3"),
        ("2 + 2", "2 - 2"), ("HTTP error 404", "HTTP error 500"), ("on 5/6/2024", "on 6/5/2024"),
        ("host 192.168.0.1", "host 192.168.0.2"), ("it is -5 outside", "it is 5 outside"),
        ("I want 20. Thanks", "I want 30. Thanks"), ("rooms two, three", "room five"), ("chapter 1", "chapter 2"),
        ("room twenty-one", "room twenty"), ("100 to 200", "100 to 300"),
    ],
    "units": [
        ("1 km", "1 mile"), ("5 kg", "5 lb"), ("30 minutes", "30 hours"), ("20%", "25%"), ("$20", "€20"),
        ("20 °C", "25 °C"), ("16gb of memory", "32gb of memory"), ("an hour", "a day"), ("one hour", "two hours"),
        ("at 5 am", "at 5 pm"), ("at 10:30", "at 10:45"), ("$5 million", "$5 billion"), ("half an hour", "an hour"),
        ("twenty-one days", "twenty days"), ("3 days", "3 weeks"),
    ],
    "dates": [
        ("on Monday", "on Tuesday"), ("on mondays", "on tuesdays"), ("last week", "next week"),
        ("in May", "in June"), ("in march", "in may"), ("today", "tomorrow"), ("Jan 5", "Feb 5"),
        ("5 may", "5 march"), ("Mon at noon", "Tue at noon"), ("opened on the weekend", "opened"),
    ],
    "names": [
        ("flights to Paris", "flights to London"), ("Who is Alice Smith?", "Who is Bob Smith?"),
        ("does Anna like it", "does Peter like it"), ("GPT-4", "GPT-4o"), ("seat 12A", "seat 12B"),
        ("see https://a.example/x", "see https://a.example/y"),
        ("write to a@example.com", "write to b@example.com"), ("what is in /etc/hosts", "what is in /etc/passwd"),
        (r"open C:\a", r"open C:\b"), ("run main.py", "run test.py"),
        ('what does "foo" mean', 'what does "bar" mean'), ("who wrote 'Dune'", "who wrote 'Emma'"),
        ("what does “foo” mean", "what does “bar” mean"), ("explain `foo`", "explain `bar`"),
        ("ask @anna", "ask @peter"),
    ],
    "negation": [
        ("it works", "it does not work"), ("it works", "it doesn't work"), ("it works", "it doesn’t work"),
        ("I can log in", "I cannot log in"), ("I can log in", "I can not log in"),
        ("my card works", "my card never works"), ("tea with sugar", "tea without sugar"),
        ("I am able to log in", "I am unable to log in"), ("I can go", "I can't go"),
        ("I want to cancel", "I don't want to cancel"), ("recipes with nuts", "recipes with no nuts"),
        ("why is it working", "why isn't it working"), ("why can I log in", "why can't I log in"),
        ("it started", "it failed to start"), ("my card works", "my card stopped working"),
        ("I must leave", "I mustn't leave"), ("Can you pay?", "You can't not pay"),
    ],
    "comparatives": [
        ("more than that", "less than that"), ("the largest city", "the smallest city"),
        ("before lunch", "after lunch"), ("the best phone", "the worst phone"),
        ("a faster route", "a slower route"), ("the cheapest", "the priciest"),
    ],
    "antonyms": [
        ("turn on the wifi", "turn off the wifi"), ("enable it", "disable it"),
        ("open an account", "close an account"), ("buy shares", "sell shares"),
        ("lock the card", "unlock the card"), ("a happy song", "an unhappy song"),
        ("is it possible", "is it impossible"), ("is it active", "is it inactive"),
        ("regular verbs", "irregular verbs"), ("the left arm", "the right arm"),
        ("turn up the volume", "turn down the volume"), ("in the morning", "in the evening"), ("fat", "nonfat"),
        ("arrivals", "departures"),
    ],
    "direction": [
        ("fly from London to Paris", "fly from Paris to London"),
        ("convert dollars to euros", "convert euros to dollars"),
        ("from the cellar to the attic", "from the attic to the cellar"), ("usd to eur", "eur to usd"),
        ("to Paris from Rome", "to Rome from Paris"), ("from New York to Paris", "from Paris to New York"),
        ("is tea better than coffee", "is coffee better than tea"),
        ("translate french into dutch", "translate dutch into french"),
    ],
    "language": [
        ("Wie ist das Wetter?", "How is the weather in the hills?"),
        ("où est la gare", "where is the station and how is it"),
        ("какая сегодня погода", "How is the weather in the hills?"),
    ],
    "code": [
        ("x = 1;", "x = 2;"), ("def f(x):", "def g(x):"), ("why:\n```\na\n```", "why:\n```\nb\n```"),
        ("what is wrong?\nSELECT a FROM t", "what is wrong?\nSELECT b FROM t"), ("a != b", "a == b"),
    ],
}  # fmt: skip

LET_PASS = {
    "numbers": [
        ("1,000 people", "1000 people"), ("1 000 people", "1000 people"), ("1.000.000 people", "1000000 people"),
        ("one thousand", "1000"), ("five", "5"), ("twenty-five", "25"), ("twenty-one", "21"), ("5k", "5000"),
        ("two hundred and fifty", "250"), ("two thousand five hundred", "2,500"), ("1.5 million", "1500000"),
        ("a million", "1 million"), ("a dozen eggs", "12 eggs"), ("the first prize", "the 1st prize"),
        ("3rd place", "third place"), ("1 apple", "one apple"), ("1. What is this?", "What is this?"),
        ("twice", "2 times"),
        ("the 1980s", "the 1980s"), ("2 - 3 of them", "2-3 of them"), ("web 2.0", "web 2"),
    ],
    "units": [
        ("1 km", "1000 m"), ("two hours", "120 minutes"), ("60 s", "1 minute"), ("90 min", "1.5 hours"),
        ("1 kg", "1000 g"), ("$20", "20 dollars"), ("20 USD", "$20"), ("$5k", "5000 dollars"),
        ("50%", "50 percent"), ("50 per cent", "50%"), ("16 GB", "16gb"), ("half an hour", "30 minutes"),
        ("an hour", "60 min"), ("one hour", "1 hour"), ("14:30", "2:30 pm"), ("5pm", "17:00"), ("$1.50", "$1.5"),
        ("€3 million", "3,000,000 euros"), ("12 am", "0:00"), ("wait 30s", "wait 30 seconds"),
        ("an hour of work", "a pound of flour"),
    ],
    "dates": [
        ("on Mondays", "on monday"), ("Jan 5", "January 5th"), ("next week", "the next week"),
        ("2024-05-05", "5 May 2024"), ("the 5th of May", "May 5"), ("the past month", "the last month"),
    ],
    "names": [
        ("who is Alice?", "Who is alice?"), ("the wifi in Berlin", "the Wi-Fi in berlin"),
        ("iPhone 12", "iphone12"), ("GPT 4", "gpt-4"), ("gpt4", "GPT-4"), ("node.js", "NodeJS"),
        ("in New York", "in NY"), ("United States", "the US"), ("HOW DO I PAY", "how do I pay"),
        ("How to Reset My Password", "how to reset the password"), ("v1.2", "version 1.2"),
        ("what does “foo” mean", 'what does "Foo" mean'), ("see https://a.example/x.", "see https://a.example/x"),
        ("Einstein's theory", "the theory of einstein"), ("the users' data", "the users data"),
        ('who said "I have a dream"', "who said I have a dream"), ("who wrote 'Dune'", "who wrote Dune"),
        ("on booking.com", "on Booking"), ("Best Way to Learn Python", "how can I learn python"),
    ],
    "negation": [
        ("it isn't working", "it is not working"), ("I can't log in", "I cannot log in"),
        ("I can't log in", "I'm unable to log in"), ("Why not open it?", "Open it?"),
        ("Isn't it open on holidays?", "Is it open on holidays?"), ("It is open, isn't it?", "It is open"),
        ("Can't I pay by card?", "Can I pay by card?"), ("Don't you ship abroad?", "Do you ship abroad?"),
        ("Whether or not I can go", "whether I can go"), ("No, I want a refund", "I want a refund"),
        ("not only cats but dogs", "cats and dogs"), ("I don't know how to pay", "How do I pay?"),
        ("I'm not sure why it failed", "why did it fail"), ("No idea. How do I pay?", "How do I pay?"),
        ("my card is not working", "my card stopped working"), ("it is not impossible", "it is possible"),
        ("why can't I log in", "why am I not able to log in"),
    ],
    "comparatives": [
        ("the biggest one", "the largest one"), ("before and after", "after"),
    ],
    "antonyms": [
        ("turn on the wifi", "switch on the wifi"), ("open or close", "close"), ("until then", "unless then"),
    ],
    "direction": [
        ("from London to Paris", "London to Paris"), ("to Paris from Rome", "from Rome to Paris"),
        ("from here to there", "from here"),
    ],
    "language": [
        ("Wie ist das Wetter?", "wie ist denn das Wetter"), ("wifi password", "Passwort wifi"),
    ],
    "code": [
        ("x = 1;", "x  =  1;"), ("why:\n```\na\n```", "why:\n```a```"),
    ],
}  # fmt: skip


def pairs(table: dict[str, list[tuple[str, str]]]) -> list[object]:
    return [
        pytest.param(guard, *pair, id=f"{guard}: {pair[0]} | {pair[1]}") for guard in table for pair in table[guard]
    ]


def test_every_guard_has_pairs_of_both_kinds():
    """No guard of the list goes without examples."""
    assert set(VETOED) == set(LET_PASS) == set(GUARDS)


@pytest.mark.parametrize(("guard", "one", "other"), pairs(VETOED))
def test_what_differs_in_a_fact_is_vetoed(guard: str, one: str, other: str):
    """The guard that objects is the one that it should be, whichever text comes first."""
    assert conflict(read(one), read(other)) == conflict(read(other), read(one)) == guard


@pytest.mark.parametrize(("guard", "one", "other"), pairs(LET_PASS))
def test_what_says_the_same_in_other_words_passes(guard: str, one: str, other: str):
    """No guard objects, whichever text comes first."""
    assert conflict(read(one), read(other)) is None
    assert conflict(read(other), read(one)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("flights to paris", "flights to london"),
        ("Alice: who is she?", "Bob: who is she?"),
        ("teach me to cook", "teach him to cook"),
        ("I cannot pay without it", "I can pay without it"),
        ("it does", "it does not"),
        ("a long road", "a short road"),
        ("so " * 10_000 + "5", "so " * 10_000 + "6"),
    ],
)
def test_the_limits_that_are_documented_are_the_limits(one: str, other: str):
    """What `negawatt.recall.guards` says that it does not see, it does not see; who mends one, mends the page."""
    assert conflict(read(one), read(other)) is None


@pytest.mark.parametrize(
    ("one", "other", "guard"),
    [
        ("1.5 litres of it", "1.50 litres of it", None),
        ("python 3.1", "python 3.10", "numbers"),
        ("at 5", "at 5 pm", "numbers"),
        ("could you not tell me", "could you tell me", "negation"),
    ],
)
def test_in_doubt_there_is_a_veto(one: str, other: str, guard: str | None):
    """A bare number with a trailing zero may be a version, a bare hour either half of the day: a veto costs a miss."""
    assert conflict(read(one), read(other)) == guard


WORDS = sorted({
    *words().negations, *words().compared, *words().opposed, *words().numbers, *words().units, *words().dates,
    *words().ordinals, "card", "Anna", "GPT-4", "from", "to", "than", "is", "the", "5", "1,000", "$20", "2024-05-05",
    "10:30", "a@example.com", "`x`", '"y"', ".", "?", "why", "don't", "isn't", "v1.2", "x = 1;", "half", "an", "hour",
})  # fmt: skip
SPEECH = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(SPEECH, SPEECH)
def test_objections_are_mutual(one: str, other: str):
    """Whichever of two texts was asked first, the same guard objects."""
    assert conflict(read(one), read(other)) == conflict(read(other), read(one))


@settings(max_examples=300, deadline=None)
@given(st.one_of(SPEECH, st.text(max_size=300)))
def test_no_text_is_in_conflict_with_itself(text: str):
    """Nor with itself between other spaces; any text can be read."""
    assert conflict(read(text), read(text)) is None
    assert conflict(read.__globals__["_read"](text), read.__globals__["_read"](text)) is None
    assert conflict(read(text), read(f" {text} ")) is None


HOSTILE = """
import sys
from negawatt.recall.guards import conflict, read
pieces = [
    "a", "1", "1,", "1.", "1 ", "a(", "a ", "a-", "a.", "@", "a@", "`a", "```", '"', "'", "-1", "no ", "not", "from ",
    "to ", "A ", "A", "if \\n", "<a", "/a", "SELECT ", "x =", "{\\n", "isn't it", "one ", "hundred ", "1/1", "1:1",
    "$", "May ", "a\\u0301", "\\u4e00", " ", "\\n", "than ", "1. ", "e@e.", "C:\\\\", "https://", "\\u201c",
]
for piece in pieces:
    one, other = (piece * (1_000_000 // len(piece)))[:1_000_000], (piece * 20_000)[:19_999]
    conflict(read(one), read(other))
    conflict(read("(" + one[:2_000]), read(other[:2_000] + ")"))
print(len(pieces))
"""


def test_hostile_texts_take_no_longer_than_others():
    """A megabyte of what makes a careless expression go through all starts and ends: 45 of them within a minute."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
        cwd=Path(__file__).parent,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "45"), done.stderr


def test_what_is_kept_of_long_texts_is_nothing():
    """Readings of questions are kept for the next time; those of long answers are not, whatever their number."""
    keep = read.__globals__["_kept"]
    keep.cache_clear()
    for i in range(20):
        read(f"{i} " + "long " * 1_000)
    assert keep.cache_info().currsize == 0
    read("short"), read("short")
    assert (keep.cache_info().currsize, keep.cache_info().hits) == (1, 1)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I reset the password?", "english"), ("Wie kann ich das ändern und wo?", "german"),
        ("Comment est la vue et pour quoi?", "french"), ("¿Dónde está mi tarjeta y por qué?", "spanish"),
        ("какая сегодня погода", "cyrillic"), ("今天天气怎么样", "han"), ("今日の天気は", "kana"),
        ("오늘 날씨", "hangul"), ("wifi password", None), ("", None), ("12345", None),
    ],
)  # fmt: skip
def test_a_language_is_known_where_it_gives_itself_away(text: str, language: str | None):
    """By its script, or by two of its small words; two words of a question need not."""
    assert language_of(text) == language


def test_the_lists_are_lower_case_and_have_no_apostrophes():
    """As the texts are when they are compared: an entry in another form would never be found."""
    lists = words()
    told = [
        *lists.negations,
        *lists.no_negations,
        *lists.failing,
        *lists.ceasing,
        *lists.carriers,
        *lists.inverted,
        *lists.asked,
    ]
    told += [*lists.compared, *lists.opposed, *lists.dates, *lists.dates.values(), *lists.numbers, *lists.ordinals]
    for word in told:
        assert word == word.casefold() and "'" not in word and "’" not in word, word


def test_no_word_stands_on_both_sides_of_a_pair():
    """Such a pair could never object."""
    for pair in (*words().antonyms, *words().comparatives):
        assert pair.one and pair.other and pair.one.isdisjoint(pair.other), pair
