"""The layers of the application's own work: kept, shared, bounded, invalidated; and one who makes what many ask for."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import Desk, Failing, Maker, asked
from recalls import bold, recalling
from worlds import chat, settled, virtual

from negawatt.caller import Caller, Hints, Scope
from negawatt.config import parse_config
from negawatt.errors import ConfigError, InvalidRequest, PermissionDenied, StoreError, UnknownLayer
from negawatt.keys import layer_key, scope_of
from negawatt.layers.entry import encoded, sealed
from negawatt.layers.values import Found, Lead, Missed

FIRST, OTHER_WORDS = "How do I reset my password?", "how do I reset my password please"

# -- keys ------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
NAMES = st.one_of(st.none(), st.text("ab|+,", min_size=1, max_size=3))
SCOPES = st.builds(
    Scope, tenant=st.sampled_from(["default", "acme"]), permissions=st.sampled_from(["", "p", "p+q"]), user=NAMES,
    corpus_version=NAMES, prompt_version=NAMES, tool_digests=NAMES,
)  # fmt: skip
LAYER = st.sampled_from(["tools", "retrieval", "tool"])


def canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def turned(value: Any) -> Any:
    """Return *value* with the keys of its objects in the opposite order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(one) for one in value] if isinstance(value, list) else value


@settings(max_examples=300, deadline=None)
@given(LAYER, SCOPES, JSON, LAYER, SCOPES, JSON)
def test_two_keys_are_equal_exactly_when_layer_scope_and_material_are(
    layer: str, scope: Scope, material: Any, other_layer: str, other_scope: Scope, other: Any
):
    """Whatever differs makes another key; the order of keys in an object does not."""
    one, two = (layer, scope, canonical(material)), (other_layer, other_scope, canonical(other))
    assert (layer_key(*one) == layer_key(*two)) == (one == two)
    assert layer_key(*one) == layer_key(layer, scope, canonical(turned(material)))


def test_the_scope_is_that_of_requests():
    """Permissions in a header divide and never join; tool digests are a set; the user counts where it is personal."""
    caller = Caller(tenant="acme", user="ann", permissions="digest")
    plain = scope_of(caller, Hints(), personal=False)
    assert (plain.tenant, plain.user, plain.permissions) == ("acme", None, "digest")
    assert scope_of(caller, Hints(permissions="b, a"), personal=False).permissions.startswith("digest+")
    assert scope_of(caller, Hints(tool_digests="b,a"), personal=False).tool_digests == "a,b"
    assert scope_of(caller, Hints(), personal=True).user == "ann"
    anyones = msgspec.structs.replace(caller, user=None)
    assert scope_of(anyones, Hints(user="bob"), personal=True).user == "bob"
    with pytest.raises(PermissionDenied, match="x-negawatt-user"):
        scope_of(caller, Hints(user="bob"), personal=True)


# -- one entry -------------------------------------------------------------------------------------------------


@virtual
async def test_what_was_put_is_given_until_its_time_is_over():
    """Value and content type come back as they were; after the layer's lifetime they do not."""
    desk = Desk(tools={"ttl_s": 100})
    assert await desk.layers.put(asked(), b"", "text/plain") is None
    await asyncio.sleep(99)
    found = await desk.layers.get(asked())
    assert isinstance(found, Found)
    assert (found.entry.value, found.entry.content_type, found.state, found.age_s) == (b"", "text/plain", "hit", 99)
    await asyncio.sleep(2)
    assert isinstance(await desk.layers.get(asked()), Missed)
    assert desk.counts() == {"put": 1, "hit": 1, "miss": 1}


@pytest.mark.parametrize(("ttl_s", "control", "lives_s"), [
    (10, None, 10), (10_000, None, 100), (None, "max-age=10", 10), (None, "max-age=1000", 100), (5, "max-age=10", 5),
])  # fmt: skip
@virtual
async def test_a_caller_may_shorten_a_lifetime_and_never_lengthen_it(
    ttl_s: float | None, control: str | None, lives_s: int
):
    """By a lifetime of its own, or by the max-age of what it puts."""
    desk = Desk(tools={"ttl_s": 100})
    await desk.layers.put(asked(ttl_s=ttl_s, cache_control=control), b"v")
    await asyncio.sleep(lives_s - 0.5)
    assert isinstance(await desk.layers.get(asked()), Found)
    await asyncio.sleep(1)
    assert isinstance(await desk.layers.get(asked()), Missed)


