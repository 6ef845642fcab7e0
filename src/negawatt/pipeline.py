"""The pipeline: levers composed into one handler, with the modes that every lever has.

A lever never knows in which mode it runs:

- ``off``     it is left out;
- ``on``      it is there;
- ``canary``  it is there for a stable share of the callers;
- ``shadow``  it runs beside the call: it sees it, decides and notes, and what it returns is thrown away.

A call that was drawn for the holdout passes through none of the levers that save. Callers may ask for less than the
configuration says (``x-negawatt-mode: off`` or ``shadow``), never for more.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from negawatt.call import Call
from negawatt.config_types import Mode
from negawatt.errors import NegawattError
from negawatt.reply import Burst, Reply

log = logging.getLogger(__name__)

Handler = Callable[[Call], Awaitable[Reply]]


class Lever(Protocol):
    """One way to spend less on a call. It answers itself, or forwards."""

    async def __call__(self, call: Call, forward: Handler) -> Reply: ...


class Step(msgspec.Struct, frozen=True):
    """A lever in its place. *saves*: the holdout passes it by."""

    name: str
    lever: Lever
    saves: bool = True
    mode: Mode = "on"
    share: float = 1.0


class Pipeline:
    """Sends each call through the steps that its class, its caller and the holdout leave in.

    The handlers are composed once for each combination of modes, not for each call.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        terminal: Handler,
        *,
        class_modes: Mapping[str, Mapping[str, Mode]],
        background: Background,
    ) -> None:
        self._steps = tuple(steps)
        self._terminal = terminal
        self._class_modes = class_modes
        self._background = background
        self._handlers: dict[tuple[Mode, ...], Handler] = {}
        self._plain: dict[tuple[str, bool, str | None], Handler] = {}
        self._canaries = any(s.mode == "canary" for s in steps) or any(
            mode == "canary" for modes in class_modes.values() for mode in modes.values()
        )

    async def __call__(self, call: Call) -> Reply:
        if self._canaries:
            return await self._handler(self._modes(call))(call)
        key = (call.request_class, call.trail.holdout, call.hints.mode)
        handler = self._plain.get(key)
        if handler is None:
            handler = self._plain[key] = self._handler(self._modes(call))
        return await handler(call)

    def _modes(self, call: Call) -> tuple[Mode, ...]:
        own = self._class_modes.get(call.request_class, {})
        return tuple(self._mode(step, own.get(step.name, step.mode), call) for step in self._steps)

    def _mode(self, step: Step, mode: Mode, call: Call) -> Mode:
        if step.saves and (call.trail.holdout or call.hints.mode == "off"):
            return "off"
        if step.saves and call.hints.mode == "shadow" and mode != "off":
            return "shadow"
        if mode == "canary":
            return "on" if bucket(call, step.name) < step.share else "off"
        return mode

    def _handler(self, modes: tuple[Mode, ...]) -> Handler:
        if modes not in self._handlers:
            handler = self._terminal
            for step, mode in reversed(list(zip(self._steps, modes, strict=True))):
                if mode == "on":
                    handler = partial(step.lever, forward=handler)
                elif mode == "shadow":
                    handler = partial(self._beside, step, handler)
            self._handlers[modes] = handler
        return self._handlers[modes]

    async def _beside(self, step: Step, forward: Handler, call: Call) -> Reply:
        """Answer *call* without the lever, and let the lever decide on a copy meanwhile."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        call.trail.hold()
        self._background.spawn(self._rehearse(step, call, answer))
        try:
            reply = await forward(call)
        except BaseException:
            answer.cancel()
            raise
        answer.set_result(reply)
        return reply

    async def _rehearse(self, step: Step, call: Call, answer: asyncio.Future[Reply]) -> None:
        async def forward(_: Call) -> Reply:
            return Spectator.of(await answer)

        try:
            reply = await step.lever(msgspec.structs.replace(call, shadow=True), forward)
            await _over(await answer)
            await reply.close()
        except (NegawattError, asyncio.CancelledError) as error:
            log.debug("shadow run of %s ended: %r", step.name, error)
        finally:
            call.trail.release()


class Spectator(Reply):
    """Another's reply, seen from beside: it can be read when the real one has been, and ends as that one ends."""

    __slots__ = ("_over", "_seen")

    @classmethod
    def of(cls, reply: Reply) -> Spectator:
        spectator = cls(reply._wire, body=reply._body)
        spectator.answered_by = reply.answered_by
        spectator.status = reply.status
        spectator.finished = False
        spectator._seen = reply
        spectator._over = asyncio.get_running_loop().create_future()
        reply.on_end(spectator._settle)
        return spectator

    _seen: Reply
    _over: asyncio.Future[None]

    def _settle(self, reply: Reply) -> None:
        self.finished, self.error = reply.finished, reply.error
        if reply.finished:
            self._body = reply.body
            self._data = reply.data
        if not self._over.done():
            self._over.set_result(None)
        if self._ended:
            self._run_callbacks()

    async def __anext__(self) -> Burst:
        await self._over
        if not self.finished:
            raise StopAsyncIteration
        return await super().__anext__()

    async def close(self) -> None:
        """Stop watching. Who asked to be told of the end is told when the real reply ends."""
        if not self._ended:
            self._ended = True
            if self._over.done():
                self._run_callbacks()


async def _over(reply: Reply) -> None:
    """Wait until *reply* has ended."""
    over = asyncio.get_running_loop().create_future()
    reply.on_end(lambda _: None if over.done() else over.set_result(None))
    await over


class Background:
    """Work that outlasts the call that caused it. It is finished, or cancelled, before the gateway closes."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(_named(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work failed", exc_info=task.exception())

    async def drain(self, timeout_s: float = 5.0) -> None:
        """Wait for all of it, and for what comes of it, at most *timeout_s* seconds; then cancel the rest."""
        now = asyncio.get_running_loop().time
        until = now() + timeout_s
        while self._tasks and now() < until:
            await asyncio.wait(set(self._tasks), timeout=until - now())
        late = set(self._tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)


async def _named(work: Awaitable[None]) -> None:
    await work


def bucket(call: Call, salt: str) -> float:
    """Return where *call*'s caller falls in [0, 1), the same at every call and after every restart."""
    caller = call.caller
    who = (caller.tenant, caller.user or caller.key_id) if caller is not None else ("", "")
    digest = hashlib.sha256(repr((salt, *who)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
