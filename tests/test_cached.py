"""The decorator: what is kept of a function, what makes two calls the same, and one computation for many callers."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import enum
import inspect
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ManualClock

from negawatt import LayerCache
from negawatt.config import parse_config
from negawatt.errors import ConfigError, InvalidRequest, UnknownLayer
from negawatt.layers.functions import canonical

ROOT = Path(__file__).parent.parent


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock) -> Iterator[LayerCache]:
    """A cache in memory, whose time stands still until it is told to go on."""
    layers = {"brief": {"ttl_s": 10, "stale_s": 20}, "mine": {"needs": ["user"]}, "small": {"max_entry_bytes": 50}}
    with LayerCache(parse_config({"cache": {"layers": layers}}), clock=clock) as one:
        yield one


class Calls:
    """Notes what a function was called with."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self, *what: Any) -> Any:
        self.made.append(what)
        return {"found": list(what), "number": len(self.made)}

    def __len__(self) -> int:
        return len(self.made)


def until(found: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until *found* is true."""
    end = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


# -- plain and coroutine ---------------------------------------------------------------------------------------


def test_a_function_is_called_once_for_equal_arguments(cache: LayerCache):
    """However they are passed: by position, by name, by default. Other arguments are another call."""
    calls = Calls()

    @cache.cached("tools")
    def look_up(order: int, detail: str = "short", *more: int, **flags: bool) -> Any:
        return calls(order, detail, list(more), flags)

    same = [look_up(1), look_up(order=1), look_up(1, "short"), look_up(1, detail="short")]
    assert same == [{"found": [1, "short", [], {}], "number": 1}] * 4
    assert [look_up(2), look_up(1, "long"), look_up(1, "short", 3), look_up(1, a=True), look_up(1, a=False)] != same
    assert len(calls) == 6
    assert look_up(1, a=False, b=True) == look_up(1, b=True, a=False)
    with pytest.raises(TypeError, match="order"):
        look_up()


async def test_a_coroutine_is_cached_as_a_function_is(cache: LayerCache):
    """It stays one, for all that look; its result is kept, its invalidation is awaited."""
    calls = Calls()

    @cache.cached("tools")
    async def look_up(order: int) -> Any:
        """Look it up."""
        await asyncio.sleep(0)
        return calls(order)

    assert inspect.iscoroutinefunction(look_up)
    assert await look_up(1) == await look_up(order=1) == {"found": [1], "number": 1}
    assert await look_up.invalidate() == 1
    assert (await look_up(1))["number"] == 2
    assert (look_up.__name__, look_up.__doc__) == ("look_up", "Look it up.")
    assert (await look_up.uncached(1))["number"] == 3


def test_what_comes_back_is_a_value_of_its_own(cache: LayerCache):
    """Whoever changes it changes nobody else's."""

    @cache.cached("tools")
    def look_up() -> list[int]:
        return [1]

    look_up().append(2)
    look_up().append(3)
    assert look_up() == [1]


def test_none_is_a_value(cache: LayerCache):
    """Nothing found is kept as well as anything else."""
    calls = Calls()

    @cache.cached("tools")
    def look_up() -> None:
        calls()

    assert look_up() is look_up() is None
    assert len(calls) == 1


def test_exceptions_are_not_kept(cache: LayerCache):
    """They reach the caller, and the next call tries again."""
    calls = Calls()

    @cache.cached("tools")
    def look_up() -> Any:
        if calls()["number"] == 1:
            raise LookupError("not now")
        return "found"

    with pytest.raises(LookupError, match="not now"):
        look_up()
    assert look_up() == look_up() == "found"
    assert len(calls) == 2


# -- one computation -------------------------------------------------------------------------------------------


def test_fifty_threads_share_one_computation(cache: LayerCache):
    """Forty-nine wait for the one, and get what it made."""
    calls, gate, asking = Calls(), threading.Event(), []

    @cache.cached("tools")
    def look_up(order: int) -> Any:
        gate.wait(20)
        return calls(order)

    def ask() -> Any:
        asking.append(1)
        return look_up(1)

    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(ask) for _ in range(50)]
        until(lambda: len(asking) == 50)
        gate.set()
        found = [one.result(20) for one in asked]
    assert found == [{"found": [1], "number": 1}] * 50
    assert len(calls) == 1


