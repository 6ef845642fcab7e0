"""The item cache: of a batch, only what is not known is asked for, and the answer is as if all of it had been."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest
from batches import BATCH, Bench, embedded, ranked, said, spared, vector, vectors_of
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import bare_call, settled, virtual

from negawatt.caller import Hints, Scope
from negawatt.config import RequestClass
from negawatt.errors import UpstreamConnectError
from negawatt.reply import Reply
from negawatt.wire.chat import CHAT

# -- only the rest is asked ------------------------------------------------------------------------------------------


@virtual
async def test_a_batch_of_a_hundred_with_ninety_known_sends_ten():
    """Wherever the ten stand, and the answer is that of the whole batch."""
    bench = Bench()
    texts = [f"text {i}" for i in range(100)]
    new = {3, 14, 15, 35, 58, 79, 89, 92, 93, 97}
    await bench.embed(*[text for i, text in enumerate(texts) if i not in new])
    call = bench.call({"model": "m", "input": texts})
    answer = (await bench.send(call)).data
    assert bench.provider.inputs[1] == [texts[i] for i in sorted(new)]
    assert vectors_of(answer) == vectors_of(embedded({"input": texts}, "m"))
    decision = call.trail.decided("item_cache")
    assert decision is not None and (decision.action, decision.detail) == ("partial", {"known": 90, "asked": 10})


@virtual
async def test_what_is_all_known_is_answered_without_a_provider():
    """At once, with the usage of the whole, in the provider's form; a text alone is a batch of one."""
    bench = Bench()
    first = await bench.embed("a", "bb", "ccc")
    call = bench.call(BATCH)
    began = bench.clock.monotonic()
    reply = await bench.send(call)
    assert reply.data == first and orjson.loads(reply.body) == first and reply.answered_by == "item_cache"
    assert (len(bench.provider.asked), bench.clock.monotonic()) == (1, began)
    alone = (await bench.send(bench.call({"model": "m", "input": "bb"}))).data
    assert vectors_of(alone) == [vector("bb")] and len(bench.provider.asked) == 1
    assert vectors_of(await bench.embed("ccc", "a")) == [vector("ccc"), vector("a")]
    assert said(call) == [("hit", None)] and spared(call) == first["usage"]["prompt_tokens"]
    saved = call.trail.decisions[0].saved
    assert saved is not None and (saved.model, saved.provider, saved.upstream_s) == ("m", "p", 1.0)


@virtual
async def test_what_repeats_in_a_batch_is_asked_once():
    """Token ids are items like texts, and a text is not the token ids that look like it."""
    bench = Bench()
    answer = await bench.embed("a", "b", "a", "a")
    assert bench.provider.inputs == [["a", "b"]]
    assert vectors_of(answer) == [vector(item) for item in "abaa"]
    assert vectors_of(await bench.embed([1, 2], [1, 2], [3])) == [vector([1, 2]), vector([1, 2]), vector([3])]
    assert bench.provider.inputs[1:] == [[[1, 2], [3]]]
    assert vectors_of((await bench.send(bench.call({"model": "m", "input": [3]}))).data) == [vector([3])]
    assert len(bench.provider.asked) == 2
    await bench.embed("[3]")
    assert len(bench.provider.asked) == 3


@virtual
async def test_what_is_all_new_goes_on_as_it_came():
    """The same request and the provider's own bytes."""
    bench = Bench()
    call = bench.call({"model": "m", "input": "a", "x": {"unknown": True}})
    reply = await bench.send(call)
    assert bench.provider.asked == [{"model": "m", "input": "a", "x": {"unknown": True}}]
    assert reply is bench.provider.replies[0] and said(call) == [("miss", None)]


WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "é", ""]), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=3), WORDS, st.sampled_from([None, 2]))
def test_an_answer_from_items_is_the_answer_to_the_whole(before: list[list[str]], items: list[str], dimensions: Any):
    """Whatever was asked before, value for value; and never more is asked than was."""

    @virtual
    async def check() -> None:
        bench = Bench()
        for known in before:
            await bench.embed(*known, dimensions=dimensions)
        asked = len(bench.provider.asked)
        answer = await bench.embed(*items, dimensions=dimensions)
        whole = embedded({"input": items, "dimensions": dimensions}, "m")
        assert {**answer, "usage": None} == {**whole, "usage": None}
        seen = set().union(*map(set, before))
        new = list(dict.fromkeys(item for item in items if item not in seen))
        assert bench.provider.inputs[asked:] == ([new] if new else [])

    check()


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=3), WORDS, st.none() | st.integers(1, 9))
def test_a_ranking_from_items_is_the_ranking_of_the_whole(before: list[list[str]], items: list[str], top: int | None):
    """Sorted and cut by us as the provider would have."""

    @virtual
    async def check() -> None:
        bench = Bench()
        for known in before:
            await bench.rerank(*known, top_n=1)
        answer = await bench.rerank(*items, top_n=top)
        whole = ranked({"documents": items, "query": "q", "top_n": top}, "rerank-v3.5")
        assert answer["results"] == whole["results"] and answer["id"] == "r-1"
        seen = set().union(*map(set, before))
        if seen >= set(items):
            assert len(bench.provider.asked) == len({frozenset(b) - frozenset().union(*map(frozenset, before[:i]))
                                                     for i, b in enumerate(before)} - {frozenset()})  # fmt: skip

    check()


@virtual
async def test_a_reranker_is_asked_for_all_scores():
    """A cut answer would leave the rest unknown for ever; it costs the same, and the caller gets the cut."""
    bench = Bench()
    answer = await bench.rerank("a", "b", "c", top_n=1)
    assert bench.provider.asked[0]["top_n"] == 3 and len(answer["results"]) == 1
    again = await bench.rerank("c", "b", "a", top_n=2)
    assert len(bench.provider.asked) == 1 and len(again["results"]) == 2


# -- whom it may be given to -----------------------------------------------------------------------------------------


@virtual
async def test_nothing_is_given_across_a_scope_a_model_or_a_parameter():
    """Every tenant, permission, user, corpus and prompt version, model and dimension asks for itself, once."""
    bench = Bench()
    axes = itertools.product(
        ("team-a", "team-b"), ("", "p1"), (None, "ada"), (None, "kb-2"), (None, "v2"), ("m", "n"), (None, 2)
    )
    asked = 0
    cases = list(axes)
    for turn in range(2):
        for tenant, permissions, user, corpus, prompt, model, dimensions in cases:
            scope = Scope(
                tenant=tenant, permissions=permissions, user=user, corpus_version=corpus, prompt_version=prompt
            )
            request = {"model": model, "input": ["a", "b"], "dimensions": dimensions}
            answer = (await bench.send(bench.call(request, scope=scope))).data
            asked += turn == 0
            assert len(bench.provider.asked) == asked
            assert vectors_of(answer) == vectors_of(embedded(request, model))
    assert asked == len(cases) == 128


@virtual
async def test_nothing_in_flight_is_given_across_a_scope():
    """Those who ask at the same time share only with their own."""
    bench = Bench()
    scopes = [Scope(tenant=tenant, permissions=p) for tenant in "ab" for p in ("", "x") for _ in range(3)]
    calls = [bench.call(BATCH, scope=scope) for scope in scopes]
    await asyncio.gather(*map(bench.send, calls))
    assert len(bench.provider.asked) == 4


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"request_class": "never"}, "not for this class"),
        ({"request_class": "personal"}, "the class is personal and the call names no user"),
        ({"request_class": "grounded"}, "the class needs a corpus version and the call has none"),
        ({"hints": Hints(cache_control="no-store")}, "the caller said no-store"),
    ],
)
@virtual
async def test_a_class_or_a_caller_may_forbid_it(fields: dict[str, Any], reason: str):
    """Then nothing is read and nothing is kept."""
    classes = {"never": RequestClass(cache="never"), "personal": RequestClass(personal=True),
               "grounded": RequestClass(needs=("corpus_version",))}  # fmt: skip
    bench = Bench(classes=classes)
    for _ in range(2):
        call = bench.call(BATCH, **fields)
        await bench.send(call)
        assert said(call) == [("bypass", reason)]
    assert len(bench.provider.asked) == 2 and (await bench.store.stats()).entries == 0


