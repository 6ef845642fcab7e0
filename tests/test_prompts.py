"""Prompt templates: what is read, what is refused with its place, and what values can do to a prompt."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negawatt.errors import ConfigError, InvalidRequest
from negawatt.prompts import load_prompts, render
from negawatt.prompts.conditions import BadCondition, Condition
from negawatt.prompts.variables import Delimiters, Variable

DESK = """+++
description = "Answers of the support desk"
[variables]
question = { type = "str", max_chars = 40 }
tier = { one_of = ["basic", "gold"], default = "basic" }
documents = { type = "list[str]", required = false }
today = { type = "date", required = false }
+++
::: task answer
Answer in English.
{{ question }}

::: base role
You answer questions about orders.

::: base refunds when tier == "gold"
Refunds are given at once.

::: context documents when documents
{{ today }}
{{ documents }}
"""


def folder(tmp_path, **files):
    """Write *files* (`__` is a folder, a name without an ending is Markdown), and return where they are."""
    for name, text in files.items():
        path = tmp_path / (name.replace("__", "/") + ("" if name.endswith("toml") else ".md"))
        path = path.with_name(path.name.replace("_toml", ".toml"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def refused(tmp_path, text, **others):
    """Return the words with which a folder with the template *text* is refused."""
    with pytest.raises(ConfigError) as found:
        load_prompts(folder(tmp_path, bad=text, **others))
    return found.value.message.replace(f"{tmp_path}/", "")


def test_what_stays_the_same_comes_first_whatever_the_order_in_the_file(tmp_path):
    """Base instructions are the system prompt; context stands before the task, in a user's turn."""
    found = load_prompts(folder(tmp_path, desk=DESK)).render(
        "desk", {"question": "Where is it?", "tier": "gold", "documents": ["a", "b"]}
    )
    assert [one.name for one in found.blocks] == ["role", "refunds", "documents", "answer"]
    assert found.messages == (
        {"role": "system", "content": "You answer questions about orders.\n\nRefunds are given at once."},
        {
            "role": "user",
            "content": "<documents>\n<item>a</item>\n<item>b</item>\n</documents>\n\n"
            "Answer in English.\n<question>\nWhere is it?\n</question>",
        },
    )


def test_a_block_whose_condition_does_not_hold_is_left_out(tmp_path):
    """Without documents and for basic callers only role and answer are said."""
    found = load_prompts(folder(tmp_path, desk=DESK)).render("desk", {"question": "Where?"})
    assert [one.name for one in found.blocks] == ["role", "answer"]


def test_the_same_template_can_be_written_in_toml(tmp_path):
    """Blocks of a TOML file say what those of a Markdown file say."""
    text = (
        'variables.q = { type = "str" }\n[[blocks]]\nname = "role"\npart = "base"\ntext = "Be brief."\n'
        '[[blocks]]\nname = "ask"\npart = "task"\nwhen = "q"\ntext = "{{q}}"\n'
    )
    found = load_prompts(folder(tmp_path, desk_toml=text)).render("desk", {"q": "x"})
    assert [one["content"] for one in found.messages] == ["Be brief.", "<q>\nx\n</q>"]


def test_a_file_without_blocks_is_one(tmp_path):
    """A plain text is base instructions, and two braces can be written."""
    found = load_prompts(folder(tmp_path, plain="Be brief. \\{{ stays }}\n")).render("plain")
    assert found.messages == ({"role": "system", "content": "Be brief. {{ stays }}"},)


@given(st.text(alphabet="<>/ \n\tqitem&x;QＱ", max_size=40), st.booleans())
def test_no_value_closes_its_tag(value, alone):
    """Whatever a value holds, its tag opens once and closes once, at its end."""
    stands = Delimiters(["q"])
    text = stands.stand("q", Variable(), value, alone=alone)
    assert text.startswith("<q>") and text.endswith("</q>")
    inside = "".join(text.removeprefix("<q>").removesuffix("</q>").split()).lower()
    assert "</q>" not in inside and "<q>" not in inside


@given(st.lists(st.text(alphabet="</>itemq\\u ", max_size=20), max_size=4))
def test_json_and_lists_are_delimited_as_well(values):
    """JSON stays JSON that says the same; items of a list end where they end."""
    import orjson

    stands = Delimiters(["q"])
    text = stands.stand("q", Variable(type="json"), values, alone=False)
    assert orjson.loads(text.removeprefix("<q>").removesuffix("</q>")) == values
    assert text.count("</q>") == 1
    listed = stands.stand("q", Variable(type="list[str]"), values, alone=False)
    assert listed.count("</item>") == len(values) and listed.count("</q>") == 1


