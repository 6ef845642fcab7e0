"""retry: again, then elsewhere, and not at all where it would do harm."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import EPOCH, Chunks, Fake, answer, chat, chunks_of, decisions, gaps, levers, status, virtual, world

from negawatt.errors import (
    DeadlineExceeded,
    NotRecorded,
    UpstreamBroken,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatus,
    UpstreamTimeout,
)
from negawatt.levers.retry import retry_after_s

# -- again ---------------------------------------------------------------------------------------------------------

AGAIN = [
    *(status(code) for code in (408, 409, 429, 498, 500, 502, 503, 504, 529)),
    UpstreamConnectError("x"),
    UpstreamTimeout("x"),
    UpstreamBroken("x"),
    UpstreamError("x"),
]
NOT_AGAIN = [
    *(status(code) for code in (400, 401, 402, 403, 404, 413, 422, 451, 501)),
    UpstreamProtocolError("x"),
    NotRecorded("x"),
    ValueError("a bug of ours"),
]


@pytest.mark.parametrize("error", AGAIN, ids=repr)
@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_what_may_pass_is_tried_again(error: Exception, stream: bool):
    """Overload, faults of the server, and of the network before the first byte."""
    async with world(levers=levers(attempts=3)) as w:
        w.provider.script = [error, error]
        assert (await w.ask(chat(stream=stream))).text == "an answer"
        assert w.calls == 3


@pytest.mark.parametrize("error", NOT_AGAIN, ids=repr)
@virtual
async def test_what_will_not_pass_is_not_tried_again(error: Exception):
    """The request is wrong, the key is, or we are."""
    async with world(levers=levers(attempts=3)) as w:
        w.provider.script = [error]
        with pytest.raises(type(error)):
            await w.ask()
        assert w.calls == 1


@virtual
async def test_the_last_error_is_the_answer():
    """After as many attempts as are allowed, the caller sees what the provider said."""
    async with world(levers=levers(attempts=3)) as w:
        w.provider.script = [status(500), status(503), status(429, retry_after="1")]
        error = await w.failing()
        assert isinstance(error, UpstreamStatus)
        assert (error.status, error.headers) == (429, {"retry-after": "1"})
        assert w.calls == 3


@virtual
async def test_pauses_grow_within_their_bounds():
    """Exponential with full jitter: each between nothing and twice the bound before, up to the limit."""
    most = [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    seen: list[list[float]] = []
    for seed in range(40):
        settings = levers(attempts=7, backoff_s=0.5, max_backoff_s=4.0, breaker_failures=100)
        async with world(seed=seed, levers=settings) as w:
            w.provider.script = [status(500)] * 6
            await w.ask()
            seen.append(gaps(w))
    for i, bound in enumerate(most):
        column = [pauses[i] for pauses in seen]
        assert all(-1e-6 <= pause <= bound + 1e-6 for pause in column)
        assert max(column) > 0.8 * bound, "the jitter is full: it reaches the bound"
        assert min(column) < 0.2 * bound, "and nothing"


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "7.5"}, 7.5),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": formatdate(EPOCH + 13, usegmt=True)}, 12),
        ({"retry_after": "0"}, 0),
        ({"retry_after": formatdate(EPOCH - 100, usegmt=True)}, 0),
    ],
)
@virtual
async def test_retry_after_is_honoured(headers: dict[str, str], least: float):
    """As a number, a date, or OpenAI's milliseconds: not earlier, and not much later."""
    async with world(levers=levers(attempts=2, backoff_s=0.5, max_backoff_s=20)) as w:
        w.provider.script = [status(429, **headers)]
        await w.ask()
        assert least - 1e-6 <= gaps(w)[0] <= least + 0.125 + 1e-6


@virtual
async def test_a_retry_after_beyond_the_limit_is_left_to_the_caller():
    """We do not sit on a call for a minute; the header goes back to the one who can wait."""
    async with world(levers=levers(attempts=3, max_backoff_s=20)) as w:
        w.provider.script = [status(429, retry_after="60")]
        error = await w.failing()
        assert isinstance(error, UpstreamStatus)
        assert error.headers["retry-after"] == "60"
        assert w.calls == 1


@given(st.one_of(st.text(max_size=30), st.floats().map(str), st.integers().map(str)), st.booleans())
def test_no_retry_after_breaks_anything(text: str, milliseconds: bool):
    """Whatever a provider writes there, it is a number of seconds from 0 on, or nothing."""
    found = retry_after_s({"retry-after-ms" if milliseconds else "retry-after": text}, EPOCH)
    assert found is None or found >= 0


# -- elsewhere -----------------------------------------------------------------------------------------------------

MODELS = {
    "models": [
        {"name": "main", "provider": "openai", "upstream": "gpt-4o", "fallbacks": ["second", "third"]},
        {"name": "second", "provider": "openai", "upstream": "gpt-4o-mini", "fallbacks": ["main"]},
        {"name": "third", "provider": "openai", "upstream": "gpt-4.1"},
    ]
}


@virtual
async def test_fallbacks_are_tried_in_their_order():
    """Each as often as the first; the answer says which model it is from."""
    async with world(levers=levers(attempts=2), **MODELS) as w:
        w.provider.script = [status(500), status(500), UpstreamConnectError("x"), status(503), answer("from the third")]
        assert (await w.ask(chat(model="main"))).text == "from the third"
        assert w.provider.models == ["gpt-4o", "gpt-4o", "gpt-4o-mini", "gpt-4o-mini", "gpt-4.1"]
        (row,) = w.rows()
        assert (row.request_model, row.attempts, row.provider) == ("main", 5, "openai")
        notes = [d["reason"] for d in decisions(row, "retry") if d["action"] == "fallback"]
        assert notes == ["to second at openai", "to third at openai"]


