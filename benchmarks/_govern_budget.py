"""Budgets under pressure: a thousand calls at once, of random cost, against a cap. A real gateway, a stub that bills.

The stub bills what a provider would: the prompt, and the tokens that it has made when its caller leaves. Seven of ten
requests limit their answer; of the others the length is unknown before, and has a long tail.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from negawatt.call import Call, Target
from negawatt.caller import Hints
from negawatt.config import parse_config
from negawatt.errors import BudgetExceeded
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.reply import Burst, Chunk, Reply
from negawatt.wire.chat import CHAT

CALLS, CAP = 1000, 60_000
MODEL = "gpt-4o-mini"
_SLOWEST_S = 0.05
_BURST = 8  # tokens
Json = dict[str, Any]


class Billing:
    """A provider whose bill is exact: *billed* tokens, whatever its callers saw of them."""

    speaks = frozenset({"chat"})

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.billed = 0
        self.asked = 0

    async def ask(self, call: Call, target: Target) -> Reply:
        self.asked += 1
        data = call.request.data
        prompt = len(data["messages"][0]["content"]) // 4 + 7
        made = max(1, round(self._rng.lognormvariate(4.6, 0.9)))  # 100 at the median, 900 for one of a hundred
        made = min(made, data.get("max_tokens", 10**9))
        self.billed += prompt
        delay_s = self._rng.uniform(0.001, _SLOWEST_S)
        if call.request.stream:
            return Reply(CHAT, source=_Stream(self, prompt, made, delay_s))
        began = time.monotonic()
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:  # it had made a part, and charges for it
            self.billed += round(made * min(1.0, (time.monotonic() - began) / delay_s))
            raise
        self.billed += made
        message = {"role": "assistant", "content": "word " * made}
        return Reply(CHAT, body=orjson.dumps({
            "id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "usage": _usage(prompt, made),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }))  # fmt: skip

    async def models(self) -> list[str]:
        return [MODEL]

    async def close(self) -> None:
        """Nothing is open."""


class _Stream:
    """The chunks of one answer, billed as they are made."""

    def __init__(self, bill: Billing, prompt: int, made: int, delay_s: float) -> None:
        self._bill = bill
        self._prompt, self._made, self._sent = prompt, made, 0
        self._pause_s = delay_s / (made // _BURST + 1)
        self._over = False

    async def __anext__(self) -> Burst:
        if self._over:
            raise StopAsyncIteration
        await asyncio.sleep(self._pause_s)
        chunk: Json = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        if self._sent < self._made:
            count = min(_BURST, self._made - self._sent)
            self._sent += count
            self._bill.billed += count
            delta = {"index": 0, "delta": {"role": "assistant", "content": "word " * count}, "finish_reason": None}
            return [Chunk(data={**chunk, "choices": [delta]})]
        self._over = True
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = _usage(self._prompt, self._made)
        return [Chunk(data={**chunk, "choices": [end]}), Chunk(data={**chunk, "choices": [], "usage": usage})]

    async def aclose(self) -> None:
        """What was made is billed already."""


def _usage(prompt: int, made: int) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


async def run(seed: int, store: str) -> Json:
    """Let a thousand calls loose on a cap, and return what became of it. Odd seeds queue at the limit.

    With even ones it refuses, and who is told that it may pass asks again.
    """
    rng, stub = random.Random(seed), Billing(seed)
    config = parse_config({
        "providers": [{"name": "openai"}], "holdout": {"share": 0},
        "levers": {"exact_cache": {"mode": "off"}, "coalesce": {"mode": "off"}},
        "budgets": [{"name": "cap", "tokens": CAP, "per": "month", "at_limit": "queue" if seed % 2 else "refuse"}],
        "budgeting": {"store": store},
    })  # fmt: skip
    reserved: list[int] = []
    short = 0
    providers = {"openai": stub}
    async with Gateway.open(config, ledger=MemoryLedger(), providers=providers, environ={}) as gateway:
        assert gateway.purse is not None
        books = gateway.purse._books
        reserve, settle = books.reserve, books.settle

        async def noted(reservation: Any) -> Any:
            found = await reserve(reservation)
            if found is None:
                reserved.append(reservation.amounts[0])
            return found

        def settled(reservation: Any, spent: Any, how: Any = None) -> None:
            nonlocal short
            short += spent[0] > reservation.amounts[0]
            settle(reservation, spent, how)

        books.reserve, books.settle = noted, settled  # type: ignore[method-assign]
        began = time.perf_counter()
        tasks = [asyncio.ensure_future(_call(gateway, i, rng)) for i in range(CALLS)]
        leaving = [(rng.uniform(0, 2 * _SLOWEST_S), task) for task in tasks if rng.random() < 0.1]
        for at, task in leaving:
            asyncio.get_running_loop().call_later(at, task.cancel)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        spent_s = time.perf_counter() - began
        (state,) = await _told(gateway)
    wrong = [end for end in ends if isinstance(end, Exception)]
    if wrong:
        raise wrong[0]
    spent = int(state.spent)
    estimate = statistics.mean(reserved)
    return {
        "spent": spent, "billed": stub.billed, "reserved_after": int(state.reserved), "attempts": stub.asked,
        "answered": ends.count("answered"), "refused": ends.count("refused"),
        "cancelled": sum(isinstance(end, asyncio.CancelledError) for end in ends),
        "estimate_tokens": estimate, "below": short / len(reserved),
        "excess_estimates": max(0.0, max(spent, stub.billed) - CAP) / estimate, "seconds": spent_s,
    }  # fmt: skip


async def _told(gateway: Gateway) -> Any:
    """Return the states once nothing is reserved any more: what was left in the middle is settled a moment later."""
    assert gateway.purse is not None
    for _ in range(200):
        found = await gateway.purse.states()
        if not found[0].reserved:
            break
        await asyncio.sleep(0.02)
    return found


async def _call(gateway: Gateway, number: int, rng: random.Random) -> str:
    request: Json = {
        "model": MODEL, "stream": rng.random() < 0.5,
        "messages": [{"role": "user", "content": f"Question {number}: " + "words " * rng.randint(1, 60)}],
    }  # fmt: skip
    if rng.random() < 0.7:
        request["max_tokens"] = rng.randint(10, 400)
    while True:
        try:
            reply = await gateway.handle(gateway.new_call(orjson.dumps(request), Hints(deadline_ms="20000")))
        except BudgetExceeded as error:
            if not error.passing:
                return "refused"
            await asyncio.sleep(rng.uniform(0.1, 0.8))  # what is reserved may come back: it asks again
            continue
        try:
            async for _ in reply:
                pass
        finally:
            await asyncio.shield(reply.close())
        return "answered"


@contextmanager
def redis_server() -> Iterator[str | None]:
    """Start a Redis of our own and give its URL; None where there is none installed."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="negawatt-bench-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            _wait(port)
            yield f"redis://127.0.0.1:{port}/0?timeout_ms=20000"
        finally:
            server.terminate()
            server.wait(10)


