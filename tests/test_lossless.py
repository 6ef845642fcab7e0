"""Space, layout, repetitions, blobs and boilerplate go, and every original comes back from its pieces."""

from __future__ import annotations

import base64
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.shape.edits import Cut, Shaped, apply, id_of, restore
from negawatt.shape.lossless import (
    fold_blobs,
    fold_boilerplate,
    fold_repeats,
    fold_repeats_in,
    minify_json,
    trim_space,
)

ALL = (minify_json, trim_space, fold_repeats, fold_blobs, fold_boilerplate)
SAID = (
    "The committee met in the old hall, and nobody who was there wrote down a single word of all that was said there "
    "about pumps. "
)
TEXTS = st.lists(
    st.sampled_from(
        [SAID, SAID * 2, "\n\n", "\n\n\n\n", "  \n", "x   \n", "```\n", "```json\n", '{ "a": 1.0 }\n', "\t", "A. ",
         "Copyright 2020. ",
         "[1,  2]", "deadbeef" * 40, "é\u2028", "data:image/png;base64," + "iVBORw0KGgo1" * 30, "\\", '"']
    ),
    max_size=14,
).map("".join)  # fmt: skip


def original(shaped: Shaped) -> str:
    return restore(shaped.text, shaped.edits, shaped.removed.get)


@pytest.mark.parametrize("shorten", ALL, ids=lambda shorten: shorten.__name__)
@given(text=TEXTS)
@settings(max_examples=120, deadline=None)
def test_every_original_comes_back(shorten, text: str):
    """Nothing gets longer, and the pieces make the text again, character by character."""
    shaped = shorten(text)
    assert original(shaped) == text
    assert len(shaped.text) == len(text) - shaped.saved <= len(text)
    assert (shaped.abstained is None) == bool(shaped.edits)


def test_json_keeps_the_spelling_of_its_values():
    """Numbers, escapes, the order of keys and a key that comes twice are what they were."""
    text = '{\n  "b" : 1.0,\n  "a": [1e5, 0.10, "x  y\\n", "\\u00e9"],\n  "b": null\n}\n'
    assert minify_json(text).text == '{"b":1.0,"a":[1e5,0.10,"x  y\\n","\\u00e9"],"b":null}'


@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
@settings(max_examples=100, deadline=None)
def test_minified_json_says_the_same(value: object):
    """Any JSON, as small as it can be with its own spelling."""
    for indent in (None, 3):
        assert minify_json(json.dumps(value, indent=indent)).text == json.dumps(value, separators=(",", ":"))


def test_json_is_minified_in_fences_and_nowhere_else_in_prose():
    """What only looks like JSON, or is code, stays."""
    text = (
        'Set { "a" : 1 } so:\n```json\n{ "a" : 1 }\n```\nand\n```python\nx = { "a" : 1 }\n```\n```\n{ broken }\n```\n'
    )
    assert minify_json(text).text == text.replace('json\n{ "a" : 1 }', 'json\n{"a":1}')


def test_space_goes_where_it_says_nothing():
    """Markdown's line break, indentation and code between fences stay."""
    text = "a \nb  \nc     \n\n\n\n    d\n```\nx   \n\n\n\ny\n```\n"
    assert trim_space(text).text == "a\nb  \nc  \n\n    d\n```\nx   \n\n\n\ny\n```\n"


def test_a_passage_that_comes_again_is_replaced_by_its_beginning():
    """The first stays, the second is a note, whatever the space in it."""
    again = SAID.replace(" hall,", "  hall,")
    text = f"{SAID}{SAID.replace('met', 'sat')}\n\nIn between.\n\n{again}{SAID.replace('met', 'sat')}\nEnd."
    shaped = fold_repeats(text)
    assert shaped.text.count("committee sat") == 1
    assert '[as above: "The committee met in the old hall' in shaped.text
    assert shaped.text.endswith("End.") and "In between." in shaped.text


def test_documents_that_overlap_lose_the_overlap_in_the_later_one():
    """The end of one chunk is the beginning of the next."""
    one, two, three = (SAID.replace("met", word) for word in ("met", "sat", "stood"))
    first, second = fold_repeats_in([one + two, two + three])
    assert first.text == one + two
    assert second.text == f'[as above: "{SAID[:14]}sat{SAID[17:40]}..."] {three}'


def test_what_repeats_but_is_short_stays():
    """A note would cost as much."""
    assert fold_repeats("Yes. No. Yes. No. Yes.").abstained == "nothing repeats"


def test_blobs_become_a_note_of_their_type_and_length():
    """Data URIs, bare base64, base64 in lines, hexadecimal; long words, paths and rules stay."""
    raw = random.Random(5).randbytes(600)
    plain, lined = base64.b64encode(raw).decode(), base64.encodebytes(raw).decode().strip()
    assert fold_blobs(f"see data:image/png;base64,{plain} here").text == "see [image/png left out: 822 characters] here"
    assert fold_blobs(f"key {plain} end").text == "key [base64 left out: 800 characters] end"
    assert fold_blobs(f"key\n{lined}\nend").text == f"key\n[base64 left out: {len(lined):,} characters]\nend"
    assert fold_blobs(f"{raw.hex()}.").text == "[hexadecimal left out: 1,200 characters]."
    for kept in ("a" * 500, "-" * 300, "/usr/local/share/" * 30, "no blob"):
        assert fold_blobs(kept).text == kept


def test_boilerplate_goes_by_the_sentence():
    """A notice under the text goes; what the text says about notices of its own does not begin with one."""
    text = "The pump leaks.\nCopyright 2024 Pumps. All rights reserved.\nWe use cookies to improve. Call us.\n"
    assert fold_boilerplate(text).text == "The pump leaks.\n\nCall us.\n"


def test_a_missing_or_changed_piece_is_named():
    """A store that lost a piece, or a text that was changed since, is not passed over."""
    shaped = apply("abcdef", [Cut(1, 3, "-", "x"), Cut(4, 5, "", "x")])
    assert shaped.text == "a-df" and original(shaped) == "abcdef"
    with pytest.raises(KeyError, match=id_of("bc")):
        restore(shaped.text, shaped.edits, {id_of("e"): "e"}.get)
    with pytest.raises(ValueError, match="not what was put there"):
        restore("a+df", shaped.edits, shaped.removed.get)
    with pytest.raises(ValueError, match="not what was put there"):
        restore(shaped.text, shaped.edits, lambda _: "other")


@pytest.mark.parametrize("cuts", [[(0, 2), (1, 3)], [(2, 1)], [(0, 9)], [(-1, 1)]])
def test_cuts_that_overlap_or_lie_outside_are_refused(cuts: list[tuple[int, int]]):
    """A text is never made from half a cut."""
    with pytest.raises(ValueError, match="overlaps another or lies outside"):
        apply("abcd", [Cut(start, end, "", "x") for start, end in cuts])