@virtual
async def test_a_caller_may_refuse_what_is_too_old_for_it():
    """max-age bounds the age, no-cache reads nothing, no-store keeps nothing; a bad one is named."""
    desk = Desk()
    await desk.layers.put(asked(), b"v")
    await asyncio.sleep(30)
    assert isinstance(await desk.layers.get(asked(cache_control="max-age=29")), Missed)
    assert isinstance(await desk.layers.get(asked(cache_control="max-age=31")), Found)
    assert isinstance(await desk.layers.get(asked(cache_control="no-cache")), Missed)
    assert await desk.layers.put(asked("other", cache_control="no-store"), b"v") == "the caller said no-store"
    assert await desk.layers.put(asked("other", cache_control="max-age=0"), b"v") == "the caller said max-age=0"
    assert isinstance(await desk.layers.get(asked("other")), Missed)
    with pytest.raises(InvalidRequest, match="max-age"):
        await desk.layers.get(asked(cache_control="max-age=soon"))


SCOPED = {
    "user": Scope(user="ann"),
    "permissions": Scope(permissions="digest"),
    "corpus_version": Scope(corpus_version="1"),
    "prompt_version": Scope(prompt_version="1"),
    "tool_digests": Scope(tool_digests="abc"),
}


@pytest.mark.parametrize("need", SCOPED)
@virtual
async def test_without_the_scope_that_a_layer_needs_nothing_is_kept(need: str):
    """Neither get nor put nor making keeps anything, and the reason names what is missing; with it all goes on."""
    desk, maker = Desk(tools={"needs": [need]}), Maker()
    missed = await desk.layers.get(asked())
    assert isinstance(missed, Missed)
    assert "the layer tools needs" in missed.reason
    assert "the layer tools needs" in (await desk.layers.put(asked(), b"v") or "")
    for _ in range(2):
        await desk.layers.get_or_make(asked(), maker)
    assert maker.made == 2
    assert (await desk.store.stats()).entries == 0
    for _ in range(2):
        await desk.layers.get_or_make(asked(scope=SCOPED[need]), maker)
    assert maker.made == 3
    assert desk.counts() == {"refused": 4, "miss": 1, "put": 1, "hit": 1}


@pytest.mark.parametrize(("layer", "scope"), [
    ("retrieval", Scope(corpus_version="1")), ("prompts", Scope(prompt_version="1")), ("tools", Scope()),
    ("answers", Scope()),
])  # fmt: skip
@virtual
async def test_the_usual_layers_need_what_their_entries_are_made_of(layer: str, scope: Scope):
    """Retrieval a corpus version, prompts a prompt version; also where the configuration changes something else."""
    for desk in (Desk(), Desk(**{layer: {"ttl_s": 5}})):
        refused = await desk.layers.put(asked(layer=layer), b"v")
        assert (refused is None) == (scope == Scope())
        assert await desk.layers.put(asked(layer=layer, scope=scope), b"v") is None
    assert await Desk(**{layer: {"needs": []}}).layers.put(asked(layer=layer), b"v") is None


@virtual
async def test_a_layer_that_nobody_declared_is_refused_with_those_that_are():
    """The message names the usual ones and the configured ones."""
    desk = Desk(reports={})
    for ask in (desk.layers.get, desk.layers.begin, desk.layers.delete):
        with pytest.raises(UnknownLayer, match="known: answers, prompts, reports, retrieval, tools"):
            await ask(asked(layer="repots"))
    assert await desk.layers.put(asked(layer="reports"), b"v") is None


@pytest.mark.parametrize("name", ["embeddings", "rerank", "a/b", "a b", "", "ä", "x" * 65])
def test_a_layer_with_an_impossible_name_is_refused_at_the_start(name: str):
    """Before anything is opened; names of the gateway's own layers are taken."""
    with pytest.raises(ConfigError, match=r"cache\.layers"):
        parse_config({"cache": {"layers": {name: {}}}})


