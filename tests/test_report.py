"""The report: what it adds up, what it refuses to add up, and how it says so to each of its readers."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest
from report_world import GRID, PUSD, a_comparison, a_row, a_run, an_arm, priced, replayed, spared, traffic
from rich.console import Console

from negawatt.proof import formats, page
from negawatt.proof.report import html_report, json_report, terminal_report
from negawatt.proof.summary import LedgerView, ReplayRun, ledger_series, series_of, summarise, summarise_ledger

ARM_KEYS = {"cost_usd", "energy_wh", "input_tokens", "output_tokens", "upstream_calls", "p50_ms", "p95_ms",
            "success_rate", "cost_per_success_usd"}  # fmt: skip
SAVING_KEYS = {"cost_pct", "input_tokens_pct", "output_tokens_pct", "energy_pct", "latency_p50_pct"}
VIEW = LedgerView(title="Ledger", date="2026-11-23", grid=GRID, command="negawatt report")


def printed(summary):
    """Return what a terminal of 80 columns shows."""
    console = Console(width=80, file=io.StringIO())
    console.print(terminal_report(summary))
    return console.file.getvalue()


def test_the_summary_has_exactly_the_promised_shape():
    """Requests, provider, arms, savings and levers stand at the top; every saving is mean, low and high."""
    summary = json.loads(json_report(summarise(a_run())))
    assert {"requests", "provider", "arms", "savings", "levers"} <= set(summary)
    assert list(summary["arms"]) == ["none", "all", "without_exact_cache", "without_coalesce"]
    assert all(set(arm) >= ARM_KEYS for arm in summary["arms"].values())
    assert set(summary["savings"]) == SAVING_KEYS
    assert all(set(saving) == {"mean", "low", "high"} for saving in summary["savings"].values())
    assert all(saving["low"] <= saving["mean"] <= saving["high"] for saving in summary["savings"].values())
    assert len(summary["arms"]["all"]["energy_wh"]) == 3
    assert (summary["requests"], summary["provider"]) == (200, "recorded")


def test_savings_are_what_a_pocket_calculator_says():
    """Four calls at 4, 3, 2 and 1 dollars, of which a cache spares the first and the last: half the cost is saved."""
    none = [priced(i, cost) for i, cost in enumerate((4, 3, 2, 1))]
    every = [spared(none[0], "exact_cache"), none[1], none[2], spared(none[3], "exact_cache")]
    summary = summarise(a_comparison(none, every, [True, True, False, True]))
    assert summary["savings"]["cost_pct"]["mean"] == pytest.approx(50.0)
    assert summary["arms"]["none"]["cost_usd"] == 10.0
    assert summary["arms"]["all"]["cost_usd"] == 5.0
    assert summary["arms"]["all"]["upstream_calls"] == 2
    assert summary["arms"]["all"]["success_rate"] == 0.75
    assert summary["arms"]["all"]["cost_per_success_usd"] == pytest.approx(5 / 3)
    lever = summary["levers"]["exact_cache"]
    assert lever["hits"] == 2
    assert lever["cost_usd"]["mean"] == 5.0
    assert lever["cost_pct"]["mean"] == pytest.approx(50.0)
    assert lever["input_tokens"]["mean"] == 200.0
    assert lever["energy_wh"]["estimates"] == pytest.approx([2 * 20 / 3600, 2 * 50 / 3600, 2 * 125 / 3600])


def test_money_adds_up_to_the_last_digit():
    """A million tenths of a cent are a thousand dollars: sums are of whole pico-dollars."""
    rows = [a_row(i, cost_pusd=PUSD // 1000 + 1) for i in range(1000)]
    assert summarise(a_comparison(rows, rows))["arms"]["none"]["cost_usd"] == (PUSD + 1000) / PUSD


def test_an_unpriced_call_is_counted_and_never_free():
    """The total is of the priced calls, and says how many it leaves out; the saving compares priced calls only."""
    none = [priced(0, 2.0), priced(1, None), priced(2, 2.0)]
    every = [spared(none[0], "exact_cache"), none[1], none[2]]
    summary = summarise(a_comparison(none, every))
    assert summary["arms"]["all"]["cost_usd"] == 2.0
    assert summary["arms"]["all"]["unpriced_requests"] == 1
    assert summary["savings"]["cost_pct"]["mean"] == pytest.approx(50.0)
    assert "+ 1 unpriced" in printed(summary)


def test_with_no_price_at_all_the_cost_is_unknown():
    """Nothing priced: the cost is null, the saving is null, and the headline says undefined instead of 0 %."""
    rows = [priced(i, None) for i in range(5)]
    summary = summarise(a_comparison(rows, rows))
    assert summary["arms"]["none"]["cost_usd"] is None
    assert summary["savings"]["cost_pct"] == {"mean": None, "low": None, "high": None}
    assert page.headline(summary).startswith("cost undefined")
    assert page.waterfall(summary) is None


def test_a_hit_of_unknown_worth_is_a_hit_without_a_saving():
    """A cached answer whose price nobody knows counts as a hit, adds nothing to the sum, and is counted apart."""
    none = [priced(0, 1.0), priced(1, None)]
    every = [spared(row, "exact_cache") for row in none]
    lever = summarise(a_comparison(none, every))["levers"]["exact_cache"]
    assert (lever["hits"], lever["unpriced_hits"], lever["cost_usd"]["mean"]) == (2, 1, 1.0)


@pytest.mark.parametrize(
    ("success", "rate", "each"),
    [([None, None], None, None), ([False, False], 0.0, None), ([True, None], 1.0, 3.0), ([True, False], 0.5, 4.0)],
)
def test_cost_per_success_is_undefined_without_successes(success, rate, each):
    """Unknown successes are left out with their cost; failures stay in the cost; no success gives no figure."""
    rows = [priced(0, 3.0), priced(1, 1.0)]
    arm = summarise(a_comparison(rows, rows, success))["arms"]["all"]
    assert (arm["success_rate"], arm["cost_per_success_usd"]) == (rate, each)


def test_a_tail_is_not_read_off_a_handful_of_calls():
    """Below 60 answered calls there is no p95, below 300 no p99."""
    for n, p95, p99 in ((59, False, False), (60, True, False), (299, True, False), (300, True, True)):
        rows = [priced(i, 1.0) for i in range(n)]
        arm = summarise(a_comparison(rows, rows))["arms"]["none"]
        assert (arm["p95_ms"] is not None, arm["p99_ms"] is not None) == (p95, p99)


def test_a_refused_call_does_not_make_the_gateway_look_fast():
    """Latency is of calls that had their whole answer; how the others ended is counted."""
    rows = [priced(0, 1.0), a_row(1, ending="refused", duration_s=0.001), a_row(2, ending="cancelled", duration_s=0.1)]
    arm = summarise(a_comparison(rows, rows))["arms"]["none"]
    assert arm["p50_ms"] == pytest.approx(1600.0)
    assert arm["delivered_requests"] == 1
    assert arm["endings"] == {"answered": 1, "cancelled": 1, "refused": 1}


def test_who_waits_for_a_shared_answer_saves_only_the_rest_of_the_wait():
    """A call that joined another's for 0.6 of its 1.6 seconds had its answer 1 second sooner."""
    none = [priced(0, 1.0), priced(1, 1.0)]
    every = [none[0], spared(none[1], "coalesce", waited_s=0.6)]
    assert summarise(a_comparison(none, every))["levers"]["coalesce"]["latency_s"]["mean"] == pytest.approx(1.0)


