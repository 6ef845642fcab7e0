"""Metrics as text: Prometheus' format 0.0.4, and OpenMetrics 1.0 for those who ask for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from negawatt.telemetry.counts import Labels, Sample
from negawatt.telemetry.instruments import DESCRIBED
from negawatt.telemetry.series import Family, Histogram, families

_AT_ONCE = 100  # series, of some twenty lines at most
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def wants_openmetrics(accept: str) -> bool:
    """True when the header *accept* names OpenMetrics at least as willingly as plain text."""
    asked = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind in asked:
            asked[kind] = max(asked[kind], _quality(parameters))
    return asked["application/openmetrics-text"] > 0 and asked["application/openmetrics-text"] >= asked["text/plain"]


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def rendered(family: Family, *, openmetrics: bool = False) -> Iterator[str]:
    """Yield *family* as lines of text, some hundred at a time.

    OpenMetrics names a counter without ``_total``.
    """
    name, kind = family.name, family.kind
    if openmetrics:
        name = name.removesuffix("_total") if kind == "counter" else name
        kind = "unknown" if kind == "untyped" else kind
    text = _escaped_help(family.text) if not openmetrics else _escaped(family.text)
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for number, (labels, value) in enumerate(family.points):
        if number % _AT_ONCE == _AT_ONCE - 1:
            yield "\n".join(lines) + "\n"
            lines = []
        said = _said(labels)
        if isinstance(value, Histogram):
            _histogram(lines, family.name, said, value)
        else:
            lines.append(f"{family.name}{{{said}}} {_number(value)}" if said else f"{family.name} {_number(value)}")
    yield "\n".join(lines) + "\n"


def exposition(
    samples: Iterable[Sample], described: Mapping[str, tuple[str, str]] = DESCRIBED, *, openmetrics: bool = False
) -> bytes:
    """Return *samples* as text. *described*: type and help text of each name; what it lacks is untyped."""
    return written(families(samples, described), openmetrics=openmetrics)


def written(found: Iterable[Family], *, openmetrics: bool = False) -> bytes:
    """Return all of *found* as one text."""
    text = "".join(piece for family in found for piece in rendered(family, openmetrics=openmetrics))
    return (text + "# EOF\n" if openmetrics else text).encode()


def _histogram(lines: list[str], name: str, said: str, value: Histogram) -> None:
    begin = f"{name}_bucket{{{said},le=" if said else f"{name}_bucket{{le="
    seen = 0
    for bound, count in zip(value.bounds, value.counts, strict=False):
        seen += count
        lines.append(f'{begin}"{bound!r}"}} {seen}')
    seen += value.counts[-1]
    lines.append(f'{begin}"+Inf"}} {seen}')
    labels = f"{{{said}}}" if said else ""
    lines.append(f"{name}_sum{labels} {_number(value.sum)}")
    lines.append(f"{name}_count{labels} {seen}")


def _said(labels: Labels) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in labels])


def _number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


def _escaped_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
