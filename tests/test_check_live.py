"""The live tier: base against head on the same cases, pair by pair. The answers here are recorded."""

import json
import subprocess

import numpy as np
import pytest
from checking import STABLE, agreed, repository
from click.testing import CliRunner
from suites import write_suite

from negawatt.checks.live import Side, compared
from negawatt.checks.plan import Live
from negawatt.cli import cli

RULES = Live()


def sides(n, *, inflation=1.0, noise=0.0, right=(0.9, 0.9), cost=(1.0, 1.0), seed=3):
    """Base and head of *n* cases: lengths that differ by a factor, successes by their shares."""
    rng = np.random.default_rng(seed)
    length = rng.integers(50, 400, n).astype(float)
    longer = np.maximum(1.0, length * inflation * np.exp(rng.normal(0, noise, n)))
    order = np.arange(n) / n
    base = Side((order < right[0]).astype(float), length, np.full(n, cost[0]))
    return base, Side((order < right[1]).astype(float), longer, np.full(n, cost[1]))


def levels(n, rules=RULES, **how):
    found = compared(rules, "m", [f"c{at}" for at in range(n)], sides(n, **how), "suite.toml")
    return [(one.level, one.what.split(":")[1].split()[0]) for one in found.findings]


def test_no_change_passes():
    """The same answers, or answers that differ by chance alone, are no finding."""
    assert levels(100) == [] and levels(200, noise=0.3) == []


def test_longer_answers_fail_beyond_what_is_allowed():
    """30 % more fails; 5 % more, though certain, is allowed; shorter ones are."""
    assert levels(150, inflation=1.3, noise=0.2) == [("error", "answers")]
    assert levels(150, inflation=1.05, noise=0.1) == [] and levels(150, inflation=0.5) == []


def test_longer_answers_may_pay():
    """Where a success costs less than before, inflation is only told."""
    assert levels(150, inflation=1.3, right=(0.5, 0.9)) == [("warning", "answers")]


def test_too_few_pairs_and_too_wide_intervals_decide_nothing():
    """Inconclusive is never passed: neither with 5 pairs, nor where the interval holds the threshold many times."""
    assert levels(5, inflation=3.0) == [("inconclusive", "5")]
    assert levels(0) == [("inconclusive", "0")]
    assert levels(25, noise=1.5) == [("inconclusive", "answers")]


def test_worse_answers_fail():
    """A loss beyond chance fails; one that may be chance, and is more than allowed, is inconclusive."""
    assert levels(200, right=(0.9, 0.7)) == [("error", "accuracy")]
    assert levels(60, right=(0.9, 0.84)) == [("inconclusive", "accuracy")]
    assert levels(60, right=(0.7, 0.9)) == []


def test_repeats_of_a_case_are_no_pairs_of_their_own():
    """10 cases asked 10 times are 10 pairs."""
    found = compared(RULES, "m", [f"c{at % 10}" for at in range(100)], sides(100), "s.toml")
    assert found.figures["pairs"] == 10 and found.findings[0].level == "inconclusive"


def test_unknown_figures_are_not_zero():
    """Where no output tokens and no verdicts are known, that is said."""
    nothing = np.full(50, np.nan)
    unknown = Side(nothing, nothing, nothing)
    found = compared(RULES, "m", [str(at) for at in range(50)], (unknown, unknown), "s.toml")
    assert [one.level for one in found.findings] == ["inconclusive", "inconclusive"]
    assert found.figures["cost_usd"] == {"base": None, "head": None}


def always(number):
    return True


def never(number):
    return number % 2 == 0


def evaluated(folder, right, n=40):
    folder.mkdir(exist_ok=True)
    path = repository(folder, {"asks.py": f"A = {STABLE!r}\n"}, surfaces='constants = ["asks.py:A"]')
    agreed(path)
    write_suite(folder, {"small": right, "large": always}, n=n)
    return path


def run(path, base, out, *more):
    suite = path.parent / "suite.toml"
    done = CliRunner().invoke(
        cli, ["check", str(path), "--live", str(suite), "--base", str(base), "--out", str(out), "--json", *more]
    )
    assert done.exit_code in (0, 1, 3), (done.output, done.exception)
    return done.exit_code, json.loads(done.stdout)


def test_a_suite_is_run_at_base_and_at_head(tmp_path):
    """Each candidate is compared with itself; the one that got worse fails, with figures and a paragraph."""
    evaluated(tmp_path / "base", always)
    path = evaluated(tmp_path / "head", never)
    comment = tmp_path / "comment.md"
    code, report = run(path, tmp_path / "base", tmp_path / "out", "--markdown", str(comment))
    assert code == 1
    [one] = [one for one in report["findings"] if one["rule"] == "live"]
    assert (one["surface"], one["level"]) == ("small", "error") and "accuracy has changed by -50.0 points" in one[
        "what"
    ]
    figures = {one["candidate"]: one for one in report["live"]["candidates"]}
    assert figures["small"]["pairs"] == 40 and figures["large"]["accuracy_change"]["mean"] == 0
    assert "small: 40 pairs; -50.0 points of accuracy" in comment.read_text(encoding="utf-8")
    assert (tmp_path / "out" / "base" / "run.jsonl").exists() and (tmp_path / "out" / "head" / "run.jsonl").exists()


def test_few_cases_exit_with_3(tmp_path):
    """5 pairs are inconclusive, whatever they say."""
    evaluated(tmp_path / "base", always, n=5)
    assert run(evaluated(tmp_path / "head", always, n=5), tmp_path / "base", tmp_path / "out")[0] == 3


def git(folder, *words):
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, timeout=60)


def test_the_base_may_be_a_commit(tmp_path):
    """It is checked out beside, compared with, and removed again; the work in progress is not touched."""
    folder = tmp_path / "repo"
    path = evaluated(folder, always)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    (folder / "asks.py").write_text(f"A = {STABLE + ' Be brief.'!r}\n")
    code, report = run(path, "HEAD", tmp_path / "out")
    assert (code, report["base_tokens"], report["head_tokens"]) == (0, 17, 20)
    listed = subprocess.run(["git", "worktree", "list"], cwd=folder, check=True, capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--live", "suite.toml"], "--live compares with a --base"),
        (["--live", "suite.toml", "--base", "nowhere"], "neither a folder nor a commit"),
        (["--live", "suite.toml", "--base", "--all"], "neither a folder nor a commit"),
        (["--live", "suite.toml", "--base", "."], "not there"),
        (["--live", "/suite.toml", "--base", "."], "does not lie in"),
    ],
)
def test_what_cannot_be_compared_is_bad_input(tmp_path, monkeypatch, arguments, error):
    """No base, no commit, no suite: named, before anything is asked."""
    evaluated(tmp_path, always, n=3)
    monkeypatch.chdir(tmp_path)
    if error == "not there":
        (tmp_path / "suite.toml").unlink()
        error = "there is no suite"
    done = CliRunner().invoke(cli, ["check", *arguments])
    assert error in (done.output + str(getattr(done.exception, "message", "")))
