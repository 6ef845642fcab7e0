"""The GitHub Action: its YAML is read, its commands exist, and its script keeps one comment up to date."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from negawatt.checks.markdown import MARK
from negawatt.cli import cli

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".github" / "negawatt-comment.sh"
ALLOWED = {"actions/checkout", "actions/setup-python"}
# What stands in for GitHub's command line: it keeps what it was asked, and gives the comments that are there.
GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$ASKED"
case "$*" in
  *--paginate*) [ "$READ" = no ] && exit 1; printf '%s' "$THERE" ;;
  *) [ "$WRITE" = no ] && exit 1 || exit 0 ;;
esac
"""


@pytest.fixture(scope="module")
def action():
    return yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def test_the_action_has_what_a_composite_action_needs(action):
    """Name, description, inputs with descriptions, and a shell for each command."""
    assert action["name"] and action["description"] and action["runs"]["using"] == "composite"
    assert all(one["description"] for part in ("inputs", "outputs") for one in action[part].values())
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash" and step["run"] and "uses" not in step


def test_what_it_refers_to_is_there(action):
    """Each input, output and step that an expression names exists; texts of others reach commands as variables only."""
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    ids = {step.get("id") for step in action["runs"]["steps"]}
    for name in re.findall(r"\binputs\.([\w-]+)", text):
        assert name in action["inputs"]
    for step, output in re.findall(r"steps\.(\w+)\.outputs\.([\w-]+)", text):
        assert step in ids and f"{output}=" in text
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"], "an expression in a command is run as code"


def test_its_commands_exist(action):
    """The verb and the options are those of the command line, the scripts are there, and bash can read it all."""
    known = {name for parameter in cli.commands["check"].params for name in parameter.opts}
    runs = "\n".join(step["run"] for step in action["runs"]["steps"])
    [line] = [one for one in runs.splitlines() if "-m negawatt" in one]
    words = shlex.split(line)
    assert words[words.index("negawatt") + 1] == "check"
    assert set(re.findall(r"(?<!\S)--[a-z]+", line)) <= known and "(--base " in runs and "--base" in known
    for path in re.findall(r"\$GITHUB_ACTION_PATH/([\w./-]+)", runs):
        assert (ROOT / path).is_file()
    for text in (runs, SCRIPT.read_text()):
        assert subprocess.run(["bash", "-n"], input=text, text=True, timeout=30).returncode == 0


def test_no_action_of_others_is_used():
    """Beyond checking out and setting Python up, nothing is run that is not in this repository."""
    for path in [ROOT / "action.yml", *(ROOT / ".github").rglob("*.yml")]:
        for used in re.findall(r"^\s*-? *uses: (\S+)", path.read_text(encoding="utf-8"), re.M):
            assert used == "./" or used.partition("@")[0] in ALLOWED, used


def commented(folder, **environ):
    """Run the script with a stand-in for gh, and return what that was asked."""
    (folder / "gh").write_text(GH)
    (folder / "gh").chmod(0o755)
    (folder / "comment.md").write_text(f"{MARK}\n\n### all is well\n")
    environ = {"ASKED": str(folder / "asked"), "THERE": "", "READ": "yes", "WRITE": "yes", **environ}
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), str(folder / "comment.md"), "owner/name", "7"],
        env={**os.environ, **environ, "PATH": path}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (folder / "asked").read_text().splitlines(), done.stdout


def test_a_first_comment_is_written_and_the_next_replaces_it(tmp_path):
    """The comment that is there is known by its mark, and by being a bot's."""
    first, _ = commented(tmp_path)
    assert f'startswith("{MARK}")' in first[0] and '.user.type == "Bot"' in first[0]
    assert "--method POST repos/owner/name/issues/7/comments" in first[1] and "body=@" in first[1]
    (tmp_path / "asked").unlink()
    again, _ = commented(tmp_path, THERE="41\n42\n")
    assert "--method PATCH repos/owner/name/issues/comments/41" in again[1]


@pytest.mark.parametrize("refused", ["READ", "WRITE"])
def test_from_a_fork_there_is_no_comment_and_no_failure(tmp_path, refused):
    """Without the permission the check still says its own verdict."""
    _, said = commented(tmp_path, **{refused: "no"})
    assert "::notice::" in said


def test_the_check_step_runs(action, tmp_path):
    """The step itself, in bash: outputs, summary and reports are written, and a failing check is a code, no abort."""
    from checking import STABLE, repository

    [step] = [one for one in action["runs"]["steps"] if one.get("id") == "check"]
    repository(tmp_path, {"asks.py": f"A = {STABLE!r}\n"}, surfaces='constants = ["asks.py:A"]')
    environ = {
        "PYTHON": sys.executable, "FILE": "negawatt.check.toml", "ARGUMENTS": "--strict", "BASE": "",
        "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }  # fmt: skip
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert outputs["exit-code"] == "1" and Path(outputs["sarif"]).is_file() and Path(outputs["junit"]).is_file()
    assert (tmp_path / "summary").read_text().startswith(MARK)
