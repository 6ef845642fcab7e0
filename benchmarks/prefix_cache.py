"""What a policy for providers' prefix caches costs: the figures in docs/prefix_cache.md.

    python benchmarks/prefix_cache.py --data DIR [--json]
    python benchmarks/prefix_cache.py --trace FILE.jsonl[.gz] [--json]

DIR holds ``mooncake/`` and ``tau-bench/``. FILE has one request a line: timestamp (ms), input_length (tokens),
hash_ids (of blocks of 512 tokens; equal ids, equal prefixes; the last block counts its remainder).

The factor is the price of all input over its price without a cache. A provider of its own account is simulated: it
holds a block for the lifetime that was paid for since its last use, and a block is read (0.1) only while all before it
are. Written blocks cost 1.25 (5 minutes) or 2.0 (1 hour), all others 1. The policy and its setting are the same for all
rows, and it knows the past only. Beside it: *always* write, *never*, the *clairvoyant* writer, who writes what will be
sent again in time, and *hindsight*: this policy, having learned its tables from all of the row beforehand.

tau: every model call of recorded agent loops, each message one block of as many units as its JSON has characters, five
seconds apart (they have no times), nothing shared between loops. tau_timestamp: the system prompt begins with the time
of each call, and `StablePrefix` composes it; *broken* is the factor of always without it.
Intervals (95 %) draw minutes of a trace, or whole loops. Prints a table, and as the last line one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from negawatt.shape.prefix import StablePrefix
from negawatt.shape.prefix_policy import Block, Lifetime, Marking, PrefixPolicy
from negawatt.statistics import Bootstrap

READ = 0.1
BLOCK = 512
SEED = 20261123
SHORT, LONG = Lifetime(300.0, 1.25), Lifetime(3600.0, 2.0)
STEP_S = 5.0


class Sent(NamedTuple):
    """A request: when, its blocks, and what is drawn with it for the interval."""

    at: float
    blocks: list[Block]
    cluster: str


class Provider:
    """Holds what was paid for, and charges for it."""

    def __init__(self) -> None:
        self._until: dict[object, tuple[float, float]] = {}

    def held(self, sent: Sent) -> int:
        for at, block in enumerate(sent.blocks):
            if self._until.get(block.id, (-1.0, 0.0))[0] < sent.at:
                return at
        return len(sent.blocks)

    def ask(self, sent: Sent, upto: int, life: Lifetime | None) -> float:
        held, cost = self.held(sent), 0.0
        for at, block in enumerate(sent.blocks):
            if at < held:
                cost += READ * block.tokens
                ttl = self._until[block.id][1]
                self._until[block.id] = (sent.at + ttl, ttl)
            elif at < upto and life is not None:
                cost += life.write * block.tokens
                self._until[block.id] = (sent.at + life.ttl_s, life.ttl_s)
            else:
                cost += block.tokens
        return cost


Writer = Callable[[int, Sent], tuple[int, Lifetime | None]]


def costs(requests: list[Sent], writer: Writer) -> np.ndarray:
    provider = Provider()
    return np.array([provider.ask(sent, *writer(n, sent)) for n, sent in enumerate(requests)])


def by_policy(policy: PrefixPolicy) -> Writer:
    def write(_: int, sent: Sent) -> tuple[int, Lifetime | None]:
        marking: Marking = policy.decide(sent.blocks, sent.at)
        policy.observe(sent.blocks, sent.at, marking)
        return marking.upto, marking.lifetime

    return write


def clairvoyant(requests: list[Sent], life: Lifetime) -> Writer:
    following: dict[object, float] = {}
    upto = [0] * len(requests)
    for n in range(len(requests) - 1, -1, -1):
        sent = requests[n]
        again = (following.get(block.id, float("inf")) - sent.at <= life.ttl_s for block in sent.blocks)
        upto[n] = next((at for at, one in enumerate(again) if not one), len(sent.blocks))
        following.update((block.id, sent.at) for block in sent.blocks)
    return lambda n, _: (upto[n], life)


def row(requests: list[Sent], lives: tuple[Lifetime, ...]) -> dict:
    tokens = np.array([float(sum(block.tokens for block in sent.blocks)) for sent in requests])
    policy = PrefixPolicy(lives, read=READ)
    began = time.process_time()
    spent = costs(requests, by_policy(policy))
    took = time.process_time() - began
    boot = Bootstrap([sent.cluster for sent in requests], np.random.default_rng(SEED))
    interval = boot.ratio(spent, tokens)

    def factor(writer: Writer) -> float:
        return round(float(costs(requests, writer).sum() / tokens.sum()), 4)

    found = {
        "factor": round(float(spent.sum() / tokens.sum()), 4),
        "interval": [None if end is None else round(end, 4) for end in (interval.low, interval.high)],
        "n": len(requests),
        "never": 1.0,
        "ms": round(1000 * took / len(requests), 3),
        "hindsight": factor(by_policy(PrefixPolicy(lives, read=READ, learned=policy.learned))),
    }
    if len(lives) == 1:
        found["always"] = factor(lambda _, sent: (len(sent.blocks), lives[0]))
        found["clairvoyant"] = factor(clairvoyant(requests, lives[0]))
    return found


def unpacked(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except OSError as error:
        sys.exit(f"{file} cannot be read: {error}")


def trace(file: Path) -> list[Sent]:
    data = unpacked(file)
    found = []
    for number, line in enumerate(data.decode().split("\n"), 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            ids, left = one["hash_ids"], int(one["input_length"])
            at = one["timestamp"] / 1000
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{file}, line {number}: no request with timestamp, input_length and hash_ids: {error!r}")
        sizes = [BLOCK] * (len(ids) - 1) + [left - BLOCK * (len(ids) - 1)]
        if ids and sizes[-1] <= 0:
            sys.exit(f"{file}, line {number}: {len(ids)} blocks of {BLOCK} are more than {left} tokens")
        blocks = [Block(name, size) for name, size in zip(ids, sizes, strict=True)] if ids else []
        found.append(Sent(at, blocks, str(int(at // 60))))
    if not found:
        sys.exit(f"{file}: there is no request in it")
    return sorted(found, key=lambda sent: sent.at)


def loops(folder: Path, form: Callable[[list[dict], datetime], list[dict]]) -> list[Sent]:
    data = json.loads(unpacked(folder / "tau-bench" / "gpt-4o-airline.json.gz"))
    found, at = [], 0.0
    for number, loop in enumerate(data):
        for turn, message in enumerate(loop["traj"]):
            if message["role"] != "assistant":
                continue
            at += STEP_S
            name, blocks = f"{number}", []
            for sent in form(loop["traj"][:turn], datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=at)):
                text = json.dumps(sent)
                name = hashlib.blake2b(f"{name}\n{text}".encode(), digest_size=16).hexdigest()
                blocks.append(Block(name, len(text)))
            found.append(Sent(at, blocks, str(number)))
    return found


def stamped(messages: list[dict], now: datetime) -> list[dict]:
    system = messages[0]
    stamp = f"Current time: {now.isoformat(timespec='seconds')}\n\n"
    return [{**system, "content": stamp + system["content"]}, *messages[1:]]


def tau(folder: Path) -> dict[str, dict]:
    composer = StablePrefix()
    broken = loops(folder, stamped)
    always = costs(broken, lambda _, sent: (len(sent.blocks), SHORT)).sum()
    tokens = sum(block.tokens for sent in broken for block in sent.blocks)
    composed = loops(folder, lambda m, now: list(composer.compose({"messages": stamped(m, now)}).data["messages"]))
    return {
        "tau": row(loops(folder, lambda messages, _: messages), (SHORT,)),
        "tau_timestamp": {**row(composed, (SHORT,)), "broken": round(always / tokens, 4)},
    }


def traces(files: Iterable[tuple[str, Path]]) -> dict[str, dict]:
    found = {}
    for name, file in files:
        requests = trace(file)
        for life in (SHORT, LONG):
            found[f"{name}_{life.ttl_s:.0f}s"] = row(requests, (life,))
        found[f"{name}_choice"] = row(requests, (SHORT, LONG))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with mooncake/ and tau-bench/")
    parser.add_argument("--trace", type=Path, help="a trace of your own")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    arguments = parser.parse_args()
    if arguments.data is None and arguments.trace is None:
        parser.error("--data or --trace is needed")
    rows: dict[str, dict] = {}
    if arguments.trace is not None:
        rows |= traces([("trace", arguments.trace)])
    if arguments.data is not None:
        names = ("conversation", "synthetic")
        rows |= traces((name, arguments.data / "mooncake" / f"{name}_trace.jsonl.gz") for name in names)
        rows |= tau(arguments.data)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    if not arguments.json:
        print("| row | n | never | always | policy | 95 % | hindsight | clairvoyant |\n|" + " --- |" * 8)
        for name, one in rows.items():
            print(f"| {name} | {one['n']:,} | 1 | {one.get('always', '–')} | {one['factor']} | {one['interval'][0]} to "
                  f"{one['interval'][1]} | {one['hindsight']} | {one.get('clairvoyant', '–')} |")  # fmt: skip
        print(f"\n{date}, {machine}; seed {SEED}")
    print(json.dumps({**rows, "date": date, "machine": machine, "seed": SEED}))


if __name__ == "__main__":
    main()
