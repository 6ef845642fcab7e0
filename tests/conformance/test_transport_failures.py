"""How every transport fails: in time, with the right error, and without keeping anything."""

from __future__ import annotations

import asyncio
import gc
import gzip
import random
import socket
import sys
import zlib

import pytest
from upstreams import (
    HASTY,
    PATIENT,
    Conversation,
    answer,
    chunked,
    client,
    fetch,
    open_files,
    over_both,
    saying,
    saying_and_closing,
    saying_and_holding,
    saying_and_resetting,
    seen_at_once,
    send,
    settled,
    upstream,
)

from negawatt.errors import (
    UpstreamBroken,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from negawatt.providers.transport import Target


def refusing_target() -> Target:
    """A port of this machine on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Target.parse(f"http://127.0.0.1:{sock.getsockname()[1]}/")


@over_both
async def test_a_refused_connection(name: str):
    """Nobody listening is a connect error that names the origin."""
    target = refusing_target()
    async with client(name) as transport:
        with pytest.raises(UpstreamConnectError, match=f"127.0.0.1:{target.port}"):
            await fetch(transport, target)


@over_both
async def test_a_refused_connection_does_not_keep_its_slot(name: str):
    """With one connection allowed, one refusal after the other is told at once."""
    async with client(name, max_connections=1) as transport, asyncio.timeout(2):
        target = refusing_target()
        for _ in range(3):
            with pytest.raises(UpstreamConnectError):
                await fetch(transport, target)
        calls = [fetch(transport, target) for _ in range(4)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {UpstreamConnectError}


@over_both
async def test_a_name_that_does_not_exist(name: str):
    """A host that cannot be resolved is a connect error."""
    async with client(name) as transport:
        with pytest.raises(UpstreamConnectError):
            await fetch(transport, Target.parse("http://no-such-host.invalid/"))


@over_both
async def test_a_connection_that_does_not_come_about(name: str):
    """A server that accepts but never answers the TLS handshake runs into the connect time-out, and is hung up on."""

    async def silent(conversation: Conversation) -> None:
        await conversation.hung_up()

    async with upstream(silent) as world, client(name) as transport:
        with pytest.raises(UpstreamTimeout, match="no connection"):
            await fetch(transport, Target.parse(world.origin.replace("http:", "https:")), timeout=HASTY)
        await seen_at_once(world)


@over_both
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_no_answer_in_time(name: str, said: bytes):
    """Silence, half a head and an informational response are no answer; the server is hung up on."""
    async with upstream(saying_and_holding(said)) as world, client(name) as transport:
        with pytest.raises(UpstreamTimeout, match=r"did not answer within 0\.2 s"):
            await fetch(transport, world.target(), timeout=HASTY)
        await seen_at_once(world)


@over_both
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_silence_in_mid_body(name: str, coding: str):
    """A body that stops coming times out after the idle time, read whole or in pieces."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"abc") + packer.flush(zlib.Z_SYNC_FLUSH)
    body = packed if coding == "gzip" else b"abc"
    reply = answer(body + b"missing", f"Content-Encoding: {coding}")[:-7]
    async with upstream(saying_and_holding(reply)) as world, client(name) as transport:
        download = await send(transport, world.target(), timeout=HASTY)
        with pytest.raises(UpstreamTimeout, match=r"nothing more for 0\.2 s"):
            await download.read()
        await seen_at_once(world)
        world.hang_ups.clear()
        download = await send(transport, world.target(), timeout=HASTY)
        pieces = aiter(download)
        assert await anext(pieces) == b"abc"
        with pytest.raises(UpstreamTimeout):
            await anext(pieces)
        await seen_at_once(world)


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@over_both
@pytest.mark.parametrize(
    "said",
    [
        LENGTH,
        LENGTH + b"half",
        CHUNKED,
        *(CHUNKED + part for part in (b"3\r\nab", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n")),
    ],
)
@pytest.mark.parametrize("ending", [saying_and_closing, saying_and_resetting])
async def test_an_answer_that_breaks_off(name: str, said: bytes, ending):
    """A body that ends before its framing says so is broken, by an orderly end as by a reset, and never passes for
    whole."""
    async with upstream(ending(said)) as world, client(name) as transport:
        with pytest.raises(UpstreamBroken):
            await fetch(transport, world.target())
        with pytest.raises(UpstreamBroken):
            download = await send(transport, world.target())
            async for _ in download:
                pass


@over_both
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
@pytest.mark.parametrize("ending", [saying_and_closing, saying_and_resetting])
async def test_an_answer_that_does_not_begin(name: str, said: bytes, ending):
    """A connection that ends before the head is whole is broken; the first of its connection is not resent."""
    async with upstream(ending(said)) as world, client(name) as transport:
        with pytest.raises(UpstreamBroken):
            await fetch(transport, world.target())
        assert len(world.requests) == 1


@over_both
async def test_what_came_before_the_break_is_given_out(name: str):
    """Pieces that arrived are handed out before the error."""
    async with upstream(saying_and_closing(LENGTH, b"half")) as world, client(name) as transport:
        download = await send(transport, world.target())
        pieces = aiter(download)
        assert await anext(pieces) == b"half"
        with pytest.raises(UpstreamBroken):
            await anext(pieces)
        await download.close()


@over_both
@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46" * 10,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
async def test_what_is_not_http(name: str, said: bytes):
    """Something other than HTTP/1.1 is a protocol error, and the server is hung up on."""
    async with upstream(saying_and_holding(said)) as world, client(name) as transport:
        with pytest.raises(UpstreamProtocolError):
            await fetch(transport, world.target())
        await seen_at_once(world)


@over_both
async def test_a_bad_chunk_header(name: str):
    """A chunk whose size is no number ends the body with an error, and the connection."""
    said = saying_and_holding(CHUNKED + b"3\r\nabc\r\n", b"xyz\r\n")
    async with upstream(said) as world, client(name) as transport:
        with pytest.raises((UpstreamProtocolError, UpstreamBroken)):
            await fetch(transport, world.target())
        await seen_at_once(world)


@over_both
@pytest.mark.parametrize("shape", ["one long header", "many headers", "no end"])
async def test_a_head_that_is_too_large(name: str, shape: str):
    """A head above 64 KiB is refused, whatever it is made of."""
    fields = {
        "one long header": b"X: " + b"a" * 70_000 + b"\r\n",
        "many headers": b"".join(b"X-%d: %b\r\n" % (number, b"a" * 1000) for number in range(70)),
        "no end": b"X: " + b"a" * 70_000,
    }[shape]
    said = b"HTTP/1.1 200 OK\r\n" + fields + (b"" if shape == "no end" else b"Content-Length: 5\r\n\r\n")
    async with upstream(saying_and_holding(said)) as world, client(name) as transport:
        with pytest.raises(UpstreamProtocolError):
            await fetch(transport, world.target())
        await seen_at_once(world)


@over_both
async def test_a_head_that_is_too_large_in_one_packet(name: str):
    """The limit on the head holds as well if all of it comes at once, and a body behind it does not count."""
    fields = tuple(f"X-{number}: {'a' * 90}" for number in range(20))
    async with client(name, max_head=1500) as transport:
        async with upstream(saying(answer(b"", *fields))) as world:
            with pytest.raises(UpstreamProtocolError, match="head is larger than 1500 bytes"):
                await fetch(transport, world.target())
        async with upstream(saying(answer(b"b" * 3000, *fields[:10]))) as world:
            assert await fetch(transport, world.target()) == (200, b"b" * 3000)


@over_both
@pytest.mark.parametrize("shape", ["length", "chunked", "gzip"])
async def test_a_body_that_is_too_large(name: str, shape: str):
    """`read` gives up on a body above the limit, of decoded bytes; one at the limit passes."""
    over, at = (
        {
            "length": answer(b"a" * size),
            "chunked": chunked(*[b"a" * 100] * (size // 100), b"a" * (size % 100 or 1)),
            "gzip": answer(gzip.compress(b"a" * size), "Content-Encoding: gzip"),
        }[shape]
        for size in (300_001, 299_900 if shape == "chunked" else 300_000)
    )
    async with client(name, max_body=300_000) as transport:
        async with upstream(saying_and_holding(over)) as world:
            with pytest.raises(UpstreamProtocolError, match="larger than 300000 bytes"):
                await fetch(transport, world.target())
        async with upstream(saying(at)) as world:
            assert len((await fetch(transport, world.target()))[1]) in (300_000, 299_901)


@over_both
async def test_a_body_may_be_streamed_above_the_limit(name: str):
    """The limit is on what is held; pieces are not."""
    async with upstream(saying(answer(b"a" * 5000))) as world, client(name, max_body=1000) as transport:
        download = await send(transport, world.target())
        assert sum([len(piece) async for piece in download]) == 5000
        await download.close()


@over_both
@pytest.mark.parametrize("fault", ["not gzip", "cut gzip", "unknown coding"])
async def test_a_body_that_cannot_be_decoded(name: str, fault: str):
    """A coding that is not what it says, ends too soon, or is not known is a protocol error; the status is known."""
    reply = {
        "not gzip": answer(b"plain text", "Content-Encoding: gzip"),
        "cut gzip": answer(gzip.compress(b"abc" * 100)[:-9], "Content-Encoding: gzip"),
        "unknown coding": answer(b"...", "Content-Encoding: br", status="503 Busy"),
    }[fault]
    async with upstream(saying(reply)) as world, client(name) as transport:
        download = await send(transport, world.target())
        assert download.status == (503 if fault == "unknown coding" else 200)
        with pytest.raises(UpstreamProtocolError):
            await download.read()
        await download.close()


@over_both
async def test_cancelling_a_call_hangs_up(name: str):
    """A caller who is gone before the answer is gone for the provider too, at once."""
    async with upstream(saying_and_holding()) as world, client(name) as transport:
        call = asyncio.ensure_future(send(transport, world.target(), timeout=PATIENT))
        while not world.requests:
            await asyncio.sleep(0.001)
        call.cancel()
        await seen_at_once(world)
        with pytest.raises(asyncio.CancelledError):
            await call


@over_both
async def test_closing_an_answer_in_the_middle_hangs_up(name: str):
    """Closing a download before its end drops the connection at once, may be repeated, and ends the reading."""
    async with upstream(saying_and_holding(LENGTH, b"half")) as world, client(name) as transport:
        download = await send(transport, world.target())
        assert await anext(aiter(download)) == b"half"
        await download.close()
        await seen_at_once(world)
        await download.close()
        with pytest.raises(UpstreamBroken):
            await download.read()


@over_both
async def test_closing_hangs_up_on_a_server_that_is_held_up(name: str):
    """A server that is being slowed down by backpressure notices as fast."""
    gone = asyncio.Event()

    async def flood(conversation: Conversation) -> None:
        await conversation.request()
        conversation.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
        try:
            while True:
                conversation.writer.write(b"x" * 100_000)
                await conversation.writer.drain()
        except ConnectionError:
            gone.set()

    async with upstream(flood) as world, client(name) as transport:
        download = await send(transport, world.target())
        await asyncio.sleep(0.05)
        await download.close()
        async with asyncio.timeout(0.1):
            assert await gone.wait()


@over_both
async def test_closing_the_transport_ends_what_is_in_flight(name: str):
    """A call in flight fails when the transport is closed, and later ones are refused."""
    async with upstream(saying_and_holding()) as world, client(name) as transport:
        call = asyncio.ensure_future(send(transport, world.target()))
        while not world.requests:
            await asyncio.sleep(0.001)
        await transport.close()
        with pytest.raises(UpstreamBroken):
            await call
        with pytest.raises(UpstreamError):
            await send(transport, world.target())


FAILURES = {
    "/whole": answer(b"fine"),
    "/stream": chunked(b"a", b"b"),
    "/half": LENGTH + b"half",
    "/garbage": b"garbage\r\n\r\n",
    "/nothing": b"",
    "/until": b"HTTP/1.1 200 OK\r\n\r\nuntil",
}


async def misbehave(conversation: Conversation) -> None:
    """Answer by the path; keep the connection only after what was whole. /hold never answers."""
    while (request := await conversation.request()) is not None:
        path = request.split(b" ", 2)[1].decode()
        if path == "/hold":
            return await conversation.hung_up()
        if path == "/reset":
            return conversation.reset()
        await conversation.say(FAILURES[path])
        if path not in ("/whole", "/stream"):
            return None
    return None


@over_both
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_a_thousand_failures_leave_nothing_behind(name: str):
    """After 1,000 calls that were answered, broken, refused, timed out, cancelled or closed half-read, no task and no
    socket is left."""
    dice = random.Random(7)
    refused, hasty = refusing_target(), type(PATIENT)(connect_s=1, first_byte_s=0.01, idle_s=0.01)
    outcomes: dict[str, int] = {}

    async def call(path: str, fate: str) -> None:
        target = refused if path == "/refused" else world.target(path)
        try:
            if fate == "close":
                await (await send(transport, target, timeout=hasty)).close()
            elif fate == "cancel":
                await asyncio.wait_for(fetch(transport, target), 0.001)
            else:
                await fetch(transport, target, timeout=hasty)
            outcome = "answered"
        except (UpstreamError, TimeoutError) as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async with upstream(misbehave) as world:
        await settled()
        files, tasks = open_files(), len(asyncio.all_tasks())
        async with client(name, max_connections=10) as transport:
            for _ in range(50):
                paths = dice.choices([*FAILURES, "/hold", "/reset", "/refused"], k=20)
                await asyncio.gather(*(call(path, dice.choice(["read", "close", "cancel"])) for path in paths))
        async with asyncio.timeout(2):
            while open_files() > files or len(asyncio.all_tasks()) - len(world.playing()) > tasks:
                gc.collect()
                await asyncio.sleep(0.005)
        assert sum(outcomes.values()) == 1000
        assert {"answered", "UpstreamBroken", "UpstreamConnectError", "UpstreamTimeout"} <= set(outcomes)
