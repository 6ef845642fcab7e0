"""Turn real data into a trace and a recording, for `make demo-real`.

    python examples/gsm8k_replay.py --data DIR --out DIR [--repeats 0.35] [--zipf 1.1] [--seed N]
                                    [--large-share 0.5] [--streams 0.3]

*DIR* holds two data sets:

- routellm/gsm8k_gsm8k_responses.csv.gz: the 1,319 test questions of GSM8K, the answers that GPT-4 (1106 preview) and
  Mixtral-8x7B (Instruct v0.1) really gave, and whether each was right (github.com/lm-sys/RouteLLM, Apache-2.0;
  questions from github.com/openai/grade-school-math, MIT);
- azure-llm-2023/AzureLLMInferenceTrace_conv.csv.gz: the arrivals of an hour of real conversations
  (github.com/Azure/AzurePublicDataset, CC BY 4.0; Patel et al., Splitwise, ISCA 2024).

What is real: questions, answers, verdicts, arrival times. What is ours, and stated in every line: token counts
(estimated), timings (modelled, see MODELS), and which question is repeated when. Every question is asked once; the
stated share of repeats is drawn over them by Zipf's law; all of it comes in seeded order. Why an answer ended is not
in the data: every one is written down as ended by itself (stop).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import random
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from negawatt.economics.tokens import estimate_request_tokens, estimate_tokens
from negawatt.errors import InputError, NegawattError
from negawatt.proof.trace import TraceEntry, read_trace, write_trace
from negawatt.providers.recording import RecordedAnswer, Timing, write_recording

RESPONSES = Path("routellm") / "gsm8k_gsm8k_responses.csv.gz"
ARRIVALS = Path("azure-llm-2023") / "AzureLLMInferenceTrace_conv.csv.gz"
SEED = 20261123
RECORDED_AT = 1_723_248_000  # 2024-08-10, the date of the data's commit; when each answer was given is not known


@dataclass(frozen=True)
class Model:
    """A model of the data, under the name that its provider sells it by.

    The answer's time is *first_chunk_s* + *token_s* for each output token: round figures of the order that hosted
    models of 2024 had, not measured on these answers.
    """

    column: str
    name: str
    provider: str
    first_chunk_s: float
    token_s: float


LARGE = Model("gpt-4-1106-preview", "gpt-4-1106-preview", "openai", 0.6, 0.030)
SMALL = Model("mistralai/Mixtral-8x7B-Instruct-v0.1", "open-mixtral-8x7b", "mistral", 0.3, 0.012)
MODELS = (LARGE, SMALL)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of the answers' file. Raises `InputError` when it is absent or another file."""
    csv.field_size_limit(10_000_000)
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            wanted = ["prompt", *(name for model in MODELS for name in (model.column, f"{model.column}_response"))]
            missing = [name for name in wanted if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}:1: {missing[0]}: this column is missing from the header")
            rows = list(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not the file that is expected: {error}") from error
    if not rows:
        raise InputError(f"{path}: holds no answer")
    return rows


def request_of(question: str, model: Model) -> dict[str, Any]:
    return {"model": model.name, "messages": [{"role": "user", "content": question}], "temperature": 0}


def recorded(rows: Iterable[dict[str, str]], path: Path) -> Iterator[RecordedAnswer]:
    """Yield both models' answers to each question."""
    for number, row in enumerate(rows, 1):
        for model in MODELS:
            verdict, text = row[model.column], row[f"{model.column}_response"]
            if verdict not in ("True", "False"):
                raise InputError(f"{path}: row {number}: {model.column}: expected True or False, got {verdict!r}")
            if not row["prompt"] or not text:
                raise InputError(f"{path}: row {number}: {model.column}_response: expected a question and its answer")
            yield _answer(row["prompt"], text, model, verdict == "True")


def _answer(question: str, text: str, model: Model, correct: bool) -> RecordedAnswer:
    request = request_of(question, model)
    asked, made = estimate_request_tokens(request["messages"], None), estimate_tokens(text)
    digest = hashlib.sha256(f"{model.name}\n{question}".encode()).hexdigest()
    return RecordedAnswer(
        request=request,
        response={
            "id": f"chatcmpl-{digest[:24]}",
            "object": "chat.completion",
            "created": RECORDED_AT,
            "model": model.name,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made},
        },
        timing=Timing(
            first_chunk_s=model.first_chunk_s,
            duration_s=round(model.first_chunk_s + model.token_s * made, 4),
            basis="modelled",
        ),
        provider=model.provider,
        correct=correct,
        usage_basis="estimated",
        note=f"real answer of {model.column}; timing modelled: {model.first_chunk_s} s + {model.token_s} s per token",
    )


