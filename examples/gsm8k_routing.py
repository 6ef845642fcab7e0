"""Route GSM8K between two models of which every answer is known, for `make demo-real`.

    python examples/gsm8k_routing.py --data DIR --out DIR [--seed N] [--loss SHARE] [--max-error SHARE]

*DIR* holds routellm/ (answers that GPT-4 1106 preview and Mixtral-8x7B really gave to the 1,307 clean test questions,
see gsm8k_replay.py), gsm8k/ (the questions with their right answers) and zeroeval-gsm/ (final answers of models of 2024
to the same questions; github.com/WildEval/ZeroEval, Apache-2.0).

1. Mixtral and GPT-4. The questions are split in three at random. On the first part a router and a score of answers are
   learned, on the second a cascade is calibrated, and on the third everything is tried: always small, always large, the
   router, the cascade, and beside each of these two its shuffled control, a coin that spends the same. What `negawatt
   eval` refuses to enable is tried all the same, and said to be refused.
2. gpt-4o-mini, claude-3-haiku and gpt-4o: a cascade that accepts what the two cheap models agree on.

Every arm is asked through the gateway's own path. An answer is right when its last number is that of GSM8K. Real:
questions, answers, verdicts. Tokens and energy are estimated, times are modelled. Each step prints what it did, and the
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from gsm8k_replay import LARGE, RESPONSES, SEED, SMALL, read_rows, recorded

from negawatt.config_routes import Quality
from negawatt.errors import InputError, NegawattError
from negawatt.proof.router_fit import Learnable, embedded, fit_router
from negawatt.providers.recording import RecordedAnswer, Recording, Timing, write_recording
from negawatt.verify.exact import matches

QUESTIONS = Path("gsm8k") / "test.jsonl.gz"
CONTAMINATED = Path("routellm") / "gsm8k_contaminated_prompts.jsonl.gz"
OUTCOMES = Path("zeroeval-gsm") / "gsm_outcomes.csv.gz"
ASKED = Path("zeroeval-gsm") / "gsm_questions.jsonl.gz"
PARTS = {"learn": 400, "calibrate": 500, "try": None}  # questions
AGREEING = (
    ("gpt-4o-mini-2024-07-18", "openai"), ("claude-3-haiku-20240307", "anthropic"), ("gpt-4o-2024-08-06", "openai")
)  # fmt: skip

SUITE = """\
name = "{name}"
seed = {seed}

[quality]
loss = {loss}

{cascade}
[[datasets]]
file = "{part}.jsonl"
verify = [{{ kind = "exact" }}]

[[candidates]]
model = "{small}"
settings = {{ temperature = 0 }}
answers = "recorded:{recording}"

{more}[[candidates]]
model = "{large}"
settings = {{ temperature = 0 }}
answers = "recorded:{recording}"

[config.recall]
embedder = "default:"

{config}"""
CASCADE = '[cascade]\nverify = [{{ kind = "answer", file = "{out}/score.npz" }}]\nmax_error = {max_error}\n'
POLICY = """\
[[candidates]]
name = "{title}"
model = "{name}"
policy = true
settings = {{ temperature = 0 }}
answers = "recorded:{recording}"

"""
LEARNED = """\
[config.policies.learned]
how = "learned"
router = "{out}/router.npz"
quality = {{ loss = {loss} }}
candidates = [{{ model = "{small}" }}, {{ model = "{large}" }}]

"""
VERIFIED = """\
[config.policies.gsm8k-calibrate]
how = "cascade"
candidates = [{{ model = "{small}" }}, {{ model = "{large}" }}]
cascade = {{ verify = [{{ kind = "answer", file = "{out}/score.npz" }}], max_error = {max_error}, explore = 0, \
calibration = "{out}/calibration.json" }}

"""
AGREED = """\
[config.policies.agreed]
how = "cascade"
candidates = [{{ model = "{small}", tier = 1 }}, {{ model = "{large}", tier = 2 }}]
cascade = {{ verify = [{{ kind = "agreement", with_models = ["{other}"] }}], explore = 0 }}

