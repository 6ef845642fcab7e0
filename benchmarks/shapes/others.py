"""Embeddings, rerank, legacy completions, token counting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shapes import ESTIMATED, Counts, Json, Shape, data_lines, whole

OPENAI = "OpenAI API reference"
PROXIES = "compatible servers"
INPUT_ONLY = Counts(None, 0, basis="estimated")
EMBEDDINGS: list[tuple[str, str, Any, Any, Counts]] = [
    ("plain", OPENAI, [0.5, -0.25], {"prompt_tokens": 100, "total_tokens": 100}, Counts(100, 0)),
    ("base64", OPENAI, "AAAAPwAAgL4=", {"prompt_tokens": 100, "total_tokens": 100}, Counts(100, 0)),
    ("zero output", PROXIES, [0.5], {"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100},
     Counts(100, 0)),
    ("total only", "Jina, Voyage", [0.5], {"total_tokens": 100}, Counts(100, 0)),
    ("counts as texts", PROXIES, [0.5], {"prompt_tokens": "100", "total_tokens": "100"}, Counts(100, 0)),
    ("null total", PROXIES, [0.5], {"prompt_tokens": 100, "total_tokens": None}, Counts(100, 0)),
    ("cached", PROXIES, [0.5], {"prompt_tokens": 100, "total_tokens": 100,
                                "prompt_tokens_details": {"cached_tokens": 0}}, Counts(100, 0)),
    ("no usage", PROXIES, [0.5], None, INPUT_ONLY),
]  # fmt: skip
RESULTS = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
RERANKED: list[tuple[str, str, Json, Counts]] = [
    ("tokens", "Jina API reference", {"model": "m", "results": RESULTS, "usage": {"total_tokens": 100}},
     Counts(100, 0)),
    ("prompt tokens too", "Jina API reference", {
        "model": "m", "results": RESULTS, "usage": {"total_tokens": 100, "prompt_tokens": 100}}, Counts(100, 0)),
    ("Voyage's form", "Voyage API reference", {
        "object": "list", "data": RESULTS, "model": "m", "usage": {"total_tokens": 100}}, Counts(100, 0)),
    ("no usage", PROXIES, {"results": RESULTS}, INPUT_ONLY),
]  # fmt: skip
PLAIN = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 1764000000, "model": "m-2026-01-01"}


def said(text: str, finish: str | None = None, index: int = 0) -> Json:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def part(*choices: Json, **fields: Any) -> Json:
    return {**HEAD, "choices": list(choices), **fields}


WORDS = [part(said("Two or ")), part(said("three days."))]
ENDED = part(said("", "stop"))
COMPLETIONS: list[tuple[str, str, bytes, Counts]] = [
    ("usage alone", OPENAI, data_lines([*WORDS, ENDED, part(usage=PLAIN)]), Counts(100, 20)),
    ("usage at the end", "vLLM", data_lines([*WORDS, {**ENDED, "usage": PLAIN}]), Counts(100, 20)),
    ("usage on the last words", "vLLM", data_lines([WORDS[0], part(said("three days.", "length"), usage=PLAIN)]),
     Counts(100, 20)),
    ("usage on every chunk, growing", "vLLM, continuous_usage_stats", data_lines([
        *[{**one, "usage": {"prompt_tokens": 100, "completion_tokens": n, "total_tokens": 100 + n}}
          for n, one in enumerate(WORDS)], {**ENDED, "usage": PLAIN}]), Counts(100, 20)),
    ("CRLF", PROXIES, data_lines([*WORDS, ENDED, part(usage=PLAIN)], end="\r\n"), Counts(100, 20)),
    ("two choices, mixed", OPENAI, data_lines([
        part(said("a")), part(said("b", None, 1)), part(said("", "stop")), part(said("", "stop", 1)),
        part(usage=PLAIN)]), Counts(100, 20)),
    ("no usage", PROXIES, data_lines([*WORDS, ENDED]), ESTIMATED),
]  # fmt: skip


def shapes() -> Iterator[Shape]:
    for name, source, vector, usage, counts in EMBEDDINGS:
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        sent = {"object": "list", "data": data, "model": "m-2026-01-01", "usage": usage}
        yield Shape(name, "embeddings", source, whole(sent), counts)
    for name, source, sent, counts in RERANKED:
        yield Shape(name, "rerank", source, whole(sent), counts)
    for name, source, stream, counts in COMPLETIONS:
        yield Shape(f"{name}, streamed", "completions", source, (stream,), counts, streamed=True)
    yield Shape("plain, whole", "completions", OPENAI, whole(part(said("Two.", "stop"), usage=PLAIN)), Counts(100, 20))
    yield Shape("no usage, whole", "completions", PROXIES, whole(part(said("Two.", "stop"))), ESTIMATED)
    yield Shape("a count", "count_tokens", "Anthropic API reference", whole({"input_tokens": 100}), Counts(0, 0))
