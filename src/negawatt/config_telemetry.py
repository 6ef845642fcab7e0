"""The configuration of what monitors are told: metrics, and traces."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from negawatt.config_types import Count, Name, Positive, Section, Share

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)


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

    def problem(self) -> tuple[str, str] | None:
        """Return (field, what is wrong with it); None where nothing is."""
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            return "endpoint", "expected a URL that begins with http:// or https://"
        bad = next((name for name in self.headers_env if not _HEADER.fullmatch(name)), None)
        return None if bad is None else (f"headers_env.{bad[:50]}", "expected the name of a header")


class Telemetry(Section, frozen=True):
    metrics: bool = True
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] | None = None  # where /metrics is, in place of the server's
    names: Literal["new", "old", "both"] = "new"  # of the GenAI conventions
    most_models: Count = 200  # names of models that are labels
    idle_s: Positive = 86_400.0  # then a series is forgotten
    otel: Otel = Otel()
