"""Time series in memory: numbers that only grow, and histograms, by the values of their labels.

Ours and not prometheus_client's: a call adds to some twenty series, and there each addition takes a lock and a look-up
by labels; here a call keeps hold of the series of its like, and an addition is an addition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from negawatt.telemetry.counts import Labels, Sample
from negawatt.telemetry.instruments import DESCRIBED, INSTRUMENTS
from negawatt.telemetry.names import Instrument

_MOST_SERIES = 5_000  # of one metric; beyond it all labels are OTHER, so that sums stay right
OTHER = "other"


class Number:
    """One series that only grows. *value* is in the unit of its metric times the metric's scale."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.value: float = 0


class Histogram:
    """One series of a histogram: how many values fell into each bucket, not those below it; and their sum."""

    __slots__ = ("bounds", "counts", "labels", "sum")

    def __init__(self, bounds: tuple[float, ...], labels: Labels = ()) -> None:
        self.labels = labels
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one: above all bounds
        self.sum = 0.0

    def add(self, values: Sequence[float]) -> None:
        counts, bounds = self.counts, self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum = sum(values, self.sum)

    def copy(self) -> Histogram:
        """Return what it has seen so far."""
        copy = Histogram(self.bounds)
        copy.counts, copy.sum = list(self.counts), self.sum
        return copy


class Family(NamedTuple):
    """One metric with all its series, as it is now.

    *name*: Prometheus' name, ``_total`` included; *otel* and *unit* as OpenTelemetry has them.
    """

    name: str
    kind: str
    text: str
    points: list[tuple[Labels, float | Histogram]]
    otel: str
    unit: str = ""

    def copy(self) -> Family:
        """Return the same, which nobody adds to any more."""
        points = [(labels, one.copy() if isinstance(one, Histogram) else one) for labels, one in self.points]
        return self._replace(points=points)


class Metric:
    """One metric: its series by the values of its labels. *scale*: how many of a series' units make one of its own."""

    def __init__(self, instrument: Instrument, *, scale: int = 1) -> None:
        self.instrument = instrument
        self._scale = scale
        self._numbers: dict[tuple[str, ...], Number] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}

    def __len__(self) -> int:
        return len(self._numbers) + len(self._histograms)

    def number(self, *values: str) -> Number:
        """Return the series whose labels have these *values*."""
        found = self._numbers.get(values)
        if found is None:
            values = self._bounded(values)
            found = self._numbers.setdefault(values, Number(self._labels(values)))
        return found

    def histogram(self, *values: str) -> Histogram:
        found = self._histograms.get(values)
        if found is None:
            values = self._bounded(values)
            found = self._histograms.setdefault(values, Histogram(self.instrument.buckets, self._labels(values)))
        return found

    def _bounded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return values if len(self) < _MOST_SERIES else (OTHER,) * len(values)

    def _labels(self, values: tuple[str, ...]) -> Labels:
        return tuple(zip(self.instrument.labels, values, strict=True))

    def keep(self, alive: set[int]) -> None:
        """Drop the series that are not *alive*, by their `id`."""
        self._numbers = {values: one for values, one in self._numbers.items() if id(one) in alive}
        self._histograms = {values: one for values, one in self._histograms.items() if id(one) in alive}

    def family(self) -> Family:
        one, scale = self.instrument, self._scale
        points: list[tuple[Labels, float | Histogram]] = [
            (number.labels, number.value / scale if scale != 1 else number.value) for number in self._numbers.values()
        ]
        points += [(histogram.labels, histogram) for histogram in self._histograms.values()]
        return Family(one.prometheus, one.kind, one.text, points, one.name, one.unit)


def families(samples: Iterable[Sample], described: Mapping[str, tuple[str, str]] = DESCRIBED) -> list[Family]:
    """Return *samples* by metric, each metric once and in order of its labels."""
    found: dict[str, Family] = {}
    for sample in sorted(samples, key=lambda one: (one.name, one.labels)):
        family = found.get(sample.name)
        if family is None:
            kind, text = described.get(sample.name, ("untyped", ""))
            known = INSTRUMENTS.get(sample.name)
            otel, unit = (sample.name, "") if known is None else (known.name, known.unit)
            family = found[sample.name] = Family(sample.name, kind, text, [], otel, unit)
        family.points.append((sample.labels, sample.value))
    return list(found.values())