@virtual
async def test_what_is_too_large_is_not_kept_and_says_so():
    """One byte over the limit; what the maker made is returned all the same."""
    desk = Desk(tools={"max_entry_bytes": 10})
    assert await desk.layers.put(asked(), b"x" * 10) is None
    refused = await desk.layers.put(asked("large"), b"x" * 11)
    assert refused == "it has 11 bytes; the limit is 10 (cache.layers.tools)"
    maker = Maker(script=[b"y" * 11])
    assert await desk.layers.get_or_make(asked("large"), maker) == b"y" * 11
    assert isinstance(await desk.layers.get(asked("large")), Missed)


def poisons(key: str) -> dict[str, bytes]:
    """Return what may lie under *key* and must not be given."""
    good = sealed(key, "tools", b"value", content_type="text/plain", stored_at=1_780_000_000.0, ttl_s=60.0)
    strange = msgspec.structs.replace(good, protocol="negawatt-layer/0")
    return {
        "bytes": b"value",
        "empty": b"",
        "another protocol": encoded(strange),
        "another key": encoded(sealed("0" * 64, "tools", b"v", content_type="a", stored_at=1.78e9, ttl_s=60.0)),
        "another layer": encoded(sealed(key, "prompts", b"v", content_type="a", stored_at=1.78e9, ttl_s=60.0)),
        "a changed value": encoded(msgspec.structs.replace(good, value=b"valve")),
        "a longer life": encoded(msgspec.structs.replace(good, ttl_s=6e9)),
        "a later birth": encoded(msgspec.structs.replace(good, stored_at=2e9)),
        "cut off": encoded(good)[:-1],
        "too large": encoded(sealed(key, "tools", b"x" * 101, content_type="a", stored_at=1.78e9, ttl_s=60.0)),
    }  # fmt: skip


@pytest.mark.parametrize("poison", poisons(""))
@virtual
async def test_what_does_not_belong_under_a_key_is_never_given(poison: str):
    """Foreign, changed or over-large: a miss for get, and made anew by those who can."""
    desk, maker = Desk(tools={"max_entry_bytes": 100}), Maker()
    await desk.store.put(asked().key, poisons(asked().key)[poison], ttl_s=1e6)
    missed = await desk.layers.get(asked())
    assert isinstance(missed, Missed)
    assert "may not be given" in missed.reason
    assert desk.counts()["error"] == 1
    assert await desk.layers.get_or_make(asked(), maker) == b"made 1"
    assert await desk.layers.get_or_make(asked(), maker) == b"made 1"


# -- isolation -------------------------------------------------------------------------------------------------


@virtual
async def test_nothing_crosses_from_one_scope_or_layer_to_another():
    """Every combination of layer, tenant, user, permissions, corpus, prompt and tools: each finds its own."""
    desk = Desk()
    spaces = [
        asked(layer=layer, scope=Scope(tenant=tenant, user=user, permissions=p, corpus_version=c, prompt_version=v,
                                       tool_digests=t))
        for layer, tenant, user, p, c, v, t in itertools.product(
            ("retrieval", "answers"), ("a", "b"), (None, "ann", "bob"), ("", "p"), ("1", "2"), (None, "1"), (None, "t")
        )
    ]  # fmt: skip
    assert len({one.key for one in spaces}) == len(spaces) == 192
    for number, one in enumerate(spaces):
        assert isinstance(await desk.layers.get(one), Missed)
        assert await desk.layers.put(one, b"%d" % number) is None
    for number, one in enumerate(spaces):
        found = await desk.layers.get(one)
        assert isinstance(found, Found)
        assert found.entry.value == b"%d" % number
    half = await desk.layers.delete_tagged(("tenant=a", "layer=answers"))
    assert half == 48
    left = [one for one in spaces if isinstance(await desk.layers.get(one), Found)]
    assert all((one.scope.tenant, one.layer) != ("a", "answers") for one in left)
    assert len(left) == 144


# -- invalidation ----------------------------------------------------------------------------------------------


