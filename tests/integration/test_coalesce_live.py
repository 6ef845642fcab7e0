"""Many equal calls in flight make one call upstream, whole or streamed, and nobody's leaving hurts the others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest
from world import AT_ONCE_S, Answer, Caller, Gateway, Upstream, ask, chat, in_thread, many_connections, until

MANY = 200


async def together(gateway: Gateway, upstream: Upstream, tag: str, bodies: list[Any], **headers: str) -> list[Answer]:
    """Send all of *bodies* at once; open the gate named *tag* when they had time to arrive."""
    async with many_connections() as session:
        calls = [asyncio.ensure_future(ask(session, gateway.url, body, **headers)) for body in bodies]
        await in_thread(lambda: until(lambda: upstream.tag(tag)["open"]))
        await asyncio.sleep(0.5)
        await in_thread(lambda: upstream.open_gate(tag))
        return await asyncio.gather(*calls)


@pytest.mark.parametrize("form", ["whole", "streamed", "mixed"])
async def test_two_hundred_equal_calls_are_one(gateway: Gateway, upstream: Upstream, task: str, form: str) -> None:
    """One call upstream; every caller gets the same words; one row pays, the others say that they shared."""
    # Temperature 0: whoever comes too late to join finds the answer in the cache.
    body = chat({"tag": task, "gate": task, "text": "the one answer"}, temperature=0)
    streams = [form == "streamed" or (form == "mixed" and i % 2 == 1) for i in range(MANY)]
    bodies = [{**body, "stream": stream} for stream in streams]
    answers = await together(gateway, upstream, task, bodies, x_negawatt_task=task)
    assert {answer.status for answer in answers} == {200}
    assert upstream.tag(task)["calls"] == 1
    for answer, stream in zip(answers, streams, strict=True):
        if not stream:
            assert answer.text == "the one answer"
            continue
        assert answer.events[-1] == "[DONE]"
        chunks = [json.loads(event) for event in answer.events[:-1]]
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "the one answer"
    rows = await in_thread(lambda: gateway.settled_rows(task, MANY))
    endings = Counter(row["ending"] for row in rows)
    assert endings["answered"] == 1
    assert endings["coalesced"] + endings["cached"] == MANY - 1
    assert endings["coalesced"] >= MANY // 2
    assert sum(row["output_tokens"] for row in rows) == 3
    assert {row["baseline_output_tokens"] for row in rows} == {3}


async def test_many_shared_streams_that_end_at_once_reach_everybody(
    gateway: Gateway, upstream: Upstream, task: str
) -> None:
    """Thirty short streams with eight callers each: the fastest reader of one does not take it from the others."""
    bodies = [chat({"tag": task, "gate": task, "text": f"words of {i}"}, temperature=0, stream=True) for i in range(30)]
    answers = await together(gateway, upstream, task, bodies * 8)
    assert [answer.body for answer in answers if answer.status != 200] == []
    for place, answer in enumerate(answers):
        chunks = [json.loads(event) for event in answer.events[:-1]]
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == f"words of {place % 30}"
    assert upstream.tag(task)["calls"] == 30


async def test_calls_that_differ_are_not_one(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """A different seed, model or limit is a different call."""
    body = chat({"tag": task, "gate": task}, temperature=0)
    bodies = [body, {**body, "seed": 1}, {**body, "max_tokens": 9}, {**body, "model": "stub/other"}, {**body, "n": 2}]
    answers = await together(gateway, upstream, task, bodies)
    assert {answer.status for answer in answers} == {200}
    assert upstream.tag(task)["calls"] == len(bodies)


@pytest.mark.parametrize("fields", [{"temperature": 0.7}, {"n": 3}])
async def test_who_asks_for_draws_gets_draws_of_their_own(
    gateway: Gateway, upstream: Upstream, task: str, fields: dict[str, Any]
) -> None:
    """Sampled calls are not shared: each was meant to be another draw."""
    answers = await together(gateway, upstream, task, [chat({"tag": task, "gate": task}, **fields)] * 5)
    assert upstream.tag(task)["calls"] == 5
    assert len({answer.json["id"] for answer in answers}) == 5


async def test_who_says_no_cache_gets_an_answer_of_their_own(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """`Cache-Control: no-cache` keeps a call out of every sharing."""
    body = chat({"tag": task, "gate": task}, temperature=0)
    await together(gateway, upstream, task, [body] * 5, cache_control="no-cache")
    assert upstream.tag(task)["calls"] == 5


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_shared_call_fails_all_hear_of_it(
    gateway: Gateway, upstream: Upstream, task: str, stream: bool
) -> None:
    """An error reaches everybody who waits, from one call upstream, with a row for each."""
    script = {"do": "status", "status": 429, "headers": {"retry-after": "7"}, "tag": task, "gate": task}
    answers = await together(gateway, upstream, task, [chat(script, stream=stream)] * 30, x_negawatt_task=task)
    assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(429, "7")}
    assert upstream.tag(task)["calls"] == 1
    rows = await in_thread(lambda: gateway.settled_rows(task, 30))
    assert {row["ending"] for row in rows} == {"upstream_error"}


async def test_when_the_shared_stream_breaks_all_hear_of_it(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """A break in mid-stream is an error event for everybody, and nobody is told that it is done."""
    body = chat({"do": "die", "tag": task, "gate": task, "text": "a b c"}, stream=True)
    answers = await together(gateway, upstream, task, [body] * 30, x_negawatt_task=task)
    for answer in answers:
        assert json.loads(answer.events[-1])["error"]["code"] == "upstream_broken"
        assert "[DONE]" not in answer.events
    assert upstream.tag(task)["calls"] == 1
    rows = await in_thread(lambda: gateway.settled_rows(task, 30))
    assert {row["ending"] for row in rows} == {"upstream_broken"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_caller_may_leave(gateway: Gateway, upstream: Upstream, task: str, stream: bool) -> None:
    """The hang-up of the one whose call it is leaves the others their whole answer."""
    body = chat({"tag": task, "gate": task, "text": "still here for you"}, stream=stream)
    first = await in_thread(lambda: Caller(gateway, body, f"{task}-first"))
    await in_thread(lambda: until(lambda: upstream.tag(task)["open"]))
    async with many_connections() as session:
        others = [asyncio.ensure_future(ask(session, gateway.url, body, x_negawatt_task=task)) for _ in range(10)]
        await asyncio.sleep(0.2)
        first.hang_up()
        await asyncio.sleep(0.1)
        await in_thread(lambda: upstream.open_gate(task))
        answers = await asyncio.gather(*others)
    assert all(answer.status == 200 and b"still" in answer.body and b"you" in answer.body for answer in answers)
    assert upstream.tag(task)["calls"] == 1
    assert not upstream.tag(task)["hung_up_at"]
    assert (await in_thread(lambda: gateway.one_row(f"{task}-first")))["ending"] == "abandoned"
    rows = await in_thread(lambda: gateway.settled_rows(task, 10))
    assert {row["ending"] for row in rows} == {"coalesced"}


async def test_who_joins_late_reads_from_the_beginning(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """A stream is joined in its middle; the late caller gets every chunk, in order."""
    words = " ".join(f"word{i}" for i in range(20))
    body = chat({"tag": task, "text": words, "gap_s": 0.03}, stream=True)
    first = await in_thread(lambda: Caller(gateway, body))
    await in_thread(lambda: first.read_until(b"word5"))
    async with many_connections() as session:
        late = await ask(session, gateway.url, body)
    chunks = [json.loads(event) for event in late.events[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == words
    assert upstream.tag(task)["calls"] == 1
    first.hang_up()


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_last_one_leaves_the_call_upstream_ends(
    gateway: Gateway, upstream: Upstream, task: str, stream: bool
) -> None:
    """As long as one waits the call goes on; when nobody does any more, it is closed at once."""
    body = chat({"do": "stall", "tag": task, "chunks": 0}, stream=stream)
    callers = [await in_thread(lambda: Caller(gateway, body, task)) for _ in range(8)]
    await in_thread(lambda: until(lambda: upstream.tag(task)["open"]))
    await asyncio.sleep(0.2)
    for caller in callers[:-1]:
        caller.hang_up()
    await asyncio.sleep(0.2)
    assert upstream.tag(task)["open"] == 1
    gone_at = callers[-1].hang_up()
    [closed_at] = await in_thread(lambda: until(lambda: upstream.tag(task)["hung_up_at"]))
    assert closed_at - gone_at < AT_ONCE_S
    rows = await in_thread(lambda: gateway.settled_rows(task, 8))
    assert {row["ending"] for row in rows} == {"abandoned"}
    assert upstream.tag(task)["calls"] == 1


async def test_the_deadline_of_one_is_not_that_of_the_others(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """A caller in a hurry gives up alone, even when the call upstream is theirs."""
    body = chat({"tag": task, "gate": task, "text": "worth the wait"})
    async with many_connections() as session:

        async def one(**headers: str) -> Answer:
            return await ask(session, gateway.url, body, **headers)

        hasty = asyncio.ensure_future(one(x_negawatt_deadline_ms="300"))
        await in_thread(lambda: until(lambda: upstream.tag(task)["open"]))
        patient = asyncio.ensure_future(one())
        assert (await hasty).status == 504
        await in_thread(lambda: upstream.open_gate(task))
        assert (await patient).text == "worth the wait"
    assert upstream.tag(task)["calls"] == 1


async def test_a_flight_that_is_over_is_not_joined(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """Sharing lasts as long as the call: the next equal one, not cacheable, asks again."""
    async with aiohttp.ClientSession() as session:
        for number in (1, 2, 3):
            answer = await ask(session, gateway.url, chat({"tag": task}))
            assert answer.text.startswith(f"answer {number}")
