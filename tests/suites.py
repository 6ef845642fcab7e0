"""Small suites of evaluations: cases, recorded answers of invented models, and the file that names them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from negawatt.proof.cases import read_cases
from negawatt.proof.evaluate import ask_all, missing, questions
from negawatt.proof.judging import judge_all, tasks, verdict_of
from negawatt.proof.outcome_table import OutcomeTable, table_of
from negawatt.proof.run_file import RunFile
from negawatt.proof.suite import Suite, load_suite

Json = dict[str, Any]
PRICES = {"small": 1, "middle": 4, "large": 10}  # dollars for a million tokens, whichever way


def case(number: int, **fields: Any) -> Json:
    """One question whose right answer is its number."""
    return {"id": f"c{number}", "prompt": f"Say {number}.", "expected": str(number), **fields}


def recorded(model: str, prompt: str, said: str, **fields: Any) -> Json:
    """A line of a recording, in which *model* says *said*; *fields* go into its request."""
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    request = {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}
    return {
        "request": request,
        "response": {"id": "r", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage},
        "timing": {"first_chunk_s": 0.1, "duration_s": 2.0, "basis": "measured"},
    }


def lines(path: Path, values: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")


def write_suite(
    folder: Path,
    right: dict[str, Callable[[int], bool]],
    *,
    cases: Sequence[Json] | None = None,
    n: int = 40,
    top: str = "",
    dataset: str = "",
    quality: str = "success = 0.8",
) -> Path:
    """Write a suite in which each model is right where *right* says so of the number of the case; return its path."""
    asked = [case(number) for number in range(n)] if cases is None else list(cases)
    lines(folder / "cases.jsonl", asked)
    said = [
        recorded(model, one["prompt"], one["expected"] if is_right(number) else "no")
        for model, is_right in right.items()
        for number, one in enumerate(asked)
    ]
    lines(folder / "answers.jsonl", said)
    price = (
        '[[price]]\nmodels = "{0}"\ninput_usd_per_mtok = {1}\noutput_usd_per_mtok = {1}\n'
        'source = "t"\nchecked = 2026-11-01\n'
    )
    (folder / "prices.toml").write_text("".join(price.format(*one) for one in PRICES.items()), encoding="utf-8")
    candidates = "".join(f'[[candidates]]\nmodel = "{model}"\nanswers = "recorded:answers.jsonl"\n' for model in right)
    path = folder / "suite.toml"
    path.write_text(
        f'name = "Small suite"\n{top}\n[config.economics]\nprices = "prices.toml"\n[quality]\n{quality}\n'
        f'[[datasets]]\nfile = "cases.jsonl"\n{dataset}\n{candidates}',
        encoding="utf-8",
    )
    return path


def loaded(path: Path) -> Suite:
    return load_suite(path, {})


async def judged(suite: Suite, cases: Sequence[Any], found: RunFile) -> None:
    """Give the verdicts that are missing in *found*."""
    asked = questions(suite, cases)
    needed = tasks(suite, {one.id: one for one in cases}, asked, found)
    await judge_all(suite, [task for task in needed if verdict_of(found, task) is None], found)


def measured(path: Path) -> OutcomeTable:
    """Run the suite in *path*, all of it, and return its table."""
    import asyncio

    suite = loaded(path)
    cases = read_cases(suite)
    asked = questions(suite, cases)
    with RunFile(path.parent / "run.jsonl") as found:
        ask_all(suite, missing(asked, found), found)
        asyncio.run(judged(suite, cases, found))
        return table_of(suite, cases, {one.key: one.asked for one in asked}, found)
