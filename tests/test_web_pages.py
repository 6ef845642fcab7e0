"""The pages in a real browser, on answers that are rare: what they show, and for whom. Skipped without a browser."""

import copy
import re
from pathlib import Path

import pytest
import web_figures as figures
import web_world as world

pytest.importorskip("playwright", reason="no playwright to drive a browser with")
pytestmark = pytest.mark.skipif(world.CHROMIUM is None, reason="no Chromium to look at pages with")

VIEWS = ("overview", "classes", "prompts", "caches", "routing", "requests", "requests/nw-65f00002", "budgets")
AUDIT = (Path(__file__).parent / "web_audit.js").read_text(encoding="utf-8")
RIGHT = "sk-of-the-administrator-7f3a"
KEYS = {"open": False, "signed_in": False, "key_id": None, "expires_s": None}


@pytest.fixture(scope="module")
def site():
    with world.files() as server:
        yield server


@pytest.fixture(scope="module")
def chromium():
    with world.browser() as started:
        yield started


@pytest.fixture
def look(site, chromium):
    """Open a window; at the end nothing must have gone wrong in it, and nobody else been asked."""
    opened = []

    def open_one(answers=None, **options):
        viewer = world.Viewer(chromium, site.url, **options)
        viewer.answers(answers or figures.usual())
        opened.append(viewer)
        return viewer

    yield open_one
    for viewer in opened:
        viewer.close()
        assert viewer.faults == []
        assert viewer.strangers == []


def with_answers(**answers):
    return {**figures.usual(), **answers}


def name_of(view):
    return view.replace("/", "-")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("theme", "size"), [("light", (1280, 900)), ("dark", (1280, 900)), ("light", (390, 844)), ("light", (1920, 1080))]
)
def test_every_page_can_be_read_by_everybody(look, view, theme, size):
    """No console error, no foreign request, no violation; named, ordered, in contrast, and as wide as the window."""
    viewer = look(color_scheme=theme, viewport={"width": size[0], "height": size[1]})
    viewer.open(view)
    viewer.screen(f"{name_of(view)}-{theme}-{size[0]}")
    assert viewer.page.evaluate(AUDIT) == []
    assert viewer.page.evaluate("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("empty", with_answers(overview=figures.nothing_yet())),
        ("one-row", with_answers(overview=figures.one_row())),
        ("huge", with_answers(overview=figures.overview(money=1e12 / 41.2, tokens=1e15 / 8.1e6))),
        ("tiny", with_answers(overview=figures.overview(money=3e-8, tokens=1e-6))),
        ("unknown", with_answers(overview=figures.unknown())),
        ("names", with_answers(overview=figures.overview(names=[*figures.NAMES, "a", "b", "c"]))),
    ],
)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_overview_holds_whatever_there_is(look, name, answers, width):
    """Nothing, one row, more than there is, less than a cent, nothing known, names in every script."""
    viewer = look(answers, viewport={"width": width, "height": 900})
    viewer.open()
    viewer.screen(f"overview-{name}-{width}")
    assert viewer.page.evaluate(AUDIT) == []
    assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_empty_ledger_teaches_how_to_send_the_first_call(look, site):
    """The gateway's own address stands in what is to be copied."""
    viewer = look(with_answers(overview=figures.nothing_yet()))
    viewer.open()
    shown = viewer.page.inner_text("main")
    assert "Send the first one" in shown
    assert f'base_url="{site.url}/v1"' in shown


def test_what_is_unknown_is_a_dash_with_its_reason_and_never_zero(look):
    """A price that nobody knows is not a call that was free."""
    viewer = look(with_answers(overview=figures.unknown()))
    viewer.open()
    tiles = viewer.page.inner_text(".heroes") + viewer.page.inner_text(".tiles")
    assert not re.search(r"\$0\b|\b0 Wh", tiles)
    for tile in ("today", "spend", "success", "forecast"):
        dash = viewer.page.locator(f"[data-tile={tile}] .mid .missing")
        assert dash.inner_text().startswith("–")
        assert dash.get_attribute("title")
    assert "43 %" in viewer.page.inner_text(".notice >> nth=0")
    assert "cache.sqlite is locked" in viewer.page.inner_text("main")