def _wait(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def section(runs: int, say: Any) -> Json:
    """Return the figures of *runs* runs on each kind of books; a kind that cannot run has its reason instead."""
    found: Json = {"runs": runs, "calls": CALLS, "cap_tokens": CAP, "backends": {}}
    with tempfile.TemporaryDirectory(prefix="negawatt-bench-") as folder, redis_server() as redis:
        stores = {"memory": "memory:", "sqlite": f"sqlite:///{Path(folder)}/RUN.sqlite",
                  "redis": None if redis is None else f"{redis}&prefix=RUN:"}  # fmt: skip
        for name, store in stores.items():
            if store is None:
                found["backends"][name] = {"reason": "no redis-server and no valkey-server here"}
                continue
            samples = []
            for seed in range(runs):
                samples.append(asyncio.run(run(seed, store.replace("RUN", f"run-{seed}"))))
                say(f"budget: {name}: run {seed + 1}: {samples[-1]}")
            found["backends"][name] = _summary(samples)
    measured = [one for one in found["backends"].values() if "reason" not in one]
    found["max_excess_estimates"] = max(one["max_excess_estimates"] for one in measured)
    return found


def _summary(samples: list[Json]) -> Json:
    excess = [one["excess_estimates"] for one in samples]
    over = sum(value > 0 for value in excess)
    return {
        "runs": len(samples), "max_excess_estimates": max(excess), "runs_over_cap": over,
        "spent_of_cap": _spread([one["spent"] / CAP for one in samples]),
        "billed_of_cap": _spread([one["billed"] / CAP for one in samples]),
        "books_over_bill": _spread([one["spent"] / one["billed"] for one in samples]),
        "attempts_below_estimate_share": statistics.mean([one["below"] for one in samples]),
        "estimate_tokens": statistics.mean([one["estimate_tokens"] for one in samples]),
        "answered": statistics.mean([one["answered"] for one in samples]),
        "refused": statistics.mean([one["refused"] for one in samples]),
        "cancelled": statistics.mean([one["cancelled"] for one in samples]),
        "still_reserved": max(one["reserved_after"] for one in samples),
        "seconds": statistics.median([one["seconds"] for one in samples]),
    }  # fmt: skip


def _spread(values: list[float]) -> Json:
    return {"low": min(values), "median": statistics.median(values), "high": max(values)}
