"""What pages say that no ledger knows: the tables in use, what is configured, and how the process is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """*levers*: in pipeline order. *kinds*: the kind of each provider. *success*: of tasks in the period, as JSON.

    *budget*: the one that covers everything, as JSON. *problems*: name of a part to what is wrong with it.
    *started_s*: since when the gateway serves; None: none does, the pages are of its ledger alone.
    """

    levers: Sequence[str] = ()
    kinds: Mapping[str, str] = {}
    holdout_share: float | None = None
    versions: Mapping[str, str] = {}
    grid: Mapping[str, Any] = {}
    boundary: str = "facility"
    started_s: float | None = None
    problems: Mapping[str, str] = {}
    success: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] | None = None
