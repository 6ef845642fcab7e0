"""Answers of the dashboard's API as docs/dashboard_api.md describes them, for pages that no small ledger can fill.

What is drawn of a real ledger is tested against a real gateway; here are the states that are rare: nothing, one row,
more than there is, less than a cent, unknown, names in every script.
"""

from __future__ import annotations

import math
from typing import Any

NOW = 1_795_776_000.0  # 27 Nov 2026
DAY = 86_400.0
LONG = "anthropic.claude-3-5-sonnet-20241022-v2:0-eu-west-1-provisioned-throughput-of-the-support-desk-with-a-long-name"
NAMES = ["support", "دعم العملاء", "🧾 invoices and everything about money", "תמיכה טכנית", "code review", "検索", LONG]
NOTHING: dict[str, None] = {"mean": None, "low": None, "high": None}

Json = dict[str, Any]


def around(mean: float | None, share: float = 0.08) -> Json:
    """An interval around *mean*."""
    return dict(NOTHING) if mean is None else {"mean": mean, "low": mean * (1 - share), "high": mean * (1 + share)}


def energy(wh: float | None) -> list[float | None]:
    return [None] * 3 if wh is None else [wh * 0.38, wh, wh * 2.9]


def latency(n: int, p50: float | None = 812.0) -> Json:
    known = p50 is not None and n > 0
    return {
        "n": n,
        "p50_ms": p50 if known else None,
        "p95_ms": p50 * 2.85 if known and n >= 60 else None,
        "p99_ms": p50 * 5.1 if known and n >= 300 else None,
    }


def period(days: int = 30) -> Json:
    since = NOW - (NOW % DAY) - (days - 1) * DAY
    return {
        "period": {
            "since": "2026-10-29T00:00:00+00:00",
            "until": "2026-11-28T00:00:00+00:00",
            "since_s": since,
            "until_s": since + days * DAY,
            "zone": "UTC",
            "bucket": "day",
            "now_s": NOW,
        },
        "rollup": {"complete": True, "progress": 1.0, "rows": 12_000, "behind": 0},
    }


def waves(n: int, top: float, turn: float = 0.0) -> list[float]:
    return [top * (0.55 + 0.3 * math.sin(i / 3.1 + turn) + 0.15 * math.cos(i * 1.7 + turn)) for i in range(n)]