def test_numbers_dates_and_closed_lists_stand_bare(tmp_path):
    """What cannot carry anybody's words has no tags around it; a missing value takes its line with it."""
    head = (
        'a = { type = "int" }\nb = { type = "bool" }\nc = { type = "date" }\nd = { type = "str", required = false }\n'
    )
    text = f"+++\n[variables]\n{head}+++\n::: base all\n{{{{a}}}} {{{{b}}}} {{{{c}}}}\n{{{{d}}}}\nend\n"
    found = load_prompts(folder(tmp_path, all=text)).render("all", {"a": 3, "b": True, "c": "2026-11-01"})
    assert found.instructions == "3 true 2026-11-01\nend"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "variables.question: template 'desk' needs this variable, a string"),
        ({"question": 3}, "variables.question: expected a string, got an integer"),
        ({"question": "x" * 41}, "variables.question: at most 40 characters, got 41"),
        ({"question": "x", "tier": "iron"}, "variables.tier: expected one of basic, gold, got 'iron'"),
        ({"question": "x", "today": "tomorrow"}, "variables.today: expected a date such as 2026-11-01, got 'tomorrow'"),
        ({"question": "x", "documents": ["a", 1]}, "variables.documents: expected a list of strings, got an array"),
        (
            {"question": "x", "other": 1},
            "variables.other: template 'desk' has no such variable; known: documents, question, tier, today",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path, variables, said):
    """The error names the variable and what was expected."""
    with pytest.raises(InvalidRequest) as found:
        load_prompts(folder(tmp_path, desk=DESK)).render("desk", variables)
    assert found.value.message == said and found.value.param == said.partition(":")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("::: base a\nHello {{ who }}\n", "bad.md:2: variable 'who' is not declared; known: none"),
        ("::: base a\n\n{{ two words }}\n", r"bad.md:3: expected {{ name of a variable }}; write \{{ for two braces"),
        ("::: base a\n{{ open\n", r"bad.md:2: expected {{ name of a variable }}; write \{{ for two braces"),
        ("Hello\n::: base a\nx\n", "bad.md:1: text outside of any block"),
        ("::: base a\nx\n:::\nbetween\n::: base b\ny", "bad.md:4: text outside of any block"),
        ("::: prose a\nx\n", "bad.md:1: expected '::: PART NAME' with PART one of base, context, task"),
        ("::: base a\nx\n::: base a\ny\n", "bad.md:3: block 'a' is there already, on line 1"),
        ("::: base a when b\nx\n", "bad.md:1: when: variable 'b' is not declared; known: none"),
        ("::: base a when == 1\nx\n", "bad.md:1: when: expected a name or a value before '=='"),
        ("::: include nowhere\n", "bad.md:1: there is no template 'nowhere'; known: bad"),
        ("+++\n[variables]\na = 1\n+++\nx", "bad.md:2: variables[...]: Expected object, got int"),
        ("+++\n\nx = [\n+++\nx", "bad.md:"),
        ("+++\n[variables]\nb = {}\na = { type = 'int', default = 'x' }\n+++\nx", "bad.md:4: variables.a.default: "),
        ("+++\ntitle = 'x'\n+++\nx", "bad.md:2: top level: Object contains unknown field title"),
        ("+++\nx", "bad.md:1: the front matter has no end"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused_with_its_line(tmp_path, text, said):
    """Nothing is rendered from a folder with a mistake in it; the mistake has a file and a line."""
    assert refused(tmp_path, text).startswith(said)


def test_a_template_that_names_itself_is_refused_with_the_chain(tmp_path):
    """Also where others stand between."""
    said = refused(tmp_path, "::: include b\n", b="::: include c\n", c="::: include bad\n")
    assert said == "bad.md:1: the template includes itself: b -> c -> bad -> b"
    assert "bad -> bad" in refused(tmp_path, "::: include bad\n", b="x", c="x")


def test_a_readme_and_hidden_files_are_no_templates(tmp_path):
    """Everything else in the folder is one."""
    folder(tmp_path, desk=DESK, README="{{ nothing }}", shared__readme="{{ nothing }}")
    (tmp_path / ".draft.md").write_text("{{ nothing }}")
    assert load_prompts(tmp_path).names == ("desk",)


def test_a_long_chain_of_templates_is_refused(tmp_path):
    """Before it could exhaust anything."""
    chain = {f"t{i:03}": f"::: include t{i + 1:03}\n" for i in range(60)}
    with pytest.raises(ConfigError, match="more than 20 deep"):
        load_prompts(folder(tmp_path, **chain, t060="end"))


def test_an_included_template_brings_its_blocks_and_variables(tmp_path):
    """Blocks are named after the template; conditions of both must hold; a version changes with what is included."""
    tone = (
        "+++\n[variables]\nstyle = { one_of = ['plain', 'warm'] }\n+++\n::: base tone when style == 'warm'\nBe warm.\n"
    )
    main = "+++\n[variables]\nlong = { type = 'bool' }\n+++\n::: include shared/tone when long\n::: base role\nRole.\n"
    prompts = load_prompts(folder(tmp_path, main=main, shared__tone=tone))
    assert [b.name for b in prompts.render("main", {"long": True, "style": "warm"}).blocks] == [
        "shared/tone.tone",
        "role",
    ]
    assert [b.name for b in prompts.render("main", {"long": False, "style": "warm"}).blocks] == ["role"]
    before = prompts.template("main").version
    assert load_prompts(tmp_path).template("main").version == before
    folder(tmp_path, shared__tone=tone.replace("Be warm.", "Be kind."))
    assert load_prompts(tmp_path).template("main").version != before


def test_an_unknown_template_and_another_version_are_named(tmp_path):
    """The error says which are there; a version is a beginning of the digest."""
    prompts = load_prompts(folder(tmp_path, desk=DESK, other="x"))
    with pytest.raises(InvalidRequest, match="there is no template 'desks'; known: desk, other"):
        prompts.render("desks")
    version = prompts.template("desk").version
    assert prompts.render("desk", {"question": "x"}, version=version[:8]).version == version
    with pytest.raises(InvalidRequest, match=f"has version {version}, not '000000'"):
        prompts.render("desk", {"question": "x"}, version="000000")


def test_blocks_can_be_left_out_one_by_one(tmp_path):
    """As ablation does; a block that is not there is an error."""
    prompts = load_prompts(folder(tmp_path, desk=DESK))
    found = prompts.render("desk", {"question": "x"}, without=["role"])
    assert [one.name for one in found.blocks] == ["answer"]
    with pytest.raises(InvalidRequest, match="has no block 'rule'"):
        prompts.render("desk", {"question": "x"}, without=["rule"])


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("a", {"a": ""}, False),
        ("not a and b", {"a": None, "b": 1}, True),
        ("a or b and c", {"a": 1, "b": 0, "c": 0}, True),
        ("(a or b) and c", {"a": 1, "b": 0, "c": 0}, False),
        ("a == 1", {"a": True}, False),
        ("a == 1.0", {"a": 1}, True),
        ("a != 'x'", {"a": "y"}, True),
        ("a in ['x', \"y\"]", {"a": "y"}, True),
        ("'x' in a", {"a": ["x"]}, True),
        ("not (a in [])", {"a": 1}, True),
        ("a == true", {"a": True}, True),
    ],
)
def test_conditions_mean_what_they_say(text, values, holds):
    """A few words, and no others."""
    assert Condition(text).holds(values) is holds


@given(st.text(alphabet="ab ()[]'\"=!,notandrin.1_x-", max_size=60))
def test_a_condition_is_read_or_refused_and_never_run(text):
    """Any text is a condition, or a `BadCondition`; what holds is True or False."""
    try:
        condition = Condition(text)
    except BadCondition:
        return
    assert condition.holds(dict.fromkeys(condition.names)) in (True, False)


@pytest.mark.parametrize("text", ["__import__('os')", "a.b", "a(1)", "lambda: 1", "a if b else c", "(" * 50 + "a"])
def test_what_is_code_is_no_condition(text):
    """Calls, attributes and the like are refused."""
    with pytest.raises(BadCondition):
        Condition(text)


def test_the_library_renders_without_a_gateway(tmp_path):
    """`negawatt.render` reads the folder and loads nothing that it does not need."""
    folder(tmp_path, desk=DESK)
    assert render("desk", {"question": "x"}, folder=tmp_path).name == "desk"
    code = (
        "import sys, negawatt; r = negawatt.render('desk', {'question': 'x'}, folder=sys.argv[1]);"
        "print(r.version, [m for m in ('numpy', 'aiohttp', 'uvicorn', 'genai_prices') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip().endswith(" []")