def test_what_a_lever_adds_is_measured_by_leaving_it_out():
    """The saving of all levers is that of the others plus what this one adds, to the last digit."""
    summary = summarise(a_run())
    for lever in ("exact_cache", "coalesce"):
        added = summary["levers"][lever]["marginal"]["cost_pct"]["mean"]
        others = summary["arms"][f"without_{lever}"]["savings"]["cost_pct"]["mean"]
        assert added + others == pytest.approx(summary["savings"]["cost_pct"]["mean"])


def test_a_lever_that_was_left_out_but_never_hit_is_shown_with_nothing():
    """Its zero is a result: it is not hidden."""
    rows = [priced(i, 1.0) for i in range(3)]
    run = a_comparison(rows, rows)
    run = msgspec.structs.replace(run, arms=[*run.arms, an_arm("without_coalesce", rows)])
    lever = summarise(run)["levers"]["coalesce"]
    assert (lever["hits"], lever["cost_usd"]["mean"], lever["marginal"]["cost_pct"]["mean"]) == (0, 0.0, 0.0)


def test_levers_stand_in_pipeline_order():
    """The order is read off the decisions: a call meets the levers on its way down, whichever of them hit first."""
    rows = [priced(0, 1.0), spared(priced(1, 1.0), "coalesce"), spared(priced(2, 1.0), "exact_cache")]
    assert list(summarise(a_comparison(rows, rows))["levers"]) == ["exact_cache", "coalesce"]


