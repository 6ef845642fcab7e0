"""exact_cache: answer what was answered before, byte for byte.

Where replicas share the store, equal calls that miss on several of them at once make one call upstream: one replica
has the turn (`negawatt.recall.turns`), and the others wait, for a bounded time, for what it stores.
"""

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
from negawatt.recall.turns import Turn, Turns
from negawatt.reply import Reply
from negawatt.stores import Store

log = logging.getLogger(__name__)
NAME = "exact_cache"
_RENEWAL_S = 600.0  # the longest that one renewal may keep others from trying
_NOTHING: Mapping[str, object] = {}

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
        shares: Callable[[Call], bool] = lambda _: False,
    ) -> None:
        """*ask_again* asks a call anew, past the caches; *itemized* is true for calls kept in parts elsewhere.

        *shares* is true for calls that share one call upstream when several are in flight.
        """
        self._settings = settings
        self._policy = CachePolicy(settings, classes)
        self._store = store
        self._validate = validate
        self._clock = clock
        self._background = background
        self._ask_again = ask_again
        self._itemized = itemized
        self._shares = shares
        wait_s = settings.wait_for_others_s if store.shared else 0.0
        self._turns = Turns(store, most_s=wait_s, spawn=background.spawn) if wait_s > 0 else None

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        if self._itemized(call):
            call.note(NAME, "bypass", "kept item by item")
            return await forward(call)
        plan = self._policy.plan(call)
        if not plan.read and not plan.write:
            call.note(NAME, "bypass", plan.reason)
            return await forward(call)
        key = key_of(call)
        if not plan.read:
            call.note(NAME, "refresh", plan.reason)
            return await self._forward(call, key, plan, forward)
        found = await self._look(call, key, plan)
        if not isinstance(found, str):
            return self._answer(call, key, found, plan)
        if self._turns is None or not plan.write or call.shadow or not self._shares(call):
            call.note(NAME, "miss", found or None)
            return await self._forward(call, key, plan, forward)
        turn = self._turns.enter(key, partial(self._finds, call, key, plan))
        leave = partial(self._turns.leave, turn)
        try:
            reply = await self._in_turn(call, key, plan, turn, found)
        except BaseException:
            leave()
            raise
        if reply is None:
            return await self._forward(call, key, plan, forward, leave)
        leave()
        return reply

    async def _look(self, call: Call, key: str, plan: Plan) -> tuple[Kept, Reply] | str:
        """Return what is stored under *key*, as a reply to *call*; or why there is none for it, "" if just none."""
        try:
            value = await self._store.get(key)
        except StoreError as error:
            return f"the store failed: {error.message}"
        if value is None:
            return ""
        try:
            entry = _decode(value)
        except msgspec.MsgspecError:
            return "the stored entry cannot be read"
        age_s = self._clock.time() - entry.stored_at
        if plan.state(age_s) == "old":
            takes_s = plan.ttl_s + plan.stale_s if plan.max_age_s is None else plan.max_age_s
            return f"the stored answer is {age_s:.0f} s old; this call takes {takes_s:.0f} at most"
        wrong = poisoned(call, entry, self._settings.max_entry_bytes)
        reply = revived(call, entry, NAME) if wrong is None else None
        return (entry, reply) if reply is not None else wrong or "the stored entry is not the answer that was kept"

    async def _forward(
        self, call: Call, key: str, plan: Plan, forward: Handler, done: Callable[[], None] = lambda: None
    ) -> Reply:
        """Ask, and keep the answer if it is worth it. *done* is called once there is nothing more to come of it."""
        try:
            reply = await forward(call)
        except BaseException:
            done()
            raise
        if plan.write:
            reply.on_end(partial(self._keep, call, key, plan, done))
        return reply

    async def _finds(self, call: Call, key: str, plan: Plan) -> bool:
        return not isinstance(await self._look(call, key, plan), str)

    async def _in_turn(self, call: Call, key: str, plan: Plan, turn: Turn, reason: str) -> Reply | None:
        """Wait until it is this process's turn to ask, or return what somebody else has stored meanwhile.

        A stream does not wait: nothing of it could be sent before the other answer was whole. *reason*: of the miss.
        """
        most_s = 0.0 if call.streams else self._settings.wait_for_others_s
        if call.deadline is not None:
            most_s = min(most_s, call.deadline.left_s / 2)  # the other half is for asking oneself
        waits, waited_s, began = most_s > 0 and not turn.over, 0.0, self._clock.monotonic()
        try:
            if waits:
                await turn.wait(most_s)
        finally:
            if waits and turn.waited:
                waited_s = self._clock.monotonic() - began
                call.trail.waited_s += waited_s
        detail = {"waited_s": round(waited_s, 3)} if waited_s else {}
        if turn.found:
            found = await self._look(call, key, plan)
            if not isinstance(found, str):
                return self._answer(call, key, found, plan, {"shared": True, **detail})
        why = turn.in_vain if waited_s else reason or turn.problem
        call.note(NAME, "miss", why or None, detail=detail or None)
        return None

    def _answer(
        self, call: Call, key: str, found: tuple[Kept, Reply], plan: Plan, detail: Mapping[str, object] = _NOTHING
    ) -> Reply:
        entry, reply = found
        age_s = round(self._clock.time() - entry.stored_at, 3)
        stale = plan.state(age_s) == "stale"
        call.note(NAME, "stale" if stale else "hit", saved=entry.saved, detail={"age_s": age_s, **detail})
        if stale and plan.write and not call.shadow:
            self._background.spawn(self._renew(call, key))
        return reply

    async def _renew(self, call: Call, key: str) -> None:
        """Ask anew what was answered with a stale entry, unless somebody does already."""
        if self._ask_again is None:
            return
        try:
            right = f"{key}:renewal"  # not the one that calls wait for: it is held for long
            token = await self._store.claim(right, ttl_s=_RENEWAL_S)
            if token is None:
                return
            try:
                await self._ask_again(call)
            finally:
                await self._store.release(right, token)
        except NegawattError as error:
            log.warning("the stale answer to call %s was not renewed: %s", call.id, error.message)

    def _keep(self, call: Call, key: str, plan: Plan, done: Callable[[], None], reply: Reply) -> None:
        """Store *reply* if it is worth it; called when it has ended."""
        value = None
        try:
            value = self._worth_keeping(call, reply)
        finally:
            if value is None:
                done()
        if value is None:
            return
        put = self._put(call, key, value, plan, again=reply.answered_by == "coalesce")
        self._background.spawn(_then(put, done))

    def _worth_keeping(self, call: Call, reply: Reply) -> bytes | None:
        refusal = not_to_be_kept(call, reply, self._validate)
        if refusal is not None:
            call.note(NAME, "not stored", refusal)
            return None
        value = _encode(kept(call, reply, self._clock.time()))
        if len(value) > self._settings.max_entry_bytes:
            call.note(NAME, "not stored", f"larger than {self._settings.max_entry_bytes} bytes")
            return None
        return value

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


async def _then(work: Awaitable[None], done: Callable[[], None]) -> None:
    try:
        await work
    finally:
        done()
