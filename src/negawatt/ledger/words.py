"""Keeping feedback: each word once, in the order in which they came, through the ledger's one writer."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import msgspec

from negawatt.errors import InvalidRequest, RateLimited
from negawatt.ledger import sql_success as sql
from negawatt.ledger.feedback import MOST_WAITING, Feedback

log = logging.getLogger(__name__)


def taken(word: Feedback, under_key: Feedback | None, newest: Feedback | None) -> bool:
    """True when *word* is there already: under its own key, or as the newest word about the same thing.

    Raises `InvalidRequest` for a key that stands for another word.
    """
    if under_key is not None:
        if under_key.words != word.words:
            message = "idempotency_key: it was sent before, with another content; take a new key for a new word"
            raise InvalidRequest(message, param="idempotency_key")
        return True
    return word.idempotency_key is None and newest is not None and newest.words == word.words


class Words:
    """Feedback that waits for the writer. `add` may be called from any thread, `write` from the writer's alone."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Feedback, Future[bool]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, word: Feedback) -> Future[bool]:
        """Return what says, once *word* is on disk, whether it is a new one. Raises `RateLimited`."""
        if len(self._waiting) >= MOST_WAITING:
            raise RateLimited(f"{MOST_WAITING} words of feedback wait for the ledger's disk; try again shortly")
        future: Future[bool] = Future()
        self._waiting.append((word, future))
        return future

    def write(self, connection: sqlite3.Connection) -> None:
        """Keep what waits, in one transaction; where the disk refuses, it goes on waiting."""
        batch = self._waiting[:]
        del self._waiting[: len(batch)]
        if not batch:
            return
        try:
            found = kept(connection, (word for word, _ in batch))
        except sqlite3.Error as error:
            self._waiting[:0] = batch
            log.error("feedback could not be written (%s); %d words wait", error, len(self._waiting))
            return
        for (_, future), one in zip(batch, found, strict=True):
            with suppress(InvalidStateError):  # nobody waits for it any more
                if isinstance(one, InvalidRequest):
                    future.set_exception(one)
                else:
                    future.set_result(one)


def kept(connection: sqlite3.Connection, words: Iterable[Feedback]) -> list[bool | InvalidRequest]:
    """Write *words* in one transaction; return of each whether it is new, or why it cannot be kept."""
    found: list[bool | InvalidRequest] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for word in words:
            try:
                found.append(_keep(connection, word))
            except InvalidRequest as error:
                found.append(error)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return found


def _keep(connection: sqlite3.Connection, word: Feedback) -> bool:
    under_key = None
    if word.idempotency_key is not None:
        under_key = _one(connection, sql.UNDER_KEY, (word.tenant, word.permissions, word.idempotency_key))
    if taken(word, under_key, _one(connection, sql.NEWEST, word.subject)):
        return False
    connection.execute(sql.KEEP, msgspec.structs.astuple(word))
    connection.execute(sql.TOUCH_TASK if word.kind == "task" else sql.TOUCH_CALL, (word.tenant, word.about))
    return True


def _one(connection: sqlite3.Connection, statement: str, values: tuple[str, ...]) -> Feedback | None:
    row = connection.execute(statement, values).fetchone()
    return None if row is None else feedback_of(row)


def feedback_of(row: tuple[object, ...]) -> Feedback:
    """Return what `sql_success.WORDS` names, as feedback."""
    values = dict(zip(Feedback.__struct_fields__, row, strict=True))
    if values["success"] is not None:
        values["success"] = bool(values["success"])
    return msgspec.convert(values, Feedback)
