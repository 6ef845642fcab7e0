"""Isolation, exhaustively: over every cache that can answer a call, no cell of the matrix gets another cell's answer.

Each upstream answer says which cell asked for it, so whatever layer serves it to another is seen. A cell is asked while
the answers of all that asked before it lie in the cache: that is one ordered pair for each of them. Both orders are
run. What differs in `stream` alone must be served, so that a cache which answers nothing fails as well.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from cells import (
    BODY,
    ITEM,
    PERSONAL,
    SCOPE,
    Cell,
    Keeping,
    Tally,
    matrix,
    numbered,
    teller,
    thin_matrix,
    whole_matrix,
)
from isolation import (
    CACHES,
    FIRST,
    all_at_once,
    levers,
    one_after_another,
    overlapping_batches,
    real,
    tellers,
    telling,
    told,
)
from worlds import virtual

from negawatt import keys
from negawatt.call import Request
from negawatt.caller import Scope
from negawatt.errors import StateNotFound
from negawatt.proof.virtual import VirtualLoop, run

CELLS = whole_matrix(1000)
Record = Callable[[str, object], None]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("order", ["forth", "back"])
@virtual
async def test_no_answer_crosses_from_cell_to_cell(cache: str, order: str, record_property: Record):
    """Scope, model, parameters, system prompt, tools, format, protocol: all pairs; only `stream` may differ."""
    tally = Tally(CELLS)
    async with telling(levers=CACHES[cache]) as w:
        await one_after_another(w, CELLS if order == "forth" else CELLS[::-1], tally)
        assert w.calls == len(CELLS)
    tally.check(record_property, hits=len(CELLS))


@virtual
async def test_no_answer_crosses_in_flight(record_property: Record):
    """All cells at once, each whole and streamed: one call upstream for each, which its two callers share."""
    tally = Tally(CELLS)
    async with telling(1.0, levers=levers(coalesce={})) as w:
        await all_at_once(w, CELLS, tally)
        assert w.calls == len(CELLS)
    tally.check(record_property, hits=len(CELLS))


@virtual
async def test_no_renewal_crosses(record_property: Record):
    """Every stale answer is given to its own cell, asked anew for it, and the new one put where its cell finds it."""
    tally = Tally(CELLS)
    brief = {"ttl_s": 10, "stale_s": 1_000}
    classes = {"default": brief, PERSONAL: {"personal": True, **brief}}
    async with telling(levers=levers(exact_cache={}), classes=classes) as w:
        for round_, (wait_s, times) in enumerate([(0, 1), (20, 1), (0, 2)]):
            await asyncio.sleep(wait_s)
            for cell in CELLS:
                call = cell.call(w, FIRST, stream=(cell.number + round_) % 2 == 0)
                got = await w.send(call)
                words = orjson.loads(call.wire.text_of(got.data))["cell"]
                tally.heard(cell, teller(words), got.by, strangers=len(CELLS) - 1 if round_ else cell.number)
                assert words == f"{teller(words)}#{times}"
            await w.gateway.background.drain()
        assert w.calls == 2 * len(CELLS), "each was asked, and renewed once"
    tally.check(record_property, hits=2 * len(CELLS))


# -- items -------------------------------------------------------------------------------------------------------------

ITEM_CELLS = numbered([{**scope, **one} for scope in matrix(SCOPE, SCOPE) for one in matrix(ITEM, ITEM)])


@pytest.mark.parametrize("protocol", ["embeddings", "rerank"])
@virtual
async def test_no_item_crosses(protocol: str, record_property: Record):
    """Batches that overlap: what is known is the cell's own, and the rest is asked for it."""
    tally = Tally(ITEM_CELLS)
    async with telling(levers=levers(item_cache={})) as w:
        await overlapping_batches(w, ITEM_CELLS, tally, protocol)
        assert [len(one.get("input", one.get("documents"))) for one in w.provider.asked[-3:]] == [1, 1, 1]
    tally.check(record_property, hits=len(ITEM_CELLS))


@pytest.mark.parametrize("protocol", ["embeddings", "rerank"])
@virtual
async def test_no_item_crosses_in_flight(protocol: str, record_property: Record):
    """All cells at once, each with two batches that overlap: what both have is asked once, and for that cell only."""
    tally = Tally(ITEM_CELLS)
    async with telling(1.0, levers=levers(item_cache={})) as w:
        batches = (["one", "two"], ["two", "three"])
        asked = [(cell, cell.items(w, protocol, batch)) for batch in batches for cell in ITEM_CELLS]
        found = await asyncio.gather(*(tellers(w, call) for _, call in asked))
        for (cell, _), (whose, known, _) in zip(asked, found, strict=True):
            for number in whose:
                tally.heard(cell, number, "item_cache" if known == 1 else "provider", strangers=len(ITEM_CELLS) - 1)
        items = sum(len(one.get("input", one.get("documents"))) for one in w.provider.asked)
        assert items == 3 * len(ITEM_CELLS), "no item was asked twice for one cell"
    tally.check(record_property, hits=len(ITEM_CELLS))


