"""Two gateways, two processes, on one Redis: what they share, and what becomes of them when it is gone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from speaking import Speaker
from world import Gateway, Json, Upstream, ask, chat, in_thread, many_connections, until

if TYPE_CHECKING:
    from redis_server import RedisServer

pytest_plugins = ["redis_server"]
Pair = tuple[Gateway, Gateway]
BACK_S = 20.0  # for a store to be used again; it takes a second


@contextmanager
def pair(folder: Path, config: Json) -> Iterator[Pair]:
    """Start two gateways with one configuration, each with a folder and a ledger of its own."""
    started: list[Gateway] = []
    try:
        for name in ("one", "other"):
            (folder / name).mkdir()
            started.append(Gateway(folder / name, config, STUB_KEY="the-provider-key"))
        yield started[0], started[1]
    finally:
        for gateway in started:
            gateway.stop()


def store_at(server: RedisServer, prefix: str) -> Json:
    return {"store": f"{server.url}?prefix={prefix}:&timeout_ms=2000"}


@pytest.fixture(scope="module")
def both(
    redis_server: RedisServer, configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two gateways on the Redis of the session."""
    with pair(tmp_path_factory.mktemp("both"), configured(cache=store_at(redis_server, "both"))) as gateways:
        yield gateways


def cache_of(gateway: Gateway, request: Json, **headers: str) -> str:
    answer = gateway.post(request, **headers)
    assert answer.status == 200, answer.body
    return answer.headers["x-negawatt-cache"]


def test_what_one_keeps_the_other_finds(both: Pair, upstream: Upstream, task: str) -> None:
    """Whole and streamed; one call upstream, and the other's row says what it was spared."""
    one, other = both
    request = chat({"tag": task, "text": "kept words"}, temperature=0)
    assert one.post(request, task).headers["x-negawatt-cache"] == "miss"
    again = other.post(request, task)
    assert (again.headers["x-negawatt-cache"], again.text) == ("exact", "kept words")
    assert b"kept words" in other.post({**request, "stream": True}).body
    assert upstream.tag(task)["calls"] == 1
    assert other.one_row(task)["baseline_output_tokens"] == one.one_row(task)["output_tokens"] == 2


async def test_twenty_equal_calls_at_once_to_both_are_one(both: Pair, upstream: Upstream, task: str) -> None:
    """One process asks; its callers share the call, those of the other wait for what it stores."""
    body = chat({"tag": task, "gate": task, "text": "the one answer"}, temperature=0)
    async with many_connections() as session:
        calls = [
            asyncio.ensure_future(ask(session, gateway.url, body, x_negawatt_task=task))
            for _ in range(10)
            for gateway in both
        ]
        await in_thread(lambda: until(lambda: upstream.tag(task)["open"]))
        await asyncio.sleep(0.5)  # for all of them to arrive; those that come later find it stored
        await in_thread(lambda: upstream.open_gate(task))
        answers = await asyncio.gather(*calls)
    assert {(answer.status, answer.text) for answer in answers} == {(200, "the one answer")}
    assert upstream.tag(task)["calls"] == 1
    rows = [await in_thread(lambda gateway=gateway: gateway.settled_rows(task, 10)) for gateway in both]  # type: ignore[misc]
    endings = [Counter(row["ending"] for row in some) for some in rows]
    assert sorted(counter["answered"] for counter in endings) == [0, 1]
    [waited] = [some for some, counter in zip(rows, endings, strict=True) if not counter["answered"]]
    assert {row["ending"] for row in waited} == {"cached"}
    hits = [next(d for d in json.loads(row["decisions"]) if d["action"] == "hit") for row in waited]
    assert any(hit["detail"].get("shared") and hit["detail"]["waited_s"] > 0 for hit in hits)


def test_a_tag_deleted_through_one_is_gone_in_the_other(both: Pair, upstream: Upstream, task: str) -> None:
    """By the command line, with the configuration of the one; a dry run first."""
    one, other = both
    request = chat({"tag": task}, temperature=0)
    assert cache_of(one, request, x_negawatt_cache_tags="document=42") == "miss"
    assert cache_of(other, request) == "exact"

    def delete(*options: str) -> Any:
        command = [sys.executable, "-m", "negawatt", "cache", "delete", "--tag", "document=42", "--json", *options]
        config = ["--config", str(one.ledger.with_name("negawatt.toml"))]
        done = subprocess.run([*command, *config], capture_output=True, text=True, timeout=30, check=True)
        return json.loads(done.stdout)["entries"]

    assert delete("--dry-run") == 1
    assert cache_of(other, request) == "exact"
    assert delete() == 1
    assert cache_of(other, request) == "miss"
    assert upstream.tag(task)["calls"] == 2