def test_amounts_keep_the_digits_that_count(look):
    """A millionth of a dollar and a trillion of them."""
    viewer = look(with_answers(overview=figures.overview(money=1e12 / 41.2, tokens=1e15 / 8.1e6)))
    viewer.open()
    assert viewer.page.locator(".heroes .big").all_inner_texts()[:2] == ["$1.00 T", "1.00 Q"]
    viewer = look(with_answers(overview=figures.one_row()))
    viewer.open()
    assert viewer.page.inner_text("[data-tile=today] .mid") == "$0.00000120"


def test_names_are_text_whatever_they_say(look):
    """Markup in the name of a class or model is shown and not obeyed."""
    evil = "<img src=x onerror=alert(1)>"
    rows = figures.requests()
    rows["rows"][0] |= {"class": evil, "asked": evil, "tenant": evil, "levers": [evil]}
    shown = figures.overview(names=[evil, "b"])
    viewer = look(with_answers(overview=shown, requests=rows, classes=figures.classes([evil])))
    for view in ("overview", "requests", "classes"):
        viewer.open(view)
        assert viewer.page.locator("main img").count() == 0
        assert evil in viewer.page.inner_text("main")


def test_a_foreign_script_does_not_run(look):
    """The content-security policy is in force, and the test would notice a violation."""
    viewer = look()
    viewer.open()
    viewer.page.evaluate(
        "() => document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))"
    )
    assert viewer.page.evaluate("window.ran") is None
    assert any("CSP" in fault for fault in viewer.faults)
    viewer.faults.clear()


def test_two_hundred_classes_can_be_searched(look):
    """Typing a part of a name leaves those that have it."""
    viewer = look(with_answers(classes=figures.classes([*figures.NAMES, *(f"class {i}" for i in range(193))])))
    viewer.open("classes")
    assert viewer.page.locator("tr[data-class]").count() == 200
    viewer.page.fill("#find-class", "class 19")
    assert viewer.page.locator("tr[data-class]:visible").count() == 4
    viewer.page.fill("#find-class", "nobody")
    assert "No class" in viewer.page.inner_text("#none-found")
    viewer.screen("classes-many-1280", whole=False)


def test_a_tick_shows_at_once_and_brings_new_figures(look, site):
    """The stream names the newest calls; the tiles follow without a reload, and a reader keeps the focus."""
    answers = figures.usual()
    viewer = look(answers)
    viewer.open()
    viewer.page.wait_for_selector("#live[data-state=live]")
    summary = viewer.page.locator("summary").first
    summary.focus()
    summary.press("Enter")
    answers["overview"] = copy.deepcopy(answers["overview"])
    answers["overview"]["tiles"]["spend"]["today_usd"] = 7.77
    site.tell("tick", figures.TICK)
    viewer.page.wait_for_selector("#just-now a[href='#/requests/nw-65f00002']")
    viewer.page.wait_for_selector("[data-tile=today] >> text=$7.77")
    assert "2 in flight" in viewer.page.inner_text("#live")
    assert viewer.page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert viewer.page.locator("details[open]").count() == 1


def test_it_says_when_the_connection_is_lost_and_comes_back(look, site):
    """In words and for screen readers, with the age of the figures; then it is live again by itself."""
    viewer = look()
    viewer.open()
    viewer.page.wait_for_selector("#live[data-state=live]")
    site.tell("bye", {})
    viewer.page.wait_for_selector("#live[data-state=lost]")
    assert "Connection lost, figures" in viewer.page.inner_text("#live")
    assert "lost" in viewer.page.inner_text("#says")
    viewer.page.wait_for_selector("#live[data-state=live]")
    assert viewer.page.inner_text("#says") == "Connected again."


def test_it_rests_while_nobody_looks(look):
    """A hidden tab holds no stream; when it is seen again it asks for what it missed."""
    viewer = look()
    viewer.open()
    viewer.page.wait_for_selector("#live[data-state=live]")
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    viewer.page.evaluate(hide, True)
    viewer.page.wait_for_selector("#live[data-state=resting]")
    with viewer.page.expect_request("**/admin/api/overview*"):
        viewer.page.evaluate(hide, False)
    viewer.page.wait_for_selector("#live[data-state=live]")