def overview(*, money: float = 1.0, calls: int = 12_000, names: list[str] | None = None, tokens: float = 1.0) -> Json:
    """An overview whose amounts are *money* times, and whose tokens *tokens* times, the usual ones."""
    shown = names or ["support", "search", "code review", "default"]
    days = 30
    steps = [
        ("offload", 0.9, 0.0, 300),
        ("exact_cache", 25.0, 0.0, 3000),
        ("coalesce", 3.6, 0.4, 668),
        ("semantic_cache", 6.5, 1.5, 900),
        ("compress", 2.2, 2.2, 4100),
        ("structure", -0.4, 0.0, 410),
        ("route", 3.4, 0.0, 3900),
    ]
    baseline = 111.1 * money
    actual = baseline - sum(one[1] for one in steps) * money - 0.02 * money
    made = {
        "schema": "negawatt.overview/1",
        **period(),
        "tiles": {
            "calls": calls,
            "saved": {
                "cost_usd": around(41.2 * money),
                "cost_pct": around(37.1),
                "tokens": around(8_100_000 * tokens),
                "input_tokens": around(7_000_000 * tokens),
                "output_tokens": around(1_100_000 * tokens),
                "input_tokens_pct": around(35.0),
                "output_tokens_pct": around(30.0),
                "energy_wh": {**around(310.0 * tokens), "estimates": [118.0 * tokens, 310.0 * tokens, 899.0 * tokens]},
                "energy_pct": around(33.0),
                "unpriced": 12,
            },
            "holdout": {
                "requests": 130,
                "other_requests": calls - 130,
                "cost_per_call_usd": around(0.0071 * money),
                "other_cost_per_call_usd": around(0.0045 * money),
                "measured_saving_pct": around(36.6, 0.18),
                "estimated_saving_pct": around(37.1),
                "gap_points": {"mean": -0.5, "low": -7.0, "high": 6.0},
                "verdict": "agree",
            },
            "spend": {
                "period_usd": actual,
                "unpriced": 12,
                "today_usd": 2.31 * money,
                "month_usd": 61.0 * money,
                "period_baseline_usd": baseline,
                "energy_wh": energy(620.0 * tokens),
                "co2e_g": 290.0 * tokens,
                "input_tokens": int(13e6 * tokens),
                "output_tokens": int(2.6e6 * tokens),
                "cache_read_tokens": int(4.1e6 * tokens),
                "cache_write_tokens": 200_000,
                "reasoning_tokens": 300_000,
                "unknown_usage": 3,
                "forecast": {
                    "month_usd": around(68.4 * money, 0.07),
                    "month_ends_s": NOW + 3 * DAY,
                    "method": "spent so far, and for the rest of the month the pace of the last 28 days",
                    "days": 28,
                },
                "forecast_note": None,
                "budget": {
                    "name": "month",
                    "limit_usd": 100.0 * money,
                    "spent_usd": 61.0 * money,
                    "resets_s": NOW + 3 * DAY,
                },
            },
            "success": {
                "rate": around(0.871, 0.02),
                "cost_per_success_usd": around(0.0081 * money),
                "energy_per_success_wh": around(0.4),
                "latency_to_success_s": around(4.2),
                "tasks": 900,
                "judged": 700,
                "succeeded": 610,
            },
            "latency": latency(11_800),
            "ttft": latency(11_800, 240.0),
            "overhead": {"n": calls, "mean_ms": 0.4},
            "errors": {
                "rate": around(0.011, 0.2),
                "calls": 132,
                "endings": {"answered": 7000, "cached": 4200, "coalesced": 668, "refused": 20, "upstream_error": 112},
            },
            "uptime": {"started_s": NOW - 76_000.5, "uptime_s": 76_000.5, "problems": {}},
            "hits": {
                "rate": around(0.41, 0.02),
                "calls": 4868,
                "kinds": {
                    "exact": 3000,
                    "semantic": 900,
                    "coalesced": 668,
                    "offload": 300,
                    "miss": 7000,
                    "bypass": 132,
                },
            },
        },
        "waterfall": {
            "baseline_usd": baseline,
            "actual_usd": actual,
            "unattributed_usd": 0.02 * money,
            "energy_baseline_wh": 930.0 * tokens,
            "steps": [
                {
                    "lever": lever,
                    "hits": hits,
                    "unpriced_hits": 0,
                    "cost_usd": around(usd * money, 0.1),
                    "realised_usd": (usd - estimated) * money,
                    "estimated_usd": estimated * money,
                    "input_tokens": int(usd * 160_000 * tokens),
                    "output_tokens": int(usd * 28_000 * tokens),
                    "energy_wh": energy(usd * 7.6 * tokens),
                    "basis": {"measured": hits},
                }
                for lever, usd, estimated, hits in steps
            ],
            "shadow": [
                {
                    "lever": "prefix",
                    "hits": 900,
                    "unpriced_hits": 0,
                    "cost_usd": around(1.1 * money),
                    "realised_usd": 1.1 * money,
                    "estimated_usd": 0.0,
                    "input_tokens": 0,
                    "output_tokens": 0,
                    "energy_wh": energy(None),
                    "basis": {"measured": 900},
                }
            ],
        },
        "series": series(days, money, tokens, shown),
        "honesty": honesty(calls),
    }
    return made


