"""What levers decided and how long calls took, summed: from ledger rows to the sums of the roll-ups.

What counts as a hit, and what it saved, is what reports say (`negawatt.proof.figures.spared_by`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from negawatt.ledger.histograms import Counts, bucket_of
from negawatt.ledger.rollup_tables import ALL, DELIVERED

log = logging.getLogger(__name__)

_ANSWERED = frozenset({"hit", "stale", "partial"})
_LOOKED = frozenset({"hit", "stale", "partial", "miss", "explored", "asked whole"})


class Spared(msgspec.Struct, frozen=True, gc=False):
    """``saved`` of a decision as the ledger keeps it; None is unknown."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_pusd: int | None = None
    energy_j: tuple[float, float, float] | None = None
    basis: str = "estimated"


class Decided(msgspec.Struct, frozen=True, gc=False):
    """One decision as the ledger keeps it."""

    lever: str
    action: str
    mode: str = "on"
    saved: Spared | None = None


# slot, class, ending, group, seconds in all, seconds until the first chunk, decisions
Row = tuple[int, str, str, int, float, float | None, list[Decided]]
_decode = msgspec.json.Decoder(list[Row]).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.json.Decoder(Row).decode
_NOTHING = Spared()


def rows_of(text: str | None) -> Iterator[Row]:
    """Give the rows of *text*, as `negawatt.ledger.sql_rollups.told` makes it; one that is not ours is left out."""
    if not text:
        return
    try:
        yield from _decode(text)
    except msgspec.DecodeError:
        yield from _readable(text)


def _readable(text: str) -> Iterator[Row]:
    try:
        parts = _decode_raw(text)
    except msgspec.DecodeError as error:
        log.error("decisions of ledger rows are no JSON, and are left out of the roll-ups: %s", error)
        return
    left_out: list[msgspec.DecodeError] = []
    for part in parts:
        try:
            yield _decode_one(part)
        except msgspec.DecodeError as error:
            left_out.append(error)
    if left_out:
        log.error("decisions of %d ledger rows are left out of the roll-ups: %s", len(left_out), left_out[0])


class Sums(NamedTuple):
    """Sums by their keys, in the order of the columns of `rollup_tables.LEVERS`, `LEVER_GROUPS` and `ACTIONS`.

    *times*: by slot, class (and all of them together), ``duration`` or ``ttft``.
    """

    levers: dict[tuple[Any, ...], list[Any]]
    groups: dict[tuple[Any, ...], list[Any]]
    actions: dict[tuple[Any, ...], list[Any]]
    times: defaultdict[tuple[int, str, str], defaultdict[int, int]]

    def whole_times(self) -> dict[tuple[int, str, str], Counts]:
        """Return *times*, with those of all classes together."""
        found: dict[tuple[int, str, str], Counts] = dict(self.times)
        for (slot, _, what), counts in self.times.items():
            every = found.setdefault((slot, ALL, what), {})
            for bucket, n in counts.items():
                every[bucket] = every.get(bucket, 0) + n
        return found


def nothing() -> Sums:
    return Sums({}, {}, {}, defaultdict(lambda: defaultdict(int)))


def add_rows(rows: Iterable[Row], sums: Sums) -> None:
    """Add what *rows* took, and what their decisions come to.

    Rows that were decided alike, without saving anything, are counted first and added together: most are.
    """
    times = sums.times
    alike: dict[tuple[Any, ...], list[Any]] = {}
    for slot, request_class, ending, grp, seconds, first, decisions in rows:
        if ending in DELIVERED:
            times[slot, request_class, "duration"][bucket_of(seconds)] += 1
        if first is not None:
            times[slot, request_class, "ttft"][bucket_of(first)] += 1
        decided: list[str] = []
        for d in decisions:
            if d.saved is not None:
                _add_decisions((slot, request_class, ending, grp), decisions, 1, sums)
                break
            decided += (d.lever, d.mode, d.action)
        else:
            key = (slot, request_class, ending, grp, *decided)
            found = alike.get(key)
            if found is None:
                alike[key] = [decisions, 1]
            else:
                found[1] += 1
    for key, (decisions, calls) in alike.items():
        _add_decisions(key[:4], decisions, calls, sums)


def _add_decisions(of: tuple[Any, ...], decisions: list[Decided], calls: int, sums: Sums) -> None:
    """Add what *calls* alike decided. *of*: their slot, class, ending and group."""
    slot, request_class, ending, grp = of
    own: dict[tuple[str, bool], list[Decided]] = {}
    for decision in decisions:
        _plus(sums.actions, (slot, request_class, decision.lever, decision.mode, decision.action), (calls,))
        own.setdefault((decision.lever, decision.mode == "shadow"), []).append(decision)
    for (lever, shadow), mine in own.items():
        key = (slot, request_class, lever, int(shadow))
        spared = _spared(mine, ending)
        if spared is not None or any(d.action in _LOOKED for d in mine):
            _add(key, grp, (mine, spared), calls, sums)


def _add(key: tuple[Any, ...], grp: int, did: tuple[list[Decided], Spared | None], calls: int, sums: Sums) -> None:
    """Add what one lever did with each of *calls* alike."""
    mine, spared = did
    told = _NOTHING if spared is None else spared
    basis = "" if spared is None else spared.basis
    hit, joules = int(spared is not None), told.energy_j or (0.0, 0.0, 0.0)
    values = (
        1, hit, int(hit and any(d.action == "stale" for d in mine)), int(any(d.action == "explored" for d in mine)),
        told.input_tokens or 0, told.output_tokens or 0, told.cost_pusd or 0,
        int(hit and told.cost_pusd is None), *joules,
        int(hit and told.input_tokens is None), int(hit and told.energy_j is None),
    )  # fmt: skip
    _plus(sums.levers, (*key, basis), [calls * value for value in values])
    slot, _, lever, shadow = key
    each = (1, hit, told.cost_pusd or 0, joules[1])
    _plus(sums.groups, (slot, lever, shadow, grp), [calls * value for value in each])


def _plus(sums: dict[tuple[Any, ...], list[Any]], key: tuple[Any, ...], values: Sequence[Any]) -> None:
    found = sums.get(key)
    if found is None:
        sums[key] = list(values)
        return
    for i, value in enumerate(values):
        if value:
            found[i] += value


def _spared(mine: list[Decided], ending: str) -> Spared | None:
    """Return what the lever spared the call, all unknown where it answered without knowing; None if it did nothing."""
    saved = [d.saved for d in mine if d.saved is not None]
    if saved:
        return saved[0] if len(saved) == 1 else _together(saved)
    shared = ending == "coalesced" and any(d.action == "joined" for d in mine)
    return _NOTHING if shared or any(d.action in _ANSWERED for d in mine) else None


def _together(parts: list[Spared]) -> Spared:
    """Return the sum of *parts*; unknown where one is."""
    sums: dict[str, int | None] = {}
    for name in ("input_tokens", "output_tokens", "cost_pusd"):
        values = [getattr(part, name) for part in parts]
        sums[name] = None if None in values else sum(values)
    triples = [part.energy_j for part in parts if part.energy_j is not None]
    energy = [sum(values) for values in zip(*triples, strict=True)] if len(triples) == len(parts) else None
    return Spared(**sums, energy_j=None if energy is None else (energy[0], energy[1], energy[2]), basis=parts[-1].basis)
