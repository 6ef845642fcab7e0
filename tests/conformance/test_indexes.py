"""What every index does: vectors under a scope, each with a value, for so long, within bounds, deleted by tag."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from backends import ManualClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from indexes import DIMENSIONS, MODEL, SIZE, Open, at, some
from postgres_server import PostgresServer

from negawatt.errors import ConfigError, IndexMismatch
from negawatt.indexes import Index, IndexStats
from negawatt.registry import INDEXES, open_backend


@pytest.fixture
async def index(open_index: Open) -> Index:
    return open_index()


async def found(index: Index, degrees: float = 0, *, scope: str = "s", k: int = 99) -> str:
    """Return the keys, each of one character, nearest first."""
    return "".join([neighbour.key for neighbour in await index.nearest(scope, at(degrees), k=k)])


async def kept(index: Index, keys: str) -> str:
    """Return those of *keys* under which there is a value, in the order in which they were asked for."""
    return "".join([key for key in keys if await index.get(key) is not None])


async def put(index: Index, keys: str, **fields: object) -> None:
    """Put an entry under each of *keys*, each a degree further away."""
    for degrees, key in enumerate(keys):
        options = {"scope": "s", "ttl_s": 100.0, **fields}
        await index.put(key, at(degrees), key.encode(), **options)  # type: ignore[arg-type]


async def test_what_was_put_is_found_nearest_first(index: Index):
    """With its cosine and its mark, and its value is there; where nothing was put, nothing is found."""
    assert await index.nearest("s", at(0)) == []
    for degrees, key in ((90, "far"), (10, "near"), (180, "opposite"), (40, "middle")):
        await index.put(key, at(degrees), key.encode() * 1000, scope="s", ttl_s=10, mark=key[:2].encode())
    neighbours = await index.nearest("s", at(0), k=3)
    assert [(one.key, one.mark) for one in neighbours] == [("near", b"ne"), ("middle", b"mi"), ("far", b"fa")]
    cosines = [float(np.cos(np.radians(degrees))) for degrees in (10, 40, 90)]
    assert [one.similarity for one in neighbours] == pytest.approx(cosines, abs=1e-6)
    assert await index.get("middle") == b"middle" * 1000
    assert await index.get("other") is None


async def test_any_text_is_a_key_a_scope_and_a_tag(index: Index):
    """Quotes, NULs, other alphabets and great lengths are only characters; a value is any bytes, or none."""
    texts = ["'; DROP TABLE entry; --", "a\0b", "ключ", "%", "_", "", "\\x00", "long" * 3_000]
    values = [b"", bytes(range(256)), b"\xff\xfe", *[b"v"] * 5]
    for text, value in zip(texts, values, strict=True):
        await index.put(text, at(0), value, scope=text, ttl_s=10, tags=(text,))
    for text, value in zip(texts, values, strict=True):
        assert [one.key for one in await index.nearest(text, at(0))] == [text]
        assert await index.get(text) == value
        assert await index.delete_tagged((text,)) == 1


async def test_scopes_never_mix(index: Index):
    """The nearest of another scope is not found, nor when its own scope is empty."""
    await put(index, "ab", scope="one")
    await put(index, "c", scope="two")
    assert [await found(index, scope=scope) for scope in ("one", "two", "three", "")] == ["ab", "c", "", ""]


async def test_of_equally_near_entries_the_older_comes_first(index: Index):
    """Whatever was deleted between them, and an entry that was put again is as young as that."""
    for key in "abcdefghijklmnopqrstuvwxyz":
        await index.put(key, at(33), b"", scope="s", ttl_s=10)
    for key in "bdy":
        await index.delete(key)
    for key in "BDYa":
        await index.put(key, at(33), b"", scope="s", ttl_s=10)
    assert await found(index, 33) == "cefghijklmnopqrstuvwxzBDYa"
    assert await found(index, 33, k=3) == "cef"


async def test_no_more_is_found_than_there_is_or_was_wanted(index: Index):
    """*k* is the most that is wanted."""
    await put(index, "abc")
    assert [await found(index, k=k) for k in (0, 1, 2, 3, 4, 1000)] == ["", "a", "ab", "abc", "abc", "abc"]


async def test_an_entry_lives_as_long_as_it_was_said_to(index: Index, clock: ManualClock):
    """Not a moment longer, and what has expired is not counted."""
    await put(index, "a", ttl_s=10.0)
    await put(index, "b", ttl_s=100.0)
    clock.now = 9.99
    assert (await found(index), await kept(index, "ab")) == ("ab", "ab")
    clock.now = 10.0
    assert (await found(index), await kept(index, "ab")) == ("b", "b")
    assert await index.stats() == IndexStats(1, SIZE + 1, 1)
    clock.now = 100.0
    assert (await found(index), await index.stats()) == ("", IndexStats(0, 0, 0))


async def test_putting_again_replaces_everything(index: Index, clock: ManualClock):
    """Vector, value, mark, scope, lifetime and tags: nothing of the older entry is left, nor counted."""
    await index.put("k", at(0), b"old", scope="old", ttl_s=5, mark=b"old", tags=("old", "both"))
    clock.now = 4
    await index.put("k", at(90), b"newer", scope="new", ttl_s=5, mark=b"n", tags=("new", "both"))
    clock.now = 8
    assert await index.get("k") == b"newer"
    assert await index.nearest("old", at(0)) == []
    assert [(key, round(cosine), mark) for key, cosine, mark in await index.nearest("new", at(90))] == [("k", 1, b"n")]
    assert await index.stats() == IndexStats(1, SIZE + len(b"newer") + len(b"n"), 1)
    assert [await index.delete_tagged((tag,)) for tag in ("old", "new", "both")] == [0, 1, 0]


async def test_the_entries_not_read_for_longest_make_room(open_index: Open, clock: ManualClock):
    """Reading a value counts as use, being found does not; the newest stays. They are gone from searches, too."""
    index = open_index(max_entries=4)
    for i, key in enumerate("abcd"):
        clock.now = i
        await put(index, key)
    clock.now = 10
    assert await index.get("a") is not None
    assert await found(index) == "abcd"
    clock.now = 20
    await put(index, "e")
    assert await found(index) == "acde"
    clock.now = 30
    await put(index, "f", scope="other")
    assert await kept(index, "abcdef") == "adef"
    assert (await index.stats()).entries == 4


async def test_bytes_are_bounded(open_index: Open, clock: ManualClock):
    """As many go as have to, and no more."""
    index = open_index(max_bytes=5 * (SIZE + 100))
    for i, key in enumerate("abcde"):
        clock.now = i
        await index.put(key, at(i), b"x" * 100, scope="s", ttl_s=100)
    clock.now = 10
    await index.put("f", at(6), b"x" * 150, scope="s", ttl_s=100)
    assert await found(index) == "cdef"
    assert (await index.stats()).bytes == 4 * (SIZE + 100) + 50


async def test_what_is_larger_than_the_index_is_not_kept(open_index: Open):
    """It pushes nothing out, but what it was meant to replace is gone."""
    index = open_index(max_bytes=1_000)
    await put(index, "ab")
    await index.put("a", at(0), b"x" * 1_000, scope="s", ttl_s=10)
    assert (await found(index), await kept(index, "ab")) == ("b", "b")


async def test_deleting_says_whether_there_was_something(index: Index):
    """Once."""
    await put(index, "ab")
    assert [await index.delete("a"), await index.delete("a"), await index.delete("z")] == [True, False, False]
    assert (await found(index), await kept(index, "ab")) == ("b", "b")


@pytest.mark.parametrize(
    ("tags", "gone"),
    [
        (("tenant=x",), "ab"), (("tenant=x", "class=faq"), "a"), (("class=faq", "class=faq"), "ac"),
        (("tenant=x", "tenant=y"), ""), (("tenant=z",), ""), ((), ""),
    ],
)  # fmt: skip
async def test_entries_are_deleted_by_all_of_the_tags(index: Index, tags: tuple[str, ...], gone: str):
    """All of them must be there; no tags at all delete nothing. A dry run counts the same and deletes nothing."""
    tagged = {"a": ("tenant=x", "class=faq"), "b": ("tenant=x", "x", "x"), "c": ("tenant=y", "class=faq"), "d": ()}
    for key, of_it in tagged.items():
        await put(index, key, tags=of_it, scope=f"scope of {key}")
    left = "".join(key for key in "abcd" if key not in gone)
    assert await index.delete_tagged(tags, dry_run=True) == len(gone)
    assert await kept(index, "abcd") == "abcd"
    assert await index.delete_tagged(tags) == len(gone)
    assert await kept(index, "abcd") == left
    assert "".join([await found(index, scope=f"scope of {key}") for key in "abcd"]) == left
    assert await index.delete_tagged(tags) == 0


async def test_the_expired_are_not_counted_among_the_deleted(index: Index, clock: ManualClock):
    """What nobody could read any more was not deleted by us."""
    await put(index, "a", ttl_s=5.0, tags=("t",))
    await put(index, "b", ttl_s=50.0, tags=("t",))
    clock.now = 6
    assert await index.delete_tagged(("t",), dry_run=True) == 1
    assert await index.delete_tagged(("t",)) == 1


async def test_a_vector_of_another_dimension_is_refused_with_both_numbers(index: Index):
    """When it is put and when it is sought; a row of vectors is no vector."""
    for vector in (some(1, seed=1, dimensions=12)[0], some(2, seed=1)):
        with pytest.raises(IndexMismatch, match=rf"{MODEL} with {DIMENSIONS} dimensions, got one of shape \(\d+, ?8?"):
            await index.put("k", vector, b"", scope="s", ttl_s=10)
        with pytest.raises(IndexMismatch):
            await index.nearest("s", vector)
    assert await index.stats() == IndexStats(0, 0, 0)


async def test_what_is_no_entry_is_refused(index: Index):
    """A vector that has not length 1, or is not a number, and a mark that is too long; what was there stays."""
    await put(index, "k")
    for vector in (at(0) * 2, at(0) * 0, np.full(DIMENSIONS, np.nan), np.full(DIMENSIONS, np.inf)):
        with pytest.raises(ValueError, match="has length 1"):
            await index.put("k", vector.astype(np.float32), b"", scope="s", ttl_s=10)
    with pytest.raises(ValueError, match="at most 64 bytes, got 65"):
        await index.put("k", at(0), b"", scope="s", ttl_s=10, mark=b"x" * 65)
    await index.put("l", at(1), b"", scope="s", ttl_s=10, mark=b"x" * 64)
    assert await kept(index, "kl") == "kl"


async def test_many_puts_at_once_all_arrive(open_index: Open):
    """Concurrent writers, readers and searches of the same keys: the last word of each counts, and the sums hold."""
    index = open_index(max_entries=40)
    rows = some(300, seed=2)

    async def write(i: int) -> None:
        await index.put(f"k{i % 50}", rows[i], b"%03d" % i, scope=f"s{i % 50 % 3}", ttl_s=100, tags=(f"t{i % 2}",))
        await index.get(f"k{i * 7 % 50}")
        await index.nearest(f"s{i % 3}", rows[i])

    await asyncio.gather(*(write(i) for i in range(300)))
    stats = await index.stats()
    values = {key: value for i in range(50) if (value := await index.get(key := f"k{i}")) is not None}
    assert stats.entries == len(values) == 40
    assert stats.bytes == sum(len(key) + 4 * DIMENSIONS + 3 for key in values)
    assert all(int(value) % 50 == int(key[1:]) and int(value) >= 250 for key, value in values.items())
    there = [one.key for i in range(3) for one in await index.nearest(f"s{i}", rows[0], k=99)]
    assert sorted(there) == sorted(values)
    assert sum([await index.delete_tagged((f"t{i}",)) for i in range(2)]) == 40


# -- against brute force -------------------------------------------------------------------------------------------

POOL = some(12, seed=5)
KEYS, SCOPES, TAGS = st.sampled_from("abcdefghijkl"), st.sampled_from(["s", "t"]), st.sampled_from(["x", "y"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, SCOPES, st.integers(0, 11), st.integers(1, 30), st.sets(TAGS)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("delete_tagged"), st.sets(TAGS, min_size=1)),
        st.tuples(st.just("wait"), st.integers(1, 9)),
        st.tuples(st.just("nearest"), SCOPES, st.integers(0, 11), st.integers(1, 6)),
    ),
    max_size=60,
)


class Rows:
    """Every entry in one list, oldest first: the plainest index that there could be."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: list[tuple[str, str, int, float, set[str]]] = []

    def put(self, key: str, scope: str, vector: int, ttl_s: float, tags: set[str]) -> None:
        self.drop(lambda row: row[0] == key)
        self.rows.append((key, scope, vector, self.now + ttl_s, tags))

    def drop(self, which) -> int:
        gone = [row for row in self.rows if which(row)]
        self.rows = [row for row in self.rows if row not in gone]
        return sum(row[3] > self.now for row in gone)

    def nearest(self, scope: str, vector: int, k: int) -> list[str]:
        alive = [row for row in self.rows if row[1] == scope and row[3] > self.now]
        cosines = POOL.astype(float) @ POOL[vector].astype(float)
        return [row[0] for row in sorted(alive, key=lambda row: -cosines[row[2]])[:k]]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