def series(days: int, money: float, tokens: float, shown: list[str]) -> Json:
    first = NOW - (NOW % DAY) - (days - 1) * DAY
    models = ["gpt-4o-mini", "claude-3-5-haiku", LONG, None]
    return {
        "starts_s": [first + i * DAY for i in range(days)],
        "total": {
            "calls": [int(v) for v in waves(days, 520)],
            "errors": [int(v) for v in waves(days, 9, 2.0)],
            "cost_usd": waves(days, 3.1 * money),
            "baseline_usd": waves(days, 5.0 * money),
            "unpriced": [0] * days,
            "input_tokens": [int(v * tokens) for v in waves(days, 520_000, 1.0)],
            "output_tokens": [int(v * tokens) for v in waves(days, 110_000, 1.0)],
            "cache_read_tokens": [0] * days,
            "reasoning_tokens": [0] * days,
            "energy_wh": waves(days, 26.0, 0.4),
            "hits": [int(v) for v in waves(days, 210, 0.3)],
            "p50_ms": waves(days, 900.0),
            "p95_ms": [*waves(days - 1, 2600.0, 3.0), None],
        },
        "by_class": {
            "names": shown,
            "cost_usd": [waves(days, 1.6 * money / (i + 1), i) for i in range(len(shown))],
            "calls": [[int(v) for v in waves(days, 300 / (i + 1), i)] for i in range(len(shown))],
        },
        "by_model": {
            "names": models,
            "cost_usd": [
                waves(days, 1.9 * money, 1.0),
                waves(days, 0.8 * money, 2.0),
                waves(days, 0.3 * money, 4.0),
                [0.0] * (days - 1) + [None],
            ],
            "calls": [[10] * days for _ in models],
        },
    }


def honesty(calls: int) -> Json:
    return {
        "rows": calls,
        "unpriced": 12 if calls > 12 else 0,
        "unknown_usage": 3 if calls > 3 else 0,
        "unknown_energy": 12 if calls > 12 else 0,
        "prices": {
            "version": "genai-prices 0.2.3 (2026-11-01)",
            "sources": {"genai-prices": 11_000, "provider": 40} if calls else {},
        },
        "energy": {
            "version": "1",
            "bases": {"ML.ENERGY v3, H100, bf16": 11_000} if calls else {},
            "boundary": "facility",
        },
        "grid": {"zone": "WORLD", "year": 2024, "source": "Ember"},
        "holdout": {"share_configured": 0.01, "share_seen": 0.0108 if calls else None},
        "latency": {"relative_error": 0.05},
        "intervals": "95 %: jackknife over 32 groups of clusters of repeats; rates: Clopper-Pearson.",
        "simulated": {"modelled": 0, "recorded": 0},
        "versions": {"negawatt": "0.7.0"},
    }


def nothing_yet() -> Json:
    """The overview of an empty ledger."""
    made = overview(calls=0)
    made["honesty"]["rows"] = 0
    made["waterfall"] |= {"baseline_usd": None, "actual_usd": None, "steps": [], "shadow": []}
    return made


def alone(value: float) -> Json:
    """A figure that nothing bounds."""
    return {"mean": value, "low": None, "high": None}


def one_row() -> Json:
    """The overview of one call, without an interval to its name."""
    made = overview(calls=1)
    tiles = made["tiles"]
    tiles["saved"] = {
        "cost_usd": alone(0.0),
        "cost_pct": alone(0.0),
        "tokens": alone(0),
        "input_tokens": alone(0),
        "output_tokens": alone(0),
        "input_tokens_pct": alone(0.0),
        "output_tokens_pct": alone(0.0),
        "energy_wh": {**alone(0.0), "estimates": [0.0, 0.0, 0.0]},
        "energy_pct": alone(0.0),
        "unpriced": 0,
    }
    tiles["holdout"], tiles["success"] = None, None
    tiles["spend"] |= {
        "period_usd": 1.2e-6,
        "unpriced": 0,
        "today_usd": 1.2e-6,
        "month_usd": 1.2e-6,
        "period_baseline_usd": 1.2e-6,
        "energy_wh": energy(0.004),
        "co2e_g": 0.0017,
        "forecast": None,
        "forecast_note": "a forecast needs 3 days of calls",
        "budget": None,
    }
    tiles["latency"], tiles["ttft"] = latency(1), latency(1, None)
    tiles["errors"] = {"rate": {"mean": 0.0, "low": 0.0, "high": 0.975}, "calls": 0, "endings": {"answered": 1}}
    tiles["hits"] = {"rate": {"mean": 0.0, "low": 0.0, "high": 0.975}, "calls": 0, "kinds": {"miss": 1}}
    made["waterfall"] |= {
        "baseline_usd": 1.2e-6,
        "actual_usd": 1.2e-6,
        "unattributed_usd": 0.0,
        "steps": [],
        "shadow": [],
    }
    n = 30
    empty = [0] * (n - 1)
    made["series"]["total"] = {
        "calls": [*empty, 1],
        "errors": [0] * n,
        "cost_usd": [*empty, 1.2e-6],
        "baseline_usd": [*empty, 1.2e-6],
        "unpriced": [0] * n,
        "input_tokens": [*empty, 12],
        "output_tokens": [*empty, 2],
        "cache_read_tokens": [0] * n,
        "reasoning_tokens": [0] * n,
        "energy_wh": [*empty, 0.004],
        "hits": [0] * n,
        "p50_ms": [*[None] * (n - 1), 812.0],
        "p95_ms": [None] * n,
    }
    made["series"]["by_class"] = {"names": ["default"], "cost_usd": [[*empty, 1.2e-6]], "calls": [[*empty, 1]]}
    made["series"]["by_model"] = {"names": ["gpt-4o-mini"], "cost_usd": [[*empty, 1.2e-6]], "calls": [[*empty, 1]]}
    return made


