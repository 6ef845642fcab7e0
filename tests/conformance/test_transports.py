"""What every transport does: requests as given, bodies of every framing, one at a time or in pieces."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
import uvloop
from upstreams import (
    PATIENT,
    Conversation,
    answer,
    chunked,
    client,
    fetch,
    over_both,
    saying,
    saying_and_closing,
    saying_and_holding,
    seen_at_once,
    send,
    settled,
    upstream,
)

from negawatt.errors import ConfigError, InvalidRequest, UpstreamBroken, UpstreamProtocolError, UpstreamTimeout
from negawatt.providers.transport import Target, Timeouts, open_transport


@over_both
async def test_the_request_arrives_as_given(name: str):
    """Method, path with query, headers and body arrive, and nothing that was not asked for."""
    async with upstream(saying(answer())) as world, client(name) as transport:
        await fetch(
            transport,
            world.target("/v1/chat?api-version=1%2F2"),
            body=b'{"a": 1}',
            headers=(("authorization", "Bearer k"), ("Content-Type", "application/json")),
            extra=(("x-request-id", "7"),),
        )
        head, _, body = world.requests[0].partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        assert line == "POST /v1/chat?api-version=1%2F2 HTTP/1.1"
        assert body == b'{"a": 1}'
        assert dict(field.lower().split(": ", 1) for field in fields) == {
            "host": world.origin.removeprefix("http://"),
            "authorization": "bearer k",
            "content-type": "application/json",
            "x-request-id": "7",
            "content-length": "8",
        }


@over_both
async def test_a_get_without_a_body_has_no_length(name: str):
    """A GET is a GET: no body, no content-length."""
    async with upstream(saying(answer())) as world, client(name) as transport:
        assert await fetch(transport, world.target(), method="GET", body=b"") == (200, b"ok")
        assert b"content-length" not in world.requests[0].lower()


@over_both
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 3_000_000])
async def test_a_body_arrives_whole_both_ways(name: str, size: int):
    """Requests and answers of every size arrive byte for byte."""
    body = bytes(range(256)) * (size // 256 + 1)
    async with upstream(saying(answer(body[:size]))) as world, client(name) as transport:
        assert await fetch(transport, world.target(), body=body[:size]) == (200, body[:size])
        assert world.requests[0].partition(b"\r\n\r\n")[2] == body[:size]


@over_both
async def test_header_names_are_lower_case_and_repeats_are_joined(name: str):
    """A header sent twice has both its values, joined by a comma."""
    reply = answer(b"", "X-RateLimit-Left: 3", "Via: a", "via: b", status="429 Too Many Requests")
    async with upstream(saying(reply)) as world, client(name) as transport:
        download = await send(transport, world.target())
        assert download.status == 429
        assert download.headers["x-ratelimit-left"] == "3"
        assert download.headers["via"] == "a, b"
        await download.close()


@over_both
async def test_a_chunked_body_may_be_split_anywhere(name: str):
    """Wherever the network cuts the response in two, head and chunk headers included, the body is the same."""
    whole = chunked(b"first", b"s" * 17, b"last;\r\n", fields=("A: b",))
    async with client(name) as transport:
        for cut in range(1, len(whole)):
            async with upstream(saying(whole[:cut], whole[cut:])) as world:
                assert await fetch(transport, world.target()) == (200, b"first" + b"s" * 17 + b"last;\r\n")


@over_both
async def test_a_response_may_come_byte_by_byte(name: str):
    """A response in packets of one byte is the same response."""
    parts = [bytes([byte]) for byte in chunked(b"one", b"two")]
    async with upstream(saying(*parts)) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, b"onetwo")


@over_both
async def test_chunk_extensions_and_trailers_are_passed_over(name: str):
    """What a chunked body carries besides its bytes is no part of the body, nor of the headers."""
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;name=value\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n"
    async with upstream(saying(reply)) as world, client(name) as transport:
        download = await send(transport, world.target())
        assert await download.read() == b"abc"
        assert "x-trailer" not in download.headers
        await download.close()
        assert await fetch(transport, world.target()) == (200, b"abc")
        assert len(world.conversations) == 1


@over_both
async def test_a_body_may_end_with_the_connection(name: str):
    """Without a length, what comes until the server closes is the body."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    async with upstream(saying_and_closing(reply, b"until ", b"the end")) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, b"until the end")
        assert await fetch(transport, world.target()) == (200, b"until the end")
        assert len(world.conversations) == 2


