"""The layers themselves: get, put, delete, and one who makes what many ask for.

Whoever wants an entry made asks with `Layers.begin`. The answer is what was found, or a `Lead`: the duty to make it,
and to say with `finish` what came of it, or with `fail` that nothing did. Meanwhile others who ask wait: in this
process for the lead's flight, in other processes (`negawatt.stores.Store.claim`) by looking into the store, and
never longer than the layer's ``wait_s``. A store that fails makes misses, and in one process there is still one lead.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from negawatt.clock import Clock
from negawatt.config import LAYERS, LayerRules
from negawatt.config import Cache as Settings
from negawatt.errors import StoreError, UnknownLayer
from negawatt.keys import NEEDS, lacking
from negawatt.layers.entry import BYTES, Entry, encoded, opened, sealed
from negawatt.layers.values import Asked, Flight, Found, Lead, Missed
from negawatt.pipeline import Background
from negawatt.recall.policy import Plan, controlled
from negawatt.stores import Store
from negawatt.telemetry import Telemetry

log = logging.getLogger(__name__)

_METRIC = "negawatt_layer_operations_total"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25  # between two looks at what another process makes
_SHORTEST_CLAIM_S = 1.0
_CLEARED = 256  # invalidations that are remembered while entries are being made


class Layers:
    """All layers of one process, in one event loop, over one store."""

    def __init__(
        self, settings: Settings, *, store: Store, clock: Clock, background: Background, telemetry: Telemetry
    ) -> None:
        rules = {name: settings.layers.get(name, LayerRules()) for name in [*LAYERS, *settings.layers]}
        self._rules = {
            name: rule if rule.needs is not None else msgspec.structs.replace(rule, needs=LAYERS.get(name, ()))
            for name, rule in rules.items()
        }
        self._store = store
        self._clock = clock
        self._background = background
        self._telemetry = telemetry
        self._flights: dict[str, Flight] = {}
        self._invalidations = itertools.count(1)
        self._cleared: deque[tuple[int, frozenset[str]]] = deque([(0, frozenset("-"))], maxlen=_CLEARED)
        self._down = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rules)

    def rules(self, layer: str) -> LayerRules:
        """Return the rules of *layer*. Raises `UnknownLayer`."""
        rules = self._rules.get(layer)
        if rules is None:
            known = ", ".join(sorted(self._rules))
            raise UnknownLayer(f"layer: there is no layer {layer[:100]!r}; known: {known}", param="layer")
        return rules

    # -- one entry ---------------------------------------------------------------------------------------------

    async def get(self, asked: Asked) -> Found | Missed:
        """Return what is kept. Raises `UnknownLayer`, and `InvalidRequest` for a Cache-Control that is none."""
        plan = self.plan(asked)
        if not plan.read:
            return self._refuse(asked, plan.reason)
        entry = await self._look(asked, plan)
        if isinstance(entry, Entry):
            return self._given(asked, plan, entry)
        self._note(asked, "miss")
        return Missed(entry)

    async def put(self, asked: Asked, value: bytes, content_type: str = BYTES) -> str | None:
        """Keep *value*, at most for the ``max-age`` of *asked*; return why it is not kept, or None. Raises as `get`."""
        plan = self.plan(asked)
        if not plan.write or plan.max_age_s == 0:
            return self._refuse(asked, plan.reason).reason
        if plan.max_age_s is not None:
            plan = msgspec.structs.replace(plan, ttl_s=min(plan.ttl_s, plan.max_age_s))
        lead = Lead(asked, plan, self._cleared[-1][0])
        await self._keep(lead, self._sealed(lead, value, content_type))
        return lead.refused

    async def delete(self, asked: Asked) -> bool:
        """Delete one entry; True if there was one. Raises `UnknownLayer` and `StoreError`."""
        self.rules(asked.layer)
        self._cleared.append((next(self._invalidations), frozenset((asked.key,))))
        deleted = await self._store.delete(asked.key)
        self._note(asked, "delete")
        return deleted

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        """Delete what has all of *tags*, in every cache of the store; return how much. Raises `StoreError`.

        What is being made at this moment, in this process, is not kept either.
        """
        if tags and not dry_run:
            self._cleared.append((next(self._invalidations), frozenset(tags)))
        return await self._store.delete_tagged(tags, dry_run=dry_run)

    async def stats(self) -> dict[str, Any]:
        """Return entries and bytes of the whole store, and what each layer did since the start. Raises `StoreError`."""
        stats = await self._store.stats()
        counts: dict[str, dict[str, int]] = {name: {} for name in self._rules}
        for sample in self._telemetry.samples():
            if sample.name == _METRIC:
                labels = dict(sample.labels)
                counts[labels["layer"]][labels["action"]] = int(sample.value)
        return {"entries": stats.entries, "bytes": stats.bytes, "layers": counts}

    def plan(self, asked: Asked) -> Plan:
        """Return what rules, scope and caller allow."""
        rules = self.rules(asked.layer)
        missing = lacking(rules.needs or (), asked.scope)
        if missing is not None:
            return Plan(reason=f"the layer {asked.layer} needs {NEEDS[missing]} and the call has none")
        ttl_s = rules.ttl_s if asked.ttl_s is None else min(asked.ttl_s, rules.ttl_s)
        plan = Plan(read=True, write=True, ttl_s=ttl_s, stale_s=rules.stale_s)
        return plan if asked.cache_control is None else controlled(plan, asked.cache_control)

    # -- making it once ----------------------------------------------------------------------------------------

    async def get_or_make(self, asked: Asked, make: Callable[[], Awaitable[bytes]], content_type: str = BYTES) -> bytes:
        """Return what is kept, else what *make* returns, which is kept. Raises what *make* raises, and as `get`."""
        step = await self.begin(asked)
        if isinstance(step, Missed):
            return await make()
        if isinstance(step, Lead):
            return await self._made(step, make, content_type)
        if step.renewal is not None:
            self._background.spawn(self._renew(step.renewal, make, content_type))
        return step.entry.value

    async def begin(self, asked: Asked, *, wait_s: float | None = None) -> Found | Lead | Missed:
        """Return what is kept, or the `Lead` to make it; wait, *wait_s* at most, for somebody who has it.

        Raises as `get`.
        """
        plan = self.plan(asked)
        if not plan.read and not plan.write:
            return self._refuse(asked, plan.reason)
        lead = Lead(asked, plan, self._cleared[-1][0])
        longest_s = self.rules(asked.layer).wait_s
        until = self._clock.monotonic() + (longest_s if wait_s is None else min(wait_s, longest_s))
        while plan.read:
            flight = self._flights.get(asked.key)
            # One whose lead was lost holds nobody up for longer than a claim would.
            if flight is None or flight.started + max(longest_s, _SHORTEST_CLAIM_S) <= self._clock.monotonic():
                return await self._lead(lead, until)
            await asyncio.wait({flight.landed}, timeout=max(0.0, until - self._clock.monotonic()))
            entry = flight.landed.result() if flight.landed.done() else None
            if entry is not None and self._state(plan, entry) != "old":
                return self._given(asked, plan, entry, shared=True)
            if entry is not None or flight.given_up or self._clock.monotonic() >= until:
                break
        self._note(asked, "miss")
        return lead  # alone

    async def finish(self, lead: Lead, value: bytes, content_type: str = BYTES) -> str | None:
        """Keep what the *lead* made and hand it to those who wait; return why it is not kept, or None."""
        entry = self._sealed(lead, value, content_type)
        if lead.flight is not None and not lead.flight.landed.done():
            lead.flight.landed.set_result(entry)
        # Whoever is cancelled here has made it nevertheless.
        await asyncio.shield(self._background.spawn(self._settle(lead, entry)))
        return lead.refused

    def fail(self, lead: Lead) -> None:
        """Let somebody else try."""
        self._land(lead, None)
        if lead.token is not None:
            self._background.spawn(self.release(lead.asked, lead.token))

    def give_up(self, lead: Lead) -> None:
        """Let everyone who waits make it for themselves, at once: it is not to be kept."""
        if lead.flight is not None:
            lead.flight.given_up = True
        self.fail(lead)

    def hand_out(self, lead: Lead) -> str | None:
        """Leave the *lead* to one who is not of this process, and comes back with the token; None: nobody waits."""
        self._land(lead, None)
        return lead.token

    async def release(self, asked: Asked, token: str) -> None:
        """Give a claim back: somebody else may make the entry."""
        try:
            await self._store.release(asked.key, token)
        except StoreError as error:
            self._trouble(asked, error)

    async def _lead(self, lead: Lead, until: float) -> Found | Lead:
        """Take off: others wait from now on. Return what is there already, or was made by another process."""
        flight = lead.flight = self._flights[lead.asked.key] = Flight(self._clock.monotonic())
        try:
            kept = await self._look(lead.asked, lead.plan)
            entry = kept if isinstance(kept, Entry) else await self._claim(lead, until)
            if entry is None:
                self._note(lead.asked, "miss")
                return lead
            renewal = await self._renewal(lead, entry)
        except BaseException:
            self.fail(lead)
            raise
        if not flight.landed.done():
            self._land(lead, entry)
        return self._given(lead.asked, lead.plan, entry, renewal=renewal)

    async def _claim(self, lead: Lead, until: float) -> Entry | None:
        """Claim what is to be made; while another process has the claim, look for what it made."""
        asked, pause_s = lead.asked, _FIRST_PAUSE_S
        claim_s = max(self.rules(asked.layer).wait_s, _SHORTEST_CLAIM_S)
        while True:
            try:
                lead.token = await self._store.claim(asked.key, ttl_s=claim_s)
            except StoreError as error:
                self._trouble(asked, error)
                return None
            if lead.token is None:
                left_s = until - self._clock.monotonic()
                if left_s <= 0:
                    return None
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
            entry = await self._look(asked, lead.plan)  # also with the claim: it may have been made just before
            if isinstance(entry, Entry):
                if lead.token is not None:
                    await self.release(asked, lead.token)
                    lead.token = None
                return entry
            if lead.token is not None:
                return None

    async def _renewal(self, lead: Lead, entry: Entry) -> Lead | None:
        """Return the lead to renew *entry*, if it is stale and nobody has it."""
        if not lead.plan.write or self._state(lead.plan, entry) != "stale":
            return None
        claim_s = max(self.rules(lead.asked.layer).wait_s, _SHORTEST_CLAIM_S)
        try:
            token = await self._store.claim(lead.asked.key, ttl_s=claim_s)
        except StoreError as error:
            self._trouble(lead.asked, error)
            return None
        return None if token is None else Lead(lead.asked, lead.plan, lead.begun, token)

    def _land(self, lead: Lead, entry: Entry | None) -> None:
        """Tell those who wait, and let the next who asks look for themselves."""
        flight = lead.flight
        if flight is None:
            return
        if not flight.landed.done():
            flight.landed.set_result(entry)
        if self._flights.get(lead.asked.key) is flight:
            del self._flights[lead.asked.key]

    async def _made(self, lead: Lead, make: Callable[[], Awaitable[bytes]], content_type: str) -> bytes:
        try:
            value = await make()
        except BaseException:
            self.fail(lead)
            raise
        await self.finish(lead, value, content_type)
        return value

    async def _renew(self, lead: Lead, make: Callable[[], Awaitable[bytes]], content_type: str) -> None:
        try:
            await self._made(lead, make, content_type)
        except Exception as error:
            log.warning("a stale entry of the layer %s was not renewed: %r", lead.asked.layer, error)

    # -- parts -------------------------------------------------------------------------------------------------

    async def _look(self, asked: Asked, plan: Plan) -> Entry | str:
        """Return the entry that *plan* lets be given, or why there is none."""
        try:
            raw = await self._store.get(asked.key)
        except StoreError as error:
            self._trouble(asked, error)
            return f"the store failed: {error.message}"
        self._down = False
        if raw is None:
            return "nothing is kept under this key"
        entry = opened(raw, asked.key, asked.layer, self.rules(asked.layer).max_entry_bytes)
        if entry is None:
            self._note(asked, "error")
            return "what is kept under this key may not be given: it is no entry of this layer, or too large"
        return "what is kept under this key is too old" if self._state(plan, entry) == "old" else entry

    def _given(
        self, asked: Asked, plan: Plan, entry: Entry, *, shared: bool = False, renewal: Lead | None = None
    ) -> Found:
        stale = self._state(plan, entry) == "stale"
        state = "stale" if stale else "shared" if shared else "hit"
        self._note(asked, state)
        return Found(entry, self._age_s(entry), state, renewal)

    def _state(self, plan: Plan, entry: Entry) -> str:
        if entry.ttl_s < plan.ttl_s:
            plan = msgspec.structs.replace(plan, ttl_s=entry.ttl_s)
        return plan.state(self._age_s(entry))

    def _age_s(self, entry: Entry) -> float:
        return max(0.0, self._clock.time() - entry.stored_at)

    def _sealed(self, lead: Lead, value: bytes, content_type: str) -> Entry:
        return sealed(
            lead.asked.key, lead.asked.layer, value, content_type=content_type, stored_at=self._clock.time(),
            ttl_s=lead.plan.ttl_s,
        )  # fmt: skip

    async def _settle(self, lead: Lead, entry: Entry) -> None:
        try:
            await self._keep(lead, entry)
        finally:
            self._land(lead, entry)
            if lead.token is not None:
                await self.release(lead.asked, lead.token)

    async def _keep(self, lead: Lead, entry: Entry) -> None:
        """Store *entry*, unless it is too large or was invalidated while it was made."""
        asked, most = lead.asked, self.rules(lead.asked.layer).max_entry_bytes
        if not lead.plan.write:
            lead.refused = lead.plan.reason
        elif len(entry.value) > most:
            lead.refused = f"it has {len(entry.value)} bytes; the limit is {most} (cache.layers.{asked.layer})"
        elif self._cleared_since(lead):
            lead.refused = "it was invalidated while it was made"
        else:
            try:
                await self._store.put(
                    asked.key, encoded(entry), ttl_s=lead.plan.ttl_s + lead.plan.stale_s, tags=asked.all_tags,
                    group=f"layer:{asked.layer}",
                )  # fmt: skip
            except StoreError as error:
                self._trouble(asked, error)
                lead.refused = f"the store failed: {error.message}"
                return
        self._note(asked, "put" if lead.refused is None else "refused")

    def _cleared_since(self, lead: Lead) -> bool:
        mine = {lead.asked.key, *lead.asked.all_tags}
        forgotten = self._cleared[0][0] > lead.begun
        return forgotten or any(at > lead.begun and tags <= mine for at, tags in self._cleared)

    def _refuse(self, asked: Asked, reason: str | None) -> Missed:
        self._note(asked, "refused")
        return Missed(reason or "the caller said so", refused=True)

    def _trouble(self, asked: Asked, error: StoreError) -> None:
        self._note(asked, "error")
        if not self._down:
            log.warning("layer %s: %s; until it is back, nothing is found or kept", asked.layer, error.message)
        self._down = True

    def _note(self, asked: Asked, action: str) -> None:
        self._telemetry.count(_METRIC, layer=asked.layer, action=action)
