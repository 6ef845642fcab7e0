"""What happens, counted where it happens, and the alerts that are raised."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)
_MOST_ALERTS = 100
_MOST_SERIES = 2000  # labels come from the configuration; this bounds what slips through

Labels = tuple[tuple[str, str], ...]


class Alerted(NamedTuple):
    """One alert. *about*: the request class, store or model that it is about."""

    name: str
    about: str
    message: str


class Sample(NamedTuple):
    """One number of one metric."""

    name: str
    labels: Labels
    value: float


class Estimated(Protocol):
    """The share of wrong answers, with its interval."""

    @property
    def low(self) -> float: ...
    @property
    def central(self) -> float: ...
    @property
    def high(self) -> float: ...


def learned_samples(
    estimates: Mapping[tuple[str, str], tuple[float, Estimated | None, int]],
) -> list[Sample]:
    """Return the state of the semantic cache's rules: of each class and tier its budget, estimate and drifts."""
    found: list[Sample] = []
    for (request_class, tier), (budget, estimate, drifts) in estimates.items():
        labels = (("request_class", request_class), ("tier", tier))
        found.append(Sample("negawatt_semantic_budget", labels, budget))
        found.append(Sample("negawatt_semantic_drifts_total", labels, drifts))
        if estimate is not None:
            for bound in ("low", "central", "high"):
                value = float(getattr(estimate, bound))
                found.append(Sample("negawatt_semantic_wrong_share", (*labels, ("bound", bound)), value))
    return found


class Telemetry:
    """Counts what happens. Cheap enough for every call; nothing is computed before somebody asks."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self.alerts: deque[Alerted] = deque(maxlen=_MOST_ALERTS)
        self.sources: list[Callable[[], Iterable[Sample]]] = []  # asked whenever somebody reads the metrics
        self.on_alert: list[Callable[[str, str, str], None]] = []  # told of each: name, about, message; at once

    def count(self, name: str, **labels: str) -> None:
        """Add one to the counter *name* with these *labels*."""
        key = (name, tuple(labels.items()))
        if key in self._counts or len(self._counts) < _MOST_SERIES:
            self._counts[key] += 1

    def alert(self, name: str, about: str, message: str) -> None:
        """Raise an alert: into the log, the list of alerts, and the counter of alerts."""
        log.warning("alert %s (%s): %s", name, about, message)
        self.alerts.append(Alerted(name, about, message))
        self.count("negawatt_alerts_total", alert=name, about=about)
        for told in self.on_alert:
            told(name, about, message)

    def samples(self) -> list[Sample]:
        """Return what has been counted here."""
        return [Sample(name, labels, value) for (name, labels), value in sorted(self._counts.items())]

    def sampled(self) -> list[Sample]:
        """Return the same, and what the sources say."""
        found = self.samples()
        for source in self.sources:
            found += source()
        return found
