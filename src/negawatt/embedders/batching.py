"""Between levers and a model: each text is computed once, together with those of other calls, off the event loop.

    embed ── known? ── yes ──────────────────────────────> row
               └─ no ─> asked for, once for all its callers ─> a lane takes a batch ─> the model

A lane takes what is waiting, up to a budget of tokens, computes it, and takes what came in the meantime: nobody waits
for a batch to fill. What nobody waits for any more is not computed.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import msgspec

from negawatt.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMEMBERED = 4096  # texts: 7 MB of vectors of 384 numbers
_MOST_TOKENS = 4096  # in one batch
_CLOSED = "the embedder is closed"


class Model(Protocol):
    """Makes vectors, in the thread that asks, or awaits them."""

    @property
    def id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def learned(self) -> bool: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32] | Awaitable[NDArray[np.float32]]: ...

    def size_of(self, text: str) -> int:
        """Return about how many tokens *text* has."""
        ...


class _Asked(msgspec.Struct, eq=False):
    """A text that somebody wants the row of. *callers*: how many still wait for it."""

    key: bytes
    text: str
    row: asyncio.Future[NDArray[np.float32]]
    callers: int = 0


class Batching:
    """A `negawatt.embedders.Embedder` over a model. What one lever asked, the next finds already made.

    *threads*: compute in one worker thread. False for models that await, and for replay, where the clock is virtual.
    *lanes*: how many batches may be computed at once; more than one only without threads.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: bool = True,
        lanes: int = 1,
        max_batch_tokens: int = _MOST_TOKENS,
        remembered: int = _REMEMBERED,
    ) -> None:
        self.id = model.id
        self.dimensions = model.dimensions
        self.learned = model.learned
        self._model = model
        self._max_batch_tokens = max_batch_tokens
        self._remembered = remembered
        self._known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._waiting: OrderedDict[bytes, _Asked] = OrderedDict()
        self._running: dict[bytes, _Asked] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._most_lanes = lanes
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="negawatt-embedder") if threads else None
        self._closed = False

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row for each of *texts*: shape (len(texts), dimensions). Raises `EmbedderError`."""
        import numpy as np

        if self._closed:
            raise EmbedderError(_CLOSED)
        rows = np.empty((len(texts), self.dimensions), np.float32)
        asked: list[tuple[int, _Asked]] = []
        for place, text in enumerate(texts):
            key = _key(text)
            known = self._known.get(key)
            if known is None:
                asked.append((place, self._ask(key, text)))
            else:
                self._known.move_to_end(key)
                rows[place] = known
        try:
            for place, one in asked:
                rows[place] = await asyncio.shield(one.row)  # others may wait for the same text
        except EmbedderError as error:
            raise EmbedderError(error.message) from error  # one for each caller
        finally:
            for _, one in asked:
                one.callers -= 1
        return rows

    async def close(self) -> None:
        """Let what is being computed end; what is still waiting gets an error."""
        self._closed = True
        while self._waiting:
            _fail(self._waiting.popitem()[1], _CLOSED)
        if self._lanes:
            await asyncio.wait(self._lanes)
        if self._worker is not None:
            self._worker.shutdown(wait=True)

    def _ask(self, key: bytes, text: str) -> _Asked:
        asked = self._running.get(key) or self._waiting.get(key)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._waiting[key] = _Asked(key, _readable(text), loop.create_future())
            asked.row.add_done_callback(_seen)
            if len(self._lanes) < self._most_lanes:
                self._lanes.add(loop.create_task(self._work()))
        asked.callers += 1
        return asked

    async def _work(self) -> None:
        """Compute what is asked for, batch after batch, until nothing is left."""
        lane = asyncio.current_task()
        assert lane is not None
        try:
            while batch := self._batch():
                await self._answer(batch)
        finally:
            self._lanes.discard(lane)  # in the same step: who asks a moment later must not wait for this one

    async def _answer(self, batch: list[_Asked]) -> None:
        try:
            rows = await self._computed([asked.text for asked in batch])
            for asked, row in zip(batch, rows, strict=True):
                self._remember(asked.key, row)
                asked.row.set_result(row)
        except EmbedderError as error:
            for asked in batch:
                _fail(asked, error.message)
        finally:
            for asked in batch:
                del self._running[asked.key]
                _fail(asked, "the computation was abandoned")

    def _batch(self) -> list[_Asked]:
        """Take what is to be computed next: the oldest, as many as there is room for, but one at least."""
        batch: list[_Asked] = []
        room = self._max_batch_tokens
        while self._waiting:
            asked = next(iter(self._waiting.values()))
            size = self._model.size_of(asked.text)
            if asked.callers and batch and size > room:
                break
            del self._waiting[asked.key]
            if asked.callers:
                room -= size
                batch.append(asked)
                self._running[asked.key] = asked
            else:
                asked.row.cancel()
        return batch

    async def _computed(self, texts: list[str]) -> NDArray[np.float32]:
        import numpy as np

        try:
            if self._worker is None:
                made = self._model.embed(texts)
            else:
                made = await asyncio.get_running_loop().run_in_executor(self._worker, self._model.embed, texts)
            rows = await made if inspect.isawaitable(made) else made
        except Exception as error:  # whatever the runtime raises, of its own many kinds
            message = error.message if isinstance(error, EmbedderError) else f"{type(error).__name__}: {error}"
            raise EmbedderError(f"the embedder {self.id} failed: {message}") from error
        if rows.shape != (len(texts), self.dimensions) or not np.isfinite(rows).all():
            raise EmbedderError(f"the embedder {self.id} made no vectors of {self.dimensions} finite numbers")
        return rows

    def _remember(self, key: bytes, row: NDArray[np.float32]) -> None:
        self._known[key] = row.copy()  # not a view, which would keep the whole batch
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)


def _key(text: str) -> bytes:
    """Return what *text* is remembered by: of a long one, no more is kept than of a short one."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _readable(text: str) -> str:
    """Return *text* without half characters, which JSON can carry and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _fail(asked: _Asked, message: str) -> None:
    if not asked.row.done():
        asked.row.set_exception(EmbedderError(message))


def _seen(row: asyncio.Future[NDArray[np.float32]]) -> None:
    """Take note of an error that nobody waits for any more, so that the loop does not complain."""
    if not row.cancelled():
        row.exception()
