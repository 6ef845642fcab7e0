"""What goes wrong below the caches, live: damaged files, files of another embedder, stores that are down, poison."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from taught import KEYS, MODEL, client, counts, decided, guessing, metric, negawatt, opened, said
from world import NEGAWATT, Gateway, Json, Upstream, headers_of, toml, until

QUESTION, BEARER = "How do I reset my password?", {"authorization": f"Bearer {KEYS['ANN']}"}


def kept(folder: Path, upstream: Upstream, **more: Any) -> Json:
    """Return the configuration of a gateway whose store and index are files; texts are compared by their words."""
    recall = {"embedder": "hashing:", "index": f"sqlite:///{folder / 'index.sqlite'}"}
    return guessing(folder, upstream, cache={"store": f"sqlite:///{folder / 'cache.sqlite'}"}, recall=recall, **more)


def filled(folder: Path, upstream: Upstream, count: int = 12) -> None:
    """Let a gateway fill the files in *folder*, and stop it."""
    gateway = opened(folder, kept(folder, upstream))
    sdk = client(gateway)
    for number in range(count):
        said(sdk, f"{QUESTION} {number}")
    until(lambda: counts(folder) == (count, count))
    gateway.stop()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database, but it is long enough to look like one " * 200)


def a_page(path: Path) -> None:
    """Overwrite pages in the middle of the file, as a bad disk does."""
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data) - 4096, 8192):
        data[place : place + 512] = b"\xff" * 512
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10_000])


@pytest.mark.parametrize("harm", [garbage, a_page, cut])
@pytest.mark.parametrize("name", ["index.sqlite", "cache.sqlite"])
def test_a_damaged_file_is_set_aside(
    upstream: Upstream, tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    """The gateway says so with both names, starts cold, and fills a new file; the old one is there to be looked at."""
    filled(tmp_path, upstream)
    for wal in tmp_path.glob("*.sqlite-wal"):
        wal.unlink()
    harm(tmp_path / name)
    gateway = opened(tmp_path, kept(tmp_path, upstream))
    try:
        [aside] = tmp_path.glob(f"{name}.damaged-*")
        [line] = [line for line in gateway.output.splitlines() if "is damaged" in line]
        assert str(tmp_path / name) in line and str(aside) in line and line.rstrip().endswith(("cold", "empty"))
        assert gateway.get("/readyz").status == 200
        assert said(client(gateway), "Is it cold here?")[0] == "miss"
        if name == "index.sqlite":  # before it is asked again: a second miss would be a second case
            until(lambda: counts(tmp_path) == (1, 1))
        until(lambda: said(client(gateway), "Is it cold here?")[0] == "exact")  # kept beside the answer
    finally:
        gateway.stop()


def test_an_index_of_another_embedder_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    """Exit code 2 with both names, and the port was never open; `serve --check` says the same; nothing was touched."""
    filled(tmp_path, upstream)
    before = (tmp_path / "index.sqlite").read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = kept(tmp_path, upstream)
    config["recall"]["embedder"] = "http://127.0.0.1:9/v1?model=other-model&dimensions=24"
    (tmp_path / "negawatt.toml").write_text(toml(config), encoding="utf-8")
    command = [str(NEGAWATT), "serve", "--port", str(port)]
    with (tmp_path / "refused.log").open("wb") as output:
        child = subprocess.Popen(command, cwd=tmp_path, stderr=output, env={**os.environ, "STUB_KEY": "x", **KEYS})
        answered = 0
        while child.poll() is None:
            with socket.socket() as sock:
                answered += sock.connect_ex(("127.0.0.1", port)) == 0
    line = (tmp_path / "refused.log").read_text(encoding="utf-8")
    assert (child.returncode, answered) == (2, 0)
    assert "hashing-384 with 384 dimensions" in line and "other-model@127.0.0.1:9 with 24" in line
    assert "index.sqlite" in line and "Traceback" not in line
    checked = negawatt(tmp_path, "serve", "--check")
    assert checked.returncode == 2 and checked.stderr == line
    assert (tmp_path / "index.sqlite").read_bytes() == before


@pytest.mark.parametrize("name", ["index", "store"])
def test_a_file_that_cannot_be_opened_is_named(upstream: Upstream, tmp_path: Path, name: str) -> None:
    """A folder where the file should be: exit code 2, and one line with the path."""
    path = tmp_path / ("index.sqlite" if name == "index" else "cache.sqlite")
    path.mkdir()
    (tmp_path / "negawatt.toml").write_text(toml(kept(tmp_path, upstream)), encoding="utf-8")
    done = negawatt(tmp_path, "serve", "--port", "0")
    [line] = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2 and str(path) in line


# -- down --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["store", "index"])
def test_what_is_down_makes_misses(upstream: Upstream, tmp_path: Path, part: str, task: str) -> None:
    """Never errors: every call is answered upstream, its row says why, and /readyz and /metrics show the part."""
    gateway = opened(tmp_path, kept(tmp_path, upstream))
    try:
        sdk, name = client(gateway, task), {"store": "cache", "index": "index"}[part]
        said(sdk, QUESTION)
        until(lambda: counts(tmp_path)[0] == 1)
        assert metric(_metrics(gateway), "negawatt_up", f'part="{part}"') == 1
        connection = sqlite3.connect(tmp_path / f"{name}.sqlite", isolation_level=None)
        connection.execute("DROP TABLE entry")
        for number in range(3):
            cache, text = said(sdk, QUESTION if part == "store" else f"How do I reset my password now? {number}")
            assert cache == "miss" and text.startswith("Choose 'Forgot password'")
        ready = gateway.get("/readyz")
        assert ready.status == 503 and "no such table" in ready.json["checks"][part]
        assert metric(_metrics(gateway), "negawatt_up", f'part="{part}"') == 0
        lever = {"store": "exact_cache", "index": "semantic_cache"}[part]
        rows = gateway.settled_rows(task, 4)
        assert {row["ending"] for row in rows} == {"answered"}
        assert all(decided(row, lever)[0]["reason"].startswith(f"the {part} failed") for row in rows[1:])
        assert "Traceback" not in gateway.output
    finally:
        gateway.stop()


def test_items_go_upstream_while_the_store_is_down(upstream: Upstream, tmp_path: Path) -> None:
    """The stub has no embeddings; what it refuses reaches the caller as it is, and not as an error of the store."""
    gateway = opened(tmp_path, kept(tmp_path, upstream))
    try:
        connection = sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)
        connection.execute("DROP TABLE entry")
        script = json.dumps({"do": "status", "status": 418})
        answer = gateway.post({"model": MODEL, "input": script}, None, "/v1/embeddings", **BEARER)
        assert answer.status == 418
    finally:
        gateway.stop()


def _metrics(gateway: Gateway) -> str:
    return gateway.get("/metrics", headers_of(**BEARER)).body.decode()


# -- poison ------------------------------------------------------------------------------------------------------------


def longer(entry: Json) -> None:
    entry["body"] = b" " * 60_000 + entry["body"]


def of_another_protocol(entry: Json) -> None:
    entry["protocol"] = "messages"


def half_an_answer(entry: Json) -> None:
    entry["body"] = b'{"choices": []}'


def no_answer(entry: Json) -> None:
    entry["body"] = b"\x00\xff"


POISON = {
    longer: "larger than 50000 bytes", of_another_protocol: "an answer in 'messages'",
    half_an_answer: "not the answer that was kept", no_answer: "not the answer that was kept",
}  # fmt: skip


@pytest.mark.parametrize("harm", POISON)
def test_a_poisoned_answer_is_not_given(
    upstream: Upstream, tmp_path: Path, harm: Callable[[Json], None], task: str
) -> None:
    """Whoever wrote it into the file: the exact cache asks upstream instead, and says what was wrong."""
    config = kept(tmp_path, upstream)
    config["levers"]["exact_cache"] = {"max_entry_bytes": 50_000}
    gateway = opened(tmp_path, config)
    try:
        sdk = client(gateway, task)
        said(sdk, QUESTION)
        until(lambda: said(sdk, QUESTION)[0] == "exact")
        connection = sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None, timeout=5.0)
        ((key, value),) = connection.execute("SELECT key, value FROM entry").fetchall()
        entry = msgspec.msgpack.decode(value)
        harm(entry)
        connection.execute("UPDATE entry SET value = ? WHERE key = ?", (msgspec.msgpack.encode(entry), key))
        connection.close()
        cache, text = said(client(gateway, f"{task}-poisoned"), QUESTION)
        assert cache == "miss" and text.startswith("Choose 'Forgot password'")
        assert POISON[harm] in decided(gateway.one_row(f"{task}-poisoned"), "exact_cache")[0]["reason"]
        until(lambda: said(sdk, QUESTION)[0] == "exact")  # the good answer has taken its place
    finally:
        gateway.stop()
