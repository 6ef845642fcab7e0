"""The dashboard on a real gateway with real rows: what every tile shows is what the ledger holds. Skipped without a
browser."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Start, settings
from world import Gateway, Json, Upstream, chat, until

sys.path.insert(0, str(Path(__file__).parent.parent))
import web_world as web

from negawatt.bounds import clopper_pearson

pytest.importorskip("playwright", reason="no playwright to drive a browser with")
pytestmark = [
    pytest.mark.skipif(web.CHROMIUM is None, reason="no Chromium to look at pages with"),
    pytest.mark.usefixtures("_long"),
]
AUDIT = (Path(__file__).parent.parent / "web_audit.js").read_text(encoding="utf-8")
VIEWS = ("overview", "classes", "prompts", "caches", "routing", "requests", "budgets")
KEYS = {"keys": [{"key_env": "OPS_KEY", "id": "ops", "admin": True}, {"key_env": "USER_KEY", "id": "desk"}]}
PUSD = 1e12


def configuration(upstream: Upstream, **more: Any) -> Json:
    classes = {"support": {"owner": "desk@example.com"}, "search": {}}
    return settings(upstream, classes=classes, levers={"retry": {"attempts": 1, "breaker_failures": 1_000_000}}, **more)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with web.browser() as started:
        yield started


@pytest.fixture(scope="module")
def busy(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway after some calls: priced and unpriced, asked anew and from the cache, refused and broken."""
    one = Gateway(tmp_path_factory.mktemp("busy"), configuration(upstream), STUB_KEY="the-provider-key")
    try:
        for i in range(80):
            request_class = ("support", "search", "support", "default")[i % 4]
            one.post(chat(f"question {i % 20} {'more ' * (i % 20 % 7)}", model="gpt-4o-mini", temperature=0), f"t-{i}",
                     x_negawatt_class=request_class)  # fmt: skip
        for i in range(3):
            one.post(chat(f"unpriced {i}"), x_negawatt_class="search")
        one.post(chat({"do": "status", "status": 500}))
        one.post(b"not json")
        until(lambda: len(one.rows()) == 85, 10.0)
        until(lambda: one.get("/admin/api/overview").json["tiles"]["calls"] == 85, 10.0)
        yield one
    finally:
        one.stop()


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[..., web.Viewer]]:
    """Open a window on a gateway; at the end nothing must have gone wrong, and nobody else been asked."""
    opened: list[web.Viewer] = []

    def open_one(gateway: Gateway, **options: Any) -> web.Viewer:
        opened.append(web.Viewer(chromium, gateway.url, **options))
        return opened[-1]

    yield open_one
    for viewer in opened:
        viewer.close()
        assert viewer.faults == []
        assert viewer.strangers == []


def ledger(gateway: Gateway, question: str) -> Any:
    """The one row that answers *question* in SQL, from the file."""
    connection = sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True, timeout=5.0)
    try:
        return connection.execute(question).fetchone()
    finally:
        connection.close()


def written(viewer: web.Viewer, form: str, value: float | None) -> str:
    """*value* as the page's own formats write it."""
    text: str = viewer.page.evaluate(
        "([form, value]) => import('/static/format.js').then((formats) => formats[form](value))", [form, value]
    )
    return text


@pytest.mark.parametrize("view", VIEWS)
def test_every_page_of_a_real_gateway_is_sound(busy: Gateway, look: Callable[..., web.Viewer], view: str) -> None:
    """No console error, no foreign request, under the policy that the gateway sends; to be read by everybody."""
    viewer = look(busy)
    viewer.open(view)
    viewer.screen(f"live-{view}")
    assert viewer.page.evaluate(AUDIT) == []
    answer = busy.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")


