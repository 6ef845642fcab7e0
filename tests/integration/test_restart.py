"""What outlives the process: the cache, the ledger but for its last moment, and answers under way when it is asked to
stop."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from world import Caller, Gateway, Json, Upstream, ask, chat, in_thread, many_connections, until

LOST_S = 0.1  # of rows, at most, when the process is killed
BUSY_S = 0.1  # what a busy machine adds
Start = Callable[..., Gateway]
Configured = Callable[..., Json]


def test_the_cache_outlives_a_restart(
    start: Start, configured: Configured, upstream: Upstream, tmp_path: Path, task: str
) -> None:
    """With a SQLite store an equal call after the restart is a hit, whole and streamed, with nothing asked upstream."""
    config = configured(cache={"store": f"sqlite:///{tmp_path / 'cache.sqlite'}"})
    request = chat({"tag": task, "text": "kept words"}, temperature=0)
    first = start(config)
    assert first.post(request, task).headers["x-negawatt-cache"] == "miss"
    first.one_row(task)
    first.stop()
    second = start(config)
    again = second.post(dict(reversed(request.items())), f"{task}-again")  # the order of keys does not matter
    assert (again.headers["x-negawatt-cache"], again.text) == ("exact", "kept words")
    assert b"kept words" in second.post({**request, "stream": True}).body
    assert upstream.tag(task)["calls"] == 1
    assert second.one_row(f"{task}-again")["ending"] == "cached"
    assert second.one_row(task)["ending"] == "answered"  # the ledger is the same one, and went on


def test_a_damaged_cache_is_set_aside(start: Start, configured: Configured, tmp_path: Path, task: str) -> None:
    """A cache file that is not a database does not stop the gateway; it is kept for whoever wants to look."""
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"this is not a database, but it is long enough to look like one " * 100)
    gateway = start(configured(cache={"store": f"sqlite:///{path}"}))
    assert gateway.post(chat({"tag": task}, temperature=0)).status == 200
    assert list(tmp_path.glob("cache.sqlite.damaged-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_asked_to_stop_closes_its_books(start: Start, task: str, number: int) -> None:
    """A stop or Ctrl-C right after an answer: its row is there, the file is closed in order, and no traceback shown."""
    gateway = start()
    assert gateway.post(chat({"tag": task}), task).status == 200
    gateway.signal(number)
    gateway.wait()
    # SQLite removes the write-ahead log when the last connection is closed; a process that just ends leaves it.
    assert not gateway.ledger.with_name("ledger.sqlite-wal").exists()
    assert [row["ending"] for row in gateway.rows(task)] == ["answered"]
    assert "Traceback" not in gateway.output


def test_a_stop_keeps_what_was_about_to_be_cached(
    start: Start, configured: Configured, upstream: Upstream, tmp_path: Path, task: str
) -> None:
    """SIGTERM right after an answer that may be kept: it is in the cache after the restart."""
    config = configured(cache={"store": f"sqlite:///{tmp_path / 'cache.sqlite'}"})
    request = chat({"tag": task}, temperature=0)
    first = start(config)
    first.post(request)
    first.signal(signal.SIGTERM)
    first.wait()
    assert start(config).post(request).headers["x-negawatt-cache"] == "exact"
    assert upstream.tag(task)["calls"] == 1


def test_an_answer_under_way_is_finished_before_the_stop(start: Start, upstream: Upstream, task: str) -> None:
    """SIGTERM in mid-stream: the caller gets the rest, then the process ends, and the row says answered."""
    gateway = start()
    words = " ".join(f"word{i}" for i in range(30))
    caller = Caller(gateway, chat({"tag": task, "text": words, "gap_s": 0.02}, stream=True), task)
    caller.read_until(b"word3")
    gateway.signal(signal.SIGTERM)
    assert b"word29" in caller.read_until(b"[DONE]")
    caller.hang_up()
    gateway.wait()
    assert [row["ending"] for row in gateway.rows(task)] == ["answered"]


async def test_a_killed_gateway_loses_the_last_moment_and_no_more(start: Start, tmp_path: Path, task: str) -> None:
    """kill -9 under load: the ledger opens, is sound, and has every row that was older than 100 ms."""
    gateway = start()
    done: list[tuple[float, str]] = []  # when the answer was there, and its call id

    async def keep_asking(number: int) -> None:
        async with many_connections() as session:
            for i in range(100_000):
                try:
                    answer = await ask(session, gateway.url, chat(f"{number} asks {i}"), x_negawatt_task=task)
                except OSError:
                    return  # killed
                done.append((time.monotonic(), answer.headers["x-negawatt-call-id"]))

    callers = [asyncio.ensure_future(keep_asking(number)) for number in range(8)]
    await asyncio.sleep(1.0)
    killed_at = time.monotonic()
    gateway.signal(signal.SIGKILL)
    await in_thread(gateway.wait)
    await asyncio.gather(*callers, return_exceptions=True)
    connection = sqlite3.connect(gateway.ledger)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = {call_id for (call_id,) in connection.execute("SELECT id FROM outcome")}
    connection.close()
    lost = [killed_at - at for at, call_id in done if call_id not in kept]
    assert len(done) > 100
    assert max(lost, default=0.0) <= LOST_S + BUSY_S
    again = start()
    assert again.post(chat(), f"{task}-again").status == 200
    assert again.one_row(f"{task}-again")["ending"] == "answered"


def test_two_gateways_may_share_the_files(
    start: Start, configured: Configured, upstream: Upstream, tmp_path: Path, task: str
) -> None:
    """Two processes on one cache and one ledger: what one keeps the other finds, and every call has its row."""
    config = configured(cache={"store": f"sqlite:///{tmp_path / 'cache.sqlite'}"})
    one, other = start(config), start(config)
    request = chat({"tag": task}, temperature=0)
    one.post(request, task)
    one.one_row(task)
    until(lambda: other.post(request, f"{task}-other").headers["x-negawatt-cache"] == "exact")  # kept beside the answer

    def hammer(gateway: Gateway) -> None:
        for i in range(60):
            gateway.post(chat({"tag": task, "say": str(i)}, temperature=0), f"{task}-many")

    threads = [threading.Thread(target=hammer, args=(gateway,)) for gateway in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    one.settled_rows(f"{task}-many", 120)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_idle_connections(start: Start, number: int) -> None:
    """Callers keep connections open for later; a stop closes them and ends at once."""
    gateway = start()
    caller = Caller(gateway, chat())
    caller.read_until(b'"usage"')
    began = time.monotonic()
    gateway.signal(number)
    gateway.wait()
    assert time.monotonic() - began < 3
    caller.hang_up()


def test_the_port_is_free_again_after_a_kill(start: Start, upstream: Upstream) -> None:
    """After kill -9 with connections open, the next gateway starts on the same files."""
    gateway = start()
    callers = [Caller(gateway, chat({"do": "stall", "tag": "kill", "say": str(i)}, stream=True)) for i in range(5)]
    until(lambda: upstream.tag("kill")["open"] == 5)
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    until(lambda: upstream.tag("kill")["open"] == 0)
    assert start().post(chat()).status == 200
    for caller in callers:
        caller.hang_up()
