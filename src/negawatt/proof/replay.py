"""Replay: recorded traffic through the same gateway, with and without its levers, on a virtual clock.

All arms run at once and side by side: each request enters every arm at the same virtual moment, in seeded order.
The answers come from a recording (real answers of real models) or from a modelled provider (no answers at all).
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt import __version__
from negawatt.assembly import SAVING_LEVERS, in_use, with_modes
from negawatt.books import open_accounts
from negawatt.caller import Caller, Hints
from negawatt.catalogue import open_stand_in
from negawatt.config import Config, Levers, Provider, RequestClass
from negawatt.errors import ConfigError, NegawattError
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Outcome
from negawatt.proof.summary import ArmRun, ReplayRun
from negawatt.proof.trace import Trace, TraceEntry
from negawatt.proof.virtual import VirtualClock, VirtualLoop, run
from negawatt.providers.modelled import Modelled
from negawatt.providers.recorded import Recorded
from negawatt.reply import Reply
from negawatt.verify.exact import matches
from negawatt.wire.wires import WIRES

ARMS = ("none", "all", "leave-one-out")
Progress = Callable[[int], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay. *provider* is ``recorded:FILE`` or ``modelled:?a=SECONDS&b=SECONDS``."""

    trace: Trace
    provider: str
    config: Config = Config()
    arms: Sequence[str] = ARMS
    speedup: float = 1.0
    seed: int = 1
    title: str = "Replay"
    command: str = ""


class _Anyone:
    """Every tenant of a trace may ask; the key that its calls carry is the tenant's name."""

    open = True
    divided = False

    def caller(self, secret: str | None) -> Caller:
        return Caller(tenant=secret or "default")

    holder = caller


class _Arm:
    """One gateway, with its own cache, ledger and providers."""

    def __init__(self, name: str, gateway: Gateway, ledger: MemoryLedger, judge: _Judge) -> None:
        self.name = name
        self._gateway = gateway
        self._ledger = ledger
        self._judge = judge
        self._ids: dict[int, str] = {}
        self._success: dict[int, bool | None] = {}

    async def ask(self, index: int, entry: TraceEntry) -> None:
        """Send one request of the trace down, and read its answer to the end."""
        hints = Hints(
            key=entry.tenant, request_class=entry.request_class, task=entry.task, user=entry.user,
            permissions=entry.permissions, corpus_version=entry.corpus_version, session=entry.session,
        )  # fmt: skip
        call = self._gateway.new_call(orjson.dumps(entry.request), hints, wire=WIRES[entry.protocol])
        self._ids[index] = call.id
        reply: Reply | None = None
        try:
            reply = await self._gateway.handle(call)
            async for _ in reply:
                if call.trail.first_byte is None:
                    call.trail.first_byte = call.trail.clock.monotonic()
            self._success[index] = self._judge(entry, reply)
        except NegawattError:
            self._success[index] = False  # it has its row, which says why
        finally:
            if reply is not None:
                await reply.close()

    def result(self, clusters: Sequence[str]) -> ArmRun:
        rows = {outcome.id: outcome for outcome in self._ledger.outcomes}
        outcomes: list[Outcome] = [rows[self._ids[index]] for index in range(len(clusters))]
        return ArmRun(
            name=self.name,
            outcomes=outcomes,
            success=[self._success[index] for index in range(len(clusters))],
            clusters=clusters,
            upstream_calls=sum(outcome.attempts for outcome in outcomes),
        )


class _Judge:
    """Says whether an answer is right: by the recording's verdicts, else by what the trace expects."""

    def __init__(self, stand_in: Recorded | Modelled) -> None:
        self._recording = stand_in.recording if isinstance(stand_in, Recorded) else None

    def __call__(self, entry: TraceEntry, reply: Reply) -> bool | None:
        if not reply.finished:
            return False
        text = WIRES[entry.protocol].text_of(reply.data)
        known = self._recording
        verdict = None if known is None else known.verdict(entry.request, text, entry.protocol)
        if verdict is None and entry.expected is not None:
            return matches(entry.expected, text)
        return verdict


