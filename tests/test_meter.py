"""The meter: one row for each call, however it ended, and figures that add up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import (
    MODEL,
    USAGE,
    Chunks,
    Fake,
    ManualClock,
    World,
    answer,
    chat,
    chunks_of,
    decisions,
    settled,
    virtual,
    world,
)

from negawatt.call import Target, Trail
from negawatt.errors import NegawattError, UpstreamBroken, UpstreamConnectError, UpstreamStatus, UpstreamTimeout
from negawatt.ledger.outcome import ENDINGS, Outcome
from negawatt.proof.virtual import VirtualLoop, run

KEYS: dict[str, Any] = {"keys": [{"id": "k1", "key_env": "KEY", "tenant": "acme", "user": "alice", "models": [MODEL]}]}
ENVIRON = {"KEY": "secret"}
HALF = chunks_of(answer("half an answer"))[:4]


async def leave(w: World, after_s: float, stream: bool) -> None:
    task = asyncio.ensure_future(w.ask(chat(stream=stream), key="secret"))
    await asyncio.sleep(after_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ask(w: World, stream: bool, step: Any = None, **hints: str) -> None:
    if step is not None:
        w.provider.script = [step]
    with contextlib.suppress(NegawattError, ValueError):
        await w.ask(chat(stream=stream), key="secret", **hints)


async def cached(w: World, stream: bool) -> None:
    await ask(w, not stream)
    w.ledger.outcomes.clear()
    await ask(w, stream)


async def coalesced(w: World, stream: bool) -> None:
    await asyncio.gather(ask(w, stream), ask(w, stream))
    w.ledger.outcomes[:] = [row for row in w.rows() if row.ending != "answered"]


Scene = Callable[[World, bool], Awaitable[None]]
SCENES: dict[str, Scene] = {
    "answered": lambda w, stream: ask(w, stream),
    "cached": cached,
    "coalesced": coalesced,
    "refused": lambda w, stream: ask(w, stream, cache_control="max-age=x"),
    "upstream_error": lambda w, stream: ask(w, stream, UpstreamStatus(500, b"{}", {})),
    "upstream_broken": lambda w, stream: ask(w, True, Chunks(HALF, every_s=0.1, then=UpstreamBroken("gone"))),
    "cancelled": lambda w, stream: leave(w, 1.25, True),
    "abandoned": lambda w, stream: leave(w, 0.5, stream),
    "deadline": lambda w, stream: ask(w, stream, deadline_ms="500"),
    "failed": lambda w, stream: ask(w, stream, ValueError("a bug of ours")),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
@virtual
async def test_every_ending_leaves_exactly_one_row(ending: str, stream: bool):
    """With who asked, what for, how it ended and how long it took."""
    async with world(environ=ENVIRON, **KEYS) as w:
        await SCENES[ending](w, stream)
        await settled()
        (row,) = w.rows()
        assert row.ending == ending
        assert (row.tenant, row.user_id, row.key_id) == ("acme", "alice", "k1")
        assert (row.request_model, row.request_class, row.operation) == (MODEL, "default", "chat")
        assert row.duration_s == pytest.approx(row.queue_s + row.upstream_s + row.overhead_s)
        assert (row.error_type is None) is (ending in ("answered", "cached", "coalesced", "cancelled"))
        plain(row)


def plain(row: Outcome) -> None:
    """Check what holds for every row: nothing negative, details within their sums, JSON that can be read."""
    for name in Outcome.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, (int, float)):
            assert value >= 0, name
    for log in (row.decisions, row.attempt_log):
        assert isinstance(orjson.loads(log), list)
    assert set(orjson.loads(row.versions)) == {"prices", "energy", "carbon"}
    assert len(orjson.loads(row.attempt_log)) == row.attempts
    if row.energy_j is not None:
        assert row.energy_low_j is not None and row.energy_high_j is not None
        assert row.energy_low_j <= row.energy_j <= row.energy_high_j


def test_the_scenes_are_all_the_endings():
    """An ending that is added must be shown here."""
    assert tuple(SCENES) == ENDINGS


REFUSED: dict[str, tuple[bytes, dict[str, str], bool]] = {
    "no key": (orjson.dumps(chat()), {}, False),
    "an unknown key": (orjson.dumps(chat()), {"key": "guess"}, False),
    "not JSON": (b"{", {"key": "secret"}, True),
    "not an object": (b"[]", {"key": "secret"}, True),
    "no messages": (b'{"model": "m"}', {"key": "secret"}, True),
    "a model of others": (orjson.dumps(chat(model="gpt-4o")), {"key": "secret"}, True),
    "an unknown class": (orjson.dumps(chat()), {"key": "secret", "request_class": "no such"}, True),
    "a bad deadline": (orjson.dumps(chat()), {"key": "secret", "deadline_ms": "soon"}, True),
    "too large": (orjson.dumps(chat("x" * 5_000)), {"key": "secret"}, True),
}


@pytest.mark.parametrize("name", REFUSED)
@virtual
async def test_a_refused_call_has_a_row_where_its_caller_is_known(name: str):
    """A stranger has none: nobody to bill, and nobody may fill our disk unknown."""
    body, hints, known = REFUSED[name]
    async with world(environ=ENVIRON, server={"max_body_bytes": 2_000}, **KEYS) as w:
        with pytest.raises(NegawattError) as caught:
            await w.send(w.call(body, **hints))
        assert 400 <= caught.value.status < 500
        assert w.calls == 0
        assert len(w.rows()) == known
        for row in w.rows():
            assert (row.ending, row.status, row.tenant) == ("refused", caught.value.status, "acme")
            assert (row.cost_pusd, row.baseline_cost_pusd, row.input_tokens) == (0, 0, 0)
            assert row.error_message == caught.value.message
            plain(row)


# -- money ---------------------------------------------------------------------------------------------------------

COST_PUSD = 100 * 150_000 + 20 * 600_000  # gpt-4o-mini: 0.15 and 0.60 USD for a million tokens


@virtual
async def test_an_answer_costs_what_its_tokens_cost():
    """In pico-dollars, exactly; nothing was spared, so the baseline is the same."""
    for stream in (False, True):
        async with world() as w:
            await w.ask(chat(stream=stream))
            (row,) = w.rows()
            assert row.cost_pusd == row.baseline_cost_pusd == COST_PUSD
            assert (row.input_tokens, row.output_tokens, row.usage_basis) == (100, 20, "measured")
            assert (row.baseline_input_tokens, row.baseline_output_tokens) == (100, 20)
            assert row.price_source is not None
            assert row.energy_basis is not None
            assert Decimal(row.cost_pusd).scaleb(-12) == Decimal("0.000027")


@virtual
async def test_a_hit_bills_nothing_and_says_what_it_would_have_cost():
    """The sum over all rows is what the provider bills; the baseline is what it would have billed."""
    async with world() as w:
        for i in range(5):
            await w.ask(chat(stream=i % 2 == 1))
        assert [row.cost_pusd for row in w.rows()] == [COST_PUSD, 0, 0, 0, 0]
        assert [row.baseline_cost_pusd for row in w.rows()] == [COST_PUSD] * 5
        assert {row.price_source for row in w.rows()} == {w.rows()[0].price_source}
        (hit,) = decisions(w.rows()[1], "exact_cache")
        assert (hit["saved"]["cost_pusd"], hit["saved"]["model"], hit["saved"]["provider"]) == (
            COST_PUSD, MODEL, "openai",
        )  # fmt: skip


@virtual
async def test_what_has_no_price_costs_nobody_knows_what():
    """None, never 0: for the answer, for its hit, and for what the hit spared."""
    async with world(Fake(delay_s=0)) as w:
        request = chat(model="a-model-that-nobody-sells")
        for _ in range(2):
            await w.ask(request)
        miss, hit = w.rows()
        assert (miss.cost_pusd, miss.baseline_cost_pusd, miss.price_source) == (None, None, None)
        assert (hit.cost_pusd, hit.baseline_cost_pusd) == (0, None)
        assert (miss.input_tokens, hit.input_tokens, hit.baseline_input_tokens) == (100, 0, 100)


@virtual
async def test_a_sum_with_an_unknown_part_is_unknown():
    """An attempt without a price makes the whole call one without a price, whatever the others cost."""
    models = [
        {"name": "main", "provider": "openai", "upstream": "nobody-sells-this", "fallbacks": ["spare"]},
        {"name": "spare", "provider": "openai", "upstream": MODEL},
    ]
    async with world(models=models) as w:
        w.provider.script = [UpstreamTimeout("silent")]
        await w.ask(chat(model="main"))
        (row,) = w.rows()
        assert [one["cost_pusd"] for one in orjson.loads(row.attempt_log)] == [None, COST_PUSD]
        assert (row.cost_pusd, row.baseline_cost_pusd) == (None, None)
        assert row.response_model == MODEL


@virtual
async def test_usage_that_the_provider_does_not_tell_is_estimated_and_says_so():
    """Counted here, from what was sent and received."""
    silent = answer("some words that can be counted")
    del silent["usage"]
    for stream in (False, True):
        async with world() as w:
            w.provider.script = [silent]
            await w.ask(chat(stream=stream))
            (row,) = w.rows()
            assert row.usage_basis == "estimated"
            assert row.input_tokens and row.output_tokens and row.cost_pusd


@virtual
async def test_a_stream_that_breaks_is_billed_for_what_came():
    """Providers bill what they computed; without their count it is ours."""
    async with world() as w:
        w.provider.script = [Chunks(HALF, every_s=0.1, then=UpstreamBroken("gone"))]
        await w.failing(chat(stream=True))
        (row,) = w.rows()
        assert (row.ending, row.status, row.usage_basis) == ("upstream_broken", 200, "estimated")
        assert row.output_tokens and row.cost_pusd
        assert row.error_type == "UpstreamBroken"


@pytest.mark.parametrize("error", [UpstreamStatus(429, b"{}", {}), UpstreamConnectError("refused")])
@virtual
async def test_an_error_costs_nothing(error: NegawattError):
    """That is known, so it is 0 and not None."""
    async with world() as w:
        w.provider.script = [error]
        await w.failing()
        (row,) = w.rows()
        assert (row.cost_pusd, row.input_tokens, row.energy_j, row.co2e_g) == (0, 0, 0, 0)
        assert row.status == error.status


@virtual
async def test_a_call_that_was_cut_off_upstream_has_an_unknown_cost():
    """Nobody waited for what it used: None, for the cost and for the baseline."""
    async with world() as w:
        await asyncio.gather(w.ask(deadline_ms="500"), return_exceptions=True)
        await settled()
        (row,) = w.rows()
        assert (row.ending, row.attempts) == ("deadline", 1)
        assert (row.cost_pusd, row.baseline_cost_pusd, row.input_tokens) == (None, None, None)


@virtual
async def test_the_provider_s_own_price_is_believed():
    """OpenRouter tells the cost of each call."""
    told = answer(usage={**USAGE, "cost": 0.00125})
    async with world() as w:
        w.provider.script = [told]
        await w.ask()
        (row,) = w.rows()
        assert row.cost_pusd == 1_250_000_000


COUNT = st.integers(0, 5_000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), COUNT, COUNT, st.sampled_from([0, 0, 0, 1])), max_size=12))
def test_the_sums_hold(calls: list[tuple[int, bool, int, int, int]]):
    """Over any mixture of calls: costs add up to what the provider computed, baselines to what it would have."""

    async def main() -> None:
        async with world(levers={"retry": {"attempts": 2, "backoff_s": 0.001}}) as w:
            billed = 0
            for question, stream, prompt, completion, failures in calls:
                usage = {"prompt_tokens": prompt + 1, "completion_tokens": completion}
                before = w.calls
                w.provider.script = [UpstreamStatus(500, b"", {})] * failures + [answer(usage=usage)]
                await w.ask(chat(f"{question}", stream=stream))
                if w.calls > before:
                    billed += (prompt + 1) * 150_000 + completion * 600_000
            rows = w.rows()
            assert len(rows) == len(calls)
            assert sum(row.cost_pusd or 0 for row in rows) == billed
            for row in rows:
                plain(row)
                assert row.cost_pusd is not None and row.baseline_cost_pusd is not None
                saved = sum(d["saved"]["cost_pusd"] for d in decisions(row) if d.get("saved"))
                assert row.cost_pusd + saved == row.baseline_cost_pusd
                spared = sum(d["saved"]["input_tokens"] for d in decisions(row) if d.get("saved"))
                assert (row.input_tokens or 0) + spared == row.baseline_input_tokens

    run(main(), VirtualLoop())


# -- time ----------------------------------------------------------------------------------------------------------


@virtual
async def test_the_time_is_split():
    """At the provider, waiting on purpose, and ours; and how long the first chunk took."""
    async with world(Fake("ten chunks of text.", delay_s=2, every_s=0.1)) as w:
        await w.ask(chat(stream=True))
        (row,) = w.rows()
        assert row.upstream_s == pytest.approx(row.duration_s)
        assert row.duration_s == pytest.approx(2 + 0.1 * (len(chunks_of(answer("ten chunks of text."))) + 1))
        assert row.time_to_first_chunk_s == pytest.approx(2.1)
        assert row.queue_s == 0
        assert row.baseline_duration_s == row.duration_s


@virtual
async def test_a_hit_took_no_time_and_spared_the_providers():
    """Its baseline is what the stored answer took then."""
    async with world(Fake(delay_s=3)) as w:
        await w.ask()
        await w.ask()
        assert w.rows()[1].duration_s == 0
        assert w.rows()[1].baseline_duration_s == 3


@virtual
async def test_a_row_waits_for_what_goes_on_upstream():
    """The first caller of a shared call is gone, but their row is written when its cost is known."""
    async with world(Fake(delay_s=2)) as w:
        leader = asyncio.ensure_future(w.ask())
        await settled()
        follower = asyncio.ensure_future(w.ask())
        await asyncio.sleep(1)
        leader.cancel()
        await settled()
        assert w.rows() == []
        await asyncio.gather(leader, follower, return_exceptions=True)
        await settled()
        row = next(row for row in w.rows() if row.ending == "abandoned")
        assert row.cost_pusd == COST_PUSD
        assert row.duration_s == 1


@virtual
async def test_who_was_gone_before_the_first_byte_got_nothing():
    """The answer had begun, but none of it was sent: abandoned, not cancelled."""
    for sent in (False, True):
        async with world() as w:
            call = w.call(chat(stream=True))
            reply = await w.gateway.handle(call)
            if sent:
                await reply.__anext__()
                call.trail.first_byte = call.trail.clock.monotonic()
            reply.undelivered = True
            await reply.close()
            await settled()
            assert [row.ending for row in w.rows()] == ["cancelled" if sent else "abandoned"]


@virtual
async def test_content_is_kept_only_where_it_is_asked_for():
    """The request as it came, and the whole answer, streamed or not."""
    for keep in (False, True):
        for stream in (False, True):
            async with world(ledger={"keep_content": keep}) as w:
                found = await w.ask(chat(stream=stream))
                content = w.ledger.content(w.rows()[0].id)
                assert (content is not None) is keep
                if content is not None:
                    assert orjson.loads(content.request) == chat(stream=stream)
                    assert orjson.loads(content.response or b"") == found.data


def test_time_at_providers_counts_once_where_attempts_overlap():
    """Two that run at the same time are no longer than the longer one; one after the end of the call is none of it."""
    trail = Trail(ManualClock())
    for started, ended in ((0.0, 3.0), (1.0, 2.0), (2.0, 4.0), (6.0, None), (9.0, 10.0)):
        attempt = trail.open_attempt(Target("openai", "gpt-4o", "gpt-4o"))
        attempt.started, attempt.ended = started, ended
    assert trail.upstream_s(8.0) == 6.0
    assert trail.upstream_s(0.5) == 0.5
