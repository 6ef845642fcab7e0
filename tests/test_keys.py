"""The laws of the key: what makes two calls the same, and nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import bare_call

from negawatt.call import Request
from negawatt.caller import Scope
from negawatt.keys import differences, key_of, request_digest
from negawatt.wire.chat import CHAT, NOT_IN_KEY

BASE: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
    "temperature": 0,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "b": 1, "a": 2}}}],
}


def key(request: dict[str, Any], scope: Scope | None = None) -> str:
    return key_of(bare_call(request, scope=scope))


def shuffled(value: Any, reverse: bool) -> Any:
    """Return *value* with the keys of its objects in another order, at every depth."""
    if isinstance(value, dict):
        items = sorted(value.items(), reverse=reverse)
        return {name: shuffled(inner, not reverse) for name, inner in items}
    if isinstance(value, list):
        return [shuffled(inner, reverse) for inner in value]
    return value


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)
REQUEST = st.dictionaries(
    st.one_of(st.sampled_from([*BASE, "seed", "n", "user", "stream", "x_unknown"]), st.text(max_size=6)), JSON
)


@settings(max_examples=150, deadline=None)
@given(REQUEST)
def test_the_order_of_keys_does_not_matter(request_: dict[str, Any]):
    """At any depth; nor does white space, since the key is made of the parsed request."""
    one, other = shuffled(request_, False), shuffled(request_, True)
    assert key(one) == key(other)
    spaced = Request(orjson.dumps(other, option=orjson.OPT_INDENT_2))
    assert request_digest(spaced, CHAT) == request_digest(Request(data=one), CHAT)


@settings(max_examples=200, deadline=None)
@given(REQUEST, REQUEST)
def test_two_keys_are_equal_exactly_when_nothing_differs(one: dict[str, Any], other: dict[str, Any]):
    """`differences` and the key agree, so that `cache why` never lies."""
    found = differences((Request(data=one), Scope()), (Request(data=other), Scope()), CHAT)
    assert (key(one) == key(other)) == (found == [])


CHANGES: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hello"}],
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "seed": 7,
    "stop": ["\n"],
    "max_tokens": 10,
    "max_completion_tokens": 10,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "functions": [{"name": "f"}],
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "hello"},
    "web_search_options": {},
    "top_k": 4,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "guided_json": {"type": "object"},
    "x_some_field_of_tomorrow": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_everything_that_can_change_the_answer_changes_the_key(name: str):
    """Every field, known to us or not, unless it is known not to matter."""
    assert key({**BASE, name: CHANGES[name]}) != key(BASE)


def test_no_two_changes_have_one_key():
    """Each of them is another call."""
    keys = {key({**BASE, name: value}) for name, value in CHANGES.items()}
    assert len(keys) == len(CHANGES)


@pytest.mark.parametrize("path", ["role", "content", "name"])
def test_every_part_of_every_message_counts(path: str):
    """The first message as much as the last."""
    for place in (0, 1):
        messages = [dict(message) for message in BASE["messages"]]
        messages[place][path] = "changed"
        assert key({**BASE, "messages": messages}) != key(BASE)


def test_the_order_of_messages_and_tools_counts():
    """Lists are not sets."""
    assert key({**BASE, "messages": BASE["messages"][::-1]}) != key(BASE)


@pytest.mark.parametrize("name", sorted(NOT_IN_KEY))
def test_how_and_for_whom_to_answer_does_not_change_the_key(name: str):
    """These say how to send the answer or whose it is, not what it says."""
    for value in (True, False, "a", {"include_usage": True}):
        assert key({**BASE, name: value}) == key(BASE)


def test_the_fields_outside_the_key_are_these():
    """A new one must be argued for here."""
    assert {
        "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store",
        "stream", "stream_options", "user",
    } == NOT_IN_KEY  # fmt: skip


def test_null_is_absent_and_whole_floats_are_integers():
    """SDKs differ in how they write the same thing."""
    assert key({**BASE, "top_p": None}) == key(BASE)
    assert key({**BASE, "temperature": 0.0}) == key(BASE)
    assert key({**BASE, "temperature": -0.0}) == key(BASE)
    assert key({**BASE, "top_p": 1.0}) == key({**BASE, "top_p": 1})


def test_true_is_not_one_and_text_is_not_a_number():
    """Types count."""
    keys = {key({**BASE, "logprobs": value}) for value in (True, 1, "1", "true", [1])}
    assert len(keys) == 5


SCOPES = {
    "tenant": ("a", "b", ""),
    "permissions": ("", "p", "q"),
    "user": (None, "", "u"),
    "corpus_version": (None, "", "1", "2"),
    "prompt_version": (None, "", "1", "2"),
}


def test_every_part_of_the_scope_changes_the_key():
    """Tenant, permissions, user, corpus and prompt version: no two of all their combinations have one key."""
    scopes = [Scope(**dict(zip(SCOPES, values, strict=True))) for values in itertools.product(*SCOPES.values())]
    assert len({key(BASE, scope) for scope in scopes}) == len(scopes) == 432


@settings(max_examples=150, deadline=None)
@given(*[st.builds(Scope, **{name: st.text(max_size=4) for name in SCOPES}) for _ in "ab"])
def test_values_do_not_run_into_each_other(one: Scope, other: Scope):
    """Whatever quotes and commas callers put into their headers, another scope has another key."""
    assert (key(BASE, one) == key(BASE, other)) == (one == other)


def test_another_operation_has_another_key():
    """The same body sent to another endpoint is another call."""

    class Other:
        name = "embeddings"
        identity = staticmethod(CHAT.identity)

    assert key_of(bare_call(BASE, wire=Other())) != key(BASE)


LITERAL = "828acf8aa7f3c555a31f14305ab89883ca7f13c1f4fbae120966ba0cd5abb661"


def test_the_key_is_the_same_after_a_restart():
    """A literal digest: when this fails, every cache on disk has become worthless; count `VERSION` up."""
    scope = Scope(tenant="acme", permissions="p", corpus_version="3")
    assert key(BASE, scope) == LITERAL
    code = (
        "from negawatt.call import *; from negawatt.keys import key_of; from negawatt.wire.chat import CHAT;"
        "from negawatt.clock import SystemClock;"
        f"request = Request({orjson.dumps(shuffled(BASE, True))!r});"
        "call = Call(id='x', wire=CHAT, request=request, trail=Trail(SystemClock()),"
        "received_at=0, started=0, scope=Scope(tenant='acme', permissions='p', corpus_version='3'));"
        "print(key_of(call))"
    )
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        )  # fmt: skip
        assert found.stdout.strip() == LITERAL


def test_differences_name_the_path():
    """As `negawatt cache why` shows them."""
    other = {**BASE, "messages": [BASE["messages"][0], {"role": "user", "content": "goodbye"}], "seed": 1}
    found = differences((Request(data=BASE), Scope()), (Request(data=other), Scope(tenant="acme")), CHAT)
    assert found == [
        'messages[1].content: "hello", and "goodbye"',
        "seed: only in the second: 1",
        'scope.tenant: "default", and "acme"',
    ]


def test_a_changed_request_gets_another_digest():
    """The digest is kept with the request it was made of, not with its copies."""
    request = Request(data=BASE)
    first = request_digest(request, CHAT)
    assert request_digest(request.replace(seed=1), CHAT) != first
    assert request_digest(request, CHAT) == first
