"""The file of keys: SQLite, for its owner only. Each change and its line in the audit log are one transaction.

A process that is killed in the middle leaves the change whole or not at all, and two that change it at once wait for
each other. It has no write-ahead log, so that it is one file, and can be read where it cannot be written.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.access import audit, sql
from negawatt.access.key import Key, Shown, Terms
from negawatt.access.secrets import Secret, new_secret
from negawatt.errors import InvalidRequest, KeyFileError, NotFound

_WAIT_S = 10.0  # for another process that is writing
GRACE_S = 6 * 3600.0  # of the old secret, after a rotation that names none
MOST_GRACE_S = 90 * 86_400.0


class Held(NamedTuple):
    """A secret as the gateway holds it: its digest, whose it is, and when another took its place."""

    digest: bytes
    key: Key
    ends_at: float | None


class KeyFile:
    """The file at *path*, which the first key makes. Every method raises `KeyFileError`, which names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def begun(self) -> bool:
        """True when there is something in the file: one that is empty is about to be made, or was about to be."""
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False
        except OSError:
            return True  # what it is will be said by who opens it

    # -- changes -----------------------------------------------------------------------------------------------

    def create(self, terms: Terms, by: str, now: float) -> tuple[Key, str]:
        """Make a key and its first secret, which is returned and nowhere kept. Raises `InvalidRequest`."""
        terms.check(now)
        secret = new_secret()
        name = terms.id or secret.handle
        with self._changing() as connection:
            if connection.execute(sql.KEY, (name,)).fetchone() is not None:
                raise InvalidRequest(f"id: there is, or was, a key {name!r} already", param="id")
            connection.execute(sql.INSERT_KEY, (
                name, terms.note, terms.tenant, terms.user, _json(terms.permissions), _json(terms.models),
                _json(terms.classes), _json(terms.budgets), terms.admin, terms.use, terms.expires_at, now, by, None,
                None,
            ))  # fmt: skip
            connection.execute(sql.INSERT_SECRET, (secret.digest, name, secret.handle, now, None))
            told = {**msgspec.structs.asdict(terms), "handle": secret.handle}
            told = {field: value for field, value in told.items() if field != "id" and value not in (None, "", ())}
            audit.add(connection, now, by, "key.created", about=name, detail=told)
            return _found(connection, name), secret.text

    def revoke(self, name: str, by: str, now: float) -> Key:
        """End the key *name*, at once and for good. Raises `NotFound`, or `InvalidRequest` for one that is ended."""
        with self._changing(make=False) as connection:
            key = _found(connection, name)
            if key.revoked_at is not None:
                raise InvalidRequest(f"id: the key {name!r} was revoked already", param="id")
            connection.execute(sql.REVOKE, (now, name))
            audit.add(connection, now, by, "key.revoked", about=name, detail={})
            return _found(connection, name)

    def rotate(self, name: str, by: str, now: float, grace_s: float = GRACE_S) -> tuple[Key, str]:
        """Give the key *name* a new secret, which is returned; the old ones are good for *grace_s* seconds more.

        Raises `NotFound`, or `InvalidRequest` for a key that has ended.
        """
        if not 0 <= grace_s <= MOST_GRACE_S:
            raise InvalidRequest(f"grace_s: expected 0 to {MOST_GRACE_S:.0f} seconds", param="grace_s")
        secret: Secret = new_secret()
        with self._changing(make=False) as connection:
            key = _found(connection, name)
            if key.state(now) != "active":
                raise InvalidRequest(f"id: the key {name!r} is {key.state(now)}; make a new one", param="id")
            ends_at = now + grace_s
            connection.execute(sql.END_SECRETS, (ends_at, name, ends_at))
            connection.execute(sql.INSERT_SECRET, (secret.digest, name, secret.handle, now, None))
            told = {"handle": secret.handle, "grace_s": grace_s}
            audit.add(connection, now, by, "key.rotated", about=name, detail=told)
            return _found(connection, name), secret.text

    def note(self, now: float, actor: str, action: str, *, about: str, detail: Mapping[str, Any]) -> audit.Line:
        """Append a line to the audit log of a file that is there."""
        with self._changing(make=False) as connection:
            return audit.add(connection, now, actor, action, about=about, detail=detail)

    def note_used(self, used: Mapping[str, float]) -> None:
        """Keep when keys were used last, by id, to the minute."""
        with self._changing(make=False) as connection:
            connection.executemany(sql.USED, [(at // 60 * 60, name) for name, at in used.items()])

    # -- looks -------------------------------------------------------------------------------------------------

    def all(self) -> list[Key]:
        """Return all keys, those that have ended too, oldest first."""
        with self.reading() as connection:
            return keys_in(connection)

    def lines(self, *, since: float = 0.0, before: int | None = None, limit: int = 100) -> list[audit.Line]:
        """Return the newest lines of the audit log, newest first."""
        with self.reading() as connection:
            return audit.lines(connection, since=since, before=before, limit=limit)

    def verify(self, expect: str | None = None) -> audit.Verified:
        """Walk the chain of the audit log."""
        with self.reading() as connection:
            return audit.verify(connection, expect)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open the file to read it."""
        with failing_as_key_file_error(self.path), contextlib.closing(open_to_read(self.path)) as connection:
            connection.execute("BEGIN")  # one state of the file, whatever others write meanwhile
            yield connection

    @contextlib.contextmanager
    def _changing(self, *, make: bool = True) -> Iterator[sqlite3.Connection]:
        """Open the file and change it in one transaction. *make*: where there is none, begin it.

        Only a new key begins one: a file without keys, left where a lost one was, would ask nobody for a key.
        """
        with failing_as_key_file_error(self.path):
            if make:  # before SQLite would make it for all to read
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            else:
                refuse_if_missing(self.path)
            refuse_if_others_may_write(self.path)
            with contextlib.closing(_connected(self.path, "rw")) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    _prepare(connection, self.path)
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")


def keys_in(connection: sqlite3.Connection) -> list[Key]:
    """Return all keys with their secrets' handles."""
    shown: dict[str, list[Shown]] = {}
    for _, name, handle, made_at, ends_at in connection.execute(sql.SECRETS):
        shown.setdefault(name, []).append(Shown(handle=handle, made_at=made_at, ends_at=ends_at))
    return [_key(row, tuple(shown.get(row[0], ()))) for row in connection.execute(sql.KEYS)]


def secrets_in(connection: sqlite3.Connection) -> list[Held]:
    """Return every secret with its key."""
    keys = {key.id: key for key in keys_in(connection)}
    return [Held(bytes(digest), keys[name], ends_at) for digest, name, _, _, ends_at in connection.execute(sql.SECRETS)]


def open_to_read(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads. Raises `KeyFileError`, or what SQLite raises."""
    refuse_if_missing(path)
    refuse_if_others_may_write(path)
    # Who may write it can also undo what a killed process left half done.
    connection = _connected(path, "rw" if os.access(path, os.W_OK) else "ro")
    try:
        connection.execute("PRAGMA query_only = ON")
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def refuse_if_missing(path: Path) -> None:
    """Raise `KeyFileError`, which says how the file comes to be."""
    if not path.exists():
        raise KeyFileError(f"{path}: there is no file of keys here; `negawatt keys create` makes it")


def refuse_if_others_may_write(path: Path) -> None:
    """Raise `KeyFileError` for a file into which another user of the machine could write a key of their own."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileError(f"{path}: others than its owner may write it, and so make keys: chmod 600 {path}")


@contextlib.contextmanager
def failing_as_key_file_error(path: Path) -> Iterator[None]:
    """Raise what SQLite and the system raise as `KeyFileError`, which names *path*."""
    try:
        yield
    except sqlite3.Error as error:
        raise KeyFileError(f"{path}: the file of keys cannot be used: {error}") from error
    except OSError as error:
        raise KeyFileError(f"{path}: the file of keys cannot be opened: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:  # a row that no version of ours wrote
        raise KeyFileError(f"{path}: the file of keys holds what cannot be read: {error!r}") from error


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; look at one that is there."""
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _check(connection, path)
        return
    # Triggers have semicolons inside: the statements are told apart as SQLite itself does.
    statement = ""
    for part in f"{sql.SCHEMA};".split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    connection.execute(f"PRAGMA application_id = {sql.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {sql.VERSION}")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `KeyFileError` for a file that is none of ours, or of a later version."""
    ours = connection.execute("PRAGMA application_id").fetchone()[0] == sql.APPLICATION
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not ours:
        raise KeyFileError(f"{path}: this is no file of keys")
    if version > sql.VERSION:
        raise KeyFileError(f"{path}: this file of keys has schema {version}; this version knows {sql.VERSION}")


def _found(connection: sqlite3.Connection, name: str) -> Key:
    found = next((key for key in keys_in(connection) if key.id == name), None)
    if found is None:
        raise NotFound(f"id: there is no key {name[:100]!r}", param="id")
    return found


def _key(row: tuple[Any, ...], secrets: tuple[Shown, ...]) -> Key:
    name, note, tenant, user, permissions, models, classes, budgets, admin, use, *times = row
    expires_at, created_at, created_by, revoked_at, used_at = times
    return Key(
        id=name, note=note, tenant=tenant, user=user, permissions=_names(permissions) or (), models=_names(models),
        classes=_names(classes), budgets=_names(budgets) or (), admin=bool(admin), use=bool(use),
        expires_at=expires_at, created_at=created_at, created_by=created_by, revoked_at=revoked_at, used_at=used_at,
        secrets=secrets,
    )  # fmt: skip


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(orjson.loads(text))


def _json(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else orjson.dumps(names).decode()
