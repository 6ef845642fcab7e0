"""What a key is: who holds it, what it may be used for, and until when."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from negawatt.errors import InvalidRequest

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,99}")
_OTHERS = ("anyone", "server")  # by whom the audit log says that something was changed, and who have no key
_NAME = Annotated[str, Meta(min_length=1, max_length=200)]
_NAMES = Annotated[tuple[_NAME, ...], Meta(max_length=200)]
State = Literal["active", "expired", "revoked"]


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody asks for who makes a key. *models* and *classes*: None is any."""

    id: str | None = None  # None: the secret's handle
    note: Annotated[str, Meta(max_length=500)] = ""
    tenant: _NAME = "default"
    user: _NAME | None = None
    permissions: _NAMES = ()
    models: _NAMES | None = None
    classes: _NAMES | None = None
    budgets: _NAMES = ()
    expires_at: float | None = None  # seconds since 1970
    admin: bool = False
    use: bool = True

    def check(self, now: float) -> None:
        """Raise `InvalidRequest`, which names the field, for what no key can be."""
        try:
            msgspec.convert(msgspec.to_builtins(self), Terms)  # also for what was not read from JSON
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            field = where.rstrip("`").removeprefix(".").partition("[")[0]
            _refuse(field, what[:1].lower() + what[1:].replace("`", ""))
        if self.id is not None and not ID.fullmatch(self.id):
            _refuse("id", "expected a letter or digit, then up to 99 letters, digits, _, ., @, : or -")
        if self.id is not None and (self.id in _OTHERS or self.id.startswith("cli:")):
            _refuse("id", f"{self.id!r} stands for somebody else in the audit log")
        texts = [("note", self.note), ("tenant", self.tenant), ("user", self.user or "")]
        for name in ("permissions", "models", "classes", "budgets"):
            texts += [(name, one) for one in getattr(self, name) or ()]
        for name, text in texts:
            if not text.isprintable():
                _refuse(name, "expected printable characters")
        if self.expires_at is not None and not now < self.expires_at < 1e11:
            _refuse("expires_at", "expected a moment to come, in seconds since 1970")
        for name in ("models", "classes"):
            if getattr(self, name) == ():
                _refuse(name, "expected at least one; leave it out for any")
        if not (self.admin or self.use):
            _refuse("use", "a key that may neither be used nor administrate opens nothing")


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One secret of a key, as it may be shown. *ends_at*: from then on another has taken its place."""

    handle: str
    made_at: float
    ends_at: float | None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept. Times are seconds since 1970; *used_at* is known to the minute."""

    id: str
    note: str
    tenant: str
    user: str | None
    permissions: tuple[str, ...]
    models: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    budgets: tuple[str, ...]
    admin: bool
    use: bool
    expires_at: float | None
    created_at: float
    created_by: str
    revoked_at: float | None
    used_at: float | None
    secrets: tuple[Shown, ...] = ()

    def state(self, now: float) -> State:
        """Return what the key is at *now*."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def _refuse(field: str, what: str) -> None:
    raise InvalidRequest(f"{field}: {what}", param=field)
