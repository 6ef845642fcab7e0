"""Old turns of a conversation say less, the rest stays, and the original messages come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.shape.history import fold, unfold

LONG = "The depot in Lund opens at nine. " + "It rained on that day and nobody came to see the gates. " * 6
RESULT = json.dumps([{"town": f"Town {n}", "open": True} for n in range(20)])


def turn(asks: str, says: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": asks}, {"role": "assistant", "content": says}]


def called(name: str, arguments: str, result: str) -> list[dict[str, Any]]:
    call = {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{name}", "content": result}]  # fmt: skip


def talk(*old: dict[str, Any], asked: str = "Thanks, what now?") -> list[dict[str, Any]]:
    return [{"role": "system", "content": LONG}, *old, *turn("b", LONG), *turn("c", LONG),
            {"role": "user", "content": asked}]  # fmt: skip


def test_the_system_prompt_and_the_last_turns_stay_as_they_are():
    """Only what lies before the last three turns gets shorter."""
    messages = talk(*turn("a", LONG))
    folded = fold(messages)
    assert [folded.messages[i] for i in (0, 1, 3, 4, 5, 6, 7)] == [messages[i] for i in (0, 1, 3, 4, 5, 6, 7)]
    assert folded.messages[2] == {"role": "assistant", "content": "The depot in Lund opens at nine. [...] "}
    assert folded.saved > 250


def test_a_sentence_that_has_words_of_the_last_question_stays():
    """Beside the first one."""
    text = f"{LONG}The ferry to Ystad costs nine crowns. {LONG}"
    folded = fold(talk(*turn("a", text), asked="What does the ferry to Ystad cost?"))
    said = folded.messages[2]["content"]
    assert said.startswith("The depot in Lund opens at nine.") and "The ferry to Ystad costs nine crowns." in said
    assert len(said) < len(text) / 2


def test_a_result_that_is_referred_to_later_stays_whole():
    """An id that came up in the result, and is used again, holds it; another result becomes a note."""
    with_id = json.dumps({"order": "A-7731", "items": ["x"] * 80})
    old = [{"role": "user", "content": "a"}, *called("find", "{}", with_id), *called("list", "{}", RESULT)]
    folded = fold(talk(*old, asked="Cancel A-7731."))
    assert folded.messages[3]["content"] == with_id
    assert folded.messages[5]["content"] == f"[tool result left out: {len(RESULT):,} characters]"
    assert [m.get("tool_calls") for m in folded.messages] == [
        m.get("tool_calls") for m in talk(*old, asked="Cancel A-7731.")]  # fmt: skip


def test_an_id_that_the_user_named_first_holds_no_result():
    """It is known without the result."""
    old = [{"role": "user", "content": "Where is A-7731?"}, *called("find", "{}", f"A-7731 {LONG}")]
    assert fold(talk(*old, asked="Cancel A-7731.")).messages[3]["content"].startswith("[tool result left out")


def test_results_in_parts_of_a_message_fold_too():
    """As Anthropic's protocol has them: a message of the user that only brings results begins no turn."""
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": RESULT}]}
    old = [{"role": "user", "content": [{"type": "text", "text": "a"}]},
           {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "list", "input": {}}]},
           {"role": "user", "content": [result]}]  # fmt: skip
    messages = talk(*old)
    folded = fold(messages)
    part = folded.messages[3]["content"][0]
    assert part["tool_use_id"] == "t1" and part["content"][0]["text"].startswith("[tool result left out")
    assert unfold(folded, folded.removed.get) == messages


def test_code_in_an_old_answer_stays():
    """It cannot be said in fewer words."""
    code = "```python\nx = 1\n\ny = 2\n```\n"
    assert code in fold(talk(*turn("a", f"{LONG}\n{code}{LONG}"))).messages[2]["content"]


@pytest.mark.parametrize(
    ("messages", "why"),
    [([], "short"), (turn("a", LONG) * 3, "short"), (turn("a", "b") * 9, "long enough")],
)
def test_where_nothing_is_to_be_saved_nothing_is_changed(messages: list[dict], why: str):
    """It says why."""
    folded = fold(messages)
    assert list(folded.messages) == messages and not folded.edits
    assert folded.abstained is not None and why in folded.abstained


def test_no_turn_to_keep_is_refused():
    """The last question is never folded."""
    with pytest.raises(ValueError, match="at least one turn"):
        fold([], keep_turns=0)


TEXT = st.lists(st.sampled_from([LONG, "A-7731 ", RESULT, "\n\n", "```\ncode\n```\n", "Hm. "]), max_size=5).map("".join)
MESSAGE = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
    TEXT | st.none() | TEXT.map(lambda text: [{"type": "text", "text": text}]),
)


@given(st.lists(MESSAGE, max_size=12), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_the_original_messages_come_back(messages: list[dict], keep_turns: int):
    """Every message stays in its place, and all of them come back from the pieces; the ones given are not changed."""
    before = json.dumps(messages)
    folded = fold(messages, keep_turns=keep_turns)
    assert [one["role"] for one in folded.messages] == [one["role"] for one in messages]
    assert unfold(folded, folded.removed.get) == messages
    assert json.dumps(messages) == before
    saved = sum(len(json.dumps(a)) - len(json.dumps(b)) for a, b in zip(messages, folded.messages, strict=True))
    assert saved >= 0
