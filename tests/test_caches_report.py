"""What the report says of the caches: who looked, who answered, what that saved, how old it was, how often wrong."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import msgspec
import orjson
import pytest
from batches import embedded
from recalls import SEMANTIC, bold, recalling
from report_world import GRID, a_comparison, a_run, priced, spared
from rich.console import Console
from worlds import Fake, chat, virtual, world

from negawatt.call import Call, Target
from negawatt.ledger.outcome import Outcome
from negawatt.proof.report import html_report, terminal_report
from negawatt.proof.summary import LedgerView, ledger_series, summarise, summarise_ledger
from negawatt.reply import Reply
from negawatt.wire.embeddings import EMBEDDINGS

VIEW = LedgerView(title="Ledger", date="2026-11-24", grid=GRID)
CACHES = ["exact_cache", "item_cache", "coalesce", "semantic_cache"]


def figures(rows: list[Outcome], name: str) -> dict[str, Any]:
    return summarise_ledger(rows, VIEW)["caches"][name]


def printed(summary: dict[str, Any]) -> str:
    """Return what a terminal of 80 columns shows."""
    console = Console(width=80, file=io.StringIO())
    console.print(terminal_report(summary))
    return console.file.getvalue()


def decided(row: Outcome, *decisions: dict[str, Any]) -> Outcome:
    return msgspec.structs.replace(row, decisions=json.dumps(decisions))


def hit(lever: str = "exact_cache", action: str = "hit", **detail: Any) -> dict[str, Any]:
    saved = {"input_tokens": 100, "output_tokens": 50, "cost_pusd": 10**9, "energy_j": [1.8, 3.6, 7.2]}
    return {"lever": lever, "action": action, "saved": saved, "detail": detail}


def test_an_empty_ledger_has_four_caches_that_did_nothing():
    """All are there with their zeros; what is not known of no calls is null, and the page has no table of them."""
    summary = summarise_ledger([], VIEW)
    assert list(summary["caches"]) == CACHES
    for name, cache in summary["caches"].items():
        assert (cache["calls"], cache["hits"], cache["stale"]) == (None if name == "coalesce" else 0, 0, 0)
        assert cache["hit_rate"]["mean"] is None
        assert (cache["cost_usd"], cache["age_s"]) == (0, {"p50": None, "p95": None})
    assert "<h2>Caches</h2>" not in html_report(summary, ledger_series([]))


def test_one_row_is_enough():
    """One hit of one call: all of it, with an interval that knows how little that is."""
    cache = figures([decided(priced(0, 1.0), hit(age_s=30.0))], "exact_cache")
    assert (cache["calls"], cache["hits"], cache["hit_rate"]["mean"]) == (1, 1, 1.0)
    assert cache["hit_rate"]["low"] < 0.1
    assert (cache["input_tokens"], cache["output_tokens"], cache["cost_usd"]) == (100, 50, 0.001)
    assert cache["energy_wh"] == pytest.approx([0.0005, 0.001, 0.002])
    assert cache["age_s"] == {"p50": 30.0, "p95": 30.0}


def test_the_share_is_of_the_calls_that_the_cache_looked_at():
    """Bypassed and refreshed calls were not looked at; stale answers are answers, and are counted apart."""
    miss, by = ({"lever": "exact_cache", "action": action} for action in ("miss", "bypass"))
    refresh = {"lever": "exact_cache", "action": "refresh"}
    each = [hit(), hit(action="stale"), miss, miss, by, refresh, {"lever": "coalesce", "action": "bypass"}]
    cache = figures([decided(priced(i, 1.0), one) for i, one in enumerate(each)], "exact_cache")
    assert (cache["calls"], cache["hits"], cache["stale"], cache["hit_rate"]["mean"]) == (4, 2, 1, 0.5)


def test_ages_are_quantiles_of_the_answers_given():
    """Nearest rank: half of the answers were no older than p50, and 95 in 100 no older than p95."""
    rows = [decided(priced(i, 1.0), hit(age_s=float(i))) for i in range(1, 101)]
    assert figures(rows, "exact_cache")["age_s"] == {"p50": 50.0, "p95": 95.0}
    two = [decided(priced(i, 1.0), hit(age_s=float(i))) for i in (1, 2)]
    assert figures(two, "exact_cache")["age_s"] == {"p50": 1.0, "p95": 2.0}


def test_a_hit_of_unknown_worth_is_counted_apart():
    """It adds nothing to the sum; where no hit has a known worth, the sum is unknown and not 0."""
    unknown = {"lever": "semantic_cache", "action": "hit", "detail": {"tier": "curated"}}
    learned = hit("semantic_cache", tier="learned", risk=0.25)
    rows = [decided(priced(0, None), unknown), decided(priced(1, 1.0), learned)]
    cache = figures(rows, "semantic_cache")
    assert (cache["hits"], cache["unpriced_hits"], cache["cost_usd"], cache["curated_hits"]) == (2, 1, 0.001, 1)
    assert cache["modelled_wrong"] == 0.25
    alone = figures(rows[:1], "semantic_cache")
    assert (alone["hits"], alone["unpriced_hits"], alone["cost_usd"], alone["input_tokens"]) == (1, 1, None, None)
    assert alone["energy_wh"] == [None, None, None]


def test_what_happened_in_shadow_counts_for_nothing():
    """It answered nobody."""
    cache = figures([decided(priced(0, 1.0), hit() | {"mode": "shadow"})], "exact_cache")
    assert (cache["calls"], cache["hits"], cache["cost_usd"]) == (0, 0, 0)


def test_what_coalescing_forwards_is_not_known():
    """So it has hits and no share; what they saved is in the decision that the flight writes when it has landed."""
    rows = [priced(0, 1.0), spared(priced(1, 2.0), "coalesce")]
    cache = figures(rows, "coalesce")
    assert (cache["calls"], cache["hits"], cache["hit_rate"]["mean"], cache["cost_usd"]) == (None, 1, None, 2.0)


def test_explored_calls_are_looked_at_and_not_answered():
    """They cost as much as any other: that is the price of the estimate."""
    explored = {"lever": "semantic_cache", "action": "explored", "reason": "asked anyway, to compare"}
    cache = figures([decided(priced(i, 1.0), explored) for i in range(3)], "semantic_cache")
    assert (cache["calls"], cache["hits"], cache["explored"], cache["hit_rate"]["mean"]) == (3, 0, 3, 0.0)


@virtual
async def test_the_rows_of_a_gateway_say_what_its_caches_did():
    """Exact, stale and semantic hits, as they stand in real rows."""
    levers = {**SEMANTIC, "exact_cache": {"mode": "on"}}
    async with recalling(levers=levers, classes={"faq": {"ttl_s": 10, "stale_s": 100}}) as w:
        bold(w, "faq")
        for text, after in [("how do I pay", 0), ("how do I pay", 4), ("how do I pay please", 1), ("how do I pay", 20)]:
            await asyncio.sleep(after)
            await w.ask(chat(text), request_class="faq")
        await asyncio.sleep(5)
        summary = summarise_ledger(w.rows(), VIEW)
    exact, semantic = (summary["caches"][name] for name in ("exact_cache", "semantic_cache"))
    assert (exact["calls"], exact["hits"], exact["stale"]) == (4, 2, 1)
    assert exact["age_s"]["p50"] == pytest.approx(4, abs=1)
    assert exact["age_s"]["p95"] == pytest.approx(25, abs=2)
    assert (semantic["hits"], semantic["curated_hits"]) == (1, 0)
    assert semantic["modelled_wrong"] == pytest.approx(0.001)
    assert summary["levers"]["exact_cache"]["hits"] == 2


class Embeds(Fake):
    """A provider of embeddings."""

    speaks = frozenset({"embeddings"})

    async def ask(self, call: Call, target: Target) -> Reply:
        return Reply(EMBEDDINGS, body=orjson.dumps(embedded(call.request.data, target.model)))


@virtual
async def test_a_batch_of_which_a_part_was_known_is_a_hit():
    """With what the known part spared; a batch of which nothing was known is none."""
    async with world(Embeds()) as w:
        for texts in (["a", "b"], ["b", "c"], ["a", "b", "c"]):
            await w.send(w.call({"model": "text-embedding-3-small", "input": texts}, wire=EMBEDDINGS))
        cache = figures(w.rows(), "item_cache")
    assert (cache["calls"], cache["hits"], cache["unpriced_hits"]) == (3, 2, 0)
    assert cache["input_tokens"] > 0 and cache["cost_usd"] > 0


LEARNED = {
    "class": "faq", "tier": "learned", "budget": 0.01, "requests": 4000, "served": 1200, "explored": 60,
    "compared": 900, "human": 3, "waiting": 2, "threshold": 0.04,
    "wrong_share": {"mean": 0.0042, "low": 0.0021, "high": 0.0063},
}  # fmt: skip
CURATED = {**LEARNED, "tier": "curated", "budget": None, "requests": None, "served": None, "threshold": None,
           "wrong_share": None}  # fmt: skip


def test_the_estimate_of_wrong_answers_stands_beside_its_budget():
    """With its interval, in all three forms of the report; where it is unknown it says so."""
    rows = [decided(priced(0, 1.0), hit("semantic_cache", tier="learned", risk=0.1, age_s=1.0))]
    view = msgspec.structs.replace(VIEW, learned=[LEARNED, CURATED])
    summary = summarise_ledger(rows, view)
    assert summary["learned"] == [LEARNED, CURATED]
    text, page = printed(summary), html_report(summary, ledger_series(rows))
    for shown in (text, page):
        assert "How often the semantic cache was wrong" in shown
        assert all(word in shown for word in ("0.42 %", "[0.21, 0.63]", "1.00 %", "4,000", "unknown"))


def test_why_an_estimate_is_not_known_is_said():
    """A memory index lives in its server: no figure is better than an invented one."""
    view = msgspec.structs.replace(VIEW, learned=None, learned_note="Not known here: a memory index.")
    summary = summarise_ledger([priced(0, 1.0)], view)
    assert "Not known here: a memory index." in printed(summary)
    assert "Not known here: a memory index." in html_report(summary, ledger_series([priced(0, 1.0)]))


def test_the_tables_fit_eighty_columns_and_the_page():
    """Large figures too; the page says that layers are counted elsewhere, and has one row for each cache in use."""
    big = hit(age_s=123_456.0)
    big["saved"] |= {"input_tokens": 10**9, "output_tokens": 10**9, "cost_pusd": 123_456 * 10**12}
    rows = [decided(priced(0, 1.0), big, hit("semantic_cache", tier="learned", risk=0.01, age_s=1.0)),
            decided(priced(1, 1.0), hit("item_cache", "partial")), spared(priced(2, 1.0), "coalesce")]  # fmt: skip
    summary = summarise_ledger(rows, msgspec.structs.replace(VIEW, learned=[LEARNED, CURATED]))
    assert max(map(len, printed(summary).splitlines())) <= 80
    section = html_report(summary, ledger_series(rows)).split("<h2>Caches</h2>")[1].split("<h2>All arms</h2>")[0]
    assert "negawatt_layer_operations_total" in section
    assert [section.count(f'<th scope="row">{name}</th>') for name in CACHES] == [1, 1, 1, 1]


def test_a_replay_has_the_same_table():
    """Of the run with all levers; what was learned belongs to a gateway, and is not in it."""
    summary = summarise(a_run())
    hits = summary["caches"]["exact_cache"]["hits"]
    assert hits == summary["levers"]["exact_cache"]["hits"] > 0
    assert "learned" not in summary
    assert "Caches" in printed(summary)
    assert summarise(a_comparison([priced(0, 1.0)], [priced(0, 1.0)]))["caches"]["exact_cache"]["hits"] == 0
