"""Ledgers of any size, of made-up but varied rows: what a month at a busy desk would leave behind."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt.ledger import sql
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import SqliteLedger

_CLASSES = {"support": 0.4, "search": 0.2, "extract": 0.15, "summaries": 0.12, "code": 0.08, "default": 0.05}
_MODELS = {  # pico-dollars for a token in and out, joules for a token out
    "gpt-4o-mini": (150_000, 600_000, 0.3), "gpt-4o": (2_500_000, 10_000_000, 1.1),
    "claude-haiku-4-5": (1_000_000, 5_000_000, 0.5), "claude-sonnet-4-5": (3_000_000, 15_000_000, 1.4),
    "llama-3.3-70b-instruct-fp8-dynamic": (590_000, 790_000, 0.8),
}  # fmt: skip
_PROVIDERS = {"gpt": "openai", "cla": "anthropic", "lla": "vllm"}
_ENDINGS = ("answered",) * 96 + ("upstream_error", "refused", "cancelled", "deadline")
_VERSIONS = orjson.dumps({"prices": "genai-prices 0.2.3", "energy": "negawatt-energy 1", "carbon": "c 1"}).decode()
_PER_INSERT = 10_000


def write_ledger(path: Path, rows: int, *, until: float, days: float = 30.0, seed: int = 1) -> None:
    """Write *rows* rows that end at *until* (seconds since 1970) and span *days* into a new ledger at *path*."""
    SqliteLedger(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    made = outcomes(rows, until=until, days=days, seed=seed)
    while batch := [msgspec.structs.astuple(row) for row in itertools.islice(made, _PER_INSERT)]:
        connection.execute("BEGIN")
        connection.executemany(sql.insert(1), batch)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def outcomes(rows: int, *, until: float, days: float = 30.0, seed: int = 1) -> Iterator[Outcome]:
    """Give *rows* rows, oldest first."""
    rng = random.Random(seed)
    names, weights = list(_CLASSES), list(_CLASSES.values())
    step = days * 86_400 / max(rows, 1)
    for i in range(rows):
        at = until - days * 86_400 + (i + rng.random()) * step
        yield _row(f"nw-{int(at * 1e6):x}{rng.getrandbits(32):08x}", at, rng.choices(names, weights)[0], rng)


def _row(name: str, at: float, request_class: str, rng: random.Random) -> Outcome:
    asked = rng.choice(list(_MODELS)[: 2 + len(request_class) % 4])
    ending = rng.choice(_ENDINGS)
    draw, held = rng.random(), rng.random() < 0.01
    model = "gpt-4o-mini" if asked == "gpt-4o" and rng.random() < 0.6 and not held else asked
    cache = "miss" if held or ending != "answered" else "exact" if draw < 0.25 else "semantic" if draw < 0.32 else (
        "coalesced" if draw < 0.35 else "offload" if draw < 0.37 else "bypass" if draw < 0.45 else "miss")  # fmt: skip
    tokens = (int(rng.lognormvariate(6.5, 0.9)) + 20, int(rng.lognormvariate(5.0, 0.8)) + 1)
    instead, actual = _amounts(asked, *tokens), _amounts(model, *tokens)
    hit = cache in ("exact", "semantic", "coalesced", "offload")
    if ending in ("refused", "upstream_error"):
        tokens, instead, actual = (0, 0), (0, 0.0), (0, 0.0)
    unpriced = rng.random() < 0.002
    decisions = _decisions(cache, tokens, instead, actual, routed=model != asked and not hit)
    seconds = rng.uniform(0.0003, 0.004) if hit else rng.lognormvariate(0.1, 0.7)
    used = (0, 0) if hit else tokens
    cost, joules = (0, 0.002) if hit else actual
    template = request_class if request_class in ("support", "summaries") and rng.random() < 0.8 else None
    version = None if template is None else f"{template[:4]}{int(at) // 864_000 % 10}"
    blocks = None if template is None else orjson.dumps({"instructions": 400, "context": tokens[0] // 2}).decode()
    return Outcome(
        id=name, received_at=at, tenant=rng.choice(("red", "green", "blue", "default")),
        user_id=f"u{rng.randrange(400)}", key_id="k", request_class=request_class,
        task_id=f"t-{rng.randrange(10**6)}" if draw < 0.5 else None,
        session_id=None, operation="chat", protocol="chat", stream=draw > 0.5, request_model=asked,
        response_model=model, provider=None if hit else _PROVIDERS[model[:3]],
        ending=ending if ending != "answered" else "coalesced" if cache == "coalesced" else "cached" if hit else ending,
        status=200, error_type=None, error_message=None, cache=cache, holdout=held,
        fingerprint=f"{rng.getrandbits(20):064x}", attempts=0 if hit else 1, input_tokens=used[0],
        output_tokens=used[1], cache_read_tokens=used[0] // 3, cache_write_tokens=0, reasoning_tokens=0,
        usage_basis="measured", baseline_input_tokens=tokens[0], baseline_output_tokens=tokens[1],
        cost_pusd=None if unpriced else cost, baseline_cost_pusd=None if unpriced else instead[0],
        price_source=None if unpriced else "genai-prices", energy_low_j=joules * 0.4, energy_j=joules,
        energy_high_j=joules * 3, baseline_energy_low_j=instead[1] * 0.4, baseline_energy_j=instead[1],
        baseline_energy_high_j=instead[1] * 3, energy_basis="estimated:class", co2e_g=joules * 1.3e-4,
        duration_s=seconds, queue_s=0.0, upstream_s=0.0 if hit else seconds, overhead_s=0.0004,
        time_to_first_chunk_s=seconds * 0.3, baseline_duration_s=1.0, decisions=decisions,
        attempt_log="[]" if hit else _attempts(model, tokens, cost), versions=_VERSIONS, template=template,
        template_version=version, prompt_blocks=blocks,
    )  # fmt: skip


def _amounts(model: str, tokens_in: int, tokens_out: int) -> tuple[int, float]:
    """Return pico-dollars and joules."""
    of_input, of_output, joules = _MODELS[model]
    return of_input * tokens_in + of_output * tokens_out, joules * tokens_out + 0.01 * tokens_in


def _decisions(
    cache: str, tokens: tuple[int, int], instead: tuple[int, float], actual: tuple[int, float], *, routed: bool
) -> str:
    if cache == "bypass":
        return orjson.dumps([{"lever": "exact_cache", "action": "bypass", "reason": "sampled"}]).decode()
    lever = {"exact": "exact_cache", "semantic": "semantic_cache", "coalesced": "coalesce", "offload": "offload"}
    made: list[dict[str, Any]] = []
    if cache in lever:
        if cache in ("semantic", "coalesced"):
            made.append({"lever": "exact_cache", "action": "miss"})
        action = "shared" if cache == "coalesced" else "hit"
        made.append({"lever": lever[cache], "action": action, "saved": _saved(tokens, *instead, "measured"),
                     "detail": {"age_s": 12.5}})  # fmt: skip
    else:
        made.append({"lever": "exact_cache", "action": "miss"})
    if routed:
        cost, joules = instead[0] - actual[0], instead[1] - actual[1]
        made.append({"lever": "route", "action": "instead", "saved": _saved((0, 0), cost, joules, "estimated")})
    return orjson.dumps(made).decode()


def _saved(tokens: tuple[int, int], cost: int, joules: float, basis: str) -> dict[str, Any]:
    return {
        "input_tokens": tokens[0], "output_tokens": tokens[1], "cost_pusd": cost,
        "energy_j": [joules * 0.4, joules, joules * 3], "upstream_s": 1.0, "basis": basis,
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]}, "model": "m", "provider": "openai",
        "priced_as": "openai",
    }  # fmt: skip


def _attempts(model: str, tokens: tuple[int, int], cost: int) -> str:
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
    return orjson.dumps([{"provider": _PROVIDERS[model[:3]], "model": model, "status": 200, "error": None,
                          "billed": True, "usage": usage, "cost_pusd": cost, "started_s": 0.001,
                          "duration_s": 1.0}]).decode()  # fmt: skip
