"""What the static tier finds: budgets, growth, the lock, the prefix, what is said twice, tool schemas."""

import copy
import json

import pytest
from checking import STABLE, TOOL, agreed, checked, repository, rules, words

from negawatt.checks.findings import exit_code
from negawatt.checks.measure import read_lock
from negawatt.checks.prefix import changes
from negawatt.errors import InputError

CONSTANTS = 'constants = ["asks.py:*"]'


def module(**constants):
    return "\n".join(f"{name} = {value!r}" for name, value in constants.items()) + "\n"


def asking(tmp_path, more="", **constants):
    return repository(tmp_path, {"asks.py": module(**constants)}, surfaces=CONSTANTS, more=more)


def test_without_a_lock_it_fails_and_with_one_it_passes(tmp_path):
    """Nothing can have grown against nothing: the lock is asked for, and written only on request."""
    path = asking(tmp_path, A=STABLE)
    first = checked(path)
    assert rules(first) == [("lock", "error")] and not (tmp_path / "tokens.lock.json").exists()
    assert exit_code(first.findings) == 1
    assert agreed(path).findings == []


def test_a_surface_may_grow_a_little_and_not_much(tmp_path):
    """At most 3 % or 50 tokens, whichever is larger; the finding names the numbers, the block and the remedy."""
    agreed(asking(tmp_path, A=STABLE))
    little = checked(asking(tmp_path, A=f"{STABLE} Never more."))
    assert rules(little) == [("lock", "warning")] and exit_code(little.findings) == 0
    assert exit_code(little.findings, strict=True) == 1
    much = checked(asking(tmp_path, A=f"{STABLE} {words(40)}"))
    assert rules(much)[0] == ("growth", "error")
    assert "has grown from 17 to" in much.findings[0].what and "--update" in much.findings[0].remedy
    assert (much.findings[0].path, much.findings[0].line) == ("asks.py", 1)


def test_small_steps_add_up_until_somebody_agrees(tmp_path):
    """Growth is against the lock, not against yesterday."""
    agreed(asking(tmp_path, A=STABLE))
    steps = [checked(asking(tmp_path, A=f"{STABLE} {words(n)}")) for n in (8, 16, 26, 34)]
    assert [exit_code(one.findings) for one in steps] == [0, 0, 1, 1]


def test_of_a_large_surface_three_percent_count(tmp_path):
    """60 tokens more are much of 100 and little of 3,000."""
    agreed(asking(tmp_path, A=words(1000)))
    more = checked(asking(tmp_path, A=words(1000) + " yes" * 60))
    assert ("growth", "error") not in rules(more)


def test_what_is_new_or_gone_must_be_agreed_to(tmp_path):
    """A surface that the lock does not know is an error; so is one that is only in the lock."""
    agreed(asking(tmp_path, A=STABLE))
    found = checked(asking(tmp_path, B=STABLE))
    assert [(one.surface, one.level) for one in found.findings] == [("asks.py:B", "error"), ("asks.py:A", "error")]


def test_other_models_need_a_new_lock(tmp_path):
    """Tokens of one model say nothing of another's."""
    agreed(asking(tmp_path, A=STABLE))
    path = tmp_path / "negawatt.check.toml"
    path.write_text('models = ["gpt-4o", "claude-sonnet-4-5"]\n' + path.read_text())
    assert rules(checked(path)) == [("lock", "error")]
    assert agreed(path).findings == []
    locked = json.loads((tmp_path / "tokens.lock.json").read_text())
    assert locked["models"] == {"gpt-4o": "exact", "claude-sonnet-4-5": "estimated"}


