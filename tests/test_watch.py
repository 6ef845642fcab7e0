"""The watch over a gateway: what fires, who is told, and when it is over. On a virtual clock."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from watched import SINK, Box, fact, watched
from worlds import ONLY, Fake, World, answer, chat, status, virtual

from negawatt.errors import UpstreamConnectError
from negawatt.ledger.facts import read_facts
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.watch.endings import OWN_MARK
from negawatt.watching import watch_of

PROMISED: dict[str, Any] = {
    "classes": {"faq": {"owner": "support", "slo": {"error_rate": 0.01}}},
    "levers": ONLY,
}
URGENT = {"sinks": [{**SINK, "min_severity": "critical"}]}


async def send(w: World, count: int, every_s: float = 5.0, *, fails: bool = False, request_class: str = "faq") -> None:
    """Ask *count* times, one after another; *fails*: the provider answers with a 500."""
    for number in range(count):
        if fails:
            w.provider.script.append(status(500))
            await w.failing(chat(f"{number}"), request_class=request_class)
        else:
            await w.ask(chat(f"{number}"), request_class=request_class)
        await asyncio.sleep(every_s)


@virtual
async def test_an_outage_fires_once_and_is_resolved():
    """Forty failures make one alert with the class's owner; sent again as it gets worse, each 4 h, and at its end."""
    box = Box()
    async with watched(box, provider=Fake(delay_s=0.0), **PROMISED) as (w, watch):
        await send(w, 200)
        assert box.heard() == [] and not watch.life.open
        await send(w, 40, fails=True)
        await asyncio.sleep(7 * 3600)  # until the short window of the slowest pair has nothing bad
        sent = [one for _, body, _ in box.posted for one in body["alerts"]]
        assert [(one["status"], one["severity"]) for one in sent] == [
            ("firing", "warning"), ("firing", "critical"), ("firing", "critical"), ("resolved", "critical")
        ]  # fmt: skip
        assert len({one["id"] for one in sent}) == 1 and {one["owner"] for one in sent} == {"support"}
        assert sent[0]["name"] == "error_rate" and "as fast as allowed" in sent[0]["message"]
        assert [one["status"] for one in watch.alerts()["resolved"]] == ["resolved"]


@virtual
async def test_a_callers_own_mistakes_do_not_burn():
    """What the caller did wrong, here or in the provider's eyes, says nothing about us."""
    box = Box()
    async with watched(box, provider=Fake(delay_s=0.0), alerts=URGENT, **PROMISED) as (w, watch):
        await send(w, 20)
        for number in range(60):
            w.provider.script.append(status(400))
            await w.failing(chat(f"{number}"), request_class="faq")
            await w.failing(chat(messages=None), request_class="faq")
            await asyncio.sleep(5)
        await asyncio.sleep(60)
        assert box.heard() == []
        [row] = watch.slos()[0]["promises"]
        assert (row["good"], row["total"], row["verdict"]) == (20, 20, "kept")


@virtual
async def test_a_sink_that_was_down_hears_what_is_so():
    """While it refuses, the tries become rarer; then it hears the newest state, once."""
    box = Box()
    box.status = UpstreamConnectError("no connection to http://hook.test")
    async with watched(box, provider=Fake(delay_s=0.0), alerts=URGENT, **PROMISED) as (w, watch):
        await send(w, 40, fails=True)
        before = box.tries
        await asyncio.sleep(3600)
        assert before >= 2 and box.tries - before < 20 and box.heard() == []
        assert watch.sinks()[0]["undelivered"] == 1 and "hook.test" in watch.sinks()[0]["problem"]
        box.status = 503
        await asyncio.sleep(1800)
        assert "503" in watch.sinks()[0]["problem"]
        box.status = 200
        await asyncio.sleep(1800)
        assert box.heard() == [("firing", "faq")] and watch.sinks()[0]["problem"] is None


@virtual
async def test_what_was_over_before_the_sink_came_back_is_told_too():
    """An outage that began and ended while the sink was down is not lost."""
    box = Box()
    box.status = 500
    async with watched(box, provider=Fake(delay_s=0.0), alerts=URGENT, **PROMISED) as (w, watch):
        await send(w, 40, fails=True)
        await asyncio.sleep(8 * 3600)
        assert watch.alerts()["resolved"] and box.heard() == []
        box.status = 200
        await asyncio.sleep(1800)
        assert box.heard() == [("resolved", "faq")]


