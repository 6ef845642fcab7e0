"""All that is remembered of the calls: the windows of the promises, and two weeks of days."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from negawatt.shape.lengths import Growth
from negawatt.watch.alert import Condition
from negawatt.watch.anomalies import Lengths, Past
from negawatt.watch.burn import Rings, Standing
from negawatt.watch.endings import Ended
from negawatt.watch.tally import Taken, Tallies
from negawatt.watch.targets import Targets

_LEAST_ANSWERS = 200  # before growth is looked for
_MOST_TEMPLATES = 200
PAST_S = 15 * 86_400.0
MOST_ROWS = 1_000_000  # that a start reads again
_BREATH_S = 0.002


class Grown(NamedTuple):
    """Answers of a class have become longer, as seen at the time *at*: means in tokens, before and lately."""

    request_class: str
    at: float
    before: float
    lately: float


class _Class:
    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self.rings = Rings(targets.window_s)
        self.past = Past()
        factor = targets.output_inflation
        self.growth = None if factor is None else Growth(factor, _LEAST_ANSWERS)


class Memory:
    """Fed by `Tallies`, live or from the ledger: the same code makes the same of both."""

    def __init__(self, targets: Mapping[str, Targets]) -> None:
        self._classes = {name: _Class(one) for name, one in targets.items()}
        self._templates: dict[str, Lengths] = {}

    @property
    def slot_s(self) -> float:
        """The length of the shortest slot of any window, in seconds."""
        return min(one.rings.slot_s for one in self._classes.values())

    def take(self, tallies: Tallies, at: float) -> list[Grown]:
        """Take in what *tallies* has counted, as of the time *at*; return whose answers have grown."""
        grown: list[Grown] = []
        for name, taken in tallies.take().items():
            grown += self._taken(name, taken, at)
        for name, inputs in tallies.take_templates().items():
            lengths = self._templates.get(name)
            if lengths is None and len(self._templates) < _MOST_TEMPLATES:
                lengths = self._templates[name] = Lengths()
            if lengths is not None:
                lengths.add(at, inputs)
        return grown

    def _taken(self, name: str, taken: Taken, at: float) -> Iterator[Grown]:
        one = self._classes[name]
        one.rings.add(at, taken.counts)
        one.past.add(at, taken.counts, taken.inputs)
        for tokens in taken.outputs if one.growth is not None else ():
            assert one.growth is not None
            means = one.growth.add(tokens)
            if means is not None:
                yield Grown(name, at, *means)

    def standings(self, name: str, now: float) -> list[Standing]:
        """Return how the promises of class *name* stand at the time *now*."""
        one = self._classes[name]
        return one.rings.standings(one.targets, now)

    def anomalies(self, name: str, now: float) -> Iterator[Condition]:
        """Yield what was looked at in class *name*."""
        return self._classes[name].past.conditions(name, now)

    def template_anomalies(self, now: float) -> Iterator[Condition]:
        """Yield what was looked at of each prompt template."""
        for name, lengths in self._templates.items():
            yield lengths.condition("template_growth", name, f"template {name}", now)


def remembered(
    chunks: Iterable[Iterable[Ended]], targets: Mapping[str, Targets], stopped: Callable[[], bool], *, breathe: bool
) -> tuple[Memory, list[Grown]]:
    """Return the memory of what *chunks* hold, oldest first, and whose answers grew in that time.

    *stopped* True: what has been read is enough. *breathe*: leave others time between two chunks.
    """
    memory, tallies = Memory(targets), Tallies(targets)
    slot_s, slot, at = memory.slot_s, -1, 0.0
    grown: list[Grown] = []
    for chunk in chunks:
        if stopped():
            break
        for ended in chunk:
            end = ended.received_at + ended.duration_s
            number = int(end // slot_s)
            if number != slot:
                grown += memory.take(tallies, at)
                slot, at = number, end
            tallies(ended)
        tallies.take_unpriced()
        if breathe:
            time.sleep(_BREATH_S)
    grown += memory.take(tallies, at)
    return memory, grown
