"""What a person asked last is found whatever the protocol, and whatever an agent wrote around it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import bare_call, chat

from negawatt.call import Request
from negawatt.protocol import Wire
from negawatt.routing.asked import MOST_ASKED, Asked, asked_of
from negawatt.wire.wires import WIRES

REMINDER = "<system-reminder>\nThe user opened a.py.\n</system-reminder>"
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "42 rows"}


def asked(*messages: dict[str, Any], protocol: str = "chat", **fields: Any) -> Asked:
    field = "input" if protocol == "responses" else "messages"
    return asked_of(bare_call({"model": "m", field: list(messages), **fields}, wire=WIRES[protocol]))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_the_newest_human_turn_is_the_ask():
    """Not what a tool returned after it, nor what the model said."""
    calls = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    found = asked(user("Book a flight."), calls, {"role": "tool", "tool_call_id": "c", "content": "No seats."})
    assert found.ask == "Book a flight." and found.after_tool and found.turns == 1
    assert not asked(user("Hello")).after_tool


def test_tool_results_of_other_protocols_are_no_asks():
    """Anthropic puts them into turns of the user, Responses into items of their own, old chat into functions."""
    found = asked(
        user("How many?"),
        {"role": "assistant", "content": "I look."},
        user([RESULT]),
        protocol="messages",
        max_tokens=9,
    )
    assert found.ask == "How many?" and found.after_tool
    items = [
        user("How many?"), {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"type": "computer_call_output", "call_id": "d", "output": {"type": "computer_screenshot"}},
        {"type": "web_search_call", "id": "w", "status": "completed"},
    ]  # fmt: skip
    assert asked(*items, protocol="responses").ask == "How many?"
    assert asked(user("How many?"), {"role": "function", "name": "f", "content": "42"}).ask == "How many?"


def test_what_a_person_says_beside_a_tool_result_counts():
    """Agents send both in one turn."""
    turn = user([RESULT, {"type": "text", "text": "Only those of May."}, {"type": "text", "text": REMINDER}])
    assert asked(user("How many?"), turn, protocol="messages", max_tokens=9).ask == "Only those of May."


@pytest.mark.parametrize(
    ("turn", "ask"),
    [
        (f"{REMINDER}\nFix the bug.", "Fix the bug."),
        (f"Fix the bug.\n\n{REMINDER}{REMINDER}", "Fix the bug."),
        ("<timestamp>12:00</timestamp>\n<user_query>\nFix the bug.\n</user_query>", "Fix the bug."),
        (
            "<context>x</context><reminderInstructions>y</reminderInstructions><userRequest>Fix it</userRequest>",
            "Fix it",
        ),
        ("Fix the bug.<environment_details>\n# Time\n12:00</environment_details>", "Fix the bug."),
        ("[read_file for 'a.py'] Result:\nx = 1\n<feedback>Wrong file.</feedback>", "Wrong file."),
        ("<environment_details type='x'>now</environment_details>Go left", "Go left"),
        ("What does <system-reminder> mean?", "What does <system-reminder> mean?"),
        ("Is a < b?  ", "Is a < b?  "),
        ("<feedback>Great!</feedback> Is this kind?", "<feedback>Great!</feedback> Is this kind?"),
        (f"<command-name>/fix</command-name>{REMINDER}<command-args>the bug</command-args>", "the bug"),
        ("<div>Translate this</div>", "<div>Translate this</div>"),
    ],
)
def test_blocks_that_agents_write_are_taken_out(turn: str, ask: str):
    """What a person wrote is left as it stands; a mark without its end is a person's."""
    assert asked(user(turn)).ask == ask
    assert asked(user([{"type": "text", "text": turn}])).ask == ask


@pytest.mark.parametrize(
    "turn",
    [
        REMINDER,
        "",
        "  \n",
        "<user_query></user_query>" + REMINDER,
        "<userRequest> </userRequest>",
        "[read_file for 'a.py'] Result:\nx = 1",
        "# AGENTS.md instructions for /src\nBe brief.",
        "This session is being continued from a previous conversation that ran out of context.",
        [{"type": "image_url", "image_url": {"url": "data:"}}],
        None,
        "continue",
        "Please continue!",
        "go on ...",
        "Weiter",
        "...",
    ],
)
def test_turns_in_which_nothing_is_asked_are_passed_over(turn: Any):
    """The ask is what was asked before them."""
    assert asked(user("Fix the bug."), {"role": "assistant", "content": "Shall I?"}, user(turn)).ask == "Fix the bug."


def test_an_answer_to_the_model_is_an_ask():
    """Yes and no mean something of their own."""
    assert asked(user("Fix the bug."), {"role": "assistant", "content": "Shall I?"}, user("Yes, do")).ask == "Yes, do"


def test_where_nothing_else_was_asked_going_on_is_the_ask():
    """And one looks back a few such turns only."""
    assert asked(user("continue")).ask == "continue"
    assert asked(user("Fix the bug."), *[user("continue")] * 5).ask == "Fix the bug."
    assert asked(user("Fix the bug."), *[user("continue")] * 6).ask == "continue"
    assert asked().ask == ""
    assert asked({"role": "system", "content": "Be brief."}).ask == ""


def test_the_ask_is_the_text_that_the_semantic_cache_embeds():
    """So that one vector serves both."""
    for request in (chat(" What?  "), chat([{"type": "text", "text": "What?"}, {"type": "text", "text": "Why?"}])):
        call = bare_call({**request, "messages": [user(request["messages"][0]["content"])]})
        question = call.wire.question(call.request)
        assert question is not None and asked_of(call).ask == question.text
    call = bare_call({"model": "m", "input": "What?"}, wire=WIRES["responses"])
    question = call.wire.question(call.request)
    assert question is not None and asked_of(call).ask == question.text


