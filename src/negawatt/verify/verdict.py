"""What a verifier is given, and what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from negawatt.protocol import Contract


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, with all that there is to judge it by. Live there is no *expected*; in an evaluation there may be."""

    question: str  # what a person asked last
    answers: Sequence[str]  # the text of each choice; empty where it is a refusal or a tool call
    data: Mapping[str, Any]  # the whole answer, in the protocol of the caller
    context: str | None = None  # what the request supplies to answer from
    contract: Contract | None = None  # the JSON that was asked for
    class_contract: Contract | None = None  # and what answers of its class have to keep beside that
    expected: str | None = None
    others: Sequence[str] | None = None  # what other models, or further samples, answered; None: they were not asked
    ask: Ask | None = None  # asks a model on the books of the same call; None: nobody may be asked


Ask = Callable[[str, str], Awaitable[str]]
"""Asks a model (its name, a prompt) and returns the text of its answer. Raises `negawatt.errors.NegawattError`."""


def tagged(name: str, text: str) -> str:
    """Return *text* between tags, as material for a prompt: it cannot close its tag itself."""
    return f"<{name}>\n{text.replace(f'</{name}', f'< /{name}')}\n</{name}>"


class Verdict(NamedTuple):
    """*score* in 0..1, higher is better; where a verifier knows only yes and no, it is 1 or 0. *kind* says whose."""

    passed: bool
    score: float
    reason: str | None = None
    kind: str = ""


class Verifier(Protocol):
    """Judges an answer. What it cannot judge fails, with the reason; `judged` sees to it that it never raises."""

    @property
    def kind(self) -> str: ...

    async def __call__(self, case: Case) -> Verdict: ...
