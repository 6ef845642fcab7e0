"""The parts of the dashboard: intervals, periods, forecasts, sessions, the search, the pages' files."""

from __future__ import annotations

import itertools
import random
import re
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from negawatt.caller import Caller
from negawatt.config import Config
from negawatt.errors import InvalidRequest, PermissionDenied
from negawatt.gateway import Gateway
from negawatt.http_head import Head
from negawatt.ledger.memory import MemoryLedger
from negawatt.statistics import Bootstrap
from negawatt.web import asking
from negawatt.web.forecast import DAYS, forecast
from negawatt.web.intervals import Interval, at_most, of_sums, rate, student, total
from negawatt.web.pages import POLICY, load
from negawatt.web.period import begins, day_of, month_of, period_of
from negawatt.web.sessions import Sessions, cookie_of, set_cookie
from negawatt.web_routes import WebRoutes

NOON = 1_790_510_400.0  # 2026-09-27T12:00:00Z


# -- intervals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.706), (5, 2.571), (10, 2.228), (12, 2.179), (31, 2.040), (120, 1.980)]
)
def test_students_t_is_that_of_the_tables(degrees, t):
    """To three digits, at any number of degrees."""
    assert student(degrees) == pytest.approx(t, abs=1.5e-3)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """A saving in percent, of calls that repeat each other: in at least nine of ten samples, and not in all."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        prompts = rng.integers(0, 400, size=800)
        base = rng.lognormal(0, 1, size=400)[prompts]
        actual = base * np.where(rng.random(400) < 0.4, 0.0, 1.0)[prompts]
        groups = np.zeros((32, 2))
        np.add.at(groups, prompts % 32, np.column_stack([base, actual]))
        found = of_sums([tuple(map(float, row)) for row in groups], lambda s: 100 * (s[0] - s[1]) / s[0])
        assert found.low is not None and found.high is not None
        held += found.low <= 40 <= found.high
    assert 0.90 * 300 <= held < 300


def test_intervals_are_those_of_the_report_by_another_way():
    """As wide as the bootstrap's over the same clusters, to within what 32 groups can tell."""
    rng = np.random.default_rng(2)
    clusters = rng.integers(0, 5000, size=20_000)
    base = rng.lognormal(0, 1, size=20_000)
    actual = base * rng.uniform(0.3, 1.0, size=20_000)
    report = Bootstrap([str(c) for c in clusters], np.random.default_rng(1)).saving_pct(base, actual)
    groups = np.zeros((32, 2))
    np.add.at(groups, clusters % 32, np.column_stack([base, actual]))
    found = of_sums([tuple(map(float, row)) for row in groups], lambda s: 100 * (s[0] - s[1]) / s[0])
    assert found.mean == pytest.approx(report.mean)
    assert found.high - found.low == pytest.approx(report.high - report.low, rel=0.4)


def test_what_one_group_carries_is_not_bounded():
    """One call, one prompt, or a figure that vanishes without one group: a figure, and no interval."""
    assert of_sums([(2.0, 1.0)], lambda s: s[1] / s[0]) == Interval(0.5, None, None)
    assert of_sums([(2.0, 1.0), (0.0, 1.0)], lambda s: s[1] / s[0] if s[0] else None) == Interval(1.0, None, None)
    assert of_sums([], lambda s: 1.0) == Interval(None, None, None)
    assert total([]) == Interval(None, None, None) and total([3]) == Interval(3, None, None)
    assert rate([], []) == Interval(None, None, None)
    assert at_most(Interval(99.0, 97.0, 101.0), 100.0) == Interval(99.0, 97.0, 100.0)


def test_rates_stay_between_nothing_and_all():
    """Rare, common, never, always; of few calls and of a million."""
    for hit, n in ((0, 5), (5, 5), (1, 1000), (0, 10**6), (10**6, 10**6), (123_456, 10**6)):
        ones, sizes = [hit / 4] * 4, [n / 4] * 4
        found = rate(ones, sizes)
        assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
        assert found.mean == pytest.approx(hit / n)


# -- periods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"])
def test_days_begin_when_they_begin_there(zone):
    """A year of days: each bucket begins at midnight, no moment is in two or in none."""
    period = period_of({"zone": zone, "since": "2026-01-01", "until": "2027-01-01", "bucket": "day"}, NOON)
    buckets = period.buckets
    assert len(buckets) == 365
    assert all(one[1] == other[0] for one, other in itertools.pairwise(buckets))
    for nth, (since, _) in enumerate(buckets):
        local = datetime.fromtimestamp(since, ZoneInfo(zone))
        assert (local.hour, local.minute) == (0, 0) and local.timetuple().tm_yday == nth + 1
        assert since % 900 == 0


