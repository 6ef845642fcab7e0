"""Alerts in the ledger's file: a restart neither repeats nor loses one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from negawatt.errors import StoreError
from negawatt.ledger import sql_watch


def keep_alerts(path: Path, changed: Iterable[tuple[str, str, float, str]], dropped: Iterable[str]) -> None:
    """Write *changed*, each (id, state, started_at, JSON), and delete *dropped*. Raises `StoreError`."""
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection, connection:
            connection.executemany(sql_watch.KEEP, changed)
            connection.executemany(sql_watch.DROP, [(one,) for one in dropped])
    except sqlite3.Error as error:
        raise StoreError(f"{path}: alerts could not be kept: {error}") from error


def kept_alerts(path: Path) -> list[str]:
    """Return the alerts that are kept, as JSON, the oldest first. Raises `StoreError`."""
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection, connection:
            return [text for (text,) in connection.execute(sql_watch.KEPT)]
    except sqlite3.Error as error:
        raise StoreError(f"{path}: alerts could not be read: {error}") from error
