"""cap: an answer may be as long as nearly all answers of its class had to be, and no longer.

What answers needed is learned from those that came to their own end. One that is cut off by a limit of ours is asked
for once more without it. Streams have no such limit: what has been sent cannot be asked for again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from negawatt.call import Attempt, Call, Request, Saved, Target
from negawatt.config import RequestClass
from negawatt.config_shape import Cap as Settings
from negawatt.economics.usage import Usage
from negawatt.errors import NotRecorded, RequestError, UpstreamError, UpstreamStatus
from negawatt.pipeline import Handler
from negawatt.reply import Reply
from negawatt.shape.lengths import Growth, Lengths
from negawatt.shape.useful import ALL, Useful, of_json
from negawatt.wire import limits

NAME = "cap"
_MOST_KINDS = 4096
_REFUSES = "its provider refuses what would be set"


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the lever works with.

    *alert* tells of answers that grow: name, class, message. *takes_verbosity*: whether the target takes that word;
    *newer_word*: whether it takes ``max_completion_tokens``.
    """

    alert: Callable[[str, str, str], None]
    takes_verbosity: Callable[[Target], bool] = lambda target: False
    newer_word: Callable[[Target], bool] = lambda target: False


class _Kind:
    """Answers of one class, of one model or policy."""

    def __init__(self, settings: Settings) -> None:
        self.lengths = Lengths(settings.quantile, settings.least_seen)
        self.growth = Growth(settings.inflation, settings.least_seen)
        self.refuses = False  # what we set


class Asked(NamedTuple):
    """*request* is what is sent on; *limit* the one that is ours, None where there is none, and *why*."""

    request: Request
    kind: _Kind
    limit: int | None
    why: str | None


