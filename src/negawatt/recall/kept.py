"""An answer that is kept: what is stored of it, when it is worth storing, and when it may be given again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

import msgspec

from negawatt.call import Call, Saved, Target
from negawatt.economics.usage import Usage
from negawatt.protocol import Contract
from negawatt.reply import Reply


class Validator(Protocol):
    """Says why *answers* break *contract*; None when they keep it."""

    def __call__(self, contract: Contract, answers: Sequence[str]) -> str | None: ...


class Kept(msgspec.Struct, frozen=True):
    """A kept answer: whole, as its protocol has it."""

    protocol: str
    body: bytes
    stored_at: float
    model: str
    provider: str
    usage: Usage | None
    upstream_s: float | None
    seal: int = 0  # over the body: set when it was known to be a whole answer, so that it need not be parsed again

    @property
    def saved(self) -> Saved | None:
        """What giving this answer spares."""
        if self.usage is None:
            return None
        return Saved(
            usage=self.usage, model=self.model, provider=self.provider, upstream_s=self.upstream_s,
            basis=self.usage.basis,
        )  # fmt: skip


def kept(call: Call, reply: Reply, now: float) -> Kept:
    """Return *reply*, which has ended, as it is to be stored."""
    target, usage, upstream_s = origin_of(call, reply)
    return Kept(call.wire.name, reply.body, now, target.model, target.provider, usage, upstream_s, crc32(reply.body))


def not_to_be_kept(call: Call, reply: Reply, validate: Validator) -> str | None:
    """Return why the answer *reply* is not worth keeping; None when it is."""
    if not reply.finished or reply.error is not None:
        return "cut off"
    if reply.status != 200:
        return f"status {reply.status}"
    if reply.answered_by not in ("provider", "coalesce"):
        return "no provider's answer"
    target = origin_of(call, reply)[0]
    first = call.trail.chosen or call.targets[0]
    if (target.provider, target.model) != (first.provider, first.model):
        return "answered by a fallback"
    if not call.wire.complete(reply.data):
        return "not every choice came to its end"
    if not reply.faithful:
        return "it cannot be streamed again without loss"
    contract = call.contract
    return None if contract is None else validate(contract, call.wire.answers(reply.data))


def poisoned(call: Call, entry: Kept, max_bytes: int) -> str | None:
    """Return why *entry* may not be given to *call*, whatever put it there; None when it may."""
    if entry.protocol != call.wire.name:
        return f"the stored entry is an answer in {entry.protocol[:40]!r}"
    if len(entry.body) > max_bytes:
        return f"the stored entry is larger than {max_bytes} bytes"
    return None


def revived(call: Call, entry: Kept, lever: str) -> Reply | None:
    """Return *entry* as *lever*'s reply to *call*; None when it is not the answer that was kept."""
    if crc32(entry.body) != entry.seal:
        return None
    reply = Reply(call.wire, body=entry.body)
    reply.answered_by = lever
    return reply


def origin_of(call: Call, reply: Reply) -> tuple[Target, Usage | None, float | None]:
    """Return where *reply* came from, what it used there and how long that took."""
    attempt = call.trail.answerer
    if attempt is not None and attempt.error is None:
        spent = None if attempt.ended is None else attempt.ended - attempt.started
        return attempt.target, attempt.usage, spent
    shared = call.trail.decided("coalesce")
    if shared is not None and shared.saved is not None:
        saved = shared.saved
        return Target(saved.provider, saved.model, call.request.model), saved.usage, saved.upstream_s
    return call.targets[0], None, None
