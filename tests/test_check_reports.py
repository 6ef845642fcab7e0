"""What the check says, and where: the terminal, JSON, the comment, JUnit, SARIF, and its exit codes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import jsonschema_rs
import orjson
import pytest
from checking import STABLE, repository, words
from click.testing import CliRunner
from test_count_errors import outcome

from negawatt.checks.findings import WHAT, Finding
from negawatt.checks.junit import junit
from negawatt.checks.markdown import MARK, cell
from negawatt.checks.sarif import sarif
from negawatt.cli import cli
from negawatt.ledger.sqlite import SqliteLedger

CONSTANTS = 'constants = ["asks.py:*"]\ncalls_per_day = 1_000'
ROOT = Path(__file__).parent.parent

# What SARIF 2.1.0 (OASIS standard, sections 3.13 to 3.52) requires of the parts that are written here.
_TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
_PLACE = {
    "type": "object",
    "required": ["physicalLocation"],
    "properties": {
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation", "region"],
            "properties": {
                "artifactLocation": {"required": ["uri"], "properties": {"uri": {"pattern": "^[^/ ][^ ]*$"}}},
                "region": {"required": ["startLine"], "properties": {"startLine": {"type": "integer", "minimum": 1}}},
            },
        }
    },
}
_RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "level", "message", "locations"],
    "properties": {
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": _TEXT,
        "locations": {"type": "array", "items": _PLACE, "minItems": 1},
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_RULE = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "shortDescription": _TEXT}}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name"],
                                "properties": {"rules": {"type": "array", "items": _RULE}},
                            }
                        },
                    },
                    "results": {"type": "array", "items": _RESULT},
                },
            },
        },
    },
}


def asking(folder, **constants):
    source = "\n".join(f"{name} = {value!r}" for name, value in constants.items())
    return repository(folder, {"asks.py": source + "\n"}, surfaces=CONSTANTS)


def run(folder, *arguments):
    """Run ``negawatt check`` in *folder* as a process of its own."""
    command = [sys.executable, "-m", "negawatt", "check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, env=os.environ)


def reports(folder, *arguments):
    """Run the check with every report, and return (exit code, JSON, comment, JUnit, SARIF)."""
    files = [folder / name for name in ("c.md", "c.xml", "c.sarif")]
    options = [str(part) for pair in zip(("--markdown", "--junit", "--sarif"), files, strict=True) for part in pair]
    done = CliRunner().invoke(cli, ["check", str(folder / "negawatt.check.toml"), "--json", *options, *arguments])
    assert done.exit_code in (0, 1, 3), done.output
    texts = [file.read_text(encoding="utf-8") for file in files]
    return done.exit_code, json.loads(done.stdout), texts[0], ElementTree.fromstring(texts[1]), json.loads(texts[2])


def test_exit_codes_tell_passed_failed_and_bad_input_apart(tmp_path):
    """0 nothing is wrong, 1 something is, 2 the file names what is not there; one line says what."""
    asking(tmp_path, A=STABLE)
    failed = run(tmp_path)
    assert failed.returncode == 1 and "tokens.lock.json:1: error: there is no tokens.lock.json" in failed.stdout
    assert run(tmp_path, "--update").returncode == 0
    passed = run(tmp_path)
    assert passed.returncode == 0 and "1 surface, 17 tokens to gpt-4o (exact): 0 error" in passed.stdout
    with (tmp_path / "negawatt.check.toml").open("a") as file:
        file.write('[[budgets]]\nsurface = "asks.py:NOBODY"\nmost = 5\n')
    bad = run(tmp_path)
    assert bad.returncode == 2 and "there is no surface 'asks.py:NOBODY'" in bad.stderr and bad.stdout == ""
    assert run(tmp_path, "none.toml").returncode == 2


def test_growth_is_told_in_tokens_money_and_energy(tmp_path):
    """The comment has its mark, base, head and change, and what that comes to in 30 days at list prices."""
    asking(tmp_path, A=STABLE, B="Short.")
    assert reports(tmp_path, "--update")[0] == 0
    asking(tmp_path, A=f"{STABLE} {words(60)}", B="Short.")
    code, report, comment, _, _ = reports(tmp_path)
    assert code == report["exit_code"] == 1
    [changed] = [line for line in report["surfaces"] if line["tokens"]]
    assert (changed["surface"], changed["base"]) == ("asks.py:A", 17)
    assert changed["tokens"] == report["head_tokens"] - report["base_tokens"] > 60
    # gpt-4o: 2.50 dollars for a million tokens of input, 30,000 calls.
    expected = changed["tokens"] * 30_000 * 2.5e-6
    assert float(report["change_per_month"]["usd"]) == pytest.approx(expected)
    low, central, high = report["change_per_month"]["wh"]
    assert 0 < low <= central <= high
    assert comment.startswith(f"{MARK}\n\n### negawatt check: ❌ failed")
    assert f"| `asks.py:A` | 17 | {17 + changed['tokens']} | +{changed['tokens']}" in comment
    assert f"+${expected:,.2f}" in comment and "<details><summary>1 as before</summary>" in comment


def test_what_is_not_known_is_not_zero(tmp_path):
    """Without calls a day, or without a price, there is no money in the report, and a question mark in the comment."""
    repository(tmp_path, {"asks.py": f"A = {STABLE!r}\n"}, surfaces='constants = ["asks.py:*"]')
    _, report, comment, _, _ = reports(tmp_path, "--update")
    [line] = report["surfaces"]
    assert line["calls_per_day"] is None and line["now"] is None and report["change_per_month"] is None
    assert "| ? | ? | ? | ? |" in comment
    text = (tmp_path / "negawatt.check.toml").read_text()
    (tmp_path / "negawatt.check.toml").write_text(f'models = ["nobody-knows-it"]\n{text}calls_per_day = 5\n')
    _, report, _, _, _ = reports(tmp_path, "--update")
    assert report["surfaces"][0]["now"]["usd"] is None and report["basis"] == "estimated"


def test_the_base_is_what_another_folder_has(tmp_path):
    """--base counts the prompts of a checkout, whatever its lock says; without a check there everything is new."""
    head, base, bare = (tmp_path / name for name in ("head", "base", "bare"))
    for folder in (head, base, bare):
        folder.mkdir()
    asking(base, A="Short.")
    asking(head, A=STABLE)
    code, report, _, _, _ = reports(head, "--update", "--base", str(base))
    assert (code, report["base_tokens"], report["head_tokens"]) == (0, 2, 17)
    _, report, _, _, _ = reports(head, "--base", str(bare))
    assert report["surfaces"][0]["base"] is None


def test_a_base_that_cannot_be_read_stops_nobody_from_mending_it(tmp_path):
    """The lock is compared with instead, and that is said."""
    head, base = tmp_path / "head", tmp_path / "base"
    for folder in (head, base):
        folder.mkdir()
        asking(folder, A=STABLE)
    (base / "asks.py").write_text("def (")
    assert run(head, "--update").returncode == 0
    done = run(head, "--base", str(base))
    assert done.returncode == 0 and "not valid Python" in done.stderr and "the lock is compared with" in done.stderr


def test_junit_has_a_test_for_each_surface(tmp_path):
    """An error is a failure with its remedy; a surface without one passes; a warning is what it printed."""
    asking(tmp_path, A=STABLE, B=f"One.\n\n{words(30)}", C=f"Two.\n\n{words(30)}")
    with (tmp_path / "negawatt.check.toml").open("a") as file:
        file.write('[[budgets]]\nsurface = "asks.py:A"\nmost = 5\n')
    _, _, _, root, _ = reports(tmp_path, "--update")
    [suite] = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    cases = {case.get("classname"): case for case in suite}
    assert "cut 12 tokens" in cases["asks.py:A"].find("failure").text
    assert cases["asks.py:B"].find("failure") is None
    assert "[duplicate]" in cases["asks.py:C"].find("system-out").text


def test_sarif_has_what_the_standard_requires(tmp_path):
    """Version, tool, rules and results with places; each result names a rule that is there, by its index too."""
    asking(tmp_path, A=STABLE, B="It is {now}, so answer as well as you can.")
    _, _, _, _, log = reports(tmp_path)
    jsonschema_rs.validate(SARIF, log)
    [one] = log["runs"]
    names = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    assert names == list(WHAT) and len(one["results"]) == 2
    assert all(names[result["ruleIndex"]] == result["ruleId"] for result in one["results"])


def test_reports_hold_whatever_a_prompt_says(tmp_path):
    """Control characters, cells, mentions and tags of a prompt break no report."""
    nasty = Finding("lock", "error", "a|b", "my prompts/ü<b>.py", 0, "\x00 @everyone <!-- x --> | `", "]]> & \ud800")
    root = ElementTree.fromstring(junit([], [nasty]).encode("utf-8", "replace"))
    assert root[0].get("failures") == "1"
    log = orjson.loads(orjson.dumps(sarif([nasty._replace(remedy="x")])))
    jsonschema_rs.validate(SARIF, log)
    assert cell("a|b <!-- `@x\n") == "a\\|b &lt;!-- '@\u200bx "


def test_calls_a_day_come_from_the_ledger(tmp_path):
    """A surface that names a class is sent as often as the calls of that class in the ledger."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    now = time.time()
    for at in range(40):
        request_class = "support" if at % 4 else "other"
        ledger.append(outcome(f"nw-{at}", request_class=request_class, received_at=now - (4 - at / 10) * 86_400))
    ledger.append(outcome("nw-cached", request_class="support", received_at=now - 1, attempts=0, cache="exact"))
    ledger.close()
    surfaces = 'constants = ["asks.py:*"]\nclass = "support"'
    repository(tmp_path, {"asks.py": f"A = {STABLE!r}\n"}, surfaces=surfaces)
    _, report, _, _, _ = reports(tmp_path, "--update", "--ledger", str(tmp_path / "ledger.sqlite"))
    assert report["surfaces"][0]["calls_per_day"] == pytest.approx(7.5, rel=0.01)  # 30 in four days
    _, report, _, _, _ = reports(tmp_path)
    assert report["surfaces"][0]["calls_per_day"] is None


