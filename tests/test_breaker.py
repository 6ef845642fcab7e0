"""The circuit breaker: a target that keeps failing is left alone for a while."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from worlds import answer, bare_call, chat, levers, status, virtual, world

from negawatt.call import Target
from negawatt.config import Retry as Settings
from negawatt.errors import (
    CircuitOpen,
)
from negawatt.levers.retry import Breaker, Retry

MODELS = {
    "models": [
        {"name": "main", "provider": "openai", "upstream": "gpt-4o", "fallbacks": ["second", "third"]},
        {"name": "second", "provider": "openai", "upstream": "gpt-4o-mini", "fallbacks": ["main"]},
        {"name": "third", "provider": "openai", "upstream": "gpt-4.1"},
    ]
}


# -- the breaker ---------------------------------------------------------------------------------------------------


def test_the_breaker_opens_half_opens_and_closes():
    """After so many failures in a row it is open; after its time, one call tries; that one decides."""
    breaker = Breaker(3, 10.0)
    for now in (0.0, 1.0):
        breaker.failed(now)
        assert breaker.wait_s(now) == 0
    breaker.failed(2.0)
    assert breaker.wait_s(2.0) == 10
    assert breaker.wait_s(11.0) == 1
    assert breaker.wait_s(12.0) == 0, "one may try"
    assert breaker.wait_s(12.0) == 10, "and no other meanwhile"
    breaker.failed(12.5)
    assert breaker.wait_s(13.0) == 9.5, "it failed: open again, at once"
    assert breaker.wait_s(22.5) == 0
    breaker.succeeded()
    assert [breaker.wait_s(22.5) for _ in range(3)] == [0, 0, 0], "it worked: closed"
    for _ in range(2):
        breaker.failed(23.0)
    assert breaker.wait_s(23.0) == 0, "and counting from the start"


def test_a_success_in_between_starts_the_count_anew():
    """In a row means in a row."""
    breaker = Breaker(2, 10.0)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.wait_s(0.0) == 0


def test_a_try_without_a_word_lets_another_one_try():
    """The caller of the one who tried hung up: the target is neither well nor ill."""
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert breaker.wait_s(10.0) == 0
    breaker.gave_up()
    assert breaker.wait_s(10.0) == 0


@virtual
async def test_a_target_that_keeps_failing_is_left_alone():
    """Callers hear so at once, with when to come again; after that time it is asked again."""
    settings = levers(attempts=1, breaker_failures=3, breaker_cooldown_s=10)
    async with world(levers=settings) as w:
        w.provider.script = [status(503)] * 3
        for _ in range(3):
            await w.failing()
        error = await w.failing()
        assert isinstance(error, CircuitOpen)
        assert error.retry_after_s == pytest.approx(10)
        assert w.calls == 3
        assert w.rows()[-1].ending == "upstream_error"
        assert (w.rows()[-1].attempts, w.rows()[-1].cost_pusd) == (0, 0)
        await asyncio.sleep(10.5)
        found = await asyncio.gather(*(w.ask() for _ in range(5)), return_exceptions=True)
        assert [type(one).__name__ for one in found].count("CircuitOpen") == 4, "one tries for all"
        assert w.calls == 4
        await w.ask()
        assert w.calls == 5


@virtual
async def test_an_open_breaker_sends_calls_to_the_fallback():
    """Without asking the target that is left alone."""
    async with world(levers=levers(attempts=1, breaker_failures=2), **MODELS) as w:
        w.provider.script = [status(500), answer("a"), status(500), answer("b"), answer("c")]
        for _ in range(3):
            await w.ask(chat(model="main"))
        assert w.provider.models == ["gpt-4o", "gpt-4o-mini"] * 2 + ["gpt-4o-mini"]


@virtual
async def test_one_model_failing_says_nothing_of_another():
    """A breaker is of one model at one provider."""
    async with world(levers=levers(attempts=1, breaker_failures=1)) as w:
        w.provider.script = [status(500)]
        await w.failing(chat(model="gpt-4o"))
        assert isinstance(await w.failing(chat(model="gpt-4o")), CircuitOpen)
        assert (await w.ask(chat(model="gpt-4.1"))).text == "an answer"


@virtual
async def test_a_callers_mistake_does_not_open_the_breaker():
    """A target that says 400 is well."""
    async with world(levers=levers(attempts=1, breaker_failures=2)) as w:
        w.provider.script = [status(500), status(400), status(500), status(400)]
        for _ in range(4):
            await w.failing()
        assert (await w.ask()).text == "an answer"


@virtual
async def test_the_table_of_breakers_is_bounded():
    """Models may be named by callers, and callers can name many."""
    lever = Retry(Settings(), bare_call().trail.clock, random.Random(0))

    async def forward(call: Any) -> Any:
        return None

    for i in range(10_050):
        await lever(bare_call(targets=(Target("p", f"m{i}", "m"),)), forward)
    assert len(lever._breakers) <= 10_000
