"""Cascades that are calibrated, and policies that are held against their target, on what a run has found."""

from __future__ import annotations

import json

import pytest
from suites import case, lines, recorded, write_suite
from test_evaluate import command

from negawatt.config import load_config
from negawatt.errors import ConfigError, InputError
from negawatt.routing.calibration import load_calibration

HALF = {"small": lambda n: n % 2 == 0, "large": lambda n: True}
POLICY = """
[policies.desk]
how = "{how}"
quality = {{ success = {success} }}
{more}
[[policies.desk.candidates]]
model = "small"
[[policies.desk.candidates]]
model = "large"
"""


def policy(folder, how="fixed", success=0.8, more=""):
    """Write a policy and return its path."""
    path = folder / "routing.toml"
    path.write_text(POLICY.format(how=how, success=success, more=more))
    return path


def held(suite, routing, *more):
    """Hold the policy in *routing* against its target; return the exit code and what the report says."""
    done = command(suite, "--out", suite.parent / "out", "--against", routing, "--json", *more)
    return done.exit_code, json.loads(done.stdout)


# -- router CI ---------------------------------------------------------------------------------------------------------


def test_a_policy_that_meets_its_target_passes(tmp_path):
    """Exit 0: its lower bound reaches the target."""
    suite = write_suite(tmp_path, HALF, n=60)
    code, said = held(suite, policy(tmp_path, more='model = "large"'))
    assert code == 0
    [found] = said["against"]
    assert (found["success"], found["n"], found["chosen"], found["worse"]) == (1.0, 60, {"small": 0, "large": 60}, [])
    assert "meets its target" in said["verdicts"][0]


def test_a_policy_that_falls_below_its_target_fails_and_says_where(tmp_path):
    """Exit 1: its upper bound lies below the target; the cases that got worse are named."""
    suite = write_suite(tmp_path, HALF, n=60)
    code, said = held(suite, policy(tmp_path, more='model = "small"'))
    assert code == 1
    [found] = said["against"]
    assert found["worse"] == [f"c{n}" for n in range(60) if n % 2]
    assert "falls below its target" in said["verdicts"][0]
    assert said["verdicts"][1].startswith("Worse than the reference in 30 cases: c1, c3, ")
    assert said["verdicts"][1].endswith(" and 10 more.")


def test_too_few_cases_say_nothing(tmp_path):
    """Exit 3: neither bound decides it."""
    suite = write_suite(tmp_path, HALF, n=8)
    code, said = held(suite, policy(tmp_path, more='model = "large"', success=0.9))
    assert code == 3 and "cannot be told yet" in said["verdicts"][0]


def test_rules_choose_as_they_would_live(tmp_path):
    """What a rule describes goes where it says, the rest to the reference; what they cost is counted."""
    suite = write_suite(tmp_path, {"small": lambda n: n < 10, "large": lambda n: True}, n=60)
    rules = 'rules = [{ when = { says = "^Say \\\\d\\\\.$" }, model = "small" }]'
    code, said = held(suite, policy(tmp_path, "rule", more=rules))
    [found] = said["against"]
    assert code == 0 and found["chosen"] == {"small": 10, "large": 50}
    assert found["cost_usd"] == pytest.approx((10 * 100e-6 + 50 * 1000e-6) / 60)
    assert found["reference_usd"] == pytest.approx(1000e-6)