def test_a_decision_in_shadow_saves_nothing_and_is_shown_apart():
    """What a lever would have saved is no part of what was saved."""
    row = priced(0, 1.0)
    saved = json.loads(spared(row, "exact_cache").decisions)[0] | {"mode": "shadow"}
    rows = [priced(0, 1.0, decisions=json.dumps([saved])), priced(1, 1.0)]
    summary = summarise_ledger(rows, VIEW)
    assert summary["levers"] == {}
    assert summary["shadow_levers"]["exact_cache"]["cost_usd"]["mean"] == 1.0
    assert "In shadow, would have saved" in printed(summary)


def test_arms_of_different_requests_are_refused():
    """Arms are compared call by call: a missing call is a mistake, not a saving."""
    run = a_comparison([a_row(0), a_row(1)], [a_row(0), a_row(1)])
    with pytest.raises(ValueError, match="every arm must hold all 2 requests"):
        summarise(msgspec.structs.replace(run, arms=[run.arms[0], an_arm("all", [a_row(0)])]))


def test_a_report_can_be_made_again():
    """The same run and seed give the same JSON; another seed moves the intervals and not the figures."""
    assert json_report(summarise(a_run())) == json_report(summarise(a_run()))
    other = summarise(a_run(seed=2))["savings"]["cost_pct"]
    assert other["mean"] == summarise(a_run())["savings"]["cost_pct"]["mean"]
    assert other["low"] != summarise(a_run())["savings"]["cost_pct"]["low"]


@pytest.mark.parametrize(
    ("provider", "simulated", "first"),
    [("modelled", True, "Simulated: "), ("recorded", True, "Partly simulated. Recorded: the answers"),
     ("recorded", False, "Recorded: the answers"), ("live", False, "Live: ")],
)  # fmt: skip
def test_the_first_line_says_what_is_simulated(provider, simulated, first):
    """Terminal, page and JSON begin with it, notes included."""
    run = a_run(20, 5, provider=provider, simulated=simulated, notes=["timings are modelled"])
    summary = summarise(run)
    assert summary["first_line"].startswith(first)
    assert summary["first_line"].endswith("timings are modelled.")
    assert printed(summary).startswith(first)
    body = html_report(summary, series_of(run)).split("<body>")[1]
    assert body.index(first) < body.index("<h1>")


def test_the_ledger_is_compared_with_what_the_calls_would_have_come_to():
    """A cached call cost nothing and would have cost a dollar."""
    rows = [priced(0, 1.0), spared(priced(1, 1.0), "exact_cache"), spared(priced(2, 2.0), "exact_cache")]
    summary = summarise_ledger(rows, VIEW)
    assert summary["savings"]["cost_pct"]["mean"] == pytest.approx(75.0)
    assert summary["arms"]["baseline"]["cost_usd"] == 4.0
    assert summary["arms"]["actual"]["cost_usd"] == 1.0
    assert summary["period"] == {"from": "2026-09-21T14:13:20Z", "to": "2026-09-21T14:13:22Z"}
    assert summary["versions"]["prices"] == "genai-prices 0.2.3"


