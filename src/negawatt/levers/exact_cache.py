"""exact_cache: answer what was answered before, byte for byte."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from negawatt.call import Call, Saved, Target
from negawatt.clock import Clock
from negawatt.config import ExactCache as Settings
from negawatt.config import RequestClass
from negawatt.economics.usage import Usage
from negawatt.errors import InvalidRequest, StoreError
from negawatt.keys import key_of, missing_scope
from negawatt.pipeline import Background, Handler
from negawatt.protocol import Contract
from negawatt.reply import Reply
from negawatt.stores import Store

log = logging.getLogger(__name__)
NAME = "exact_cache"


class Validator(Protocol):
    """Says why *answers* break *contract*; None when they keep it."""

    def __call__(self, contract: Contract, answers: Sequence[str]) -> str | None: ...


class Entry(msgspec.Struct, frozen=True):
    """A kept answer."""

    body: bytes
    stored_at: float
    model: str
    provider: str
    usage: Usage | None
    upstream_s: float | None


class _Plan(msgspec.Struct, frozen=True):
    """What the class and the caller allow for one call."""

    read: bool = False
    write: bool = False
    max_age_s: float | None = None
    reason: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?(\d+)\"?$")


class ExactCache:
    """Keeps whole answers under the digest of everything that can change them (`negawatt.keys`)."""

    def __init__(
        self,
        settings: Settings,
        classes: Mapping[str, RequestClass],
        *,
        store: Store,
        validate: Validator,
        clock: Clock,
        background: Background,
    ) -> None:
        self._settings = settings
        self._classes = classes
        self._store = store
        self._validate = validate
        self._clock = clock
        self._background = background
        self._nothing_special = _Plan(settings.access != "write_only", settings.access != "read_only")

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        plan = self._plan(call)
        if not plan.read and not plan.write:
            call.note(NAME, "bypass", plan.reason)
            return await forward(call)
        key = key_of(call)
        if plan.read:
            entry = await self._find(call, key, plan)
            if entry is not None:
                return self._answer(call, entry)
        else:
            call.note(NAME, "refresh", plan.reason)
        reply = await forward(call)
        if plan.write:
            reply.on_end(partial(self._keep, call, key))
        return reply

    def _plan(self, call: Call) -> _Plan:
        policy = self._classes.get(call.request_class)
        when = self._settings.when if policy is None or policy.cache is None else policy.cache
        if when == "never":
            return _Plan(reason="not for this class")
        missing = missing_scope(policy, call.scope)
        if missing is not None:
            return _Plan(reason=missing)
        if when == "deterministic" and not call.wire.deterministic(call.request):
            return _Plan(reason="not deterministic: temperature is not 0")
        if call.hints.cache_control is None:
            return self._nothing_special
        return self._controlled(call.hints.cache_control)

    def _controlled(self, cache_control: str) -> _Plan:
        """Read the request's Cache-Control (RFC 9111, section 5.2.1) as far as it applies."""
        words = [word.strip().lower() for word in cache_control.split(",") if word.strip()]
        read, write = self._nothing_special.read, self._nothing_special.write
        max_age_s = None
        for word in words:
            if word.startswith("max-age"):
                seconds = _MAX_AGE.match(word)
                if seconds is None:
                    raise InvalidRequest("cache-control: max-age needs a number of seconds", param="cache-control")
                max_age_s = float(seconds[1])
        read = read and "no-cache" not in words and max_age_s != 0
        write = write and "no-store" not in words
        reason = f"the caller said {', '.join(words)}"[:100]
        return _Plan(read=read and "no-store" not in words, write=write, max_age_s=max_age_s, reason=reason)

    async def _find(self, call: Call, key: str, plan: _Plan) -> Entry | None:
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
        if plan.max_age_s is not None and age_s > plan.max_age_s:
            call.note(NAME, "miss", f"the stored answer is {age_s:.0f} s old; the caller takes {plan.max_age_s:.0f}")
            return None
        if age_s > self._ttl_s(call):  # stored for another class, which keeps answers for longer
            call.note(NAME, "miss", f"the stored answer is {age_s:.0f} s old; too old for this class")
            return None
        return entry

    def _answer(self, call: Call, entry: Entry) -> Reply:
        saved = None
        if entry.usage is not None:
            saved = Saved(
                usage=entry.usage, model=entry.model, provider=entry.provider, upstream_s=entry.upstream_s,
                basis=entry.usage.basis,
            )  # fmt: skip
        age_s = round(self._clock.time() - entry.stored_at, 3)
        call.note(NAME, "hit", saved=saved, detail={"age_s": age_s})
        reply = Reply(call.wire, body=entry.body)
        reply.answered_by = NAME
        return reply

    def _keep(self, call: Call, key: str, reply: Reply) -> None:
        """Store *reply* if it is worth it; called when it has ended."""
        refusal = self._refusal(call, reply)
        if refusal is not None:
            call.note(NAME, "not stored", refusal)
            return
        target, usage, upstream_s = _origin(call, reply)
        entry = Entry(reply.body, self._clock.time(), target.model, target.provider, usage, upstream_s)
        value = _encode(entry)
        if len(value) > self._settings.max_entry_bytes:
            call.note(NAME, "not stored", f"larger than {self._settings.max_entry_bytes} bytes")
            return
        self._background.spawn(self._put(call, key, value, again=reply.answered_by == "coalesce"))

    def _refusal(self, call: Call, reply: Reply) -> str | None:
        if not reply.finished or reply.error is not None:
            return "cut off"
        if reply.status != 200:
            return f"status {reply.status}"
        if reply.answered_by not in ("provider", "coalesce"):
            return "no provider's answer"
        target = _origin(call, reply)[0]
        if (target.provider, target.model) != (call.targets[0].provider, call.targets[0].model):
            return "answered by a fallback"
        if not call.wire.complete(reply.data):
            return "not every choice came to its end"
        if not reply.faithful:
            return "it cannot be streamed again without loss"
        contract = call.wire.contract(call.request)
        return None if contract is None else self._validate(contract, call.wire.answers(reply.data))

    async def _put(self, call: Call, key: str, value: bytes, *, again: bool) -> None:
        policy = self._classes.get(call.request_class)
        try:
            if again and await self._store.get(key) is not None:
                return  # of the callers who shared one answer, one has stored it
            await self._store.put(
                key, value, ttl_s=self._ttl_s(call), tags=tags_of(call), group=call.request_class,
                group_max_bytes=None if policy is None else policy.max_cache_bytes,
            )  # fmt: skip
        except StoreError as error:
            log.warning("the answer to call %s was not stored: %s", call.id, error.message)

    def _ttl_s(self, call: Call) -> float:
        policy = self._classes.get(call.request_class)
        return self._settings.ttl_s if policy is None or policy.ttl_s is None else policy.ttl_s


def tags_of(call: Call) -> tuple[str, ...]:
    """Return the tags by which an entry can be deleted: tenant, class, model and corpus version."""
    tags = [f"tenant={call.scope.tenant}", f"class={call.request_class}", f"model={call.request.model}"]
    if call.scope.corpus_version is not None:
        tags.append(f"corpus_version={call.scope.corpus_version}")
    return tuple(tags)


def _origin(call: Call, reply: Reply) -> tuple[Target, Usage | None, float | None]:
    """Return where *reply* came from, what it used there and how long that took."""
    answered = [attempt for attempt in call.trail.attempts if attempt.error is None]
    if answered:
        attempt = answered[-1]
        spent = None if attempt.ended is None else attempt.ended - attempt.started
        return attempt.target, attempt.usage, spent
    shared = call.trail.decided("coalesce")
    if shared is not None and shared.saved is not None:
        saved = shared.saved
        return Target(saved.provider, saved.model, call.request.model), saved.usage, saved.upstream_s
    return call.targets[0], None, None
