"""What the dashboard shows is what the rows say: in any time zone, at month ends, when clocks change, at any time."""

from __future__ import annotations

import math
import random
import sqlite3
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_figures import (
    AT_FAULT,
    DELIVERED,
    LEVERS,
    any_row,
    lever_cost,
    local_day,
    nearest_rank,
    saved,
    tally,
    total,
    within,
)
from report_world import PUSD

from negawatt.ledger.outcome import Outcome
from negawatt.ledger.rollup_reader import Reader
from negawatt.ledger.rollups import RollupWriter
from negawatt.ledger.sqlite import SqliteLedger, opened
from negawatt.proof.summary import LedgerView, summarise_ledger
from negawatt.web import tables
from negawatt.web.facts import Facts
from negawatt.web.overview import overview
from negawatt.web.period import begins, period_of

ZONES = ("UTC", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns")
# Around these days something happens to the clocks, or a month or a year ends.
DAYS = (date(2026, 3, 8), date(2026, 4, 5), date(2026, 10, 4), date(2026, 11, 1), date(2026, 2, 28), date(2026, 12, 31))


class World:
    """A ledger, its roll-ups as far as they have been made, and the rows that went in."""

    def __init__(self, path: Path, now: float) -> None:
        SqliteLedger(path).close()
        self.path, self.now, self.rows = path, now, []
        self.connection = opened(path)
        self.writer = RollupWriter(self.connection, path, clock=lambda: self.now)
        self.writer._due()

    def write(self, rows: list[Outcome]) -> None:
        import msgspec

        from negawatt.ledger import sql

        self.connection.executemany(sql.insert(1), [msgspec.structs.astuple(row) for row in rows])
        self.rows += rows

    def close(self) -> None:
        self.connection.close()

    def overview(self, **query: str) -> dict:
        reader = Reader(self.path)
        try:
            with reader.snapshot() as snapshot:
                import msgspec

                return msgspec.to_builtins(overview(snapshot, period_of(query, self.now), Facts(levers=LEVERS)))
        finally:
            reader.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), zone=st.sampled_from(ZONES), day=st.sampled_from(DAYS))
def test_every_tile_is_what_the_rows_say(tmp_path_factory, seed, zone, day):
    """However far the roll-ups are: all made, some only by the quarter of an hour, some not at all."""
    rng = random.Random(seed)
    middle = begins(day, ZoneInfo(zone))
    world = World(tmp_path_factory.mktemp("agree") / "ledger.sqlite", middle + rng.uniform(-3, 3) * 86_400)
    try:
        rows = [any_row(i, middle + rng.gauss(0, 2) * 86_400, rng) for i in range(rng.choice((0, 1, 2, 40, 300)))]
        cut = rng.randrange(len(rows) + 1)
        world.write(rows[:cut])
        for _ in range(rng.choice((0, 1, 1000))):
            if not world.writer.step(rng.choice((1, 7, 100))):
                break
        world.write(rows[cut:])
        since = datetime.fromtimestamp(middle - rng.randrange(4) * 86_400, ZoneInfo(zone)).date()
        until = datetime.fromtimestamp(middle + rng.randrange(1, 5) * 86_400 + 43_200, ZoneInfo(zone)).date()
        _check(world, zone, since.isoformat(), until.isoformat())
    finally:
        world.close()


def _check(world: World, zone: str, since: str, until: str) -> None:
    shown = world.overview(zone=zone, since=since, until=until, bucket="day")
    assert shown["rollup"]["complete"] and shown["rollup"]["rows"] == len(world.rows)
    ends = [begins(date.fromisoformat(text), ZoneInfo(zone)) for text in (since, until)]
    rows, tiles = within(world.rows, *ends), shown["tiles"]
    assert tiles["calls"] == len(rows)
    spend, errors = tiles["spend"], tiles["errors"]
    _same(spend["period_usd"], total(rows, "cost_pusd", PUSD))
    _same(spend["period_baseline_usd"], total(rows, "baseline_cost_pusd", PUSD))
    assert spend["unpriced"] == sum(row.cost_pusd is None for row in rows)
    _same(spend["co2e_g"], total(rows, "co2e_g"))
    _same(spend["energy_wh"][1], total(rows, "energy_j", 3600))
    _same(spend["input_tokens"], total(rows, "input_tokens"))
    today = [row for row in world.rows if local_day(row.received_at, zone) == local_day(world.now, zone)]
    _same(spend["today_usd"], total(today, "cost_pusd", PUSD))
    month = [row for row in world.rows if local_day(row.received_at, zone)[:7] == local_day(world.now, zone)[:7]]
    _same(spend["month_usd"], total(month, "cost_pusd", PUSD))
    assert errors["calls"] == sum(row.ending in AT_FAULT for row in rows)
    assert errors["endings"] == tally(row.ending for row in rows)
    assert tiles["hits"]["kinds"] == tally(row.cache for row in rows)
    _check_savings(shown, rows)
    _check_times(tiles, rows)
    _check_series(shown["series"], rows, zone)


