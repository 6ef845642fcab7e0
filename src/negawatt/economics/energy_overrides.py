"""The user's own energy figures: ``[economics] energy`` names a TOML file of ``[[energy]]`` entries.

An entry says one of three things about the models it matches: joules per token, a size for the fit, or a class.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from negawatt.economics.coefficients import Coefficients, Size, Triple
from negawatt.economics.tables import matches, plain_name, read_table, refuse

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Billions = Annotated[float, msgspec.Meta(gt=0)]


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[energy]]``. Triples are low, central, high, in joules per token at *boundary*."""

    models: _Text | tuple[_Text, ...]  # shell patterns over the name without its publisher; case does not count
    source: _Text
    checked: date
    provider: str | None = None  # any
    joules_per_output_token: Triple | None = None
    joules_per_input_token: Triple = (0.0, 0.0, 0.0)
    joules_per_cached_token: Triple | None = None  # default: the shipped share of an input token
    boundary: Literal["accelerator", "server", "facility"] = "facility"
    basis: _Text = "estimated:override"
    active_b: _Billions | None = None
    total_b: _Billions | None = None
    precision: str | None = None
    class_: str | None = msgspec.field(default=None, name="class")

    def matches(self, provider: str | None, name: str) -> bool:
        if self.provider is not None and self.provider.lower() != provider:
            return False
        patterns = (self.models,) if isinstance(self.models, str) else self.models
        return any(matches(name, pattern) or name == plain_name(pattern) for pattern in patterns)

    def size(self, table: Coefficients) -> Size:
        active = self.active_b or self.total_b or 0.0
        return Size(
            active_b=active,
            total_b=self.total_b or active,
            bytes=table.bytes_of(self.precision),
            precision=self.precision,
            source="override",
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    energy: tuple[Override, ...] = ()


def read_overrides(path: Path, table: Coefficients) -> tuple[Override, ...]:
    """Return the entries of *path*. Raises `ConfigError`, which names the file and the bad value."""
    overrides = read_table(path, _File).energy
    for i, override in enumerate(overrides):
        problem = _problem(override, table)
        if problem is not None:
            field, what = problem
            raise refuse(path, f"energy[{i}]{'.' + field if field else ''}", what)
    return overrides


def _problem(override: Override, table: Coefficients) -> tuple[str, str] | None:
    sized = override.active_b is not None or override.total_b is not None
    says = [override.joules_per_output_token is not None, sized, override.class_ is not None]
    if sum(says) != 1:
        return "", "expected exactly one of joules_per_output_token, active_b or total_b, and class"
    for field in ("joules_per_output_token", "joules_per_input_token", "joules_per_cached_token"):
        triple = getattr(override, field)
        if triple is not None and not 0 <= triple[0] <= triple[1] <= triple[2] < float("inf"):
            return field, f"expected 0 <= low <= central <= high, finite, not {list(triple)}"
    if override.active_b and override.total_b and override.active_b > override.total_b:
        return "active_b", "active parameters cannot be more than all parameters"
    if override.class_ is not None and override.class_ not in [prior.name for prior in table.classes]:
        return "class", f"there is no such class; known: {', '.join(prior.name for prior in table.classes)}"
    if override.precision is not None and override.precision not in [p.name for p in table.precisions]:
        return "precision", f"there is no such precision; known: {', '.join(p.name for p in table.precisions)}"
    return None
