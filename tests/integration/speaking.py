"""What the tests of the SDKs share: a provider that speaks everything, and a gateway before it."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from world import HERE, Gateway, Json, Process

PROTOCOLS = ("chat", "responses", "messages")


class Speaker(Process):
    """The provider (`speaker.py`)."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, str(HERE / "speaker.py")], folder / "speaker.log")
        self.port = self.announced(r"PORT (\d+)")
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def last(self, tag: str) -> Json:
        """The last request under *tag*: path, headers, body."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/last/{tag}", timeout=5) as response:
            found: Json = json.load(response)
            return found


class Spoken(Gateway):
    """A gateway whose models ``chat-1``, ``responses-1`` and ``messages-1`` speak one protocol each, ``all-1`` all."""

    def __init__(self, folder: Path, speaker: Speaker, **levers: Json) -> None:
        provider = {"kind": "openai-compatible", "base_url": speaker.base_url}
        others = ["count_tokens", "completions", "embeddings", "rerank"]
        rows: list[Json] = [
            {"name": name, **provider, "models": [f"{name}-*"], "protocols": [name]} for name in PROTOCOLS
        ]
        rows.append({"name": "all", **provider, "models": ["all-*"], "protocols": [*PROTOCOLS, *others]})
        super().__init__(folder, {
            "holdout": {"share": 0.0},
            "levers": {"exact_cache": {"mode": "off"}, "retry": {"attempts": 1}, **levers},
            "providers": rows,
        })  # fmt: skip
        self.speaker = speaker


@contextlib.contextmanager
def spoken(folder: Path, **levers: Json) -> Iterator[Spoken]:
    """Start both, and stop them. *levers*: settings beside the usual ones."""
    speaker = Speaker(folder)
    try:
        gateway = Spoken(folder, speaker, **levers)
        try:
            yield gateway
        finally:
            gateway.stop()
    finally:
        speaker.stop()


def used(row: Any) -> tuple[int, int, int, int, str]:
    """Return what the row of a call must have: what the provider said that it used."""
    return (
        row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["reasoning_tokens"],
        row["usage_basis"],
    )  # fmt: skip
