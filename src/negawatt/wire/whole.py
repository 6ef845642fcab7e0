"""What the protocols have in common whose answers are never streamed, and are always the same for the same request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negawatt.call import Request
from negawatt.errors import body_of
from negawatt.protocol import Contract, Question
from negawatt.wire.common import continues_nothing, data_events, error_of, openai_error_event


class WholeFolder:
    """Holds the one chunk of an answer that has no parts."""

    def __init__(self) -> None:
        self.faithful = True
        self._whole: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        return self._whole is not None

    def add(self, data: dict[str, Any]) -> None:
        """Take *data* as the answer. A second one makes the result unfaithful."""
        if self._whole is not None:
            self.faithful = False
            return
        self._whole = data

    def result(self) -> dict[str, Any]:
        return dict(self._whole or {})


class Whole:
    """The part of a `negawatt.protocol.Wire` that is the same for all of them."""

    streams = False
    billed = True
    stateful = False
    end = b""
    continues = staticmethod(continues_nothing)
    error_body = staticmethod(body_of)
    error_event = staticmethod(openai_error_event)
    error_of = staticmethod(error_of)
    frame = staticmethod(data_events)

    def folder(self) -> WholeFolder:
        return WholeFolder()

    def unfold(self, whole: dict[str, Any]) -> list[dict[str, Any]]:
        """Return *whole* as the only chunk."""
        return [whole]

    def deterministic(self, request: Request) -> bool:
        """True: there is only one answer."""
        return True

    def sampled(self, request: Request) -> bool:
        return False

    def question(self, request: Request) -> Question | None:
        """Return None: nobody asks here in words of their own."""
        return None

    def contract(self, request: Request) -> Contract | None:
        return None

    def wants_usage(self, request: Request) -> bool:
        return False

    def with_usage(self, request: Request) -> Request:
        return request

    def with_effort(self, request: Request, effort: str) -> Request:
        """Return *request* itself: nobody thinks here."""
        return request

    def text_of(self, data: Mapping[str, Any]) -> str:
        """Return nothing: no model wrote this."""
        return ""

    def answers(self, data: Mapping[str, Any]) -> list[str]:
        return []

    def usage_only(self, data: Mapping[str, Any]) -> bool:
        return False

    def closing(self, data: Mapping[str, Any]) -> bool:
        return False

    def last(self, data: Mapping[str, Any]) -> bool:
        """True: there is only one chunk."""
        return True

    def annotated(self, data: Mapping[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "negawatt": note}
