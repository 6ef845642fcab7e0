"""Bytes in Redis or Valkey: shared by replicas.

``redis://host:port/0?prefix=negawatt:&max_bytes=1GiB&timeout_ms=250&password_env=REDIS_PASSWORD``; ``rediss://`` for
TLS. A server that is slow or gone makes `StoreError`, at once for a second after each failure; when it is back, it is
used again. Needs one server, or a primary with replicas: scripts touch several keys, which a Redis Cluster does not
allow.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from negawatt.clock import Clock
from negawatt.errors import ConfigError, StoreError
from negawatt.stores import StoreStats, redis_scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

_T = TypeVar("_T")
_COOLDOWN_S = 1.0
_CONNECTIONS = 64
_OPTIONS = ("prefix", "max_bytes", "timeout_ms", "password_env")


def open_redis(url: Any, where: str, clock: Clock) -> RedisStore:
    """Open the store that *url* names; nothing is connected yet. Raises `ConfigError`."""
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
    except ImportError as error:
        raise ConfigError(f"{where}: redis needs its client: pip install 'negawatt[redis]'", param=where) from error
    parts = urlsplit(url.text)
    if parts.password:
        raise ConfigError(f"{where}: a password in the URL; name its variable: ?password_env=VARIABLE", param=where)
    query = dict(parse_qsl(parts.query))
    for name in query:
        if name not in _OPTIONS:
            raise ConfigError(f"{where}: there is no option {name!r}; known: {', '.join(_OPTIONS)}", param=where)
    password = None
    if "password_env" in query:
        password = os.environ.get(query["password_env"])
        if not password:
            raise ConfigError(f"{where}: the variable {query['password_env']} is not set", param=where)
    timeout = query.get("timeout_ms", "250")
    if not timeout.isdigit() or int(timeout) == 0:
        raise ConfigError(f"{where}: timeout_ms={timeout!r} is not a number above 0", param=where)
    seconds = int(timeout) / 1000
    try:
        pool = BlockingConnectionPool.from_url(
            urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")), password=password, timeout=seconds,
            max_connections=_CONNECTIONS, socket_timeout=seconds, socket_connect_timeout=seconds,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", param=where) from error
    name = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
    client = Redis(connection_pool=pool)
    return RedisStore(
        client, clock, name=name, prefix=query.get("prefix", "negawatt:"),
        max_bytes=url.bytes("max_bytes", 2**30, where), timeout_s=seconds,
    )  # fmt: skip


class RedisStore:
    """Holds at most *max_bytes* of keys and values under *prefix*; Redis' own overhead comes on top.

    Sizes are counted over all replicas, and time is the replicas' own: their clocks should agree.
    """

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
        self._scripts = {
            script: client.register_script(script)
            for script in (
                redis_scripts.GET, redis_scripts.PUT, redis_scripts.DELETE, redis_scripts.DELETE_TAGGED,
                redis_scripts.STATS, redis_scripts.RELEASE,
            )
        }  # fmt: skip

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self._run(redis_scripts.GET, self._prefix, key, self._now())
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
        most = -1 if group_max_bytes is None else group_max_bytes
        lines = "\n".join(tag.replace("\n", " ") for tag in tags)
        ttl = max(1, int(ttl_s * 1000))
        await self._run(
            redis_scripts.PUT, self._prefix, key, self._now(), value, ttl, lines, group, most, self._max_bytes
        )

    async def delete(self, key: str) -> bool:
        return bool(await self._run(redis_scripts.DELETE, self._prefix, key, self._now()))

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        if not tags:
            return 0
        names = [tag.replace("\n", " ") for tag in dict.fromkeys(tags)]
        return int(await self._run(redis_scripts.DELETE_TAGGED, self._prefix, self._now(), int(dry_run), *names))

    async def claim(self, key: str, *, ttl_s: float) -> str | None:
        token, ms = uuid.uuid4().hex, max(1, int(ttl_s * 1000))
        taken = await self._guarded(lambda: self._client.set(f"{self._prefix}c:{key}", token, nx=True, px=ms))
        return token if taken else None

    async def release(self, key: str, token: str) -> None:
        await self._run(redis_scripts.RELEASE, f"{self._prefix}c:{key}", token)

    async def stats(self) -> StoreStats:
        entries, size = await self._run(redis_scripts.STATS, self._prefix, self._now())
        return StoreStats(int(entries), int(size))

    async def close(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    def _now(self) -> int:
        return int(self._clock.time() * 1000)

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._guarded(lambda: self._scripts[script](args=arguments))

    async def _guarded(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *ask* gives, within the timeout; whatever goes wrong is a `StoreError`."""
        from redis.exceptions import RedisError

        now = asyncio.get_running_loop().time()
        if now < self._down_until:
            raise StoreError(f"redis at {self._name} failed a moment ago: {self._why}")
        try:
            async with asyncio.timeout(self._timeout_s * 2):
                return await ask()
        except (RedisError, OSError, TimeoutError) as error:
            self._why = str(error) or type(error).__name__
            self._down_until = now + _COOLDOWN_S
            raise StoreError(f"redis at {self._name} failed: {self._why}") from error
