"""The benchmark of compression reads files of one's own, and names what is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOWNS = ("Arlen", "Bodo", "Corin", "Delft", "Evora", "Fano")
THINGS = ("mill", "school", "bridge")


def measured(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "compression.py", *arguments, "--json"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_questions_and_spans_of_ones_own_are_measured(tmp_path: Path):
    """The answer of each question survives a tenth of the words, and the last line is one JSON object."""
    contexts = [
        " ".join(
            f"The {thing} of {town} has a {n}{i} metre roof." for n, thing in enumerate(("mill", "school", "bridge"))
        )
        for i, town in enumerate(TOWNS)
    ]
    questions = [
        {"question": f"How long is the roof of the school of {town}?", "contexts": [*contexts, f"Page {i}."],
         "answers": [f"1{i} metre"]}
        for i, town in enumerate(TOWNS)
    ]  # fmt: skip
    turns = ["Ann: The mill is old.", "Bo: The bridge leaks."]
    spans = [{"query": "What did they say about the bridge?", "turns": turns, "gold": [[1, 1]]}]
    found = measured("--qa", written(tmp_path / "q", questions), "--spans", written(tmp_path / "s", spans))
    assert found.returncode == 0, found.stderr
    last = json.loads(found.stdout.splitlines()[-1])
    assert [last["qa"][ratio]["retention"] for ratio in ("2", "3", "5", "10")] == [1.0] * 4
    assert set(last["qa"]["auto"]) == {"retention", "ratio"} and last["ms_per_1k_tokens"] > 0
    assert last["spans"]["2"]["retention"] == 1.0 and last["spans"]["gold"] == "turns"


@pytest.mark.parametrize(
    ("flag", "line", "said"),
    [
        ("--qa", "{", "line 1: no JSON"),
        ("--qa", "[]", "expected an object"),
        ("--qa", '{"question": "a"}', '"contexts": [text, ...]'),
        ("--qa", '{"question": "a", "contexts": ["b"], "answers": ["c"]}', "stands in its contexts"),
        ("--spans", '{"query": "a", "turns": ["b c"], "gold": [[0, 9]]}', "ends after the last word (2 words"),
        ("--spans", '{"query": "a", "turns": ["b"], "gold": [[1, 0]]}', "first 1 comes after last 0"),
        ("--spans", '{"query": "a", "turns": ["b"], "gold": [["x", 0]]}', "two whole numbers"),
        ("--qa", "", "no line"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, flag: str, line: str, said: str):
    """It ends with exit code 2 and no traceback."""
    path = tmp_path / "bad.jsonl"
    path.write_text(line, encoding="utf-8")
    found = measured(flag, path)
    assert found.returncode == 2
    assert str(path) in found.stderr and said in found.stderr and "Traceback" not in found.stderr


def test_a_question_without_its_answer_is_counted_and_left_out(tmp_path: Path):
    """Nothing that is kept could have it."""
    rows = [{"question": f"Who wrote {i}?", "contexts": [f"Lund wrote {i}. Rain."], "answers": ["Lund"]} for i in "abc"]
    path = written(tmp_path / "q", [*rows, {"question": "a", "contexts": ["b"], "answers": ["c"]}])
    found = measured("--qa", path)
    assert found.returncode == 0, found.stderr
    assert "line 4" not in found.stderr and "1 of 4 questions" in found.stdout
    assert json.loads(found.stdout.splitlines()[-1])["qa"]["n"] == 3


def test_data_that_is_not_there_is_left_out_with_one_line(tmp_path: Path):
    """The rest would still be measured."""
    found = measured("--data", tmp_path)
    assert found.returncode == 0 and found.stdout.count("is not there: left out") == 4
    assert json.loads(found.stdout.splitlines()[-1]) == {}
