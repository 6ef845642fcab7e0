"""The export: whatever the ledger holds, its sums are the ledger's, to the last digit."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_world import a_row
from worlds import Fake, answer, virtual, world

from negawatt.books import open_accounts
from negawatt.config import Config
from negawatt.economics.rates import Rate, flat, kinds
from negawatt.economics.usage import Usage
from negawatt.errors import InputError
from negawatt.exports.charges import COLUMNS, Row, charges_of, shares, spared_of
from negawatt.exports.exporting import FORMATS, Wanted, export
from negawatt.exports.focus import COLUMNS as FOCUS
from negawatt.exports.writing import output
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import SqliteLedger

PUSD = Decimal(10) ** 12
DAY = datetime(2026, 12, 31, tzinfo=UTC).timestamp()
ACCOUNTS = open_accounts(Config())


# -- taking a cost apart ---------------------------------------------------------------------------------------


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """A usage that keeps the laws of `negawatt.economics.usage`."""
    n = st.integers(0, 5000)
    fresh, read, write, made = draw(n), draw(n), draw(n), draw(n)
    cached_audio = draw(st.integers(0, read))
    cached_image = draw(st.integers(0, read - cached_audio))
    audio = draw(st.integers(0, fresh)) + cached_audio
    image = draw(st.integers(0, fresh - (audio - cached_audio))) + cached_image
    audio_made = draw(st.integers(0, made))
    return Usage(
        input_tokens=fresh + read + write, output_tokens=made, cache_read_tokens=read, cache_write_tokens=write,
        cache_write_1h_tokens=draw(st.integers(0, write)), reasoning_tokens=draw(st.integers(0, made)),
        audio_input_tokens=audio, image_input_tokens=image, audio_output_tokens=audio_made,
        image_output_tokens=draw(st.integers(0, made - audio_made)), cached_audio_tokens=cached_audio,
        cached_image_tokens=cached_image, web_searches=draw(st.integers(0, 3)), search_units=draw(st.integers(0, 3)),
    )  # fmt: skip


PRICES = st.decimals("0.00", "99.99", places=2)
OWN_PRICES = (
    "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "audio_input_tokens", "image_input_tokens",
    "reasoning_tokens", "audio_output_tokens", "image_output_tokens", "cached_audio_tokens", "cached_image_tokens",
    "web_searches", "search_units", "requests",
)  # fmt: skip
SHEETS = st.fixed_dictionaries(
    {"input_tokens": PRICES, "output_tokens": PRICES}, optional=dict.fromkeys(OWN_PRICES, PRICES)
).map(lambda prices: {name: flat(price) for name, price in prices.items()})  # fmt: skip


@given(usages(), SHEETS)
@settings(max_examples=300, deadline=None)
def test_the_leaves_of_a_usage_are_all_of_its_cost(usage, sheet):
    """Each token stands in one leaf, and the leaves sum to the cost exactly, whatever has a price of its own."""
    rate = Rate(sheet, source="override", provider=None, model="m")
    leaves = rate.leaves(usage)
    assert Decimal(sum(leaf.weight for leaf in leaves)).scaleb(-rate._scale) == rate.cost(usage)
    assert all(leaf.quantity > 0 for leaf in leaves)
    counted = Counter({leaf.kind: leaf.quantity for leaf in leaves})
    apart = ("web_search", "search_unit", "request")
    made = sum(n for kind, n in counted.items() if kind.startswith(("output", "reasoning")))
    assert made == usage.output_tokens
    assert sum(counted.values()) - made - sum(counted[kind] for kind in apart) == usage.input_tokens
    assert sum(n for kind, n in counted.items() if kind.startswith("cache_read")) == usage.cache_read_tokens
    assert sum(n for _, n in kinds(usage)) == usage.total_tokens + usage.web_searches + usage.search_units


def test_a_leaf_costs_what_its_price_says():
    """Fresh input, cache reads and writes of both lifetimes, output and reasoning, at a known price list."""
    prices = {"input_tokens": 10, "cache_read_tokens": 1, "cache_write_tokens": 12, "cache_write_1h_tokens": 20,
              "output_tokens": 40, "reasoning_tokens": 50, "requests": 1000}  # fmt: skip
    rate = Rate({name: flat(Decimal(price)) for name, price in prices.items()}, source="x", provider=None, model="m")
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=500, cache_write_tokens=200,
                  cache_write_1h_tokens=50, reasoning_tokens=30)  # fmt: skip
    unit = Decimal(10**6).scaleb(-rate._scale)
    assert {leaf.kind: (leaf.quantity, leaf.weight * unit) for leaf in rate.leaves(usage)} == {
        "input": (300, 3000), "cache_read": (500, 500), "cache_write": (150, 1800), "cache_write_1h": (50, 1000),
        "output": (70, 2800), "reasoning": (30, 1500), "request": (1, 1000),
    }  # fmt: skip


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**15), min_size=1, max_size=8))
def test_shares_sum_to_the_whole(total, weights):
    """What rounding leaves over goes to the largest, and to no other."""
    found = shares(total, weights)
    assert sum(found) == total
    largest = weights.index(max(weights))
    for i, (share, weight) in enumerate(zip(found, weights, strict=True)):
        if i != largest:
            assert share == (total * weight // sum(weights) if sum(weights) else 0)


# -- whole ledgers ---------------------------------------------------------------------------------------------


MODELS = st.sampled_from(["gpt-4o-mini", "claude-sonnet-4-5", "nobody-knows-it", "=cmd()", 'a "b",\nc'])


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """A row as odd as a ledger may hold: attempts without usage, costs that today's prices do not explain."""
    attempts, exact = [], Decimal(0)
    for _ in range(draw(st.integers(0, 3))):
        usage = draw(st.none() | usages())
        stated = draw(st.none() | st.decimals("0", "1", places=15))
        if usage is not None and stated is not None:
            usage = msgspec.structs.replace(usage, cost_usd=stated)
        model, billed = draw(MODELS), draw(st.booleans())
        amount = ACCOUNTS.amount_as("openai", model, usage, DAY).cost_usd
        cost = None if amount is None else round(amount.scaleb(12))
        cost = draw(st.sampled_from([cost, cost, cost, draw(st.integers(0, 10**10))]))
        exact = exact if cost is None or not billed else exact + cost
        attempts.append({
            "provider": draw(st.sampled_from(["openai", "other"])), "priced_as": "openai", "model": model,
            "billed": billed, "usage": usage, "cost_pusd": cost, "status": 200, "error": None,
        })  # fmt: skip
    cost = draw(st.sampled_from([None, int(exact), int(exact), int(exact) + draw(st.integers(-3, 3))]))
    decisions = [
        {
            "lever": draw(st.sampled_from(["exact_cache", "route"])), "action": "hit",
            "mode": draw(st.sampled_from(["on", "shadow"])),
            "saved": {"input_tokens": draw(st.none() | st.integers(0, 99)), "output_tokens": 5, "model": "gpt-4o-mini",
                      "provider": "openai", "cost_pusd": draw(st.none() | st.integers(-(10**9), 10**10)),
                      "basis": "measured"},
        }
        for _ in range(draw(st.integers(0, 2)))
    ]  # fmt: skip
    return a_row(
        draw(st.integers(0, 10**9)), received_at=DAY + draw(st.floats(-90_000, 90_000)),
        provider=draw(st.sampled_from([None, "openai"])), request_model=draw(MODELS), cost_pusd=cost,
        price_source=draw(st.sampled_from(["genai-prices", "override", None])), tenant=draw(st.sampled_from("ab")),
        key_id=draw(st.none() | st.sampled_from(["k1", "+k2"])), energy_j=draw(st.none() | st.floats(0, 1e6)),
        attempt_log=msgspec.json.encode(attempts).decode(), decisions=json.dumps(decisions),
    )  # fmt: skip


