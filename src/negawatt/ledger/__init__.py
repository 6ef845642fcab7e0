"""The ledger: one row for each call, written off the request path."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol

from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import Content, Outcome


class Ledger(Protocol):
    """Keeps outcomes. *lost* counts the rows that had to be given up."""

    @property
    def lost(self) -> int: ...

    def append(self, outcome: Outcome, content: Content | None = None) -> None:
        """Take *outcome* and return at once; it is on disk within 100 ms."""
        ...

    def record(self, word: Feedback) -> Future[bool]:
        """Take *word* and return at once; the result says, once it is on disk, whether it is a new one.

        It is not where the same was said before: under its key, or as the newest word about the same thing.
        Raises `RateLimited` when too many wait; the result raises `InvalidRequest` for a key of another word.
        """
        ...

    def flush(self) -> None:
        """Return when everything appended so far is kept."""
        ...

    def rows(self, since: float = 0.0, until: float = float("inf")) -> Iterator[Outcome]:
        """Give the outcomes received in [since, until), oldest first; times are seconds since 1970."""
        ...

    def content(self, call_id: str) -> Content | None: ...

    async def answered(self, response_id: str) -> Outcome | None:
        """Return the newest call that a provider answered with *response_id*, None if there is none."""
        ...

    def close(self) -> None: ...
