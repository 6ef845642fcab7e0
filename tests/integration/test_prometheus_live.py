"""A real Prometheus scrapes a real gateway, evaluates our rules, and answers what our dashboard asks."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus import MISSING, PROMETHEUS, PROMTOOL, Prometheus
from world import Gateway, Json, chat, until

from negawatt.telemetry.instruments import FOLDED, INSTRUMENTS

pytestmark = pytest.mark.skipif(PROMETHEUS is None or PROMTOOL is None, reason=MISSING)

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
MODEL, KEY = "gpt-4o-mini", "key-of-the-monitor"
WITHIN_S = 30.0
# What the calls below have nothing to say to: guesses, budgets, verdicts, alerts.
QUIET = re.compile(
    r"semantic|explored|budget|task_success|per_success|alerts_total|telemetry_dropped|embeddings|operation_duration"
)


class Told(NamedTuple):
    """A Prometheus that has seen two rounds of calls to the gateway, and the dashboard's and rules' expressions."""

    prometheus: Prometheus
    gateway: Gateway
    calls: int


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, configured: Callable[..., Json]) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("prometheus")
    candidates = [{"model": MODEL}, {"model": "plain"}]
    config = configured(
        classes={"faq": {"cache": "always"}},
        policies={"thrifty": {"how": "fixed", "model": MODEL, "candidates": candidates}},
        keys=[{"id": "monitor", "key_env": "MONITOR"}], telemetry={"metrics_port": 0},
    )  # fmt: skip
    gateway = Gateway(folder, config, STUB_KEY="the-provider-key", MONITOR=KEY)
    prometheus = None
    try:
        port = gateway.announced(r"metrics: http://127\.0\.0\.1:(\d+)/metrics")
        prometheus = Prometheus(folder, f"127.0.0.1:{port}", RULES, KEY)
        calls = 0
        for number in range(2):
            calls += busy(gateway, number)
            until(lambda: prometheus.value("sum(negawatt_requests_total)") == calls, WITHIN_S, 0.1)  # noqa: B023
        yield Told(prometheus, gateway, calls)
    finally:
        if prometheus is not None:
            prometheus.stop()
        gateway.stop()


def busy(gateway: Gateway, number: int) -> int:
    """Ask all kinds of things; return how many calls that makes."""
    key = {"authorization": f"Bearer {KEY}"}
    asked = [
        *[chat(f"how much is {number}", model=MODEL, temperature=0)] * 2,
        chat(f"and {number}", model=MODEL, stream=True, temperature=0), chat(f"no price {number}"),
        chat(f"for little {number}", model="thrifty", temperature=0),
        chat({"do": "status", "status": 500, "say": number}, model=MODEL),
    ]  # fmt: skip
    statuses = [gateway.post(request, x_negawatt_class="faq", **key).status for request in asked]
    assert statuses == [200] * 5 + [500]
    assert gateway.get(f"/nowhere/{number}").status == 404
    return len(asked)


def panels() -> list[tuple[str, str]]:
    """Return (title, expression) of everything that the dashboard asks."""
    page = json.loads((DEPLOY / "grafana" / "negawatt.json").read_text(encoding="utf-8"))
    return [(panel["title"], target["expr"]) for panel in page["panels"] for target in panel.get("targets", ())]


def filled(expression: str) -> str:
    """Return *expression* with Grafana's variables as numbers and names."""
    values = {"$__rate_interval": "10m", "$__range": "10m", "$request_class": ".*"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def metrics_in(expression: str) -> set[str]:
    """Return the names of our metrics that *expression* has, as they are described."""
    words = set(re.findall(r"[a-z0-9_]{6,}", re.sub(r"\{[^}]*\}", "", expression)))
    return {base for word in words if (base := re.sub(r"_(bucket|sum|count)$", "", word)) in INSTRUMENTS}


def test_the_target_is_up(told: Told):
    """It is scraped on its own port, with a key, without an error, in OpenMetrics, which Prometheus asks for."""
    [target] = told.prometheus.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert told.gateway.get("/metrics", {"authorization": f"Bearer {KEY}"}).status == 404, "only on its own port"


def test_prometheus_has_what_the_ledger_has(told: Told):
    """Calls and money, to the last digit that a float holds."""
    rows = told.gateway.rows()
    assert len(rows) == told.calls
    cost = sum(row["cost_pusd"] or 0 for row in rows) / 10**12
    found = told.prometheus.value("sum(negawatt_cost_usd_total)")
    assert found == pytest.approx(cost, rel=1e-12) and cost > 0


def test_every_metric_that_calls_fill_is_there(told: Told):
    """All that is folded from rows reached Prometheus, with its type and its meaning."""
    known = told.prometheus.api("metadata")
    for one in FOLDED:
        if not QUIET.search(one.prometheus):
            name = one.prometheus.removesuffix("_total") if one.kind == "counter" else one.prometheus
            [described] = known[name]
            assert (described["type"], described["help"]) == (one.kind, one.text)


@pytest.mark.parametrize(
    ("title", "expression"), panels(), ids=[f"{i}-{title}" for i, (title, _) in enumerate(panels())]
)
def test_every_panel_of_the_dashboard_shows_something(told: Told, title: str, expression: str):
    """Its expression is valid, names metrics that there are, and shows what the calls had to say to it."""
    named = metrics_in(expression)
    assert named, "it asks for no metric of ours"
    found = told.prometheus.query(filled(expression))
    if not any(QUIET.search(name) for name in named):
        assert found, f"{title}: nothing"
        assert any(not math.isnan(float(one["value"][1])) for one in found), f"{title}: not a number"


def test_every_rule_is_evaluated(told: Told):
    """All rules are healthy; what is recorded has values where there were calls; nothing fires but what should."""

    def healthy() -> list[Json] | None:
        rules = [rule for group in told.prometheus.api("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = until(healthy, WITHIN_S, 0.2)
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert len(recorded) == 13 and len(rules) == 24
    for name in recorded:
        until(lambda: told.prometheus.query(name), WITHIN_S, 0.2)  # noqa: B023
    firing = until(lambda: [r["name"] for r in rules_of(told) if r.get("state") == "firing"], WITHIN_S, 0.2)
    assert firing == ["NegawattUnpriced"]


def rules_of(told: Told) -> list[Json]:
    return [rule for group in told.prometheus.api("rules")["groups"] for rule in group["rules"]]


def tool(*arguments: str, given: bytes = b"") -> str:
    """Run promtool in the folder of the rules; return what it said. Fails where it complains."""
    done = subprocess.run(
        [str(PROMTOOL), *arguments], input=given, capture_output=True, cwd=RULES.parent, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_promtool_finds_nothing_wrong():
    """The rules parse, the example configuration is valid, and the alerts fire when they should, and only then."""
    assert "SUCCESS" in tool("check", "rules", "rules.yml")
    assert "SUCCESS" in tool("check", "config", "prometheus.yml")
    assert "SUCCESS" in tool("test", "rules", "rules_test.yml")


def test_the_text_is_what_prometheus_calls_good(gateway: Gateway):
    """``promtool check metrics`` reads the plain format and has no complaint about names, types or help."""
    gateway.post(chat("hello", model=MODEL, stream=True))
    gateway.post(chat("hello"))
    answer = gateway.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert tool("check", "metrics", given=answer.body) == ""
    openmetrics = gateway.get("/metrics", {"accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.body.endswith(b"\n# EOF\n")


def test_the_dashboard_is_what_its_script_writes():
    """deploy/grafana/negawatt.json was not edited by hand."""
    import sys

    script = DEPLOY / "grafana" / "dashboard.py"
    assert subprocess.run([sys.executable, str(script), "--check"], timeout=30, check=False).returncode == 0
