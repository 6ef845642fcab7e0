"""Responses that went wrong at random: every transport answers or raises an error of ours, and in time."""

from __future__ import annotations

import asyncio
import gzip
import random

import pytest
from upstreams import Conversation, answer, chunked, client, fetch, over_both, send, settled, upstream

from negawatt.errors import UpstreamError
from negawatt.providers.transport import Timeouts

CASES = 150  # per shape and transport
SHORT = Timeouts(connect_s=2, first_byte_s=2, idle_s=2)

SHAPES = {
    "length": answer(b"The body of an answer.", "Content-Type: text/plain", "X-Id: 1"),
    "chunks": chunked(b"The body ", b"of", b" an answer.", fields=("Content-Type: text/plain", "X-Id: 1")),
    "gzip": answer(gzip.compress(b"The body of an answer." * 20, mtime=0), "Content-Encoding: gzip"),
    "early": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(b"The body of an answer."),
}


def mutated(dice: random.Random, data: bytes) -> bytes:
    """*data* with one to five bytes changed, dropped, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 5)):
        place = dice.randrange(max(1, len(changed)))
        kind = dice.randrange(10)
        if kind < 5:
            changed[place : place + 1] = bytes([dice.randrange(256)])
        elif kind < 7:
            del changed[place : place + dice.randint(1, 8)]
        elif kind < 9:
            changed[place:place] = changed[place : place + dice.randint(1, 20)]
        else:
            del changed[place:]
    return bytes(changed)


def split(dice: random.Random, data: bytes) -> list[bytes]:
    """*data* in one to six packets."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@over_both
@pytest.mark.parametrize("shape", SHAPES)
async def test_random_damage_never_hangs_nor_escapes(name: str, shape: str):
    """Seeded random damage, in random packets, ends in an answer or an error of ours, before any time-out; afterwards
    the undamaged response gets through."""
    dice, spoiled = random.Random(f"{shape} 1"), b""

    async def play(conversation: Conversation) -> None:
        if await conversation.request() is not None:
            await conversation.say(*split(dice, spoiled))

    async with upstream(play) as world, client(name, max_connections=2) as transport:
        outcomes = set()
        for _ in range(CASES):
            spoiled = mutated(dice, SHAPES[shape])
            async with asyncio.timeout(1):  # below SHORT: an end that only a time-out brings is a hang
                try:
                    if dice.random() < 0.5:
                        await fetch(transport, world.target(), timeout=SHORT)
                    else:
                        download = await send(transport, world.target(), timeout=SHORT)
                        try:
                            async for _piece in download:
                                pass
                        finally:
                            await download.close()
                    outcomes.add("answered")
                except UpstreamError as error:
                    outcomes.add(type(error).__name__)
        assert {"answered", "UpstreamProtocolError", "UpstreamBroken"} <= outcomes
        await settled()
        spoiled = SHAPES[shape]
        assert (await fetch(transport, world.target()))[1].startswith(b"The body of an answer.")