def unknown() -> Json:
    """The overview of calls of which neither price nor usage nor energy is known."""
    made = overview(calls=40)
    tiles = made["tiles"]
    tiles["saved"] = {
        key: dict(NOTHING)
        for key in (
            "cost_usd",
            "cost_pct",
            "tokens",
            "input_tokens",
            "output_tokens",
            "input_tokens_pct",
            "output_tokens_pct",
            "energy_pct",
        )
    }
    tiles["saved"] |= {"energy_wh": {**NOTHING, "estimates": [None] * 3}, "unpriced": 40}
    tiles["holdout"] = {
        "requests": 3,
        "other_requests": 37,
        "cost_per_call_usd": dict(NOTHING),
        "other_cost_per_call_usd": dict(NOTHING),
        "measured_saving_pct": dict(NOTHING),
        "estimated_saving_pct": dict(NOTHING),
        "gap_points": dict(NOTHING),
        "verdict": "too few",
    }
    tiles["spend"] |= dict.fromkeys(
        ("period_usd", "today_usd", "month_usd", "period_baseline_usd", "co2e_g", "forecast", "budget")
    )
    tiles["spend"] |= {"energy_wh": energy(None), "unpriced": 40, "forecast_note": "no call of this month has a price"}
    tiles["success"], tiles["latency"], tiles["ttft"] = None, latency(40), latency(0)
    tiles["uptime"]["problems"] = {"store": "cache.sqlite is locked", "openai": "the circuit is open for 12 s"}
    made["waterfall"] |= {"baseline_usd": None, "actual_usd": None, "unattributed_usd": None, "steps": [], "shadow": []}
    total = made["series"]["total"]
    total |= {
        key: [None] * 30 for key in ("cost_usd", "baseline_usd", "energy_wh", "input_tokens", "output_tokens", "p95_ms")
    }
    made["series"]["by_class"] = {"names": ["default"], "cost_usd": [[None] * 30], "calls": [[1] * 30]}
    made["series"]["by_model"] = {"names": ["a-model-of-our-own"], "cost_usd": [[None] * 30], "calls": [[1] * 30]}
    made["rollup"] = {"complete": False, "progress": 0.43, "rows": 430_000, "behind": 570_000}
    return made


