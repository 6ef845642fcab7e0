"""The configuration of what is watched: targets by class, and where alerts go."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from negawatt.config_types import Budget, Count, Name, NotNegative, Positive, Section

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
SinkKind = Literal["webhook", "slack", "alertmanager", "email", "log"]
Ratio = Annotated[float, Meta(ge=1)]


class Slo(Section, frozen=True):
    """What is promised of a class; of a class, only what differs. None: nothing is, and nothing is watched."""

    latency_p95_ms: Positive | None = None  # until the end of the answer; at most 5 % may take longer
    ttft_p95_ms: Positive | None = None  # until the first chunk of a stream; at most 5 % may take longer
    error_rate: Budget | None = None  # share of calls that fail by no fault of their caller
    cost_per_success_usd: Positive | None = None
    cache_error: Budget | None = None  # of the semantic cache, where it is not its own budget
    output_inflation: Ratio | None = None  # times the usual length of answers
    window_days: Positive | None = None  # over which the promises hold; default 28
    least_bad: Count | None = None  # bad calls before a burn rate may alert; default 5


class Sink(Section, frozen=True):
    """Where alerts go."""

    kind: SinkKind
    name: Name | None = None  # default: the kind, and its place where there are several
    url: str | None = None
    url_env: Name | None = None  # name of the variable that holds the URL, where the URL itself is a secret
    secret_env: Name | None = None  # of a webhook: signs what is sent
    token_env: Name | None = None  # sent as a bearer token
    to: tuple[str, ...] = ()  # of mail
    from_: str | None = msgspec.field(default=None, name="from")
    smtp: str | None = None  # smtp://HOST:25, smtp+starttls://HOST:587, smtps://HOST:465
    user: str | None = None  # at the mail server
    password_env: Name | None = None
    min_severity: Severity = "info"
    classes: tuple[str, ...] | None = None  # only alerts of these, and those of no class; None: all
    timeout_s: Positive = 10.0


class Alerts(Section, frozen=True):
    every_s: Positive = 15.0  # between two looks
    pending_s: NotNegative = 30.0  # that something must be so before it fires
    clear_s: NotNegative = 60.0  # that it must be over before it is resolved
    repeat_h: Positive = 4.0  # a firing alert is sent again
    events_h: Positive = 24.0  # an event that has no end of its own is resolved so long after it was last seen
    budget_forecast: Positive | None = 1.0  # of a budget's limit, from which the forecast of its spend alerts
    anomalies: bool = True  # unpriced models, hits that drop, prompts that grow, spend that runs away
    url: str | None = None  # of the dashboard, for the links in alerts
    sinks: tuple[Sink, ...] = ()