async def test_it_finds_what_comparing_with_everything_finds(open_index: Open, clock: ManualClock, steps):
    """Whatever was put, replaced, deleted and has expired before, in whatever order."""
    index, rows = open_index(), Rows()
    start = clock.now
    for name, *rest in steps:
        if name == "put":
            key, scope, vector, ttl_s, tags = rest
            await index.put(key, POOL[vector], b"", scope=scope, ttl_s=ttl_s, tags=tuple(tags))
            rows.put(*rest)
        elif name == "delete":
            was_there = rows.drop(lambda row, key=rest[0]: row[0] == key)
            assert await index.delete(rest[0]) or not was_there
        elif name == "delete_tagged":
            count = rows.drop(lambda row, tags=rest[0]: tags <= row[4])
            assert await index.delete_tagged(tuple(rest[0])) == count
        elif name == "wait":
            rows.now += rest[0]
            clock.now = start + rows.now
        else:
            scope, vector, k = rest
            neighbours = await index.nearest(scope, POOL[vector], k=k)
            assert [one.key for one in neighbours] == rows.nearest(scope, vector, k)
    alive = [row for row in rows.rows if row[3] > rows.now]
    assert (await index.stats()).entries == len(alive)


# -- opening -------------------------------------------------------------------------------------------------------


