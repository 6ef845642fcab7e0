"""All that governs, together on a real gateway: keys, budgets, tasks, promises, alerts, and what the pages say of it.

What callers are told, what lies in the ledger and in the books, what the provider charged for, and what administrators
see are one and the same. Each test has a class, or a gateway, of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from hook import SECRET, Hook
from world import CHAT, NEGAWATT, Answer, Caller, Gateway, Json, Upstream, ask, chat, many_connections, until

Start = Callable[..., Gateway]
Configured = Callable[..., Json]
KEYS = {"BOSS": "key-of-the-boss", "ANN": "key-of-ann", "HOOK_SECRET": SECRET, "STUB_KEY": "the-provider-key"}
ENOUGH_S = 20.0
MODEL = "gpt-4o-mini"
AT_ONCE, CAP, MOST_WORDS = 50, 8_000, 60
SLO = {"error_rate": 0.1, "window_days": 0.01, "least_bad": 3}  # its windows are of seconds


def governed(configured: Configured, hook: Hook) -> Json:
    """A budget and a promise for a class each, a ceiling for each user, a webhook; Ann may call, the boss may look."""
    return configured(
        budgets=[
            {"name": "all-money", "usd": 1_000.0, "per": "month", "unknown": "pass", "owner": "platform"},
            {"name": "burst", "tokens": CAP, "per": "month", "of": {"class": "burst"}},
            {"name": "each-user", "tokens": 2_000, "per": "month", "each": "user", "of": {"class": "chatty"}},
            {"name": "paid-money", "usd": 5.0, "per": "month", "of": {"class": "paid"}, "owner": "sales"},
            {"name": "known", "tokens": 600, "per": "month", "of": {"class": "known"}},
        ],
        budgeting={"output_tokens": 64},
        classes={
            "burst": {}, "chatty": {}, "known": {}, "paid": {}, "faq": {"owner": "desk", "slo": SLO},
            "shop": {"owner": "sales", "success": {"answered": True}, "slo": {"latency_p95_ms": 60_000.0}},
        },
        alerts={
            "every_s": 0.2, "pending_s": 0.2, "clear_s": 0.5, "anomalies": False,
            "sinks": [{"kind": "webhook", "url": hook.url, "secret_env": "HOOK_SECRET"}],
        },
        keys=[
            {"id": "boss", "key_env": "BOSS", "admin": True, "use": False},
            {"id": "ann", "key_env": "ANN", "tenant": "red", "user": "ann"},
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture(scope="module")
def shared(configured: Configured, hook: Hook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("governed"), governed(configured, hook), **KEYS)
    yield gateway
    gateway.stop()


def bearer(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[who]}"}


def post(gateway: Gateway, say: str | Json, request_class: str, task: str | None = None, **fields: Any) -> Answer:
    """Ask as Ann does."""
    body = chat(say, **{"model": MODEL, "temperature": 1, "max_tokens": MOST_WORDS, **fields})
    return gateway.post(body, task, x_negawatt_class=request_class, **bearer("ANN"))


def told(gateway: Gateway, path: str) -> Any:
    """What the boss is told at *path* under /admin."""
    answer = gateway.get(f"/admin/{path}", bearer("BOSS"))
    assert answer.status == 200, answer.body
    return answer.json


def budget(gateway: Gateway, name: str) -> Json:
    """The one row of budget *name*, as the pages have it."""
    [found] = [row for row in told(gateway, "api/budgets")["budgets"] if row["name"] == name]
    return dict(found)


def sql(gateway: Gateway, question: str, *values: Any) -> tuple[Any, ...]:
    """The first row that answers *question*, from the ledger's file."""
    connection = sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True, timeout=5.0)
    try:
        return tuple(connection.execute(question, values).fetchone())
    finally:
        connection.close()


def on_the_ledger(gateway: Gateway, request_class: str) -> int:
    """The tokens that calls of a class used, by their rows."""
    question = "SELECT coalesce(sum(input_tokens + output_tokens), 0) FROM outcome WHERE request_class = ?"
    return int(sql(gateway, question, request_class)[0])