# -- the matrix can fail -----------------------------------------------------------------------------------------------

THIN = thin_matrix()
THIN_ITEMS = numbered([place for name in SCOPE for place in matrix({**SCOPE, **ITEM}, {name: SCOPE[name]})])
SCOPE_FIELDS = ("tenant", "permissions", "user", "corpus_version", "prompt_version", "tool_digests", "headers")
BODY_FIELDS = {
    "top_p": ["top_p"], "limit": ["max_tokens", "max_output_tokens"], "tools": ["tools"],
    "form": ["response_format", "text", "output_config"], "system": ["system", "instructions"],
}  # fmt: skip


async def ran(cache: str) -> Tally:
    """Return what the thinned matrix comes to over one cache."""
    on = {"exact": "exact_cache", "semantic": "semantic_cache", "flight": "coalesce", "items": "item_cache"}[cache]
    tally = Tally(THIN_ITEMS if cache == "items" else THIN)
    async with telling(1.0 if cache == "flight" else 0.0, levers=levers(**{on: {}})) as w:
        if cache == "items":
            await overlapping_batches(w, THIN_ITEMS, tally, "embeddings")
        elif cache == "flight":
            await all_at_once(w, THIN, tally)
        else:
            await one_after_another(w, THIN, tally)
    return tally


@pytest.mark.parametrize("cache", ["exact", "semantic", "flight", "items"])
@pytest.mark.parametrize("name", SCOPE_FIELDS)
def test_a_part_of_the_scope_that_is_left_out_is_seen(cache: str, name: str, monkeypatch: pytest.MonkeyPatch):
    """Were the keys made without one part of the scope, the matrix would say so: of each part, in each cache."""
    made = keys._scope_bytes

    def without(scope: Scope) -> bytes:
        return made(msgspec.structs.replace(scope, **{name: "" if name in ("tenant", "permissions") else None}))

    monkeypatch.setattr(keys, "_scope_bytes", without)
    tally = virtual_run(ran(cache))
    mended = {"headers": "beta"}.get(name, name)
    assert tally.crossed and any(line.endswith(f": {mended}") for line in tally.crossed)


@pytest.mark.parametrize("cache", ["exact", "semantic", "flight"])
@pytest.mark.parametrize("name", BODY_FIELDS)
def test_a_part_of_the_request_that_is_left_out_is_seen(cache: str, name: str, monkeypatch: pytest.MonkeyPatch):
    """Nor could a field of the request be forgotten."""
    made = Request.canonical

    def without(value: Any, *, sort: bool = False) -> bytes:
        kept = {n: v for n, v in value.items() if n not in BODY_FIELDS[name]}
        if name == "system" and "messages" in kept:
            kept["messages"] = [one for one in kept["messages"] if one["role"] != "system"]
        return made(kept, sort=sort)

    monkeypatch.setattr(Request, "canonical", staticmethod(without))
    assert virtual_run(ran(cache)).crossed


def test_without_a_fault_the_thinned_matrix_is_clean():
    """So that what the two tests above see is the fault."""
    for cache in ("exact", "semantic", "flight", "items"):
        tally = virtual_run(ran(cache))
        assert not tally.crossed and tally.hits == len(tally.cells)


def virtual_run(work: Coroutine[Any, Any, Tally]) -> Tally:
    return run(work, VirtualLoop())


# -- in files, and written down by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("cache", ["exact_cache", "semantic_cache", "items"])
async def test_no_answer_crosses_in_any_store(kind: str, cache: str, tmp_path: Path, record_property: Record):
    """The thinned matrix, over each kind of store and index; with a file, once more after it was opened anew."""
    cells = THIN_ITEMS if cache == "items" else THIN
    on = levers(item_cache={}) if cache == "items" else CACHES[cache]
    tally = Tally(cells)
    async with real(tmp_path, kind, levers=on) as w:
        if cache == "items":
            await overlapping_batches(w, cells, tally, "embeddings")
        else:
            await one_after_another(w, cells, tally)
    tally.check(record_property, hits=len(cells))
    if kind == "sqlite" and cache != "items":
        again = Tally(cells)
        async with real(tmp_path, kind, levers=on) as w:
            for cell in cells:
                again.heard(cell, *await told(w, cell.call(w, FIRST, stream=True)), strangers=len(cells) - 1)
        again.check(record_property, hits=len(cells))


