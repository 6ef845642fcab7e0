"""What carries a request to a provider: the values, the protocol, and opening one by name.

A `Transport` has one method that matters: `send` takes an `Upload` and gives a `Download`, which owns its connection
until the body is read to its end or it is closed. Two transports keep to it, and to one conformance suite:

    httptools   our own HTTP/1.1 client (`http1_pool`), the default
    aiohttp     the same over aiohttp (`aiohttp_transport`), an extra

What `send`, `Download.read` and iterating a `Download` raise:

    UpstreamConnectError   refused, unreachable, no such host, TLS not trusted; nothing was sent
    UpstreamTimeout        no connection, no response head, or no next piece in time
    UpstreamBroken         the provider closed or reset before the answer was whole
    UpstreamProtocolError  what came back is not HTTP/1.1, too large, or in a coding we do not decode
    InvalidRequest         a header of the request has a character that would end it, or belongs to the transport

Neither transport follows redirects, keeps cookies, reads proxy settings or adds headers beyond ``host`` and
``content-length``. Neither asks for compression; who wants it says so with ``accept-encoding: gzip, deflate``.

A request is resent once, unseen by the caller, only if it went out on a connection that had answered before, and
that connection closed before one byte of this answer: the provider had hung up while the connection lay idle. That
holds for POST too, as in other common clients: a provider that accepts a request, acts on it and then closes without
a byte would be asked twice.
"""

from __future__ import annotations

import functools
import importlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol, Self, cast
from urllib.parse import urlsplit

import msgspec

from negawatt.errors import ConfigError, InvalidRequest, UpstreamProtocolError

Headers = tuple[tuple[str, str], ...]

# A default transport is named first. The class is called with (limits, ca_file).
TRANSPORTS: Mapping[str, str] = {
    "httptools": "negawatt.providers.http1_pool:Http1Transport",
    "aiohttp": "negawatt.providers.aiohttp_transport:AiohttpTransport",
}

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_HOST = re.compile(r"[0-9A-Za-z._\-]+|[0-9A-Fa-f:.]+")
_PATH = re.compile(r"/[\x21\x24-\x7e]*")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_METHOD = re.compile(r"[A-Z]+")

# The transport alone decides where a message ends and what happens to the connection.
_RESERVED = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes: origin and path, taken apart once. Make it with `Target.parse`."""

    scheme: str  # "http" or "https"
    host: str  # lower case, without the brackets of an IPv6 literal
    port: int
    path: str  # with the query; begins with "/"
    authority: str  # the Host header: no default port, IPv6 in brackets
    origin: str  # "https://host:port", the key of the connection pool
    url: str  # origin and path

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the target of an absolute http or https *url*; ConfigError if it is anything else."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"not a URL: {url!r} ({error})") from error
        host = _ascii_host(parts.hostname or "", url)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(f"the URL must begin with http:// or https://: {url!r}")
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise ConfigError(f"the URL of {host!r} must not hold a user name or password; send a header")
        default = 443 if parts.scheme == "https" else 80
        port = default if port is None else port
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # urlsplit drops line breaks and tabs without a word, so they are looked for in the text as given.
        if parts.fragment or _BLANK.search(url) or not _PATH.fullmatch(path) or not 0 < port < 65536:
            raise ConfigError(f"the URL has a bad port, a fragment, or characters that must be %-encoded: {url!r}")
        shown = f"[{host}]" if ":" in host else host
        origin = f"{parts.scheme}://{shown}:{port}"
        authority = shown if port == default else f"{shown}:{port}"
        return cls(
            scheme=parts.scheme, host=host, port=port, path=path,
            authority=authority, origin=origin, url=origin + path,
        )  # fmt: skip


def _ascii_host(host: str, url: str) -> str:
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConfigError(f"the URL has a bad host name: {url!r}") from error
    if not _HOST.fullmatch(ascii_host):
        raise ConfigError(f"the URL has a bad host name: {url!r}")
    return ascii_host


class Upload(msgspec.Struct, frozen=True):
    """What to send. *headers* are those of the provider and key: hold one tuple and pass the same each time, since
    the head made of it is cached by value. *extra* are those of this one request.
    """

    target: Target
    body: bytes = b""
    method: str = "POST"
    headers: Headers = ()
    extra: Headers = ()


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait, in seconds; each begins anew. Waiting for one of `Limits.max_connections` is not counted:
    that is for the call's own deadline, which cancels `send`.
    """

    connect_s: float = 5.0  # name, TCP and TLS together
    first_byte_s: float = 300.0  # from having a connection to the end of the response head
    idle_s: float = 60.0  # between two pieces of the body, while the caller waits for one


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport may use."""

    max_connections: int = 1024  # per origin; further requests wait their turn, first come first served
    keepalive_s: float = 30.0  # an idle connection is closed after this
    max_body: int = 64 * 1024 * 1024  # bytes that `Download.read` returns at most, decoded
    max_head: int = 64 * 1024  # bytes of a response head


class Download(Protocol):
    """The response. Close it, always; `async for` and `read` may not be used at once."""

    status: int
    # Lower-cased names; a name sent twice has its values joined by ", ". As sent: a decoded body keeps its
    # content-encoding and content-length here.
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """Return what is left of the body, decoded; UpstreamProtocolError if that is more than `Limits.max_body`."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the body in pieces as they come, decoded. While nobody asks for the next, reading from the socket
        stops after some 256 KiB."""

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it at once, which tells the provider.
        May be called again."""