@pytest.mark.parametrize(
    ("settings_", "hints", "age_s", "asked"),
    [
        ({}, {}, 100, 1),
        ({}, {"cache_control": "no-cache"}, 0, 2),
        ({}, {"cache_control": "max-age=50"}, 100, 2),
        ({}, {"cache_control": "max-age=200"}, 100, 1),
        ({"ttl_s": 50.0}, {}, 100, 2),
        ({"access": "write_only"}, {}, 0, 2),
        ({"access": "read_only"}, {}, 0, 2),
        ({"max_entry_bytes": 10}, {}, 0, 2),
    ],
)
@virtual
async def test_lifetimes_and_access_are_kept_to(settings_: Any, hints: Any, age_s: float, asked: int):
    """Those of the configuration, and what the caller takes."""
    bench = Bench(**settings_)
    await bench.embed("a", "b")
    await asyncio.sleep(age_s)
    await bench.send(bench.call({"model": "m", "input": ["a", "b"]}, hints=Hints(**hints)))
    assert len(bench.provider.asked) == asked


@virtual
async def test_a_class_has_its_own_lifetime():
    """Shorter than the usual one."""
    bench = Bench(classes={"brief": RequestClass(ttl_s=10)})
    await bench.send(bench.call(BATCH))
    await asyncio.sleep(20)
    await bench.send(bench.call(BATCH, request_class="brief"))
    assert len(bench.provider.asked) == 2
    assert (await bench.send(bench.call(BATCH, request_class="brief"))).answered_by == "item_cache"


@virtual
async def test_other_protocols_and_dependent_items_pass():
    """A chat is nothing here; inputs that are embedded together are asked together, and it is said why."""
    bench = Bench()

    async def forward(_: Any) -> Reply:
        return Reply(CHAT, body=b"{}")

    chat = bare_call(clock=bench.clock)
    assert (await bench.lever(chat, forward)).body == b"{}" and not said(chat) and not bench.lever.itemized(chat)
    together = bench.call({**BATCH, "late_chunking": True})
    listwise = bench.call({"model": "jina-reranker-v3", "query": "q", "documents": ["a"]})
    for call in (together, listwise):
        await bench.send(call)
        assert said(call)[0][0] == "bypass" and "together" in (said(call)[0][1] or "")
        assert not bench.lever.itemized(call)
    assert bench.lever.itemized(bench.call(BATCH)) and (await bench.store.stats()).entries == 0


# -- at the same time ------------------------------------------------------------------------------------------------


@virtual
async def test_what_two_batches_in_flight_have_in_common_is_asked_once():
    """The second asks for the rest at once, and waits for what the first asks."""
    bench = Bench()
    one = asyncio.ensure_future(bench.embed("a", "b", "c"))
    await asyncio.sleep(0.5)
    call = bench.call({"model": "m", "input": ["b", "c", "d"]})
    two = asyncio.ensure_future(bench.send(call))
    assert vectors_of((await two).data) == [vector(item) for item in "bcd"]
    assert bench.clock.monotonic() == 1.5 and vectors_of(await one) == [vector(item) for item in "abc"]
    assert bench.provider.inputs == [["a", "b", "c"], ["d"]]
    decision = call.trail.decided("item_cache")
    assert decision is not None and decision.detail == {"known": 0, "asked": 1, "shared": 2}
    third = bench.call({"model": "m", "input": ["e"]})
    fourth = bench.call({"model": "m", "input": ["e"]})
    replies = await asyncio.gather(bench.send(third), bench.send(fourth))
    assert [reply.answered_by for reply in replies] == ["provider", "item_cache"]
    assert fourth.trail.waited_s == 1.0 and spared(fourth) == replies[0].data["usage"]["prompt_tokens"]


