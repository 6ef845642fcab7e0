"""Keeping the rows of a replay as a ledger, so that the dashboard can show them."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from negawatt.errors import InputError
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.proof.summary import ReplayRun

ARM = "all"
_DAY_S = 86_400


def refuse_existing(path: Path) -> None:
    """Raise `InputError` when there is something at *path*: invented rows must not get among real ones."""
    if path.exists():
        raise InputError(f"{path}: is there already; the rows of a replay are kept in a ledger of their own")


def keep_rows(run: ReplayRun, path: Path, now: float) -> int:
    """Write the rows of the arm with all levers into a new ledger at *path*; return how many. Raises `InputError`.

    A replay begins at midnight: where it ends after *now*, in seconds since 1970, all is put so many whole days earlier
    that no call is in the future. Who answered is named for what it is, recorded or modelled, so that every page says
    so; whom the rows were priced as stands in their own log of attempts.
    """
    refuse_existing(path)
    rows = next((arm.outcomes for arm in run.arms if arm.name == ARM), None)
    if rows is None:
        raise InputError(f"arms: only the rows of the arm {ARM!r} are kept, and it was not run")
    last = max((row.received_at + row.duration_s for row in rows), default=now)
    earlier_s = _DAY_S * max(0, math.ceil((last - now) / _DAY_S))
    ledger = SqliteLedger(path)
    try:
        for row in rows:
            provider = None if row.provider is None else run.provider
            at = row.received_at - earlier_s
            ledger.append(msgspec.structs.replace(row, provider=provider, received_at=at))
    finally:
        ledger.close()
    return len(rows)
