"""The ledger against a provider's bill: exports are read as they are, and each difference has its reason."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_world import a_row

from negawatt.errors import InputError
from negawatt.ledger.bills import Bill, Line, formats
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.reconcile import Compared, Result, reconcile
from negawatt.ledger.sqlite import SqliteLedger

DAY = 1_795_478_400.0  # 2026-11-24
NOON = DAY + 43_200
TODAY, TOMORROW = "2026-11-24", "2026-11-25"


def row(i: int = 0, **fields: Any) -> Outcome:
    """A call at noon that read 100 tokens, 40 from the provider's cache, and wrote 20, for 0.01 dollars."""
    usage = {"input_tokens": 100, "output_tokens": 20, "cache_read_tokens": 40, **fields.pop("usage", {})}
    attempt = {
        "provider": "openai", "priced_as": "openai", "model": "gpt-5", "status": 200, "error": None, "billed": True,
        "usage": usage, "cost_pusd": 10**10, "started_s": 0.0, "duration_s": 1.0, **fields.pop("attempt", {}),
    }  # fmt: skip
    log = [*fields.pop("before", []), attempt]
    plain = {"received_at": NOON, "response_model": "gpt-5-2026-01-01", "response_id": f"r{i}"}
    return a_row(i, **{**plain, **fields}, attempt_log=orjson.dumps(log).decode())


def line(**fields: Any) -> Line:
    """A line that agrees with one such row."""
    plain: dict[str, Any] = {
        "number": 2, "day": TODAY, "model": "gpt-5-2026-01-01", "calls": 1, "fresh": 60, "cache_read": 40, "output": 20,
        "cost": Decimal("0.01"),
    }  # fmt: skip
    return Line(**{**plain, **fields})


def only(result: Result, model: str = "gpt-5-2026-01-01", day: str = TODAY) -> Compared:
    return next(one for one in result.compared if (one.model, one.day) == (model, day))


def codes(one: Compared) -> list[str]:
    return [reason.code for reason in one.reasons]


# -- comparing -------------------------------------------------------------------------------------------------


USAGE = st.fixed_dictionaries({
    "input_tokens": st.integers(200, 10**6), "output_tokens": st.integers(0, 10**5),
    "cache_read_tokens": st.integers(0, 100), "cache_write_tokens": st.integers(0, 100),
})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(USAGE, st.sampled_from(["gpt-5", "gpt-5-mini"]), st.integers(0, 2), st.integers(0, 10**12)),
                min_size=1, max_size=12))  # fmt: skip
def test_a_bill_made_of_the_ledger_reconciles_to_nothing(calls: list[Any]):
    """Whatever was called: no difference, nothing unexplained."""
    rows, lines = [], []
    for i, (usage, model, day, pusd) in enumerate(calls):
        attempt = {"model": model, "cost_pusd": pusd}
        rows.append(row(i, usage=usage, attempt=attempt, received_at=NOON + day * 86_400))
        read, written = usage["cache_read_tokens"], usage["cache_write_tokens"]
        lines.append(line(
            day=f"2026-11-{24 + day}", model=model, fresh=usage["input_tokens"] - read - written, cache_read=read,
            cache_write=written, output=usage["output_tokens"], cost=Decimal(pusd).scaleb(-12),
        ))  # fmt: skip
    rows = [Outcome(**{n: getattr(r, n) for n in r.__struct_fields__} | {"response_model": None}) for r in rows]
    result = reconcile(lines, rows)
    assert (result.unexplained, result.bill) == (0, result.ledger)
    assert all(not one.difference for one in result.compared)


def test_retries_are_on_the_bill():
    """Every attempt that was billed counts; one that was not does not."""
    failed = {"provider": "openai", "model": "gpt-5", "billed": True, "error": "UpstreamBroken", "cost_pusd": 10**10,
              "usage": {"input_tokens": 100, "output_tokens": 20, "cache_read_tokens": 40}}  # fmt: skip
    free = {**failed, "billed": False, "cost_pusd": 0}
    result = reconcile([line(calls=2, fresh=120, cache_read=80, output=40, cost=Decimal("0.02"))],
                       [row(before=[failed, free])])  # fmt: skip
    assert result.unexplained == 0 and sum(one.ledger.calls for one in result.compared if one.ledger) == 2


@pytest.mark.parametrize(
    ("billed", "rule"),
    [
        ("gpt-5-2026-01-01", "the same name"),
        ("openai/GPT-5-2026-01-01", "the same but for publisher and separators"),
        ("gpt-5-2026-09-09", "without its date"),
    ],
)
def test_names_of_models_are_matched_and_it_says_how(billed: str, rule: str):
    """By the name in the answer first, then by the one that was asked."""
    one = only(reconcile([line(model=billed)], [row()]), billed)
    assert (one.matched, one.difference) == (rule, 0)