@pytest.mark.parametrize("cache", ["exact_cache", "semantic_cache"])
async def test_another_model_policy_is_another_cell(cache: str, tmp_path: Path):
    """Over one file: where the same name leads to another model, the answers of the old one are not given."""
    cell = thin_matrix()[0]
    for upstream, times in [("old", 1), ("new", 1), ("old", 0)]:
        models = [{"name": "gpt-4o-mini", "provider": "openai", "upstream": upstream}]
        async with real(tmp_path, "sqlite", levers=CACHES[cache], models=models) as w:
            for _ in range(2):
                await told(w, cell.call(w, FIRST, stream=False))
                await w.gateway.background.drain()
            assert w.calls == times


CURATED: dict[str, tuple[Any, ...]] = {
    "tenants": (None, ["a"], ["b"]), "classes": (None, ["default"], [PERSONAL]), "permissions": (None, [], ["p"]),
    "corpus_version": (None, "1", "2"),
}  # fmt: skip
RULES = matrix(CURATED, CURATED)
CALLED = {name: SCOPE[name] for name in ("tenant", "user", "permissions", "corpus_version")}
DRAWN = random.Random(4)
CALLERS = numbered(
    [{**place, "protocol": DRAWN.choice(BODY["protocol"])} for place in matrix({**SCOPE, **BODY}, CALLED)]
)


def meant_for(cell: Cell, rule: dict[str, Any]) -> bool:
    """Say by the words of the documentation whether the caller in *cell* gets what was written under *rule*."""
    has = [] if cell["permissions"] is None else ["p"]
    return (
        rule["tenants"] in (None, [cell["tenant"]])
        and rule["classes"] in (None, ["default" if cell["user"] is None else PERSONAL])
        and rule["permissions"] in (None, has)
        and rule["corpus_version"] in (None, cell["corpus_version"])
    )


@virtual
async def test_a_curated_answer_stays_in_its_scope(tmp_path: Path, record_property: Record):
    """Every combination of what an entry may be limited to, asked from every cell: given to those it is for, only."""
    file = tmp_path / "curated.toml"
    entries = []
    for number, rule in enumerate(RULES):
        entries += ["[[answer]]", f'id = "{number}"', f'questions = ["{question(number)}"]', f'answer = "{number}"']
        entries += [f"{name} = {orjson.dumps(value).decode()}" for name, value in rule.items() if value is not None]
    file.write_text("\n".join(entries), encoding="utf-8")
    given = wrong = 0
    async with telling(levers=levers(semantic_cache={"access": "read_only"}), recall={"curated": str(file)}) as w:
        for cell, (number, rule) in itertools.product(CALLERS, enumerate(RULES)):
            call = cell.call(w, question(number), stream=(cell.number + number) % 2 == 0)
            got = await w.send(call)
            by_hand = got.by == "semantic_cache"
            given += by_hand
            wrong += by_hand != meant_for(cell, rule)
            assert not by_hand or call.wire.text_of(got.data) == str(number)
    due = sum(meant_for(cell, rule) for cell, rule in itertools.product(CALLERS, RULES))
    record_property("isolation", f"{len(CALLERS) * len(RULES)} pairs, {wrong} wrong, {given} given of {due}")
    assert (wrong, given) == (0, due)


def question(number: int) -> str:
    """Return a question that has no word in common with those of other numbers."""
    drawn = random.Random(number)
    return " ".join("".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(6))


@pytest.mark.parametrize("known", ["here", "by the ledger"])
@virtual
async def test_no_conversation_crosses(known: str, record_property: Record):
    """What the provider remembers of one caller: gone on from by those of the same tenant, permissions and user."""
    named = {name: SCOPE[name] for name in ("tenant", "user", "permissions")}
    places = numbered(matrix({**SCOPE, **BODY}, {**named, "protocol": ("responses",)}))
    pairs = crossed = 0
    async with telling(provider=Keeping(), levers=CACHES["both"]) as w:
        ids = {}
        for cell in places:
            call = cell.call(w, FIRST, stream=False)
            ids[cell.number] = (await w.send(call)).data["id"]
        if known == "by the ledger":
            w.gateway.admit._conversations._owners.clear()
        for owner, cell in itertools.product(places, places):
            call = cell.call(w, FIRST, stream=False)
            body = orjson.dumps({**call.request.data, "previous_response_id": ids[owner.number]})
            call = w.gateway.new_call(body, call.hints, wire=call.wire)
            try:
                whose, _ = await told(w, call)
                assert whose == cell.number
                allowed = True
            except StateNotFound:
                allowed = False
            pairs += 1
            crossed += allowed != (owner == cell)
    record_property("isolation", f"{pairs} pairs, {crossed} wrong")
    assert len(set(ids.values())) == len(places)
    assert (pairs, crossed) == (len(places) ** 2, 0)
