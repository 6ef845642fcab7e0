"""Where the path ends: the providers behind one counter, and the books of what was asked of them.

A call whose provider speaks another protocol is translated here, below every lever and above the books: usage is read
in the provider's own words, and everything above sees the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from negawatt.call import Attempt, Call, Request
from negawatt.economics.counting import TokenCounter
from negawatt.economics.usage import Usage
from negawatt.errors import NegawattError, UpstreamConnectError, UpstreamError, UpstreamProtocolError, UpstreamStatus
from negawatt.protocol import Wire
from negawatt.providers import Provider
from negawatt.reply import Reply
from negawatt.translate import Translation
from negawatt.translate.answer import translated
from negawatt.translate.routes import route

log = logging.getLogger(__name__)

Here = Callable[[Call], Reply]
_OURS_TO_MEND = 401  # the provider refused our key: not for the caller to read
# Of each model, how many calls are counted to begin with, and which of the later ones: their counts are compared with
# the provider's, and that takes a few dozen microseconds each.
_COUNTED_FIRST, _COUNTED_EVERY = 50, 20
_MOST_MODELS = 4096


class Purse(Protocol):
    """Pays for attempts."""

    def limited(self, call: Call) -> Call:
        """Return *call* as it is to be asked."""
        ...

    async def reserve(self, call: Call) -> Callable[[Attempt], None] | None:
        """Reserve what an attempt at the first target of *call* may cost, and return who is to be told what it did.

        Raises `NegawattError` where there is not enough.
        """
        ...


class Counter:
    """The handler at the bottom of the pipeline: asks the call's first target, and books the attempt.

    *wires* are the protocols that providers may speak. *here* answers what we can answer ourselves in a protocol that
    the provider does not speak. *tokens* counts what a provider does not tell, and learns from what it does. *purse*
    pays, before anybody is asked; None: everything may be asked. *onward* says what a provider is told of the call's
    trace at each attempt; None: what the caller says.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        wires: Mapping[str, Wire],
        tokens: TokenCounter,
        here: Mapping[str, Here] | None = None,
        purse: Purse | None = None,
        onward: Callable[[Call, int], Call] | None = None,
    ) -> None:
        self._providers = providers
        self._wires = wires
        self._tokens = tokens
        self._answers: dict[str, int] = {}  # of each model
        self._here = here or {}
        self._purse = purse
        self._onward = onward
        self._routes: dict[tuple[str, str], Translation | None] = {}

    async def __call__(self, call: Call) -> Reply:
        target = call.targets[0]
        provider = self._providers[target.provider]
        own = call.wire.name
        if target.effort is not None:
            call = _with_effort(call, call.wire)
        if own not in provider.speaks and own in self._here:
            return self._here[own](call)
        way = self._route(call, target.provider)
        if way is None:
            return await self._ask(call, call.wire)
        # Not by `with_`: above this, the call goes on in its caller's words.
        request = Request(data=way.request(call.request.data))
        wire = self._wires[way.target]
        asked = msgspec.structs.replace(call, request=request, wire=wire, headers=())
        if target.effort is not None:
            asked = _with_effort(asked, wire)  # once more: not every word for it has its like in the caller's protocol
        try:
            reply = await self._ask(asked, wire)
        except UpstreamStatus as error:
            raise _in_callers_words(error, wire) from error
        return translated(reply, call.request.data, way, call.wire, wire)

    def _route(self, call: Call, provider: str) -> Translation | None:
        key = (provider, call.wire.name)
        if key not in self._routes:
            self._routes[key] = route(call.wire.name, self._providers[provider].speaks)
        return self._routes[key]

    async def _ask(self, call: Call, wire: Wire) -> Reply:
        target, settle = call.targets[0], None
        if self._purse is not None:
            call = self._purse.limited(call)
            settle = await self._purse.reserve(call)
        attempt = call.trail.open_attempt(target)
        attempt.on_close = settle
        attempt.aside = call.aside
        if self._onward is not None:
            call = self._onward(call, len(call.trail.attempts) - 1)
        try:
            reply = await self._providers[target.provider].ask(call, target)
            if reply.streamed:
                await self._begin(reply)
            else:
                attempt.usage = self._usage(call, reply)
        except BaseException as error:
            self._failed(call, attempt, error)
            raise
        attempt.billed = wire.billed
        attempt.status = reply.status
        attempt.first_chunk = call.trail.clock.monotonic()
        if reply.streamed:
            reply.on_read(partial(self._settle, call, attempt))
        else:
            call.trail.close_attempt(attempt)
            self._compare(call, attempt)
        return reply

    async def _begin(self, reply: Reply) -> None:
        try:
            await reply.prime()
        except StopAsyncIteration:
            await reply.close()
            raise UpstreamError("the provider ended the stream before it began") from None
        except BaseException:
            await reply.close()
            raise

    def _failed(self, call: Call, attempt: Attempt, error: BaseException) -> None:
        attempt.status = error.status if isinstance(error, NegawattError) else None
        # An error status, or no connection: providers charge nothing. Anything else may have been computed.
        attempt.billed = call.wire.billed and not isinstance(error, (UpstreamStatus, UpstreamConnectError))
        if attempt.billed and isinstance(error, UpstreamError):
            attempt.usage = self._estimate(call, {})
        call.trail.close_attempt(attempt, error=type(error).__name__)

    def _settle(self, call: Call, attempt: Attempt, reply: Reply) -> None:
        try:
            attempt.usage = self._usage(call, reply)
            self._compare(call, attempt)
        finally:  # whatever the provider sent, the attempt has ended
            error = None if reply.finished else type(reply.error).__name__ if reply.error else "cancelled"
            call.trail.close_attempt(attempt, error=error)

    def _usage(self, call: Call, reply: Reply) -> Usage:
        """Return what the provider says it used, else what was received and sent, counted here."""
        said = call.wire.usage(reply.data)
        if said is None:
            return self._estimate(call, reply.data)
        return said if reply.usage_basis == "measured" else msgspec.structs.replace(said, basis=reply.usage_basis)

    def _estimate(self, call: Call, data: Mapping[str, Any]) -> Usage:
        wire, model, said = call.wire, call.targets[0].model, call.wire.text_of(data)
        return Usage(
            input_tokens=self._tokens.count(model, wire.prompt(call.request), wire.contract(call.request)).tokens,
            output_tokens=self._tokens.count_text(model, said).tokens if said else 0,
            basis="estimated",
        )

    def _compare(self, call: Call, attempt: Attempt) -> None:
        """Count the input as one would have before the call, and learn from what the provider counted.

        What earlier calls left with the provider counts there, and cannot be counted here: such calls say nothing.
        """
        usage, model = attempt.usage, attempt.target.model
        if usage is None or usage.basis != "measured" or not usage.input_tokens or not self._due(model):
            return
        wire, request = call.wire, call.request
        try:
            if wire.continues(request):
                return
            counted = self._tokens.count(model, wire.prompt(request), wire.contract(request))
            self._tokens.learn(model, counted, usage.input_tokens)
            if not call.aside:
                call.trail.counted = counted
        except Exception:
            log.exception("call %s: its tokens could not be counted", call.id)  # its caller has the answer

    def _due(self, model: str) -> bool:
        if len(self._answers) >= _MOST_MODELS:
            self._answers.clear()
        before = self._answers.get(model, 0)
        self._answers[model] = before + 1
        return before < _COUNTED_FIRST or before % _COUNTED_EVERY == 0


def _with_effort(call: Call, wire: Wire) -> Call:
    """Return *call* with its target's effort, in the words of *wire*."""
    effort = call.targets[0].effort
    assert effort is not None
    return msgspec.structs.replace(call, request=wire.with_effort(call.request, effort))


def _in_callers_words(error: UpstreamStatus, wire: Wire) -> UpstreamStatus:
    """Return *error* without the body that only those can read who speak the provider's protocol; its words stay."""
    if error.body and error.status != _OURS_TO_MEND:
        try:
            said = wire.error_of(Request(error.body).data)
        except NegawattError as unreadable:
            raise UpstreamProtocolError("the provider's error cannot be read", provider=error.provider) from unreadable
        error.message = said or error.message
    error.body = b""
    return error
