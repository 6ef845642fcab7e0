"""Outcomes in this process: for replay and for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

from negawatt.errors import InvalidRequest
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import Content, Outcome
from negawatt.ledger.words import taken


class MemoryLedger:
    """A list of outcomes, in the order in which the calls ended."""

    lost = 0

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.words: list[Feedback] = []
        self._contents: dict[str, Content] = {}

    def append(self, outcome: Outcome, content: Content | None = None) -> None:
        self.outcomes.append(outcome)
        if content is not None:
            self._contents[outcome.id] = content

    def record(self, word: Feedback) -> Future[bool]:
        found: Future[bool] = Future()
        under_key = None
        if word.idempotency_key is not None:
            wanted = (word.tenant, word.permissions, word.idempotency_key)
            under_key = self._newest(lambda one: (one.tenant, one.permissions, one.idempotency_key), wanted)
        try:
            new = not taken(word, under_key, self._newest(lambda one: one.subject, word.subject))
        except InvalidRequest as error:
            found.set_exception(error)
            return found
        if new:
            self.words.append(word)
        found.set_result(new)
        return found

    def _newest(self, of: Callable[[Feedback], object], wanted: object) -> Feedback | None:
        return next((one for one in reversed(self.words) if of(one) == wanted), None)

    def flush(self) -> None:
        """Nothing waits."""

    def rows(self, since: float = 0.0, until: float = float("inf")) -> Iterator[Outcome]:
        kept = [outcome for outcome in self.outcomes if since <= outcome.received_at < until]
        return iter(sorted(kept, key=lambda outcome: (outcome.received_at, outcome.id)))

    def content(self, call_id: str) -> Content | None:
        return self._contents.get(call_id)

    async def answered(self, response_id: str) -> Outcome | None:
        return next((one for one in reversed(self.outcomes) if one.response_id == response_id), None)

    def close(self) -> None:
        """Nothing is open."""