async def test_many_tasks_and_loops_share_one_computation(cache: LayerCache):
    """Tasks of this loop, and of loops in other threads."""
    calls, gate = Calls(), threading.Event()

    @cache.cached("tools")
    async def look_up(order: int) -> Any:
        while not gate.is_set():
            await asyncio.sleep(0.005)
        return calls(order)

    async def many() -> list[Any]:
        return await asyncio.gather(*(look_up(1) for _ in range(10)))

    others = [asyncio.create_task(asyncio.to_thread(asyncio.run, many())) for _ in range(3)]
    here = asyncio.create_task(many())
    await asyncio.sleep(0.1)
    gate.set()
    assert [found for one in (here, *others) for found in await one] == [{"found": [1], "number": 1}] * 40
    assert len(calls) == 1


async def test_a_plain_function_may_be_called_in_a_running_loop(cache: LayerCache):
    """It blocks the loop as it would without the cache, and nothing more."""
    calls = Calls()

    @cache.cached("tools")
    def look_up(order: int) -> Any:
        return calls(order)

    assert look_up(1) == look_up(1) == await asyncio.to_thread(look_up, 1)
    assert len(calls) == 1


def test_a_cached_function_may_call_itself_and_others(cache: LayerCache):
    """Each call waits for its own kind only."""
    calls = Calls()

    @cache.cached("tools")
    def fibonacci(n: int) -> int:
        calls(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(30) == 832040
    assert len(calls) == 31


async def test_cancelling_the_one_who_computes_lets_another_do_it(cache: LayerCache):
    """The others get what the next one made, without waiting for anything to lapse."""
    calls, started, gate = Calls(), asyncio.Event(), asyncio.Event()

    @cache.cached("tools")
    async def look_up(order: int) -> Any:
        started.set()
        number = calls(order)["number"]
        await gate.wait()
        return number

    first = asyncio.create_task(look_up(1))
    await started.wait()
    others = [asyncio.create_task(look_up(1)) for _ in range(5)]
    await asyncio.sleep(0.05)
    first.cancel()
    others[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await asyncio.wait_for(asyncio.gather(*others[1:]), 20) == [2] * 4
    assert others[0].cancelled()


async def test_a_caller_who_goes_while_it_is_asked_takes_nothing_with_it(cache: LayerCache):
    """Cancelled at any moment, also just when it is to compute: the next who asks need not wait for a lapse."""

    @cache.cached("tools")
    async def look_up(order: int) -> int:
        return order

    for number in range(100):
        task = asyncio.create_task(look_up(number))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        assert await asyncio.wait_for(look_up(number), 10) == number


async def test_failing_is_everyones_own(cache: LayerCache):
    """Each caller gets the exception of an attempt of its own, and no answer of another's failure."""
    calls = Calls()

    @cache.cached("tools")
    async def look_up() -> Any:
        number = calls()["number"]
        await asyncio.sleep(0.01)
        raise LookupError(number)

    found = await asyncio.gather(*(look_up() for _ in range(5)), return_exceptions=True)
    assert sorted(error.args[0] for error in found) == [1, 2, 3, 4, 5]


# -- keys ------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Word(str):
    __slots__ = ()


class Pair(NamedTuple):
    one: int
    two: int


@dataclasses.dataclass
class Filter:
    field: str
    values: list[Any]


class Shape(msgspec.Struct):
    sides: int


DAY = datetime.date(2026, 10, 1)
DIFFERENT: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, 0.5, "", "1", "None", "null", "true", [], [1], ["1"], [[1]], {}, {"a": 1},
    {"a": None}, {"a": {}}, {"b": 1}, b"", b"1", DAY, str(DAY), datetime.datetime(2026, 10, 1), uuid.UUID(int=1),
    str(uuid.UUID(int=1)), Colour.RED, "red", Word("red"), Pair(1, 2), [1, 2], Filter("a", []), Filter("a", [b"1"]),
    Filter("a", ["MQ=="]), {"field": "a", "values": []}, Shape(3), {"sides": 3}, {1}, {1, 2}, frozenset({1}), 2**62,
]  # fmt: skip


def test_different_arguments_have_different_keys(cache: LayerCache):
    """Whatever types they are of; no two of these may answer for each other."""

    @cache.cached("tools")
    def look_up(what: Any) -> None: ...

    keys = [look_up.key(one) for one in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    assert look_up.key((1, 2)) == look_up.key([1, 2])
    assert look_up.key({2, 1}) == look_up.key({1, 2})
    assert look_up.key({"b": 1, "a": {"d": 1, "c": 2}}) == look_up.key({"a": {"c": 2, "d": 1}, "b": 1})


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False),
              st.text(max_size=5), st.binary(max_size=3), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES)