@pytest.mark.parametrize("end", ["fails", "is cancelled", "answers nonsense"])
@virtual
async def test_who_waits_asks_when_the_first_does_not_bring_it(end: str):
    """They were not the ones who failed, or left."""
    bench = Bench()
    bench.provider.script = {"fails": [UpstreamConnectError("no")], "answers nonsense": [{"data": []}]}.get(end, [])
    first = asyncio.ensure_future(bench.embed("a", "b"))
    await asyncio.sleep(0.5)
    second = asyncio.ensure_future(bench.embed("b", "c"))
    await asyncio.sleep(0.1)
    if end == "is cancelled":
        first.cancel()
    await asyncio.wait([first])
    assert vectors_of(await second) == [vector("b"), vector("c")]
    assert bench.provider.inputs == [["a", "b"], ["c"], ["b"]]
    assert not bench.lever._flights


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4),  # items
            st.sampled_from([0.0, 0.3, 0.7]),  # after the one before, in s
            st.sampled_from([None, None, None, 0.4, 1.2]),  # leaves after
            st.sampled_from(["t", "u"]),
        ),
        min_size=2, max_size=8,
    ),
    st.lists(st.sampled_from([None, None, "fails", "nonsense"]), max_size=8),
)  # fmt: skip
def test_whoever_comes_fails_or_leaves_nobody_waits_for_ever(calls: list[Any], script: list[str | None]):
    """Each call ends within the time that a few attempts take, with its own vectors, or with the error that came."""

    @virtual
    async def check() -> None:
        bench = Bench()
        errors = {"fails": UpstreamConnectError("no"), "nonsense": {"data": [{}]}, None: None}
        bench.provider.script = [errors[step] for step in script]
        tasks = []
        for items, after_s, leaves_s, tenant in calls:
            await asyncio.sleep(after_s)
            call = bench.call({"model": tenant, "input": items}, scope=Scope(tenant=tenant))
            task = asyncio.ensure_future(bench.send(call))
            if leaves_s is not None:
                asyncio.get_running_loop().call_later(leaves_s, task.cancel)
            tasks.append((task, items, tenant))
        async with asyncio.timeout(60):
            await asyncio.gather(*(task for task, *_ in tasks), return_exceptions=True)
        await settled()
        for task, items, tenant in tasks:
            if task.cancelled() or task.exception() is not None:
                assert task.cancelled() or isinstance(task.exception(), UpstreamConnectError)
                continue
            data = task.result().data
            if data["data"] != [{}]:  # the provider's own nonsense, passed on
                assert vectors_of(data) == [vector(item, tenant) for item in items]
        assert not bench.lever._flights

    check()


# -- what the books say ----------------------------------------------------------------------------------------------


@virtual
async def test_the_caller_sees_the_usage_of_the_whole_and_the_ledger_bills_the_rest():
    """What was asked as the provider counted it, and the share of what was known: they are the whole together."""
    bench = Bench()
    first = await bench.embed("aaaa", "bbbbbb")  # 10 characters, and one token beside
    call = bench.call({"model": "m", "input": ["aaaa", "cc", "bbbbbb", "cc"]})
    answer = (await bench.send(call)).data
    rest = call.trail.attempts[0].usage
    assert rest is not None and rest.input_tokens == 3
    assert spared(call) == first["usage"]["prompt_tokens"] + 3  # and the second cc
    assert answer["usage"] == {"prompt_tokens": 3 + 11 + 3, "total_tokens": 3 + 11 + 3}
    saved = call.trail.decisions[0].saved
    assert saved is not None and saved.basis == "estimated" and saved.usage.output_tokens == 0
    assert call.trail.call is not None and call.trail.call.request is call.request  # what the caller asked
    assert call.request.digest is not None


@virtual
async def test_search_units_are_of_a_request_and_not_of_its_documents():
    """What a known document spares of them cannot be said: None, and not nothing."""
    bench = Bench()
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    for documents in (["a"], ["b"]):
        answer = ranked({"documents": documents, "query": "q"}, "rerank-v3.5")
        bench.provider.script.append({"id": answer["id"], "results": answer["results"], "meta": meta})
    await bench.rerank("a")
    partial = bench.call({"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"]})
    data = (await bench.send(partial)).data
    assert data["meta"] == meta and spared(partial) is None
    hit = bench.call({"model": "rerank-v3.5", "query": "q", "documents": ["b", "a"]})
    data = (await bench.send(hit)).data
    assert data["meta"] == {"api_version": {"version": "2"}} and said(hit) == [("hit", None)] and spared(hit) is None


@virtual
async def test_a_partial_answer_keeps_the_providers_own_fields():
    """Its id, its model, its headers, and what we do not know."""
    bench = Bench()
    await bench.embed("a")
    bench.provider.script = [{**embedded({"input": ["b"]}, "m"), "id": "e-2", "x": [1]}]
    reply = await bench.send(bench.call({"model": "m", "input": ["a", "b"]}))
    assert (reply.data["id"], reply.data["x"], reply.data["model"]) == ("e-2", [1], "m")
    assert reply.headers == {"x-request-id": "req-2"} and reply.answered_by == "provider"
