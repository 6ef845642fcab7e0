"""The demonstration of shaping runs on data of the public sets' form, and says what is wrong with other data."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FACTS = ("The mill of Lund was built in 1600 by bakers.", "The market of Ystad opens at nine on every day of the week.")


def written(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(value).encode()))


def data(folder: Path) -> None:
    """Write two conversations with a tool, and two articles of six paragraphs each."""
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"town": "Lund"}'}}
    rows = json.dumps([{"town": f"town {i}", "mills": i} for i in range(40)], indent=4)
    asked = {"role": "user", "content": "How many mills has town 3?"}
    turn = [{"role": "system", "content": "You are a clerk."}, asked,
            {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": rows},
            {"role": "assistant", "content": "Three."}]  # fmt: skip
    written(folder / "tau-bench" / "gpt-4o-airline.json.gz", [{"task_id": i, "traj": turn} for i in range(2)])
    articles = []
    for a, town in enumerate(("Lund", "Ystad")):
        paragraphs = []
        for p in range(6):
            text = f"The mill of {town} number {p} was built in {1600 + 10 * a + p}. " + " ".join(FACTS[::-1]) * 3
            asked = {
                "question": f"When was mill number {p} of {town} built?",
                "answers": [{"text": f"{1600 + 10 * a + p}"}],
            }
            paragraphs.append({"context": text, "qas": [asked]})
        articles.append({"paragraphs": paragraphs})
    written(folder / "xquad-en" / "xquad.en.json.gz", {"data": articles})


def demonstrated(folder: Path) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "examples" / "shaping_demo.py")
    command = [sys.executable, script, "--data", str(folder), "--calls", "4", "--questions", "4", "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_says_what_each_setting_saves_and_keeps(tmp_path: Path):
    """Tokens with an interval for each arm, retention beside it; and first of all that no model ran."""
    data(tmp_path)
    run = demonstrated(tmp_path)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("modelled provider: no model ran.")
    found = json.loads(lines[-1])
    assert found["loops"]["lossless"]["tokens_saved"][0] > 0.1
    assert found["loops"]["lossless"]["recall"][0] == 1.0
    chosen = found["contexts"]["context, target 98 %"]
    assert 0 < chosen["tokens_saved"][0] < 1
    assert set(chosen) == {"tokens_saved", "net_saved", "decisions", "retention"}


def test_it_says_which_file_is_missing(tmp_path: Path):
    """Exit code 2 and one line."""
    run = demonstrated(tmp_path)
    assert run.returncode == 2
    assert "gpt-4o-airline.json.gz: cannot be read" in run.stderr