def test_two_values_have_one_form_exactly_when_they_are_the_same(one: Any, other: Any):
    """As pickle tells them apart, but for the order of keys; what is written can be written as JSON."""
    forms = [msgspec.json.encode(canonical(value), order="sorted") for value in (one, other)]
    assert (forms[0] == forms[1]) == (told(one) == told(other))


def told(value: Any) -> Any:
    """Return something that is equal for two values only where type and content are."""
    if isinstance(value, dict):
        return "object", [(name, told(value[name])) for name in sorted(value)]
    return [told(one) for one in value] if isinstance(value, list) else (type(value).__name__, repr(value))


@pytest.mark.parametrize("value", [
    object(), float("nan"), float("inf"), [float("nan")], {1: "a"}, {"\0a": 1}, 2**64, "\ud800", threading.Lock(),
    print, {"deep": [object()]}, 1j,
], ids=repr)  # fmt: skip
def test_an_argument_that_has_no_form_is_refused_by_name(cache: LayerCache, value: Any):
    """A TypeError that names function and parameter, and both ways out; nothing is computed."""
    calls = Calls()

    @cache.cached("tools")
    def look_up(query: str, connection: Any) -> Any:
        return calls(query)

    with pytest.raises(TypeError, match=r"look_up: 'connection' .*JSON.*key=.*ignore=\('connection',\)"):
        look_up("a", value)
    assert len(calls) == 0


def test_an_argument_that_goes_round_in_circles_is_refused(cache: LayerCache):
    """It has no end, so it has no key."""
    circle: list[Any] = []
    circle.append(circle)

    @cache.cached("tools")
    def look_up(what: Any) -> None: ...

    with pytest.raises(TypeError, match="'what'"):
        look_up(circle)


def test_what_counts_can_be_chosen(cache: LayerCache):
    """key= takes the parameters that it names, also defaults; ignore= leaves some out."""
    calls = Calls()

    @cache.cached("tools", key=lambda query, limit: [query.lower(), limit])
    def search(connection: Any, query: str, limit: int = 10) -> Any:
        return calls(query, limit)

    assert search(object(), "A") == search(object(), "a", 10)
    assert search(object(), "a", 11)["number"] == 2

    @cache.cached("tools", ignore=("connection",))
    def find(connection: Any, query: str) -> Any:
        return calls(query)

    assert find(object(), "a") == find(object(), "a")
    assert find(object(), "A")["number"] == 4


def test_functions_and_their_versions_have_keys_of_their_own(cache: LayerCache):
    """Another name, another layer or another version: nothing is taken over."""

    def one(a: int) -> None: ...

    def other(a: int) -> None: ...

    made = [
        cache.cached("tools")(one), cache.cached("tools")(other), cache.cached("answers")(one),
        cache.cached("tools", version=2)(one), cache.cached("tools", version="2")(one),
        cache.cached("tools", tenant="acme")(one), cache.cached("tools", user="ann")(one),
        cache.cached("tools", permissions=[])(one), cache.cached("tools", permissions=["a", "b"])(one),
        cache.cached("tools", permissions=["a,b"])(one), cache.cached("tools", corpus_version=1)(one),
        cache.cached("tools", prompt_version=1)(one), cache.cached("tools", tool_digests=["a"])(one),
    ]  # fmt: skip
    assert len({each.key(1) for each in made}) == len(made)
    same = [{"permissions": ["b", "a"]}, {"permissions": "a, b"}, {"permissions": {"a", "b"}}]
    assert {cache.cached("tools", **each)(one).key(1) for each in same} == {made[8].key(1)}


class Search:
    """An object with cached methods."""

    def __init__(self, index: str) -> None:
        self.index = index