@virtual
async def test_a_restart_neither_repeats_nor_loses_an_alert(tmp_path: Path):
    """The alert that fires is known after the restart: it is not sent again, and its end is told."""
    path, box = tmp_path / "ledger.sqlite", Box()
    ledger = SqliteLedger(path)
    tables = {**PROMISED, "alerts": URGENT, "provider": Fake(delay_s=0.0), "kept": ledger}
    async with watched(box, **tables) as (w, watch):
        await send(w, 40, fails=True)
        assert box.heard() == [("firing", "faq")]
        id_ = watch.life.open[0].id
        ledger.flush()
    async with watched(box, **tables) as (w, watch):
        await asyncio.sleep(60)
        assert [one.id for one in watch.life.open] == [id_] and watch.life.open[0].state == "firing"
        [row] = watch.slos()[0]["promises"]
        assert (row["total"] - row["good"], row["verdict"]) == (40, "breached")  # from the ledger
        assert box.heard() == [("firing", "faq")]
    async with watched(box, **tables):
        await asyncio.sleep(7 * 3600)
    assert box.heard() == [("firing", "faq"), ("firing", "faq"), ("resolved", "faq")]
    ledger.close()


@virtual
async def test_what_was_not_delivered_before_the_restart_is_delivered_after_it(tmp_path: Path):
    """A sink that was down when the gateway stopped hears of it from the next one."""
    path, box = tmp_path / "ledger.sqlite", Box()
    ledger = SqliteLedger(path)
    tables = {**PROMISED, "alerts": URGENT, "provider": Fake(delay_s=0.0), "kept": ledger}
    box.status = 500
    async with watched(box, **tables) as (w, _):
        await send(w, 40, fails=True)
        ledger.flush()
    box.status = 200
    async with watched(box, **tables):
        await asyncio.sleep(60)
    assert box.heard() == [("firing", "faq")]
    ledger.close()


@virtual
async def test_alerts_of_the_levers_go_the_same_way():
    """What telemetry is told is sent once, however often it comes, and is over when it has not come for a day."""
    box = Box()
    async with watched(box, **PROMISED) as (w, watch):
        for _ in range(50):
            w.gateway.telemetry.alert("semantic_cache_drift", "faq", "too many guesses turned out wrong")
            await asyncio.sleep(60)
        assert box.heard("semantic_cache_drift") == [("firing", "faq")]
        assert watch.life.open[0].owner == "support" and watch.life.open[0].severity == "critical"
        await asyncio.sleep(25 * 3600)
        assert box.heard("semantic_cache_drift") == [("firing", "faq"), ("resolved", "faq")]


@virtual
async def test_a_model_without_a_price_is_told_once_a_day():
    """Its cost is in no sum, and somebody should know; but once."""
    box = Box()
    models = [{"name": "mystery", "provider": "openai", "upstream": "mystery-9000"}]
    async with watched(box, provider=Fake(delay_s=0.0), models=models, levers=ONLY) as (w, _):
        for _ in range(100):
            w.provider.script.append(answer(model="mystery-9000"))
            await w.ask(chat(model="mystery"))
            await asyncio.sleep(900)
        assert box.heard("unpriced_model") == [("firing", "mystery-9000"), ("firing", "mystery-9000")]


@virtual
async def test_slow_answers_and_late_streams_burn_their_own_budgets():
    """Latency counts whole calls, time to the first chunk streams only."""
    slo = {"latency_p95_ms": 2_000, "ttft_p95_ms": 500}
    box = Box()
    async with watched(box, provider=Fake(delay_s=0.1), slo=slo, levers=ONLY) as (w, watch):
        for number in range(20):
            await w.ask(chat(f"{number}", stream=True))
        w.provider.delay_s = 1.0
        for number in range(20):
            await w.ask(chat(f"slow {number}"))
        for number in range(20):
            await w.ask(chat(f"late {number}", stream=True))
        w.provider.delay_s = 3.0
        for number in range(10):
            await w.ask(chat(f"slowest {number}"))
        await asyncio.sleep(30)
        rows = {row["slo"]: row for row in watch.slos()[0]["promises"]}
        assert (rows["ttft_p95"]["good"], rows["ttft_p95"]["total"]) == (20, 40)
        assert rows["latency_p95"]["total"] == 70 and rows["latency_p95"]["good"] <= 60
        assert ("firing", "default") in box.heard("ttft_p95")


@virtual
async def test_numbers_for_a_monitor():
    """Burn rates and firing alerts are in /metrics, each with its help text; labels are names of the configuration."""
    box = Box()
    async with watched(box, provider=Fake(delay_s=0.0), alerts=URGENT, **PROMISED) as (w, _):
        await send(w, 40, fails=True)
        text = (await w.gateway.metrics()).decode()
        assert 'negawatt_slo_burn_rate{request_class="faq",slo="error_rate",pair="fast",window="long"} 100.0' in text
        assert 'negawatt_alerts_firing{alert="error_rate",request_class="faq",severity="critical"} 1' in text
        assert "# HELP negawatt_slo_burn_rate How" in text and 'result="sent",sink="webhook"} 1' in text


