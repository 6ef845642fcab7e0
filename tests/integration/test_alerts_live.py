"""Alerts from a real gateway, over a provider that fails and recovers, to a real webhook and a real Alertmanager."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hook import SECRET, Hook
from world import NEGAWATT, Gateway, Json, Process, chat, toml, until

Start = Callable[..., Gateway]
Configured = Callable[..., Json]
WITHIN_S = 30.0
# A window of 14 minutes: its fast pair looks at a second, its slow one at seven.
SLO = {"error_rate": 0.1, "window_days": 0.01, "least_bad": 3}
FAILS = {"do": "status", "status": 500}


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def alerting(*sinks: Json) -> Json:
    return {
        "classes": {"faq": {"owner": "support", "slo": SLO}},
        "alerts": {"every_s": 0.2, "pending_s": 0.2, "clear_s": 0.5, "anomalies": False, "sinks": list(sinks)},
    }


def keep_asking(gateway: Gateway, say: Json | str, found: Callable[[], object]) -> None:
    """Ask again and again, of class faq, until *found* is true."""
    number = 0

    def ask() -> object:
        nonlocal number
        for _ in range(5):
            number += 1
            script = {**say, "n": number} if isinstance(say, dict) else f"{say} {number}"
            gateway.post(chat(script), x_negawatt_class="faq")
        return found()

    until(ask, WITHIN_S, 0.05)


def test_an_outage_reaches_a_webhook_and_so_does_its_end(
    start: Start, configured: Configured, hook: Hook, tmp_path: Path
) -> None:
    """Failing calls make one firing alert that names the owner; when they succeed again, the same one is resolved."""
    sink = {"kind": "webhook", "url": hook.url, "secret_env": "HOOK_SECRET"}
    gateway = start(configured(**alerting(sink)), HOOK_SECRET=SECRET)
    keep_asking(gateway, "hello", lambda: True)
    keep_asking(gateway, FAILS, lambda: "firing" in hook.states())
    first = hook.alerts[0]
    assert (first["name"], first["class"], first["owner"]) == ("error_rate", "faq", "support")
    keep_asking(gateway, "well again", lambda: "resolved" in hook.states())
    assert hook.unsigned == 0 and len({one["id"] for one in hook.alerts}) == 1
    assert hook.states()[-1] == "resolved" and hook.states().count("resolved") == 1
    shown = gateway.get("/admin/alerts").json
    assert shown["open"] == [] and [one["id"] for one in shown["resolved"]] == [first["id"]]
    assert SECRET not in gateway.output and "a-secret-path" not in gateway.output
    assert "negawatt_slo_budget_left" in gateway.get("/metrics").body.decode()


def test_a_sink_that_is_down_over_a_restart_is_told_after_it(
    start: Start, configured: Configured, hook: Hook, tmp_path: Path
) -> None:
    """What fired while the webhook refused is sent once by the next process, which goes on from the same alert."""
    sink = {"kind": "webhook", "url": hook.url, "secret_env": "HOOK_SECRET"}
    config = configured(**alerting(sink))
    hook.status = 503
    first = start(config, HOOK_SECRET=SECRET)
    keep_asking(first, FAILS, lambda: hook.tries >= 1)
    [alert] = first.get("/admin/alerts").json["open"]
    assert hook.alerts == []
    first.stop()
    assert "status 503" in first.output and "a-secret-path" not in first.output
    hook.status = 200
    second = start(config, HOOK_SECRET=SECRET)
    until(lambda: hook.alerts, WITHIN_S)
    assert hook.alerts[0]["id"] == alert["id"] and hook.alerts[0]["started_at"] == alert["started_at"]
    second.stop()


def test_only_administrators_see_how_promises_stand(start: Start, configured: Configured) -> None:
    """A key for calls gets 403, a stranger 401, an administrator the figures; and they are those of the command."""
    keys = [
        {"id": "caller", "key_env": "CALLER"}, {"id": "boss", "key_env": "BOSS", "admin": True, "tenant": "own"},
    ]  # fmt: skip
    config = configured(**alerting({"kind": "log"}), keys=keys)
    gateway = start(config, CALLER="caller-key", BOSS="boss-key")
    for number in range(3):
        answer = gateway.post(chat(f"hello {number}"), f"t{number}", x_api_key="caller-key", x_negawatt_class="faq")
        assert answer.status == 200
        gateway.one_row(f"t{number}")
    for path in ("/admin/slo", "/admin/alerts"):
        assert gateway.get(path).status == 401
        assert gateway.get(path, {"x-api-key": "caller-key"}).status == 403
    assert gateway.request("POST", "/admin/slo", b"{}", {"x-api-key": "boss-key"}).status == 405

    def looked() -> Any:
        found = gateway.get("/admin/slo", {"x-api-key": "boss-key"}).json
        return found if found["classes"][0]["promises"][0]["total"] == 3 else None

    [faq] = until(looked)["classes"]
    assert (faq["class"], faq["owner"], faq["promises"][0]["verdict"]) == ("faq", "support", "kept")
    here = json.loads(slo_status(gateway, "--json").stdout)
    there = json.loads(slo_status(gateway, "--json", "--url", gateway.url, "--key-env", "BOSS").stdout)
    assert here["classes"][0]["promises"][0]["good"] == there["classes"][0]["promises"][0]["good"] == 3


def slo_status(gateway: Gateway, *options: str) -> subprocess.CompletedProcess[str]:
    config = gateway.ledger.with_name("negawatt.toml")
    return subprocess.run(
        [str(NEGAWATT), "slo", "status", "--config", str(config), *options], capture_output=True, text=True,
        timeout=30, env={**os.environ, "BOSS": "boss-key"}, cwd=config.parent,
    )  # fmt: skip


def test_a_breach_is_an_exit_code(start: Start, configured: Configured) -> None:
    """`negawatt slo status` says which promise is breached, and exits with 1; the gateway need not run."""
    gateway = start(configured(**alerting({"kind": "log"})))
    gateway.post(chat("hello"), "good", x_negawatt_class="faq")
    gateway.one_row("good")
    done = slo_status(gateway)
    assert done.returncode == 0 and "kept" in done.stdout and "owner support" in done.stdout, done.stderr
    for number in range(4):
        gateway.post(chat({**FAILS, "n": number}), f"bad-{number}", x_negawatt_class="faq")
        gateway.one_row(f"bad-{number}")
    gateway.stop()
    done = slo_status(gateway)
    assert done.returncode == 1 and "breached" in done.stdout and "1 of 5 good" in done.stdout


def test_the_sinks_can_be_tried(hook: Hook, tmp_path: Path) -> None:
    """`negawatt alerts test` reaches each, says what each answered, and exits with 1 where one did not take it."""
    other = {"kind": "slack", "name": "nobody", "url": "http://127.0.0.1:9/x"}
    sinks = [{"kind": "webhook", "url": hook.url, "secret_env": "HOOK_SECRET"}, {"kind": "log"}]
    path = tmp_path / "negawatt.toml"

    def tried(*more: Json) -> subprocess.CompletedProcess[str]:
        path.write_text(toml({"alerts": {"sinks": [*sinks, *more]}}), encoding="utf-8")
        command = [str(NEGAWATT), "alerts", "test", "--config", str(path), "--json"]
        environ = {**os.environ, "HOOK_SECRET": SECRET}
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environ)

    done = tried()
    assert done.returncode == 0 and [one["taken"] for one in json.loads(done.stdout)["sinks"]] == [True, True]
    assert hook.states() == ["firing", "resolved"] and hook.unsigned == 0
    done = tried(other)
    last = json.loads(done.stdout)["sinks"][-1]
    assert done.returncode == 1 and last["sink"] == "nobody" and "no connection" in last["answer"]


def test_the_check_finds_a_secret_that_is_not_set(tmp_path: Path) -> None:
    """`negawatt serve --check` names the field and the variable, and nothing is started."""
    path = tmp_path / "negawatt.toml"
    sink = {"kind": "webhook", "url": "http://127.0.0.1:9", "secret_env": "NOT_SET_ANYWHERE"}
    path.write_text(toml({"providers": [{"name": "p", "kind": "vllm", "base_url": "http://127.0.0.1:9/v1"}],
                          "alerts": {"sinks": [sink]}}), encoding="utf-8")  # fmt: skip
    command = [str(NEGAWATT), "serve", "--check", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode == 2 and "alerts.sinks[0].secret_env" in done.stderr and "NOT_SET_ANYWHERE" in done.stderr


ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


@pytest.mark.skipif(ALERTMANAGER is None, reason="needs Debian's prometheus-alertmanager")
def test_a_real_alertmanager_takes_them(start: Start, configured: Configured, tmp_path: Path) -> None:
    """It has the firing alert with its labels and owner, and lets it go when the gateway says that it is over."""
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    (folder / "config.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = _free_port()
    server = Process(
        [str(ALERTMANAGER), f"--config.file={folder / 'config.yml'}", f"--storage.path={folder}",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="], folder / "log.txt",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def held() -> list[Json]:
        with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:
            found: list[Json] = json.load(answer)
            return found

    def up() -> bool:
        try:
            return held() is not None
        except OSError:
            return False

    try:
        until(up, 20.0)
        gateway = start(configured(**alerting({"kind": "alertmanager", "url": url})))
        keep_asking(gateway, FAILS, held)
        [alert] = held()
        assert alert["labels"]["alertname"] == "negawatt_error_rate" and alert["labels"]["owner"] == "support"
        assert "as fast as allowed" in alert["annotations"]["description"]
        keep_asking(gateway, "well again", lambda: not held())
    finally:
        server.stop()


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