def test_a_day_is_as_long_as_its_clocks_make_it():
    """23.5 and 24.5 hours on Lord Howe Island, 23 and 25 in Newfoundland."""
    hours = []
    for zone, days in (
        ("Australia/Lord_Howe", ("2026-10-04", "2026-04-05")), ("America/St_Johns", ("2026-03-08", "2026-11-01"))
    ):  # fmt: skip
        for day in days:
            noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)).timestamp()
            since, until = day_of(noon, ZoneInfo(zone))
            hours.append((until - since) / 3600)
    assert hours == [23.5, 24.5, 23.0, 25.0]


def test_where_there_is_no_midnight_the_day_begins_after_it():
    """Clocks that go forward at midnight, as in Santiago."""
    day, zone = datetime(2026, 9, 6).date(), ZoneInfo("America/Santiago")
    assert datetime.fromtimestamp(begins(day, zone), zone).isoformat() == "2026-09-06T01:00:00-03:00"


def test_the_month_is_the_viewers():
    """At the end of a month it is another one elsewhere."""
    at = datetime.fromisoformat("2026-11-30T20:00+00:00").timestamp()
    starts = [datetime.fromtimestamp(month_of(at, ZoneInfo(z))[0], ZoneInfo(z)).month for z in ("UTC", "Asia/Kolkata")]
    assert starts == [11, 12]