def replay(plan: Plan, progress: Progress = lambda done: None) -> ReplayRun:
    """Run *plan*. *progress* is told the number of calls that have ended. Raises `ConfigError` or `InputError`."""
    if not plan.speedup > 0:
        raise ConfigError(f"speedup: expected a number above 0, got {plan.speedup:g}", param="speedup")
    stand_in = _stand_in(plan.provider)
    loop = VirtualLoop()
    began, cpu = time.perf_counter(), time.process_time()
    arms = run(_replay(plan, stand_in, loop, progress), loop)
    spent = {"wall_s": round(time.perf_counter() - began, 2), "cpu_s": round(time.process_time() - cpu, 2)}
    return _described(plan, stand_in, arms, spent)


def arm_configs(config: Config, arms: Sequence[str]) -> dict[str, Config]:
    """Return the configuration of each arm: ``none``, ``all``, and ``without_<lever>`` for ``leave-one-out``.

    Raises `ConfigError` for a name that is none of these.
    """
    # A lever that is off unless somebody turns it on takes part only where somebody has, in whatever mode.
    unasked = Levers()
    every = {
        name: "on"
        for name in config.levers.__struct_fields__
        if name not in ("classify", "structure")  # they save nothing: every arm has the same classes and contracts
        and (name != "route" or config.policies)
        and (name != "compose" or config.levers.compose.stable or config.levers.compose.marks != "off")
        and (getattr(unasked, name).mode != "off" or getattr(config.levers, name).mode != "off")
    }
    found: dict[str, Config] = {}
    for arm in arms:
        left_out = arm.removeprefix("without_")
        if arm == "none":
            found[arm] = with_modes(config, dict.fromkeys(every, "off"))
        elif arm == "all":
            found[arm] = with_modes(config, every)
        elif arm == "leave-one-out":
            for name in (name for name in SAVING_LEVERS if name in every):
                found[f"without_{name}"] = with_modes(config, {**every, name: "off"})
        elif left_out != arm and left_out in every:
            found[arm] = with_modes(config, {**every, left_out: "off"})
        else:
            known = ", ".join([*ARMS, *(f"without_{name}" for name in every)])
            raise ConfigError(f"arms: there is no arm {arm!r}; known: {known}", param="arms")
    return found


def _stand_in(url: str) -> Recorded | Modelled:
    provider = open_stand_in("replayed", url, "provider")
    assert isinstance(provider, (Recorded, Modelled))
    return provider


async def _replay(plan: Plan, stand_in: Recorded | Modelled, loop: VirtualLoop, progress: Progress) -> list[ArmRun]:
    rng = random.Random(plan.seed)
    # The trace's own day is not known in every format: prices are those of the day of the replay.
    midnight = time.time() // 86_400 * 86_400
    async with AsyncExitStack() as stack:
        arms = []
        for name, config in arm_configs(_prepared(plan, stand_in), plan.arms).items():
            clock = VirtualClock(loop, epoch=midnight)
            ledger = MemoryLedger()
            gateway = await stack.enter_async_context(
                Gateway.open(
                    config,
                    clock=clock,
                    rng=random.Random(plan.seed),
                    ledger=ledger,
                    keyring=_Anyone(),
                    providers=_providers(config, stand_in),
                )
            )
            arms.append(_Arm(name, gateway, ledger, _Judge(stand_in)))
        await _send_all(plan, arms, rng, progress)
        for _ in range(3):  # what was left to do after the last answer
            await asyncio.sleep(0)
        clusters = [_cluster(entry) for entry in plan.trace.entries]
        return [arm.result(clusters) for arm in arms]


async def _send_all(plan: Plan, arms: Sequence[_Arm], rng: random.Random, progress: Progress) -> None:
    done = 0
    tasks: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        nonlocal done
        done += 1
        tasks.discard(task)
        progress(done)

    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    for index, entry in enumerate(plan.trace.entries):
        wait_s = entry.arrival_s / plan.speedup - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        for arm in rng.sample(arms, len(arms)):
            task = asyncio.ensure_future(arm.ask(index, entry))
            tasks.add(task)
            task.add_done_callback(ended)
    while tasks:
        finished, _ = await asyncio.wait(set(tasks))
        failures += [e for task in finished if (e := task.exception()) is not None]
    if failures:
        raise failures[0]


