"""How many tokens each surface has, and the lock file that remembers it.

Counted is what a surface says of itself: what is put into its holes is not there yet, and the few tokens that models
put around messages are not the surface's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt.checks.plan import Plan
from negawatt.checks.surfaces import Block, Surface
from negawatt.config import convert
from negawatt.economics.counting import TokenCounter
from negawatt.errors import ConfigError, InputError

VERSION = 1
_REMEDY = "negawatt check --update"


class LockedBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block: the digest of its content, and its tokens to each model."""

    sha256: str
    tokens: dict[str, int]


class Locked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A surface; *prefix* are the tokens before its first hole, which a provider may keep."""

    kind: str
    sha256: str
    tokens: dict[str, int]
    prefix: dict[str, int]
    blocks: dict[str, LockedBlock]


class LockedCassette(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recording: how many answers, the tokens of their requests as counted here, and of the answers as billed."""

    answers: int
    input_tokens: int
    output_tokens: int


class Lock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``tokens.lock.json``. *models*: how each was counted (`negawatt.economics.counting.BASES`)."""

    version: int
    models: dict[str, str]
    surfaces: dict[str, Locked]
    cassettes: dict[str, LockedCassette] = {}


class Measured(msgspec.Struct, frozen=True):
    """What is there now: the surfaces, and the lock that they make."""

    surfaces: Sequence[Surface]
    lock: Lock

    def of(self, surface: Surface) -> Locked:
        return self.lock.surfaces[surface.name]


def measure(plan: Plan, surfaces: Sequence[Surface], counter: TokenCounter | None = None) -> Measured:
    """Return *surfaces* with their tokens, each text counted once by every model of *plan*."""
    counter = TokenCounter(budget=None) if counter is None else counter
    models = plan.file.models
    bases: dict[str, str] = dict.fromkeys(models, "exact")
    known: dict[tuple[str, str], int] = {}

    def count(model: str, text: str) -> int:
        if (model, text) not in known:
            counted = counter.count_text(model, text)
            known[model, text] = counted.tokens
            bases[model] = counted.basis
        return known[model, text]

    found = {}
    for surface in surfaces:
        blocks = {
            block.name: LockedBlock(sha256=_digest(block), tokens={m: count(m, block.text) for m in models})
            for block in surface.blocks
        }
        before = prefix_of(surface)
        found[surface.name] = Locked(
            kind=surface.kind,
            sha256=hashlib.sha256(
                "".join(f"{name}\0{one.sha256}\0" for name, one in blocks.items()).encode()
            ).hexdigest(),
            tokens={m: sum(one.tokens[m] for one in blocks.values()) for m in models},
            prefix={m: sum(count(m, text) for text in before) for m in models},
            blocks=blocks,
        )
    return Measured(surfaces, Lock(version=VERSION, models=bases, surfaces=found))


def prefix_of(surface: Surface) -> list[str]:
    """Return the texts of *surface* up to its first hole."""
    texts: list[str] = []
    for block in surface.blocks:
        if block.holes:
            return [*texts, block.text[: block.holes[0].at]]
        texts.append(block.text)
    return texts


def _digest(block: Block) -> str:
    said = orjson.dumps([block.text, [[hole.at, hole.said] for hole in block.holes]])
    return hashlib.sha256(said).hexdigest()


def read_lock(path: Path) -> Lock | None:
    """Return the lock in *path*; None where there is none. Raises `InputError`."""
    try:
        data = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}; {_REMEDY} makes it anew") from error
    if isinstance(data, Mapping) and data.get("version") != VERSION:
        raise InputError(f"{path}: version: expected {VERSION}, got {data.get('version')!r}; {_REMEDY} makes it anew")
    try:
        return convert(data, Lock, str(path))
    except ConfigError as error:
        raise InputError(f"{error.message}; {_REMEDY} makes it anew", param=error.param) from error


def write_lock(path: Path, lock: Lock) -> bool:
    """Write *lock* to *path*, in an order that makes small differences small; False: it was so already."""
    made = orjson.dumps(_plain(lock), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    try:
        if path.is_file() and path.read_bytes() == made:
            return False
        path.write_bytes(made)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    return True


def _plain(lock: Lock) -> Any:
    return msgspec.to_builtins(lock)