def ledger_of(path: Path, rows: Sequence[Outcome]) -> Path:
    """Write *rows* into the ledger at *path*."""
    ledger = SqliteLedger(path)
    for row in rows:
        ledger.append(row)
    ledger.close()
    return path


def exported(path: Path, form: str = "focus-csv", **more: Any) -> tuple[bytes, dict[str, Any]]:
    file = io.BytesIO()
    wanted = Wanted(path, more.pop("since", 0.0), more.pop("until", float("inf")), form, **more)
    return (found := export(wanted, ACCOUNTS, file)) and file.getvalue(), found


def lines_of(raw: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(raw.decode(), newline="")))


def summed(lines: list[dict[str, str]], column: str, **only: str) -> Decimal:
    rows = [row for row in lines if all(row[name] == value for name, value in only.items())]
    return sum((Decimal(row[column]) for row in rows if row[column]), Decimal(0))


@given(rows=st.lists(outcomes(), max_size=12, unique_by=lambda row: row.id), by=st.sampled_from(["hour", "day"]))
@settings(max_examples=60, deadline=None)
def test_the_sum_of_what_was_billed_is_the_ledgers(tmp_path_factory, rows, by):
    """Over all rows and over usage alone, to the last digit; what was spared is in credits; calls count once."""
    path = ledger_of(tmp_path_factory.mktemp("export") / "ledger.sqlite", rows)
    raw, found = exported(path, by=by)
    lines = lines_of(raw)
    cost = Decimal(sum(row.cost_pusd or 0 for row in rows)) / PUSD
    for column in ("BilledCost", "EffectiveCost", "ContractedCost"):
        assert summed(lines, column) == summed(lines, column, ChargeCategory="Usage") == cost
    unpriced = sum(row.cost_pusd is None for row in rows)
    spared = [one for row in rows for one in spared_of(row_of(row))]
    credit = Decimal(sum(one.pusd or 0 for one in spared)) / PUSD
    assert summed(lines, "BilledCost", ChargeCategory="Credit") == -credit
    assert summed(lines, "x_SavedCost") == credit
    assert summed(lines, "x_Calls") == len(rows)
    assert summed(lines, "x_UnpricedCalls") == unpriced
    assert found == {
        "calls": len(rows), "lines": len(lines), "billed_usd": plain(cost), "unpriced_calls": unpriced,
        "spared_usd": plain(credit), "spared_unpriced": sum(one.pusd is None for one in spared),
    }  # fmt: skip
    tokens = sum(usage["input_tokens"] + usage["output_tokens"] for row in rows
                 for one in json.loads(row.attempt_log) if one["billed"] and (usage := one["usage"]))  # fmt: skip
    assert summed(lines, "ConsumedQuantity", ConsumedUnit="Tokens") == tokens
    # 15 digits and more of a float are its own: the ledger's energies add up, but for the order of adding.
    joules = sum(row.energy_j or 0 for row in rows)
    assert float(summed(lines, "x_EnergyWh")) * 3600 == pytest.approx(joules, rel=1e-9)


