"""Running the server: one process, one event loop, closed in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from negawatt import __version__
from negawatt.access.keyring import Keyring
from negawatt.books import open_accounts
from negawatt.budgeting import check_store
from negawatt.catalogue import open_providers
from negawatt.config import Config
from negawatt.doors import digest_of, open_keyring
from negawatt.errors import ConfigError
from negawatt.gateway import Gateway
from negawatt.governing import watched
from negawatt.levers.admit import Callers
from negawatt.metrics_routes import MetricsServer
from negawatt.origins import LOOPBACK
from negawatt.recalling import check_recall, open_embedding, recalls
from negawatt.registry import LEDGERS, STORES, check_url
from negawatt.server import Server
from negawatt.watching import check_sinks, open_watch

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

_LINGER_S = 1.0  # for a closing connection to take what was sent
_BACKLOG = 4096
_DRAIN_S = 10  # for answers under way when we are asked to stop


def refuse_open_doors(config: Config, callers: Callers) -> None:
    """Raise `ConfigError` when the server would listen to the world and ask nobody for a key."""
    if config.server.host not in LOOPBACK and callers.open:
        raise ConfigError(
            f"server.host: {config.server.host} can be reached from elsewhere, and there are no keys: "
            "anybody could spend your money. Make one (`negawatt keys create`), add a [[keys]] entry, or listen on "
            "127.0.0.1",
            param="server.host",
        )


def look_at_doors(config: Config) -> None:
    """Look at the keys before anything is opened. Raises `ConfigError` or `KeyFileError`."""
    keyring = open_keyring(config, os.environ)
    try:
        refuse_open_doors(config, keyring)
        if config.server.host not in LOOPBACK and not keyring.administered:
            log.warning("no key is an administrator's: nobody can see / and /admin from elsewhere, nor change keys "
                        "there (`negawatt keys create --admin`)")  # fmt: skip
    finally:
        keyring.close()


def dry_run(config: Config) -> None:
    """Raise `ConfigError` for what would keep the server from starting; open nothing that lasts."""
    look_at_doors(config)
    open_accounts(config)
    open_providers(config, os.environ)
    check_url(STORES, "negawatt.stores", config.cache.store, "cache.store")
    check_url(LEDGERS, "negawatt.ledgers", config.ledger.url, "ledger.url")
    check_sinks(config, os.environ)
    check_store(config)
    asyncio.run(_opens(config))


async def _opens(config: Config) -> None:
    """Open a gateway that keeps nothing, and close it: so policies, rules and what was learned are looked at."""
    from negawatt.ledger.memory import MemoryLedger

    async with open_embedding(config) as embedder:
        if embedder is not None and recalls(config):
            check_recall(config, embedder)
        config = msgspec.structs.replace(
            config,
            cache=msgspec.structs.replace(config.cache, store="memory:"),
            recall=msgspec.structs.replace(config.recall, index="memory:"),
            budgeting=msgspec.structs.replace(config.budgeting, store="memory:"),
        )
        async with Gateway.open(config, ledger=MemoryLedger(), embedder=embedder):
            pass


def bind(config: Config, port: int) -> socket.socket:
    """Return the socket to serve on, which is not open yet. Raises `ConfigError` when the address is not to be had."""
    host = config.server.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    listener.set_inheritable(True)
    return listener


def _listen(listener: socket.socket) -> None:
    """Open the door. Raises `ConfigError` when somebody was quicker to take the address."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(f"server.port: cannot listen on {host}:{port}: {error.strerror}", param="server")


class Application(Protocol):
    """An ASGI application: told to *stop* what has no end, then, when the server has stopped, to *close*."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def serve(config: Config, announce: Callable[[str, str | None], None]) -> None:
    """Serve until interrupted. *announce* is told the address once the port is open, and that of the metrics."""
    look_at_doors(config)
    listener = bind(config, config.server.port)
    apart = config.telemetry.metrics_port
    metrics = None if apart is None else bind(config, apart)
    own = None if metrics is None else _address(metrics)
    _run(_serve(config, listener, metrics, lambda: announce(_address(listener), own)))


def show(config: Config, announce: Callable[[str], None], application: Callable[[Gateway], Application]) -> None:
    """Serve *application* until interrupted, over a gateway that watches nothing and is asked nothing."""
    listener = bind(config, config.server.port)
    _run(_show(config, listener, lambda: announce(_address(listener)), application))


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def one_write_protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol, made to send the head and the body of a response in one packet."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class OneWriteProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Corked(transport, self.loop))  # type: ignore[arg-type]

    return OneWriteProtocol


class _Corked:
    """A transport that holds the head of a response back until the end of the event loop's turn.

    By then its body has come too, and both leave in one packet; of several connections answered in one turn all
    packets leave together. Later pieces of a streamed body wait for nothing.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self._held:
            self._held.append(data)
        elif data.startswith(b"HTTP/1.1 "):
            self._held.append(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # What is left goes to somebody who may have stopped reading for good.
            self._loop.call_later(_LINGER_S, self._transport.abort)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def _serve(
    config: Config, listener: socket.socket, metrics: socket.socket | None, ready: Callable[[], None]
) -> None:
    async with Gateway.open(config) as gateway, open_watch(gateway, **watched(gateway)), _apart(gateway, metrics):
        gateway.accounts.warm()
        refuse_open_doors(config, gateway.keyring)  # the file of keys may have changed since it was looked at
        await asyncio.to_thread(_note_start, gateway)
        await _answer(Server(gateway), listener, ready)


async def _show(
    config: Config, listener: socket.socket, ready: Callable[[], None], application: Callable[[Gateway], Application]
) -> None:
    # Whoever can read the file may look: the keys of a gateway that may lie beside it open nothing here.
    async with Gateway.open(config, keyring=Keyring((), {})) as gateway:
        await _answer(application(gateway), listener, ready)


async def _answer(application: Application, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Let *application* answer until the process is asked to stop."""
    server = _uvicorn(application)
    with contextlib.closing(application), _stopping_in_order(server, application.stop):
        _listen(listener)  # from here on nobody is turned away: who comes early waits
        # What is alive now stays alive: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        ready()
        await server._serve([listener])


def _uvicorn(application: Any) -> uvicorn.Server:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            application,
            http=one_write_protocol(),
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_DRAIN_S,
        )
    )


@contextlib.asynccontextmanager
async def _apart(gateway: Gateway, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve the metrics at *listener* meanwhile, where they have a port of their own."""
    if listener is None:
        yield
        return
    _listen(listener)
    server = _uvicorn(MetricsServer(gateway))
    serving = asyncio.ensure_future(server._serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _note_start(gateway: Gateway) -> None:
    """Write down by what configuration, prices and code the gateway decides from now on."""
    detail = {"config": digest_of(gateway.config), "version": __version__, **gateway.accounts.versions}
    gateway.access.audit.note("server", "server.started", detail=detail)


@contextlib.contextmanager
def _stopping_in_order(server: uvicorn.Server, stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM *stop* what has no end, then *server*, and nothing else: what is open beside it must still
    be closed.

    uvicorn's own handling raises the signal again when it is done, which would end the process before the ledger
    has written its last rows.
    """
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int) -> None:
        stop()
        server.handle_exit(number, None)

    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