def _check_savings(shown: dict, rows: list[Outcome]) -> None:
    told = shown["tiles"]["saved"]
    for name, pct, actual, baseline, unit in (
        ("cost_usd", "cost_pct", "cost_pusd", "baseline_cost_pusd", PUSD),
        ("input_tokens", "input_tokens_pct", "input_tokens", "baseline_input_tokens", 1),
        ("output_tokens", "output_tokens_pct", "output_tokens", "baseline_output_tokens", 1),
        ("energy_wh", "energy_pct", "energy_j", "baseline_energy_j", 3600),
    ):
        pairs = [row for row in rows if getattr(row, actual) is not None and getattr(row, baseline) is not None]
        if not pairs:
            assert told[pct]["mean"] is None and told[name]["mean"] in (None, 0)
            continue
        amount, share = saved(pairs, lambda row, a=actual, b=baseline: (getattr(row, a), getattr(row, b)))
        _same(told[name]["mean"], amount / unit)
        _same(told[pct]["mean"], share)
    fall = shown["waterfall"]
    steps = {step["lever"]: step for step in fall["steps"]}
    for lever in LEVERS:
        hits, usd, unpriced = lever_cost(rows, lever)
        assert hits == (steps[lever]["hits"] if lever in steps else 0)
        if hits:
            assert steps[lever]["unpriced_hits"] == unpriced
            _same(steps[lever]["cost_usd"]["mean"], None if unpriced == hits else usd)
    if fall["baseline_usd"] is not None:
        explained = sum(step["cost_usd"]["mean"] or 0 for step in fall["steps"])
        _same(fall["baseline_usd"] - explained - fall["unattributed_usd"], fall["actual_usd"])


def _check_times(tiles: dict, rows: list[Outcome]) -> None:
    waits = [row.duration_s * 1e3 for row in rows if row.ending in DELIVERED]
    firsts = [row.time_to_first_chunk_s * 1e3 for row in rows if row.time_to_first_chunk_s is not None]
    for told, values in ((tiles["latency"], waits), (tiles["ttft"], firsts)):
        assert told["n"] == len(values)
        for name, share, least in (("p50_ms", 0.5, 1), ("p95_ms", 0.95, 60), ("p99_ms", 0.99, 300)):
            if len(values) < least:
                assert told[name] is None
            else:
                assert told[name] == pytest.approx(nearest_rank(values, share), rel=0.0489)


def _check_series(series: dict, rows: list[Outcome], zone: str) -> None:
    starts = series["starts_s"]
    for nth, start in enumerate(starts):
        own = [row for row in rows if local_day(row.received_at, zone) == local_day(start, zone)]
        assert series["total"]["calls"][nth] == len(own)
        _same(series["total"]["cost_usd"][nth], total(own, "cost_pusd", PUSD))
        for by, of in (("by_class", lambda row: row.request_class), ("by_model", lambda row: row.response_model)):
            for name, calls in zip(series[by]["names"], series[by]["calls"], strict=True):
                assert calls[nth] == sum(of(row) == name for row in own)


def _same(told: float | None, expected: float | None) -> None:
    if expected is None:
        assert told is None
    else:
        assert told is not None and math.isclose(told, expected, rel_tol=1e-9, abs_tol=1e-9)


