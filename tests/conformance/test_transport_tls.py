"""TLS over every transport: whom it trusts, and what it says when it does not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme
import uvloop
from upstreams import (
    Conversation,
    answer,
    client,
    fetch,
    over_both,
    saying,
    saying_and_holding,
    seen_at_once,
    send,
    upstream,
)

from negawatt.errors import ConfigError, UpstreamConnectError
from negawatt.providers.transport import open_transport


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's context with a certificate for *names*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@over_both
async def test_an_unknown_authority_is_refused(name: str, authority: trustme.CA):
    """Without its authority, a certificate is not trusted, no request is sent, and the error says why."""
    tls = serving(authority, "localhost")
    async with upstream(saying(answer()), name="localhost", tls=tls) as world, client(name) as transport:
        with pytest.raises(UpstreamConnectError, match=r"certificate of https://localhost:\d+ is not trusted: .+"):
            await fetch(transport, world.target())
        assert world.requests == []


@over_both
async def test_a_self_signed_certificate_is_refused(name: str, authority: trustme.CA, ca_file: Path, tmp_path: Path):
    """The same for a certificate that nobody but itself vouches for."""
    authority.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ca_file, tmp_path / "key.pem")
    async with upstream(saying(answer()), tls=tls) as world, client(name) as transport:
        with pytest.raises(UpstreamConnectError, match="self-signed"):
            await fetch(transport, world.target())


@over_both
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_given_authority_is_trusted(name: str, host: str, authority: trustme.CA, ca_file: Path):
    """With its authority's file the server is trusted, by name or by address, and its connection is kept."""
    tls = serving(authority, host)
    body = b"x" * 200_000
    async with upstream(saying(answer(body)), name=host, tls=tls) as world, client(name, ca_file=ca_file) as transport:
        for _ in range(3):
            assert await fetch(transport, world.target(), body=body) == (200, body)
        assert len(world.conversations) == 1


@over_both
async def test_another_host_s_certificate_is_refused(name: str, authority: trustme.CA, ca_file: Path):
    """A certificate of a trusted authority does not do for another host."""
    tls = serving(authority, "example.org")
    async with upstream(saying(answer()), name="localhost", tls=tls) as world, client(name, ca_file=ca_file) as it:
        with pytest.raises(UpstreamConnectError, match=r"is not trusted: Hostname mismatch"):
            await fetch(it, world.target())
        assert world.requests == []


@over_both
async def test_the_server_is_told_its_name(name: str, authority: trustme.CA, ca_file: Path):
    """The name is in the handshake (SNI), so that one address can serve many."""
    tls, asked = serving(authority, "localhost"), []
    tls.sni_callback = lambda _socket, server_name, _context: asked.append(server_name)
    async with upstream(saying(answer()), name="localhost", tls=tls) as world, client(name, ca_file=ca_file) as it:
        await fetch(it, world.target())
        assert asked == ["localhost"]


@over_both
async def test_a_server_without_tls_is_a_connect_error(name: str):
    """https to a server that speaks plain HTTP says that there is no TLS."""

    async def speak(conversation: Conversation) -> None:
        conversation.writer.write(answer())

    async with upstream(speak) as world, client(name) as transport:
        world.origin = world.origin.replace("http:", "https:")
        with pytest.raises(UpstreamConnectError, match=r"no TLS with https://127\.0\.0\.1"):
            await fetch(transport, world.target())


@over_both
async def test_hanging_up_works_through_tls(name: str, authority: trustme.CA, ca_file: Path):
    """Closing in mid-body and cancelling reach the server at once under TLS as well."""
    tls = serving(authority, "127.0.0.1")
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    async with upstream(saying_and_holding(half), tls=tls) as world, client(name, ca_file=ca_file) as transport:
        download = await send(transport, world.target())
        assert await anext(aiter(download)) == b"half"
        await download.close()
        await seen_at_once(world)
    async with upstream(saying_and_holding(), tls=tls) as world, client(name, ca_file=ca_file) as transport:
        call = asyncio.ensure_future(send(transport, world.target()))
        while not world.requests:
            await asyncio.sleep(0.001)
        call.cancel()
        await seen_at_once(world)
        with pytest.raises(asyncio.CancelledError):
            await call


@over_both
async def test_an_ipv6_address_in_brackets(name: str):
    """An IPv6 literal is connected to without its brackets, and named with them."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        async with upstream(saying(answer()), host="::1") as world, client(name) as transport:
            assert await fetch(transport, world.target()) == (200, b"ok")
            assert f"host: {world.origin.removeprefix('http://')}".encode() in world.requests[0].lower()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


@over_both
def test_tls_on_uvloop(name: str, authority: trustme.CA, ca_file: Path):
    """Trust, mistrust and reuse are the same on uvloop."""

    async def scene() -> None:
        tls = serving(authority, "localhost")
        async with upstream(saying(answer(b"x" * 100_000)), name="localhost", tls=tls) as world:
            async with client(name, ca_file=ca_file) as transport:
                for _ in range(3):
                    assert await fetch(transport, world.target()) == (200, b"x" * 100_000)
                assert len(world.conversations) == 1
            async with client(name) as transport:
                with pytest.raises(UpstreamConnectError, match="is not trusted"):
                    await fetch(transport, world.target())

    uvloop.run(scene())


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_bad_authority_file_is_a_config_error(content: str | None, tmp_path: Path):
    """A file that is missing or holds no certificate is refused when the transport is opened."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        open_transport("httptools", ca_file=path)