def command(gateway: Gateway, *words: str) -> Json:
    """What ``negawatt`` says as JSON, beside the gateway, with its configuration."""
    done = subprocess.run(
        [str(NEGAWATT), *words, "--json", "--config", str(gateway.ledger.with_name("negawatt.toml"))],
        capture_output=True, text=True, timeout=30, cwd=gateway.ledger.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


# -- budgets -----------------------------------------------------------------------------------------------------------


async def one_of_many(session: aiohttp.ClientSession, gateway: Gateway, number: int, task: str, words: int) -> str:
    """Ask whole, streamed, or streamed and left; each waits at the provider's gate. Return what became of it."""
    left = number % 5 == 4
    text, rest = "word " * (words - 1) + "word", "." * 5 * (MOST_WORDS - words)  # so that all are of one size
    script: Json = {"tag": task, "gate": task, "text": text, "rest": rest}
    if left:
        script |= {"do": "stall", "chunks": 3}
    body = chat(script, model=MODEL, temperature=1, max_tokens=MOST_WORDS, stream=number % 5 > 1)
    headers = {"x_negawatt_class": "burst", **bearer("ANN")}
    if not left:
        answer = await ask(session, gateway.url, body, **headers)
        return "answered" if answer.status == 200 else answer.error["code"]
    named = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with session.post(f"{gateway.url}{CHAT}", json=body, headers=named) as response:
        if response.status != 200:
            return str((await response.json())["error"]["code"])
        await response.content.readany()
        response.close()
        return "left"


async def test_a_budget_stops_exactly_while_fifty_come_at_once(shared: Gateway, upstream: Upstream, task: str) -> None:
    """So many go on as fit by what is reserved; then what they used is spent, to the token, streams and leavers too."""
    rng = random.Random(7)
    async with many_connections() as session:
        calls = [
            asyncio.ensure_future(one_of_many(session, shared, i, task, rng.randrange(5, MOST_WORDS)))
            for i in range(AT_ONCE)
        ]
        deadline = time.monotonic() + ENOUGH_S
        while (refused := sum(call.done() for call in calls)) + upstream.tag(task)["open"] < AT_ONCE:
            assert time.monotonic() < deadline, "not all came to the gate or were refused"
            await asyncio.sleep(0.05)
        held = budget(shared, "burst")
        going = AT_ONCE - refused
        one = held["reserved"] / going  # but for a word or two of their scripts
        assert 0 < refused < AT_ONCE and held["spent"] == 0
        assert CAP - 1.2 * one < held["reserved"] <= CAP
        upstream.open_gate(task)
        ends = await asyncio.gather(*calls)
    assert ends.count("budget_exceeded") == refused
    assert ends.count("left") > 0 and ends.count("answered") > 0
    assert upstream.tag(task)["calls"] == going

    def settled() -> Json | None:
        row = budget(shared, "burst")
        rows = sql(shared, "SELECT count(*) FROM outcome WHERE request_class = 'burst'")[0]
        return row if row["reserved"] == 0 and rows == AT_ONCE else None

    spent = until(settled, ENOUGH_S)
    assert spent["spent"] == on_the_ledger(shared, "burst") <= CAP and spent["assumed"] == 0
    question = "SELECT sum(input_tokens + output_tokens) FROM outcome WHERE request_class = 'burst' AND ending = ?"
    assert sql(shared, question, "answered")[0] == upstream.tag(task)["tokens"]
    # And on it goes, one by one, until not one more fits.
    for number in range(CAP // 50):
        answer = post(shared, {"tag": task, "text": "word " * 50, "n": number}, "burst")
        if answer.status != 200:
            break
    assert (answer.status, answer.error["code"], answer.headers["x-negawatt-budget"]) == (
        429, "budget_exceeded", "burst",
    )  # fmt: skip
    resets = answer.headers["x-negawatt-budget-resets"]
    assert "'burst'" in answer.error["message"] and resets in answer.error["message"]
    assert int(answer.headers["retry-after"]) >= 1
    spent = budget(shared, "burst")
    until(lambda: spent["spent"] == on_the_ledger(shared, "burst"), ENOUGH_S)
    assert spent["reserved"] == 0 and CAP - one < spent["spent"] <= CAP and upstream.tag(task)["tokens"] <= CAP


def test_a_used_up_budget_still_gives_what_was_answered_before(shared: Gateway, task: str) -> None:
    """What the cache has costs nothing; a new question is refused by name."""
    known = {"tag": task, "text": "word " * 20}
    first = post(shared, known, "known", temperature=0)
    assert first.status == 200
    for number in range(20):
        refused = post(shared, {**known, "n": number}, "known", temperature=0)
        if refused.status != 200:
            break
    assert (refused.status, refused.headers["x-negawatt-budget"]) == (429, "known")
    again = post(shared, known, "known", temperature=0)
    assert (again.status, again.headers["x-negawatt-cache"]) == (200, "exact")


def test_a_caller_who_leaves_before_the_answer_has_spent_what_was_reserved(
    shared: Gateway, upstream: Upstream, task: str
) -> None:
    """Nobody knows what the provider computed: it counts in full, as assumed, in the caller's own ceiling."""
    body = chat({"tag": task, "do": "silent"}, model=MODEL, max_tokens=MOST_WORDS)
    caller = Caller(shared, body, task, x_negawatt_class="chatty", **bearer("ANN"))
    until(lambda: upstream.tag(task)["open"] == 1, ENOUGH_S)
    held = budget(shared, "each-user")
    assert held["covers"] == {"tenant": "red", "user": "ann", "class": "chatty"} and held["reserved"] > MOST_WORDS
    caller.hang_up()
    row = until(lambda: (found := budget(shared, "each-user"))["reserved"] == 0 and found, ENOUGH_S)
    assert (row["spent"], row["assumed"]) == (held["reserved"], 1)
    assert shared.one_row(task)["ending"] == "abandoned"


# -- what the pages say ------------------------------------------------------------------------------------------------


def test_what_the_pages_say_of_success_is_what_the_ledger_holds(shared: Gateway) -> None:
    """Attempts of judged tasks over their successes: by feedback, and where nobody spoke by what the class declares."""
    for number in range(12):
        for attempt in range(1 + number % 3):
            fails = {"do": "status", "status": 500} if number == 11 else {}
            post(shared, {"text": "word " * (5 + number), "n": [number, attempt], **fails}, "shop", f"s-{number}")
    for number in range(4):
        said = json.dumps({"task_id": f"s-{number}", "success": number % 2 == 0}).encode()
        assert shared.request("POST", "/v1/feedback", said, bearer("ANN")).json["recorded"] is True
    # The same in SQL, from the rows and the words alone; the last attempt decides where nobody spoke.
    question = """
        WITH one AS (
            SELECT task_id, sum(cost_pusd) AS cost, max(received_at) AS last,
                   (SELECT success FROM feedback WHERE about = task_id ORDER BY seq DESC LIMIT 1) AS said
            FROM outcome WHERE request_class = 'shop' GROUP BY task_id
        ), judged AS (
            SELECT cost, coalesce(said, (SELECT ending = 'answered' FROM outcome o
                WHERE o.task_id = one.task_id AND o.received_at = one.last)) AS success FROM one
        )
        SELECT count(*), sum(success), sum(cost) / 1e12 / sum(success) FROM judged
    """

    def shown() -> Json | None:
        classes = told(shared, "api/classes")["classes"]
        [shop] = [one for one in classes if one["name"] == "shop"]
        judged, succeeded, cost = sql(shared, question)
        found = shop["success"]
        if judged != 12 or found is None or (found["judged"], found["succeeded"]) != (judged, succeeded):
            return None
        assert found["cost_per_success_usd"]["mean"] == pytest.approx(cost, rel=1e-9)
        assert found["rate"]["mean"] == pytest.approx(succeeded / judged)
        return dict(found)

    found = until(shown, ENOUGH_S, 0.1)
    assert found["succeeded"] == 9 and found["cost_per_success_usd"]["low"] <= found["cost_per_success_usd"]["mean"]
    [shop] = [one for one in command(shared, "tasks", "summary")["groups"] if one["name"] == "shop"]
    assert shop["cost_per_success_usd"] == found["cost_per_success_usd"]
    everything = told(shared, "api/overview")["tiles"]["success"]
    assert (everything["judged"], everything["succeeded"]) == sql(
        shared, "SELECT count(success), sum(success) FROM task"
    )


def test_what_the_pages_say_of_budgets_is_in_the_books_and_on_the_ledger(shared: Gateway) -> None:
    """Money to the pico-dollar; the pages, the command and the administrator's JSON say the same of every budget."""
    for number in range(3):
        assert post(shared, f"question {number}", "paid").status == 200
    question = "SELECT sum(cost_pusd), count(*) FROM outcome WHERE request_class = 'paid'"

    def agreed() -> bool:
        shown, (cost, rows) = budget(shared, "paid-money"), sql(shared, question)
        return rows == 3 and shown["reserved"] == 0 and round(shown["spent"] * 1e12) == cost > 0

    until(agreed, ENOUGH_S)
    shown = {(row["name"], row["covers"].get("user")): row for row in told(shared, "api/budgets")["budgets"]}
    for rows in (told(shared, "budgets")["budgets"], command(shared, "budgets")["budgets"]):
        assert len(rows) == len(shown)
        for row in rows:
            there = shown[row["budget"], (row["whose"] or {}).get("user")]
            assert (float(row["spent"]), float(row["limit"])) == (there["spent"], there["limit"])
            assert (row["owner"], row["per"], row["at_limit"]) == (there["owner"], there["period"], there["policy"])
    tile = told(shared, "api/overview")["tiles"]["spend"]["budget"]
    everything = shown["all-money", None]
    assert (tile["name"], tile["spent_usd"], tile["limit_usd"]) == ("all-money", everything["spent"], 1_000.0)


def test_books_that_cannot_be_asked_stop_spending_and_are_told_as_unknown(
    start: Start, configured: Configured, upstream: Upstream, task: str
) -> None:
    """503 to callers and administrators, and a page without figures; nobody is asked meanwhile."""
    budgets = [{"name": "all", "tokens": 1_000, "owner": "platform"}]
    gateway = start(configured(budgets=budgets, budgeting={"store": "redis://127.0.0.1:9/0"}))
    refused = gateway.post(chat({"tag": task}, model=MODEL))
    assert (refused.status, refused.error["code"]) == (503, "budgets_unavailable")
    assert upstream.tag(task)["calls"] == 0
    answer = gateway.get("/admin/budgets")
    assert (answer.status, answer.error["code"]) == (503, "budgets_unavailable")
    assert "redis at 127.0.0.1:9" in answer.error["message"]
    [row] = gateway.get("/admin/api/budgets").json["budgets"]
    assert (row["name"], row["limit"], row["spent"], row["reserved"]) == ("all", 1_000, None, None)
    assert 'negawatt_up{part="budgets"} 0' in gateway.get("/metrics").body.decode()


# -- promises and alerts -----------------------------------------------------------------------------------------------


def keep_asking(gateway: Gateway, say: Json, found: Callable[[], Any]) -> None:
    number = 0

    def ask_more() -> Any:
        nonlocal number
        for _ in range(4):
            number += 1
            post(gateway, {**say, "n": number}, "faq")
        return found()

    until(ask_more, 30.0, 0.05)


def test_an_outage_is_told_and_so_is_its_end_and_the_pages_say_the_same(shared: Gateway, hook: Hook) -> None:
    """The promise's figures count rows; the alert is at the webhook and on the page; then both say that it is over."""

    def heard() -> list[str]:
        return [one["status"] for one in hook.alerts if (one["name"], one["about"]) == ("error_rate", "faq")]

    def page() -> Json:
        [one] = [one for one in told(shared, "api/alerts")["alerts"] if one["about"] == "faq"]
        return dict(one)

    keep_asking(shared, {"do": "status", "status": 500}, lambda: "firing" in heard())
    alert = page()
    assert (alert["state"], alert["owner"], alert["class"]) == ("firing", "desk", "faq")
    keep_asking(shared, {"text": "well again"}, lambda: "resolved" in heard())
    assert page()["state"] == "resolved" and hook.unsigned == 0
    question = (
        "SELECT sum(ending IN ('answered', 'cached', 'coalesced')), count(*) FROM outcome WHERE request_class = ?"
    )

    def counted() -> Json | None:
        promises = {one["name"]: one for one in told(shared, "api/alerts")["slos"]}
        of_shop = promises["shop: latency_p95"]
        if (promises["faq: error_rate"]["good"], promises["faq: error_rate"]["total"]) != sql(shared, question, "faq"):
            return None
        return dict(of_shop)

    assert until(counted, ENOUGH_S, 0.1)["owner"] == "sales"


# -- after a kill ------------------------------------------------------------------------------------------------------


def crash(gateway: Gateway) -> None:
    gateway.signal(signal.SIGKILL)
    gateway.wait()


def test_after_a_kill_the_books_are_what_the_provider_charged(
    start: Start, configured: Configured, upstream: Upstream, task: str, hook: Hook
) -> None:
    """Idle, to the token; with calls under way, above it by what was reserved for them. Nothing else is forgotten."""
    config = governed(configured, hook)
    first = start(config, **KEYS)
    for number in range(8):
        assert post(first, {"tag": task, "text": "word " * (number + 1), "n": number}, "burst", task).status == 200
    first.settled_rows(task, 8)
    charged = upstream.tag(task)["tokens"]
    until(lambda: in_the_file(first, "burst") == (charged, 0), ENOUGH_S)
    crash(first)

    second = start(config, **KEYS)
    row = budget(second, "burst")
    assert (row["spent"], row["reserved"], row["assumed"]) == (charged, 0, 0)
    assert charged == on_the_ledger(second, "burst")
    gate = f"{task}-gate"
    callers = [
        Caller(
            second, chat({"tag": gate, "gate": gate, "n": number}, model=MODEL, max_tokens=MOST_WORDS, temperature=1),
            x_negawatt_class="burst", **bearer("ANN"),
        )
        for number in range(3)
    ]  # fmt: skip
    until(lambda: upstream.tag(gate)["open"] == 3, ENOUGH_S)
    held = budget(second, "burst")["reserved"]
    until(lambda: in_the_file(second, "burst") == (charged, held), ENOUGH_S)
    crash(second)
    for caller in callers:
        caller.hang_up()

    third = start(config, **KEYS)
    row = budget(third, "burst")
    assert (row["spent"], row["reserved"]) == (charged + held, 0) and row["assumed"] >= 1
    assert "counts as spent" in third.output
    assert third.get("/admin/budgets", bearer("ANN")).status == 403
    assert post(third, "on it goes", "burst", f"{task}-on").status == 200
    third.one_row(f"{task}-on")


def in_the_file(gateway: Gateway, name: str) -> tuple[int, int]:
    """What is spent and reserved of a budget, in the file of the books."""
    path = gateway.ledger.with_name("ledger-budgets.sqlite")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        question = "SELECT coalesce(sum(spent), 0), coalesce(sum(reserved), 0) FROM line WHERE budget = ?"
        spent, reserved = connection.execute(question, (f"tokens/month/{name}",)).fetchone()
        return spent, reserved
    finally:
        connection.close()
