"""`negawatt prompts`: lists, renders, adds up what blocks cost, and finds out which of them are needed."""

import json
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from report_world import a_row
from suites import lines, loaded, recorded, write_suite

from negawatt.cli import cli
from negawatt.economics.accounts import Accounts
from negawatt.economics.carbon import Carbon
from negawatt.economics.energy import Energy
from negawatt.economics.prices import Prices
from negawatt.errors import InputError, NegawattError
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.prompts import load_prompts
from negawatt.proof.cases import read_cases
from negawatt.proof.prompt_ablation import ablate, plan_of, to_ask
from negawatt.proof.prompt_costs import prompt_costs
from negawatt.proof.run_file import RunFile

COUNTS = """+++
description = "Says a number"
[variables]
prompt = { type = "str" }
style = { one_of = ["plain", "rich"], default = "plain" }
+++
::: base role
You say numbers.

::: base legacy
Remember the fax number.

::: base rich when style == "rich"
Use ornaments.

::: task ask
{{ prompt }}
"""
DAY = 86_400.0


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "counts.md").write_text(COUNTS)
    return folder


def ran(*arguments):
    return CliRunner().invoke(cli, ["prompts", *map(str, arguments)])


def test_templates_are_listed_with_their_blocks(prompts):
    """Version, blocks by part with their lines, and variables; as JSON too."""
    said = ran("list", "--prompts", prompts)
    version = load_prompts(prompts).template("counts").version
    assert said.exit_code == 0 and "role, legacy, rich" in said.output and version in said.output
    [found] = json.loads(ran("list", "--prompts", prompts, "--json").stdout)
    assert [(b["name"], b["part"], b["stable"], b["line"]) for b in found["blocks"]] == [
        ("role", "base", True, 7), ("legacy", "base", True, 10), ("rich", "base", False, 13), ("ask", "task", False, 16)
    ]  # fmt: skip
    assert found["variables"]["prompt"] == {"type": "str", "required": True}


def test_a_template_is_rendered_with_the_tokens_of_its_blocks(prompts, tmp_path):
    """Values may come from files; tokens are counted for the model."""
    (tmp_path / "ask.txt").write_text("Say </prompt> 3.")
    found = ran("render", "counts", "-v", f"prompt=@{tmp_path / 'ask.txt'}", "--prompts", prompts, "--json")
    rendered = json.loads(found.stdout)
    assert rendered["messages"][1]["content"] == "<prompt>\nSay &lt;/prompt> 3.\n</prompt>"
    assert [(b["name"], b["tokens"] > 0) for b in rendered["blocks"]] == [
        ("role", True), ("legacy", True), ("ask", True)
    ]  # fmt: skip
    shown = ran("render", "counts", "-v", "prompt=x", "--prompts", prompts)
    assert shown.output.startswith("--- system\nYou say numbers.\n\nRemember the fax number.\n--- user\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("render", "count", "-v", "prompt=x"), "there is no template 'count'; known: counts"),
        (("render", "counts"), "variables.prompt: template 'counts' needs this variable"),
        (
            ("render", "counts", "-v", "promt=x"),
            "-v promt: template 'counts' has no such variable; known: prompt, style",
        ),
        (("render", "counts", "-v", "prompt"), "-v prompt: expected NAME=VALUE"),
        (("render", "counts", "-v", "prompt=@/nowhere"), "/nowhere: cannot be read"),
        (("list", "--prompts", "/nowhere"), "/nowhere: there is no such folder"),
    ],
)
def test_what_is_typed_wrongly_is_named(prompts, arguments, said):
    """One of our errors, which the command line turns into a line and exit code 2."""
    found = ran(*arguments, *(() if "--prompts" in arguments else ("--prompts", prompts)))
    assert isinstance(found.exception, NegawattError) and said in found.exception.message


def a_call(i, *, cached=0, model="small", template="counts", billed=True):
    """Return a row of a call with 100 input tokens, 40 of them in two blocks of a template."""
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": cached}
    attempt = {"priced_as": "t", "model": model, "billed": billed, "usage": usage}
    return a_row(
        i, received_at=DAY * i, attempt_log=json.dumps([attempt] if billed else []), template=template,
        template_version="abc", prompt_blocks=json.dumps({"role": 10, "ask": 30}),
    )  # fmt: skip


@pytest.fixture
def accounts(tmp_path):
    """Books in which a token of *small* costs a dollar for a million, and a tenth of that from the cache."""
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[price]]\nmodels = "small"\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 5\ncache_read_usd_per_mtok = 0.1\n'
        'source = "t"\nchecked = 2026-11-01\n'
    )
    return Accounts(Prices(prices), Energy(), Carbon("WORLD"), {})


def test_money_of_a_block_is_its_share_of_the_input(accounts):
    """Tokens, calls a day and money a month; half of the input from the provider's cache halves it, about."""
    found = prompt_costs([a_call(0), a_call(1), a_call(2)], accounts)
    ask, role = found.blocks
    assert (found.rows, found.days, role.block, role.tokens_a_call, role.calls) == (3, 2.0, "role", 10.0, 3)
    assert (role.usd, ask.usd) == (Decimal("0.00003"), Decimal("0.00009"))
    assert (role.calls_a_day, role.usd_month) == (1.5, pytest.approx(0.00003 / 2 * 30))
    half = prompt_costs([a_call(0, cached=50), a_call(1, cached=50)], accounts)
    assert half.blocks[1].usd == Decimal("0.0000110")


