"""One schema of a PostgreSQL database: opened when it is first used, and left alone for a moment after a failure.

``postgres://user@host:5432/database?schema=negawatt&timeout_ms=500&password_env=PGPASS&sslmode=require``, with
``host=/folder`` for a Unix socket. What store and index have in common.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from negawatt.errors import ConfigError, NegawattError, StoreError

log = logging.getLogger(__name__)
_T = TypeVar("_T")
Connection = Any  # asyncpg's, or the pool's stand-in for one
Prepare = Callable[[Connection, "Place"], Awaitable[str]]

_COOLDOWN_S = 1.0
_CONNECTIONS = 16
_TICK_S = 1e-6
AT_ONCE = 500  # entries that one statement deletes
MOST_ROUNDS = 20  # of making room, in one transaction
_MOST_USES = 10_000
_WRITTEN_EVERY_S = 10.0
_SETUP_S = 10.0  # for making the tables, which is done once
_LIBPQ = ("host", "port", "user", "dbname", "sslmode", "sslrootcert")
_OURS = ("schema", "timeout_ms", "password_env")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
# Two replicas that start at once make the tables one after the other; and no two gateways the extension at once.
SETUP_LOCK = "SELECT pg_advisory_xact_lock(7524319046921)"
_HAS_SCHEMA = "SELECT true FROM pg_namespace WHERE nspname = $1"
_HAS_TABLE = "SELECT true FROM pg_tables WHERE schemaname = $1 AND tablename = $2"
_LOCK = "SELECT pg_advisory_xact_lock($1)"
_ADVICE = (
    "; the role needs a schema of its own (CREATE SCHEMA {schema} AUTHORIZATION role, by whoever owns the database), "
    "or rights on the tables that another made there"
)
_CREATE_SCHEMA = 'CREATE SCHEMA "{schema}"'


class Place(NamedTuple):
    """Where the tables are. *name* is for messages; *dsn* holds no password."""

    dsn: str
    password: str | None
    name: str
    schema: str
    timeout_s: float


def place_of(url: Any, where: str, *, more: tuple[str, ...]) -> Place:
    """Return the place that *url* names; *more* are the options that the backend reads itself. Raises `ConfigError`."""
    _needs_client(where)
    query = dict(parse_qsl(url.text.partition("?")[2], keep_blank_values=True))
    known = (*_OURS, *more, *_LIBPQ)
    try:
        parts = urlsplit(url.text)
        port = query.get("port") or parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", param=where) from error
    if parts.password or "password" in query:
        raise ConfigError(f"{where}: a password in the URL; name its variable: ?password_env=VARIABLE", param=where)
    for name in query:
        if name not in known:
            raise ConfigError(f"{where}: there is no option {name!r}; known: {', '.join(known)}", param=where)
    schema, timeout, mode = query.get("schema", "negawatt"), query.get("timeout_ms", "500"), query.get("sslmode")
    if not _SCHEMA_NAME.fullmatch(schema):
        message = f"{where}: schema={schema!r} is not a name of small letters, digits and _ (at most 40)"
        raise ConfigError(message, param=where)
    if not timeout.isdigit() or int(timeout) == 0:
        raise ConfigError(f"{where}: timeout_ms={timeout!r} is not a number above 0", param=where)
    if mode is not None and mode not in _SSL_MODES:
        raise ConfigError(f"{where}: sslmode={mode!r} is none of {', '.join(_SSL_MODES)}", param=where)
    if not str(port or 0).isdigit():
        raise ConfigError(f"{where}: port={port!r} is not a number", param=where)
    password = None
    if "password_env" in query:
        password = os.environ.get(query["password_env"])
        if not password:
            raise ConfigError(f"{where}: the variable {query['password_env']} is not set", param=where)
    rest = urlencode({name: query[name] for name in _LIBPQ if name in query}, quote_via=quote, safe="/")
    host = query.get("host") or parts.hostname or "localhost"
    database = query.get("dbname") or parts.path.removeprefix("/") or query.get("user") or parts.username or "postgres"
    dsn = urlunsplit((parts.scheme, parts.netloc, parts.path, rest, ""))
    return Place(dsn, password, f"{host}:{port or 5432}/{database}", schema, int(timeout) / 1000)


def _needs_client(where: str) -> None:
    try:
        import asyncpg  # noqa: F401
    except ImportError as error:
        message = f"{where}: postgres needs its client: pip install 'negawatt[postgres]'"
        raise ConfigError(message, param=where) from error


def digest(text: str) -> bytes:
    """Return 24 bytes that stand for *text*: keys, tags and scopes may be of any length, and hold any character."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:24]


