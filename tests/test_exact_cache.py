"""The exact cache: which calls it is for, what callers may say to it, and what it never keeps."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from worlds import (
    CLASSES,
    Chunks,
    Fake,
    answer,
    bare_call,
    cached,
    chat,
    chunks_of,
    decisions,
    settled,
    twice,
    virtual,
    world,
)

from negawatt.config import ExactCache as Settings
from negawatt.errors import InvalidRequest, UpstreamBroken, UpstreamStatus
from negawatt.levers.exact_cache import ExactCache
from negawatt.pipeline import Background
from negawatt.reply import Reply
from negawatt.stores.memory import MemoryStore
from negawatt.wire.chat import CHAT

# -- which calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        ({"temperature": 0}, "exact_cache"),
        ({"temperature": 0.0}, "exact_cache"),
        ({"temperature": 0, "n": 1}, "exact_cache"),
        ({"temperature": None}, "provider"),
        ({"temperature": 0.1}, "provider"),
        ({"temperature": None, "seed": 4}, "provider"),
    ],
)
@virtual
async def test_only_deterministic_calls_are_kept_by_default(fields: dict[str, Any], who: str):
    """Temperature 0 and nothing else; silence means the provider's default, which is not 0."""
    async with world() as w:
        assert await twice(w, chat(**fields)) == who
        reasons = {d["reason"] for row in w.rows() for d in decisions(row, "exact_cache") if d["action"] == "bypass"}
        assert reasons == (set() if who == "exact_cache" else {"not deterministic: temperature is not 0"})


@pytest.mark.parametrize(
    ("name", "hints", "temperature", "who"),
    [
        ("always", {}, 1, "exact_cache"),
        ("never", {}, 0, "provider"),
        ("strict", {}, 0, "exact_cache"),
        ("strict", {}, 1, "provider"),
        ("personal", {}, 0, "provider"),
        ("personal", {"user": "alice"}, 0, "exact_cache"),
        ("grounded", {}, 0, "provider"),
        ("grounded", {"corpus_version": "3"}, 0, "exact_cache"),
        ("small", {}, 0, "exact_cache"),
    ],
)
@virtual
async def test_a_class_has_its_own_policy(name: str, hints: dict[str, str], temperature: float, who: str):
    """Always, never, only with a user, only with a corpus version."""
    async with world(classes=CLASSES) as w:
        assert await twice(w, chat(temperature=temperature), request_class=name, **hints) == who


@pytest.mark.parametrize(
    ("settings", "temperature", "who"),
    [
        ({"when": "always"}, 1, "exact_cache"),
        ({"when": "never"}, 0, "provider"),
        ({"mode": "off"}, 0, "provider"),
        ({"access": "read_only"}, 0, "provider"),
        ({"access": "write_only"}, 0, "provider"),
    ],
)
@virtual
async def test_the_lever_has_its_policy(settings: dict[str, Any], temperature: float, who: str):
    """For all classes that say nothing of their own."""
    async with world(levers=cached(**settings)) as w:
        assert await twice(w, chat(temperature=temperature)) == who


@virtual
async def test_read_only_reads_what_is_there_and_write_only_writes():
    """Together they are one whole cache: a warmed store, read by those who may not change it."""
    store = MemoryStore(bare_call().trail.clock)
    asked = []

    async def forward(call: Any) -> Reply:
        asked.append(call)
        return Reply(CHAT, body=orjson.dumps(answer("said")))

    async def through(access: Any) -> str:
        call, background = bare_call(), Background()
        lever = ExactCache(
            Settings(access=access), {}, store=store, validate=lambda *_: None, clock=call.trail.clock,
            background=background,
        )  # fmt: skip
        reply = await lever(call, forward)
        await reply.close()
        await background.drain()
        return reply.answered_by

    assert [await through("read_only") for _ in range(2)] == ["provider"] * 2
    assert [await through("write_only") for _ in range(2)] == ["provider"] * 2
    assert await through("read_only") == "exact_cache"
    assert len(asked) == 4


