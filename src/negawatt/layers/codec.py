"""Values of Python as bytes and back, kept only where they come back as they were."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from negawatt.layers.entry import Entry

log = logging.getLogger(__name__)
PLAIN = "application/msgpack"
TYPED = "application/msgpack; typed"  # only to be read as what the function says that it returns
_encode = msgspec.msgpack.Encoder().encode
_FAILURES = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Unreadable(Exception):
    """An entry is no value of the declared type: it was kept by another version of the code."""


class Codec:
    """Reads and writes the values of one function. *returns* is the type that it says it returns, `Any` for none."""

    def __init__(self, returns: Any) -> None:
        self._plain = msgspec.msgpack.Decoder()
        self._typed: msgspec.msgpack.Decoder[Any] | None = None
        if returns is not Any:
            try:
                self._typed = msgspec.msgpack.Decoder(returns)
            except _FAILURES as error:
                log.debug("values of the type %r are kept only where they are plain: %s", returns, error)

    def encode(self, value: Any) -> tuple[bytes, str] | None:
        """Return *value* as bytes, and the type of the bytes; None where it would not come back as it is."""
        try:
            data = _encode(value)
        except _FAILURES:
            return None
        for decoder, content_type in ((self._plain, PLAIN), (self._typed, TYPED)):
            if decoder is None:
                continue
            try:
                if _same(decoder.decode(data), value):
                    return data, content_type
            except _FAILURES:
                continue
        return None

    def decode(self, entry: Entry) -> Any:
        """Return the value in *entry*, a new one each time. Raises `Unreadable`."""
        decoder = {PLAIN: self._plain, TYPED: self._typed}.get(entry.content_type)
        if decoder is None:
            raise Unreadable(entry.content_type)
        try:
            return decoder.decode(entry.value)
        except _FAILURES as error:
            raise Unreadable(str(error)) from error


def _same(one: Any, other: Any) -> bool:
    """True when nobody can tell *one* from *other*: the same types all the way down, and equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        # In their order: it is part of what a caller sees.
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(_same(a, c) and _same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, msgspec.Struct) or hasattr(one, "__dataclass_fields__"):
        names = getattr(one, "__struct_fields__", None) or one.__dataclass_fields__
        return all(_same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)
