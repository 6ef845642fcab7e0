"""What monitors read, put together: what the rows of calls say, what was counted, what is so at this moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.levers.meter import Meter
from negawatt.telemetry.counts import Sample, Telemetry
from negawatt.telemetry.exposition import rendered
from negawatt.telemetry.observed import Observed
from negawatt.telemetry.old_names import named
from negawatt.telemetry.series import Family, families


def names_of(config: Config) -> Iterator[str]:
    """Yield the names of models that *config* knows, as callers and as providers have them."""
    for model in config.models:
        yield model.name
        yield model.upstream or model.name
    for name, policy in config.policies.items():
        yield name
        yield from (one.model for one in policy.candidates)
    if config.policies:
        yield "auto"


class Monitor:
    """The metrics of one gateway. *zone*: of the electricity grid."""

    def __init__(self, config: Config, telemetry: Telemetry, clock: Clock, *, zone: str) -> None:
        settings = config.telemetry
        self._naming = settings.names
        self._telemetry = telemetry
        self.observed = None
        if settings.metrics:
            self.observed = Observed(
                clock, configured=names_of(config), zone=zone, most_models=settings.most_models, idle_s=settings.idle_s
            )

    def watch(self, meter: Meter, *, in_flight: Callable[[], int], lost: Callable[[], int]) -> None:
        """Be told of each row that *meter* writes, and ask how much is in flight and how many rows were lost."""
        if self.observed is not None:
            meter.observers.append(self.observed.observe)
        self._telemetry.sources.append(
            lambda: [
                Sample("negawatt_inflight_requests", (), in_flight()),
                Sample("negawatt_ledger_rows_lost_total", (), lost()),
            ]
        )

    def families(self, more: Iterable[Sample] = ()) -> list[Family]:
        """Return all metrics as they are now. *more*: what is so at this moment."""
        found = [] if self.observed is None else [one.family() for one in self.observed.metrics() if len(one)]
        found = named(found, self._naming)
        series = sum(len(family.points) for family in found)
        now = [*self._telemetry.sampled(), *more, Sample("negawatt_series", (), series)]
        return sorted([*found, *families(now)], key=lambda family: family.name)

    async def text(self, more: Iterable[Sample] = (), *, openmetrics: bool = False) -> bytes:
        """Return them as text. Calls come between the metrics: with all labels in use, there are many lines."""
        parts = []
        for family in self.families(more):
            parts.append(rendered(family, openmetrics=openmetrics))
            await asyncio.sleep(0)
        return ("".join(parts) + ("# EOF\n" if openmetrics else "")).encode()
