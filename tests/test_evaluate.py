"""Running a suite: what is asked, what is kept, what is counted, and what the report says of it."""

import asyncio
import json

import click.testing
import pytest
from suites import case, lines, loaded, measured, recorded, write_suite

from negawatt.cli import cli
from negawatt.errors import InputError
from negawatt.proof.cases import read_cases
from negawatt.proof.evaluate import missing, questions
from negawatt.proof.evaluation_figures import evaluation
from negawatt.proof.evaluation_report import json_report, markdown_report
from negawatt.proof.run_file import RunFile

HALF = {"small": lambda n: n % 2 == 0, "large": lambda n: n != 1}


def command(*arguments):
    """Run `negawatt eval` in this process; return its exit code and what it printed."""
    done = click.testing.CliRunner().invoke(cli, ["eval", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_every_candidate_is_asked_every_case_at_the_product_s_own_prices(tmp_path):
    """Success, tokens, cost and time are those of the answers; a recorded second is reported, and not waited for."""
    figures = evaluation(measured(write_suite(tmp_path, HALF, n=40)))
    small, large = figures["candidates"]["small"], figures["candidates"]["large"]
    assert (small["n"], small["accuracy"]["mean"], large["accuracy"]["mean"]) == (40, 0.5, 39 / 40)
    assert small["cost_usd_per_call"]["mean"] == pytest.approx(100e-6)
    assert small["cost_usd_per_success"]["mean"] == pytest.approx(200e-6)
    assert large["cost_usd_per_success"]["mean"] == pytest.approx(1000e-6 * 40 / 39)
    assert (small["input_tokens"]["mean"], small["output_tokens"]["mean"]) == (90, 10)
    assert small["latency_p50_s"] == pytest.approx(2.0, abs=1e-6)
    assert figures["by_cost"] == ["small", "large"]
    assert figures["first_line"].startswith("Recorded answers, not asked now: small, large")


def test_candidates_are_compared_on_the_same_cases(tmp_path):
    """Half of the cases differ, all but one in favour of the large one: McNemar's exact test says so."""
    figures = evaluation(measured(write_suite(tmp_path, HALF, n=40)))
    compared = figures["comparisons"]["candidates"]["small"]
    assert (compared["better"], compared["worse"]) == (0, 19)
    assert compared["p"] == pytest.approx(2 * 0.5**19) == compared["p_holm"]
    assert compared["difference"]["mean"] == pytest.approx(-19 / 40)
    assert compared["difference"]["high"] < 0
    assert figures["baselines"]["oracle"]["accuracy"] == 39 / 40
    assert figures["baselines"]["oracle"]["cost_usd_per_call"] == pytest.approx((21 * 100e-6 + 19 * 1000e-6) / 40)


def test_a_coin_at_equal_cost_stands_beside_a_model_in_the_middle(tmp_path):
    """What a third model reaches is shown beside mixing the other two at random for the same money."""
    rates = {"small": lambda n: n % 2 == 0, "middle": lambda n: n % 10 != 0, "large": lambda n: True}
    [mix] = evaluation(measured(write_suite(tmp_path, rates, n=40)))["baselines"]["random_mix"]
    assert mix["share_of_large"] == pytest.approx(3 / 9)
    assert mix["accuracy"] == pytest.approx(0.5 * 2 / 3 + 1 / 3)
    assert mix["difference"]["mean"] == pytest.approx(0.9 - 2 / 3)


def test_a_call_that_fails_is_a_failed_case_with_its_reason(tmp_path):
    """What was not recorded is a task not done, is counted apart, and has neither verdict nor latency."""
    path = write_suite(tmp_path, HALF, n=4)
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    lines(tmp_path / "answers.jsonl", [one for i, one in enumerate(kept) if i != 0])
    small = evaluation(measured(path))["candidates"]["small"]
    assert (small["n"], small["failed"]["n"], small["accuracy"]["mean"]) == (4, 1, 0.25)
    [(reason, times)] = small["failed"]["reasons"].items()
    assert "NotRecorded" in reason and times == 1
    assert small["measures"]["exact"]["n"] == 3


def test_what_failed_is_asked_again_where_one_says_so(tmp_path):
    """A failed call is an answer of the run, unless it is to be tried anew."""
    path = write_suite(tmp_path, HALF, n=4)
    whole = (tmp_path / "answers.jsonl").read_text()
    (tmp_path / "answers.jsonl").write_text(whole.split("\n", 1)[1])
    measured(path)
    suite = loaded(path)
    asked = questions(suite, read_cases(suite))
    with RunFile(tmp_path / "run.jsonl") as found:
        assert missing(asked, found) == []
        assert [one.key for one in missing(asked, found, failed=True)] == [("small", "c0", 0)]


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    """Without a price there is no cost, and it is not zero."""
    path = write_suite(tmp_path, HALF, n=4)
    (tmp_path / "prices.toml").write_text("price = []\n")
    figures = evaluation(measured(path))
    small = figures["candidates"]["small"]
    assert small["cost_usd_per_success"]["mean"] is None and small["unpriced"] == 4
    assert figures["baselines"]["oracle"]["cost_usd_per_call"] is None
    assert "| small | unknown | unknown |" in markdown_report(figures)


def test_groundedness_and_structure_are_reported_apart(tmp_path):
    """Each kind of verifier has its own share, and only those that decide make a success."""
    schema = {"type": "object", "required": ["team"]}
    rows = [
        {"id": f"c{n}", "prompt": f"Who {n}?", "context": "The red team does it.", "schema": schema} for n in range(4)
    ]
    said = ['{"team": "red"}', '{"team": "Norwegian"}', "red", '{"team": "red"}']
    path = write_suite(
        tmp_path, {"small": bool}, cases=[{**one, "expected": "x"} for one in rows],
        dataset='verify = [{ kind = "schema" }, { kind = "groundedness" }]\ndecides = ["schema"]',
    )  # fmt: skip
    asked = f"{rows[0]['context']}\n\n"
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    kept = [
        recorded("small", asked + one["prompt"], text, response_format=form)
        for one, text in zip(rows, said, strict=True)
    ]
    lines(tmp_path / "answers.jsonl", kept)
    small = evaluation(measured(path))["candidates"]["small"]
    assert small["accuracy"]["mean"] == small["structure"]["mean"] == 0.75
    assert small["groundedness"]["n"] == 4
    assert small["hallucination_rate"]["mean"] == pytest.approx(1 - small["groundedness"]["mean"])
    assert 0 < small["hallucination_rate"]["mean"] < 1


def test_repeats_are_not_evidence_of_their_own(tmp_path):
    """Asked three times, a model that always says the same is known no better than asked once."""
    once = evaluation(measured(write_suite(tmp_path, HALF, n=20)))
    thrice_folder = tmp_path / "thrice"
    thrice_folder.mkdir()
    thrice = evaluation(measured(write_suite(thrice_folder, HALF, n=20, top="repeats = 3")))
    assert thrice["candidates"]["small"]["n"] == 60
    one, three = (figures["candidates"]["small"]["accuracy"] for figures in (once, thrice))
    assert three["mean"] == one["mean"]
    assert three["high"] - three["low"] == pytest.approx(one["high"] - one["low"], rel=0.06)
    assert thrice["comparisons"]["candidates"]["small"]["p"] < 0.05


def test_a_verifier_that_raises_has_judged_and_the_run_goes_on(tmp_path, monkeypatch):
    """Its verdict is a failure with the reason; the other verifiers are asked as well."""
    (tmp_path / "breaking_verifier.py").write_text("def check(case):\n    return 1 / (len(case.question) - 6)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [
        case(1),
        {"id": "c2", "prompt": "Say 22.", "expected": "22"},
        {"id": "c3", "prompt": "Say22.", "expected": "22"},
    ]
    path = write_suite(
        tmp_path, {"small": lambda n: True}, cases=rows,
        dataset='verify = [{ kind = "exact" }, { kind = "python", call = "breaking_verifier:check" }]',
    )  # fmt: skip
    table = measured(path)
    assert table.columns[0].kinds["python"].tolist() == [0.0, 1.0, 0.0]
    assert table.columns[0].kinds["exact"].tolist() == [1.0, 1.0, 1.0]
    reasons = [json.loads(line).get("reason") for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert any("ZeroDivisionError" in str(reason) for reason in reasons)


def test_a_judge_is_asked_on_its_own_account(tmp_path):
    """A model that judges is asked through the same gateway; what it costs is the judging's, and no candidate's."""
    from negawatt.verify.judge import asked
    from negawatt.verify.verdict import Case

    def prompt(text, answer):
        return asked(Case(question=text, answers=[answer], data={}), answer)

    rows = [case(number) for number in range(4)]
    said = [recorded("judge", prompt(one["prompt"], text), "right 90" if text != "no" else "wrong 80", temperature=0)
            for one in rows for text in (one["expected"], "no")]  # fmt: skip
    for one in said:
        one["timing"] = {"duration_s": 0.001, "basis": "modelled"}
    lines(tmp_path / "judge.jsonl", said)
    path = write_suite(tmp_path, HALF, n=4, dataset='verify = [{ kind = "judge", model = "judge" }]')
    url = f"recorded:{tmp_path / 'judge.jsonl'}"
    provider = f'[[config.providers]]\nname = "judges"\nurl = "{url}"\nmodels = ["judge"]\n[quality]'
    path.write_text(path.read_text().replace("[quality]", provider))
    prices = (tmp_path / "prices.toml").read_text()
    (tmp_path / "prices.toml").write_text(
        prices + prices.replace('"small"', '"judge"').split("[[price]]")[1].join(["[[price]]", ""])
    )
    figures = evaluation(measured(path))
    assert figures["candidates"]["small"]["accuracy"]["mean"] == 0.5
    assert figures["candidates"]["large"]["accuracy"]["mean"] == 0.75
    assert figures["judging"] == {"calls": 8, "cost_usd": pytest.approx(8 * 100e-6)}
    assert figures["candidates"]["small"]["cost_usd_per_call"]["mean"] == pytest.approx(100e-6)


def test_efforts_of_one_model_are_candidates_of_their_own(tmp_path):
    """The effort is part of what is asked, and of what the routing table says."""
    path = write_suite(tmp_path, {"small": bool}, n=30)
    said = [recorded("small", f"Say {n}.", str(n) if effort == "high" or n % 2 else "no", reasoning_effort=effort)
            for n in range(30) for effort in ("low", "high")]  # fmt: skip
    lines(tmp_path / "answers.jsonl", said)
    one = '[[candidates]]\nmodel = "small"\neffort = "{}"\nanswers = "recorded:answers.jsonl"\n'
    head = path.read_text().partition("[[candidates]]")[0]
    path.write_text(head + one.format("low") + one.format("high"))
    table = measured(path)
    figures = evaluation(table)
    assert figures["candidates"]["small at low"]["accuracy"]["mean"] == 0.5
    assert figures["candidates"]["small at high"]["accuracy"]["mean"] == 1.0


# -- going on ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_broke_off(tmp_path):
    """Of a file that ends in the middle of a line, the whole lines count, and only what is missing is asked."""
    path = write_suite(tmp_path, HALF, n=10)
    whole = evaluation(measured(path))
    run = tmp_path / "run.jsonl"
    kept = run.read_bytes().split(b"\n")
    run.write_bytes(b"\n".join([*kept[:7], kept[7][:20]]))
    suite = loaded(path)
    asked = questions(suite, read_cases(suite))
    with RunFile(run) as found:
        assert len(missing(asked, found)) == 13
    again = evaluation(measured(path))
    assert again["candidates"] == whole["candidates"]
    assert len(run.read_bytes().split(b"\n")) == len(kept)


def test_a_changed_suite_asks_what_changed_and_judges_what_is_judged_anew(tmp_path):
    """Other settings are other questions; another verifier looks at the answers that are there."""
    path = write_suite(tmp_path, HALF, n=5)
    measured(path)
    suite = loaded(path)
    path.write_text(path.read_text().replace('model = "large"', 'model = "large"\nsettings = { temperature = 0 }'))
    changed = loaded(path)
    cases = read_cases(suite)
    with RunFile(tmp_path / "run.jsonl") as found:
        assert missing(questions(suite, cases), found) == []
        assert {one.candidate.called for one in missing(questions(changed, cases), found)} == {"large"}
    path.write_text(
        path.read_text().replace(
            'file = "cases.jsonl"', 'file = "cases.jsonl"\nverify = [{ kind = "regex", pattern = "no" }]'
        )
    )
    assert evaluation(measured(path))["candidates"]["small"]["accuracy"]["mean"] == 0.4


def test_a_file_that_is_no_run_is_refused(tmp_path):
    """Nothing is added to somebody else's file."""
    run = tmp_path / "run.jsonl"
    run.write_text('{"type": "answer"}\n')
    with pytest.raises(InputError, match=r"run\.jsonl:1: not a line of an evaluation's run"), RunFile(run):
        pass
    assert run.read_text() == '{"type": "answer"}\n'


def test_the_order_of_the_questions_is_the_seed_s(tmp_path):
    """Candidates take turns in seeded order, so that none is asked only in a bad hour."""
    suite = loaded(write_suite(tmp_path, HALF, n=30))
    cases = read_cases(suite)
    first, again = ([one.key for one in questions(suite, cases)] for _ in range(2))
    assert first == again
    assert len({candidate for candidate, _, _ in first[:12]}) == 2


def test_no_more_is_asked_at_once_than_the_suite_allows():
    """The work is bounded, however much there is."""
    from negawatt.proof.evaluate import each

    async def busy():
        running, most, done = 0, 0, []

        async def work(item):
            nonlocal running, most
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0)
            running -= 1
            done.append(item)

        await each(range(20), work, 3)
        return most, sorted(done)

    assert asyncio.run(busy()) == (3, list(range(20)))


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_its_reports_and_a_table_that_can_be_pasted(tmp_path, monkeypatch):
    """Exit 0 where a candidate meets the target; report.json says what --json says."""
    monkeypatch.chdir(tmp_path)
    path = write_suite(tmp_path, HALF, n=60)
    done = command(path, "--out", "out", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "out" / "report.json").read_text())
    assert said["verdicts"][0].startswith("The smallest model that meets the target: large.")
    assert 'model = "large"' in (tmp_path / "out" / "routing.toml").read_text()
    assert (tmp_path / "out" / "report.md").read_text().startswith("# Small suite: 60 cases, 2 candidates")


def test_the_command_exits_with_1_and_leaves_no_table_where_no_candidate_is_good_enough(tmp_path):
    """It names the best one and how many more cases would do, and an older table does not stay."""
    path = write_suite(tmp_path, {"small": lambda n: n % 2 == 0, "large": lambda n: n % 10 != 0}, n=30)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "routing.toml").write_text("old")
    done = command(path, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "No candidate meets the target. The best is large: 90.0% of 30" in " ".join(done.output.split())
    assert "more cases would show it" in " ".join(done.output.split())
    assert not (tmp_path / "out" / "routing.toml").exists()


def test_live_models_are_not_asked_without_a_word(tmp_path):
    """Where nobody can be asked for it, a run that costs money needs --yes; the estimate is printed first."""
    path = write_suite(tmp_path, HALF, n=4)
    provider = '[[config.providers]]\nname = "m"\nurl = "modelled:?a=0.01&b=0.0"\n[quality]'
    text = path.read_text().replace("[quality]", provider).replace('answers = "recorded:answers.jsonl"', "", 1)
    path.write_text(text)
    done = click.testing.CliRunner().invoke(cli, ["eval", str(path), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, InputError) and "--yes" in done.exception.message
    assert "This will make 4 calls: about $" in done.output
    again = command(path, "--out", tmp_path / "out", "--yes", "--json")
    said = json.loads(again.stdout)
    assert said["candidates"]["small"]["answers"] == "modelled"
    assert "Modelled, no model answered: small." in said["first_line"]


def test_the_report_is_json_without_gaps(tmp_path):
    """No NaN reaches the file, whatever is unknown."""
    path = write_suite(tmp_path, {"small": lambda n: False, "large": lambda n: False}, n=3)
    text = json_report(evaluation(measured(path)))
    assert json.loads(text)["candidates"]["small"]["cost_usd_per_success"]["mean"] is None
    assert "NaN" not in text
