"""What is promised of each class, as the configuration says it: the class's own word, else that for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from negawatt.config import Config
from negawatt.config_watch import Slo

DAY_S = 86_400.0
_WINDOW_DAYS = 28.0
_LEAST_BAD = 5
_P95 = 0.05  # a promise of the 95th percentile: at most this share beyond the bound


class Objective(NamedTuple):
    """A promise about events, each good or bad: at most a share of *allowed* is bad.

    *events* and *bad* are the places of both counts (`negawatt.watch.tally`). *bound*: as configured, in *unit*.
    """

    name: str
    allowed: float
    bound: float
    unit: str
    events: int
    bad: int


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """What is promised of one class. Of what is None nothing is promised."""

    request_class: str
    owner: str | None
    objectives: tuple[Objective, ...]
    latency_s: float | None
    ttft_s: float | None
    cost_per_success_usd: float | None
    cache_error: float | None
    output_inflation: float | None
    window_s: float
    least_bad: int


# Places of the counts that a `Tally` keeps.
CALLS, ERRORS, TIMED, SLOW, BEGUN, LATE, HITS, CACHEABLE, SPENT, ASKED = range(10)
WIDTH = 10


def targets_of(config: Config) -> dict[str, Targets]:
    """Return the promises of every class that *config* names, and of class default, which is always there."""
    return {name: _targets(name, config) for name in ("default", *config.classes)}


def _targets(name: str, config: Config) -> Targets:
    policy = config.classes.get(name)
    slo = config.slo if policy is None else _over(config.slo, policy.slo)
    objectives = []
    if slo.latency_p95_ms is not None:
        objectives.append(Objective("latency_p95", _P95, slo.latency_p95_ms, "ms", TIMED, SLOW))
    if slo.ttft_p95_ms is not None:
        objectives.append(Objective("ttft_p95", _P95, slo.ttft_p95_ms, "ms", BEGUN, LATE))
    if slo.error_rate is not None:
        objectives.append(Objective("error_rate", slo.error_rate, slo.error_rate, "share", CALLS, ERRORS))
    return Targets(
        request_class=name,
        owner=None if policy is None else policy.owner,
        objectives=tuple(objectives),
        latency_s=_seconds(slo.latency_p95_ms),
        ttft_s=_seconds(slo.ttft_p95_ms),
        cost_per_success_usd=slo.cost_per_success_usd,
        cache_error=slo.cache_error,
        output_inflation=slo.output_inflation,
        window_s=(slo.window_days or _WINDOW_DAYS) * DAY_S,
        least_bad=slo.least_bad or _LEAST_BAD,
    )


def _over(usual: Slo, own: Slo) -> Slo:
    """Return *usual* with what *own* says in its place."""
    said = {name: value for name in Slo.__struct_fields__ if (value := getattr(own, name)) is not None}
    return msgspec.structs.replace(usual, **said)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def owners_of(targets: Mapping[str, Targets]) -> dict[str, str | None]:
    """Return who answers for each class."""
    return {name: one.owner for name, one in targets.items()}
