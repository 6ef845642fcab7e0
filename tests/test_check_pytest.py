"""The pytest plugin: assertions about tokens, money and schemas, in a test run of its own."""

import subprocess
import sys
import tomllib
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from negawatt.checks.asserting import assert_cost, assert_schema, assert_tokens
from negawatt.errors import InputError

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
MODULE = "negawatt.checks.pytest_plugin"
MESSAGES = [{"role": "user", "content": "Where is my order?"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SUITE = """
MESSAGES = [{"role": "user", "content": "Where is my order?"}]

def test_short(assert_tokens):
    assert assert_tokens("Where is my order?", 5) == 5

def test_long(assert_tokens):
    assert_tokens(MESSAGES, 5, model="gpt-4o-mini")

def test_cheap(assert_cost):
    assert assert_cost(MESSAGES, "0.0001", model="gpt-4o-mini", output_tokens=100) > 0

def test_dear(assert_cost):
    assert_cost(MESSAGES, 0.0001, model="gpt-4o", output_tokens=1000)

def test_kept(assert_schema):
    assert assert_schema('{"n": 1}', {"type": "object", "required": ["n"]}) == {"n": 1}

def test_broken(assert_schema):
    assert_schema('{"n": "one"}', {"type": "object", "properties": {"n": {"type": "integer"}}})
"""


def plugin() -> list[str]:
    """What makes pytest load the plugin where we are not installed with it."""
    return [] if any(one.value == MODULE for one in entry_points(group="pytest11")) else ["-p", MODULE]


def test_the_assertions_are_fixtures_of_any_test(pytester):
    """What holds passes; what does not fails with the numbers, in the words of the assertion."""
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess(*plugin(), "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines_random([
        "*AssertionError: 12 tokens to gpt-4o-mini (exact), 7 more than the 5 allowed*",
        "*for 12 tokens in (exact) and 1,000 out to gpt-4o, more than the $0.0001 allowed*",
        "*AssertionError: the answer breaks the schema: *integer*",
    ])  # fmt: skip


def test_the_plugin_costs_other_projects_next_to_nothing():
    """Loading it imports none of our dependencies, nor our own modules."""
    code = (
        f"import sys, {MODULE}; heavy = ('orjson', 'msgspec', 'numpy', 'tiktoken', 'genai_prices', 'click');"
        "print([m for m in heavy if m in sys.modules],"
        "sorted(m for m in sys.modules if m.startswith('negawatt')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"[] ['negawatt', 'negawatt.checks', '{MODULE}']"


def test_the_plugin_is_announced_to_pytest():
    """The package names it under the entry point that pytest looks at."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"negawatt": MODULE}


def test_tools_and_frames_are_counted_too():
    """Messages have a frame around them; tools are part of the input."""
    tool = {"type": "function", "function": {"name": "find", "description": "Finds it.", "parameters": {}}}
    alone = assert_tokens("Where is my order?", 100)
    framed = assert_tokens(MESSAGES, 100)
    assert alone < framed < assert_tokens(MESSAGES, 100, tools=[tool])


def test_a_price_that_is_not_known_is_no_bargain():
    """A model without a price fails; one with a price returns it exactly."""
    with pytest.raises(AssertionError, match="no price is known for 'nobody-knows-it'"):
        assert_cost(MESSAGES, 100, model="nobody-knows-it")
    assert assert_cost("a", 1, model="gpt-4o", provider="openai", output_tokens=1000) == Decimal("0.0100025")


@pytest.mark.parametrize("text", ["", "{", '```json\n{"n": 1}\n```', '{"n": 1.5}', "[]", "{}"])
def test_an_answer_that_breaks_its_schema_fails(text):
    """Nothing is repaired on the way: a fence around JSON is not JSON."""
    with pytest.raises(AssertionError):
        assert_schema(text, SCHEMA)


def test_a_schema_that_is_none_is_the_fault_of_the_test():
    """It must not look as if the answer were wrong."""
    with pytest.raises(InputError, match="not a valid JSON Schema"):
        assert_schema("{}", {"type": "objekt"})
