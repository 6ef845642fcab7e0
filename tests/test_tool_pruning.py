"""Tools that recorded calls do not need stay behind; those that may be called next do not."""

from __future__ import annotations

import random

import pytest

from negawatt.shape.tools import Need, ToolCalibration, fit_tools, held_tools, name_of, prune, without_duplicates

ABOUT = {
    "book_flight": "Book a flight for a passenger between two airports.",
    "cancel_order": "Cancel an order that was not shipped.",
    "convert_money": "Convert an amount of money between currencies.",
    "find_recipe": "Find a recipe by its ingredients.",
    "play_song": "Play a song by an artist.",
    "read_mail": "Read the newest mail in the inbox.",
    "set_alarm": "Set an alarm clock for a time of day.",
    "think": "Think about what to do.",
}
ASKS = {
    "book_flight": ["I need a flight to Oslo", "please book two passengers to the airport of Rome"],
    "cancel_order": ["cancel my order", "the order was not shipped, stop it"],
    "convert_money": ["what is this amount in other currencies", "convert nine euros"],
    "find_recipe": ["a recipe with leeks", "which ingredients make a soup"],
    "play_song": ["play the song again", "anything by this artist"],
    "read_mail": ["is there new mail", "read my inbox"],
    "set_alarm": ["wake me, set an alarm", "clock at seven"],
    "think": ["hm"],
}
TOOLS = [{"type": "function", "function": {"name": name, "description": text}} for name, text in ABOUT.items()]


def need(number: int) -> Need:
    rng = random.Random(number)
    name = rng.choice(sorted(set(ASKS) - {"think"}))
    return Need(TOOLS, [{"role": "user", "content": rng.choice(ASKS[name])}], frozenset({name}))


@pytest.fixture(scope="module")
def calibration() -> ToolCalibration:
    return fit_tools([need(number) for number in range(400)], "made up")


def names(tools: object) -> list[str]:
    return [name_of(tool) for tool in tools]  # type: ignore[attr-defined]


def test_recall_reaches_its_target_on_calls_that_were_not_fitted(calibration: ToolCalibration):
    """The tool called next stays in 95 %, and half of the list goes."""
    hits = left = 0
    for number in range(1000, 1300):
        one = need(number)
        pruned = prune(TOOLS, one.messages, calibration=calibration, recall=0.97)
        hits += one.called <= set(names(pruned.tools))
        left += len(pruned.tools)
        assert set(names(pruned.tools)) | set(pruned.left_out) == set(ABOUT)
        assert names(pruned.tools) == [name for name in ABOUT if name in names(pruned.tools)]
    assert hits >= 285
    assert left < 300 * len(TOOLS) / 2


@pytest.mark.parametrize(
    ("extra", "choice", "stays"),
    [
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "play_song", "arguments": "{}"}}]},
            None,
            "play_song",
        ),
        ({"role": "assistant", "content": [{"type": "tool_use", "name": "think", "input": {}}]}, None, "think"),
        ({"type": "function_call", "name": "think", "arguments": "{}"}, None, "think"),
        ({"role": "system", "content": "Before you end, read_mail."}, None, "read_mail"),
        ({"role": "user", "content": "so"}, {"type": "function", "function": {"name": "set_alarm"}}, "set_alarm"),
        ({"role": "user", "content": "so"}, {"type": "tool", "name": "think"}, "think"),
    ],
)
def test_tools_that_were_used_or_named_stay(calibration: ToolCalibration, extra: dict, choice: object, stays: str):
    """In any of the three protocols, and by the choice of the request."""
    messages = [extra, {"role": "user", "content": "cancel my order"}]
    assert stays in held_tools(TOOLS, messages, choice)
    pruned = prune(TOOLS, messages, calibration=calibration, recall=0.9, tool_choice=choice)
    assert stays in names(pruned.tools) and pruned.left_out


def test_a_tool_with_an_everyday_name_is_not_held_by_that_word():
    """ "I think" asks for no tool named think."""
    assert held_tools(TOOLS, [{"role": "user", "content": "I think so"}], None) == set()


@pytest.mark.parametrize(
    ("tools", "messages", "recall", "why"),
    [
        (TOOLS[:3], "cancel my order", 0.9, "too few tools"),
        (TOOLS, "cancel my order", 0.9999, "too few recorded calls"),
        ([*TOOLS, {"type": "web_search"}], "cancel my order", 0.9, "no name"),
    ],
)
def test_all_tools_stay_where_it_is_unsure(calibration: ToolCalibration, tools, messages: str, recall: float, why: str):
    """It says why."""
    pruned = prune(tools, [{"role": "user", "content": messages}], calibration=calibration, recall=recall)
    assert list(pruned.tools) == tools and pruned.left_out == ()
    assert pruned.abstained is not None and why in pruned.abstained


def test_without_recorded_calls_no_tool_goes():
    """A guess without evidence is none."""
    messages = [{"role": "user", "content": "xyzzy"}]
    assert prune(TOOLS, messages, calibration=None).abstained == "no recorded calls tell which tools are needed"
    nothing_known = ToolCalibration((0.0,), 99, "empty")
    assert prune(TOOLS, messages, calibration=nothing_known).abstained == "nothing tells the tools apart"
    with pytest.raises(ValueError, match="at least two"):
        fit_tools([], "nothing")


def test_a_call_of_a_tool_that_was_not_there_keeps_all_tools():
    """No gap is large enough for it, and it counts as evidence against pruning."""
    strange = Need(TOOLS, [{"role": "user", "content": "cancel my order"}], frozenset({"gone"}))
    assert fit_tools([strange, strange], "strange").gap(0.4) is None


def test_habits_lift_what_usually_follows():
    """After a search comes a booking, whatever the user says."""
    searched = [{"role": "user", "content": "yes"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "find_recipe"}}]}]  # fmt: skip
    needs = [Need(TOOLS, searched, frozenset({"play_song"})) for _ in range(60)]
    pruned = prune(TOOLS, searched, calibration=fit_tools(needs, "habit"), recall=0.9)
    assert names(pruned.tools) == ["find_recipe", "play_song"]


def test_tools_that_are_the_same_are_sent_once():
    """Whatever the order of their keys; one name with two schemas stays twice."""
    turned = {"function": {"description": ABOUT["think"], "name": "think"}, "type": "function"}
    other = {"type": "function", "function": {"name": "think", "description": "Another."}}
    assert without_duplicates([*TOOLS, turned, other]) == [*TOOLS, other]
