"""Grams of CO2 equivalent of an amount of energy: kWh at the facility times the intensity of the grid's zone.

Location-based; what a host buys in certificates is not counted, nor is making the hardware. Publish `Carbon.zone`,
`Carbon.year` and `Carbon.source` with every figure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from negawatt.economics.coefficients import Triple
from negawatt.economics.energy import Joules
from negawatt.economics.tables import digest_of, read_table, refuse, shipped

_J_PER_KWH = 3.6e6
_WORLD = "WORLD"
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class Grams(msgspec.Struct, frozen=True):
    """An amount of CO2 equivalent in grams, ``low <= central <= high``."""

    low: float
    central: float
    high: float

    def __add__(self, other: Grams) -> Grams:
        if not isinstance(other, Grams):
            return NotImplemented
        return Grams(self.low + other.low, self.central + other.central, self.high + other.high)


class _Zone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    zone: str
    alias: tuple[str, ...]
    newer: float
    owid_2023: float
    note: str | None = None


class _Shipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    year: int
    source: str
    zones: tuple[_Zone, ...] = msgspec.field(name="zone")


class _Own(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[zone]]`` of the user's file: one figure, or low, central, high."""

    zone: _Text
    g_per_kwh: float | Triple
    year: int
    source: _Text


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zone: tuple[_Own, ...] = ()


class Carbon:
    """The grid intensity of one zone: an ISO 3166-1 code (``FRA`` or ``FR``), a name of the user's own, or None.

    A zone that neither *overrides* (TOML) nor the shipped table knows becomes the world mean, and *assumed* is
    true. Raises `ConfigError` for a bad file.
    """

    def __init__(self, zone: str | None = None, overrides: Path | None = None) -> None:
        table = shipped("carbon.toml", _Shipped)
        own = () if overrides is None else _own_zones(overrides)
        digest = "" if overrides is None else f"; overrides {digest_of(overrides)}"
        self.version = f"negawatt-carbon {table.version}{digest}"
        named = (zone or "").strip().upper()
        wanted = named or _WORLD
        mine = next((z for z in own if z.zone.upper() == wanted), None)
        found = next((z for z in table.zones if wanted in (z.zone, *z.alias)), None)
        self.assumed = not named or (mine is None and found is None)
        if mine is not None:
            self.zone, self.year, self.source = wanted, mine.year, mine.source
            self.g_per_kwh: Triple = _triple(mine.g_per_kwh)
            return
        if found is None:
            found = next(z for z in table.zones if z.zone == _WORLD)
        self.zone, self.year, self.source = found.zone, table.year, table.source
        low, high = sorted((found.newer, found.owid_2023))
        self.g_per_kwh = (low, (low + high) / 2, high)

    def grams(self, joules: Joules) -> Grams:
        """Return the emissions of *joules*, which must be at the facility boundary."""
        low, central, high = self.g_per_kwh
        # What was spared on balance is negative, and then the dirtier grid gives the lower figure.
        return Grams(
            joules.low * (low if joules.low >= 0 else high) / _J_PER_KWH,
            joules.central * central / _J_PER_KWH,
            joules.high * (high if joules.high >= 0 else low) / _J_PER_KWH,
        )


def _triple(figure: float | Triple) -> Triple:
    return figure if isinstance(figure, tuple) else (figure, figure, figure)


def _own_zones(path: Path) -> tuple[_Own, ...]:
    zones = read_table(path, _File).zone
    for i, zone in enumerate(zones):
        low, central, high = _triple(zone.g_per_kwh)
        if not 0 <= low <= central <= high < float("inf"):
            what = f"expected 0 <= low <= central <= high, finite, not {zone.g_per_kwh}"
            raise refuse(path, f"zone[{i}].g_per_kwh", what)
    return zones
