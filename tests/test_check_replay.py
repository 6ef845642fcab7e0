"""The replay tier: recorded answers against the prompts of today, without asking anybody."""

import json

import pytest
from checking import STABLE, repository, words
from click.testing import CliRunner
from suites import recorded

from negawatt.cli import cli

SUPPORT = f'+++\n[variables.question]\ntype = "str"\n+++\n::: base role\n{STABLE}\n\n::: task ask\n{{{{ question }}}}\n'
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
SURFACES = 'templates = "prompts"\n[[surfaces]]\nconstants = ["asks.py:*"]'
ASKED = "Is {answer} the right number, as far as you can tell?"


def said(text, **fields):
    """A recorded answer to the template of support."""
    one = recorded("gpt-4o", "<question>\nWhere is it?\n</question>", text, **fields)
    one["request"]["messages"].insert(0, {"role": "system", "content": STABLE})
    return one


JUDGED = recorded("gpt-4o", ASKED.format(answer="seven"), "yes")
RENDER = {"template": "support", "variables": {"question": "Where is it?"}, "model": "gpt-4o"}


def desk(folder, answers=None, renders=(RENDER,), **changed):
    answers = [said("It is here."), JUDGED] if answers is None else answers
    files = {
        "prompts/support.md": SUPPORT,
        "asks.py": f"ASKED = {ASKED!r}\n",
        "tapes/desk.jsonl": "".join(f"{json.dumps(one)}\n" for one in answers),
        "renders.jsonl": "".join(f"{json.dumps(one)}\n" for one in renders),
        **changed,
    }
    path = repository(folder, files, surfaces=SURFACES)
    path.write_text('cassettes = ["tapes"]\nrenders = ["renders.jsonl"]\n' + path.read_text())
    return path


def run(path, *arguments):
    """Return exit code and report of the replay tier."""
    done = CliRunner().invoke(cli, ["check", str(path), "--json", "--replay", *arguments])
    assert done.exit_code in (0, 1, 3), (done.output, done.exception)
    return done.exit_code, json.loads(done.stdout)


def wrong(report):
    return [(one["path"], one["line"], one["what"]) for one in report["findings"] if one["rule"] == "replay"]


def test_recorded_answers_that_still_fit_pass(tmp_path):
    """What was agreed to, and still is asked and answered so, finds nothing; the lock knows the cassette's tokens."""
    path = desk(tmp_path)
    code, report = run(path)
    assert code == 1 and [what for _, _, what in wrong(report)] == ["tapes/desk.jsonl is not in tokens.lock.json"]
    assert run(path, "--update")[0] == 0
    code, report = run(path)
    assert (code, wrong(report), report["replay"]["uncovered"]) == (0, [], [])
    [tape] = report["replay"]["cassettes"].values()
    assert (tape["answers"], tape["output_tokens"]) == (2, 20) and tape["input_tokens"] > 30


def test_the_static_tier_keeps_what_the_lock_says_of_cassettes(tmp_path):
    """`--update` without `--replay` agrees to prompts, and forgets no recording."""
    path = desk(tmp_path)
    run(path, "--update")
    assert CliRunner().invoke(cli, ["check", str(path), "--update"]).exit_code == 0
    assert run(path)[0] == 0


def test_an_answer_to_another_prompt_is_stale(tmp_path):
    """A prompt that was changed has no recorded answers any more: each is named by its line, and the rendering too."""
    path = desk(tmp_path)
    run(path, "--update")
    changed = {"prompts/support.md": SUPPORT.replace("kindly", "coolly")}
    code, report = run(desk(tmp_path, **changed), "--update")
    assert code == 1
    assert wrong(report) == [
        ("renders.jsonl", 1, "no answer is recorded for the template 'support' as it is rendered now"),
        ("tapes/desk.jsonl", 1, "this answer was recorded for a prompt that is not there any more"),
    ]
    assert report["replay"]["uncovered"] == ["prompts/support.md"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"n": 1}', None),
        ('{"n": "one"}', "breaks the schema"),
        ('```json\n{"n": 1}\n```', "asks for JSON, and this answer is none"),
    ],
)
def test_an_answer_keeps_the_contract_of_its_request(tmp_path, text, problem):
    """JSON that was asked for is JSON, and keeps its schema."""
    path = desk(tmp_path, answers=[said(text, response_format=FORMAT), JUDGED], renders=())
    path.write_text(path.read_text().replace('renders = ["renders.jsonl"]\n', ""))
    code, report = run(path, "--update")
    assert (code == 1, len(wrong(report))) == (problem is not None, int(problem is not None))
    assert problem is None or problem in wrong(report)[0][2]


def test_an_answer_that_was_cut_off_is_no_answer(tmp_path):
    """An answer that ended at its limit is an error."""
    cut = said("It is")
    cut["response"]["choices"][0]["finish_reason"] = "length"
    code, report = run(desk(tmp_path, answers=[cut, JUDGED]), "--update")
    assert code == 1 and wrong(report) == [("tapes/desk.jsonl", 1, "this answer was cut off, or never ended")]


def test_longer_answers_are_growth(tmp_path):
    """The mean of output tokens is held against the lock, by the same guard as prompts."""
    path = desk(tmp_path)
    run(path, "--update")
    long = said(words(100))
    long["response"]["usage"]["completion_tokens"] = 300
    code, report = run(desk(tmp_path, answers=[long, JUDGED]))
    assert code == 1 and wrong(report)[0][2] == "output tokens an answer have grown from 10 to 155"


@pytest.mark.parametrize(
    ("renders", "arguments", "error"),
    [
        ([{**RENDER, "template": "nobody"}], [], "renders.jsonl:1: template: there is no template 'nobody'"),
        ([{**RENDER, "variables": {}}], [], "renders.jsonl:1: variables.question: template 'support' needs"),
        ([RENDER], ["--cassettes", "none"], "none: cannot be read"),
        ([RENDER], ["--cassettes", "prompts"], "there is no recording in it"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_bad_input(tmp_path, monkeypatch, renders, arguments, error):
    """A template that is not there, a variable that is missing, a cassette that is none: named, exit 2."""
    desk(tmp_path, renders=renders)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["check", "--replay", *arguments])
    assert error in str(done.exception.message)


def test_replay_without_cassettes_asks_for_some(tmp_path):
    """Nothing replayed is never called passed."""
    path = desk(tmp_path)
    path.write_text(path.read_text().replace('cassettes = ["tapes"]\n', ""))
    done = CliRunner().invoke(cli, ["check", str(path), "--replay"])
    assert "--replay needs some" in done.exception.message
