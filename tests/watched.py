"""What tests of the watch share: rows, a sink that remembers, and a gateway that is watched on a virtual clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from worlds import Fake, World, world

from negawatt.ledger.facts import Fact
from negawatt.watch.watcher import Watch
from negawatt.watching import open_watch

HOOK = "http://hook.test/secret-path"
SINK = {"kind": "webhook", "url": HOOK}


def fact(at: float = 0.0, **fields: Any) -> Fact:
    """Return a row of an answered call that ended at once."""
    plain: dict[str, Any] = {
        "received_at": at, "request_class": "default", "protocol": "chat", "stream": False, "ending": "answered",
        "status": 200, "error_type": None, "request_model": "m", "response_model": "m", "cache": "miss", "attempts": 1,
        "output_tokens": 20, "baseline_input_tokens": 100, "cost_pusd": 1_000_000, "duration_s": 0.5,
        "time_to_first_chunk_s": 0.1, "template": None, "decisions": "[]",
    }  # fmt: skip
    return Fact(**{**plain, **fields})


class Box:
    """A place that takes what is posted, or refuses it: *status*, or an error to raise."""

    def __init__(self) -> None:
        self.status: int | Exception = 200
        self.tries = 0
        self.posted: list[tuple[str, Any, Mapping[str, str]]] = []

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
        self.tries += 1
        if isinstance(self.status, Exception):
            raise self.status
        if self.status < 300:
            self.posted.append((url, json.loads(body), headers))
        return self.status, b""

    def heard(self, name: str | None = None) -> list[tuple[str, str]]:
        """The (status, about) of every alert that came, of one *name* or all."""
        return [
            (one["status"], one["about"])
            for _, body, _ in self.posted
            for one in body["alerts"]
            if name in (None, one["name"])
        ]


@asynccontextmanager
async def watched(
    box: Box, *, provider: Fake | None = None, successes: Any = None, budgets: Any = None,
    **tables: Any,
) -> AsyncIterator[tuple[World, Watch]]:  # fmt: skip
    """Open a world with a watch over it; alerts go to *box*."""
    alerts = {"sinks": [SINK], "every_s": 10.0, "pending_s": 10.0, "clear_s": 20.0, **tables.pop("alerts", {})}
    async with world(provider, alerts=alerts, **tables) as w:
        async with open_watch(
            w.gateway, post=box, successes=successes, budgets=budgets, environ={"HOOK_SECRET": "hush"}
        ) as watch:
            yield w, watch
