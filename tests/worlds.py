"""A gateway in a world of its own: virtual time, a provider that does as it is told, a ledger to look into."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from negawatt.call import Call, Request, Target, Trail
from negawatt.caller import Hints, Scope
from negawatt.config import Config, parse_config
from negawatt.errors import NegawattError, UpstreamBroken, UpstreamStatus
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Outcome
from negawatt.proof.virtual import VirtualClock, VirtualLoop, run
from negawatt.protocol import Wire
from negawatt.reply import Burst, Chunk, Reply
from negawatt.wire.chat import CHAT

EPOCH = 1_780_000_000.0  # the UTC time of virtual second 0
MODEL = "gpt-4o-mini"
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def time(self) -> float:
        return EPOCH + self.now

    def monotonic(self) -> float:
        return self.now


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run *test* on a loop on which waiting costs nothing."""

    @functools.wraps(test)
    def run_it(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs), VirtualLoop())  # type: ignore[arg-type]

    return run_it


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """Return a deterministic chat request; a field set to None is left out."""
    request = {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
    return {name: value for name, value in request.items() if value is not None}


def answer(text: str = "hi", **fields: Any) -> dict[str, Any]:
    """Return a whole answer that says *text*."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": dict(USAGE), **fields,
    }  # fmt: skip


def chunks_of(whole: dict[str, Any], piece: int = 2) -> list[dict[str, Any]]:
    """Return *whole* as a provider would stream it: *piece* characters of content at a time."""
    told: list[dict[str, Any]] = []
    for chunk in CHAT.unfold(whole):
        delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
        text = delta.get("content")
        if not text:
            told.append(chunk)
            continue
        for at in range(0, len(text), piece):
            if at == 0:
                told.append(
                    {**chunk, "choices": [{**chunk["choices"][0], "delta": {**delta, "content": text[:piece]}}]}
                )
            else:
                told.append({**chunk, "choices": [{"index": chunk["choices"][0]["index"],
                             "delta": {"content": text[at : at + piece]}, "finish_reason": None}]})  # fmt: skip
    return told


class Chunks:
    """A source of chunks in their own time; *then* is raised after the last one."""

    def __init__(
        self, chunks: Sequence[dict[str, Any]], *, every_s: float = 0.0, then: BaseException | None = None
    ) -> None:
        self._chunks = [Chunk(orjson.dumps(data)) for data in chunks]
        self._every_s = every_s
        self._then = then
        self._next = 0
        self.closed = 0

    async def __anext__(self) -> Burst:
        await asyncio.sleep(self._every_s)
        if self._next == len(self._chunks):
            if self._then is not None:
                raise self._then
            raise StopAsyncIteration
        self._next += 1
        return [self._chunks[self._next - 1]]

    async def aclose(self) -> None:
        self.closed += 1


class Fake:
    """A provider. Each call takes the next entry of *script*: a body, an error to raise, or a source to stream.

    An empty script answers with *said*. *delay_s* passes before an answer begins, *every_s* between chunks.
    """

    speaks: frozenset[str] = frozenset({"chat"})

    def __init__(self, said: str = "an answer", *, delay_s: float = 1.0, every_s: float = 0.1) -> None:
        self.said = said
        self.delay_s = delay_s
        self.every_s = every_s
        self.script: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.models: list[str] = []
        self.times: list[float] = []
        self.cancelled = 0
        self.sources: list[Chunks] = []

    async def ask(self, call: Call, target: Target) -> Reply:
        self.asked.append(dict(call.request.data))
        self.models.append(target.model)
        self.times.append(asyncio.get_running_loop().time())
        step = self.script.pop(0) if self.script else answer(self.said)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Chunks):
            return self._streamed(step)
        if call.request.stream:
            return self._streamed(Chunks(chunks_of(step), every_s=self.every_s))
        return Reply(CHAT, body=orjson.dumps(step))

    def _streamed(self, source: Chunks) -> Reply:
        self.sources.append(source)
        return Reply(CHAT, source=source)

    async def close(self) -> None:
        """Nothing is open."""


class Answer:
    """What a caller got."""

    def __init__(self, reply: Reply, chunks: list[dict[str, Any]], data: dict[str, Any]) -> None:
        self.reply = reply
        self.chunks = chunks
        self.data = data
        self.by = reply.answered_by

    @property
    def text(self) -> str:
        return CHAT.text_of(self.data)

    @property
    def streamed_text(self) -> str:
        return "".join(c["delta"].get("content") or "" for chunk in self.chunks for c in chunk["choices"])


class World:
    """An open gateway and those around it."""

    def __init__(self, gateway: Gateway, provider: Fake, ledger: MemoryLedger) -> None:
        self.gateway = gateway
        self.provider = provider
        self.ledger = ledger

    @property
    def calls(self) -> int:
        """How often the provider was asked."""
        return len(self.provider.asked)

    def rows(self) -> list[Outcome]:
        return self.ledger.outcomes

    def call(self, request: dict[str, Any] | bytes | None = None, *, wire: Wire = CHAT, **hints: str | None) -> Call:
        body = request if isinstance(request, bytes) else orjson.dumps(chat() if request is None else request)
        return self.gateway.new_call(body, Hints(**hints), wire=wire)

    async def ask(self, request: dict[str, Any] | None = None, **hints: str | None) -> Answer:
        """Ask as the server does: read to the end, close, whole or streamed as the request says."""
        return await self.send(self.call(request, **hints))

    async def send(self, call: Call) -> Answer:
        reply = await self.gateway.handle(call)
        chunks: list[dict[str, Any]] = []
        try:
            if call.request.stream:
                async for burst in reply:
                    if call.trail.first_byte is None:
                        call.trail.first_byte = call.trail.clock.monotonic()
                    chunks += [chunk.data for chunk in burst]
            else:
                await reply.whole()
            if not reply.finished:
                reply.error = reply.error or UpstreamBroken("the answer broke off before its end")
                raise reply.error
            call.trail.first_byte = call.trail.first_byte or call.trail.clock.monotonic()
            return Answer(reply, chunks, reply.data)
        except asyncio.CancelledError:
            reply.undelivered = True
            raise
        finally:
            await asyncio.shield(reply.close())
            await settled()

    async def failing(self, request: dict[str, Any] | None = None, **hints: str | None) -> NegawattError:
        """Ask, and return the error that comes."""
        try:
            await self.ask(request, **hints)
        except NegawattError as error:
            return error
        raise AssertionError("the call was answered")


async def settled() -> None:
    """Let the work that was begun beside the path go on, without letting time pass."""
    for _ in range(10):
        await asyncio.sleep(0)


def configured(**tables: Any) -> Config:
    """Return a configuration with one provider, no holdout, and *tables*."""
    plain: dict[str, Any] = {
        "providers": [{"name": "openai"}],
        "holdout": {"share": 0},
        "levers": {"retry": {"attempts": 1}},
    }
    return parse_config({**plain, **tables})


@asynccontextmanager
async def world(
    provider: Fake | None = None, *, environ: dict[str, str] | None = None, seed: int = 0, embedder: Any = None,
    kept: Any = None,
    **tables: Any,
):  # fmt: skip
    """Open a `World` with the configuration *tables*, on a virtual loop. *kept*: a ledger to use, which stays open."""
    provider = provider or Fake()
    ledger = MemoryLedger() if kept is None else kept
    config = configured(**tables)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    async with Gateway.open(
        config, clock=VirtualClock(loop, EPOCH), rng=random.Random(seed), ledger=ledger, environ=environ or {},
        providers={one.name: provider for one in config.providers}, embedder=embedder,
    ) as gateway:  # fmt: skip
        yield World(gateway, provider, ledger)


_ids = itertools.count()


def bare_call(
    request: dict[str, Any] | None = None, *, clock: Any = None, scope: Scope | None = None, **fields: Any
) -> Call:
    """Return a call that was admitted already, for a lever on its own."""
    clock = clock or ManualClock()
    trail = Trail(clock)
    call = Call(
        id=f"call-{next(_ids)}", request=Request(data=chat() if request is None else request), trail=trail,
        received_at=clock.time(), started=clock.monotonic(), scope=scope or Scope(),
        **{"wire": CHAT, "targets": (Target("openai", MODEL, MODEL),), **fields},
    )  # fmt: skip
    trail.call = call
    return call


def decisions(row: Outcome, lever: str | None = None) -> list[dict[str, Any]]:
    found = orjson.loads(row.decisions)
    return [one for one in found if lever in (None, one["lever"])]


CLASSES = {
    "always": {"cache": "always"},
    "never": {"cache": "never"},
    "strict": {"cache": "deterministic"},
    "personal": {"personal": True},
    "grounded": {"needs": ["corpus_version"]},
    "brief": {"ttl_s": 10},
    "small": {"max_cache_bytes": 2_000},
}


async def twice(w: World, request: dict[str, Any] | None = None, **hints: str | None) -> str:
    """Ask the same twice, and return who answered the second time."""
    await w.ask(request, **hints)
    return (await w.ask(request, **hints)).by


def cached(**fields: Any) -> dict[str, Any]:
    """Return the levers' configuration with *fields* of the cache."""
    return {"exact_cache": fields, "retry": {"attempts": 1}}


ONLY = {"exact_cache": {"mode": "off"}, "item_cache": {"mode": "off"}, "retry": {"attempts": 1}}


SAID = "an answer that is long enough to be streamed in quite a few chunks"


def start(w: World, request: dict[str, Any] | None = None, **hints: str | None) -> asyncio.Task[Answer]:
    return asyncio.ensure_future(w.ask(request, **hints))


async def ended(*tasks: asyncio.Task[Answer]) -> list[Any]:
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await settled()
    return found


def levers(**fields: Any) -> dict[str, Any]:
    """Return the levers' configuration: retry as *fields* say, and nothing that would hide a call."""
    return {"exact_cache": {"mode": "off"}, "coalesce": {"mode": "off"}, "retry": fields}


def status(code: int, **headers: str) -> UpstreamStatus:
    return UpstreamStatus(code, b'{"error": {}}', {name.replace("_", "-"): value for name, value in headers.items()})


def gaps(w: World) -> list[float]:
    """Return the seconds between an attempt's failing and the next one's start."""
    times, delay_s = w.provider.times, w.provider.delay_s
    return [later - earlier - delay_s for earlier, later in itertools.pairwise(times)]
