"""What a handler is given, what it says, and how the first certain one is found.

A handler answers a request in code, and only when it has understood all of it: everything else is declined, with the
reason. A wrong answer costs more than a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

MOST_CHARACTERS = 20_000


class OffloadAsk(NamedTuple):
    """What was asked: *text* is all of it, with no turns, tools or contract beside it that could change the answer.

    *now*: the time at the caller, with its zone; None: not known. *region*: two letters, for telephone numbers.
    """

    text: str
    now: datetime | None = None
    region: str | None = None


class Answered(NamedTuple):
    """*text* is the whole answer; *value* what it says, where that is more than a text."""

    text: str
    value: Any = None


class Declined(NamedTuple):
    """Why a handler does not answer."""

    reason: str


class Handler(Protocol):
    """Answers in code. *name* is one word, which the configuration and the ledger use."""

    @property
    def name(self) -> str: ...

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined | None: ...


class Offloaded(NamedTuple):
    """The first certain answer and whose it is, both None where there is none; and why those before it declined."""

    answer: Answered | None
    handler: str | None
    declined: tuple[tuple[str, str], ...]


Function = Callable[[OffloadAsk], "Answered | Declined | Awaitable[Answered | Declined | None] | None"]


class _Made:
    """A handler made of a function."""

    def __init__(self, name: str, function: Function) -> None:
        self.name = name
        self._function = function

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined | None:
        found = self._function(ask)
        return await found if inspect.isawaitable(found) else found


def offload(name: str) -> Callable[[Function], Handler]:
    """Make a handler of a function of an `OffloadAsk`, plain or async."""
    return lambda function: _Made(name, function)


async def first_answer(handlers: Sequence[Handler], ask: OffloadAsk) -> Offloaded:
    """Ask *handlers* in order. One that raises, or says what is no answer, is passed by with the reason."""
    declined: list[tuple[str, str]] = []
    if len(ask.text) > MOST_CHARACTERS:
        return Offloaded(None, None, (("offload", f"it is longer than {MOST_CHARACTERS:,} characters"),))
    for handler in handlers:
        try:
            found = await handler(ask)
        except Exception as error:
            # Whatever a library or a plug-in raises over some text; the request goes on to its model.
            declined.append((handler.name, f"it failed: {type(error).__name__}: {error}"[:200]))
            continue
        if isinstance(found, Answered) and isinstance(found.text, str):
            return Offloaded(found, handler.name, tuple(declined))
        reason = found.reason if isinstance(found, Declined) else "it has no answer"
        declined.append((handler.name, reason if found is None or isinstance(found, Declined) else "it said no answer"))
    return Offloaded(None, None, tuple(declined))
