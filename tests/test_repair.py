"""Answers that should be JSON: mended where there is one way to, refused where there is not."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from negawatt.shape.repair import Repaired, repair

ROOT = Path(__file__).parent.parent
NASTY = st.text(st.sampled_from("ab1 é\"'{}[]:,\\\n\t#/-_…\u0000\u00a0😀"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | NASTY,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NASTY | st.from_regex("[a-z_]{1,6}"), inner, max_size=4)
    ),
    max_leaves=12,
)
CONTAINERS = VALUES.filter(lambda value: isinstance(value, dict | list))
CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/pair"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"pair": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
}


@pytest.fixture(scope="module")
def kinds():
    """The damages of the benchmark."""
    spec = importlib.util.spec_from_file_location("structured", ROOT / "benchmarks" / "structured.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["structured"] = module
    spec.loader.exec_module(module)
    return {**module.KINDS, **{name: module.MORE[name] for name in ("control characters", "doubled braces")}}


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_json_comes_back_byte_for_byte(value, indent, ascii):
    """However it is written."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert repair(text) == Repaired(text)


@settings(deadline=None, max_examples=400)
@given(CONTAINERS, st.integers(0, 9), st.integers(0, 1000))
def test_no_damage_makes_another_value(kinds, value, kind, seed):
    """Whatever stands in its texts, quotes, brackets and commas: the same value comes back, or none."""
    text = json.dumps(value, ensure_ascii=False)
    damaged = list(kinds.values())[kind](text, random.Random(seed))
    try:
        json.loads(damaged)
    except ValueError:
        found = repair(damaged, cut=False)
        assert found.text is None or same(json.loads(found.text), value), damaged


@settings(deadline=None, max_examples=200)
@given(CONTAINERS, st.data())
def test_what_was_cut_is_never_completed(value, data):
    """Cut anywhere, by a limit that the model reports or says nothing of: the whole value comes back, or none."""
    text = json.dumps(value)
    damaged = text[: data.draw(st.integers(1, len(text)))]
    assume(damaged != text)
    for cut in (True, None):
        assert repair(damaged, cut=cut).text is None


@pytest.mark.parametrize(
    ("text", "value", "change"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}, "text around"),
        ('Here it is:\n{"a": 1}\nAnything else?', {"a": 1}, "text around"),
        ('{"a": [1, 2,],}', {"a": [1, 2]}, "trailing commas"),
        ("{'a': 'it\\'s'}", {"a": "it's"}, "quotes"),
        ("{'a': 'it's mine'}", {"a": "it's mine"}, "inner quotes"),
        ("{“a”: “b”}", {"a": "b"}, "quotes"),
        ("{a: 1, b_2: 2}", {"a": 1, "b_2": 2}, "unquoted keys"),
        ("{'a': True, 'b': None}", {"a": True, "b": None}, "literals"),
        ('{"a": 1, // one\n "b": 2 /* two */}', {"a": 1, "b": 2}, "comments"),
        ('{{"a": {{"b": 1}}}}', {"a": {"b": 1}}, "doubled braces"),
        ('{"a": "x\ny\tz"}', {"a": "x\ny\tz"}, "control characters"),
        ('{"a": "He said "no", twice", "b": 1}', {"a": 'He said "no", twice', "b": 1}, "inner quotes"),
        ('{"a": 1\n "b": 2}', {"a": 1, "b": 2}, "missing commas"),
        ('[{"a": 1} {"a": 2}]', [{"a": 1}, {"a": 2}], "missing commas"),
        ('{"a": .5, "b": +3}', {"a": 0.5, "b": 3}, "numbers"),
        ('{"a": 1}}', {"a": 1}, "one bracket too many"),
        ('\ufeff{"a":\u00a01}', {"a": 1}, "text around"),
    ],
)
def test_each_kind_is_mended_and_named(text, value, change):
    """There is one way to read it."""
    found = repair(text)
    assert json.loads(found.text) == value
    assert change in found.changes
    assert found.reason is None


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "x',  # a text that was cut
        '{"a": 12',  # perhaps 123
        '{"a": 1,',
        '{"a": 1, "b',
        '{"a": 1, "b":',
        '{"a": yes}',
        '{"a": 007}',
        '{"a": 1,000}',
        '{"a": 1 000}',
        '{"a": NaN}',
        '{"a": undefined}',
        '{"a": ...}',
        '{"a": "\\d+"}',  # a digit, or a d?
        '["a" "b"]',  # two texts, or one with quotes?
        '["a "b", "c"]',
        '{"a": "x, "b": "y"}',  # where does x end?
        '{"a": 1} {"a": 2}',
        '{"a": {"b": 1}}, "c": 2}',
        '"a": {"b": 1}}',
        '{"a": 1, "a": 2,}',
        "{'size': '5'', 'b': 1}",
        '{{"a": 1}',
        '{"a": [1, 2}',
        '{"a": (1, 2)}',
        "[" * 300,
        "no object",
        "",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text):
    """With a reason, and no text."""
    for cut in (None, True, False):
        if cut is False and text == '{"a": 12':
            continue  # a model that stopped by itself had written its number
        found = repair(text, cut=cut)
        assert found.text is None
        assert found.reason


def test_brackets_that_a_model_forgot_are_put_in():
    """It stopped by itself after a whole value: nothing else was to come."""
    assert repair('{"a": {"b": [1, 2', cut=False).text == '{"a": {"b": [1, 2]}}'
    assert repair('{"a": {"b": [1, 2', cut=None).text is None


def test_a_schema_can_prove_that_nothing_is_missing():
    """All properties are there, no other may be, and the list is as long as it may be."""
    whole = repair('{"a": 1, "b": [true, false', CLOSED, cut=True)
    assert (whole.text, whole.changes) == ('{"a": 1, "b": [true, false]}', ("closed",))
    assert repair('{"a": 1, "b": [true', CLOSED, cut=True).text is None
    assert repair('{"b": [true, false]', CLOSED, cut=True).text is None
    assert repair('{"b": [true, false], "a": 1', CLOSED, cut=True).text is None  # perhaps 17


def test_a_mended_answer_that_breaks_its_schema_says_so():
    """The text is there for the next question to the model, with the reason."""
    found = repair('{"a": "x",}', CLOSED)
    assert json.loads(found.text) == {"a": "x"}
    assert "breaks the schema" in found.reason
    assert repair('{"a": "x"}', CLOSED).reason == found.reason


def test_a_schema_that_is_none_is_named():
    """It is the caller's, and whether it is one shows only here."""
    assert "not a valid one" in repair('{"a": 1,}', {"type": "nonsense"}).reason


def test_json_in_a_text_of_json_is_unwrapped_where_the_schema_asks_for_it():
    """Without a schema it is the text that it says it is."""
    text = json.dumps('{"a": 1}')
    assert repair(text, CLOSED) == Repaired('{"a": 1}', ("unwrapped",))
    assert repair(text) == Repaired(text)
    assert repair('"hello"', CLOSED).reason


def test_numbers_stay_as_they_were_written():
    """Too long for a float, with zeros at the end: a repair around them changes no digit."""
    found = repair('{"a": 12345678901234567890.10, "b": 1e5, "c": -0.0,}')
    assert found.text == '{"a": 12345678901234567890.10, "b": 1e5, "c": -0.0}'


def test_a_long_answer_is_read_once():
    """A megabyte of it takes as many steps as it has characters."""
    text = json.dumps([{"a": "x" * 90, "b": n} for n in range(10_000)])[:-1] + ",]"
    assert len(json.loads(repair(text).text)) == 10_000