@over_both
@pytest.mark.parametrize("head", ["204 No Content", "304 Not Modified\r\nContent-Length: 9"])
async def test_a_status_without_a_body_has_none(name: str, head: str):
    """204 and 304 end with their head, whatever length they name, and the connection is good for the next."""
    async with upstream(saying(f"HTTP/1.1 {head}\r\n\r\n".encode())) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (int(head[:3]), b"")
        assert await fetch(transport, world.target()) == (int(head[:3]), b"")
        assert len(world.conversations) == 1


@over_both
async def test_the_answer_to_head_has_no_body(name: str):
    """The length in an answer to HEAD is that of a body which does not come; what follows is not disturbed."""

    async def play(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            await conversation.say(answer(b"body").removesuffix(b"body" if request.startswith(b"HEAD") else b""))

    async with upstream(play) as world, client(name) as transport:
        for _ in range(3):
            assert await fetch(transport, world.target()) == (200, b"body")
            assert await fetch(transport, world.target(), method="HEAD", body=b"") == (200, b"")


@over_both
async def test_informational_responses_are_skipped(name: str):
    """The response is the first one that is final."""
    early = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
    async with upstream(saying(*early, answer(b"final"))) as world, client(name) as transport:
        download = await send(transport, world.target())
        assert (download.status, await download.read()) == (200, b"final")
        assert "link" not in download.headers
        await download.close()


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": lambda body: gzip.compress(body[:7]) + gzip.compress(body[7:]),
    "deflate": zlib.compress,
    "Deflate": lambda body: zlib.compress(body, wbits=-15),
    "identity": bytes,
}


@over_both
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_compressed_body_is_decoded(name: str, coding: str):
    """gzip, in one member or two, and deflate, with zlib's header or bare, come out as what went in."""
    body = b"negawatt " * 40_000
    packed = CODINGS[coding](body)
    reply = answer(packed, f"Content-Encoding: {coding}")
    async with upstream(saying(reply[:-5], reply[-5:])) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, body)
        download = await send(transport, world.target())
        pieces = [piece async for piece in download]
        assert b"".join(pieces) == body
        assert coding == "identity" or max(map(len, pieces)) <= 65_536
        await download.close()


@over_both
async def test_a_compressed_stream_is_decoded_as_it_comes(name: str):
    """An event is out as soon as its bytes are in, not when the compressor's block ends."""
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    held = saying_and_holding(reply, b"%x\r\n%b\r\n" % (len(first), first))
    async with upstream(held) as world, client(name) as transport:
        download = await send(transport, world.target())
        async with asyncio.timeout(1):
            assert await anext(aiter(download)) == b"data: 1\n\n"
        await download.close()


@over_both
async def test_pieces_come_as_they_are_sent(name: str):
    """A piece is there before the server sends the next one."""
    taken: asyncio.Queue[bytes] = asyncio.Queue()

    async def play(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for word in (b"a", b"bb", b"ccc"):
            await conversation.say(b"%x\r\n%b\r\n" % (len(word), word))
            assert await asyncio.wait_for(taken.get(), 1) == word
        await conversation.say(b"0\r\n\r\n")
        await conversation.hung_up()

    async with upstream(play) as world, client(name) as transport:
        download = await send(transport, world.target())
        async for piece in download:
            taken.put_nowait(piece)
        await download.close()


@over_both
async def test_giving_up_on_a_piece_loses_nothing(name: str):
    """Who stops waiting for a piece may ask again, and gets it."""
    go_on = asyncio.Event()

    async def play(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await go_on.wait()
        await conversation.say(b"piece")
        await conversation.hung_up()

    async with upstream(play) as world, client(name) as transport:
        download = await send(transport, world.target())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(download)), 0.02)
        go_on.set()
        assert await anext(aiter(download)) == b"piece"
        assert await download.read() == b""
        await download.close()


