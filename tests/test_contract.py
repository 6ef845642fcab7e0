"""What is asked of a model that answers with JSON: in words, with short keys, without what code can fill."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from negawatt.schemas import broken
from negawatt.shape.contract import Compact, fields, fill, instruction, merged, without

TICKET = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "customer_email": {"type": "string", "format": "email", "x-negawatt-extract": "email"},
        "summary": {"type": "string", "description": "One sentence."},
        "priority": {"enum": ["low", "high"]},
        "contact": {
            "type": "object",
            "properties": {"phone": {"type": "string", "x-negawatt-extract": "phone"}, "name": {"type": "string"}},
            "required": ["phone", "name"],
            "additionalProperties": False,
        },
        "links": {"type": "array", "items": {"type": "string"}, "x-negawatt-extract": "url"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["customer_email", "summary", "contact"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {
                "article_number": {"type": "string"},
                "amount": {"type": "integer"},
                "id": {"type": "string"},
            },
            "additionalProperties": False,
        }
    },
}
WORDS = st.text("ab@.", max_size=4)
PART = st.fixed_dictionaries({}, optional={"phone": WORDS, "name": WORDS | st.none()})
LINE = st.fixed_dictionaries({}, optional={"article_number": WORDS, "amount": st.integers() | WORDS, "id": WORDS})
TICKETS = st.fixed_dictionaries(
    {},
    optional={
        "customer_email": WORDS | st.integers(), "summary": WORDS, "priority": st.sampled_from(["low", "high", "mid"]),
        "contact": PART, "links": st.lists(WORDS, max_size=2), "lines": st.lists(LINE, max_size=2), "other": WORDS,
    },
)  # fmt: skip


def take(value, path):
    """Take the value at *path* out of *value*; return it, None where there is none."""
    for name in path[:-1]:
        value = value.get(name) if isinstance(value, dict) else None
    return value.pop(path[-1], None) if isinstance(value, dict) else None


def test_what_a_schema_says_is_said_in_words():
    """The whole of it but for what means nothing to a model, and that nothing else may come."""
    said = instruction(TICKET)
    schema = json.loads(said.split("<schema>\n")[1].split("\n</schema>")[0])
    assert schema["properties"]["summary"] == {"type": "string", "description": "One sentence."}
    assert "$schema" not in schema
    assert "x-negawatt" not in said
    assert "one JSON object" in instruction(None)


@settings(deadline=None)
@given(TICKETS)
def test_short_keys_are_another_spelling(ticket):
    """Shrunk and expanded it is the same, and one schema holds for the one as the other for the other."""
    compact = Compact(TICKET)
    assert compact.reason is None
    assume("other" not in ticket)
    short = compact.shrink(ticket)
    assert compact.expand(short) == ticket
    assert list(compact.expand(short)) == list(ticket)
    assert (broken(compact.schema, short) is None) == (broken(TICKET, ticket) is None)
    assert len(json.dumps(short)) <= len(json.dumps(ticket))


def test_short_keys_say_what_they_stand_for():
    """The long name is their title; values and keys that are short already stay."""
    compact = Compact(TICKET)
    titles = {name: one.get("title") for name, one in compact.schema["properties"].items()}
    assert titles["a"] == "customer_email"
    assert "priority" in titles.values()
    assert ["low", "high"] in [one.get("enum") for one in compact.schema["properties"].values()]
    assert "id" in compact.schema["$defs"]["line"]["properties"]
    assert '"title":"customer_email"' in instruction(compact.schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"long_name": {"type": "string"}}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"long_name": {}}, "additionalProperties": False},
        {"type": "object", "properties": {"long_name": True}, "additionalProperties": False},
        {"type": "object", "properties": {"list": {"type": "array"}}, "additionalProperties": False},
        {"type": "object", "properties": {"long_name": {"const": {"a": 1}}}, "additionalProperties": False},
        {"type": "object", "properties": {}, "additionalProperties": False, "patternProperties": {"^x": {}}},
    ],
)
def test_keys_stay_long_where_others_are_allowed(schema):
    """A key of the answer's own could not be told from a short name."""
    compact = Compact(schema)
    assert compact.reason
    assert compact.schema is schema
    assert compact.expand({"a": 1}) == {"a": 1}


@settings(deadline=None, max_examples=200)
@given(TICKETS)
def test_merged_it_validates_like_the_whole(ticket):
    """Whether a value is right or wrong shows in the same way after it was taken apart and put together."""
    rest, values = json.loads(json.dumps(ticket)), {}
    for field in fields(TICKET):
        value = take(rest, field.path)
        if value is not None:
            values[field.path] = value
    whole = merged(rest, values, TICKET)
    assert whole == ticket
    assert (broken(TICKET, whole) is None) == (broken(TICKET, ticket) is None)
    if broken(TICKET, ticket) is None:
        assert broken(without(TICKET, list(values)), rest) is None


def test_what_code_can_fill_is_not_asked_for():
    """The marked fields, of objects within too; their order comes back with them."""
    found = fields(TICKET)
    assert [(field.path, field.kind) for field in found] == [
        (("customer_email",), "email"),
        (("contact", "phone"), "phone"),
        (("links",), "url"),
    ]
    known = {"email": ["a@b.org"], "phone": ["+391", "+392"], "url": ["x", "y"]}
    filled = fill(found, "...", lambda kind, _: known[kind])
    assert filled.values == {("customer_email",): "a@b.org", ("links",): ["x", "y"]}
    assert filled.left == {("contact", "phone"): "there are 2 of kind phone in it"}
    asked = without(TICKET, list(filled.values))
    assert set(asked["properties"]) == {"summary", "priority", "contact", "lines"}
    assert asked["required"] == ["summary", "contact"]
    assert "x-negawatt" not in json.dumps(asked)
    answer = {"summary": "s", "contact": {"phone": "+391", "name": "n"}}
    whole = merged(answer, filled.values, TICKET)
    assert list(whole) == ["customer_email", "summary", "contact", "links"]
    assert broken(TICKET, whole) is None


def test_what_code_is_not_certain_of_is_left_to_the_model():
    """No answer, none there, or one that the field's own schema does not allow."""
    schema = {"properties": {"n": {"type": "integer", "minimum": 10, "x-negawatt-extract": "number"}}}
    for many in (None, [], [1, 20], [5], ["20"]):
        filled = fill(fields(schema), "...", lambda *_, many=many: many)
        assert not filled.values
        assert filled.left[("n",)]


def test_a_schema_that_is_none_has_nothing_to_fill():
    """It is named where it is validated; until then nothing is made of it."""
    for schema in (None, True, [], {"properties": []}, {"properties": {"a": None}}):
        assert fields(schema) == ()
        assert without(schema, ()) == schema
