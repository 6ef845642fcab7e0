"""The recorded provider: real answers that real models gave, from a file. What the file has not got, it refuses."""

from __future__ import annotations

from typing import Any

from negawatt.call import Call, Target
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
        if found is None:
            raise NotRecorded(f"the recording has no answer of {target.model!r} to this request")
        paced = Paced(call.wire, found.first_chunk_s, found.duration_s)
        reply = await paced.reply(dict(found.response), stream=call.streams)
        reply.usage_basis = found.usage_basis
        return reply

    async def models(self) -> list[str]:
        return list(self.recording.models)

    async def close(self) -> None:
        """Nothing is open."""