"""


def lines(path: Path) -> list[dict]:
    """Return the objects in a gzipped file. Raises `InputError` when it is not there."""
    try:
        return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8") if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def plain(text: str) -> str:
    return " ".join(text.split())


def write_parts(data: Path, out: Path, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Write the recording and the cases of each part; return question and answer of each case, by part."""
    rows = read_rows(data / RESPONSES)
    contaminated = {row["eval_prompt"] for row in lines(data / CONTAMINATED)}
    answers = {plain(row["question"]): row["answer"].rsplit("####", 1)[1].strip() for row in lines(data / QUESTIONS)}
    clean = [row for row in rows if row["prompt"] not in contaminated and plain(row["prompt"]) in answers]
    random.Random(seed).shuffle(clean)
    write_recording(out / "recording.jsonl", recorded(clean, data / RESPONSES))
    parts: dict[str, list[tuple[str, str]]] = {}
    for part, count in PARTS.items():
        mine, clean = (clean, []) if count is None else (clean[:count], clean[count:])
        parts[part] = [(row["prompt"], answers[plain(row["prompt"])]) for row in mine]
        write_cases(out / f"{part}.jsonl", parts[part])
    return parts


def write_cases(path: Path, cases: Iterable[tuple[str, str]]) -> None:
    text = "".join(json.dumps({"prompt": prompt, "expected": answer}) + "\n" for prompt, answer in cases)
    path.write_text(text, encoding="utf-8")


def write_agreeing(data: Path, out: Path) -> int:
    """Write the final answers of the three models as a recording, and the cases; return how many these are."""
    questions = {row["id"]: row for row in lines(data / ASKED)}
    with gzip.open(data / OUTCOMES, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in dict(AGREEING) and row["id"] in questions]
    providers = dict(AGREEING)
    write_recording(out / "agreeing.jsonl", [final(row, questions[row["id"]], providers) for row in rows])
    cases = [(row["prompt"], str(row["answer"]).lstrip("# ")) for row in questions.values()]
    write_cases(out / "agree.jsonl", cases)
    return len(questions)


def final(row: dict[str, str], question: dict, providers: dict[str, str]) -> RecordedAnswer:
    """Return the final answer in *row* as an answer that is as long as the whole one was."""
    made, asked, text = int(row["output_chars"]) // 4, int(row["prompt_chars"]) // 4, row["parsed_answer"]
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return RecordedAnswer(
        request={"model": row["model"], "messages": [{"role": "user", "content": question["prompt"]}]},
        response={
            "id": f"chatcmpl-{row['id']}-{row['model']}", "object": "chat.completion", "created": 0,
            "model": row["model"], "choices": [choice],
            "usage": {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made},
        },
        timing=Timing(first_chunk_s=0.4, duration_s=round(0.4 + 0.012 * made, 4), basis="modelled"),
        provider=providers[row["model"]], usage_basis="estimated",
        note="real final answer; tokens: characters / 4; timing modelled: 0.4 s + 0.012 s per token",
    )  # fmt: skip


