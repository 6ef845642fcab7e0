"""The answer of a provider, put into the words of the caller: whole or streamed, by the same translator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from negawatt.protocol import Folded
from negawatt.reply import Burst, Chunk, Reply
from negawatt.translate import Translation, Translator


def translated(reply: Reply, asked: Mapping[str, Any], way: Translation, caller: Folded, provider: Folded) -> Reply:
    """Return *reply*, which is in the protocol *provider*, in the protocol *caller*. *asked*: the caller's request.

    Raises `UpstreamError` for a whole answer that cannot be read; of a stream, whoever reads it gets that.
    """
    translator = way.translator(asked)
    if reply.streamed:
        mine = Reply(caller, source=TranslatedSource(reply, translator))
    else:
        folder = caller.folder()
        for chunk in provider.unfold(reply.data):
            for one in translator.feed(chunk):
                folder.add(one)
        for one in translator.end():
            folder.add(one)
        mine = Reply(caller, body=orjson.dumps(folder.result()))
        reply.settle()
    mine.status, mine.headers, mine.usage_basis = reply.status, reply.headers, reply.usage_basis
    return mine


class TranslatedSource:
    """The chunks of a provider's stream in the words of the caller; a `negawatt.reply.Source`."""

    def __init__(self, origin: Reply, translator: Translator) -> None:
        self._origin = origin
        self._translator = translator
        self._over = False

    async def __anext__(self) -> Burst:
        while not self._over:
            try:
                burst = await self._origin.__anext__()
            except StopAsyncIteration:
                self._over = True
                # What broke off has no end: the caller must not be told that it was all.
                chunks = self._translator.end() if self._origin.finished else []
                self._origin.settle()
            else:
                chunks = [one for chunk in burst for one in self._translator.feed(chunk.data)]
                for chunk in burst:
                    chunk.forget()
            if chunks:
                return [Chunk(data=data) for data in chunks]
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._over = True
        await self._origin.close()
