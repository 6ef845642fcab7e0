"""Puts the watch together for a gateway that serves, and takes it down in order.

Not a part of `Gateway.open`: a replay runs gateways of the same configuration, and must wake nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec

from negawatt.clock import Clock, SystemClock
from negawatt.config import Config
from negawatt.errors import StoreError
from negawatt.gateway import Gateway
from negawatt.ledger import Ledger
from negawatt.ledger.alerts import keep_alerts, kept_alerts
from negawatt.ledger.facts import read_facts
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.recalling import Carrier
from negawatt.telemetry import Sample
from negawatt.watch.alert import Alert
from negawatt.watch.delivery import Delivery
from negawatt.watch.endings import OWN_MARK, Ended
from negawatt.watch.life import Life
from negawatt.watch.memory import MOST_ROWS, PAST_S, Grown, Memory, remembered
from negawatt.watch.sinks import Post, open_sinks
from negawatt.watch.targets import Targets, owners_of, targets_of
from negawatt.watch.values import Budgets, PerSuccess, Successes
from negawatt.watch.watcher import Sources, Watch

log = logging.getLogger(__name__)
_AT_ONCE = 2_000  # rows


class Figures(Protocol):
    """What is known of the tasks of one class (`negawatt.success.figures.Figures`)."""

    @property
    def name(self) -> str: ...
    @property
    def successes(self) -> int: ...
    @property
    def cost_per_success_usd(self) -> Interval: ...


class Interval(Protocol):
    """A figure and its interval; None where it is undefined, or not bounded."""

    @property
    def mean(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def successes_in(path: Path, figures: Callable[[Path, float, float, Any], Sequence[Figures]]) -> Successes:
    """Return who works out what a success costs: *figures* of the ledger at *path*, by class, in a thread."""

    async def successes(since: float, until: float) -> dict[str, PerSuccess]:
        found = await asyncio.to_thread(figures, path, since, until, "class")
        return {one.name: _per_success(one.cost_per_success_usd, one.successes) for one in found}

    return successes


def _per_success(cost: Interval, successes: int) -> PerSuccess:
    return PerSuccess(cost.mean, cost.low, cost.high, successes)


def check_sinks(config: Config, environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a sink whose secret or address is not to be had."""
    open_sinks(config.alerts, Carrier(), environ)


@asynccontextmanager
async def open_watch(
    gateway: Gateway,
    *,
    successes: Successes | None = None,
    budgets: Budgets | None = None,
    post: Post | None = None,
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Watch]:
    """Watch *gateway* until the end of the block. Raises `ConfigError`.

    Alerts are kept in the ledger's file, where it has one. *successes* and *budgets* work out what they are asked;
    *post* carries what goes to sinks.
    """
    config, clock = gateway.config, gateway.clock
    carrier = Carrier()
    sinks = open_sinks(config.alerts, carrier if post is None else post, environ)
    threads = isinstance(clock, SystemClock)
    targets = targets_of(config)
    shelf = _Shelf(gateway.ledger.path if isinstance(gateway.ledger, SqliteLedger) else None, threads=threads)
    delivery = Delivery(
        sinks, config.alerts, clock, told=lambda alert: watch.life.told(alert), keep=lambda: watch.keep(),
        rng=random.Random(),
    )  # fmt: skip
    life = Life(config.alerts, owners_of(targets), shelf.kept(), delivery.owe)
    guesses = None if gateway.learner is None else gateway.learner.estimates
    sources = Sources(guesses=guesses, successes=successes, budgets=budgets)
    watch = Watch(
        targets, config.alerts, clock, life=life, delivery=delivery, sources=sources, keep=shelf.keep
    )  # fmt: skip
    gateway.meter.observers.append(watch.observe)
    gateway.telemetry.on_alert.append(watch.event)
    sampled = partial(_samples, watch)
    gateway.telemetry.sources.append(sampled)
    gateway.watch = watch
    past = _Past(gateway.ledger, shelf.path, targets, clock)
    task = asyncio.ensure_future(_running(watch, past, threads=threads))
    try:
        yield watch
    finally:
        past.stopped = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        gateway.meter.observers.remove(watch.observe)
        gateway.telemetry.on_alert.remove(watch.event)
        gateway.telemetry.sources.remove(sampled)
        gateway.watch = None
        await delivery.close()
        await watch.keep()
        await carrier.close()


