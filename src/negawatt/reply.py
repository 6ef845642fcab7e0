"""A Reply: a whole body that unfolds into chunks, or chunks that fold into a whole body.

Nobody above the provider needs to know which of the two it is. Whoever reads it reads it once, as `whole()` or
by iterating over bursts of chunks; whoever needs to know how it ended asks to be called (`on_end`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

import orjson

from negawatt.deadline import Deadline
from negawatt.errors import UpstreamProtocolError
from negawatt.protocol import Folded, Folder

log = logging.getLogger(__name__)


class Chunk:
    """One event of a stream: the JSON text as it came, parsed when first looked into."""

    __slots__ = ("_data", "_raw")

    def __init__(self, raw: bytes | None = None, data: dict[str, Any] | None = None) -> None:
        self._raw = raw
        self._data = data

    def forget(self) -> None:
        """Drop what can be parsed again: dicts weigh ten times their text."""
        if self._raw is not None:
            self._data = None

    @property
    def raw(self) -> bytes:
        if self._raw is None:
            try:
                self._raw = orjson.dumps(self._data)
            except orjson.JSONEncodeError as error:
                raise UpstreamProtocolError(f"the answer cannot be written as JSON again: {error}") from error
        return self._raw

    @property
    def data(self) -> dict[str, Any]:
        if self._data is None:
            self._data = _object_in(self._raw or b"", "a chunk of the stream")
        return self._data


def _object_in(raw: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in *raw*. Raises `UpstreamProtocolError`.

    Not from the decoder's own error: that one holds all of the text, which may be megabytes.
    """
    try:
        data, wrong = orjson.loads(raw), None
    except orjson.JSONDecodeError as error:
        data, wrong = None, f"{what} is not valid JSON: {error}"
    if wrong is None and not isinstance(data, dict):
        wrong = f"{what} is not a JSON object"
    if wrong is not None:
        raise UpstreamProtocolError(wrong)
    found: dict[str, Any] = data
    return found


Burst = Sequence[Chunk]


class Source(Protocol):
    """Where the chunks of a streamed reply come from. An async generator is one."""

    def __anext__(self) -> Awaitable[Burst]: ...

    async def aclose(self) -> None: ...


