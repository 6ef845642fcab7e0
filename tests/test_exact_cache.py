"""The exact cache: what is kept, for whom, for how long; and what never is."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest
from worlds import USAGE, Chunks, Fake, World, answer, bare_call, chat, chunks_of, decisions, settled, virtual, world

from negawatt.call import Scope
from negawatt.config import ExactCache as Settings
from negawatt.errors import InvalidRequest, StoreError, UpstreamBroken, UpstreamStatus
from negawatt.levers.exact_cache import ExactCache
from negawatt.pipeline import Background
from negawatt.reply import Reply
from negawatt.stores.memory import MemoryStore
from negawatt.wire.chat import CHAT

CLASSES = {
    "always": {"cache": "always"},
    "never": {"cache": "never"},
    "strict": {"cache": "deterministic"},
    "personal": {"personal": True},
    "grounded": {"needs_corpus_version": True},
    "brief": {"ttl_s": 10},
    "small": {"max_cache_bytes": 2_000},
}


async def twice(w: World, request: dict[str, Any] | None = None, **hints: str | None) -> str:
    """Ask the same twice, and return who answered the second time."""
    await w.ask(request, **hints)
    return (await w.ask(request, **hints)).by


def cached(**fields: Any) -> dict[str, Any]:
    """Return the levers' configuration with *fields* of the cache."""
    return {"exact_cache": fields, "retry": {"attempts": 1}}


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
            Settings(access=access), {}, store=store, wire=CHAT, validate=lambda *_: None, clock=call.trail.clock,
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


# -- whole and streamed --------------------------------------------------------------------------------------------


def rich() -> dict[str, Any]:
    """Return an answer with about everything in it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": "text", "tool_calls": [call], "reasoning_content": "why", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": {"content": [{"token": "t"}]}}
    return answer(system_fingerprint="fp", choices=[choice])


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
@virtual
async def test_one_entry_serves_whole_and_streamed(first: bool, second: bool):
    """Whichever way it was asked first, both ways get the same answer afterwards."""
    async with world() as w:
        w.provider.script = [rich()]
        one = await w.ask(chat(stream=first))
        other = await w.ask(chat(stream=second))
        assert (one.by, other.by, w.calls) == ("provider", "exact_cache", 1)
        assert one.data == other.data == rich()
        if second:
            assert other.chunks == CHAT.unfold(rich())


@virtual
async def test_a_hit_is_byte_for_byte_what_the_provider_sent():
    """Spaces, order of keys and all, for whole answers."""
    body = orjson.dumps(answer("ключ"), option=orjson.OPT_INDENT_2)

    class Spaced(Fake):
        async def ask(self, call: Any, target: Any) -> Reply:
            self.asked.append({})
            return Reply(CHAT, body=body)

    async with world(Spaced()) as w:
        assert (await w.ask()).reply.body == body
        hit = await w.ask()
        assert (hit.by, hit.reply.body, w.calls) == ("exact_cache", body, 1)


@virtual
async def test_a_hit_says_what_it_spared():
    """The tokens, money and time of the call that made the entry; and bills nothing."""
    async with world(Fake(delay_s=2)) as w:
        await w.ask()
        await w.ask()
        miss, hit = w.rows()
        assert (hit.cost_pusd, hit.input_tokens, hit.attempts, hit.energy_j) == (0, 0, 0, 0)
        assert (hit.baseline_cost_pusd, hit.baseline_output_tokens) == (miss.cost_pusd, USAGE["completion_tokens"])
        assert hit.baseline_energy_j == miss.energy_j
        assert (hit.duration_s, hit.baseline_duration_s) == (0, 2)
        assert (hit.ending, hit.cache, hit.fingerprint) == ("cached", "exact", miss.fingerprint)


# -- who may have it -----------------------------------------------------------------------------------------------


def test_scopes_never_share_an_entry():
    """The whole matrix: of 64 different scopes, each finds its own entry and nobody else's."""
    scopes = [
        Scope(tenant=t, permissions=p, user=u, corpus_version=c, prompt_version=v)
        for t, p, u, c, v in itertools.product("ab", ("", "x"), (None, "u"), (None, "1"), (None, "1"))
    ]
    scopes += [Scope(tenant="a", permissions=p, user=u) for p in ("xu", "+", "x+") for u in ("u", "", "xu", None)]

    async def main() -> None:
        clock = bare_call().trail.clock
        background = Background()
        lever = ExactCache(
            Settings(), {}, store=MemoryStore(clock), wire=CHAT, validate=lambda *_: None, clock=clock,
            background=background,
        )  # fmt: skip
        for first in (True, False):
            for i, scope in enumerate(scopes):
                call = bare_call(clock=clock, scope=scope)

                async def forward(_: Any, i: int = i) -> Reply:
                    return Reply(CHAT, body=orjson.dumps(answer(f"for {i}")))

                reply = await lever(call, forward)
                assert CHAT.text_of(reply.data) == f"for {i}", scope
                assert (reply.answered_by == "provider") is first, scope
                await reply.close()
                await asyncio.sleep(0)
        await background.drain()

    assert len(set(scopes)) == len(scopes) == 44
    asyncio.run(main())


