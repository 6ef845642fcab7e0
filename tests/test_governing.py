"""What pages and the watch are told of success, budgets and alerts: what the figures, the books and the watch say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from report_world import START, a_row
from test_success import word, write
from watched import SINK, Box, watched
from worlds import EPOCH, chat, configured, settled, start, virtual, world

from negawatt import governing
from negawatt.budgeting import budget_samples
from negawatt.budgets.rules import Rules
from negawatt.errors import StoreError
from negawatt.gateway import Gateway
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.success.figures import figures
from negawatt.success.keeping import catch_up
from negawatt.watch.values import PerSuccess
from negawatt.web_sources import whole_budget

LIMITED: dict[str, Any] = {"max_tokens": 100}
TOKENS, USD = 120, 27e-6  # of `worlds.answer`: what it used, and what that costs
DAY_END = EPOCH - EPOCH % 86_400 + 86_400


async def told(gateway: Gateway) -> list[dict[str, Any]]:
    """The rows of budgets that the pages show."""
    found = await governing.shown(gateway).budgets()
    assert found is not None
    return [dict(row) for row in found]


# -- budgets -----------------------------------------------------------------------------------------------------------


@virtual
async def test_without_budgets_a_watch_or_a_ledger_on_disk_nothing_is_claimed():
    """None, and not an empty list: it is not configured."""
    async with world() as w:
        sources = governing.shown(w.gateway)
        assert await sources.budgets() is None and await sources.alerts() is None
        assert sources.success(0.0, EPOCH, classes=False) is None
        assert governing.watched(w.gateway) == {"successes": None, "budgets": None}


@virtual
async def test_books_that_take_nothing_are_down_for_the_monitor_though_they_can_be_read():
    """A full disk: what was spent before is still there to be read, and no call can be made."""
    async with world(budgets=[{"name": "all", "tokens": 1_000}]) as w:
        up = ("negawatt_up", (("part", "budgets"),))
        samples = {sample[:2]: sample[2] for sample in await budget_samples(w.gateway.purse)}
        assert samples == {("negawatt_budget_remaining_ratio", (("budget", "all"),)): 1.0, up: 1.0}
        w.gateway.purse._books._failed = "the disk is full"
        assert [(*sample,) for sample in await budget_samples(w.gateway.purse)] == [(*up, 0.0)]


@virtual
async def test_a_budget_is_told_as_it_is_configured_and_as_the_books_have_it():
    """Spent and reserved in its own unit; when it begins anew; the first screen knows the one for everything."""
    month = {"name": "all", "usd": 2.5, "owner": "platform"}
    async with world(budgets=[month, {"name": "day", "tokens": 1_000, "per": "day", "at_limit": "queue"}]) as w:
        await w.ask(chat("one", **LIMITED))
        going = start(w, chat("two", **LIMITED))
        await settled()
        everything, day = await told(w.gateway)
        states = {one.budget: one for one in await w.gateway.purse.states()}
        assert everything == {
            "name": "all", "covers": {}, "owner": "platform", "unit": "usd", "limit": 2.5, "spent": USD,
            "reserved": float(states["all"].reserved), "forecast": everything["forecast"], "assumed": 0, "unknown": 0,
            "period": "month", "resets_s": states["all"].period_end, "policy": "refuse",
        }  # fmt: skip
        assert (day["spent"], day["unit"], day["limit"], day["policy"]) == (TOKENS, "tokens", 1_000, "queue")
        assert day["reserved"] > LIMITED["max_tokens"] and day["resets_s"] == DAY_END
        assert whole_budget([day, everything]) == {
            "name": "all", "limit_usd": 2.5, "spent_usd": USD, "resets_s": everything["resets_s"],
        }  # fmt: skip
        await going


@virtual
async def test_a_forecast_is_what_the_period_will_have_spent_at_this_pace_and_unknown_at_its_beginning():
    """Not 0, and not a hundred times what one early call used."""
    async with world(budgets=[{"name": "day", "tokens": 10_000, "per": "day"}]) as w:
        await asyncio.sleep(DAY_END - w.gateway.clock.time() + 60.0)
        await w.ask(chat("early", **LIMITED))
        (early,) = await told(w.gateway)
        assert (early["spent"], early["forecast"]) == (TOKENS, None)
        await asyncio.sleep(DAY_END + 43_200.0 - w.gateway.clock.time())
        (noon,) = await told(w.gateway)
        assert noon["forecast"] == pytest.approx(2 * TOKENS)


@virtual
async def test_of_budgets_for_each_user_those_with_the_least_left_are_told_first():
    """Each with its user and tenant, below the budgets that are configured before it; 200 of all at most."""
    budgets = [
        {"name": "each", "tokens": 2_000, "per": "day", "each": "user", "of": {"class": ["fast", "slow"]}},
        {"name": "all", "tokens": 10**6, "per": "day"},
    ]  # fmt: skip
    async with world(budgets=budgets, classes={"fast": {}, "slow": {}, "other": {}}) as w:
        for number, user in enumerate(["ann", "bob", "bob", "cy", "cy", "cy"]):
            await w.ask(chat(str(number), **LIMITED), user=user, request_class="fast")
        await w.ask(chat("not meant", **LIMITED), user="dan", request_class="other")
        *each, everything = await told(w.gateway)
        assert [(row["covers"]["user"], row["spent"]) for row in each] == [
            ("cy", 3 * TOKENS), ("bob", 2 * TOKENS), ("ann", TOKENS),
        ]  # fmt: skip
        assert {row["covers"]["class"] for row in each} == {"fast, slow"} and each[0]["covers"]["tenant"] == "default"
        assert everything["spent"] == 7 * TOKENS and whole_budget([everything]) is None
        for number in range(220):
            await w.ask(chat(f"more {number}", **LIMITED), user=f"u-{number}", request_class="slow")
        rows = await told(w.gateway)
        assert len(rows) == 200 and [row["covers"].get("user") for row in rows[:2]] == ["cy", "bob"]


@virtual
async def test_a_budget_that_is_for_keys_that_name_it_says_so():
    """It does not pass for one that covers everything; one for each key names the key."""
    budgets = [
        {"name": "team", "usd": 1.0, "assigned": True},
        {"name": "desk", "usd": 1.0, "assigned": True, "each": "key"},
    ]
    keys = [{"id": "ann", "key_env": "ANN", "budgets": ["team", "desk"]}, {"id": "bob", "key_env": "BOB"}]
    async with world(budgets=budgets, keys=keys, environ={"ANN": "key-a", "BOB": "key-b"}) as w:
        await w.ask(chat("by ann", **LIMITED), key="key-a")
        await w.ask(chat("by bob", **LIMITED), key="key-b")
        team, desk = await told(w.gateway)
        assert (team["covers"], team["spent"]) == ({"key": "those that name it"}, USD)
        assert (desk["covers"], desk["spent"]) == ({"key": "ann"}, USD)
        assert whole_budget([team, desk]) is None


@virtual
async def test_what_is_assumed_and_what_nobody_could_price_is_told_beside_what_was_spent():
    """A call without a price is no money spent, and is not forgotten."""
    async with world(budgets=[{"name": "all", "usd": 1.0, "unknown": "pass"}]) as w:
        await w.ask(chat("unpriced", model="nobody-knows-it", **LIMITED))
        (row,) = await told(w.gateway)
        assert (row["spent"], row["unknown"], row["assumed"]) == (0.0, 1, 0)


async def test_books_that_cannot_be_asked_leave_every_figure_unknown():
    """The budgets are there as configured, with null and not 0; a watch hears the error itself."""
    budgets = [
        {"name": "all", "usd": 1.0, "owner": "platform"}, {"name": "each", "tokens": 5, "per": "day", "each": "user"},
    ]  # fmt: skip
    config = configured(budgets=budgets, budgeting={"store": "redis://127.0.0.1:9/0"}, ledger={"url": "memory:"})
    async with Gateway.open(config, environ={"OPENAI_API_KEY": "any"}) as gateway:
        everything, each = await told(gateway)
        end = Rules(config.budgets).rules[0].period(gateway.clock.time()).end
        unknown = dict.fromkeys(("spent", "reserved", "forecast", "assumed", "unknown"))
        assert everything == {
            "name": "all", "covers": {}, "owner": "platform", "unit": "usd", "limit": 1.0, **unknown,
            "period": "month", "resets_s": end, "policy": "refuse",
        }  # fmt: skip
        assert each["covers"] == {"user": "each"} and each["spent"] is None
        tile = whole_budget([everything])
        assert tile is not None and tile["spent_usd"] is None
        with pytest.raises(StoreError, match=r"redis at 127\.0\.0\.1:9 failed"):
            await governing.watched(gateway)["budgets"]()


# -- success -----------------------------------------------------------------------------------------------------------


def judged(path: Path) -> None:
    """Put four tasks of class faq and one of class other on disk: of two calls each; two succeeded, one failed."""
    rows = [a_row(i, task_id=f"t{i // 2}", request_class="faq") for i in range(8)]
    words = [word("t0"), word("t1", success=False), word("t2")]
    write(path, [*rows, a_row(8, request_class="other")], words)
    catch_up(path, now=lambda: START + 100.0)


@virtual
async def test_success_is_told_of_all_and_by_the_classes_that_somebody_judged(tmp_path: Path):
    """It is what the figures of the ledger say, energy in watt-hours; unknown in a period without a verdict."""
    path = tmp_path / "ledger.sqlite"
    judged(path)
    ledger = SqliteLedger(path)
    async with world(kept=ledger) as w:
        success = governing.shown(w.gateway).success
        everything, classes = (success(START, START + 100.0, classes=classes) for classes in (False, True))
        assert everything is not None and classes is not None and list(classes) == ["faq"]
        faq = classes["faq"]
        assert (everything["tasks"], everything["judged"], everything["succeeded"]) == (5, 3, 2)
        assert (faq["tasks"], faq["judged"], faq["unpriced"]) == (4, 3, 0)
        (figure,) = figures(path, START, START + 100.0)
        assert everything["cost_per_success_usd"] == figure.cost_per_success_usd
        assert everything["cost_per_success_usd"].mean == pytest.approx(6 * 0.001 / 2)
        assert everything["rate"].mean == pytest.approx(2 / 3)
        assert everything["energy_per_success_wh"]["mean"] == pytest.approx(6 * 3.6 / 2 / 3_600)
        assert everything["latency_to_success_s"] == figure.latency_to_success_s
        unjudged = success(START + 6.0, START + 100.0, classes=False)  # t3, and the one of class other
        assert unjudged is None
        assert success(START + 200.0, START + 300.0, classes=False) is None
    ledger.close()


async def test_a_watch_hears_what_a_success_costs_by_class(tmp_path: Path):
    """A class in which none succeeded has no cost, and says that it has no success."""
    path = tmp_path / "ledger.sqlite"
    judged(path)
    write(path, [], [word("call-8", success=False)])
    catch_up(path, now=lambda: START + 100.0)
    found = await governing.successes(path)(START, START + 100.0)
    assert (found["faq"].cost_usd, found["faq"].successes) == (pytest.approx(6 * 0.001 / 2), 2)
    assert found["other"] == PerSuccess(None, None, None, 0)


# -- alerts ------------------------------------------------------------------------------------------------------------


@virtual
async def test_alerts_are_those_of_the_watch():
    """Promises and alerts, as soon as a watch is open."""
    classes = {"faq": {"owner": "desk", "slo": {"error_rate": 0.1}}}
    async with watched(Box(), classes=classes, alerts={"sinks": [SINK]}) as (w, watch):
        w.gateway.watch = watch
        await watch.look()
        told = await governing.shown(w.gateway).alerts()
        assert told == watch.dashboard()
        assert [(one["name"], one["owner"], one["state"]) for one in told["slos"]] == [
            ("faq: error_rate", "desk", "unknown"),
        ]  # fmt: skip