def test_a_method_must_say_what_of_its_object_counts(cache: LayerCache):
    """Two objects could be of two tenants: nothing is shared between them by accident."""
    with pytest.raises(TypeError, match=r"what of 'self' counts\? .*key=lambda self, query"):

        @cache.cached("tools")
        def find(self: Search, query: str) -> None: ...

    calls = Calls()

    class Found(Search):
        @cache.cached("tools", key=lambda self, query: [self.index, query])
        def by_index(self, query: str) -> Any:
            return calls(self.index, query)

        @cache.cached("tools", ignore=("self",))
        def anywhere(self, query: str) -> Any:
            return calls(query)

        @classmethod
        @cache.cached("tools", ignore=("cls",))
        def of_all(cls, query: str) -> Any:
            return calls(query)

    one, other = Found("one"), Found("other")
    assert one.by_index("q") == Found("one").by_index("q") != other.by_index("q")
    assert one.anywhere("q") == other.anywhere("q")
    assert one.of_all("q") == Found.of_all("q")
    assert one.by_index.invalidate() == 2


def a_generator() -> Any:
    yield 1


async def an_async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("what", [lambda: 1, a_generator, an_async_generator, print, Search, classmethod(len), 3])
def test_what_is_no_plain_function_is_refused(cache: LayerCache, what: Any):
    """When it is decorated, not when it is called."""
    with pytest.raises(TypeError):
        cache.cached("tools")(what)


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"tt": 3}, "no option 'tt'; known: key"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ignore": ("connection",)}, "connection"),
        ({"user": lambda who: who}, "user: takes 'who'"),
        ({"key": lambda q: q}, "key: takes 'q'"),
        ({"tags": {"a": lambda x: x}}, "takes 'x'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(cache: LayerCache, options: dict[str, Any], say: str):
    """With the function and the option in the message."""
    with pytest.raises(TypeError, match=rf"look_up: .*{say}"):

        @cache.cached("tools", **options)
        def look_up(query: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "error", "say"),
    [
        ({"user": 1.5}, TypeError, "user: expected text"),
        ({"user": True}, TypeError, "user: expected text"),
        ({"corpus_version": lambda: object()}, TypeError, "corpus_version: expected text"),
        ({"permissions": 3}, TypeError, "permissions: expected names"),
        ({"permissions": [3]}, TypeError, "permissions: expected names"),
        ({"permissions": ["a\0b"]}, TypeError, "permissions: a name with a zero"),
        ({"tags": {"tenant": "other"}}, InvalidRequest, "tenant= is a tag that negawatt sets itself"),
        ({"tags": {"a b": "c"}}, InvalidRequest, "not a tag"),
        ({"tags": {"a": "b,c"}}, InvalidRequest, "not a tag"),
    ],
)
def test_a_scope_or_tag_that_cannot_be_is_refused_when_it_is_known(
    cache: LayerCache, options: dict[str, Any], error: type[Exception], say: str
):
    """Before anything is computed."""
    calls = Calls()

    @cache.cached("tools", **options)
    def look_up() -> Any:
        return calls()

    with pytest.raises(error, match=say):
        look_up()
    assert len(calls) == 0


# -- scope, life, tags -----------------------------------------------------------------------------------------


def test_the_scope_may_depend_on_the_arguments_and_on_the_moment(cache: LayerCache, caplog: pytest.LogCaptureFixture):
    """Functions of the arguments by name, or of nothing; what has no user is not kept where a user is needed."""
    calls, version = Calls(), ["1"]

    @cache.cached("mine", user=lambda user: user, corpus_version=lambda: version[0], ignore=("user",))
    def orders(query: str, user: str | None = None) -> Any:
        return calls(query, user)

    assert orders("q", "ann") == orders("q", user="ann") != orders("q", "bob")
    version[0] = "2"
    assert orders("q", "ann")["number"] == 3
    assert [orders("q")["number"] for _ in range(3)] == [4, 5, 6]
    assert orders.key("q") is None
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1
    assert said[0].endswith("orders: not kept: the layer mine needs a user and the call has none")


