"""Sending traces and metrics to a collector, by OTLP over HTTP, in a thread of its own.

Loaded only where an endpoint is configured; needs ``negawatt[otel]``. Whatever becomes of the collector, no call waits
for it: what it does not take is dropped and counted, and it is left alone for longer and longer, a minute at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import export as points
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from negawatt import __version__
from negawatt.config_telemetry import Otel
from negawatt.telemetry.names import attribute_of
from negawatt.telemetry.series import Family, Histogram
from negawatt.telemetry.spans import Span, Spans
from negawatt.telemetry.tracing import Tracer

log = logging.getLogger(__name__)
_BATCH = 512  # calls
_EVERY_S = 1.0
_LONGEST_PAUSE_S = 60.0
_SCOPE = "negawatt"


class Exporter:
    """Takes calls from *tracer* and metrics from `tell`, and sends them on until it is closed."""

    def __init__(self, settings: Otel, headers: Mapping[str, str], *, tracer: Tracer | None, spans: Spans) -> None:
        base = (settings.endpoint or "").rstrip("/")
        usual: dict[str, Any] = {"headers": dict(headers), "timeout": settings.timeout_s}
        resource = Resource.create({"service.name": settings.service_name, "service.version": __version__})
        self._tracer = tracer
        self._spans = spans
        self._maker = Maker(resource)
        self._span_exporter = OTLPSpanExporter(endpoint=f"{base}/v1/traces", **usual)
        self._metric_exporter = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", **usual)
        self._resource = resource
        self._began_ns = time.time_ns()
        self._families: list[Family] | None = None
        self._timeout_s = settings.timeout_s
        self._closing = threading.Event()
        self._pause_s = _EVERY_S
        self.dropped = {"spans": 0, "metrics": 0}
        self._thread = threading.Thread(target=self._run, name="negawatt-otel", daemon=True)
        self._thread.start()

    def tell(self, families: list[Family]) -> None:
        """Send *families*, which nobody changes any more; those of an earlier time that still wait are dropped."""
        self._families = families

    def close(self) -> None:
        """Send what waits, if that takes no longer than one export of each may; then end."""
        self._closing.set()
        self._thread.join(2 * self._timeout_s + _EVERY_S)
        self._span_exporter.shutdown()  # type: ignore[no-untyped-call]
        self._metric_exporter.shutdown()

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.wait(self._pause_s):
            self._send()
        self._send()

    def _send(self) -> None:
        try:
            well = self._send_spans() and self._send_metrics()
        except Exception:
            log.exception("telemetry could not be sent")
            well = False
        self._pause_s = _EVERY_S if well else min(_LONGEST_PAUSE_S, self._pause_s * 2)

    def _send_spans(self) -> bool:
        """Send what waits; return whether all of it was taken. After a failure the rest waits for the next time."""
        waiting = None if self._tracer is None else self._tracer.waiting
        while waiting:
            calls = [waiting.popleft() for _ in range(min(len(waiting), _BATCH))]
            made = [span for seen in calls for span in self._spans.of(seen)]
            if self._span_exporter.export(self._maker.readable(made)) is not SpanExportResult.SUCCESS:
                self.dropped["spans"] += len(made)
                return False
        return True

    def _send_metrics(self) -> bool:
        families, self._families = self._families, None
        if families is None:
            return True
        data = metrics_data(families, self._resource, self._began_ns, time.time_ns())
        if self._metric_exporter.export(data) is points.MetricExportResult.SUCCESS:
            return True
        self.dropped["metrics"] += 1
        return False


class _Ids(IdGenerator):
    """Gives the span that is begun next the ids that it has already."""

    span_id = trace_id = 0

    def generate_span_id(self) -> int:
        return self.span_id

    def generate_trace_id(self) -> int:
        return self.trace_id


class _Kept(SpanProcessor):
    """Holds the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Maker:
    """Makes OpenTelemetry's spans of ours."""

    def __init__(self, resource: Resource) -> None:
        self._ids, self._kept = _Ids(), _Kept()
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )  # fmt: skip
        provider.add_span_processor(self._kept)
        self._tracer = provider.get_tracer(_SCOPE, __version__)

    def readable(self, spans: list[Span]) -> list[ReadableSpan]:
        for span in spans:
            self._make(span)
        found, self._kept.spans = self._kept.spans, []
        return found

    def _make(self, one: Span) -> None:
        self._ids.trace_id, self._ids.span_id = one.trace_id, one.span_id
        context = Context()  # not whatever may be current in this thread
        if one.parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            parent = trace.SpanContext(one.trace_id, one.parent, is_remote=not one.client, trace_flags=flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        made = self._tracer.start_span(
            one.name, context=context,
            kind=trace.SpanKind.CLIENT if one.client else trace.SpanKind.INTERNAL,
            attributes=one.attributes, start_time=one.began_ns,
        )  # fmt: skip
        for name, attributes in one.events:
            made.add_event(name, attributes, timestamp=one.ended_ns)
        if one.failed is not None:
            made.set_status(trace.Status(trace.StatusCode.ERROR, one.failed))
        made.end(end_time=one.ended_ns)


# -- metrics ---------------------------------------------------------------------------------------------------


def metrics_data(families: list[Family], resource: Resource, began_ns: int, now_ns: int) -> points.MetricsData:
    """Return *families* as OpenTelemetry has them: sums since *began_ns*, and gauges."""
    metrics = [_metric(family, began_ns, now_ns) for family in families]
    scope = points.ScopeMetrics(InstrumentationScope(_SCOPE, __version__), metrics, "")
    return points.MetricsData([points.ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, began_ns: int, now_ns: int) -> points.Metric:
    cumulative = points.AggregationTemporality.CUMULATIVE
    data: Any
    if family.kind == "histogram":
        data = points.Histogram(
            [
                points.HistogramDataPoint(
                    attributes=_attributes(labels), start_time_unix_nano=began_ns, time_unix_nano=now_ns,
                    count=sum(value.counts), sum=value.sum, bucket_counts=value.counts, explicit_bounds=value.bounds,
                    min=None, max=None,  # type: ignore[arg-type]  # not known, and optional in the protocol
                )
                for labels, value in family.points if isinstance(value, Histogram)
            ],
            cumulative,
        )  # fmt: skip
    else:
        numbers = [
            points.NumberDataPoint(_attributes(labels), began_ns, now_ns, value)
            for labels, value in family.points
            if not isinstance(value, Histogram)
        ]
        data = points.Sum(numbers, cumulative, True) if family.kind == "counter" else points.Gauge(numbers)
    return points.Metric(family.otel, family.text, family.unit, data)


def _attributes(labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return *labels* by their OpenTelemetry names; an empty one is one that is not there."""
    return {attribute_of(name): value for name, value in labels if value}
