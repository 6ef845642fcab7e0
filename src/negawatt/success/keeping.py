"""Keeping the roll-up of tasks up to date, by the ledger's own writer or by whoever opens its file."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from negawatt.ledger import sqlite
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import opened
from negawatt.ledger.words import kept
from negawatt.success import sql
from negawatt.success.rules import Rule

CHUNK = 1_000  # rows of one round: those that are to be written wait for it
_LEAST_S = 0.25  # between two rounds
_REST = 19  # times as long as a round took, nothing is done after it: the roll-up takes a twentieth of one core at most
_OUTCOMES = {1: "success", 0: "failure", None: "unknown"}


class Keeper:
    """Keeps tasks and their sums up, called by the ledger's writer between its rounds. *rules*: None leaves those that
    are there; others are judged by from now on, and all tasks once more.
    """

    def __init__(
        self,
        rules: Sequence[Rule] | None = None,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = None if rules is None else tuple(rules)
        self._now = now
        self._monotonic = monotonic
        self._next = 0.0
        self._ready = False
        self._told = False  # what is old news at the start is not counted
        self.verdicts: Counter[tuple[str, str]] = Counter()  # of (class, success, failure or unknown)

    def __call__(self, connection: sqlite3.Connection) -> None:
        """Do a round, if it is time for one and there is something to do. Raises `sqlite3.Error`."""
        began = self._monotonic()
        if began < self._next:
            return
        self.round(connection)
        ended = self._monotonic()
        self._next = ended + max(_LEAST_S, _REST * (ended - began))

    def round(self, connection: sqlite3.Connection) -> bool:
        """Take in what is new, up to `CHUNK` rows; return whether there is more. Raises `sqlite3.Error`."""
        if not self._ready:
            _prepare(connection, self._rules)
            self._ready = True
        now = self._now()
        if not connection.execute(sql.WAITING, (now,)).fetchone()[0]:
            self._told = True
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            more = _taken_in(connection, now)
            found = connection.execute(sql.VERDICTS).fetchall()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        if self._told:
            for request_class, success, count in found:
                self.verdicts[request_class, _OUTCOMES[success]] += count
        return more


def catch_up(path: Path, rules: Sequence[Rule] | None = None, *, now: Callable[[], float] = time.time) -> None:
    """Take in all that the ledger at *path* has, by the rules that are there or by *rules*. Raises `InputError`."""
    with closing(opened(path)) as connection:
        keep_up(connection, Keeper(rules, now=now))


def in_memory(
    outcomes: Sequence[Outcome], words: Iterable[Feedback], rules: Sequence[Rule] = (), *, now: float | None = None
) -> sqlite3.Connection:
    """Return a ledger without a file that has *outcomes* and *words*, rolled up: for what a `MemoryLedger` holds."""
    connection = sqlite.in_memory(outcomes)
    kept(connection, words)
    keep_up(connection, Keeper(rules, now=time.time if now is None else lambda: now))
    return connection


def keep_up(connection: sqlite3.Connection, keeper: Keeper) -> None:
    """Have *keeper* do rounds until nothing is left."""
    while keeper.round(connection):
        pass


def _prepare(connection: sqlite3.Connection, rules: tuple[Rule, ...] | None) -> None:
    for statement in sql.TEMPORARY:
        connection.execute(statement)
    if rules is None or _known(connection) == rules:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(sql.FORGET_RULES)
        connection.executemany(sql.SET_RULE, rules)
        connection.execute(sql.SET_MARK, (0,))  # every task is judged anew, while the mark passes its rows
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _known(connection: sqlite3.Connection) -> tuple[Rule, ...]:
    rows = connection.execute(sql.RULES)
    return tuple(Rule(name, bool(answered), bool(valid), bool(schema), retry, score)
                 for name, answered, valid, schema, retry, score in rows)  # fmt: skip


def _taken_in(connection: sqlite3.Connection, now: float) -> bool:
    """Take in the next rows, words and moments; return whether there are more."""
    for statement in sql.EMPTIED:
        connection.execute(statement)
    found = connection.execute(sql.MARK).fetchone()
    mark = 0 if found is None else found[0]
    newest = connection.execute(sql.NEWEST, (mark, CHUNK)).fetchone()[0]
    upto = mark if newest is None else newest
    values = {"mark": mark, "upto": upto, "now": now, "most": CHUNK}
    window = connection.execute(sql.WINDOW).fetchone()[0]
    if window is not None:
        connection.execute(sql.ASKED, values)
        connection.execute(sql.TOUCHED_BY_RETRIES, {**values, "window": window})
    for statement in (sql.TOUCHED_BY_ROWS, sql.TOUCHED_BY_WORDS, sql.TOUCHED_BY_TIME):
        connection.execute(statement, values)
    connection.execute(sql.SETTLED)
    connection.execute(sql.BEFORE)
    for statement in sql.PLACES:
        connection.execute(statement)
    for statement in (sql.HEARD, sql.TASKS, sql.SUMS, sql.LATENCIES):
        connection.execute(statement, values)
    connection.execute(sql.SET_MARK, (upto,))
    return bool(connection.execute(sql.WAITING, (now,)).fetchone()[0])
