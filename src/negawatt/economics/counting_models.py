"""Which model counts by which tokenizer, and the tokenizers of OpenAI's models, from tables that ship with us.

Nothing is downloaded. A tokenizer is read when the first model asks for it: about half a second and 50 to 90 MB.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import threading
import zlib
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from negawatt.economics.tables import matches, plain_name, shipped

log = logging.getLogger(__name__)

Tokenize = Callable[[str], float]  # text to its number of tokens
_DATA = Path(__file__).parent / "data"
_MOST_NAMES = 4096
_UNUSABLE = (ImportError, OSError, EOFError, ValueError, zlib.error)


class _Encoding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file: str
    sha256: str  # of the unpacked file
    pattern: tuple[str, ...]


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models that count alike."""

    models: tuple[str, ...]
    encoding: str
    frame: Literal["published", "assumed"]
    source: str
    checked: date


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    encodings: dict[str, _Encoding]
    models: tuple[Family, ...]


class Encodings:
    """OpenAI's tokenizers. *background*: read each in a thread of its own when it is first asked for."""

    def __init__(self, *, background: bool = False) -> None:
        self._table = shipped("counting.toml", _Table)
        self._background = background
        self._families: dict[str, Family | None] = {}
        self._read: dict[str, Tokenize | None] = {}  # None: it cannot be had
        self._reading: dict[str, threading.Thread] = {}

    def family(self, model: str) -> Family | None:
        """Return the family of *model*, None where no tokenizer is known for it."""
        if model not in self._families:
            if len(self._families) >= _MOST_NAMES:  # callers choose names
                self._families.clear()
            name = plain_name(model)
            self._families[model] = next((row for row in self._table.models if matches(name, row.models)), None)
        return self._families[model]

    def tokenizer(self, encoding: str) -> Tokenize | None:
        """Return the tokenizer, or None: it cannot be had, or is still being read in the background."""
        if encoding in self._read:
            return self._read[encoding]
        if not self._background:
            self._load(encoding)
            return self._read[encoding]
        if encoding not in self._reading:
            thread = threading.Thread(target=self._load, args=(encoding,), name=f"negawatt-{encoding}", daemon=True)
            self._reading[encoding] = thread
            thread.start()
        return None

    def wait(self, timeout_s: float = 30.0) -> None:
        """Wait for what is being read in the background."""
        for thread in self._reading.values():
            thread.join(timeout_s)

    def _load(self, encoding: str) -> None:
        try:
            self._read[encoding] = _open(encoding, self._table.encodings[encoding])
        except _UNUSABLE as error:  # calls are counted without it then
            log.warning("the tokenizer %s cannot be used (%s); its models are estimated", encoding, error)
            self._read[encoding] = None


@cache  # several gateways in one process, such as the arms of a replay, share them
def _open(name: str, encoding: _Encoding) -> Tokenize:
    """Return the tokenizer *name*. Raises one of `_UNUSABLE` without tiktoken, or for a table that is damaged."""
    import tiktoken

    packed = gzip.decompress((_DATA / encoding.file).read_bytes())
    if hashlib.sha256(packed).hexdigest() != encoding.sha256:
        raise ValueError(f"{encoding.file} is not the table that it should be")
    lines = (line.partition(b" ") for line in packed.splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, _, rank in lines}
    pattern = "|".join(encoding.pattern)
    encode = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
    return lambda text: len(encode(text))
