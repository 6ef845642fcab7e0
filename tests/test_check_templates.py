"""Prompt templates under the check: their parts, their conditions, and what they include."""

import pytest
from checking import STABLE, agreed, checked, repository, rules, words

from negawatt.checks.plan import load_plan
from negawatt.checks.surfaces import read_surfaces
from negawatt.errors import ConfigError

SUPPORT = f"""+++
[variables]
question = {{ type = "str" }}
today = {{ type = "str" }}
tier = {{ one_of = ["basic", "gold"], default = "basic" }}
+++
::: task answer
{{{{ question }}}} on {{{{ today }}}}, in two sentences.

::: base role
{STABLE}

::: base refunds when tier == "gold"
Refunds are given at once.

::: include shared/tone
"""
TONE = f"::: base tone\n{words(30, 'tone')}\n"
FOLDER = 'templates = "prompts"'


def files(**changed):
    return {"prompts/support.md": SUPPORT, "prompts/shared/tone.md": TONE, **changed}


def test_blocks_are_in_the_order_in_which_they_are_sent(tmp_path):
    """Base comes before task; a condition ends the prefix; what is included keeps the file that it comes from."""
    found = {one.name: one for one in read_surfaces(load_plan(repository(tmp_path, files(), surfaces=FOLDER)))}
    assert set(found) == {"prompts/support.md", "prompts/shared/tone.md"}
    blocks = found["prompts/support.md"].blocks
    assert [(one.name, one.path, one.stable) for one in blocks] == [
        ("role", None, True), ("refunds", None, True), ("shared/tone.tone", "prompts/shared/tone.md", True),
        ("answer", None, False),
    ]  # fmt: skip
    assert [hole.said for hole in blocks[1].holes] == ['when tier == "gold"']
    assert [(hole.said, hole.line) for hole in blocks[3].holes] == [("question", 8), ("today", 8)]
    lock = agreed(tmp_path / "negawatt.check.toml").lock
    assert lock.surfaces["prompts/support.md"].prefix == lock.surfaces["prompts/support.md"].blocks["role"].tokens


def test_what_is_included_twice_is_said_once(tmp_path):
    """A passage that two templates share by including it is no duplicate; one that was copied is."""
    shared = files(**{"prompts/other.md": "::: base role\nBe quick.\n\n::: include shared/tone\n"})
    assert rules(agreed(repository(tmp_path, shared, surfaces=FOLDER))) == []
    copied = {**shared, "prompts/other.md": TONE}
    assert rules(agreed(repository(tmp_path, copied, surfaces=FOLDER))) == [("duplicate", "warning")]


def test_a_moment_belongs_into_the_task(tmp_path):
    """A date in the task is meant to change; the same variable in the base instructions ends the prefix."""
    path = repository(tmp_path, files(), surfaces=FOLDER)
    assert rules(agreed(path)) == []
    moved = SUPPORT.replace("::: base role\n", "::: base role\nToday is {{ today }}.\n")
    found = checked(repository(tmp_path, files(**{"prompts/support.md": moved}), surfaces=FOLDER))
    assert [(one.rule, one.path, one.line) for one in found.findings if one.level == "error"] == [
        ("volatile", "prompts/support.md", 11)
    ]


def test_a_block_has_a_budget_of_its_own(tmp_path):
    """The finding names the block and its line."""
    budget = '[[budgets]]\nsurface = "prompts/*"\nblock = "role"\nmost = 5'
    [one] = agreed(repository(tmp_path, files(), surfaces=FOLDER, more=budget)).findings
    assert (one.rule, one.path, one.line) == ("budget", "prompts/support.md", 10)
    assert "block 'role' of prompts/support.md" in one.what


def test_a_template_that_cannot_be_read_is_bad_input(tmp_path):
    """An undefined variable, or an empty folder, is refused with its place."""
    bad = files(**{"prompts/shared/tone.md": "::: base tone\n{{ nobody }}\n"})
    with pytest.raises(ConfigError, match=r"tone\.md:2: variable 'nobody' is not declared"):
        checked(repository(tmp_path, bad, surfaces=FOLDER))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="there is no template in 'empty'"):
        checked(repository(tmp_path, {}, surfaces='templates = "empty"'))
