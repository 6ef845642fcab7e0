"""How often handlers in code answer what is not theirs: the figures in docs/offload_handlers.md.

    python benchmarks/offload.py --data DIR [--json]

DIR holds ``arena-hard/``, ``gsm8k/``, ``banking77/`` and ``xquad-en/``: real prompts and questions, none of which
should be answered, but for sums that are the whole of a prompt. All handlers are asked. Prints every answer that was
given, and for *language* the paragraphs of XQuAD (English), asked for their language: *certain*, the share that is
answered, and *wrong*. Exit code 1 where anything but a sum was answered, or a language wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from negawatt.offloads.handler import OffloadAsk, first_answer
from negawatt.offloads.opening import HANDLERS, open_handlers

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().split("\n") if line.strip()]


def prompts(folder: Path) -> dict[str, list[str]]:
    arena = [
        row.get("prompt") or row["turns"][0]["content"]
        for version in ("v0.1", "v2.0")
        for row in lines(folder / "arena-hard" / f"{version}__question.jsonl.gz")
    ]
    bank = []
    for name in ("train", "test"):
        with (folder / "banking77" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            bank += [row["text"] for row in csv.DictReader(file)]
    gsm = [row["question"] for name in ("train", "test") for row in lines(folder / "gsm8k" / f"{name}.jsonl.gz")]
    return {"arena-hard": arena, "gsm8k": gsm, "banking77": bank}


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    arguments = parser.parse_args()
    handlers = open_handlers(list(HANDLERS))
    result: dict = {"sets": {}}
    began, asked, wrongly = time.process_time(), 0, 0
    for name, texts in prompts(arguments.data).items():
        given = []
        for text in texts:
            found = await first_answer(handlers, OffloadAsk(text, now=NOW, region="US"))
            asked += 1
            if found.answer is not None:
                given.append([found.handler, text, found.answer.text])
        others = [one for one in given if one[0] != "arithmetic"]
        wrongly += len(others)
        result["sets"][name] = {
            "n": len(texts),
            "sums": len(given) - len(others),
            "others": len(others),
            "given": given,
        }
        if not arguments.json:
            print(f"{name:12} {len(texts):7,} prompts, {len(given) - len(others)} sums, {len(others)} others")
            for one in given:
                print("   ", *one, sep=" | ")
    result["ms_per_prompt"] = round(1000 * (time.process_time() - began) / asked, 3)
    squad = json.loads(gzip.decompress((arguments.data / "xquad-en" / "xquad.en.json.gz").read_bytes()))["data"]
    texts = [part["context"] for article in squad for part in article["paragraphs"]]
    answers = []
    for text in texts:
        found = await first_answer(handlers, OffloadAsk(f'What language is this text in?\n"""{text}"""'))
        answers.append(found.answer and found.answer.text)
    wrong = sum(answer not in (None, "English") for answer in answers)
    certain = round(sum(answer is not None for answer in answers) / len(answers), 4)
    result |= {
        "n": asked,
        "others": wrongly,
        "language": {"n": len(texts), "certain": certain, "wrong": wrong},
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    if not arguments.json:
        print(f"language     {len(texts):7,} paragraphs, {certain:.1%} certain, {wrong} wrong")
    print(json.dumps(result))
    return 1 if wrongly or wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
