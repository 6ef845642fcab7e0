"""The life of alerts: one for each breach, whatever flickers, fails or is not known."""

from __future__ import annotations

import itertools
import random
import time
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_burn import promised
from watched import Box, fact, watched
from worlds import virtual

from negawatt.budgets.states import BudgetState
from negawatt.config_watch import Alerts
from negawatt.errors import StoreError
from negawatt.ledger.alerts import keep_alerts, kept_alerts
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.statistics import Interval
from negawatt.watch.alert import Alert, Condition
from negawatt.watch.life import Life
from negawatt.watch.values import PerSuccess, budget_conditions, cost_conditions
from negawatt.watching import successes_in

SETTINGS = Alerts(pending_s=30.0, clear_s=60.0, events_h=1.0)


def it(active: bool | None, about: str = "faq", **fields: object) -> Condition:
    return Condition("error_rate", about, active, "so it is", request_class="faq", **fields)  # type: ignore[arg-type]


def life(told: list[Alert] | None = None) -> Life:
    return Life(SETTINGS, {"faq": "support"}, fired=(lambda one: None) if told is None else told.append)


def states(one: Life) -> list[str]:
    return [alert.state for alert in one.open]


def test_what_holds_long_enough_fires_and_what_is_over_long_enough_is_resolved():
    """Pending for 30 s, firing, and resolved a minute after it was last so."""
    told: list[Alert] = []
    one = life(told)
    one.see([it(True)], 0)
    one.see([it(True)], 20)
    assert states(one) == ["pending"] and not told
    one.see([it(True)], 30)
    assert states(one) == ["firing"] and len(told) == 1
    one.see([it(False)], 60)
    one.see([it(True)], 80)
    one.see([it(False)], 130)
    assert states(one) == ["firing"]
    one.see([it(False)], 140)
    assert not one.open and one.over[0].resolved_at == 140 and len(told) == 1


def test_what_does_not_last_was_never_an_alert():
    """A pending one that is over is forgotten: nobody was told, and nothing is kept."""
    one = life()
    one.see([it(True)], 0)
    one.see([it(False)], 10)
    one.see([it(True)], 40)
    assert states(one) == ["pending"] and one.open[0].started_at == 40 and not one.over


def test_what_nobody_can_say_leaves_things_as_they_are():
    """Unknown is neither a breach nor a recovery."""
    one = life()
    for at in (0, 30):
        one.see([it(True)], at)
    one.see([it(None)], 10_000)
    assert states(one) == ["firing"]
    fresh = life()
    fresh.see([it(None)], 0)
    assert not fresh.open


def test_what_is_not_watched_any_more_is_resolved():
    """A promise that was taken out of the configuration leaves no alert behind."""
    one = life()
    for at in (0, 30):
        one.see([it(True)], at)
    one.see([], 60)
    one.see([], 100)
    assert not one.open and one.over[0].message.startswith("it is no longer watched: so it is")


def test_an_alert_gets_worse_but_not_better():
    """Until it is over it stays as bad as it was, and who only hears of the worst is told then."""
    told: list[Alert] = []
    one = life(told)
    for at, severity in ((0, "warning"), (30, "warning"), (40, "critical"), (50, "warning")):
        one.see([it(True, severity=severity)], at)
    assert one.open[0].severity == "critical" and len(told) == 2


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([True, False, None])), max_size=60))
def test_there_is_never_more_than_one_alert_for_one_breach(steps: list[tuple[int, bool | None]]):
    """Whatever comes when: at most one is open, breaches do not overlap, and each fired before it was resolved."""
    one, now = life(), 0
    for wait, active in steps:
        now += wait
        one.see([it(active)], now)
        assert len(one.open) <= 1
    ended = [(alert.started_at, alert.resolved_at) for alert in one.over]
    assert ended == sorted(ended) and all(alert.fired_at is not None for alert in one.over)
    for (_, end), (start, _) in itertools.pairwise(ended):
        assert end is not None and end <= start


def test_alerts_are_bounded():
    """However many things go wrong at once, and however long it goes on."""
    one = life()
    one.see([it(True, f"class-{number}") for number in range(1_200)], 0)
    one.see([it(True, f"class-{number}") for number in range(1_200)], 30)
    assert len(one.open) == 1_000 and one.refused == 400
    one.see([], 100)
    assert len(one.over) == 500
    changed, dropped = one.take_changed()
    assert len(changed) == 500 and len(dropped) == 500


def test_alerts_are_kept_in_the_ledgers_file(tmp_path: Path):
    """Written and deleted by their ids; a file that cannot be written is an error that says so."""
    path = tmp_path / "ledger.sqlite"
    SqliteLedger(path).close()
    keep_alerts(path, [("a", "firing", 2.0, "{}"), ("b", "firing", 1.0, "[]")], [])
    keep_alerts(path, [("b", "resolved", 1.0, '"b"')], ["a"])
    assert kept_alerts(path) == ['"b"']
    with pytest.raises(StoreError, match="alerts could not be kept"):
        keep_alerts(tmp_path, [], [])