@virtual
async def test_what_the_dashboard_draws():
    """Of each promise its objective, burn rates by window and state; of each alert since when it is, and whose."""
    box = Box()
    slo = {"cost_per_success_usd": 0.5, "output_inflation": 2.0}
    async with watched(box, provider=Fake(delay_s=0.0), slo=slo, **PROMISED) as (w, watch):
        await send(w, 20)
        found = watch.dashboard()
        rows = {row["name"]: row for row in found["slos"]}
        assert rows["faq: error_rate"]["state"] == "ok" and rows["faq: error_rate"]["objective"] == 0.99
        assert list(rows["faq: error_rate"]["burn_rates"]) == ["4.7m", "56m", "28m", "5.6h", "2.8d"]
        assert rows["default: cost_per_success"]["state"] == "unknown" and found["alerts"] == []
        await send(w, 40, fails=True)
        found = watch.dashboard()
        rows = {row["name"]: row for row in found["slos"]}
        [alert] = found["alerts"]
        assert rows["faq: error_rate"]["state"] == "firing" == alert["state"] and alert["owner"] == "support"
        assert rows["faq: error_rate"]["since_s"] == alert["since_s"] and alert["until_s"] is None
        await asyncio.sleep(8 * 3600)
        found = watch.dashboard()
        assert found["alerts"][0]["state"] == "resolved" and found["alerts"][0]["until_s"] > alert["since_s"]
        assert {row["name"]: row["state"] for row in found["slos"]}["faq: error_rate"] == "breached"


@virtual
async def test_the_ledger_alone_says_the_same(tmp_path: Path):
    """What a gateway counted as it went, and what is read from its rows afterwards, are the same figures."""
    slo = {"error_rate": 0.01, "latency_p95_ms": 1_500, "ttft_p95_ms": 700, "cost_per_success_usd": 1.0}
    path, box, rng = tmp_path / "ledger.sqlite", Box(), random.Random(4)
    ledger = SqliteLedger(path)
    provider = Fake(delay_s=0.5)
    async with watched(box, provider=provider, kept=ledger, slo=slo, classes={"faq": {}}, levers=ONLY) as (w, watch):
        for number in range(120):
            provider.delay_s = rng.choice([0.2, 0.5, 1.0, 2.0])
            body = chat(f"{number}", stream=rng.random() < 0.5)
            if rng.random() < 0.2:
                provider.script.append(status(rng.choice([400, 429, 500])))
                await w.failing(body, request_class=rng.choice(["faq", None]))
            else:
                await w.ask(body, request_class=rng.choice(["faq", None]))
            await asyncio.sleep(rng.uniform(0, 600))
        await asyncio.sleep(60)
        live = watch.slos()
        ledger.flush()
        alone = (await watch_of(path, w.gateway.config, w.gateway.clock)).slos()
        for one, other in zip(live, alone, strict=True):
            for row, same in zip(one["promises"], other["promises"], strict=True):
                assert {**row, "burn": None, "firing": None} == {**same, "burn": None, "firing": None}
        assert [row["slo"] for row in alone[0]["promises"]][-1] == "cost_per_success"
        assert alone[0]["promises"][-1]["verdict"] == "unknown"
    ledger.close()


@virtual
async def test_a_start_reads_no_more_than_the_newest_rows(tmp_path: Path):
    """However large the ledger is."""
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    async with watched(Box(), provider=Fake(delay_s=0.0), kept=ledger, levers=ONLY) as (w, _):
        for number in range(30):
            await w.ask(chat(f"{number}"))
            await asyncio.sleep(1)
        ledger.flush()
        chunks = list(read_facts(path, 0.0, 1e12, most=10, mark=OWN_MARK))
        times = [fact.received_at for chunk in chunks for fact in chunk]
        assert len(times) == 11 and times == sorted(times) == [row.received_at for row in ledger.rows()][-11:]
    ledger.close()


@virtual
async def test_a_models_name_cannot_forge_a_line():
    """What a caller or a provider calls a model goes into logs and mail: in one line, and not too long."""
    box = Box()
    async with watched(box) as (_, watch):
        watch.observe(fact(response_model="x\nERROR forged" + "y" * 500, cost_pusd=None))
        await asyncio.sleep(60)
        [(_, about)] = box.heard("unpriced_model")
        assert about.startswith("x?ERROR forged") and len(about) == 200


@virtual
async def test_many_models_without_a_price_are_not_many_alerts():
    """Whoever asks for a thousand names raises some twenty alerts, and one for all others."""
    box = Box()
    async with watched(box) as (_, watch):
        for number in range(1_000):
            watch.observe(fact(response_model=f"m-{number}", cost_pusd=None))
            if number % 100 == 99:
                await asyncio.sleep(20)
        assert len(box.heard("unpriced_model")) == 21 and ("firing", "other models") in box.heard()
