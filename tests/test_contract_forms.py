"""How contracts and limits are written in each protocol, and answers read by what was sought."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from contracted import ADA, GOOD, PROTOCOLS, SCHEMA, WIRES, asking, saying

from negawatt.call import Request
from negawatt.providers.rows import ROWS
from negawatt.schemas import no_schema
from negawatt.shape.contract import strictly
from negawatt.shape.sought import found_by_code, sought
from negawatt.wire import contracts, limits


def request(protocol: str, **fields: Any) -> Request:
    return Request(data=asking(protocol, **fields))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_schema_that_is_sent_is_the_contract(protocol: str):
    """What is put in is what the protocol reads; taken out again, nothing is left of it; the original is untouched."""
    plain = request(protocol, schema=None)
    before = plain.body
    other = {"type": "object", "title": "other"}
    asked = contracts.with_schema(protocol, plain, contracts.Asking(other, False))
    wire = WIRES[protocol]
    assert wire.contract(asked).schema == other
    assert wire.contract(contracts.with_schema(protocol, asked, contracts.Asking(SCHEMA, True))).schema == SCHEMA
    assert contracts.without_schema(protocol, asked).data == plain.data
    assert plain.body == before
    wire.check(asked)


def test_what_else_a_form_says_is_kept():
    """A schema's name, the verbosity, the effort: only the schema is another one."""
    chat = contracts.with_schema("chat", request("chat"), contracts.Asking({}, True))
    assert chat.data["response_format"]["json_schema"] == {"name": "person", "schema": {}, "strict": True}
    text = {"verbosity": "low", "format": {"type": "json_object"}}
    responses = contracts.with_schema(
        "responses", request("responses").replace(text=text), contracts.Asking({}, False, "x")
    )
    assert responses.data["text"] == {
        "verbosity": "low", "format": {"name": "x", "type": "json_schema", "schema": {}, "strict": False},
    }  # fmt: skip
    beta = request("messages", schema=None, output_format={"type": "json_schema", "schema": {}},
                   output_config={"effort": "low"})  # fmt: skip
    messages = contracts.with_schema("messages", beta, contracts.Asking(SCHEMA, True))
    assert messages.data["output_config"]["effort"] == "low"
    assert "output_format" not in messages.data
    assert contracts.without_schema("messages", messages).data["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(("protocol", "fields", "where"), [
    ("chat", {"messages": [{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}]}, "messages"),
    ("responses", {"instructions": [{"role": "developer", "content": "Be brief."}]}, "instructions"),
    ("messages", {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}, "system"),
])  # fmt: skip
def test_an_instruction_comes_behind_those_that_are_there(protocol: str, fields: dict[str, Any], where: str):
    """Instructions in parts get one more part; what was there stays as it was, marks included."""
    told = contracts.with_instruction(protocol, request(protocol, **fields), "Say JSON.").data[where]
    parts = told[0]["content"] if protocol == "chat" else told
    before = fields[where][0]["content"] if protocol == "chat" else fields[where]
    assert parts[:-1] == before
    assert "Say JSON." in orjson.dumps(parts[-1]).decode()
    WIRES[protocol].check(contracts.with_instruction(protocol, request(protocol, **fields), "Say JSON."))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_rewritten_answer_says_the_other_text_and_streams(protocol: str):
    """The text is replaced, everything else is kept, and its chunks stand for the same."""
    whole = saying(protocol, "```json")
    again = contracts.with_answers(protocol, whole, [GOOD])
    wire = WIRES[protocol]
    assert wire.answers(again) == [GOOD]
    assert wire.usage(again) == wire.usage(whole)
    folder = wire.folder()
    for chunk in wire.unfold(again):
        folder.add(chunk)
    assert folder.result() == again
    assert wire.answers(whole) == ["```json"]


