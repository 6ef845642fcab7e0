"""Suites and their cases: what is read, and what is refused with its place and the remedy."""

import json
import sqlite3

import pytest
from suites import case, lines, loaded, recorded, write_suite
from worlds import MODEL, chat, virtual, world

from negawatt.errors import ConfigError, InputError
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.proof.cases import read_cases
from negawatt.proof.evaluate import questions
from negawatt.proof.judging import verifiable

FILE, ANSWERS = 'file = "cases.jsonl"', 'answers = "recorded:answers.jsonl"'
EVERY = {"small": lambda n: n % 2 == 0, "large": lambda n: True}


def edited(path, old, new):
    """Change *old* to *new* in the file *path*."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_a_suite_says_who_is_asked_what(tmp_path):
    """Cases, candidates and the target are what the files say; the last candidate is the reference."""
    suite = loaded(write_suite(tmp_path, EVERY, n=3))
    cases = read_cases(suite)
    assert [(one.id, one.question, one.expected) for one in cases] == [(f"c{n}", f"Say {n}.", str(n)) for n in range(3)]
    assert (suite.reference.model, suite.file.quality.success) == ("large", 0.8)


def test_the_same_questions_come_from_csv_under_other_names(tmp_path):
    """Columns may be called otherwise, and CSV says the same as JSONL."""
    path = write_suite(tmp_path, EVERY, n=2, dataset='columns = { prompt = "q", expected = "a" }')
    (tmp_path / "cases.csv").write_text('q,a\n"Say 0, please",0\nSay 1.,1\n')
    cases = read_cases(loaded(edited(path, "cases.jsonl", "cases.csv")))
    assert [(one.question, one.expected) for one in cases] == [("Say 0, please", "0"), ("Say 1.", "1")]
    assert len({one.id for one in cases}) == 2


def test_context_schema_and_settings_are_part_of_what_is_asked(tmp_path):
    """The context stands before the question, the schema is asked for, a candidate's own system prompt leads."""
    rows = [{**case(0), "context": "Known: 0.", "schema": {"type": "object"}, "tags": ["x"], "group": "g"}]
    path = write_suite(tmp_path, EVERY, cases=rows, dataset='system = "Be brief."\nverify = [{ kind = "schema" }]')
    edited(path, 'model = "large"', 'model = "large"\nsystem = "Think."\nsettings = { temperature = 0 }')
    suite = loaded(path)
    [found] = read_cases(suite)
    assert found.request["messages"][-1]["content"] == "Known: 0.\n\nSay 0."
    assert found.request["response_format"]["json_schema"]["schema"] == {"type": "object"}
    bodies = {one.candidate.called: one.body for one in questions(suite, [found])}
    assert [bodies[name]["messages"][0]["content"] for name in ("small", "large")] == ["Be brief.", "Think."]
    assert bodies["large"]["temperature"] == 0 and "temperature" not in bodies["small"]


def test_a_sample_is_drawn_by_the_seed(tmp_path):
    """The same seed draws the same cases, another one others."""
    path = write_suite(tmp_path, EVERY, n=40, dataset="sample = 10")
    first, again = ([one.id for one in read_cases(loaded(path))] for _ in range(2))
    other = [
        one.id for one in read_cases(loaded(edited(path, 'name = "Small suite"', 'name = "Small suite"\nseed = 2')))
    ]
    assert first == again != other and len(first) == len(other) == 10


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (FILE, f'{FILE}\nfolds = 3', "datasets[0].folds: there is no such field"),
        (FILE, 'file = "none.jsonl"', "datasets[0].file: there is no file"),
        (FILE, "", "datasets[0]: expected one of file and ledger"),
        (FILE, f'{FILE}\nverify = [{{ kind = "oracle" }}]', "verify[0].kind: Invalid enum"),
        (FILE, f'{FILE}\nverify = [{{ kind = "regex" }}]', "verify[0].pattern: "),
        (FILE, f'{FILE}\nverify = [{{ kind = "judge", model = "m" }}]', "no provider is"),
        (FILE, f'{FILE}\nverify = [{{ kind = "groundedness" }}]', "compares with `context`"),
        (FILE, f'{FILE}\nverify = [{{ kind = "schema" }}]', "needs a column `schema`"),
        (FILE, f'{FILE}\nverify = [{{ kind = "agreement" }}]', "repeats = 2"),
        (FILE, f'{FILE}\ndecides = ["judge"]', "decides[0]: no verifier of this"),
        (FILE, f'{FILE}\ncolumns = {{ prompt = "q" }}', "cases.jsonl:1: there is no column 'q'"),
        (ANSWERS, 'answers = "live"', "candidates[0].model: no provider is configured"),
        (ANSWERS, 'answers = "recorded:no.jsonl"', "candidates[0].answers: there is no file"),
        (ANSWERS, 'answers = "played"', "candidates[0].answers: expected live or recorded"),
        ('model = "small"', 'model = "large"', "candidates[1].name: 'large' is there twice"),
        ('model = "small"', 'model = "small"\nsettings = { max_tokens = 0 }', "candidates[0].settings: max_tokens"),
        ('model = "small"', 'model = "small"\nsettings = { stream = true }', "candidates[0].settings.stream"),
    ],
)  # fmt: skip
def test_a_bad_suite_is_refused_with_the_field(tmp_path, old, new, said):
    """The error names the file, the field and what would be right, before anything is asked."""
    path = edited(write_suite(tmp_path, EVERY), old, new)
    with pytest.raises((ConfigError, InputError)) as caught:
        suite = loaded(path)
        cases = read_cases(suite)
        verifiable(suite)
        questions(suite, cases)
    assert said in caught.value.message
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "datasets[0]: no case: cases.jsonl is empty"),
        ([case(1), case(1)], "cases.jsonl:2: id: the id 'c1' is there already, in line 1"),
        ([{"id": "a", "expected": "1"}], "cases.jsonl:1: neither a column 'prompt' nor 'messages'"),
        ([{"prompt": "What?"}], "datasets[0].verify: nothing to judge by"),
        ([{"messages": [], "expected": "1"}], "cases.jsonl:1: messages"),
        ([{"prompt": 3, "expected": "1"}], "cases.jsonl:1: prompt: expected a text"),
    ],
)
def test_a_bad_dataset_is_refused_with_the_line(tmp_path, rows, said):
    """Empty files, ids that are there twice, missing columns and values of the wrong type: each with its place."""
    path = write_suite(tmp_path, EVERY)
    lines(tmp_path / "cases.jsonl", rows)
    with pytest.raises((ConfigError, InputError)) as caught:
        read_cases(loaded(path))
    assert said in caught.value.message