def test_each_class_is_held_against_its_own_policy(tmp_path):
    """The policies of classes are told apart, and the worst of them decides."""
    rows = [case(n, **{"class": "easy" if n % 2 == 0 else "hard"}) for n in range(120)]
    suite = write_suite(tmp_path, HALF, cases=rows)
    routing = policy(tmp_path, more='model = "small"')
    other = POLICY.replace("policies.desk", "policies.other").format(how="fixed", success=0.8, more='model = "large"')
    routing.write_text(
        f"{routing.read_text()}{other}[classes.easy]\npolicy = 'desk'\n[classes.hard]\npolicy = 'other'\n"
    )
    code, said = held(suite, routing)
    assert code == 0 and [(one["policy"], one["n"]) for one in said["against"]] == [("desk", 60), ("other", 60)]
    code, said = held(suite, routing, "--policy", "desk")
    assert code == 1 and [one["n"] for one in said["against"]] == [120]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = 1\n", "policies: there is none"),
        (POLICY.replace('"large"', '"huge"').format(how="fixed", success=0.8, more='model = "huge"'),
         "the suite does not ask 'huge'; it asks: small, large"),
        (POLICY.format(how="learned", success=0.8, more='router = "no.npz"'), "no.npz"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_followed_is_refused(tmp_path, text, said):
    """The error names the file and what is wrong with it."""
    suite = write_suite(tmp_path, HALF, n=10)
    routing = tmp_path / "routing.toml"
    routing.write_text(text)
    with pytest.raises(ConfigError) as caught:
        command(suite, "--out", tmp_path / "out", "--against", routing)
    assert said in caught.value.message and "routing.toml" in caught.value.message


# -- cascades ----------------------------------------------------------------------------------------------------------


def a_cascade(folder, *, sure, n=400, quality="success = 0.8"):
    """Write a suite whose small model says how sure it is; *sure* gives that, and whether it is right, by number."""
    (folder / "sure_of_it.py").write_text("def check(case):\n    return float(case.answers[0].split()[0])\n")
    rows = [case(number) for number in range(n)]
    verify = 'verify = [{ kind = "regex", pattern = "RIGHT$" }]'
    path = write_suite(folder, HALF, cases=rows, dataset=verify, quality=quality)
    said = [recorded("small", one["prompt"], f"{sure(i)[0]} {'RIGHT' if sure(i)[1] else 'WRONG'}")
            for i, one in enumerate(rows)]  # fmt: skip
    said += [recorded("large", one["prompt"], "1.0 RIGHT") for one in rows]
    lines(folder / "answers.jsonl", said)
    check = '[cascade]\nmax_error = 0.05\nverify = [{ kind = "python", call = "sure_of_it:check" }]\n[[datasets]]'
    path.write_text(path.read_text().replace("[[datasets]]", check, 1))
    return path


def test_a_cascade_is_calibrated_on_one_half_and_told_on_the_other(tmp_path, monkeypatch):
    """A score that tells right from wrong lets the right half through, for the cost of both models."""
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = a_cascade(tmp_path, sure=lambda n: (0.9, True) if n % 2 else (0.2, False))
    done = command(suite, "--out", tmp_path / "out", "--cascade", tmp_path / "c.json", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)["cascade"]
    assert (found["threshold"], found["calibrated_on"], found["tested_on"]) == (0.9, 200, 200)
    assert found["accepted_wrong"]["mean"] == 0.0 and found["success"]["mean"] == 1.0
    accepted = found["accepted"]["mean"]
    assert found["cost_ratio"]["mean"] == pytest.approx((100e-6 + (1 - accepted) * 1000e-6) / 1000e-6)
    [calibration] = load_calibration(tmp_path / "c.json", "c")
    assert (calibration.policy, calibration.model, len(calibration.scores)) == ("small-suite", "small", 200)
    policy = load_config(tmp_path / "out" / "routing.toml", environ={}).policies["small-suite"]
    assert policy.how == "cascade" and policy.cascade is not None
    assert policy.cascade.verify == calibration.checks and policy.cascade.calibration == str(tmp_path / "c.json")
    assert [one.model for one in policy.candidates] == ["small", "large"]


def test_a_calibrated_cascade_is_held_against_its_target_too(tmp_path, monkeypatch):
    """What it accepts is the small model's answer, what it does not is the reference's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = a_cascade(tmp_path, sure=lambda n: (0.9, True) if n % 2 else (0.2, False))
    command(suite, "--out", tmp_path / "out", "--cascade", tmp_path / "c.json")
    code, said = held(suite, tmp_path / "out" / "routing.toml")
    [found] = said["against"]
    assert code == 0 and found["chosen"] == {"small": 200, "large": 200}
    assert (found["success"], found["worse"]) == (1.0, [])
    assert found["cost_usd"] == pytest.approx(100e-6 + 0.5 * 1000e-6)


def test_a_verifier_that_knows_nothing_calibrates_nothing(tmp_path, monkeypatch):
    """Where right and wrong answers have the same score there is no threshold: exit 1, and no file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = a_cascade(tmp_path, sure=lambda n: (0.9, n % 4 != 0))
    done = command(suite, "--out", tmp_path / "out", "--cascade", tmp_path / "c.json", "--json")
    assert done.exit_code == 1 and not (tmp_path / "c.json").exists()
    said = json.loads(done.stdout)
    assert said["cascade"]["threshold"] is None and not said["cascade"]["enabled"]
    assert said["verdicts"][-1].startswith("The cascade of small is not enabled: ")
    assert "cascade" not in (tmp_path / "out" / "routing.toml").read_text()


@pytest.mark.parametrize(
    ("cascade", "said"),
    [
        ("", "cascade.verify: --cascade needs the verifiers"),
        ('[cascade]\nverify = [{ kind = "exact" }]', "cascade.verify[0].kind: exact compares with what is expected"),
        ('[cascade]\nverify = [{ kind = "draft" }]', "cascade.verify[0].kind: draft belongs to a cascade"),
        ('[cascade]\nverify = [{ kind = "agreement", with_models = ["other"] }]', "cascade.verify[0].with_models"),
    ],
)
def test_a_cascade_that_cannot_be_calibrated_is_refused(tmp_path, cascade, said):
    """By the field that is wrong."""
    suite = write_suite(tmp_path, HALF, n=10)
    suite.write_text(suite.read_text().replace("[[datasets]]", f"{cascade}\n[[datasets]]", 1))
    with pytest.raises((ConfigError, InputError)) as caught:
        command(suite, "--out", tmp_path / "out", "--cascade", tmp_path / "c.json")
    assert said in caught.value.message


def test_agreement_is_read_off_the_answers_of_other_candidates(tmp_path):
    """A second small model that was asked in the same run is the second opinion; nobody is asked again."""
    rates = {"small": lambda n: n % 4 != 0, "middle": lambda n: n % 4 != 0, "large": lambda n: True}
    suite = write_suite(tmp_path, rates, n=300)
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    for i, one in enumerate(kept):  # where both are wrong they say different things
        message = one["response"]["choices"][0]["message"]
        message["content"] = f"9{i}" if message["content"] == "no" else message["content"]
    lines(tmp_path / "answers.jsonl", kept)
    cascade = '[cascade]\nverify = [{ kind = "agreement", with_models = ["middle"] }]\n[[datasets]]'
    suite.write_text(suite.read_text().replace("[[datasets]]", cascade, 1))
    done = command(suite, "--out", tmp_path / "out", "--cascade", tmp_path / "c.json", "--json")
    found = json.loads(done.stdout)["cascade"]
    assert done.exit_code == 0 and found["success"]["mean"] == 1.0
    assert found["accepted"]["mean"] == pytest.approx(0.75, abs=0.08)


# -- routers -----------------------------------------------------------------------------------------------------------


def a_routable_suite(folder, n=120):
    """Write a suite with easy and hard cases, of which the small model does the easy ones."""
    kinds = ["please sort this parcel", "add these four long sums"]
    rows = [{"id": f"c{i}", "prompt": f"{kinds[i % 2]} number {i}", "expected": str(i)} for i in range(n)]
    rates = {"small": lambda i: i % 2 == 0 or i % 5 == 0, "large": lambda i: i % 40 != 1}
    path = write_suite(folder, rates, cases=rows, quality="success = 0.85")
    path.write_text(
        path.read_text().replace("[config.economics]", '[config.recall]\nembedder = "hashing:"\n[config.economics]')
    )
    return path


def test_a_router_that_pays_becomes_a_policy_that_can_be_held_against_its_target(tmp_path):
    """Fitted, kept, written down as learned, read again and followed, all from one run of answers."""
    suite = a_routable_suite(tmp_path)
    done = command(suite, "--out", tmp_path / "out", "--router", tmp_path / "r.npz", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and said["router"]["enabled"]
    assert said["verdicts"][-1].startswith("The router is enabled: ")
    assert said["sheets"][0]["head"] == ["reference asked", "cost", "router", "surely above", "a coin", "by length"]
    path = tmp_path / "out" / "routing.toml"
    policy = load_config(path, environ={}).policies["small-suite"]
    assert (policy.how, policy.router) == ("learned", str(tmp_path / "r.npz"))
    path.write_text(f'[recall]\nembedder = "hashing:"\n{path.read_text()}')
    code, against = held(suite, path)
    [found] = against["against"]
    assert code == 0 and found["chosen"]["small"] > 20 and found["cost_usd"] < found["reference_usd"]


def test_a_router_that_is_worth_nothing_is_not_enabled(tmp_path):
    """Exit 1, no file, and the policy that is written down is not learned; the reason is there."""
    rows = [{"id": f"c{i}", "prompt": f"the same kind {i * 7919 % 1000}", "expected": str(i)} for i in range(80)]
    rates = {"small": lambda i: i * 31 % 7 > 1, "large": lambda i: i * 17 % 29 > 0}
    suite = write_suite(tmp_path, rates, cases=rows, quality="success = 0.7")
    suite.write_text(
        suite.read_text().replace("[config.economics]", '[config.recall]\nembedder = "hashing:"\n[config.economics]')
    )
    done = command(suite, "--out", tmp_path / "out", "--router", tmp_path / "r.npz", "--json")
    assert done.exit_code == 1 and not (tmp_path / "r.npz").exists()
    assert any(line.startswith("The router is not enabled: ") for line in json.loads(done.stdout)["verdicts"])
    assert "learned" not in (tmp_path / "out" / "routing.toml").read_text()


def test_a_router_is_fitted_on_outcomes_that_somebody_has(tmp_path, monkeypatch):
    """A table of prompts and outcomes is enough; without costs a call of the reference counts 1."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "negawatt.toml").write_text('[recall]\nembedder = "hashing:"\n')
    kinds = ["please sort this parcel", "add these four long sums"]
    rows = [f"{kinds[i % 2]} number {i},{int(i % 2 == 0 or i % 5 == 0)},{int(i % 40 != 1)}" for i in range(120)]
    (tmp_path / "o.csv").write_text("\n".join(["q,s,l", *rows]) + "\n")
    options = ("--outcomes", "o.csv", "--prompt", "q", "--models", "small=s,large=l", "--success", 0.8)
    done = command(*options, "--router", "r.npz", "--json")
    assert done.exit_code == 0 and (tmp_path / "r.npz").exists()
    said = json.loads(done.stdout)
    assert said["router"]["enabled"] and not said["router"]["cost_known"]
