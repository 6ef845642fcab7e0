"""An answer that is held back until the verdict on it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from negawatt.call import Call
from negawatt.errors import UpstreamBroken
from negawatt.reply import Burst, Reply
from negawatt.verify import logprob


class Replayed:
    """The chunks of a stream once more, in the bursts that they came in; a `negawatt.reply.Source`."""

    def __init__(self, bursts: Sequence[Burst]) -> None:
        self._bursts = iter(bursts)

    async def __anext__(self) -> Burst:
        try:
            return next(self._bursts)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Nothing is open."""


class Held:
    """All of an answer: as the caller will see it, and as verifiers do. It holds nothing at the provider any more."""

    def __init__(self, origin: Reply, bursts: Sequence[Burst] | None, data: Mapping[str, Any], body: bytes) -> None:
        self._origin = origin
        self._bursts = bursts
        self._body = body
        self.data = data

    @classmethod
    async def of(cls, call: Call, reply: Reply) -> Held:
        """Read *reply*, the answer to *call*, to its end. Raises `UpstreamError` when it breaks off."""
        bursts: list[Burst] | None = [] if reply.streamed else None
        try:
            if bursts is not None:
                async for burst in reply:
                    for chunk in burst:
                        chunk.forget()
                    bursts.append(burst)
            if not reply.finished:
                raise UpstreamBroken("the answer broke off before its end")
            data, body = reply.data, reply.body if bursts is None else b""
        finally:
            await reply.close()
        return cls(reply, bursts, data, body)

    def without_logprobs(self, call: Call) -> Held:
        """Return the same without the probabilities that the caller of *call* did not ask for; *data* keeps them."""
        plain = logprob.without(call.wire.name, call.request, self.data)
        return self if plain is None else Held(self._origin, None, self.data, orjson.dumps(plain))

    def saying(self, data: Mapping[str, Any]) -> Held:
        """Return the same with the whole answer *data* in its place."""
        return Held(self._origin, None, data, orjson.dumps(data))

    def reply(self, call: Call) -> Reply:
        """Return it as the answer to *call*: whole, or streamed as it came."""
        if self._bursts is None:
            reply = Reply(call.wire, body=self._body)
        else:
            reply = Reply(call.wire, source=Replayed(self._bursts))
        origin = self._origin
        reply.status, reply.headers, reply.answered_by = origin.status, origin.headers, origin.answered_by
        reply.usage_basis = origin.usage_basis
        return reply
