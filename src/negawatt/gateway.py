"""The gateway: the levers in their order, the providers below them, the ledger beside them.

    async with Gateway.open(load_config()) as gateway:
        reply = await gateway.chat({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]})
        print(reply["choices"][0]["message"]["content"])

The server, the replay and the library all come through here: there is one path.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson

from negawatt import assembly
from negawatt.asides import Asides
from negawatt.assembly import step
from negawatt.books import open_accounts, open_ledger
from negawatt.budgeting import budget_samples, open_books, purse_of
from negawatt.budgets import Books
from negawatt.call import Call, Request, Trail
from negawatt.caller import NO_HINTS, Caller, Headers, Hints
from negawatt.catalogue import Catalogue, Listed, open_providers
from negawatt.choosing import Choosing, open_choosing
from negawatt.clock import Clock, SystemClock
from negawatt.config import Config
from negawatt.deadline import Alarms
from negawatt.doors import Access, open_access
from negawatt.economics.accounts import Accounts
from negawatt.economics.counting import TokenCounter
from negawatt.economics.tokenizer_files import TokenizerFiles
from negawatt.embedders import Embedder
from negawatt.errors import InvalidRequest
from negawatt.keys import scope_of, user_of
from negawatt.layers.cache import Layers
from negawatt.ledger import Ledger
from negawatt.levers.admit import Admit, Callers, within_scope
from negawatt.levers.classify import Classify
from negawatt.levers.compose import Compose
from negawatt.levers.conversations import Conversations
from negawatt.levers.meter import Meter
from negawatt.levers.retry import Retry
from negawatt.monitoring import Monitor
from negawatt.pipeline import Background, Handler, Pipeline
from negawatt.prompts.attribution import BlockTokens
from negawatt.protocol import Wire
from negawatt.providers import Provider
from negawatt.providers.counter import Counter
from negawatt.readiness import checks
from negawatt.recall.learner import Learner
from negawatt.recall.originals import Originals, whose
from negawatt.recalling import Recall, open_embedding, open_recall
from negawatt.registry import STORES, open_backend
from negawatt.reply import Reply
from negawatt.shape.edits import id_of
from negawatt.shape.models import asking_for
from negawatt.stores import Store
from negawatt.succeeding import Succeeding
from negawatt.success.telling import Said, checked, feedback, said_by
from negawatt.telemetry import Sample, Telemetry, learned_samples
from negawatt.watch.watcher import Watch
from negawatt.wire.chat import CHAT
from negawatt.wire.wires import WIRES

log = logging.getLogger(__name__)


class Gateway:
    """Open it with `Gateway.open`; what it opens, it closes."""

    def __init__(  # noqa: PLR0913
        self,
        config: Config,
        *,
        providers: Mapping[str, Provider],
        store: Store,
        ledger: Ledger,
        accounts: Accounts,
        access: Access,
        tokens: TokenCounter,
        recall: Recall | None,
        choosing: Choosing,
        clock: Clock,
        rng: random.Random,
        books: Books | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.ledger = ledger
        self.store = store
        self.accounts = accounts
        self.access = access
        self.keyring = keyring = access.keyring
        self.catalogue = Catalogue(config)
        self.background = Background()
        self.alarms = Alarms()
        self._rng = rng
        self._providers = providers
        self._listed = Listed(self.catalogue, providers, clock)
        self.recall = recall
        self._choosing = choosing
        self.tokens = tokens
        self.telemetry = Telemetry()
        self.watch: Watch | None = None  # where somebody watches (`negawatt.watching`)
        self.purse = purse_of(config, books, accounts, clock, self.telemetry)
        self.prompts = assembly.prompts(config)
        self.meter = Meter(
            accounts, ledger, keep_content=config.ledger.keep_content, count=self.telemetry.count,
            blocks=BlockTokens(lambda model, text: tokens.count_text(model, text).tokens).of,
        )  # fmt: skip
        self.success = Succeeding(config, ledger, self.meter, clock)
        self._shared = assembly.Shared(
            config=config, clock=clock, rng=rng, store=store, ledger=ledger, accounts=accounts, tokens=tokens,
            catalogue=self.catalogue, background=self.background, telemetry=self.telemetry,
            asides=Asides(self.new_call, self.meter, alarms=self.alarms, deadline_s=config.server.deadline_s),
        )  # fmt: skip
        conversations = Conversations(ledger, divided=lambda: keyring.divided, classes=config.classes)
        self.admit = Admit(
            config, keyring=keyring, catalogue=self.catalogue, alarms=self.alarms, conversations=conversations,
            compose=Compose(self.prompts),
        )  # fmt: skip
        self.monitor = Monitor(config, self.telemetry, clock, zone=accounts.carbon.zone)
        self.monitor.watch(self.meter, in_flight=lambda: self.admit.in_flight, lost=lambda: ledger.lost)
        self.originals = Originals(store)
        self.layers = Layers(
            config.cache, store=store, clock=clock, background=self.background, telemetry=self.telemetry
        )
        here = {"count_tokens": partial(assembly.counted_here, tokens)}
        counter = Counter(providers, WIRES, tokens, here, self.purse, self.monitor.onward)
        self.policies, self.route = assembly.routing(self._shared, choosing, conversations, providers, counter)
        self.structure = assembly.contracts(self._shared, self.policies)
        self.classify = Classify(config.classes, config.levers.classify, choosing.intents, choosing.embedder)
        self.learner, self.pipeline = self._levers(counter)
        self._classified = self._first()

    def _first(self) -> Handler:
        """Return what comes before the levers that are tuned by the class: it is named, and its policy found."""
        contracts = any(policy.schema is not None for policy in self.config.classes.values())
        handler = within_scope(self.pipeline if self.route is None and not contracts else self._assigned)
        if not self.config.classes:
            return handler
        steps = [step("classify", self.classify, self.config)]
        return Pipeline(steps, handler, class_modes={}, background=self.background)

    async def _assigned(self, call: Call) -> Reply:
        return await self.pipeline(self._under_policy(call))

    def _under_policy(self, call: Call) -> Call:
        cheaper = None if self.purse is None else self.purse.cheaper(call)
        return self.structure.scoped(self.policies.assigned(call, cheaper))

    def _levers(self, counter: Handler) -> tuple[Learner | None, Pipeline]:
        """Return the levers in the one order that they have; the others of the design have their place marked."""
        config, shared = self.config, self._shared
        routed = [] if self.route is None else [step("route", self.route, config)]
        cache, items, coalesce = assembly.certain(shared, lambda: self.pipeline)
        learner, semantic = assembly.semantic(shared, self.recall, counter)
        steps = [
            # (compose)     has rendered the template that the request names: it takes its final meaning
            # (classify)    has named the class that every later lever is tuned by: a call enters here by its class
            *assembly.offload(shared),  # the cheapest answer has no model
            step("exact_cache", cache, config),  # certain, microseconds
            step("item_cache", items, config),  # of a batch, only what is not known
            step("coalesce", coalesce, config),  # n equal calls cost one
            *semantic,  # a guess, so after certainty
            *assembly.compress(shared, self.originals),  # after the caches, which key on the request as asked
            step("structure", self.structure, config),  # the output contract
            step("cap", assembly.caps(shared), config),  # needs the contract
            *routed,  # when the final size is known
            # batch         per chosen model
            *assembly.prefixing(shared, self._providers),  # what is sent is known, and who reads it
            step("retry", Retry(config.levers.retry, self.clock, self._rng), config),  # nearest to the network
        ]
        modes = {name: policy.levers for name, policy in config.classes.items()}
        return learner, Pipeline(steps, counter, class_modes=modes, background=self.background)

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913
        cls,
        config: Config,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        ledger: Ledger | None = None,
        providers: Mapping[str, Provider] | None = None,
        keyring: Callers | None = None,
        embedder: Embedder | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> AsyncIterator[Gateway]:
        """Open everything that *config* names. Raises `ConfigError` before anything is half open.

        *ledger*, *providers*, *keyring* and *embedder*, when given, are used instead of the configured ones; they stay
        open.
        """
        real = clock is None or isinstance(clock, SystemClock)
        clock = clock or SystemClock()
        accounts = open_accounts(config)
        tokens = TokenCounter(TokenizerFiles(config.economics.tokenizers), background=True)
        own_providers = open_providers(config, environ) if providers is None else {}
        own_ledger: Ledger | None = None
        books: Books | None = None
        store: Store = open_backend(STORES, "negawatt.stores", config.cache.store, "cache.store", clock)
        try:
            books = open_books(config, clock, ledger_given=ledger is not None)
            if ledger is None:
                own_ledger = open_ledger(config, clock)
                ledger = own_ledger
            async with (
                open_access(config, environ, clock, keyring) as access,
                open_embedding(config, embedder=embedder, threads=real) as shared,
                open_recall(config, clock, shared) as recall,
                open_choosing(config, shared, threads=real) as choosing,
            ):
                gateway = cls(
                    config, providers=own_providers if providers is None else providers, store=store,
                    ledger=ledger, accounts=accounts, access=access, tokens=tokens, recall=recall,
                    choosing=choosing, clock=clock, rng=rng or random.Random(), books=books,
                )  # fmt: skip
                async with gateway.monitor.exporting(environ):
                    try:
                        gateway.success.start()
                        if gateway.learner is not None:
                            await gateway.learner.remember()
                        yield gateway
                    finally:
                        await gateway.background.drain()
                        gateway.alarms.close()
                        gateway.success.close()
        finally:
            for provider in own_providers.values():
                await provider.close()
            await store.close()
            if books is not None:
                await books.close()
            if own_ledger is not None:
                own_ledger.close()

    def new_call(
        self,
        body: bytes,
        hints: Hints = NO_HINTS,
        *,
        wire: Wire = CHAT,
        headers: Headers = (),
        body_bytes: int | None = None,
    ) -> Call:
        """Return the call that *body* makes in the protocol *wire*. *headers* are for the provider.

        *body_bytes* is its true size where it was not read to its end.
        """
        now = self.clock.time()
        trail = Trail(self.clock)
        trail.holdout = self.config.holdout.share > 0 and self._rng.random() < self.config.holdout.share
        call = Call(
            id=f"nw-{int(now * 1e6):x}{self._rng.getrandbits(32):08x}",
            wire=wire,
            headers=headers,
            request=Request(body),
            trail=trail,
            received_at=now,
            started=self.clock.monotonic(),
            body_bytes=len(body) if body_bytes is None else body_bytes,
            hints=hints,
        )
        trail.call = call
        return call

    async def handle(self, call: Call) -> Reply:
        """Send *call* down and return its Reply, which must be closed. Raises `NegawattError`."""
        return await self.meter(call, self._admitted)

    async def _admitted(self, call: Call) -> Reply:
        return await self.admit(call, self._classified)

    async def ready(self) -> None:
        """Wait until what is learned at the start has been: until then, calls are classified by rules alone."""
        if self._choosing.intents is not None and self._choosing.embedder is not None:
            await self._choosing.intents.prepare(self._choosing.embedder)

    async def arrived(self, call: Call) -> Call:
        """Return *call* as the levers would get it: admitted, of a class, under a policy. Nobody is asked.

        Raises `NegawattError`.
        """
        found: list[Call] = []

        async def stop(call: Call) -> Reply:
            found.append(self._under_policy(call))
            return Reply(call.wire, body=b"{}")

        reply = await self.admit(call, partial(self.classify, forward=stop))
        await reply.close()
        return found[0]

    async def models(self) -> list[str]:
        """Return the names that callers may use: the configured ones, and what the providers say that they serve."""
        return await self._listed.names()

    async def checks(self) -> dict[str, str | None]:
        """Return what the gateway needs to work, each with its problem or None: cheap, for probes come often."""
        return await checks(self.config, self.store, self.ledger, self.recall, self.purse)

    async def forget(self, tags: tuple[str, ...], *, dry_run: bool = False) -> dict[str, int]:
        """Delete what has all of *tags* from every cache; return how much, by place. Raises `StoreError`."""
        found = {"store": await self.layers.delete_tagged(tags, dry_run=dry_run)}
        if self.recall is not None:
            found["index"] = await self.recall.index.delete_tagged(tags, dry_run=dry_run)
        return found

    async def original(self, name: str, caller: Caller, hints: Hints = NO_HINTS) -> dict[str, Any] | None:
        """Return what compress changed of the call *name*, as *caller* had sent it, or the one text of that id.

        None where nothing is kept of it, or it is another's. Raises `StoreError`.
        """
        mine = whose(caller.tenant, scope_of(caller, hints, personal=False).permissions, user_of(caller, hints))
        text = await self.originals.text(name, mine)
        if text is not None:
            return {"id": name, "text": text}
        found = await self.originals.of_call(name, mine)
        if found is None:
            return None
        texts = [{"path": path, "id": id_of(text), "text": text} for path, text in found.texts.items()]
        return {"id": name, "protocol": found.protocol, "texts": texts, "tools": found.tools}

    async def feedback(self, said: Mapping[str, Any] | Said, hints: Hints = NO_HINTS) -> dict[str, Any]:
        """Keep what the caller says of one call or task (the fields of `Said`); answer once it is on disk.

        Raises `InvalidRequest`, which names the field, `RateLimited`, or `StoreError` where the disk does not take it.
        """
        said = said if isinstance(said, Said) else said_by(said)
        caller = self.keyring.caller(hints.key)
        new = await self.success.tell(feedback(checked(said), caller, hints, self.clock.time()))
        about = {"call_id": said.call_id} if said.task_id is None else {"task_id": said.task_id}
        return {"recorded": new, "repeated": not new, **about}

    async def metrics(self, *, openmetrics: bool = False) -> bytes:
        """Return what there is to count, in Prometheus' text format or in that of OpenMetrics."""
        checks = await self.checks()
        samples = [Sample("negawatt_up", (("part", name),), int(checks[name] is None)) for name in checks]
        if self.learner is not None:
            samples += learned_samples(self.learner.estimates())
        samples += [*await self.success.samples(), *await budget_samples(self.purse)]
        return await self.monitor.text(samples, openmetrics=openmetrics)

    async def chat(
        self, request: Mapping[str, Any], hints: Hints = NO_HINTS, *, schema: Any = None
    ) -> dict[str, Any]:  # fmt: skip
        """Answer one Chat Completions request, whole. *schema*: as for `ask`. Raises `NegawattError`."""
        return await self.ask("chat", request, hints, schema=schema)

    async def ask(
        self, protocol: str, request: Mapping[str, Any], hints: Hints = NO_HINTS, *, schema: Any = None
    ) -> dict[str, Any]:
        """Answer one request of *protocol* (a name in `negawatt.wire.wires.WIRES`), whole. Raises `NegawattError`.

        *schema*: what the answer has to keep, a JSON schema or a pydantic model; lever structure holds it to that.
        """
        wire = WIRES.get(protocol)
        if wire is None:
            known = ", ".join(WIRES)
            raise InvalidRequest(f"protocol: there is no protocol {protocol!r}; known: {known}", param="protocol")
        if request.get("stream"):
            raise InvalidRequest("stream: this method answers whole; use `handle` to stream", param="stream")
        if schema is not None:
            request = asking_for(protocol, request, schema)
        reply = await self.handle(self.new_call(orjson.dumps(request), hints, wire=wire))
        try:
            late = "the call's deadline passed in the middle of its answer"
            await (reply.whole() if reply.deadline is None else reply.deadline.hold(reply.whole(), late))
            answer: dict[str, Any] = orjson.loads(reply.body)  # their own: others may share the one that we keep
            return answer
        finally:
            await reply.close()