def one_class(name: str, i: int = 0) -> Json:
    calls = max(0, int(9000 / (i + 1)) - 3)
    return {
        "name": name,
        "configured": i % 3 != 2,
        "owner": "desk@example.com" if i % 3 == 0 else None,
        "quality_target": 0.95 if i % 2 == 0 else None,
        "risk": "low" if i % 2 == 0 else None,
        "latency_class": "interactive" if i % 2 == 0 else None,
        "policy": None,
        "slos": slos()[:2] if i == 0 else [],
        "calls": calls,
        "cost_usd": 50.0 / (i + 1),
        "baseline_usd": 90.0 / (i + 1),
        "saved_usd": 40.0 / (i + 1) * (-0.1 if i == 4 else 1),
        "saved_pct": -4.4 if i == 4 else 44.4,
        "unpriced": 3 if i == 1 else 0,
        "input_tokens": 9_000_000,
        "output_tokens": 1_800_000,
        "energy_wh": energy(500.0),
        "errors": 40,
        "error_rate": around(0.004, 0.3),
        "endings": {"answered": 5000},
        "hits": 4000,
        "hit_rate": 0.44,
        "latency": latency(calls),
        "ttft": latency(calls, 240.0),
        "success": {
            "rate": around(0.91, 0.02),
            "cost_per_success_usd": around(0.006),
            "energy_per_success_wh": around(0.4),
            "tasks": 90,
            "judged": 70,
            "succeeded": 61,
        }
        if i % 2 == 0
        else None,
        "levers": [{"lever": "exact_cache", "hits": 3000, "cost_usd": 21.0 / (i + 1)}],
    }


def classes(names: list[str] | None = None) -> Json:
    tenants = [("red", 9000, 50.0), ("blue", 2900, 19.0), (None, 100, 0.0)]
    return {
        "schema": "negawatt.classes/1",
        **period(),
        "classes": [
            one_class(name, i)
            for i, name in enumerate(
                names if names is not None else ["support", "search", "code review", "default", "batch summaries"]
            )
        ],
        "tenants": [
            {
                "name": name,
                "calls": calls,
                "cost_usd": usd,
                "baseline_usd": usd * 1.6,
                "saved_usd": usd * 0.6,
                "unpriced": 0,
            }
            for name, calls, usd in tenants
        ],
    }


def prompts() -> Json:
    def version(i: int, name: str, sizes: Json, growth: float | None) -> Json:
        total = sum(sizes.values())
        return {
            "version": name,
            "first_s": NOW - (20 - 6 * i) * DAY,
            "last_s": NOW - (14 - 6 * i) * DAY,
            "calls": 4000 - 900 * i,
            "cost_usd": 20.1,
            "input_tokens": 3_600_000,
            "tokens_per_call": total,
            "growth_pct": growth,
            "counted": 3990,
            "unpriced": 0,
            "cache_read_share": 0.31,
            "blocks": [
                {"name": block, "tokens_per_call": size, "calls": 3990, "share": size / total}
                for block, size in sizes.items()
            ],
        }

    first = {"instructions": 412.0, "context": 320.0, "examples": 140.0, "task": 28.0}
    return {
        "schema": "negawatt.prompts/1",
        **period(),
        "templates": [
            {
                "name": "support/answer",
                "versions": [
                    version(0, "3f9a2b1c", first, None),
                    version(1, "9c41d07e", {**first, "context": 331.0}, 1.2),
                    version(2, "b70f11aa", {**first, "examples": 290.0}, 16.5),
                ],
            },
            {
                "name": "support/summary",
                "versions": [version(0, "00aa12cd", {"instructions": 180.0, "conversation": 900.0}, None)],
            },
        ],
    }


def caches() -> Json:
    def cache(name: str, mode: str, calls: int | None, hits: int, usd: float) -> Json:
        return {
            "name": name,
            "mode": mode,
            "calls": calls,
            "hits": hits,
            "hit_rate": around(None if calls is None else hits / calls, 0.03),
            "stale": 12 if name == "exact_cache" else 0,
            "cost_usd": around(usd),
            "input_tokens": int(usd * 160_000),
            "output_tokens": int(usd * 28_000),
            "energy_wh": energy(usd * 7.6),
            "unpriced_hits": 0,
            "actions": {"hit": hits, "miss": 8000},
            "classes": [
                {"name": "support", "hits": hits - 40, "cost_usd": usd * 0.8},
                {"name": "search", "hits": 40, "cost_usd": usd * 0.2},
            ],
        }

    def learned(name: str, tier: str, wrong: Json, budget: float, threshold: float | None) -> Json:
        return {
            "class": name,
            "tier": tier,
            "budget": budget,
            "requests": 4000,
            "wrong_share": wrong,
            "served": 900,
            "explored": 120,
            "compared": 118,
            "human": 4,
            "waiting": 2,
            "threshold": threshold,
        }

    return {
        "schema": "negawatt.caches/1",
        **period(),
        "caches": [
            cache("exact_cache", "on", 11_000, 3000, 25.0),
            cache("item_cache", "on", 900, 210, 0.3),
            cache("coalesce", "on", None, 668, 3.6),
            cache("semantic_cache", "canary", 8000, 900, 6.5),
        ],
        "provider_prefix": {
            "input_tokens": 13_000_000,
            "cache_read_tokens": 4_100_000,
            "cache_write_tokens": 200_000,
            "read_share": 0.315,
        },
        "learned": [
            learned("support", "learned", {"mean": 0.004, "low": 0.001, "high": 0.009}, 0.01, 0.93),
            learned("search", "learned", {"mean": 0.012, "low": 0.004, "high": 0.026}, 0.02, 0.951),
            learned("code review", "prior", dict(NOTHING), 0.01, None),
        ],
        "learned_note": None,
        "review": {"waiting": 2, "command": "negawatt cache review"},
    }


