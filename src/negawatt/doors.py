"""Opening what a configuration says of who may come in: the keys, and the log of what they change."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from negawatt.access.file import KeyFile
from negawatt.access.key import Key, Terms
from negawatt.access.keyring import Keyring
from negawatt.caller import Caller
from negawatt.catalogue import Catalogue
from negawatt.clock import Clock, SystemClock
from negawatt.config import Config
from negawatt.config_access import DEFAULT_KEYS
from negawatt.errors import ConfigError, InvalidRequest
from negawatt.levers.admit import Callers
from negawatt.registry import Url


class Audit:
    """The log of changes, for whatever changes something that money or trust depends on.

    It is kept in the file of *keys*. Where there is none, nobody has a name, and nothing is noted.
    """

    def __init__(self, keys: KeyFile | None, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def note(self, actor: str, action: str, about: str = "", detail: Mapping[str, Any] | None = None) -> bool:
        """Write down that *actor* did *action* to what *about* names; True when it is on disk.

        It waits for the disk: from an event loop, use `asyncio.to_thread`. Raises `KeyFileError`.
        """
        if self._keys is None or not self._keys.begun:
            return False
        self._keys.note(self._clock.time(), actor, action, about=about, detail=detail or {})
        return True


class Access(NamedTuple):
    """Who may come in. *keys*: None where other callers were given than those of a configuration."""

    keyring: Callers
    keys: KeyFile | None
    audit: Audit

    def stands(self, caller: Caller, digest: bytes) -> bool:
        """True while *caller*, who came in earlier by the secret of that SHA-256, could come in by it again.

        Callers that were given instead of a configuration's are not known to change.
        """
        return not isinstance(self.keyring, Keyring) or self.keyring.stands(caller, digest)

    def keyring_changed(self) -> None:
        """Take in at once what has changed in the file, and not at the next look."""
        if isinstance(self.keyring, Keyring):
            self.keyring.look()


def key_file(config: Config) -> tuple[KeyFile, bool]:
    """Return the file of keys, and whether the configuration names it, so that it has to be there.

    Raises `ConfigError`.
    """
    where = "access.keys"
    text = config.access.keys
    url = Url.parse(DEFAULT_KEYS if text is None else text, where)
    if url.scheme != "sqlite" or not url.path:
        raise ConfigError(f"{where}: {text!r} is not a file such as {DEFAULT_KEYS}", param=where)
    url.only(where=where)
    return KeyFile(Path(url.path)), text is not None


def open_keyring(config: Config, environ: Mapping[str, str], clock: Clock | None = None) -> Keyring:
    """Return the keys that are accepted. Raises `ConfigError` or `KeyFileError`."""
    file, named = key_file(config)
    return Keyring(config.keys, environ, file=file, required=named, clock=clock)


@asynccontextmanager
async def open_access(
    config: Config, environ: Mapping[str, str], clock: Clock, given: Callers | None
) -> AsyncIterator[Access]:
    """Open who may come in by *config*; those that are *given*, instead. Raises `ConfigError` or `KeyFileError`."""
    if given is not None:
        yield Access(given, None, Audit(None, clock))
        return
    file, _ = key_file(config)
    keyring = open_keyring(config, environ, clock)
    real = isinstance(clock, SystemClock)  # on a virtual one nothing changes beside it
    if real:
        keyring.watch()
    try:
        yield Access(keyring, file, Audit(file, clock))
    finally:
        if real:
            await asyncio.to_thread(keyring.close)
        else:
            keyring.close()


def check_names(terms: Terms, config: Config) -> None:
    """Raise `InvalidRequest` for *terms* of a key that name what *config* has not, or is an entry of it already."""
    if any(key.id == terms.id for key in config.keys):
        raise InvalidRequest(f"id: {terms.id!r} is a key of the configuration", param="id")
    _known("classes", "class", terms.classes, {"default", *config.classes})
    # A budget that is not there would hold back nothing, and nobody would hear of it.
    _known("budgets", "budget", terms.budgets, {budget.name for budget in config.budgets})
    catalogue = Catalogue(config)
    for name in terms.models or ():
        if config.providers and not catalogue.targets(name):
            there = ", ".join(catalogue.names()[:20]) or "none"
            raise InvalidRequest(f"models: no provider here serves {name!r}; known: {there}", param="models")


def _known(field: str, kind: str, names: Iterable[str] | None, known: Collection[str]) -> None:
    for name in names or ():
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(f"{field}: no {kind} is named {name!r}; known: {there}", param=field)


def shown(key: Key, now: float) -> dict[str, Any]:
    """Return *key* as JSON has it: with what it is at *now*, and nothing that opens anything."""
    return {**msgspec.to_builtins(key), "state": key.state(now), "source": "file"}


def name_of(caller: Caller) -> str:
    """Return how the audit log names *caller*."""
    return caller.key_id or "anyone"  # where no key is asked for


def person() -> str:
    """Return how the audit log names who types a command on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container may have no name for the user that it runs as
        return f"cli:{os.getuid()}"


def note_here(config: Config, action: str, about: str, detail: Mapping[str, Any]) -> None:
    """Write down, in the file of keys if there is one, what a command on this machine did. Raises `KeyFileError`."""
    Audit(key_file(config)[0], SystemClock()).note(person(), action, about, detail)


def digest_of(config: Config) -> str:
    """Return the SHA-256 of *config*, which tells one configuration from another."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()