def test_the_tiles_are_what_the_ledger_holds(busy: Gateway, look: Callable[..., web.Viewer]) -> None:
    """Money, tokens, energy, hits, errors, latency: each equals a query on the rows."""
    viewer = look(busy)
    viewer.open()
    page = viewer.page

    def tile(name: str) -> str:
        text: str = page.inner_text(f"[data-tile={name}]")
        return text

    def main(name: str) -> str:
        text: str = page.inner_text(f"[data-tile={name}] .mid")
        return text

    calls, cost, unpriced = ledger(busy, "SELECT count(*), sum(cost_pusd), sum(cost_pusd IS NULL) FROM outcome")
    base, both = ledger(
        busy,
        "SELECT sum(baseline_cost_pusd), sum(baseline_cost_pusd - cost_pusd) FROM outcome WHERE cost_pusd NOT NULL",
    )
    assert f"{calls} calls" in page.inner_text(".head")
    assert unpriced == 3
    assert main("spend") == written(viewer, "usd", cost / PUSD)
    assert f"instead of {written(viewer, 'usd', base / PUSD)}" in tile("spend")
    assert "+ 3 unpriced" in tile("spend")
    assert main("today") == written(viewer, "usd", cost / PUSD)
    heroes = page.locator(".heroes .big").all_inner_texts()
    assert heroes[0] == written(viewer, "usd", both / PUSD)
    used, instead = ledger(
        busy,
        "SELECT sum(input_tokens + output_tokens), sum(baseline_input_tokens + baseline_output_tokens) FROM outcome"
        " WHERE input_tokens NOT NULL AND baseline_input_tokens NOT NULL",
    )
    assert heroes[1] == written(viewer, "count", instead - used)
    saved_j = ledger(busy, "SELECT sum(baseline_energy_j - energy_j) FROM outcome WHERE energy_j NOT NULL")[0]
    assert heroes[2] == written(viewer, "wh", saved_j / 3600)
    hits, could = ledger(busy, "SELECT sum(cache = 'exact'), sum(cache IN ('exact', 'miss')) FROM outcome")
    assert hits > 50
    assert main("hits") == written(viewer, "percent", hits / could)
    assert f"{hits} calls answered without a model" in tile("hits")
    failed = ledger(busy, "SELECT sum(ending = 'upstream_error') FROM outcome")[0]
    assert main("errors") == written(viewer, "percent", failed / calls)
    assert "1 call failed" in tile("errors")
    took = [row["duration_s"] for row in busy.rows() if row["ending"] in ("answered", "cached", "coalesced")]
    shown = busy.get("/admin/api/overview").json["tiles"]["latency"]
    assert shown["n"] == len(took)
    assert abs(shown["p50_ms"] / 1000 - sorted(took)[len(took) // 2]) < 0.1 * sorted(took)[len(took) // 2]
    assert written(viewer, "seconds", shown["p50_ms"] / 1000) in tile("latency")


def test_pictures_and_tables_are_what_the_ledger_holds(busy: Gateway, look: Callable[..., web.Viewer]) -> None:
    """The waterfall by lever, and the rows of classes, caches and models."""
    viewer = look(busy)
    viewer.open()
    spared = ledger(
        busy,
        "SELECT sum(json_extract(d.value, '$.saved.cost_pusd')) FROM outcome, json_each(decisions) d"
        " WHERE json_extract(d.value, '$.lever') = 'exact_cache'",
    )[0]
    told = viewer.page.locator(".waterfall desc").text_content()
    assert f"exact cache −{written(viewer, 'usd', spared / PUSD)}" in told
    viewer.open("classes")
    cells = viewer.page.locator("tr[data-class=support] td").all_inner_texts()
    calls, cost = ledger(busy, "SELECT count(*), sum(cost_pusd) FROM outcome WHERE request_class = 'support'")
    assert cells[2].startswith(str(calls))
    assert cells[3] == written(viewer, "usd", cost / PUSD)
    assert "desk@example.com" in viewer.page.inner_text("tr[data-class=support]")
    viewer.open("routing")
    asked = ledger(busy, "SELECT count(*) FROM outcome WHERE response_model = 'gpt-4o-mini'")[0]
    row = viewer.page.locator("tr", has=viewer.page.locator("th >> text=gpt-4o-mini")).first
    assert row.locator("td").first.inner_text() == str(asked)


def test_the_explorer_finds_and_pages_and_shows_a_call_whole(busy: Gateway, look: Callable[..., web.Viewer]) -> None:
    """By class and ending; older rows by their key; a row's own cost and decisions."""
    viewer = look(busy)
    viewer.open("requests?class=support&ending=cached")
    page = viewer.page
    found = ledger(busy, "SELECT count(*) FROM outcome WHERE request_class = 'support' AND ending = 'cached'")[0]
    assert page.locator("main tbody tr").count() == found
    page.click("text=Clear all")
    page.wait_for_selector("text=Older")
    assert page.locator("main tbody tr").count() == 50
    page.click("text=Older")
    page.wait_for_selector("text=That is all.")
    assert page.locator("main tbody tr").count() == 35
    page.click("a >> text=Newest")
    page.wait_for_selector("text=Older")
    page.select_option("[name=ending]", "cached")
    page.click("text=Find")
    page.wait_for_selector("text=Clear all")
    page.locator("main tbody th a").first.click()
    page.wait_for_selector(".trace")
    assert "exact cache hit" in page.inner_text(".trace")
    assert page.evaluate(AUDIT) == []


@pytest.fixture(scope="module")
def governed(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with budgets, promises and judged tasks: three users, failed attempts, one ceiling nearly reached."""
    budgets: list[Json] = [
        {"name": "everything", "usd": 0.01, "per": "month", "owner": "platform"},
        {"name": "each-user", "tokens": 400, "per": "month", "each": "user"},
        {"name": "spare", "joules": 5_000.0, "per": "week", "of": {"class": "search"}, "at_limit": "queue"},
    ]
    config = configuration(upstream, budgets=budgets, alerts={"every_s": 0.2, "pending_s": 0.1, "anomalies": False})
    config["classes"]["support"] |= {"success": {"answered": True}, "slo": {"error_rate": 0.05}}
    one = Gateway(tmp_path_factory.mktemp("governed"), config, STUB_KEY="the-provider-key")
    try:
        for i in range(12):
            user = ("ann", "bob", "ann", "cy")[i % 4]
            say: Any = {"do": "status", "status": 500, "n": i} if i % 6 == 5 else {"text": "word " * (i + 8), "n": i}
            one.post(chat(say, model="gpt-4o-mini", max_tokens=40), f"g-{i // 2}",
                     x_negawatt_class="support", x_negawatt_user=user)  # fmt: skip
        one.request("POST", "/v1/feedback", b'{"task_id": "g-0", "success": false}')
        until(lambda: len(one.rows()) == 12, 10.0)
        until(lambda: (one.get("/admin/api/overview").json["tiles"]["success"] or {}).get("judged") == 6, 10.0)
        yield one
    finally:
        one.stop()


def test_tiles_of_success_and_budget_are_what_the_ledger_holds(
    governed: Gateway, look: Callable[..., web.Viewer]
) -> None:
    """What one success costs, how many there are, and how far the month's money goes: each equals a query."""
    viewer = look(governed)
    viewer.open()
    viewer.screen("live-governed")
    text = viewer.page.inner_text
    last = "(SELECT ending = 'answered' FROM outcome o WHERE o.task_id = g.task_id ORDER BY received_at DESC LIMIT 1)"
    said = "(SELECT success FROM feedback WHERE about = g.task_id)"
    judged, succeeded, cost = ledger(
        governed,
        f"SELECT count(*), sum(success), sum(cost) FROM (SELECT coalesce({said}, {last}) AS success,"
        " sum(cost_pusd) AS cost FROM outcome g GROUP BY task_id)",
    )
    assert (judged, succeeded) == (6, 3)
    assert text("[data-tile=success] .mid") == written(viewer, "usd", cost / PUSD / succeeded)
    shown = governed.get("/admin/api/overview").json["tiles"]["success"]["rate"]
    low, high = clopper_pearson(succeeded, judged)
    assert (shown["low"], shown["high"]) == pytest.approx((low, high))
    within = f"[{round(100 * low)}, {round(100 * high)}]"
    said = f"{written(viewer, 'percent', succeeded / judged)} {within} of {judged} judged succeeded"
    assert said in text("[data-tile=success]")
    spent = f"{written(viewer, 'usd', cost / PUSD)} of {written(viewer, 'usd', 0.01)}"
    assert spent in text("[data-tile=forecast]")
    viewer.open("classes")
    row = text("tr[data-class=support]")
    assert written(viewer, "usd", cost / PUSD / succeeded) in row
    assert f"{written(viewer, 'percent', succeeded / judged)} succeeded" in row


def test_the_page_of_budgets_shows_what_is_in_the_books(governed: Gateway, look: Callable[..., web.Viewer]) -> None:
    """Spent, of what, of whom, until when: as `GET /admin/budgets` and the rows say; and how the promise stands."""
    viewer = look(governed)
    viewer.open("budgets")
    viewer.screen("live-governed-budgets")
    cards = viewer.page.locator(".budgets > li")
    rows = governed.get("/admin/budgets").json["budgets"]
    assert cards.count() == len(rows) == 5
    texts = cards.all_inner_texts()
    formats = {"usd": "usd", "tokens": "count", "joules": "joules"}
    for row in rows:
        whose = (row["whose"] or {}).get("user", "")
        [card] = [one for one in texts if one.startswith(row["budget"]) and f"user {whose}" * bool(whose) in one]
        form = formats[row["unit"]]
        assert f"{written(viewer, form, row['spent'])} of {written(viewer, form, row['limit'])}" in card
        assert written(viewer, "percent", float(row["spent"]) / float(row["limit"])) in card
    assert [card for card in texts if "everything, each month" in card]
    assert [card for card in texts if "class search, each week" in card and "at the limit it queues" in card]
    for user in ("ann", "bob", "cy"):
        used = ledger(governed, f"SELECT sum(input_tokens + output_tokens) FROM outcome WHERE user_id = '{user}'")[0]
        [card] = [one for one in texts if f"user {user}" in one]
        assert f"{written(viewer, 'count', used)} of 400" in card
    [promise] = governed.get("/admin/slo").json["classes"]
    assert (promise["class"], promise["promises"][0]["verdict"]) == ("support", "breached")
    good, total = ledger(governed, "SELECT sum(ending = 'answered'), count(*) FROM outcome")
    assert (promise["promises"][0]["good"], promise["promises"][0]["total"]) == (good, total)
    level = viewer.page.locator("tr", has_text="support: error rate")
    assert "errors: broken" in level.inner_text()
    assert "desk@example.com" in level.inner_text()


def test_a_call_that_ends_appears_while_one_looks(
    start: Start, upstream: Upstream, look: Callable[..., web.Viewer]
) -> None:
    """From an empty ledger: the first call brings the tiles, over the stream, with no reload."""
    gateway = start(configuration(upstream))
    viewer = look(gateway)
    viewer.open()
    viewer.page.wait_for_selector("text=Send the first one")
    viewer.page.wait_for_selector("#live[data-state=live]")
    viewer.page.evaluate("window.same = true")
    gateway.post(chat("hello", model="gpt-4o-mini", temperature=0), x_negawatt_class="support")
    viewer.page.wait_for_selector(".heroes")
    gateway.post(chat("hello", model="gpt-4o-mini", temperature=0), x_negawatt_class="support")
    viewer.page.wait_for_selector("#just-now >> text=from a cache")
    viewer.page.wait_for_selector(".head >> text=2 calls")
    assert viewer.page.evaluate("window.same") is True


def test_a_gateway_that_stops_and_starts_is_told_and_found_again(
    start: Start, upstream: Upstream, look: Callable[..., web.Viewer]
) -> None:
    """The page says that the connection is lost and how old its figures are."""
    gateway = start(configuration(upstream))
    viewer = look(gateway)
    viewer.open()
    viewer.page.wait_for_selector("#live[data-state=live]")
    gateway.stop()
    viewer.page.wait_for_selector("#live[data-state=lost]")
    assert "Connection lost, figures" in viewer.page.inner_text("#live")
    viewer.faults[:] = [fault for fault in viewer.faults if "ERR_" not in fault]


def test_with_keys_only_an_administrator_gets_in(
    start: Start, upstream: Upstream, look: Callable[..., web.Viewer]
) -> None:
    """A user's key is told so; the session is a cookie that no script reads, and ends by signing out."""
    gateway = start(configuration(upstream, **KEYS), OPS_KEY="sk-ops-0001", USER_KEY="sk-user-0001")
    viewer = look(gateway)
    page = viewer.page
    page.goto(gateway.url)
    page.wait_for_selector("#key")
    page.fill("#key", "sk-user-0001")
    page.keyboard.press("Enter")
    page.wait_for_selector(".problem >> text=not an administrator")
    page.fill("#key", "sk-ops-0001")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Send the first one")
    page.wait_for_selector("#live[data-state=live]")
    assert page.evaluate("document.cookie") == ""
    assert "sk-ops" not in json.dumps(page.evaluate("[Object.entries(localStorage), Object.entries(sessionStorage)]"))
    cookie = viewer.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.reload()
    page.wait_for_selector("text=Send the first one")
    page.click("text=Sign out")
    page.wait_for_selector("#key")
    assert gateway.get("/admin/api/overview").status == 401
    viewer.faults[:] = [fault for fault in viewer.faults if "403" not in fault]
    assert not any("sk-" in url for url in viewer.asked)


def test_days_begin_where_the_viewer_is(busy: Gateway, look: Callable[..., web.Viewer]) -> None:
    """The same row is of another day in another zone, in the page as in a query."""
    viewer = look(busy, timezone_id="Pacific/Kiritimati")
    viewer.open()
    first = busy.get("/admin/api/overview?zone=Pacific/Kiritimati").json
    assert sum(first["series"]["total"]["calls"]) == 85
    form = "{ day: 'numeric', month: 'short', year: 'numeric', timeZone: 'Pacific/Kiritimati' }"
    name = viewer.page.evaluate(f"new Intl.DateTimeFormat('en-GB', {form}).format()")
    assert name in viewer.page.inner_text(".head")
    assert time.time() < first["period"]["until_s"]


def test_before_and_after_are_what_was_asked_and_what_the_provider_got(
    start: Start, upstream: Upstream, look: Callable[..., web.Viewer]
) -> None:
    """A tool's result, shortened on its way: both texts stand side by side, and the second is what was sent."""
    levers = {"retry": {"attempts": 1}, "compress": {"mode": "on", "least_tokens": 100}}
    gateway = start(settings(upstream, levers=levers))
    rows = json.dumps([{"order": i, "state": "sent", "town": "Ulm"} for i in range(40)], indent=4)
    script = json.dumps({"tag": "before-and-after", "text": "Seven."})
    asked = json.dumps({"model": "gpt-4o-mini", "temperature": 0, "messages": [
        {"role": "user", "content": script},
        {"role": "assistant", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": rows},
        {"role": "user", "content": script},
    ]})  # fmt: skip
    gateway.post(asked.encode(), "t-before")
    row = gateway.one_row("t-before")
    until(lambda: gateway.get(f"/admin/api/requests/{row['id']}").json["shaped"] is not None, 10.0)
    viewer = look(gateway)
    viewer.open(f"requests/{row['id']}")
    before, after = viewer.page.locator(".pairing pre").all_text_contents()
    assert before == rows
    assert after == upstream.last("before-and-after")["body"]["messages"][2]["content"]
    assert len(after) < len(before)
    assert "Before messages/2/content" in viewer.page.inner_text(".pairing")
    assert viewer.page.evaluate(AUDIT) == []


def test_one_call_is_enough_for_every_page(start: Start, upstream: Upstream, look: Callable[..., web.Viewer]) -> None:
    """One row: sums without intervals, pictures of one bar, and a filter for whatever is known of it."""
    gateway = start(configuration(upstream))
    gateway.post(chat("alone", model="gpt-4o-mini", temperature=0), "t-alone", x_negawatt_class="support")
    until(lambda: gateway.get("/admin/api/overview").json["tiles"]["calls"] == 1, 10.0)
    viewer = look(gateway)
    for view in VIEWS:
        viewer.open(view)
        viewer.screen(f"one-row-{view}")
        assert viewer.page.evaluate(AUDIT) == []
    row = gateway.get("/admin/api/requests").json["rows"][0]
    for name, value in (("protocol", "chat"), ("operation", row["operation"]), ("status", "200"), ("stream", "0"),
                        ("usage_basis", "measured")):  # fmt: skip
        viewer.open(f"requests?{name}={value}")
        assert viewer.page.locator("main tbody tr").count() == 1, name
    for name, value in (("protocol", "messages"), ("status", "500"), ("stream", "1"), ("error_type", "x")):
        viewer.open(f"requests?{name}={value}")
        assert "No call is like that." in viewer.page.inner_text("main"), name


def test_another_process_shows_the_ledger_that_a_gateway_writes(start: Start, upstream: Upstream) -> None:
    """Both give the same figures, before and after more calls: rows are rolled up once, whoever does it."""
    gateway = start(configuration(upstream))
    command = [sys.executable, "-m", "negawatt", "dashboard", "--ledger", str(gateway.ledger), "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=gateway.ledger.parent, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

            def figures() -> list[Json]:
                with opener.open(f"{address}/admin/api/overview", timeout=10) as answer:
                    found = [gateway.get("/admin/api/overview").json, json.loads(answer.read())]
                return [{name: one[name] for name in ("waterfall", "rollup")}
                        | {name: one["tiles"][name] for name in ("calls", "saved", "hits", "latency", "errors")}
                        for one in found]  # fmt: skip

            calls = 0
            for more in (0, 40, 80):
                for i in range(more):
                    gateway.post(chat(f"one more {more} {i % 25}", model="gpt-4o-mini", temperature=0))
                calls += more
                until(lambda: [one["calls"] for one in figures()] == [calls, calls], 20.0)  # noqa: B023
                ours, theirs = figures()
                assert ours == theirs
            assert gateway.get("/readyz").status == 200
        finally:
            process.terminate()
        assert process.wait(20) == 0