def test_new_calls_do_not_move_the_rows_that_are_read(look, site):
    """The explorer says that there are more, and shows them when it is told to."""
    viewer = look()
    viewer.open("requests")
    viewer.page.wait_for_selector("#live[data-state=live]")
    site.tell("tick", figures.TICK)
    button = viewer.page.locator("#news button")
    button.wait_for()
    assert "3 new calls" in button.inner_text()
    with viewer.page.expect_request("**/admin/api/requests*"):
        button.click()
    viewer.page.wait_for_selector("#news button", state="detached")


def test_filters_ask_for_what_they_say(look):
    """Every filter has a field; what is filled in stands in the address and in the question."""
    viewer = look()
    viewer.open("requests")
    viewer.page.fill("[name=class]", "support, search")
    viewer.page.select_option("[name=ending]", "cached")
    viewer.page.locator("summary", has_text="More filters").click()
    viewer.page.fill("[name=min_ms]", "12.5")
    viewer.page.select_option("[name=holdout]", "0")
    with viewer.page.expect_request("**/admin/api/requests?*class=support*") as asked:
        viewer.page.click("text=Find")
    url = asked.value.url
    for part in (
        "class=support",
        "class=search",
        "ending=cached",
        "min_ms=12.5",
        "holdout=0",
        "limit=50",
        "zone=Europe%2FBerlin",
    ):
        assert part in url, part
    viewer.page.wait_for_selector("text=Clear all")
    assert viewer.page.input_value("[name=class]") == "support, search"
    assert "More filters (2 in use)" in viewer.page.inner_text("main")
    with viewer.page.expect_request(re.compile("cursor=1795775999.25")) as older:
        viewer.page.click("text=Older")
    assert "class=support" in older.value.url
    viewer.page.click("text=Clear all")
    viewer.page.wait_for_selector("text=Clear all", state="detached")
    assert viewer.page.input_value("[name=class]") == ""


def test_a_call_shows_what_decided_and_what_it_would_have_cost(look):
    """The trace in the order of the levers, before and after, and the row itself."""
    viewer = look()
    viewer.open("requests")
    viewer.page.click("a[href='#/requests/nw-65f00002']")
    viewer.page.wait_for_selector(".trace")
    shown = viewer.page.locator(".trace li b").all_inner_texts()
    assert shown == ["exact cache", "semantic cache", "compress", "route"]
    text = viewer.page.inner_text("main")
    for part in ("$0.000412", "$0.00600", "$0.00559", "1,240", "Where is my order? <b>12</b>", "three of nine turns"):
        assert part in text, part


def test_the_zone_decides_where_days_begin_and_how_times_are_written(look):
    """The viewer's own at first; UTC at a switch, which is all that is kept, with the theme."""
    viewer = look(timezone_id="Asia/Kolkata")
    with viewer.page.expect_request("**/admin/api/overview*") as first:
        viewer.open()
    assert "zone=Asia%2FCalcutta" in first.value.url or "zone=Asia%2FKolkata" in first.value.url
    assert "since 26 Nov 19:03" in viewer.page.inner_text("[data-tile=uptime]")
    with viewer.page.expect_request("**/admin/api/overview*") as second:
        viewer.page.select_option("#zone", "UTC")
    assert "zone=UTC" in second.value.url
    viewer.page.wait_for_selector("[data-tile=uptime] >> text=26 Nov 13:33")
    viewer.page.select_option("#theme", "dark")
    assert viewer.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 23)"
    kept = viewer.page.evaluate("[Object.entries(localStorage), Object.keys(sessionStorage), document.cookie]")
    assert sorted(kept[0]) == [["negawatt.theme", "dark"], ["negawatt.zone", "UTC"]]
    assert kept[1:] == [[], ""]


