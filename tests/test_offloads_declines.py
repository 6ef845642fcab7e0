"""What handlers must not answer: whatever is not understood as a whole, and whatever can be read in two ways."""

import pytest

from negawatt.offloads.handler import OffloadAsk, first_answer
from negawatt.offloads.opening import HANDLERS, open_handlers

SUMS = [
    "What is 9/11?",
    "What is 24/7?",
    "9-11",
    "2024-05-15",
    "555-1234",
    "What is 42?",
    "What is 1/3?",
    "What is 5 / 0?",
    "What is 007 + 1?",
    "What is 1,5 + 2?",
    "What is 80 + 10%?",
    "-2^2",
    "What is 2^100000?",
    "9^9^9",
    "What is 2 + 2 and why?",
    "What is 2 + 2 in binary?",
    "Why is 2 + 2 = 4?",
    "2 + 2\nExplain your answer.",
    "If I have 2 + 2 apples, how many are there?",
    "What is 2(3)?",
    "What is the sum of 1 and 2?",
    "What is a 4x4?",
    "((((1 + 2",
    "+",
    "",
    "What is 3 plus?",
    "Is 2 + 2 = 5?",
    "A baker has 12 * 3 loaves and sells 5. How many are left?",
    "((((((((((((((((((((" * 20 + "1+1",
]
UNITS = [
    "Convert 5 gallons to liters",
    "How many ounces are in a cup?",
    "Convert 5 pounds to dollars",
    "Convert 5 km to kg",
    "How many days are in a month?",
    "Convert 3 tons to kg",
    "How many meters is Mount Everest in feet?",
    "Convert 5 km to miles and round to two digits",
    "Convert 5 Mb to MB",
    "5 minutes in the sauna",
    "convert 10 dollars to euros",
    "How many seconds are in a minute of silence?",
]
DATES = [
    "What day of the week is 03/04/2024?",
    "What day is it?",
    "What day of the week is tomorrow?",
    "How many days are there between Christmas and Easter?",
    "How many days from 2024-01-01 to 2024-02-01?",
    "What date is 1 month after 2024-01-31?",
    "What day of the week was 2023-02-29?",
    "What day of the week was 1066-10-14?",
    "Convert 05.06.2024 to ISO format",
    "What is the date of the French Revolution?",
    "How many working days are there between 2024-01-01 and 2024-03-01?",
    "What date is 30 days after I was born?",
    "What is today's date?",
    "Convert Monday, March 5, 2024 to ISO format",
    "Is this a leap year?",
]
OTHERS = [
    "Normalize the price $1,234 as JSON",
    "Normalize the price 1,234 € as JSON",
    "What currency is $20 in?",
    "What currency is used in Japan?",
    "Parse the price 'about 20 €' as JSON",
    "Convert the number 1,234 to a plain number",
    "Extract all email addresses from the following text: nobody wrote.",
    "Extract all email addresses from the following text: a@b.org. Then sort them by name.",
    "Extract all email addresses and names from the following text: a@b.org",
    "Extract the most important email address from this text: a@b.org, c@d.org",
    "Find all phone numbers in the following message: call 020 7031 3000",
    "Extract the IBANs from this text: DE89 3704 0044 0532 0130 01",
    "Extract all email addresses from https://a.org",
    "Find the email address in my inbox",
    "What language is this text in? ok",
    "What language is this text in? Jeg bor i Oslo og liker å gå på ski om vinteren med venner.",
    "What language is spoken in Brazil?",
    "What language is this code in?\nprint('hello world, this is a long enough line of code')",
    "Detect the language of the following text and translate it: Guten Tag, wie geht es Ihnen heute in Berlin?",
    "Remove duplicates from this list: Jonathan Smith, Jonathon Smith, Ann",
    "Remove duplicates from this list: Apple, apple",
    "Remove duplicates from this array in Python: [1, 1, 2]",
    "Sort these numbers: 3, 1, 2",
    "Sort these alphabetically: 10, 9",
    "Sort these numbers in ascending order: one, two, three",
    "Sort the following words alphabetically: Österreich, Zypern",
    "Sort the following words by length: a, bb",
    "Sort this list in ascending order: 1, 2 and 3",
    "Sort the following numbers in ascending order: 3, 1\nThen add them up.",
    "Minify this JSON: {'a': 1}",
    'Minify this JSON: {"a": 1, "a": 2}',
    'Pretty-print the following JSON: {"a": 1.10}',
    "Turn this CSV into JSON:\nname,age\nAda,36",
    'Convert the following JSON to CSV: [{"a": 1}, {"b": 2}]',
    "Convert this JSON to YAML: {}",
    "Convert the following CSV to JSON",
    "Write a function that adds two numbers.",
    "Translate 'two plus two' into French.",
    "I still have not received my new card, I ordered over a week ago.",
    "Use ABC notation to write a melody in the style of a folk tune.",
    "hi",
    "?",
    "\u0000",
    "١ + ٢",
    "2 + 2" * 5000,
    "1" + " " * 15_000 + "x",
    "?" * 15_000 + "x",
    "Extract all email addresses from the following text: " + "a@" * 7000,
    "Find all phone numbers in the following message: " + "1-" * 7000,
]


@pytest.fixture(scope="module")
def handlers():
    return open_handlers(tuple(HANDLERS))


@pytest.mark.parametrize("text", [*SUMS, *UNITS, *DATES, *OTHERS])
async def test_it_is_left_to_the_model(handlers, text):
    """No handler answers, and each says why; none fails."""
    found = await first_answer(handlers, OffloadAsk(text))
    assert found.answer is None, (found.handler, found.answer.text)
    assert all(reason for _, reason in found.declined)
    assert not any(reason.startswith("it failed") for _, reason in found.declined)
