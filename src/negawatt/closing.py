"""The last chunk of a stream: the one with the usage waits until the call is booked, and tells what it came to."""

from __future__ import annotations

from typing import Any

from negawatt.call import Call, Trail
from negawatt.economics.accounts import Bill
from negawatt.levers.meter import cache_of
from negawatt.protocol import Spoken
from negawatt.reply import Burst, Chunk


class Closing:
    """Holds back the chunk that brings the final usage, and what follows it, until the stream is at its end.

    Chunks that are there only for the usage are dropped for callers who did not ask for it.
    """

    __slots__ = ("_held", "_wanted", "_wire")

    def __init__(self, wire: Spoken, *, usage_wanted: bool) -> None:
        self._wire = wire
        self._wanted = usage_wanted
        self._held: list[Chunk] = []

    def take(self, burst: Burst) -> list[Chunk]:
        """Return what of *burst*, and of what was held, can be sent now."""
        ready: list[Chunk] = []
        for chunk in burst:
            if b'"usage"' in chunk.raw:
                if not self._wanted and self._wire.usage_only(chunk.data):
                    continue
                if self._wire.closing(chunk.data):
                    ready += self._held  # it was not the last one after all
                    self._held = [chunk]
                    continue
            (self._held if self._held else ready).append(chunk)
        return ready

    def rest(self, call: Call) -> list[Chunk]:
        """Return what was held, the usage with what the call came to."""
        held, self._held = self._held, []
        if held:
            held[0] = Chunk(data=self._wire.annotated(held[0].data, note_of(call)))
        return held


def note_of(call: Call) -> dict[str, Any]:
    """Return what a stream's headers could not know yet, under the names that they have on whole answers.

    Amounts are numbers; None is not known.
    """
    trail = call.trail
    newest = trail.call or call
    bill = trail.bill
    return {
        "call_id": call.id,
        "class": newest.request_class,
        "cache": cache_of(trail),
        "model": _model(trail, newest),
        **_amounts(bill),
        "decisions": [
            {name: value for name, value in (("lever", d.lever), ("action", d.action), ("reason", d.reason)) if value}
            for d in trail.decisions
            if d.mode != "shadow"
        ],
    }


def _model(trail: Trail, call: Call) -> str | None:
    if trail.answerer is not None:
        return trail.answerer.target.model
    return call.targets[0].model if call.targets else None


def _amounts(bill: Bill | None) -> dict[str, Any]:
    cost, saved = (None, None) if bill is None else (bill.actual.cost_usd, bill.saved_usd)
    joules = None if bill is None else bill.actual.joules
    low, central, high = (None, None, None) if joules is None else joules.wh
    return {
        "cost_usd": None if cost is None else float(cost),
        "saved_usd": None if saved is None else float(saved),
        "energy_wh": None if central is None else {"low": low, "central": central, "high": high},
    }
