"""Reading the roll-ups: sums over any period, of whole days where it can, down to quarters of an hour at its ends.

Rows that no roll-up holds yet are summed while reading, by the same statements, so that every figure is up to date.
Nothing is written: what is summed on the way lies in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from negawatt.errors import InputError
from negawatt.ledger import sql_rollups as sql
from negawatt.ledger.histograms import Counts, Sums
from negawatt.ledger.rollup_tables import ALL, CALLS, OTHER, SLOT_S, SPANS, Table
from negawatt.ledger.rollups import gather, prepare, stage, state_of

TAIL_MOST = 2_000  # rows that are summed while reading; with more the roll-ups are behind
_LOW_BITS = 20  # of money, see `sql_rollups.read`

Buckets = Sequence[tuple[int, int]]  # [since, until) in seconds since 1970, multiples of a quarter of an hour


class Progress(NamedTuple):
    """How far the roll-ups are. *behind*: rows that are in no figure yet; *remade*: slots whose rows were changed."""

    rows: int
    behind: int
    remade: int

    @property
    def complete(self) -> bool:
        return self.behind == 0 and self.remade == 0

    @property
    def share(self) -> float:
        return 1.0 if self.behind == 0 else self.rows / (self.rows + self.behind)


class Part(NamedTuple):
    """A stretch of one bucket that is read from the rows of one span."""

    bucket: int
    span: int
    since: int
    until: int


def parts_of(buckets: Buckets, dirty: frozenset[tuple[int, int]]) -> list[Part]:
    """Return which rows make up *buckets*: the coarsest that fit, leaving out those that are *dirty* (span, slot)."""
    parts: list[Part] = []
    for number, (since, until) in enumerate(buckets):
        _cover(number, since, until, len(SPANS) - 1, dirty, parts)
    return parts


def _cover(
    number: int, since: int, until: int, level: int, dirty: frozenset[tuple[int, int]], parts: list[Part]
) -> None:  # fmt: skip
    if since >= until:
        return
    span = SPANS[level]
    if level == 0:
        parts.append(Part(number, span, since, until))
        return
    first, last = -(-since // span) * span, until // span * span
    if first >= last:
        return _cover(number, since, until, level - 1, dirty, parts)
    _cover(number, since, first, level - 1, dirty, parts)
    start = first
    for slot in sorted(slot for of, slot in dirty if of == span and first <= slot < last):
        if start < slot:
            parts.append(Part(number, span, start, slot))
        _cover(number, slot, slot + span, level - 1, dirty, parts)
        start = slot + span
    if start < last:
        parts.append(Part(number, span, start, last))
    _cover(number, last, until, level - 1, dirty, parts)


class Snapshot:
    """The figures as they are at one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        state = state_of(connection)
        newest = connection.execute("SELECT coalesce(max(rowid), 0) FROM outcome").fetchone()[0]
        behind, gathered = newest - state["rowid"], 0
        self._tail = 0 < behind <= TAIL_MOST
        if self._tail:
            gather(connection, sql.NEW, {"first": state["rowid"], "last": newest, "since": 0, "until": 0})
            stage(connection)
            gathered = connection.execute(f"SELECT coalesce(sum(calls), 0) FROM {CALLS.fresh}").fetchone()[0]
        dirty = connection.execute("SELECT span, slot FROM rollup_dirty").fetchall()
        self._dirty = frozenset(dirty)
        remade = sum(span == SLOT_S for span, _ in dirty)
        self.progress = Progress(state["rows"] + gathered, 0 if self._tail else behind, remade)

    def sums(
        self, table: Table, names: Sequence[str], buckets: Buckets, *, grain: str = "", by: Sequence[str] = ()
    ) -> dict[tuple[Any, ...], list[Any]]:
        """Return the sums *names* of *table* over each of *buckets*, by (number of the bucket, *by*...)."""
        found: dict[tuple[Any, ...], list[Any]] = {}
        keys = 1 + len(by)
        for new, parts in self._parts(buckets):
            for row in self._connection.execute(sql.read(table, names, grain, by, new=new), (parts,)):
                key, values = row[:keys], _exact(row[keys:], names)
                known = found.get(key)
                if known is None:
                    found[key] = values
                else:
                    for i, value in enumerate(values):
                        known[i] += value
        return found

    def times(self, what: str, buckets: Buckets, *, classes: bool = False) -> dict[tuple[int, str], Counts]:
        """Return how many calls took how long (*what*: ``duration`` or ``ttft``), by (number of the bucket, class).

        The class is ``*``, all of them together, unless *classes*.
        """
        found: dict[tuple[int, str], Sums] = {}
        only = f"request_class = '{ALL}'"
        if classes:
            names = [name for (name,) in self._connection.execute(sql.CLASSES)] + [OTHER]
            only = f"request_class IN ({', '.join('?' * len(names))})"
        for new, parts in self._parts(buckets):
            values = (parts, *(names if classes and not new else ()), what)
            condition = f"request_class <> '{ALL}'" if classes and new else only
            for nth, name, counts in self._connection.execute(sql.read_times(condition, new=new), values):
                sums = found.get((nth, name))
                if sums is None:
                    sums = found[nth, name] = Sums()
                sums.add(counts)
        return {key: sums.counts() for key, sums in found.items()}

    def seen(
        self, table: Table, keys: Sequence[str], bucket: tuple[int, int]
    ) -> dict[tuple[Any, ...], tuple[int, int]]:  # fmt: skip
        """Return the first and the last slot in which each of *keys* of *table* was seen."""
        found: dict[tuple[Any, ...], tuple[int, int]] = {}
        for new in (False, True) if self._tail else (False,):
            for *key, first, last in self._connection.execute(sql.seen(table, keys, new=new), bucket):
                old = found.get(tuple(key), (first, last))
                found[tuple(key)] = (min(first, old[0]), max(last, old[1]))
        return found

    def earliest(self) -> int | None:
        """Return the first slot in which there was a call."""
        rolled = self._connection.execute(sql.EARLIEST).fetchone()[0]
        new = self._connection.execute(f"SELECT min(slot) FROM {CALLS.fresh}").fetchone()[0] if self._tail else None
        known = [slot for slot in (rolled, new) if slot is not None]
        return min(known) if known else None

    def _parts(self, buckets: Buckets) -> Iterator[tuple[bool, str]]:
        """Give what has to be read, as JSON: from the roll-ups, and of what is new (True)."""
        yield False, orjson.dumps([tuple(part) for part in parts_of(buckets, self._dirty)]).decode()
        if self._tail:
            yield True, orjson.dumps([(i, 0, *bucket) for i, bucket in enumerate(buckets)]).decode()


def _exact(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Put the two halves of money together: as one number its sum could be beyond 64 bits."""
    halves = iter(values)
    return [
        (next(halves) << _LOW_BITS) + next(halves) if name.endswith("_pusd") else next(halves) for name in names
    ]  # fmt: skip


class Reader:
    """A connection for looking only. Raises `InputError` when there is no ledger at *path*."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise InputError(f"{path}: there is no ledger here")
        try:
            self.connection = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, timeout=10.0, isolation_level=None, check_same_thread=False
            )
            prepare(self.connection)
        except sqlite3.Error as error:
            raise InputError(f"{path}: not a ledger, or it cannot be read: {error}") from error

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Give the figures of one moment; rows that are written meanwhile are not in them."""
        self.connection.execute("BEGIN")
        try:
            yield Snapshot(self.connection)
        finally:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        self.connection.close()
