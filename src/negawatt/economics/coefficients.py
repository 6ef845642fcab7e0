"""The formulas of the energy estimator and the table of their coefficients (``data/energy.toml``).

Everything here is at the accelerators, in joules per token, before the boundary factor K. docs/energy.md says where
each formula comes from and how far to trust it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from negawatt.economics.tables import matches

Triple = tuple[float, float, float]  # low, central, high
_SIZE = re.compile(r"(?:^|-)(?P<total>\d+(?:\.\d+)?)b(?:-a(?P<active>\d+(?:\.\d+)?)b)?(?=$|[-.])")


class Fit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``ln e_out`` as a linear function of the logarithms of size and batch."""

    intercept: float
    active: float
    weights: float
    batch: float
    b200: float
    long_reasoning: float
    low_factor: float
    high_factor: float
    fitted_active_b: tuple[float, float]
    outside_factor: float
    most_batch: int

    def output_joules(self, size: Size, batch: float, b200: float = 0.0) -> float:
        """Return J per output token of *size* at *batch*; *b200* is 1 on B200, 0 on H100, or the chance of it."""
        return math.exp(
            self.intercept
            + self.active * math.log(size.active_b)
            + self.weights * math.log(size.total_b * size.bytes)
            + self.batch * math.log(batch)
            + self.b200 * b200
            + self.long_reasoning * size.long_reasoning
        )

    def widening(self, size: Size) -> float:
        """Return the factor by which the range grows because *size* lies outside what was fitted."""
        least, most = self.fitted_active_b
        return 1.0 if least <= size.active_b <= most else self.outside_factor


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """What the energy of an open-weights model depends on. Billions of parameters; bytes per parameter."""

    active_b: float
    total_b: float
    bytes: float
    precision: str | None = None
    long_reasoning: bool = False
    source: str = "name"  # table, card or name


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model on one kind of GPU, as measured: J per output token at some batch sizes."""

    gpu: str
    points: tuple[tuple[float, float], ...]
    fit64: float
    itl50: float | None = None

    def output_joules(self, batch: float) -> float:
        """Interpolate in ln B; constant beyond the most efficient batch, extended below the smallest one."""
        points = self.points
        if batch >= points[-1][0]:
            return points[-1][1]
        i = next((i for i in range(1, len(points)) if batch < points[i][0]), len(points) - 1)
        (b0, e0), (b1, e1) = points[i - 1], points[i]
        share = math.log(batch / b0) / math.log(b1 / b0)
        return float(e0 * (e1 / e0) ** share)


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the table."""

    name: str
    models: tuple[str, ...]
    active_b: float
    total_b: float
    precision: str
    task: str
    rows: tuple[Row, ...]


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size of a model whose name does not state it."""

    models: tuple[str, ...]
    active_b: float
    total_b: float
    precision: str | None = None


class ClassPrior(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of a class of closed models, at the facility."""

    name: str
    e_out: Triple
    e_in: Triple
    below_usd_per_mtok: float


class Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of closed models of one class."""

    class_: str = msgspec.field(name="class")
    models: tuple[str, ...]


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    bytes: float
    hints: tuple[str, ...]


class Unknown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch: Triple
    b200_share: float
    bytes_per_parameter: float


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    factor: float
    below_batch: float
    below_factor: float


class Prefill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    peak_flops: float
    gpu_w: float
    mfu: Triple
    fp8_factor: float
    cache_read: Triple
    long_above_tokens: int
    long_scale_tokens: float

    def input_joules(self, active_b: float, mfu: float, precision: str | None = None) -> float:
        """Return J per uncached input token."""
        joules = 2 * active_b * 1e9 / (self.peak_flops * mfu) * self.gpu_w
        return joules * self.fp8_factor if precision == "fp8" else joules


class Boundaries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accelerator: Triple
    server: Triple
    facility: Triple
    own_facility: Triple
    own_providers: tuple[str, ...]


class Desk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    providers: tuple[str, ...]
    active_b: float
    joules_per_output_token: Triple
    input_share: float


class Ceiling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    usd_per_kwh: float
    flag_above: float


class Own(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    watts_per_busy_core: Triple


class Anchor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published figure for a whole prompt, to check the estimate with."""

    what: str
    class_: str = msgspec.field(name="class")
    input_tokens: int
    output_tokens: int
    wh: tuple[float, ...]


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    long_reasoning: tuple[str, ...]


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prefill: tuple[tuple[float, float], ...]


