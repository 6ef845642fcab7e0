"""Who is signed in: sessions in memory, told apart by a random id that only the browser holds.

Of an id only the digest is kept here, and of a key's secret as well.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from negawatt.caller import Caller

COOKIE = "negawatt_session"
LASTS_S = 12 * 3600.0
IDLE_S = 3600.0
_MOST = 1000
_FAILURES, _FAILURES_S = 20, 60.0  # failed attempts to sign in that are heard within so many seconds


class Session(msgspec.Struct):
    """One browser. Times are seconds since 1970."""

    caller: Caller
    secret: bytes  # SHA-256 of the secret that it was begun with
    expires_s: float
    used_s: float


class Sessions:
    """Begin, find and end sessions. *clock* gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float], draw: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._clock = clock
        self._draw = draw
        self._sessions: dict[bytes, Session] = {}
        self._failures: deque[float] = deque(maxlen=_FAILURES)

    def begin(self, caller: Caller, secret: bytes) -> tuple[str, Session]:
        """Return the id of a new session, which is told once, and the session. *secret*: its digest."""
        now, name = self._clock(), self._draw()
        self._sweep(now)
        while len(self._sessions) >= _MOST:
            del self._sessions[min(self._sessions, key=lambda one: self._sessions[one].used_s)]
        session = self._sessions[_digest(name)] = Session(caller, secret, now + LASTS_S, now)
        return name, session

    def find(self, name: str | None, *, using: bool = True) -> Session | None:
        """Return the session of the id *name*, None for an unknown one or one that is over.

        *using*: somebody asks for something, so that it is not idle.
        """
        found = None if name is None else self._sessions.get(_digest(name))
        if found is None:
            return None
        now = self._clock()
        if _over(found, now):
            return None
        if using:
            found.used_s = now
        return found

    def end(self, name: str | None) -> None:
        """End the session of the id *name*, if there is one."""
        if name is not None:
            self._sessions.pop(_digest(name), None)

    def failed(self) -> None:
        """Somebody tried to sign in and could not."""
        self._failures.append(self._clock())

    @property
    def wait_s(self) -> float:
        """How long nobody may try to sign in, after too many failures; 0 when they may."""
        if len(self._failures) < _FAILURES:
            return 0.0
        return max(0.0, self._failures[0] + _FAILURES_S - self._clock())

    def _sweep(self, now: float) -> None:
        self._sessions = {name: one for name, one in self._sessions.items() if not _over(one, now)}


def _over(session: Session, now: float) -> bool:
    return now >= session.expires_s or now >= session.used_s + IDLE_S


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def cookie_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the session's id that a browser sent."""
    for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def set_cookie(name: str, *, secure: bool) -> bytes:
    """Return the header that has the browser keep *name*; "" has it forget."""
    age = int(LASTS_S) if name else 0
    text = f"{COOKIE}={name}; Path=/admin; HttpOnly; SameSite=Strict; Max-Age={age}"
    return (text + "; Secure" if secure else text).encode("latin-1")
