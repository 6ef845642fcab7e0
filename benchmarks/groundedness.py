"""How well the groundedness verifier tells answers that a paragraph supports from answers that it does not.

    PYTHONPATH=src python benchmarks/groundedness.py DATA_FOLDER [--questions N]

DATA_FOLDER holds ``xquad-en/`` (English SQuAD questions with their paragraphs). Of each question drawn there is a pair
of answers, one right and one wrong, in four forms; only the form differs between them:

- ``span``: the answer itself; wrong: the answer to a question about another paragraph of the same article;
- ``restated``: the question put as a statement, with the answer at its end; wrong: with the other answer;
- ``sentence``: the sentence of the paragraph that has the answer; wrong: the same sentence with the other answer in it;
- ``elsewhere``: that sentence; wrong: the sentence with the other answer, from the other paragraph.

Wrong answers are of the right one's kind: figures for figures, words for words. AUC is the chance that a right answer
scores above a wrong one, with a 95 % interval over 1,000 resamplings of the questions; ``passed`` is the share that
passes uncalibrated. Prints one line per form, then one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import platform
import random
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from negawatt.verify.groundedness import GroundednessVerifier, sentences
from negawatt.verify.verdict import Case

SEED = 20261201
FORMS = ("span", "restated", "sentence", "elsewhere")
WH = re.compile(r"\b(?:in )?(?:what|which|who|whom|when|where|why|how(?: many| much| long)?)\b", re.IGNORECASE)


def questions(folder: Path) -> list[dict]:
    data = json.loads(gzip.decompress((folder / "xquad-en" / "xquad.en.json.gz").read_bytes()))["data"]
    found = []
    for article, one in enumerate(data):
        for place, paragraph in enumerate(one["paragraphs"]):
            for qa in paragraph["qas"]:
                answer = qa["answers"][0]["text"]
                found.append({"article": article, "paragraph": place, "context": paragraph["context"],
                              "question": qa["question"], "answer": answer})  # fmt: skip
    return found


def sentence_of(row: dict) -> str | None:
    return next((one for one in sentences(row["context"]) if row["answer"] in one), None)


def pairs(rows: list[dict], many: int) -> list[dict]:
    rng = random.Random(SEED)
    drawn = rng.sample(rows, len(rows))
    found = []
    for row in drawn:
        figures = any(c.isdigit() for c in row["answer"])
        others = [
            other for other in rows
            if other["article"] == row["article"] and other["paragraph"] != row["paragraph"]
            and any(c.isdigit() for c in other["answer"]) == figures and other["answer"] not in row["context"]
        ]  # fmt: skip
        own = sentence_of(row)
        if not others or own is None:
            continue
        other = rng.choice(others)
        foreign = sentence_of(other)
        if foreign is None:
            continue
        stem = WH.sub("", row["question"], count=1).strip(" ?")
        right, wrong = row["answer"], other["answer"]
        found.append({"row": row, "span": (right, wrong), "restated": (f"{stem}: {right}.", f"{stem}: {wrong}."),
                      "sentence": (own, own.replace(right, wrong)), "elsewhere": (own, foreign)})  # fmt: skip
        if len(found) == many:
            break
    return found


def auc(right: list[float], wrong: list[float]) -> float:
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


def interval(right: list[float], wrong: list[float]) -> list[float]:
    import numpy as np

    rng = np.random.default_rng(SEED)
    a, b = np.array(right), np.array(wrong)
    found = []
    for _ in range(1000):
        drawn = rng.integers(0, len(a), len(a))
        x, y = a[drawn], np.sort(b[drawn])
        below, upto = np.searchsorted(y, x, "left"), np.searchsorted(y, x, "right")
        found.append(float((below + (upto - below) / 2).mean() / len(y)))
    return [round(float(q), 4) for q in np.quantile(found, (0.025, 0.975))]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    arguments = parser.parse_args()
    verifier = GroundednessVerifier()
    sample = pairs(questions(arguments.folder), arguments.questions)
    result: dict = {
        "n": len(sample), "seed": SEED, "date": datetime.now(UTC).date().isoformat(), "machine": platform.machine(),
        "python": platform.python_version(),
    }  # fmt: skip
    began, judged = time.perf_counter(), 0
    for form in FORMS:
        scores: tuple[list[float], list[float]] = ([], [])
        passed = [0, 0]
        for pair in sample:
            for side in (0, 1):
                case = Case(question=pair["row"]["question"], answers=[pair[form][side]], data={},
                            context=pair["row"]["context"])  # fmt: skip
                verdict = await verifier(case)
                scores[side].append(verdict.score)
                passed[side] += verdict.passed
                judged += 1
        n = len(sample)
        result[form] = {
            "auc": round(auc(*scores), 4), "interval": interval(*scores),
            "right_passed": round(passed[0] / n, 4), "wrong_passed": round(passed[1] / n, 4),
        }  # fmt: skip
        print(f"{form:10} AUC {result[form]['auc']:.3f} {result[form]['interval']}  passed: right "
              f"{result[form]['right_passed']:.1%}, wrong {result[form]['wrong_passed']:.1%}")  # fmt: skip
    result["ms_per_answer"] = round((time.perf_counter() - began) * 1000 / judged, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
