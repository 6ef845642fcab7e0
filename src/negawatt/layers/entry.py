"""One entry of a layer: what is stored of it, and how it is told from what does not belong there."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

BYTES = "application/octet-stream"
_PROTOCOL = "negawatt-layer/1"  # counts up when entries are stored in another way: the old ones are misses then
_HEAD_BYTES = 1024  # the most that an entry has beside its value

_encode = msgspec.msgpack.Encoder().encode


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry, as it is stored. *seal* binds all of it to its key and layer."""

    protocol: str
    seal: bytes
    stored_at: float  # seconds since 1970, UTC
    ttl_s: float
    content_type: str
    value: bytes


_decode = msgspec.msgpack.Decoder(Entry).decode


def sealed(key: str, layer: str, value: bytes, *, content_type: str, stored_at: float, ttl_s: float) -> Entry:
    """Return the entry that keeps *value* under *key*."""
    # Numbers come back as they are declared, and the seal is made of what comes back.
    fields = (float(stored_at), float(ttl_s), content_type, value)
    return Entry(_PROTOCOL, _seal(key, layer, *fields), *fields)


def encoded(entry: Entry) -> bytes:
    """Return *entry* as it is stored."""
    return _encode(entry)


def opened(raw: bytes, key: str, layer: str, max_bytes: int) -> Entry | None:
    """Return the entry in *raw*; None when it is none, is another key's or layer's, was changed, or is too large."""
    if len(raw) > max_bytes + _HEAD_BYTES:
        return None
    try:
        entry = _decode(raw)
    except msgspec.MsgspecError:
        return None
    if entry.protocol != _PROTOCOL or len(entry.value) > max_bytes:
        return None
    fields = (entry.stored_at, entry.ttl_s, entry.content_type, entry.value)
    return entry if entry.seal == _seal(key, layer, *fields) else None


def _seal(*fields: Any) -> bytes:
    return hashlib.blake2b(_encode((_PROTOCOL, *fields)), digest_size=16).digest()