def test_what_is_not_known_is_not_guessed(accounts):
    """A model without a price, a moment of traffic, an answer from a cache: each is told apart from 0."""
    unpriced = prompt_costs([a_call(0, model="strange"), a_call(1, model="strange")], accounts).blocks[0]
    assert (unpriced.unpriced, unpriced.usd_month) == (2, None)
    moment = prompt_costs([a_call(0)], accounts)
    assert moment.days is None and moment.blocks[0].calls_a_day is None and moment.blocks[0].usd_month is None
    kept = prompt_costs([a_call(0, billed=False), a_call(1, billed=False)], accounts).blocks[0]
    assert (kept.calls, kept.asked, kept.usd_month) == (2, 0, 0.0)
    assert prompt_costs([a_row(0)], accounts).blocks == []


def test_costs_are_read_from_the_ledger(tmp_path):
    """The command reads the file, and says so where no call had a template."""
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    ledger.append(a_row(0))
    ledger.flush()
    assert "no call in the ledger was rendered from a template" in ran("cost", "-l", path).output
    for i in range(1, 4):
        ledger.append(a_call(i, model="gpt-4o-mini"))
    ledger.close()
    found = json.loads(ran("cost", "-l", path, "--json").stdout)
    assert found["rows"] == 4 and [one["block"] for one in found["blocks"]] == ["ask", "role"]
    assert found["blocks"][0]["tokens_a_call"] == 30
    assert "calls a day" in ran("cost", "-l", path).output


def a_suite(tmp_path, prompts, n, skipped=("ask",)):
    """Write a suite whose recording answers *counts* rightly, and wrongly without its role; not without *skipped*."""
    path = write_suite(tmp_path, {"large": lambda i: True}, n=n)
    template = load_prompts(prompts).template("counts")
    said = []
    for i in range(n):
        for without in ((), ("role",), ("legacy",), ("ask",)):
            if without and without[0] in skipped:
                continue
            messages = list(template.render({"prompt": f"Say {i}."}, without=without).messages)
            wrong = without == ("role",) and i % 4
            one = recorded("large", "", "no" if wrong else str(i))
            said.append({**one, "request": {"model": "large", "messages": messages}})
    lines(tmp_path / "answers.jsonl", said)
    return path


def ablated(path, prompts, tmp_path):
    suite = loaded(path)
    template = load_prompts(prompts).template("counts")
    plan = plan_of(suite, template, read_cases(suite), {}, suite.reference)
    with RunFile(tmp_path / "out" / "run.jsonl") as found:
        return plan, ablate(plan, found), len(to_ask(plan, found))


def test_needed_blocks_and_baggage_are_told_apart(tmp_path, prompts):
    """Of 200 pairs: without its role most are wrong, without the fax number none; what no case says is not judged."""
    plan, found, left = ablated(a_suite(tmp_path, prompts, 200), prompts, tmp_path)
    by_name = {one.block: one for one in found.blocks}
    assert {name: one.verdict for name, one in by_name.items()} == {
        "role": "needed", "legacy": "baggage", "rich": "unsaid", "ask": "unasked"
    }  # fmt: skip
    role, legacy = by_name["role"], by_name["legacy"]
    assert (role.worse, role.better, role.cases) == (150, 0, 200) and role.quality.high < -0.6
    assert legacy.quality.low < 0 < legacy.quality.high and legacy.most_lost < 0.02
    assert found.quality.mean == 1.0 and left == 0
    with RunFile(tmp_path / "out" / "run.jsonl") as again:
        assert not to_ask(plan, again)


def test_few_cases_prove_nothing(tmp_path, prompts):
    """Twenty cases without a loss do not show that a block is baggage."""
    _, found, _ = ablated(a_suite(tmp_path, prompts, 20), prompts, tmp_path)
    assert {one.block: one.verdict for one in found.blocks}["legacy"] == "unclear"


def test_a_recording_of_other_prompts_says_that_it_cannot_answer(tmp_path, prompts):
    """Recorded answers are to the prompts that were recorded: nothing is made up for others."""
    path = write_suite(tmp_path, {"large": lambda i: True}, n=3)
    with pytest.raises(InputError, match="a recording cannot answer changed prompts"):
        ablated(path, prompts, tmp_path)


def test_a_case_that_does_not_fill_the_template_is_named(tmp_path, prompts):
    """Before anything is asked."""
    (prompts / "other.md").write_text("+++\n[variables]\nx = { type = 'int' }\n+++\n{{ x }}\n")
    suite = loaded(write_suite(tmp_path, {"large": lambda i: True}, n=2))
    with pytest.raises(InputError, match=r"case c\d: variables.x: template 'other' needs this variable, an integer"):
        plan_of(suite, load_prompts(prompts).template("other"), read_cases(suite), {}, suite.reference)


def test_ablation_from_the_command_line(tmp_path, prompts, monkeypatch):
    """Exit code 3 as long as a block is undecided; the JSON has every interval."""
    monkeypatch.chdir(tmp_path)
    path = a_suite(tmp_path, prompts, 12)
    found = ran("ablate", path, "counts", "--prompts", prompts, "--json")
    assert found.exit_code == 3, found.output
    told = orjson.loads(found.stdout)
    assert told["template"] == "counts" and told["blocks"][0]["quality"]["mean"] == -0.75
    assert Path("counts-ablation/run.jsonl").exists()
    shown = ran("ablate", path, "counts", "--prompts", prompts)
    assert shown.exit_code == 3 and "too few cases to tell" in shown.output
