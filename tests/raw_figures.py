"""Rows of a ledger of every kind, and what the dashboard has to say of them, worked out from the rows alone."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from report_world import PUSD, VERSIONS, a_row

from negawatt.ledger.outcome import ENDINGS, Outcome

AT_FAULT = {"upstream_error", "upstream_broken", "deadline", "failed"}
DELIVERED = {"answered", "cached", "coalesced"}
CACHES = ("miss", "bypass", "exact", "semantic", "coalesced", "offload")
LEVERS = ("offload", "exact_cache", "coalesce", "semantic_cache", "compress", "route")


def any_row(i: int, at: float, rng: random.Random) -> Outcome:
    """Return some row that came at *at*: anything may be unknown, savings may be losses."""

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    used, spared = rng.randrange(2000), rng.randrange(2000)
    cost, saved = rng.randrange(10**10), rng.randrange(-(10**9), 10**10)
    joules, more = rng.uniform(0, 50), rng.uniform(-5, 50)
    template = rng.choice((None, None, "support", "legal/terms"))
    return a_row(
        i,
        id=f"nw-{i:06x}{rng.getrandbits(32):08x}", received_at=at, tenant=rng.choice(("red", "blue", "default")),
        request_class=rng.choice(("default", "support", 'odd "name", ✓')),
        request_model=maybe(rng.choice(("big", "small"))),
        response_model=maybe(rng.choice(("big-1", "small-1"))), provider=maybe(rng.choice(("openai", "desk"))),
        ending=rng.choice((*ENDINGS, *["answered"] * 10)), cache=rng.choice(CACHES), holdout=rng.random() < 0.2,
        fingerprint=maybe(f"{rng.getrandbits(8):064x}"), input_tokens=maybe(used), output_tokens=maybe(used // 3),
        baseline_input_tokens=maybe(used + spared), baseline_output_tokens=maybe(used // 3 + spared // 3),
        cache_read_tokens=used // 5, reasoning_tokens=used // 9, cost_pusd=maybe(cost),
        baseline_cost_pusd=maybe(cost + saved), price_source=maybe("genai-prices"), energy_low_j=joules / 2,
        energy_j=maybe(joules), energy_high_j=joules * 3, baseline_energy_low_j=(joules + more) / 2,
        baseline_energy_j=maybe(joules + more), baseline_energy_high_j=(joules + more) * 3, co2e_g=maybe(joules / 9),
        energy_basis=maybe("estimated:class"), duration_s=rng.lognormvariate(0, 2),
        time_to_first_chunk_s=maybe(rng.lognormvariate(-1, 1)), decisions=json.dumps(_decisions(rng)),
        template=template, template_version=None if template is None else maybe(rng.choice(("v1", "v2"))),
        prompt_blocks=None if template is None else maybe(json.dumps({"head": used, "tail": spared})),
        versions=json.dumps({**VERSIONS, "prices": rng.choice(("one", "two"))}),
    )  # fmt: skip


def _decisions(rng: random.Random) -> list[dict[str, Any]]:
    made = []
    for lever in LEVERS:
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            decision: dict[str, Any] = {
                "lever": lever,
                "action": rng.choice(("hit", "miss", "stale", "trim", "explored")),
            }
            if rng.random() < 0.2:
                decision["mode"] = "shadow"
            if rng.random() < 0.5:
                joules = rng.uniform(0, 9)
                decision["saved"] = {
                    "input_tokens": rng.randrange(500), "output_tokens": rng.randrange(90),
                    "cost_pusd": None if rng.random() < 0.1 else rng.randrange(-(10**8), 10**9),
                    "energy_j": None if rng.random() < 0.1 else [joules / 2, joules, joules * 2],
                    "basis": rng.choice(("measured", "estimated")),
                }  # fmt: skip
            made.append(decision)
    return made


def within(rows: Iterable[Outcome], since: float, until: float) -> list[Outcome]:
    return [row for row in rows if since <= row.received_at < until]


def local_day(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).date().isoformat()


def total(rows: Sequence[Outcome], name: str, unit: float = 1.0) -> float | None:
    """Return the sum of what is known; None where there are rows and nothing is."""
    values = [getattr(row, name) for row in rows]
    known = [value for value in values if value is not None]
    return None if values and not known else math.fsum(known) / unit


def saved(rows: Sequence[Outcome], of: Callable[[Outcome], tuple[float | None, float | None]]) -> tuple[float, float]:
    """Return what was saved, and in percent: over the rows where both sides are known."""
    pairs = [of(row) for row in rows]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    before, after = math.fsum(b for _, b in known), math.fsum(a for a, _ in known)
    return before - after, 100 * (before - after) / before


def lever_cost(rows: Sequence[Outcome], lever: str) -> tuple[int, float, int]:
    """Return hits, dollars and hits without a price of *lever*, as a report counts them."""
    hits, pusd, unpriced = 0, 0, 0
    for row in rows:
        own = [d for d in json.loads(row.decisions) if d["lever"] == lever and d.get("mode", "on") != "shadow"]
        costs = [d["saved"]["cost_pusd"] for d in own if "saved" in d]
        if costs or any(d["action"] in ("hit", "stale", "partial") for d in own):
            hits += 1
            known = bool(costs) and None not in costs
            pusd += sum(costs) if known else 0
            unpriced += not known
    return hits, pusd / PUSD, unpriced


def tally(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names))


def nearest_rank(values: Sequence[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
