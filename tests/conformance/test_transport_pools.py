"""How every transport keeps connections: reuse, stale ones, limits, and whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys

import pytest
from upstreams import (
    Conversation,
    answer,
    chunked,
    client,
    fetch,
    open_files,
    over_both,
    saying,
    saying_and_closing,
    send,
    settled,
    upstream,
)

from negawatt.errors import UpstreamBroken, UpstreamError, UpstreamProtocolError


@over_both
@pytest.mark.parametrize("reply", [answer(b"a"), chunked(b"a")], ids=["length", "chunked"])
async def test_a_connection_is_used_again(name: str, reply: bytes):
    """Requests one after the other share a connection, whether their answers were read whole or in pieces."""
    async with upstream(saying(reply)) as world, client(name) as transport:
        for _ in range(3):
            assert await fetch(transport, world.target()) == (200, b"a")
            download = await send(transport, world.target())
            assert [piece async for piece in download] == [b"a"]
            await download.close()
        assert len(world.conversations) == 1


@over_both
async def test_an_answer_that_is_whole_may_be_closed_unread(name: str):
    """Closing an answer that has come in already does not cost the connection."""
    async with upstream(saying(answer(b""))) as world, client(name) as transport:
        for _ in range(3):
            await (await send(transport, world.target())).close()
        assert len(world.conversations) == 1


@over_both
@pytest.mark.parametrize("last", ["HTTP/1.1 200 OK\r\nConnection: close", "HTTP/1.0 200 OK"])
async def test_a_server_may_ask_for_the_end(name: str, last: str):
    """After ``Connection: close`` and after HTTP/1.0 the next request has a connection of its own."""
    reply = f"{last}\r\nContent-Length: 2\r\n\r\nok".encode()
    async with upstream(saying(reply)) as world, client(name) as transport:
        for _ in range(2):
            assert await fetch(transport, world.target()) == (200, b"ok")
        assert len(world.conversations) == 2


@over_both
async def test_a_server_may_close_an_idle_connection(name: str):
    """A connection that the server closed while it lay idle costs the next request nothing."""
    async with upstream(saying_and_closing(answer())) as world, client(name) as transport:
        for _ in range(3):
            assert await fetch(transport, world.target()) == (200, b"ok")
            await settled()
        assert len(world.conversations) == len(world.requests) == 3


def closing_on_the_second(*said: bytes, always: bool = False):
    """A server that answers once, then closes after the second request (saying *said*), on its first connection only
    unless *always*; other connections are answered, or if *always* closed at once."""

    async def play(conversation: Conversation) -> None:
        while (await conversation.request()) is not None:
            first = conversation.number == 0
            asked = len(conversation.upstream.requests)
            if (first and asked > 1) or (not first and always):
                return await conversation.say(*said)
            await conversation.say(answer())
        return None

    return play


@over_both
async def test_a_request_that_met_a_stale_connection_is_resent(name: str):
    """The server closes a used connection just as the request comes, without a byte: it is sent again, unseen."""
    async with upstream(closing_on_the_second()) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, b"ok")
        assert await fetch(transport, world.target(), body=b"[2]") == (200, b"ok")
        assert len(world.conversations) == 2
        assert world.requests[1] == world.requests[2]


@pytest.mark.parametrize(("name", "resent"), [("httptools", True), ("aiohttp", False)])
async def test_a_reset_of_a_stale_connection(name: str, resent: bool):
    """The same by a reset: ours resends; aiohttp does not tell whether a byte had come, so that is an error."""

    async def play(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            if conversation.number == 0 and len(conversation.upstream.requests) > 1:
                return conversation.reset()
            await conversation.say(answer())
        return None

    async with upstream(play) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, b"ok")
        if resent:
            assert await fetch(transport, world.target()) == (200, b"ok")
        else:
            with pytest.raises(UpstreamBroken):
                await fetch(transport, world.target())
        assert len(world.requests) == (3 if resent else 2)


@over_both
async def test_a_request_is_resent_once(name: str):
    """A server that closes the fresh connection too is not asked a third time."""
    async with upstream(closing_on_the_second(always=True)) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, b"ok")
        with pytest.raises(UpstreamBroken):
            await fetch(transport, world.target())
        assert len(world.requests) == 3


@over_both
async def test_a_request_is_not_resent_after_one_byte_of_its_answer(name: str):
    """The server has begun to answer, so it has acted: that is for the caller to decide."""
    async with upstream(closing_on_the_second(b"HTTP/1.1")) as world, client(name) as transport:
        assert await fetch(transport, world.target()) == (200, b"ok")
        with pytest.raises(UpstreamBroken):
            await fetch(transport, world.target())
        assert len(world.requests) == 2


@over_both
async def test_an_idle_connection_expires(name: str):
    """A connection nobody used for the keep-alive time is closed."""
    gone = asyncio.Event()

    async def play(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(answer())
        await conversation.hung_up()
        gone.set()

    async with upstream(play) as world, client(name, keepalive_s=0.05) as transport:
        await fetch(transport, world.target())
        await asyncio.sleep(0.02)
        assert not gone.is_set()
        async with asyncio.timeout(1):
            await gone.wait()


@over_both
async def test_more_than_one_answer_is_never_taken_for_the_next(name: str):
    """What a server sends beyond its answer does not answer the next request."""
    async with upstream(saying(answer(b"one") + answer(b"evil"))) as world, client(name) as transport:
        for _ in range(2):
            with contextlib.suppress(UpstreamProtocolError):  # refusing such an answer altogether is as safe
                assert await fetch(transport, world.target()) == (200, b"one")


class Gate:
    """A server that holds every request until it is let through, and notes how many there are at once."""

    def __init__(self) -> None:
        self.held: list[tuple[bytes, asyncio.Event]] = []
        self.order: list[str] = []
        self.arrived = asyncio.Condition()
        self.at_once = self.most = 0

    async def play(self, conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            self.order.append(request.split(b" ", 2)[1].decode())
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            passed = asyncio.Event()
            self.held.append((request, passed))
            async with self.arrived:
                self.arrived.notify_all()
            await passed.wait()
            self.at_once -= 1
            await conversation.say(answer(self.order[-1].encode()))

    async def until(self, count: int) -> None:
        """Wait until *count* requests have come in all."""
        async with asyncio.timeout(2), self.arrived:
            await self.arrived.wait_for(lambda: len(self.order) >= count)

    def let_through(self) -> None:
        """Answer the request that has waited longest."""
        self.held.pop(0)[1].set()


@over_both
async def test_waiting_requests_are_served_in_order(name: str):
    """With one connection, requests go out in the order in which they were made."""
    gate = Gate()
    async with upstream(gate.play) as world, client(name, max_connections=1) as transport:
        calls = []
        for number in range(6):
            calls.append(asyncio.ensure_future(fetch(transport, world.target(f"/{number}"))))
            await settled()
        for count in range(1, 7):
            await gate.until(count)
            assert gate.at_once == 1
            gate.let_through()
        await asyncio.gather(*calls)
        assert gate.order == [f"/{number}" for number in range(6)]
        assert len(world.conversations) == 1


@over_both
async def test_a_waiter_that_is_cancelled_leaves_the_line(name: str):
    """Who is cancelled in line is not sent, and those behind still are."""
    gate = Gate()
    async with upstream(gate.play) as world, client(name, max_connections=1) as transport:
        calls = []
        for number in range(5):
            calls.append(asyncio.ensure_future(fetch(transport, world.target(f"/{number}"))))
            await settled()
        await gate.until(1)
        calls[1].cancel()
        calls[3].cancel()
        for count in (1, 2, 3):
            await gate.until(count)
            gate.let_through()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        cancelled = [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]
        assert cancelled == [False, True, False, True, False]
        assert gate.order == ["/0", "/2", "/4"]


@over_both
async def test_a_failed_call_gives_its_slot_to_the_next(name: str):
    """When the connection of a call breaks, the next in line gets its place."""
    gate = Gate()

    async def play(conversation: Conversation) -> None:
        if conversation.number == 0:
            await conversation.request()
            await asyncio.sleep(0.02)
        else:
            await gate.play(conversation)

    async with upstream(play) as world, client(name, max_connections=1) as transport:
        first = asyncio.ensure_future(fetch(transport, world.target("/first")))
        await settled()
        second = asyncio.ensure_future(fetch(transport, world.target("/second")))
        with pytest.raises(UpstreamBroken):
            await first
        await gate.until(1)
        gate.let_through()
        assert (await second)[0] == 200


@over_both
@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["kept", "closed"])
async def test_cancelling_at_any_moment_loses_no_slot(name: str, fields: tuple[str, ...]):
    """After 300 calls of which half were cancelled at arbitrary moments, as many connections as before can be used at
    once."""
    dice, limit = random.Random(11), 4

    async def flaky(transport, target) -> None:
        call = asyncio.ensure_future(fetch(transport, target))
        if dice.random() < 0.5:
            for _ in range(dice.randrange(25)):
                await asyncio.sleep(0)
            call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    gate, together = Gate(), False

    async def play(conversation: Conversation) -> None:
        if together:
            return await gate.play(conversation)
        while await conversation.request() is not None and not together:
            await conversation.say(answer(b"ok", *fields))
        return None

    async with upstream(play) as world, client(name, max_connections=limit) as transport:
        await asyncio.gather(*(flaky(transport, world.target()) for _ in range(300)))
        together = True
        calls = [asyncio.ensure_future(fetch(transport, world.target())) for _ in range(limit + 2)]
        await gate.until(limit)
        assert gate.at_once == limit
        for count in range(1, limit + 3):
            await gate.until(count)
            gate.let_through()
        assert [status for status, _ in await asyncio.gather(*calls)] == [200] * (limit + 2)


@over_both
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_five_hundred_requests_share_fifty_connections(name: str):
    """All are answered, with their own answer, and never more than the limit at once."""
    most = open_now = 0

    async def play(conversation: Conversation) -> None:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        while (request := await conversation.request()) is not None:
            await conversation.say(answer(request.split(b" ", 2)[1]))
        open_now -= 1

    files = open_files()
    async with upstream(play) as world, client(name, max_connections=50) as transport:
        calls = (fetch(transport, world.target(f"/{number}")) for number in range(500))
        bodies = [body for _, body in await asyncio.gather(*calls)]
        assert bodies == [b"/%d" % number for number in range(500)]
        assert most == 50
        assert open_files() <= files + 2 * 50 + 5
    await settled()


@over_both
async def test_origins_have_limits_of_their_own(name: str):
    """A full origin does not hold up another."""
    gate = Gate()
    async with upstream(gate.play) as full, upstream(saying(answer())) as other:
        async with client(name, max_connections=1) as transport:
            held = asyncio.ensure_future(fetch(transport, full.target()))
            await gate.until(1)
            assert await fetch(transport, other.target()) == (200, b"ok")
            gate.let_through()
            await held


@over_both
async def test_closing_the_transport_refuses_who_waits_in_line(name: str):
    """A request that waits for its turn fails when the transport is closed."""
    gate = Gate()
    async with upstream(gate.play) as world, client(name, max_connections=1) as transport:
        calls = [asyncio.ensure_future(fetch(transport, world.target())) for _ in range(2)]
        await gate.until(1)
        await transport.close()
        for call in calls:
            with pytest.raises(UpstreamError):
                async with asyncio.timeout(1):
                    await call