def test_other_protocols_have_an_ask_where_somebody_asks():
    """A reranking its query, a legacy completion its prompt, texts to embed none."""
    requests = {
        "rerank": ({"query": "Which?", "documents": ["a"]}, "Which?"),
        "completions": ({"prompt": "Once upon"}, "Once upon"),
        "embeddings": ({"input": "a text"}, ""),
        "count_tokens": ({"messages": [user("Hello")]}, "Hello"),
    }
    for protocol, (fields, ask) in requests.items():
        found = asked_of(bare_call({"model": "m", **fields}, wire=WIRES[protocol]))
        assert (found.ask, found.protocol, found.model) == (ask, protocol, "m")


def test_the_signature_is_that_of_the_words():
    """White space does not matter; there is none without a system prompt; later instructions are not part of it."""
    one = asked({"role": "system", "content": "Be  brief.\n"}, user("Hi"))
    other = asked({"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}, user("Hello"))
    assert one.signature == other.signature == hashlib.sha256(b"Be brief.").hexdigest()
    late = asked({"role": "system", "content": "Be brief."}, user("Hi"), {"role": "system", "content": "Now end."})
    assert late.signature == one.signature
    assert asked(user("Hi")).signature is None
    block = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert asked(user("Hi"), protocol="messages", system=block, max_tokens=9).signature == one.signature


def test_the_context_is_everything_but_the_ask_and_the_models_words():
    """In its order; what an agent put beside the ask belongs to it."""
    found = asked(
        {"role": "system", "content": "Rules."}, user("First."), {"role": "assistant", "content": "Made up."},
        user(f"Second.{REMINDER}"), {"role": "tool", "tool_call_id": "c", "content": "Found."},
    )  # fmt: skip
    assert found.ask == "Second." and found.context == f"Rules.\n\nFirst.\n\n{REMINDER}\n\nFound."
    assert asked(user("Only.")).context == ""


def test_what_comes_beside_text_is_seen():
    """By the names that each protocol has for it, in tool results too."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
    result = {**RESULT, "content": [image]}
    assert asked(user([result]), protocol="messages", max_tokens=9).inputs == {"image"}
    assert asked(user([{"type": "document", "source": {}}]), protocol="messages", max_tokens=9).inputs == {"file"}
    parts = [{"type": "input_audio", "input_audio": {}}, {"type": "file", "file": {}}]
    assert asked(user(parts)).inputs == {"audio", "file"}
    output = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "x"}]}
    assert asked(output, protocol="responses").inputs == {"image"}
    assert asked(user("an image_url")).inputs == frozenset()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I reset my password?", "en"),
        ("Wie kann ich mein Passwort ändern?", "de"),
        ("パスワードをリセットするには", "ja"),
        ("Как сбросить пароль?", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_language_is_named_where_it_gives_itself_away(text: str, language: str | None):
    """A script that several languages share names none."""
    assert asked(user(text)).language == language


def test_the_rest_of_the_request_is_read():
    """Tools, metadata, template, contract, size."""
    found = asked(
        user("Hello"), tools=[{"type": "function", "function": {"name": "search"}}, {"type": "custom"}],
        metadata={"team": "a", "n": 3, "on": True, "deep": {"x": 1}, "none": None},
        negawatt={"template": "faq"}, response_format={"type": "json_object"},
    )  # fmt: skip
    assert found.tools == ("search", "") and found.template == "faq" and found.contract is not None
    assert found.metadata == {"team": "a", "n": "3", "on": "true"}
    assert found.chars == 5
    assert asked(user("Hello")).template is None
    assert asked(user("Hi"), protocol="responses", prompt={"id": "pmpt_1"}).template == "pmpt_1"


def test_a_request_is_read_once():
    """Every lever gets the same; a changed request is another."""
    call = bare_call(chat("Hello"))
    assert asked_of(call) is asked_of(call.with_(request_class="faq"))
    assert asked_of(call.with_request(messages=[user("Bye")])).ask == "Bye"
    assert asked_of(call.with_(wire=WIRES["count_tokens"])).protocol == "count_tokens"


def test_a_huge_turn_is_read_in_part():
    """And marks without an end do not make it slow: the time is in proportion."""
    found = asked(user("a" * 1_000_000))
    assert len(found.ask) == MOST_ASKED and found.chars == 1_000_000
    assert len(asked(user("<system-reminder>" * 50_000)).ask) == MOST_ASKED
    assert asked(*[{"role": "tool", "content": "x"}] * 20_000).ask == ""


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.sampled_from(
        ["user", "system", "tool", "text", "image_url", "continue", "<user_query>", REMINDER, "\ud800", "é"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["role", "content", "text", "type", "tool_calls", "function", "name", "output", "source"]),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(WIRES)),
    st.dictionaries(
        st.sampled_from(["messages", "input", "system", "instructions", "tools", "metadata", "negawatt", "prompt",
                         "model", "response_format", "query", "documents", "text"]),
        ANYTHING, max_size=6,
    ),
)  # fmt: skip
def test_no_request_is_too_odd(protocol: str, data: dict[str, Any]):
    """Whatever the JSON, everything can be asked of it, and the ask is a text."""
    wire: Wire = WIRES[protocol]
    found = asked_of(bare_call(wire=wire).with_(request=Request(data=data)))
    assert isinstance(found.ask, str) and len(found.ask) <= MOST_ASKED
    for name in ("system", "signature", "language", "inputs", "chars", "context"):
        getattr(found, name)
