"""The ledger: one row for each call, written off the request path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from negawatt.ledger.outcome import Content, Outcome


class Ledger(Protocol):
    """Keeps outcomes. *lost* counts the rows that had to be given up."""

    @property
    def lost(self) -> int: ...

    def append(self, outcome: Outcome, content: Content | None = None) -> None:
        """Take *outcome* and return at once; it is on disk within 100 ms."""
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