class Reply:
    """What came back for a call. Read it once, then `close` it."""

    __slots__ = (
        "_body",
        "_callbacks",
        "_data",
        "_ended",
        "_feeds",
        "_first",
        "_folder",
        "_read",
        "_readers",
        "_source",
        "_told",
        "_wire",
        "answered_by",
        "deadline",
        "error",
        "finished",
        "headers",
        "status",
        "undelivered",
        "usage_basis",
    )  # fmt: skip

    def __init__(
        self, wire: Folded, *, body: bytes | None = None, source: Source | None = None, folder: Folder | None = None
    ) -> None:
        """Give *body*, or *source*. *folder*: one that somebody else feeds with the same chunks."""
        self._wire = wire
        self._body = body
        self._data: dict[str, Any] | None = None
        self._source = source
        self._feeds = source is not None and folder is None
        self._folder = wire.folder() if self._feeds else folder
        self._first: Burst | None = None
        self._read = False
        self._ended = False
        self._callbacks: list[Callable[[Reply], None]] = []
        self._readers: list[Callable[[Reply], None]] | None = []  # None: they have been told
        self._told = False
        self.status = 200
        self.headers: dict[str, str] = {}  # of the provider, worth passing on
        self.answered_by = "provider"  # or the lever that answered
        self.deadline: Deadline | None = None  # whoever reads the reply holds to it
        self.finished = body is not None  # all of it was received
        self.error: BaseException | None = None
        self.usage_basis = "measured"  # who counted the tokens in the answer's usage: the provider, or somebody later
        self.undelivered = False  # the caller hung up before all of it was sent

    # -- what it says ------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Folder | None:
        """What gathers the chunks of a stream; None for a whole body."""
        return self._folder

    @property
    def streamed(self) -> bool:
        """True while this is chunks that have not become a whole."""
        return self._body is None

    @property
    def faithful(self) -> bool:
        """True when the whole body and its chunks stand for each other without loss."""
        if self._folder is not None:
            return self._folder.faithful
        folder = self._wire.folder()
        for data in self._wire.unfold(self.data):
            folder.add(data)
        return folder.faithful and folder.complete and folder.result() == self.data

    @property
    def data(self) -> dict[str, Any]:
        """The parsed whole body, or of a stream what has come so far. Raises `UpstreamProtocolError`."""
        if self._body is None:
            assert self._folder is not None
            if not self.finished:
                return self._folder.result()
            if self._data is None:
                self._data = self._folder.result()
            return self._data
        if self._data is None:
            self._data = _object_in(self._body, "the provider's answer")
        return self._data

    @property
    def body(self) -> bytes:
        """The whole body; of a stream what has come so far, folded."""
        return orjson.dumps(self.data) if self._body is None else self._body

    # -- reading -----------------------------------------------------------------------------------------------

    async def whole(self) -> bytes:
        """Return the whole body, reading and folding the stream first if it is one."""
        if self._body is None:
            async for _ in self:
                pass
            self._data = self.data
            self._body = orjson.dumps(self._data)
        return self._body

    def __aiter__(self) -> Reply:
        return self

    async def prime(self) -> None:
        """Wait until the first chunks are there, so that what fails before them fails here."""
        if self._first is None and self._source is not None:
            self._first = await self.__anext__()

    async def __anext__(self) -> Burst:
        """Return the next chunks: one or more, as they arrived together. Safe to cancel if the source is."""
        if self._first is not None:
            burst, self._first = self._first, None
            return burst
        if self._source is None:
            if self._read:
                raise StopAsyncIteration
            self._read = True
            return [Chunk(data=data) for data in self._wire.unfold(self.data)]
        try:
            burst = await self._source.__anext__()
            if self._feeds and self._folder is not None:
                for chunk in burst:
                    self._folder.add(chunk.data)
        except StopAsyncIteration:
            self.finished = self._folder is not None and self._folder.complete
            self._tell_readers()
            raise
        except Exception as error:
            self.error = error
            raise
        return burst

    # -- ending ------------------------------------------------------------------------------------------------

    def on_end(self, callback: Callable[[Reply], None]) -> None:
        """Have *callback* called once, when the reply has ended, in the order of asking: the deepest lever first.

        It finds `finished`, `error` and `data` settled. It must not block and must not raise.
        One who asks when the others have been called already is called at once.
        """
        if self._told:
            callback(self)
        else:
            self._callbacks.append(callback)

    def on_read(self, callback: Callable[[Reply], None]) -> None:
        """Have *callback* called once, when all of it has been read, or it has ended before: the sooner of the two.

        What the answer cost is known by then, though its caller may not have the last of it yet. A whole body has
        been read from the start. Same rules as for `on_end`.
        """
        if self._body is not None or self._readers is None:
            callback(self)
        else:
            self._readers.append(callback)

    async def close(self) -> None:
        """Let go of everything the reply holds; an unfinished one cancels what it came from. Safe to repeat."""
        if self._ended:
            return
        if self._source is None or self.finished:
            self.settle()
            return
        self._ended = True
        try:
            await self._source.aclose()
        finally:
            self._run_callbacks()

    def settle(self) -> None:
        """End a reply that holds nothing any more: a whole body, or a stream that was read to its end."""
        if not self._ended:
            self._ended = True
            self._run_callbacks()

    def _tell_readers(self) -> None:
        readers, self._readers = self._readers, None
        self._call(readers or ())

    def _run_callbacks(self) -> None:
        if self._readers is not None:
            self._tell_readers()
        callbacks, self._callbacks = self._callbacks, []
        self._told = True
        self._call(callbacks)

    def _call(self, callbacks: Iterable[Callable[[Reply], None]]) -> None:
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                # The others still have to be told: one of them writes the ledger row.
                log.exception("what was to be done at the end of a reply failed")