def test_items_that_one_has_asked_the_other_does_not_ask_again(
    redis_server: RedisServer, tmp_path: Path, task: str
) -> None:
    """Of a batch, only what neither has asked goes on."""
    speaker = Speaker(tmp_path)
    provider = {"name": "all", "kind": "openai-compatible", "base_url": speaker.base_url, "protocols": ["embeddings"]}
    config = {"holdout": {"share": 0.0}, "cache": store_at(redis_server, task), "providers": [provider]}

    def embed(gateway: Gateway, *texts: str) -> list[Any]:
        body = {"model": "all-1", "input": list(texts)}
        answer = gateway.post(body, None, "/v1/embeddings", x_test_tag=task)
        assert answer.status == 200, answer.body
        return [item["embedding"] for item in answer.json["data"]]

    try:
        with pair(tmp_path, config) as (one, other), redis.Redis("127.0.0.1", redis_server.port) as raw:
            first = embed(one, "a", "bb", "ccc")
            until(lambda: raw.hlen(f"{task}:m") == 3)  # they are stored after the answer has left
            again = embed(other, "ccc", "dddd", "a")
            assert [again[0], again[2]] == [first[2], first[0]]
            assert speaker.last(task)["body"]["input"] == ["dddd"]
    finally:
        speaker.stop()


def test_a_redis_that_dies_makes_misses_and_is_used_again(
    start_redis: Callable[..., RedisServer], configured: Callable[..., Json], upstream: Upstream, tmp_path: Path,
    task: str,
) -> None:  # fmt: skip
    """No call fails; both gateways say what is wrong, and need no restart when it is back."""
    server = start_redis()
    request = chat({"tag": task}, temperature=0)
    with pair(tmp_path, configured(cache=store_at(server, task))) as (one, other):
        assert [cache_of(one, request), cache_of(other, request)] == ["miss", "exact"]
        assert one.get("/readyz").status == 200
        assert b'negawatt_up{part="store"} 1' in one.get("/metrics").body
        server.kill()
        for _ in range(10):
            assert [cache_of(gateway, request, task=task) for gateway in (one, other)] == ["miss", "miss"]
        for gateway in (one, other):
            answer = gateway.get("/readyz")
            assert answer.status == 503
            assert answer.json["checks"]["store"].startswith(f"redis at 127.0.0.1:{server.port} failed")
            assert b'negawatt_up{part="store"} 0' in gateway.get("/metrics").body
            assert gateway.get("/healthz").status == 200
            reasons = [d.get("reason") or "" for row in gateway.settled_rows(task, 10)
                       for d in json.loads(row["decisions"]) if d["lever"] == "exact_cache"]  # fmt: skip
            assert sum(reason.startswith("the store failed: redis at 127.0.0.1") for reason in reasons) == 10
        server.start()
        until(lambda: one.get("/readyz").status == other.get("/readyz").status == 200, BACK_S)
        assert [cache_of(one, request), cache_of(other, request)] == ["miss", "exact"]
        assert b'negawatt_up{part="store"} 1' in other.get("/metrics").body


def test_books_of_budgets_that_cannot_be_asked_are_named(
    start_redis: Callable[..., RedisServer], configured: Callable[..., Json], start: Any, task: str
) -> None:  # fmt: skip
    """By /readyz, the metrics and the first screen, as soon as it is so and no longer, though nobody calls."""
    server = start_redis()
    books = {"store": f"redis://127.0.0.1:{server.port}?prefix={task}:"}
    gateway = start(configured(budgeting=books, budgets=[{"name": "all", "tokens": 1_000_000, "per": "day"}]))
    assert gateway.get("/readyz").json["checks"]["budgets"] == "ok"
    server.kill()
    answer = gateway.get("/readyz")
    assert answer.status == 503 and answer.json["checks"]["store"] == "ok"
    assert answer.json["checks"]["budgets"].startswith(f"redis at 127.0.0.1:{server.port} failed")
    assert b'negawatt_up{part="budgets"} 0' in gateway.get("/metrics").body
    assert "budgets" in gateway.get("/admin/api/overview").json["tiles"]["uptime"]["problems"]
    assert gateway.post(chat()).status == 503
    server.start()
    until(lambda: gateway.get("/readyz").status == 200, BACK_S)


def test_gateways_start_without_their_redis(
    start_redis: Callable[..., RedisServer], configured: Callable[..., Json], tmp_path: Path, task: str
) -> None:
    """It was never there: calls are answered, `/readyz` says what is missing, and once it is there it is used."""
    server = start_redis()
    server.kill()
    request = chat({"tag": task}, temperature=0)
    with pair(tmp_path, configured(cache=store_at(server, task))) as (one, other):
        assert [cache_of(gateway, request) for gateway in (one, other)] == ["miss", "miss"]
        assert one.get("/readyz").status == 503
        server.start()
        until(lambda: one.get("/readyz").status == other.get("/readyz").status == 200, BACK_S)
        assert [cache_of(one, request), cache_of(other, request)] == ["miss", "exact"]
