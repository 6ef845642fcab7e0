"""How long the static tier of `negawatt check` takes: the figure in docs/check.md.

    python benchmarks/check.py [--templates 200] [--words 720] [--runs 5] [--json]

A folder of templates of random words, each in 12 paragraphs, and a lock that agrees with it. Each run is a process of
its own, from its start to its end. Prints the median and the longest in seconds, and how many tokens there were.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from _machine import machine

_PARAGRAPHS = 12


def write(folder: Path, templates: int, words: int) -> None:
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3000)]
    (folder / "prompts").mkdir()
    for at in range(templates):
        parts = [" ".join(rng.choices(known, k=words // _PARAGRAPHS)) for _ in range(_PARAGRAPHS)]
        (folder / "prompts" / f"p{at}.md").write_text("\n\n".join(parts), encoding="utf-8")
    said = '[[surfaces]]\ntemplates = "prompts"\ncalls_per_day = 100\n'
    (folder / "negawatt.check.toml").write_text(said, encoding="utf-8")


def timed(folder: Path, *arguments: str) -> tuple[float, str]:
    command = [sys.executable, "-m", "negawatt", "check", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=int, default=200)
    parser.add_argument("--words", type=int, default=720)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, asked.templates, asked.words)
        timed(folder, "--update")
        runs = [timed(folder, "--markdown", "comment.md") for _ in range(asked.runs)]
    found = re.search(r"([\d,]+) tokens", runs[0][1])
    assert found is not None, runs[0][1]
    seconds = [one for one, _ in runs]
    figures = {
        "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "n": asked.runs,
        "templates": asked.templates, "tokens": int(found[1].replace(",", "")),
        "median_s": round(statistics.median(seconds), 3), "longest_s": round(max(seconds), 3),
    }  # fmt: skip
    if not asked.json:
        print(f"{found[0]} in {asked.templates} templates: median {figures['median_s']} s of {asked.runs} runs")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