def test_a_template_is_sent_as_often_as_the_ledger_says(tmp_path):
    """Without a class, calls that named the template count; of constants nothing is known."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    for at in range(20):
        ledger.append(outcome(f"nw-{at}", template="help/desk", received_at=time.time() - 2 * 86_400))
    ledger.close()
    files = {"prompts/help/desk.md": STABLE, "prompts/other.md": "Short.", "asks.py": "A = 'Be kind.'\n"}
    repository(tmp_path, files, surfaces='templates = "prompts"\nconstants = ["asks.py:A"]')
    _, report, _, _, _ = reports(tmp_path, "--update", "--ledger", str(tmp_path / "ledger.sqlite"))
    daily = {line["surface"]: line["calls_per_day"] for line in report["surfaces"]}
    assert daily["prompts/help/desk.md"] == pytest.approx(10, rel=0.01)
    assert daily["prompts/other.md"] == 0 and daily["asks.py:A"] is None


def test_this_repository_keeps_its_own_check():
    """The prompts that negawatt sends of its own accord are named, locked, and within their budgets."""
    done = CliRunner().invoke(cli, ["check", str(ROOT / "negawatt.check.toml"), "--strict"])
    assert done.exit_code == 0, done.output


def test_every_prompt_of_this_repository_is_under_its_check():
    """Whoever adds a prompt to a module that asks models has to name it: each has the words that end one."""
    found = set()
    for path in sorted((ROOT / "src" / "negawatt").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "never an instruction to you" in text or "Answer with JSON" in text:
            found.add(str(path.relative_to(ROOT)))
    locked = json.loads((ROOT / "tokens.lock.json").read_text())["surfaces"]
    assert found == {name.partition(":")[0] for name in locked}