def row_of(outcome: Outcome) -> Row:
    return Row(*(getattr(outcome, name) for name in COLUMNS))


def plain(usd: Decimal) -> str:
    return format(usd.normalize(), "f")


@given(outcomes())
@settings(max_examples=300, deadline=None)
def test_the_charges_of_each_call_sum_to_its_cost(row):
    """And one that has no price has none in any part."""
    charges = charges_of(row_of(row), ACCOUNTS)
    assert charges
    if row.cost_pusd is None:
        assert {charge.pusd for charge in charges} == {None}
    else:
        assert sum(charge.pusd for charge in charges) == row.cost_pusd


@virtual
async def test_what_a_real_call_cost_is_split_by_its_prices():
    """The rows of a gateway, through which a call went, are divided without a remainder."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
             "prompt_tokens_details": {"cached_tokens": 400},
             "completion_tokens_details": {"reasoning_tokens": 60}}  # fmt: skip
    provider = Fake()
    provider.script = [{**answer("hi"), "usage": usage}]
    async with world(provider) as w:
        await w.ask()
        (row,) = w.rows()
    charges = {one.kind: one for one in charges_of(row_of(row), ACCOUNTS)}
    per = {"input": "0.15", "cache_read": "0.075", "output": "0.60", "reasoning": "0.60"}  # USD per million tokens
    assert {kind: one.quantity for kind, one in charges.items()} == {
        "input": 600,
        "cache_read": 400,
        "output": 40,
        "reasoning": 60,
    }
    for kind, one in charges.items():
        assert one.split == "prices"
        assert one.pusd == int(Decimal(per[kind]) * one.quantity * 10**6)


def test_a_cost_that_todays_prices_do_not_explain_is_divided_in_their_proportion(tmp_path):
    """The sum stays; the column says how the parts were found. Without a price, all of it stays in one piece."""
    usage = Usage(input_tokens=1000, output_tokens=1000)
    attempt = {"provider": "openai", "priced_as": "openai", "model": "gpt-4o-mini", "billed": True, "usage": usage}
    rows = [
        a_row(1, cost_pusd=10**9 + 1, attempt_log=log({**attempt, "cost_pusd": 10**9 + 1})),
        a_row(2, cost_pusd=77, attempt_log=log({**attempt, "model": "nobody-knows-it", "cost_pusd": 77})),
    ]
    lines = lines_of(exported(ledger_of(tmp_path / "l.sqlite", rows))[0])
    found = {(row["x_Model"], row["x_TokenType"]): (row["BilledCost"], row["x_CostSplit"]) for row in lines}
    assert found == {
        ("gpt-4o-mini", "input"): ("0.0002", "proportion"), ("gpt-4o-mini", "output"): ("0.000800000001", "proportion"),
        ("nobody-knows-it", "tokens"): ("0.000000000077", "whole"),
    }  # fmt: skip


def log(*attempts: dict[str, Any]) -> str:
    return msgspec.json.encode(attempts).decode()


def test_a_saving_is_two_rows_that_cancel_each_other(tmp_path):
    """An adjustment, and a credit by the lever; one that cost more than it spared turns both signs; shadow has none."""

    def saved(cost: int | None, lever: str = "exact_cache", mode: str = "on") -> dict[str, Any]:
        return {"lever": lever, "action": "hit", "mode": mode, "saved": {
            "input_tokens": 10, "output_tokens": 5, "model": "m", "provider": "openai", "cost_pusd": cost,
            "basis": "measured"}}  # fmt: skip

    decisions = [saved(10**9), saved(-(10**8), "route"), saved(10**12, "cap", "shadow"), saved(None, "offload")]
    path = ledger_of(tmp_path / "l.sqlite", [a_row(1, cost_pusd=0, decisions=json.dumps(decisions))])
    raw, total = exported(path)
    lines = [row for row in lines_of(raw) if row["ChargeCategory"] != "Usage"]
    found = {(row["x_Lever"], row["ChargeCategory"]): row["BilledCost"] for row in lines}
    assert found == {
        ("exact_cache", "Adjustment"): "0.001", ("exact_cache", "Credit"): "-0.001",
        ("route", "Adjustment"): "-0.0001", ("route", "Credit"): "0.0001",
        ("offload", "Adjustment"): "", ("offload", "Credit"): "",
    }  # fmt: skip
    assert (total["spared_usd"], total["spared_unpriced"]) == ("0.0009", 1)
    without = lines_of(exported(path, savings=False)[0])
    assert {row["ChargeCategory"] for row in without} == {"Usage"}


def test_days_and_hours_are_of_utc_and_years_end(tmp_path, monkeypatch):
    """Whatever the zone of the machine: the last moment of a day and the first of the next are apart."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    moments = (DAY - 0.001, DAY, DAY + 86_399.999, DAY + 86_400)
    path = ledger_of(tmp_path / "l.sqlite", [a_row(n, received_at=at) for n, at in enumerate(moments)])
    lines = lines_of(exported(path)[0])
    assert [(row["ChargePeriodStart"], row["ChargePeriodEnd"], row["x_Calls"]) for row in lines] == [
        ("2026-12-30T00:00:00Z", "2026-12-31T00:00:00Z", "1"), ("2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z", "2"),
        ("2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z", "1"),
    ]  # fmt: skip
    assert [(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in lines[1:]] == [
        ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"), ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
    ]  # fmt: skip
    hours = lines_of(exported(path, by="hour")[0])
    assert hours[0]["ChargePeriodStart"] == "2026-12-30T23:00:00Z" and len(hours) == 4
    assert len(lines_of(exported(path, since=DAY, until=DAY + 86_400)[0])) == 1


@given(rows=st.lists(outcomes(), max_size=8, unique_by=lambda row: row.id))
@settings(max_examples=25, deadline=None)
def test_parquet_says_what_csv_says(tmp_path_factory, rows):
    """Cell by cell; money as decimals of twelve places, times in UTC."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = ledger_of(tmp_path_factory.mktemp("export") / "ledger.sqlite", rows)
    table = parquet.read_table(io.BytesIO(exported(path, "focus-parquet")[0]))
    lines = lines_of(exported(path)[0])
    assert table.column_names == list(FOCUS) and str(table.schema.field("BilledCost").type) == "decimal128(38, 12)"
    assert table.num_rows == len(lines)
    for own, line in zip(table.to_pylist(), lines, strict=True):
        for name, value in own.items():
            text = line[name]
            if value is None:
                assert text == ""
            elif isinstance(value, Decimal):
                assert Decimal(text) == value
            elif isinstance(value, datetime):
                assert datetime.fromisoformat(text) == value
            else:
                assert text.removeprefix("'") == str(value)


def test_a_spreadsheet_runs_nothing_that_callers_named(tmp_path):
    """A text that would begin a formula is quoted; a negative cost stays a number."""
    rows = [a_row(1, request_model='=HYPERLINK("x")', key_id="@sum", tenant="\N{FULLWIDTH EQUALS SIGN}1", cost_pusd=5)]
    line = lines_of(exported(ledger_of(tmp_path / "l.sqlite", rows))[0])[0]
    assert line["x_Model"] == '\'=HYPERLINK("x")' and line["ResourceId"] == "'@sum"
    assert line["SubAccountId"] == "'\N{FULLWIDTH EQUALS SIGN}1"


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_ledger_has_an_export(tmp_path, form):
    """A head, or an end, and nothing between."""
    raw, found = exported(ledger_of(tmp_path / "l.sqlite", []), form)
    assert (found["calls"], found["lines"]) == (0, 0)
    assert {"focus-csv": raw.count(b"\n") == 1, "jsonl": raw == b"", "openmetrics": raw.endswith(b"# EOF\n"),
            "focus-parquet": raw.startswith(b"PAR1")}[form]  # fmt: skip


# -- OpenMetrics -----------------------------------------------------------------------------------------------


def samples_of(raw: bytes) -> list[tuple[str, str, Decimal, int]]:
    found = []
    for line in raw.decode().splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels, _, numbers = rest.rpartition("} ")
            value, at = numbers.split(" ")
            found.append((name, labels, Decimal(value), int(at)))
    return found


@given(rows=st.lists(outcomes(), max_size=10, unique_by=lambda row: row.id))
@settings(max_examples=30, deadline=None)
def test_metrics_sum_to_the_ledger_and_keep_their_series_together(tmp_path_factory, rows):
    """Each series stands in one place, its times ascend, and nothing is there twice."""
    path = ledger_of(tmp_path_factory.mktemp("export") / "ledger.sqlite", rows)
    raw, _ = exported(path, "openmetrics", by="hour")
    samples = samples_of(raw)
    sums: Counter[str] = Counter()
    for name, _, value, _ in samples:
        sums[name] += value  # type: ignore[assignment]
    assert sums["negawatt_export_cost_usd"] == Decimal(sum(row.cost_pusd or 0 for row in rows)) / PUSD
    assert sums["negawatt_export_calls"] == len(rows)
    assert sums["negawatt_export_unpriced_calls"] == sum(row.cost_pusd is None for row in rows)
    places = [(name, labels) for name, labels, _, _ in samples]
    runs = [one for i, one in enumerate(places) if i == 0 or places[i - 1] != one]
    assert len(runs) == len(set(runs))
    assert len({(name, labels, at) for name, labels, _, at in samples}) == len(samples)
    assert all(a[3] < b[3] for a, b in itertools.pairwise(samples) if a[:2] == b[:2])
    assert raw.endswith(b"# EOF\n")


def test_searches_and_fees_are_no_tokens(tmp_path):
    """They stand in a family of their own, so that the sum of tokens is one of tokens."""
    usage = Usage(input_tokens=10, output_tokens=5, web_searches=3, search_units=2)
    attempt = {"provider": "openai", "model": "nobody-knows-it", "billed": True, "usage": usage, "cost_pusd": None}
    raw, _ = exported(
        ledger_of(tmp_path / "l.sqlite", [a_row(1, cost_pusd=None, attempt_log=log(attempt))]), "openmetrics"
    )
    found = {(name, labels.partition("token_type=")[2] or labels.partition("unit=")[2]): value
             for name, labels, value, _ in samples_of(raw) if name.endswith(("_tokens", "_units"))}  # fmt: skip
    assert found == {
        ("negawatt_export_tokens", '"input"'): 10, ("negawatt_export_tokens", '"output"'): 5,
        ("negawatt_export_units", '"Searches"'): 3, ("negawatt_export_units", '"Search Units"'): 2,
    }  # fmt: skip


def test_prometheus_takes_the_metrics(tmp_path):
    """promtool makes blocks of them, with every sample at the end of its period."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    rows = [a_row(n, received_at=DAY + 3600 * n, request_model=f'm"{n % 3}\\', key_id="k") for n in range(48)]
    raw, found = exported(ledger_of(tmp_path / "l.sqlite", rows), "openmetrics", by="hour")
    (tmp_path / "metrics.txt").write_bytes(raw)
    blocks = tmp_path / "blocks"
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "metrics.txt"), str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([promtool, "tsdb", "list", str(blocks)], capture_output=True, text=True, timeout=60)
    taken = sum(int(line.split()[4]) for line in listed.stdout.splitlines()[1:])
    assert taken == found["lines"] == len(samples_of(raw))