class Coefficients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data/energy.toml``."""

    version: str
    sources: dict[str, str]
    fit: Fit
    unknown: Unknown
    table: Table
    prefill: Prefill
    boundary: Boundaries
    desk: Desk
    ceiling: Ceiling
    own: Own
    names: Names
    checks: Checks
    classes: tuple[ClassPrior, ...] = msgspec.field(name="class")
    closed: tuple[Closed, ...]
    models: tuple[Measured, ...] = msgspec.field(name="model")
    cards: tuple[Card, ...] = msgspec.field(name="card")
    precisions: tuple[Precision, ...] = msgspec.field(name="precision")
    anchors: tuple[Anchor, ...] = msgspec.field(name="anchor")

    def measured(self, name: str) -> tuple[Measured, ...]:
        """Return the table's entries for the model called *name*; of several precisions, those the name states."""
        found = [model for model in self.models if matches(name, model.models)]
        stated = self._stated_precision(name)
        if stated is not None:
            # Measured at another precision than this one: no table entry is it.
            found = [model for model in found if model.precision == stated.name]
        return tuple(found)

    def size(self, name: str) -> Size | None:
        """Return the size of the model called *name*, from the table, a model card, or its own name."""
        for model in self.models:
            if matches(name, model.models):
                return self._sized(name, model.active_b, model.total_b, model.precision, "table")
        for card in self.cards:
            if matches(name, card.models):
                return self._sized(name, card.active_b, card.total_b, card.precision, "card")
        return None

    def size_in_name(self, name: str) -> Size | None:
        """Return the size that *name* itself states, such as ``-7b`` or ``-30b-a3b``."""
        stated = _SIZE.search(name)
        if stated is None or not float(stated["total"]):
            return None
        total = float(stated["total"])
        active = float(stated["active"] or total) or total
        return self._sized(name, min(active, total), total, None, "name")

    def class_of(self, name: str, output_usd_per_mtok: float | None) -> tuple[ClassPrior, str] | None:
        """Return the class of a closed model and where it comes from: ``map``, or ``price``."""
        for closed in self.closed:
            if matches(name, closed.models):
                return self.prior(closed.class_), "map"
        if output_usd_per_mtok is None or output_usd_per_mtok <= 0:
            return None
        return next(prior for prior in self.classes if output_usd_per_mtok < prior.below_usd_per_mtok), "price"

    def prior(self, name: str) -> ClassPrior:
        return next(prior for prior in self.classes if prior.name == name)

    def bytes_of(self, precision: str | None) -> float:
        known = (p.bytes for p in self.precisions if p.name == precision)
        return next(known, self.unknown.bytes_per_parameter)

    def _stated_precision(self, name: str) -> Precision | None:
        parts = set(re.split(r"[-.]", name))
        return next((p for p in self.precisions if not parts.isdisjoint(p.hints)), None)

    def _sized(self, name: str, active_b: float, total_b: float, precision: str | None, source: str) -> Size:
        stated = self._stated_precision(name)
        precision = stated.name if stated else precision
        return Size(
            active_b=active_b,
            total_b=total_b,
            bytes=self.bytes_of(precision),
            precision=precision,
            long_reasoning=matches(name, self.names.long_reasoning),
            source=source,
        )


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def spread(central: float, low_factors: Sequence[float], high_factors: Sequence[float]) -> Triple:
    """Return *central* with its range: independent uncertainties, each a factor of at least 1, add up in quadrature."""
    return central / _together(low_factors), central, central * _together(high_factors)


def _together(factors: Sequence[float]) -> float:
    return math.exp(math.sqrt(sum(math.log(factor) ** 2 for factor in factors)))
