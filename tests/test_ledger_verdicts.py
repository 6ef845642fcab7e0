"""Learning from the verdicts that a cascade left in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from cascades import Models
from click.testing import CliRunner
from test_route import Embedder
from worlds import ONLY, chat, virtual, world

from negawatt.cli import cli
from negawatt.config import parse_config
from negawatt.errors import ConfigError, InputError
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.proof.ledger_verdicts import verdicts_in

SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
POLICIES = {
    "checked": {"how": "cascade", "candidates": [{"model": SMALL}, {"model": LARGE}],
                "cascade": {"verify": [{"kind": "regex", "pattern": "^yes"}], "explore": 0}},
    "plain": {"model": SMALL, "candidates": [{"model": SMALL}, {"model": LARGE}]},
}  # fmt: skip
CLASSES = {"open": {"evaluate": True, "policy": "checked"}, "shut": {"policy": "checked"}}


async def asked(path: Path, calls: list[tuple[str, str]]) -> None:
    """Ask each of *calls*, (class, text); the small model says yes to what ends in a question mark."""
    said = ["yes" if text.endswith("?") else "no" for _, text in calls]
    ledger = SqliteLedger(path)
    async with world(
        Models({SMALL: said, LARGE: "the answer"}), policies=POLICIES, classes=CLASSES, levers=ONLY,
        embedder=Embedder(), kept=ledger, ledger={"keep_content": True},
    ) as w:  # fmt: skip
        for name, text in calls:
            await w.ask(chat(text, model="auto"), request_class=name)
    ledger.close()


def configured(path: Path, **more: object):
    return parse_config({
        "providers": [{"name": "openai"}], "policies": POLICIES, "classes": CLASSES,
        "ledger": {"url": f"sqlite:///{path}", "keep_content": True}, **more,
    })  # fmt: skip


@virtual
async def test_each_call_that_was_judged_is_a_row(tmp_path: Path):
    """Of the classes that consent; accepted is right, escalated is wrong, the reference is always right."""
    path = tmp_path / "ledger.sqlite"
    await asked(path, [("open", "is it?"), ("open", "it is"), ("shut", "a secret?")])
    found = verdicts_in(path, configured(path), "checked")
    assert found.names == (SMALL, LARGE)
    assert found.texts == ["is it?", "it is"]
    assert found.outcomes.tolist() == [[1, 1], [0, 1]]


@virtual
async def test_what_somebody_said_of_an_accepted_answer_counts_before_its_verifiers(tmp_path: Path):
    """The newest word; of an escalated call it is about the reference's answer, and says nothing of the small one."""
    path = tmp_path / "ledger.sqlite"
    await asked(path, [("open", "is it?"), ("open", "it is"), ("open", "was it?")])
    ledger = SqliteLedger(path)
    first, second, third = (row.id for row in ledger.rows())
    for call, success in ((first, True), (first, False), (second, True), (third, True)):
        ledger.record(Feedback(at=0.0, tenant="default", kind="call", about=call, success=success)).result(10)
    ledger.record(Feedback(at=0.0, tenant="other", kind="call", about=third, success=False)).result(10)
    ledger.close()
    found = verdicts_in(path, configured(path), "checked")
    assert found.outcomes.tolist() == [[0, 1], [0, 1], [1, 1]]
    assert found.source.endswith("verdicts of checked and feedback on 2")


@virtual
async def test_where_there_is_nothing_to_learn_from_it_is_said_why(tmp_path: Path):
    """No such cascade; no consent."""
    path = tmp_path / "ledger.sqlite"
    await asked(path, [("shut", "a secret?")])
    with pytest.raises(ConfigError, match="no cascade is named 'plain'; known: checked"):
        verdicts_in(path, configured(path), "plain")
    with pytest.raises(InputError, match="1 calls were judged by a cascade, 1 of them without"):
        verdicts_in(path, configured(path), "checked")


def test_the_command_needs_a_router_and_a_target():
    """And stands in place of a suite."""
    for arguments in (["--verdicts", "checked"], ["suite.toml", "--verdicts", "checked"]):
        assert CliRunner().invoke(cli, ["eval", *arguments]).exit_code == 2