class Cap:
    """Limits answers, and learns how long they are. One for a gateway: what it has learned ends with it."""

    def __init__(self, settings: Settings, classes: Mapping[str, RequestClass], parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._json = frozenset(name for name, policy in classes.items() if policy.schema is not None)
        self._kinds: dict[tuple[str, str], _Kind] = {}

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        if call.wire.name not in limits.PROTOCOLS:
            return await forward(call)
        asked = self._asked(call)
        if call.shadow or asked.request is call.request:
            reply = await forward(call)
        else:
            before = len(call.trail.attempts)
            try:
                reply = await self._sent(call, forward, asked.request)
            except (UpstreamStatus, RequestError) as error:
                if not _about_ours(error, asked.request, call.request):
                    raise
                asked = self._refused(call, asked, error)
                reply = await forward(call)
            if asked.limit is not None and self._cut(call, reply):
                again = await self._again(call, forward, asked, reply, before)
                if again is not None:
                    return again
        reply.on_end(partial(self._ended, call, asked))
        return reply

    def _asked(self, call: Call) -> Asked:
        """Return what to ask: the request with our limit, stop sequences and verbosity, where they have a place."""
        name, settings, target = call.wire.name, self._settings, call.targets[0]
        kind = self._kind(call.request_class, call.policy or target.label)
        if kind.refuses:
            return Asked(call.request, kind, None, _REFUSES)
        limit, why = self._limit(call, kind)
        request = limits.with_stop(name, call.request, settings.stop)
        if settings.verbosity is not None and call.policy is None and self._parts.takes_verbosity(target):
            request = limits.with_verbosity(name, request, settings.verbosity)
        if limit is not None:
            request = limits.with_limit(name, request, limit, newer=self._parts.newer_word(target))
        return Asked(request, kind, limit, why)

    def _limit(self, call: Call, kind: _Kind) -> tuple[int | None, str | None]:
        high, settings = kind.lengths.high, self._settings
        if call.streams:
            return None, "a stream: what has been sent cannot be asked for again"
        if (call.request.get("n") or 1) != 1:
            return None, "several answers are asked for"
        if high is None:
            return None, f"{kind.lengths.count} answers of its kind were seen, of {settings.least_seen} that it takes"
        limit = max(settings.least_tokens, math.ceil(high * settings.margin))
        own = limits.limit_of(call.wire.name, call.request)
        if own is not None and own <= limit:
            return None, "its caller's limit is as low"
        return limit, None

    def _kind(self, request_class: str, label: str) -> _Kind:
        key = (request_class, label)
        kind = self._kinds.get(key)
        if kind is None:
            while len(self._kinds) >= _MOST_KINDS:  # models may be named by callers: keep the table bounded
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds[key] = _Kind(self._settings)
        return kind

    def _refused(self, call: Call, asked: Asked, error: UpstreamStatus | RequestError) -> Asked:
        """Note that what we set is not taken, and return what to go on with: the request as it was."""
        asked.kind.refuses = not isinstance(error, NotRecorded)
        call.note(NAME, "refused", f"{type(error).__name__}: {error.message}"[:200])
        return asked._replace(request=call.request, limit=None, why=_REFUSES)

    # -- an answer that was cut off --------------------------------------------------------------------------------

    async def _sent(self, call: Call, forward: Handler, request: Request) -> Reply:
        """Forward *call* with *request*; the newest copy of the call then has its own again."""
        try:
            return await forward(msgspec.structs.replace(call, request=request))
        finally:
            newest = call.trail.call
            call.with_(targets=call.targets if newest is None else newest.targets)

    def _cut(self, call: Call, reply: Reply) -> bool:
        """True where our limit cut off something that is of use."""
        return limits.cut_off(call.wire.name, reply.data) and not self._useful(call, reply.data).whole

    async def _again(self, call: Call, forward: Handler, asked: Asked, cut: Reply, before: int) -> Reply | None:
        """Return the answer without the limit; None where it is off, or fails: then there is what there is."""
        asked.kind.lengths.add(math.ceil((asked.limit or 0) * self._settings.margin))  # at least: it would go on
        attempt = _answerer(call, before)
        if not self._settings.again or attempt is None:
            call.note(NAME, "cut off", "its answer would have been longer", detail={"limit": asked.limit})
            return None
        own = limits.limit_of(call.wire.name, call.request)
        request = limits.without_limit(call.wire.name, asked.request, call.request)
        # The same target, whatever the policy would choose now.
        again = msgspec.structs.replace(call, targets=(attempt.target,), policy=None)
        since = len(call.trail.attempts)
        try:
            reply = await self._sent(again, forward, request)
        except (UpstreamError, RequestError) as error:
            reason = f"asking again failed: {type(error).__name__}: {error.message}"[:200]
            call.note(NAME, "cut off", reason, detail={"limit": asked.limit})
            call.trail.answered = attempt
            return None
        finally:
            newest = call.trail.call
            call.with_(targets=call.targets if newest is None else newest.targets)
        await cut.close()
        call.trail.answered = second = _answerer(call, since)
        saved = None if second is None or call.policy is not None else _alone(second)
        detail = {"limit": asked.limit, "own_limit": own}
        call.note(NAME, "asked again", "it was cut off by our limit", saved=saved, detail=detail)
        reply.on_end(partial(self._ended, call, asked._replace(limit=None, why="asked again without a limit")))
        return reply

    # -- learning --------------------------------------------------------------------------------------------------

    def _ended(self, call: Call, asked: Asked, reply: Reply) -> None:
        """Learn from an answer, and note how much of it was of use."""
        if not reply.finished or reply.error is not None or (call.request.get("n") or 1) != 1:
            return
        usage = call.wire.usage(reply.data)
        useful = self._useful(call, reply.data)
        learned = usage is not None and call.wire.complete(reply.data)
        if usage is not None and learned:
            asked.kind.lengths.add(_needed(usage, useful))
            grown = asked.kind.growth.add(usage.output_tokens)
            if grown is not None:
                message = f"answers had {grown[0]:.0f} tokens on average, and the last ones {grown[1]:.0f}"
                self._parts.alert("output_inflation", call.request_class, message)
        action = "capped" if asked.limit is not None else "uncapped"
        call.note(NAME, action, asked.why, detail=_detail(asked, usage, useful))

    def _useful(self, call: Call, data: Mapping[str, Any]) -> Useful:
        """Return how much of the answer *data* is of use: all of one that is not to be JSON, or that calls a tool."""
        if call.request_class not in self._json and call.wire.contract(call.request) is None:
            return ALL
        texts = call.wire.answers(data)
        return of_json(texts[0]) if len(texts) == 1 else ALL


def _about_ours(error: UpstreamStatus | RequestError, asked: Request, own: Request) -> bool:
    """True when *error* names a field that was set here, or when there is no recording of what was."""
    if isinstance(error, NotRecorded):
        return True
    said = error.message + (error.body.decode(errors="replace") if isinstance(error, UpstreamStatus) else "")
    ours = [name for name, value in asked.data.items() if own.get(name) != value]
    return error.status in (400, 422) and any(("verbosity" if name == "text" else name) in said for name in ours)


def _answerer(call: Call, before: int) -> Attempt | None:
    made = call.trail.attempts[before:]
    if call.trail.answered in made:
        return call.trail.answered
    return next((one for one in reversed(made) if not one.aside and one.error is None), None)


def _alone(attempt: Attempt) -> Saved | None:
    """Return what the call would have used without a limit of ours: *attempt* alone, so the cut one was lost."""
    if attempt.usage is None:
        return None
    spent_s = None if attempt.ended is None else attempt.ended - attempt.started
    return Saved(
        usage=attempt.usage, model=attempt.target.model, provider=attempt.target.provider, upstream_s=spent_s,
        basis=attempt.usage.basis, instead=True,
    )  # fmt: skip


def _needed(usage: Usage, useful: Useful) -> int:
    """Return how many tokens it took to the end of what is of use: all that was thought, and so much of the text."""
    said = usage.output_tokens - usage.reasoning_tokens
    return usage.reasoning_tokens + math.ceil(said * useful.end)


def _detail(asked: Asked, usage: Usage | None, useful: Useful) -> dict[str, Any] | None:
    found: dict[str, Any] = {} if asked.limit is None else {"limit": asked.limit}
    if usage is not None:
        said = usage.output_tokens - usage.reasoning_tokens
        found |= {"generated": usage.output_tokens, "useful": usage.reasoning_tokens + round(said * useful.used)}
    return found or None
