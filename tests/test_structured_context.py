"""JSON, tables, code and logs lose whole records, rows, blocks and lines, and can be put together again."""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.shape.code import blocks_of, is_code, shape_code
from negawatt.shape.edits import Shaped, restore
from negawatt.shape.json_spans import parse
from negawatt.shape.logs import is_log, shape_log
from negawatt.shape.structured import shape_structured

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=9), max_leaves=30
)
RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["id", "name", "note"]), SCALARS, min_size=1), min_size=4, max_size=12
)


def original(shaped: Shaped) -> str:
    return restore(shaped.text, shaped.edits, shaped.removed.get)


def strings_and_numbers(value: object) -> list[str]:
    if isinstance(value, dict):
        return [json.dumps(key) for key in value] + [s for one in value.values() for s in strings_and_numbers(one)]
    if isinstance(value, list):
        return [s for one in value for s in strings_and_numbers(one)]
    return [json.dumps(value)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ratio", [None, 2, 5, 20])
def test_the_pair_asked_for_survives_byte_for_byte(indent: int | None, ratio: float | None):
    """Of 140 pairs of random ids the one with the key stays, whatever the ratio, and can be put first or last."""
    rng = random.Random(11)
    pairs = {str(uuid.UUID(int=rng.getrandbits(128))): str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(140)}
    text = json.dumps(pairs, indent=indent)
    for key in list(pairs)[::20]:
        for place in (None, "first", "last"):
            found = shape_structured(text, f'Which value has the key "{key}"?', ratio=ratio, place=place)
            assert found is not None and found.of == 140
            assert f'"{key}": "{pairs[key]}"' in found.shaped.text
            assert len(found.shaped.text) * 20 < len(text)
            assert json.loads(found.shaped.text)[key] == pairs[key]
            assert found.position == (found.kept - 1 if place == "last" else 0)
            assert original(found.shaped) == text


@given(RECORDS, st.sampled_from(["id 7", "name", "note true", '"x"', ""]), st.sampled_from([None, 1.0, 3.0, 50.0]))
@settings(max_examples=150, deadline=None)
def test_no_string_or_number_is_ever_cut(records: list[dict], query: str, ratio: float | None):
    """What is left is JSON, its records are records of the original, and the original comes back."""
    text = json.dumps({"found": records, "more": False})
    found = shape_structured(text, query, ratio=ratio)
    assert found is not None
    left = json.loads(found.shaped.text)
    if isinstance(left.get("found"), list):
        rest = [one for one in left["found"] if not (isinstance(one, str) and "left out" in one)]
        assert all(one in records for one in rest)
        known = set(strings_and_numbers(records))
        assert all(one in known for record in rest for one in strings_and_numbers(record))
    assert original(found.shaped) == text


@given(VALUES, st.sampled_from([None, 2]))
@settings(max_examples=150, deadline=None)
def test_the_parts_of_any_json_are_found_where_they_stand(value: object, indent: int | None):
    """Each part, cut out, is JSON again: a value, or a key with its value."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    root = parse(text)
    assert root is not None and json.loads(text[root.start : root.end]) == value
    todo = [(root, child) for child in root.children]
    while todo:
        within, node = todo.pop()
        piece = text[node.start : node.end]
        json.loads(f"{{{piece}}}" if within.kind == "object" else piece)
        todo += [(node, child) for child in node.children]


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{'a': 1}", "[1] [2]", "NaN", '{"a": 1', "[" * 5000])
def test_what_is_no_json_is_left_alone(text: str):
    """It is not repaired, and not taken for a table either."""
    assert parse(text) is None
    assert shape_structured(text, "a") is None


def test_the_fields_around_the_records_stay():
    """Only the long list loses records, and says how many."""
    flights = [{"flight": f"HAT{n:03}", "price": 100 + n, "status": "available"} for n in range(40)]
    text = json.dumps({"origin": "JFK", "flights": flights, "currency": "USD"})
    found = shape_structured(text, "What does HAT017 cost?")
    assert found is not None
    left = [flights[17], "... 39 more left out"]
    assert json.loads(found.shaped.text) == {"origin": "JFK", "flights": left, "currency": "USD"}


@pytest.mark.parametrize(
    ("query", "why"),
    [("How many flights are there?", "asks about all"), ("What is the cheapest flight?", "asks about all"),
     ("Who is the pope?", "no record")],
)  # fmt: skip
def test_a_question_about_all_records_or_none_keeps_all(query: str, why: str):
    """A sum over what was left out would be wrong."""
    text = json.dumps([{"flight": n, "price": 100 + n} for n in range(20)])
    found = shape_structured(text, query)
    assert found is not None and found.shaped.text == text
    assert found.shaped.abstained is not None and why in found.shaped.abstained


def test_part_of_a_longer_number_is_no_match():
    """Order 12 is not order 112 or 1200."""
    text = json.dumps([{"order": f"A-{n}"} for n in (112, 12, 1200, 3, 4, 512)])
    found = shape_structured(text, "Where is order A-12?")
    assert found is not None and json.loads(found.shaped.text)[0] == {"order": "A-12"}


def test_a_csv_keeps_its_header_and_rows_with_quoted_line_breaks_whole():
    """Rows are records of the format, and not lines."""
    rows = [["id", "city", "note"], *([str(n), city, f'two\nlines, "{n}"'] for n, city in enumerate(
        ("Rome", "Paris", "Oslo", "Wien", "Bern", "Riga")))]  # fmt: skip
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    found = shape_structured(out.getvalue(), "What is noted about Oslo?")
    assert found is not None and found.kind == "csv" and found.of == 6
    left = list(csv.reader(io.StringIO(found.shaped.text)))
    assert left[:2] == [rows[0], rows[3]] and left[2] == ["... 5 more left out"]
    assert original(found.shaped) == out.getvalue()


def test_a_markdown_table_keeps_its_header():
    """Header and rule stay, with the rows asked for."""
    body = "\n".join(f"| {city} | {n} |" for n, city in enumerate(("Rome", "Paris", "Oslo", "Wien", "Bern")))
    text = f"| city | n |\n| --- | --- |\n{body}\n"
    found = shape_structured(text, "Which n has Wien?")
    assert found is not None and found.kind == "markdown"
    assert found.shaped.text == "| city | n |\n| --- | --- |\n| Wien | 3 |\n| ... 4 more left out |\n"


def test_prose_with_commas_is_no_table():
    """Lines that have the same number of commas by chance have no header."""
    assert (
        shape_structured("He came, saw. He left.\nShe sat, and ate.\nWe ran, too.\nI hid, once.\nA, b.\nC, d.", "a")
        is None
    )


def test_a_ratio_below_one_is_refused():
    """A text cannot be made longer."""
    with pytest.raises(ValueError, match="at least 1"):
        shape_structured("[]", "a", ratio=0.5)


PYTHON = '''"""Money."""
import re

RATE = 3


def helper(x):
    return x + 1  # a { in a comment


@decorated
def total_price(items):
    """Sum.

    def not_one(): ...
    """
    return sum(helper(i) for i in items)


class Basket:
    def add(self):

        return "}"


def unrelated(y):
    return y
'''
SCRIPT = """import { x } from "y";

function add(a, b) {
  return a + b; // }
}

function subtractAll(list) {

  const s = `}`;
  return list.reduce(add);
}

const third = () => {
  return 1;
};
"""


def test_code_keeps_whole_what_is_asked_for_and_what_that_calls():
    """Decorators, nested text and helpers stay; the rest is named in a comment, and what is left still parses."""
    shaped = shape_code(PYTHON, "Why is total_price wrong?")
    assert "class Basket" not in shaped.text and "def unrelated" not in shaped.text
    assert "# ... left out: Basket, unrelated" in shaped.text
    assert all(line in shaped.text for line in ("RATE = 3", "def helper(x):", "@decorated", "def not_one(): ..."))
    ast.parse(shaped.text)
    assert original(shaped) == PYTHON


def test_blocks_in_braces_are_told_apart_by_brackets_outside_of_strings():
    """An empty line within a function, or a brace in a string, ends no block."""
    shaped = shape_code(SCRIPT, "why is subtractAll wrong")
    assert shaped.text == SCRIPT[: SCRIPT.index("const third")] + "// ... left out: third\n\n"
    assert original(shaped) == SCRIPT


@pytest.mark.parametrize("code", [PYTHON, SCRIPT, "int main() {\n  return 0;\n}\n"])
def test_the_blocks_of_code_are_all_of_it(code: str):
    """Nothing stands between two blocks."""
    blocks = blocks_of(code)
    assert blocks is not None
    assert "".join(code[block.start : block.end] for block in blocks) == code


@pytest.mark.parametrize("code", ["function a() {\n", "}\n{", "def f(:\n  pass", "SELECT 1\n\nFROM t"])
def test_code_that_cannot_be_told_apart_is_left_alone(code: str):
    """Unbalanced, or in a language of which nothing is known."""
    assert shape_code(code, "f").text == code


def test_prose_is_not_taken_for_code():
    """Nor is a list, and code is."""
    assert is_code(PYTHON) and is_code(SCRIPT)
    assert not is_code("One line.\nTwo; three.\nReturn to sender.\nFor all.\nIf so.\nClass dismissed.\nLet it be.")


def log_of(count: int) -> list[str]:
    return [f"2026-03-04 10:00:{n % 60:02} INFO request {n} served in {n * 3} ms" for n in range(count)]


def test_repeated_lines_of_a_log_become_a_count():
    """The first and the last stay, so that it is known from when to when; the original comes back."""
    lines = log_of(40)
    text = "\n".join(lines)
    assert is_log(text)
    shaped = shape_log(text)
    assert shaped.text.split("\n") == [lines[0], "... 38 more lines like this ...", lines[-1]]
    assert original(shaped) == text


def test_errors_and_what_stands_beside_them_stay():
    """An error in the middle keeps the two lines before and after it, and traces stay whole."""
    lines = log_of(40)
    lines[20:20] = [
        "2026-03-04 10:00:20 ERROR db refused",
        "Traceback (most recent call last):",
        '  File "a.py", line 1',
    ]
    shaped = shape_log("\n".join(lines))
    assert "\n".join(lines[18:25]) in shaped.text
    assert len(shaped.text.split("\n")) < 20


def test_lines_that_the_query_names_stay():
    """A word that few lines have holds them."""
    lines = log_of(40)
    lines[7] = lines[7].replace("request 7", "request 7 kiwi")
    assert lines[7] in shape_log("\n".join(lines), "What happened to kiwi?").text
    assert not is_log("Some prose.\n" * 20)
