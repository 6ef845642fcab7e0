"""Functions whose results a layer keeps, plain ones and coroutines.

The function runs where it is called: in the caller's thread or event loop. What must be known of it to all callers is
asked of the layers, which live in an event loop of their own (`Home`).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from negawatt.layers.cache import Layers
from negawatt.layers.codec import Codec, Unreadable
from negawatt.layers.functions import Function, Options
from negawatt.layers.values import Asked, Found, Lead, Missed

log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R", covariant=True)
_T = TypeVar("_T")
Step = Found | Lead | Missed


class Home(Protocol):
    """Where layers live. Safe to use from any thread."""

    @property
    def layers(self) -> Layers: ...

    @property
    def pool(self) -> Executor:
        """Threads for plain functions that renew what is stale."""
        ...

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run *work* where the layers live."""
        ...

    def call_soon(self, work: Callable[[Lead], None], lead: Lead) -> None: ...


class CachedFunction(Protocol[_P, _R]):
    """A function with a cache before it."""

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...

    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., _R]: ...

    @property
    def uncached(self) -> Callable[_P, _R]:
        """The function itself."""
        ...

    def key(self, *args: _P.args, **kwargs: _P.kwargs) -> str | None:
        """Return the key of a call, 64 hexadecimal digits; None where it would not be kept."""
        ...

    def invalidate(self, *, dry_run: bool = False, **tags: str | int) -> Any:
        """Delete what is kept of this function and has all of *tags*; return how much (of a coroutine: await it)."""
        ...


def wrapped(function: Callable[_P, _R], layer: str, home: Callable[[], Home], options: Options) -> Any:
    """Return *function* with *layer* before it. Raises `TypeError` for one that cannot be cached."""
    calls = _Calls(function, Function(function, layer, options), home)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await calls.awaited(args, kwargs)

        async def invalidate(*, dry_run: bool = False, **tags: str | int) -> int:
            return await asyncio.shield(asyncio.wrap_future(calls.invalidated(tags, dry_run=dry_run)))

        return _with(coroutine, uncached=function, key=calls.key, invalidate=invalidate)

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        return calls.called(args, kwargs)

    def invalidate_now(*, dry_run: bool = False, **tags: str | int) -> int:
        return calls.invalidated(tags, dry_run=dry_run).result()

    return _with(plain, uncached=function, key=calls.key, invalidate=invalidate_now)


def _with(function: Any, **attributes: Any) -> Any:
    vars(function).update(attributes)
    return function


