"""The texts that were shortened on their way to a model, as they were and as they went: of a call, and by their ids.

They lie in the same store as the answers, under keys of their tenant, permissions and user, with a lifetime. A text
that comes again and again, as in an agent's loop, lies there once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from negawatt.caller import Scope
from negawatt.keys import layer_key
from negawatt.stores import Store

LAYER = "originals"
TTL_S = 3600.0
MAX_BYTES = 64 * 1024 * 1024  # of the store, for all of them

Path = tuple[str | int, ...]


class Original(msgspec.Struct, frozen=True):
    """The text at *path* of a request: the SHA-256 of what the caller sent, and of what the model got."""

    path: Path
    id: str
    sent: str


class Shaping(msgspec.Struct, frozen=True):
    """What was shortened of one call. *tools*: its list of tools as it was, as JSON, where some were left out."""

    protocol: str
    texts: tuple[Original, ...]
    tools: bytes | None = None


class Restored(NamedTuple):
    """What a call's caller had sent: the texts by their paths, and the tools where some were left out.

    *sent*: what the model got in place of those texts, as far as it is still kept.
    """

    protocol: str
    texts: dict[Path, str]
    tools: list[Any] | None
    sent: dict[Path, str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Shaping).decode


class Originals:
    """Keeps and finds them in *store*. Every method raises `StoreError` where it fails."""

    def __init__(self, store: Store, *, ttl_s: float = TTL_S, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes

    async def keep(
        self, call_id: str, scope: Scope, shaping: Shaping, texts: Mapping[str, str], tags: Sequence[str]
    ) -> None:
        """Keep what was shortened of a call, and *texts* by their ids."""
        for name, text in texts.items():
            await self._put(_key(scope, name), text.encode("utf-8", "surrogatepass"), tags)
        await self._put(_key(scope, call_id), _encode(shaping), tags)

    async def text(self, name: str, scope: Scope) -> str | None:
        """Return the text of the id *name*; None where there is none, or it is another's."""
        value = await self._store.get(_key(scope, name))
        if value is None or hashlib.sha256(value).hexdigest() != name:
            return None
        return value.decode("utf-8", "surrogatepass")

    async def of_call(self, call_id: str, scope: Scope) -> Restored | None:
        """Return what was shortened of a call, as it was; None where that is not known, or not all there any more."""
        value = await self._store.get(_key(scope, call_id))
        if value is None:
            return None
        try:
            shaping = _decode(value)
            tools = None if shaping.tools is None else msgspec.json.decode(shaping.tools, type=list[Any])
        except msgspec.MsgspecError:
            return None
        texts: dict[Path, str] = {}
        sent: dict[Path, str] = {}
        for one in shaping.texts:
            text, after = await self.text(one.id, scope), await self.text(one.sent, scope)
            if text is None:
                return None
            texts[one.path] = text
            if after is not None:
                sent[one.path] = after
        return Restored(shaping.protocol, texts, tools, sent)

    async def _put(self, key: str, value: bytes, tags: Sequence[str]) -> None:
        await self._store.put(
            key, value, ttl_s=self._ttl_s, tags=tuple(tags), group=LAYER, group_max_bytes=self._max_bytes
        )


def whose(tenant: str, permissions: str, user: str | None) -> Scope:
    """Return the scope that originals are kept under: nobody else finds them, whatever versions a call was of."""
    return Scope(tenant=tenant, permissions=permissions, user=user)


def _key(scope: Scope, name: str) -> str:
    return layer_key(LAYER, scope, name.encode())
