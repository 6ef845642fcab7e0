"""Server-sent events: the framing of streamed answers (WHATWG HTML, section 9.2), as far as model APIs use it."""

from __future__ import annotations

from negawatt.errors import UpstreamProtocolError

DONE = b"[DONE]"
MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventParser:
    """Turns pieces of a body, cut anywhere, into the ``data`` of its events.

    Line ends may be LF, CRLF or CR; comments and other fields are skipped; several ``data`` lines of one event are
    joined by a newline, as the standard says. An event of more than *max_bytes* is refused.
    """

    __slots__ = ("_lines", "_max_bytes", "_rest", "_rest_size", "_size", "_skip_lf")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._rest: list[bytes] = []  # of the line that is not yet ended, in the pieces that it came in
        self._rest_size = 0
        self._lines: list[bytes] = []  # data lines of the event that is not yet ended
        self._size = 0
        self._max_bytes = max_bytes
        self._skip_lf = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of every event that *piece* ends. Raises `UpstreamProtocolError` when one is too large."""
        if b"\r" in piece or self._skip_lf:
            if not piece:
                return []
            piece = self._plain(piece)
        if b"\n" not in piece:
            self._keep(piece)
            return []
        if self._rest:
            piece = b"".join([*self._rest, piece])
            self._rest, self._rest_size = [], 0
        lines = piece.split(b"\n")
        rest = lines.pop()
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._lines:
                    events.append(self._take())
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._lines.append(value)
                self._size += len(value)
            elif line == b"data":
                self._lines.append(b"")
        self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
        if self._rest_size + self._size > self._max_bytes:
            raise UpstreamProtocolError(f"an event of the stream is larger than {self._max_bytes} bytes")

    def end(self) -> list[bytes]:
        """Return what the body ended on without a blank line; servers that forget it are common."""
        return self.feed(b"\n\n")

    def _take(self) -> bytes:
        event = self._lines[0] if len(self._lines) == 1 else b"\n".join(self._lines)
        self._lines = []
        self._size = 0
        return event

    def _plain(self, piece: bytes) -> bytes:
        if self._skip_lf and piece.startswith(b"\n"):
            piece = piece[1:]
        self._skip_lf = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def event(data: bytes) -> bytes:
    """Return *data* framed as one event. JSON text has no line ends, so one line is enough."""
    return b"data: " + data + b"\n\n"


def events(data: list[bytes]) -> bytes:
    """Return all of *data* framed as events, as one piece."""
    return b"".join([b"data: " + one + b"\n\n" for one in data])
