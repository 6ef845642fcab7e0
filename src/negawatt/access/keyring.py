"""Whose key is whose: those of the configuration, and those of the file, which may change while the gateway runs.

Nothing is asked of the file on the path of a call. A thread looks at it twice a second, and puts what it finds in the
place of what was known. A secret is found by its SHA-256 in one look-up, and compared in constant time. What can be
measured of that is about the digest of what was sent, of which nobody can choose one bit after another: it says
nothing of the digests that are held, and these nothing of the secrets.
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from negawatt.access.file import Held, KeyFile, failing_as_key_file_error, open_to_read, refuse_if_missing, secrets_in
from negawatt.access.key import Key
from negawatt.access.secrets import digest_of, mistyped
from negawatt.caller import Caller
from negawatt.clock import Clock
from negawatt.config import Key as Configured
from negawatt.errors import (
    AuthenticationError,
    ConfigError,
    ExpiredKey,
    KeyFileError,
    PermissionDenied,
    RevokedKey,
)
from negawatt.keys import permissions_digest

log = logging.getLogger(__name__)

LOOK_S = 0.5  # between two looks at the file
USED_S = 60.0  # between two writings of when keys were used
_BUSY_MS = 200
_BUSY_LOOKS = 20  # in a row that find the file locked, before what was known of it no longer counts
_ANYONE = Caller()
_NEVER = float("inf")


class Known(NamedTuple):
    """What one secret opens, and until when."""

    digest: bytes
    caller: Caller
    ends_at: float = _NEVER
    ends_as: str = "expired"  # expired, replaced or revoked
    kept: bool = False  # in the file, where its last use is noted


class Keyring:
    """The keys that are accepted. Only digests are held.

    *file*: None where only the *keys* of the configuration count. *required*: the file has to be there. Raises
    `ConfigError`, or `KeyFileError` for a file that cannot be read: nobody is let in by guess.
    """

    def __init__(
        self,
        keys: tuple[Configured, ...],
        environ: Mapping[str, str],
        *,
        file: KeyFile | None = None,
        required: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._configured = _configured(keys, environ)
        self._file = file
        self._clock = clock
        self._known = self._configured
        self._problem: str | None = None  # why the file's keys are not known at the moment
        self._shut = bool(self._configured)  # and never open again, whatever becomes of the file
        self._watched: _Watched | None = None
        self._busy = 0
        self._used: dict[str, float] = {}
        self._told = False
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        if file is not None and (required or file.begun):
            self._read(file)

    @property
    def open(self) -> bool:
        """True when no key is asked for."""
        return not self._shut

    @property
    def administered(self) -> bool:
        """True when there is a key of an administrator that is good now."""
        now = self._now()
        return any(known.caller.admin and known.ends_at > now for known in self._known.values())

    @property
    def divided(self) -> bool:
        """True when keys are of several tenants, or of several permissions."""
        return len({(one.caller.tenant, one.caller.permissions) for one in self._known.values()}) > 1

    def stands(self, caller: Caller, digest: bytes) -> bool:
        """True while the secret of that *digest* would be accepted as that of *caller*, who came in by it earlier."""
        known = self._known.get(digest)
        return known is not None and known.caller == caller and known.ends_at > self._now()

    def caller(self, secret: str | None) -> Caller:
        """Return whose key *secret* is, which has to be one to use. Raises `AuthenticationError` and its like."""
        caller = self.holder(secret)
        if not caller.use:
            raise PermissionDenied("this key is for administration; calls need a key that may be used for them")
        return caller

    def holder(self, secret: str | None) -> Caller:
        """Return whose key *secret* is, whatever it is for. Raises `AuthenticationError` and its like."""
        if not self._shut:
            return _ANYONE
        if not secret:
            raise AuthenticationError("no API key: send it as 'Authorization: Bearer KEY'")
        digest = digest_of(secret)
        known = self._known.get(digest)
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise self._unknown(secret)
        now = self._now()
        if known.ends_at <= now:
            raise _ended(known)
        if known.kept and known.caller.key_id is not None:
            self._used[known.caller.key_id] = now
        return known.caller

    # -- the file ----------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Begin to look at the file, in a thread of its own, until `close`."""
        if self._file is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="negawatt-keys", daemon=True)
            self._thread.start()

    def look(self) -> None:
        """See what has changed in the file since the last look; what it was, counts from here on."""
        if self._file is None:
            return
        with self._lock:
            try:
                if self._watched is None and self._problem is None and not self._file.begun:
                    return  # nobody has made a key yet
                self._read(self._file)
            except KeyFileError as error:
                self._lose(error)
            except Exception as error:  # whatever it is: what cannot be looked at lets nobody in
                log.exception("the file of keys %s cannot be looked at", self._file.path)
                self._lose(KeyFileError(f"{self._file.path}: the file of keys cannot be looked at: {error}"))

    def close(self) -> None:
        """Stop looking; write down which keys were used."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=15.0)
        self._write_used()
        with self._lock:
            if self._watched is not None:
                self._watched.close()
                self._watched = None

    def _run(self) -> None:
        looks = 0
        while not self._ending.wait(LOOK_S):
            self.look()
            looks += 1
            if looks * LOOK_S >= USED_S:
                looks = 0
                self._write_used()

    def _read(self, file: KeyFile) -> None:
        """Take in what the file says now, if it is not what it said before. Raises `KeyFileError`."""
        with failing_as_key_file_error(file.path):
            if self._watched is not None and not self._watched.same_file():
                self._watched.close()
                self._watched = None
            if self._watched is None:
                self._watched = _Watched(file)
            if not self._watched.changed() and self._problem is None:
                return
            held = self._watched.secrets()
        found = dict(self._configured)
        for digest, key, ends_at in held:
            found.setdefault(digest, _known(digest, key, ends_at))
        self._known = found
        self._shut = self._shut or bool(held)
        self._busy = 0
        if self._problem is not None:
            self._problem = None
            log.warning("the file of keys %s can be read again", file.path)

    def _lose(self, error: KeyFileError) -> None:
        """The file cannot be read: its keys are not known any more; what locks it for a moment is waited for."""
        locked = isinstance(error.__cause__, sqlite3.OperationalError) and "locked" in str(error.__cause__)
        if locked and self._busy < _BUSY_LOOKS:
            self._busy += 1
            return
        if self._watched is not None:
            self._watched.close()
            self._watched = None
        self._known, self._shut = self._configured, True
        if self._problem is None:
            log.error("%s; nobody is let in by a key that lies there, until it can be read", error.message)
        self._problem = error.message

    def _write_used(self) -> None:
        taken, self._used = self._used, {}
        used = taken.copy()  # a call that began before this line may still write into the old one
        if not used or self._file is None or self._problem is not None:
            return
        try:
            self._file.note_used(used)
        except KeyFileError as error:
            if not self._told:
                log.warning("when keys were used cannot be kept: %s", error.message)
            self._told = True  # once: it may be that the file is not to be written
        else:
            self._told = False

    def _unknown(self, secret: str) -> AuthenticationError | KeyFileError:
        if self._problem is not None:
            return KeyFileError("the keys of this gateway cannot be read at the moment; its log says why")
        if mistyped(secret):
            return AuthenticationError("this API key is cut short or mistyped: its last characters do not fit the rest")
        return AuthenticationError("this API key is not known here")

    def _now(self) -> float:
        return datetime.now(UTC).timestamp() if self._clock is None else self._clock.time()


class _Watched:
    """The open file, of which SQLite says whether another has written it."""

    def __init__(self, file: KeyFile) -> None:
        self._path = file.path
        self._version: int | None = None
        refuse_if_missing(file.path)
        self._state = self._looked_at()
        self._connection = open_to_read(file.path)
        self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    def same_file(self) -> bool:
        """False when the file was written, or another lies there under this name; raises `OSError` when none does.

        Also one that was copied over it, of which SQLite need not notice anything.
        """
        return self._looked_at() == self._state

    def _looked_at(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def changed(self) -> bool:
        """True at the first look, and whenever another connection has written since the last, however soon after."""
        before = self._version
        self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return self._version != before

    def secrets(self) -> list[Held]:
        self._connection.execute("BEGIN")  # one state of the file, whatever others write meanwhile
        try:
            return secrets_in(self._connection)
        except sqlite3.Error:
            self._version = None  # it was not read: the next look has to
            raise
        finally:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


def _configured(keys: tuple[Configured, ...], environ: Mapping[str, str]) -> dict[bytes, Known]:
    found: dict[bytes, Known] = {}
    for i, key in enumerate(keys):
        secret = environ.get(key.key_env)
        if not secret:
            raise ConfigError(f"keys[{i}].key_env: the variable {key.key_env} is not set", param="key_env")
        digest = digest_of(secret)
        if digest in found:
            raise ConfigError(f"keys[{i}]: {key.key_env} holds the same key as another entry")
        found[digest] = Known(digest, _caller(key))
    return found


def _caller(key: Configured | Key) -> Caller:
    return Caller(
        tenant=key.tenant,
        user=key.user,
        key_id=key.id,
        permissions=permissions_digest(key.permissions),
        models=None if key.models is None else frozenset(key.models),
        classes=None if key.classes is None else frozenset(key.classes),
        budgets=key.budgets,
        admin=key.admin,
        use=key.use,
    )


def _known(digest: bytes, key: Key, replaced_at: float | None) -> Known:
    ends = {"revoked": key.revoked_at, "expired": key.expires_at, "replaced": replaced_at}
    ends_as, ends_at = min(ends.items(), key=lambda end: _NEVER if end[1] is None else end[1])
    if key.revoked_at is not None:
        ends_as, ends_at = "revoked", 0.0  # whatever any clock says
    return Known(digest, _caller(key), _NEVER if ends_at is None else ends_at, ends_as, kept=True)


def _ended(known: Known) -> AuthenticationError:
    if known.ends_as == "revoked":
        return RevokedKey("this API key was revoked")
    when = datetime.fromtimestamp(known.ends_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if known.ends_as == "replaced":
        return RevokedKey(f"this API key was replaced by a new one, and ended on {when}")
    return ExpiredKey(f"this API key expired on {when}")