def _prepared(plan: Plan, stand_in: Recorded | Modelled) -> Config:
    """Return the configuration with the providers of the replay, no keys, no holdout, and the trace's classes.

    And no budgets: what a lever saves is measured on whole traffic, and the arm that spends most would be cut short.
    """
    names = {entry.request_class for entry in plan.trace.entries if entry.request_class is not None}
    classes: dict[str, RequestClass] = {name: RequestClass() for name in names if name != "default"}
    return msgspec.structs.replace(
        plan.config,
        keys=(),
        budgets=(),
        models=(),
        providers=_provider_rows(stand_in),
        classes={**classes, **plan.config.classes},
        holdout=msgspec.structs.replace(plan.config.holdout, share=0.0),
        cache=msgspec.structs.replace(plan.config.cache, store="memory://?max_bytes=1GiB"),
        server=msgspec.structs.replace(plan.config.server, max_in_flight=1_000_000),
    )


def _provider_rows(stand_in: Recorded | Modelled) -> tuple[Provider, ...]:
    """Return one provider for each whose prices the recording names, and one for the rest."""
    rest = Provider(name="replayed", kind="recorded", models=("*",))
    if isinstance(stand_in, Modelled):
        return (rest,)
    by_provider: dict[str, list[str]] = {}
    for model, provider in stand_in.recording.models.items():
        if provider is not None:
            by_provider.setdefault(provider, []).append(model)
    named = [Provider(name=p, kind="recorded", models=tuple(m), priced_as=p) for p, m in by_provider.items()]
    return (*named, rest)


def _providers(config: Config, stand_in: Recorded | Modelled) -> Mapping[str, Any]:
    own = stand_in
    if isinstance(stand_in, Recorded):
        own = Recorded(stand_in.name, stand_in.recording.fresh())
    return {provider.name: own for provider in config.providers}


def _cluster(entry: TraceEntry) -> str:
    from negawatt.call import Request
    from negawatt.keys import request_digest

    return request_digest(Request(data=entry.request), WIRES[entry.protocol]).hex()


def _described(plan: Plan, stand_in: Recorded | Modelled, arms: list[ArmRun], spent: Mapping[str, float]) -> ReplayRun:
    trace, n = plan.trace, len(plan.trace.entries)
    notes = [*trace.notes]
    modelled_timing = True
    if isinstance(stand_in, Recorded):
        answers = stand_in.recording.answers
        modelled_timing = any(answer.timing.basis == "modelled" for answer in answers)
        notes += stand_in.recording.notes
        notes += sorted({answer.note for answer in answers if answer.note})[:8]
        if in_use(plan.config, "compress"):
            notes.append("shortened prompts got the answers to the whole ones; their input tokens are estimated")
        if any(answer.usage_basis == "estimated" for answer in answers):
            notes.append("token counts in the recording are estimated")
    else:
        notes.append(f"timings are modelled: {stand_in.a_s:g} s + {stand_in.b_s:g} s per output token; no model ran")
    if modelled_timing:
        notes.append("latencies are modelled; the gateway's own time is not in them (see docs/benchmarks.md)")
    distinct = len(set(arms[0].clusters)) if arms else 0
    accounts = open_accounts(plan.config)
    carbon = accounts.carbon
    return ReplayRun(
        title=plan.title,
        date=datetime.now(UTC).date().isoformat(),
        seed=plan.seed,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}",
        command=plan.command,
        grid={"zone": carbon.zone, "year": carbon.year, "source": carbon.source},
        versions={"negawatt": __version__, **accounts.versions},
        notes=notes,
        requests=n,
        provider="recorded" if isinstance(stand_in, Recorded) else "modelled",
        arms=arms,
        workload={
            "source": Path(trace.source).name,
            "format": trace.format,
            "n": n,
            "distinct": distinct,
            "repeats_share": round(1 - distinct / n, 4) if n else None,
            "duration_s": round(trace.duration_s, 3),
            "speedup": plan.speedup,
            "seed": plan.seed,
            "replay": dict(spent),
        },
        simulated=modelled_timing,
    )
