"""What a repository sends is found without importing or running anything."""

import json

import pytest
from checking import STABLE, TOOL, agreed, repository

from negawatt.checks.holes import cut
from negawatt.checks.plan import load_plan
from negawatt.checks.surfaces import read_surfaces
from negawatt.errors import ConfigError, InputError

MODULE = f'''
import nothing_that_is_installed
raise RuntimeError("imported")
ASKED = """\\
{STABLE}

<question>
{{question}}
</question>
"""
PARTS = "one " + ASKED + f" at {{now()}}" + " end"
MESSAGES = [{{"role": "system", "content": "Be brief."}}, {{"role": "user", "content": "Say {{x}}."}}]
JSON = '{{"a": 1}} stays as it is'
LIMIT = 3
PERCENT = "Dear %(name)s, 100 %% of %d are yours." % values
CALLED = [dict(role="system", content="Be kind.")]

def instruction(schema):
    if schema is None:
        return "Any object."
    return "Keep this:" + dumps(schema)
'''


def surfaces(path):
    return {one.name: one for one in read_surfaces(load_plan(path))}


@pytest.fixture
def module(tmp_path):
    def read(said):
        return surfaces(repository(tmp_path, {"src/app/asks.py": MODULE}, surfaces=f"constants = [{said!r}]"))

    return read


def test_a_constant_is_read_without_running_its_module(module):
    """Text, holes and their lines are those of the source; the module is never imported."""
    [one] = module("app.asks:ASKED").values()
    [block] = one.blocks
    assert (one.name, one.line) == ("src/app/asks.py:ASKED", 4)
    assert block.text == f"{STABLE}\n\n<question>\n\n</question>\n"
    [hole] = block.holes
    assert (hole.said, hole.line, block.text[: hole.at]) == ("question", 8, f"{STABLE}\n\n<question>\n")


def test_sums_and_f_strings_are_put_together(module):
    """Names of other constants stand for their text; whatever is known only at run time is a hole."""
    [one] = module("src/app/asks.py:PARTS").values()
    [block] = one.blocks
    assert block.text == f"one {STABLE}\n\n<question>\n\n</question>\n at  end"
    assert [hole.said for hole in block.holes] == ["question", "now()"]
    assert block.text[block.holes[1].at :] == " end"


def test_messages_and_functions_have_blocks(module):
    """Each message is a block named by its role; of a function, each text that it returns."""
    [messages] = module("app.asks:MESSAGES").values()
    assert [(one.name, one.text) for one in messages.blocks] == [
        ("text 0 system", "Be brief."), ("text 1 user", "Say ."),
    ]  # fmt: skip
    [function] = module("app.asks:instruction").values()
    assert [(one.name, one.text) for one in function.blocks] == [
        ("return 1", "Any object."), ("return 2", "Keep this:"),
    ]  # fmt: skip
    assert [hole.said for hole in function.blocks[1].holes] == ["dumps(schema)"]


def test_older_ways_to_write_it_are_read_too(module):
    """``%`` makes holes as ``format`` does, and ``dict(role=...)`` is a message."""
    [percent] = module("app.asks:PERCENT").values()
    assert percent.blocks[0].text == "Dear , 100 % of  are yours."
    assert [hole.said for hole in percent.blocks[0].holes] == ["name", "%d"]
    [called] = module("app.asks:CALLED").values()
    assert [(one.name, one.text) for one in called.blocks] == [("text 0 system", "Be kind.")]


def test_names_may_have_stars_and_what_is_no_text_is_none(module):
    """``*`` takes every text of the module, and leaves numbers out."""
    assert {name.partition(":")[2] for name in module("app.asks:*")} == {
        "ASKED", "PARTS", "MESSAGES", "JSON", "PERCENT", "CALLED", "instruction",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept", "said"),
    [
        ("a {x} b", "a  b", ["x"]),
        ("{{literal}} {x.y[0]}", "{literal} ", ["x.y[0]"]),
        ("{{ x }} and {{ y | upper }}", " and ", ["x", "y | upper"]),
        ("{% if x %}a{% endif %}", "a", ["if x", "endif"]),
        ('{"json": {"a": 1}}', '{"json": {"a": 1}}', []),
        ("no field {{}}", "no field {{}}", []),
        ("half { open", "half { open", []),
    ],
)
def test_holes_are_fields_of_format_and_expressions_of_jinja(text, kept, said):
    """JSON and code have none, and keep their braces."""
    found, holes = cut(text)
    assert (found, [hole.said for hole in holes]) == (kept, said)


