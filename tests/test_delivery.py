"""Delivery: whatever fails, and whenever the gateway starts anew, each sink hears of each end, and nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from watched import Box
from worlds import ManualClock

from negawatt.config import parse_config
from negawatt.watch.alert import Alert, Condition
from negawatt.watch.delivery import Delivery
from negawatt.watch.life import Life
from negawatt.watch.sinks import open_sinks

REPEAT_S = 3600.0
CONFIG = parse_config({
    "alerts": {
        "pending_s": 10.0, "clear_s": 20.0, "every_s": 5.0, "repeat_h": REPEAT_S / 3600,
        "sinks": [
            {"kind": "webhook", "url": "http://one.test"},
            {"kind": "webhook", "name": "urgent", "url": "http://two.test", "min_severity": "critical"},
        ],
    }
}).alerts  # fmt: skip
STEP = st.tuples(
    st.integers(5, 400),  # seconds until the next look
    st.sampled_from(["none", "warning", "critical", "unknown"]),
    st.booleans(),  # the sinks take what they are sent
    st.booleans(),  # the gateway starts anew
)


class Process:
    """A gateway's life and delivery, over what the one before has kept."""

    def __init__(self, clock: ManualClock, box: Box, kept: dict[str, bytes]) -> None:
        self.kept = kept
        alerts = [msgspec.json.decode(one, type=Alert) for one in kept.values()]
        self.delivery = Delivery(
            open_sinks(CONFIG, box, {}), CONFIG, clock, told=lambda one: self.life.told(one), keep=self.keep,
            rng=random.Random(1),
        )  # fmt: skip
        self.life = Life(CONFIG, {}, alerts, self.delivery.owe)

    async def keep(self) -> None:
        changed, dropped = self.life.take_changed()
        self.kept |= {one.id: msgspec.json.encode(one) for one in changed}
        for gone in dropped:
            self.kept.pop(gone, None)

    async def look(self, conditions: list[Condition], now: float) -> None:
        self.life.see(conditions, now)
        await self.keep()
        self.delivery.start([*self.life.open, *self.life.over])
        await self.delivery.settle()


def condition(state: str) -> Condition:
    active = None if state == "unknown" else state != "none"
    severity: Any = state if state in ("warning", "critical") else "warning"
    return Condition("error_rate", "faq", active, "so it is", severity, "faq")


async def lived(steps: list[tuple[int, str, bool, bool]]) -> tuple[Process, list[tuple[str, dict[str, Any], float]]]:
    """Go through *steps*, then mend everything and wait; return the last process, and (host, alert, time) as heard."""
    clock, box, heard = ManualClock(), Box(), []
    process = Process(clock, box, {})
    mended = [(1000, "none", True, False)] * 4
    for wait_s, state, works, anew in [*steps, *mended]:
        clock.now += wait_s
        if anew:
            process = Process(clock, box, process.kept)
        box.status, before = (200 if works else 503), len(box.posted)
        await process.look([condition(state)], clock.time())
        for url, body, _ in box.posted[before:]:
            heard += [(url, one, clock.time()) for one in body["alerts"]]
    return process, heard


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_nothing_is_lost_and_nothing_is_said_twice(steps: list[tuple[int, str, bool, bool]]):
    """What fired is told to its end; the same is said again only after the time for that, or when it got worse."""
    process, heard = asyncio.run(lived(steps))
    over = {one.id: one for one in process.life.over}
    assert not process.life.open
    for host, least in (("http://one.test", "warning"), ("http://two.test", "critical")):
        own = [(alert, at) for url, alert, at in heard if url == host]
        due = {one.id for one in over.values() if least == "warning" or one.severity == "critical"}
        assert {alert["id"] for alert, _ in own if alert["status"] == "resolved"} == due
        for id_ in due:
            said = [(alert["status"], alert["severity"], at) for alert, at in own if alert["id"] == id_]
            assert [status for status, _, _ in said].count("resolved") == 1 and said[-1][0] == "resolved"
            for (_, severity, at), (status, worse, later) in itertools.pairwise(said):
                assert status == "resolved" or later - at >= REPEAT_S or (severity, worse) == ("warning", "critical")
    assert set(process.kept) == set(over)


async def test_a_sink_that_hangs_does_not_hold_up_the_others():
    """One message to a sink is under way at most, and the other hears meanwhile; closing waits for none of it."""
    box, forever = Box(), asyncio.Event()
    clock = ManualClock()

    async def post(url: str, body: bytes, headers: Any, timeout_s: float) -> tuple[int, bytes]:
        if "one" in url:
            box.tries += 100
            await forever.wait()
        return await box(url, body, headers, timeout_s)

    process = Process(clock, post, {})  # type: ignore[arg-type]
    for _ in range(5):
        clock.now += 30
        process.life.see([condition("critical")], clock.time())
        process.delivery.start(process.life.open)
        await asyncio.sleep(0.01)
    assert box.tries == 101 and [url for url, _, _ in box.posted] == ["http://two.test"]
    await process.delivery.close()
    assert process.delivery.undelivered(process.life.open) == {"webhook": 1, "urgent": 0}