# -- files and the command line --------------------------------------------------------------------------------


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    """What fails in the middle leaves what lay there, and nothing beside it; the mode stays."""
    out = tmp_path / "out.csv"
    with output(out) as file:
        file.write(b"first")
        assert not out.exists()
    out.chmod(0o640)
    with pytest.raises(RuntimeError), output(out) as file:
        file.write(b"half")
        raise RuntimeError
    assert out.read_bytes() == b"first"
    with output(out) as file:
        file.write(b"second")
    assert out.read_bytes() == b"second" and out.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    for bad in (tmp_path, tmp_path / "nowhere" / "out.csv"):
        with pytest.raises(InputError, match="cannot be written"), output(bad):
            pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a ledger of three calls, of which one has no price."""
    ledger_of(tmp_path / "negawatt.sqlite", [a_row(1), a_row(2), a_row(3, cost_pusd=None)])
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "negawatt", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr.decode()
    return done


def test_the_lines_are_those_of_ledger_export(folder):
    """One mechanism, two names: byte for byte."""
    assert run(folder, "export", "--format", "jsonl").stdout == run(folder, "ledger", "export").stdout
    assert run(folder, "export", "--format", "jsonl").stdout.count(b"\n") == 3


def test_calls_without_a_price_are_said(folder):
    """On standard error, in the JSON, and in a column; their cost is empty, and never 0."""
    done = run(folder, "export")
    assert b"1 calls have no known price" in done.stderr
    lines = lines_of(done.stdout)
    assert summed(lines, "x_UnpricedCalls") == 1
    assert [row["BilledCost"] for row in lines if row["x_UnpricedCalls"] == "1"] == [""]
    found = json.loads(run(folder, "export", "--out", "out.csv", "--json").stdout)
    assert (found["unpriced_calls"], found["billed_usd"], found["out"]) == (1, "0.002", "out.csv")
    assert (folder / "out.csv").read_bytes() == done.stdout
    both = run(folder, "export", "--out", "-", "--json")
    assert both.stdout == done.stdout and json.loads(both.stderr)["calls"] == 3


def test_without_pyarrow_parquet_says_what_to_install(folder):
    """And leaves no file."""
    code = "import sys; sys.modules['pyarrow'] = None; from negawatt.cli import main; main()"
    command = [sys.executable, "-c", code, "export", "--format", "focus-parquet", "--out", "x.parquet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "pip install 'negawatt[parquet]'" in done.stderr
    assert sorted(path.name for path in folder.iterdir() if "parquet" in path.name) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "--since"), (["--since", "\N{SUPERSCRIPT TWO}d"], "--since"),
        (["--since", ""], "--since"), (["--since", "9" * 400 + "d"], "--since"),
        (["--since", "1h", "--until", "2h"], "--since"),
        (["--format", "xml"], "--format"), (["--ledger", "none.sqlite"], "none.sqlite"), (["--by", "week"], "--by"),
    ],
)  # fmt: skip
def test_bad_input_is_named(folder, arguments, said):
    """With exit code 2, and no file."""
    done = run(folder, "export", "--out", "out.csv", *arguments, code=2)
    assert said in done.stderr.decode() and not (folder / "out.csv").exists()


@pytest.mark.parametrize(
    ("form", "changes", "said"),
    [
        ("focus-csv", {"attempt_log": '{"x":'}, "the row received at 2026-12-31T00:00:00+00:00"),
        ("openmetrics", {"decisions": '[{"lever": "x", "saved": {}}]'}, "the row received at 2026-12-31"),
        ("jsonl", {"attempt_log": '{"x":'}, "attempt_log of the row call-7"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named(tmp_path, form, changes, said):
    """And nothing is written that leaves it out."""
    ledger_of(tmp_path / "negawatt.sqlite", [a_row(1), a_row(7, received_at=DAY, **changes)])
    done = run(tmp_path, "export", "--format", form, "--out", "out", code=2)
    assert said in done.stderr.decode() and not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device here that is always full")
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_behind_standard_output_is_said(folder, form):
    """With exit code 2 and one line, as for a file."""
    command = [sys.executable, "-m", "negawatt", "export", "--format", form]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "standard output: cannot be written: No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("form", FORMATS)
def test_memory_does_not_grow_with_the_calls(tmp_path, form):
    """Four times the calls of the same hours: the most that is held stays what it was."""

    def peak(count: int) -> int:
        rows = [a_row(n, received_at=DAY + n * 86_400 / count, attempt_log=log({
            "provider": "openai", "priced_as": "openai", "model": "gpt-4o-mini", "billed": True, "cost_pusd": n,
            "usage": Usage(input_tokens=n + 1, output_tokens=n + 2)})) for n in range(count)]  # fmt: skip
        path = ledger_of(tmp_path / f"{count}.sqlite", rows)
        del rows
        with (tmp_path / "out").open("wb") as file:
            export(Wanted(path, 0.0, float("inf"), form, "hour"), ACCOUNTS, file)  # what is loaded once, is
            tracemalloc.start()
            export(Wanted(path, 0.0, float("inf"), form, "hour"), ACCOUNTS, file)
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    assert peak(4000) < peak(1000) + 300_000


def test_an_interrupted_export_leaves_nothing_half_done(tmp_path):
    """Killed by Ctrl-C in the middle: the old file is there, and no part of the new one."""
    import signal
    import time

    rows = [a_row(n) for n in range(20_000)]
    ledger_of(tmp_path / "negawatt.sqlite", rows)
    (tmp_path / "out.csv").write_text("the old one")
    code = (
        "import negawatt.exports.exporting as e, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "real = e.focus_rows\n"
        "def slow(period, account):\n"
        "    print('begun', flush=True); time.sleep(30); return real(period, account)\n"
        "e.focus_rows = slow\n"
        "from negawatt.cli import main; main()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, "export", "--out", "out.csv"], cwd=tmp_path,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert child.stdout.readline() == b"begun\n"
    assert any(path.suffix == ".part" for path in tmp_path.iterdir())
    until = time.monotonic() + 30
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=until - time.monotonic()) == 130
    child.communicate()
    assert (tmp_path / "out.csv").read_text() == "the old one"
    assert not any(path.suffix == ".part" for path in tmp_path.iterdir())


def test_the_benchmark_measures_each_format():
    """Its last line is one JSON object; what it exported is what the ledger says, in every format."""
    pytest.importorskip("pyarrow")
    script = Path(__file__).parent.parent / "benchmarks" / "export.py"
    done = subprocess.run([sys.executable, str(script), "--rows", "50", "--json"], capture_output=True, text=True,
                          timeout=120, check=True)  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == 50 and found["sums_exact"] is True and set(found["formats"]) == set(FORMATS)
    for figures in found["formats"].values():
        assert figures["calls"] == 50 and figures["lines"] > 0
        assert figures["seconds"] > 0 and figures["peak_mib"] > 0
