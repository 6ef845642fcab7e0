"""benchmarks/routing.py takes anybody's table, prints one JSON object as its last line, and refuses what is none."""

from __future__ import annotations

import csv
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "routing.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rstrip("\n").rsplit("\n", 1)[-1])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of two kinds; the small model fails at sums."""
    path, draw = tmp_path_factory.mktemp("routing") / "outcomes.csv", random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "small", "large", "kind"])
        for i in range(160):
            sum_ = i % 2 == 0
            text = f"What is {draw.randint(10, 99)} * {draw.randint(10, 99)}?" if sum_ else "Name a colour, please"
            rows.writerow(
                [text, draw.random() < (0.2 if sum_ else 0.9), int(draw.random() < 0.95), "sum" if sum_ else ""]
            )
    return path


def test_one_table_of_outcomes_gives_one_r(table: Path):
    """With baselines and the guarantee; the router finds the sums."""
    done = run("--outcomes", table, "--prompt", "question", "--weak", "small", "--strong", "large", "--group", "kind",
               "--labels", 80, "--splits", 2, "--json")  # fmt: skip
    found = last_line(done)
    assert found["apgr"]["mean"] > found["baselines"]["shuffled"]
    assert set(found["baselines"]) >= {"random", "length", "group", "shuffled"}
    assert set(found["guarantee"]) == {"0.02", "0.05", "0.1"}
    assert set(found["guarantee"]["0.1"]) >= {"violations", "escalated", "abstained"}
    assert (found["n"], found["labels"], found["evaluated"]) == (160, 80, 80)
    assert 0 <= found["cpt50"] <= found["cpt80"] <= 100


def test_one_table_of_answers_gives_one_c(tmp_path: Path):
    """Compressed too; every figure has its interval, and what no cost was given for is unknown."""
    path, draw = tmp_path / "answers.csv.gz", random.Random(2)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([f"{model}:{what}" for model in "ABC" for what in ("answer", "correct")])
        for _ in range(100):
            right = [draw.random() < share for share in (0.8, 0.8, 0.95)]
            rows.writerow([cell for ok in right for cell in (7 if ok else draw.randint(8, 900), ok)])
    found = last_line(run("--cascade", path, "--cheap", "A,B", "--strong", "C"))
    assert found["cost_ratio"] is None
    for figure in ("accuracy", "weak", "strong", "escalated"):
        assert found[figure]["low"] <= found[figure]["value"] <= found[figure]["high"]
    assert found["accuracy"]["value"] > found["weak"]["value"]
    charged = last_line(run("--cascade", path, "--cheap", "A,B", "--strong", "C", "--costs", "A=1,B=1,C=10"))
    assert charged["cost_ratio"]["value"] == pytest.approx(0.2 + charged["escalated"]["value"], abs=0.001)


def test_what_is_no_table_is_refused_in_one_line(table: Path):
    """A missing column, a column of something else, too few rows: exit 2, and the line says what there is."""
    for weak, labels, message in (
        ("tiny", 80, "no column 'tiny'"),
        ("kind", 80, "from 0 to 1"),
        ("small", 150, "50 rows"),
    ):
        done = run("--outcomes", table, "--prompt", "question", "--weak", weak, "--strong", "large", "--labels", labels)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_without_the_sets_leaves_them_out(tmp_path: Path):
    """One line for each, and an object without them."""
    done = run("--data", tmp_path, "--json")
    assert set(last_line(done)) == {"date"}
    assert done.stderr.count("left out") == 3
