"""A folder in which a gateway with all caches has worked: its configuration, its ledger and its index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from recalls import Bold

from negawatt.config import load_config
from negawatt.gateway import Gateway
from negawatt.recall.learner import _NEVER

ROOT = Path(__file__).parent.parent
CONFIG = """
[ledger]
url = "sqlite:///ledger.sqlite"
[holdout]
share = 0.0
[recall]
embedder = "hashing:"
index = "sqlite:///index.sqlite"
curated = "curated.toml"
[levers.semantic_cache]
mode = "on"
review = 1
[classes.careful]
max_error = 0.001
[[providers]]
name = "modelled"
url = "modelled:?a=0&b=0"
"""
CURATED = """
[[answer]]
id = "hours"
questions = ["when are you open on holidays"]
answer = "From ten to four."
"""
QUESTIONS = ("How do I reset my password?", "how do I reset my password please", "please: how do I reset my password")


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


def begin(folder: Path, config: str = CONFIG) -> Path:
    (folder / "negawatt.toml").write_text(config)
    (folder / "curated.toml").write_text(CURATED)
    return folder


def serve_all(gateway: Gateway, request_class: str = "default") -> None:
    """Let the rule of a class serve every candidate."""
    assert gateway.learner is not None
    gateway.learner._rules[request_class, "learned"] = Bold()  # type: ignore[assignment]
    gateway.learner._read[request_class, "learned"] = _NEVER._replace(at=float("inf"))


async def worked(folder: Path) -> Path:
    """Ask three questions that mean the same, one twice, and a curated one; two learned hits wait for review."""
    begin(folder)
    async with opened(folder) as gateway:
        serve_all(gateway)
        for text in (*QUESTIONS, QUESTIONS[0], "when are you open on holidays"):
            await gateway.chat(chat(text))
            await gateway.background.drain()
    return folder


def opened(folder: Path) -> Any:
    """Open the gateway of *folder*, wherever this process is."""
    text = (folder / "negawatt.toml").read_text()
    for name in ("ledger.sqlite", "index.sqlite"):
        text = text.replace(f"sqlite:///{name}", f"sqlite:///{folder / name}")
    (folder / "absolute.toml").write_text(text.replace('"curated.toml"', f'"{folder / "curated.toml"}"'))
    return Gateway.open(load_config(folder / "absolute.toml", environ={}), environ={})


def negawatt(*words: object, cwd: Path, expect: int = 0, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in *cwd*, with *said* on its standard input."""
    command = [sys.executable, "-m", "negawatt", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=cwd, input=said,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done
