"""Where the path ends: the providers behind one counter, and the books of what was asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from negawatt.call import Attempt, Call, Request
from negawatt.economics.tokens import estimate_request_tokens, estimate_tokens
from negawatt.economics.usage import Usage, usage_from_chat
from negawatt.errors import NegawattError, UpstreamConnectError, UpstreamError, UpstreamStatus
from negawatt.providers import Provider
from negawatt.reply import Reply


class SpokenWire(Protocol):
    """What the books must know of the protocol."""

    def text_of(self, data: Mapping[str, Any]) -> str: ...


class Counter:
    """The handler at the bottom of the pipeline: asks the call's first target, and books the attempt."""

    def __init__(self, providers: Mapping[str, Provider], wire: SpokenWire) -> None:
        self._providers = providers
        self._wire = wire

    async def __call__(self, call: Call) -> Reply:
        target = call.targets[0]
        attempt = call.trail.open_attempt(target)
        try:
            reply = await self._providers[target.provider].ask(call, target)
            if reply.streamed:
                await self._begin(reply)
            else:
                attempt.usage = self._usage(call.request, reply)
        except BaseException as error:
            self._failed(call, attempt, error)
            raise
        attempt.status = reply.status
        attempt.first_chunk = call.trail.clock.monotonic()
        if reply.streamed:
            reply.on_end(partial(self._settle, call, attempt))
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
        attempt.billed = not isinstance(error, (UpstreamStatus, UpstreamConnectError))
        if attempt.billed and isinstance(error, UpstreamError):
            attempt.usage = self._estimate(call.request, {})
        call.trail.close_attempt(attempt, error=type(error).__name__)

    def _settle(self, call: Call, attempt: Attempt, reply: Reply) -> None:
        attempt.usage = self._usage(call.request, reply)
        error = None if reply.finished else type(reply.error).__name__ if reply.error else "cancelled"
        call.trail.close_attempt(attempt, error=error)

    def _usage(self, request: Request, reply: Reply) -> Usage:
        """Return what the provider says it used, else what was received and sent, counted here."""
        said = usage_from_chat(reply.data.get("usage"))
        if said is None:
            return self._estimate(request, reply.data)
        return said if reply.usage_basis == "measured" else msgspec.structs.replace(said, basis=reply.usage_basis)

    def _estimate(self, request: Request, data: Mapping[str, Any]) -> Usage:
        return Usage(
            input_tokens=estimate_request_tokens(request.get("messages"), request.get("tools")),
            output_tokens=estimate_tokens(self._wire.text_of(data)),
            basis="estimated",
        )
