"""What each cache did, from the rows of the ledger: hits, what they saved, and how old the answers were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from negawatt.proof.figures import J_PER_WH, PUSD, Decided, Figures, Rows, Spared, spared_by
from negawatt.statistics import UNDEFINED, Bootstrap, column

CACHES = ("exact_cache", "item_cache", "coalesce", "semantic_cache")  # in pipeline order
_LOOKED = frozenset({"hit", "stale", "partial", "miss", "explored", "asked whole"})
_UNCOUNTED = frozenset({"coalesce"})  # it says nothing of a call that it forwards


def cache_figures(rows: Rows, boot: Bootstrap) -> dict[str, Figures]:
    """Return the figures of each cache over *rows*. What happened in shadow answered nobody, and counts for nothing.

    *calls* are those that a cache looked at, *hits* those that it answered, whole or in part; None is unknown. A total
    leaves out hits of which it is not known what they saved; *unpriced_hits* counts those without a known price.
    """
    return {name: _figures(name, rows, boot) for name in CACHES}


def _figures(name: str, rows: Rows, boot: Bootstrap) -> Figures:
    own = [[d for d in decided if d.lever == name and d.mode != "shadow"] for decided in rows.decided]
    hits = [spared_by(name, mine, o, shadow=False) for mine, o in zip(own, rows.outcomes, strict=True)]
    looked = [one is not None or any(d.action in _LOOKED for d in mine) for one, mine in zip(hits, own, strict=True)]
    known = [one for one in hits if one is not None]
    answered = [d for mine, one in zip(own, hits, strict=True) if one is not None for d in mine]
    counted = name not in _UNCOUNTED
    share = column(float(one is not None) if saw else None for one, saw in zip(hits, looked, strict=True))
    figures: Figures = {
        "calls": sum(looked) if counted else None,
        "hits": len(known),
        "hit_rate": boot.proportion(share) if counted and np.isfinite(share).any() else UNDEFINED,
        "stale": sum(d.action == "stale" for d in answered),
        "input_tokens": _total([one.input_tokens for one in known]),
        "output_tokens": _total([one.output_tokens for one in known]),
        "cost_usd": _total([one.cost_pusd for one in known], PUSD),
        "energy_wh": _energy(known),
        "unpriced_hits": sum(one.cost_pusd is None for one in known),
        "age_s": _ages(answered),
    }
    if name == "semantic_cache":
        figures["explored"] = sum(d.action == "explored" for mine in own for d in mine)
        figures["curated_hits"] = sum(d.detail is not None and d.detail.tier == "curated" for d in answered)
        figures["modelled_wrong"] = _total([d.detail.risk for d in answered if d.detail and d.detail.tier == "learned"])
    return figures


def _total(values: Sequence[float | None], unit: float = 1.0) -> float | None:
    """Return the sum of the known *values*, in *unit*; None where there are some and none is known."""
    known = [value for value in values if value is not None]
    return None if values and not known else sum(known) / unit if unit != 1.0 else sum(known)


def _energy(hits: Sequence[Spared]) -> list[float | None]:
    """Return the energy that was not used: low, central, high."""
    return [_total([None if h.energy_j is None else h.energy_j[i] for h in hits], J_PER_WH) for i in range(3)]


def _ages(decided: Sequence[Decided]) -> dict[str, Any]:
    """Return the median age of the answers that were given, and the 95th percentile, in seconds (nearest rank)."""
    ages = sorted(d.detail.age_s for d in decided if d.detail is not None and d.detail.age_s is not None)
    if not ages:
        return {"p50": None, "p95": None}
    return {f"p{q}": ages[max(0, math.ceil(q / 100 * len(ages)) - 1)] for q in (50, 95)}
