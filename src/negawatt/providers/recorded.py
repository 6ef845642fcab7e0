"""The recorded provider: real answers that real models gave, from a file. What the file has not got, it refuses.

A request that a lever has shortened is answered with what was said to the whole one: whether less would have been
enough is not in the file. Its input tokens are then estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negawatt.call import Call, Request, Target
from negawatt.economics.tokens import estimate_request_tokens
from negawatt.errors import NotRecorded
from negawatt.providers.pace import Paced
from negawatt.providers.recording import Recording
from negawatt.reply import Reply


class Recorded:
    """Answers from *recording*, after as long as the answer took then."""

    def __init__(self, name: str, recording: Recording) -> None:
        self.name = name
        self.recording = recording
        self.speaks = recording.protocols  # others are translated

    async def ask(self, call: Call, target: Target) -> Reply:
        asked: dict[str, Any] = {**call.request.data, "model": target.model}
        found = self.recording.lookup(asked, call.wire.name)
        whole = call.request.origin if found is None else None
        if whole is not None:
            found = self.recording.lookup({**whole.data, "model": target.model}, call.wire.name)
        if found is None:
            raise NotRecorded(f"the recording has no answer of {target.model!r} to this request")
        paced = Paced(call.wire, found.first_chunk_s, found.duration_s)
        response = dict(found.response) if whole is None else _with_less(found.response, call, whole)
        reply = await paced.reply(response, stream=call.streams)
        reply.usage_basis = found.usage_basis if whole is None else "estimated"
        return reply

    async def models(self) -> list[str]:
        return list(self.recording.models)

    async def close(self) -> None:
        """Nothing is open."""


def _with_less(response: Mapping[str, Any], call: Call, whole: Request) -> dict[str, Any]:
    """Return *response*, which answered *whole*, with the input tokens that the request of *call* would have had."""
    usage = response.get("usage")
    before, after = (_estimated(call, request) for request in (whole, call.request))
    if not isinstance(usage, dict) or not before:
        return dict(response)
    less = {}
    for name in ("prompt_tokens", "input_tokens"):
        if isinstance(usage.get(name), int):
            gone = usage[name] - round(usage[name] * after / before)
            less[name] = usage[name] - gone
            if isinstance(usage.get("total_tokens"), int):
                less["total_tokens"] = usage["total_tokens"] - gone
    return {**response, "usage": {**usage, **less}}


def _estimated(call: Call, request: Request) -> int:
    said = call.wire.prompt(request)
    return estimate_request_tokens(said.messages, said.tools)
