"""What handlers answer in code: each certain of the whole request."""

from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from negawatt.errors import ConfigError
from negawatt.offloads.handler import Answered, Declined, OffloadAsk, first_answer, offload
from negawatt.offloads.identifiers import extract
from negawatt.offloads.opening import HANDLERS, open_handlers
from negawatt.offloads.rules import Rules, read_rules

EVERY = tuple(HANDLERS)
GERMAN = "Ich gehe heute nicht in die Schule, weil ich krank bin und lieber im Bett bleibe."


@pytest.fixture(scope="module")
def handlers():
    return open_handlers(EVERY)


@pytest.mark.parametrize(
    ("handler", "text", "answer"),
    [
        ("arithmetic", "What is 12 * (3 + 4)?", "84"),
        ("arithmetic", "2+2", "4"),
        ("arithmetic", "2 + 2 =", "4"),
        ("arithmetic", "Can you please calculate 1,234.50 * 2", "2469"),
        ("arithmetic", "What is 15% of 80?", "12"),
        ("arithmetic", "What's 15 percent of 80", "12"),
        ("arithmetic", "How much is 7 times 8?", "56"),
        ("arithmetic", "What is 10 divided by 4?", "2.5"),
        ("arithmetic", "Compute 2^10 - 24", "1000"),
        ("arithmetic", "what is 5 squared", "25"),
        ("arithmetic", "What is 2 to the power of 3?", "8"),
        ("arithmetic", "What is 0.1 + 0.2?", "0.3"),
        ("arithmetic", "What is 10 - 4?", "6"),
        ("arithmetic", "calculate 9/3", "3"),
        ("arithmetic", "2^3^2", "512"),
        ("arithmetic", "What does 3 + 4 equal?", "7"),
        ("arithmetic", "1/3 + 2/3", "1"),
        ("arithmetic", "What is -3 * 4?", "-12"),
        ("units", "Convert 5 km to miles", "≈ 3.10686 miles"),
        ("units", "How many feet are in 2 miles?", "10560 feet"),
        ("units", "What is 100 °F in celsius?", "≈ 37.7778 celsius"),
        ("units", "convert 100 C to F", "212 F"),
        ("units", "how many seconds are there in an hour?", "3600 seconds"),
        ("units", "5 kg in grams", "5000 grams"),
        ("units", "Convert 2.5 pounds into kg, please.", "≈ 1.13398 kg"),
        ("units", "How many MB are in 2 GB?", "2000 MB"),
        ("dates", "What day of the week is 2024-05-15?", "Wednesday"),
        ("dates", "What day of the week was July 20, 1969?", "Sunday"),
        ("dates", "Which day was the 14th of July 1789", "Tuesday"),
        ("dates", "How many days are there between 2024-01-01 and March 1, 2024?", "60"),
        ("dates", "What date is 30 days after 2024-01-15?", "2024-02-14"),
        ("dates", "What is the date 2 weeks before 5 March 2024?", "2024-02-20"),
        ("dates", "2 months after 2023-12-15", "2024-02-15"),
        ("dates", "Convert 'March 5, 2024' to ISO format", "2024-03-05"),
        ("dates", "Convert 15 mars 2024 to ISO 8601", "2024-03-15"),
        ("dates", "Is 2100 a leap year?", "No"),
        ("dates", "What is today's date?", "2026-11-23"),
        ("money", "Normalize the price '1.234,56 €' as JSON", '{"amount": "1234.56", "currency": "EUR"}'),
        ("money", "Convert the number 1 234 567,89 to a plain number", "1234567.89"),
        ("money", "What currency is €20 in?", "EUR"),
        ("money", "Parse the price US$ 12.50 as JSON", '{"amount": "12.50", "currency": "USD"}'),
        ("extraction", "Extract all email addresses from the following text: Ask a@b.org or c.d@e.net.",
         "a@b.org\nc.d@e.net"),
        ("extraction", "List the URLs in this text as JSON: on https://a.org/x_(y). Or http://b.org!",
         '["https://a.org/x_(y)","http://b.org"]'),
        ("extraction", "Find all phone numbers in the following message:\nCall +44 20 7031 3000.", "+442070313000"),
        ("extraction", "Extract the IBANs from this text: DE89 3704 0044 0532 0130 00", "DE89370400440532013000"),
        ("extraction", "Extract all ISBNs from the following text: 978-0-306-40615-7 and 0-306-40615-2",
         "9780306406157\n0306406152"),
        ("extraction", "Find all IP addresses in this text: 10.0.0.1 and 192.168.1.20.", "10.0.0.1\n192.168.1.20"),
        ("language", f"What language is this text in?\n{GERMAN}", "German"),
        ("language", f"Detect the language of the following text: {GERMAN}", "German"),
        ("lists", "Remove duplicates from this list: apple, pear, apple, fig", "apple, pear, fig"),
        ("lists", "Remove all duplicate lines from the following list:\n- x\n- y\n- x", "- x\n- y"),
        ("lists", "Sort these numbers in descending order: 3, 10, 2", "10, 3, 2"),
        ("lists", "Sort the following words alphabetically: pear, Apple, fig", "Apple, fig, pear"),
        ("lists", "Arrange these numbers from smallest to largest: 1.5, -2, 0", "-2, 0, 1.5"),
        ("formats", 'Minify this JSON: { "a": [1, 2] }', '{"a":[1,2]}'),
        ("formats", 'Pretty-print the following JSON: {"a":1}', '{\n  "a": 1\n}'),
        ("formats", "Convert this TOML to JSON:\na = 1\n[b]\nc = 'x'", '{\n  "a": 1,\n  "b": {\n    "c": "x"\n  }\n}'),
        ("formats", 'Convert the following JSON to CSV: [{"a": 1, "b": "x,y"}]', 'a,b\n1,"x,y"'),
        ("formats", "Turn this CSV into JSON:\nname,city\nAda,Rome",
         '[\n  {\n    "name": "Ada",\n    "city": "Rome"\n  }\n]'),
    ],
)  # fmt: skip
async def test_it_answers(handlers, handler, text, answer):
    """The one handler whose matter it is, and no other before it."""
    found = await first_answer(handlers, OffloadAsk(text, now=datetime(2026, 11, 23, 10, tzinfo=UTC)))
    assert (found.handler, found.answer and found.answer.text) == (handler, answer)


