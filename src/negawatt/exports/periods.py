"""Charges added up by hour or day (UTC), as they come: what is held is one period's sums, however many calls it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from negawatt.economics.accounts import Accounts
from negawatt.errors import InputError
from negawatt.exports.charges import Row, charges_of, spared_of

HOUR_S, DAY_S = 3600, 86_400


class Group(NamedTuple):
    """What the sums of a period are apart by. *lever* and *basis*: of what was spared, else None."""

    provider: str
    model: str
    kind: str
    tenant: str
    key_id: str
    request_class: str
    price_source: str
    split: str
    energy_basis: str
    priced: bool
    lever: str | None = None
    basis: str | None = None


class Sums:
    """What one group of one period comes to. Costs are whole pico-dollars; energies are watt-hours, None: unknown."""

    __slots__ = ("calls", "co2e_g", "high_wh", "low_wh", "pusd", "quantity", "unpriced", "wh")

    def __init__(self) -> None:
        self.quantity: int | None = None  # of what was spared, the tokens; None: not known
        self.pusd = 0
        self.calls = 0  # that are counted here, and nowhere else
        self.unpriced = 0  # of these, or of what was spared, those without a price
        self.low_wh: float | None = None
        self.wh: float | None = None
        self.high_wh: float | None = None
        self.co2e_g: float | None = None

    def add_quantity(self, more: int | None) -> None:
        if more is not None:
            self.quantity = more if self.quantity is None else self.quantity + more

    def add_call(self, row: Row) -> None:
        """Count the call of *row* here, with its energy and carbon, which are not known by kind of token."""
        self.calls += 1
        self.unpriced += row.cost_pusd is None
        self.low_wh = _sum(self.low_wh, row.energy_low_j, 3600)
        self.wh = _sum(self.wh, row.energy_j, 3600)
        self.high_wh = _sum(self.high_wh, row.energy_high_j, 3600)
        self.co2e_g = _sum(self.co2e_g, row.co2e_g, 1)


class Period(NamedTuple):
    """The sums of [start, end), seconds since 1970, in the order of their groups."""

    start: int
    end: int
    groups: list[tuple[Group, Sums]]


class Total:
    """What the whole export came to, as it goes on."""

    def __init__(self) -> None:
        self.calls = 0
        self.unpriced = 0
        self.pusd = 0
        self.spared_pusd = 0
        self.spared_unpriced = 0


def periods(
    rows: Iterable[Row], accounts: Accounts, span_s: int, total: Total, *, savings: bool = True
) -> Iterator[Period]:
    """Give the periods of *span_s* seconds in which there were calls. *rows*: oldest first. *total* is added to.

    Raises `InputError` for a row whose attempts or decisions are none.
    """
    start: int | None = None
    sums: dict[Group, Sums] = {}
    for row in rows:
        at = int(row.received_at // span_s) * span_s
        if start is not None and at != start:
            yield Period(start, start + span_s, sorted(sums.items(), key=_place))
            sums = {}
        start = at
        try:
            _add(row, accounts, sums, total)
            if savings:
                _add_spared(row, sums, total)
        except msgspec.DecodeError as error:
            when = datetime.fromtimestamp(row.received_at, UTC).isoformat()
            raise InputError(f"the row received at {when} cannot be read: {error}") from error
    if start is not None:
        yield Period(start, start + span_s, sorted(sums.items(), key=_place))


def _add(row: Row, accounts: Accounts, sums: dict[Group, Sums], total: Total) -> None:
    charges = charges_of(row, accounts)
    # A call is counted once, at what it was for: where the answer is, if it has one.
    chief = next((i for i, charge in enumerate(charges) if charge.kind == "output"), 0)
    for i, charge in enumerate(charges):
        group = Group(
            charge.provider, charge.model, charge.kind, row.tenant or "", row.key_id or "", row.request_class,
            row.price_source or "", charge.split, row.energy_basis or "", charge.pusd is not None,
        )  # fmt: skip
        one = sums.get(group)
        if one is None:
            one = sums[group] = Sums()
        one.add_quantity(charge.quantity)
        one.pusd += charge.pusd or 0
        if i == chief:
            one.add_call(row)
    total.calls += 1
    total.unpriced += row.cost_pusd is None
    total.pusd += row.cost_pusd or 0


def _add_spared(row: Row, sums: dict[Group, Sums], total: Total) -> None:
    for spared in spared_of(row):
        kind = "spared" if spared.tokens is not None else "spared_unreported"
        group = Group(
            spared.provider, spared.model, kind, row.tenant or "", row.key_id or "", row.request_class,
            row.price_source or "", "", "", spared.pusd is not None, spared.lever, spared.basis,
        )  # fmt: skip
        one = sums.get(group)
        if one is None:
            one = sums[group] = Sums()
        one.add_quantity(spared.tokens)
        one.pusd += spared.pusd or 0
        one.unpriced += spared.pusd is None
        total.spared_pusd += spared.pusd or 0
        total.spared_unpriced += spared.pusd is None


def _sum(sofar: float | None, more: float | None, per: float) -> float | None:
    if more is None:
        return sofar
    return more / per if sofar is None else sofar + more / per


def _place(one: tuple[Group, Sums]) -> tuple[str, ...]:
    return tuple("" if part is None else str(part) for part in one[0])