def test_what_was_said_of_single_tokens_goes_with_them():
    """Probabilities and citations of a text that is no longer there would be wrong."""
    chat = saying("chat", "old")
    chat["choices"][0] |= {"logprobs": {"content": []}}
    chat["choices"][0]["message"]["annotations"] = [{"type": "url_citation"}]
    (choice,) = contracts.with_answers("chat", chat, ["new"])["choices"]
    assert choice["logprobs"] is None
    assert "annotations" not in choice["message"]
    responses = saying("responses", "old")
    responses["output"][0]["content"] = [
        {"type": "output_text", "text": "o", "annotations": [1], "logprobs": [1]},
        {"type": "output_text", "text": "ld", "annotations": []},
    ]
    (item,) = contracts.with_answers("responses", responses, ["new"])["output"]
    assert item["content"] == [{"type": "output_text", "text": "new", "annotations": [], "logprobs": []}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_limits_are_set_and_taken_back_in_the_requests_own_words(protocol: str):
    """With a limit and without it again the request is what it was."""
    plain = request(protocol)
    limited = limits.with_limit(protocol, plain, 77)
    assert limits.limit_of(protocol, limited) == 77
    assert limits.without_limit(protocol, limited, plain).data == plain.data
    WIRES[protocol].check(limited)


def test_a_protocols_least_limit_is_kept():
    """Responses refuses fewer than sixteen tokens."""
    assert limits.limit_of("responses", limits.with_limit("responses", request("responses"), 3)) == 16
    assert limits.limit_of("chat", limits.with_limit("chat", request("chat"), 3)) == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cut_off_answer_is_known_by_its_protocols_word(protocol: str):
    """And is never a complete one."""
    whole, cut = saying(protocol, "x"), saying(protocol, "x", cut=True)
    assert not limits.cut_off(protocol, whole)
    assert limits.cut_off(protocol, cut)
    assert not WIRES[protocol].complete(cut)


def test_only_what_is_closed_and_requires_all_is_strict():
    """Everything else a provider would refuse, or take less strictly than it says."""
    assert strictly(SCHEMA)
    assert not strictly({**SCHEMA, "required": ["name"]})
    assert not strictly({**SCHEMA, "additionalProperties": True})
    inner = {"type": "object", "properties": {"a": SCHEMA}, "required": ["a"], "additionalProperties": False}
    assert strictly(inner)
    assert not strictly({**inner, "properties": {"a": {**SCHEMA, "required": []}}})
    assert not strictly(True)


def test_what_is_no_schema_is_told_apart():
    """Every reason is one for a person; nothing is fetched."""
    assert no_schema({}) is None
    assert no_schema(SCHEMA) is None
    for bad in ([1], "x", {"type": "objekt"}, {"$ref": "https://example.org/a"}, {"$ref": "#/none"}, {"pattern": "("}):
        assert no_schema(bad)


def test_marks_never_reach_the_model():
    """Where nothing is split, the field is the model's, without the mark; unknown kinds are the model's as well."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "x-negawatt-extract": "aura"}}}
    for words in (None, "ada@example.org"):
        found = sought(schema, mend=True, compact=False, words=words, extract=found_by_code)
        assert found.shown == {"type": "object", "properties": {"a": {"type": "string"}}}
        assert not found.altered
    assert found.left == {("a",): "code is not certain of the aura in it"}


def test_a_value_of_code_does_not_hide_what_is_wrong():
    """A filled field that has no place in the answer, or an answer that is broken, is said to be."""
    schema = {
        "type": "object", "required": ["to", "n"],
        "properties": {
            "to": {"type": "object", "properties": {"email": {"type": "string", "x-negawatt-extract": "email"}},
                   "required": ["email"]},
            "n": {"type": "integer"},
        },
    }  # fmt: skip
    found = sought(schema, mend=True, compact=False, words="to ada@example.org", extract=found_by_code)
    assert found.values == {("to", "email"): "ada@example.org"}
    good = found.read('{"to": {}, "n": 1}', cut=False)
    assert orjson.loads(good.text) == {"to": {"email": "ada@example.org"}, "n": 1}
    assert good.problem is None
    for broken in ('{"to": {}}', '{"n": 1}', '{"to": 1, "n": 1}', "none"):
        assert found.read(broken, cut=False).problem is not None


def test_a_model_that_says_long_keys_all_the_same_is_understood():
    """Short keys are asked for; long ones are as good."""
    found = sought(SCHEMA, mend=True, compact=True, words=None, extract=found_by_code)
    for text in ('{"a":"Ada","b":1815}', GOOD):
        read = found.read(text, cut=False)
        assert (orjson.loads(read.text), read.problem) == (ADA, None)


def test_models_that_take_schemas_are_known_by_their_names():
    """The table's patterns: old models are not among them."""
    claude, gpt = ROWS["anthropic"].takes_schemas, ROWS["openai"].takes_schemas
    for name in ("claude-sonnet-4-5-20250929", "claude-opus-4-1-20250805", "claude-haiku-4-5", "claude-sonnet-5-5"):
        assert claude(name), name
    for name in ("claude-3-5-sonnet-20241022", "claude-3-7-sonnet-20250219", "claude-sonnet-4-20250514"):
        assert not claude(name), name
    assert all(map(gpt, ("gpt-4o", "gpt-4o-mini", "gpt-4o-2024-08-06", "gpt-5-mini", "o3-mini")))
    assert not any(map(gpt, ("gpt-4-turbo", "gpt-3.5-turbo", "gpt-4o-2024-05-13", "o1-mini", "o1-preview")))
    verbose = ROWS["openai"].takes_verbosity
    assert all(map(verbose, ("gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-5.2-2026-01-01")))
    assert not any(map(verbose, ("gpt-4o", "gpt-5-chat-latest", "o3")))