def test_tools_and_examples_have_a_block_each(tmp_path):
    """Tools of any provider's form are named by themselves, examples by their lines; roles are not counted."""
    other = {"name": "cancel", "description": "Cancel it.", "input_schema": {"type": "object"}}
    shots = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]},
        {"input": "a"},
    ]
    files = {"tools/all.json": {"tools": [TOOL, other]}, "shots.jsonl": "\n".join(map(json.dumps, shots))}
    found = surfaces(repository(tmp_path, files, surfaces='tools = ["tools/*.json"]\nfew_shots = ["shots.jsonl"]'))
    assert [one.name for one in found["tools/all.json"].blocks] == ["find_order", "cancel"]
    assert found["tools/all.json"].blocks[1].line > found["tools/all.json"].blocks[0].line
    assert [(one.name, one.text) for one in found["shots.jsonl"].blocks] == [("line 1", "Hi\nYes?"), ("line 2", "a")]


@pytest.mark.parametrize(
    ("said", "more", "error"),
    [
        ('constants = ["app.asks:NONE"]', "", "surfaces[0].constants[0]: there is no prompt 'NONE'"),
        ('constants = ["app.nowhere:X"]', "", "there is no module 'app.nowhere'; looked for src/app/nowhere.py"),
        ('constants = ["ASKED"]', "", "expected FILE.py:NAME or module:NAME"),
        ('tools = ["none/*.json"]', "", "surfaces[0].tools[0]: there is no file"),
        ('templates = "none"', "", "surfaces[0].templates: there is no folder"),
        ("calls_per_day = 1", "", "expected one of templates, constants, tools and few_shots"),
        ("colour = 1", "", "surfaces[0].colour: there is no such field"),
        ('constants = ["app.asks:JSON", "app.asks:J*"]', "", "is named twice"),
        ('constants = ["app.asks:JSON"]', '[[budgets]]\nsurface = "propmts/x"\nmost = 1',
         "budgets[0].surface: there is no surface 'propmts/x'; there are: src/app/asks.py:JSON"),
        ('constants = ["app.asks:JSON"]', '[[budgets]]\nsurface = "*"\nblock = "tail"\nmost = 1',
         "budgets[0].block: there is no block 'tail'; src/app/asks.py:JSON has: text"),
        ('constants = ["app.asks:JSON"]', '[[budgets]]\nsurface = "*"\nmodel = "m"\nmost = 1', "'m' is not counted"),
        ('constants = ["app.asks:JSON"]', '[[ignore]]\nsurface = "no"\nrule = "growth"\nbecause = "x"',
         "ignore[0].surface: there is no surface 'no'"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(tmp_path, said, more, error):
    """A surface that is not there, or a budget for none, is refused with the field that names it."""
    path = repository(tmp_path, {"src/app/asks.py": MODULE}, surfaces=said, more=more)
    with pytest.raises(ConfigError) as raised:
        read_surfaces(load_plan(path))
    assert error in raised.value.message and str(path) in raised.value.message


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("tools.json", "{", "not valid JSON"),
        ("tools.json", "[]", "there is no tool in it"),
        ("tools.json", '[{"type": "function"}]', "[0]: expected a tool"),
        ("tools.jsonl", "", "there is no example in it"),
        ("tools.jsonl", '{"a": 1}\n{', "tools.jsonl:2: not valid JSON"),
        ("tools.py", "def (", "not valid Python"),
        ("tools.json", '{"name": "a", "input_schema": ' + "[" * 500 + "]" * 500 + "}", "[0]: cannot be sent"),
        ("tools.jsonl", '{"a": ' + "[" * 1000 + "]" * 1000 + "}", "tools.jsonl:1: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, error):
    """Bad JSON, bad Python and empty files are bad input."""
    said = {"tools.json": 'tools = ["tools.json"]', "tools.jsonl": 'few_shots = ["tools.jsonl"]'}
    path = repository(tmp_path, {name: content}, surfaces=said.get(name, 'constants = ["tools.py:X"]'))
    with pytest.raises(InputError) as raised:
        read_surfaces(load_plan(path))
    assert error in raised.value.message


def test_half_a_character_breaks_nothing(tmp_path):
    """A lone surrogate in a constant, which no provider can be sent, is counted as the sign for what is unknown."""
    path = repository(
        tmp_path, {"a.py": 'A = "broken \\ud800 sign"\nB = f"{x} and \\ud800"\n'}, surfaces='constants = ["a.py:*"]'
    )
    assert {one.blocks[0].text for one in agreed(path).measured.surfaces} == {"broken ? sign", " and ?"}


def test_surfaces_may_lie_beside_the_folder_of_the_file(tmp_path):
    """What is outside of the folder is named by its way there."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "asks.py").write_text(MODULE)
    path = repository(tmp_path / "inner", {}, surfaces='constants = ["../asks.py:JSON"]')
    assert set(surfaces(path)) == {"../asks.py:JSON"}