@virtual
async def test_entries_are_deleted_by_our_tags_and_by_the_callers():
    """All tags must be there; a dry run counts the same and deletes nothing."""
    desk = Desk()
    for number in range(6):
        scope = Scope(corpus_version=f"v{number % 2}", prompt_version="p")
        await desk.layers.put(asked(number, "retrieval", scope, tags=(f"document={number % 3}",)), b"v")
    tags = ("layer=retrieval", "corpus_version=v0", "prompt_version=p", "document=2")
    assert await desk.layers.delete_tagged(tags, dry_run=True) == 1
    assert (await desk.store.stats()).entries == 6
    assert await desk.layers.delete_tagged(tags) == 1
    assert await desk.layers.delete_tagged(("corpus_version=v0",)) == 2
    assert await desk.layers.delete_tagged(()) == 0
    assert (await desk.store.stats()).entries == 3


@pytest.mark.parametrize("by", ["key", "tag"])
@virtual
async def test_what_is_being_made_while_it_is_invalidated_is_not_kept(by: str):
    """It was made of what is out of date; those who waited for it get it, the next who asks makes it anew."""
    desk, maker = Desk(), Maker()
    first = asyncio.ensure_future(desk.layers.get_or_make(asked(tags=("document=1",)), maker))
    await asyncio.sleep(0.5)
    if by == "key":
        await desk.layers.delete(asked())
    else:
        await desk.layers.delete_tagged(("document=2",))
        await desk.layers.delete_tagged(("document=1",), dry_run=True)
        await desk.layers.delete_tagged(("document=1", "layer=tools"))
    assert await first == b"made 1"
    assert await desk.layers.get_or_make(asked(), maker) == b"made 2"
    assert await desk.layers.get_or_make(asked(), maker) == b"made 2"


@virtual
async def test_one_entry_is_deleted_by_its_key():
    """True once; others stay."""
    desk = Desk()
    await desk.layers.put(asked(1), b"v")
    await desk.layers.put(asked(2), b"v")
    assert await desk.layers.delete(asked(1))
    assert not await desk.layers.delete(asked(1))
    assert isinstance(await desk.layers.get(asked(2)), Found)


# -- one who makes it ------------------------------------------------------------------------------------------


async def many(desk: Desk, maker: Maker, count: int = 50, **more: Any) -> list[Any]:
    asks = [desk.layers.get_or_make(asked(**more), maker) for _ in range(count)]
    return await asyncio.gather(*asks, return_exceptions=True)


@virtual
async def test_of_many_who_ask_one_makes_it():
    """Fifty at once, one made; the rest share it, and the next finds it kept."""
    desk, maker = Desk(), Maker()
    assert await many(desk, maker) == [b"made 1"] * 50
    assert await desk.layers.get_or_make(asked(), maker) == b"made 1"
    assert maker.made == 1
    assert desk.counts() == {"miss": 1, "put": 1, "shared": 49, "hit": 1}
    assert desk.store.claims == 1


@virtual
async def test_of_several_processes_one_makes_it():
    """Three replicas over one store, twenty callers each: one made, nobody waits much longer than it takes."""
    first, maker = Desk(), Maker(3.0)
    desks = [first, Desk(first.store), Desk(first.store)]
    found = await asyncio.gather(*(many(desk, maker, 20) for desk in desks))
    assert found == [[b"made 1"] * 20] * 3
    assert maker.made == 1
    assert asyncio.get_running_loop().time() < 3.5
    assert first.store.claims < 100  # they look seldom enough


@virtual
async def test_when_the_one_who_makes_it_fails_another_tries():
    """Only the one whose own attempt failed gets the exception; it is not kept."""
    desk, maker = Desk(), Maker(script=[ValueError("no"), ValueError("no"), b"at last"])
    found = await many(desk, maker, 10)
    assert sorted(map(repr, found)) == ["ValueError('no')"] * 2 + ["b'at last'"] * 8
    assert maker.made == 3


@virtual
async def test_when_the_one_who_makes_it_is_cancelled_another_tries():
    """Whoever leads may go; those who wait do not go with it, nor is anything left locked."""
    desk, maker = Desk(), Maker()
    leader = asyncio.ensure_future(desk.layers.get_or_make(asked(), maker))
    await asyncio.sleep(0.1)
    others = [asyncio.ensure_future(desk.layers.get_or_make(asked(), maker)) for _ in range(5)]
    await asyncio.sleep(0.1)
    others[0].cancel()
    leader.cancel()
    found = await asyncio.gather(leader, *others, return_exceptions=True)
    assert [type(one) for one in found[:2]] == [asyncio.CancelledError] * 2
    assert found[2:] == [b"made 2"] * 4
    assert (maker.made, maker.cancelled) == (2, 1)
    assert asyncio.get_running_loop().time() < 1.5
    assert await desk.store.claim(asked().key, ttl_s=1) is not None


