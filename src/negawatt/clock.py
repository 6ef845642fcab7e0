"""Time, as something that is handed in: the real one here, a virtual one in replay (`negawatt.proof.virtual`)."""

from __future__ import annotations

from time import perf_counter, time
from typing import Protocol


class Clock(Protocol):
    """Two readings of one flow of time, both in seconds."""

    def time(self) -> float:
        """Return the seconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    time = staticmethod(time)
    monotonic = staticmethod(perf_counter)
