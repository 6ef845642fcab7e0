"""Decoding a response body: gzip and deflate, in steps of bounded size.

A few kilobytes of gzip can unfold into gigabytes, so nothing is unfolded before it is asked for.
"""

from __future__ import annotations

import zlib

from negawatt.errors import UpstreamProtocolError

STEP_BYTES = 64 * 1024  # what one `pull` returns at most

_GZIP = 31  # zlib's window size for "gzip header and trailer"
_RAW = -15  # ... for "no header"; some servers send that as deflate
_ZLIB = 15


class Inflater:
    """Push what came, pull what it means, `finish` at the end. Raises UpstreamProtocolError on bad data."""

    __slots__ = ("_coding", "_full", "_inflate", "_pending")

    def __init__(self, coding: str) -> None:
        """*coding* is the value of ``content-encoding``."""
        self._coding = coding.strip().lower()
        if self._coding not in ("gzip", "x-gzip", "deflate"):
            raise UpstreamProtocolError(f"the answer is in a coding that we do not decode: {coding!r}")
        self._inflate: zlib._Decompress | None = None
        self._pending = b""
        self._full = False  # the last step filled its limit, so zlib may hold more than what it was fed

    def push(self, data: bytes) -> None:
        self._pending += data

    def pull(self) -> bytes:
        """Return the next decoded bytes, at most STEP_BYTES; b"" if more has to be pushed first."""
        while self._pending or self._full:
            inflate = self._inflate
            if inflate is None or inflate.eof:  # several gzip members in a row are one body
                inflate = self._inflate = self._begin()
                if inflate is None:
                    return b""
            try:
                piece = inflate.decompress(self._pending, STEP_BYTES)
            except zlib.error as error:
                raise UpstreamProtocolError(f"the answer is not the {self._coding} it says it is") from error
            self._pending = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            self._full = len(piece) == STEP_BYTES and not inflate.eof
            if piece:
                return piece
        return b""

    def finish(self) -> None:
        """Raise if the body ended before the coding did. No body at all is fine."""
        if self._pending or (self._inflate is not None and not self._inflate.eof):
            raise UpstreamProtocolError(f"the answer's {self._coding} ends in the middle")

    def _begin(self) -> zlib._Decompress | None:
        if self._coding != "deflate":
            return zlib.decompressobj(_GZIP)
        if len(self._pending) < 2:
            return None
        first, second = self._pending[:2]
        has_header = first & 0x0F == 8 and (first << 8 | second) % 31 == 0
        return zlib.decompressobj(_ZLIB if has_header else _RAW)


def coding_of(encoding: str | None) -> str | None:
    """Return the ``content-encoding`` that has to be undone, or None."""
    return None if encoding is None or encoding.strip().lower() in ("", "identity") else encoding
