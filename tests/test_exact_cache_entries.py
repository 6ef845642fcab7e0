"""The exact cache: what one entry serves, to whom, for how long, and what it spares."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest
from worlds import CLASSES, USAGE, Fake, answer, bare_call, cached, chat, twice, virtual, world

from negawatt.caller import Scope
from negawatt.config import ExactCache as Settings
from negawatt.errors import StoreError
from negawatt.levers.exact_cache import ExactCache
from negawatt.pipeline import Background
from negawatt.reply import Reply
from negawatt.stores.memory import MemoryStore
from negawatt.wire.chat import CHAT

# -- whole and streamed --------------------------------------------------------------------------------------------


def rich() -> dict[str, Any]:
    """Return an answer with about everything in it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {
        "role": "assistant",
        "content": "text",
        "tool_calls": [call],
        "reasoning_content": "why",
        "refusal": None,
    }
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
            Settings(), {}, store=MemoryStore(clock), validate=lambda *_: None, clock=clock,
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
