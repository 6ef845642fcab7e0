"""Ten thousand calls, most of which go wrong in every way at once: one row each, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from test_protocol_endings import PATHS, asking
from world import Gateway, Json, Upstream, ask, chat, headers_of, in_thread, many_connections, until

CALLS = 10_000
IN_FLIGHT = 50
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
    {"index": 0, "delta": {"content": "so far"}, "finish_reason": None}
]}  # fmt: skip

# What is asked of the stub, streamed or not, how the call ends, and what share of the calls it is.
KINDS: dict[str, tuple[Json, bool, str, int]] = {
    "whole": ({}, False, "answered", 3),
    "streamed": ({"text": "a b c d"}, True, "answered", 3),
    "status": ({"do": "status", "status": 500}, False, "upstream_error", 1),
    "limited": ({"do": "status", "status": 429, "headers": {"retry-after": "1"}}, True, "upstream_error", 1),
    "reset": ({"do": "reset"}, False, "upstream_error", 1),
    "closed": ({"do": "hang_up"}, True, "upstream_error", 1),
    "garbage": ({"do": "garbage"}, False, "upstream_error", 1),
    "not json": ({"do": "bare", "body": "{no"}, False, "upstream_error", 1),
    "half": ({"do": "die"}, False, "upstream_error", 1),
    "broken": ({"do": "die", "gap_s": 0.05}, True, "upstream_broken", 2),
    "reset later": ({"do": "reset_in_the_middle", "gap_s": 0.05}, True, "upstream_broken", 1),
    "said so": ({"do": "events", "events": [CHUNK, {"error": {"message": "no"}}], "gap_s": 0.05}, True,
                "upstream_broken", 1),
    "leaves later": ({"do": "stall"}, True, "cancelled", 2),
    "leaves early": ({"do": "silent"}, True, "abandoned", 1),
    "late": ({"do": "silent"}, False, "deadline", 1),
    "late later": ({"do": "stall"}, True, "deadline", 1),
    "wrong": ({}, False, "refused", 1),
}  # fmt: skip
# Streams of the other protocols that end badly: as many as all of the above together.
BADLY = {
    "hang_up": "upstream_broken", "reset": "upstream_broken", "end": "upstream_broken", "garbage": "upstream_broken",
    "wait": "cancelled",
}  # fmt: skip
OTHERS = [(protocol, then) for protocol in ("responses", "messages") for then in BADLY]


@pytest.fixture
def own_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """A stub of our own: whoever is connected to it is our gateway."""
    stub = Upstream(tmp_path_factory.mktemp("own-upstream"))
    yield stub
    stub.stop()


async def one_call(session: aiohttp.ClientSession, gateway: Gateway, kind: str, number: int, task: str) -> None:
    script, stream, ending, _ = KINDS[kind]
    body = chat({**script, "tag": kind, "say": str(number)}, stream=stream, **({"n": 0} if kind == "wrong" else {}))
    headers = {"x_negawatt_task": f"{task}-{kind}"}
    if ending == "deadline":
        headers["x_negawatt_deadline_ms"] = "300"
    if not kind.startswith("leaves"):
        answer = await ask(session, gateway.url, body, **headers)
        began = ending in ("answered", "upstream_broken") or kind == "late later"
        assert (answer.status == 200) == began, kind
        return
    url = f"{gateway.url}/v1/chat/completions"
    waits = asyncio.ensure_future(session.post(url, json=body, headers=headers_of(**headers)))
    if kind == "leaves later":
        response = await waits
        await response.content.readany()
        response.close()
        return
    await asyncio.sleep(0.2)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)


async def one_stream(session: aiohttp.ClientSession, gateway: Gateway, protocol: str, then: str, task: str) -> None:
    """Ask for a stream that ends as *then* says, and read it to there."""
    body = asking(protocol, tag=then, then=then, gap_s=0.001)
    headers = headers_of(x_negawatt_task=f"{task}-{protocol}-{then}")
    async with session.post(gateway.url + PATHS[protocol], json=body, headers=headers) as response:
        # A reset on a busy machine may overtake what was said before it.
        assert response.status == 200 or (then == "reset" and response.status == 502), await response.text()
        if then == "wait":
            await response.content.readany()
            response.close()
        else:
            await response.read()


@pytest.mark.usefixtures("_long")
async def test_after_ten_thousand_failures_nothing_is_left_behind(
    own_upstream: Upstream, start: Callable[..., Gateway], configured: Callable[..., Json], task: str
) -> None:
    """Every call has the row that it should, sockets and memory are as before, and no place in flight was lost."""
    config = configured(server={"max_in_flight": IN_FLIGHT + 14})
    config["providers"][0] |= {"base_url": own_upstream.base_url, "protocols": ["chat", "responses", "messages"]}
    gateway = start(config)
    rng = random.Random(7)
    kinds = rng.choices(list(KINDS), [share for *_, share in KINDS.values()], k=CALLS * 3 // 4)
    streams = rng.choices(OTHERS, k=CALLS // 4)
    slots = asyncio.Semaphore(IN_FLIGHT)

    def others() -> int:
        """Sockets of the gateway that are no connection to its provider."""
        return gateway.sockets - (own_upstream.stats()["connections"] - 1)  # less the one that asks

    async def limited(session: aiohttp.ClientSession, kind: str, number: int) -> None:
        async with slots:
            await one_call(session, gateway, kind, number, task)

    await in_thread(lambda: gateway.post(chat()))
    sockets = await in_thread(others)
    memory = gateway.rss_mb

    async def streamed(session: aiohttp.ClientSession, protocol: str, then: str) -> None:
        async with slots:
            await one_stream(session, gateway, protocol, then, task)

    async with many_connections() as session:
        calls = [limited(session, kind, number) for number, kind in enumerate(kinds)]
        calls += [streamed(session, *one) for one in streams]
        rng.shuffle(calls)
        await asyncio.gather(*calls)
    for (protocol, then), count in Counter(streams).items():
        rows = await in_thread(
            lambda name=f"{protocol}-{then}", count=count: until_rows(gateway, f"{task}-{name}", count)
        )
        early = {"upstream_error"} if then == "reset" else set()
        assert len(rows) == count and set(rows) <= {BADLY[then]} | early, (protocol, then)
    for kind, count in Counter(kinds).items():
        rows = await in_thread(lambda kind=kind, count=count: until_rows(gateway, f"{task}-{kind}", count))
        if kind == "leaves early":  # on a busy machine some are gone before they have asked
            assert set(rows) == {"abandoned"} and 0.95 * count <= len(rows) <= count
        else:
            assert Counter(rows) == {KINDS[kind][2]: count}, kind
    await in_thread(lambda: until(lambda: others() <= sockets))
    assert all(tag["open"] == 0 for tag in own_upstream.stats()["tags"].values())
    assert gateway.rss_mb - memory < 40
    assert "Traceback" not in gateway.output
    async with many_connections() as session:  # as many as fit, at once: no place is taken by a ghost
        bodies = [chat({"delay_s": 0.3, "say": str(i)}) for i in range(IN_FLIGHT + 14)]
        answers = await asyncio.gather(*(ask(session, gateway.url, body) for body in bodies))
    assert Counter(answer.status for answer in answers) == {200: IN_FLIGHT + 14}


async def test_lines_of_ten_megabytes_leave_nothing_behind(
    start: Callable[..., Gateway], configured: Callable[..., Json], task: str
) -> None:
    """Each is an error with its row; what the first ones needed serves the others."""
    config = configured(levers={"coalesce": {"mode": "off"}, "retry": {"attempts": 1, "breaker_failures": 1_000_000}})
    config["providers"][0]["protocols"] = ["chat", "responses", "messages"]
    gateway = start(config)
    async with many_connections() as session:
        for number in range(60):
            if number == 15:
                memory = gateway.rss_mb
            await one_stream(session, gateway, ("chat", "responses", "messages")[number % 3], "long line", task)
    assert gateway.rss_mb - memory < 60, "45 lines are 450 MB"
    rows = [row["ending"] for protocol in ("chat", "responses", "messages")
            for row in gateway.settled_rows(f"{task}-{protocol}-long line", 20)]  # fmt: skip
    assert Counter(rows) == {"upstream_broken": 60}


def until_rows(gateway: Gateway, task: str, count: int) -> list[str]:
    """Return how the calls of *task* ended, once there are *count* of them."""
    try:
        until(lambda: len(gateway.rows(task)) >= count, 3)
    except AssertionError:
        return [row["ending"] for row in gateway.rows(task)]
    return [row["ending"] for row in gateway.rows(task)]


async def test_a_provider_that_fails_is_left_alone_for_a_while(
    start: Callable[..., Gateway], configured: Callable[..., Json], upstream: Upstream, task: str
) -> None:
    """After five failures in a row the circuit opens: 503 with Retry-After and no call; then one may try again."""
    retry = {"attempts": 1, "breaker_failures": 5, "breaker_cooldown_s": 1.0}
    gateway = start(configured(levers={"retry": retry}))
    script = {"do": "status", "status": 500, "tag": task, "times": 5}

    def post() -> int:
        return gateway.post(chat(script), task).status

    statuses = [await in_thread(post) for _ in range(7)]
    assert statuses == [500] * 5 + [503] * 2
    assert upstream.tag(task)["calls"] == 5
    refused = await in_thread(lambda: gateway.post(chat(script), task))
    assert (refused.error["code"], refused.headers["retry-after"]) == ("circuit_open", "1")
    await asyncio.sleep(1.1)
    assert await in_thread(post) == 200
    endings = [row["ending"] for row in await in_thread(lambda: gateway.settled_rows(task, 9))]
    assert Counter(endings) == {"upstream_error": 8, "answered": 1}


def test_retries_wait_as_long_as_they_are_asked_to(
    start: Callable[..., Gateway], configured: Callable[..., Json], upstream: Upstream, task: str
) -> None:
    """A 429 with Retry-After is tried again after that time, within the same call; the row has both attempts."""
    gateway = start(configured(levers={"retry": {"attempts": 3, "backoff_s": 0.01}}))
    script = {"do": "status", "status": 429, "headers": {"retry-after": "1"}, "times": 1, "tag": task, "text": "now"}
    assert gateway.post(chat(script), task).text == "now"
    row = gateway.one_row(task)
    assert (row["ending"], row["attempts"]) == ("answered", 2)
    assert 1.0 <= row["queue_s"] < 1.6
    assert row["duration_s"] >= row["queue_s"]