def test_the_lock_is_the_same_each_time_and_says_what_each_block_has(tmp_path):
    """Writing it again changes no byte; every block has its digest and its tokens."""
    path = asking(tmp_path, A=STABLE, B=["one", "two words"])
    assert checked(path, update=True).updated
    before = (tmp_path / "tokens.lock.json").read_bytes()
    assert not checked(path, update=True).updated
    assert (tmp_path / "tokens.lock.json").read_bytes() == before
    lock = read_lock(tmp_path / "tokens.lock.json")
    assert [one.tokens["gpt-4o"] for one in lock.surfaces["asks.py:B"].blocks.values()] == [1, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not valid JSON"), ('{"version": 9}', "version: expected 1, got 9"), ('{"version": 1}', "models")],
)
def test_a_damaged_lock_is_bad_input_and_can_be_made_anew(tmp_path, content, said):
    """It is never taken for an empty one."""
    path = asking(tmp_path, A=STABLE)
    (tmp_path / "tokens.lock.json").write_text(content)
    with pytest.raises(InputError, match="--update") as raised:
        checked(path)
    assert said in raised.value.message
    assert agreed(path).findings == []


def test_a_budget_holds_whatever_was_agreed_to(tmp_path):
    """--update blesses growth, never a budget; the finding says how many tokens to cut."""
    path = asking(tmp_path, '[[budgets]]\nsurface = "asks.py:*"\nmost = 10', A=STABLE, B="Short.")
    found = checked(path, update=True)
    assert rules(found) == [("budget", "error")]
    assert "asks.py:A has 17 tokens" in found.findings[0].what and "cut 7 tokens" in found.findings[0].remedy
    inside = '[[budgets]]\nsurface = "asks.py:A"\nblock = "text 1"\nmost = 10'
    assert rules(agreed(asking(tmp_path, inside, A=[STABLE, "Short."]))) == []
    assert rules(agreed(asking(tmp_path, inside, A=["Short.", STABLE]))) == [("budget", "error")]


def test_an_exception_has_its_reason_in_the_file(tmp_path):
    """A rule that is ignored for a surface finds nothing there, and still holds for others."""
    budget = '[[budgets]]\nsurface = "*"\nmost = 10\n'
    ignore = '[[ignore]]\nrule = "budget"\nsurface = "asks.py:A"\nbecause = "it is agreed"'
    found = agreed(asking(tmp_path, budget + ignore, A=STABLE, B=STABLE.upper()))
    assert [one.surface for one in found.findings] == ["asks.py:B"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('A = f"Now it is {datetime.now()}. Answer as well as you possibly can."', [("volatile", "error")]),
        ('A = f"Answer as well as you possibly can. Now it is {datetime.now()}."', []),
        ('A = "Request {request_id}: answer as well as you possibly can."', [("volatile", "error")]),
        ('A = f"Session {uuid.uuid4()}: answer as well as you possibly can."', [("volatile", "error")]),
        ('A = "Today is {date}. Answer as well as you possibly can."', [("volatile", "error")]),
        ('A = "Delivered on {date}. Answer as well as you possibly can."', []),
        ('A = "Session: {id}. Answer as well as you possibly can."', [("volatile", "error")]),
        ('A = "Order: {id}. Answer as well as you possibly can."', []),
        ('A = "Dear {customer}: answer as well as you possibly can."', []),
        ('A = "Asked was {question}. Now it is {now}. Answer as well as you can."', []),
        ('A = "Current date: 2026-11-01. Answer."', [("volatile", "error")]),
        ('A = "The terms of 2026-11-01 apply to all orders."', []),
        ('A = "Seen at 2026-11-01T10:00:00Z by us."', [("volatile", "warning")]),
        ('A = "Use 123e4567-e89b-12d3-a456-426614174000 for it."', [("volatile", "warning")]),
        ('A = [{"role": "system", "content": "It is {now}."}, {"content": "Hi"}]', [("volatile", "error")]),
    ],
)  # fmt: skip
def test_what_changes_must_not_stand_before_what_stays(tmp_path, source, found):
    """A moment, an id or a random number ends the cached prefix: an error unless nothing stands behind it."""
    path = repository(tmp_path, {"asks.py": f"\n\n{source}\n"}, surfaces=CONSTANTS)
    result = agreed(path)
    assert rules(result) == found
    assert all(one.line == 3 for one in result.findings)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("now()", True), ("time.time()", True), ("today", True), ("requestId", True), ("conversation_id", True),
        ("secrets.token_hex(8)", True), ("current_date", True), ("random.choice(x)", True), ("uuid", True),
        ("date", False), ("delivery_time", False), ("token", False), ("knowledge", False), ("customer", False),
        ("tone['now']", False), ("order_id", False), ("snow", False),
    ],
)  # fmt: skip
def test_words_say_what_changes(said, expected):
    """Whole words count, not parts of words; a date or a time may be the question's."""
    assert changes(said) is expected