def test_the_report_says_the_same(tmp_path):
    """Savings, holdout and levers have the figures of `negawatt report`; the intervals are of its size."""
    rng = random.Random(5)
    world = World(tmp_path / "ledger.sqlite", 1_790_600_000.0)
    world.write([any_row(i, 1_790_000_000.0 + i * 300, rng) for i in range(1500)])
    while world.writer.step():
        pass
    shown = world.overview(since="1789900000", until="1790600000")
    world.close()
    report = summarise_ledger(world.rows, LedgerView(title="", date=""))
    told, saved_by = shown["tiles"], report["savings"]
    assert told["calls"] == report["requests"]
    for name in ("cost_pct", "energy_pct", "input_tokens_pct", "output_tokens_pct"):
        assert told["saved"][name]["mean"] == pytest.approx(saved_by[name]["mean"])
        widths = [one["high"] - one["low"] for one in (told["saved"][name], saved_by[name])]
        assert widths[0] == pytest.approx(widths[1], rel=0.6)  # 32 groups: the spread itself is known to a quarter
    held = report["holdout"]
    for name in ("measured_saving_pct", "estimated_saving_pct", "cost_per_call_usd", "other_cost_per_call_usd"):
        assert told["holdout"][name]["mean"] == pytest.approx(held[name]["mean"])
    assert {name: told["holdout"][name] for name in ("requests", "other_requests", "verdict")} == {
        name: held[name] for name in ("requests", "other_requests", "verdict")
    }
    for step in shown["waterfall"]["steps"]:
        lever = report["levers"][step["lever"]]
        assert step["hits"] == lever["hits"] and step["unpriced_hits"] == lever["unpriced_hits"]
        assert step["cost_usd"]["mean"] == pytest.approx(lever["cost_usd"]["mean"])
        assert step["energy_wh"] == pytest.approx(lever["energy_wh"]["estimates"])
        assert step["basis"] == lever["bases"]
    assert {step["lever"] for step in shown["waterfall"]["steps"]} == set(report["levers"])
    assert {step["lever"] for step in shown["waterfall"]["shadow"]} == set(report["shadow_levers"])
    arm = report["arms"]["actual"]
    assert told["spend"]["period_usd"] == pytest.approx(arm["cost_usd"])
    assert told["spend"]["unpriced"] == arm["unpriced_requests"]
    assert told["errors"]["endings"] == arm["endings"]
    assert told["latency"]["p95_ms"] == pytest.approx(arm["p95_ms"], rel=0.0489)
    assert shown["honesty"]["prices"]["sources"] == arm["price_sources"]
    assert shown["honesty"]["energy"]["bases"] == arm["energy_bases"]


def test_the_other_pages_agree_too(tmp_path):
    """Classes, tenants, templates, caches and models, against SQL over the rows."""
    rng = random.Random(6)
    world = World(tmp_path / "ledger.sqlite", 1_790_600_000.0)
    world.write([any_row(i, 1_790_000_000.0 + i * 300, rng) for i in range(1000)])
    while world.writer.step():
        pass
    world.write([any_row(i, 1_790_000_000.0 + i * 300, rng) for i in range(1000, 1100)])
    period = period_of({"zone": "Asia/Kolkata", "since": "2026-09-20", "until": "2026-09-24"}, world.now)
    raw = sqlite3.connect(world.path)

    def sql(select: str) -> list[tuple]:
        text = f"SELECT {select.replace('WHERE', 'FROM outcome WHERE received_at >= ? AND received_at < ? AND')}"
        return raw.execute(text, (period.since_s, period.until_s)).fetchall()

    reader = Reader(world.path)
    about = tables.About(configured={"idle": {"owner": "me"}}, order=LEVERS, slos={}, success={})
    with reader.snapshot() as snapshot:
        classes = tables.classes(snapshot, period, about)
        prompts, caches = tables.prompts(snapshot, period), tables.caches(snapshot, period, modes={})
        routing = tables.routing(snapshot, period, policies=[])
    for name, calls, pusd, hits in sql(
        "request_class, count(*), sum(cost_pusd), sum(cache NOT IN ('miss', 'bypass')) WHERE true GROUP BY 1"
    ):
        [row] = [row for row in classes["classes"] if row["name"] == name]
        assert (row["calls"], row["hits"]) == (calls, hits)
        assert row["cost_usd"] == pytest.approx(pusd / PUSD)
    idle = classes["classes"][-1]
    assert (idle["name"], idle["owner"], idle["calls"], idle["hit_rate"]) == ("idle", "me", 0, None)
    assert {row["name"]: row["calls"] for row in classes["tenants"]} == dict(
        sql("tenant, count(*) WHERE true GROUP BY 1")
    )
    versions = {(t["name"], v["version"]): v for t in prompts["templates"] for v in t["versions"]}
    for name, version, calls, pusd in sql(
        "template, template_version, count(*), sum(cost_pusd) WHERE template IS NOT NULL GROUP BY 1, 2"
    ):
        assert versions[name, version]["calls"] == calls
        assert versions[name, version]["cost_usd"] == pytest.approx(pusd / PUSD)
    heads = sql(
        "avg(prompt_blocks ->> 'head'), count(*) WHERE prompt_blocks IS NOT NULL AND template = 'support' "
        "AND template_version = 'v1'"
    )
    [block] = [b for b in versions["support", "v1"]["blocks"] if b["name"] == "head"]
    assert (block["tokens_per_call"], block["calls"]) == (pytest.approx(heads[0][0]), heads[0][1])
    [exact] = [cache for cache in caches["caches"] if cache["name"] == "exact_cache"]
    assert exact["hits"] == lever_cost(within(world.rows, period.since_s, period.until_s), "exact_cache")[0]
    found = {(r["class"], r["asked"], r["answered"], r["provider"]): r["calls"] for r in routing["models"]}
    wanted = sql("request_class, request_model, response_model, provider, count(*) WHERE true GROUP BY 1, 2, 3, 4")
    assert found == {row[:4]: row[4] for row in wanted}
    world.close()
    raw.close()
    reader.close()