EXPLAINED: dict[str, tuple[list[Line], list[Outcome]]] = {
    "not_in_ledger": ([line(calls=3, fresh=180, cache_read=120, output=60, cost=Decimal("0.03"))], [row()]),
    "not_in_bill": ([line()], [row(i) for i in range(3)]),
    "day_boundary": ([line(calls=1)], [row(0), row(1, received_at=DAY + 10)]),
    "estimated_usage": ([line(cost=Decimal("0.008"), output=18, calls=None)],
                        [row(usage={"basis": "estimated"})]),
    "unpriced": ([line()], [row(attempt={"cost_pusd": None})]),
    "tier": ([line(cost=Decimal("5"), fresh=60)], [row(usage={"tier": "priority"})]),
    "price_differs": ([line(cost=Decimal("5"))], [row()]),
    "cache_counted_differently": ([line(fresh=100, cache_read=0, cost=Decimal("5"))], [row()]),
    "credits": ([line(), line(cost=Decimal("-3"), calls=0, fresh=None, cache_read=None, output=None)], [row()]),
    "provider_only_items": ([line(), line(item="file storage", cost=Decimal("3"), calls=0, fresh=None,
                                          cache_read=None, output=None)], [row()]),
    "rounding": ([line(cost=Decimal("0.0101"), calls=None, fresh=90)], [row()]),
}  # fmt: skip


@pytest.mark.parametrize("code", EXPLAINED)
def test_each_difference_has_its_reason(code: str):
    """And with it nothing is left."""
    lines, rows = EXPLAINED[code]
    result = reconcile(lines, rows)
    one = only(result)
    assert one.difference and codes(one)[0] == code, one
    assert one.unexplained == 0 and result.share == 0
    assert sum(reason.amount or 0 for reason in one.reasons) == one.difference


def test_a_day_or_a_model_of_one_side_only_is_named():
    """All of it is that reason."""
    result = reconcile([line(day=TOMORROW)], [row()])
    assert codes(only(result)) == ["not_in_bill"] and codes(only(result, day=TOMORROW)) == ["not_in_ledger"]


def test_what_no_reason_covers_is_shown():
    """Other tokens at another cost, in the same number of calls."""
    one = only(reconcile([line(fresh=900, cost=Decimal("7"))], [row()]))
    assert one.unexplained is not None and one.unexplained > 6
    assert "not_in_ledger" not in codes(one)


def test_calls_are_matched_by_their_ids():
    """A bill that names calls says exactly which are missing on either side."""
    lines = [line(response_id="r0", calls=None), line(response_id="elsewhere", cost=Decimal("0.5"), calls=None)]
    one = only(reconcile(lines, [row(0), row(1)]))
    amounts = {reason.code: reason.amount for reason in one.reasons}
    assert amounts["not_in_ledger"] == Decimal("0.49")
    assert one.unexplained == 0 and one.difference == Decimal("0.49")


def test_a_bill_of_tokens_is_compared_by_tokens():
    """No cost on it: the counts have to agree."""
    result = reconcile([line(cost=None)], [row()])
    assert (result.by, result.unexplained, result.bill) == ("tokens", 0, 120)
    one = only(reconcile([line(cost=None, calls=2, fresh=120, cache_read=80, output=40)], [row()]))
    assert codes(one) == ["not_in_ledger"] and one.difference == 120


def test_another_provider_is_left_alone():
    """Where one is named."""
    other = row(1, attempt={"provider": "anthropic", "priced_as": "anthropic"})
    assert reconcile([line()], [row(), other], "openai").unexplained == 0
    assert only(reconcile([line()], [row(), other], "openai")).difference == 0


# -- reading ---------------------------------------------------------------------------------------------------