class _Calls:
    """Answers calls of one function."""

    def __init__(self, function: Callable[..., Any], described: Function, home: Callable[[], Home]) -> None:
        self._function = function
        self._described = described
        self._home = home
        self._warned: set[str] = set()
        self._renewals: set[asyncio.Task[None]] = set()

    @functools.cached_property
    def _codec(self) -> Codec:
        # On first use: what a function returns may be defined below it.
        return Codec(self._described.returns(self._function))

    def key(self, *args: Any, **kwargs: Any) -> str | None:
        asked = self._described.asked(args, kwargs)
        return asked.key if self._home().layers.plan(asked).write else None

    def invalidated(self, tags: dict[str, str | int], *, dry_run: bool) -> Future[int]:
        home, described = self._home(), self._described
        own = (f"layer={described.layer}", described.own_tag, *(f"{name}={value}" for name, value in tags.items()))
        return home.submit(home.layers.delete_tagged(own, dry_run=dry_run))

    # -- plain functions ---------------------------------------------------------------------------------------

    def called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        asked, home = self._described.asked(args, kwargs), self._home()
        step = self._begin(home, asked)
        if isinstance(step, Found):
            if step.renewal is not None:
                context = contextvars.copy_context()
                home.pool.submit(context.run, self._renew, home, step.renewal, args, kwargs)
            try:
                return self._codec.decode(step.entry)
            except Unreadable:
                step = self._begin(home, _anew(asked))
        if isinstance(step, Lead):
            return self._make(home, step, args, kwargs)
        assert isinstance(step, Missed)
        self._warn(step.reason)
        return self._function(*args, **kwargs)

    def _begin(self, home: Home, asked: Asked) -> Step:
        future = home.submit(home.layers.begin(asked))
        try:
            return future.result()
        except BaseException:  # interrupted: what comes of it is for somebody else
            future.add_done_callback(functools.partial(_give_back, home))
            raise

    def _make(self, home: Home, lead: Lead, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = self._function(*args, **kwargs)
            kept = self._codec.encode(value)
        except BaseException:
            home.call_soon(home.layers.fail, lead)
            raise
        if kept is None:
            self._not_kept(home, lead, value)
        else:
            self._warn(home.submit(home.layers.finish(lead, *kept)).result())
        return value

    def _renew(self, home: Home, lead: Lead, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._make(home, lead, args, kwargs)
        except Exception:
            log.warning("%s: a stale value was not renewed", self._described.name, exc_info=True)

    # -- coroutines --------------------------------------------------------------------------------------------

    async def awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        asked, home = self._described.asked(args, kwargs), self._home()
        step = await self._begun(home, asked)
        if isinstance(step, Found):
            if step.renewal is not None:
                task = asyncio.get_running_loop().create_task(self._renewed(home, step.renewal, args, kwargs))
                self._renewals.add(task)
                task.add_done_callback(self._renewals.discard)
            try:
                return self._codec.decode(step.entry)
            except Unreadable:
                step = await self._begun(home, _anew(asked))
        if isinstance(step, Lead):
            return await self._made(home, step, args, kwargs)
        assert isinstance(step, Missed)
        self._warn(step.reason)
        return await self._function(*args, **kwargs)

    async def _begun(self, home: Home, asked: Asked) -> Step:
        future = home.submit(home.layers.begin(asked))
        try:
            # Shielded: a lead that is given while its caller is cancelled must be given back, not lost.
            return await asyncio.shield(asyncio.wrap_future(future))
        except BaseException:
            future.add_done_callback(functools.partial(_give_back, home))
            raise

    async def _made(self, home: Home, lead: Lead, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = await self._function(*args, **kwargs)
            kept = self._codec.encode(value)
        except BaseException:
            home.call_soon(home.layers.fail, lead)
            raise
        if kept is None:
            self._not_kept(home, lead, value)
        else:
            self._warn(await asyncio.shield(asyncio.wrap_future(home.submit(home.layers.finish(lead, *kept)))))
        return value

    async def _renewed(self, home: Home, lead: Lead, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            await self._made(home, lead, args, kwargs)
        except Exception:
            log.warning("%s: a stale value was not renewed", self._described.name, exc_info=True)

    # -- parts -------------------------------------------------------------------------------------------------

    def _not_kept(self, home: Home, lead: Lead, value: Any) -> None:
        home.call_soon(home.layers.give_up, lead)
        self._warn(f"what it returns ({type(value).__name__}) would not come back as it is")

    def _warn(self, reason: str | None) -> None:
        """Say once why something is not kept, where that is for the developer to mend."""
        if reason is None or reason.startswith(("the store failed", "it was invalidated")):
            return
        if reason not in self._warned and len(self._warned) < 20:
            self._warned.add(reason)
            log.warning("%s: not kept: %s", self._described.name, reason)


def _anew(asked: Asked) -> Asked:
    """Return *asked* without regard to what is kept."""
    return msgspec.structs.replace(asked, cache_control="no-cache")


def _give_back(home: Home, future: Future[Step]) -> None:
    """Let somebody else make what nobody came for."""
    if future.cancelled() or future.exception() is not None:
        return
    step = future.result()
    lead = step.renewal if isinstance(step, Found) else step if isinstance(step, Lead) else None
    if lead is not None:
        home.call_soon(home.layers.fail, lead)