def routing() -> Json:
    pairs = [
        ("support", "gpt-4o", "gpt-4o-mini", "openai", 4000, 9.0, 31.0),
        ("support", "gpt-4o", "gpt-4o", "openai", 700, 22.0, 22.0),
        ("search", "claude-3-5-sonnet", "claude-3-5-haiku", "anthropic", 1900, 6.1, 14.0),
        ("search", LONG, None, None, 40, 0.0, 0.4),
        ("default", "a-model-of-our-own", "a-model-of-our-own", "local", 90, None, None),
    ]
    curve = [
        ("gpt-4o-mini", 4000, 0.00225, 0.594),
        ("claude-3-5-haiku", 1900, 0.0032, 0.282),
        ("claude-3-5-sonnet", 40, 0.0118, 0.006),
        ("gpt-4o", 700, 0.0314, 0.104),
        ("a-model-of-our-own", 90, None, 0.013),
    ]
    decisions = [
        ("support", "route", "small", 3900),
        ("support", "exact_cache", "hit", 3000),
        ("search", "route", "small", 1860),
        ("support", "route", "escalated", 110),
        ("search", "compress", "history", 900),
    ]
    return {
        "schema": "negawatt.routing/1",
        **period(),
        "models": [
            {
                "class": c,
                "asked": a,
                "answered": b,
                "provider": p,
                "calls": n,
                "cost_usd": usd,
                "baseline_usd": base,
                "unpriced": 90 if usd is None else 0,
                "input_tokens": 4_000_000,
                "output_tokens": 700_000,
                "energy_wh": energy(60.0),
            }
            for c, a, b, p, n, usd, base in pairs
        ],
        "decisions": [
            {"class": c, "lever": lever, "mode": "on", "action": action, "calls": n}
            for c, lever, action, n in decisions
        ],
        "policies": [
            {
                "name": "careful",
                "candidates": ["gpt-4o-mini", "gpt-4o"],
                "reference": "gpt-4o",
                "quality": 0.95,
                "how": "cascade",
            }
        ],
        "curve": [
            {"model": m, "calls": n, "cost_per_call_usd": usd, "p50_ms": None, "share": share}
            for m, n, usd, share in curve
        ],
    }


def requests() -> Json:
    rows = []
    for i in range(24):
        cached = i % 3 == 1
        failed = i % 11 == 7
        rows.append(
            {
                "id": f"nw-65f0{i:04x}",
                "received_s": NOW - 37.0 * i,
                "class": NAMES[i % 7] if i % 4 == 3 else "support",
                "tenant": "default" if i % 5 else "red",
                "user": None,
                "task": f"t-{i}",
                "session": None,
                "operation": "chat",
                "protocol": ("chat", "messages", "responses")[i % 3],
                "stream": i % 2 == 0,
                "asked": "gpt-4o" if i % 4 else LONG,
                "model": None if cached else "gpt-4o-mini",
                "provider": None if cached else "openai",
                "ending": "upstream_error" if failed else "cached" if cached else "answered",
                "status": 502 if failed else 200,
                "error_type": "upstream_error" if failed else None,
                "cache": "exact" if cached else "miss",
                "holdout": i == 5,
                "template": None,
                "attempts": 0 if cached else 1,
                "input_tokens": 0 if cached else 900 + i,
                "output_tokens": 0 if cached else 120,
                "cost_usd": 0.0 if cached else None if i % 8 == 3 else 0.000412,
                "baseline_usd": 0.006,
                "saved_usd": None if i % 8 == 3 else 0.0056,
                "energy_wh": 0.0 if cached else 0.05,
                "duration_ms": 1.2 if cached else 812.0,
                "ttft_ms": None if cached else 240.0,
                "levers": ["exact_cache"] if cached else ["route", "compress"],
            }
        )
    return {
        "schema": "negawatt.requests/1",
        "rows": rows,
        "next": "1795775999.25:nw-65e",
        "searched_until_s": NOW - 4000,
        "complete": True,
    }