class Transport(Protocol):
    """Carries requests. One event loop, one instance."""

    async def send(self, upload: Upload, *, timeout: Timeouts) -> Download:
        """Return the response once its head is there. Cancelling it drops the connection."""

    async def close(self) -> None:
        """Close every connection; what is still in flight fails with UpstreamBroken."""


def open_transport(name: str, *, limits: Limits | None = None, ca_file: str | Path | None = None) -> Transport:
    """Return the transport called *name*. *ca_file* holds certificates to trust besides those of the system (PEM).

    Raises ConfigError for an unknown name, a missing extra, or a bad *ca_file*.
    """
    if name not in TRANSPORTS:
        raise ConfigError(f"no transport is called {name!r}; there are {', '.join(TRANSPORTS)}")
    if ca_file is not None:
        tls_context(str(ca_file))
    module, _, attribute = TRANSPORTS[name].partition(":")
    try:
        opener = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(f"the transport {name!r} needs {error.name}: pip install 'negawatt[{name}]'") from error
    return cast(Transport, opener(limits or Limits(), None if ca_file is None else str(ca_file)))


@functools.lru_cache(maxsize=8)
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that checks certificate and host name, speaks HTTP/1.1, and trusts *ca_file* as well."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one too
            raise ConfigError(f"cannot read certificates from {ca_file!r}: {error}") from error
    return context


def check_head(method: str, headers: Headers) -> None:
    """Raise InvalidRequest if *method* or a header would break the request apart. Values stay out of the message."""
    if not _METHOD.fullmatch(method):
        raise InvalidRequest(f"not an HTTP method: {method!r}")
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise InvalidRequest(f"not a header name: {name!r}", param=name)
        if name.lower() in _RESERVED:
            raise InvalidRequest(f"the header {name!r} is set by the transport", param=name)
        if not _VALUE.fullmatch(value):
            raise InvalidRequest(
                f"the value of the header {name!r} has a line break or a character outside ASCII", param=name
            )


def needs_length(upload: Upload) -> bool:
    """Return whether *upload* says its content-length: all do, but a GET or HEAD without a body."""
    return bool(upload.body) or upload.method not in ("GET", "HEAD")


def too_large(limit: int) -> UpstreamProtocolError:
    """The error for a body above `Limits.max_body`."""
    return UpstreamProtocolError(f"the answer is larger than {limit} bytes")


def head_too_large(limit: int) -> UpstreamProtocolError:
    """The error for a response head above `Limits.max_head`."""
    return UpstreamProtocolError(f"the answer's head is larger than {limit} bytes")


def why_no_connection(target: Target, error: BaseException) -> str:
    """Return one sentence on what went wrong with opening a connection to *target*."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {target.origin} is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {target.origin}: {error}"
    return f"no connection to {target.origin}: {error}"
