"""Sums by hour or day as OpenMetrics text, with a time stamp on each: for ``promtool tsdb create-blocks-from``.

Each sample is a gauge: what the period came to, at the moment when it ended. ``sum_over_time`` adds periods up. The
format wants all samples of one series together, and a ledger gives them by time: they are put in order in a temporary
database, so that memory stays flat.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from typing import IO

from negawatt.exports.charges import UNITS
from negawatt.exports.periods import Period

_CHUNK = 10_000
FAMILIES = {
    "negawatt_export_calls": "Calls of the period.",
    "negawatt_export_unpriced_calls": "Calls of the period whose cost is not known.",
    "negawatt_export_cost_usd": "What the period's calls cost, where that is known.",
    "negawatt_export_tokens": "Tokens of the period by kind, as providers bill them.",
    "negawatt_export_units": "Of the period, what providers bill that is no token: searches and fees.",
    "negawatt_export_energy_wh": "Energy of the period's calls, central estimate, where it is known.",
    "negawatt_export_co2e_grams": "Carbon dioxide equivalent of the period's calls, where it is known.",
    "negawatt_export_saved_cost_usd": "What each lever spared in the period, less what it cost.",
    "negawatt_export_saved_tokens": "Tokens that each lever spared in the period.",
}


class OpenMetricsSink:
    """Takes periods, and writes them in the order of their series when it is closed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._kept = sqlite3.connect("", isolation_level=None)  # a temporary file, gone when it is closed
        self._kept.execute("CREATE TABLE sample (family TEXT, labels TEXT, at INTEGER, value TEXT)")
        self._kept.execute("BEGIN")

    def write(self, period: Period) -> int:
        """Take in one period; return how many samples it has."""
        sums: dict[tuple[str, str], Decimal] = {}
        for family, labels, value in _samples(period):
            sums[family, labels] = sums.get((family, labels), Decimal(0)) + value
        rows = [(family, labels, period.end, format(value, "f")) for (family, labels), value in sums.items()]
        self._kept.executemany("INSERT INTO sample VALUES (?, ?, ?, ?)", rows)
        return len(rows)

    def close(self) -> None:
        for family, text in FAMILIES.items():
            self._file.write(f"# TYPE {family} gauge\n# HELP {family} {text}\n".encode())
            found = self._kept.execute("SELECT labels, at, value FROM sample WHERE family = ? ORDER BY labels, at",
                                       (family,))  # fmt: skip
            while rows := found.fetchmany(_CHUNK):
                self._file.write("".join(f"{family}{{{labels}}} {value} {at}\n" for labels, at, value in rows).encode())
        self._file.write(b"# EOF\n")
        self._kept.close()


def _samples(period: Period) -> Iterator[tuple[str, str, Decimal]]:
    for group, sums in period.groups:
        model = _labels(provider=group.provider, model=group.model, request_class=group.request_class)
        if group.lever is not None:
            lever = _labels(lever=group.lever, basis=group.basis or "", request_class=group.request_class)
            if group.priced:
                yield "negawatt_export_saved_cost_usd", lever, Decimal(sums.pusd).scaleb(-12)
            if sums.quantity is not None:
                yield "negawatt_export_saved_tokens", lever, Decimal(sums.quantity)
            continue
        if sums.calls:
            yield "negawatt_export_calls", model, Decimal(sums.calls)
            yield "negawatt_export_unpriced_calls", model, Decimal(sums.unpriced)
        if group.priced:
            yield "negawatt_export_cost_usd", model, Decimal(sums.pusd).scaleb(-12)
        if sums.quantity:
            unit = UNITS.get(group.kind)
            family, name = ("tokens", "token_type") if unit is None else ("units", "unit")
            kind = _labels(provider=group.provider, model=group.model, request_class=group.request_class,
                           **{name: unit or group.kind})  # fmt: skip
            yield f"negawatt_export_{family}", kind, Decimal(sums.quantity)
        if sums.wh is not None:
            yield "negawatt_export_energy_wh", model, Decimal(repr(sums.wh))
        if sums.co2e_g is not None:
            yield "negawatt_export_co2e_grams", model, Decimal(repr(sums.co2e_g))


def _labels(**values: str) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(values.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