HEADERS: dict[str, tuple[str, str]] = {
    "anthropic-usage": (
        "usage_date_utc,model_version,usage_type,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,web_search_count",
        "2026-11-24,m,standard,50,5,5,40,20,0",
    ),
    "openai-usage": ("start_time,model,num_model_requests,input_tokens,input_cached_tokens,output_tokens",
                     "1795478400,m,1,100,40,20"),
    "openai-costs": ("start_time,amount_value,line_item", '2026-11-24T00:00:00+00:00,0.01,"m, input"'),
    "openrouter-activity": ("generation_id,created_at,cost_total,tokens_prompt,tokens_completion,model_permaslug",
                            "gen-1,2026-11-24 12:00:00,0.01,100,20,m"),
    "litellm-spend": ("request_id,spend,startTime,model,prompt_tokens,completion_tokens",
                      "r1,0.01,2026-11-24T12:00:00Z,m,100,20"),
    "focus": ("BilledCost,ChargePeriodStart,SkuId", "0.01,2026-11-24T00:00:00Z,m"),
    "anthropic-cost": ("usage_date_utc,model,cost_usd", "2026-11-24,m,0.01"),
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "bill.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", HEADERS)
def test_each_known_export_is_known_by_its_header(file: Any, name: str):
    """The day in UTC, the model, and what it has of counts and cost."""
    bill = Bill(file("\n".join(HEADERS[name]) + "\n"))
    assert bill.format.name == name
    (one,) = bill
    assert (one.day, one.model, one.tier) == (TODAY, "m", None)
    if one.has_tokens:
        assert one.output == 20
        assert (one.fresh or 0) + sum(filter(None, (one.cache_read, one.cache_write, one.cache_write_1h))) == 100
    assert one.has_tokens or one.cost == Decimal("0.01")
    assert set(HEADERS) == {format.name for format in formats()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_marks_and_signs(file: Any, delimiter: str):
    """A byte order mark, thousands separators, currency signs, accountants' credits, blank lines."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["BilledCost", "ChargePeriodStart", "SkuId"], ["$1,234.50", "2026-11-24", "m"], [],
                      ["(3.00 USD)", "2026-11-24", "m"]])  # fmt: skip
    lines = list(Bill(file(b"\xef\xbb\xbf" + out.getvalue().encode())))
    assert [one.cost for one in lines] == [Decimal("1234.50"), Decimal("-3.00")]
    assert [one.number for one in lines] == [2, 4]


BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "it is empty"),
    "unknown": ("a,b\n1,2\n", "Its columns: a, b. Name those that matter with --map COLUMN=FIELD"),
    "short": ("BilledCost,ChargePeriodStart,SkuId\n1,2026-11-24\n", r"bill\.csv:2: 2 columns, and the header has 3"),
    "cost": ("BilledCost,ChargePeriodStart,SkuId\nfree,2026-11-24,m\n", r"bill\.csv:2: BilledCost: expected an amount"),
    "day": ("BilledCost,ChargePeriodStart,SkuId\n1,yesterday,m\n", r"bill\.csv:2: ChargePeriodStart: expected a date"),
    "count": (HEADERS["openai-usage"][0] + "\n1795478400,m,x,1,1,1\n", r"num_model_requests: expected a count"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_line_and_column(file: Any, case: str):
    """Never read wrongly."""
    text, message = BAD[case]
    with pytest.raises(InputError, match=message):
        list(Bill(file(text)))


def test_any_other_export_is_mapped(file: Any):
    """By naming its columns; what is missing is said."""
    path = file("Datum;Modell;Kosten;Aufrufe\n24.11.2026;m;1;2\n2026-11-24;m;1;2\n")
    columns = {"Datum": "day", "Modell": "model", "Kosten": "cost", "Aufrufe": "calls"}
    with pytest.raises(InputError, match="Datum: expected a date"):
        list(Bill(path, columns))
    with pytest.raises(InputError, match="no column 'x'"):
        Bill(path, {"x": "day"})
    with pytest.raises(InputError, match="no field 'price'"):
        Bill(path, {"Kosten": "price"})
    with pytest.raises(InputError, match="needs day, model"):
        Bill(path, {"Datum": "day"})


# -- the command -----------------------------------------------------------------------------------------------


def test_the_command_says_whether_it_is_explained(tmp_path: Path, file: Any):
    """Exit code 0 where it is, 1 where it is not, 2 for bad input; the same as JSON."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    for i in range(3):
        ledger.append(row(i))
    ledger.close()
    head = "start_time,model,num_model_requests,input_tokens,input_cached_tokens,output_tokens\n"

    def run(text: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "negawatt", "ledger", "reconcile", str(file(text)), "-l",
                   str(tmp_path / "ledger.sqlite"), *more]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)

    good = run(f"{head}2026-11-24,gpt-5-2026-01-01,3,300,120,60\n")
    assert good.returncode == 0 and "1 of 1 days and models agree exactly" in good.stdout, good.stderr
    wrong = run(f"{head}2026-11-24,gpt-5-2026-01-01,3,900,120,60\n")
    assert wrong.returncode == 1 and "+600 tokens  unexplained" in wrong.stdout
    as_json = orjson.loads(run(f"{head}2026-11-24,gpt-5-2026-01-01,5,500,200,100\n", "--json").stdout)
    assert as_json["captured_share"] == 0.6
    assert as_json["explained"] and as_json["compared"][0]["reasons"][0]["code"] == "not_in_ledger"
    assert run("a,b\n").returncode == 2
    assert run(f"{head}2026-11-24,m,1,1,1,1\n", "--tolerance", "lots").returncode == 2
    assert run(head).returncode == 2
