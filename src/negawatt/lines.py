"""Files of lines (JSONL, CSV), plain or gzip: read one line at a time, with errors that name the place.

Lines end at ``\\n`` and nowhere else: JSON texts may hold other characters that Unicode calls line ends.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from negawatt.call import Request, json_name
from negawatt.config import convert
from negawatt.errors import ConfigError, InputError, InvalidRequest
from negawatt.wire.wires import WIRES

_T = TypeVar("_T")
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """One line of one file."""

    path: Path
    line: int  # from 1

    def error(self, what: str, field: str | None = None) -> InputError:
        """Return the error ``file:line: field: what``."""
        return InputError(f"{self}: {field}: {what}" if field else f"{self}: {what}", param=field)

    def parse(self, raw: bytes) -> dict[str, Any]:
        """Return the JSON object in *raw*. Raises `InputError`."""
        try:
            data = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise self.error(f"not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise self.error(f"expected a JSON object, got {json_name(data)}")
        return data

    def convert(self, data: object, kind: type[_T]) -> _T:
        """Return *data* as *kind*. Raises `InputError`, which names the path of the bad value."""
        try:
            return convert(data, kind, str(self))
        except ConfigError as error:
            raise InputError(error.message, param=error.param) from error

    def check(self, data: dict[str, Any], protocol: str, field: str = "") -> None:
        """Raise `InputError` unless *data*, found in *field*, is a request that the gateway would take."""
        wire = WIRES.get(protocol)
        if wire is None:
            raise self.error(f"there is no protocol {protocol!r}; known: {', '.join(WIRES)}", "protocol")
        try:
            wire.check(Request(data=data))
        except InvalidRequest as error:
            prefix = f"{field}." if field else ""
            raise InputError(f"{self}: {prefix}{error.message}", param=f"{prefix}{error.param or ''}") from error
        try:
            orjson.dumps(data)  # reading allows for deeper nesting than writing, and it has to be sent and compared
        except orjson.JSONEncodeError as error:
            raise self.error(f"cannot be sent: {error}", field or None) from error

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def read_lines(path: Path) -> Iterator[tuple[Place, bytes]]:
    """Yield the lines of *path* that are not blank, without their ends. Gzip is known by its first bytes.

    Raises `InputError` when the file cannot be read.
    """
    number = 0
    try:
        with path.open("rb") as file:
            source: Iterable[bytes] = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _GZIP else file
            for number, line in enumerate(source, 1):  # binary files split at \n only
                text = (line.removeprefix(_BOM) if number == 1 else line).strip(b" \t\r\n")
                if text:
                    yield Place(path, number), text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Place(path, number + 1).error(f"the gzip data are damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """Write each of *lines* as JSON; gzip where *path* ends in ``.gz``. Return how many there were.

    Raises `InputError` when the file cannot be written.
    """
    count = 0
    try:
        with path.open("wb") as file:
            zipped = path.suffix == ".gz"  # without name and time, so that the same lines give the same bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) if zipped else nullcontext(file) as out:
                for line in lines:
                    out.write(orjson.dumps(line) + b"\n")
                    count += 1
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return count
