"""The error of our counts against the provider's, and the verbs that show it."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from click.testing import CliRunner

from negawatt.commands.tokens import tokens
from negawatt.economics.count_errors import Counted, count_errors
from negawatt.errors import NegawattError

ASKED = {"model": "x", "messages": [{"role": "user", "content": "Hello"}]}


def row(counted, measured, model="m", basis="estimated", usage="measured") -> Counted:
    return Counted(model, counted, basis, measured, usage)


def test_errors_are_relative_and_signed():
    """Ten per cent too much, ten too little, and exact."""
    (found,) = count_errors([row(110, 100), row(90, 100), row(100, 100)])
    assert found.n == 3
    assert found.mean == pytest.approx(0)
    assert found.median_absolute == pytest.approx(0.1)
    assert found.near == pytest.approx(1 / 3)
    assert found.p95_absolute is None and found.mean_interval is None and found.median_interval is None


def test_only_what_a_provider_measured_is_compared():
    """Estimated usage, no usage, no count, and zero say nothing about our counts."""
    rows = [row(10, 10, usage="estimated"), row(10, None), row(None, 10), row(10, 0), row(10, 10, basis=None)]
    assert count_errors(rows) == []


def test_models_and_bases_stand_apart():
    """The model with most calls comes first."""
    found = count_errors([row(1, 1, "a"), row(1, 1, "b"), row(1, 1, "b", "exact"), row(1, 1, None), row(1, 1, "b")])
    assert [(line.model, line.basis, line.n) for line in found] == [
        ("b", "estimated", 2), ("b", "exact", 1), ("?", "estimated", 1), ("a", "estimated", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("n", [12, 60, 400])
def test_the_intervals_hold_the_truth(n: int):
    """Over 300 samples of known errors, each interval holds its true value 95 times in 100, nearly."""
    rng, held = random.Random(n), [0, 0, 0]
    for _ in range(300):
        rows = [row(round(100_000 * (1 + rng.gauss(0.02, 0.05))), 100_000) for _ in range(n)]
        (found,) = count_errors(rows)
        true_median, true_near = 0.0358, 0.6449  # of |error|, and of |error| <= 5 %, for this distribution
        held[0] += found.mean_interval[0] <= 0.02 <= found.mean_interval[1]
        held[1] += found.median_interval[0] <= true_median <= found.median_interval[1]
        held[2] += found.near_interval[0] <= true_near <= found.near_interval[1]
    assert min(held) >= 0.9 * 300


def test_all_right_and_all_wrong_have_intervals():
    """A share of 1, and of 0: inside their intervals, which are not points."""
    (right,) = count_errors([row(10, 10)] * 30)
    (wrong,) = count_errors([row(30, 10)] * 30)
    assert right.near_interval[1] == 1 and 0.8 < right.near_interval[0] < 0.9
    assert wrong.near_interval[0] == 0 and 0.1 < wrong.near_interval[1] < 0.2
    assert right.p95_absolute == 0 and wrong.median_interval == (2, 2)


def run(*words: str, text: str | None = None):
    return CliRunner().invoke(tokens, list(words), input=text)


def test_a_text_is_counted(tmp_path, monkeypatch):
    """`tokens count MODEL -` says how many and how."""
    monkeypatch.chdir(tmp_path)
    done = run("count", "gpt-4o", "-", text="hello world")
    assert done.output.startswith("2 tokens, exact: ") and done.output.endswith("; read as a text\n")
    assert run("count", "claude", "-", text="hello world").output.startswith("3 tokens, estimated: ")


def test_a_request_is_counted(tmp_path, monkeypatch):
    """A file with a request: its messages, in their frame; `--text` takes it for what it says."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "request.json"
    file.write_text(json.dumps(ASKED))
    found = json.loads(run("count", "gpt-4o", str(file), "--json").output)
    assert found == {"model": "gpt-4o", "input_tokens": 8, "basis": "exact", "read_as": "a request (chat)"}
    assert json.loads(run("count", "gpt-4o", str(file), "--json", "--text").output)["read_as"] == "a text"


def test_what_is_no_request_is_refused(tmp_path, monkeypatch):
    """An object without messages is not quietly counted as nothing; nor are bytes that are no text."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(run("count", "gpt-4o", "-", text='{"a": 1}').exception, NegawattError)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    assert isinstance(run("count", "gpt-4o", str(binary)).exception, NegawattError)
    assert isinstance(run("count", "gpt-4o", str(tmp_path / "none")).exception, NegawattError)


def test_a_long_text_is_whole_unless_quick(tmp_path, monkeypatch):
    """The verb has time; `--quick` counts as the gateway does."""
    monkeypatch.chdir(tmp_path)
    text = "The order was sent last week. " * 1000
    whole = json.loads(run("count", "gpt-4o", "-", "--json", text=text).output)
    quick = json.loads(run("count", "gpt-4o", "-", "--json", "--quick", text=text).output)
    assert (whole["basis"], quick["basis"]) == ("exact", "sampled")
    assert quick["input_tokens"] == pytest.approx(whole["input_tokens"], rel=0.1)


def test_the_errors_of_a_ledger_are_shown(tmp_path, monkeypatch):
    """One line a model and basis; calls of several attempts, or from the cache, are left out."""
    from negawatt.ledger.sqlite import SqliteLedger

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "negawatt.sqlite"
    ledger = SqliteLedger(path)
    for i in range(30):
        ledger.append(outcome(f"nw-{i}", counted_input_tokens=105 if i % 2 else 98))
    ledger.append(outcome("nw-cached", counted_input_tokens=900, cache="exact"))
    ledger.append(outcome("nw-twice", counted_input_tokens=900, attempts=2))
    ledger.close()
    (line,) = json.loads(run("errors", "--ledger", str(path), "--json").output)
    assert (line["model"], line["basis"], line["n"]) == ("m", "corrected", 30)
    assert line["mean"] == pytest.approx(0.015)
    shown = run("errors", "--ledger", str(path)).output
    assert "corrected" in shown and "+1.5 %" in shown and "[" in shown
    assert "no call has both" in run("errors", "--ledger", str(path), "--until", "2001-01-01").output


def test_the_verbs_need_no_server_library():
    """Nothing heavy is imported for `--help`."""
    code = "import sys, negawatt.commands.tokens; print([m for m in ('tiktoken', 'rich', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def outcome(call_id: str, **changes):
    """Return a row of the ledger; what matters here is in *changes*."""
    import types
    from typing import Union, get_args, get_origin, get_type_hints

    from negawatt.ledger.outcome import Outcome

    zeros = {str: "", int: 0, float: 0.0, bool: False}
    values = {}
    for name, kind in get_type_hints(Outcome).items():
        values[name] = (
            None if get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind) else zeros[kind]
        )
    known = {"id": call_id, "received_at": 1.8e9, "request_model": "m", "cache": "miss", "attempts": 1,
             "input_tokens": 100, "usage_basis": "measured", "count_basis": "corrected"}  # fmt: skip
    return Outcome(**{**values, **known, **changes})
