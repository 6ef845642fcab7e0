"""A gateway that guesses, before a provider that knows a help desk's answers; and how it is asked until it guesses."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest
from desk import questions
from world import NEGAWATT, Gateway, Json, Upstream

from negawatt.embedders.weights import default_folder

KEYS = {"ANN": "key-of-ann", "EVE": "key-of-eve"}
MODEL = "gpt-4o-mini"
TAUGHT = 130  # questions: the rule wants 60 that were compared, 5 of them wrong, and some more to settle
needs_minilm = pytest.mark.skipif(
    default_folder() is None or find_spec("onnxruntime") is None, reason="MiniLM is not installed"
)


def guessing(folder: Path, upstream: Upstream, *, semantic: Json | None = None, **more: Any) -> Json:
    """Return the configuration of a gateway that guesses, whose index lies in *folder*.

    It explores next to nothing, so that a test knows what it gets; every hit is drawn for review.
    """
    stub = {"base_url": upstream.base_url, "kind": "openai-compatible", "key_env": "STUB_KEY"}
    usual: Json = {
        "holdout": {"share": 0.0},
        "keys": [
            {"id": name.lower(), "key_env": name, "tenant": name.lower(), "admin": name == "ANN"} for name in KEYS
        ],
        "providers": [{"name": "stub", "priced_as": "openai", **stub}],
        "recall": {"index": f"sqlite:///{folder / 'index.sqlite'}"},
        "levers": {
            "retry": {"attempts": 1},
            "semantic_cache": {"mode": "on", "explore": 1e-6, "review": 1.0, "max_error": 0.05, **(semantic or {})},
        },
    }
    return {**usual, **more}


def opened(folder: Path, config: Json) -> Gateway:
    return Gateway(folder, config, STUB_KEY="the-provider-key", **KEYS)


def client(gateway: Gateway, task: str = "", who: str = "ANN", kind: type[Any] = openai.OpenAI, **headers: str) -> Any:
    """Return OpenAI's SDK, unmodified."""
    fields = {**({"x-negawatt-task": task} if task else {}), **headers}
    return kind(base_url=gateway.base_url, api_key=KEYS[who], max_retries=0, timeout=20, default_headers=fields)


def asking(question: str, **fields: Any) -> Json:
    """Return what the SDK is told."""
    return {"model": MODEL, "messages": [{"role": "user", "content": question}], "temperature": 0, **fields}


def said(sdk: Any, question: str, **fields: Any) -> tuple[str, str]:
    """Return the cache that answered, as the header has it, and the answer."""
    raw = sdk.chat.completions.with_raw_response.create(**asking(question, **fields))
    return raw.headers["x-negawatt-cache"], raw.parse().choices[0].message.content


def teach(gateway: Gateway, count: int = TAUGHT, **options: Any) -> list[str]:
    """Ask *count* questions of the help desk, one after the other; return which cache answered each."""
    sdk = client(gateway, **options)
    caches = []
    for question, answer in questions()[:count]:
        cache, text = said(sdk, question)
        assert text == answer, f"{question} was answered with {text} by {cache}"
        caches.append(cache)
    return caches


def counts(folder: Path) -> tuple[int, int]:
    """Return how many entries are in the index file, and how many cases."""
    connection = sqlite3.connect(f"file:{folder / 'index.sqlite'}?mode=ro", uri=True, timeout=5.0)
    try:
        return tuple(
            connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("entry", "learned_case")
        )  # type: ignore[return-value]
    finally:
        connection.close()


def negawatt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in *folder*."""
    environ = {**os.environ, "STUB_KEY": "x", **KEYS}
    return subprocess.run(
        [str(NEGAWATT), *arguments], cwd=folder, capture_output=True, text=True, timeout=30, env=environ, check=False
    )


def decided(row: sqlite3.Row, lever: str = "semantic_cache") -> list[Json]:
    """Return what *lever* decided on the call of *row*."""
    return [one for one in json.loads(row["decisions"]) if one["lever"] == lever]


def metric(text: str, name: str, *labels: str) -> float | None:
    """Return the value of the metric *name* that has all of *labels*; None where there is none."""
    for line in text.splitlines():
        if line.startswith(name) and all(label in line for label in labels):
            return float(line.rpartition(" ")[2])
    return None


def words_of(chunks: Sequence[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
