"""What somebody looks at, worked out beside the event loop where it is much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from typing import TypeVar

_T = TypeVar("_T")
_MANY = 1_000  # there may be one for each of many users


async def beside(things: Sized, work: Callable[[], _T]) -> _T:
    """Return what *work* gives, which takes longer the more *things* there are: in a thread where they are many."""
    return work() if len(things) < _MANY else await asyncio.to_thread(work)
