"""Server-sent events: however the network cuts a stream, the same events come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from negawatt.errors import UpstreamProtocolError
from negawatt.wire.sse import EventParser, event, events


def parse(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    found = [one for piece in pieces for one in parser.feed(piece)]
    return found + parser.end()


def pieces_of(body: bytes, places: list[int]) -> list[bytes]:
    """Return *body* cut at *places*; a place named twice gives an empty piece."""
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


LINE = st.one_of(
    st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12).map(lambda text: f"data: {text}"),
    st.sampled_from(["", "", ": keep-alive", ":", "data", "data:", "data:a", "event: x", "id: 7", "retry: 10", "junk"]),
)
BODY = st.builds(
    lambda lines, ends: "".join(a + b for a, b in zip(lines, ends, strict=False)).encode(),
    st.lists(LINE, max_size=12),
    st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=12, max_size=12),
)


@settings(max_examples=300, deadline=None)
@given(BODY, st.lists(st.integers(0, 500), max_size=8))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 8])
@example(b"data: a\r\ndata: b\r\n\r\n", [8, 8])
@example("data: é€😀\n\n".encode(), list(range(20)))
def test_it_does_not_matter_where_a_body_is_cut(body: bytes, places: list[int]):
    """In the middle of a character, between CR and LF, with empty pieces: the events are the same."""
    assert parse(*pieces_of(body, places)) == parse(body)


@settings(max_examples=60, deadline=None)
@given(BODY)
def test_a_byte_at_a_time_is_as_good_as_all_at_once(body: bytes):
    """The slowest network there is."""
    assert parse(*[body[i : i + 1] for i in range(len(body))]) == parse(body)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), max_size=6))
def test_what_we_frame_we_can_read(texts: list[str]):
    """`event` and `events` are the inverse of the parser."""
    data = [text.encode() for text in texts]
    assert parse(*[event(one) for one in data]) == data
    assert parse(events(data)) == data


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_of_the_standard_is_taken(end: bytes):
    """LF, CRLF and CR."""
    body = end.join([b"data: a", b"", b"data: b", b"", b""])
    assert parse(body) == [b"a", b"b"]


def test_an_event_is_given_as_soon_as_its_blank_line_is_there():
    """With CRs, too: the LF that may follow is not waited for."""
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [b"a"]
    assert parser.feed(b"data: b\r\r") == [b"b"]
    assert parser.feed(b"\ndata: c\r\n\r\n") == [b"c"]


def test_several_data_lines_are_one_event():
    """Joined by a newline, an empty one included."""
    assert parse(b"data: a\ndata:\ndata\ndata: b\n\n") == [b"a\n\n\nb"]


def test_one_space_after_the_colon_is_not_data():
    """Only the first."""
    assert parse(b"data:  a\n\ndata:b\n\n") == [b" a", b"b"]


def test_comments_and_keep_alives_are_nothing():
    """OpenRouter's and other proxies' comments come between events and inside them."""
    assert parse(b": OPENROUTER PROCESSING\n\n:\n\ndata: a\n: still here\n\n\n\n") == [b"a"]


def test_other_fields_are_nothing():
    """Nor do fields whose names only begin like data."""
    assert parse(b"event: x\nid: 1\nretry: 5\ndatax: a\n\ndata: b\n\n") == [b"b"]


def test_a_last_event_without_its_blank_line_counts():
    """Servers that forget it are common, also in the middle of a line."""
    assert parse(b"data: a\n\ndata: [DONE]") == [b"a", b"[DONE]"]
    assert parse(b"data: a\n\ndata: [DONE]\r") == [b"a", b"[DONE]"]


def test_an_event_that_is_too_large_is_refused():
    """Whether it is one line without an end or many lines."""
    for piece in (b"x" * 60, b"data: " + b"x" * 40 + b"\n"):
        parser = EventParser(max_bytes=100)
        with pytest.raises(UpstreamProtocolError, match="larger than 100 bytes"):
            for _ in range(3):
                parser.feed(piece)


def test_the_size_is_that_of_one_event():
    """A long stream of small events is fine."""
    parser = EventParser(max_bytes=100)
    for _ in range(50):
        assert parser.feed(b"data: 0123456789\n\n") == [b"0123456789"]
