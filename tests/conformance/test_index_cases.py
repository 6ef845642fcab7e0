"""What every index keeps of the cases from which the semantic cache learns."""

from __future__ import annotations

import asyncio

import pytest
from indexes import Open, case

from negawatt.indexes import Case, Cases


@pytest.fixture
async def cases(open_index: Open) -> Cases:
    return open_index().cases


async def ids(cases: Cases, request_class: str = "faq", tier: str = "learned", *, limit: int = 99) -> list[str]:
    return [one.id for one in await cases.recent(request_class, tier, limit=limit)]


async def test_what_was_added_is_there_whole(cases: Cases):
    """Every field; what nobody knows is None, and stays it."""
    known = case("a", 1.5, review=True, wrong=True, basis="judge", fresh="ici\0")
    unknown = Case(id="b", at=2.5, request_class="faq", tenant="t", tier="learned", action="missed", features=())
    for one in (known, unknown):
        await cases.add(one)
    assert await cases.recent("faq", "learned", limit=10) == [known, unknown]
    assert (unknown.risk, unknown.wrong, unknown.basis, unknown.fresh) == (None, None, None, None)


async def test_the_newest_are_told_oldest_first(cases: Cases):
    """By their time and then their id, in whatever order they came."""
    for id, at in (("c", 3.0), ("a", 1.0), ("d", 3.0), ("b", 2.0)):
        await cases.add(case(id, at))
    assert await ids(cases) == ["a", "b", "c", "d"]
    assert [await ids(cases, limit=limit) for limit in (0, 1, 3)] == [[], ["d"], ["b", "c", "d"]]


async def test_classes_and_tiers_are_apart(cases: Cases):
    """Each has its own cases, and is named."""
    assert await cases.classes() == []
    for request_class, tier in (("faq", "learned"), ("faq", "curated"), ("Ω", "learned"), ("chat", "learned")):
        await cases.add(case(f"{request_class} {tier}", 1.0, request_class=request_class, tier=tier))
    assert await cases.classes() == [("chat", "learned"), ("faq", "curated"), ("faq", "learned"), ("Ω", "learned")]
    assert await ids(cases, "faq", "curated") == ["faq curated"]
    assert await ids(cases, "none") == []


async def test_one_call_has_one_case_in_each_tier(cases: Cases):
    """Adding again replaces, place and class included; the other tier is left alone."""
    await cases.add(case("a", 1.0, answer="old"))
    await cases.add(case("b", 2.0))
    await cases.add(case("a", 1.0, tier="curated"))
    await cases.add(case("a", 3.0, answer="new"))
    assert await ids(cases) == ["b", "a"]
    assert (await cases.recent("faq", "learned", limit=1))[0].answer == "new"
    await cases.add(case("b", 4.0, request_class="chat"))
    assert (await ids(cases), await ids(cases, "chat")) == (["a"], ["b"])
    assert await ids(cases, tier="curated") == ["a"]


async def test_a_label_is_written_down(cases: Cases):
    """In every tier, again and again, and the case keeps its place; of a case that is not there it says so."""
    await cases.add(case("a", 1.0))
    await cases.add(case("a", 1.0, tier="curated"))
    await cases.add(case("b", 2.0))
    assert await cases.label("a", wrong=True, basis="judge") is True
    assert await cases.label("a", wrong=False, basis="embedding") is True
    assert await cases.label("z", wrong=False, basis="human") is False
    for tier in ("learned", "curated"):
        first, *_ = await cases.recent("faq", tier, limit=9)
        assert (first.wrong, first.basis) == (False, "embedding")
    assert await ids(cases) == ["a", "b"]


async def test_a_persons_word_is_not_replaced(cases: Cases):
    """By no label of anybody else, and by no case that is added again; by another word of a person it is."""
    await cases.add(case("a", 1.0, wrong=False, basis="embedding"))
    assert await cases.label("a", wrong=True, basis="human") is True
    assert await cases.label("a", wrong=False, basis="judge") is True
    await cases.add(case("a", 1.0, wrong=False, basis="exact", answer="again"))
    await cases.add(case("a", 1.0, answer="and again"))
    (kept,) = await cases.recent("faq", "learned", limit=9)
    assert (kept.wrong, kept.basis, kept.answer) == (True, "human", "and again")
    assert await cases.label("a", wrong=False, basis="human") is True
    (kept,) = await cases.recent("faq", "learned", limit=9)
    assert (kept.wrong, kept.basis) == (False, "human")
    await cases.add(case("a", 1.0, wrong=True, basis="human"))
    (kept,) = await cases.recent("faq", "learned", limit=9)
    assert (kept.wrong, kept.basis) == (True, "human")


async def test_what_waits_for_review_is_what_no_person_has_judged(cases: Cases):
    """Of those that were drawn, of all classes and tiers, oldest first."""
    await cases.add(case("d", 4.0, review=True, request_class="chat", wrong=True, basis="judge"))
    await cases.add(case("a", 1.0, review=True, tier="curated"))
    await cases.add(case("b", 2.0))
    await cases.add(case("c", 3.0, review=True))
    assert [one.id for one in await cases.waiting(limit=9)] == ["a", "c", "d"]
    assert [one.id for one in await cases.waiting(limit=2)] == ["a", "c"]
    await cases.label("c", wrong=False, basis="human")
    await cases.label("a", wrong=False, basis="judge")
    assert [one.id for one in await cases.waiting(limit=9)] == ["a", "d"]


async def test_the_oldest_make_room_in_their_own_class_and_tier(open_index: Open):
    """A class with many cases takes nothing from the others."""
    cases = open_index(max_cases=5).cases
    await cases.add(case("other", 0.0, tier="curated"))
    for i in range(23):
        await cases.add(case(f"c{i:02}", float(i)))
    left = await ids(cases)
    assert left[-5:] == [f"c{i}" for i in range(18, 23)]
    assert len(left) < 10, "trimmed from time to time"
    assert await ids(cases, tier="curated") == ["other"]


async def test_many_at_once_are_all_kept(cases: Cases):
    """Cases and labels of many calls, side by side."""

    async def one(i: int) -> None:
        await cases.add(case(f"c{i:03}", float(i)))
        await cases.label(f"c{i:03}", wrong=i % 2 == 0, basis="human")
        await cases.add(case(f"c{i:03}", float(i), wrong=None))

    await asyncio.gather(*(one(i) for i in range(60)))
    kept = await cases.recent("faq", "learned", limit=99)
    assert [(one.id, one.wrong) for one in kept] == [(f"c{i:03}", i % 2 == 0) for i in range(60)]


@pytest.mark.parametrize("open_index", ["sqlite", "postgres"], indirect=True)
async def test_cases_outlive_a_restart(open_index: Open):
    """With what people said of them."""
    before = open_index("same")
    await before.cases.add(case("a", 1.0, review=True))
    await before.cases.add(case("b", 2.0, request_class="chat"))
    await before.cases.label("a", wrong=True, basis="human")
    await before.close()
    after = open_index("same").cases
    assert await after.recent("faq", "learned", limit=9) == [case("a", 1.0, review=True, wrong=True, basis="human")]
    assert await after.classes() == [("chat", "learned"), ("faq", "learned")]
    assert await after.waiting(limit=9) == []