def lock_number(schema: str, what: str) -> int:
    """Return the number of the advisory lock under which *what* of *schema* is changed."""
    return int.from_bytes(hashlib.sha256(f"negawatt {schema} {what}".encode()).digest()[:8], "big", signed=True)


def in_one_line(error: BaseException) -> str:
    """Return what *error* says; one that says nothing is a TimeoutError."""
    return " ".join(str(error).split()) or "no answer in time"


async def has_table(connection: Connection, place: Place, table: str) -> bool:
    return bool(await connection.fetchval(_HAS_TABLE, place.schema, table))


async def make_tables(connection: Connection, place: Place, probe: str, statements: str, *, path: str) -> None:
    """Run *statements* in the schema, with the search *path*, unless its table *probe* is there.

    Only one process does so at a time. Where the tables are there, nothing is made: the role needs no right to.
    """
    if await has_table(connection, place, probe):
        return
    async with connection.transaction():
        await connection.execute(SETUP_LOCK)
        if await has_table(connection, place, probe):
            return
        if not await connection.fetchval(_HAS_SCHEMA, place.schema):
            await connection.execute(_CREATE_SCHEMA.format(schema=place.schema))
        await connection.execute(f"SET LOCAL search_path = {path}")
        await connection.execute(statements)


class Database:
    """The connections to *place*. *prepare* makes sure of the tables, once, and returns the search path.

    Nothing is connected before the first use. Whatever goes wrong is a `StoreError`, and for a second after it every
    use is, at once; then the database is tried again. No use takes longer than three times the timeout.
    """

    def __init__(self, place: Place, prepare: Prepare, *, settings: dict[str, str] | None = None) -> None:
        self.place = place
        self._prepare = prepare
        self._settings = {"application_name": "negawatt", "jit": "off", **(settings or {})}
        self._path = ""  # as *prepare* says
        self._pool: Any = None
        self._opening: asyncio.Task[Any] | None = None
        self._changing = asyncio.Lock()
        self._down_until = 0.0
        self._why = ""

    async def opened(self) -> None:
        """Connect and prepare, if that is not done, and wait for it. Raises `StoreError`, or what *prepare* does."""
        if self._pool is None:
            self._fail_fast()
            async with self._watched(_SETUP_S + self.place.timeout_s):
                await self._open_once()

    async def run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Return what *work* does with a connection, in time. Raises `StoreError` and nothing else."""
        self._fail_fast()
        try:
            async with self._watched(2 * self.place.timeout_s):
                pool = self._pool or await self._open_once()
                async with pool.acquire(timeout=self.place.timeout_s) as connection:
                    return await work(connection)
        except StoreError:
            raise
        except NegawattError as error:
            raise StoreError(error.message) from error

    async def changed(self, lock: int, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Return what *work* does in one transaction that holds the advisory *lock*: one writer at a time."""

        async def locked(connection: Connection) -> _T:
            async with connection.transaction():
                await connection.execute(_LOCK, lock)
                return await work(connection)

        # Of one process only one waits in the database: the others would take the connections of those who read.
        async with self._changing:
            return await self.run(locked)

    async def deleted(self, lock: int, delete: Callable[[Connection, int], Awaitable[Any]]) -> int:
        """Return how many rows *delete* takes away that were *alive*: `AT_ONCE` each time, so that each ends soon."""
        count = 0
        while True:
            gone = await self.changed(lock, lambda connection: delete(connection, AT_ONCE))
            count += sum(bool(row["alive"]) for row in gone)
            if len(gone) < AT_ONCE:
                return count

    async def beside(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Return what *work* does with a connection of its own, however long it takes. Raises `StoreError`."""
        with self._translated():
            settings = {**self._settings, "search_path": self._path, "statement_timeout": "0"}
            connection = await self._connect(None, settings)
            try:
                return await work(connection)
            finally:
                await connection.close(timeout=self.place.timeout_s)

    async def close(self) -> None:
        opening, pool, self._pool = self._opening, self._pool, None
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening])
        if pool is not None:
            try:
                async with asyncio.timeout(2 * self.place.timeout_s):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    # -- parts -------------------------------------------------------------------------------------------------

    def _fail_fast(self) -> None:
        if asyncio.get_running_loop().time() < self._down_until:
            raise StoreError(f"{self._why} (a moment ago)")

    @asynccontextmanager
    async def _watched(self, limit_s: float) -> AsyncIterator[None]:
        """Bound what happens inside, and remember for a moment that it failed."""
        try:
            with self._translated():
                async with asyncio.timeout(limit_s):
                    yield
        except NegawattError as error:
            self._why = error.message
            self._down_until = asyncio.get_running_loop().time() + _COOLDOWN_S
            if _tables_are_gone(error) and self._pool is not None:
                stale, self._pool = self._pool, None  # the next use makes them again
                stale.terminate()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import asyncpg

        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            advice = ""
            if isinstance(error, asyncpg.InsufficientPrivilegeError):
                advice = _ADVICE.format(schema=self.place.schema)
            raise StoreError(f"postgres at {self.place.name} failed: {in_one_line(error)}{advice}") from error

    async def _open_once(self) -> Any:
        """Return the pool. Whoever comes meanwhile waits for the same opening, which goes on though they leave."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._is_open)
        return await asyncio.shield(self._opening)

    def _is_open(self, opening: asyncio.Task[Any]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._pool = opening.result()

    async def _open(self) -> Any:
        import asyncpg

        connection = await self._connect(_SETUP_S, self._settings)
        try:
            self._path = await self._prepare(connection, self.place)
        finally:
            await connection.close(timeout=self.place.timeout_s)
        limit = str(int(2000 * self.place.timeout_s))
        settings = {**self._settings, "search_path": self._path, "statement_timeout": limit}
        pool = asyncpg.create_pool(
            self.place.dsn, password=self.place.password, min_size=0, max_size=_CONNECTIONS, reset=_nothing,
            timeout=self.place.timeout_s, command_timeout=self.place.timeout_s, server_settings=settings,
        )  # fmt: skip
        return await pool

    async def _connect(self, command_timeout_s: float | None, settings: dict[str, str]) -> Connection:
        import asyncpg

        return await asyncpg.connect(
            self.place.dsn, password=self.place.password, timeout=self.place.timeout_s,
            command_timeout=command_timeout_s, server_settings=settings,
        )  # fmt: skip


def _tables_are_gone(error: BaseException) -> bool:
    import asyncpg

    return isinstance(error.__cause__, asyncpg.UndefinedTableError)


class Uses:
    """When entries were last read: written down with the next change, or soon where nothing is changed."""

    def __init__(self, write: Callable[[list[Any], list[float]], Awaitable[None]]) -> None:
        self._write = write
        self._read: dict[Any, float] = {}
        self._written_at = 0.0
        self._last = 0.0
        self._writing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._read)

    def note(self, entry: Any, at: float) -> None:
        """Remember that *entry* was read."""
        now = asyncio.get_running_loop().time()
        if not self._read:
            self._written_at = now
        if len(self._read) < _MOST_USES:
            self._read[entry] = self.moment(at)
        if now - self._written_at > _WRITTEN_EVERY_S and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write_down())

    def moment(self, at: float) -> float:
        """Return *at*, or a little more: of two uses at one reading of the clock, the later one is later."""
        self._last = max(at, self._last + _TICK_S)
        return self._last

    def taken(self) -> tuple[list[Any], list[float]]:
        """Return what is not yet written, and forget it."""
        read, self._read = self._read, {}
        return list(read), list(read.values())

    async def settled(self) -> None:
        if self._writing is not None:
            await self._writing

    async def _write_down(self) -> None:
        try:
            await self._write(*self.taken())
        except StoreError as error:
            log.info("when entries were last read was not written down: %s", error.message)


async def _nothing(_: Connection) -> None:
    """Leave a connection as it is: all that we do is one statement or one transaction, and a reset costs another."""
