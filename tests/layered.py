"""Layers in a world of their own: virtual time, a store that does as it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from worlds import EPOCH

from negawatt.caller import Scope
from negawatt.config import parse_config
from negawatt.errors import StoreError
from negawatt.layers.cache import Layers
from negawatt.layers.values import Asked
from negawatt.pipeline import Background
from negawatt.proof.virtual import VirtualClock
from negawatt.stores.memory import MemoryStore
from negawatt.telemetry import Telemetry


class Failing(MemoryStore):
    """A store that fails while *down*, and counts what it is asked for."""

    down = False
    reads = 0
    claims = 0

    async def get(self, key: str) -> bytes | None:
        self.reads += 1
        self._fail()
        return await super().get(key)

    async def put(self, key: str, value: bytes, **more: Any) -> None:
        self._fail()
        await super().put(key, value, **more)

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        self.claims += 1
        self._fail()
        return await super().claim(key, ttl_s=ttl_s)

    async def release(self, key: str, token: str) -> None:
        self._fail()
        await super().release(key, token)

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        self._fail()
        return await super().delete_tagged(tags, dry_run=dry_run)

    def _fail(self) -> None:
        if self.down:
            raise StoreError("it is down")


class Desk:
    """Layers over a store; several desks over one store are replicas."""

    def __init__(self, store: Failing | None = None, **layers: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.clock = VirtualClock(loop, EPOCH)  # type: ignore[arg-type]
        self.store = store or Failing(self.clock)
        self.background = Background()
        self.telemetry = Telemetry()
        self.layers = Layers(
            parse_config({"cache": {"layers": layers}}).cache, store=self.store, clock=self.clock,
            background=self.background, telemetry=self.telemetry,
        )  # fmt: skip

    def counts(self, layer: str = "tools") -> dict[str, int]:
        found = {}
        for sample in self.telemetry.samples():
            labels = dict(sample.labels)
            if labels["layer"] == layer:
                found[labels["action"]] = int(sample.value)
        return found


class Maker:
    """Makes values, slowly; *script* holds what comes of the next ones."""

    def __init__(self, seconds: float = 1.0, script: list[bytes | BaseException] | None = None) -> None:
        self.seconds = seconds
        self.script = script or []
        self.made = 0
        self.cancelled = 0

    async def __call__(self) -> bytes:
        self.made += 1
        number = self.made
        step = self.script.pop(0) if self.script else b"made %d" % number
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(step, BaseException):
            raise step
        return step


def asked(what: Any = "q", layer: str = "tools", scope: Scope | None = None, **more: Any) -> Asked:
    material = orjson.dumps(what, option=orjson.OPT_SORT_KEYS)
    return Asked(layer=layer, scope=scope or Scope(), material=material, **more)
