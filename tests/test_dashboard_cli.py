"""A dashboard on a ledger of its own, from the terminal."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import web_world as web

from negawatt.ledger.outcome import FIELDS
from negawatt.ledger.sqlite import read_rows
from negawatt.proof.kept_rows import keep_rows
from negawatt.proof.replay import Plan, replay
from negawatt.proof.summary import ReplayRun
from negawatt.proof.trace import Trace, TraceEntry

SECRET = """
[[providers]]
name = "openai"

[[keys]]
key_env = "OPS_KEY"
id = "ops"
admin = true

[holdout]
share = 0.05

[classes.faq]
owner = "desk@example.com"
"""


def negawatt(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "negawatt", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the ledger of a demo."""
    folder = tmp_path_factory.mktemp("demo")
    done = negawatt("demo", "--ledger", "demo.sqlite", "--out", "report.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("dashboard --ledger demo.sqlite")
    return folder


def test_the_demos_rows_are_not_put_among_others(demo: Path):
    """A ledger that is there stays as it is: one line, exit code 2."""
    before = (demo / "demo.sqlite").read_bytes()
    again = negawatt("demo", "--ledger", "demo.sqlite", cwd=demo)
    assert again.returncode == 2
    assert "demo.sqlite: is there already" in again.stderr
    assert (demo / "demo.sqlite").read_bytes() == before


def test_the_demos_page_says_what_its_report_says(demo: Path):
    """What was saved, and by what: the same sums; that nothing of it is real; and no more than a ledger knows."""
    report = json.loads((demo / "report.json").read_text(encoding="utf-8"))
    with looking(demo, "demo.sqlite") as address:
        overview = until_rolled_up(address, 400)
        assert overview["tiles"]["spend"]["period_usd"] == pytest.approx(report["arms"]["all"]["cost_usd"], rel=1e-9)
        assert overview["tiles"]["saved"]["cost_usd"]["mean"] > 0
        assert {step["lever"] for step in overview["waterfall"]["steps"]} == {"exact_cache", "coalesce"}
        assert overview["honesty"]["simulated"]["recorded"] == overview["tiles"]["errors"]["endings"]["answered"]
        assert overview["honesty"]["holdout"]["share_configured"] is None
        assert overview["tiles"]["uptime"] == {"started_s": None, "uptime_s": None, "problems": {}}
        caches = json.loads(fetched(f"{address}/admin/api/caches"))
        assert {cache["mode"] for cache in caches["caches"]} == {None}
        assert caches["learned"] is None
        assert caches["review"]["waiting"] is None
        assert json.loads(fetched(f"{address}/admin/api/routing"))["policies"] is None


def test_a_dashboard_serves_its_pages_and_no_models(demo: Path):
    """The pages are there; what is a gateway's is not, and a wrong method is told the right one."""
    with looking(demo, "demo.sqlite") as address:
        assert b"<title>negawatt</title>" in fetched(address)
        for path, method, status in (
            ("/v1/chat/completions", "POST", 404), ("/v1/models", "GET", 404), ("/metrics", "GET", 404),
            ("/admin/api/overview", "POST", 405),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError) as refused:
                fetched(f"{address}{path}", method)
            assert refused.value.code == status, path


def test_looking_leaves_the_rows_alone(demo: Path):
    """After a visit every row is as it was."""
    before = list(read_rows(demo / "demo.sqlite"))
    with looking(demo, "demo.sqlite") as address:
        until_rolled_up(address, 400)
    assert list(read_rows(demo / "demo.sqlite")) == before
    assert len(before) == 400


def test_a_configuration_tells_of_classes_and_never_asks_for_its_keys(demo: Path, tmp_path: Path):
    """Owners and holdout are as configured; keys are the gateway's, and the page of a file needs none."""
    (tmp_path / "negawatt.toml").write_text(SECRET, encoding="utf-8")
    ledger = str(demo / "demo.sqlite")
    with looking(tmp_path, ledger, "--config", "negawatt.toml") as address:
        classes = json.loads(fetched(f"{address}/admin/api/classes"))["classes"]
        assert next(one["owner"] for one in classes if one["name"] == "faq") == "desk@example.com"
        overview = json.loads(fetched(f"{address}/admin/api/overview"))
        assert overview["honesty"]["holdout"]["share_configured"] == 0.05
        assert json.loads(fetched(f"{address}/admin/api/session"))["open"] is True
    with looking(tmp_path, ledger) as address:  # another ledger than the configuration names: it does not describe it
        classes = json.loads(fetched(f"{address}/admin/api/classes"))["classes"]
        assert {one["owner"] for one in classes} == {None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_cleanly(demo: Path, number: signal.Signals):
    """With a page that listens: it is told goodbye, the exit code is 0, nothing is said, the port is free."""
    process = started(demo, "demo.sqlite")
    try:
        address = json.loads(process.stdout.readline())["address"]
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as watching:
            watching.sendall(f"GET /admin/api/live HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
            heard = b""
            while b"event: hello" not in heard:
                heard += watching.recv(4096)
            process.send_signal(number)
            while got := watching.recv(4096):
                heard += got
        assert b"event: bye" in heard
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
        process.stderr.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_that_is_taken_is_named(demo: Path):
    """One line with the port, exit code 2, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = negawatt("dashboard", "--ledger", "demo.sqlite", "--port", str(port), cwd=demo)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_dashboard_of_nothing_says_so(tmp_path: Path):
    """There is no ledger: one line, exit code 2, and no file is begun."""
    done = negawatt("dashboard", "--ledger", "none.sqlite", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no ledger here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_ledger_is_left_as_it_is(tmp_path: Path):
    """A text, and the database of another program: refused, and no table is put into it."""
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be looked at\n" * 40, encoding="utf-8")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE mine (x)")
        other.commit()
    for name in ("notes.txt", "other.sqlite"):
        before = (tmp_path / name).read_bytes()
        done = negawatt("dashboard", "--ledger", name, cwd=tmp_path)
        assert done.returncode == 2
        assert name in done.stderr
        assert "Traceback" not in done.stderr
        assert (tmp_path / name).read_bytes() == before


def replayed() -> ReplayRun:
    request = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "How long is a mile?"}],
               "metadata": {"input_tokens": "100", "output_tokens": "50"}}  # fmt: skip
    entries = [TraceEntry(arrival_s=10.0 * i, request={**request, "seed": i % 2}) for i in range(6)]
    trace = Trace(entries=entries, source="here.jsonl", format="negawatt")
    return replay(Plan(trace=trace, provider="modelled:?a=1&b=0.01", arms=("none", "all")))


def test_kept_rows_are_the_replays(tmp_path: Path):
    """Every field of every row of the arm with all levers; the provider alone is named for what it is."""
    run = replayed()
    assert keep_rows(run, tmp_path / "kept.sqlite", 2e9) == 6
    kept = {row.id: row for row in read_rows(tmp_path / "kept.sqlite")}
    rows = next(arm.outcomes for arm in run.arms if arm.name == "all")
    assert sorted(kept) == sorted(row.id for row in rows)
    for row in rows:
        for name in FIELDS:
            expected = run.provider if name == "provider" and row.provider is not None else getattr(row, name)
            assert getattr(kept[row.id], name) == expected, name
    assert {row.cache for row in rows} == {"exact", "miss"}
    assert {row.provider for row in kept.values()} == {None, "modelled"}


def test_kept_rows_are_never_of_the_future(tmp_path: Path):
    """Shortly after midnight a replay ends later than now: its rows are of the day before, at the same time of day."""
    run = replayed()
    rows = next(arm.outcomes for arm in run.arms if arm.name == "all")
    now = rows[0].received_at + 1.0
    keep_rows(run, tmp_path / "kept.sqlite", now)
    kept = {row.id: row for row in read_rows(tmp_path / "kept.sqlite")}
    assert {row.id: kept[row.id].received_at for row in rows} == {row.id: row.received_at - 86_400 for row in rows}
    assert max(row.received_at for row in kept.values()) < now


@pytest.mark.skipif(web.CHROMIUM is None, reason="no Chromium to look at pages with")
def test_a_newcomer_sees_what_was_saved_and_by_what(demo: Path):
    """In a browser: that it is no real traffic, money, tokens, energy, the levers; a full picture of one day."""
    pytest.importorskip("playwright", reason="no playwright to drive a browser with")
    with looking(demo, "demo.sqlite") as address, web.browser() as chromium:
        until_rolled_up(address, 400)
        viewer = web.Viewer(chromium, address)
        viewer.open()
        text = viewer.page.inner_text("main")
        for part in ("Not real traffic.", "Money saved", "Tokens saved", "Energy saved, estimated", "400 calls",
                     "All calls of the period were on", "without its gateway"):  # fmt: skip
            assert part in text, part
        assert viewer.page.locator(".waterfall desc").text_content().count("exact cache −$0.0") == 1
        viewer.page.wait_for_selector("#live >> text=A ledger, not live")
        viewer.screen("newcomer-1280")
        viewer.open("budgets")
        viewer.page.wait_for_selector("text=Not known here: they are with the gateway")
        assert "is configured" not in viewer.page.inner_text("main")
        viewer.close()
        assert viewer.faults == []
        assert viewer.strangers == []


def started(folder: Path, ledger: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "negawatt", "dashboard", "--ledger", ledger, "--port", "0", "--json", *more]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def looking(folder: Path, ledger: str, *more: str) -> Iterator[str]:
    """A dashboard on *ledger*; yields its address."""
    process = started(folder, ledger, *more)
    try:
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        said = process.communicate(timeout=30)
    assert (process.returncode, *said) == (0, "", "")


def fetched(url: str, method: str = "GET") -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=10) as response:
        return response.read()


def until_rolled_up(address: str, calls: int) -> Any:
    """The overview, once all rows are in its figures."""
    for _ in range(400):
        overview = json.loads(fetched(f"{address}/admin/api/overview"))
        if overview["tiles"]["calls"] == calls:
            return overview
        time.sleep(0.05)
    raise AssertionError(f"not all rows were rolled up: {overview['rollup']}")