@over_both
async def test_a_slow_reader_holds_the_server_up(name: str):
    """While nobody reads, a server with 50 MB to send gets only as far as the buffers; then all of it arrives."""
    total, sent, stalled = 50_000_000, 0, asyncio.Event()

    async def play(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.request()
        conversation.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = b"x" * 100_000
        while sent < total:
            conversation.writer.write(block)
            draining = asyncio.ensure_future(conversation.writer.drain())
            if not (await asyncio.wait([draining], timeout=0.2))[0]:
                stalled.set()
            await draining
            sent += len(block)
        await conversation.hung_up()

    async with upstream(play) as world, client(name) as transport:
        download = await send(transport, world.target(), timeout=Timeouts(connect_s=5, first_byte_s=5, idle_s=0.1))
        async with asyncio.timeout(5):
            await stalled.wait()
        assert sent < 16_000_000  # two sockets' buffers, which the kernel sizes, and ours
        got = 0
        async for piece in download:
            got += len(piece)
        assert got == total
        await download.close()


@over_both
async def test_a_reader_may_pause_longer_than_the_idle_timeout(name: str):
    """The idle time-out counts only while somebody waits for the server."""
    async with upstream(saying(answer(b"a" * 200_000))) as world, client(name) as transport:
        download = await send(transport, world.target(), timeout=Timeouts(idle_s=0.05))
        size = 0
        async for piece in download:
            size += len(piece)
            if size < 150_000:
                await asyncio.sleep(0.08)
        assert size == 200_000
        await download.close()


@over_both
@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "\u00e9"])
async def test_a_header_cannot_end_itself(name: str, value: str):
    """A line break, or a character outside ASCII, in a header is refused, does not show in the message, and nothing
    is sent."""
    async with upstream(saying(answer())) as world, client(name) as transport:
        for place in ({"headers": (("x-user", value),)}, {"extra": (("x-user", value),)}):
            with pytest.raises(InvalidRequest, match="x-user") as caught:
                await send(transport, world.target(), **place)
            assert "evil" not in str(caught.value)
        for bad in ((("x user", "a"),), (("x\r\ny", "a"),), (("Content-Length", "1"),), (("transfer-encoding", "a"),)):
            with pytest.raises(InvalidRequest):
                await send(transport, world.target(), headers=bad)
        with pytest.raises(InvalidRequest):
            await send(transport, world.target(), method="POST / HTTP/1.1\r\nx: y\r\n")
        assert world.conversations == []


def test_a_target_is_an_absolute_url():
    """The parts of a URL are taken apart once; what is not one is refused when it is configured."""
    target = Target.parse("https://[::1]/v1?a=b")
    assert (target.host, target.port, target.path, target.authority) == ("::1", 443, "/v1?a=b", "[::1]")
    assert target.origin == "https://[::1]:443"
    assert Target.parse("http://Example.com:8080").url == "http://example.com:8080/"
    for bad in (
        "", "ftp://a/", "/v1", "http://", "http://u:p@h/", "http://h/a b", "http://h/\r\nx: y", "http://h/\u00e9",
        "http://h:0/", "http://h:99999/", "http://h/#f", "http://h\u2100/", "http://a b/", "http://[::1/",
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            Target.parse(bad)


def test_a_transport_is_opened_by_name():
    """An unknown name is refused with those that there are."""
    with pytest.raises(ConfigError, match="httptools, aiohttp"):
        open_transport("curl")


@over_both
def test_it_works_on_uvloop(name: str):
    """Whole and streamed answers, a time-out, a cancelled call and a bad answer do the same on uvloop."""

    async def scene() -> None:
        async with client(name) as transport:
            async with upstream(saying(chunked(b"a", b"b"))) as world:
                for _ in range(3):
                    assert await fetch(transport, world.target()) == (200, b"ab")
                assert len(world.conversations) == 1
            async with upstream(saying_and_holding(answer(b"abc")[:-1])) as world:
                download = await send(transport, world.target(), timeout=Timeouts(idle_s=0.05))
                with pytest.raises(UpstreamTimeout):
                    await download.read()
                await seen_at_once(world)
            async with upstream(saying_and_holding()) as world:
                with pytest.raises(UpstreamTimeout):
                    await fetch(transport, world.target(), timeout=Timeouts(first_byte_s=0.05))
                await seen_at_once(world)
                world.hang_ups.clear()
                call = asyncio.ensure_future(fetch(transport, world.target(), timeout=PATIENT))
                while len(world.requests) < 2:
                    await asyncio.sleep(0.001)
                call.cancel()
                await seen_at_once(world)
                with pytest.raises(asyncio.CancelledError):
                    await call
            async with upstream(saying_and_closing(b"garbage\r\n\r\n")) as world:
                with pytest.raises(UpstreamProtocolError):
                    await fetch(transport, world.target())
            async with upstream(saying_and_closing(answer(b"abc")[:-1])) as world:
                with pytest.raises(UpstreamBroken):
                    await fetch(transport, world.target())
            await settled()

    uvloop.run(scene())