def test_a_period_is_asked_for_by_its_first_day(look):
    """A button changes the question and the address; the choice goes along to the other pages."""
    viewer = look()
    viewer.open()
    with viewer.page.expect_request("**/admin/api/overview*") as asked:
        viewer.page.click("text=7 days")
    days = viewer.page.evaluate(
        "(text) => (new Date(new Intl.DateTimeFormat('en-CA').format()) - new Date(text)) / 864e5",
        re.search(r"since=([\d-]+)", asked.value.url)[1],
    )
    assert days == 6
    viewer.page.wait_for_selector("button[aria-pressed=true] >> text=7 days")
    assert viewer.page.url.endswith("#/overview?period=week")
    assert viewer.page.get_attribute("nav a >> text=Classes", "href") == "#/classes?period=week"


def test_all_can_be_done_by_keyboard(look):
    """The first stop skips to the content; every control is reached in turn, and shows that it is."""
    viewer = look()
    viewer.open()
    page = viewer.page
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith("#/overview")
    page.evaluate("() => { document.activeElement.blur(); document.querySelector('.skip').focus(); }")
    stops = "[...document.querySelectorAll('a[href], button, select, input, summary, .scroll')]"
    wanted = page.evaluate(f"{stops}.filter((node) => node.checkVisibility()).length")
    page.evaluate("window.reached = new Set()")
    page.evaluate("document.addEventListener('focusin', (event) => window.reached.add(event.target))")
    for _ in range(wanted + 3):
        page.keyboard.press("Tab")
        outlined = page.evaluate(
            "[document.activeElement].every((n) => n === document.body || getComputedStyle(n).outlineStyle !== 'none')"
        )
        assert outlined, page.evaluate("document.activeElement.outerHTML")
    reached = page.evaluate("window.reached.size")
    assert reached >= wanted
    page.focus("nav a >> text=Caches")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1 >> text=Caches")


def test_where_keys_are_asked_for_the_page_asks_for_one(look):
    """A wrong key gets a plain word and is gone; a right one opens the page; nothing of it is kept."""
    answers = with_answers(session=KEYS)
    viewer = look(answers)
    tries = []

    def session(route):
        if route.request.method == "POST":
            key = route.request.post_data_json["key"]
            tries.append(key)
            if key != RIGHT:
                route.fulfill(
                    status=403 if key == "user" else 401, json={"error": {"message": "no", "param": None, "code": "x"}}
                )
                return
            route.fulfill(status=200, json={**KEYS, "signed_in": True, "key_id": "ops", "expires_s": 1.0})
        else:
            route.fulfill(status=200, json=KEYS)

    viewer.page.route("**/admin/api/session", session)
    viewer.page.goto(viewer.url)
    page = viewer.page
    page.wait_for_selector("#key")
    viewer.screen("sign-in-1280", whole=False)
    assert page.evaluate(AUDIT) == []
    assert not page.is_visible("nav a >> nth=0")
    for key, words in (("wrong", "No such key"), ("user", "not an administrator's")):
        page.fill("#key", key)
        page.keyboard.press("Enter")
        page.wait_for_selector(f".problem >> text={words}")
        assert page.input_value("#key") == ""
    page.fill("#key", RIGHT)
    page.keyboard.press("Enter")
    page.wait_for_selector(".heroes")
    assert tries == ["wrong", "user", RIGHT]
    assert "ops" in page.inner_text(".account")
    assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
    assert RIGHT not in page.content()
    page.click("text=Sign out")
    page.wait_for_selector("#key")
    viewer.faults[:] = [fault for fault in viewer.faults if "401" not in fault and "403" not in fault]


def test_a_session_that_has_ended_asks_again(look):
    """What was shown is taken away, and the form says why it is there."""
    answers = with_answers(session={**KEYS, "signed_in": True, "key_id": "ops"})
    viewer = look(answers)
    viewer.open()
    answers["classes"] = 401
    viewer.page.click("nav a >> text=Classes")
    viewer.page.wait_for_selector("#key")
    assert "session has ended" in viewer.page.inner_text("main")
    assert viewer.page.locator(".heroes").count() == 0
    viewer.faults[:] = [fault for fault in viewer.faults if "401" not in fault]