def request() -> Json:
    row = {
        "id": "nw-65f00002",
        "received_at": NOW - 74.25,
        "ending": "answered",
        "status": 200,
        "error_type": None,
        "error_message": None,
        "tenant": "default",
        "user": None,
        "key_id": "desk",
        "class": "support",
        "task": "t-2",
        "session": None,
        "protocol": "chat",
        "operation": "chat",
        "model": "gpt-4o",
        "response_model": "gpt-4o-mini",
        "provider": "openai",
        "cache": "miss",
        "holdout": False,
        "cost_usd": "0.000412",
        "baseline_cost_usd": "0.006",
        "input_tokens": 900,
        "output_tokens": 120,
        "baseline_input_tokens": 1240,
        "baseline_output_tokens": 120,
        "energy_j": 180.0,
        "baseline_energy_j": 620.0,
        "duration_s": 0.812,
        "baseline_duration_s": 1.9,
        "price_source": "genai-prices",
        "decisions": [
            {"lever": "exact_cache", "action": "miss", "reason": None, "mode": "on", "saved": None},
            {
                "lever": "semantic_cache",
                "action": "abstained",
                "reason": "the nearest question is 0.81 alike, 0.93 is needed",
                "mode": "shadow",
                "saved": None,
            },
            {
                "lever": "compress",
                "action": "history",
                "reason": "three of nine turns do not bear on the question",
                "mode": "on",
                "saved": {"input_tokens": 340, "cost_pusd": 850_000_000, "basis": "estimated"},
            },
            {
                "lever": "route",
                "action": "small",
                "reason": "quality 0.97 of 0.95 asked",
                "mode": "on",
                "saved": {"cost_pusd": 4_700_000_000, "basis": "measured"},
            },
        ],
        "attempt_log": [
            {
                "provider": "openai",
                "model": "gpt-4o-mini",
                "status": 200,
                "error": None,
                "cost_pusd": 412_000_000,
                "started_s": 0.0009,
                "duration_s": 0.81,
            }
        ],
        "versions": {"prices": "0.2.3"},
    }
    body = {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "You answer questions about orders."},
            {"role": "user", "content": "Where is my order? <b>12</b>"},
        ],
    }
    answer = {"choices": [{"message": {"role": "assistant", "content": "It left our house on Tuesday."}}]}
    shaped = {
        "texts": [
            {
                "path": "messages/0/content",
                "id": "s-1",
                "text": "You answer questions about orders.   You answer\n\n\nquestions about orders.",
                "sent": "You answer questions about orders.",
            }
        ],
        "tools": None,
    }
    return {
        "schema": "negawatt.request/1",
        "row": row,
        "content": {"request": body, "response": answer},
        "content_note": None,
        "shaped": shaped,
        "shaped_note": None,
    }


