"""Keeping the rows of a replay as a ledger, so that the dashboard can show them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from negawatt.errors import InputError
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.proof.summary import ReplayRun

ARM = "all"


def refuse_existing(path: Path) -> None:
    """Raise `InputError` when there is something at *path*: invented rows must not get among real ones."""
    if path.exists():
        raise InputError(f"{path}: is there already; the rows of a replay are kept in a ledger of their own")


def keep_rows(run: ReplayRun, path: Path) -> int:
    """Write the rows of the arm with all levers into a new ledger at *path*; return how many. Raises `InputError`.

    Who answered them is named for what it is, recorded or modelled, so that every page says so; whom they were
    priced as stands in the rows' own log of attempts.
    """
    refuse_existing(path)
    rows = next((arm.outcomes for arm in run.arms if arm.name == ARM), None)
    if rows is None:
        raise InputError(f"arms: only the rows of the arm {ARM!r} are kept, and it was not run")
    ledger = SqliteLedger(path)
    try:
        for row in rows:
            ledger.append(row if row.provider is None else msgspec.structs.replace(row, provider=run.provider))
    finally:
        ledger.close()
    return len(rows)