def test_an_older_ledger_gets_the_table(tmp_path: Path):
    """A file of an earlier schema is brought up to date when it is opened."""
    import sqlite3

    path = tmp_path / "ledger.sqlite"
    SqliteLedger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE alert")
        connection.execute("PRAGMA user_version = 3")
    SqliteLedger(path).close()
    assert kept_alerts(path) == []


@virtual
async def test_what_could_not_be_kept_is_tried_again():
    """A disk that is full for a while loses no alert's state."""
    async with watched(Box()) as (w, watch):
        kept: list[list[Alert]] = []
        full = True

        async def keep(changed: list[Alert], dropped: list[str]) -> None:
            if full:
                raise StoreError("the disk is full")
            kept.append(changed)

        watch._keep = keep  # type: ignore[method-assign]
        w.gateway.telemetry.alert("route_drift", "cheap", "calibrate again")
        await watch.look()
        full = False
        await watch.look()
        assert [[one.name for one in some] for some in kept] == [["route_drift"]]


def purse(budget: str, spent: float, limit: float, start: float, end: float, *, refuses: bool = False) -> BudgetState:
    """A budget in dollars, of all."""
    return BudgetState(
        budget=budget, unit="usd", per="day", whose=None, owner="finance", at_limit="refuse", limit=Decimal(limit),
        spent=Decimal(spent), reserved=Decimal(0), period_start=start, period_end=end, refuses=refuses,
    )  # fmt: skip


# -- values ------------------------------------------------------------------------------------------------------


def test_a_cost_is_beyond_its_target_only_for_certain():
    """The low end of its interval decides; where no task succeeded, nobody can say."""
    targets = {"default": promised(cost_per_success_usd=0.02)}

    def found(figure: PerSuccess | None) -> bool | None:
        [one] = cost_conditions(targets, {} if figure is None else {"default": figure})
        return one.active

    assert found(PerSuccess(0.03, 0.015, 0.05, 9)) is False
    assert found(PerSuccess(0.03, 0.025, 0.05, 90)) is True
    assert found(PerSuccess(0.03, None, None, 1)) is False  # one task bounds nothing
    assert found(PerSuccess(None, None, None, 0)) is None and found(None) is None


@given(st.floats(0.01, 1e6), st.floats(0.06, 1.0), st.floats(1.0, 1e7))
def test_a_forecast_goes_on_at_the_pace_so_far(spent: float, part: float, length_s: float):
    """A tenth of it spent after a tenth of the period comes out even; before a twentieth nothing is said."""
    budget = purse("b", spent, 1.0, 1000.0, 1000.0 + length_s)
    assert float(budget.forecast(1000.0 + part * length_s)) == pytest.approx(spent / part)
    assert budget.forecast(1000.0 + 0.04 * length_s) is None


def test_a_budget_that_will_not_last_alerts_and_one_that_is_spent_is_urgent():
    """At 60 % after half of the period it will not last; at its limit it is spent, however early."""

    def found(spent: float, now: float, forecast: float | None = 1.0) -> tuple[bool | None, str]:
        [one] = budget_conditions([purse("team", spent, 10.0, 0.0, 1000.0)], forecast, now)
        return one.active, one.severity

    assert found(4.0, 500.0) == (False, "warning") and found(6.0, 500.0) == (True, "warning")
    assert found(6.0, 500.0, 1.5) == (False, "warning") and found(6.0, 500.0, None) == (False, "warning")
    assert found(10.0, 10.0, None) == (True, "critical")


def test_a_budget_that_refuses_calls_is_urgent_though_a_little_is_left():
    """However early in its period: what is left is of no use to anybody."""
    budget = purse("team", 9.5, 10.0, 0.0, 1000.0, refuses=True)
    [one] = budget_conditions([budget], None, 10.0)
    assert (one.active, one.severity) == (True, "critical")
    assert "9.5 of 10 usd are spent, and calls" in one.message


@virtual
async def test_values_come_from_those_who_work_them_out():
    """Asked once a minute; while they fail, an alert stays; the SLO shows what they said."""
    figures = {"default": PerSuccess(0.5, 0.4, 0.6, 12)}
    asked: list[float] = []
    broken = False

    async def successes(since: float, until: float) -> dict[str, PerSuccess]:
        asked.append(until - since)
        if broken:
            raise StoreError("the ledger is locked")
        return figures

    async def budgets() -> list[BudgetState]:
        return [purse("team", 12.0, 10.0, 0.0, 1e12)]

    box = Box()
    async with watched(box, successes=successes, budgets=budgets, slo={"cost_per_success_usd": 0.1}) as (_, watch):
        import asyncio

        await asyncio.sleep(130)
        assert set(box.heard()) == {("firing", "default"), ("firing", "team")} and len(asked) == 3
        assert asked[0] == pytest.approx(28 * 86_400)
        assert next(one.owner for one in watch.life.open if one.about == "team") == "finance"
        [row] = watch.slos()[0]["promises"]
        assert (row["slo"], row["value"], row["verdict"], row["firing"]) == ("cost_per_success", 0.5, "breached", True)
        broken = True
        await asyncio.sleep(600)
        assert [one.about for one in watch.life.open if one.name == "cost_per_success"] == ["default"]
        broken, figures["default"] = False, PerSuccess(0.05, 0.04, 0.06, 12)
        await asyncio.sleep(180)
        assert ("resolved", "default") in box.heard("cost_per_success")


