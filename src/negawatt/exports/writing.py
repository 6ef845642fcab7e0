"""Files that are there whole or not at all: written beside their place, and put there when they are complete."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from negawatt.errors import InputError


@contextlib.contextmanager
def output(out: Path | None) -> Iterator[IO[bytes]]:
    """Open *out* to be written, None or ``-`` for standard output. Raises `InputError` where that cannot be.

    Until the end nothing lies under the name, or what lay there before; a failure leaves it so.
    """
    if out is None or str(out) == "-":
        with _refused(Path("standard output")):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    if out.is_dir():
        raise InputError(f"{out}: cannot be written: it is a folder")
    if out.exists() and not out.is_file():  # a pipe or a device has nothing to be kept whole
        with _refused(out), out.open("wb") as file:
            yield file
        return
    with _refused(out):
        number, name = tempfile.mkstemp(prefix=f".{out.name[:100]}.", suffix=".part", dir=out.parent)
    part = Path(name)
    try:
        with _refused(out), os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _refused(out):
            part.chmod(out.stat().st_mode & 0o777 if out.exists() else 0o666 & ~_umask())
            part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


@contextlib.contextmanager
def _refused(out: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
