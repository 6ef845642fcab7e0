"""The same conversation in three protocols, whole and streamed, and a gateway that speaks all of them."""

from __future__ import annotations

from typing import Any

import orjson
from worlds import MODEL, Answer, World

from negawatt.caller import Hints
from negawatt.wire.wires import WIRES

PROTOCOLS = ("chat", "responses", "messages")


def asking(protocol: str, text: str, *, stream: bool = False, system: str | None = None, **fields: Any) -> Any:
    """Return one question in the words of *protocol*."""
    request: dict[str, Any] = {"model": MODEL, "temperature": 0, **({"stream": True} if stream else {})}
    if protocol == "responses":
        request |= {"input": text, **({} if system is None else {"instructions": system})}
    elif protocol == "messages":
        request |= {"max_tokens": 500, "messages": [{"role": "user", "content": text}]}
        request |= {} if system is None else {"system": system}
    else:
        told = [] if system is None else [{"role": "system", "content": system}]
        request["messages"] = [*told, {"role": "user", "content": text}]
    return {**request, **fields}


async def send(w: World, protocol: str, request: dict[str, Any], **hints: str | None) -> Answer:
    """Send *request* as the server does."""
    return await w.send(w.gateway.new_call(orjson.dumps(request), Hints(**hints), wire=WIRES[protocol]))


def text_of(protocol: str, answer: Answer) -> str:
    """Return what *answer* says; of a stream, as its own chunks fold."""
    wire = WIRES[protocol]
    if not answer.chunks:
        return wire.text_of(answer.data)
    folder = wire.folder()
    for chunk in answer.chunks:
        folder.add(chunk)
    assert folder.complete
    return wire.text_of(folder.result())