def test_a_function_may_ask_for_a_shorter_life(cache: LayerCache, clock: ManualClock):
    """ttl= in seconds; the layer's own is the most."""
    calls = Calls()

    @cache.cached("brief", ttl=5)
    def short() -> Any:
        return calls()

    @cache.cached("tools", ttl=1e9)
    def long() -> Any:
        return calls()

    short(), long()
    clock.now += 26
    assert short()["number"] == 3
    clock.now += 3570
    assert long()["number"] == 2
    clock.now += 10
    assert long()["number"] == 4


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Numbered:
    """Counts, and fails while *failing*; notes on whose behalf."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.failing = False

    def __call__(self) -> int:
        self.made.append(WHO.get())
        if self.failing:
            raise LookupError("not now")
        return len(self.made)


def puts(cache: LayerCache) -> int:
    return int(cache.stats()["layers"]["brief"].get("put", 0))


def test_a_stale_value_is_given_at_once_and_renewed_in_a_thread(cache: LayerCache, clock: ManualClock):
    """One renewal, in the caller's own context; one that fails leaves the old value, and another is tried."""
    numbered = Numbered()

    @cache.cached("brief")
    def look_up() -> int:
        return numbered()

    def as_ann() -> int:
        WHO.set("ann")
        return look_up()

    assert look_up() == 1
    clock.now += 11
    numbered.failing = True
    assert contextvars.copy_context().run(as_ann) == 1
    until(lambda: len(numbered.made) == 2)
    numbered.failing = False
    while len(numbered.made) == 2:  # until the failed renewal has given its claim back
        assert contextvars.copy_context().run(as_ann) == 1
    until(lambda: puts(cache) == 2)
    assert look_up() == 3
    assert numbered.made == ["nobody", "ann", "ann"]


async def test_a_stale_value_of_a_coroutine_is_renewed_in_its_loop(cache: LayerCache, clock: ManualClock):
    """The same, in a task beside the caller's."""
    numbered = Numbered()

    @cache.cached("brief")
    async def look_up() -> int:
        await asyncio.sleep(0)
        return numbered()

    assert await look_up() == 1
    clock.now += 11
    numbered.failing = True
    WHO.set("ann")
    assert await look_up() == 1
    while len(numbered.made) == 1:
        await asyncio.sleep(0.005)
    numbered.failing = False
    while len(numbered.made) == 2:
        assert await look_up() == 1
        await asyncio.sleep(0.005)
    while puts(cache) == 1:
        await asyncio.sleep(0.005)
    assert await look_up() == 3
    assert numbered.made == ["nobody", "ann", "ann"]


def test_what_is_kept_of_a_function_is_deleted_by_tags(cache: LayerCache):
    """Its own, all or some; a dry run counts; other functions keep theirs; the cache's own reaches all layers."""
    calls = Calls()

    @cache.cached("retrieval", corpus_version=lambda version: version, tags={"document": lambda ids: ids, "kind": "a"})
    def search(ids: list[str], version: str) -> Any:
        return calls(ids)

    @cache.cached("tools", tags={"kind": "a"})
    def other() -> Any:
        return calls()

    def fill() -> None:
        search(["1", "2"], "v1"), search(["2"], "v1"), search(["3"], "v2"), other()

    fill()
    assert search.invalidate(document="2", dry_run=True) == 2
    assert search.invalidate(document="1") == 1
    assert search.invalidate(document="1") == 0
    assert search.invalidate(corpus_version="v2", document="2") == 0
    assert search.invalidate() == 2
    assert cache.stats()["entries"] == 1
    fill()
    assert cache.invalidate(kind="a", dry_run=True) == 4
    assert cache.invalidate(layer="retrieval") == 3
    assert cache.invalidate(tenant="default") == 1
    with pytest.raises(ValueError, match="say what"):
        cache.invalidate()


# -- values ----------------------------------------------------------------------------------------------------


class Hit(msgspec.Struct):
    text: str
    score: float


@dataclasses.dataclass(frozen=True)
class Chunk:
    text: str
    at: datetime.datetime