def test_a_prefix_that_falls_below_what_providers_keep_is_an_error(tmp_path):
    """Moving a variable forward costs the whole cache; a prompt that never had one is warned of it."""
    long, tail = words(600), words(400, "v")
    assert agreed(asking(tmp_path, A=f"{long} {{x}} {tail}")).findings == []
    found = checked(asking(tmp_path, A=f"Dear {{x}}, {long} {tail}"))
    assert [(one.rule, one.level) for one in found.findings if one.rule == "prefix"] == [("prefix", "error")]
    assert rules(agreed(asking(tmp_path, A=f"Dear {{x}}, {long} {tail}"))) == [("prefix", "warning")]
    assert rules(agreed(asking(tmp_path, A="Dear {x}, in short."))) == []


def test_a_passage_is_said_once(tmp_path):
    """The same paragraph, and one that is nearly the same, are found with both places; short ones are not."""
    passage = words(40)
    nearly = passage.replace("w20 ", "other ")
    path = asking(
        tmp_path, A=f"One.\n\n{passage}", B=f"Two.\n\n{passage}", C=f"Three.\n\n{nearly}", D="Be kind.", E="Be kind."
    )
    found = agreed(path).findings
    assert [(one.rule, one.surface) for one in found] == [("duplicate", "asks.py:B"), ("duplicate", "asks.py:C")]
    assert "stands also at line 1" in found[0].what and "nearly so" in found[1].what
    different = asking(tmp_path, A=passage, B=words(40, "v"), C=" ".join(reversed(passage.split())))
    assert agreed(different).findings == []


def edited(**changes):
    tool = copy.deepcopy(TOOL)
    tool["function"] |= changes
    return tool


BAD_TYPE = {"type": "objekt"}
UNUSED = {"type": "object", "properties": {}, "$defs": {"Money": {"type": "number"}}}
REQUIRED = {"type": "object", "properties": {}, "required": ["number"]}
EMPTY = {"type": "object", "properties": {"orderNumber": {"type": "string", "description": "The order number."}}}
NESTED = {"type": "array", "items": {"type": "object", "properties": {"id": {"description": "the id"}}}}
TWICE = {"type": "object", "properties": {"a": {"description": "Seven digits."}, "b": {"description": "Seven digits."}}}


@pytest.mark.parametrize(
    ("tools", "level", "said"),
    [
        ([TOOL, TOOL], "error", "defined twice"),
        ([edited(parameters=BAD_TYPE)], "error", "not a valid JSON Schema"),
        ([edited(parameters=REQUIRED)], "error", "'number' is required, and not among"),
        ([edited(description="")], "warning", "has no description"),
        ([edited(description="Find order.")], "warning", "only repeats its name"),
        ([TOOL, edited(name="other")], "warning", "same description as 'find_order'"),
        ([edited(parameters=UNUSED)], "warning", "nothing refers to $defs/Money"),
        ([edited(parameters=EMPTY)], "warning", "find_order.orderNumber: its description only repeats"),
        ([edited(parameters=NESTED)], "warning", "find_order.id: its description only repeats"),
        ([edited(parameters=TWICE)], "warning", "its description is that of 'a'"),
    ],
)
def test_a_tool_schema_is_valid_and_says_nothing_for_nothing(tmp_path, tools, level, said):
    """What providers refuse is an error; words that tell a model nothing are a warning."""
    path = repository(tmp_path, {"tools.json": tools}, surfaces='tools = ["tools.json"]')
    [one] = agreed(path).findings
    assert (one.rule, one.level) == ("tool-schema", level) and said in one.what


def test_a_good_tool_has_no_finding(tmp_path):
    """The tool that the other cases are made from is right."""
    assert agreed(repository(tmp_path, {"tools.json": [TOOL]}, surfaces='tools = ["tools.json"]')).findings == []
