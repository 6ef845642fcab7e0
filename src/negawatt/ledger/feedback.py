"""What somebody says of a call, or of a task, after the fact."""

from __future__ import annotations

from typing import Literal

import msgspec

About = Literal["call", "task"]
MOST_WAITING = 10_000  # words for a disk that does not take them


class Feedback(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One word about one call or task. What it does not mention, stays as it was said before.

    It counts for what is of the same *tenant* and was asked with the same *permissions* (a digest). The call or the
    task may be of any age, or not be there yet.
    """

    at: float  # seconds since 1970, UTC
    tenant: str
    kind: About
    about: str  # id of the call, or name of the task
    permissions: str = ""
    success: bool | None = None
    score: float | None = None  # 0..1
    useful_tokens: int | None = None
    reason: str | None = None
    user_id: str | None = None
    key_id: str | None = None
    idempotency_key: str | None = None

    @property
    def words(self) -> tuple[object, ...]:
        """What it says, without when and by whom."""
        return (self.kind, self.about, self.success, self.score, self.useful_tokens, self.reason)

    @property
    def subject(self) -> tuple[str, str, str, str]:
        """What it speaks of: a later word about the same replaces it."""
        return (self.tenant, self.permissions, self.kind, self.about)