def run(title: str, *arguments: str) -> tuple[int, dict]:
    """Run ``negawatt eval``; return its exit code and its report. Raises `InputError` where there is none."""
    print(f"\n== {title}: negawatt eval {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "negawatt", "eval", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise InputError(f"negawatt eval {arguments[0]} ended with {done.returncode}")
    return done.returncode, json.loads(done.stdout)


def routed(options: argparse.Namespace) -> dict:
    """Learn, calibrate, try with Mixtral and GPT-4; return what came of it."""
    out: Path = options.out
    parts = write_parts(options.data, out, options.seed)
    print(
        "Mixtral and GPT-4 on GSM8K: " + ", ".join(f"{len(cases)} questions to {part}" for part, cases in parts.items())
    )
    told = {"small": SMALL.name, "large": LARGE.name, "seed": options.seed, "loss": options.loss, "out": out,
            "max_error": options.max_error, "recording": "recording.jsonl"}  # fmt: skip

    def suite(part: str, cascade: str = "", more: str = "", config: str = "") -> str:
        path = out / f"{part}.toml"
        text = SUITE.format(name=f"GSM8K {part}", part=part, cascade=cascade, more=more, config=config, **told)
        path.write_text(text, encoding="utf-8")
        return str(path)

    learn = suite("learn")
    refused: dict[str, str] = {}
    code, report = run("a router", learn, "--out", str(out / "learn"), "--router", str(out / "router.npz"))
    if code:
        refused["router"] = report["router"]["reason"]
        keep_refused(parts["learn"], out, options)
    run("a score of answers", learn, "--out", str(out / "learn"), "--scorer", str(out / "score.npz"))
    calibrate = suite("calibrate", cascade=CASCADE.format(**told))
    file = str(out / "calibration.json")
    code, report = run("a cascade", calibrate, "--out", str(out / "calibrate"), "--cascade", file)
    more = POLICY.format(title="router", name="learned", **told)
    config = LEARNED.format(**told)
    if code:
        refused["cascade"] = report["cascade"]["reason"]
    else:
        more += POLICY.format(title="cascade", name="gsm8k-calibrate", **told)
        config += VERIFIED.format(**told)
    _, report = run("all of it", suite("try", more=more, config=config), "--out", str(out / "try"))
    return {"n": len(parts["try"]), "refused": refused, "report": report}


def keep_refused(cases: list[tuple[str, str]], out: Path, options: argparse.Namespace) -> None:
    """Fit the router that `negawatt eval` has refused once more, and keep it: to show what it would have done."""
    recording = Recording.load(out / "recording.jsonl")
    said = {(one.request["messages"][0]["content"], one.model): one.text for one in recording.answers}
    models = (SMALL.name, LARGE.name)
    outcomes = [[float(matches(answer, said[prompt, model])) for model in models] for prompt, answer in cases]
    rows = Learnable(names=models, texts=[prompt for prompt, _ in cases], outcomes=np.array(outcomes), source="GSM8K")
    vectors, name = asyncio.run(embedded(rows.texts, "default:", "recall.embedder"))
    fit_router(rows, vectors, name, Quality(loss=options.loss), options.seed).router.save(out / "router.npz")


def agreed(options: argparse.Namespace) -> dict:
    """Try the cascade by agreement; return what came of it."""
    out: Path = options.out
    count = write_agreeing(options.data, out)
    (small, _), (other, _), (large, _) = AGREEING
    told = {"small": small, "large": large, "other": other, "seed": options.seed, "loss": 0.02, "out": out,
            "recording": "agreeing.jsonl"}  # fmt: skip
    more, config = POLICY.format(title="cascade", name="agreed", **told), AGREED.format(**told)
    path = out / "agree.toml"
    text = SUITE.format(name="GSM8K agreement", part="agree", cascade="", more=more, config=config, **told)
    path.write_text(text, encoding="utf-8")
    _, report = run("agreement", str(path), "--out", str(out / "agree"))
    return {"n": count, "refused": {}, "report": report}


def table(found: dict) -> str:
    """Return the arms as Markdown, each policy with its shuffled control below it."""
    report, refused = found["report"], found["refused"]
    coins = {one["candidate"]: one for one in report["baselines"]["random_mix"]}
    rows = ["| arm | right | cost of 1,000 | energy est. of 1,000, Wh | p50, modelled | against a coin |",
            "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name in report["by_cost"]:
        one, coin = report["candidates"][name], coins.get(name)
        right, cost, energy = one["accuracy"], one["cost_usd_per_call"], one["energy_wh_per_success"]
        wh = watt_hours(right["mean"], energy)
        versus = "" if coin is None else points(coin["difference"])
        note = " (refused)" if name in refused else ""
        rows.append(
            f"| {name}{note} | {right['mean']:.1%} [{right['low']:.1%}, {right['high']:.1%}] | "
            f"${1000 * cost['mean']:.2f} | {wh} | {one['latency_p50_s']:.2f} s | "
            f"{versus} |"
        )
        if coin is not None:
            rows.append(f"| a coin for as much | {coin['accuracy']:.1%} | ${1000 * cost['mean']:.2f} | | | |")
    return "\n".join([*rows, f"\nn = {found['n']}"])


def watt_hours(right: float, energy: dict) -> str:
    """Return the energy of 1,000 calls, of which a share *right* succeeds, in words."""
    central, low, high = energy["central"]["mean"], energy["low"], energy["high"]
    if None in (central, low, high):
        return "unknown"
    return f"{1000 * right * central:.0f} ({1000 * right * low:.0f} to {1000 * right * high:.0f})"


def points(interval: dict) -> str:
    return f"{100 * interval['mean']:+.1f} points [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with routellm/ and gsm8k/")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--loss", type=float, default=0.1, help="how many of the large model's successes may be lost")
    parser.add_argument("--max-error", type=float, default=0.2, help="of answers that the cascade accepts")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        found = {"routed": routed(options), "agreed": agreed(options)}
    except NegawattError as error:
        print(f"gsm8k_routing: {error.message}", file=sys.stderr)
        return 2
    for name, one in found.items():
        print(f"\n{name}\n\n{table(one)}")
        for what, why in one["refused"].items():
            print(f"refused: {what}: {why}")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
