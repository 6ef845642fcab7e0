"""The configuration of what monitors are told: metrics, and traces."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from negawatt.config_types import Count, Name, Positive, Section, Share


class Otel(Section, frozen=True):
    """OpenTelemetry, sent to a collector by OTLP over HTTP. Nothing is sent without an endpoint."""

    endpoint: str | None = None
    headers_env: dict[str, Name] = {}  # header to the name of the variable that holds it
    service_name: Name = "negawatt"
    traces: bool = True
    metrics: bool = True
    share: Share = 1.0  # of calls that are traced, where the caller has not decided
    propagate: bool = True  # providers get the ids of the trace, and nothing else of it
    capture_content: bool = False  # spans have what was asked and answered
    interval_s: Positive = 15.0  # between two exports of metrics
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0  # of one export


class Telemetry(Section, frozen=True):
    metrics: bool = True
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] | None = None  # where /metrics is, in place of the server's
    names: Literal["new", "old", "both"] = "new"  # of the GenAI conventions
    most_models: Count = 200  # names of models that are labels
    idle_s: Positive = 86_400.0  # then a series is forgotten
    otel: Otel = Otel()
