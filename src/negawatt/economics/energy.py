"""How much energy a call took: always a low, a central and a high figure, with its basis and boundary.

``E = (input - cache reads) e_in + cache reads e_cache + output e_out``, where each e is in joules per token at the
chosen boundary (K is inside it). The coefficients of a model come from, in this order: the user's file, the table of
measured models, the fit for other open weights of known size, the class prior of a closed model, and else nothing:
an unknown model has no figure. A figure per call is an order of magnitude: good for comparing, not for invoicing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from negawatt.economics.coefficients import ClassPrior, Coefficients, Measured, Size, Triple, geometric_mean, spread
from negawatt.economics.energy_overrides import Override, read_overrides
from negawatt.economics.tables import digest_of, matches, plain_name, shipped
from negawatt.economics.usage import Usage
from negawatt.errors import ConfigError

Boundary = Literal["accelerator", "server", "facility"]
_J_PER_WH = 3600.0
_MOST_KEPT = 10_000


class Joules(msgspec.Struct, frozen=True, gc=False):
    """An amount of energy, ``low <= central <= high``."""

    low: float
    central: float
    high: float

    def __add__(self, other: Joules) -> Joules:
        if not isinstance(other, Joules):
            return NotImplemented
        return Joules(self.low + other.low, self.central + other.central, self.high + other.high)

    def __sub__(self, other: Joules) -> Joules:
        """Return the difference, which may be negative; its range assumes that the two err independently."""
        if not isinstance(other, Joules):
            return NotImplemented
        return Joules(self.low - other.high, self.central - other.central, self.high - other.low)

    def times(self, factor: float) -> Joules:
        """Return *factor* (0 or more) times as much."""
        return Joules(self.low * factor, self.central * factor, self.high * factor)

    @property
    def wh(self) -> Triple:
        """The three figures in watt-hours."""
        return self.low / _J_PER_WH, self.central / _J_PER_WH, self.high / _J_PER_WH


NO_ENERGY = Joules(0.0, 0.0, 0.0)


class EnergyRate(msgspec.Struct, frozen=True, kw_only=True):
    """Joules per token of one model, at *boundary*; *k* is inside them.

    *basis*: ``estimated:table``, ``estimated:open-weights``, ``estimated:class``, or what the user's file says.
    *class_source*: where the size or class comes from: ``table``, ``card``, ``name``, ``map``, ``price`` or
    ``override``. *price_share*: the electricity of an output token as a share of its price, None without a price.
    """

    e_in: Triple
    e_out: Triple
    e_cache: Triple
    k: Triple
    basis: str
    boundary: str
    class_source: str
    long_above_tokens: int
    long_scale_tokens: float
    batch: float | None = None  # None: unknown, its range is part of low and high
    price_share: float | None = None
    suspect: bool = False  # price_share is implausibly high: the model is smaller, or sold below cost

    def joules(self, usage: Usage) -> Joules:
        """Return the energy of *usage*. Output includes reasoning; cache writes are computed like fresh input."""
        cached = float(usage.cache_read_tokens)
        fresh = usage.input_tokens - cached
        if usage.input_tokens > self.long_above_tokens:
            longer = 1.0 + usage.input_tokens / self.long_scale_tokens
            fresh *= longer
            cached *= longer
        output = usage.output_tokens
        (i0, i1, i2), (o0, o1, o2), (c0, c1, c2) = self.e_in, self.e_out, self.e_cache
        return Joules(
            fresh * i0 + cached * c0 + output * o0,
            fresh * i1 + cached * c1 + output * o1,
            fresh * i2 + cached * c2 + output * o2,
        )


class _Asked(NamedTuple):
    """What a rate is wanted for: provider in lower case, plain name of the model, USD per million output tokens."""

    provider: str | None
    name: str
    price: float | None


class Energy:
    """Finds energy rates. Reads the shipped table and *overrides* (TOML) when made; raises `ConfigError`.

    *batch* is the running batch of the user's own inference server (the providers named in the table as own); at
    hosts it stays unknown. *boundary* says what every figure contains; figures of two boundaries never mix.
    """

    def __init__(
        self, overrides: Path | None = None, batch: int | None = None, boundary: Boundary = "facility"
    ) -> None:
        self.coefficients = shipped("energy.toml", Coefficients)
        most = self.coefficients.fit.most_batch
        if batch is not None and not 1 <= batch <= most:
            what = f"expected a running batch from 1 to {most}, the range of the evidence, not {batch}"
            raise ConfigError(f"economics.batch: {what}", param="economics.batch")
        if boundary not in ("accelerator", "server", "facility"):
            raise ConfigError(f"boundary: expected accelerator, server or facility, not {boundary!r}", param="boundary")
        self._overrides = () if overrides is None else read_overrides(overrides, self.coefficients)
        self._batch = batch
        self.boundary = boundary
        own = "" if overrides is None else f"; overrides {digest_of(overrides)}"
        self.version = f"negawatt-energy {self.coefficients.version}{own}"
        self._kept: dict[tuple[str | None, str, float | None], EnergyRate | None] = {}

    def rate(
        self, provider: str | None, model: str, *, output_price_usd_per_mtok: float | None = None
    ) -> EnergyRate | None:
        """Return the coefficients for *model* at *provider*, None if nothing is known about it.

        The price decides the class of closed models that no list names, and checks the figure's plausibility.
        """
        key = (provider, model, output_price_usd_per_mtok)
        if key in self._kept:
            return self._kept[key]
        if len(self._kept) >= _MOST_KEPT:  # callers choose model names: keep the table bounded
            self._kept.clear()
        where = None if provider is None else provider.lower()
        rate = self._kept[key] = self._resolved(_Asked(where, plain_name(model), output_price_usd_per_mtok))
        return rate

    def own(self, cpu_seconds: float) -> Joules:
        """Return the energy of *cpu_seconds* of our own work (basis ``estimated``, see the table's ``[own]``)."""
        return own_joules(cpu_seconds, self.coefficients.own.watts_per_busy_core)

    def _resolved(self, asked: _Asked) -> EnergyRate | None:
        table, name = self.coefficients, asked.name
        override = next((o for o in self._overrides if o.matches(asked.provider, name)), None)
        if override is not None:
            return self._overridden(override, asked)
        size = table.size(name)
        if asked.provider in table.desk.providers:
            size = size or table.size_in_name(name)
            return None if size is None else self._at_a_desk(size, asked)
        measured = table.measured(name)
        if measured:
            return self._measured(measured, asked)
        if size is None and not any(matches(name, closed.models) for closed in table.closed):
            size = table.size_in_name(name)
        if size is not None:
            return self._fitted(size, asked)
        found = table.class_of(name, asked.price)
        return None if found is None else self._of_class(*found, asked)

    def _overridden(self, override: Override, asked: _Asked) -> EnergyRate:
        table = self.coefficients
        if override.class_ is not None:
            return self._of_class(table.prior(override.class_), "override", asked)
        if override.joules_per_output_token is None:
            return self._fitted(override.size(table), asked)
        scale = self._k(asked.provider)[1] / self._k(asked.provider, override.boundary)[1]
        e_out = _scaled(override.joules_per_output_token, scale)
        e_in = _scaled(override.joules_per_input_token, scale)
        rate = self._rate(e_in, e_out, override.basis, "override", asked)
        if override.joules_per_cached_token is None:
            return rate
        return msgspec.structs.replace(rate, e_cache=_scaled(override.joules_per_cached_token, scale))

    def _of_class(self, prior: ClassPrior, source: str, asked: _Asked) -> EnergyRate:
        # Priors are at a host's facility, whoever is said to serve the model.
        asked = asked._replace(provider=None)
        scale = self._k(None)[1] / self.coefficients.boundary.facility[1]
        return self._rate(_scaled(prior.e_in, scale), _scaled(prior.e_out, scale), "estimated:class", source, asked)

    def _measured(self, models: tuple[Measured, ...], asked: _Asked) -> EnergyRate:
        """Interpolate each row in ln B; several rows (GPUs, precisions) stand for not knowing which is used."""
        table, prefill = self.coefficients, self.coefficients.prefill
        rows = [row for model in models for row in model.rows]
        few, usual, many = self._batches(asked.provider)
        central = geometric_mean([row.output_joules(usual) for row in rows])
        least = min(central, *(row.output_joules(many) for row in rows))
        most = max(central, *(row.output_joules(few) for row in rows))
        wide = table.table.below_factor if few < table.table.below_batch else 1.0
        k = self._k(asked.provider)
        e_out = spread(
            central * k[1],
            [central / least, table.table.factor, wide, k[1] / k[0]],
            [most / central, table.table.factor, wide, k[2] / k[1]],
        )
        e_in = geometric_mean([prefill.input_joules(m.active_b, prefill.mfu[1], m.precision) for m in models])
        return self._rate(self._input(e_in, k), e_out, "estimated:table", "table", asked)

    def _fitted(self, size: Size, asked: _Asked) -> EnergyRate:
        table, fit = self.coefficients, self.coefficients.fit
        most, central, least = (
            fit.output_joules(size, batch, table.unknown.b200_share) for batch in self._batches(asked.provider)
        )
        wide = fit.widening(size)
        k = self._k(asked.provider)
        # Uniform in ln B over the whole range: its 5-95 % part is nine tenths of it.
        e_out = spread(
            central * k[1],
            [(central / least) ** 0.9, fit.low_factor, wide, k[1] / k[0]],
            [(most / central) ** 0.9, fit.high_factor, wide, k[2] / k[1]],
        )
        e_in = table.prefill.input_joules(size.active_b, table.prefill.mfu[1], size.precision)
        return self._rate(self._input(e_in, k), e_out, "estimated:open-weights", size.source, asked)

    def _at_a_desk(self, size: Size, asked: _Asked) -> EnergyRate:
        desk = self.coefficients.desk
        e_out = _scaled(desk.joules_per_output_token, size.active_b / desk.active_b)
        rate = self._rate(_scaled(e_out, desk.input_share), e_out, "estimated:open-weights", size.source, asked)
        return msgspec.structs.replace(rate, k=(1.0, 1.0, 1.0), batch=1.0)

    def _input(self, joules: float, k: Triple) -> Triple:
        busy, usual, idle = self.coefficients.prefill.mfu
        return spread(joules * k[1], [idle / usual, k[1] / k[0]], [usual / busy, k[2] / k[1]])

    def _batch_at(self, provider: str | None) -> float | None:
        return self._batch if provider in self.coefficients.boundary.own_providers else None

    def _batches(self, provider: str | None) -> Triple:
        """Return the least, usual and largest running batch there may be."""
        batch = self._batch_at(provider)
        return self.coefficients.unknown.batch if batch is None else (batch, batch, batch)

    def _k(self, provider: str | None, boundary: str | None = None) -> Triple:
        factors = self.coefficients.boundary
        boundary = boundary or self.boundary
        if boundary == "facility" and provider in factors.own_providers:
            return factors.own_facility
        k: Triple = getattr(factors, boundary)
        return k

    def _rate(self, e_in: Triple, e_out: Triple, basis: str, class_source: str, asked: _Asked) -> EnergyRate:
        table = self.coefficients
        share = None
        if asked.price is not None and asked.price > 0:
            share = e_out[1] / (asked.price / table.ceiling.usd_per_kwh * 3.6)
        low, central, high = table.prefill.cache_read
        return EnergyRate(
            e_in=e_in,
            e_out=e_out,
            e_cache=(low * e_in[0], central * e_in[1], high * e_in[2]),
            k=self._k(asked.provider),
            basis=basis,
            boundary=self.boundary,
            class_source=class_source,
            long_above_tokens=table.prefill.long_above_tokens,
            long_scale_tokens=table.prefill.long_scale_tokens,
            batch=self._batch_at(asked.provider),
            price_share=share,
            suspect=share is not None and share > table.ceiling.flag_above,
        )


def own_joules(cpu_seconds: float, watts_per_busy_core: Triple) -> Joules:
    """Return the energy of *cpu_seconds* of work at *watts_per_busy_core* (low, central, high)."""
    low, central, high = watts_per_busy_core
    return Joules(cpu_seconds * low, cpu_seconds * central, cpu_seconds * high)


def _scaled(triple: Triple, factor: float) -> Triple:
    return triple[0] * factor, triple[1] * factor, triple[2] * factor