@pytest.mark.parametrize("status", [404, 500, 501])
def test_an_error_is_said_where_it_happened(look, status):
    """In words, in the page; the other pages go on working."""
    answers = with_answers(prompts=status)
    viewer = look(answers)
    viewer.open()
    viewer.page.click("nav a >> text=Prompts")
    viewer.page.wait_for_selector(".notice[role=alert]")
    assert "there is nothing at prompts" in viewer.page.inner_text("main")
    viewer.page.click("nav a >> text=Caches")
    viewer.page.wait_for_selector("h1 >> text=Caches")
    viewer.page.wait_for_selector("main table")
    viewer.faults[:] = [fault for fault in viewer.faults if str(status) not in fault]


def test_a_first_day_fills_its_pictures(look):
    """Thirty days with calls on one of them: sums of all, pictures of that day by the quarter of an hour."""
    month, day = figures.overview(), figures.overview()
    for shown, there in ((month, {29}), (day, set(range(4, 12)))):
        total = shown["series"]["total"]
        total["calls"] = [n if i in there else 0 for i, n in enumerate(total["calls"])]
    day["period"] = {**day["period"], "bucket": "quarter"}
    since = month["series"]["starts_s"][29]
    day["series"]["starts_s"] = [since + 900 * i for i in range(30)]
    viewer = look(timezone_id="UTC")
    viewer.page.route(
        "**/admin/api/overview*",
        lambda route: route.fulfill(json=day if "bucket=quarter" in route.request.url else month),
    )
    with viewer.page.expect_request(f"**/admin/api/overview*since={since:.0f}*"):
        viewer.open()
    assert "12,000 calls" in viewer.page.inner_text(".head")
    text = viewer.page.inner_text("main")
    assert "All calls of the period were on 27 Nov 2026. Each bar is a quarter of an hour." in text
    assert "The figure is from 02:45 on, the line of that day." in text
    viewer.page.locator("summary", has_text="The same as a table").last.click()
    times = viewer.page.locator("table", has=viewer.page.locator("caption >> text=How it went")).locator("tbody th")
    assert times.all_inner_texts() == [f"27 Nov 0{1 + i // 4}:{15 * (i % 4):02}" for i in range(8)]


def test_a_ledger_without_its_gateway_says_what_nobody_can_know(look):
    """No uptime, no calls to come, no queue for review and no policy: each said, none made up."""
    shown = figures.overview()
    shown["tiles"]["uptime"] = {"started_s": None, "uptime_s": None, "problems": {}}
    shown["honesty"]["holdout"]["share_configured"] = None
    caches = {**figures.caches(), "learned": None, "learned_note": "it lies with its gateway"}
    caches["review"] = {"waiting": None, "command": None}
    caches["caches"][0]["mode"] = None
    viewer = look(with_answers(overview=shown, caches=caches, routing={**figures.routing(), "policies": None}))
    viewer.open()
    assert viewer.page.inner_text("[data-tile=uptime] .mid").startswith("–")
    assert viewer.page.locator("#just-now").count() == 0
    viewer.page.wait_for_selector("#live >> text=A ledger, not live")
    assert "by configuration" not in viewer.page.inner_text("#honesty")
    viewer.open("caches")
    assert "Not known here: it lies with its gateway." in viewer.page.inner_text("main")
    assert "nothing waits" not in viewer.page.inner_text("main")
    assert viewer.page.locator("tbody tr").first.locator("th .badge").count() == 0
    viewer.open("routing")
    assert "Not known here: no configuration says how" in viewer.page.inner_text("main")
    nothing = figures.nothing_yet()
    nothing["tiles"]["uptime"] = shown["tiles"]["uptime"]
    viewer = look(with_answers(overview=nothing))
    viewer.open()
    assert "There is no call in this ledger." in viewer.page.inner_text("main")
    assert "base_url" not in viewer.page.inner_text("main")


def test_what_was_shortened_stands_beside_what_was_sent(look):
    """A text before and after, and by how much it became shorter; nothing is guessed where it is not kept."""
    shown = figures.request()
    viewer = look({**figures.usual(), "requests/nw-65f00002": shown})
    viewer.open("requests/nw-65f00002")
    pair = viewer.page.locator(".pairing")
    assert pair.locator("pre").all_inner_texts()[1] == "You answer questions about orders."
    assert "34 of 73 characters, −53 %" in pair.inner_text()
    del shown["shaped"]["texts"][0]["sent"]
    viewer = look({**figures.usual(), "requests/nw-65f00002": shown})
    viewer.open("requests/nw-65f00002")
    assert viewer.page.locator(".pairing .missing").get_attribute("title") == "what was sent in its place is not kept"


