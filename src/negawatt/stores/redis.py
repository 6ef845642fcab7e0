"""Bytes in Redis or Valkey: shared by replicas.

``redis://host:port/0?prefix=negawatt:&max_bytes=1GiB&timeout_ms=250&password_env=REDIS_PASSWORD``; ``rediss://`` for
TLS, with ``ca_file=FILE`` for authorities of one's own. A server that is slow or gone makes `StoreError`, at once for
a second after each failure; when it is back, it is used again. Needs one server, or a primary with replicas: scripts
touch several keys, which a Redis Cluster does not allow.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from negawatt.clock import Clock
from negawatt.errors import ConfigError, StoreError
from negawatt.stores import StoreStats, redis_scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

_T = TypeVar("_T")
_COOLDOWN_S = 1.0
_CONNECTIONS = 64
_BATCH = 500  # keys that one script looks at, of those that are deleted by tag: some milliseconds
_LONGEST_MS = 10**12  # some thirty years, which Redis still takes
_OPTIONS = ("prefix", "max_bytes", "timeout_ms", "password_env", "ca_file")


def open_redis(
    url: Any, where: str, clock: Clock, *, prefix: str = "negawatt:", timeout_ms: int = 250
) -> RedisStore:  # fmt: skip
    """Open the store that *url* names; nothing is connected yet. Raises `ConfigError`.

    *prefix* and *timeout_ms* hold where it says nothing else.
    """
    try:
        from redis.asyncio import ConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError
    except ImportError as error:
        raise ConfigError(f"{where}: redis needs its client: pip install 'negawatt[redis]'", param=where) from error
    options = _Options(url, where, prefix=prefix, timeout_ms=timeout_ms)
    pool: ConnectionPool = ConnectionPool.from_url(
        options.server, password=options.password, protocol=2, encoding_errors="surrogatepass",
        max_connections=_CONNECTIONS, **options.tls,
        socket_timeout=options.timeout_s, socket_connect_timeout=options.timeout_s,
        # A connection that went bad while it was idle says so once; the next one is new.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    )  # fmt: skip
    return RedisStore(
        Redis(connection_pool=pool), clock, name=options.name, prefix=options.prefix,
        max_bytes=url.bytes("max_bytes", 2**30, where), timeout_s=options.timeout_s,
    )  # fmt: skip


class _Options:
    """What a URL says, checked. Raises `ConfigError`."""

    def __init__(self, url: Any, where: str, *, prefix: str, timeout_ms: int) -> None:
        self._where = where
        parts = urlsplit(url.text)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in query:
            if name not in _OPTIONS:
                self._refuse(f"there is no option {name!r}; known: {', '.join(_OPTIONS)}")
        if parts.password is not None:
            self._refuse("a password in the URL; name its variable: ?password_env=VARIABLE")
        if parts.path.strip("/") and not parts.path.strip("/").isdigit():
            self._refuse(f"{parts.path!r} is not the number of a database such as /0")
        try:
            port = parts.port or 6379
        except ValueError as error:
            self._refuse(str(error))
        self.name = f"{parts.hostname or 'localhost'}:{port}"
        self.server = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        self.prefix = query.get("prefix", prefix)
        self.password = self._secret(query["password_env"]) if "password_env" in query else None
        self.timeout_s = self._milliseconds(query.get("timeout_ms", str(timeout_ms))) / 1000
        self.tls = self._tls(parts.scheme, query.get("ca_file"))

    def _secret(self, variable: str) -> str:
        found = os.environ.get(variable)
        if not found:
            self._refuse(f"the variable {variable} is not set")
        return found

    def _milliseconds(self, text: str) -> int:
        if not text.isdigit() or int(text) == 0:
            self._refuse(f"timeout_ms={text!r} is not a number above 0")
        return int(text)

    def _tls(self, scheme: str, ca_file: str | None) -> dict[str, Any]:
        if scheme != "rediss":
            if ca_file is not None:
                self._refuse("ca_file is for rediss://")
            return {}
        if ca_file is not None and not Path(ca_file).is_file():
            self._refuse(f"there is no file {ca_file}")
        return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(f"{self._where}: {what}", param=self._where)


class RedisStore:
    """Holds at most *max_bytes* of keys and values under *prefix*; Redis' own overhead comes on top.

    Sizes are counted over all replicas, and time is the replicas' own: their clocks should agree. A call waits for
    *timeout_s* at most until one of its connections is free, and as long for the answer.
    """

    shared = True

    def __init__(
        self, client: Redis, clock: Clock, *, name: str, prefix: str = "negawatt:", max_bytes: int = 2**30,
        timeout_s: float = 0.25,
    ) -> None:  # fmt: skip
        self._client = client
        self._clock = clock
        self._name = name
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._down_until = 0.0
        self._why = ""
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._scripts: dict[str, Any] = {}

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self.run(redis_scripts.GET, key)
        return value

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl_s: float,
        tags: tuple[str, ...] = (),
        group: str = "",
        group_max_bytes: int | None = None,
    ) -> None:
        """As every store does; of a store far above its bounds, which were lowered, each put takes away a part only.

        Where that is not enough, the new entry is not kept.
        """
        most = -1 if group_max_bytes is None else group_max_bytes
        await self.run(
            redis_scripts.PUT, key, value, _ms(ttl_s), redis_scripts.GRACE_MS, group, most, self._max_bytes,
            redis_scripts.MOST_SWEPT, redis_scripts.MOST_DROPPED, *dict.fromkeys(tags),
        )  # fmt: skip

    async def delete(self, key: str) -> bool:
        return bool(await self.run(redis_scripts.DELETE, key))

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        """As every store does, but in batches, so that others are served in between.

        What is put meanwhile may stay; after a `StoreError` a part is deleted.
        """
        if not tags:
            return 0
        wanted = tuple(dict.fromkeys(tags))
        count, start = 0, b"-"
        while True:
            found = await self.run(redis_scripts.DELETE_TAGGED, int(dry_run), start, _BATCH, *wanted)
            count += int(found[0])
            if len(found) == 1:
                return count
            start = b"(" + found[1]

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        token = uuid.uuid4().hex
        taken = await self.run(redis_scripts.CLAIM, key, token, _ms(ttl_s), redis_scripts.GRACE_MS)
        return token if taken else None

    async def release(self, key: str, token: str) -> None:
        await self.run(redis_scripts.RELEASE, key, token)

    async def stats(self) -> StoreStats:
        """What the store was told to keep and has not taken away; what Redis evicted by itself counts until then."""
        entries, size = await self.run(redis_scripts.STATS)
        return StoreStats(int(entries), int(size))

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def run(self, script: str, *arguments: Any) -> Any:
        """Return what *script* (Lua) gives; its first arguments are the prefix and the time in milliseconds.

        Raises `StoreError`.
        """
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script)
        now = int(self._clock.time() * 1000)
        return await self._guarded(lambda: self._scripts[script](args=(self._prefix, now, *arguments)))

    async def _guarded(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *ask* gives, within the timeout; whatever goes wrong is a `StoreError`."""
        from redis.exceptions import ConnectionError, RedisError
        from redis.exceptions import TimeoutError as RedisTimeoutError

        await self._slot()
        # Nobody's hang-up reaches into the client, which would lose a connection over it: it has its own timeouts.
        task = asyncio.ensure_future(ask())
        self._under_way.add(task)
        task.add_done_callback(self._over)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(task)
        except (ConnectionError, RedisTimeoutError, OSError, TimeoutError) as error:
            said = str(error) or f"no answer within {self._timeout_s * 1000:.0f} ms"
            self._down_until, self._why = asyncio.get_running_loop().time() + _COOLDOWN_S, said
            raise StoreError(f"redis at {self._name} failed: {said}") from error
        except RedisError as error:  # it answers, so there is no need to leave it alone
            raise StoreError(f"redis at {self._name} refused: {error or type(error).__name__}") from error

    async def _slot(self) -> None:
        """Wait until a connection is free. Raises `StoreError`."""
        self._refuse_while_down()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise StoreError(f"redis at {self._name} is busy: all {_CONNECTIONS} connections are in use") from error
        try:
            self._refuse_while_down()
        except StoreError:
            self._free.release()
            raise

    def _refuse_while_down(self) -> None:
        if asyncio.get_running_loop().time() < self._down_until:
            raise StoreError(f"redis at {self._name} failed a moment ago: {self._why}")

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        self._free.release()
        if not task.cancelled():
            task.exception()  # whoever gave up waiting for it has had an error of their own


def _ms(seconds: float) -> int:
    return max(1, int(min(seconds * 1000, _LONGEST_MS)))
