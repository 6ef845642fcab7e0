"""What a gateway needs to work, looked at: for probes, the metrics and the first screen."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from negawatt.config import Config
from negawatt.errors import StoreError

if TYPE_CHECKING:
    from negawatt.budgets.purse import Purse
    from negawatt.ledger import Ledger
    from negawatt.recalling import Recall
    from negawatt.stores import Store

_NO_KEY = "negawatt-ready"  # nothing is ever under it


async def checks(
    config: Config, store: Store, ledger: Ledger, recall: Recall | None, purse: Purse | None
) -> dict[str, str | None]:
    """Return what there is to look at, each with its problem or None. Cheap, for probes come often.

    Each is asked anew: what was found at the last call would stand for ever where a balancer sends no more calls.
    """
    found = {
        "providers": None if config.providers else "no provider is configured",
        "store": await _problem(store.get(_NO_KEY)),
    }
    if recall is not None:
        found["index"] = await _problem(recall.index.get(_NO_KEY))
    if purse is not None:
        found["budgets"] = await _problem(purse.check())
    lost = ledger.lost
    return {**found, "ledger": f"{lost} rows could not be written" if lost else None}


async def _problem(asked: Awaitable[Any]) -> str | None:
    try:
        await asked
    except StoreError as error:
        return error.message
    return None
