"""item_cache: of a batch, ask only for what is not known yet.

Where an answer consists of items that do not depend on each other (`negawatt.wire.items`), each is kept under a key
of its own. A batch of 100 with 90 known sends 10, and what two batches in flight have in common is asked once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from negawatt.call import Call
from negawatt.clock import Clock
from negawatt.config import ItemCache as Settings
from negawatt.config import RequestClass
from negawatt.economics.counting import Count
from negawatt.economics.usage import Usage
from negawatt.errors import StoreError
from negawatt.keys import request_digest
from negawatt.pipeline import Background, Handler
from negawatt.protocol import Prompt
from negawatt.recall.item_batch import NAME, Batch, Origin, origin_of, parts_of, sound
from negawatt.recall.kept_items import Found, KeptItem, decoded, encoded, shares, total_usage
from negawatt.recall.policy import CachePolicy, Plan, tags_of
from negawatt.reply import Reply
from negawatt.stores import Store
from negawatt.wire.items import Result, items_of, with_tokens

log = logging.getLogger(__name__)
_AT_ONCE = 16  # reads from the store
_ROUNDS = 2  # in which a call waits for what others ask; after them it asks for itself

Flight = asyncio.Future[Found | None]  # an item that somebody asks for; None: it did not come


class Counts(Protocol):
    """Counts the tokens of a prompt, as `negawatt.economics.counting.TokenCounter.count` does."""

    def __call__(self, model: str, prompt: Prompt) -> Count: ...


class ItemCache:
    """Keeps the items of answers under the digest of everything that can change them (`negawatt.keys`)."""

    def __init__(
        self,
        settings: Settings,
        classes: Mapping[str, RequestClass],
        *,
        store: Store,
        clock: Clock,
        background: Background,
        count: Counts,
    ) -> None:
        self._settings = settings
        self._policy = CachePolicy(settings, classes)
        self._items = items_of(settings.rerank_models)
        self._store = store
        self._clock = clock
        self._background = background
        self._count = count
        self._flights: dict[str, Flight] = {}

    def itemized(self, call: Call) -> bool:
        """True for a call whose answer this lever would keep in parts: no other cache needs to keep it whole."""
        items = self._items.get(call.wire.name)
        return items is not None and items.objection(call.request, call.targets[0].model) is None

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        items = self._items.get(call.wire.name)
        if items is None:
            return await forward(call)
        reason = items.objection(call.request, call.targets[0].model)
        plan = self._policy.plan(call) if reason is None else Plan(reason=reason)
        if not plan.read and not plan.write:
            call.note(NAME, "bypass", plan.reason)
            return await forward(call)
        batch = Batch(call, items, plan)
        if call.shadow:
            return await self._rehearse(batch, forward)
        request_digest(call.request, call.wire)  # of all that was asked, for the ledger
        try:
            return await self._answer(batch, forward)
        except BaseException:
            if not batch.noted:
                batch.note("partial" if batch.found else "miss", "what was asked for did not come")
            raise

    # -- answering ---------------------------------------------------------------------------------------------

    async def _answer(self, batch: Batch, forward: Handler) -> Reply:
        """Gather what is known, what others are asking for, and what nobody has asked; then put it together."""
        last: Reply | None = None
        for turn in range(_ROUNDS + 1):
            joined = self._claim(batch, alone=turn == _ROUNDS)
            try:
                if turn == 0:
                    await self._look_up(batch)
                wanted = [key for key in batch.missing if key not in joined]
                if wanted:
                    last = await self._ask(batch, wanted, forward)
            finally:
                self._land(batch)
            if last is not None and batch.final:
                return last
            await self._wait(batch, joined)
            if not batch.missing:
                break
        if not batch.coherent:
            return await self._ask_whole(batch, forward, "what is known comes from another model")
        return self._put_together(batch, last)

    def _claim(self, batch: Batch, *, alone: bool) -> dict[str, Flight]:
        """Take the lead for each missing item that nobody asks for. Return the flights of the others."""
        joined: dict[str, Flight] = {}
        if alone or not batch.plan.read:
            return joined
        for key in batch.missing:
            flight = self._flights.get(key)
            if flight is None:
                self._flights[key] = asyncio.get_running_loop().create_future()
                batch.leads.add(key)
            else:
                joined[key] = flight
        return joined

    def _land(self, batch: Batch) -> None:
        """Tell those who wait for what *batch* leads; None tells them to ask for themselves."""
        for key in batch.leads:
            self._flights[key].set_result(None if key in batch.borrowed else batch.found.get(key))
            if key not in batch.storing:  # else once it is stored, so that nobody comes between
                del self._flights[key]
        batch.leads.clear()

    async def _wait(self, batch: Batch, joined: Mapping[str, Flight]) -> None:
        """Wait for *joined*; what does not come, or is too old for this call, stays missing."""
        if not joined:
            return
        trail = batch.call.trail
        began = trail.clock.monotonic()
        try:
            await asyncio.wait(joined.values())
        finally:
            trail.waited_s += trail.clock.monotonic() - began
        for key, flight in joined.items():
            found = flight.result()
            if found is not None and batch.plan.state(self._age_s(found)) == "fresh":
                batch.found[key] = found
                batch.shared.add(key)

    async def _ask(self, batch: Batch, wanted: Sequence[str], forward: Handler) -> Reply:
        """Ask for *wanted* and take what comes into *batch*, which is final where the reply is the whole answer."""
        call = batch.call
        request = batch.items.narrowed(call.request, [batch.places[key] for key in wanted])
        changed = request is not call.request
        before = len(call.trail.attempts)
        try:
            reply = await forward(call.with_(request=request) if changed else call)
        finally:
            if changed:
                call.with_()  # the books are about what the caller asked
        batch.asked += len(wanted)
        await reply.whole()
        taken = parts_of(batch.items, reply, len(wanted))
        origin = origin_of(call, reply, call.trail.attempts[before:])
        reason = None
        if taken is None and changed and sound(call, reply):
            reason = "the answer to the rest was not what was asked"
        elif taken is not None and origin.stands_in and batch.found:
            reason = "a fallback answered for the rest"
        if reason is not None:
            reply.settle()
            return await self._ask_whole(batch, forward, reason)
        if taken is not None:
            self._take(batch, wanted, taken, reply, origin)
        batch.final = not changed or taken is None
        if batch.final:
            batch.note("miss" if batch.plan.read else "refresh", None if taken else "the answer has no such items")
        else:
            reply.settle()
        return reply

    async def _ask_whole(self, batch: Batch, forward: Handler, reason: str) -> Reply:
        """Ask for everything, known or not, and give the reply as it is."""
        batch.note("asked whole", reason)
        batch.final = True
        batch.found.clear()
        batch.borrowed.clear()
        call, before = batch.call, len(batch.call.trail.attempts)
        reply = await forward(call)
        await reply.whole()
        taken = parts_of(batch.items, reply, len(batch.keys))
        if taken is not None:
            self._take(batch, batch.keys, taken, reply, origin_of(call, reply, call.trail.attempts[before:]))
        return reply

    def _put_together(self, batch: Batch, last: Reply | None) -> Reply:
        """Return the answer to all of it. *last*: the newest reply, whose other fields the answer has."""
        found = [batch.found[key] for key in batch.keys]
        around = batch.newest.frame if last is None else last.data
        data = batch.items.merge(batch.call.request, [one.result for one in found], around)
        beside = total_usage(batch.unpaid(batch.newest_own))
        data = data if beside is None else with_tokens(data, beside.input_tokens)
        reply = Reply(batch.call.wire, body=orjson.dumps(data))
        reply._data = data
        if last is None:
            reply.answered_by = NAME
        else:
            reply.headers, reply.answered_by, reply.usage_basis = last.headers, last.answered_by, last.usage_basis
        action = "hit" if not batch.asked else "partial" if batch.plan.read else "refresh"
        age_s = None if batch.asked else round(max(map(self._age_s, found)), 3)
        batch.note(action, spares=batch.unpaid(batch.own), age_s=age_s)
        return reply

    async def _rehearse(self, batch: Batch, forward: Handler) -> Reply:
        """Decide beside the real call, which is asked for everything, and learn from its answer."""
        await self._look_up(batch)
        if not batch.missing:
            return self._put_together(batch, None)
        batch.asked = len(batch.missing)
        known = [batch.found[key] for key in batch.keys if key in batch.found]
        action = "partial" if known else "miss"
        batch.note(action if batch.plan.read else "refresh", spares=known)

        def learn(ended: Reply) -> None:
            taken = parts_of(batch.items, ended, len(batch.keys))
            if taken is not None:
                self._take(batch, batch.keys, taken, ended, origin_of(call, ended, call.trail.attempts))

        call = batch.call
        reply = await forward(call)
        reply.on_end(learn)
        return reply

    # -- keeping -----------------------------------------------------------------------------------------------

    async def _look_up(self, batch: Batch) -> None:
        """Read from the store into *batch* what it leads (in shadow: all): what is fresh, whole, and goes together."""
        if not batch.plan.read:
            return
        keys = list(batch.places) if batch.call.shadow else [key for key in batch.places if key in batch.leads]
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            values = await asyncio.gather(*map(self._store.get, some), return_exceptions=True)
            for key, value in zip(some, values, strict=True):
                if isinstance(value, StoreError):
                    batch.trouble = f"the store failed: {value.message}"
                elif isinstance(value, BaseException):
                    raise value
                elif value is not None:
                    self._read(batch, key, value)
        batch.leave_out_strangers()

    def _read(self, batch: Batch, key: str, value: bytes) -> None:
        found = decoded(value, batch.call.wire.name, self._settings.max_entry_bytes)
        if found is None or not batch.items.valid(found.result):
            batch.trouble = "a stored item cannot be read"
        elif batch.plan.state(self._age_s(found)) == "fresh":
            batch.found[key] = found

    def _take(self, batch: Batch, asked: Sequence[str], taken: Sequence[Result], reply: Reply, origin: Origin) -> None:
        """Take into *batch* what *reply* says of each of *asked*, and keep what is new where the plan says so."""
        call, now, target = batch.call, self._clock.time(), origin.target
        frame = batch.items.frame(reply.data)
        head = orjson.dumps(frame)
        new: dict[str, bytes] = {}
        for key, result, share in zip(asked, taken, self._shares(batch, asked, origin), strict=True):
            if key in batch.found:
                continue
            entry = KeptItem(
                call.wire.name, orjson.dumps(result), head, now, target.model, target.provider, share, origin.upstream_s
            )
            batch.found[key] = Found(entry, result, frame)
            new[key] = encoded(entry)
        batch.newest_own = set(new)
        batch.own |= batch.newest_own
        if origin.stands_in:
            batch.borrowed |= batch.newest_own
            call.note(NAME, "not stored", "answered by a fallback")
        elif batch.plan.write:
            most = self._settings.max_entry_bytes
            kept = {key: value for key, value in new.items() if len(value) <= most}
            if len(kept) < len(new):
                call.note(NAME, "not stored", f"{len(new) - len(kept)} larger than {most} bytes")
            if kept:
                batch.storing |= set(kept)
                self._background.spawn(self._put(call, kept, batch.plan))

    def _shares(self, batch: Batch, asked: Sequence[str], origin: Origin) -> list[Usage | None]:
        """Return what each of *asked* used: the provider's tokens, divided by our own count of each."""
        if origin.usage is None or len(asked) == 1:
            return shares(origin.usage, [1] * len(asked))
        request, model = batch.call.request, origin.target.model
        prompts = [batch.items.prompt(request, batch.places[key]) for key in asked]
        return shares(origin.usage, [self._count(model, prompt).tokens for prompt in prompts])

    async def _put(self, call: Call, kept: Mapping[str, bytes], plan: Plan) -> None:
        flights = {key: self._flights.get(key) for key in kept}
        tags, group = tags_of(call), call.request_class
        most = self._policy.max_bytes(group)
        try:
            for key, value in kept.items():
                await self._store.put(key, value, ttl_s=plan.ttl_s, tags=tags, group=group, group_max_bytes=most)
        except StoreError as error:
            log.warning("the items of call %s were not stored: %s", call.id, error.message)
        finally:
            self._forget(flights)

    def _forget(self, flights: Mapping[str, Flight | None]) -> None:
        """Let the next who asks look into the store."""
        for key, flight in flights.items():
            if flight is not None and flight.done() and self._flights.get(key) is flight:
                del self._flights[key]

    def _age_s(self, found: Found) -> float:
        return self._clock.time() - found.entry.stored_at