MOMENT = datetime.datetime(2026, 10, 1, tzinfo=datetime.UTC)
KEPT: list[tuple[Any, Any]] = [
    (Any, {"a": [1, 2.5, None, True, "x", b"y"], "b": {"c": {}}}), (Any, {1: 2}), (Any, 2**63), (Any, ""), (None, None),
    (tuple[int, ...], (1, 2)), (tuple[int, str], (1, "a")), (list[Hit], [Hit("a", 0.5)]), (set[str], {"a", "b"}),
    (Chunk, Chunk("a", MOMENT)), (dict[str, list[Chunk]], {"a": [Chunk("a", MOMENT)]}), (uuid.UUID, uuid.UUID(int=5)),
    (Colour, Colour.RED), (Hit | None, Hit("b", 1.0)), (list[float], [1.0, 2]), (datetime.datetime, MOMENT),
    (Pair, Pair(1, 2)), ("list[Hit]", [Hit("a", 0.5)]), ("Nowhere", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("returns", "value"), KEPT, ids=lambda one: repr(one)[:40])
def test_a_value_comes_back_as_it_was(cache: LayerCache, returns: Any, value: Any):
    """Plain data of any function; other types where the function says that it returns them."""
    calls = Calls()

    def look_up() -> Any:
        calls()
        return value

    look_up.__annotations__["return"] = returns
    kept = cache.cached("tools")(look_up)
    found = [kept() for _ in range(3)]
    assert len(calls) == 1
    assert found == [value] * 3
    assert {type(one) for one in found} == {type(value)}


NOT_KEPT: list[tuple[Any, Any]] = [
    (Any, object()), (Any, (1, 2)), (Any, {"a": (1,)}), (Any, {1, 2}), (Any, Hit("a", 1.0)), (Any, Chunk("a", MOMENT)),
    (Any, [Colour.RED]), (Any, Word("red")), (Any, iter([1])), (list[Hit], [Hit("a", 1.0), (1,)]), (Any, float("nan")),
    (list[int], (1, 2)), (Any, 2**64), (Any, threading.Lock()), (Any, {"a": "\ud800"}), (int, 2**70),
]  # fmt: skip


@pytest.mark.parametrize(("returns", "value"), NOT_KEPT, ids=lambda one: repr(one)[:40])
def test_a_value_that_would_come_back_as_another_is_not_kept(
    cache: LayerCache, caplog: pytest.LogCaptureFixture, returns: Any, value: Any
):
    """It is returned itself, each time anew; one line in the log says which function and type."""
    calls = Calls()

    def look_up() -> Any:
        calls()
        return value

    look_up.__annotations__["return"] = returns
    kept = cache.cached("tools")(look_up)
    assert all(kept() is value for _ in range(3))
    assert len(calls) == 3
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1
    assert f"look_up: not kept: what it returns ({type(value).__name__})" in said[0]


def test_many_who_ask_for_what_cannot_be_kept_do_not_queue(cache: LayerCache):
    """When the first finds that it cannot, all the others compute at once."""
    calls, gate = Calls(), threading.Barrier(9)

    @cache.cached("tools")
    def look_up() -> Any:
        if calls()["number"] > 1:
            gate.wait(20)
        else:
            until(lambda: len(asking) == 10)
            time.sleep(0.1)
        return object()

    asking: list[int] = []

    def ask() -> Any:
        asking.append(1)
        return look_up()

    with ThreadPoolExecutor(10) as pool:
        found = [one.result(20) for one in [pool.submit(ask) for _ in range(10)]]
    assert len(set(map(id, found))) == len(calls) == 10


def test_what_is_too_large_is_returned_and_not_kept(cache: LayerCache, caplog: pytest.LogCaptureFixture):
    """The log names the limit."""
    calls = Calls()

    @cache.cached("small")
    def look_up() -> str:
        calls()
        return "x" * 100

    assert look_up() == look_up() == "x" * 100
    assert len(calls) == 2
    assert [one.getMessage() for one in caplog.records if "the limit is 50 (cache.layers.small" in one.getMessage()]


def test_a_value_of_an_older_class_is_computed_anew(tmp_path: Path):
    """The class has another field since: what was kept is not given, and is replaced."""
    url, made = f"sqlite:///{tmp_path / 'cache.sqlite'}", []

    def version(fields: list[tuple[str, type]]) -> Any:
        kind = msgspec.defstruct("Row", fields)

        def look_up() -> Any:
            made.append(1)
            return kind(*[1 for _ in fields])

        look_up.__annotations__["return"] = kind
        return look_up

    for fields, computed in (([("a", int)], 1), ([("a", int), ("b", int)], 2)):
        with LayerCache(url) as cache:
            look_up = cache.cached("tools")(version(fields))
            assert msgspec.structs.asdict(look_up()) == msgspec.structs.asdict(look_up()) == {n: 1 for n, _ in fields}
            assert len(made) == computed


# -- opening ---------------------------------------------------------------------------------------------------


def test_entries_outlive_the_process_with_a_file(tmp_path: Path):
    """A SQLite store, opened twice."""
    url, calls = f"sqlite:///{tmp_path / 'cache.sqlite'}", Calls()

    def look_up(order: int) -> Any:
        return calls(order)

    for _ in range(2):
        with LayerCache(url) as cache:
            assert cache.cached("tools")(look_up)(1)["number"] == 1
    assert len(calls) == 1


def test_replicas_share_one_computation(tmp_path: Path):
    """Two caches over one file, as two processes have them: what one computes the other waits for."""
    url, calls, gate = f"sqlite:///{tmp_path / 'cache.sqlite'}", Calls(), threading.Event()

    def look_up(order: int) -> Any:
        found = calls(order)
        gate.wait(20)
        return found

    with LayerCache(url) as one, LayerCache(url) as other, ThreadPoolExecutor(8) as pool:
        asks = [pool.submit(cache.cached("tools")(look_up), 1) for cache in (one, other) for _ in range(4)]
        until(lambda: len(calls) == 1)
        time.sleep(0.2)
        gate.set()
        assert [one.result(20) for one in asks] == [{"found": [1], "number": 1}] * 8
    assert len(calls) == 1


async def test_it_closes_with_its_block_and_opens_again_when_used(tmp_path: Path):
    """`async with` too; nothing is left running."""
    async with LayerCache(f"sqlite:///{tmp_path / 'cache.sqlite'}") as cache:

        @cache.cached("tools")
        async def look_up() -> int:
            return 1

        assert await look_up() == 1
        assert [one for one in threading.enumerate() if one.name == "negawatt-layers"]
    assert not [one for one in threading.enumerate() if one.name == "negawatt-layers"]
    assert await look_up() == 1
    cache.close()
    cache.close()


def test_a_bad_configuration_or_layer_is_an_error_at_the_first_call(tmp_path: Path):
    """Nothing is opened when functions are decorated; then the message names what is wrong."""
    bad = LayerCache("nowhere:///x")

    @bad.cached("tools")
    def look_up() -> int:
        return 1

    for _ in range(2):
        with pytest.raises(ConfigError, match="nowhere"):
            look_up()
    with LayerCache("memory:") as cache, pytest.raises(UnknownLayer, match="no layer 'tool'; known: answers"):
        cache.cached("tool")(look_up.uncached)()
    assert not [one for one in threading.enumerate() if one.name == "negawatt-layers"]


SCRIPT = """
import os, sys
import negawatt
assert "orjson" not in sys.modules
from negawatt import cached

@cached("retrieval", corpus_version="1")
def search(query):
    print("searched", query)
    return [query]

search("a"); search("a")
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        search("a"); search("b"); search("b")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
search("c"); search("c")
print(search.uncached.__module__)
"""


@pytest.mark.parametrize("file", [None, '[cache]\nstore = "sqlite:///kept.sqlite"\n'])
def test_alone_it_uses_the_folders_configuration_and_survives_a_fork(tmp_path: Path, file: str | None):
    """`from negawatt import cached`: memory without a file, else its store; a forked child has its own connection."""
    if file is not None:
        (tmp_path / "negawatt.toml").write_text(file)
    (tmp_path / "script.py").write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}

    def run() -> list[str]:
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    again = ["searched a"] if file is None else []
    assert run() == ["searched a", *again, "searched b", "searched c", "__main__"]
    expected = ["searched a", "searched a", "searched b", "searched c", "__main__"] if file is None else ["__main__"]
    assert run() == expected


def test_the_example_runs(tmp_path: Path):
    """As its first lines say, without a network; two hundred questions cost two searches."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "cached_retrieval.py")], cwd=tmp_path, env=environ,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": 2 searches")
    assert lines[2].count("'") == 4
    assert lines[3] == "a new corpus: ['Send it back within 30 days.']; 3 searches"
    assert lines[4] == "of the old one 2 entries are deleted"


def test_a_cached_function_can_be_pickled_by_name():
    """As its module has it: for pools of processes."""
    assert pickle.loads(pickle.dumps(kept_by_name)) is kept_by_name


@LayerCache("memory:").cached("tools")
def kept_by_name() -> int:
    return 1