def askings(count: int, repeats: float, zipf: float, rng: random.Random) -> list[int]:
    """Return which of *count* questions is asked, in order: each once, and a share *repeats* of them all again."""
    popular = rng.sample(range(count), count)
    weights = list(accumulate(rank**-zipf for rank in range(1, count + 1)))
    again = rng.choices(popular, cum_weights=weights, k=round(count * repeats / (1 - repeats)))
    order = [*range(count), *again]
    rng.shuffle(order)
    return order


def trace_of(rows: list[dict[str, str]], options: argparse.Namespace) -> list[TraceEntry]:
    """Return the requests, at the arrivals of the real conversations. Raises `InputError` if these are too few."""
    rng = random.Random(options.seed)
    order = askings(len(rows), options.repeats, options.zipf, rng)
    large = set(rng.sample(range(len(rows)), round(options.large_share * len(rows))))
    arrivals = read_trace(options.data / ARRIVALS, format="azure", limit=len(order)).entries
    if len(arrivals) < len(order):
        raise InputError(f"{options.data / ARRIVALS}: {len(order)} arrivals are needed, it has {len(arrivals)}")
    entries = []
    for question, arrival in zip(order, arrivals, strict=True):
        request = request_of(rows[question]["prompt"], LARGE if question in large else SMALL)
        if rng.random() < options.streams:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        entries.append(TraceEntry(arrival_s=arrival.arrival_s, request=request))
    return entries


def convert(options: argparse.Namespace) -> None:
    """Write both files and say what is in them."""
    if not options.data.is_dir():
        raise InputError(f"{options.data}: no such folder; --data is the one that holds routellm/ and azure-llm-2023/")
    path = options.data / RESPONSES
    rows = read_rows(path)
    answers = list(recorded(rows, path))
    entries = trace_of(rows, options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.out}: cannot be made: {error.strerror or error}") from error
    write_recording(options.out / "recording.jsonl", answers)
    write_trace(options.out / "trace.jsonl", entries)
    large = sum(entry.request["model"] == LARGE.name for entry in entries)
    print(f"{options.out / 'recording.jsonl'}: {len(answers)} real answers to {len(rows)} questions")
    for model in MODELS:
        verdicts = [answer.correct for answer in answers if answer.model == model.name]
        print(f"  {model.name} ({model.provider}): {sum(map(bool, verdicts)) / len(verdicts):.2%} right")
    print(
        f"{options.out / 'trace.jsonl'}: {len(entries)} requests in {entries[-1].arrival_s:.1f} s, "
        f"{1 - len(rows) / len(entries):.1%} repeats (Zipf {options.zipf}, seed {options.seed}), "
        f"{large} of them asked of {LARGE.name}, {sum('stream' in e.request for e in entries)} streamed"
    )
    print("real: questions, answers, verdicts, arrival times; estimated: tokens; modelled: timings, repeats")
    print("the questions are sent alone: what else the models were told is not in the data, so input is a lower bound")


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("expected a share from 0 to 1")
    return value


def exponent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError("expected a number from 0 to 10")
    return value


def share_of_repeats(text: str) -> float:
    value = share(text)
    if value > 0.9:
        raise argparse.ArgumentTypeError("expected a share from 0 to 0.9")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with routellm/ and azure-llm-2023/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write trace.jsonl and recording.jsonl to")
    parser.add_argument("--repeats", type=share_of_repeats, default=0.35, help="share of requests that are repeats")
    parser.add_argument("--zipf", type=exponent, default=1.1, help="exponent of the law that repeats are drawn by")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--large-share", type=share, default=0.5, help=f"share of questions asked of {LARGE.name}")
    parser.add_argument("--streams", type=share, default=0.3, help="share of requests that are streamed")
    options = parser.parse_args()
    try:
        convert(options)
    except NegawattError as error:
        print(f"gsm8k_replay: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
