"""What a call was made of goes when the call does: nothing waits for the garbage collector, however the call ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from test_many_failures import KINDS, OTHERS, one_call, one_stream
from world import Gateway, Json, chat, in_thread, many_connections, until

CALLS = 20
GOVERNED: Json = {
    "levers": {"retry": {"attempts": 2, "backoff_s": 0.001, "breaker_failures": 1_000_000}},
    "budgets": [
        {"name": "all", "tokens": 10**12, "per": "day"},
        {"name": "each", "usd": 10**6, "per": "month", "each": "tenant", "unknown": "pass"},
    ],
    "slo": {"latency_p95_ms": 2000, "error_rate": 0.5},
    "classes": {
        "support": {
            "owner": "desk",
            "match": [{"models": "*"}],
            "success": {"answered": True, "no_retry_within_s": 1.0},
        }
    },
}

# Python runs this in the gateway's process at its start. A signal has it collect, and say how much it found.
SITE = """
import gc, os, signal
from pathlib import Path

def collect(*_):
    found = gc.collect()
    Path(os.environ["FOUND"] + ".new").write_text(str(found))
    os.replace(os.environ["FOUND"] + ".new", os.environ["FOUND"])

gc.disable()
signal.signal(signal.SIGUSR1, collect)
"""


@pytest.mark.parametrize("more", [{}, GOVERNED], ids=["plain", "governed"])
async def test_no_way_in_which_a_call_ends_leaves_objects_that_hold_each_other(
    start: Callable[..., Gateway], configured: Callable[..., Json], tmp_path: Path, task: str, more: Json
) -> None:
    site, note = tmp_path / "site", tmp_path / "found"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    config = configured(**more)
    config["providers"][0]["protocols"] = ["chat", "responses", "messages"]
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    gateway = start(config, PYTHONPATH=os.pathsep.join(paths), FOUND=str(note))

    def collected() -> int:
        note.unlink(missing_ok=True)
        gateway.signal(signal.SIGUSR1)
        until(note.exists)
        return int(note.read_text())

    found: dict[str, int] = {}
    async with many_connections() as session:
        for kind in KINDS:
            await one_call(session, gateway, kind, -1, f"{task}-before")  # what the first one needs
            await asyncio.sleep(0.1)
            await in_thread(collected)
            await asyncio.gather(*(one_call(session, gateway, kind, n, task) for n in range(CALLS)))
            await asyncio.sleep(0.1)  # for what follows an answer
            found[kind] = await in_thread(collected)
        for protocol, then in OTHERS:
            await asyncio.gather(*(one_stream(session, gateway, protocol, then, task) for _ in range(CALLS)))
            await asyncio.sleep(0.1)
            found[f"{protocol} {then}"] = await in_thread(collected)
    assert {name: count for name, count in found.items() if count >= CALLS} == {}, "objects after 20 calls of each"
    assert (await in_thread(lambda: gateway.post(chat()))).status == 200
