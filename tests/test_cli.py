"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from negawatt.books import open_accounts
from negawatt.config import parse_config
from negawatt.gateway import Gateway
from negawatt.ledger.reprice import reprice_ledger
from negawatt.ledger.sqlite import read_rows
from negawatt.proof.trace import SAMPLES

REQUEST = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a"}], "temperature": 0}


def negawatt(*words: object, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "negawatt", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == expect, done.stderr
    return done


async def some_calls(folder: Path) -> Path:
    """Make a ledger with content: two equal calls and another one."""
    path = folder / "ledger.sqlite"
    config = parse_config({
        "ledger": {"url": f"sqlite:///{path}", "keep_content": True},
        "providers": [{"name": "m", "url": "modelled:?a=0&b=0"}],
        "holdout": {"share": 0.0},
    })  # fmt: skip
    async with Gateway.open(config) as gateway:
        for text in ("a", "a", "b"):
            await gateway.chat({**REQUEST, "messages": [{"role": "user", "content": text}]})
            await gateway.background.drain()
    return path


def test_the_demo_ends_well_and_writes_what_it_says(tmp_path: Path):
    """`negawatt demo --json`: the last line is one object, the page is there, the table is on stderr."""
    done = negawatt("demo", "--json", "--html", tmp_path / "report.html", cwd=tmp_path)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary["arms"]) == {"none", "all", "without_exact_cache", "without_item_cache", "without_coalesce"}
    assert summary["savings"]["cost_pct"]["low"] <= summary["savings"]["cost_pct"]["mean"]
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "exact_cache" in done.stderr


async def test_a_ledger_can_be_exported_and_replayed(tmp_path: Path):
    """Its export is trace and recording at once: the same two calls go upstream again."""
    ledger = await some_calls(tmp_path)
    negawatt("ledger", "export", "-l", ledger, "--out", "calls.jsonl", cwd=tmp_path)
    done = negawatt("replay", "calls.jsonl", "--provider", "recorded:calls.jsonl", "--json", cwd=tmp_path)
    summary = json.loads(done.stdout)
    assert (summary["arms"]["none"]["upstream_calls"], summary["arms"]["all"]["upstream_calls"]) == (3, 2)


async def test_pricing_again_with_the_same_tables_changes_nothing(tmp_path: Path):
    """Cost, energy and carbon follow from the stored usage, to the last digit."""
    ledger = await some_calls(tmp_path)
    before = list(read_rows(ledger))
    change = reprice_ledger(ledger, open_accounts(parse_config({})), 0.0, float("inf"))
    assert (change["rows"], change["changed"], change["unpriced"]) == (3, 0, 0)
    assert list(read_rows(ledger)) == before


async def test_pricing_again_with_own_prices_changes_cost_and_baseline(tmp_path: Path):
    """A cached call still costs nothing; what it spared is worth more now."""
    ledger = await some_calls(tmp_path)
    (tmp_path / "prices.toml").write_text(
        '[[price]]\nmodels = "gpt-4o-mini"\ninput_usd_per_mtok = "1000"\noutput_usd_per_mtok = "0"\n'
        'source = "a test"\nchecked = 2026-11-23\n'
    )
    (tmp_path / "negawatt.toml").write_text('[economics]\nprices = "prices.toml"\n')
    done = negawatt("ledger", "reprice", "-l", ledger, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["changed"] == 3
    rows = {row.ending: row for row in read_rows(ledger)}
    assert rows["cached"].cost_pusd == 0
    assert rows["cached"].baseline_cost_pusd == rows["answered"].cost_pusd > 0
    assert rows["answered"].price_source == "override"


async def test_why_two_calls_of_the_ledger_are_or_are_not_the_same(tmp_path: Path):
    """Exit code 0 and 1; the difference is named by its path."""
    ledger = await some_calls(tmp_path)
    first, second, other = (row.id for row in read_rows(ledger))
    assert "the same" in negawatt("cache", "why", first, second, "-l", ledger, cwd=tmp_path).stdout
    done = negawatt("cache", "why", first, other, "-l", ledger, cwd=tmp_path, expect=1)
    assert "messages[0].content" in done.stdout


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["replay", "nothing.jsonl", "--provider", "modelled:"], "nothing.jsonl"),
        (["replay", SAMPLES / "support.trace.jsonl", "--provider", "other:x"], "other:x"),
        (["replay", SAMPLES / "support.trace.jsonl", "--provider", "modelled:?a=x"], "a='x'"),
        (["report", "-l", "nothing.sqlite"], "nothing.sqlite"),
        (["report", "--since", "yesterday"], "yesterday"),
        (["ledger", "show", "nw-1", "-l", "nothing.sqlite"], "nothing.sqlite"),
        (["cache", "delete", "--tag", "colour"], "'colour' is not NAME=VALUE"),
        (["cache", "delete", "--tag", "colour=red"], "memory"),
        (["cache", "stats"], "memory"),
        (["serve"], "no provider"),
        (["serve", "--config", "nothing.toml"], "nothing.toml"),
    ],
)
def test_bad_input_ends_with_2_and_one_line_that_names_it(tmp_path: Path, words: list[str], say: str):
    """No traceback, no half a report: exit code 2, and what was wrong."""
    done = negawatt(*words, cwd=tmp_path, expect=2)
    assert say in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
