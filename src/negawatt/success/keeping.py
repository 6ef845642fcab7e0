"""Keeping the roll-up of tasks up to date, in a thread beside the ledger's writer or by whoever opens its file."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from negawatt.errors import InputError
from negawatt.ledger import sqlite
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import opened
from negawatt.ledger.words import kept
from negawatt.success import sql
from negawatt.success.rules import Rule

log = logging.getLogger(__name__)

CHUNK = 2_000  # rows of one round
ASKS = 20_000  # rows of which it is put into `task_ask` at once who asked what
_LEAST_S = 1.0  # between two rounds: what comes in a burst is taken in together
_REST = 19  # times as long as a round took, nothing is done after it: the roll-up takes a twentieth of one core at most
_FAILED_S = 5.0
_OUTCOMES = {1: "success", 0: "failure", None: "unknown"}


class _State(NamedTuple):
    """How far the roll-up is, as `sql.STATE` says it."""

    mark: int
    rounds: int
    asked: int


class _Found(NamedTuple):
    """What a round has begun from, and what it takes in: rows up to *upto*, and touched tasks up to *seq*."""

    state: _State
    upto: int
    seq: int


class Keeper:
    """Takes in what is new, round by round. *rules*: None leaves those that are there; by others all tasks are judged
    anew.
    """

    def __init__(self, rules: Sequence[Rule] | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._rules = None if rules is None else tuple(rules)
        self._now = now
        self._prepared: sqlite3.Connection | None = None
        self._old: int | None = None  # the last row that was there at the start: verdicts before it are old news
        self.verdicts: Counter[tuple[str, str]] = Counter()  # of (class, success, failure or unknown)

    def round(self, connection: sqlite3.Connection) -> bool:
        """Take in what is new, up to `CHUNK` rows; return whether there may be more. Raises `sqlite3.Error`."""
        if self._prepared is not connection:
            _prepare(connection, self._rules)
            self._prepared = connection
        if self._old is None:
            self._old = connection.execute(sql.LAST).fetchone()[0] or 0
        now = self._now()
        if not connection.execute(sql.WAITING, (now,)).fetchone()[0]:
            return False
        found = _made(connection, now)
        mark, rounds, asked = found.state
        with _transaction(connection, "IMMEDIATE"):
            if _state(connection) != found.state:
                return True  # somebody else was quicker: what was made is old
            connection.execute(sql.SETTLED, {"seq": found.seq})
            for statement in (sql.BEFORE, sql.TASKS, sql.SUMS, sql.LATENCIES):
                connection.execute(statement)
            if found.upto - asked >= ASKS:
                for statement in sql.KEPT_ASKED:
                    connection.execute(statement)
                asked = found.upto
            connection.execute(sql.SET_STATE, (found.upto, rounds + 1, asked))
            connection.execute(sql.SET_ASKED_AT, (found.upto, rounds + 1))
        if mark >= self._old:
            for request_class, success, count in connection.execute(sql.VERDICTS).fetchall():
                self.verdicts[request_class, _OUTCOMES[success]] += count
        return True


class Beside:
    """A thread of its own in which *keeper* keeps up the ledger at *path*, from `start` to `close`."""

    def __init__(self, path: Path, keeper: Keeper) -> None:
        self._path = path
        self._keeper = keeper
        self._closing = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="negawatt-tasks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, in the middle of a round if need be: the next one makes it anew."""
        self._closing.set()
        while self._thread.is_alive():
            connection = self._connection
            if connection is not None:
                with suppress(sqlite3.ProgrammingError):  # it is closed already
                    connection.interrupt()
            self._thread.join(0.1)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            try:
                with closing(opened(self._path)) as self._connection:
                    self._rounds(self._connection)
            except (sqlite3.Error, InputError) as error:
                if not self._closing.is_set():
                    log.error("the tasks of the ledger %s could not be rolled up: %s", self._path, error)
                pause_s = _FAILED_S
            finally:
                self._connection = None

    def _rounds(self, connection: sqlite3.Connection) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            began = time.thread_time()
            self._keeper.round(connection)
            connection.execute("PRAGMA shrink_memory")  # the next round is a second away, and needs other pages
            pause_s = max(_LEAST_S, _REST * (time.thread_time() - began))


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


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str = "") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself where it is interrupted, or the disk is full
            connection.execute("ROLLBACK")
        raise


def _prepare(connection: sqlite3.Connection, rules: tuple[Rule, ...] | None) -> None:
    for statement in sql.TEMPORARY:
        connection.execute(statement)
    if rules is None or _known(connection) == rules:
        return
    with _transaction(connection, "IMMEDIATE"):
        connection.execute(sql.FORGET_RULES)
        connection.executemany(sql.SET_RULE, rules)
        rounds = _state(connection).rounds
        # Every task is judged anew, while the mark passes its rows.
        connection.execute(sql.SET_STATE, (0, rounds + 1, 0))


def _state(connection: sqlite3.Connection) -> _State:
    return _State(*connection.execute(sql.STATE).fetchone())


def _known(connection: sqlite3.Connection) -> tuple[Rule, ...]:
    rows = connection.execute(sql.RULES)
    return tuple(Rule(name, bool(answered), bool(valid), bool(schema), retry, score)
                 for name, answered, valid, schema, retry, score in rows)  # fmt: skip


def _made(connection: sqlite3.Connection, now: float) -> _Found:
    """Make the tasks of the next rows, words and moments anew, in temporary tables."""
    for statement in sql.EMPTIED:
        connection.execute(statement)
    state = _state(connection)
    mark = state.mark
    upto = connection.execute(sql.NEWEST, (mark, CHUNK)).fetchone()[0] or mark
    seq = connection.execute(sql.NEWEST_TOUCH, (CHUNK,)).fetchone()[0] or 0
    values: dict[str, Any] = {"mark": mark, "upto": upto, "seq": seq, "now": now, "most": CHUNK}
    window = connection.execute(sql.WINDOW).fetchone()[0]
    _ask(connection, state, upto)
    with _transaction(connection):  # one view of the ledger; others go on writing
        for statement in (sql.ALIKE, *sql.TOUCHED_BY_RETRIES) if window is not None else ():
            connection.execute(statement, {**values, "window": window})
        for statement in (sql.TOUCHED_BY_ROWS, sql.TOUCHED_BY_WORDS, sql.TOUCHED_BY_TIME, *sql.PLACES):
            connection.execute(statement, values)
        for statement in (sql.HEARD, sql.MADE):
            connection.execute(statement, values)
    return _Found(state, upto, seq)


def _ask(connection: sqlite3.Connection, state: _State, upto: int) -> None:
    """Have who asked what in rows up to *upto* in `task_ask`, or in the temporary table beside it."""
    since = state.mark
    if connection.execute(sql.ASKED_AT).fetchone() != (state.mark, state.rounds):  # it is empty, or others did a round
        connection.execute(sql.FORGET_ASKED)
        since = state.asked
    connection.execute(sql.ASKED, {"mark": since, "upto": upto})
