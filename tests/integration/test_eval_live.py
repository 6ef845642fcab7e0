"""`negawatt eval` against a real server: what it asks, what a kill leaves, and how the next run goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from world import NEGAWATT, Process, Upstream, until

ANSWERED = 12  # cases that are answered at once; the others wait at a gate


def a_suite(folder: Path, base_url: str) -> Path:
    """Write a suite of twenty cases for the stub, of which eight are held up by it; return its path."""
    rows = []
    for number in range(20):
        script = {"tag": f"case-{number}", "text": str(number)}
        if number >= ANSWERED:
            script["gate"] = "late"
        rows.append({"id": f"c{number}", "prompt": json.dumps(script), "expected": str(number)})
    (folder / "cases.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path = folder / "suite.toml"
    path.write_text(
        f'name = "live"\nconcurrency = 4\n[[config.providers]]\nname = "stub"\nbase_url = "{base_url}"\n'
        '[quality]\nsuccess = 0.5\n[[datasets]]\nfile = "cases.jsonl"\n[[candidates]]\nmodel = "plain"\n'
    )
    return path


def evaluating(folder: Path, suite: Path) -> Process:
    """Start the evaluation of *suite* in a process of its own."""
    log = folder / f"eval-{len(list(folder.glob('eval-*.log')))}.log"
    return Process([str(NEGAWATT), "eval", str(suite), "--out", str(folder / "out"), "--yes"], log)


def whole_lines(run: Path) -> list[dict[str, object]]:
    """The lines of the run file that have been written to their end."""
    text = run.read_bytes() if run.exists() else b""
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def test_a_run_that_is_killed_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """After kill -9 the next run asks only what has no answer yet, and reports on all of it."""
    upstream = Upstream(tmp_path)
    run = tmp_path / "out" / "run.jsonl"
    try:
        suite = a_suite(tmp_path, upstream.base_url)
        first = evaluating(tmp_path, suite)
        # The order is seeded: whoever is at the gate holds its place, so wait until four are, and no more can come.
        until(lambda: upstream.stats()["calls"] - len(whole_lines(run)) == 4, 30.0)
        kept = {str(line["case"]) for line in whole_lines(run)}
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        asked_once = {f"c{number}" for number in range(20) if upstream.tag(f"case-{number}")["calls"] == 1}
        assert kept <= asked_once and len(kept) < 20

        upstream.open_gate("late")
        again = evaluating(tmp_path, suite)
        assert again.wait(60.0) == 0, again.output
        answers = [line for line in whole_lines(run) if line["type"] == "answer"]
        assert sorted(str(line["case"]) for line in answers) == sorted(f"c{number}" for number in range(20))
        assert all(upstream.tag(f"case-{number[1:]}")["calls"] == 1 for number in kept)
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["candidates"]["plain"]["accuracy"]["mean"] == 1.0
        assert report["first_line"] == "Asked live: plain."
        assert upstream.last("case-0")["body"]["model"] == "plain"

        calls = upstream.stats()["calls"]
        assert evaluating(tmp_path, suite).wait(60.0) == 0
        assert upstream.stats()["calls"] == calls
    finally:
        upstream.stop()