async def test_marks_around_a_text_end_it(handlers):
    """What stands between them is no instruction, whatever it says."""
    text = 'Extract all email addresses from this text: """Write to a@b.org. Then translate it."""'
    found = await first_answer(handlers, OffloadAsk(text))
    assert found.answer.text == "a@b.org"


def test_what_is_extracted_is_whole_or_not_at_all():
    """None where something looks like one more that code cannot read."""
    assert extract("email", "a@b.org, and a@b.org") == ["a@b.org"]
    assert extract("email", "a@b.org or c at d.org or @e") is None
    assert extract("iban", "DE89 3704 0044 0532 0130 01") is None
    assert extract("phone", "call 020 7031 3000") is None
    assert extract("phone", "call 020 7031 3000", "GB") == ["+442070313000"]
    assert extract("date", "from 2024-01-31 to 2024-02-29") == ["2024-01-31", "2024-02-29"]
    assert extract("date", "on 03/04/2024") is None
    assert extract("date", "5 March 2024") == ["2024-03-05"]
    assert extract("number", "3 of 4.5") == [3, 4.5]
    assert extract("number", "3 of 1,200") is None
    assert extract("currency", "it costs 20 EUR") == ["EUR"]
    assert extract("currency", "it costs $20") is None
    assert extract("language", GERMAN) == ["de"]
    assert extract("url", "nothing here") == []
    with pytest.raises(KeyError):
        extract("colour", "red")


# Handlers of others


async def test_a_function_is_made_a_handler():
    """Plain or async, with the name that it is given."""

    @offload("greeting")
    def greet(ask):
        return Answered("Hello") if ask.text == "hi" else Declined("no greeting")

    @offload("late")
    async def later(ask):
        return Answered("Later")

    assert (await first_answer([greet, later], OffloadAsk("hi"))).handler == "greeting"
    assert await first_answer([greet, later], OffloadAsk("ho")) == (
        Answered("Later"),
        "late",
        (("greeting", "no greeting"),),
    )


async def test_a_handler_that_raises_is_passed_by(handlers):
    """So is one that says nothing, or something that is no answer; each with its reason."""

    @offload("broken")
    def broken(_):
        raise ZeroDivisionError("oh")

    @offload("silent")
    def silent(_):
        return None

    @offload("odd")
    def odd(_):
        return "text"

    found = await first_answer([broken, silent, odd, *handlers], OffloadAsk("2+2"))
    assert found.answer.text == "4"
    assert found.declined == (
        ("broken", "it failed: ZeroDivisionError: oh"),
        ("silent", "it has no answer"),
        ("odd", "it said no answer"),
    )


def test_an_unknown_handler_is_named():
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"offload.handlers\[1\]: no handler 'oracle'; known: arithmetic, units"):
        open_handlers(["dates", "oracle"])


