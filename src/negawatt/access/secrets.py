"""Secrets of keys: made here, shown once, and from then on known by their digest only.

    nwk_7m2k9x0q4d_<43 characters: 256 random bits><6 characters: CRC-32 of all before>

The first part says what it is, to people and to scanners of leaked secrets. The second, the *handle*, may be shown: it
tells one secret from another. The last six tell a mistyped secret from an unknown one, and say nothing about it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import NamedTuple

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HANDLE_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # none that is easily read as another
_BITS = 256
PATTERN = re.compile(r"nwk_(?P<handle>[0-9a-z]{10})_(?P<rest>[0-9A-Za-z]{49})")


class Secret(NamedTuple):
    """A new secret: its text, to be shown once; its handle, which may be shown; its digest, which is kept."""

    text: str
    handle: str
    digest: bytes


def new_secret() -> Secret:
    """Return a secret of 256 bits from the system's source of randomness."""
    handle = "".join(secrets.choice(_HANDLE_DIGITS) for _ in range(10))
    body = f"nwk_{handle}_{_written(secrets.randbits(_BITS), 43)}"
    text = body + _checksum(body)
    return Secret(text, handle, digest_of(text))


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of *text*.

    A slow hash would defend passwords, which can be guessed. Of 256 random bits nobody tries a part that counts,
    however fast each try is; and a slow hash at every call would be a way to stop the gateway.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def mistyped(text: str) -> bool:
    """True for what begins as one of our secrets and cannot be one: cut short, or with a wrong character."""
    if not text.startswith("nwk_"):
        return False
    return PATTERN.fullmatch(text) is None or _checksum(text[:-6]) != text[-6:]


def masked(text: str) -> str:
    """Return *text* with each secret in it reduced to its handle."""
    return PATTERN.sub(lambda found: f"nwk_{found['handle']}_...", text)


def _checksum(body: str) -> str:
    return _written(zlib.crc32(body.encode("utf-8", "surrogatepass")), 6)


def _written(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
