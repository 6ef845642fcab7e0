"""``negawatt tasks``, ``negawatt feedback`` and the tasks in ``negawatt report``: what they print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from report_world import a_row

from negawatt.cli import cli
from negawatt.errors import InputError, InvalidRequest
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.sqlite import SqliteLedger


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ledger: four tasks of two classes, of which two are judged, one by each word."""
    monkeypatch.chdir(tmp_path)
    ledger = SqliteLedger(tmp_path / "negawatt.sqlite")
    for i in range(4):
        ledger.append(a_row(i, request_class="faq" if i % 2 else "mail", task_id=f"t{i}", template="desk"))
    ledger.append(a_row(9, task_id="t0", cost_pusd=None))
    for name, success in (("t0", True), ("t1", False)):
        ledger.record(Feedback(at=1.0, tenant="default", kind="task", about=name, success=success)).result(10)
    ledger.close()
    return tmp_path


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words, env={"COLUMNS": "80"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def loaded(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_the_summary_has_every_group_and_the_whole(folder: Path):
    """As JSON the figures themselves; as a table, in 80 columns, with what is not known of the rest."""
    found = loaded("tasks", "summary", "--by", "class")
    assert {one["name"]: (one["tasks"], one["judged"], one["successes"]) for one in found["groups"]} == {
        "faq": (2, 1, 0), "mail": (2, 1, 1)}  # fmt: skip
    total = found["all"]
    assert (total["tasks"], total["judged"], total["unknown_share"], total["unpriced_tasks"]) == (4, 2, 0.5, 1)
    assert total["cost_per_success_usd"] == {"mean": None, "low": None, "high": None}  # the success has no price
    assert total["energy_per_success_j"] == pytest.approx([5.4, 10.8, 21.6])
    shown = run("tasks", "summary", "--by", "class").output
    for words in ("faq", "mail", "all", "undefined", "+ 1 unpriced", "2 of 4 tasks were judged (2 by feedback)",
                  "it is not known"):  # fmt: skip
        assert words in " ".join(shown.split()), words
    assert max(map(len, shown.splitlines())) <= 80
    for by in ("all", "tenant", "model", "template", "prompt"):
        assert len(loaded("tasks", "summary", "--by", by)["groups"]) == 1
    assert loaded("tasks", "summary", "--since", "1h") == {"by": "class", "all": None, "groups": []}
    assert "There was no task." in run("tasks", "summary", "--since", "1h").output


def test_tasks_are_listed_newest_first_and_by_outcome(folder: Path):
    """Each with its calls, cost, verdict and basis."""
    found = loaded("tasks", "list")
    assert [one["id"] for one in found] == ["t3", "t2", "t1", "t0"]
    assert (found[-1]["calls"], found[-1]["unpriced_calls"], found[-1]["success"]) == (2, 1, True)
    assert [one["id"] for one in loaded("tasks", "list", "--outcome", "unknown")] == ["t3", "t2"]
    assert [one["id"] for one in loaded("tasks", "list", "--outcome", "failure")] == ["t1"]
    assert len(loaded("tasks", "list", "--most", "1")) == 1
    lines = run("tasks", "list").output.splitlines()
    assert "t0  mail  gpt-4o-mini  2 calls  $0.00100  success (feedback)" in lines[-1]
    assert lines[0].endswith("unknown")
    assert run("tasks", "list", "--since", "1h").output == "no task\n"


def test_what_callers_named_steers_no_terminal(folder: Path):
    """A task or a model named so as to move the cursor, or to look like another line, stays in its line."""
    ledger = SqliteLedger(folder / "negawatt.sqlite")
    evil = "t\x1b[2J\r\n2026-01-01  t9  faq  success"
    ledger.append(a_row(20, task_id=evil, request_class="faq", request_model=evil, response_model=evil))
    ledger.close()
    for words in (("tasks", "list"), ("tasks", "summary", "--by", "model")):
        shown = run(*words).output
        assert "\x1b" not in shown and "\r" not in shown and "\N{REPLACEMENT CHARACTER}[2J" in shown
        assert not any(line.lstrip().startswith("2026-01-01  t9") for line in shown.splitlines())
    assert loaded("tasks", "list")[0]["id"] == evil


def test_one_task_is_shown_and_one_that_is_not_there_is_said(folder: Path):
    """With its rows and all that was said of it, words about what has no row yet included."""
    found = json.loads(run("tasks", "show", "t0").output)
    assert (found["task"]["success"], len(found["calls"]), found["feedback"][0]["success"]) == (True, 2, True)
    run("feedback", "--task", "early", "--success")
    found = json.loads(run("tasks", "show", "early").output)
    assert (found["task"], found["calls"], len(found["feedback"])) == (None, [], 1)
    done = CliRunner().invoke(cli, ["tasks", "show", "t0", "--tenant", "other"])
    assert isinstance(done.exception, InputError) and "no task 't0' of the tenant 'other'" in str(done.exception)


def test_feedback_is_written_to_the_ledger(folder: Path):
    """Once; it makes the verdict; what is wrong is refused by the name of its field, as over HTTP."""
    assert loaded("feedback", "--task", "t2", "--failure", "--reason", "no") == {
        "recorded": True, "repeated": False, "task_id": "t2"}  # fmt: skip
    assert run("feedback", "--task", "t2", "--failure", "--reason", "no").output == "it was said before\n"
    assert loaded("feedback", "--call", "call-3", "--success", "--useful-tokens", "5")["call_id"] == "call-3"
    verdicts = {one["id"]: one["success"] for one in loaded("tasks", "list")}
    assert verdicts == {"t0": True, "t1": False, "t2": False, "t3": True}
    for words, field in (
        (["--success"], "call_id"),
        (["--success", "--ledger", "none.sqlite"], "call_id"),
        (["--task", "t"], "success"),
        (["--task", "t", "--score", "2"], "score"),
    ):
        refused = CliRunner().invoke(cli, ["feedback", *words]).exception
        assert isinstance(refused, InvalidRequest) and refused.param == field
    run("feedback", "--task", "t", "--success", "--failure", code=2)
    missing = CliRunner().invoke(cli, ["feedback", "--task", "t", "--success", "--ledger", "none.sqlite"]).exception
    assert isinstance(missing, InputError) and not (folder / "none.sqlite").exists()


def test_the_rules_of_the_configuration_judge_its_own_ledger(folder: Path):
    """Where it names the ledger; a ledger that is named on the command line keeps the rules that it has."""
    (folder / "negawatt.toml").write_text("[classes.faq.success]\nanswered = true\n")
    basis = {one["id"]: one["basis"] for one in loaded("tasks", "list")}
    assert basis == {"t0": "feedback", "t1": "feedback", "t2": None, "t3": "heuristic"}
    (folder / "negawatt.toml").unlink()
    assert {one["id"]: one["basis"] for one in loaded("tasks", "list")} == basis
    assert {one["id"]: one["basis"] for one in loaded("tasks", "list", "--ledger", "negawatt.sqlite")} == basis


def test_the_report_says_what_a_success_costs(folder: Path):
    """On the terminal, as JSON, and on its page."""
    done = run("report", "--json", "--html", "report.html")
    found = json.loads(done.stdout)["tasks"]
    assert (found["all"]["tasks"], [one["name"] for one in found["classes"]]) == (4, ["faq", "mail"])
    page = (folder / "report.html").read_text()
    for text in (page, done.stderr):
        assert "Tasks" in text and "2 of 4 tasks were judged" in " ".join(text.split())
    assert '<th scope="row">mail</th>' in page
