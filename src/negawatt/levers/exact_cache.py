"""exact_cache: answer what was answered before, byte for byte."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec

from negawatt.call import Call
from negawatt.clock import Clock
from negawatt.config import ExactCache as Settings
from negawatt.config import RequestClass
from negawatt.errors import NegawattError, StoreError
from negawatt.keys import key_of
from negawatt.pipeline import Background, Handler
from negawatt.recall.kept import Kept, Validator, kept, not_to_be_kept, poisoned, revived
from negawatt.recall.policy import CachePolicy, Plan, tags_of
from negawatt.reply import Reply
from negawatt.stores import Store

log = logging.getLogger(__name__)
NAME = "exact_cache"
_RENEWAL_S = 600.0  # the longest that one renewal may keep others from trying


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


class ExactCache:
    """Keeps whole answers under the digest of everything that can change them (`negawatt.keys`)."""

    def __init__(  # noqa: PLR0913
        self,
        settings: Settings,
        classes: Mapping[str, RequestClass],
        *,
        store: Store,
        validate: Validator,
        clock: Clock,
        background: Background,
        ask_again: Callable[[Call], Awaitable[None]] | None = None,
        itemized: Callable[[Call], bool] = lambda _: False,
    ) -> None:
        """*ask_again* asks a call anew, past the caches; *itemized* is true for calls kept in parts elsewhere."""
        self._settings = settings
        self._policy = CachePolicy(settings, classes)
        self._store = store
        self._validate = validate
        self._clock = clock
        self._background = background
        self._ask_again = ask_again
        self._itemized = itemized

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        if self._itemized(call):
            call.note(NAME, "bypass", "kept item by item")
            return await forward(call)
        plan = self._policy.plan(call)
        if not plan.read and not plan.write:
            call.note(NAME, "bypass", plan.reason)
            return await forward(call)
        key = key_of(call)
        if plan.read:
            found = await self._find(call, key, plan)
            if found is not None:
                return self._answer(call, key, *found, plan)
        else:
            call.note(NAME, "refresh", plan.reason)
        reply = await forward(call)
        if plan.write:
            reply.on_end(partial(self._keep, call, key, plan))
        return reply

    async def _find(self, call: Call, key: str, plan: Plan) -> tuple[Kept, Reply] | None:
        try:
            value = await self._store.get(key)
        except StoreError as error:
            call.note(NAME, "miss", f"the store failed: {error.message}")
            return None
        if value is None:
            call.note(NAME, "miss")
            return None
        try:
            entry = _decode(value)
        except msgspec.MsgspecError:
            call.note(NAME, "miss", "the stored entry cannot be read")
            return None
        age_s = self._clock.time() - entry.stored_at
        if plan.state(age_s) == "old":
            takes_s = plan.ttl_s + plan.stale_s if plan.max_age_s is None else plan.max_age_s
            call.note(NAME, "miss", f"the stored answer is {age_s:.0f} s old; this call takes {takes_s:.0f} at most")
            return None
        wrong = poisoned(call, entry, self._settings.max_entry_bytes)
        reply = revived(call, entry, NAME) if wrong is None else None
        if reply is None:
            call.note(NAME, "miss", wrong or "the stored entry is no whole answer")
            return None
        return entry, reply

    def _answer(self, call: Call, key: str, entry: Kept, reply: Reply, plan: Plan) -> Reply:
        age_s = round(self._clock.time() - entry.stored_at, 3)
        stale = plan.state(age_s) == "stale"
        call.note(NAME, "stale" if stale else "hit", saved=entry.saved, detail={"age_s": age_s})
        if stale and plan.write and not call.shadow:
            self._background.spawn(self._renew(call, key))
        return reply

    async def _renew(self, call: Call, key: str) -> None:
        """Ask anew what was answered with a stale entry, unless somebody does already."""
        if self._ask_again is None:
            return
        try:
            token = await self._store.claim(key, ttl_s=_RENEWAL_S)
            if token is None:
                return
            try:
                await self._ask_again(call)
            finally:
                await self._store.release(key, token)
        except NegawattError as error:
            log.warning("the stale answer to call %s was not renewed: %s", call.id, error.message)

    def _keep(self, call: Call, key: str, plan: Plan, reply: Reply) -> None:
        """Store *reply* if it is worth it; called when it has ended."""
        refusal = not_to_be_kept(call, reply, self._validate)
        if refusal is not None:
            call.note(NAME, "not stored", refusal)
            return
        value = _encode(kept(call, reply, self._clock.time()))
        if len(value) > self._settings.max_entry_bytes:
            call.note(NAME, "not stored", f"larger than {self._settings.max_entry_bytes} bytes")
            return
        self._background.spawn(self._put(call, key, value, plan, again=reply.answered_by == "coalesce"))

    async def _put(self, call: Call, key: str, value: bytes, plan: Plan, *, again: bool) -> None:
        try:
            if again and await self._store.get(key) is not None:
                return  # of the callers who shared one answer, one has stored it
            await self._store.put(
                key, value, ttl_s=plan.ttl_s + plan.stale_s, tags=tags_of(call), group=call.request_class,
                group_max_bytes=self._policy.max_bytes(call.request_class),
            )  # fmt: skip
        except StoreError as error:
            log.warning("the answer to call %s was not stored: %s", call.id, error.message)
