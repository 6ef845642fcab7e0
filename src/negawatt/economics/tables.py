"""Reading the tables of this room: those that ship with it, and those of the user.

Nothing is read at import: each table is read when the object that uses it is made.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from negawatt.config import convert
from negawatt.errors import ConfigError

_T = TypeVar("_T")
_DATA = Path(__file__).parent / "data"


def shipped(name: str, kind: type[_T]) -> _T:
    """Return the table ``data/<name>`` of this room as *kind*."""
    return read_table(_DATA / name, kind)


def read_table(path: Path, kind: type[_T], *, exact: bool = False) -> _T:
    """Return the TOML file at *path* as *kind*; *exact*: fractions are Decimal, as money must be.

    Raises `ConfigError`, which names the file and the path of the bad value.
    """
    try:
        data = tomllib.loads(_content(path).decode("utf-8"), parse_float=Decimal if exact else float)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return convert(data, kind, str(path))


def digest_of(path: Path) -> str:
    """Return eight hexadecimal digits that change when the file does: part of the version of what it overrides."""
    return hashlib.sha256(_content(path)).hexdigest()[:8]


def refuse(path: Path, where: str, what: str) -> ConfigError:
    """Return the error for a value that has the right type and is wrong all the same."""
    return ConfigError(f"{path}: {where}: {what}", param=where)


def matches(model: str, patterns: str | Sequence[str]) -> bool:
    """Say whether *model* (lower case) matches a shell pattern, or one of several; case does not count."""
    if isinstance(patterns, str):
        return fnmatchcase(model, patterns.lower())
    return any(fnmatchcase(model, pattern.lower()) for pattern in patterns)


def plain_name(model: str) -> str:
    """Return *model* in lower case, without its publisher, with one kind of separator and one decimal point.

    ``meta-llama/Llama-3.1-8B``, ``llama3.1:8b`` and ``accounts/x/models/llama-v3p1-8b`` become ``llama-3.1-8b``,
    ``llama3.1-8b`` and ``llama-v3.1-8b``.
    """
    name = re.sub(r"[:_\s@]+", "-", model.lower().rsplit("/", 1)[-1])
    return re.sub(r"(?<=\d)p(?=\d)", ".", name)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