@virtual
async def test_when_another_process_fails_this_one_tries():
    """The claim is given back at once, not when it lapses."""
    first, failing, maker = Desk(), Maker(script=[ValueError("no")]), Maker()
    other = Desk(first.store)
    leader = asyncio.ensure_future(first.layers.get_or_make(asked(), failing))
    await asyncio.sleep(0.1)
    assert await other.layers.get_or_make(asked(), maker) == b"made 1"
    with pytest.raises(ValueError, match="no"):
        await leader
    assert asyncio.get_running_loop().time() < 3


@virtual
async def test_nobody_waits_longer_than_the_layer_says():
    """Where one hangs, or its process died, the others make it for themselves after wait_s."""
    desk, hanging, maker = Desk(tools={"wait_s": 5}), Maker(1e6), Maker()
    leader = asyncio.ensure_future(desk.layers.get_or_make(asked(), hanging))
    await asyncio.sleep(1)
    assert await many(desk, maker, 3) == [b"made 1", b"made 2", b"made 3"]
    assert asyncio.get_running_loop().time() == pytest.approx(7)
    assert await desk.store.claim("dead", ttl_s=1000) is not None
    dead = asked("dead")
    await desk.store.claim(dead.key, ttl_s=1000)  # of a process that is no more
    assert await desk.layers.get_or_make(dead, maker) == b"made 4"
    assert asyncio.get_running_loop().time() == pytest.approx(13, abs=0.1)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    await desk.background.drain()


@virtual
async def test_a_lead_that_was_lost_holds_nobody_up_for_good():
    """Nobody says what came of it: after wait_s the next who asks takes over."""
    desk, maker = Desk(tools={"wait_s": 5}), Maker()
    assert isinstance(await desk.layers.begin(asked()), Lead)
    await asyncio.sleep(6)
    assert await many(desk, maker, 10) == [b"made 1"] * 10


@virtual
async def test_a_lead_that_was_handed_out_is_left_to_its_token():
    """The next waits for the store alone; when the token comes back with a value, it is found."""
    desk = Desk()
    lead = await desk.layers.begin(asked())
    assert isinstance(lead, Lead)
    token = desk.layers.hand_out(lead)
    assert token is not None
    waiting = [asyncio.ensure_future(desk.layers.begin(asked())) for _ in range(3)]
    await asyncio.sleep(1)
    assert not any(one.done() for one in waiting)
    await desk.layers.put(asked(), b"v")
    await desk.layers.release(asked(), token)
    found = await asyncio.gather(*waiting)
    assert [one.entry.value for one in found if isinstance(one, Found)] == [b"v"] * 3
    assert asyncio.get_running_loop().time() < 1.5


@virtual
async def test_a_caller_who_wants_it_anew_waits_for_nobody():
    """no-cache makes it, keeps it, and does not join what is in the making."""
    desk, maker = Desk(), Maker()
    early = asyncio.ensure_future(desk.layers.get_or_make(asked(), maker))
    await asyncio.sleep(0.5)
    assert await desk.layers.get_or_make(asked(cache_control="no-cache"), maker) == b"made 2"
    assert await early == b"made 1"
    assert await desk.layers.get_or_make(asked(), maker) == b"made 2"


# -- stale -----------------------------------------------------------------------------------------------------


@virtual
async def test_a_stale_entry_is_given_at_once_and_renewed_by_one():
    """Within stale_s nobody waits; in two processes one renews it; a renewal that fails leaves it as it was."""
    rules = {"ttl_s": 10, "stale_s": 20}
    first, maker = Desk(tools=rules), Maker(script=[b"old", ValueError("no"), b"new"])
    second = Desk(first.store, tools=rules)
    await first.layers.get_or_make(asked(), maker)
    for expected, seconds in ((2, 11), (3, 2)):
        await asyncio.sleep(seconds)
        before = asyncio.get_running_loop().time()
        found = await asyncio.gather(many(first, maker, 10), many(second, maker, 10))
        assert found == [[b"old"] * 10] * 2
        assert asyncio.get_running_loop().time() == before
        await asyncio.sleep(2)
        assert maker.made == expected
    assert await many(first, maker, 3) == [b"new"] * 3
    assert first.counts()["stale"] + second.counts()["stale"] == 40


