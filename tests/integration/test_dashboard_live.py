"""The dashboard of a real server: who may look, what it says after real calls, and that looking changes nothing."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from world import Gateway, Upstream, chat, until

API = "/admin/api/"
ADMIN, USER = "sk-admin-0123456789", "sk-user-0123456789"
KEYS = [
    {"id": "ops", "key_env": "OPS_KEY", "tenant": "red", "admin": True},
    {"id": "app", "key_env": "APP_KEY", "tenant": "red"},
]  # fmt: skip


def config(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {
        "holdout": {"share": 0.0},
        "classes": {"support": {"owner": "desk"}},
        "providers": [{"name": "stub", "kind": "openai", "base_url": upstream.base_url, "key_env": "STUB_KEY",
                       "models": ["plain", "gpt-4o-mini"]}],
        **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def open_gateway(upstream: Upstream, tmp_path_factory):
    """A server without keys, as on a developer's machine."""
    folder = tmp_path_factory.mktemp("dashboard")
    kept = {"ledger": {"url": f"sqlite:///{folder / 'ledger.sqlite'}", "keep_content": True}}
    gateway = Gateway(folder, config(upstream, **kept), STUB_KEY="k")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def locked(upstream: Upstream, tmp_path_factory):
    """A server with an administrator's key and another."""
    gateway = Gateway(
        tmp_path_factory.mktemp("locked"), config(upstream, keys=KEYS), STUB_KEY="k", OPS_KEY=ADMIN, APP_KEY=USER
    )
    yield gateway
    gateway.stop()


def ask(gateway: Gateway, path: str, **headers: str) -> Any:
    found = gateway.get(API + path, headers)
    assert found.status == 200, found.body
    return found.json


def test_the_first_screen_is_what_the_ledger_says(open_gateway: Gateway):
    """After calls that were answered and cached: the same sums as a query on the rows."""
    before = len(open_gateway.rows())
    for say in ("one", "two", "one", "one"):
        request = chat(say, temperature=0, model="gpt-4o-mini")
        assert open_gateway.post(request, x_negawatt_class="support").status == 200
    until(lambda: len(open_gateway.rows()) == before + 4)
    shown = ask(open_gateway, "overview?zone=Asia/Kolkata")
    rows = open_gateway.rows()
    assert shown["rollup"]["complete"] and shown["tiles"]["calls"] == len(rows)
    assert shown["tiles"]["hits"]["kinds"]["exact"] == sum(row["cache"] == "exact" for row in rows)
    cost = sum(row["cost_pusd"] or 0 for row in rows)
    saved = sum(row["baseline_cost_pusd"] - row["cost_pusd"] for row in rows if row["cost_pusd"] is not None)
    assert cost > 0 and saved > 0
    assert shown["tiles"]["spend"]["period_usd"] == pytest.approx(cost / 1e12)
    assert shown["tiles"]["saved"]["cost_usd"]["mean"] == pytest.approx(saved / 1e12)
    assert shown["tiles"]["uptime"]["problems"] == {}
    assert shown["honesty"]["grid"]["year"] and shown["honesty"]["prices"]["version"]
    assert sum(shown["series"]["total"]["calls"]) == len(rows)


def test_every_page_has_its_figures(open_gateway: Gateway):
    """Each answers with its schema, is not kept by browsers, and refuses what it does not know."""
    open_gateway.post(chat("page"), x_negawatt_class="support")
    for name in ("overview", "classes", "prompts", "caches", "routing", "requests", "budgets", "alerts"):
        found = open_gateway.get(API + name)
        assert (found.status, found.headers["cache-control"]) == (200, "no-store"), found.body
        assert found.json["schema"] == f"negawatt.{name}/1"
        refused = open_gateway.get(f"{API}{name}?sinse=2026-01-01")
        assert refused.status == 400 and refused.error["param"] == "sinse"
        assert open_gateway.request("POST", API + name, b"{}").status == 405
    assert [row["name"] for row in ask(open_gateway, "classes")["classes"] if row["configured"]] == ["support"]
    assert open_gateway.get(f"{API}overview?zone=Mars").error["param"] == "zone"
    assert open_gateway.get(f"{API}overview?since=yesterday").error["param"] == "since"
    assert open_gateway.get(f"{API}overview?bucket=quarter&since=2020-01-01").error["param"] == "bucket"
    assert open_gateway.get(f"{API}nothing").status == 404
    assert ask(open_gateway, "budgets") == {"schema": "negawatt.budgets/1", "configured": False, "budgets": []}


def test_an_empty_ledger_has_no_figures_and_no_errors(upstream: Upstream, tmp_path: Path):
    """Counts are 0, and what cannot be known is null."""
    gateway = Gateway(tmp_path, config(upstream), STUB_KEY="k")
    try:
        shown = ask(gateway, "overview")
        assert shown["tiles"]["calls"] == 0 and shown["tiles"]["latency"]["p50_ms"] is None
        assert shown["tiles"]["saved"]["cost_pct"]["mean"] is None and shown["waterfall"]["steps"] == []
        assert shown["tiles"]["spend"]["forecast"] is None and shown["tiles"]["spend"]["forecast_note"]
        for name in ("classes", "prompts", "caches", "routing", "requests"):
            ask(gateway, name)
    finally:
        gateway.stop()


