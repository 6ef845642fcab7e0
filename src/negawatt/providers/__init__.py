"""Providers: whoever answers a call. One small protocol; one adapter for everything that speaks over HTTP."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from negawatt.call import Call, Target
from negawatt.reply import Reply


class Provider(Protocol):
    """Answers calls. Raises `negawatt.errors.UpstreamError` when it cannot."""

    @property
    def speaks(self) -> Collection[str]:
        """The names of the protocols that it takes; calls in another are translated first."""
        ...

    async def ask(self, call: Call, target: Target) -> Reply:
        """Return the answer of *target* to *call*, whole or streamed as the request asks; it may be read once."""
        ...

    async def models(self) -> list[str]:
        """Return the names of the models that it serves, as far as it says. Raises `UpstreamError`."""
        ...

    async def close(self) -> None: ...