def slos() -> list[Json]:
    return [
        {
            "name": "support: latency_p95",
            "class": "support",
            "owner": "desk@example.com",
            "objective": 0.95,
            "target": 2000.0,
            "unit": "ms",
            "value": None,
            "good": 11_500,
            "total": 11_800,
            "budget_left": 0.49,
            "message": "",
            "kind": "latency",
            "burn_rates": {"1h": 0.4, "6h": 0.2},
            "state": "ok",
            "since_s": NOW - 76_000,
        },
        {
            "name": "support-errors",
            "class": "support",
            "owner": "desk@example.com",
            "objective": 0.995,
            "kind": "errors",
            "burn_rates": {"1h": 14.6, "6h": 6.1},
            "state": "firing",
            "since_s": NOW - 900,
        },
        {
            "name": "search-success",
            "class": "search",
            "owner": None,
            "objective": 0.9,
            "kind": "success",
            "burn_rates": {"1h": None, "6h": None},
            "state": "unknown",
            "since_s": None,
        },
        {
            "name": "search: cost_per_success",
            "class": "search",
            "owner": None,
            "objective": None,
            "target": 0.01,
            "unit": "USD",
            "value": 0.0123,
            "good": None,
            "total": None,
            "budget_left": None,
            "message": "a success of class search costs $0.0123; $0.01 was promised",
            "kind": "cost per success",
            "burn_rates": {},
            "state": "breached",
            "since_s": None,
        },
    ]


def alerts() -> Json:
    rows = [
        {
            "name": "support-errors",
            "class": "support",
            "owner": "desk@example.com",
            "severity": "page",
            "state": "firing",
            "since_s": NOW - 900,
            "summary": "burns its budget of failures 14 times too fast",
        },
        {
            "name": "unpriced_model",
            "about": LONG,
            "class": None,
            "owner": None,
            "severity": "warning",
            "state": "resolved",
            "since_s": NOW - 9000,
            "until_s": NOW - 4000,
            "summary": f"no price is known of {LONG}",
        },
    ]
    return {"schema": "negawatt.alerts/1", "configured": True, "slos": slos(), "alerts": rows}


def budgets() -> Json:
    rows = [
        ("month", {}, "usd", 100.0, 61.0, 0.2, "month", "refuse"),
        ("team red", {"tenant": "red"}, "usd", 20.0, 17.3, 0.9, "week", "downgrade"),
        ("night batch", {"class": "batch summaries"}, "tokens", 5_000_000, 5_000_000, 0, "day", "queue"),
        ("green", {"model": LONG}, "joules", 3.6e6, 420_000.0, 0, "day", "refuse"),
        ("דואר", {"user": "משתמש"}, "usd", 1.0, None, None, "day", "refuse"),
    ]
    return {
        "schema": "negawatt.budgets/1",
        "configured": True,
        "budgets": [
            {
                "name": n,
                "covers": c,
                "unit": u,
                "limit": limit,
                "spent": spent,
                "reserved": held,
                "period": p,
                "resets_s": NOW + DAY,
                "policy": policy,
            }
            for n, c, u, limit, spent, held, p, policy in rows
        ],
    }


TICK: Json = {
    "at_s": NOW,
    "calls": 3,
    "errors": 0,
    "hits": 1,
    "cost_usd": 0.0009,
    "baseline_usd": 0.007,
    "unpriced": 0,
    "input_tokens": 2100,
    "output_tokens": 300,
    "energy_wh": 0.11,
    "baseline_energy_wh": 0.4,
    "in_flight": 2,
    "by_class": {"support": 3},
    "newest": [
        {
            "id": "nw-65f00002",
            "received_s": NOW - 1,
            "class": "support",
            "tenant": "default",
            "model": "gpt-4o-mini",
            "ending": "answered",
            "cache": "miss",
            "cost_usd": 0.0004,
            "duration_ms": 812.0,
        },
        {
            "id": "nw-65f00001",
            "received_s": NOW - 2,
            "class": "דواعم 🧾",
            "tenant": "default",
            "model": None,
            "ending": "cached",
            "cache": "exact",
            "cost_usd": 0.0,
            "duration_ms": 1.3,
        },
    ],
}


def usual() -> dict[str, Json]:
    """Answers by the path under /admin/api."""
    return {
        "session": {"open": True, "signed_in": True, "key_id": None, "expires_s": None},
        "overview": overview(),
        "classes": classes(),
        "prompts": prompts(),
        "caches": caches(),
        "routing": routing(),
        "requests": requests(),
        "requests/nw-65f00002": request(),
        "budgets": budgets(),
        "alerts": alerts(),
    }