@virtual
async def test_beyond_its_stale_time_an_entry_is_made_anew():
    """And a layer without one gives nothing that is out of date."""
    for rules, seconds in (({"ttl_s": 10, "stale_s": 5}, 16), ({"ttl_s": 10}, 11)):
        desk, maker = Desk(tools=rules), Maker(0)
        await desk.layers.get_or_make(asked(), maker)
        await asyncio.sleep(seconds)
        assert await desk.layers.get_or_make(asked(), maker) == b"made 2"


# -- a store that is down --------------------------------------------------------------------------------------


@virtual
async def test_a_store_that_is_down_makes_misses_and_no_errors(caplog: pytest.LogCaptureFixture):
    """Gets miss, puts say why, many callers still share one making; the log has one line, the metrics count."""
    desk, maker = Desk(), Maker()
    desk.store.down = True
    missed = await desk.layers.get(asked())
    assert missed == Missed("the store failed: it is down")
    assert await desk.layers.put(asked(), b"v") == "the store failed: it is down"
    assert await many(desk, maker) == [b"made 1"] * 50
    assert len([one for one in caplog.records if "it is down" in one.message]) == 1
    assert desk.counts()["error"] >= 3
    desk.store.down = False
    assert await desk.layers.get_or_make(asked(), maker) == b"made 2"
    assert await desk.layers.get_or_make(asked(), maker) == b"made 2"


@virtual
async def test_an_invalidation_that_did_not_happen_is_an_error():
    """Whoever deletes must know that nothing was deleted."""
    desk = Desk(Failing(Desk().clock))
    desk.store.down = True
    with pytest.raises(StoreError):
        await desk.layers.delete_tagged(("tenant=default",))


@virtual
async def test_a_store_that_goes_down_in_the_middle_loses_the_entry_and_nothing_else():
    """It was made, so it is returned; the claim lapses by itself."""
    desk, maker = Desk(tools={"wait_s": 5}), Maker()
    making = asyncio.ensure_future(desk.layers.get_or_make(asked(), maker))
    await asyncio.sleep(0.5)
    desk.store.down = True
    assert await making == b"made 1"
    desk.store.down = False
    assert await desk.layers.get_or_make(asked(), maker) == b"made 2"


@virtual
async def test_stats_tell_what_each_layer_did():
    """Entries and bytes of the store; of each layer what it did, nothing for one that nobody used."""
    desk, maker = Desk(reports={}), Maker(0)
    for _ in range(3):
        await desk.layers.get_or_make(asked(layer="reports"), maker)
    stats = await desk.layers.stats()
    assert stats["entries"] == 1
    assert stats["bytes"] > 0
    assert stats["layers"]["reports"] == {"miss": 1, "put": 1, "hit": 2}
    assert stats["layers"]["tools"] == {}


@virtual
async def test_one_invalidation_reaches_the_semantic_cache_too():
    """Answers are a layer as well: what the index keeps of a corpus version goes with the rest, and only that."""
    async with recalling() as w:
        bold(w)
        for version in ("1", "2"):
            await w.ask(chat(FIRST), corpus_version=version)
            await settled()
            assert (await w.ask(chat(OTHER_WORDS), corpus_version=version)).by == "semantic_cache"
        tags = ("tenant=default", "layer=answers", "corpus_version=1")
        assert await w.gateway.forget(tags, dry_run=True) == {"store": 0, "index": 1}
        assert await w.gateway.forget(("tenant=other", *tags[1:])) == {"store": 0, "index": 0}
        assert await w.gateway.forget(tags) == {"store": 0, "index": 1}
        assert (await w.ask(chat(OTHER_WORDS), corpus_version="1")).by == "provider"
        assert (await w.ask(chat(OTHER_WORDS), corpus_version="2")).by == "semantic_cache"
