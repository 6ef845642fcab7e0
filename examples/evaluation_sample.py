"""Makes the sample suite of `negawatt eval --sample`: 400 invented questions, and answers written by this script.

    python examples/evaluation_sample.py [FOLDER]

Two kinds of question come to a desk: to which team does a message belong, and what does an order come to. Three
invented models answer: `desk-small` sorts well and adds badly, `desk-middle` errs a little at both, `desk-large`
seldom. No model was asked: the errors are drawn at the rates below, so the sample shows what an evaluation tells, and
proves nothing about any model.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from negawatt.lines import write_lines

SAMPLES = Path(__file__).parent.parent / "src" / "negawatt" / "proof" / "samples"
NOTE = "invented: answers written by a script, no model was asked"
RIGHT = {"desk-small": (0.97, 0.62), "desk-middle": (0.96, 0.93), "desk-large": (0.985, 0.985)}
TIMES = {"desk-small": (0.2, 0.004), "desk-middle": (0.35, 0.009), "desk-large": (0.6, 0.02)}  # s: first, per token
TEAMS = {
    "billing": ("My card was charged twice for order {n}", "The invoice {n} shows the wrong address",
                "I want a receipt for what I paid on order {n}", "Why is there a fee of two dollars on invoice {n}"),
    "shipping": ("Where is parcel {n}", "Parcel {n} went to my old address", "When will order {n} leave your house",
                 "The courier says that parcel {n} is lost"),
    "returns": ("I want to send back the lamp of order {n}", "The shoes of order {n} do not fit, what now",
                "How long may I keep order {n} before I return it", "The cup in order {n} came broken"),
    "technical": ("The app closes when I open order {n}", "I cannot log in since update {n}",
                  "The page shows error {n} when I search", "My password link {n} does not work"),
}  # fmt: skip
GOODS = ("cups", "plates", "lamps", "towels", "bowls", "spoons", "chairs", "mats")
SUITE = """\
# The sample suite: `negawatt eval --sample`. examples/evaluation_sample.py makes its files.
name = "Sample desk"
seed = 7

[config.economics]
prices = "evaluation.prices.toml"

[quality]
success = 0.9
confidence = 0.95

[[datasets]]
name = "desk"
file = "evaluation.cases.jsonl"
system = "Answer with one word or one number, and nothing else."
verify = [{ kind = "exact" }]

[[candidates]]
model = "desk-small"
settings = { temperature = 0 }
answers = "recorded:evaluation.recording.jsonl.gz"

[[candidates]]
model = "desk-middle"
settings = { temperature = 0 }
answers = "recorded:evaluation.recording.jsonl.gz"

[[candidates]]  # the last one is the reference
model = "desk-large"
settings = { temperature = 0 }
answers = "recorded:evaluation.recording.jsonl.gz"
"""
PRICE = """\
[[price]]
models = "desk-{name}"
input_usd_per_mtok = {input}
output_usd_per_mtok = {output}
source = "invented, for the sample suite"
checked = 2026-11-27
"""
SYSTEM = "Answer with one word or one number, and nothing else."


def cases(rng: random.Random) -> list[dict[str, str]]:
    """Return the questions, of which three in five are to be sorted."""
    found = []
    for number in range(400):
        if number % 5 < 3:
            team = rng.choice(sorted(TEAMS))
            prompt = f"{rng.choice(TEAMS[team]).format(n=rng.randrange(1000, 9999))}. Which team: {', '.join(TEAMS)}?"
            expected, group = team, "sort"
        else:
            lines = [(rng.randrange(2, 9), good, rng.randrange(3, 60)) for good in rng.sample(GOODS, 4)]
            said = ", ".join(f"{count} {good} at {price} dollars each" for count, good, price in lines)
            prompt = f"An order has {said}, and postage is {number % 9 + 4} dollars. How many dollars are that in all?"
            expected = str(sum(count * price for count, _, price in lines) + number % 9 + 4)
            group = "sum"
        found.append({"id": f"desk-{number:03}", "prompt": prompt, "expected": expected, "group": group})
    return found


def answers(rng: random.Random, asked: list[dict[str, str]]) -> list[dict[str, object]]:
    """Return what each model says to each question, as lines of a recording."""
    found = []
    for model, rates in RIGHT.items():
        for case in asked:
            right = rng.random() < rates[case["group"] == "sum"]
            said = case["expected"] if right else wrong(rng, case)
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": case["prompt"]}]
            read, made = len(case["prompt"]) // 4 + 20, len(said) // 4 + 1
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            first, each = TIMES[model]
            first_s = round(first * rng.uniform(0.7, 1.6), 3)
            found.append({
                "request": {"model": model, "messages": messages, "temperature": 0},
                "response": {"id": f"{model}-{case['id']}", "object": "chat.completion", "created": 1, "model": model,
                             "choices": [choice],
                             "usage": {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}},
                "timing": {"first_chunk_s": first_s, "duration_s": round(first_s + each * made, 3),
                           "basis": "modelled"},
                "usage_basis": "estimated", "note": NOTE,
            })  # fmt: skip
    return found


def wrong(rng: random.Random, case: dict[str, str]) -> str:
    if case["group"] == "sum":
        return str(int(case["expected"]) + rng.choice((-20, -10, -3, 2, 10, 30)))
    return rng.choice([team for team in sorted(TEAMS) if team != case["expected"]])


def main(folder: Path) -> None:
    rng = random.Random(20261127)
    asked = cases(rng)
    write_lines(folder / "evaluation.cases.jsonl", asked)
    write_lines(folder / "evaluation.recording.jsonl.gz", answers(rng, asked))
    prices = {"small": ("0.10", "0.40"), "middle": ("0.40", "1.60"), "large": ("2", "8")}
    text = "\n".join(PRICE.format(name=name, input=read, output=made) for name, (read, made) in prices.items())
    (folder / "evaluation.prices.toml").write_text(text, encoding="utf-8")
    (folder / "evaluation.toml").write_text(SUITE, encoding="utf-8")
    print(json.dumps({"cases": len(asked), "folder": folder.name}))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
