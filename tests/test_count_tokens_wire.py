"""Anthropic's token counting: a request like a message's, one number as the answer, and nothing to pay."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.call import Request
from negawatt.economics.usage import Usage
from negawatt.errors import InvalidRequest, RateLimited
from negawatt.reply import Reply
from negawatt.wire.count_tokens import COUNT_TOKENS
from negawatt.wire.messages import MESSAGES

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_an_answer_is_its_own_only_chunk(whole: dict[str, Any]):
    """Whatever it says, unfolding and folding give it back, and it is complete."""
    folder = COUNT_TOKENS.folder()
    assert not folder.complete
    assert folder.result() == {}
    for chunk in COUNT_TOKENS.unfold(whole):
        assert COUNT_TOKENS.last(chunk)
        assert not COUNT_TOKENS.closing(chunk)
        folder.add(chunk)
    assert folder.result() == whole
    assert folder.faithful
    assert folder.complete
    assert Reply(COUNT_TOKENS, body=orjson.dumps(whole)).faithful


def test_a_second_chunk_is_not_mixed_into_the_first():
    """There is no such thing; the first one stays, and is not to be trusted."""
    folder = COUNT_TOKENS.folder()
    folder.add({"input_tokens": 1})
    folder.add({"input_tokens": 2})
    assert folder.result() == {"input_tokens": 1}
    assert not folder.faithful


def test_counting_costs_nothing():
    """The tokens were counted, not used: zeros that are known, not a usage that is missing."""
    assert COUNT_TOKENS.usage({"input_tokens": 2095}) == Usage(input_tokens=0, output_tokens=0)
    assert not COUNT_TOKENS.billed
    assert not COUNT_TOKENS.streams


def test_an_answer_with_a_number_is_complete():
    """Anything else is no count."""
    assert COUNT_TOKENS.complete({"input_tokens": 2095})
    assert COUNT_TOKENS.complete({"input_tokens": 1, "context_management": {"original_input_tokens": 9}})
    for bad in ({}, {"input_tokens": None}, {"input_tokens": "5"}, {"input_tokens": True}, {"type": "error"}):
        assert not COUNT_TOKENS.complete(bad)


def test_a_request_is_checked_like_a_message_but_needs_no_limit():
    """`max_tokens` is for answers; what both have must be right."""
    COUNT_TOKENS.check(Request(data=GOOD))
    COUNT_TOKENS.check(Request(data={**GOOD, "system": "s", "tools": [], "thinking": {"type": "adaptive"}}))
    for name in GOOD:
        with pytest.raises(InvalidRequest, match=f"{name}: this field is required"):
            COUNT_TOKENS.check(Request(data={n: v for n, v in GOOD.items() if n != name}))
    with pytest.raises(InvalidRequest) as caught:
        COUNT_TOKENS.check(Request(data={**GOOD, "messages": [{"role": "user", "content": 5}]}))
    assert caught.value.param == "messages[0].content"


def test_there_is_only_one_answer():
    """So it may be shared and kept, whatever the caller says about temperatures."""
    request = Request(data={**GOOD, "temperature": 1})
    assert COUNT_TOKENS.deterministic(request)
    assert not COUNT_TOKENS.sampled(request)
    assert COUNT_TOKENS.contract(request) is None
    assert COUNT_TOKENS.with_usage(request) is request


def test_a_count_and_a_message_are_told_apart_by_name_only():
    """They share what identifies a request, and its prompt."""
    marked = [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}]
    request = Request(data={**GOOD, "messages": marked})
    assert COUNT_TOKENS.identity(request) == MESSAGES.identity(request)
    assert COUNT_TOKENS.prompt(request) == MESSAGES.prompt(request)
    assert b"cache_control" not in orjson.dumps(COUNT_TOKENS.identity(request))
    assert (COUNT_TOKENS.name, COUNT_TOKENS.path) == ("count_tokens", "/messages/count_tokens")


def test_errors_are_said_in_the_words_of_the_api():
    """As for messages."""
    error = RateLimited("slower")
    assert COUNT_TOKENS.error_body(error) == MESSAGES.error_body(error)
    assert COUNT_TOKENS.error_of({"type": "error", "error": {"type": "api_error", "message": "no"}}) == "no"
    assert COUNT_TOKENS.annotated({"input_tokens": 1}, {"cost_usd": 0.0}) == {
        "input_tokens": 1,
        "negawatt": {"cost_usd": 0.0},
    }