async def test_opened_by_url(tmp_path: Path, clock: ManualClock, monkeypatch, postgres: PostgresServer):
    """Each with its bounds."""
    monkeypatch.chdir(tmp_path)
    urls = ["memory:?max_entries=1", "sqlite:///index.sqlite?max_entries=1&max_bytes=1MiB"]
    urls += [postgres.url(schema="by_url", max_entries="1", timeout_ms="20000")]
    urls += [urls[-1].replace("postgres://", "postgresql://").replace("by_url", "by_other_url")]
    for url in urls:
        index: Index = open_backend(
            INDEXES, "negawatt.indexes", url, "recall.index", clock, model=MODEL, dimensions=DIMENSIONS
        )
        await index.check()
        await put(index, "ab")
        assert (await found(index), await index.stats()) == ("b", IndexStats(1, SIZE + 1, 1))
        await index.close()
    assert (tmp_path / "index.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is not a URL"), ("nobody:", "no backend for 'nobody'"), ("sqlite:", "names no file"),
        ("sqlite:///no/such/folder/f", "no folder"), ("memory:?max_entries=0", "max_entries='0'"),
        ("memory:?max_bytes=many", "max_bytes='many'"), ("postgres://h/d?max_entries=-1", "max_entries='-1'"),
        ("postgres://user:secret@h/d", r"\?password_env="), ("postgres://h/d?password=secret", r"\?password_env="),
        ("postgres://h/d?password_env=NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE is not set"),
        ("postgres://h/d?timeout_ms=soon", "timeout_ms='soon'"), ("postgres://h/d?timeout_ms=0", "timeout_ms='0'"),
        ("postgres://h/d?schema=My%20Schema", "schema='My Schema'"), ("postgres://h/d?schema=", "schema=''"),
        ("postgres://h/d?schemma=x", "no option 'schemma'; known: schema, "), ("postgres://h:port/d", "Port"),
        ("postgres://h/d?sslmode=maybe", "sslmode='maybe'"), ("postgres://h/d?port=x", "port='x'"),
    ],
)  # fmt: skip
async def test_a_bad_url_names_its_field(url: str, said: str, clock: ManualClock):
    """The error says where the URL stands and what is wrong with it, and no secret."""
    with pytest.raises(ConfigError, match=said) as refused:
        open_backend(INDEXES, "negawatt.indexes", url, "recall.index", clock, model=MODEL, dimensions=DIMENSIONS)
    assert str(refused.value).startswith("recall.index: ") or "max_bytes" in url
    assert "secret" not in str(refused.value)
