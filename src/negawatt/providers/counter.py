"""Where the path ends: the providers behind one counter, and the books of what was asked of them.

A call whose provider speaks another protocol is translated here, below every lever and above the books: usage is read
in the provider's own words, and everything above sees the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from negawatt.call import Attempt, Call, Request
from negawatt.economics.tokens import estimate_request_tokens, estimate_tokens
from negawatt.economics.usage import Usage
from negawatt.errors import NegawattError, UpstreamConnectError, UpstreamError, UpstreamProtocolError, UpstreamStatus
from negawatt.protocol import Prompt, Wire
from negawatt.providers import Provider
from negawatt.reply import Reply
from negawatt.translate import Translation
from negawatt.translate.answer import translated
from negawatt.translate.routes import route

Here = Callable[[Call], Reply]
_OURS_TO_MEND = 401  # the provider refused our key: not for the caller to read


class Counter:
    """The handler at the bottom of the pipeline: asks the call's first target, and books the attempt.

    *wires* are the protocols that providers may speak. *here* answers what we can answer ourselves in a protocol that
    the provider does not speak.
    """

    def __init__(
        self, providers: Mapping[str, Provider], wires: Mapping[str, Wire], here: Mapping[str, Here] | None = None
    ) -> None:
        self._providers = providers
        self._wires = wires
        self._here = here or {}
        self._routes: dict[tuple[str, str], Translation | None] = {}

    async def __call__(self, call: Call) -> Reply:
        target = call.targets[0]
        provider = self._providers[target.provider]
        own = call.wire.name
        if own not in provider.speaks and own in self._here:
            return self._here[own](call)
        way = self._route(call, target.provider)
        if way is None:
            return await self._ask(call, call.wire)
        # Not by `with_`: above this, the call goes on in its caller's words.
        request = Request(data=way.request(call.request.data))
        wire = self._wires[way.target]
        asked = msgspec.structs.replace(call, request=request, wire=wire, headers=())
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
        target = call.targets[0]
        attempt = call.trail.open_attempt(target)
        try:
            reply = await self._providers[target.provider].ask(call, target)
            if reply.streamed:
                await self._begin(reply)
            else:
                attempt.usage = _usage(wire, call.request, reply)
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
            attempt.usage = _estimate(call.wire, call.request, {})
        call.trail.close_attempt(attempt, error=type(error).__name__)

    def _settle(self, call: Call, attempt: Attempt, reply: Reply) -> None:
        try:
            attempt.usage = _usage(call.wire, call.request, reply)
        finally:  # whatever the provider sent, the attempt has ended
            error = None if reply.finished else type(reply.error).__name__ if reply.error else "cancelled"
            call.trail.close_attempt(attempt, error=error)


def _usage(wire: Wire, request: Request, reply: Reply) -> Usage:
    """Return what the provider says it used, else what was received and sent, counted here."""
    said = wire.usage(reply.data)
    if said is None:
        return _estimate(wire, request, reply.data)
    return said if reply.usage_basis == "measured" else msgspec.structs.replace(said, basis=reply.usage_basis)


def _estimate(wire: Wire, request: Request, data: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=estimate_prompt(wire.prompt(request)),
        output_tokens=estimate_tokens(wire.text_of(data)),
        basis="estimated",
    )


def estimate_prompt(prompt: Prompt) -> int:
    """Return about how many input tokens *prompt* has."""
    framed = estimate_request_tokens(prompt.messages, prompt.tools) if prompt.messages or prompt.tools else 0
    return framed + prompt.tokens + sum(map(estimate_tokens, prompt.texts))


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