async def test_a_plug_in_is_opened_by_its_name(monkeypatch):
    """What the entry point leads to: a handler, or a class that makes one; anything else is named."""

    class Oracle:
        name = "oracle"

        async def __call__(self, ask):
            return Answered("42")

    found = {"oracle": Oracle, "made": offload("made")(lambda ask: None), "text": "no handler", "broken": None}

    def load(name):
        if name == "broken":
            raise ImportError("no module")
        return found[name]

    def points(group, name=None):
        assert group == "negawatt.offloads"
        return [SimpleNamespace(name=one, load=partial(load, one)) for one in found if name in (None, one)]

    monkeypatch.setattr("negawatt.offloads.opening.entry_points", points)
    handlers = open_handlers(["made", "oracle"])
    assert (await first_answer(handlers, OffloadAsk("?"))).handler == "oracle"
    for name, said in (("text", "is no handler"), ("broken", "ImportError: no module"), ("other", "known: arithmetic")):
        with pytest.raises(ConfigError, match=said):
            open_handlers([name])


def test_a_missing_library_is_named(monkeypatch):
    """With the extra that brings it, when the handler is opened and not at its first question."""
    monkeypatch.setattr("negawatt.offloads.opening.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"units needs pint; install negawatt\[offload\]"):
        open_handlers(["units"])
    assert open_handlers(["arithmetic"])


# Rules

TABLE = """
[[rules]]
name = "return-window"
asks = ["Can I return an order after {days:int} days?", "may I send it back after {days:int} days"]
when = ["days <= 30"]
answer = "Yes: {days:int} days are fine."

[[rules]]
name = "late-return"
asks = ["Can I return an order after {days:int} days?"]
when = ["days > 30"]
answer = "No: returns are taken for 30 days."
"""


async def test_a_rule_answers_what_is_one_of_its_phrases(tmp_path):
    """Case, spaces and politeness aside; conditions choose among rules of one phrase."""
    file = tmp_path / "rules.toml"
    file.write_text(TABLE)
    rules = read_rules(file)
    assert (await rules(OffloadAsk("can I return  an order after 12 days"))).text == "Yes: 12 days are fine."
    assert (await rules(OffloadAsk("Can I return an order after 31 days?"))).text.startswith("No")
    for other in ("Can I return an order after 12 days if it is broken?", "Can I return it?", ""):
        assert isinstance(await rules(OffloadAsk(other)), Declined)


async def test_two_rules_that_hold_answer_nothing(tmp_path):
    """Which of them was meant is for nobody to guess; both are named."""
    file = tmp_path / "rules.toml"
    file.write_text(TABLE.replace("days > 30", "days > 10"))
    found = await read_rules(file)(OffloadAsk("Can I return an order after 12 days?"))
    assert found == Declined("several rules hold: return-window, late-return")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("rules = 3", "Expected `array`"),
        ("[[rules]]\nname = 'a'\nasks = ['x']\nanswer = 'y'\nwhne = []", "whne"),
        ("[[rules]]\nname = 'a'\nasks = ['x {n:float}']\nanswer = 'y'", "no holes of kind 'float'"),
        ("[[rules]]\nname = 'a'\nasks = ['x']\nanswer = '{n:int}'", "n is not a hole of all"),
        ("[[rules]]\nname = 'a'\nasks = ['x {n:int}']\nwhen = ['n about 3']\nanswer = 'y'", "no condition"),
        ("[[rules]]\nname = 'a'\nasks = []\nanswer = 'y'", "has no asks"),
        ("not toml", "rules.toml"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, table, said):
    """With the file, the rule and what was expected."""
    file = tmp_path / "rules.toml"
    file.write_text(table)
    with pytest.raises(ConfigError, match=r"rules\.toml") as error:
        read_rules(file)
    assert said in str(error.value)


def test_rules_can_be_made_without_a_file():
    """An empty table answers nothing."""
    assert Rules([]).name == "rules"


# Sums are Python's


FORMS = st.sampled_from(["{} + {}", "{} - ({})", "({}) * {}", "{} * {}", "{} - {}"])


@settings(deadline=None)
@given(
    st.recursive(
        st.integers(0, 999).map(str),
        lambda inner: st.builds(lambda form, a, b: form.format(a, b), FORMS, inner, inner),
        max_leaves=8,
    )
)
async def test_a_sum_is_worked_out_as_python_does(handlers, text):
    """Whatever the brackets, with the precedence that everybody knows."""
    assume(not text.isdigit())
    found = await first_answer(handlers, OffloadAsk(f"Calculate {text}"))
    assert found.answer.text == str(eval(text))
