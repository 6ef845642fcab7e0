"""Contracts: does an answer keep the response_format that its request asked for?"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.call import Request
from negawatt.verify.schema import broken_contract
from negawatt.wire.chat import CHAT

JSON_OBJECT = {"type": "json_object"}


def schema(inner: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": inner}}


def verdict(contract: Any, *contents: Any, **message: Any) -> str | None:
    """Return what is said of an answer whose choices have *contents*."""
    fields = {} if contract is None else {"response_format": contract}
    choices = [{"index": i, "message": {"content": content, **message}} for i, content in enumerate(contents)]
    asked = CHAT.contract(Request(data={"model": "m", "messages": [], **fields}))
    return None if asked is None else broken_contract(asked, CHAT.answers({"choices": choices}))


PERSON = schema(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize("contract", [None, {"type": "text"}, "json", {"type": "grammar"}, []])
def test_without_a_contract_everything_keeps_it(contract: Any):
    """Prose is fine where prose was asked for; formats we do not know are not ours to judge."""
    assert verdict(contract, "hello", None, "{") is None


@pytest.mark.parametrize(
    ("contract", "content", "said"),
    [
        (JSON_OBJECT, "{}", None),
        (JSON_OBJECT, ' {"a": [1]} ', None),
        (JSON_OBJECT, "[]", "the answer is not the JSON object that was asked for"),
        (JSON_OBJECT, '"a"', "the answer is not the JSON object that was asked for"),
        (JSON_OBJECT, "hello", "the answer is not the JSON that was asked for"),
        (JSON_OBJECT, "```json\n{}\n```", "the answer is not the JSON that was asked for"),
        (JSON_OBJECT, '{"a": ', "the answer is not the JSON that was asked for"),
        (JSON_OBJECT, "", "the answer is not the JSON that was asked for"),
        (JSON_OBJECT, None, "the answer is not the JSON that was asked for"),
        (JSON_OBJECT, [{"type": "text"}], "the answer is not the JSON that was asked for"),
        (PERSON, '{"name": "A"}', None),
        (PERSON, '{"name": "A", "age": 3}', None),
        (PERSON, '{"age": 3}', "the answer breaks the schema: "),
        (PERSON, '{"name": "A", "age": -1}', "the answer breaks the schema: "),
        (PERSON, '{"name": "A", "more": 1}', "the answer breaks the schema: "),
        (PERSON, '{"name": 5}', "the answer breaks the schema: "),
        (PERSON, "[]", "the answer breaks the schema: "),
        (schema(None), '{"any": "thing"}', None),
        (schema(True), "1", None),
        (schema({}), "1", None),
        ({"type": "json_schema"}, "1", None),
        ({"type": "json_schema", "json_schema": "s"}, "1", None),
    ],
)
def test_an_answer_keeps_its_contract_or_is_told_how_it_breaks_it(contract: Any, content: Any, said: str | None):
    """Fenced, cut off and empty answers are not JSON."""
    found = verdict(contract, content)
    assert (found is None) if said is None else (found or "").startswith(said)


def test_every_choice_must_keep_it():
    """One that does not is enough."""
    assert verdict(PERSON, '{"name": "A"}', '{"name": "B"}') is None
    assert verdict(PERSON, '{"name": "A"}', "{}") is not None


def test_refusals_and_tool_calls_are_under_no_contract():
    """They are answers of another kind."""
    assert verdict(PERSON, None, refusal="I will not") is None
    assert verdict(PERSON, None, tool_calls=[{"id": "1"}]) is None


@pytest.mark.parametrize("bad", [{"type": "no such"}, "text", 5, [], {"pattern": "("}, {"$ref": "#/nowhere"}])
def test_a_schema_that_is_none_says_so(bad: Any):
    """Nothing can be said of the answer, so it is not taken for good."""
    assert verdict(schema(bad), "{}") == "the schema that was asked for is not a valid one"


def test_references_within_a_schema_are_followed():
    """Recursive ones, too."""
    tree = schema({"$ref": "#/$defs/node", "$defs": {"node": {
        "type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["v"],
    }}})  # fmt: skip
    assert verdict(tree, '{"v": 1, "next": {"v": 2}}') is None
    assert verdict(tree, '{"v": 1, "next": {}}') is not None


def test_a_schema_is_never_fetched(tmp_path):
    """A caller's schema must not make us ask our own network, or read our own files."""
    asked = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.3)

    def listen() -> None:
        with contextlib.suppress(TimeoutError):
            asked.append(listener.accept()[1])

    thread = threading.Thread(target=listen)
    thread.start()
    here = f"http://127.0.0.1:{listener.getsockname()[1]}"
    secret = tmp_path / "secret.json"
    secret.write_text('{"type": "string"}')
    for inner in ({"$ref": f"{here}/s"}, {"$id": f"{here}/a", "$ref": "b"}, {"$ref": secret.as_uri()}):
        assert verdict(schema(inner), '"a"') == "the schema that was asked for is not a valid one"
    assert verdict(schema({"$schema": f"{here}/meta"}), "1") is not None
    thread.join()
    listener.close()
    assert asked == []


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "properties", "required", "enum", "items", "$ref", "pattern", "allOf", "minimum"]),
            inner, max_size=3,
        ),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JSON, JSON)
def test_no_schema_and_no_answer_breaks_the_check(inner: Any, value: Any):
    """Whatever callers ask and models say, there is a verdict."""
    found = verdict(schema(inner), orjson.dumps(value).decode())
    assert found is None or isinstance(found, str)
    assert found is None or len(found) <= 200