def _samples(watch: Watch) -> list[Sample]:
    return [Sample(*one) for one in watch.samples()]


async def watch_of(path: Path, config: Config, clock: Clock, successes: Successes | None = None) -> Watch:
    """Return a watch over the ledger at *path* alone, which has looked once: it tells nobody, and keeps nothing.

    Raises `InputError`.
    """
    targets, now = targets_of(config), clock.time()
    memory, grown = past_of(path, targets, now, lambda: False, breathe=False)

    async def nowhere(changed: list[Alert], dropped: list[str]) -> None:
        """Nothing of it is kept."""

    async def nothing() -> None:
        """Nothing was told."""

    life = Life(config.alerts, owners_of(targets), _Shelf(path, threads=False).kept())
    delivery = Delivery([], config.alerts, clock, told=life.told, keep=nothing, rng=random.Random(0))
    sources = Sources(successes=successes)
    watch = Watch(targets, config.alerts, clock, life=life, delivery=delivery, sources=sources, keep=nowhere)
    watch.remember(memory)
    for one in grown:
        if one.at >= now - config.alerts.events_h * 3600:
            watch.grown(one)
    await watch.look()
    return watch


async def _running(watch: Watch, past: _Past, *, threads: bool) -> None:
    reading = asyncio.ensure_future(asyncio.to_thread(past.read, breathe=True)) if threads else None
    try:
        memory, _ = past.read(breathe=False) if reading is None else await asyncio.shield(reading)
    except asyncio.CancelledError:
        if reading is not None:
            await reading  # it has been told to stop, and holds the ledger open
        raise
    except Exception:  # better to watch without the past than not at all
        log.exception("the past could not be read: what is watched begins anew")
    else:
        watch.remember(memory)
    await watch.run()


class _Past:
    """The calls before the watch began, from the ledger."""

    def __init__(self, ledger: Ledger, path: Path | None, targets: Mapping[str, Targets], clock: Clock) -> None:
        self._ledger = ledger
        self._path = path
        self._targets = targets
        self._until = clock.time()
        self.stopped = False

    def read(self, *, breathe: bool) -> tuple[Memory, list[Grown]]:
        """Return what is remembered of them. Raises `InputError`."""
        if self._path is not None:
            return past_of(self._path, self._targets, self._until, lambda: self.stopped, breathe=breathe)
        rows = self._ledger.rows(_since(self._targets, self._until), self._until)
        chunks: Iterable[Iterable[Ended]] = iter(lambda: list(islice(rows, _AT_ONCE)), [])
        return remembered(chunks, self._targets, lambda: self.stopped, breathe=breathe)


def past_of(
    path: Path, targets: Mapping[str, Targets], until: float, stopped: Callable[[], bool], *, breathe: bool
) -> tuple[Memory, list[Grown]]:
    """Return what is remembered of the calls in the ledger at *path* before *until*. Raises `InputError`."""
    chunks: Iterable[Iterable[Ended]] = read_facts(path, _since(targets, until), until, most=MOST_ROWS, mark=OWN_MARK)
    return remembered(chunks, targets, stopped, breathe=breathe)


def _since(targets: Mapping[str, Targets], until: float) -> float:
    return until - max(PAST_S, *(one.window_s for one in targets.values()))


class _Shelf:
    """Where alerts are kept over a restart: the SQLite file at *path*; nowhere where that is None."""

    def __init__(self, path: Path | None, *, threads: bool) -> None:
        self.path = path
        self._threads = threads

    def kept(self) -> list[Alert]:
        """Return the alerts that are kept. What cannot be read is logged: better to watch without it."""
        if self.path is None:
            return []
        try:
            return [msgspec.json.decode(text, type=Alert) for text in kept_alerts(self.path)]
        except (StoreError, msgspec.MsgspecError) as error:
            log.error("the alerts of before are not known: %s", error)
            return []

    async def keep(self, changed: list[Alert], dropped: list[str]) -> None:
        if self.path is None:
            return
        rows = [(one.id, one.state, one.started_at, msgspec.json.encode(one).decode()) for one in changed]
        work = partial(keep_alerts, self.path, rows, dropped)
        await asyncio.to_thread(work) if self._threads else work()
