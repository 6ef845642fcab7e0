"""The default embedder: how long a short text takes on one core, how many a second in bulk, memory, and disk.

    python benchmarks/embedding.py [--url minilm:] [--n 500] [--json]

Texts of 12 words, each another, through the embedder as the gateway opens it (queue, worker thread, memory of recent
texts; none repeats). `batch_difference` is the largest difference of any number of any vector between a text asked for
alone and with 299 others. `resident_mb` is a process of its own with the embedder loaded and used. `install_mb` adds
up the files of negawatt[semantic], all it brings along, and the weights, as they are installed here, without caches.
MB are 10^6 bytes. With --json, the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from negawatt.embedders import Embedder
from negawatt.embedders.opening import open_embedder
from negawatt.embedders.weights import PACKAGE

ROOT = Path(__file__).parent.parent
SUBJECTS = ("the customer", "my neighbour", "a new user", "our team", "the doctor", "your bank", "the driver",
            "a student", "the hotel", "his boss")  # fmt: skip
VERBS = ("change", "find", "open", "send", "cancel", "renew", "check", "return", "book", "pay")
THINGS = ("password", "order", "ticket", "invoice", "account", "letter", "contract", "train", "table", "parcel")
TIMES = ("today", "tomorrow", "on monday", "next week", "at night", "after lunch", "in may", "before ten", "at home",
         "by phone")  # fmt: skip

RESIDENT = """
import asyncio, sys
from negawatt.embedders.opening import open_embedder
async def use():
    embedder = open_embedder(sys.argv[1], "url")
    await embedder.embed([f"how can i change number {i} of my orders" for i in range(100)] + ["long text " * 500])
    await embedder.close()
asyncio.run(use())
fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("VmRSS", "VmHWM")))
print(*(int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")))
"""


def texts(count: int, words: int = 12) -> list[str]:
    """Return *count* different questions of *words* words."""
    found = []
    for number in range(count):
        i, j, k, m = (number // 10**power % 10 for power in range(4))
        line = f"how can {SUBJECTS[i]} {VERBS[j]} the {THINGS[k]} that was lost {TIMES[m]} in town {number}".split()
        found.append(" ".join([*line[: words - 1], line[-1]]))
    return found


async def embed_ms(embedder: Embedder, asked: list[str]) -> dict[str, float | int]:
    """Return the milliseconds of one text after the other."""
    took = []
    for text in asked:
        start = time.perf_counter()
        await embedder.embed([text])
        took.append(1e3 * (time.perf_counter() - start))
    return {
        "p50": round(float(np.quantile(took, 0.5)), 2),
        "p99": round(float(np.quantile(took, 0.99)), 2),
        "n": len(took),
    }


async def measure(url: str, count: int) -> dict[str, object]:
    """Return what an embedder opened by *url* does."""
    asked = texts(2 * count + 50)
    embedder = open_embedder(url, "url")
    try:
        await embedder.embed(asked[:50])
        single = await embed_ms(embedder, asked[50 : 50 + count])
        start = time.perf_counter()
        await embedder.embed(asked[50 + count :])
        per_s = count / (time.perf_counter() - start)
    finally:
        await embedder.close()
    return {"embed_ms": single, "batch_texts_per_s": round(per_s, 1), "embedder": embedder.id}


async def batch_difference(url: str) -> float:
    """Return the largest difference between vectors of texts asked for alone and together, of 1 to 15 words."""
    asked = [text for words in range(2, 17) for text in texts(20, words)]
    alone, together = open_embedder(url, "url"), open_embedder(url, "url")
    try:
        rows = np.concatenate([await alone.embed([text]) for text in asked])
        return float(np.abs(await together.embed(asked) - rows).max())
    finally:
        await alone.close()
        await together.close()


def resident_mb(url: str) -> dict[str, float]:
    """Return what a process holds that did nothing but load and use the embedder."""
    if not Path("/proc/self/status").exists():
        return {}
    command = [sys.executable, "-c", RESIDENT, url]
    now, most = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    return {"resident_mb": round(float(now), 1), "peak_mb": round(float(most), 1)}


def install_mb() -> dict[str, float]:
    """Return the size of negawatt[semantic] with all it brings along and the weights, and of its largest parts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["semantic"]]
    sizes = {"negawatt": size_of(ROOT / "src" / "negawatt"), PACKAGE: size_of_files(distribution(PACKAGE))}
    while waiting:
        wanted = waiting.pop()
        name = wanted.name.lower().replace("_", "-")
        if name in sizes or not applies(wanted):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        sizes[name] = size_of_files(found)
        waiting += [Requirement(text) for text in found.requires or ()]
    return sizes


def applies(wanted: Requirement) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": ""})


def size_of_files(found: Distribution) -> float:
    paths = [Path(str(found.locate_file(file))) for file in found.files or () if "__pycache__" not in str(file)]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def size_of(folder: Path) -> float:
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sum(path.stat().st_size for path in paths) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure an embedder.")
    parser.add_argument("--url", default="minilm:")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = install_mb()
    found = {
        **asyncio.run(measure(options.url, options.n)),
        **resident_mb(options.url),
        "batch_difference": asyncio.run(batch_difference(options.url)),
        "install_mb": round(sum(sizes.values()), 1),
        "largest_mb": {name: round(sizes[name], 1) for name in sorted(sizes, key=lambda n: -sizes[n])[:8]},
        "machine": f"{platform.machine()}, {platform.system()}",
        "date": datetime.now(UTC).date().isoformat(),
        "script": "benchmarks/embedding.py",
    }
    if not options.json:
        for name, value in found.items():
            print(f"{name:20} {value}")
        return
    print(json.dumps(found))


if __name__ == "__main__":
    main()
