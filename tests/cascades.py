"""A cascade on its own: the meter above it, retry and the books below, a provider that speaks for every model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import orjson
from worlds import EPOCH, Answer, Chunks, Fake, answer, chat, chunks_of, configured, settled

from negawatt.books import open_accounts
from negawatt.call import Call, Request, Target, Trail
from negawatt.caller import Caller, Hints
from negawatt.config_routes import Candidate, Check, Policy
from negawatt.config_routes import Cascade as Settings
from negawatt.config_types import Mode
from negawatt.deadline import Alarms, Deadline
from negawatt.economics.counting import TokenCounter
from negawatt.economics.tokenizer_files import TokenizerFiles
from negawatt.errors import UpstreamBroken
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Outcome
from negawatt.levers.meter import Meter
from negawatt.levers.retry import Retry
from negawatt.pipeline import Background
from negawatt.proof.virtual import VirtualClock, VirtualLoop
from negawatt.protocol import Wire
from negawatt.providers.counter import Counter
from negawatt.reply import Reply
from negawatt.routing.cascades import Wiring, open_cascade
from negawatt.routing.choice import Choice
from negawatt.translate.said import spoken
from negawatt.wire.chat import CHAT
from negawatt.wire.wires import WIRES

SMALL, LARGE, OTHER = "gpt-4o-mini", "gpt-4o", "gpt-4.1-nano"


class Models(Fake):
    """A provider that has an answer of each model: a text, a body, an error, a source, or a list of them in turn."""

    def __init__(self, says: dict[str, Any], *, delay_s: float = 1.0, every_s: float = 0.1) -> None:
        super().__init__(delay_s=delay_s, every_s=every_s)
        self.says = {model: list(steps) if isinstance(steps, list) else [steps] for model, steps in says.items()}

    async def ask(self, call: Call, target: Target) -> Reply:
        steps = self.says[target.model]
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, str):
            step = answer(step, model=target.model)
        self.script.append(step)
        # Nothing comes between: `Fake.ask` takes the entry before it waits.
        return await super().ask(call, target)


class Cascaded:
    """A cascade with all that it needs around it. *checks* are those of its configuration."""

    def __init__(
        self, provider: Fake, checks: Sequence[Check], *, small: Sequence[str] = (SMALL,), wire: Wire = CHAT,
        wiring: dict[str, Any] | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.provider = provider
        self.wire = wire
        self.clock = VirtualClock(loop, EPOCH)
        self.ledger = MemoryLedger()
        self.alarms = Alarms()
        self.background = Background()
        self.alerts: list[tuple[str, str, str]] = []
        self.choices = [choice(name, tier) for tier, name in enumerate((*small, LARGE), 1)]
        cascade = Settings(verify=tuple(checks), **{"explore": 0.0, **settings})
        policy = Policy(how="cascade", candidates=tuple(one.candidate for one in self.choices), cascade=cascade)
        self.wiring = Wiring(**{
            "targets_of": targets_of, "spoken": spoken, "spawn": self.background.spawn,
            "rng": random.Random(0), "alert": lambda *said: self.alerts.append(said),
            **(wiring or {}),
        })  # fmt: skip
        self.cascade = open_cascade("cheap", policy, self.choices, self.wiring)
        config = configured()
        tokens = TokenCounter(TokenizerFiles(()), background=False)
        counter = Counter({"openai": provider}, WIRES, tokens)
        self.retry = Retry(config.levers.retry, self.clock, random.Random(0))
        self.bottom = counter
        self.meter = Meter(open_accounts(config), self.ledger)

    async def below(self, call: Call) -> Reply:
        return await self.retry(call, self.bottom)

    def call(self, request: dict[str, Any] | None = None, *, deadline_s: float = 100.0, mode: Mode = "on") -> Call:
        trail = Trail(self.clock)
        call = Call(
            id="call-1", wire=self.wire, request=Request(data=chat("How many?") if request is None else request),
            trail=trail, received_at=self.clock.time(), started=self.clock.monotonic(), caller=Caller(),
            hints=Hints(), targets=targets_of("auto"), deadline=Deadline(self.alarms, deadline_s),
            shadow=mode == "shadow",
        )  # fmt: skip
        trail.call = call
        return call

    async def begin(self, call: Call) -> Reply:
        """Send *call* down, as admit does it."""

        async def admitted(call: Call) -> Reply:
            assert call.deadline is not None
            reply = await call.deadline.hold(self.cascade(call, self.below, self.choices), "too late")
            reply.deadline = call.deadline
            return reply

        return await self.meter(call, admitted)

    async def ask(self, request: dict[str, Any] | None = None, **fields: Any) -> Answer:
        """Ask, read to the end, close; let what is done afterwards be done."""
        call = self.call(request, **fields)
        reply = await self.begin(call)
        chunks: list[dict[str, Any]] = []
        try:
            if call.request.stream:
                async for burst in reply:
                    call.trail.first_byte = call.trail.first_byte or self.clock.monotonic()
                    chunks += [chunk.data for chunk in burst]
            else:
                await reply.whole()
                call.trail.first_byte = self.clock.monotonic()
            if not reply.finished:
                reply.error = reply.error or UpstreamBroken("the answer broke off before its end")
                raise reply.error
            return Answer(reply, chunks, reply.data)
        except asyncio.CancelledError:
            reply.undelivered = True
            raise
        finally:
            await asyncio.shield(reply.close())
            await self.background.drain(60.0)
            await settled()

    def row(self) -> Outcome:
        """Return the one row that the call left."""
        (row,) = self.ledger.outcomes
        return row

    def said(self) -> list[dict[str, Any]]:
        """Return the decisions of the router."""
        return [one for one in orjson.loads(self.row().decisions) if one["lever"] == "route"]


def targets_of(model: str) -> tuple[Target, ...]:
    return () if model == "nobody" else (Target("openai", model, model),)


def choice(model: str, tier: int) -> Choice:
    return Choice(Candidate(model=model), tier, targets_of(model))


def streamed(text: str, model: str, **more: Any) -> Chunks:
    return Chunks(chunks_of(answer(text, model=model)), **more)