# -- Cache-Control -------------------------------------------------------------------------------------------------


@virtual
async def test_no_cache_asks_again_and_keeps_the_newer_answer():
    """The next caller gets the fresh one."""
    async with world() as w:
        await w.ask()
        w.provider.said = "newer"
        fresh = await w.ask(cache_control="no-cache")
        later = await w.ask()
        assert (fresh.by, fresh.text) == ("provider", "newer")
        assert (later.by, later.text) == ("exact_cache", "newer")


@virtual
async def test_no_store_neither_reads_nor_writes():
    """Nothing of the call is kept, and an older entry stays as it was."""
    async with world() as w:
        for _ in range(2):
            assert (await w.ask(cache_control="no-store")).by == "provider"
        assert (await w.gateway.store.stats()).entries == 0
        await w.ask()
        w.provider.said = "newer"
        assert (await w.ask(cache_control="No-Store, max-age=100")).text == "newer"
        assert (await w.ask()).text == "an answer"


@virtual
async def test_max_age_takes_only_what_is_young_enough():
    """In seconds; 0 is as good as no-cache."""
    async with world() as w:
        await w.ask()
        await asyncio.sleep(50)
        assert (await w.ask(cache_control="max-age=60")).by == "exact_cache"
        assert (await w.ask(cache_control="max-age=40")).by == "provider"
        assert (await w.ask(cache_control="max-age=40")).by == "exact_cache", "the newer answer took its place"
        assert (await w.ask(cache_control="max-age=0")).by == "provider"
        assert (await w.ask(cache_control=' Max-Age="5" ,something-else')).by == "exact_cache"


@pytest.mark.parametrize("text", ["max-age", "max-age=", "max-age=soon", "max-age=-1", "max-age=1.5"])
@virtual
async def test_a_bad_max_age_is_refused_by_name(text: str):
    """Rather than guessed."""
    async with world() as w:
        error = await w.failing(cache_control=text)
        assert isinstance(error, InvalidRequest)
        assert error.param == "cache-control"
        assert w.calls == 0


@virtual
async def test_cache_control_cannot_loosen_a_policy():
    """A call that is not to be cached is not cached, whatever its caller says."""
    async with world(classes=CLASSES) as w:
        assert await twice(w, request_class="never", cache_control="max-age=100") == "provider"


# -- what is never kept --------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object", "required": ["a"]}},
}


def said(text: str, **fields: Any) -> dict[str, Any]:
    whole = answer(text)
    whole["choices"][0].update(fields)
    return whole


def two(reason: Any) -> dict[str, Any]:
    whole = answer("one")
    whole["choices"].append({"index": 1, "message": {"role": "assistant", "content": "2"}, "finish_reason": reason})
    return whole