KEYS = {
    "keys": [
        {"id": f"{tenant}-{right}", "key_env": f"KEY_{tenant}_{right}", "tenant": tenant, "permissions": rights}
        for tenant in ("a", "b")
        for right, rights in (("none", []), ("x", ["x"]), ("xy", ["x", "y"]))
    ]
}
ENVIRON = {key["key_env"]: f"secret {key['id']}" for key in KEYS["keys"]}
CALLERS = [
    {"key": secret, "permissions": permissions, "corpus_version": corpus}
    for secret, permissions, corpus in itertools.product(ENVIRON.values(), (None, "p", "q,p"), (None, "7"))
]


@virtual
async def test_tenants_and_permissions_never_cross_through_the_gateway():
    """Exhaustively: for each pair of callers, one asks, then the other; only equals share."""
    async with world(Fake(delay_s=0), environ=ENVIRON, **KEYS) as w:
        for i, (one, other) in enumerate(itertools.product(CALLERS, repeat=2)):
            w.provider.said = f"for {i}"
            await w.ask(chat(f"q{i}"), **one)
            w.provider.said = "asked anew"
            found = await w.ask(chat(f"q{i}"), **other)
            assert (found.by == "exact_cache") is (one == other), (one, other)
            assert found.text == (f"for {i}" if one == other else "asked anew")
    assert len(CALLERS) == 36


@virtual
async def test_the_order_of_permissions_does_not_matter():
    """They are a set."""
    async with world() as w:
        await w.ask(permissions="p, q")
        assert (await w.ask(permissions="q,p,,p")).by == "exact_cache"


@virtual
async def test_users_share_unless_the_class_is_personal():
    """An ordinary answer does not depend on who asks; a personal one does."""
    async with world(classes=CLASSES) as w:
        for name, who in ((None, "exact_cache"), ("personal", "provider")):
            await w.ask(chat(f"{name}"), request_class=name, user="alice")
            assert (await w.ask(chat(f"{name}"), request_class=name, user="bob")).by == who


# -- for how long --------------------------------------------------------------------------------------------------


@virtual
async def test_an_entry_lives_for_its_ttl():
    """That of the lever, or of the class."""
    async with world(levers=cached(ttl_s=100), classes=CLASSES) as w:
        for name, ttl_s in ((None, 100), ("brief", 10)):
            request = chat(f"{name}")
            await w.ask(request, request_class=name)
            await asyncio.sleep(ttl_s - 0.5)
            assert (await w.ask(request, request_class=name)).by == "exact_cache"
            await asyncio.sleep(1)
            assert (await w.ask(request, request_class=name)).by == "provider"


@virtual
async def test_a_class_does_not_take_what_is_older_than_its_own_ttl():
    """Though another class, which keeps answers for longer, has put it there."""
    async with world(classes=CLASSES) as w:
        await w.ask()
        await asyncio.sleep(5)
        assert (await w.ask(request_class="brief")).by == "exact_cache"
        await asyncio.sleep(6)
        assert (await w.ask(request_class="brief")).by == "provider"


@virtual
async def test_entries_are_deleted_by_their_tags():
    """Tenant, class, corpus version, model: all that are named must fit."""
    async with world(classes=CLASSES) as w:
        await w.ask(chat("a"))
        await w.ask(chat("b"), request_class="strict")
        await w.ask(chat("c"), corpus_version="3")
        await w.ask(chat("d", model="other"))
        store = w.gateway.store
        for tags, count in (
            (("tenant=default",), 4),
            (("tenant=acme",), 0),
            (("class=strict",), 1),
            (("corpus_version=3",), 1),
            (("model=other",), 1),
            (("tenant=default", "model=gpt-4o-mini"), 3),
            ((), 0),
        ):
            assert await store.delete_tagged(tags, dry_run=True) == count, tags
        assert await store.delete_tagged(("corpus_version=3",)) == 1
        assert (await w.ask(chat("c"), corpus_version="3")).by == "provider"
        assert (await w.ask(chat("a"))).by == "exact_cache"


# -- when the store fails ------------------------------------------------------------------------------------------


class Failing:
    """A store that does nothing but fail."""

    async def get(self, key: str) -> bytes | None:
        raise StoreError("the disk is gone")

    async def put(self, *args: Any, **kwargs: Any) -> None:
        raise StoreError("the disk is gone")


@virtual
async def test_a_failing_store_is_a_miss(caplog):
    """The call is answered; the row and the log say what failed."""
    async with world() as w:
        for step in w.gateway.pipeline._steps:
            if isinstance(step.lever, ExactCache):
                step.lever._store = Failing()  # type: ignore[assignment]
        assert await twice(w) == "provider"
        assert "the store failed: the disk is gone" in w.rows()[0].decisions
        assert "was not stored: the disk is gone" in caplog.text


@virtual
async def test_an_entry_that_cannot_be_read_is_a_miss_and_is_replaced():
    """Left by another version, or damaged."""
    async with world() as w:
        await w.ask()
        store = w.gateway.store
        (key,) = store._items  # type: ignore[attr-defined]
        await store.put(key, b"\xc1 no entry", ttl_s=100)
        assert (await w.ask()).by == "provider"
        assert (await w.ask()).by == "exact_cache"
