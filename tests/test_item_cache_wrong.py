"""The item cache where things go wrong, and beside the call: nothing wrong is given, and nothing wrong is kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from batches import BATCH, Bench, said, spared, vector, vectors_of
from worlds import virtual

from negawatt.call import Target
from negawatt.errors import StoreError, UpstreamStatus
from negawatt.recall.kept_items import KeptItem

# -- what goes wrong -------------------------------------------------------------------------------------------------


class DeadStore:
    """Fails whatever is asked of it."""

    async def get(self, key: str) -> bytes | None:
        raise StoreError("it is down")

    async def put(self, *args: Any, **kwargs: Any) -> None:
        raise StoreError("it is down")


@virtual
async def test_a_store_that_is_down_makes_misses():
    """Which say so."""
    bench = Bench(store=DeadStore())
    for _ in range(2):
        call = bench.call(BATCH)
        await bench.send(call)
        assert said(call) == [("miss", "the store failed: it is down")]
    assert len(bench.provider.asked) == 2


def damaged(value: bytes, how: str) -> bytes:
    """Return a stored item as somebody has broken it."""
    entry = msgspec.msgpack.decode(value, type=KeptItem)
    changed = {
        "another protocol": {"protocol": "chat"}, "no JSON": {"result": b"{"}, "no object": {"result": b"[1]"},
        "no vector": {"result": b'{"embedding": []}'}, "no frame": {"frame": b"nul"},
    }  # fmt: skip
    return value[:-3] if how == "cut" else msgspec.msgpack.encode(msgspec.structs.replace(entry, **changed[how]))


@pytest.mark.parametrize("how", ["cut", "another protocol", "no JSON", "no object", "no vector", "no frame"])
@virtual
async def test_a_stored_item_that_is_damaged_is_a_miss(how: str):
    """Only that one is asked for again."""
    bench = Bench()
    await bench.embed("a", "b")
    keys = list(bench.store._items)
    value = await bench.store.get(keys[0])
    await bench.store.put(keys[0], damaged(value, how), ttl_s=100)
    call = bench.call({"model": "m", "input": ["a", "b"]})
    assert vectors_of((await bench.send(call)).data) == [vector("a"), vector("b")]
    assert bench.provider.inputs[1:] == [["a"]] and said(call) == [("partial", "a stored item cannot be read")]
    assert (await bench.send(bench.call(BATCH))).answered_by == "provider"


NONSENSE: list[Any] = [
    {"data": []}, {"data": [{"index": 0, "embedding": [1.0]}] * 2}, {"data": [{"index": 0}]}, {"x": 1}, b"no json",
    {"data": [{"index": 0, "embedding": [1.0]}], "model": "m"},
]  # fmt: skip


@pytest.mark.parametrize("answer", NONSENSE, ids=range(len(NONSENSE)))
@virtual
async def test_when_the_rest_cannot_be_used_the_whole_is_asked(answer: Any):
    """It is paid for, and said; the last one has vectors of another length."""
    bench = Bench()
    await bench.embed("a", "b")
    bench.provider.script = [answer]
    request = {"model": "m", "input": ["a", "b", "c"]}
    call = bench.call(request)
    assert vectors_of((await bench.send(call)).data) == [vector(item) for item in "abc"]
    assert bench.provider.inputs[1:] == [["c"], ["a", "b", "c"]] and len(call.trail.attempts) == 2
    assert said(call)[-1][0] == "asked whole" and spared(call) is None
    assert (await bench.send(bench.call(request))).answered_by == "item_cache"


@pytest.mark.parametrize("known", [0, 2])
@virtual
async def test_an_error_is_passed_on_as_it_is_and_not_kept(known: int):
    """An error object, an error status, an error raised: once, for all or for the rest."""
    bench = Bench()
    if known:
        await bench.embed("a", "b")
    entries = (await bench.store.stats()).entries
    request = {"model": "m", "input": ["a", "b", "c"]}
    error = {"error": {"message": "no"}}
    bench.provider.script = [error]
    assert (await bench.send(bench.call(request))).data == error
    bench.provider.status = 207
    assert (await bench.send(bench.call(request))).status == 207
    bench.provider.status = 200
    bench.provider.script = [UpstreamStatus(400, b"{}", {})]
    call = bench.call(request)
    with pytest.raises(UpstreamStatus):
        await bench.send(call)
    assert said(call)[-1] == ("partial" if known else "miss", "what was asked for did not come")
    assert (await bench.store.stats()).entries == entries and not bench.lever._flights


@virtual
async def test_a_fallbacks_vectors_are_not_mixed_with_the_models_own():
    """Nor kept: they lie in another space. What answers for the rest is asked for all of it."""
    bench = Bench()
    await bench.embed("a", "b")
    bench.provider.serves, bench.provider.says = "spare", "m"
    call = bench.call({"model": "m", "input": ["a", "c"]})
    assert vectors_of((await bench.send(call)).data) == [vector("a", "spare"), vector("c", "spare")]
    assert ("asked whole", "a fallback answered for the rest") in said(call)
    repeated = bench.call({"model": "m", "input": ["d", "d"]})
    assert vectors_of((await bench.send(repeated)).data) == [vector("d", "spare")] * 2
    bench.provider.serves = None
    assert vectors_of(await bench.embed("a", "c", "d")) == [vector(item) for item in "acd"]
    assert bench.provider.inputs[-1] == ["c", "d"]


@virtual
async def test_a_model_that_changed_behind_its_name_is_not_mixed_with_the_old_one():
    """Where the provider says so: the known part is asked anew with the rest, and the newest holds from then on."""
    bench = Bench()
    await bench.embed("a", "b")
    bench.provider.says = "m-2026"
    call = bench.call({"model": "m", "input": ["a", "c"]})
    assert (await bench.send(call)).data["model"] == "m-2026"
    assert bench.provider.inputs[1:] == [["c"], ["a", "c"]]
    await bench.embed("a", "b", "c")
    assert bench.provider.inputs[3:] == [["b"]]


# -- beside the call -------------------------------------------------------------------------------------------------


@virtual
async def test_in_shadow_it_decides_and_learns_and_changes_nothing():
    """What it would have spared is noted, and in no sum; the provider is asked for everything."""
    bench = Bench()
    calls = [bench.call(BATCH), bench.call({"model": "m", "input": ["a", "d"]}), bench.call(BATCH)]
    for call in calls:
        reply = await bench.send(call, "shadow")
        assert reply.answered_by == "provider"
        await bench.background.drain()
    assert bench.provider.inputs == [BATCH["input"], ["a", "d"], BATCH["input"]]
    modes = {one.mode for call in calls for one in call.trail.decisions}
    assert [said(call)[0][0] for call in calls] == ["miss", "partial", "hit"] and modes == {"shadow"}
    assert spared(calls[2]) == bench.provider.replies[0].data["usage"]["prompt_tokens"]
    assert Target("p", "m", "m") == calls[0].targets[0] and (await bench.store.stats()).entries == 4