@virtual
async def test_of_the_budgets_of_many_users_the_one_that_is_used_up_is_an_alert():
    """They are looked at in a thread, and whoever keeps within theirs is not worth a word."""
    import asyncio

    standing = [purse(f"user-{number}", 1.0, 10.0, 0.0, 1e12) for number in range(2_000)]
    standing[17] = purse("user-17", 12.0, 10.0, 0.0, 1e12)

    async def budgets() -> list[BudgetState]:
        return standing

    async with watched(Box(), budgets=budgets) as (_, watch):
        for _ in range(1_000):
            await asyncio.to_thread(time.sleep, 0.01)  # a thread takes real time
            if watch.life.open:
                break
        assert [one.about for one in watch.life.open] == ["user-17"]


@virtual
async def test_a_budget_that_begins_anew_is_told_of_once_more():
    """It was used up, and is not any more; those that were always within theirs were never spoken of."""
    import asyncio

    standing = [purse("team", 12.0, 10.0, 0.0, 1e12), purse("other", 1.0, 10.0, 0.0, 1e12)]

    async def budgets() -> list[BudgetState]:
        return standing

    box = Box()
    async with watched(box, budgets=budgets) as (_, watch):
        await asyncio.sleep(130)
        standing[0] = purse("team", 0.0, 10.0, 0.0, 1e12)
        await asyncio.sleep(180)
        assert box.heard() == [("firing", "team"), ("resolved", "team")] and not watch.life.open


async def test_figures_of_tasks_become_costs_by_class(tmp_path: Path):
    """Asked in a thread, by class, of the ledger's file."""
    from types import SimpleNamespace

    def figures(path: Path, since: float, until: float, by: str) -> list[SimpleNamespace]:
        assert (path, since, until, by) == (tmp_path, 1.0, 2.0, "class")
        return [SimpleNamespace(name="faq", successes=3, cost_per_success_usd=Interval(0.2, 0.1, None))]

    assert await successes_in(tmp_path, figures)(1.0, 2.0) == {"faq": PerSuccess(0.2, 0.1, None, 3)}


@virtual
async def test_the_semantic_caches_own_estimate_is_held_against_its_budget():
    """By each class's own word, or the rule's budget; for certain it is critical."""
    from negawatt.recall.rule import Estimate
    from negawatt.watch.values import cache_conditions

    nothing = msgspec.structs.replace(promised(cache_error=0.1), request_class="nothing")
    targets = {"default": promised(), "faq": promised(cache_error=0.1), "nothing": nothing}
    found = {
        ("default", "learned"): (0.01, Estimate(0.005, 0.02, 0.04, 900), 0),
        ("faq", "learned"): (0.01, Estimate(0.02, 0.05, 0.08, 900), 0),
        ("other", "learned"): (0.01, Estimate(0.02, 0.05, 0.08, 900), 0),
        ("new", "learned"): (0.01, None, 0),
    }
    conditions = {one.about: (one.active, one.severity) for one in cache_conditions(targets, found)}
    assert conditions == {
        "default": (True, "warning"), "faq": (False, "warning"), "other": (True, "critical"), "new": (None, "warning"),
        "nothing": (None, "warning"),
    }  # fmt: skip


@virtual
async def test_answers_that_grow_are_an_alert_of_their_class():
    """Three times as long as they were: told once, also where lever cap finds it as well, and shown as a breach."""
    import asyncio

    rng, box = random.Random(3), Box()
    async with watched(box, slo={"output_inflation": 1.5}, alerts={"anomalies": False}) as (w, watch):
        for _ in range(400):
            watch.observe(fact(output_tokens=rng.randint(80, 120)))
        await asyncio.sleep(60)
        assert watch.slos()[0]["promises"][0]["verdict"] == "kept"
        for _ in range(120):
            watch.observe(fact(output_tokens=rng.randint(240, 360)))
        w.gateway.telemetry.alert("output_inflation", "default", "as the lever says it")
        await asyncio.sleep(60)
        assert box.heard("output_inflation") == [("firing", "default")]
        assert watch.slos()[0]["promises"][0]["verdict"] == "breached"