def test_what_a_period_cannot_be_is_refused_by_name():
    """Unknown zones, other dates, ends before beginnings, more buckets than can be drawn."""
    for query, param in (
        ({"zone": "Mars/Phobos"}, "zone"), ({"zone": "../../etc/passwd"}, "zone"), ({"zone": "America"}, "zone"),
        ({"since": "tomorrow"}, "since"), ({"since": "2026-02-30"}, "since"), ({"until": "99999999999"}, "until"),
        ({"since": "2026-02-03", "until": "2026-02-03"}, "until"), ({"bucket": "decade"}, "bucket"),
        ({"since": "2020-01-01", "bucket": "hour"}, "bucket"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest) as refused:
            period_of(query, NOON)
        assert refused.value.param == param


def test_buckets_fit_the_length_of_the_period():
    """Without a wish: quarters, hours, days, weeks, months, never more than can be drawn."""
    lengths = {6: "quarter", 48: "hour", 24 * 30: "day", 24 * 400: "week", 24 * 3000: "month"}
    for hours, bucket in lengths.items():
        period = period_of({"since": str(int(NOON) - hours * 3600), "until": str(int(NOON))}, NOON)
        assert period.bucket == bucket and len(period.buckets) <= 800


# -- forecast ----------------------------------------------------------------------------------------------------


def test_a_forecast_needs_a_week():
    """Before that there is none, and it says what is missing."""
    told = forecast(NOON, "UTC", spent=3.0, days=[1.0] * DAYS, first_s=NOON - 5.5 * 86_400)
    assert told.shown is None and told.note == "whole days known: 5; a forecast needs 7"
    assert forecast(NOON, "UTC", spent=0.0, days=[0.0] * DAYS, first_s=None).shown is None


def test_a_steady_spend_is_forecast_exactly():
    """The same each day: what was spent, and a day's cost for each day that is left, without doubt."""
    told = forecast(NOON, "UTC", spent=26.5, days=[1.0] * DAYS, first_s=0.0)
    month = told.shown["month_usd"]
    assert (month.mean, month.low, month.high) == pytest.approx((30.0, 30.0, 30.0))


def test_weekdays_are_told_apart():
    """Nothing at weekends: only the working days that are left count."""
    days = [0.0 if (datetime.fromtimestamp(NOON).weekday() - i) % 7 in (5, 6) else 2.0 for i in range(DAYS, 0, -1)]
    told = forecast(NOON, "UTC", spent=0.0, days=days, first_s=0.0)  # a Sunday noon; Monday to Wednesday are left
    assert told.shown["month_usd"].mean == pytest.approx(6.0)


def test_a_forecast_holds_what_comes_as_often_as_it_says():
    """Over many made-up months, about nineteen of twenty."""
    rng = random.Random(4)
    held = 0
    for _ in range(200):
        days = [rng.lognormvariate(0, 0.6) for _ in range(DAYS + 20)]
        now = datetime.fromisoformat("2026-09-10T00:00+00:00").timestamp()
        told = forecast(now, "UTC", spent=5.0, days=days[:DAYS], first_s=0.0).shown["month_usd"]
        truth = 5.0 + sum(days[DAYS:]) + rng.lognormvariate(0, 0.6)
        held += told.low <= truth <= told.high
    assert 0.9 * 200 <= held < 200


# -- sessions ----------------------------------------------------------------------------------------------------


class Hand:
    """A clock that is moved by hand."""

    now = NOON

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_by_itself():
    """After an hour without use, of which watching is none, after twelve at most, and by signing out."""
    clock = Hand()
    sessions = Sessions(clock)
    caller = Caller(key_id="ops", admin=True)
    name, _ = sessions.begin(caller, b"digest")
    for _ in range(11):
        clock.now += 3_500
        assert sessions.find(name).caller is caller
    clock.now += 3_600
    assert sessions.find(name) is None
    busy, _ = sessions.begin(caller, b"digest")
    for _ in range(24):
        clock.now += 1_800
        found = sessions.find(busy)
    assert found is None, "twelve hours are enough"
    watching, _ = sessions.begin(caller, b"digest")
    for _ in range(2):
        clock.now += 1_799
        assert sessions.find(watching, using=False) is not None
    clock.now += 2
    assert sessions.find(watching, using=False) is None
    left, _ = sessions.begin(caller, b"digest")
    sessions.end(left)
    assert sessions.find(left) is None


async def test_the_pages_answer_no_page_of_elsewhere_whoever_serves_them(tmp_path, monkeypatch):
    """They may stand on a port of their own, without the server that looks after every other door."""
    monkeypatch.chdir(tmp_path)
    sent = []

    async def send(message):
        sent.append(message)

    async def nothing(*_):
        raise AssertionError("nobody reads a body here")

    async with Gateway.open(Config(), ledger=MemoryLedger(), providers={}) as gateway:
        routes = WebRoutes(gateway, nothing)
        for param, told in (
            ("host", [(b"host", b"rebound.example")]),
            ("origin", [(b"host", b"127.0.0.1"), (b"origin", b"https://elsewhere.example")]),
            ("origin", [(b"host", b"127.0.0.1"), (b"sec-fetch-site", b"cross-site")]),
        ):
            scope = {"method": "GET", "path": "/admin/api/session", "query_string": b"", "headers": told}
            with pytest.raises(PermissionDenied) as caught:
                await routes(scope, Head.of(told), nothing, send)
            assert caught.value.param == param and not sent
        await routes({**scope, "headers": told[:1]}, Head.of(told[:1]), nothing, send)
        assert sent[0]["status"] == 200


def test_sessions_are_bounded_and_not_to_be_guessed():
    """The one that was used least recently goes; no two are alike; only digests are held."""
    clock = Hand()
    sessions = Sessions(clock)
    names = []
    for _ in range(1002):
        clock.now += 1
        names.append(sessions.begin(Caller(admin=True), b"digest")[0])
    assert len(set(names)) == 1002 and min(map(len, names)) >= 40
    assert [sessions.find(name) is None for name in names[:3]] == [True, True, False]
    assert names[-1] not in repr(vars(sessions))


def test_cookies_are_read_and_written():
    """Among others; secure where the browser came by https."""
    assert cookie_of({b"cookie": b"a=1; negawatt_session=xyz; b=2"}) == "xyz"
    assert cookie_of({}) is None and cookie_of({b"cookie": b"other=1"}) is None
    assert set_cookie("x", secure=True).endswith(b"; Secure") and b"Secure" not in set_cookie("x", secure=False)
    assert b"Max-Age=0" in set_cookie("", secure=False)


# -- the search --------------------------------------------------------------------------------------------------


def test_a_search_is_read_as_it_is_meant():
    """Several values of one name are any of them; money is exact; moments are in the zone."""
    found = asking.asked({
        "class": ["a", "b"], "min_cost_usd": ["0.000000000001"], "min_ms": ["250"], "error": ["1"], "holdout": ["0"],
        "since": ["2026-09-27T00:00"], "zone": ["Asia/Kolkata"], "cursor": ["1790510400.25:77"], "limit": ["7"],
    })  # fmt: skip
    search = found.search
    assert search.equal == {"class": ["a", "b"]} and search.min_cost_pusd == 1 and search.min_s == 0.25
    assert (search.at_fault, search.holdout, search.unpriced) == (True, False, None)
    assert search.since == datetime.fromisoformat("2026-09-27T00:00+05:30").timestamp()
    assert found.start == (1790510400.25, 77) and found.limit == 7


# -- pages -------------------------------------------------------------------------------------------------------


def test_only_what_is_in_the_folder_is_served(tmp_path):
    """By its name, with its type; no folders, no other kinds, no hidden files; the index knows the versions."""
    (tmp_path / "index.html").write_text('<script src="/static/app.js?v={{v:app.js}}"></script>')
    (tmp_path / "app.js").write_text("1")
    for name in (".secret.js", "notes.py", "app.js.map"):
        (tmp_path / name).write_text("x")
    (tmp_path / "more").mkdir()
    files = load(tmp_path)
    assert sorted(files) == ["app.js", "index.html"]
    assert files["app.js"].content_type == "text/javascript; charset=utf-8"
    assert f"?v={files['app.js'].version}".encode() in files["index.html"].body
    (tmp_path / "index.html").write_text("{{v:gone.js}}")
    with pytest.raises(ValueError, match=re.escape("gone.js")):
        load(tmp_path)
    assert load(tmp_path / "none") == {}


def test_pages_may_load_nothing_from_elsewhere_and_run_nothing_inline():
    """The policy of every page."""
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY and "http" not in POLICY and "*" not in POLICY
