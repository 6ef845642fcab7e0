"""``negawatt budgets``: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from negawatt.budgets import Lines, Reservation
from negawatt.budgets.rules import Rules
from negawatt.budgets.sqlite import SqliteBooks
from negawatt.cli import cli
from negawatt.clock import SystemClock
from negawatt.config import load_config
from negawatt.errors import InputError

CONFIG = """
[[budgets]]
name = "everything [/beyond]"
tokens = 1_000_000
[[budgets]]
name = "each"
tokens = 100
each = "user"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two budgets, of which one user has 60 of 100 spent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "negawatt.toml").write_text(CONFIG, encoding="utf-8")
    spend(60)
    return tmp_path


def spend(tokens: int) -> None:
    """Write down that the user ann spent so many tokens."""

    async def write() -> None:
        books = SqliteBooks(Path("negawatt-budgets.sqlite"), SystemClock())
        rules = Rules(load_config(Path("negawatt.toml")).budgets).rules
        for rule, whose in zip(rules, ("", '["default","ann"]'), strict=True):
            period = rule.period(time.time())
            paid = Reservation(Lines(((rule.key, whose, period.start),), (period.end,), (rule.limit,)), [tokens])
            assert await books.reserve(paid) is None
            books.settle(paid, [tokens])
        await books.close()

    asyncio.run(write())


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["budgets", *words], env={"COLUMNS": "80"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_every_budget_is_told_whole(folder: Path):
    """As JSON to the last digit; as a table in 80 columns, with nothing cut off, whatever a budget is called."""
    everything, each = json.loads(run("--json").stdout)["budgets"]
    assert (everything["spent"], everything["left"], everything["whose"]) == ("60", "999940", None)
    assert (each["spent"], each["left_share"], each["whose"]) == ("60", 0.4, {"tenant": "default", "user": "ann"})
    shown = run().output
    words = " ".join(shown.split())
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    for part in ("everything [/beyond]", "default, ann", "40.0%", "1000000 tokens", "UTC"):
        assert all(word in words for word in part.split()), part


def test_one_that_is_used_up_is_an_exit_code(folder: Path):
    """1 as soon as nothing is left of one of them."""
    run()
    spend(40)
    assert "0.0%" in run(code=1).output


def test_books_that_are_not_there_or_are_damaged_are_named(folder: Path):
    """With the file; books in memory live in their server."""
    books = folder / "negawatt-budgets.sqlite"
    for extra in folder.glob("negawatt-budgets.sqlite-*"):
        extra.unlink()
    books.write_bytes(b"no database" * 100)
    assert _refused("negawatt-budgets.sqlite") == "no books of budgets, or they cannot be read"
    books.unlink()
    assert _refused("negawatt-budgets.sqlite") == "there are no books of budgets here"
    (folder / "negawatt.toml").write_text(CONFIG + '[budgeting]\nstore = "memory:"\n', encoding="utf-8")
    assert "--url" in _refused("budgeting.store")


def _refused(where: str) -> str:
    """What is said to be wrong at *where*."""
    error = run(code=1).exception
    assert isinstance(error, InputError), error
    assert error.message.startswith(f"{where}: ")
    return error.message.removeprefix(f"{where}: ").partition(": ")[0]