UNFIT: dict[str, tuple[Any, dict[str, Any], str]] = {
    "cut off by its limit": (said("a", finish_reason="length"), {}, "not every choice came to its end"),
    "filtered": (said("a", finish_reason="content_filter"), {}, "not every choice came to its end"),
    "without a reason": (said("a", finish_reason=None), {}, "not every choice came to its end"),
    "one choice of two cut off": (two("length"), {"n": 2}, "not every choice came to its end"),
    "without choices": ({"id": "1", "object": "chat.completion"}, {}, "not every choice came to its end"),
    "not JSON as asked": (
        said("hello"), {"response_format": {"type": "json_object"}}, "the answer is not the JSON that was asked for",
    ),
    "JSON of another kind": (
        said("[1]"), {"response_format": {"type": "json_object"}}, "the answer is not the JSON object",
    ),
    "breaking its schema": (said("{}"), {"response_format": SCHEMA}, "the answer breaks the schema"),
    "half a JSON": (said('{"a": '), {"response_format": SCHEMA}, "the answer is not the JSON that was asked for"),
    "of a strange shape": (said("a", message="text"), {}, "it cannot be streamed again without loss"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
@virtual
async def test_an_unfit_answer_is_passed_on_but_never_kept(name: str):
    """And the row says why."""
    body, fields, reason = UNFIT[name]
    async with world(levers={**cached(), "coalesce": {"mode": "off"}}) as w:
        w.provider.script = [body, body]
        assert await twice(w, chat(**fields)) == "provider"
        assert (await w.gateway.store.stats()).entries == 0
        notes = [d["reason"] for d in decisions(w.rows()[0], "exact_cache") if d["action"] == "not stored"]
        assert notes[0].startswith(reason)


@pytest.mark.parametrize("text", ['{"a": 1}', '{"a": null}'])
@virtual
async def test_an_answer_that_keeps_its_contract_is_kept(text: str):
    """The schema was checked, and found kept."""
    async with world(Fake(text)) as w:
        assert await twice(w, chat(response_format=SCHEMA)) == "exact_cache"


TOLD = chunks_of(answer("a longer answer"))
BROKEN: dict[str, list[Any]] = {
    "breaks off with an error": [Chunks(TOLD[:3], then=UpstreamBroken("gone"))],
    "breaks off after its last word": [Chunks(TOLD, then=UpstreamBroken("gone"))],
    "ends without a finish reason": [Chunks(TOLD[:3])],
    "ends before it began": [Chunks([])],
    "is an error": [UpstreamStatus(500, b"{}", {})],
    "is refused": [UpstreamStatus(400, b"{}", {})],
}


@pytest.mark.parametrize("name", BROKEN)
@virtual
async def test_a_broken_answer_is_never_kept(name: str):
    """Nor an error: the next caller asks anew and is answered."""
    async with world() as w:
        w.provider.script = list(BROKEN[name])
        await w.failing(chat(stream=True))
        assert (await w.gateway.store.stats()).entries == 0
        assert (await w.ask(chat(stream=True))).by == "provider"
        assert (await w.ask()).by == "exact_cache"


@virtual
async def test_an_answer_that_its_caller_left_is_not_kept():
    """They hung up in the middle: what came so far is no answer."""
    async with world() as w:
        task = asyncio.ensure_future(w.ask(chat(stream=True)))
        await asyncio.sleep(1.25)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settled()
        assert (await w.gateway.store.stats()).entries == 0


MODELS = {
    "models": [
        {"name": "main", "provider": "openai", "upstream": "gpt-4o", "fallbacks": ["spare"]},
        {"name": "spare", "provider": "openai", "upstream": "gpt-4o-mini"},
    ]
}


@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_a_fallbacks_answer_is_not_kept_as_the_models_own(stream: bool):
    """Nor by those who shared it. Once the model is back, its own answer is."""
    async with world(**MODELS) as w:
        w.provider.script = [UpstreamStatus(500, b"", {}), answer("from the spare")]
        request = chat(model="main", stream=stream)
        first = await asyncio.gather(*(w.ask(request) for _ in range(3)))
        assert {a.text for a in first} == {"from the spare"}
        assert w.provider.models == ["gpt-4o", "gpt-4o-mini"]
        assert (await w.gateway.store.stats()).entries == 0
        assert (await w.ask(request)).text == "an answer"
        assert (await w.ask(request)).by == "exact_cache"


@virtual
async def test_an_answer_beyond_the_size_limit_is_not_kept():
    """`max_entry_bytes`, and the bound of its class."""
    async with world(Fake("x" * 3_000), levers=cached(max_entry_bytes=1_000), classes=CLASSES) as w:
        assert await twice(w) == "provider"
        assert "larger than 1000 bytes" in w.rows()[0].decisions
    async with world(Fake("x" * 3_000), classes=CLASSES) as w:
        assert await twice(w, request_class="small") == "provider"