@virtual
async def test_models_may_be_each_others_fallbacks():
    """Only their own targets count: there is no going round in circles."""
    async with world(levers=levers(attempts=1), **MODELS) as w:
        w.provider.script = [status(500)] * 9
        await w.failing(chat(model="second"))
        assert w.provider.models == ["gpt-4o-mini", "gpt-4o"]


@pytest.mark.parametrize("code", [400, 404, 413, 415, 422])
@virtual
async def test_a_request_that_is_wrong_is_wrong_everywhere(code: int):
    """No other target is bothered with it."""
    async with world(levers=levers(attempts=2), **MODELS) as w:
        w.provider.script = [status(code)]
        await w.failing(chat(model="main"))
        assert w.calls == 1


@pytest.mark.parametrize("error", [status(401), status(403), UpstreamProtocolError("x")], ids=repr)
@virtual
async def test_a_target_that_cannot_serve_leaves_it_to_the_next(error: Exception):
    """A key that does not work here may work there; it is not tried twice."""
    async with world(levers=levers(attempts=3), **MODELS) as w:
        w.provider.script = [error]
        await w.ask(chat(model="main"))
        assert w.provider.models == ["gpt-4o", "gpt-4o-mini"]


@virtual
async def test_a_long_retry_after_goes_to_the_next_target_at_once():
    """Rather than wait for the first."""
    async with world(levers=levers(attempts=3, max_backoff_s=20), **MODELS) as w:
        w.provider.script = [status(429, retry_after="60")]
        await w.ask(chat(model="main"))
        assert w.provider.models == ["gpt-4o", "gpt-4o-mini"]
        assert gaps(w) == [pytest.approx(0)]


# -- never after the first byte ------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", [UpstreamBroken("gone"), UpstreamTimeout("silent"), None])
@virtual
async def test_nothing_is_tried_again_after_the_first_byte(then: Exception | None):
    """The caller has seen a part of this answer; another one would not fit to it."""
    async with world(levers=levers(attempts=3), **MODELS) as w:
        w.provider.script = [Chunks(chunks_of(answer("half an answer"))[:1], every_s=0.1, then=then)]
        error = await w.failing(chat(model="main", stream=True))
        assert isinstance(error, UpstreamError)
        assert w.calls == 1
        assert [row.ending for row in w.rows()] == ["upstream_broken"]


@pytest.mark.parametrize("then", [UpstreamBroken("gone"), UpstreamTimeout("silent"), None])
@virtual
async def test_a_stream_that_fails_before_its_first_chunk_is_tried_again(then: Exception | None):
    """A status of 200 is not yet an answer."""
    async with world(levers=levers(attempts=2)) as w:
        w.provider.script = [Chunks([], every_s=0.1, then=then)]
        assert (await w.ask(chat(stream=True))).streamed_text == "an answer"
        assert w.calls == 2
        assert w.provider.sources[0].closed == 1


# -- the books -----------------------------------------------------------------------------------------------------


@virtual
async def test_each_attempt_is_booked():
    """With its status, error, time and cost: an error status costs nothing, a broken answer may have cost."""
    async with world(levers=levers(attempts=4, backoff_s=1)) as w:
        w.provider.script = [status(503), UpstreamConnectError("x"), UpstreamTimeout("x")]
        await w.ask()
        (row,) = w.rows()
        log = orjson.loads(row.attempt_log)
        assert [(a["status"], a["error"], a["billed"]) for a in log] == [
            (503, "UpstreamStatus", False), (502, "UpstreamConnectError", False), (504, "UpstreamTimeout", True),
            (200, None, True),
        ]  # fmt: skip
        assert [a["cost_pusd"] for a in log][:2] == [0, 0]
        assert log[2]["usage"]["basis"] == "estimated" and log[2]["cost_pusd"] > 0
        assert sum(a["cost_pusd"] for a in log) == row.cost_pusd
        assert row.attempts == 4
        assert [a["duration_s"] for a in log] == [1] * 4
        assert row.upstream_s == pytest.approx(4)
        assert row.queue_s == pytest.approx(row.duration_s - 4), "backoff is waiting on purpose, not our overhead"
        assert row.overhead_s == pytest.approx(0)
        notes = [d["reason"] for d in decisions(row, "retry")]
        assert notes == [
            "UpstreamStatus: the provider answered with status 503", "UpstreamConnectError: x", "UpstreamTimeout: x",
        ]  # fmt: skip


# -- the deadline --------------------------------------------------------------------------------------------------


@virtual
async def test_a_pause_that_would_outlast_the_deadline_is_not_begun():
    """The caller hears of the failure while they still listen."""
    async with world(levers=levers(attempts=3)) as w:
        w.provider.script = [status(429, retry_after="10")]
        loop = asyncio.get_running_loop()
        began = loop.time()
        error = await w.failing(deadline_ms="5000")
        assert isinstance(error, UpstreamStatus)
        assert loop.time() - began == pytest.approx(1)


@virtual
async def test_the_deadline_ends_attempts_too():
    """In the middle of the second one; nothing goes on behind the caller's back."""
    async with world(Fake(delay_s=2), levers=levers(attempts=3, backoff_s=0.1)) as w:
        w.provider.script = [status(500)] * 3
        assert isinstance(await w.failing(deadline_ms="3000"), DeadlineExceeded)
        assert (w.calls, w.provider.cancelled) == (2, 1)
        assert [row.ending for row in w.rows()] == ["deadline"]


@virtual
async def test_a_caller_who_leaves_in_a_pause_ends_it():
    """No further attempt is made for nobody."""
    async with world(levers=levers(attempts=3)) as w:
        w.provider.script = [status(429, retry_after="10")]
        task = asyncio.ensure_future(w.ask())
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(60)
        assert w.calls == 1
