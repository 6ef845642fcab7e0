"""A small made-up world for the report's tests: calls that repeat, and what two levers do with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from negawatt.ledger.outcome import Outcome
from negawatt.proof.summary import ArmRun, ReplayRun

START = 1_790_000_000.0
PUSD = 10**12
VERSIONS = {
    "prices": "genai-prices 0.2.3",
    "energy": "negawatt-energy 2026-11-23",
    "carbon": "negawatt-carbon 2026-11-23",
}
GRID = {"zone": "WORLD", "year": 2023, "source": "Ember and Our World in Data (CC BY)"}


def a_row(i: int = 0, **changes: Any) -> Outcome:
    """Return the row of an answered call of 100 input and 50 output tokens for 0.001 dollars and 3.6 J, in 1 s."""
    row: dict[str, Any] = {
        "id": f"call-{i}", "received_at": START + i, "tenant": "default", "user_id": None, "key_id": None,
        "request_class": "default", "task_id": None, "session_id": None, "operation": "chat",
        "protocol": "chat", "stream": False,
        "request_model": "gpt-4o-mini", "response_model": "gpt-4o-mini", "provider": "openai", "ending": "answered",
        "status": 200, "error_type": None, "error_message": None, "cache": "miss", "holdout": False,
        "fingerprint": f"prompt-{i}", "attempts": 1, "input_tokens": 100, "output_tokens": 50, "cache_read_tokens": 0,
        "cache_write_tokens": 0, "reasoning_tokens": 0, "usage_basis": "measured", "baseline_input_tokens": 100,
        "baseline_output_tokens": 50, "cost_pusd": PUSD // 1000, "baseline_cost_pusd": PUSD // 1000,
        "price_source": "genai-prices", "energy_low_j": 1.8, "energy_j": 3.6, "energy_high_j": 7.2,
        "baseline_energy_low_j": 1.8, "baseline_energy_j": 3.6, "baseline_energy_high_j": 7.2,
        "energy_basis": "estimated:class", "co2e_g": 0.0005, "duration_s": 1.0, "queue_s": 0.0, "upstream_s": 0.999,
        "overhead_s": 0.001, "time_to_first_chunk_s": 0.4, "baseline_duration_s": 1.0, "decisions": "[]",
        "attempt_log": "[]", "versions": json.dumps(VERSIONS),
    }  # fmt: skip
    return Outcome(**{**row, **changes})


def priced(i: int, cost_usd: float | None, output_tokens: int = 50, **changes: Any) -> Outcome:
    """Return an answered call of so many output tokens; energy and time go with them."""
    pusd = None if cost_usd is None else round(cost_usd * PUSD)
    joules = {"low": 0.4 * output_tokens, "": output_tokens * 1.0, "high": 2.5 * output_tokens}
    named = {
        f"{kind}energy_{bound + '_' if bound else ''}j": v for bound, v in joules.items() for kind in ("", "baseline_")
    }
    seconds = 0.6 + 0.02 * output_tokens
    fields: dict[str, Any] = {
        "cost_pusd": pusd, "baseline_cost_pusd": pusd, "output_tokens": output_tokens,
        "baseline_output_tokens": output_tokens, "duration_s": seconds, "baseline_duration_s": seconds,
        "upstream_s": seconds, "overhead_s": 0.0, **named,
        "co2e_g": output_tokens * 458 / 3.6e6,
    }  # fmt: skip
    return a_row(i, **{**fields, **changes})


def spared(row: Outcome, lever: str, *, waited_s: float = 0.0, **changes: Any) -> Outcome:
    """Return *row* as it is when *lever* (exact_cache or coalesce) spared it the whole call upstream."""
    saved = {
        "input_tokens": row.input_tokens, "output_tokens": row.output_tokens, "cost_pusd": row.cost_pusd,
        "energy_j": [row.energy_low_j, row.energy_j, row.energy_high_j], "upstream_s": row.upstream_s,
        "basis": "measured",
    }  # fmt: skip
    hit = {"lever": lever, "action": "hit" if lever == "exact_cache" else "shared", "saved": saved}
    decisions = [hit] if lever == "exact_cache" else [{"lever": "exact_cache", "action": "miss"}, hit]
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    fields |= {
        "ending": "cached" if lever == "exact_cache" else "coalesced",
        "cache": "exact" if lever == "exact_cache" else "coalesced", "provider": None, "attempts": 0,
        "input_tokens": 0, "output_tokens": 0, "cost_pusd": 0, "energy_low_j": 0.0, "energy_j": 0.0,
        "energy_high_j": 0.0, "co2e_g": 0.0, "duration_s": waited_s, "queue_s": waited_s, "upstream_s": 0.0,
        "decisions": json.dumps(decisions),
    }  # fmt: skip
    return Outcome(**{**fields, **changes})


def traffic(n: int, prompts: int, seed: int = 7, scale: float = 1.0) -> list[tuple[Outcome, bool]]:
    """Return *n* calls as they go without levers, and whether each succeeded; prompts repeat by a Zipf law."""
    rng = np.random.default_rng(seed)
    tokens = np.clip(rng.lognormal(4.6, 0.7, prompts), 5, 2000).astype(int)
    right = rng.random(prompts) < 0.85
    weights = 1 / np.arange(1, prompts + 1) ** 0.9
    drawn = rng.choice(prompts, size=n, p=weights / weights.sum())
    at = START + np.cumsum(rng.exponential(1.5, n))
    rows = []
    for i, prompt in enumerate(int(p) for p in drawn):
        cost = scale * (1e-4 + 1e-5 * float(tokens[prompt]))
        row = priced(i, cost, int(tokens[prompt]), received_at=float(at[i]), fingerprint=f"prompt-{prompt}")
        rows.append((row, bool(right[prompt])))
    return rows


def replayed(calls: Sequence[tuple[Outcome, bool]], levers: Sequence[str]) -> list[Outcome]:
    """Return *calls* as they go through *levers*: who asks again soon shares the answer, who asks later finds it."""
    asked: dict[str | None, Outcome] = {}
    rows = []
    for row, _ in calls:
        first = asked.setdefault(row.fingerprint, row)
        apart = row.received_at - first.received_at
        if row is not first and apart < first.duration_s and "coalesce" in levers:
            rows.append(spared(row, "coalesce", waited_s=first.duration_s - apart))
        elif row is not first and apart >= first.duration_s and "exact_cache" in levers:
            rows.append(spared(row, "exact_cache"))
        else:
            rows.append(row)
    return rows


def a_run(n: int = 200, prompts: int = 80, **changes: Any) -> ReplayRun:
    """Return a replay of *n* calls with no levers, with both, and without each."""
    calls = traffic(n, prompts, scale=changes.pop("scale", 1.0))
    names = {"none": (), "all": ("exact_cache", "coalesce"), "without_exact_cache": ("coalesce",),
             "without_coalesce": ("exact_cache",)}  # fmt: skip
    arms = [an_arm(name, replayed(calls, levers), [right for _, right in calls]) for name, levers in names.items()]
    fields: dict[str, Any] = {
        "title": "A support desk, replayed", "requests": n, "provider": "recorded", "arms": arms, "simulated": True,
        "workload": {"source": "sample", "n": n, "repeats": 0.6, "arrival": "poisson", "duration_s": 300.0},
        "notes": ["timings are modelled: 0.6 s + 0.02 s per output token"], "versions": VERSIONS, "grid": GRID,
        "date": "2026-11-23", "machine": "2 cores, x86-64, Linux", "seed": 1, "command": "negawatt replay sample",
    }  # fmt: skip
    return ReplayRun(**{**fields, **changes})


def an_arm(name: str, rows: Sequence[Outcome], success: Sequence[bool | None] | None = None) -> ArmRun:
    return ArmRun(
        name=name, outcomes=rows, success=[None] * len(rows) if success is None else success,
        clusters=[row.fingerprint or row.id for row in rows], upstream_calls=sum(row.attempts for row in rows),
    )  # fmt: skip


def a_comparison(
    none: Sequence[Outcome], every: Sequence[Outcome], success: Sequence[bool | None] | None = None, **changes: Any
) -> ReplayRun:
    """Return a replay of two arms."""
    arms = [an_arm("none", none, success), an_arm("all", every, success)]
    run = a_run(1, 1)
    return msgspec.structs.replace(run, arms=arms, requests=len(none), **changes)