def test_a_row_of_csv_with_too_many_fields_is_refused(tmp_path):
    """A comma too many would shift the columns, and nobody would know."""
    path = write_suite(tmp_path, EVERY)
    (tmp_path / "cases.csv").write_text("prompt,expected\nSay 1, please,1\n")
    with pytest.raises(InputError, match=r"cases\.csv:2: this row has not as many fields"):
        read_cases(loaded(edited(path, "cases.jsonl", "cases.csv")))


# -- cases from the ledger ---------------------------------------------------------------------------------------------


def a_ledger_suite(folder, classes, **fields):
    """Write a suite whose cases are the ledger's; *classes* is TOML below ``[config]``."""
    path = write_suite(folder, EVERY)
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    edited(path, 'file = "cases.jsonl"\n', f'ledger = "sqlite:///ledger.sqlite"\n{more}')
    return edited(path, "[config.economics]", f"{classes}\n[config.economics]")


async def a_ledger(folder):
    """Fill a ledger with four calls of class faq, and one of class private."""
    asked = [*(("faq", f"Q{number}?") for number in range(4)), ("private", "Mine?")]
    ledger = SqliteLedger(folder / "ledger.sqlite")
    async with world(ledger={"keep_content": True}, classes={"faq": {}, "private": {}}) as w:
        for name, text in asked:
            await w.ask(chat(text), request_class=name)
        for row in w.rows():
            ledger.append(row, w.ledger.content(row.id))
    ledger.close()


def test_cases_come_from_the_ledger_where_the_class_consents(tmp_path):
    """Only rows of classes with ``evaluate = true`` are used, and what was kept is expected only if one says so."""
    virtual(a_ledger)(tmp_path)
    consent = "[config.classes.faq]\nevaluate = true\n[config.classes.private]"
    path = a_ledger_suite(tmp_path, consent, expected="kept")
    edited(path, 'model = "large"', f'model = "{MODEL}"')
    cases = read_cases(loaded(path))
    assert [one.question for one in cases] == [f"Q{n}?" for n in range(4)]
    assert {one.expected for one in cases} == {"an answer"} and {one.request_class for one in cases} == {"faq"}


def test_nothing_is_taken_from_the_ledger_without_consent(tmp_path):
    """A class that has not consented is refused by its name, with the line that would give it."""
    virtual(a_ledger)(tmp_path)
    path = a_ledger_suite(tmp_path, "[config.classes.faq]\n[config.classes.private]", **{"class": "faq"})
    with pytest.raises(ConfigError, match=r"no consent .* class 'faq'; .*`evaluate = true` under \[classes\.faq\]"):
        read_cases(loaded(path))
    everything = a_ledger_suite(tmp_path, "[config.classes.faq]\n[config.classes.private]")
    with pytest.raises(ConfigError, match="no consent"):
        read_cases(loaded(everything))


def test_a_ledger_without_content_has_no_case(tmp_path):
    """The error says how many rows there are, and what would have kept their content."""
    virtual(a_ledger)(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM content")
    path = a_ledger_suite(tmp_path, "[config.classes.faq]\nevaluate = true", expected="kept")
    with pytest.raises(InputError, match=r"5 rows, 4 of classes that consent.*keep_content = true"):
        read_cases(loaded(path))


def test_recordings_say_whose_answers_they_hold(tmp_path):
    """A candidate whose model the recording does not know is refused with those that it knows."""
    from negawatt.proof.evaluate import ask_all
    from negawatt.proof.run_file import RunFile

    path = write_suite(tmp_path, EVERY, n=2)
    lines(tmp_path / "answers.jsonl", [recorded("large", "Say 0.", "0")])
    suite = loaded(path)
    with (
        RunFile(tmp_path / "run.jsonl") as found,
        pytest.raises(ConfigError, match="no answer of 'small'; there: large"),
    ):
        ask_all(suite, questions(suite, read_cases(suite)), found)
