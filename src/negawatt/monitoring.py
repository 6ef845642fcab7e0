"""What monitors read, put together: what the rows of calls say, what was counted, what is so at this moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from negawatt.call import Call
from negawatt.clock import Clock, SystemClock
from negawatt.config import Config
from negawatt.errors import ConfigError
from negawatt.levers.meter import Meter
from negawatt.providers.rows import ROWS
from negawatt.telemetry.counts import Sample, Telemetry
from negawatt.telemetry.exposition import rendered
from negawatt.telemetry.observed import Observed
from negawatt.telemetry.old_names import named
from negawatt.telemetry.series import Family, families
from negawatt.telemetry.spans import Spans
from negawatt.telemetry.tracing import Tracer, withheld

if TYPE_CHECKING:
    from negawatt.telemetry.otel import Exporter


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


def _exporter(config: Config, environ: Mapping[str, str], tracer: Tracer | None) -> Exporter:
    settings = config.telemetry.otel
    headers = {}
    for name, variable in settings.headers_env.items():
        if not environ.get(variable):
            where = f"telemetry.otel.headers_env.{name}"
            raise ConfigError(f"{where}: the variable {variable} is not set", param=where)
        headers[name] = environ[variable]
    try:
        from negawatt.telemetry.otel import Exporter
    except ImportError as error:
        message = "telemetry.otel.endpoint: OpenTelemetry is not installed: pip install 'negawatt[otel]'"
        raise ConfigError(message, param="telemetry.otel.endpoint") from error
    spans = Spans(naming=config.telemetry.names, addresses=dict(_addresses(config)))
    return Exporter(settings, headers, tracer=tracer, spans=spans)


def _addresses(config: Config) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield the host and port of each provider that has one."""
    for provider in config.providers:
        row = ROWS.get(provider.kind or provider.name)
        url = urlsplit(provider.base_url or (None if row is None else row.base_url) or "")
        if url.hostname:
            yield provider.name, (url.hostname, url.port or (443 if url.scheme == "https" else 80))


class Monitor:
    """The metrics of one gateway. *zone*: of the electricity grid."""

    def __init__(self, config: Config, telemetry: Telemetry, clock: Clock, *, zone: str) -> None:
        settings = config.telemetry
        self._config = config
        self._naming = settings.names
        self._telemetry = telemetry
        otel = settings.otel
        # In a replay, time is not that of a collector.
        self._exports = otel.endpoint is not None and isinstance(clock, SystemClock)
        self.tracer = Tracer(otel) if self._exports and otel.traces else None
        self.observed = None
        if settings.metrics:
            self.observed = Observed(
                clock, configured=names_of(config), zone=zone, most_models=settings.most_models, idle_s=settings.idle_s
            )

    def watch(self, meter: Meter, *, in_flight: Callable[[], int], lost: Callable[[], int]) -> None:
        """Be told of each row that *meter* writes, and ask how much is in flight and how many rows were lost."""
        if self.observed is not None:
            meter.observers.append(self.observed.observe)
        if self.tracer is not None:
            meter.traced = self.tracer.observe
        self._telemetry.sources.append(
            lambda: [
                Sample("negawatt_inflight_requests", (), in_flight()),
                Sample("negawatt_ledger_rows_lost_total", (), lost()),
            ]
        )

    @property
    def onward(self) -> Callable[[Call, int], Call] | None:
        """What providers are told of a call's trace; None: what the caller says."""
        if self.tracer is not None:
            return self.tracer.onward
        return None if self._config.telemetry.otel.propagate else withheld

    @asynccontextmanager
    async def exporting(self, environ: Mapping[str, str]) -> AsyncIterator[None]:
        """Send traces and metrics to the collector meanwhile, where there is one. Raises `ConfigError`."""
        if not self._exports:
            yield
            return
        settings = self._config.telemetry.otel
        exporter = _exporter(self._config, environ, self.tracer)
        self._telemetry.sources.append(lambda: [
            Sample("negawatt_telemetry_dropped_total", (("what", what),), dropped)
            for what, dropped in (
                ("spans", exporter.dropped["spans"]), ("metrics", exporter.dropped["metrics"]),
                ("calls", 0 if self.tracer is None else self.tracer.dropped),
            )
        ])  # fmt: skip
        telling = asyncio.ensure_future(self._tell(exporter, settings.interval_s)) if settings.metrics else None
        try:
            yield
        finally:
            if telling is not None:
                telling.cancel()
                exporter.tell([family.copy() for family in self.families()])
            await asyncio.to_thread(exporter.close)

    async def _tell(self, exporter: Exporter, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            exporter.tell([family.copy() for family in self.families()])

    def families(self, more: Iterable[Sample] = ()) -> list[Family]:
        """Return all metrics as they are now. *more*: what is so at this moment."""
        found = [] if self.observed is None else [one.family() for one in self.observed.metrics() if len(one)]
        series = sum(len(family.points) for family in found)
        now = [*self._telemetry.sampled(), *more, Sample("negawatt_series", (), series)]
        return [*named(found, self._naming), *families(now)]

    async def text(self, more: Iterable[Sample] = (), *, openmetrics: bool = False) -> bytes:
        """Return them as text. Calls come between the pieces: with all labels in use, there are many lines."""
        parts = []
        for family in self.families(more):
            for piece in rendered(family, openmetrics=openmetrics):
                parts.append(piece)
                await asyncio.sleep(0)
        return ("".join(parts) + ("# EOF\n" if openmetrics else "")).encode()