def test_a_fact_of_a_call_finds_the_calls_that_share_it(look):
    """From one call to all of its task: the filter is set, and stands in its field."""
    viewer = look()
    viewer.open("requests/nw-65f00002")
    with viewer.page.expect_request("**/admin/api/requests?*task=t-2*"):
        viewer.page.locator(".facts a", has_text="t-2").click()
    viewer.page.wait_for_selector("text=Clear all")
    assert viewer.page.input_value("[name=task]") == "t-2"


def test_budgets_alerts_and_levels_say_how_they_stand(look):
    """Promises in their units, budgets with owner and forecast, alerts that are over; of many budgets the fullest."""
    many = figures.budgets()
    usual = {**many["budgets"][0], "owner": "desk", "forecast": 120.0}
    many["budgets"] = [
        {**usual, "name": f"user {i}", "covers": {"user": f"u-{i}"}, "spent": float(i)} for i in range(40)
    ]
    viewer = look(with_answers(budgets=many))
    viewer.open("budgets")
    text = viewer.page.inner_text("main")
    for part in ("2.00 s", "95 % of calls", "97 % of 11,800", "49 % of its budget left", "cost per success: broken",
                 "$0.0123", "unpriced model", "until 27 Nov", "owner desk", "over budget",
                 "by its end $120.00 if it goes on like this"):  # fmt: skip
        assert part in text, part
    assert viewer.page.locator(".budgets li").count() == 12
    assert "user 39" in viewer.page.locator(".budgets li").first.inner_text()
    viewer.page.click("text=All 40 budgets")
    assert (
        viewer.page.locator("table", has=viewer.page.locator("caption >> text=Budgets")).locator("tbody tr").count()
        == 40
    )
    assert viewer.page.evaluate(AUDIT) == []


def test_on_a_phone_the_chosen_page_stands_in_the_bar(look):
    """The bar is wider than the window; it is moved to where the reader is."""
    viewer = look(viewport={"width": 390, "height": 844})
    viewer.open("budgets")
    viewer.page.wait_for_selector("nav a[aria-current] .n")  # how many alerts fire: the last that is drawn in the bar
    box = viewer.page.locator("nav a[aria-current]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_what_one_success_takes_stands_beside_how_often_there_is_one(look):
    """Cost with its interval, rate, energy, time, and how many tasks nobody has judged; a dash where none succeeded."""
    answers = figures.usual()
    viewer = look(answers)
    viewer.open()
    text = viewer.page.inner_text("[data-tile=success]")
    for part in ("$0.00810", "[$0.00745, $0.00875]", "87 % [85, 89] of 700 judged succeeded",
                 "200 more tasks not judged", "400 mWh and 4.20 s for a success"):  # fmt: skip
        assert part in text, part
    none = copy.deepcopy(answers["overview"])
    none["tiles"]["success"] |= {"cost_per_success_usd": dict(figures.NOTHING), "rate": figures.around(0.0)}
    viewer = look(with_answers(overview=none))
    viewer.open()
    assert viewer.page.get_attribute("[data-tile=success] .mid .missing", "title") == "undefined: no task succeeded"


def test_alerts_are_looked_at_again_though_no_call_comes(look):
    """An alert that begins while one looks shows in the bar within half a minute, and in the page about alerts."""
    answers = with_answers(alerts={**figures.alerts(), "alerts": []})
    viewer = look(answers)
    viewer.page.clock.install()
    viewer.open("budgets")
    viewer.page.wait_for_selector("text=nothing is firing")
    assert viewer.page.locator("nav .n").count() == 0
    answers["alerts"] = figures.alerts()
    viewer.page.clock.run_for(31_000)
    viewer.page.wait_for_selector("nav .n >> text=1")
    viewer.page.wait_for_selector("main >> text=burns its budget of failures")