def test_requests_are_found_page_by_page(open_gateway: Gateway):
    """By anything that is in a row; pages follow each other without a gap, and one row is told whole."""
    for i in range(7):
        open_gateway.post(chat(f"page {i % 2}", temperature=0), task="t-pages", x_negawatt_class="support")
    until(lambda: len(open_gateway.rows("t-pages")) == 7)
    wanted = [row["id"] for row in open_gateway.rows("t-pages")][::-1]
    found, cursor = [], ""
    for _ in range(10):
        page = ask(open_gateway, f"requests?task=t-pages&limit=3{cursor}")
        found += [row["id"] for row in page["rows"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == wanted
    assert len(ask(open_gateway, "requests?task=t-pages&cache=exact&lever=exact_cache&action=hit")["rows"]) == 5
    assert ask(open_gateway, "requests?task=t-pages&class=default")["rows"] == []
    assert [row["id"] for row in ask(open_gateway, f"requests?id={wanted[0]}")["rows"]] == [wanted[0]]
    told = ask(open_gateway, f"requests/{wanted[-1]}")
    assert told["row"]["task"] == "t-pages" and told["row"]["decisions"]
    assert told["content"]["request"]["messages"] == [{"role": "user", "content": "page 0"}]
    assert open_gateway.get(f"{API}requests/nw-nobody").status == 404
    for wrong in ("limit=0", "limit=x", "cursor=1", "min_ms=-1", "error=yes", "min_cost_usd=nan"):
        refused = open_gateway.get(f"{API}requests?{wrong}")
        assert (refused.status, refused.error["param"]) == (400, wrong.partition("=")[0])


def test_looking_changes_nothing(open_gateway: Gateway):
    """Not a byte of the ledger, once what was written is rolled up."""
    rows = len(open_gateway.rows())

    def settled() -> bool:
        connection = sqlite3.connect(f"file:{open_gateway.ledger}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT value FROM rollup_state WHERE name = 'rows'").fetchone() == (rows,)
        finally:
            connection.close()

    until(settled, 20)
    before = digest(open_gateway.ledger)
    for name in ("overview", "classes", "prompts", "caches", "routing", "requests", "budgets", "alerts", "session"):
        ask(open_gateway, name)
    assert digest(open_gateway.ledger) == before


def digest(ledger: Path) -> list[str]:
    files = (ledger, ledger.with_name(ledger.name + "-wal"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()]


def test_only_administrators_may_look(locked: Gateway):
    """Nobody without a key, no other key; by the header, or by a session that only the browser holds."""
    for name in ("overview", "requests", "live", "requests/nw-1"):
        assert locked.get(API + name).status == 401
        assert locked.get(API + name, {"authorization": f"Bearer {USER}"}).status == 403
        assert locked.get(API + name, {"cookie": "negawatt_session=guess"}).status == 401
    assert locked.get(f"{API}overview", {"authorization": f"Bearer {ADMIN}"}).status == 200
    assert ask(locked, "session") == {"open": False, "signed_in": False, "key_id": None, "expires_s": None}
    body, json_type = json.dumps({"key": ADMIN}).encode(), {"content-type": "application/json"}
    assert locked.request("POST", f"{API}session", body).error["param"] == "content-type"
    assert locked.request("POST", f"{API}session", b'{"key": 5}', json_type).error["param"] == "key"
    assert locked.request("POST", f"{API}session", json.dumps({"key": USER}).encode(), json_type).status == 403
    signed = locked.request("POST", f"{API}session", body, json_type)
    assert signed.status == 200 and signed.json["signed_in"] and signed.json["key_id"] == "ops"
    cookie = signed.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= set(cookie.split("; ")) and ADMIN not in cookie
    mine = {"cookie": cookie.partition(";")[0]}
    assert locked.get(f"{API}overview", mine).status == 200
    assert locked.get(f"{API}overview", {**mine, "origin": "http://127.0.0.1:1"}).status == 403
    assert locked.get(f"{API}overview", {**mine, "sec-fetch-site": "cross-site"}).status == 403
    own = {**mine, "origin": locked.url, "host": f"127.0.0.1:{locked.port}"}
    assert locked.get(f"{API}overview", own).status == 200
    assert locked.request("DELETE", f"{API}session", None, mine).json["signed_in"] is False
    assert locked.get(f"{API}overview", mine).status == 401


def test_guessing_keys_is_slow(upstream: Upstream, tmp_path: Path):
    """After twenty wrong ones nobody signs in for a while; those who have signed in go on."""
    gateway = Gateway(tmp_path, config(upstream, keys=KEYS), STUB_KEY="k", OPS_KEY=ADMIN, APP_KEY=USER)
    try:
        header = {"content-type": "application/json"}
        statuses = [
            gateway.request("POST", f"{API}session", json.dumps({"key": f"guess-{i}"}).encode(), header).status
            for i in range(21)
        ]
        assert statuses == [401] * 20 + [429]
        right = gateway.request("POST", f"{API}session", json.dumps({"key": ADMIN}).encode(), header)
        assert right.status == 429 and 0 < int(right.headers["retry-after"]) <= 61
        assert gateway.get(f"{API}overview", {"authorization": f"Bearer {ADMIN}"}).status == 200
    finally:
        gateway.stop()


def test_another_name_for_this_machine_opens_nothing(open_gateway: Gateway):
    """A page of elsewhere whose own name leads to this machine is told so by the name that it asks for."""
    assert open_gateway.get(f"{API}overview", {"host": f"evil.example:{open_gateway.port}"}).error["param"] == "host"
    assert open_gateway.get(f"{API}overview", {"host": f"localhost:{open_gateway.port}"}).status == 200


class Watcher:
    """Reads server-sent events from a socket."""

    def __init__(self, gateway: Gateway, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        self.connection.request("GET", f"{API}live", None, headers)
        self.response = self.connection.getresponse()

    def event(self) -> dict[str, str]:
        """Return the next event; its data may be a comment."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if not line:
                if fields.keys() - {"retry"}:
                    return fields
                assert not self.response.closed or fields, "it ended"
                fields = {}
                continue
            name, _, value = line.partition(": ")
            fields[name] = value

    def close(self) -> None:
        self.connection.close()


def test_what_happens_is_told_to_those_who_watch(open_gateway: Gateway):
    """A tick after calls, with what they came to; who comes back hears what they missed."""
    watcher = Watcher(open_gateway)
    assert watcher.response.status == 200
    assert watcher.response.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert watcher.event()["event"] == "hello"
    open_gateway.post(chat("live one"), x_negawatt_class="support")
    tick = watcher.event()
    told = json.loads(tick["data"])
    assert (tick["event"], told["calls"], told["by_class"]) == ("tick", 1, {"support": 1})
    assert told["newest"][0]["id"].startswith("nw-")
    watcher.close()
    for i in range(2):
        open_gateway.post(chat(f"missed {i}"), x_negawatt_class="support")
    time.sleep(0)  # nobody watches meanwhile
    back = Watcher(open_gateway, **{"last-event-id": tick["id"]})
    assert back.event()["event"] == "hello"
    missed = 0
    while missed < 2:
        event = back.event()
        assert event["event"] == "tick"
        missed += json.loads(event["data"])["calls"]
    assert missed == 2
    back.close()
    stranger = Watcher(open_gateway, **{"last-event-id": "ffff-7"})
    assert [stranger.event()["event"] for _ in range(2)] == ["hello", "reset"]
    stranger.close()


def test_the_server_stops_at_once_although_somebody_watches(upstream: Upstream, tmp_path: Path):
    """They are told goodbye; the stop does not wait for them."""
    gateway = Gateway(tmp_path, config(upstream), STUB_KEY="k")
    watcher = Watcher(gateway)
    watcher.event()
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert watcher.event()["event"] == "bye"
    assert gateway.wait() == 0
    assert time.monotonic() - began < 9, "it waited for the time that answers under way are given"
    watcher.close()


def test_watchers_are_bounded(open_gateway: Gateway):
    """One more than there may be is refused; when one leaves there is room again."""
    watchers = [Watcher(open_gateway) for _ in range(32)]
    assert all(watcher.response.status == 200 for watcher in watchers)
    for watcher in watchers:
        watcher.event()
    assert open_gateway.get(f"{API}live").status == 429
    for watcher in watchers:
        watcher.close()

    def room() -> bool:
        one = Watcher(open_gateway)
        one.close()
        return one.response.status == 200

    until(room, 20)


def test_without_roll_ups_there_are_no_figures_but_the_rows_can_be_looked_at(upstream: Upstream, tmp_path: Path):
    """Of neither kind: no sums of rows, and no tasks; and the answer names the field."""
    kept = {"ledger": {"url": f"sqlite:///{tmp_path / 'ledger.sqlite'}", "rollups": False}}
    gateway = Gateway(tmp_path, config(upstream, **kept), STUB_KEY="k")
    try:
        assert gateway.post(chat("one", model="gpt-4o-mini"), x_negawatt_task="t-1").status == 200
        until(lambda: len(gateway.rows()) == 1)
        refused = gateway.get(API + "overview")
        assert refused.status == 501 and refused.json["error"]["code"] == "no_rollups"
        assert "ledger.rollups" in refused.json["error"]["message"]
        assert len(ask(gateway, "requests")["rows"]) == 1
        assert "negawatt_cost_per_success_usd{" not in gateway.get("/metrics").body.decode()
    finally:
        gateway.stop()
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    for table in ("rollup_calls", "task"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    connection.close()