def test_a_ledger_with_modelled_answers_says_so_first():
    """Rows that a stand-in answered make the report partly simulated, by the provider's name or its kind."""
    rows = [priced(0, 1.0, provider="stub"), priced(1, 1.0)]
    summary = summarise_ledger(rows, msgspec.structs.replace(VIEW, kinds={"stub": "modelled"}))
    assert summary["first_line"].startswith("Partly simulated: the answer of 1 of 2 calls was modelled")
    assert summary["simulated"] is True


def with_holdout(every, dearer=1.0):
    """Return a ledger in which each *every*-th call passed no lever, and would have cost *dearer* times as much."""
    calls = traffic(900, 300)
    rows = replayed(calls, ("exact_cache", "coalesce"))
    for i in range(0, len(rows), every):
        raw = calls[i][0]
        cost = round(raw.cost_pusd * dearer)
        rows[i] = msgspec.structs.replace(raw, holdout=True, cost_pusd=cost, baseline_cost_pusd=cost)
    return rows


@pytest.mark.parametrize(
    ("every", "dearer", "verdict"), [(10, 1.0, "agree"), (10, 0.2, "disagree"), (90, 1.0, "too few")]
)
def test_the_holdout_checks_the_estimate(every, dearer, verdict):
    """Where the control group contradicts the estimated saving beyond the intervals, the report warns."""
    summary = summarise_ledger(with_holdout(every, dearer), VIEW)
    assert summary["holdout"]["verdict"] == verdict
    assert ("WARNING" in printed(summary)) == (verdict == "disagree")


def test_no_holdout_is_no_control_group():
    """Without a single held-out call there is nothing beside the estimate."""
    assert summarise_ledger([priced(0, 1.0)], VIEW)["holdout"] is None


@pytest.mark.parametrize(
    "run", [a_run(), a_run(0, 1), a_run(1, 1), a_run(3, 2, arms=[])], ids=["many", "none", "one", "x"]
)
def test_the_terminal_report_fits_eighty_columns(run):
    """However many calls, no line is wider, and energy never stands without the word estimated."""
    if not run.arms:
        run = msgspec.structs.replace(run, requests=0)
    text = printed(summarise(run))
    assert max(map(len, text.splitlines())) <= 80
    assert "estimated" in text


def test_the_headline_reads_as_a_change():
    """A saving of 41 % [37, 45] is a change of -41 % [-45, -37]."""
    saving = {"mean": 41.2, "low": 37.1, "high": 44.9}
    assert formats.change(saving) == "−41 % [−45, −37]"
    assert formats.change({"mean": -3.04, "low": -5.0, "high": None}) == "+3.0 % [?, +5.0]"
    assert formats.change({"mean": 0.01, "low": None, "high": None}) == "0 %"
    assert "energy −" in (head := page.headline(summarise(a_run())))
    assert "(estimated)" in head


def test_a_name_cannot_write_markup():
    """A lever called like a tag, or a title with one, is text to the terminal and to the page."""
    none = [priced(i, 1.0) for i in range(2)]
    hostile = '[red]<script>alert("x")</script>'
    every = [msgspec.structs.replace(spared(r, "exact_cache"), decisions=spared(r, "exact_cache").decisions.replace(
        "exact_cache", hostile.replace('"', "'"))) for r in none]  # fmt: skip
    run = a_comparison(none, every, title=hostile, workload={hostile: hostile}, notes=[hostile])
    html = html_report(summarise(run), series_of(run))
    assert "<script" not in html
    assert "[red]" in printed(summarise(run))


VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Collects what the page's tests look at, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def a_ledger_page(rows):
    return html_report(summarise_ledger(rows, VIEW), ledger_series(rows))


def a_replay_page(run):
    return html_report(summarise(run), series_of(run))


PAGES = {
    "replay": lambda: a_replay_page(a_run()),
    "empty": lambda: a_replay_page(a_run(0, 1)),
    "one call": lambda: a_replay_page(a_run(1, 1)),
    "huge": lambda: a_replay_page(a_run(100, 30, scale=1e8)),
    "no arm": lambda: a_replay_page(msgspec.structs.replace(a_run(0, 1), arms=[])),
    "one arm": lambda: a_replay_page(msgspec.structs.replace(a_run(5, 2), arms=[a_run(5, 2).arms[0]])),
    "ledger": lambda: a_ledger_page(with_holdout(10)),
    "empty ledger": lambda: a_ledger_page([]),
    "unpriced": lambda: a_ledger_page([priced(i, None) for i in range(3)]),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_needs_nothing_else(name):
    """It is well formed, its ids are its own, and it holds no script, no link and no address but the SVG namespace."""
    text = PAGES[name]()
    found = Page(text)
    assert len(found.ids) == len(set(found.ids))
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert not [a for a in found.attributes if a[1] in ("src", "href") or a[1].startswith("on")]
    assert set(re.findall(r"https?://[^\s\"<]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "estimated" in text.split("<footer>")[1]
    assert not re.search(r"\bnan\b|\binf\b|None", text.split("<body>")[1])


def test_every_picture_has_words_and_a_table():
    """Each of the three pictures names and describes itself, and its numbers stand in a table behind it."""
    text = PAGES["replay"]()
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 6  # each for a desk and for a phone
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root.get("role") == "img"
        names = {element.get("id"): element.text for element in root if element.get("id")}
        assert all(names[part] for part in root.get("aria-labelledby").split())
    assert text.count("The same as a table") == 3


def test_the_page_suits_both_themes():
    """Colours are variables, and a dark set replaces them where the reader prefers it."""
    text = PAGES["replay"]()
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "prefers-color-scheme: dark" in style
    used = set(re.findall(r"var\((--[a-z]+)\)", style))
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        assert used <= set(re.findall(r"(--[a-z]+):", block))


def test_the_footer_says_how_far_to_trust_it():
    """Sample, method, seed, basis, boundary, grid with its year, price table, machine, date and command."""
    footer = PAGES["replay"]().split("<footer>")[1]
    sample = ("200 calls", "bootstrap", "2,000 resamples", "seed 1")
    tables = ("estimated:class", "boundary facility", "WORLD", "2023", "genai-prices 0.2.3")
    making = ("2 cores, x86-64, Linux", "2026-11-23", "negawatt replay sample")
    for words in sample + tables + making:
        assert words in footer


def test_json_is_one_line_without_nan():
    """The last line of a command's output can be parsed by any program."""
    text = json_report(summarise(a_run(1, 1)))
    assert "\n" not in text
    assert json.loads(text, parse_constant=pytest.fail)["requests"] == 1
    assert "\n" in json_report(summarise(a_run(1, 1)), indent=True)


def test_loading_the_report_loads_no_page_maker():
    """jinja2 and rich are imported when a page or a table is made, not before."""
    code = "import sys, negawatt.proof.report; print([m for m in ('jinja2', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_is_complete_with_the_fields_it_must_have():
    """What a report says about itself has defaults; what it reports on has none."""
    with pytest.raises(TypeError):
        ReplayRun(title="x", date="2026-11-23")


def test_a_rate_over_some_calls_says_over_how_many():
    """Where not every call was judged, the rate and the cost of each success are of those that were, and say so."""
    rows = [priced(i, 1.0) for i in range(4)]
    text = printed(summarise(a_comparison(rows, rows, [True, True, False, None])))
    assert "3 judged" in text
